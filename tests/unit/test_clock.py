"""Worked due dates of the deadline clock, each with the law or practice behind it, and the small rules."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from shared.clock import (
    TZ,
    Calendar,
    ClockRangeError,
    Extension,
    Interval,
    Limit,
    NoWorkingTime,
    Pause,
    PauseError,
    Shift,
    Unit,
    calendar_for,
    check_pauses,
    current_due,
    deadline,
    default_calendar,
    due_after_pause,
    due_soon_at,
    first_due,
    materialise,
    provisional_year,
    sentences,
)


def at(text: str) -> datetime:
    """A local time, "2026-10-12 09:30", as an instant."""
    return datetime.fromisoformat(text).replace(tzinfo=TZ)


def calendar(**fields: Any) -> Calendar:
    return materialise("H55", 1, date(2020, 1, 1), **fields)


def limit(text: str) -> Limit:
    value, unit = text.split()
    return Limit(value=Decimal(value), unit=Unit(unit))


OFFICE = ["07:30-11:30", "13:00-17:00"]
WEEK = dict.fromkeys(("mon", "tue", "wed", "thu", "fri"), OFFICE)
SATURDAY_MORNING = WEEK | {"sat": ["07:30-11:30"]}
SATURDAY_DESK = {"shifts": SATURDAY_MORNING, "receipt_only": ["sat"]}
SATURDAY_WORKS = {"shifts": SATURDAY_MORNING}


@dataclass(frozen=True)
class Worked:
    """A due date worked out by hand. All times local. 12 October 2026 is a Monday."""

    name: str
    limit: str
    received: str
    due: str
    why: str
    fields: dict[str, Any] = field(default_factory=dict)
    pauses: tuple[tuple[str, str | None], ...] = ()
    extension: tuple[str, str] | None = None
    kept: str | None = None


WORKED = [
    # National holidays and swapped days
    Worked("over Tết 2027", "5 working_days", "2027-02-01 09:30", "2027-02-15 17:00",
           "Labour Code 2019 art. 112: Tết 2027 is 4 to 10 February; the day of receipt is not counted"),
    Worked("one day, on the eve of Tết 2027", "1 working_days", "2027-02-03 16:50", "2027-02-11 17:00",
           "the first working day after Tết"),
    Worked("same day, at the cut-off before Tết", "0 working_days", "2027-02-03 15:00", "2027-02-11 17:00",
           "practice: from the cut-off on, the next working day, however far"),
    Worked("over Tết 2026", "3 working_days", "2026-02-13 10:00", "2026-02-25 17:00",
           "Tết 2026: 16 to 20 February off"),
    Worked("hours over Tết 2027", "4 hours", "2027-02-03 16:00", "2027-02-11 10:30",
           "an hour is left on 3 February, three follow after Tết"),
    Worked("over 30 April to 3 May 2027", "2 working_days", "2027-04-28 10:00", "2027-05-04 17:00",
           "30 April, 1 May, and 3 May for 1 May, which is a Saturday (art. 111)"),
    Worked("same day on 30 April", "0 working_days", "2027-04-30 09:00", "2027-05-04 17:00",
           "a day that is none: the next working day, due at its closing"),
    Worked("over 2 September 2026", "3 working_days", "2026-08-27 10:00", "2026-09-04 17:00",
           "31 August is swapped off, 1 and 2 September are National Day"),
    Worked("over 2 September 2027", "1 working_days", "2027-09-01 10:00", "2027-09-06 17:00",
           "National Day is two days: 2 and 3 September 2027, then a weekend"),
    Worked("24 November 2026", "1 working_days", "2026-11-23 10:00", "2026-11-25 17:00",
           "Resolution 80-NQ/TW: Vietnam Cultural Day, off since 2026"),
    Worked("Hùng Kings on a Sunday", "0 days", "2026-04-27 08:00", "2026-04-28 17:00",
           "26 April 2026 is a Sunday, so Monday is off"),
    Worked("swapped Saturday 22 August 2026", "1 working_days", "2026-08-21 10:00", "2026-08-22 17:00",
           "swapped with 31 August 2026: works with Monday's shifts"),
    Worked("same day on a swapped Saturday", "0 working_days", "2026-08-22 10:00", "2026-08-22 17:00",
           "a national swapped working day is a working day"),
    Worked("hours on a swapped Saturday", "4 hours", "2026-08-21 16:00", "2026-08-22 10:30",
           "it has working time as a Monday has"),
    Worked("swapped Saturday 4 May 2024", "2 working_days", "2024-05-02 10:00", "2024-05-04 17:00",
           "dispatch 2450/VPCP-KGVX: 29 April off, 4 May works"),
    Worked("swapped Saturday 26 April 2025", "1 working_days", "2025-04-25 10:00", "2025-04-26 17:00",
           "notice 6150/TB-BLDTBXH: 2 May off, 26 April works"),
    Worked("the day off of that swap", "1 working_days", "2025-04-29 10:00", "2025-05-05 17:00",
           "30 April, 1 and 2 May 2025 off, then a weekend"),
    Worked("a swapped Saturday where Saturdays only receive", "1 working_days", "2026-08-21 10:00", "2026-08-22 17:00",
           "swapped working days work all the same, with Monday's shifts", SATURDAY_DESK),
    Worked("no national days", "1 working_days", "2025-04-29 10:00", "2025-04-30 17:00",
           "public_holidays: false leaves out both national lines", {"public_holidays": False}),
    Worked("no national swapped days either", "1 working_days", "2026-08-21 10:00", "2026-08-24 17:00",
           "public_holidays: false leaves out both national lines", {"public_holidays": False}),
    # The agency's own days and shifts
    Worked("closed Monday", "1 working_days", "2026-10-16 10:00", "2026-10-20 17:00",
           "a day in `closed` has no shifts", {"closed": [date(2026, 10, 19)]}),
    Worked("closed on a swapped day", "1 working_days", "2026-08-21 10:00", "2026-08-24 17:00",
           "`closed` is asked first", {"closed": [date(2026, 8, 22)]}),
    Worked("closed and open at once", "1 working_days", "2026-10-16 10:00", "2026-10-19 17:00",
           "`closed` is asked before `open`", {"closed": [date(2026, 10, 17)], "open": [date(2026, 10, 17)]}),
    Worked("open on a holiday", "1 working_days", "2026-11-23 10:00", "2026-11-24 17:00",
           "`open` is asked before the national days off", {"open": [date(2026, 11, 24)]}),
    Worked("open Saturday where Saturdays only receive", "1 working_days", "2026-10-16 10:00", "2026-10-17 17:00",
           "days in `open` work all the same, with Monday's shifts", SATURDAY_DESK | {"open": [date(2026, 10, 17)]}),
    Worked("Saturday desk", "1 working_days", "2026-10-16 10:00", "2026-10-19 17:00",
           "`receipt_only`: a Saturday desk does not shorten deadlines", SATURDAY_DESK),
    Worked("received at the Saturday desk, same day", "0 working_days", "2026-10-17 08:00", "2026-10-19 17:00",
           "a receipt-only day is no working day", SATURDAY_DESK),
    Worked("received at the Saturday desk, hours", "2 hours", "2026-10-17 08:00", "2026-10-19 09:30",
           "a receipt-only day has no working time for hours", SATURDAY_DESK),
    Worked("working Saturday morning", "1 working_days", "2026-10-16 10:00", "2026-10-17 11:30",
           "closing time is the end of the last shift of that day", SATURDAY_WORKS),
    Worked("same day on a working Saturday", "0 working_days", "2026-10-17 08:00", "2026-10-17 11:30",
           "due at closing that day", SATURDAY_WORKS),
    Worked("same day, after Saturday's closing", "0 working_days", "2026-10-17 12:00", "2026-10-19 17:00",
           "before the cut-off but not before closing", SATURDAY_WORKS),
    Worked("hours over a working Saturday", "2 hours", "2026-10-17 10:30", "2026-10-19 08:30",
           "an hour on Saturday, one on Monday", SATURDAY_WORKS),
    # Same day
    Worked("a second before the cut-off", "0 working_days", "2026-10-12 14:59:59", "2026-10-12 17:00",
           "received before the cut-off"),
    Worked("at the cut-off", "0 working_days", "2026-10-12 15:00", "2026-10-13 17:00",
           "at the cut-off is not before it"),
    Worked("before opening", "0 working_days", "2026-10-12 06:00", "2026-10-12 17:00",
           "the rule asks for before closing, not for after opening"),
    Worked("a later cut-off", "0 working_days", "2026-10-12 16:29", "2026-10-12 17:00",
           "the cut-off is the agency's", {"same_day_cutoff": "16:30"}),
    Worked("a cut-off after closing", "0 working_days", "2026-10-12 17:00", "2026-10-13 17:00",
           "at closing is not before closing", {"same_day_cutoff": "23:00"}),
    Worked("zero months", "0 months", "2026-10-12 10:00", "2026-10-12 17:00",
           "a limit of 0 is a same-day one whatever its unit"),
    # Halves
    Worked("half a working day", "0.5 working_days", "2026-10-12 08:00", "2026-10-13 11:30",
           "the day of receipt is not counted; the end of the next one's first shift"),
    Worked("two and a half", "2.5 working_days", "2026-10-12 08:00", "2026-10-15 11:30",
           "the end of the first shift of the third working day"),
    Worked("half a day of one shift", "0.5 working_days", "2026-10-16 08:00", "2026-10-17 11:30",
           "its first shift is its only one", SATURDAY_WORKS),
    Worked("half an hour across lunch", "0.5 hours", "2026-10-12 11:15:45", "2026-10-12 13:15",
           "whole minutes, seconds are dropped"),
    # Hours
    Worked("two hours up to lunch", "2 hours", "2026-10-12 09:30", "2026-10-12 11:30",
           "the first instant at which the minutes are used up, not 13:00"),
    Worked("two hours across lunch", "2 hours", "2026-10-12 10:30", "2026-10-12 14:00", "lunch is no working time"),
    Worked("eight hours across a night", "8 hours", "2026-10-12 16:00", "2026-10-13 16:00", "nor is the night"),
    Worked("hours across a weekend", "4 hours", "2026-10-16 16:00", "2026-10-19 10:30", "nor is the weekend"),
    Worked("received at the last minute of the morning", "1 hours", "2026-10-12 11:30", "2026-10-12 14:00",
           "a receipt outside working time starts at the next shift; a shift's end is outside"),
    Worked("received in the evening", "4 hours", "2026-10-12 20:00", "2026-10-13 11:30",
           "a receipt outside working time starts at the next shift"),
    # Days and months
    Worked("days that end on a Saturday", "3 days", "2026-10-14 10:00", "2026-10-19 17:00",
           "Civil Code 2015 art. 148.5: a last day off moves to the next working day"),
    Worked("days over a weekend", "15 days", "2026-10-12 10:00", "2026-10-27 17:00", "calendar days count them all"),
    Worked("days that end in Tết", "3 days", "2027-02-01 10:00", "2027-02-11 17:00", "Tết moves the last day"),
    Worked("a month from 31 January", "1 months", "2027-01-31 10:00", "2027-03-01 17:00",
           "Civil Code art. 147: 28 February, a Sunday in 2027, then the next working day"),
    Worked("a month from 31 January of a leap year", "1 months", "2028-01-31 10:00", "2028-02-29 17:00",
           "a month without that day ends on its last day"),
    Worked("a month from 31 October", "1 months", "2026-10-31 10:00", "2026-11-30 17:00", "November has 30 days"),
    Worked("two months over the turn of the year", "2 months", "2026-11-30 10:00", "2027-02-01 17:00",
           "30 January 2027 is a Saturday"),
    Worked("a year", "12 months", "2026-10-12 10:00", "2027-10-12 17:00", "the same day of the month"),
    Worked("received half past midnight", "1 working_days", "2026-10-13 00:30", "2026-10-14 17:00",
           "days are local: in UTC it was still the 12th"),
    # Pauses
    Worked("a pause of two days", "5 working_days", "2026-10-12 10:00", "2026-10-21 17:00",
           "three were left after Wednesday, so three after Friday",
           pauses=(("2026-10-14 10:00", "2026-10-16 09:00"),)),
    Worked("a pause over Tết", "5 working_days", "2027-02-01 09:30", "2027-02-16 17:00",
           "three were left after 3 February: the pause cost 11 February alone",
           pauses=(("2027-02-03 10:00", "2027-02-11 08:00"),)),
    Worked("a pause within Tết", "5 working_days", "2027-02-01 09:30", "2027-02-15 17:00",
           "no working day lies between the request and the completion",
           pauses=(("2027-02-05 10:00", "2027-02-09 08:00"),)),
    Worked("none left, completed before the cut-off", "2 working_days", "2026-10-12 10:00", "2026-10-16 17:00",
           "asked on the due day: the same-day rule at completion",
           pauses=(("2026-10-14 09:00", "2026-10-16 10:00"),)),
    Worked("none left, completed at the cut-off", "2 working_days", "2026-10-12 10:00", "2026-10-19 17:00",
           "the same-day rule with its cut-off", pauses=(("2026-10-14 09:00", "2026-10-16 15:00"),)),
    Worked("none left, completed on a Saturday", "2 working_days", "2026-10-12 10:00", "2026-10-19 17:00",
           "a day that is none", pauses=(("2026-10-14 09:00", "2026-10-17 10:00"),)),
    Worked("a same-day dossier paused", "0 working_days", "2026-10-12 10:00", "2026-10-14 17:00",
           "none left: the same-day rule at completion", pauses=(("2026-10-12 11:00", "2026-10-14 11:00"),)),
    Worked("a same-day limit in hours paused", "0 hours", "2026-10-12 10:00", "2026-10-15 17:00",
           "same-day whatever its unit, also when it resumes", pauses=(("2026-10-12 11:00", "2026-10-14 15:00"),)),
    Worked("paused at the due instant", "2 working_days", "2026-10-12 10:00", "2026-10-14 17:00",
           "a pause that begins at the due instant changes nothing",
           pauses=(("2026-10-14 17:00", "2026-10-20 10:00"),)),
    Worked("paused when overdue", "2 hours", "2026-10-12 08:00", "2026-10-12 10:00",
           "the dossier stays overdue", pauses=(("2026-10-12 10:01", "2026-10-20 10:00"),)),
    Worked("hours paused", "8 hours", "2026-10-12 08:00", "2026-10-13 10:50",
           "six hours were left at 10:00; from 14:20 on they end at 10:50; seconds are dropped",
           pauses=(("2026-10-12 10:00:40", "2026-10-12 14:20:10"),)),
    Worked("hours paused over lunch", "4 hours", "2026-10-12 09:30", "2026-10-12 15:00",
           "standing still outside working time costs nothing",
           pauses=(("2026-10-12 11:30", "2026-10-12 13:00"),)),
    Worked("days paused for one", "5 days", "2026-10-12 10:00", "2026-10-19 17:00",
           "the counted day moves from Saturday to Sunday, and both mean Monday",
           pauses=(("2026-10-13 10:00", "2026-10-14 10:00"),)),
    Worked("days paused for three", "5 days", "2026-10-12 10:00", "2026-10-20 17:00",
           "the counted day, Saturday, moves to Tuesday", pauses=(("2026-10-13 10:00", "2026-10-16 10:00"),)),
    Worked("days paused twice", "5 days", "2026-10-12 10:00", "2026-10-19 17:00",
           "one and one: the counted day moves from Saturday to Monday, not from the due day",
           pauses=(("2026-10-13 10:00", "2026-10-14 10:00"), ("2026-10-15 10:00", "2026-10-16 10:00"))),
    Worked("a month paused for five days", "1 months", "2026-10-12 10:00", "2026-11-17 17:00",
           "from 12 to 17 November", pauses=(("2026-10-20 10:00", "2026-10-25 10:00"),)),
    Worked("a half left over a pause", "2.5 working_days", "2026-10-12 10:00", "2026-10-16 11:30",
           "a day and a half were left after Tuesday", pauses=(("2026-10-13 10:00", "2026-10-14 16:00"),)),
    Worked("paused in the half day itself", "2.5 working_days", "2026-10-12 10:00", "2026-10-16 17:00",
           "none left after the request's day: the same-day rule",
           pauses=(("2026-10-15 09:00", "2026-10-16 10:00"),)),
    Worked("paused twice, the second when the first ends", "5 working_days", "2026-10-12 10:00", "2026-10-22 17:00",
           "three left after the 14th, still three after the 16th, so three after the 19th",
           pauses=(("2026-10-14 10:00", "2026-10-16 09:00"), ("2026-10-16 09:00", "2026-10-19 09:00"))),
    Worked("still paused", "5 working_days", "2026-10-12 10:00", "2026-10-19 17:00",
           "while the clock stands still the due instant keeps its value", pauses=(("2026-10-14 10:00", None),)),
    # Extension and kept due dates
    Worked("an extension", "5 working_days", "2026-10-12 10:00", "2026-10-23 17:00",
           "it replaces the due instant", extension=("2026-10-16 10:00", "2026-10-23 17:00")),
    Worked("a pause before an extension", "5 working_days", "2026-10-12 10:00", "2026-10-23 17:00",
           "what was over when it was extended moves nothing",
           pauses=(("2026-10-13 10:00", "2026-10-14 10:00"),), extension=("2026-10-16 10:00", "2026-10-23 17:00")),
    Worked("an extension, then a pause", "5 working_days", "2026-10-12 10:00", "2026-10-27 17:00",
           "three were left after Tuesday the 20th, so three after Thursday",
           pauses=(("2026-10-20 10:00", "2026-10-22 10:00"),), extension=("2026-10-16 10:00", "2026-10-23 17:00")),
    Worked("extended while paused", "5 working_days", "2026-10-12 10:00", "2026-10-27 17:00",
           "the running pause moves the new one, counted from its request: seven left after the 14th",
           pauses=(("2026-10-14 10:00", "2026-10-16 10:00"),), extension=("2026-10-15 10:00", "2026-10-23 17:00")),
    Worked("extended while paused after the due instant", "1 working_days", "2026-10-12 10:00", "2026-10-26 17:00",
           "the pause lies before the new due instant and moves it: six left after the 15th",
           pauses=(("2026-10-15 10:00", "2026-10-16 10:00"),), extension=("2026-10-15 11:00", "2026-10-23 17:00")),
    Worked("extended and still paused", "5 working_days", "2026-10-12 10:00", "2026-10-23 17:00",
           "the new due instant keeps its value meanwhile",
           pauses=(("2026-10-14 10:00", None),), extension=("2026-10-15 10:00", "2026-10-23 17:00")),
    Worked("an extension of hours", "4 hours", "2026-10-12 08:00", "2026-10-14 10:15",
           "five minutes and two hours were left at 08:10; from Wednesday 08:10 on they end at 10:15",
           pauses=(("2026-10-13 08:10", "2026-10-14 08:10"),), extension=("2026-10-12 10:00", "2026-10-13 10:15")),
    Worked("hours extended into a night, then paused in it", "4 hours", "2026-10-12 08:00", "2026-10-14 17:00",
           "no working minute is left: the same-day rule at completion (ours)",
           pauses=(("2026-10-13 19:00", "2026-10-14 10:00"),), extension=("2026-10-12 10:00", "2026-10-13 20:00")),
    Worked("kept", "5 working_days", "2026-10-12 10:00", "2026-10-20 10:00",
           "the due date of the old system stands as it is", kept="2026-10-20 10:00"),
    Worked("kept, then paused", "5 working_days", "2026-10-12 10:00", "2026-10-22 17:00",
           "a kept due date is moved by pauses as a promised one: three left after the 15th",
           pauses=(("2026-10-15 10:00", "2026-10-19 08:00"),), kept="2026-10-20 10:00"),
    Worked("kept, paused when it was over", "5 working_days", "2026-10-12 10:00", "2026-10-13 10:00",
           "a pause after the due instant changes nothing",
           pauses=(("2026-10-15 10:00", "2026-10-19 08:00"),), kept="2026-10-13 10:00"),
]  # fmt: skip


@pytest.mark.parametrize("worked", WORKED, ids=lambda worked: worked.name)
def test_worked_due_dates(worked: Worked) -> None:
    pauses = [Pause(at(start), None if end is None else at(end)) for start, end in worked.pauses]
    extension = worked.extension and Extension(at(worked.extension[0]), at(worked.extension[1]))
    kept = worked.kept and at(worked.kept)
    stored = calendar(**worked.fields)
    asked = (limit(worked.limit), at(worked.received), stored, pauses, extension or None, kept or None)
    due_at = deadline(*asked).due_at
    assert due_at.astimezone(TZ) == at(worked.due), worked.why
    assert current_due(*asked) == due_at


def told(*explained: Interval) -> list[tuple[str, str, str, Decimal | int]]:
    return [
        (f"{i.start.astimezone(TZ):%d %H:%M}", f"{i.end.astimezone(TZ):%d %H:%M}", i.rule, i.amount) for i in explained
    ]


def test_explain_working_days_with_a_pause() -> None:
    pause = Pause(at("2026-10-14 10:00"), at("2026-10-16 09:00"))
    answer = deadline(limit("4.5 working_days"), at("2026-10-12 10:00"), calendar(), [pause])
    assert told(*answer.explain) == [
        ("12 10:00", "13 00:00", "receipt-day", 0),
        ("13 00:00", "14 10:00", "working-day", 2),
        ("14 10:00", "16 09:00", "pause", 0),
        ("16 09:00", "17 00:00", "resume-day", 0),
        ("17 00:00", "19 00:00", "weekend", 0),
        ("19 00:00", "21 11:30", "working-day", Decimal("2.5")),
    ]
    assert [interval.counted for interval in answer.explain] == [False, True, False, False, False, True]
    assert (answer.calendar_agency, answer.calendar_version) == ("H55", 1)


def test_explain_hours() -> None:
    answer = deadline(limit("8 hours"), at("2026-10-16 11:10:30"), calendar(**SATURDAY_DESK))
    assert told(*answer.explain) == [
        ("16 11:10", "16 11:30", "working-day", Decimal("0.3333")),
        ("16 11:30", "16 13:00", "off-shift", 0),
        ("16 13:00", "16 17:00", "working-day", 4),
        ("16 17:00", "17 00:00", "off-shift", 0),
        ("17 00:00", "18 00:00", "receipt-only", 0),
        ("18 00:00", "19 00:00", "weekend", 0),
        ("19 00:00", "19 07:30", "off-shift", 0),
        ("19 07:30", "19 11:10", "working-day", Decimal("3.6667")),
    ]


def test_explain_days_that_roll_over() -> None:
    answer = deadline(limit("3 days"), at("2026-10-14 10:00"), calendar())
    assert told(*answer.explain) == [
        ("14 10:00", "15 00:00", "receipt-day", 0),
        ("15 00:00", "18 00:00", "calendar-days", 3),
        ("18 00:00", "19 17:00", "rollover", 0),
    ]
    assert answer.counted_day == date(2026, 10, 17)


def test_explain_months_are_complete_at_their_last_day() -> None:
    pause = Pause(at("2026-10-20 10:00"), at("2026-10-25 10:00"))
    answer = deadline(limit("1 months"), at("2026-10-12 10:00"), calendar(), [pause])
    assert [(i.rule, int(i.amount)) for i in answer.explain] == [
        ("receipt-day", 0), ("calendar-months", 0), ("pause", 0), ("resume-day", 0), ("calendar-months", 1),
    ]  # fmt: skip


def test_explain_a_late_receipt_of_a_same_day_procedure() -> None:
    answer = deadline(limit("0 working_days"), at("2026-10-16 15:00"), calendar())
    assert told(*answer.explain) == [
        ("16 15:00", "17 00:00", "cut-off", 0),
        ("17 00:00", "19 00:00", "weekend", 0),
        ("19 00:00", "19 17:00", "same-day", 0),
    ]


def test_explain_an_extension_of_an_overdue_dossier() -> None:
    extension = Extension(at("2026-10-15 10:00"), at("2026-10-23 17:00"))
    answer = deadline(limit("1 working_days"), at("2026-10-12 10:00"), calendar(), (), extension)
    assert told(*answer.explain) == [
        ("12 10:00", "13 00:00", "receipt-day", 0),
        ("13 00:00", "13 17:00", "working-day", 1),
        ("13 17:00", "15 10:00", "overdue", 0),
        ("15 10:00", "23 17:00", "extension", 0),
    ]


def test_explain_a_pause_that_begins_at_midnight_counts_the_day_of_the_request() -> None:
    pause = Pause(at("2026-10-14 00:00"), at("2026-10-15 09:00"))
    answer = deadline(limit("3 working_days"), at("2026-10-12 10:00"), calendar(), [pause])
    assert sum(interval.amount for interval in answer.explain) == 3
    assert answer.due_at == at("2026-10-16 17:00")


def test_sentences_that_a_citizen_understands() -> None:
    pause = Pause(at("2027-02-02 08:00"), at("2027-02-03 09:00"))
    asked = limit("1.5 working_days")
    answer = deadline(asked, at("2027-02-01 09:30"), calendar(), [pause])
    assert sentences(answer, asked) == [
        "Ngày 01/02/2027: ngày tiếp nhận, không tính.",
        "Ngày 02/02/2027: ngày làm việc, tính 1 ngày làm việc.",
        "Từ 08:00 ngày 02/02/2027 đến 09:00 ngày 03/02/2027: tạm dừng để chờ bổ sung, không tính.",
        "Ngày 03/02/2027: ngày hoàn thành bổ sung, không tính.",
        "Từ ngày 04/02/2027 đến ngày 10/02/2027: ngày nghỉ lễ, tết, không tính.",
        "Ngày 11/02/2027: ngày làm việc, tính 0,5 ngày làm việc.",
        "Hẹn trả kết quả: 11:30 ngày 11/02/2027.",
        "Lịch nghỉ hoán đổi năm 2027 chưa được công bố; ngày hẹn trả tính theo lịch hiện có.",
    ]
    in_hours = limit("2 hours")
    assert sentences(deadline(in_hours, at("2026-10-12 10:30"), calendar()), in_hours, "en") == [
        "10:30-11:30 on 12/10/2026: working time, counts 1 working hour.",
        "11:30-13:00 on 12/10/2026: outside working hours, not counted.",
        "13:00-14:00 on 12/10/2026: working time, counts 1 working hour.",
        "Due: 14:00 on 12/10/2026.",
    ]


# Facts of package `holidays` that the worked dates above stand on.
def test_national_days_are_those_that_were_decreed() -> None:
    stored = default_calendar("H55")
    tet_2026 = {date(2026, 2, day) for day in range(16, 21)}
    tet_2027 = {date(2027, 2, day) for day in range(4, 11)}
    assert {day for day in stored.holidays if (day.year, day.month) == (2026, 2)} == tet_2026
    assert {day for day in stored.holidays if (day.year, day.month) == (2027, 2)} == tet_2027
    assert {day for day in stored.swapped if day.year >= 2024} >= {
        date(2024, 5, 4), date(2025, 4, 26), date(2026, 8, 22),
    }  # fmt: skip
    assert {date(2024, 4, 29), date(2025, 5, 2), date(2026, 8, 31)} <= stored.holidays
    # Swapped with a Friday of the year after: it stands in that year's entry.
    assert date(2014, 12, 27) in calendar(years=range(2014, 2015)).swapped


def test_national_days_are_frozen_in_the_stored_version() -> None:
    stored = calendar()
    older = stored.model_copy(update={"holidays": frozenset(), "swapped": frozenset()})
    on_the_eve = at("2026-11-23 10:00")
    assert first_due(limit("1 working_days"), on_the_eve, stored) == at("2026-11-25 17:00")
    assert first_due(limit("1 working_days"), on_the_eve, older) == at("2026-11-24 17:00")


def test_a_version_comes_back_from_json_and_is_written_one_way() -> None:
    stored = calendar(**SATURDAY_DESK, closed=[date(2027, 3, 1), date(2026, 3, 2)])
    written = stored.model_dump_json()
    again = Calendar.model_validate_json(written)
    assert again == stored
    assert again.model_dump_json() == written
    shuffled = json.loads(written)
    shuffled["shifts"] = dict(reversed(shuffled["shifts"].items())) | {"sun": []}
    assert Calendar.model_validate(shuffled).model_dump_json() == written


def test_missing_fields_have_the_default_values() -> None:
    stored = default_calendar("H55.242")
    assert (stored.agency, stored.version, stored.same_day_cutoff) == ("H55.242", 0, "15:00")
    assert stored.shifts == {weekday: tuple(OFFICE) for weekday in WEEK}
    assert stored.public_holidays
    assert calendar_for([stored], datetime(1, 1, 2, tzinfo=UTC)) is stored


@pytest.mark.parametrize(
    "fields",
    [
        {"shifts": {"mon": ["11:30-07:30"]}},
        {"shifts": {"mon": ["07:30-07:30"]}},
        {"shifts": {"mon": ["13:00-17:00", "07:30-11:30"]}},
        {"shifts": {"mon": ["07:30-11:30", "11:00-17:00"]}},
        {"shifts": {"mon": ["7h30-11h30"]}},
        {"shifts": {"mon": ["07:30-24:00"]}},
        {"shifts": {"monday": []}},
        {"same_day_cutoff": "25:00"},
        {"same_day_cutoff": "15:00\n"},
        {"receipt_only": ["saturday"]},
    ],
    ids=str,
)
def test_calendars_that_cannot_be(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        calendar(**fields)
    assert refused.value.errors()[0]["loc"][0] == next(iter(fields))


def test_shifts_are_minutes_of_the_local_day() -> None:
    assert Shift.parse("07:30-11:30") == Shift(450, 690)


@pytest.mark.parametrize(
    ("received", "version"),
    [
        ("2025-06-30 23:59", 1),  # none yet: the earliest
        ("2025-07-01 00:00", 1),
        ("2026-12-31 23:59", 2),
        ("2027-01-01 00:00", 4),  # two of the same day: the higher version
    ],
)
def test_the_version_for_life_is_that_of_the_local_day_of_receipt(received: str, version: int) -> None:
    versions = [
        materialise("H55", number, day)
        for number, day in [(3, date(2027, 1, 1)), (4, date(2027, 1, 1)), (1, date(2025, 7, 1)), (2, date(2026, 1, 1))]
    ]
    assert calendar_for(versions, at(received).astimezone(UTC)).version == version


def test_a_dossier_keeps_the_older_version_it_was_promised_under() -> None:
    older = materialise("H55", 1, date(2025, 7, 1))
    newer = materialise("H55", 2, date(2026, 10, 14), closed=[date(2026, 10, 16)])
    received = at("2026-10-13 10:00")
    assert first_due(limit("3 working_days"), received, calendar_for([older, newer], received)) == at(
        "2026-10-16 17:00"
    )
    received = at("2026-10-14 10:00")
    assert first_due(limit("2 working_days"), received, calendar_for([older, newer], received)) == at(
        "2026-10-19 17:00"
    )


def test_no_version_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="calendar version"):
        calendar_for([], at("2026-10-12 10:00"))


@pytest.mark.parametrize(
    ("due", "fields", "year"),
    [
        ("2026-12-31 17:00", {}, None),
        ("2027-01-04 17:00", {}, 2027),
        ("2027-01-04 17:00", {"public_holidays": False}, None),
        ("2019-12-31 17:00", {"years": range(2025, 2100)}, None),
    ],
)
def test_a_year_whose_swapped_days_are_not_decreed_is_provisional(
    due: str, fields: dict[str, Any], year: int | None
) -> None:
    # Package `holidays` may learn of the swaps of 2027 one day; the stored version does not.
    stored = calendar(**fields)
    stored = stored.model_copy(update={"swap_years": frozenset(y for y in stored.swap_years if y <= 2026)})
    assert provisional_year(at(due), stored) == year


@pytest.mark.parametrize(
    ("asked", "due", "soon"),
    [
        ("5 working_days", "2026-10-14 17:00", "2026-10-13 07:30"),
        ("5 working_days", "2026-10-19 17:00", "2026-10-16 07:30"),
        ("5 days", "2027-02-11 17:00", "2027-02-03 07:30"),
        ("5 days", "2026-10-18 10:00", "2026-10-16 07:30"),  # an extension to a Sunday
        ("2 hours", "2026-10-12 11:30", "2026-10-12 10:30"),
        ("2 hours", "2026-10-12 13:30", "2026-10-12 11:00"),
        ("2 hours", "2026-10-12 08:30", "2026-10-12 07:30"),
        ("2 hours", "2026-10-12 08:00", "2026-10-09 16:30"),
        ("0 hours", "2026-10-12 17:00", "2026-10-09 07:30"),  # a same-day limit has no hours
    ],
)
def test_officers_are_warned_a_working_day_or_a_working_hour_before(asked: str, due: str, soon: str) -> None:
    assert due_soon_at(limit(asked), at(due), calendar()) == at(soon)


def test_the_distance_of_the_warning_is_a_setting() -> None:
    due = at("2026-10-14 17:00")
    assert due_soon_at(limit("5 days"), due, calendar(), days_before=3) == at("2026-10-09 07:30")
    assert due_soon_at(limit("5 hours"), due, calendar(), minutes_before=270) == at("2026-10-14 11:00")


def test_a_single_pause_moves_days_from_the_due_day_unless_the_counted_day_is_given() -> None:
    asked = (limit("5 days"), at("2026-10-19 17:00"), at("2026-10-13 10:00"), at("2026-10-14 10:00"), calendar())
    assert due_after_pause(*asked) == at("2026-10-20 17:00")
    assert due_after_pause(*asked, date(2026, 10, 17)) == at("2026-10-19 17:00")


HOUR = timedelta(hours=1)
NOON = at("2026-10-12 12:00")


@pytest.mark.parametrize(
    ("pauses", "index", "reason"),
    [
        ([Pause(NOON - HOUR, NOON)], 0, "before-received-at"),
        ([Pause(NOON, NOON)], 0, "not-after-from"),
        ([Pause(NOON, NOON + HOUR), Pause(NOON + 2 * HOUR, NOON + HOUR)], 1, "not-after-from"),
        ([Pause(NOON, NOON + 2 * HOUR), Pause(NOON + HOUR, NOON + 3 * HOUR)], 1, "not-in-order"),
        ([Pause(NOON + 3 * HOUR, NOON + 4 * HOUR), Pause(NOON, NOON + HOUR)], 1, "not-in-order"),
        ([Pause(NOON), Pause(NOON + HOUR, NOON + 2 * HOUR)], 1, "not-in-order"),
    ],
)
def test_pauses_that_cannot_be(pauses: list[Pause], index: int, reason: str) -> None:
    with pytest.raises(PauseError) as refused:
        check_pauses(NOON, pauses)
    assert (refused.value.index, refused.value.reason) == (index, reason)


def test_a_pause_may_begin_at_receipt_and_when_another_ends() -> None:
    check_pauses(NOON, [Pause(NOON, NOON + HOUR), Pause(NOON + HOUR, NOON + 2 * HOUR), Pause(NOON + 5 * HOUR)])


@pytest.mark.parametrize(
    "body",
    [
        {"value": -1, "unit": "days"},
        {"value": 0.5, "unit": "days"},
        {"value": 1.5, "unit": "months"},
        {"value": 0.25, "unit": "hours"},
        {"value": "5", "unit": "days"},
        {"value": True, "unit": "days"},
        {"value": None, "unit": "days"},
        {"value": 1e400, "unit": "days"},
        {"value": float("nan"), "unit": "days"},
        {"value": 10**30, "unit": "working_days"},
        {"value": 1_201, "unit": "months"},
        {"value": 5, "unit": "weeks"},
        {"value": 5},
        {"value": 5, "unit": "days", "calendar": 1},
    ],
    ids=str,
)
def test_limits_that_cannot_be(body: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Limit.model_validate(body)


@pytest.mark.parametrize("text", ['{"value":5,"unit":"working_days"}', '{"value":0.5,"unit":"hours"}'])
def test_a_limit_is_written_as_it_was_read(text: str) -> None:
    assert Limit.model_validate_json(text).model_dump_json() == text


def test_a_calendar_without_working_time_says_so() -> None:
    shut = materialise("H55.9", 7, date(2025, 7, 1), shifts={})
    for asked in ("0 days", "1 working_days", "1 hours", "1 days", "1 months"):
        with pytest.raises(NoWorkingTime, match=r"H55\.9 version 7"):
            deadline(limit(asked), at("2026-10-12 10:00"), shut)
    for asked in ("1 days", "1 hours"):
        with pytest.raises(NoWorkingTime):
            due_soon_at(limit(asked), at("2026-10-12 10:00"), shut)


@pytest.mark.parametrize(
    ("received", "asked"),
    [
        ("9999-12-31T23:59:59+00:00", "0 days"),
        ("9999-12-31T10:00:00+07:00", "1 working_days"),
        ("9999-12-31T16:30:00+07:00", "1 hours"),
        ("9999-12-30T10:00:00+07:00", "5 days"),
        ("9999-11-30T10:00:00+07:00", "2 months"),
        ("0001-01-01T00:00:00+07:00", "1 days"),
    ],
)
def test_beyond_the_years_one_to_9999_is_a_clean_refusal(received: str, asked: str) -> None:
    with pytest.raises(ClockRangeError):
        deadline(limit(asked), datetime.fromisoformat(received), calendar())
    with pytest.raises(ClockRangeError):
        first_due(limit(asked), datetime.fromisoformat(received), calendar())


def test_the_first_and_the_last_days_have_due_dates() -> None:
    # The last day of 9999 is a Friday. Local mean time was 7:06:30 ahead until 1906.
    assert first_due(limit("0 days"), at("9999-12-31 10:00"), calendar()) == at("9999-12-31 17:00")
    assert first_due(limit("1 months"), at("9999-11-30 10:00"), calendar()) == at("9999-12-30 17:00")
    early = datetime(1, 1, 1, 1, tzinfo=UTC)
    assert first_due(limit("0 days"), early, calendar()) == datetime(1, 1, 1, 9, 53, 30, tzinfo=UTC)
    with pytest.raises(ClockRangeError):
        due_soon_at(limit("5 days"), early, calendar())


def test_a_time_without_an_offset_is_no_instant() -> None:
    with pytest.raises(ValueError, match="offset"):
        first_due(limit("1 days"), datetime(2026, 10, 12, 10), calendar())  # noqa: DTZ001 - the fault itself


def test_days_are_remembered_within_bounds() -> None:
    stored = calendar(years=range(2025, 2028))
    first_due(limit("36525 working_days"), at("2026-10-12 10:00"), stored)
    assert len(stored.days) <= 40_000
    assert first_due(limit("1 working_days"), at("2026-11-23 10:00"), stored) == at("2026-11-25 17:00")
