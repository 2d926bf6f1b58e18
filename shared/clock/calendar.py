"""The working-time calendar of an agency: one stored version, and what each local day is in it.

Errors of the clock, all of them `ValueError`:

    ClockError
    ├── ClockRangeError   a result or a step towards it lies outside the years 1 to 9999
    └── NoWorkingTime     the calendar has no working day within twenty years of the asked day
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import cache, cached_property
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, NamedTuple, Self, get_args
from zoneinfo import ZoneInfo

import holidays as national
from pydantic import AfterValidator, BaseModel, ConfigDict, field_serializer, field_validator

TZ: Final = ZoneInfo("Asia/Ho_Chi_Minh")

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: Final[tuple[Weekday, ...]] = get_args(Weekday)

# Why a local day is what it is, and why a stretch of time counts or not; stable codes of `explain`.
Rule = Literal[
    "working-day", "weekend", "holiday", "closed", "open", "swapped", "receipt-only",
    "receipt-day", "resume-day", "same-day", "cut-off", "off-shift",
    "calendar-days", "calendar-months", "rollover", "pause", "kept", "extension", "overdue",
]  # fmt: skip

FIRST_DAY: Final = date.min.toordinal()
LAST_DAY: Final = date.max.toordinal()
OUT_OF_RANGE: Final = "the clock counts within the years 1 to 9999"
# A calendar that is shut for longer than this has no working time (ours): the search ends with an error.
LONGEST_GAP_DAYS: Final = 20 * 366
# About 110 years of days: far more than open dossiers span, and a bound on what odd dates can make us keep.
REMEMBERED_DAYS: Final = 40_000

_HH_MM = re.compile(r"([01]\d|2[0-3]):([0-5]\d)", re.ASCII)


class ClockError(ValueError):
    """What the clock cannot answer."""


class ClockRangeError(ClockError):
    """The answer, or a day needed for it, lies outside the years 1 to 9999."""


class NoWorkingTime(ClockError):
    """The calendar has no working day within twenty years of the asked one."""


def minute_of_day(text: str) -> int:
    """The minute of the local day of "HH:MM" (00:00 to 23:59); ValueError otherwise.

    24:00 is refused (ours): a day closes on itself, so that a due instant always lies in its due day.
    """
    match = _HH_MM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no time of day HH:MM")
    return int(match[1]) * 60 + int(match[2])


class Shift(NamedTuple):
    """A stretch of working time, in minutes of the local day: start inside, end outside."""

    start: int
    end: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The shift "07:30-11:30"; ValueError when it is not of that form or ends before it starts."""
        opening, dash, closing = text.partition("-")
        if not dash:
            raise ValueError(f"{text!r} is no shift HH:MM-HH:MM")
        shift = cls(minute_of_day(opening), minute_of_day(closing))
        if shift.start >= shift.end:
            raise ValueError(f"the shift {text!r} ends before it starts")
        return shift


def _parse_shifts(texts: Iterable[str]) -> tuple[Shift, ...]:
    shifts = tuple(Shift.parse(text) for text in texts)
    for earlier, later in pairwise(shifts):
        if later.start < earlier.end:
            raise ValueError("the shifts of a day must be in order and must not overlap")
    return shifts


def _check_time_of_day(text: str) -> str:
    minute_of_day(text)
    return text


TimeOfDay = Annotated[str, AfterValidator(_check_time_of_day)]

_OFFICE_HOURS = ("07:30-11:30", "13:00-17:00")
DEFAULT_SHIFTS: Final[Mapping[Weekday, tuple[str, ...]]] = dict.fromkeys(WEEKDAYS[:5], _OFFICE_HOURS)
DEFAULT_CUTOFF: Final = "15:00"


