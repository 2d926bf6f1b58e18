"""A dossier's lifecycle and deadline, as decisions: an act on a dossier gives events, or a refusal that says why.

Pure: the clock, the directory and the actor are arguments. The state of a dossier is the fold of its events, less what
was corrected; `decide` never changes it, `fold` alone does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as fresh
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from itertools import pairwise
from typing import Any, Literal
from uuid import UUID

from pydantic import TypeAdapter

from services.intake import acts
from shared.clock import (
    Calendar,
    ClockError,
    Extension,
    Limit,
    Pause,
    Unit,
    calendar_for,
    current_due,
    due_soon_at,
    first_due,
    provisional_year,
)
from shared.contracts import events as ev
from shared.contracts.codes import local_day, uuid7
from shared.directory.bundle import LevelTarget, SectorTarget
from shared.directory.directory import Directory, DirectoryError

AHEAD = timedelta(minutes=5)
"""No act lies further in the future, for anybody: more than a clock's error."""

OPEN = (2, 4, 5, 6, 7)
ENDED = (3, 8, 9, 10)
OPEN_TRANSFER = ("requested", "sent", "delivered", "accepted")

# From which states an operation may be done; payment and digitisation are facts in most of them.
FROM: Mapping[str, tuple[int, ...]] = {
    "receive": (1,),
    "refuse": (1, 5),
    "start": (2,),
    "supplement-request": (1, 2, 4),
    "supplement": (5,),
    "payment-request": (2, 4),
    "payment": (2, 4, 5, 6, 9),
    "withdrawal-request": (1, 2, 4, 5, 6),
    "withdrawal": (7,),
    "withdrawal-refusal": (7,),
    "stop": (2, 4, 5, 6),
    "extension": OPEN,
    "digitisation": (1, 2, 4, 5, 6, 7, 8, 9, 10),
    "resolution": (2, 4),
    "return": (9,),
    "rating": ENDED,
}

BY_TIME = (ev.DossierDueSoon, ev.DossierOverdue, ev.DossierRescheduled)
"""Events that nobody did: they move no dossier, and a correction looks past them."""


