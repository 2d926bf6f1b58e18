"""The indicators of stats against an oracle that shares nothing with them, at any as_of and known_at."""

import os
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.stats.app import MIGRATIONS
from services.stats.figures import indicators, report_ii06a
from services.stats.handlers import Handlers
from services.stats.indicator import Period, cells, known_up_to, last_instant, local_midnight, micros
from services.stats.store import Question, Store, at_one_instant
from shared.directory.directory import Directory
from shared.directory.store import LiveDirectory
from shared.service import Service
from shared.store.inbox import Inbox, record_of
from shared.store.pool import Connection, Pool, open_pool
from shared.store.queries import Queries
from shared.store.room import RoomInPostgres
from tests.harness import Backing
from tests.property import indicator_oracle as oracle
from tests.property.indicator_register import AGENCIES, BEGIN, PROCEDURES, Told, documents, register, transfers

FIRST = date(2026, 1, 1)
REGISTERS = int(
    os.environ.get("LIENTHONG_TEST_REGISTERS", "25")
)  # random ones, each asked at a dozen pairs of instants
EMPTY = (
    "TRUNCATE stats.dossier, stats.fact, stats.extension, stats.rating, stats.restatement, stats.asked, stats.inbox, "
    "stats.leg, stats.leg_fact, stats.document_act"
)


class Projection:
    """The figures' tables, the handlers that fill them, and nothing else of the service."""

    def __init__(self, pool: Pool, directory: LiveDirectory) -> None:
        self.pool, self.store = pool, Store()
        service = cast(Service, SimpleNamespace(directory=directory))
        self.inbox = Inbox(Handlers(service, self.store).apply)
        self.queries = Queries("shared.store", "stats")
        self.directory: Directory = directory.current

    async def apply(self, batch: Sequence[Told]) -> int:
        """One batch; returns how many were parked."""
        async with self.pool.acquire() as connection, connection.transaction():
            room = RoomInPostgres(connection, self.queries)
            outcome = await self.inbox.process(room, connection, [record_of(told.envelope) for told in batch])
            return len(outcome.parked)

    async def figures(self, connection: Connection, question: Question) -> dict[str, Any]:
        numbers = await indicators(self.store, connection, question)
        row = await self.store.figures_index(connection, question)
        return numbers | {"index": {"counted": row["counted"], "in_time": row["in_time"]}}


@pytest.fixture(scope="module")
async def projection(backing: Backing) -> AsyncIterator[Projection]:
    url = await backing.database({"stats": MIGRATIONS, "site": ("shared.directory",)})
    pool = await open_pool(url, size=2)
    directory = LiveDirectory(pool)
    await directory.refresh()
    yield Projection(pool, directory)
    await pool.close()
    await backing.drop_database(url)


def batches(lives: Sequence[tuple[str, Sequence[Told]]], rng: random.Random) -> list[list[Told]]:
    """All events in an order that keeps each dossier's, some of them twice, cut into batches anywhere."""
    queues = [list(events) for _, events in lives if events]
    mixed: list[Told] = []
    while queues:
        queue = rng.choice(queues)
        size = rng.randint(1, 6)
        mixed += queue[:size]
        del queue[:size]
        queues = [q for q in queues if q]
        if rng.random() < 0.1:
            mixed.append(rng.choice(mixed))
    cut: list[list[Told]] = []
    while mixed:
        size = rng.choice((1, 3, 20, 100))
        cut.append(mixed[:size])
        mixed = mixed[size:]
    return cut


def instants(rng: random.Random, lives: Sequence[tuple[str, Sequence[Told]]]) -> tuple[datetime, datetime]:
    """as_of and known_at, often at the very instant of an act, a record or a due date."""
    told = [event for _, events in lives for event in events]
    moments = [t.time for t in told] + [t.recorded for t in told] + [t.data["due_at"] for t in told if t.data["due_at"]]
    late = BEGIN + timedelta(days=400)
    anywhere = [BEGIN + timedelta(days=rng.randint(1, 120), seconds=rng.randint(0, 86399)) for _ in range(3)]
    return rng.choice([late, *anywhere, *moments]), rng.choice([late, late, *anywhere, *moments])