class Calendar(BaseModel):
    """One stored version of an agency's calendar; national days are frozen in it when it is loaded.

    `shifts` holds "HH:MM-HH:MM" per weekday, in order, without overlap; a weekday that is not named has none
    (ours). `holidays`, `swapped` and `swap_years` are the national days off, the national swapped working
    days and the years whose swapped days were decreed when the version was loaded: a newer package changes
    nothing that is stored. The JSON form is canonical: equal versions have equal JSON.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    agency: str
    version: int
    valid_from: date
    same_day_cutoff: TimeOfDay = DEFAULT_CUTOFF
    receipt_only: frozenset[Weekday] = frozenset()
    shifts: dict[Weekday, tuple[str, ...]] = dict(DEFAULT_SHIFTS)
    closed: frozenset[date] = frozenset()
    open: frozenset[date] = frozenset()
    public_holidays: bool = True
    holidays: frozenset[date] = frozenset()
    swapped: frozenset[date] = frozenset()
    swap_years: frozenset[int] = frozenset()

    @field_validator("shifts")
    @classmethod
    def _shifts_in_order(cls, shifts: dict[Weekday, tuple[str, ...]]) -> dict[Weekday, tuple[str, ...]]:
        for texts in shifts.values():
            _parse_shifts(texts)
        return {weekday: shifts[weekday] for weekday in WEEKDAYS if shifts.get(weekday)}

    @field_serializer("closed", "open", "holidays", "swapped", "swap_years")
    def _sorted(self, values: frozenset[Any]) -> list[Any]:
        return sorted(values)

    @field_serializer("receipt_only")
    def _in_week_order(self, weekdays: frozenset[Weekday]) -> list[Weekday]:
        return [weekday for weekday in WEEKDAYS if weekday in weekdays]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy looks its days up anew: it must not answer from the days of the version it came from."""
        copy = super().model_copy(update=update, deep=deep)
        copy.__dict__.pop("days", None)
        return copy

    @cached_property
    def days(self) -> Days:
        """What each local day is, remembered as it is asked for."""
        return Days(self)


class Day(NamedTuple):
    """A local day for the clock: the rule that decided it and its working time (none: no working day)."""

    rule: Rule
    shifts: tuple[Shift, ...]
    half: int  # minute at which half a working day ends: the end of the first shift
    closing: int  # minute at which the working day ends: the end of the last shift
    minutes: int  # of working time

    @classmethod
    def of(cls, rule: Rule, shifts: tuple[Shift, ...] = ()) -> Self:
        if not shifts:
            return cls(rule, (), -1, -1, 0)
        return cls(rule, shifts, shifts[0].end, shifts[-1].end, sum(end - start for start, end in shifts))