class Refusal(Exception):
    """An act that is not possible. `status` as over HTTP; `pointer` names the field of the body that is at fault."""

    def __init__(self, status: int, code: str, detail: str, pointer: str = "", **extra: Any) -> None:
        super().__init__(f"{code}: {detail}")
        self.status, self.code, self.detail, self.pointer, self.extra = status, code, detail, pointer, extra


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, for the time rules and the record: `backdating` is how far back this role may write (None: any time)."""

    role: ev.Role
    subject: str
    backdating: timedelta | None = None


@dataclass(slots=True)
class Dossier:
    """One dossier. Instants are UTC; states are the portal's, 1 to 10; `sequence` is its version."""

    code: str
    procedure: str
    agency: str
    deciding_agency: str
    field: str
    channel: ev.Channel
    return_by: ev.ReturnBy
    applicant_kind: ev.ApplicantKind
    contact_ref: str | None
    confidential: bool
    mode: Literal["live", "history"]
    fee: int = 0
    components: list[dict[str, Any]] = fresh(default_factory=list)
    sender: str | None = None  # the token's subject that submitted it
    # frozen at receipt
    limit: Limit | None = None
    calendar: tuple[str, int] | None = None
    payment_pauses: bool = False
    route: list[dict[str, Any]] = fresh(default_factory=list)
    # the fold
    state: int = 0
    sequence: int = 0
    chain: str = ""  # the hash over all its events (hex)
    recorded: datetime | None = None
    last_at: datetime | None = None
    submitted_at: datetime | None = None
    received_at: datetime | None = None
    ended_at: datetime | None = None
    due_at: datetime | None = None
    due_since: datetime | None = None  # when it came to be due then: what lies before is not warned of
    kept_due: datetime | None = None
    paused_at: datetime | None = None
    pauses: list[tuple[datetime, datetime]] = fresh(default_factory=list)
    extension: tuple[datetime, datetime] | None = None
    extensions: int = 0
    supplements: int = 0
    paid: int = 0
    back_to: int = 0  # where a supplement was asked for
    withdrawn_from: int = 0
    started: bool = False
    steps: list[dict[str, Any]] = fresh(default_factory=list)  # the route as it was started, with transfer ids
    soon_raised: datetime | None = None  # the due date that due-soon was raised for
    overdue_raised: datetime | None = None
    # from routing
    transfers: dict[str, str] = fresh(default_factory=dict)
    working: dict[str, str] = fresh(default_factory=dict)  # agencies of open transfers
    accepted_at: int | None = None  # the version at which a transfer was accepted last
    route_result: ev.Result | None = None
    # of a copy
    home: str | None = None  # the site that it belongs to
    track: str | None = None  # by which its pin is known

    @property
    def paused(self) -> bool:
        return self.paused_at is not None

    @property
    def overdue_from(self) -> datetime | None:
        """From when an open dossier is overdue; a pause that began before the due instant keeps it out of the list."""
        if self.state not in OPEN or self.due_at is None:
            return None
        return None if self.paused_at is not None and self.paused_at < self.due_at else self.due_at

    @property
    def late(self) -> bool:
        """Overdue, and known to be: it has been raised, or the clock was stopped when it was overdue already."""
        return self.overdue_from is not None and (self.paused or self.overdue_raised == self.due_at)

    def calendar_in(self, directory: Directory) -> Calendar:
        assert self.calendar is not None
        return directory.calendar(*self.calendar)

    def clock_pauses(self) -> tuple[Pause, ...]:
        past = tuple(Pause(start, end) for start, end in self.pauses)
        return past if self.paused_at is None else (*past, Pause(self.paused_at, None))

    def clock_extension(self) -> Extension | None:
        return None if self.extension is None else Extension(*self.extension)

    def due_with(self, directory: Directory, pauses: tuple[Pause, ...]) -> datetime:
        """The due instant after these pauses: a pure function of the acts, the frozen limit and calendar version."""
        assert self.limit is not None
        assert self.received_at is not None
        return current_due(
            self.limit,
            self.received_at,
            self.calendar_in(directory),
            pauses=pauses,
            extension=self.clock_extension(),
            kept=self.kept_due,
        )

    def open_transfers(self) -> list[str]:
        """The transfers that must end before the dossier can be resolved by hand; those of the next step before routing
        has asked for them."""
        if not self.steps or self.route_result is not None:
            return []
        if still_open := sorted(i for i, state in self.transfers.items() if state in OPEN_TRANSFER):
            return still_open
        known = {state for state in self.transfers.values() if state != "rerouted"}
        if known - {"completed"}:
            return []  # refused, returned or recalled: the sender decides
        to_come = [s for s in self.steps if s["transfer"] not in self.transfers]
        first = min((s["step"] for s in to_come), default=0)
        return sorted(s["transfer"] for s in to_come if s["step"] == first)

    def allowed(self) -> list[str]:
        """The operations that this dossier's state allows now."""
        return [op for op in FROM if self._may(op)]

    def _may(self, op: str) -> bool:
        if self.state not in FROM[op]:
            return False
        if op == "refuse" and self.state == 5:
            return self.received_at is None
        if op == "extension":
            return self.received_at is not None
        return True


_ADAPTER: TypeAdapter[Dossier] = TypeAdapter(Dossier)


def to_json(dossier: Dossier) -> str:
    return _ADAPTER.dump_json(dossier).decode()


def from_json(text: str | bytes) -> Dossier:
    return _ADAPTER.validate_json(text)


# ------------------------------------------------------------------------------------------- time and checks


def time_of(at: datetime | None, last_at: datetime | None, actor: Actor, now: datetime, pointer: str) -> datetime:
    """When an act happened: not ahead, not before the last one, and for desk and officer at most a day back."""
    if at is None:
        return now if last_at is None else max(now, last_at)
    if at > now + AHEAD:
        raise Refusal(422, "time-ahead", "This lies more than 5 minutes in the future.", pointer)
    if last_at is not None and at < last_at:
        raise Refusal(422, "time-goes-back", "This lies before the dossier's last act.", pointer)
    if actor.backdating is not None and at < now - actor.backdating:
        hours = actor.backdating.total_seconds() / 3600
        raise Refusal(422, "time-too-far-back", f"This role may write at most {hours:g} hours back.", pointer)
    return at


