"""An agency's lists of transfers: what lies with it, what it has sent, what came back. Pure."""

from datetime import UTC, datetime, time, timedelta
from typing import Final, Literal
from uuid import UUID

from shared.contracts.codes import LOCAL_ZONE, local_day

WorkList = Literal["overdue", "due", "incoming", "outgoing", "back"]
"""incoming: open and with us; due, overdue: of these, today's and those that are late; outgoing: open and sent by us; back:
sent by us, and refused, returned or recalled, so that the next step is ours."""

Place = tuple[datetime, UUID]
"""Where a transfer stands in a list: its due date (`back`: since when it waits) and its id."""

FIRST: Final = datetime(1900, 1, 1, tzinfo=UTC)
LAST: Final = datetime(9999, 12, 31, tzinfo=UTC)
BEFORE_ALL: Final[Place] = (FIRST, UUID(int=0))


def end_of_day(now: datetime) -> datetime:
    """The first instant of tomorrow, local time."""
    return datetime.combine(local_day(now) + timedelta(days=1), time(), LOCAL_ZONE)


def cursor_of(place: Place) -> str:
    """The place as a list's cursor."""
    at, transfer = place
    return f"{(at - FIRST) // timedelta(microseconds=1)}.{transfer.hex}"


def place_of(cursor: str) -> Place:
    """The place that a cursor names. Raises ValueError."""
    micros, _, transfer = cursor.partition(".")
    try:
        return FIRST + timedelta(microseconds=int(micros)), UUID(hex=transfer)
    except OverflowError:
        raise ValueError("no such place") from None