class Days(dict[int, Day]):
    """Local day (as its proleptic ordinal) → what it is in one calendar; filled as it is asked for.

    For one day the first that applies: `closed`: none; `open`: Monday's shifts; a national swapped working
    day: Monday's shifts; a national day off: none; else the weekday's shifts. `receipt_only` weekdays take
    dossiers in but are no working days and have no working time; days in `open` and swapped ones work all
    the same. `public_holidays: false` leaves out both national lines.
    """

    __slots__ = ("_named", "_week", "agency", "cutoff", "version")

    def __init__(self, calendar: Calendar) -> None:
        super().__init__()
        self.agency = calendar.agency
        self.version = calendar.version
        self.cutoff = minute_of_day(calendar.same_day_cutoff)
        shifts = [_parse_shifts(calendar.shifts.get(weekday, ())) for weekday in WEEKDAYS]
        monday = shifts[0]
        self._week = [
            Day.of("weekend") if not shifts[index]
            else Day.of("receipt-only") if weekday in calendar.receipt_only
            else Day.of("working-day", shifts[index])
            for index, weekday in enumerate(WEEKDAYS)
        ]  # fmt: skip
        # From the last that applies to the first, so that the first wins.
        self._named: dict[int, Day] = {}
        if calendar.public_holidays:
            self._name(calendar.holidays, Day.of("holiday"))
            self._name(calendar.swapped, Day.of("swapped", monday))
        self._name(calendar.open, Day.of("open", monday))
        self._name(calendar.closed, Day.of("closed"))

    def _name(self, dates: Iterable[date], day: Day) -> None:
        self._named.update((each.toordinal(), day) for each in dates)

    def __missing__(self, ordinal: int) -> Day:
        if not FIRST_DAY <= ordinal <= LAST_DAY:
            raise ClockRangeError(OUT_OF_RANGE)
        if len(self) >= REMEMBERED_DAYS:
            self.clear()
        day = self[ordinal] = self._named.get(ordinal) or self._week[(ordinal - 1) % 7]
        return day

    def _no_working_time(self) -> NoWorkingTime:
        return NoWorkingTime(f"calendar {self.agency} version {self.version} has no working day within twenty years")

    def nth_working_day(self, after: int, count: int) -> int:
        """The ordinal of the count-th working day after that day (count at least 1)."""
        ordinal, gap = after, 0
        while True:
            ordinal += 1
            if self[ordinal].shifts:
                count -= 1
                gap = 0
                if not count:
                    return ordinal
            else:
                gap += 1
                if gap > LONGEST_GAP_DAYS:
                    raise self._no_working_time()

    def working_day_from(self, ordinal: int) -> int:
        """That day when it works, else the next working day."""
        return ordinal if self[ordinal].shifts else self.nth_working_day(ordinal, 1)

    def working_day_before(self, ordinal: int, count: int = 1) -> int:
        """The ordinal of the count-th working day before that day."""
        gap = 0
        while count:
            ordinal -= 1
            if self[ordinal].shifts:
                count -= 1
                gap = 0
            else:
                gap += 1
                if gap > LONGEST_GAP_DAYS:
                    raise self._no_working_time()
        return ordinal

    def working_days(self, after: int, up_to: int) -> int:
        """How many working days lie after the one day, up to and with the other."""
        return sum(1 for ordinal in range(after + 1, up_to + 1) if self[ordinal].shifts)

    def minutes_on(self, ordinal: int, start: int, end: int) -> int:
        """Minutes of working time of that day between two minutes of it."""
        return sum(max(0, min(end, shift.end) - max(start, shift.start)) for shift in self[ordinal].shifts)

    def working_minutes(self, start: tuple[int, int], end: tuple[int, int]) -> int:
        """Minutes of working time between two local (day, minute) points."""
        (first, start_minute), (last, end_minute) = start, end
        if last <= first:
            return self.minutes_on(first, start_minute, end_minute) if last == first else 0
        between = sum(self[ordinal].minutes for ordinal in range(first + 1, last))
        return self.minutes_on(first, start_minute, 1440) + between + self.minutes_on(last, 0, end_minute)

    def after_minutes(self, ordinal: int, minute: int, count: int) -> tuple[int, int]:
        """The first local (day, minute) at which `count` (at least 1) minutes of working time are used up."""
        gap = 0
        while True:
            for start, end in self[ordinal].shifts:
                begin = max(start, minute)
                if begin < end:
                    gap = 0
                    if count <= end - begin:
                        return ordinal, begin + count
                    count -= end - begin
            ordinal, minute = ordinal + 1, 0
            gap += 1
            if gap > LONGEST_GAP_DAYS:
                raise self._no_working_time()

    def before_minutes(self, ordinal: int, minute: int, count: int) -> tuple[int, int]:
        """The last local (day, minute) from which `count` minutes of working time lead up to that point."""
        gap = 0
        while True:
            for start, end in reversed(self[ordinal].shifts):
                finish = min(end, minute)
                if start < finish:
                    gap = 0
                    if count <= finish - start:
                        return ordinal, finish - count
                    count -= finish - start
            ordinal, minute = ordinal - 1, 1440
            gap += 1
            if gap > LONGEST_GAP_DAYS:
                raise self._no_working_time()


class _National(NamedTuple):
    days_off: frozenset[date]
    swapped: frozenset[date]
    swap_years: frozenset[int]


# The years for which package `holidays` answers for Viet Nam (it has no lunar calendar before and after).
NATIONAL_YEARS: Final = range(1901, 2101)


