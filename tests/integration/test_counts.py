"""What a dossier costs, counted and not timed: statements, messages, and the rows that hot queries look at.

A clock says something else on every machine; these numbers are the same on all, so a change that makes a hop dearer is seen
here first. A bound is what was counted when it was set; who raises one says why.
"""

import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import timedelta
from typing import Any

import asyncpg
import orjson
import pytest
from asyncpg.pool import PoolConnectionProxy

from shared.contracts.events import TOPICS
from shared.service import SERVICES
from shared.store import pool
from shared.store.queries import Queries
from tests.harness import Backing, RunningSite, real_services, running_site
from tests.integration.intake_site import dossier, imported, person

DOSSIERS = 200
OPERATIONS: tuple[tuple[str, dict[str, str]], ...] = (
    ("start", {}),
    ("resolution", {"result": "granted"}),
    ("return", {"by": "counter"}),
)
WRITES = re.compile(r"\b(INSERT INTO|COPY|UPDATE|DELETE FROM|FOR UPDATE|pg_advisory_xact_lock)\b")
OF_TIME = ("bus_partition", "bus_topic", "bus_read", ".complete")  # written by the clock, not by dossiers


class Counted:
    """The statements that write or lock, by service, since the last `begin`."""

    def __init__(self) -> None:
        self.statements: Counter[str] = Counter()

    def begin(self) -> None:
        self.statements.clear()

    def note(self, query: Any) -> None:
        self.say(str(query.query))

    def say(self, text: str) -> None:
        if WRITES.search(text) and not any(name in text for name in OF_TIME):
            self.statements[" ".join(text.split())[:200]] += 1

    def of(self, schema: str) -> int:
        return sum(times for text, times in self.statements.items() if f"{schema}." in text)


@pytest.fixture
async def counted(backing: Backing, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[RunningSite, Counted]]:
    """The four services, every connection of theirs with a count of what it is told."""
    count, prepare = Counted(), pool._prepare

    async def prepared(connection: Any) -> None:
        await prepare(connection)
        connection.add_query_logger(count.note)

    copy = PoolConnectionProxy.copy_records_to_table

    async def copied(self: Any, table: str, *, schema_name: str, **more: Any) -> Any:
        count.say(f"COPY {schema_name}.{table}")  # asyncpg tells its query loggers nothing of a COPY
        return await copy(self, table, schema_name=schema_name, **more)

    monkeypatch.setattr(PoolConnectionProxy, "copy_records_to_table", copied)
    monkeypatch.setattr(pool, "_prepare", prepared)
    async with running_site(backing, *real_services(*SERVICES)) as site:
        await site.reading()
        yield site, count


async def settled(site: RunningSite) -> None:
    """Everything that was stored is published, applied and told."""

    async def quiet() -> bool:
        for service in SERVICES:
            if await site.value(f"SELECT EXISTS (SELECT 1 FROM {service}.outbox)"):
                return False
        owed = await site.value(
            "SELECT count(*) FROM (SELECT aggregateid, max(sequence) AS last FROM intake.event"
            " WHERE aggregatetype = 'dossier' GROUP BY 1) e"
            " WHERE EXISTS (SELECT 1 FROM unnest(ARRAY['routing', 'notify', 'stats']) s"
            " WHERE CASE s WHEN 'routing' THEN (SELECT sequence FROM routing.inbox WHERE key = aggregateid"
            " AND topic = 'lienthong.dossier.v1') WHEN 'notify' THEN (SELECT sequence FROM notify.inbox"
            " WHERE key = aggregateid AND topic = 'lienthong.dossier.v1') ELSE (SELECT sequence FROM stats.inbox"
            " WHERE key = aggregateid AND topic = 'lienthong.dossier.v1') END IS DISTINCT FROM last)"
        )
        planned = await site.value("SELECT count(*) FROM notify.notice WHERE state IN ('planned', 'held')")
        return not owed and not planned

    await site.until(quiet)


def lifecycles(number: int) -> Iterator[dict[str, Any]]:
    for n in range(number):
        applicant = person(phone=f"0912{n:06}")
        yield {"op": "receive", "ref": f"{n}", **dossier(applicant=applicant)}
        for op, body in OPERATIONS:
            yield {"op": op, "ref": f"{n}", **body}


async def test_statements_a_dossier_on_each_hop(counted: tuple[RunningSite, Counted]) -> None:
    site, count = counted
    consumers = {name: service.consumer for name, service in site.services.items() if service.consumer is not None}
    before = {name: consumer.batches for name, consumer in consumers.items()}
    count.begin()
    answered = await imported(site.client("intake"), lifecycles(DOSSIERS), source="counts")
    assert Counter(line["status"] for line in answered) == {"applied": DOSSIERS * (1 + len(OPERATIONS))}
    in_intake = count.of("intake")
    await settled(site)
    batches = {name: consumer.batches - before[name] for name, consumer in consumers.items()}
    found = {"intake import": in_intake} | {
        f"{name} a batch": count.of(name) / max(1, batches[name]) for name in ("routing", "notify", "stats")
    }
    bounds = {"intake import": 30, "routing a batch": 12, "notify a batch": 40, "stats a batch": 16}
    over = {name: number for name, number in found.items() if number > bounds[name]}
    assert not over, f"{over} of {found}; {count.statements.most_common(40)}"


