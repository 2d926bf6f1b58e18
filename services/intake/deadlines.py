"""`POST /v1/deadlines`: the clock for anybody with a token, and how a due date is explained over HTTP."""

from datetime import datetime, timedelta, timezone
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter
from pydantic import Field

from shared.clock import ClockError, Deadline, Language, Limit, Pause, PauseError, check_pauses, deadline, sentences
from shared.contracts.codes import LOCAL_ZONE, Instant
from shared.directory.directory import Directory, DirectoryError
from shared.service import Service
from shared.web.app import Asking, Body, known_agency, router
from shared.web.openapi import READS
from shared.web.problem import Problem, Wrong, not_found

MOST_PAUSES: Final = 100
"""More than any dossier has; a bound on what one question can cost (ours)."""

_PLUS_SEVEN: Final = timezone(timedelta(hours=7))

# What is wrong with a pause, by the clock's reason: the field at fault and a sentence.
_PAUSES: Final[dict[str, tuple[str, str]]] = {
    "before-received-at": ("from", "A pause does not begin before received_at."),
    "not-after-from": ("to", "A pause ends after it begins."),
    "not-in-order": ("from", "A pause begins when the one before it has ended, or later."),
}


class PauseBody(Body):
    start: Instant = Field(alias="from")
    end: Instant = Field(alias="to")


class Question(Body):
    """A limit and the times that count for it. Without `calendar_version`: the one in force at receipt."""

    agency: Annotated[str, Field(min_length=1, max_length=60)]
    limit: Limit
    received_at: Instant
    pauses: Annotated[tuple[PauseBody, ...], Field(max_length=MOST_PAUSES)] = ()
    calendar_version: Annotated[int, Field(strict=True, ge=0)] | None = None


def deadline_routes(service: Service) -> APIRouter:
    routes = router()

    @routes.post("/v1/deadlines", tags=["deadlines"], openapi_extra=READS)
    def due(who: Asking, question: Question, lang: Literal["vi", "en"] = "vi") -> dict[str, Any]:
        """When a dossier with this limit would be due, and why; nothing is stored."""
        return answer(question, service.directory.current, lang)

    return routes


def answer(question: Question, directory: Directory, lang: Language = "vi") -> dict[str, Any]:
    """The due date and its explanation. Raises Problem: 404 unknown agency or version, 422 what cannot be counted."""
    agency = known_agency(question.agency)
    pauses = tuple(Pause(pause.start, pause.end) for pause in question.pauses)
    try:
        check_pauses(question.received_at, pauses)
        if question.calendar_version is None:
            calendar = directory.calendar_for(agency, question.received_at)
        else:
            calendar = directory.calendar(directory.agency(agency).code, question.calendar_version)
        found = deadline(question.limit, question.received_at, calendar, pauses)
    except DirectoryError as error:
        raise not_found("This agency" if error.reason == "unknown-agency" else "This calendar version") from None
    except PauseError as error:
        name, sentence = _PAUSES[error.reason]
        raise Problem(422, error.reason, sentence, [Wrong(sentence, f"/pauses/{error.index}/{name}")]) from None
    except ClockError as error:
        sentence = f"No due date can be counted from here: {error}."
        raise Problem(422, "no-due-date", sentence, [Wrong(sentence, "/received_at")]) from None
    return explained(found, question.limit, lang)


def explained(found: Deadline, limit: Limit, lang: Language = "vi") -> dict[str, Any]:
    """`due_at`, the calendar version, every interval counted or skipped, and the same in sentences.

    `provisional_year` is there only when it applies: beside the due date, and on the last interval, which ends at it.
    """
    intervals: list[dict[str, Any]] = [
        {
            "from": at_home(interval.start),
            "to": at_home(interval.end),
            "counted": interval.counted,
            "rule": interval.rule,
            "amount": float(interval.amount) if interval.amount % 1 else int(interval.amount),
        }
        for interval in found.explain
    ]
    provisional = {} if found.provisional_year is None else {"provisional_year": found.provisional_year}
    if intervals:
        intervals[-1] |= provisional
    return {
        "due_at": at_home(found.due_at),
        "calendar": {"agency": found.calendar_agency, "version": found.calendar_version},
        "explain": intervals,
        **provisional,
        "sentences": sentences(found, limit, lang),
    }


def at_home(instant: datetime) -> str:
    """The instant with the offset of Asia/Ho_Chi_Minh; before 1911 that had seconds, which RFC 3339 does not know: +07:00."""
    there = instant.astimezone(LOCAL_ZONE)
    offset = there.utcoffset()
    if offset is not None and offset.seconds % 60:
        there = instant.astimezone(_PLUS_SEVEN)
    return there.isoformat()
