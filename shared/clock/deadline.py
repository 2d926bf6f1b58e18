"""The deadline clock: from a limit, an instant of receipt and a calendar version to a due instant.

Pure: a due date is a function of the acts, the frozen limit and the frozen calendar version. Instants come in
with any offset and go out in UTC; days are days in Asia/Ho_Chi_Minh.

The rules (law: seen in a legal text; practice: seen in production systems; ours: decided here):

- **Working days** (ours): the day of receipt is not counted; due at closing time of the Nth working day after
  it. Half a working day ends at the end of its day's first shift, so N.5 is due at that minute of the working
  day after the Nth, and 0.5 at that minute of the first working day after receipt.
- **Same day** (practice): a limit of 0, whatever its unit. Received before the cut-off and before closing of
  a working day: due at its closing; else at closing of the next working day. It pauses as working days do.
- **Hours**: working time only, whole minutes, seconds dropped; due at the first instant at which the minutes
  are used up.
- **Days, months** (ours, after the civil code): calendar, the day of receipt not counted; a month without
  that day ends on its last day; due at closing; a due day that is no working day moves to the next one.
- **Pause** (law): stops the clock. Working days: as many working days after the completion day as there were
  after the request's day up to the due day; none left: the same-day rule at the completion instant. Hours: to
  the minute. Days and months: the *counted* day, before it was moved to a working day, is moved by the
  calendar days from the request's day to the completion day, then to a working day. A pause that begins at
  or after the due instant changes nothing; while one runs the due instant keeps its value.
- **Extension** (2018 decree): replaces the due instant; later pauses move the new one, and so does a running
  one, counted from its request.

Decided here where the rules are silent (ours):

- A due instant given by hand (kept from an old system, or an extension) stands as it is, on whatever day and
  minute. Its local day is the counted day for later pauses, and a pause moves it to a closing time, as if it
  had been counted.
- Half a working day that is still to come when a pause begins stays a half.
- Hours of which no working minute is left before a due instant given by hand: the same-day rule, as for a
  limit of 0.
- A pause that ends at the very instant of an extension is over: it does not move the new due instant.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Final, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_serializer, model_validator

from shared.clock.calendar import (
    OUT_OF_RANGE,
    Calendar,
    ClockError,
    ClockRangeError,
    Days,
    Rule,
    instant_at,
    local,
    point,
    utc,
)


class Unit(StrEnum):
    WORKING_DAYS = "working_days"
    HOURS = "hours"
    DAYS = "days"
    MONTHS = "months"


# A limit is at most a hundred years of days (ours): a slip of the pen must not cost minutes of counting.
LONGEST: Final = {Unit.WORKING_DAYS: 36_525, Unit.HOURS: 36_525, Unit.DAYS: 36_525, Unit.MONTHS: 1_200}


def _number(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise ValueError("a limit's value is a number")
    return value


class Limit(BaseModel):
    """A time limit: whole numbers from 0; halves for hours and working days only. At most a hundred years of
    days, 36,525 hours, 1,200 months (ours). JSON: `{"value": 5, "unit": "working_days"}`, halves as 0.5.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: Annotated[Decimal, BeforeValidator(_number), Field(ge=0)]
    unit: Unit

    @model_validator(mode="after")
    def _countable(self) -> Limit:
        if self.value > LONGEST[self.unit]:
            raise ValueError(f"a limit in {self.unit} is at most {LONGEST[self.unit]}")
        if self.value % 1:
            if self.unit in (Unit.DAYS, Unit.MONTHS):
                raise ValueError(f"a limit in {self.unit} is a whole number")
            if self.value % 1 != Decimal("0.5"):
                raise ValueError(f"a limit in {self.unit} is a whole number or a half")
        return self

    @field_serializer("value", when_used="json")
    def _as_number(self, value: Decimal) -> int | float:
        return float(value) if value % 1 else int(value)