def _in_force(directory: Directory, body: acts._Dossier, at: datetime) -> tuple[Any, str]:
    """The procedure and the deciding agency of a new dossier, valid on its local day."""
    day = local_day(at)
    try:
        procedure = directory.procedure_on(body.procedure, day)
    except DirectoryError:
        raise Refusal(422, "unknown-procedure", "No procedure has this code.", "/procedure") from None
    if procedure is None:
        raise Refusal(422, "procedure-not-in-force", f"The procedure is not in force on {day}.", "/procedure")
    for agency, pointer in ((body.receiving_agency, "/receiving_agency"), (body.deciding_agency, "/deciding_agency")):
        if agency is None:
            continue
        try:
            valid = directory.valid_on(agency, day)
        except DirectoryError:
            raise Refusal(422, "unknown-agency", "No agency has this code.", pointer) from None
        if not valid:
            raise Refusal(422, "agency-not-in-force", f"The agency is closed, or not yet open, on {day}.", pointer)
    return procedure, body.deciding_agency or body.receiving_agency


def begin(
    body: acts.NewDossier | acts.NewSubmission,
    actor: Actor,
    at: datetime | None,
    now: datetime,
    directory: Directory,
    mode: Literal["live", "history"],
    contact_ref: str,
) -> tuple[Dossier, list[ev.EventData], datetime]:
    """A new dossier: received (state 2), or submitted (state 1). It has no code yet."""
    submission = isinstance(body, acts.NewSubmission)
    pointer = "/submitted_at" if submission else "/received_at"
    happened = time_of(body.happened or at, None, actor, now, pointer if body.happened else "/at")
    procedure, deciding = _in_force(directory, body, happened)
    if submission and body.channel == "online" and procedure.online == "none":
        raise Refusal(422, "not-online", "This procedure cannot be submitted online.", "/channel")
    names = [component.name for component in body.components]
    if len(set(names)) < len(names):
        raise Refusal(422, "component-twice", "A component is listed twice.", "/components")
    dossier = Dossier(
        code="",
        procedure=procedure.code,
        agency=body.receiving_agency,
        deciding_agency=deciding,
        field=procedure.field.code,
        channel=body.channel,
        return_by=body.return_by,
        applicant_kind=body.applicant.kind,
        contact_ref=contact_ref,
        confidential=procedure.confidential,
        mode=mode,
        fee=procedure.fee,
        components=[component.model_dump(exclude_none=True) for component in body.components],
        sender=actor.subject if actor.role == "portal" else None,
    )
    if isinstance(body, acts.NewSubmission):
        return dossier, [_submitted(dossier, actor, kept_code=body.code is not None)], happened
    kept_due = body.due_at if isinstance(body, acts.ImportedDossier) else None
    kept_code = isinstance(body, acts.ImportedDossier) and body.code is not None
    return dossier, [_received(dossier, actor, happened, now, directory, None, kept_due, kept_code)], happened


def _base(dossier: Dossier, actor: Actor, state: int, **changes: Any) -> dict[str, Any]:
    """What every event of a dossier says."""
    return {
        "agency": dossier.agency,
        "procedure": dossier.procedure,
        "previous": dossier.state or None,
        "state": state,
        "due_at": dossier.due_at,
        "paused": dossier.paused,
        "by": actor.role,
        "confidential": dossier.confidential,
    } | changes


def _receipt(dossier: Dossier) -> dict[str, Any]:
    return {
        "deciding_agency": dossier.deciding_agency,
        "field": dossier.field,
        "channel": dossier.channel,
        "return_by": dossier.return_by,
        "applicant_kind": dossier.applicant_kind,
        "contact_ref": dossier.contact_ref,
        "fee": dossier.fee,
        "components": tuple(ev.Component(**component) for component in dossier.components),
    }


def _submitted(dossier: Dossier, actor: Actor, *, kept_code: bool) -> ev.EventData:
    return ev.DossierSubmitted(**_base(dossier, actor, 1), **_receipt(dossier), kept_code=kept_code)


