"""The hot questions over a table of several hundred thousand dossiers: what they read does not grow with history."""

from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest

from services.stats.app import MIGRATIONS
from services.stats.indicator import Period
from services.stats.store import Question, Store
from tests.figures_seed import agencies, seed
from tests.harness import Backing

DOSSIERS = 200_000  # over ten years: some 20,000 a year, 600 pending at any time
NOW = datetime(2026, 11, 26, 5, tzinfo=UTC)
Connection = Any


@pytest.fixture(scope="module")
async def connection(backing: Backing) -> AsyncIterator[Connection]:
    url = await backing.database({"stats": MIGRATIONS, "site": ("shared.directory",)})
    connection = await asyncpg.connect(url)
    await seed(connection, DOSSIERS, NOW)
    yield connection
    await connection.close()
    await backing.drop_database(url)


async def rows_read(connection: Connection, statement: str, *parameters: Any) -> int:
    """How many rows of tables the statement looked at, those included that it then left out."""
    text = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *parameters)
    plan = orjson.loads(text)[0]["Plan"]
    return sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0))
        * node["Actual Loops"]
        for node in nodes(plan)
        if "Relation Name" in node
    )


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


@pytest.mark.parametrize("years_back", [0, 1, 5, 8])
@pytest.mark.parametrize("known_later", [timedelta(0), timedelta(days=10), timedelta(days=300)])
@pytest.mark.parametrize("by", ["receiving", "deciding"])
async def test_a_months_figures_read_a_months_rows(
    connection: Connection, years_back: int, known_later: timedelta, by: Any
) -> None:
    as_of = NOW - timedelta(days=365 * years_back + 1)
    question = Question(agencies(), Period(as_of - timedelta(days=30), as_of), min(NOW, as_of + known_later), by)
    store = Store()
    row = await connection.fetchrow(store._by["figures", by], *question.parameters)
    assert row is not None
    answer = row["online"] + row["counter"] + row["carried_over"]
    assert answer > 1500
    # Rows of the month itself, in at most three rectangles each, and the one dossier in fifty that is open for long.
    assert await rows_read(connection, store._by["figures", by], *question.parameters) < 5 * answer


async def test_one_communes_figures_read_its_own_rows(connection: Connection) -> None:
    question = Question(["H55.242"], Period(NOW - timedelta(days=365), NOW), NOW)
    row = await connection.fetchrow(Store()._by["figures", "receiving"], *question.parameters)
    assert row is not None
    answer = row["online"] + row["counter"] + row["carried_over"]
    assert 100 < answer < 300
    assert await rows_read(connection, Store()._by["figures", "receiving"], *question.parameters) < 3 * answer


async def test_a_rolling_hour_does_not_read_history(connection: Connection) -> None:
    question = Question(agencies(), Period(NOW - timedelta(hours=1), NOW), NOW)
    row = await connection.fetchrow(Store()._by["figures", "receiving"], *question.parameters)
    assert row is not None
    assert row["pending"] > 100
    # What began in the last 32 days may be pending: of the table's 120 months no more than two are read.
    assert await rows_read(connection, Store()._by["figures", "receiving"], *question.parameters) < DOSSIERS / 120 * 2


async def test_what_is_overdue_and_what_falls_due_is_found_by_its_due_date(connection: Connection) -> None:
    store = Store()
    overdue = await connection.fetch(store["overdue_now"], agencies(), NOW)
    count = sum(row["overdue"] for row in overdue)
    assert count > 20
    assert await rows_read(connection, store["overdue_now"], agencies(), NOW) < 8 * count
    soon = (store["open_until"], agencies(), NOW, NOW + timedelta(days=2))
    due = await connection.fetch(*soon)
    assert due
    assert await rows_read(connection, *soon) <= 2 * len(due)