async def test_statements_of_one_receipt(counted: tuple[RunningSite, Counted]) -> None:
    site, count = counted
    client = site.client("intake")
    assert (await client.post("/v1/dossiers", json=dossier())).status_code == 201  # what is learnt once is learnt
    await settled(site)
    count.begin()
    assert (await client.post("/v1/dossiers", json=dossier())).status_code == 201
    of_the_answer = [text for text in count.statements.elements() if "intake." in text and "outbox WHERE" not in text]
    assert len(of_the_answer) <= 6, of_the_answer


async def test_messages_a_dossier(counted: tuple[RunningSite, Counted]) -> None:
    """On each topic exactly what the contract says, and nothing twice."""
    site, _ = counted
    await imported(site.client("intake"), lifecycles(10), source="messages")
    await settled(site)
    messages = {name: len(await site.bus.records(name)) for name in sorted(TOPICS)}
    a_dossier = {name: number / 10 for name, number in messages.items() if number}
    assert a_dossier == {
        "lienthong.contact.v1": 1,
        "lienthong.dossier.v1": 4,
        "lienthong.notice.v1": 4,  # two notices, each planned and sent
        "lienthong.public.dossier.v1": 4,
    } | {name: a_dossier[name] for name in ("lienthong.watermark.v1", "lienthong.indicator.v1") if name in a_dossier}


# -- rows that hot queries look at


def looked_at(plan: Mapping[str, Any]) -> float:
    """The rows that the scans of a plan have read, those thrown away included."""
    rows = 0.0
    if "Scan" in plan["Node Type"] and not plan.get("Plans"):
        thrown = sum(value for name, value in plan.items() if name.startswith("Rows Removed by"))
        rows += (plan["Actual Rows"] + thrown) * plan["Actual Loops"]
    return rows + sum(looked_at(each) for each in plan.get("Plans", ()))


async def explained(connection: Any, statement: str, *arguments: Any) -> float:
    transaction = connection.transaction()
    await transaction.start()
    try:
        plan = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *arguments)
    finally:
        await transaction.rollback()
    return looked_at((orjson.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])


@pytest.fixture
async def full(backing: Backing) -> AsyncIterator[Any]:
    """A database with 20,000 dossiers' worth of log, inbox and outbox, as a busy day leaves it."""
    _, schemas = real_services(*SERVICES)
    url = await backing.database(schemas)
    connection = await asyncpg.connect(url, server_settings=pool.SETTINGS)
    try:
        await connection.execute(
            "WITH e AS (INSERT INTO intake.event (id, aggregatetype, aggregateid, type, payload, sequence, source,"
            " happened, recorded, mode) SELECT gen_random_uuid(), 'dossier', 'H55.242-260101-' || lpad(n::text, 5, '0'),"
            " 'dossier.received', '{}', 1, '/sites/H55/intake', now(), now(), 'live' FROM generate_series(1, 20000) n"
            " RETURNING position, aggregateid)"
            " INSERT INTO intake.outbox (position, shard) SELECT position, hashtext(aggregateid) & 3 FROM e"
            " WHERE position % 4 = 0"
        )
        await connection.execute(
            "INSERT INTO routing.inbox (topic, key, sequence, recorded, waiting, since)"
            " SELECT 'lienthong.dossier.v1', 'H55.242-260101-' || lpad(n::text, 5, '0'), 1, now(),"
            " CASE WHEN n % 5000 = 0 THEN 'gap' END, CASE WHEN n % 5000 = 0 THEN now() - interval '1 hour' END"
            " FROM generate_series(1, 20000) n"
        )
        for table in ("intake.event", "intake.outbox", "routing.inbox", "routing.pending"):
            await connection.execute(f"ANALYZE {table}")
        yield connection
    finally:
        await connection.close()
        with contextlib.suppress(asyncpg.PostgresError):
            await backing.drop_database(url)


KEYS = [f"H55.242-260101-{n:05}" for n in range(1, 501)]
TOPIC = "lienthong.dossier.v1"


async def test_rows_that_hot_queries_look_at(full: Any) -> None:
    """Each looks at no more rows than a small multiple of what it returns, however much lies there."""
    ours, theirs = Queries("shared.store", "intake"), Queries("shared.store", "routing")
    some_positions = [row["position"] for row in await full.fetch("SELECT position FROM intake.outbox LIMIT 500")]
    found = {
        "unpublished": await explained(full, ours["unpublished"], [0, 1, 2, 3], 500),
        "published": await explained(full, ours["published"], some_positions),
        "ledger": await explained(full, ours["ledger"], "dossier", KEYS[7], 0, 1000),
        "places": await explained(full, theirs["places"], [TOPIC] * len(KEYS), KEYS),
        "gaps": await explained(full, theirs["gaps"], timedelta(seconds=10)),
        "parked_count": await explained(full, theirs["parked_count"]),
    }
    bounds = {
        "unpublished": 1000,  # 500 pointers and 500 events
        "published": 1500,  # the positions, and each row for the look and for the delete
        "ledger": 1,
        "places": 1000,  # the names, and one place each
        "gaps": 4,
        "parked_count": 4,
    }
    over = {name: rows for name, rows in found.items() if rows > bounds[name]}
    assert not over, f"{over} of {found}"