def _received(
    dossier: Dossier,
    actor: Actor,
    at: datetime,
    now: datetime,
    directory: Directory,
    previous: int | None,
    kept_due: datetime | None,
    kept_code: bool,
) -> ev.EventData:
    procedure = directory.procedure(dossier.procedure)
    calendar = directory.calendar_for(dossier.agency, at)
    limit = _limit(procedure.limit.value, procedure.limit.unit)
    if kept_due is not None and kept_due < at:
        raise Refusal(422, "due-before-receipt", "The kept due date lies before the receipt.", "/due_at")
    try:
        due_at = kept_due or first_due(limit, at, calendar)
    except ClockError as error:
        raise Refusal(422, "no-due-date", str(error), "/received_at") from None
    dossier.route = [step.model_dump(mode="json") for step in procedure.route]
    return ev.DossierReceived(
        **_base(dossier, actor, 2, previous=previous, due_at=due_at, paused=False),
        **_receipt(dossier),
        kept_code=kept_code,
        limit=ev.LimitData(value=_plain(limit.value), unit=limit.unit.value),
        calendar=ev.CalendarRef(agency=calendar.agency, version=calendar.version),
        payment_pauses=procedure.payment_pauses,
        provisional_year=provisional_year(due_at, calendar),
        backdated=at < now - AHEAD,
        due_kept=kept_due is not None,
    )


@cache
def _limit(value: Decimal, unit: str) -> Limit:
    return Limit(value=value, unit=Unit(unit))


def _plain(value: Decimal) -> int | float:
    return int(value) if value == int(value) else float(value)


# ------------------------------------------------------------------------------------------------- decisions


@dataclass(slots=True)
class Decision:
    """What an act comes to: its events in order, when it happened, and what the officer should know."""

    events: list[ev.EventData]
    at: datetime
    warnings: list[str] = fresh(default_factory=list)


def decide(
    dossier: Dossier,
    op: str,
    body: acts.Act,
    actor: Actor,
    now: datetime,
    directory: Directory,
    at: datetime | None = None,
) -> Decision:
    """One operation on a dossier that exists; `at`: when it happened, if the body does not say so. Raises Refusal."""
    if not dossier._may(op):
        raise Refusal(
            409,
            "move-not-allowed",
            f"In state {dossier.state} this is not possible; possible are: {', '.join(dossier.allowed()) or 'nothing'}.",
            state=dossier.state,
            allowed=dossier.allowed(),
        )
    at = time_of(body.at or at, dossier.last_at, actor, now, "/at")
    out = Decision([], at)
    try:
        _OPERATIONS[op](dossier, body, actor, now, directory, out)
    except ClockError as error:
        raise Refusal(422, "no-due-date", str(error), "/at") from None
    return out


def _receive(d: Dossier, body: Any, actor: Actor, now: datetime, directory: Directory, out: Decision) -> None:
    day = local_day(out.at)
    if directory.procedure_on(d.procedure, day) is None:
        raise Refusal(422, "procedure-not-in-force", f"The procedure is not in force on {day}.", "/at")
    if not directory.valid_on(d.agency, day):
        raise Refusal(422, "agency-not-in-force", f"The agency is closed, or not yet open, on {day}.", "/at")
    kept_due = body.due_at if isinstance(body, acts.ImportedReceipt) else None
    out.events.append(_received(d, actor, out.at, now, directory, d.state, kept_due, False))


def _refuse(d: Dossier, body: Any, actor: Actor, now: datetime, directory: Directory, out: Decision) -> None:
    out.events.append(ev.DossierRefused(**_base(d, actor, 3, paused=False), reason=body.reason))


def _start(d: Dossier, body: Any, actor: Actor, now: datetime, directory: Directory, out: Decision) -> None:
    out.events.append(_started(d, actor, 2, d.due_at, d.paused))


def _started(d: Dossier, actor: Actor, previous: int, due_at: datetime | None, paused: bool) -> ev.EventData:
    """Entering 4 for the first time asks for the first step of the frozen route."""
    return ev.DossierProcessingStarted(
        **_base(d, actor, 4, previous=previous, due_at=due_at, paused=paused),
        route=tuple(
            ev.RouteStep(
                step=step["step"],
                to=_target(step["to"]),
                limit=ev.LimitData(**step["limit"]) if step.get("limit") else None,
                transfer=uuid7(),
            )
            for step in d.route
        ),
    )


def _target(to: Any) -> str | ev.ToLevel | ev.ToSector:
    if isinstance(to, str):
        return to
    if isinstance(to, LevelTarget | SectorTarget):
        to = to.model_dump(mode="json")
    return ev.ToLevel(level=to["level"]) if "level" in to else ev.ToSector(sector=to["sector"])


