"""A petition (phản ánh, kiến nghị), as decisions: filed, maybe forwarded, answered within its time, rated.

Pure: what it says is personal and comes in here sealed.
"""

from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Final, Literal
from uuid import UUID

from services.intake.dossier import Refusal
from shared.clock import ClockError, Limit, Unit, first_due
from shared.contracts import events as ev
from shared.contracts.codes import local_day
from shared.directory.directory import Directory, DirectoryError

Kind = Literal["reflection", "complaint", "letter"]
State = Literal["filed", "answered"]

ALLOWED: Final[dict[State, tuple[str, ...]]] = {"filed": ("answer", "forward"), "answered": ("rating",)}
"""Which operations each state allows."""


@dataclass(frozen=True, slots=True)
class Petition:
    """One petition. Instants are UTC; `sequence` is its version; `agency` is the one that answers."""

    id: UUID
    agency: str
    kind: Kind
    state: State
    filed_at: datetime
    due_at: datetime
    sender: str  # the token's subject that filed it
    sequence: int
    recorded: datetime
    answered_at: datetime | None = None
    rating: ev.Satisfaction | None = None

    def overdue(self, now: datetime) -> bool:
        """Unanswered, or answered, after its due date."""
        return (self.answered_at or now) > self.due_at


def file(
    identity: UUID, agency: str, kind: Kind, sender: str, now: datetime, directory: Directory, working_days: int
) -> tuple[Petition, ev.PetitionFiled]:
    """A new petition, to be answered within that many working days of the agency's calendar. Raises Refusal."""
    agency = _answering(agency, local_day(now), directory, "/agency")
    limit = Limit(value=Decimal(working_days), unit=Unit.WORKING_DAYS)
    try:
        due_at = first_due(limit, now, directory.calendar_for(agency, now))
    except ClockError as error:
        raise Refusal(422, "no-due-date", str(error), "/agency") from None
    petition = Petition(identity, agency, kind, "filed", now, due_at, sender, 1, now)
    return petition, ev.PetitionFiled(petition=identity, agency=agency, kind=kind, due_at=due_at)


def answer(petition: Petition, now: datetime) -> tuple[Petition, ev.PetitionAnswered]:
    """Answered. On time up to its due date. Raises Refusal."""
    _must_allow(petition, "answer")
    event = ev.PetitionAnswered(petition=petition.id, agency=petition.agency, on_time=now <= petition.due_at)
    return _next(petition, now, state="answered", answered_at=now), event


def forward(
    petition: Petition, to: str, reason: str | None, now: datetime, directory: Directory
) -> tuple[Petition, ev.PetitionForwarded]:
    """Passed on to the agency that answers from now on; the due date stays (ours). Raises Refusal."""
    _must_allow(petition, "forward")
    to = _answering(to, local_day(now), directory, "/to")
    if to == petition.agency:
        raise Refusal(422, "same-agency", "This agency has the petition already.", "/to")
    event = ev.PetitionForwarded(petition=petition.id, agency=to, from_agency=petition.agency, to=to, reason=reason)
    return _next(petition, now, agency=to), event


def rate(petition: Petition, level: ev.Satisfaction, now: datetime) -> tuple[Petition, ev.PetitionRated]:
    """Rated by whom it was answered; the last rating counts. Raises Refusal."""
    _must_allow(petition, "rating")
    event = ev.PetitionRated(petition=petition.id, agency=petition.agency, level=level)
    return _next(petition, now, rating=level), event


def _next(petition: Petition, now: datetime, **changes: object) -> Petition:
    recorded = max(now, petition.recorded)
    return replace(petition, sequence=petition.sequence + 1, recorded=recorded, **changes)  # type: ignore[arg-type]


def _must_allow(petition: Petition, operation: str) -> None:
    allowed = ALLOWED[petition.state]
    if operation not in allowed:
        raise Refusal(
            409,
            "move-not-allowed",
            f"A petition that is {petition.state} allows: {', '.join(allowed)}.",
            state=petition.state,
            allowed=list(allowed),
        )


def _answering(code: str, day: date, directory: Directory, pointer: str) -> str:
    """The agency, if it is there on that local day."""
    try:
        agency = directory.agency(code).code
        valid = directory.valid_on(agency, day)
    except DirectoryError:
        raise Refusal(422, "unknown-agency", "No agency has this code.", pointer) from None
    if not valid:
        raise Refusal(422, "agency-not-in-force", f"The agency is closed, or not yet open, on {day}.", pointer)
    return agency
