"""When reports are due: the periods of the law and its reporting days, as data with validity (`schedules.json`). Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from importlib import resources
from typing import Any, Literal

import orjson

Grain = Literal["month", "quarter", "year"]
MONTHS: Mapping[Grain, int] = {"month": 1, "quarter": 3, "year": 12}


@dataclass(frozen=True, slots=True)
class Schedule:
    """From which day of the month before a period to which of its last month figures are taken, and when each level
    sends them."""

    valid_from: date
    from_day: int
    to_day: int
    grains: tuple[Grain, ...]
    sent_on: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Reporting:
    """One period of a report; `name` is 2026-T11, 2026-Q4 or 2026."""

    grain: Grain
    name: str
    first: date
    last: date

    def due(self, schedule: Schedule, level: str) -> date:
        """The day on which an agency of this level sends it; one that no month has is the last of its month."""
        day = schedule.sent_on.get(level, max(schedule.sent_on.values()))
        return _day_in(self.last.year, self.last.month, day)


@cache
def schedules(report: str = "II.06a") -> tuple[Schedule, ...]:
    """All versions of a report's schedule, the oldest first."""
    entries: list[dict[str, Any]] = orjson.loads(
        resources.files("services.stats").joinpath("schedules.json").read_bytes()
    )[report]
    found = [
        Schedule(
            date.fromisoformat(entry["valid_from"]),
            entry["from_day"],
            entry["to_day"],
            tuple(entry["grains"]),
            entry["sent_on"],
        )
        for entry in entries
    ]
    return tuple(sorted(found, key=lambda s: s.valid_from))


def schedule_on(day: date, report: str = "II.06a") -> Schedule:
    """The schedule in force on a day; the first one for what was before it."""
    versions = schedules(report)
    return next((s for s in reversed(versions) if s.valid_from <= day), versions[0])


def reporting(schedule: Schedule, grain: Grain, year: int, month: int) -> Reporting:
    """The period of a grain whose last month is this one."""
    months = MONTHS[grain]
    before = year * 12 + month - 1 - months
    first = _day_in(before // 12, before % 12 + 1, schedule.from_day)
    names: Mapping[Grain, str] = {
        "month": f"{year:04}-T{month:02}",
        "quarter": f"{year:04}-Q{(month + 2) // 3}",
        "year": f"{year:04}",
    }
    return Reporting(grain, names[grain], first, _day_in(year, month, schedule.to_day))


def closed(schedule: Schedule, today: date, within: int = 31) -> Iterator[Reporting]:
    """The periods that ended before today and not more than so many days ago, the oldest first."""
    start = today - timedelta(days=within)
    for ahead in range((today.year - start.year) * 12 + today.month - start.month + 1):
        count = start.year * 12 + start.month - 1 + ahead
        year, month = count // 12, count % 12 + 1
        for grain in schedule.grains:
            if month % MONTHS[grain] == 0:
                period = reporting(schedule, grain, year, month)
                if start <= period.last < today:
                    yield period


def _day_in(year: int, month: int, day: int) -> date:
    following = date(year + month // 12, month % 12 + 1, 1)
    return min(date(year, month, 1) + timedelta(days=day - 1), following - timedelta(days=1))