def _request_supplement(
    d: Dossier, body: Any, actor: Actor, now: datetime, directory: Directory, out: Decision
) -> None:
    if d.supplements:
        out.warnings.append("supplement-repeated")
    paused = d.received_at is not None
    out.events.append(ev.DossierSupplementRequested(**_base(d, actor, 5, paused=paused), reason=body.reason))


def _supplement(d: Dossier, body: Any, actor: Actor, now: datetime, directory: Directory, out: Decision) -> None:
    due_at = _due_if_resumed(d, out.at, directory)
    out.events.append(ev.DossierSupplemented(**_base(d, actor, d.back_to, due_at=due_at, paused=False)))
    _resolve_if_kept(d, actor, d.back_to, due_at, out)


def _due_if_resumed(d: Dossier, at: datetime, directory: Directory) -> datetime | None:
    if d.paused_at is None:
        return d.due_at
    past = tuple(Pause(start, end) for start, end in d.pauses)
    return d.due_with(directory, (*past, Pause(d.paused_at, at)))


def _resolve_if_kept(d: Dossier, actor: Actor, state: int, due_at: datetime | None, out: Decision) -> None:
    """The route ended while the dossier was paused or withdrawn: its result is made now."""
    if d.route_result is not None and state in (2, 4):
        out.events.append(_resolved_by_route(d, state, due_at, d.route_result))


def _resolved_by_route(d: Dossier, previous: int, due_at: datetime | None, result: ev.Result) -> ev.EventData:
    system = Actor("system", "routing")
    return ev.DossierResolved(
        **_base(d, system, 9, previous=previous, due_at=due_at, paused=False), result=result, by_route=True
    )


def _request_payment(d: Dossier, body: Any, actor: Actor, now: datetime, directory: Directory, out: Decision) -> None:
    out.events.append(ev.DossierPaymentRequested(**_base(d, actor, 6, paused=d.payment_pauses), amount=body.amount))


def _pay(d: Dossier, body: Any, actor: Actor, now: datetime, directory: Directory, out: Decision) -> None:
    money = {"amount": body.amount, "method": body.method}
    if d.state != 6:
        out.events.append(ev.DossierPaid(**_base(d, actor, d.state), **money))
        return
    due_at = _due_if_resumed(d, out.at, directory)
    out.events.append(ev.DossierPaid(**_base(d, actor, 4, due_at=due_at, paused=False), **money))
    if not d.started:
        out.events.append(_started(d, actor, 4, due_at, False))
    _resolve_if_kept(d, actor, 4, due_at, out)


def _request_withdrawal(
    d: Dossier, body: Any, actor: Actor, now: datetime, directory: Directory, out: Decision
) -> None:
    out.events.append(ev.DossierWithdrawalRequested(**_base(d, actor, 7), reason=body.reason))


def _withdraw(d: Dossier, body: Any, actor: Actor, now: datetime, directory: Directory, out: Decision) -> None:
    out.events.append(ev.DossierWithdrawn(**_base(d, actor, 8)))


def _refuse_withdrawal(d: Dossier, body: Any, actor: Actor, now: datetime, directory: Directory, out: Decision) -> None:
    out.events.append(ev.DossierWithdrawalRefused(**_base(d, actor, d.withdrawn_from), reason=body.reason))
    _resolve_if_kept(d, actor, d.withdrawn_from, d.due_at, out)


def _stop(d: Dossier, body: Any, actor: Actor, now: datetime, directory: Directory, out: Decision) -> None:
    out.events.append(ev.DossierStopped(**_base(d, actor, 8), reason=body.reason))


def _extend(d: Dossier, body: Any, actor: Actor, now: datetime, directory: Directory, out: Decision) -> None:
    assert d.due_at is not None
    if body.due_at <= d.due_at:
        raise Refusal(422, "not-later", "The new due date must be later than the present one.", "/due_at")
    if local_day(out.at) >= local_day(d.due_at):
        out.warnings.append("extension-late")
    if d.extensions:
        out.warnings.append("extension-repeated")
    out.events.append(
        ev.DossierExtended(**_base(d, actor, d.state, due_at=body.due_at), reason=body.reason, previous_due_at=d.due_at)
    )


