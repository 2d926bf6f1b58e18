"""Figures while the clock steps over midnight, the end of a month, of a year, and Tết: they move by the clock alone, each of
them, as another reckoning says."""

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from services.stats.dashboard import spans
from services.stats.indicator import Period, last_instant, local_midnight
from services.stats.store import Question
from shared.clock import Limit, Unit, first_due
from shared.contracts.codes import LOCAL_ZONE, local_day
from tests.property import indicator_oracle as oracle
from tests.property.indicator_register import Life, Told
from tests.property.test_indicators import EMPTY, Projection, projection

__all__ = ["projection"]

COMMUNE = "H55.242"
INSTANT = timedelta(microseconds=1)
FAR = datetime(2030, 1, 1, tzinfo=UTC)


def local(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=LOCAL_ZONE).astimezone(UTC)


@pytest.fixture
async def told(projection: Projection) -> Any:
    """Lets a dossier be received at an instant, with the due date that the law's calendar gives it."""
    count = 0
    async with projection.pool.acquire() as connection:
        await connection.execute(EMPTY)

    async def receive(at: datetime, working_days: int) -> datetime:
        nonlocal count
        count += 1
        life = Life(f"{COMMUNE}-260101-{count:04}", COMMUNE, random.Random(count))
        life.now = life.recorded = at
        due = first_due(
            Limit(value=Decimal(working_days), unit=Unit.WORKING_DAYS),
            at,
            projection.directory.calendar_for(COMMUNE, at),
        )
        life.some_due = lambda: due  # type: ignore[method-assign]
        life.receive()
        assert await projection.apply(life.events) == 0
        return due

    return receive


async def figures(projection: Projection, first: date, last: date, now: datetime) -> dict[str, Any]:
    """As the page would show them at this instant."""
    question = Question([COMMUNE], Period(local_midnight(first), min(now, last_instant(last))), FAR)
    async with projection.pool.acquire() as connection:
        return await projection.figures(connection, question)


async def shown(projection: Projection, now: datetime) -> dict[str, dict[str, Any]]:
    return {title: await figures(projection, first, last, now) for title, first, last in spans(local_day(now))}


async def test_over_midnight_month_and_year(projection: Projection, told: Any) -> None:
    await told(local(2026, 12, 31, 10), 3)
    before = await shown(projection, local(2027, 1, 1) - INSTANT)
    for title in ("Hôm nay", "Tháng này", "Năm nay"):
        assert before[title]["received"]["total"] == 1
        assert before[title]["received"]["carried_over"] == 0
    after = await shown(projection, local(2027, 1, 1))
    for title in ("Hôm nay", "Tháng này", "Năm nay"):
        assert after[title]["received"] == {"total": 1, "online": 0, "counter": 0, "postal": 0, "carried_over": 1}
        assert after[title]["pending"]["within"] == 1
    # What is over stays what it was: judged at its last instant, not at ours.
    closed = await figures(projection, date(2026, 12, 1), date(2026, 12, 31), local(2027, 6, 1))
    assert closed == before["Tháng này"]


async def test_an_act_at_midnight_belongs_to_the_new_day(projection: Projection, told: Any) -> None:
    await told(local(2026, 12, 1), 3)
    assert (await figures(projection, date(2026, 11, 1), date(2026, 11, 30), FAR))["received"]["total"] == 0
    assert (await figures(projection, date(2026, 12, 1), date(2026, 12, 1), FAR))["received"]["total"] == 1


async def test_tet_makes_nothing_late(projection: Projection, told: Any) -> None:
    due = await told(local(2027, 2, 4, 10), 2)  # the last working day before Tết of 2027
    back = local_day(due)
    assert back >= date(2027, 2, 11)  # two working days later: nothing of the holidays was counted
    at = local(2027, 2, 5)
    while at <= due:
        assert (await shown(projection, at))["Hôm nay"]["pending"] == {
            "total": 1, "within": 1, "overdue": 0, "paused": 0,
        }  # fmt: skip
        at += timedelta(days=1)
    exactly = await shown(projection, due)
    assert exactly["Hôm nay"]["pending"]["within"] == 1
    late = await shown(projection, due + INSTANT)
    assert late["Hôm nay"]["pending"]["overdue"] == late["Năm nay"]["pending"]["overdue"] == 1
    assert late["Hôm nay"]["index"] == {"counted": 1, "in_time": 0}


async def test_a_rolling_window_lets_go_by_the_clock(projection: Projection, told: Any) -> None:
    at = local(2026, 12, 31, 10)
    await told(at, 3)
    for later, fresh in ((timedelta(hours=1), 1), (timedelta(hours=1) + INSTANT, 0)):
        now = at + later
        question = Question([COMMUNE], Period(now - timedelta(hours=1), now), FAR)
        async with projection.pool.acquire() as connection:
            found = await projection.figures(connection, question)
        assert found["received"]["total"] - found["received"]["carried_over"] == fresh
        assert found["received"]["total"] == 1


def lived(number: int, projection: Projection, until: datetime) -> list[Told]:
    """What happened to a dossier of December 2026 up to an instant; its due dates are the calendar's."""
    chance = random.Random(number)
    life = Life(f"{COMMUNE}-261201-{number + 1:04}", COMMUNE, chance)
    life.now = life.recorded = local(2026, 12, 1 + number % 28, 8 + number % 8)

    def by_the_law() -> datetime:
        limit = Limit(value=Decimal(chance.randint(1, 40)), unit=Unit.WORKING_DAYS)
        return first_due(limit, life.now, projection.directory.calendar_for(COMMUNE, life.now))

    life.some_due = by_the_law  # type: ignore[method-assign]
    life.live(chance.randint(1, 6))
    return [told for told in life.events if told.time <= until]


async def test_every_figure_moves_as_the_law_says_without_any_event(projection: Projection) -> None:
    """From New Year's Eve on nothing happens any more; over Tết of 2027 and two ends of months the clock alone moves them."""
    still = local(2026, 12, 31, 16)
    lives = [(COMMUNE, lived(number, projection, still)) for number in range(24)]
    async with projection.pool.acquire() as connection:
        await connection.execute(EMPTY)
    for _, events in lives:
        assert await projection.apply(events) == 0
    midnights = [
        local(2027, 1, 1),
        local(2027, 2, 1),
        *(local(2027, 2, day) for day in range(5, 13)),
        local(2027, 3, 1),
    ]
    dues = {told.data["due_at"] for _, events in lives for told in events if told.data["due_at"]}
    edges = sorted({*midnights, *(due for due in dues if still < due < midnights[-1])})
    seen: list[dict[str, Any]] = []
    for now in sorted({instant for edge in edges for instant in (edge - INSTANT, edge, edge + INSTANT)}):
        for _, first, last in spans(local_day(now)):
            found = await figures(projection, first, last, now)
            expected = oracle.indicators(lives, frozenset([COMMUNE]), first, last, now, FAR)
            expected["documents"] = {"received": 0, "sent": 0, "handled": 0}
            assert found == expected, (now, first, last)
            assert oracle.identities_hold(found)
        seen.append(found)
    # The figures of the longest span: what is late grows at due instants alone, and is never less.
    overdue = [each["pending"]["overdue"] for each in seen]
    assert overdue == sorted(overdue)
    assert len(set(overdue)) > 3
    assert len({str(each) for each in seen}) > len(set(overdue))
