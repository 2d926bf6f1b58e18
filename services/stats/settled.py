"""Exact figures of a long period, now, at the cost of what is new: what ended in months gone by is kept in memory.

Of a question that is asked now, the dossiers that ended before this month give the same counts as the last time, unless an
event has changed one of them since. They are kept month by month, with the sorted times that they took, for as long as
the month's version in `stats.settled` is the one that they were read with: it is written in the transaction that changes
a month gone by, so that an answer never holds what is no longer so. What is pending and what ended this month is read.
"""

import sys
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any, Final

from services.stats.indicator import local_midnight, month_of
from shared.contracts.codes import local_day

# A batch that began in a month may be stored a little after its end, and counts there as of this month: older ones are settled.
SETTLES: Final = timedelta(hours=1)
KEPT: Final = 2_000_000  # times of dossiers, eight bytes each: four provinces' years of half a million
COUNTS: Final = (
    *("online", "counter", "postal", "carried_over", "early", "on_time", "late", "pending", "overdue", "paused"),
    *("refused", "listed", "digitised"),
)
TENTHS: Final = (5, 9)  # the median and p90

Whom = tuple[Any, ...]  # all of a question but its instants, and the period's start


def settled_before(now: datetime) -> datetime:
    """The start of the month before which all months are settled."""
    return local_midnight(month_of(local_day(now - SETTLES))[0])


@dataclass(frozen=True, slots=True)
class Part:
    """What one month, or what is new, adds: the counts of COUNTS, all times together, and each time in order (µs)."""

    counts: tuple[int, ...]
    elapsed: int
    times: "array[int]"


NOTHING: Final = Part((0,) * len(COUNTS), 0, array("q"))


def part_of(row: Any) -> Part:
    """`times` of the row: signed numbers of eight bytes as PostgreSQL sends them."""
    times = array("q", row["times"] or b"")
    if sys.byteorder == "little":
        times.byteswap()
    return Part(tuple(row[name] for name in COUNTS), int(row["elapsed"] or 0), times)


def together(parts: Sequence[Part]) -> dict[str, Any]:
    """The row of figures that these make; `spread` holds the exact percentiles, None when nothing has ended."""
    sums = map(sum, zip(*(part.counts for part in parts), strict=True))
    times = [part.times for part in parts if part.times]
    spread = [percentile(times, tenths) for tenths in TENTHS] if times else None
    return dict(zip(COUNTS, sums, strict=True)) | {"elapsed": sum(part.elapsed for part in parts), "spread": spread}


def percentile(times: Sequence["array[int]"], tenths: int) -> Fraction:
    """percentile_cont over sorted arrays together: between the two values at the exact rank."""
    low, rest = divmod(tenths * (sum(map(len, times)) - 1), 10)
    value = ranked(times, low)
    return Fraction(value) if not rest else value + Fraction(rest, 10) * (ranked(times, low + 1) - value)


def ranked(times: Sequence["array[int]"], rank: int) -> int:
    """The value that has so many before it: halved for, as long as it takes to tell it from its neighbour."""
    low, high = min(each[0] for each in times), max(each[-1] for each in times)
    while low < high:
        middle = (low + high) // 2
        if sum(bisect_right(each, middle) for each in times) > rank:
            high = middle
        else:
            low = middle + 1
    return low


@dataclass(slots=True)
class Settled:
    """The parts of months gone by that this process has read, those used last of all."""

    _parts: "OrderedDict[tuple[Whom, date], tuple[int, Part]]" = field(default_factory=OrderedDict)
    _size: int = 0

    def held(self, whom: Whom, versions: Mapping[date, int], months: Iterable[date]) -> dict[date, Part]:
        """Of these months, the parts that still hold."""
        found = {}
        for month in months:
            version, part = self._parts.get((whom, month), (None, None))
            if part is not None and version == versions.get(month, 0):
                self._parts.move_to_end((whom, month))
                found[month] = part
        return found

    def keep(self, whom: Whom, versions: Mapping[date, int], parts: Mapping[date, Part]) -> None:
        for month, part in parts.items():
            _, before = self._parts.pop((whom, month), (0, None))
            self._size += len(part.times) + 1 - (0 if before is None else len(before.times) + 1)
            self._parts[whom, month] = versions.get(month, 0), part
        while self._size > KEPT:
            _, (_, part) = self._parts.popitem(last=False)
            self._size -= len(part.times) + 1
