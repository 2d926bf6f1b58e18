"""Invariants of the deadline clock, and its agreement with a minute-by-minute oracle."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from shared.clock import (
    TZ,
    Calendar,
    ClockError,
    Deadline,
    Extension,
    Limit,
    Pause,
    Unit,
    Weekday,
    current_due,
    deadline,
    due_after_pause,
    due_soon_at,
    first_due,
    local_day,
    materialise,
    sentences,
)
from tests.property.minute_oracle import MinuteOracle

FIRST, LAST = datetime(2026, 1, 1, tzinfo=TZ), datetime(2027, 5, 10, tzinfo=TZ)
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
OFFICE = ("07:30-11:30", "13:00-17:00")
DAY_SHIFTS = st.sampled_from([OFFICE, OFFICE, ("07:30-11:30",), ("08:00-10:15", "10:30-12:00", "13:00-23:59"), ()])
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=300)

instants = st.builds(
    lambda seconds: FIRST + timedelta(seconds=seconds),
    st.integers(0, int((LAST - FIRST).total_seconds())),
) | st.builds(
    # On the minutes where shifts, days and the cut-off begin and end.
    lambda day, minute: FIRST + timedelta(days=day, minutes=minute),
    st.integers(0, 480),
    st.sampled_from([0, 449, 450, 690, 780, 899, 900, 1019, 1020, 1439]),
)
dates = st.builds(lambda day: date(2026, 1, 1) + timedelta(days=day), st.integers(0, 600))


@st.composite
def calendars(draw: st.DrawFn) -> Calendar:
    shifts: dict[Weekday, Any] = {"mon": OFFICE, "thu": draw(DAY_SHIFTS)}
    if draw(st.booleans()):
        shifts |= {weekday: draw(DAY_SHIFTS) for weekday in WEEKDAYS[1:]}
    else:
        shifts |= dict.fromkeys(WEEKDAYS[:5], OFFICE)
    return materialise(
        "H55",
        1,
        date(2026, 1, 1),
        public_holidays=draw(st.booleans()),
        same_day_cutoff=draw(st.sampled_from(["15:00", "10:00", "23:00", "00:00"])),
        receipt_only=draw(st.frozensets(st.sampled_from(WEEKDAYS[1:]), max_size=2)),
        shifts=shifts,
        closed=draw(st.frozensets(dates, max_size=40)),
        open=draw(st.frozensets(dates, max_size=10)),
        years=range(2025, 2029),
    )


def halves(most: int) -> st.SearchStrategy[Decimal]:
    return st.integers(0, 2 * most).map(lambda twice: Decimal(twice) / 2)


limits = st.one_of(
    st.builds(Limit, value=halves(12), unit=st.just(Unit.WORKING_DAYS)),
    st.builds(Limit, value=halves(30), unit=st.just(Unit.HOURS)),
    st.builds(Limit, value=st.integers(0, 30), unit=st.just(Unit.DAYS)),
    st.builds(Limit, value=st.integers(0, 3), unit=st.just(Unit.MONTHS)),
)
SPANS = st.integers(1, 15 * 86_400) | st.integers(1, 86_400) | st.integers(1, 7_200)


@st.composite
def pauses_after(draw: st.DrawFn, received_at: datetime) -> list[Pause]:
    pauses, free_from = [], received_at
    for _ in range(draw(st.integers(0, 3))):
        start = free_from + timedelta(seconds=draw(SPANS | st.just(0)))
        free_from = start + timedelta(seconds=draw(SPANS))
        pauses.append(Pause(start, free_from))
    return pauses


@st.composite
def stories(draw: st.DrawFn) -> tuple[Limit, datetime, Calendar, list[Pause]]:
    received_at = draw(instants)
    return draw(limits), received_at, draw(calendars()), draw(pauses_after(received_at))


def counted(told: Deadline) -> Decimal:
    return sum((interval.amount for interval in told.explain if interval.counted), Decimal(0))


@PATIENT
@given(stories())
def test_every_due_instant_is_that_of_the_minute_oracle(
    story: tuple[Limit, datetime, Calendar, list[Pause]],
) -> None:
    limit, received_at, calendar, pauses = story
    told = deadline(limit, received_at, calendar, pauses)
    assert told.due_at == MinuteOracle(calendar).due_at(limit, received_at, pauses)
    assert told.due_at == current_due(limit, received_at, calendar, pauses)
    assert told.due_at.tzinfo is UTC


@PATIENT
@given(stories())
def test_one_pause_after_another_is_the_whole(story: tuple[Limit, datetime, Calendar, list[Pause]]) -> None:
    limit, received_at, calendar, pauses = story
    due_at = first_due(limit, received_at, calendar)
    for number, pause in enumerate(pauses):
        assert pause.end is not None
        counted_day = deadline(limit, received_at, calendar, pauses[:number]).counted_day
        due_at = due_after_pause(limit, due_at, pause.start, pause.end, calendar, counted_day)
    assert due_at == deadline(limit, received_at, calendar, pauses).due_at


@PATIENT
@given(stories())
def test_never_due_before_receipt(story: tuple[Limit, datetime, Calendar, list[Pause]]) -> None:
    limit, received_at, calendar, pauses = story
    assert deadline(limit, received_at, calendar, pauses).due_at >= received_at


@PATIENT
@given(st.sampled_from(Unit), halves(40), halves(40), instants, calendars())
def test_a_longer_limit_above_zero_is_never_due_earlier(
    unit: Unit, one: Decimal, other: Decimal, received_at: datetime, calendar: Calendar
) -> None:
    if unit in (Unit.DAYS, Unit.MONTHS):
        one, other = one // 1, other // 1
    shorter, longer = (Limit(value=value, unit=unit) for value in sorted((one, other)))
    assume(shorter.value > 0)
    assert first_due(shorter, received_at, calendar) <= first_due(longer, received_at, calendar)


@PATIENT
@given(limits.filter(lambda limit: limit.unit is not Unit.HOURS), instants, calendars(), st.data())
def test_a_pause_within_one_day_before_the_due_day_changes_nothing(
    limit: Limit, received_at: datetime, calendar: Calendar, data: st.DataObject
) -> None:
    due_at = first_due(limit, received_at, calendar)
    days = (local_day(due_at) - local_day(received_at)).days
    assume(days > 0)
    midnight = datetime.combine(local_day(received_at), datetime.min.time(), TZ)
    midnight += timedelta(days=data.draw(st.integers(0, days - 1)))
    start, end = sorted(data.draw(st.tuples(st.integers(0, 86_399), st.integers(0, 86_399))))
    pause = Pause(max(received_at, midnight + timedelta(seconds=start)), midnight + timedelta(seconds=end))
    assume(pause.end is not None and pause.start < pause.end)
    assert deadline(limit, received_at, calendar, [pause]).due_at == due_at


@PATIENT
@given(stories())
def test_the_explanation_adds_up_to_the_limit(story: tuple[Limit, datetime, Calendar, list[Pause]]) -> None:
    limit, received_at, calendar, pauses = story
    # A same-day limit counts nothing, but a whole day may be left of it when it is paused on the day before.
    assume(limit.value > 0)
    due_at = first_due(limit, received_at, calendar)
    for number, pause in enumerate(pauses, start=1):
        # On the due day nothing is left of working days, and the same-day rule takes over.
        on_due_day = pause.start < due_at and local_day(pause.start) == local_day(due_at)
        assume(limit.unit is not Unit.WORKING_DAYS or not on_due_day)
        due_at = current_due(limit, received_at, calendar, pauses[:number])
    told = deadline(limit, received_at, calendar, pauses)
    assert counted(told) == limit.value
    assert all(interval.amount == 0 for interval in told.explain if not interval.counted)
    assert told.explain[0].start == received_at
    assert all(earlier.end == later.start for earlier, later in pairwise(told.explain))
    if limit.unit in (Unit.HOURS, Unit.WORKING_DAYS):
        assert told.explain[-1].end == told.due_at


@PATIENT
@given(stories(), st.integers(1, 30 * 86_400), st.integers(1, 60 * 86_400), st.booleans(), st.booleans())
def test_whatever_happened_the_explanation_agrees_and_has_words(
    story: tuple[Limit, datetime, Calendar, list[Pause]],
    extended_after: int,
    extended_by: int,
    is_kept: bool,
    still_paused: bool,
) -> None:
    limit, received_at, calendar, pauses = story
    at = received_at + timedelta(seconds=extended_after)
    extension = Extension(at, at + timedelta(seconds=extended_by))
    kept = received_at + timedelta(seconds=extended_by) if is_kept else None
    if still_paused and pauses:
        pauses[-1] = Pause(pauses[-1].start)
    for applied in (None, extension):
        told = deadline(limit, received_at, calendar, pauses, applied, kept)
        assert told.due_at == current_due(limit, received_at, calendar, pauses, applied, kept)
        assert told.explain[0].start == received_at
        assert all(earlier.end == later.start for earlier, later in pairwise(told.explain))
        assert len(sentences(told, limit)) >= len(told.explain) + 1
        assert len(sentences(told, limit, "en")) >= len(told.explain) + 1
    assert due_soon_at(limit, told.due_at, calendar) < told.due_at


@settings(deadline=None)
@given(
    st.datetimes(timezones=st.timezones() | st.just(UTC) | st.just(TZ)),
    st.builds(Limit, value=st.sampled_from([0, 1, 100, 1_200]), unit=st.sampled_from(Unit)),
)
def test_any_date_has_an_answer_or_a_clean_refusal(received_at: datetime, limit: Limit) -> None:
    calendar = materialise("H55", 1, date(2025, 7, 1), years=range(2025, 2028))
    try:
        told = deadline(limit, received_at, calendar)
    except ClockError:
        return
    assert told.due_at >= received_at


@settings(deadline=None, max_examples=50)
@given(calendars())
def test_a_stored_version_comes_back_as_it_was(calendar: Calendar) -> None:
    stored = calendar.model_dump(mode="json")
    again = Calendar.model_validate(stored)
    assert again == calendar
    assert again.model_dump(mode="json") == stored
