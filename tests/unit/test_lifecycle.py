"""A dossier's lifecycle and deadline: every operation in every state, and what each brings with it.

The table is written from the portal's states and the moves that this project allows, not from the code's.
"""

from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any
from uuid import UUID

import pytest

from deploy.demo.sample import SAMPLE
from services.intake import acts
from services.intake.dossier import (
    Actor,
    Decision,
    Dossier,
    Past,
    Refusal,
    begin,
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
from shared.clock import Limit, Pause, Unit, current_due, first_due
from shared.contracts import events as ev
from shared.contracts.codes import parse_instant, uuid7
from shared.directory.directory import Directory
from shared.directory.merge import merge
from shared.directory.reading import load_bundle

DESK = Actor("desk", "d", timedelta(hours=24))
OFFICER = Actor("officer", "o", timedelta(hours=24))
ADMIN = Actor("admin", "a")
PORTAL = Actor("portal", "p")
IMPORT = Actor("import", "i")

HOME = "H55.242"
SAME_DAY, THREE_DAYS, PAUSING, ROUTED, TWO_STEPS = "1.001193", "1.004873", "2.000720", "1.004222", "2.002621"


@cache
def directory() -> Directory:
    site, _ = merge(None, load_bundle(SAMPLE))
    return Directory(site)


def local(text: str) -> datetime:
    """An instant in Việt Nam: '2026-03-02 08:00'."""
    return parse_instant(f"{text.replace(' ', 'T')}:00+07:00")


MONDAY = local("2026-03-02 08:00")

BODIES: dict[str, dict[str, Any]] = {
    "receive": {},
    "refuse": {"reason": "không thuộc thẩm quyền"},
    "start": {},
    "supplement-request": {"reason": "thiếu giấy tờ"},
    "supplement": {},
    "payment-request": {"amount": 15_000},
    "payment": {"amount": 15_000, "method": "online"},
    "withdrawal-request": {"reason": "không còn nhu cầu"},
    "withdrawal": {},
    "withdrawal-refusal": {"reason": "đã có kết quả"},
    "stop": {"reason": "không đủ điều kiện"},
    "extension": {"reason": "cần xác minh", "due_at": local("2026-06-01 17:00")},
    "digitisation": {"component": "Tờ khai"},
    "resolution": {"result": "granted"},
    "return": {"by": "counter"},
    "rating": {"level": "satisfied"},
}

# state -> operation -> the state after it; what is not named is refused.
MOVES: dict[int, dict[str, int]] = {
    1: {"receive": 2, "refuse": 3, "supplement-request": 5, "withdrawal-request": 7},
    2: {
        "start": 4,
        "supplement-request": 5,
        "payment-request": 6,
        "withdrawal-request": 7,
        "stop": 8,
        "resolution": 9,
    },
    3: {},
    4: {"supplement-request": 5, "payment-request": 6, "withdrawal-request": 7, "stop": 8, "resolution": 9},
    5: {"supplement": 2, "withdrawal-request": 7, "stop": 8},
    6: {"payment": 4, "withdrawal-request": 7, "stop": 8},
    7: {"withdrawal": 8, "withdrawal-refusal": 2},
    8: {},
    9: {"return": 10},
    10: {},
}
FACTS: dict[str, set[int]] = {
    "payment": {2, 4, 5, 9},
    "extension": {2, 4, 5, 6, 7},
    "digitisation": {1, 2, 4, 5, 6, 7, 8, 9, 10},
    "rating": {3, 8, 9, 10},
}
# How a dossier comes to each state, from a submission.
PATHS: dict[int, tuple[str, ...]] = {
    1: (),
    2: ("receive",),
    3: ("refuse",),
    4: ("receive", "start"),
    5: ("receive", "supplement-request"),
    6: ("receive", "payment-request"),
    7: ("receive", "withdrawal-request"),
    8: ("receive", "stop"),
    9: ("receive", "resolution"),
    10: ("receive", "resolution", "return"),
}


class Desk:
    """One dossier with its history, as the writer would keep it."""

    def __init__(
        self, procedure: str = THREE_DAYS, at: datetime = MONDAY, *, submitted: bool = False, **more: Any
    ) -> None:
        body = {
            "procedure": procedure,
            "receiving_agency": HOME,
            "channel": "counter",
            "applicant": {"kind": "citizen", "name": "Nguyễn Văn A"},
            "return_by": "counter",
            **more,
        }
        self.now = at
        new = acts.NewSubmission(**body) if submitted else acts.ImportedDossier(**body)
        self.dossier, events, happened = begin(new, IMPORT, at, self.now, directory(), "live", "c1")
        self.dossier.code = "H55.242-260302-0001"
        self.history: list[Past] = []
        self._take(events, happened, self.now)

    def _take(self, events: list[ev.EventData], at: datetime, recorded: datetime, mode: str = "live") -> list[UUID]:
        ids = []
        for data in events:
            assert isinstance(data, ev.DossierEvent)
            assert data.previous == (self.dossier.state or None)
            fold(self.dossier, data, at, recorded, mode)
            assert (self.dossier.state, self.dossier.due_at, self.dossier.paused) == (
                data.state,
                data.due_at,
                data.paused,
            )
            ids.append(uuid7())
            self.history.append(Past(self.dossier.sequence, ids[-1], at, recorded, mode, data))
        return ids

    def later(self, **how: float) -> "Desk":
        self.now += timedelta(**how)
        return self

    def do(self, op: str, actor: Actor = ADMIN, mode: str = "live", **more: Any) -> Decision:
        body = acts.BODIES[op].model_validate({**BODIES[op], **more})
        decision = decide(self.dossier, op, body, actor, self.now, directory())
        self._take(decision.events, decision.at, self.now, mode)
        return decision

    def time_passes(self) -> list[str]:
        events = tick(self.dossier, self.now, directory())
        self._take(events, self.now, self.now)
        return [event.short for event in events]

    def transfer(self, kind: type[ev.TransferEvent], transfer: str, **more: Any) -> list[str]:
        data = kind(
            transfer=UUID(transfer),
            dossier=self.dossier.code,
            step=1,
            from_agency=HOME,
            to="H55.21",
            attempt=1,
            agency=HOME,
            due_at=None,
            origin=None,
            **more,
        )
        events = transferred(self.dossier, data)
        self._take(events, max(self.now, self.dossier.last_at or self.now), self.now)
        return [event.short for event in events]

    def undo(self, actor: Actor = ADMIN, undoes: UUID | None = None) -> list[ev.DossierCorrected]:
        body = acts.Correction(undoes=str(undoes or self.history[-1].id), reason="nhầm hồ sơ")
        decision, after = correct(self.dossier, self.history, body, actor, self.now, directory())
        for number, data in enumerate(decision.events, self.dossier.sequence + 1):
            assert isinstance(data, ev.DossierCorrected)
            self.history.append(Past(number, uuid7(), decision.at, self.now, "live", data))
        self.dossier = after
        return [e for e in decision.events if isinstance(e, ev.DossierCorrected)]

    @property
    def names(self) -> list[str]:
        return [past.data.short.removeprefix("dossier.") for past in self.history]


def at_state(state: int, **more: Any) -> Desk:
    desk = Desk(submitted=True, **more)
    for op in PATHS[state]:
        desk.later(minutes=1).do(op)
    assert desk.dossier.state == state
    return desk.later(minutes=1)


@pytest.mark.parametrize("state", range(1, 11))
@pytest.mark.parametrize("op", sorted(BODIES))
def test_every_operation_in_every_state(state: int, op: str) -> None:
    desk = at_state(state)
    if op in MOVES[state]:
        desk.do(op)
        assert desk.dossier.state == MOVES[state][op]
    elif state in FACTS.get(op, ()):
        desk.do(op)
        assert desk.dossier.state == state
    else:
        before = to_json(desk.dossier)
        with pytest.raises(Refusal) as refusal:
            desk.do(op)
        assert (refusal.value.status, refusal.value.code) == (409, "move-not-allowed")
        assert refusal.value.extra["state"] == state
        assert set(MOVES[state]) <= set(refusal.value.extra["allowed"])
        facts = {fact for fact, states in FACTS.items() if state in states}
        assert set(refusal.value.extra["allowed"]) <= set(MOVES[state]) | facts
        assert to_json(desk.dossier) == before


@pytest.mark.parametrize("back_to", [1, 2, 4])
def test_a_supplement_goes_back_to_where_it_was_asked_for(back_to: int) -> None:
    desk = at_state(back_to)
    desk.do("supplement-request")
    assert desk.dossier.state == 5
    desk.later(minutes=1).do("supplement")
    assert desk.dossier.state == back_to


@pytest.mark.parametrize("back_to", [1, 2, 4, 5, 6])
def test_a_withdrawal_that_is_refused_goes_back_to_where_it_was(back_to: int) -> None:
    desk = at_state(back_to)
    paused = desk.dossier.paused
    desk.do("withdrawal-request")
    assert (desk.dossier.state, desk.dossier.paused) == (7, paused)
    desk.later(minutes=1).do("withdrawal-refusal")
    assert (desk.dossier.state, desk.dossier.paused) == (back_to, paused)


def test_what_was_never_received_may_be_refused_while_a_supplement_is_waited_for() -> None:
    desk = at_state(1)
    desk.do("supplement-request")
    assert "refuse" in desk.dossier.allowed()
    assert "extension" not in desk.dossier.allowed()
    desk.later(minutes=1).do("refuse")
    assert desk.dossier.state == 3


def test_a_dossier_never_received_is_not_extended_in_7() -> None:
    desk = at_state(1)
    desk.do("withdrawal-request")
    with pytest.raises(Refusal) as refusal:
        desk.do("extension")
    assert refusal.value.code == "move-not-allowed"


def test_a_submission_has_no_due_date_and_a_receipt_freezes_it() -> None:
    desk = at_state(1)
    assert (desk.dossier.due_at, desk.dossier.limit, desk.dossier.paused) == (None, None, False)
    desk.do("supplement-request")
    assert not desk.dossier.paused
    desk.later(minutes=1).do("supplement")
    desk.later(minutes=1).do("receive")
    assert desk.dossier.limit == Limit(value=Decimal(3), unit=Unit.WORKING_DAYS)
    assert desk.dossier.calendar == ("H55", 1)
    assert desk.dossier.due_at == local("2026-03-05 17:00")


# ----------------------------------------------------------------------------------------------- warnings


def test_extensions_warn_on_the_due_day_and_when_repeated() -> None:
    desk = Desk(at=MONDAY)  # due Thursday 17:00
    assert desk.later(days=2).do("extension", due_at=local("2026-03-09 17:00")).warnings == []
    assert desk.do("extension", due_at=local("2026-03-10 17:00")).warnings == ["extension-repeated"]
    late = Desk(at=MONDAY).later(days=3)
    assert late.do("extension", due_at=local("2026-03-09 17:00")).warnings == ["extension-late"]


def test_an_extension_must_be_later_than_the_present_due_date() -> None:
    desk = Desk(at=MONDAY)
    due = desk.dossier.due_at
    with pytest.raises(Refusal) as refusal:
        desk.do("extension", due_at=due)
    assert (refusal.value.status, refusal.value.pointer) == (422, "/due_at")
    assert desk.dossier.due_at == due


def test_a_second_supplement_request_warns() -> None:
    desk = Desk()
    assert desk.do("supplement-request").warnings == []
    desk.later(minutes=1).do("supplement")
    assert desk.later(minutes=1).do("supplement-request").warnings == ["supplement-repeated"]


# ----------------------------------------------------------------------------------------- the route


def test_a_route_that_is_changed_meanwhile_is_not_the_one_of_a_dossier_that_was_received_before() -> None:
    before, old = Desk(TWO_STEPS), directory().procedure(TWO_STEPS)
    bundle = load_bundle(SAMPLE)
    procedures = [
        each.model_copy(update={"route": each.route[:1]}) if each.code == TWO_STEPS else each
        for each in bundle.procedures or ()
    ]
    changed = Directory(merge(None, bundle.model_copy(update={"procedures": procedures}))[0])
    assert len(changed.procedure(TWO_STEPS).route) == 1
    start = acts.BODIES["start"].model_validate({})
    [started] = decide(before.dossier, "start", start, OFFICER, MONDAY, changed).events
    assert isinstance(started, ev.DossierProcessingStarted)
    assert [step.step for step in started.route] == [step.step for step in old.route] == [1, 2]


def test_a_payment_that_brings_a_dossier_into_4_for_the_first_time_starts_the_work() -> None:
    desk = Desk(ROUTED)
    desk.do("payment-request")
    desk.later(minutes=1).do("payment")
    assert desk.dossier.state == 4
    assert desk.names[-2:] == ["paid", "processing-started"]
    assert len(desk.dossier.steps) == 1
    desk.do("payment-request")
    desk.later(minutes=1).do("payment")
    assert desk.names[-1] == "paid"  # not for the first time


def test_open_transfers_refuse_the_resolution_and_are_named() -> None:
    desk = Desk(TWO_STEPS)
    desk.do("start", OFFICER)
    first, second = (step["transfer"] for step in desk.dossier.steps)
    for state in (None, ev.TransferRequested, ev.TransferDelivered, ev.TransferAccepted):
        if state is not None:
            desk.transfer(state, first)
        with pytest.raises(Refusal) as refusal:
            desk.do("resolution", OFFICER)
        assert (refusal.value.status, refusal.value.extra["transfers"]) == (409, [first])
        assert "resolution" not in refusal.value.extra["allowed"]
    desk.transfer(ev.TransferCompleted, first, result="granted", route_complete=False)
    with pytest.raises(Refusal) as refusal:
        desk.do("resolution", OFFICER)
    assert refusal.value.extra["transfers"] == [second]


def test_a_refused_transfer_leaves_the_resolution_to_its_sender() -> None:
    desk = Desk(ROUTED)
    desk.do("start", OFFICER)
    (step,) = desk.dossier.steps
    desk.transfer(ev.TransferRequested, step["transfer"])
    desk.transfer(ev.TransferRefused, step["transfer"], reason="sai thẩm quyền", next_steps=("resolve",))
    desk.do("resolution", OFFICER)
    assert desk.dossier.state == 9


@pytest.mark.parametrize("result", ["granted", "denied"])
def test_the_route_resolves_the_dossier_by_itself(result: ev.Result) -> None:
    desk = Desk(ROUTED)
    desk.do("start", OFFICER)
    (step,) = desk.dossier.steps
    desk.transfer(ev.TransferAccepted, step["transfer"])
    assert desk.transfer(
        ev.TransferCompleted, step["transfer"], result=result, route_complete=True, route_result=result
    ) == ["dossier.resolved"]
    last = desk.history[-1].data
    assert isinstance(last, ev.DossierResolved)
    assert (desk.dossier.state, last.result, last.by_route, last.by) == (9, result, True, "system")


@pytest.mark.parametrize(
    ("there", "back"),
    [
        (("supplement-request",), ("supplement",)),
        (("payment-request",), ("payment",)),
        (("withdrawal-request",), ("withdrawal-refusal",)),
        (("supplement-request", "withdrawal-request"), ("withdrawal-refusal", "supplement")),
    ],
)
def test_a_route_that_ends_meanwhile_resolves_when_the_dossier_is_back(
    there: tuple[str, ...], back: tuple[str, ...]
) -> None:
    desk = Desk(ROUTED)
    desk.do("start", OFFICER)
    (step,) = desk.dossier.steps
    for op in there:
        desk.do(op)
    assert (
        desk.transfer(
            ev.TransferCompleted, step["transfer"], result="denied", route_complete=True, route_result="denied"
        )
        == []
    )
    for op in back:
        assert desk.dossier.state != 9
        desk.later(minutes=1).do(op)
    assert desk.dossier.state == 9
    assert isinstance(desk.history[-1].data, ev.DossierResolved)
    assert desk.history[-1].data.result == "denied"


# ------------------------------------------------------------------------------------------------- time


def test_time_rules() -> None:
    desk = Desk(at=MONDAY).later(days=3)

    def code_of(actor: Actor, at: datetime) -> str | None:
        try:
            decide(desk.dossier, "start", acts.Plain(at=at), actor, desk.now, directory())
        except Refusal as refusal:
            return f"{refusal.status} {refusal.code} {refusal.pointer}"
        return None

    for actor in (DESK, OFFICER, ADMIN, IMPORT, PORTAL):
        assert code_of(actor, desk.now + timedelta(minutes=5)) is None
        assert code_of(actor, desk.now + timedelta(minutes=5, seconds=1)) == "422 time-ahead /at"
        assert code_of(actor, MONDAY - timedelta(seconds=1)) == "422 time-goes-back /at"
    for actor in (DESK, OFFICER):
        assert code_of(actor, desk.now - timedelta(hours=24)) is None
        assert code_of(actor, desk.now - timedelta(hours=24, seconds=1)) == "422 time-too-far-back /at"
    assert code_of(ADMIN, MONDAY) is None
    assert code_of(IMPORT, MONDAY) is None


def test_an_act_without_a_time_never_goes_back() -> None:
    desk = Desk(at=MONDAY)
    desk.do("start", at=MONDAY + timedelta(minutes=4))
    assert desk.do("supplement-request").at == MONDAY + timedelta(minutes=4)


@pytest.mark.parametrize(
    ("procedure", "day", "pointer"),
    [
        ("2.000889", "2024-08-01 08:00", "/procedure"),  # the land law of 2013 ended the day before
        (THREE_DAYS, "2025-06-30 08:00", "/receiving_agency"),  # the commune was founded a day later
        ("9.999999", "2026-03-02 08:00", "/procedure"),
    ],
)
def test_a_receipt_outside_the_validity_of_agency_or_procedure(procedure: str, day: str, pointer: str) -> None:
    with pytest.raises(Refusal) as refusal:
        Desk(procedure, at=local(day))
    assert (refusal.value.status, refusal.value.pointer) == (422, pointer)


def test_a_late_receipt_of_a_submission_is_judged_by_its_own_day() -> None:
    desk = Desk("1.001266", at=local("2025-07-02 08:00"), submitted=True)
    desk.now = local("2026-03-02 08:00")
    desk.do("receive")
    assert desk.dossier.due_at == local("2026-03-05 17:00")


# ------------------------------------------------------------------------------------------- due dates


def test_the_due_date_moves_with_pauses_and_extensions_as_the_clock_says() -> None:
    desk = Desk(at=MONDAY)
    limit, calendar = Limit(value=Decimal(3), unit=Unit.WORKING_DAYS), directory().calendar("H55", 1)
    assert desk.dossier.due_at == first_due(limit, MONDAY, calendar) == local("2026-03-05 17:00")
    asked = desk.later(days=1).now
    desk.do("supplement-request")
    assert (desk.dossier.due_at, desk.dossier.paused) == (local("2026-03-05 17:00"), True)
    extension = local("2026-03-20 17:00")
    extended = desk.later(hours=1).now
    desk.do("extension", due_at=extension)
    assert desk.dossier.due_at == extension
    back = desk.later(days=7).now
    desk.do("supplement")
    expected = current_due(limit, MONDAY, calendar, (Pause(asked, back),), extension=desk.dossier.clock_extension())
    assert desk.dossier.extension == (extended, extension)
    assert desk.dossier.due_at == expected
    assert expected > extension


def test_a_pause_that_begins_after_the_due_instant_changes_nothing() -> None:
    desk = Desk(at=MONDAY)
    due = desk.dossier.due_at
    desk.later(days=10).do("supplement-request")
    assert desk.dossier.overdue_from == due
    desk.later(days=3).do("supplement")
    assert (desk.dossier.due_at, desk.dossier.overdue_from) == (due, due)


def test_a_payment_request_pauses_only_where_the_procedure_says_so() -> None:
    for procedure, pauses in ((PAUSING, True), (THREE_DAYS, False)):
        desk = Desk(procedure, at=MONDAY)
        due = desk.dossier.due_at
        assert due is not None
        desk.do("payment-request")
        assert desk.dossier.paused is pauses
        desk.do("withdrawal-request")
        assert desk.dossier.paused is pauses
        desk.do("withdrawal-refusal")
        desk.later(days=7).do("payment")
        assert desk.dossier.due_at is not None
        assert (desk.dossier.due_at > due) is pauses


def test_a_kept_due_date_stands_and_is_moved_by_pauses() -> None:
    kept = local("2026-03-12 17:00")
    desk = Desk(at=MONDAY, due_at=kept)
    received = desk.history[0].data
    assert isinstance(received, ev.DossierReceived)
    assert (desk.dossier.due_at, received.due_kept) == (kept, True)
    desk.later(days=1).do("supplement-request")
    desk.later(days=7).do("supplement")
    assert desk.dossier.due_at == local("2026-03-19 17:00")
    with pytest.raises(Refusal) as refusal:
        Desk(at=MONDAY, due_at=MONDAY - timedelta(days=1))
    assert refusal.value.pointer == "/due_at"


# ---------------------------------------------------------------------------------------- corrections


def test_a_correction_undoes_the_last_act_and_then_the_one_before() -> None:
    desk = Desk(at=MONDAY)
    received = to_json(desk.dossier)
    desk.later(hours=1).do("start", OFFICER)
    started = to_json(desk.dossier)
    desk.later(hours=1).do("supplement-request", OFFICER)
    (event,) = desk.undo(OFFICER)
    assert (event.previous, event.state, event.undone_type, event.paused) == (
        5,
        4,
        "dossier.supplement-requested",
        False,
    )
    assert _but_version(desk.dossier) == _but_version(from_json(started))
    desk.undo(OFFICER, desk.history[1].id)
    assert _but_version(desk.dossier) == _but_version(from_json(received))
    assert desk.dossier.sequence == len(desk.history) == 5
    desk.do("start", OFFICER)
    assert desk.dossier.state == 4


def _but_version(dossier: Dossier) -> dict[str, Any]:
    found = {name: getattr(dossier, name) for name in Dossier.__dataclass_fields__}
    return {name: value for name, value in found.items() if name not in ("sequence", "recorded")}


def test_a_receipt_is_not_undone_but_that_of_a_submission_is() -> None:
    desk = Desk()
    with pytest.raises(Refusal) as refusal:
        desk.undo()
    assert (refusal.value.status, refusal.value.code) == (409, "receipt-stays")
    sent = at_state(2)
    sent.undo()
    assert (sent.dossier.state, sent.dossier.due_at, sent.dossier.limit) == (1, None, None)


def test_only_the_last_act_and_only_by_its_own_role() -> None:
    desk = Desk()
    desk.do("supplement-request", OFFICER)
    with pytest.raises(Refusal) as refusal:
        desk.undo(undoes=desk.history[0].id)
    assert (refusal.value.status, refusal.value.code) == (409, "not-the-last-act")
    with pytest.raises(Refusal) as refusal:
        desk.undo(DESK)
    assert refusal.value.status == 403
    desk.undo(OFFICER)
    assert desk.dossier.state == 2


def test_a_returned_result_is_not_undone() -> None:
    desk = at_state(10)
    with pytest.raises(Refusal) as refusal:
        desk.undo()
    assert (refusal.value.status, refusal.value.code) == (409, "too-late")
    assert desk.dossier.state == 10


def test_a_transfer_accepted_since_stands_against_a_correction() -> None:
    desk = Desk(ROUTED)
    desk.do("start", OFFICER)
    (step,) = desk.dossier.steps
    desk.transfer(ev.TransferRequested, step["transfer"])
    desk.later(minutes=1).do("digitisation", DESK)
    desk.transfer(ev.TransferAccepted, step["transfer"])
    with pytest.raises(Refusal) as refusal:
        desk.undo(DESK)
    assert (refusal.value.status, refusal.value.code) == (409, "too-late")
    desk.later(minutes=1).do("digitisation", DESK, component="Ảnh")
    desk.undo(DESK)  # done after the acceptance: not since
    with pytest.raises(Refusal):
        desk.undo(DESK, desk.history[2].id)


def test_a_correction_takes_back_what_the_act_brought_with_it() -> None:
    desk = Desk(ROUTED)
    desk.do("payment-request", DESK)
    asked = to_json(desk.dossier)
    desk.later(minutes=1).do("payment", DESK)
    started, paid = desk.undo(DESK, desk.history[-2].id)  # named by the payment
    assert (started.undone_type, started.previous, started.state) == ("dossier.processing-started", 4, 4)
    assert (paid.undone_type, paid.previous, paid.state) == ("dossier.paid", 4, 6)
    assert _but_version(desk.dossier) == _but_version(from_json(asked))
    desk.later(minutes=1).do("payment", DESK)
    assert desk.names[-2:] == ["paid", "processing-started"]
    assert len(desk.undo(DESK)) == 2  # named by the last event
    assert _but_version(desk.dossier) == _but_version(from_json(asked))


def test_a_corrected_supplement_keeps_the_routes_result_for_later() -> None:
    desk = Desk(ROUTED)
    desk.do("start", OFFICER)
    (step,) = desk.dossier.steps
    desk.do("supplement-request", DESK)
    desk.transfer(ev.TransferCompleted, step["transfer"], result="granted", route_complete=True, route_result="granted")
    desk.later(minutes=1).do("supplement", DESK)
    assert desk.dossier.state == 9
    resolved, supplemented = desk.undo(DESK)
    assert (resolved.state, supplemented.state, supplemented.paused) == (4, 5, True)
    assert desk.dossier.state == 5
    desk.later(minutes=1).do("supplement", DESK)
    assert desk.dossier.state == 9


def test_a_correction_looks_past_what_time_raised() -> None:
    desk = Desk(at=MONDAY)
    desk.later(hours=1).do("supplement-request", DESK)
    asked = to_json(desk.dossier)
    desk.later(hours=1).do("supplement", DESK)
    desk.later(days=10)
    assert desk.time_passes() == ["dossier.overdue"]
    desk.undo(DESK, desk.history[-2].id)
    before = from_json(asked)
    assert (desk.dossier.state, desk.dossier.paused_at, desk.dossier.pauses) == (5, before.paused_at, [])
    assert desk.dossier.due_at == before.due_at


# ------------------------------------------------------------------------------------ due-soon, overdue


def test_due_soon_and_overdue_are_raised_once_each() -> None:
    desk = Desk(at=MONDAY)  # due Thursday 17:00, so due soon on Wednesday 07:30
    assert next_tick(desk.dossier, directory()) == local("2026-03-04 07:30")
    assert desk.time_passes() == []
    desk.now = local("2026-03-04 07:31")
    assert desk.time_passes() == ["dossier.due-soon"]
    assert desk.time_passes() == []
    desk.now = local("2026-03-05 17:00")
    assert desk.time_passes() == []  # the due instant itself is within
    desk.now = local("2026-03-05 17:01")
    assert desk.time_passes() == ["dossier.overdue"]
    assert desk.time_passes() == []
    assert next_tick(desk.dossier, directory()) is None


def test_due_soon_is_raised_although_an_act_came_before_the_clock_was_looked_at() -> None:
    desk = Desk(at=MONDAY)
    desk.now = local("2026-03-04 07:31")
    desk.do("start")
    assert desk.time_passes() == ["dossier.due-soon"]


def test_what_is_due_at_once_is_not_warned_of() -> None:
    desk = Desk(SAME_DAY, at=MONDAY)  # due today; the last working day before opened before it was received
    assert next_tick(desk.dossier, directory()) == local("2026-03-02 17:00")


def test_after_a_night_switched_off_only_overdue_is_raised() -> None:
    desk = Desk(at=MONDAY).later(days=30)
    assert desk.time_passes() == ["dossier.overdue"]


def test_nothing_is_raised_while_paused_nor_for_what_ended_nor_for_history() -> None:
    desk = Desk(at=MONDAY)
    desk.do("supplement-request")
    desk.later(days=30)
    assert (next_tick(desk.dossier, directory()), desk.time_passes()) == (None, [])
    desk.do("supplement")
    assert next_tick(desk.dossier, directory()) is not None
    desk.do("resolution")
    assert next_tick(desk.dossier, directory()) is None
    old = Desk(at=MONDAY)
    old.dossier.mode = "history"
    old.later(days=30)
    assert (next_tick(old.dossier, directory()), old.time_passes()) == (None, [])


def test_a_new_due_date_is_warned_of_again() -> None:
    desk = Desk(at=MONDAY)
    desk.now = local("2026-03-04 08:00")
    assert desk.time_passes() == ["dossier.due-soon"]
    desk.do("extension", due_at=local("2026-03-12 17:00"))
    assert next_tick(desk.dossier, directory()) == local("2026-03-11 07:30")


def test_nothing_is_rescheduled_where_the_calendar_changes_nothing() -> None:
    assert reschedule(Desk(at=MONDAY).dossier, directory()) == []