def _digitise(d: Dossier, body: Any, actor: Actor, now: datetime, directory: Directory, out: Decision) -> None:
    listed = any(component["name"] == body.component for component in d.components)
    out.events.append(ev.DossierDigitised(**_base(d, actor, d.state), component=body.component, listed=listed))


def _resolve(d: Dossier, body: Any, actor: Actor, now: datetime, directory: Directory, out: Decision) -> None:
    if waiting := d.open_transfers():
        raise Refusal(
            409,
            "transfers-open",
            "Agencies still work on this dossier; recall their transfers, or wait for their answers.",
            state=d.state,
            allowed=[op for op in d.allowed() if op != "resolution"],
            transfers=waiting,
        )
    out.events.append(
        ev.DossierResolved(
            **_base(d, actor, 9), result=body.result, electronic=body.electronic, ref=body.ref, digest=body.digest
        )
    )


def _return(d: Dossier, body: Any, actor: Actor, now: datetime, directory: Directory, out: Decision) -> None:
    out.events.append(ev.DossierReturned(**_base(d, actor, 10), returned_by=body.by))


def _rate(d: Dossier, body: Any, actor: Actor, now: datetime, directory: Directory, out: Decision) -> None:
    out.events.append(
        ev.DossierRated(
            **_base(d, actor, d.state),
            level=body.level,
            quality=body.quality,
            attitude=body.attitude,
            complained=body.complained,
        )
    )


_OPERATIONS = {
    "receive": _receive,
    "refuse": _refuse,
    "start": _start,
    "supplement-request": _request_supplement,
    "supplement": _supplement,
    "payment-request": _request_payment,
    "payment": _pay,
    "withdrawal-request": _request_withdrawal,
    "withdrawal": _withdraw,
    "withdrawal-refusal": _refuse_withdrawal,
    "stop": _stop,
    "extension": _extend,
    "digitisation": _digitise,
    "resolution": _resolve,
    "return": _return,
    "rating": _rate,
}


def correct(
    dossier: Dossier,
    history: Sequence["Past"],
    body: acts.Correction,
    actor: Actor,
    now: datetime,
    directory: Directory,
) -> tuple[Decision, Dossier]:
    """Undoes the dossier's last act: the events that say so, and the dossier as if the act had never happened.

    What the act brought with it (the start that a payment makes, the route's kept result) is undone first, each event by
    one of its own: whoever reads them finds one correction for one event. `undoes` may name any of them.
    """
    standing = _standing(history)
    act = _last_act(standing)
    if body.undoes.lower() not in {str(past.id) for past in act}:
        raise Refusal(
            409, "not-the-last-act", "Only the dossier's last act can be undone.", state=dossier.state, allowed=[]
        )
    if actor.role != "admin" and actor.role != act[0].data.by:
        by = act[0].data.by
        raise Refusal(403, "forbidden", f"This act was done by the role {by}; that role or admin may undo it.")
    at = time_of(body.at, dossier.last_at, actor, now, "/at")
    if act[0] is standing[0]:
        raise Refusal(
            409,
            "receipt-stays",
            "A dossier's first act is not undone; stop or refuse the dossier instead.",
            state=dossier.state,
            allowed=dossier.allowed(),
        )
    accepted = dossier.accepted_at is not None and dossier.accepted_at >= act[0].sequence
    if accepted or isinstance(act[0].data, ev.DossierReturned):
        raise Refusal(
            409,
            "too-late",
            "The result was returned or a transfer was accepted since.",
            state=dossier.state,
            allowed=dossier.allowed(),
        )
    events: list[ev.EventData] = []
    before = dossier
    for undone in reversed(act):
        standing = [past for past in standing if past is not undone]
        after = _folded(dossier, standing, directory)
        events.append(
            ev.DossierCorrected(
                **_base(before, actor, after.state, due_at=after.due_at, paused=after.paused),
                undoes=undone.id,
                undone_type=undone.data.short,
                reason=body.reason,
            )
        )
        before = after
    before.sequence = dossier.sequence + len(events)
    before.chain = dossier.chain
    before.recorded = now if dossier.recorded is None else max(now, dossier.recorded)
    return Decision(events, at), before


