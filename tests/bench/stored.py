"""P7, P12 and P14: with a great many dossiers already stored. P12 asks of ten years of facts made by `tests.figures_seed`.

They are made by the database itself: some thousand dossiers go the whole way through the services, and each is copied with
another number in its code, in every table of every service, until there are as many as wanted. A copy's history is
chained anew: `lienthong verify` finds it intact.
"""

import asyncio
import itertools
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import yaml

from shared.contracts.codes import LOCAL_ZONE
from shared.directory.reading import load_bundle
from shared.directory.store import load as load_directory
from tests import figures_seed
from tests.bench.measure import Context, Figure, percentile, until
from tests.bench.path import lifecycles, reconciled, send_lifecycles
from tests.stack import Stack

SAMPLE = Path(__file__).parents[2] / "deploy" / "demo" / "sample.yaml"
AT_SCALE_1 = 50_000  # dossiers at SCALE=1; the target speaks of 5,000,000 (SCALE=100)
BASE = 2_000
AT_ONCE = 100_000  # dossiers that are copied in one transaction
ASKS = int(os.environ.get("LIENTHONG_BENCH_ASKS", "30"))  # of each list and page; p99 speaks from 300 on
TABLES: Mapping[str, tuple[str, ...]] = {
    "intake": ("event", "dossier", "contact"),
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


def copied(name: str, kind: str, of: str) -> str:
    """A column of the copy k.n of a row b: another number in codes (`of`: the column that names the row's dossier, c.code the
    code that takes its place), other ids, everything else as it is."""
    if name in ("contact_ref", "recipient", "person_hash", "phone_hash"):
        return f"b.{name} || '-' || k.n"
    if name == of:
        return f"coalesce(c.code, b.{name} || '-' || k.n)"
    if name in ("body", "payload") and kind == "text" and of:
        return f"CASE WHEN c.code IS NULL THEN b.{name} ELSE replace(b.{name}, b.{of}, c.code) END"
    if name == "id" and kind == "uuid":
        return COPIED_ID
    if kind == "uuid":
        return f"md5(b.{name}::text || k.n)::uuid"
    return f"b.{name}"


# The column by which a row belongs to a dossier. `H55.242-261126-0042` gets a number higher by a stride for each copy; what is
# no code (a contact's reference) gets none.
NAMING = ("code", "dossier", "aggregateid", "key")
CODE = "^[^-]+-[0-9]+-([0-9]+)$"
RENUMBERED = f"""CROSS JOIN LATERAL (SELECT regexp_replace(b.{{of}}, '[0-9]+$', '')
    || (substring(b.{{of}} FROM '{CODE}')::bigint + k.n * $1::bigint) AS code OFFSET 0) c"""
COPIED_ID = "md5(b.id::text || k.n)::uuid"


def _instant(name: str) -> str:
    """An instant as `shared.store.chain` writes it."""
    at = f"b.{name} AT TIME ZONE 'UTC'"
    micros = (
        f"CASE WHEN extract(microseconds FROM b.{name})::bigint % 1000000 = 0 THEN '' ELSE to_char({at}, '.US') END"
    )
    return f"""to_char({at}, 'YYYY-MM-DD"T"HH24:MI:SS') || {micros} || '+00:00'"""


# The chain of a copied event, from that of the copied event before it.
CHAIN = f"""CASE WHEN b.chain IS NOT NULL THEN sha256(convert_to(concat_ws(E'\\n', coalesce(encode(before.chain, 'hex'), ''),
    'lienthong.' || b.aggregatetype || '.v1', c.code, b.sequence, {COPIED_ID}, b.type, b.source,
    {_instant("happened")}, {_instant("recorded")}, b.mode, {copied("payload", "text", "aggregateid")}), 'UTF8')) END"""
BEFORE = """LEFT JOIN LATERAL (SELECT chain FROM intake.event e WHERE b.chain IS NOT NULL AND e.aggregateid = c.code
    AND e.aggregatetype = b.aggregatetype AND e.sequence = b.sequence - 1) before ON true"""
# A dossier says the chain of its last event.
LAST = """LEFT JOIN LATERAL (SELECT encode(chain, 'hex') AS chain FROM intake.event e WHERE e.aggregateid = c.code
    AND e.aggregatetype = 'dossier' AND e.sequence = b.sequence) last ON true"""
SAID = """overlay({body} PLACING last.chain FROM position('"chain":"' IN {body}) + 9 FOR 64)"""


async def seed(
    connection: Any,
    wanted: int,
    say: Callable[[str], None],
    tables_of: Mapping[str, tuple[str, ...]] = TABLES,
    until: float | None = None,
) -> int:
    """Copies until at least `wanted` dossiers are stored; how many there are. Stops at `until` (monotonic) and goes on the
    next time. Held equal to an import by tests/integration/test_seeder.py."""
    tables = [(schema, table) for schema, names in tables_of.items() for table in names]
    if not await connection.fetchval("SELECT to_regnamespace('bench_base') IS NOT NULL"):
        async with connection.transaction():
            await connection.execute("CREATE SCHEMA bench_base; CREATE TABLE bench_base.done (n int)")
            for schema, table in tables:
                await connection.execute(f"CREATE TABLE bench_base.{schema}_{table} AS SELECT * FROM {schema}.{table}")
                await connection.execute(f"ANALYZE bench_base.{schema}_{table}")
    held: int = await connection.fetchval("SELECT count(*) FROM bench_base.intake_dossier")
    stride = 10 ** await connection.fetchval(
        "SELECT greatest(3, max(length(ltrim(split_part(code, '-', 3), '0')))) FROM bench_base.intake_dossier"
    )
    copies = max(0, -(-wanted // held) - 1)
    done: int = await connection.fetchval("SELECT coalesce(max(n), 0) FROM bench_base.done")
    step = max(1, AT_ONCE // held)
    if done < copies:
        await _put_indexes_off(connection, tables)
    while done < copies and (until is None or time.monotonic() < until):
        last = min(done + step, copies)
        say(f"storing dossiers: {held * (last + 1):,} of {wanted:,}")
        async with connection.transaction():
            for schema, table in tables:
                await _copy(connection, schema, table, stride, done + 1, last)
            await connection.execute("INSERT INTO bench_base.done VALUES ($1)", last)
        done = last
    if done >= copies:
        await _make_indexes(connection, say)
        for schema, table in tables:
            await connection.execute(f"VACUUM (ANALYZE) {schema}.{table}", timeout=3600)
    return held * (done + 1)


async def _put_indexes_off(connection: Any, tables: Sequence[tuple[str, str]]) -> None:
    """Indexes that nothing of this needs are made when all is there."""
    async with connection.transaction():
        await connection.execute("CREATE TABLE IF NOT EXISTS bench_base.index (definition text)")
        rows = await connection.fetch(
            "SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition FROM pg_index"
            " WHERE indrelid::regclass::text = ANY ($1::text[]) AND NOT indisunique",
            [f"{schema}.{table}" for schema, table in tables],
        )
        for row in rows:
            await connection.execute("INSERT INTO bench_base.index VALUES ($1)", row["definition"])
            await connection.execute(f"DROP INDEX {row['name']}")


async def _make_indexes(connection: Any, say: Callable[[str], None]) -> None:
    """Those that were put off, if any."""
    if await connection.fetchval("SELECT to_regclass('bench_base.index') IS NULL"):
        return
    for row in await connection.fetch("SELECT definition FROM bench_base.index"):
        say(row["definition"])
        await connection.execute(row["definition"], timeout=3600)
        await connection.execute("DELETE FROM bench_base.index WHERE definition = $1", row["definition"])


async def _copy(connection: Any, schema: str, table: str, stride: int, first: int, last: int) -> None:
    """The copies from number `first` to number `last` of all that one table had."""
    found = await columns(connection, schema, table)
    names = [name for name, _ in found]
    of = next((name for name in NAMING if name in names), "")
    values = {name: copied(name, kind, of) for name, kind in found}
    code = RENUMBERED.format(of=of) if of else "CROSS JOIN (SELECT NULL::text AS code WHERE $1::bigint > 0) c"
    join, rounds = "", [(0, 1 << 30)]
    if (schema, table) == ("intake", "event"):
        # Each from the one before, which must be there: all first ones, all second ones, and so on.
        most = await connection.fetchval("SELECT max(sequence) FROM bench_base.intake_event")
        values["chain"], join, rounds = CHAIN, BEFORE, [(number, number) for number in range(1, most + 1)]
    elif (schema, table) == ("intake", "dossier"):
        values["body"], join = SAID.format(body=values["body"]), LAST
    for low, high in rounds:
        which = "b.sequence BETWEEN $4 AND $5" if "sequence" in names else "$4::int <= $5::int"
        await connection.execute(
            f"INSERT INTO {schema}.{table} ({', '.join(names)})"
            f" SELECT {', '.join(values[name] for name in names)} FROM bench_base.{schema}_{table} b"
            f" CROSS JOIN (SELECT n FROM generate_series($2::int, $3::int) n) k {code} {join}"
            f" WHERE {which}",
            stride, first, last, low, high, timeout=3600,
        )  # fmt: skip


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
INCOMING = 250  # lifecycles of four events a second


async def p12(context: Context) -> Figure:
    """Indicators of a province's year over ten years of dossiers, now and at any as_of and known_at, while 1,000 events a
    second come in; beside hand-written SQL under the same load."""
    stack, held = context.stack, max(20_000, int(AT_SCALE_1 * context.scale))
    connection = await asyncpg.connect(stack.database_url)
    load: asyncio.Task[float] | None = None
    try:
        with_communes = communes_in(stack.data, figures_seed.agencies())
        await load_directory(connection, load_bundle(with_communes), who="bench")
        now = datetime.now(UTC)
        await seed_figures(connection, held, now, context.say)
        await connection.execute("DROP SCHEMA IF EXISTS bench_plain CASCADE; CREATE SCHEMA bench_plain")
        await connection.execute(PLAIN.format(schema="bench_plain"), timeout=600)

        async def ask(days_back: float, **more: str) -> None:
            last = (now - timedelta(days=days_back)).astimezone(LOCAL_ZONE).date()
            period = {"from": (last - timedelta(days=364)).isoformat(), "to": last.isoformat()}
            params = {"agency": "H55", "subtree": "true"} | period | more
            url = f"{stack.url('stats')}/v1/indicators"
            answer = (await stack.http.get(url, params=params, headers=stack.token())).raise_for_status()
            assert answer.json()["received"]["total"] > held / figures_seed.YEARS / 2

        chance = random.Random(12)

        def past() -> Ask:
            back = chance.uniform(1, 365 * (figures_seed.YEARS - 2))
            as_of = now - timedelta(days=back)
            known_at = as_of + timedelta(days=chance.choice((0, 3, 40, 400)))
            return lambda: ask(back, as_of=as_of.isoformat(), known_at=min(known_at, now).isoformat())

        agencies = figures_seed.agencies()
        year = now - timedelta(days=365)
        await until(lambda: _counts_all(stack, now), 120, "the directory is read anew")
        context.say("P12")
        load = asyncio.create_task(incoming(stack, stop := asyncio.Event()))
        live = await times_of([lambda: ask(0)] * 45)
        then = await times_of([past() for _ in range(45)])
        by_hand = await times_of([lambda: connection.fetchrow(BY_HAND, agencies, year)] * 25)
        stop.set()
        rate = await load
    finally:
        if load is not None:
            load.cancel()
        await connection.close()
    ours, floor, at = (percentile(each, 0.95) * 1000 for each in (live, by_hand, then))
    return Figure(
        "P12", "indicators of a province's year, p95", ours, floor, "ms",
        "p95 ≤ 100 ms now, ≤ 2 s at any as_of and known_at (at 5,000,000)", at_size(ours <= 100 and at <= 2000, held),
        f"{held:,} dossiers of ten years, {rate * 4:,.0f} events/s coming in; at any past instants {at:.0f} ms; the ratio is of"
        " times, lower is better",
        {"past_ms": at, "now_p50_ms": percentile(live, 0.5) * 1000, "past_p50_ms": percentile(then, 0.5) * 1000},
    )  # fmt: skip


async def seed_figures(connection: Any, dossiers: int, now: datetime, say: Callable[[str], None]) -> None:
    """Ten years of facts, if they are not there yet; the indexes are made when all is there."""
    await connection.execute("CREATE SCHEMA IF NOT EXISTS bench_base")
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM stats.fact)"):
        await _put_indexes_off(connection, [("stats", "fact")])
        say(f"P12 stores {dossiers:,} dossiers")
        await figures_seed.seed(connection, dossiers, now, timeout=3600)
    await _make_indexes(connection, say)
    await connection.execute("ANALYZE stats.fact", timeout=600)


async def incoming(stack: Stack, stop: asyncio.Event) -> float:
    """Sends lifecycles at a steady rate; how many a second it were."""
    began, sent, source = time.monotonic(), 0, f"p12-{time.time_ns()}"
    while not stop.is_set():
        answer = await stack.http.post(
            f"{stack.url('intake')}/v1/imports", params={"source": source}, content=lifecycles(sent, INCOMING),
            headers=stack.token() | {"Content-Type": "application/x-ndjson"},
        )  # fmt: skip
        answer.raise_for_status()
        sent += INCOMING
        await asyncio.sleep(max(0.0, began + sent / INCOMING - time.monotonic()))
    return sent / (time.monotonic() - began)


async def _counts_all(stack: Stack, now: datetime) -> bool:
    answer = await stack.http.get(
        f"{stack.url('stats')}/v1/indicators",
        params={"agency": figures_seed.agencies()[-1], "from": f"{now:%Y-%m-%d}", "to": f"{now:%Y-%m-%d}"},
        headers=stack.token(),
    )
    return answer.status_code == 200


def communes_in(folder: Path, codes: Sequence[str]) -> Path:
    """The sample province with these communes, which have been there all the time."""
    content = yaml.safe_load(SAMPLE.read_text(encoding="utf-8"))
    model = next(agency for agency in content["agencies"] if agency["code"] == "H55.242")
    known = {agency["code"]: agency for agency in content["agencies"]}
    for code in codes:
        known[code] = model | {"name": f"Xã {code}"} | known.get(code, {}) | {"code": code, "valid_from": "2015-01-01"}
    content["agencies"] = list(known.values())
    file = folder / "communes.yaml"
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return file


Ask = Callable[[], Awaitable[None]]


def asks_of(
    http: httpx.AsyncClient, base: str, token: dict[str, str], codes: Sequence[str], chance: random.Random
) -> dict[str, Ask]:
    """Every list and page query of intake, each at a random place: what P14 asks, and a test asks once."""

    def get(path: Callable[[], str], **params: str | Callable[[], str]) -> Ask:
        async def asked() -> None:
            chosen = {name: each if isinstance(each, str) else each() for name, each in params.items()}
            (await http.get(base + path(), params=chosen, headers=token)).raise_for_status()

        return asked

    async def searched() -> None:
        body = {"phone": f"09{chance.randrange(BASE):08}"}
        (await http.post(f"{base}/v1/dossiers/search", json=body, headers=token)).raise_for_status()

    async def tracked() -> None:
        answer = await http.get(
            f"{base}/track/{one()}", params={"pin": "000000"}, headers={"Accept": "application/json"}
        )
        assert answer.status_code in (200, 404, 429), answer.status_code

    def one() -> str:
        return chance.choice(codes)

    def agency() -> str:
        return one().partition("-")[0]

    def day() -> str:
        date = one().split("-")[1]
        return f"20{date[:2]}-{date[2:4]}-{date[4:6]}"

    return {
        "list of an agency": get(lambda: "/v1/dossiers", agency=agency),
        "list of open ones": get(lambda: "/v1/dossiers", agency=agency, state="4"),
        "list of overdue ones": get(lambda: "/v1/dossiers", agency=agency, overdue="true"),
        "list of the site": get(lambda: "/v1/dossiers"),
        "by part of a code": get(lambda: "/v1/dossiers", q=lambda: one()[:14]),
        "by day": get(lambda: "/v1/dossiers", q=lambda: one().partition("-")[2][:6]),
        "by number": get(lambda: "/v1/dossiers", agency=agency, q=lambda: one().rpartition("-")[2]),
        "search by phone": searched,
        "tracking": tracked,
        "one dossier": get(lambda: f"/v1/dossiers/{one()}"),
        "its history": get(lambda: f"/v1/dossiers/{one()}/history"),
        "its attachments": get(lambda: f"/v1/dossiers/{one()}/attachments"),
        "its explanation": get(lambda: f"/v1/dossiers/{one()}/explain"),
        "its chain": get(lambda: f"/v1/verify/dossiers/{one()}"),
        "petitions": get(lambda: "/v1/petitions", agency=agency),
        "procedures": get(lambda: "/v1/procedures"),
        "agencies": get(lambda: "/v1/agencies"),
        "page: work list": get(lambda: "/desk", agency=agency),
        "page: overdue": get(lambda: "/desk", agency=agency, show="overdue"),
        "page: work list of all": get(lambda: "/desk"),
        "page: overdue of all": get(lambda: "/desk", show="overdue"),
        "page: a dossier": get(lambda: f"/desk/dossiers/{one()}"),
        "page: register of a day": get(lambda: "/desk/register", agency=agency, **{"from": day, "to": day}),
        "page: petitions": get(lambda: "/desk/petitions", agency=agency),
        "page: petitions of all": get(lambda: "/desk/petitions"),
        "page: procedures": get(lambda: "/procedures"),
        "page: agencies": get(lambda: "/agencies"),
    }


def filters_of(
    http: httpx.AsyncClient, base: str, token: dict[str, str], codes: Sequence[str], chance: random.Random
) -> dict[str, Ask]:
    """Every combination of filters that the list of dossiers offers, each at a random place."""
    parts: dict[str, Callable[[str], str]] = {
        "": lambda code: "",
        "beginning": lambda code: code[: code.index("-") + 4],
        "day": lambda code: code.split("-")[1],
        "number": lambda code: code.rpartition("-")[2],
        "part of an agency": lambda code: code.partition("-")[0][-3:],
    }

    def ask(agency: bool, state: str, overdue: str, part: str, later: bool) -> Ask:
        async def asked() -> None:
            code = chance.choice(codes)
            found = {
                "agency": code.partition("-")[0] if agency else "",
                "state": state,
                "overdue": overdue,
                "q": parts[part](code),
                "cursor": chance.choice(codes) if later else "",
            }
            params = {name: value for name, value in found.items() if value}
            (await http.get(f"{base}/v1/dossiers", params=params, headers=token)).raise_for_status()

        return asked

    return {
        " ".join(
            [
                "an agency" if agency else "all",
                *([f"state {state}"] if state else []),
                *([f"overdue {overdue}"] if overdue else []),
                *([f"by {part}"] if part else []),
                *(["later"] if later else []),
            ]
        ): ask(agency, state, overdue, part, later)
        for agency, state, overdue, part, later in itertools.product(
            (False, True), ("", "4", "7", "10"), ("", "true", "false"), parts, (False, True)
        )
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