@dataclass(frozen=True, slots=True)
class Pause:
    """The clock stands still from the request (`start`) to the completion (`end`; None: still paused)."""

    start: datetime
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class Extension:
    """An apology recorded `at` with a new due instant. Of several the last one counts: it replaces all."""

    at: datetime
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Interval:
    """A stretch of a dossier's time, UTC, end outside, and whether it counts, by which rule.

    `amount` is what it counts in the limit's unit, 0 when skipped; hours have four decimals, taken as
    differences of the running total, so that they add up exactly. Months are complete only at their last
    day, so the interval that reaches it carries all of them. Intervals follow each other without a gap from
    receipt to the due instant; one may be empty where a pause begins at midnight: the day of a request counts
    whole.
    """

    start: datetime
    end: datetime
    counted: bool
    rule: Rule
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Deadline:
    """A due instant and how it came about. `counted_day` is the local day that the limit counted to, before a
    day that does not work moved it; `provisional_year` the due year when its swapped days are not decreed.
    """

    due_at: datetime
    provisional_year: int | None
    explain: tuple[Interval, ...]
    counted_day: date
    calendar_agency: str
    calendar_version: int


class PauseError(ClockError):
    """Pauses that cannot be: `index` of the first at fault and a stable `reason`.

    Reasons: `before-received-at`, `not-after-from` (it ends at or before its start), `not-in-order` (it
    begins before the one before it ends, or that one never ends).
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"pause {index}: {reason}")
        self.index = index
        self.reason = reason


def check_pauses(received_at: datetime, pauses: Sequence[Pause]) -> None:
    """Pauses come in order and apart, end after they start, none before receipt; one may begin when another
    ends. Raises PauseError.
    """
    free_from: datetime | None = received_at
    for index, pause in enumerate(pauses):
        if pause.start < received_at:
            raise PauseError(index, "before-received-at")
        if free_from is None or pause.start < free_from:
            raise PauseError(index, "not-in-order")
        if pause.end is not None and pause.end <= pause.start:
            raise PauseError(index, "not-after-from")
        free_from = pause.end


class _Promise(NamedTuple):
    """A due instant (UTC), the ordinal of the day counted to, and whether the same-day rule gave it."""

    at: datetime
    counted: int
    same_day: bool = False


def _by_hand(due_at: datetime) -> _Promise:
    return _Promise(utc(due_at), point(due_at)[0])


def _unit(limit: Limit) -> Unit:
    """A limit of 0 is a same-day one whatever its unit."""
    return limit.unit if limit.value else Unit.WORKING_DAYS


def _same_day(day: int, minute: int, days: Days) -> _Promise:
    today = days[day]
    if not (minute < days.cutoff and minute < today.closing):
        day = days.nth_working_day(day, 1)
        today = days[day]
    return _Promise(instant_at(day, today.closing), day, same_day=True)


def _on_working_day(counted: int, days: Days) -> _Promise:
    day = days.working_day_from(counted)
    return _Promise(instant_at(day, days[day].closing), counted)


def _months_after(day: int, months: int) -> int:
    """The same day of the month so many months on, or the last day of that month."""
    start = date.fromordinal(day)
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    if year > date.max.year:
        raise ClockRangeError(OUT_OF_RANGE)
    last = monthrange(year, month + 1)[1]
    return date(year, month + 1, min(start.day, last)).toordinal()


def _first(limit: Limit, received_at: datetime, days: Days) -> _Promise:
    day, minute = point(received_at)
    if not limit.value:
        return _same_day(day, minute, days)
    whole = int(limit.value)
    is_half = whole != limit.value
    match limit.unit:
        case Unit.WORKING_DAYS:
            due_day = days.nth_working_day(day, whole + is_half)
            due = days[due_day]
            return _Promise(instant_at(due_day, due.half if is_half else due.closing), due_day)
        case Unit.HOURS:
            due_day, due_minute = days.after_minutes(day, minute, whole * 60 + 30 * is_half)
            return _Promise(instant_at(due_day, due_minute), due_day)
        case Unit.DAYS:
            return _on_working_day(day + whole, days)
        case Unit.MONTHS:
            return _on_working_day(_months_after(day, whole), days)


def _after_pause(limit: Limit, promise: _Promise, paused_at: datetime, resumed_at: datetime, days: Days) -> _Promise:
    if paused_at >= promise.at:
        return promise
    request, completion = point(paused_at), point(resumed_at)
    due = point(promise.at)
    unit = _unit(limit)
    if unit in (Unit.DAYS, Unit.MONTHS):
        return _on_working_day(promise.counted + completion[0] - request[0], days)
    if unit is Unit.HOURS:
        left = days.working_minutes(request, due)
        if not left:
            return _same_day(*completion, days)
        due_day, due_minute = days.after_minutes(*completion, left)
        return _Promise(instant_at(due_day, due_minute), due_day)
    left = days.working_days(request[0], due[0])
    if not left:
        return _same_day(*completion, days)
    due_day = days.nth_working_day(completion[0], left)
    new_due = days[due_day]
    return _Promise(
        instant_at(due_day, new_due.half if _ends_at_half(limit, promise, days) else new_due.closing), due_day
    )


def _ends_at_half(limit: Limit, promise: _Promise, days: Days) -> bool:
    """Whether the promise ends with the half working day of its limit."""
    due_day, _ = point(promise.at)
    half = days[due_day].half
    return bool(limit.value % 1) and half >= 0 and promise.at == instant_at(due_day, half)


def _settle(
    limit: Limit,
    received_at: datetime,
    days: Days,
    pauses: Iterable[Pause],
    extension: Extension | None,
    kept: datetime | None,
) -> _Promise:
    if extension is not None:
        promise = _by_hand(extension.due_at)
        pauses = [pause for pause in pauses if pause.end is None or pause.end > extension.at]
    elif kept is not None:
        promise = _by_hand(kept)
    else:
        promise = _first(limit, received_at, days)
    for pause in pauses:
        if pause.end is not None:
            promise = _after_pause(limit, promise, pause.start, pause.end, days)
    return promise


def first_due(limit: Limit, received_at: datetime, calendar: Calendar) -> datetime:
    """The due instant promised at receipt. Raises ClockRangeError, NoWorkingTime."""
    return _first(limit, received_at, calendar.days).at


def due_after_pause(
    limit: Limit,
    due_at: datetime,
    paused_at: datetime,
    resumed_at: datetime,
    calendar: Calendar,
    counted_day: date | None = None,
) -> datetime:
    """The due instant after one pause. For days and months `counted_day` is the day the limit counted to,
    before it was moved to a working day (`Deadline.counted_day`); None: the local day of `due_at`.
    """
    counted = point(due_at)[0] if counted_day is None else counted_day.toordinal()
    promise = _Promise(utc(due_at), counted)
    return _after_pause(limit, promise, paused_at, resumed_at, calendar.days).at


def current_due(
    limit: Limit,
    received_at: datetime,
    calendar: Calendar,
    pauses: Iterable[Pause] = (),
    extension: Extension | None = None,
    kept: datetime | None = None,
) -> datetime:
    """The due instant after all acts, as `deadline` gives it, without its explanation.

    `pauses` as `check_pauses` accepts them; `extension` the last one; `kept` the due instant of an old
    system, which stands for the one promised at receipt.
    """
    return _settle(limit, received_at, calendar.days, pauses, extension, kept).at


def provisional_year(due_at: datetime, calendar: Calendar) -> int | None:
    """The local year of the due instant when its national swapped days were not decreed yet as the version
    was stored. A year before the first known one is past, and gets no decree any more: None.
    """
    year = local(due_at).year
    if not calendar.public_holidays or year in calendar.swap_years:
        return None
    return None if year < min(calendar.swap_years, default=year) else year


def due_soon_at(
    limit: Limit, due_at: datetime, calendar: Calendar, *, days_before: int = 1, minutes_before: int = 60
) -> datetime:
    """When officers are warned: the opening of the last working day before the due day; limits in hours: one
    working hour before the due instant (both distances are settings). It may lie before receipt.
    """
    days = calendar.days
    day, minute = point(due_at)
    if _unit(limit) is Unit.HOURS:
        return instant_at(*days.before_minutes(day, minute, minutes_before))
    opening_day = days.working_day_before(day, days_before)
    return instant_at(opening_day, days[opening_day].shifts[0].start)


class _Leg(NamedTuple):
    """A part of the dossier's time with one promise: from receipt, a completion or an extension on."""

    start: datetime
    promise: _Promise
    first_rule: Rule  # of the day on which it starts, which is not counted
    by_hand: Rule | None = None  # the due instant was given, nothing is counted


