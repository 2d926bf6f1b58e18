"""P7, P12 and P14: with a great many dossiers already stored.

They are made by the database itself: some thousand dossiers go the whole way through the services, and each is copied with
another day in its code, in every table of every service, until there are as many as wanted.
"""

import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg
import httpx

from tests.bench.measure import Context, Figure, percentile, until
from tests.bench.path import reconciled, send_lifecycles

AT_SCALE_1 = 50_000  # dossiers at SCALE=1; the target speaks of 5,000,000 (SCALE=100)
BASE = 2_000
ASKS = int(os.environ.get("LIENTHONG_BENCH_ASKS", "30"))  # of each list and page; p99 speaks from 300 on
TABLES: dict[str, tuple[str, ...]] = {
    "intake": ("dossier", "contact", "event"),
    "routing": ("dossier", "route", "inbox", "event"),
    "notify": ("dossier", "contact", "notice", "inbox", "event"),
    "stats": ("dossier", "fact", "inbox"),
}


def at_size(met: bool, held: int) -> bool | None:
    """A target of five million is met, or not, by five million alone."""
    return met if held >= 5_000_000 else None


def stored_wanted(context: Context) -> int:
    return max(2 * BASE, int(AT_SCALE_1 * context.scale))


async def columns(connection: Any, schema: str, table: str) -> list[tuple[str, str]]:
    rows = await connection.fetch(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = $1 AND table_name = $2"
        " AND is_generated = 'NEVER' AND identity_generation IS NULL"
        " AND coalesce(column_default, '') NOT LIKE 'nextval%' ORDER BY ordinal_position",
        schema,
        table,
    )
    return [(row["column_name"], row["data_type"]) for row in rows]


def copied(name: str, kind: str) -> str:
    """A column of the copy number k.n: another day in codes, other ids, everything else as it is."""
    if name in ("contact_ref", "recipient", "person_hash", "phone_hash"):
        return f"b.{name} || '-' || k.n"
    if name in ("key", "aggregateid"):
        return f"CASE WHEN b.{name} LIKE '%-' || $1 || '-%' THEN replace(b.{name}, $1, k.day) ELSE b.{name} || '-' || k.n END"
    if name in ("code", "dossier"):
        return f"replace(b.{name}, $1, k.day)"
    if name in ("body", "payload") and kind == "text":
        return f"replace(b.{name}, '-' || $1 || '-', '-' || k.day || '-')"
    if kind == "uuid":
        return f"md5(b.{name}::text || k.n)::uuid"
    return f"b.{name}"