def refolded(dossier: Dossier, history: Sequence["Past"], directory: Directory) -> Dossier:
    """The dossier as its whole history makes it, corrections and all."""
    made = _folded(dossier, _standing(history), directory)
    made.sequence, made.chain, made.recorded = dossier.sequence, dossier.chain, dossier.recorded
    return made


def _standing(history: Sequence["Past"]) -> list["Past"]:
    """The history without what was corrected, and without the corrections."""
    undone = {past.data.undoes for past in history if isinstance(past.data, ev.DossierCorrected)}
    return [past for past in history if past.id not in undone and not isinstance(past.data, ev.DossierCorrected)]


def _last_act(standing: Sequence["Past"]) -> list["Past"]:
    """The last act with the events that it brought, in order."""
    done = [past for past in standing if not isinstance(past.data, BY_TIME)]
    act = done[-1:]
    for brought, first in pairwise(reversed(done)):
        if not _brings(first, brought):
            break
        act.insert(0, first)
    return act


def _brings(first: "Past", second: "Past") -> bool:
    """Whether one act made both events: a payment that starts the work, a return to work on which the route's result waits."""
    if (first.time, first.recorded) != (second.time, second.recorded) or first.sequence + 1 != second.sequence:
        return False
    match second.data:
        case ev.DossierProcessingStarted(previous=4):
            return isinstance(first.data, ev.DossierPaid)
        case ev.DossierResolved(by_route=True):
            return first.data.previous in (5, 6, 7)
    return False


def _folded(dossier: Dossier, standing: Sequence["Past"], directory: Directory) -> Dossier:
    """The dossier after these events; its due date is computed from the acts that are left."""
    folded = blank(dossier)
    for past in standing:
        fold(folded, past.data, past.time, past.recorded, past.mode)
    if folded.limit is not None:
        folded.due_at = folded.due_with(directory, folded.clock_pauses())
    return folded


# ------------------------------------------------------------------------------------------------------ fold


@dataclass(frozen=True, slots=True)
class Past:
    """An event of the dossier's history."""

    sequence: int
    id: UUID
    time: datetime
    recorded: datetime
    mode: str
    data: ev.DossierEvent


def blank(dossier: Dossier) -> Dossier:
    """The dossier before its first event, with what no event says (frozen route, transfers)."""
    return Dossier(
        code=dossier.code,
        procedure=dossier.procedure,
        agency=dossier.agency,
        deciding_agency=dossier.deciding_agency,
        field=dossier.field,
        channel=dossier.channel,
        return_by=dossier.return_by,
        applicant_kind=dossier.applicant_kind,
        contact_ref=dossier.contact_ref,
        confidential=dossier.confidential,
        mode=dossier.mode,
        fee=dossier.fee,
        sender=dossier.sender,
        route=dossier.route,
        transfers=dossier.transfers,
        working=dossier.working,
        accepted_at=dossier.accepted_at,
        route_result=dossier.route_result,
    )


def fold(d: Dossier, data: ev.DossierEvent, at: datetime, recorded: datetime, mode: str = "live") -> None:
    """Takes one event into the dossier."""
    if isinstance(data, BY_TIME):
        _fold_time(d, data, at)
    else:
        _fold_act(d, data, at, mode)
    d.sequence += 1
    d.recorded = recorded


def _fold_time(d: Dossier, data: ev.DossierEvent, at: datetime) -> None:
    match data:
        case ev.DossierDueSoon():
            d.soon_raised = data.due_at
        case ev.DossierOverdue():
            d.overdue_raised = data.due_at
        case ev.DossierRescheduled():
            d.calendar = (data.calendar.agency, data.calendar.version)
            d.due_at, d.due_since = data.due_at, at