@settings(max_examples=REGISTERS, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
async def test_sql_agrees_with_the_oracle(projection: Projection, seed: int) -> None:
    rng = random.Random(seed)
    lives = register(seed)
    legs = transfers(seed, lives)
    lines = [("", [told for acts in each for told in acts]) for each in legs.values()]
    async with projection.pool.acquire() as connection:
        await connection.execute(EMPTY)
    letters = documents(seed)
    for batch in batches([*lives, *lines, *(("", letter) for letter in letters)], rng):
        assert await projection.apply(batch) == 0
    async with projection.pool.acquire() as connection:
        for _ in range(12):
            as_of, known_at = instants(rng, [*lives, *lines])
            first = FIRST + timedelta(days=rng.randint(0, 80))
            last = first + timedelta(days=rng.choice((0, 6, 30, 90)))
            if local_midnight(first) > as_of:
                continue
            whom = frozenset(rng.sample(AGENCIES, rng.randint(1, 3)))
            by = rng.choice(("receiving", "receiving", "deciding", "working", "working"))
            procedure = rng.choice((None, None, PROCEDURES[0][0]))
            channel = rng.choice((None, None, None, "online", "postal"))
            period = Period(local_midnight(first), min(as_of, last_instant(last)))
            question = Question(sorted(whom), period, known_at, cast(Any, by), procedure, None, cast(Any, channel))
            found = await projection.figures(connection, question)
            expected = oracle.indicators(
                lives, whom, first, last, as_of, known_at, by=by, procedure=procedure, channel=channel, legs=legs
            )
            expected["documents"] = oracle.documents(letters, whom, first, last, as_of, known_at)
            if by == "working":  # extensions and ratings are the receiving agency's
                expected |= {"extended": 0, "satisfaction": oracle.percent(0, 0)}
            if by != "receiving" or (procedure, channel) != (
                None,
                None,
            ):  # the index is asked of receiving agencies, whole
                del found["index"], expected["index"]
            assert found == expected
            assert oracle.identities_hold(found)
            made = await report_ii06a(projection.store, connection, question, projection.directory)
            assert made["total"]["received"]["total"] == found["received"]["total"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
async def test_every_number_has_its_dossiers(projection: Projection, seed: int) -> None:
    """A cell's dossiers are as many as its number says; and each dossier alone counts in just these cells."""
    rng = random.Random(seed)
    lives = register(seed, 12)
    async with projection.pool.acquire() as connection:
        await connection.execute(EMPTY)
        await projection.apply([told for _, events in lives for told in events])
        held = await projection.store.dossiers(connection, [e[0].envelope.subject for _, e in lives])
        as_of, known_at = instants(rng, lives)
        first, last = FIRST + timedelta(days=rng.randint(0, 40)), FIRST + timedelta(days=rng.randint(40, 130))
        if local_midnight(first) > as_of:
            return
        question = Question(AGENCIES, Period(local_midnight(first), min(as_of, last_instant(last))), known_at)
        numbers = await projection.figures(connection, question)
        del numbers["index"], numbers["documents"]
        alone = {
            code: cells(
                known_up_to(dossier.acts, micros(known_at)),
                micros(question.period.start),
                micros(question.period.judged),
            )
            for code, dossier in held.items()
        }
        for block, value in numbers.items():
            parts = value.items() if isinstance(value, dict) else [("", value)]
            for part, number in parts:
                path = f"{block}.{part}".rstrip(".")
                if part == "percent" or block.endswith("_days"):
                    continue
                rows = await projection.store.behind(connection, question, path, "", 1000)
                assert len(rows) == number, path
                if not block.endswith("_share"):
                    assert {row["code"] for row in rows} == {code for code, found in alone.items() if path in found}


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
async def test_what_is_kept_of_months_gone_by_still_holds(projection: Projection, seed: int) -> None:
    """After each batch the figures of now, for which months gone by are not read again, are those that are read whole."""
    rng = random.Random(seed)
    lives = register(seed, 12)
    keeps, now = Store(), BEGIN + timedelta(days=400)
    asked = [
        Question(AGENCIES, Period(local_midnight(FIRST), now), now, now=True),
        Question(AGENCIES[:1], Period(local_midnight(date(2026, 1, 17)), now), now, "deciding", now=True),
        Question(AGENCIES, Period(local_midnight(FIRST), now), now, "receiving", PROCEDURES[0][0], now=True),
    ]
    async with projection.pool.acquire() as connection:
        await connection.execute(EMPTY)
    for batch in batches(lives, rng):
        await projection.apply(batch)
        async with projection.pool.acquire() as connection, at_one_instant(connection):
            for question in asked:
                whole = await indicators(keeps, connection, replace(question, now=False))
                assert await indicators(keeps, connection, question) == whole


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
async def test_batches_do_not_matter(projection: Projection, seed: int) -> None:
    """However the events are cut into batches, the same rectangles come out, and none that nobody has ever known."""
    rng = random.Random(seed)
    lives = register(seed, 8)
    found = []
    async with projection.pool.acquire() as connection:
        for cut in ([[t for _, events in lives for t in events]], batches(lives, rng)):
            await connection.execute(EMPTY)
            for batch in cut:
                await projection.apply(batch)
            rows = await connection.fetch("SELECT f::text AS row FROM stats.fact f ORDER BY 1")
            found.append([row["row"] for row in rows])
    assert found[0] == found[1]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
async def test_restatements_explain_the_difference(projection: Projection, seed: int) -> None:
    """What a closed month was when it closed, and all its restatements since, make what it is now."""
    rng = random.Random(seed)
    lives = [(agency, events) for agency, events in register(seed, 12) if events[0].envelope.mode == "live"]
    async with projection.pool.acquire() as connection:
        await connection.execute(EMPTY)
        for batch in batches(lives, rng):
            await projection.apply(batch)
        for first in (date(2026, 1, 1), date(2026, 2, 1), date(2026, 3, 1)):
            last = (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)
            period = Period(local_midnight(first), last_instant(last))
            then = await projection.figures(connection, Question(AGENCIES, period, last_instant(last)))
            now = await projection.figures(connection, Question(AGENCIES, period, datetime(2030, 1, 1, tzinfo=UTC)))
            rows = await connection.fetch("SELECT changes FROM stats.restatement WHERE from_day = $1", first)
            moved: dict[str, int] = {}
            for row in rows:
                for path, by_how_much in row["changes"].items():
                    moved[path] = moved.get(path, 0) + by_how_much
            for block in ("received", "resolved", "pending", "digitised", "satisfaction"):
                for part in then[block]:
                    if part != "percent":
                        assert now[block][part] - then[block][part] == moved.get(f"{block}.{part}", 0)
            for block in ("extended", "refused"):
                assert now[block] - then[block] == moved.get(block, 0)