async def seed(
    connection: Any, wanted: int, say: Callable[[str], None], tables_of: dict[str, tuple[str, ...]] = TABLES
) -> int:
    """Copies until at least `wanted` dossiers are stored; how many there are. Held equal to an import by
    tests/integration/test_seeder.py."""
    held: int = await connection.fetchval("SELECT count(*) FROM intake.dossier")
    day: str = await connection.fetchval("SELECT split_part(code, '-', 2) FROM intake.dossier LIMIT 1")
    copies = max(0, -(-wanted // held) - 1)
    for schema, tables in tables_of.items():
        for table in tables:
            say(f"storing {wanted:,} dossiers: {schema}.{table}")
            found = await columns(connection, schema, table)
            names = ", ".join(name for name, _ in found)
            await connection.execute(f"CREATE TEMP TABLE base AS SELECT * FROM {schema}.{table}")
            for first in range(1, copies + 1, 50):
                await connection.execute(
                    f"INSERT INTO {schema}.{table} ({names})"
                    f" SELECT {', '.join(copied(name, kind) for name, kind in found)} FROM base b,"
                    " (SELECT n, to_char(date '2015-01-01' + n, 'YYMMDD') AS day FROM generate_series($2::int, $3::int) n) k"
                    " WHERE $1::text IS NOT NULL",
                    day, first, min(first + 49, copies), timeout=3600,
                )  # fmt: skip
            await connection.execute("DROP TABLE base")
            await connection.execute(f"ANALYZE {schema}.{table}")
    return held * (copies + 1)


async def lifecycles_rate(context: Context, number: int) -> float:
    began = time.monotonic()
    await send_lifecycles(context.stack, f"stored-{time.time_ns()}", number)
    await until(lambda: reconciled(context.stack), 900, "reconcile", every=0.2)
    return number / (time.monotonic() - began)


async def stored(context: Context) -> list[Figure]:
    """All that is measured over the same stored dossiers."""
    number = max(BASE, int(4_000 * min(context.scale, 2.5)))
    context.say("P7 on an empty database")
    await lifecycles_rate(context, 500)  # warm
    floor = await lifecycles_rate(context, number)
    connection = await asyncpg.connect(context.stack.database_url)
    try:
        held = await seed(connection, stored_wanted(context), context.say)
        context.say(f"P7 with {held:,} stored")
        ours = await lifecycles_rate(context, number)
        note = f"{held:,} dossiers stored"
        p7 = Figure(
            "P7", "P3 with dossiers stored, beside P3 on an empty database", ours, floor, "dossiers/s",
            "ratio ≥ 0.9 (at 5,000,000)", at_size(ours / floor >= 0.9, held), note,
        )  # fmt: skip
        figures = [p7]
        figures.append(await p12(context, connection, note, held))
        figures.append(await p14(context, connection, note, held))
    finally:
        await connection.close()
    return figures


async def times_of(calls: Sequence[Callable[[], Awaitable[Any]]]) -> list[float]:
    """Seconds of each call, one after another; the first five are not counted."""
    found = []
    for call in calls:
        began = time.monotonic()
        await call()
        found.append(time.monotonic() - began)
    return found[5:] or found


PLAIN = """
CREATE TABLE {schema}.plain AS
SELECT code, agency, procedure, field, channel, phase, received_at, due_at, paused, pause_late, ended_at, outcome
FROM stats.fact WHERE valid_to = 'infinity' AND known_to = 'infinity';
CREATE INDEX ON {schema}.plain (agency, received_at);
CREATE INDEX ON {schema}.plain (agency, ended_at);
ANALYZE {schema}.plain
"""
# The core of the indicators by hand: received and resolved in the period, pending now, over one table of dossiers.
BY_HAND = """
SELECT count(*) FILTER (WHERE received_at >= $2),
       count(*) FILTER (WHERE ended_at >= $2 AND phase = 'ended'),
       count(*) FILTER (WHERE ended_at >= $2 AND outcome = 'early'),
       count(*) FILTER (WHERE ended_at >= $2 AND outcome = 'on_time'),
       count(*) FILTER (WHERE ended_at >= $2 AND outcome = 'late'),
       count(*) FILTER (WHERE phase = 'pending'),
       count(*) FILTER (WHERE phase = 'pending' AND due_at < now())
FROM bench_plain.plain WHERE agency = ANY ($1::text[]) AND (phase = 'pending' OR ended_at >= $2)
"""


async def p12(context: Context, connection: Any, note: str, held: int) -> Figure:
    """Indicators of a province over everything stored, now and at a past instant, beside hand-written SQL."""
    stack = context.stack
    context.say("P12")
    today = await connection.fetchval("SELECT (now() AT TIME ZONE 'Asia/Ho_Chi_Minh')::date")
    start = today.replace(day=1, month=1)
    period = {"agency": "H55", "subtree": "true", "from": start.isoformat(), "to": today.isoformat()}
    at = (await connection.fetchval("SELECT now() - interval '30 seconds'")).isoformat()

    def ask(**more: str) -> Callable[[], Awaitable[httpx.Response]]:
        async def asked() -> httpx.Response:
            answer = await stack.http.get(
                f"{stack.url('stats')}/v1/indicators", params=period | more, headers=stack.token()
            )
            return answer.raise_for_status()

        return asked

    now = await times_of([ask()] * 25)
    past = await times_of([ask(as_of=at, known_at=at)] * 15)
    await connection.execute("DROP SCHEMA IF EXISTS bench_plain CASCADE; CREATE SCHEMA bench_plain")
    await connection.execute(PLAIN.format(schema="bench_plain"), timeout=600)
    agencies = [row["agency"] for row in await connection.fetch("SELECT DISTINCT agency FROM bench_plain.plain")]
    by_hand = await times_of([lambda: connection.fetchrow(BY_HAND, agencies, start)] * 25)
    await connection.execute("DROP SCHEMA bench_plain CASCADE")
    ours, floor, then = (percentile(each, 0.95) * 1000 for each in (now, by_hand, past))
    return Figure(
        "P12", "indicators of a province's year, p95", ours, floor, "ms",
        "p95 ≤ 100 ms now, ≤ 2 s at any as_of and known_at (at 5,000,000)", at_size(ours <= 100 and then <= 2000, held),
        f"{note}; at a past instant {then:.0f} ms; the ratio is of times, lower is better", {"past_ms": then},
    )  # fmt: skip


def asks_of(
    http: httpx.AsyncClient, base: str, token: dict[str, str], codes: Sequence[str], chance: random.Random
) -> dict[str, Callable[[], Awaitable[None]]]:
    """Every list and page query of intake, each at a random place: what P14 asks, and a test asks once."""

    def get(path: Callable[[], str], **params: str) -> Callable[[], Awaitable[None]]:
        async def asked() -> None:
            (await http.get(base + path(), params=params, headers=token)).raise_for_status()

        return asked

    async def by_code() -> None:
        await get(lambda: "/v1/dossiers", q=chance.choice(codes)[:14])()

    async def by_day() -> None:
        await get(lambda: "/v1/dossiers", q=chance.choice(codes).partition("-")[2][:6])()

    async def by_number() -> None:
        await get(lambda: "/v1/dossiers", agency="H55.242", q=chance.choice(codes)[-4:])()

    async def searched() -> None:
        body = {"phone": f"09{chance.randrange(BASE):08}"}
        (await http.post(f"{base}/v1/dossiers/search", json=body, headers=token)).raise_for_status()

    async def tracked() -> None:
        answer = await http.get(
            f"{base}/track/{chance.choice(codes)}", params={"pin": "000000"}, headers={"Accept": "application/json"}
        )
        assert answer.status_code in (200, 404, 429), answer.status_code

    def one() -> str:
        return chance.choice(codes)

    return {
        "list of an agency": get(lambda: "/v1/dossiers", agency="H55.242"),
        "list of open ones": get(lambda: "/v1/dossiers", agency="H55.242", state="4"),
        "list of overdue ones": get(lambda: "/v1/dossiers", agency="H55.242", overdue="true"),
        "list of the site": get(lambda: "/v1/dossiers"),
        "by part of a code": by_code,
        "by day": by_day,
        "by number": by_number,
        "search by phone": searched,
        "tracking": tracked,
        "one dossier": get(lambda: f"/v1/dossiers/{one()}"),
        "its history": get(lambda: f"/v1/dossiers/{one()}/history"),
        "its explanation": get(lambda: f"/v1/dossiers/{one()}/explain"),
        "petitions": get(lambda: "/v1/petitions", agency="H55.242"),
        "procedures": get(lambda: "/v1/procedures"),
        "page: work list": get(lambda: "/desk", agency="H55.242"),
        "page: overdue": get(lambda: "/desk", agency="H55.242", show="overdue"),
        "page: a dossier": get(lambda: f"/desk/dossiers/{one()}"),
        "page: register of a day": get(
            lambda: "/desk/register", agency="H55.242", **{"from": "2026-01-05", "to": "2026-01-05"}
        ),
        "page: petitions": get(lambda: "/desk/petitions", agency="H55.242"),
        "page: procedures": get(lambda: "/procedures"),
    }


async def p14(context: Context, connection: Any, note: str, held: int) -> Figure:
    """Lists, search and tracking at random places in everything stored."""
    stack, chance = context.stack, random.Random(14)
    context.say("P14")
    codes = [
        row["code"]
        for row in await connection.fetch(
            "SELECT code FROM intake.dossier TABLESAMPLE SYSTEM (10) ORDER BY random() LIMIT 200"
        )
    ]
    asks = asks_of(stack.http, stack.url("intake"), stack.token(), codes, chance)
    times = {name: await times_of([ask] * ASKS) for name, ask in asks.items()}
    p95, p99 = ({name: percentile(each, share) * 1000 for name, each in times.items()} for share in (0.95, 0.99))
    worst = max((name for name in p95 if not name.startswith("page: ")), key=lambda name: p95[name])
    return Figure(
        "P14", "lists, search and tracking, p95 of the slowest", p95[worst], None, "ms", "p95 ≤ 50 ms (at 5,000,000)",
        at_size(p95[worst] <= 50, held),
        f"{note}; " + ", ".join(f"{name} {value:.0f}" for name, value in p95.items()), {"p95_ms": p95, "p99_ms": p99},
    )  # fmt: skip
