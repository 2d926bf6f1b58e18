"""No sequence of acts, transfers, ticks and corrections breaks what holds of every dossier."""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from typing import Any, ClassVar, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from deploy.demo.sample import SAMPLE
from services.intake import acts
from services.intake.dossier import (
    Actor,
    Dossier,
    Past,
    Refusal,
    begin,
    blank,
    correct,
    decide,
    fold,
    from_json,
    next_tick,
    reschedule,
    tick,
    to_json,
    transferred,
)
from shared.clock import current_due
from shared.contracts import events as ev
from shared.contracts.codes import parse_instant, uuid7
from shared.contracts.events import EVENTS, MOVES
from shared.directory.directory import Directory
from shared.directory.merge import merge
from shared.directory.reading import load_bundle

T = TypeVar("T")
DESK, OFFICER, ADMIN = Actor("desk", "d"), Actor("officer", "o"), Actor("admin", "a")
START = parse_instant("2026-02-09T08:00:00+07:00")  # a week before Tết
PROCEDURES = ("1.001193", "1.004873", "2.000720", "1.004222", "2.002621", "2.000942", "2.001263", "1.012812")
BODIES: dict[str, dict[str, Any]] = {
    "refuse": {"reason": "x"},
    "supplement-request": {"reason": "x"},
    "payment-request": {"amount": 5},
    "payment": {"amount": 5, "method": "online"},
    "withdrawal-request": {"reason": "x"},
    "withdrawal-refusal": {"reason": "x"},
    "stop": {"reason": "x"},
    "digitisation": {"component": "x"},
    "resolution": {"result": "granted"},
    "return": {"by": "counter"},
    "rating": {"level": "neutral"},
}


@cache
def directory() -> Directory:
    site, _ = merge(None, load_bundle(SAMPLE))
    return Directory(site)


def attempt(decision: Callable[[], T]) -> T | Refusal:
    try:
        return decision()
    except Refusal as refusal:
        return refusal


