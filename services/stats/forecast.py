"""The load to come: what falls due in the next days, and how much of it will be late at the present pace. Pure.

The rule (ours): a dossier that has been pending for `age` ends like those of the same agency and procedure, resolved in
the last 90 days, that took longer than `age`; its chance of being late is the share of them that took longer than its
limit. With fewer than `ENOUGH` of those the procedure's dossiers of all agencies answer, then all dossiers of the agency,
then all; and without any, one in two. Times are gross, pauses counted, on both sides: a promise moves with its pauses.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Final

from shared.contracts.codes import local_day

ENOUGH: Final = 5
LOOKS_BACK: Final = timedelta(days=90)
RULE: Final = (
    "Khả năng trễ hạn của một hồ sơ = tỷ lệ hồ sơ cùng cơ quan, cùng thủ tục (giải quyết xong trong 90 ngày qua, đã kéo dài "
    "ít nhất bằng hồ sơ này) cần nhiều thời gian hơn thời hạn của nó; dưới 5 hồ sơ như vậy thì lấy rộng hơn."
)


@dataclass(frozen=True, slots=True)
class Done:
    """How long a resolved dossier took, in seconds."""

    agency: str
    procedure: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Open:
    """A pending dossier that is not overdue."""

    code: str
    agency: str
    procedure: str
    received_at: datetime
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Chance:
    """A pending dossier with its chance of being late."""

    dossier: Open
    late: Fraction


class Pace:
    """How long dossiers take at present."""

    def __init__(self, done: Iterable[Done]) -> None:
        taken: dict[tuple[str | None, str | None], list[float]] = {}
        for one in done:
            for key in _widening(one.agency, one.procedure):
                taken.setdefault(key, []).append(one.seconds)
        self._taken: Mapping[tuple[str | None, str | None], Sequence[float]] = {
            key: sorted(values) for key, values in taken.items()
        }

    def late(self, dossier: Open, now: datetime) -> Fraction:
        """The chance that it ends after its due instant."""
        if now > dossier.due_at:
            return Fraction(1)
        age = (now - dossier.received_at).total_seconds()
        limit = (dossier.due_at - dossier.received_at).total_seconds()
        for key in _widening(dossier.agency, dossier.procedure):
            taken = self._taken.get(key, ())
            longer = len(taken) - bisect_right(taken, age)
            if longer >= ENOUGH:
                return Fraction(len(taken) - bisect_right(taken, max(age, limit)), longer)
        return Fraction(1, 2)


def _widening(agency: str, procedure: str) -> tuple[tuple[str | None, str | None], ...]:
    return (agency, procedure), (None, procedure), (agency, None), (None, None)


def chances(pace: Pace, pending: Iterable[Open], now: datetime, days: int) -> list[Chance]:
    """Those that fall due from today to the last of so many days, the likeliest to be late first."""
    last = local_day(now) + timedelta(days=days - 1)
    found = [Chance(one, pace.late(one, now)) for one in pending if local_day(one.due_at) <= last]
    return sorted(found, key=lambda c: (-c.late, c.dossier.due_at, c.dossier.code))


def by_day(found: Iterable[Chance], now: datetime, days: int) -> list[tuple[date, int, Fraction]]:
    """Each day, how many fall due on it, and how many of them will be late."""
    today = local_day(now)
    due: dict[date, list[Fraction]] = {today + timedelta(days=ahead): [] for ahead in range(days)}
    for chance in found:
        day = local_day(chance.dossier.due_at)
        if day in due:
            due[day].append(chance.late)
    return [(day, len(late), sum(late, Fraction())) for day, late in sorted(due.items())]


def by_agency(found: Iterable[Chance]) -> list[tuple[str, int, Fraction]]:
    """Each agency, how many of its dossiers fall due, and how many of them will be late; the most late first."""
    due: dict[str, list[Fraction]] = {}
    for chance in found:
        due.setdefault(chance.dossier.agency, []).append(chance.late)
    rows = [(agency, len(late), sum(late, Fraction())) for agency, late in due.items()]
    return sorted(rows, key=lambda row: (-row[2], -row[1], row[0]))