class _Explanation:
    """Writes the intervals of one dossier, leg after leg."""

    def __init__(self, limit: Limit, days: Days) -> None:
        self.limit = limit
        self.unit = _unit(limit)
        self.days = days
        self.intervals: list[Interval] = []

    def add(
        self, start: datetime, end: datetime, rule: Rule, amount: Decimal | int = 0, *, counted: bool = False
    ) -> None:
        if start >= end and not amount:
            return
        last = self.intervals[-1] if self.intervals else None
        if last is not None and last.rule == rule and last.counted == counted and last.end == start:
            self.intervals[-1] = replace(last, end=end, amount=last.amount + amount)
        else:
            self.intervals.append(Interval(start, end, counted, rule, Decimal(amount)))

    def walk(self, leg: _Leg, until: datetime | None) -> None:
        """What happens in a leg, up to its due instant or to the act that ends the leg before or after it."""
        due = leg.promise.at
        end = due if until is None else min(until, due)
        if leg.start < end:
            self._walk_to(leg, end)
        if until is not None:
            self.add(max(due, leg.start), until, "overdue")

    def _walk_to(self, leg: _Leg, end: datetime) -> None:
        if leg.by_hand is not None:
            self.add(leg.start, end, leg.by_hand)
        elif leg.promise.same_day:
            self._walk_same_day(leg, end)
        elif self.unit is Unit.HOURS:
            self._walk_hours(leg.start, end)
        elif self.unit is Unit.WORKING_DAYS:
            self._walk_working_days(leg, end)
        else:
            self._walk_calendar(leg, end)

    def _walk_same_day(self, leg: _Leg, end: datetime) -> None:
        first, last, due_day = point(leg.start)[0], point(end)[0], leg.promise.counted
        for day in range(first, last + 1):
            here = self.days[day]
            start = leg.start if day == first else instant_at(day)
            finish = end if day == last else instant_at(day + 1)
            if day == due_day:
                self.add(start, finish, "same-day", counted=True)
            else:
                self.add(start, finish, "cut-off" if here.shifts else here.rule)

    def _walk_working_days(self, leg: _Leg, end: datetime) -> None:
        first, last = point(leg.start)[0], point(end)[0]
        half = _ends_at_half(self.limit, leg.promise, self.days)
        self.add(leg.start, end if first == last else instant_at(first + 1), leg.first_rule)
        for day in range(first + 1, last + 1):
            here = self.days[day]
            amount = Decimal(0)
            if here.shifts:
                amount = Decimal("0.5") if half and day == leg.promise.counted else Decimal(1)
            finish = end if day == last else instant_at(day + 1)
            self.add(instant_at(day), finish, here.rule, amount, counted=bool(here.shifts))

    def _walk_calendar(self, leg: _Leg, end: datetime) -> None:
        first, last = point(leg.start)[0], point(end)[0]
        counted = leg.promise.counted
        start = leg.start
        finish = end if last == first else instant_at(first + 1)
        self.add(start, finish, leg.first_rule)
        if min(last, counted) > first:
            start, finish = finish, end if last <= counted else instant_at(counted + 1)
            if self.unit is Unit.DAYS:
                self.add(start, finish, "calendar-days", min(last, counted) - first, counted=True)
            else:
                months = self.limit.value if last >= counted else 0
                self.add(start, finish, "calendar-months", months, counted=True)
        self.add(finish, end, "rollover")

    def _walk_hours(self, start: datetime, end: datetime) -> None:
        """Amounts are in minutes until the explanation is finished."""
        (first, first_minute), (last, last_minute) = point(start), point(end)
        cursor = start
        for day in range(first, last + 1):
            here = self.days[day]
            midnight = end if day == last else instant_at(day + 1)
            for shift in here.shifts:
                opening, closing = instant_at(day, shift.start), instant_at(day, shift.end)
                self.add(cursor, min(opening, end), "off-shift")
                cursor = max(cursor, min(opening, end))
                minutes = self.days.minutes_on(
                    day,
                    max(shift.start, first_minute if day == first else 0),
                    min(shift.end, last_minute if day == last else 1440),
                )
                self.add(cursor, min(closing, end), here.rule, max(0, minutes), counted=True)
                cursor = max(cursor, min(closing, end))
            self.add(cursor, midnight, "off-shift" if here.shifts else here.rule)
            cursor = midnight

    def finished(self) -> tuple[Interval, ...]:
        if self.unit is not Unit.HOURS:
            return tuple(self.intervals)
        total, told, intervals = Decimal(0), Decimal(0), []
        for interval in self.intervals:
            total += interval.amount
            so_far = (total / 60).quantize(Decimal("0.0001"))
            intervals.append(replace(interval, amount=so_far - told))
            told = so_far
        return tuple(intervals)