class Life(RuleBasedStateMachine):
    """One dossier, with everything that may happen to it."""

    dossier: Dossier
    history: list[Past]
    now: datetime
    operations: ClassVar[list[str]] = sorted(set(acts.BODIES) - {"correction", "extension"})

    @initialize(procedure=st.sampled_from(PROCEDURES), submitted=st.booleans(), kept=st.integers(0, 1))
    def begin(self, procedure: str, submitted: bool, kept: int) -> None:
        body = {
            "procedure": procedure,
            "receiving_agency": "H55.242",
            "channel": "counter",
            "applicant": {"kind": "citizen", "name": "A"},
            "return_by": "counter",
        }
        self.now, self.history = START, []
        new = acts.NewSubmission(**body) if submitted else acts.ImportedDossier(**body)
        if kept and not submitted:
            new = acts.ImportedDossier(**body, due_at=START + timedelta(days=12, hours=2))
        self.dossier, events, at = begin(new, DESK, START, self.now, directory(), "live", "c1")
        self.dossier.code = "H55.242-260209-0001"
        self._take(events, at)

    def _take(self, events: list[ev.EventData], at: datetime) -> None:
        for data in events:
            assert isinstance(data, ev.DossierEvent)
            assert data.previous == (self.dossier.state or None)
            assert (data.previous, data.state) in MOVES[data.short]
            fold(self.dossier, data, at, self.now)
            assert (self.dossier.state, self.dossier.due_at, self.dossier.paused) == (
                data.state,
                data.due_at,
                data.paused,
            )
            assert EVENTS[data.short].model_validate_json(data.to_json()) == data
            self.history.append(Past(self.dossier.sequence, uuid7(), at, self.now, "live", data))

    @rule(minutes=st.integers(1, 60 * 24 * 9))
    def time_passes(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule(op=st.sampled_from(operations), back=st.integers(0, 200), actor=st.sampled_from([DESK, OFFICER, ADMIN]))
    def act(self, op: str, back: int, actor: Actor) -> None:
        before = to_json(self.dossier)
        body = acts.BODIES[op].model_validate({**BODIES.get(op, {}), "at": self.now - timedelta(minutes=back)})
        decision = attempt(lambda: decide(self.dossier, op, body, actor, self.now, directory()))
        if isinstance(decision, Refusal):
            assert decision.status in (409, 422)
            assert to_json(self.dossier) == before
        else:
            assert decision.events
            self._take(decision.events, decision.at)

    @rule(days=st.integers(-3, 30))
    def extend(self, days: int) -> None:
        body = acts.Extension(reason="x", due_at=self.now + timedelta(days=days), at=self.now)
        decision = attempt(lambda: decide(self.dossier, "extension", body, DESK, self.now, directory()))
        if not isinstance(decision, Refusal):
            self._take(decision.events, decision.at)

    @precondition(lambda self: bool(self.dossier.steps))
    @rule(
        pick=st.integers(0, 5),
        kind=st.sampled_from([ev.TransferRequested, ev.TransferAccepted, ev.TransferRefused, ev.TransferCompleted]),
        result=st.sampled_from(["granted", "denied"]),
    )
    def hear_of_a_transfer(self, pick: int, kind: type[ev.TransferEvent], result: ev.Result) -> None:
        step = self.dossier.steps[pick % len(self.dossier.steps)]
        last = step is self.dossier.steps[-1]
        more: dict[str, Any] = {}
        if kind is ev.TransferRefused:
            more = {"reason": "x", "next_steps": ("resolve",)}
        elif kind is ev.TransferCompleted:
            more = {"result": result, "route_complete": last, "route_result": result if last else None}
        data = kind(
            transfer=UUID(step["transfer"]),
            dossier=self.dossier.code,
            step=step["step"],
            from_agency="H55.242",
            to="H55.21",
            attempt=1,
            agency="H55.242",
            due_at=None,
            **more,
        )
        self._take(transferred(self.dossier, data), max(self.now, self.dossier.last_at or self.now))

    @rule()
    def look_at_the_clock(self) -> None:
        self._take(tick(self.dossier, self.now, directory()), self.now)
        at = next_tick(self.dossier, directory())
        assert at is None or at >= self.now  # whatever was due has been raised

    @rule()
    def move_open(self) -> None:
        self._take(reschedule(self.dossier, directory()), self.now)
        assert reschedule(self.dossier, directory()) == []

    @rule(actor=st.sampled_from([DESK, ADMIN]), which=st.integers(1, 3))
    def undo(self, actor: Actor, which: int) -> None:
        named = self.history[-min(which, len(self.history))]
        body = acts.Correction(undoes=str(named.id), reason="x")
        before = to_json(self.dossier)
        corrected = attempt(lambda: correct(self.dossier, self.history, body, actor, self.now, directory()))
        if isinstance(corrected, Refusal):
            assert corrected.status in (403, 409, 422)
            assert to_json(self.dossier) == before
            return
        decision, after = corrected
        state = self.dossier.state
        for number, data in enumerate(decision.events, self.dossier.sequence + 1):
            assert isinstance(data, ev.DossierCorrected)
            assert data.previous == state
            state = data.state
            self.history.append(Past(number, uuid7(), decision.at, self.now, "live", data))
        self.dossier = after
        last = decision.events[-1]
        assert isinstance(last, ev.DossierCorrected)
        assert (after.state, after.due_at, after.paused) == (last.state, last.due_at, last.paused)

    @invariant()
    def sequences_are_contiguous(self) -> None:
        if hasattr(self, "history"):
            assert [past.sequence for past in self.history] == list(range(1, self.dossier.sequence + 1))

    @invariant()
    def events_are_a_chain(self) -> None:
        state: int | None = None
        for past in getattr(self, "history", []):
            assert past.data.previous == state
            state = past.data.state

    @invariant()
    def json_holds_all_of_it(self) -> None:
        if hasattr(self, "history"):
            assert from_json(to_json(self.dossier)) == self.dossier

    @invariant()
    def the_dossier_is_the_fold_of_what_stands(self) -> None:
        if not hasattr(self, "history"):
            return
        undone = {past.data.undoes for past in self.history if isinstance(past.data, ev.DossierCorrected)}
        folded = blank(self.dossier)
        for past in self.history:
            if past.id not in undone and not isinstance(past.data, ev.DossierCorrected):
                fold(folded, past.data, past.time, past.recorded)
        for name in Dossier.__dataclass_fields__:
            if name not in ("sequence", "recorded", "due_at", "due_since"):
                assert getattr(folded, name) == getattr(self.dossier, name), name

    @invariant()
    def the_due_date_is_a_function_of_the_acts(self) -> None:
        d = getattr(self, "dossier", None)
        if d is None:
            return
        assert (d.limit is None) == (d.due_at is None) == (d.received_at is None)
        if d.limit is not None and d.received_at is not None:
            assert d.due_at == current_due(
                d.limit,
                d.received_at,
                d.calendar_in(directory()),
                d.clock_pauses(),
                extension=d.clock_extension(),
                kept=d.kept_due,
            )

    @invariant()
    def what_is_paused_is_open(self) -> None:
        d = getattr(self, "dossier", None)
        if d is not None and d.paused and d.state in (1, 2, 4):
            pytest.fail(f"paused in {d.state}")


Life.TestCase.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLife = Life.TestCase