@cache
def _national_days(years: range) -> _National:
    """National days off and swapped working days, from package `holidays`, country VN, category public.

    The package lists the decreed swaps by year; a year up to the last listed one without an entry had none,
    a later year's are not decreed yet. A swap may stand in the entry of the year after its working Saturday.
    """
    asked = range(years.start, years.stop + 1)
    vietnam = national.country_holidays("VN", years=asked, categories=("public",))
    swapped = frozenset(day for day in vietnam.weekend_workdays if day.year in years)
    decreed_up_to = max(vietnam.special_public_holidays)
    return _National(
        frozenset(day for day in vietnam if day.year in years),
        swapped,
        frozenset(year for year in years if year <= decreed_up_to),
    )


def materialise(
    agency: str,
    version: int,
    valid_from: date,
    *,
    public_holidays: bool = True,
    same_day_cutoff: str = DEFAULT_CUTOFF,
    receipt_only: Iterable[Weekday] = (),
    shifts: Mapping[Weekday, Sequence[str]] = DEFAULT_SHIFTS,
    closed: Iterable[date] = (),
    open: Iterable[date] = (),  # noqa: A002 - the bundle's own word
    years: range = NATIONAL_YEARS,
) -> Calendar:
    """A bundle's calendar entry as a version to store, with the national days of `years` frozen in it.

    Missing fields: 07:30-11:30 and 13:00-17:00 Monday to Friday, cut-off 15:00, public holidays. Raises
    pydantic's ValidationError (a ValueError) that names the field at fault.
    """
    days = _national_days(years) if public_holidays else _National(frozenset(), frozenset(), frozenset())
    return Calendar.model_validate(
        {
            "agency": agency,
            "version": version,
            "valid_from": valid_from,
            "same_day_cutoff": same_day_cutoff,
            "receipt_only": frozenset(receipt_only),
            "shifts": {weekday: tuple(texts) for weekday, texts in shifts.items()},
            "closed": frozenset(closed),
            "open": frozenset(open),
            "public_holidays": public_holidays,
            "holidays": days.days_off,
            "swapped": days.swapped,
            "swap_years": days.swap_years,
        }
    )


def default_calendar(agency: str) -> Calendar:
    """The calendar of an agency when neither it nor any ancestor has one: version 0, valid since ever."""
    return materialise(agency, 0, date.min)


def utc(instant: datetime) -> datetime:
    """The instant in UTC; ClockRangeError at the edges of the years 1 to 9999."""
    if instant.tzinfo is None:
        raise ValueError("an instant needs an offset from UTC")
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise ClockRangeError(OUT_OF_RANGE) from None


def local(instant: datetime) -> datetime:
    """The instant in Asia/Ho_Chi_Minh; ClockRangeError at the edges of the years 1 to 9999."""
    try:
        return utc(instant).astimezone(TZ)
    except OverflowError:
        raise ClockRangeError(OUT_OF_RANGE) from None


def local_day(instant: datetime) -> date:
    """The day in Asia/Ho_Chi_Minh on which the instant falls."""
    return local(instant).date()


def point(instant: datetime) -> tuple[int, int]:
    """The instant as local (day ordinal, minute of the day); seconds are dropped."""
    there = local(instant)
    return there.toordinal(), there.hour * 60 + there.minute


def instant_at(ordinal: int, minute: int = 0) -> datetime:
    """The UTC instant of a minute of a local day."""
    try:
        day = date.fromordinal(ordinal)
        return datetime(day.year, day.month, day.day, minute // 60, minute % 60, tzinfo=TZ).astimezone(UTC)
    except (OverflowError, ValueError):
        raise ClockRangeError(OUT_OF_RANGE) from None


def calendar_for(versions: Sequence[Calendar], received_at: datetime) -> Calendar:
    """The version for life of a dossier received then: the latest `valid_from` not after the local day of
    receipt; equal ones: the higher version; none yet: the earliest (equal ones again: the higher version,
    ours). ValueError without any version.
    """
    if not versions:
        raise ValueError("an agency without a calendar version has no clock")
    day = local_day(received_at)
    in_force = [version for version in versions if version.valid_from <= day]
    if in_force:
        return max(in_force, key=lambda version: (version.valid_from, version.version))
    return min(versions, key=lambda version: (version.valid_from, -version.version))
