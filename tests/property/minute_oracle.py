"""A second clock, minute by minute: slow, and written from the rules alone, to judge the fast one.

It shares nothing with `shared.clock` but the stored fields of a calendar version. Local time is UTC+7, so it
is right from 1976 on. Shifts of one day must not touch, or the end of the first one cannot be seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

from shared.clock import Calendar, Limit, Pause

MINUTE = timedelta(minutes=1)
SEVEN_HOURS = timedelta(hours=7)
WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def wall_clock(instant: datetime) -> datetime:
    """The local time on the wall, without seconds and without a zone."""
    return (instant.astimezone(UTC) + SEVEN_HOURS).replace(tzinfo=None, second=0, microsecond=0)


@dataclass
class Standing:
    due: datetime  # on the wall
    counted: date  # the day that was counted to


class MinuteOracle:
    def __init__(self, calendar: Calendar) -> None:
        self.calendar = calendar
        self.known: dict[date, list[bool]] = {}

    def shifts_of(self, day: date) -> tuple[str, ...]:
        stored = self.calendar
        weekday = WEEK[day.weekday()]
        week = {str(named): shifts for named, shifts in stored.shifts.items()}
        monday = week.get("mon", ())
        if day in stored.closed:
            return ()
        if day in stored.open:
            return monday
        if stored.public_holidays and day in stored.swapped:
            return monday
        if stored.public_holidays and day in stored.holidays:
            return ()
        if weekday in stored.receipt_only:
            return ()
        return week.get(weekday, ())

    def minutes_of(self, day: date) -> list[bool]:
        if day not in self.known:
            worked = [False] * 1440
            for shift in self.shifts_of(day):
                opening, closing = (int(t[:2]) * 60 + int(t[3:]) for t in shift.split("-"))
                for minute in range(opening, closing):
                    worked[minute] = True
            self.known[day] = worked
        return self.known[day]

    def works(self, wall: datetime) -> bool:
        return self.minutes_of(wall.date())[wall.hour * 60 + wall.minute]

    def is_working_day(self, day: date) -> bool:
        return any(self.minutes_of(day))

    def closing(self, day: date) -> datetime:
        wall = datetime.combine(day + timedelta(days=1), datetime.min.time())
        while not self.works(wall - MINUTE):
            wall -= MINUTE
        return wall

    def end_of_first_shift(self, day: date) -> datetime:
        wall = datetime.combine(day, datetime.min.time())
        while not self.works(wall):
            wall += MINUTE
        while self.works(wall):
            wall += MINUTE
        return wall

    def same_day(self, wall: datetime) -> Standing:
        day = wall.date()
        cutoff = datetime.strptime(self.calendar.same_day_cutoff, "%H:%M").time()  # noqa: DTZ007 - on the wall
        if self.is_working_day(day) and wall.time() < cutoff and wall < self.closing(day):
            return Standing(self.closing(day), day)
        return self.after_working_days(day, Fraction(1))

    def after_working_days(self, day: date, count: Fraction) -> Standing:
        left = count
        while left > 0:
            day += timedelta(days=1)
            if self.is_working_day(day):
                left -= 1
        return Standing(self.end_of_first_shift(day) if left < 0 else self.closing(day), day)

    def after_working_minutes(self, wall: datetime, minutes: int) -> Standing:
        while minutes:
            minutes -= self.works(wall)
            wall += MINUTE
        return Standing(wall, wall.date())

    def rolled(self, counted: date) -> Standing:
        day = counted
        while not self.is_working_day(day):
            day += timedelta(days=1)
        return Standing(self.closing(day), counted)

    def promised(self, limit: Limit, received_at: datetime) -> Standing:
        wall = wall_clock(received_at)
        day, value = wall.date(), Fraction(limit.value)
        if value == 0:
            return self.same_day(wall)
        if limit.unit == "hours":
            return self.after_working_minutes(wall, int(value * 60))
        if limit.unit == "working_days":
            return self.after_working_days(day, value)
        if limit.unit == "days":
            for _ in range(int(value)):
                day += timedelta(days=1)
            return self.rolled(day)
        for _ in range(int(value)):
            month = day.month
            while day.month == month:
                day += timedelta(days=1)
        # `day` is the first of the month that was asked for, when any month went by.
        while day.day < wall.day and (day + timedelta(days=1)).month == day.month:
            day += timedelta(days=1)
        return self.rolled(day)

    def paused(self, limit: Limit, standing: Standing, pause: Pause) -> Standing:
        assert pause.end is not None
        due_at = (standing.due - SEVEN_HOURS).replace(tzinfo=UTC)
        if pause.start >= due_at:
            return standing
        request, completion = wall_clock(pause.start), wall_clock(pause.end)
        if limit.unit == "hours" and limit.value:
            minutes, wall = 0, request
            while wall < standing.due:
                minutes += self.works(wall)
                wall += MINUTE
            return self.after_working_minutes(completion, minutes)
        if limit.unit == "working_days" or not limit.value:
            left, day = Fraction(0), request.date()
            while day < standing.due.date():
                day += timedelta(days=1)
                left += self.is_working_day(day)
            if left == 0:
                return self.same_day(completion)
            if limit.value % 1 and standing.due == self.end_of_first_shift(standing.due.date()):
                left -= Fraction(1, 2)
            return self.after_working_days(completion.date(), left)
        counted, day = standing.counted, request.date()
        while day < completion.date():
            day += timedelta(days=1)
            counted += timedelta(days=1)
        return self.rolled(counted)

    def due_at(self, limit: Limit, received_at: datetime, pauses: list[Pause]) -> datetime:
        standing = self.promised(limit, received_at)
        for pause in pauses:
            standing = self.paused(limit, standing, pause)
        return (standing.due - SEVEN_HOURS).replace(tzinfo=UTC)