def deadline(
    limit: Limit,
    received_at: datetime,
    calendar: Calendar,
    pauses: Sequence[Pause] = (),
    extension: Extension | None = None,
    kept: datetime | None = None,
) -> Deadline:
    """The due instant after all acts, with every interval counted or skipped on the way to it.

    Arguments as `current_due`, with which it agrees. Pauses without effect are left out. A pause still
    running ends the explanation with an interval up to the due instant, which keeps its value meanwhile.
    Raises ClockRangeError, NoWorkingTime.
    """
    days = calendar.days
    story = _Explanation(limit, days)
    received_at = utc(received_at)
    if kept is None:
        leg = _Leg(received_at, _first(limit, received_at, days), "receipt-day")
    else:
        leg = _Leg(received_at, _by_hand(kept), "receipt-day", "kept")
    running = False
    for pause in pauses:
        if extension is not None and extension.at <= pause.start:
            leg, extension = _extended(story, leg, extension), None
        promise = leg.promise
        if extension is not None and (pause.end is None or extension.at < pause.end):
            promise = _by_hand(extension.due_at)
        if pause.start >= promise.at:
            continue
        start = utc(pause.start)
        story.walk(leg, start)
        if promise is not leg.promise:
            extension = None
        if pause.end is None:
            story.add(start, promise.at, "pause")
            leg = leg._replace(promise=promise)
            running = True
            break
        end = utc(pause.end)
        story.add(start, end, "pause")
        leg = _Leg(end, _after_pause(limit, promise, start, end, days), "resume-day")
    if not running:
        if extension is not None:
            leg = _extended(story, leg, extension)
        story.walk(leg, None)
    due = leg.promise
    return Deadline(
        due_at=due.at,
        provisional_year=provisional_year(due.at, calendar),
        explain=story.finished(),
        counted_day=date.fromordinal(due.counted),
        calendar_agency=calendar.agency,
        calendar_version=calendar.version,
    )


def _extended(story: _Explanation, leg: _Leg, extension: Extension) -> _Leg:
    at = utc(extension.at)
    story.walk(leg, at)
    return _Leg(at, _by_hand(extension.due_at), "receipt-day", "extension")