def _fold_act(d: Dossier, data: ev.DossierEvent, at: datetime, mode: str) -> None:
    if data.paused and d.paused_at is None:
        d.paused_at = at
    elif not data.paused and d.paused_at is not None:
        d.pauses.append((d.paused_at, at))
        d.paused_at = None
    match data:
        case ev.DossierSubmitted():
            d.submitted_at = at
            d.components = [_component(c) for c in data.components]
            d.agency, d.deciding_agency, d.contact_ref = data.agency, data.deciding_agency, data.contact_ref
            d.procedure, d.field, d.channel, d.fee = data.procedure, data.field, data.channel, data.fee
            d.return_by, d.applicant_kind, d.confidential = data.return_by, data.applicant_kind, data.confidential
        case ev.DossierReceived():
            d.received_at = at
            d.components = [_component(c) for c in data.components]
            d.limit = _limit(Decimal(str(data.limit.value)), data.limit.unit)
            d.calendar = None if data.calendar is None else (data.calendar.agency, data.calendar.version)
            d.payment_pauses = data.payment_pauses
            d.kept_due = data.due_at if data.due_kept else None
        case ev.DossierProcessingStarted():
            d.started = True
            # The start of a dossier from an old system's register asks nobody for anything.
            d.steps = [s.model_dump(mode="json") for s in data.route] if mode == "live" else []
        case ev.DossierSupplementRequested():
            d.supplements += 1
            d.back_to = data.previous or 0
        case ev.DossierPaid():
            d.paid += data.amount
        case ev.DossierWithdrawalRequested():
            d.withdrawn_from = data.previous or 0
        case ev.DossierExtended():
            assert data.due_at is not None
            d.extension = (at, data.due_at)
            d.extensions += 1
        case ev.DossierDigitised():
            _digitised(d.components, data.component)
        case _:
            pass
    if data.state in (8, 9) and d.ended_at is None:
        d.ended_at = at
    if data.due_at != d.due_at:
        d.due_at, d.due_since = data.due_at, at
    d.state, d.last_at = data.state, at


def _component(component: ev.Component) -> dict[str, Any]:
    return component.model_dump(exclude_none=True)


def _digitised(components: list[dict[str, Any]], name: str) -> None:
    for component in components:
        if component["name"] == name:
            component["digitised"] = True
            return
    components.append({"name": name, "digitised": True})


# ------------------------------------------------------------------------------- what routing and time bring


def transferred(d: Dossier, data: ev.TransferEvent) -> list[ev.EventData]:
    """A transfer's news: where the dossier is worked on, and its result when the route is complete."""
    transfer = str(data.transfer)
    d.transfers[transfer] = data.state
    if data.state in OPEN_TRANSFER:
        d.working[transfer] = data.to
    else:
        d.working.pop(transfer, None)
    if data.state == "accepted":
        d.accepted_at = d.sequence
    if isinstance(data, ev.TransferCompleted) and data.route_complete and data.route_result is not None:
        d.route_result = data.route_result
        if d.state in (2, 4):
            return [_resolved_by_route(d, d.state, d.due_at, data.route_result)]
    return []


def next_tick(d: Dossier, directory: Directory) -> datetime | None:
    """When due-soon or overdue is to be raised next; None: never, as things stand."""
    if d.mode == "history" or d.state not in OPEN or d.paused or d.due_at is None or d.limit is None:
        return None
    if d.overdue_raised == d.due_at:
        return None
    if d.soon_raised != d.due_at:
        try:
            soon = due_soon_at(d.limit, d.due_at, d.calendar_in(directory))
        except ClockError:
            return d.due_at  # no working time lies before it
        if d.due_since is None or soon > d.due_since:
            return soon
    return d.due_at


def tick(d: Dossier, now: datetime, directory: Directory) -> list[ev.EventData]:
    """What time alone raises now: due-soon once, overdue once, for each due date; never both late at once."""
    system = Actor("system", "clock")
    at = next_tick(d, directory)
    if at is None or d.due_at is None or now <= at:
        return []
    if now > d.due_at:
        return [ev.DossierOverdue(**_base(d, system, d.state))]
    return [ev.DossierDueSoon(**_base(d, system, d.state))]


def reschedule(d: Dossier, directory: Directory) -> list[ev.EventData]:
    """The due date under the calendar version that is in force on its day, if that version changes it."""
    if d.state not in OPEN or d.received_at is None or d.limit is None or d.due_at is None or d.kept_due:
        return []
    calendar = calendar_for(directory.calendars(d.agency), d.due_at)
    due_at = current_due(d.limit, d.received_at, calendar, pauses=d.clock_pauses(), extension=d.clock_extension())
    if due_at == d.due_at:
        return []
    return [
        ev.DossierRescheduled(
            **_base(d, Actor("system", "calendar"), d.state, due_at=due_at),
            previous_due_at=d.due_at,
            calendar=ev.CalendarRef(agency=calendar.agency, version=calendar.version),
        )
    ]
