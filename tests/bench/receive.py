"""P1 and P2: dossiers received over HTTP and by import, each beside its floor."""

import asyncio
import sys
import time
from collections.abc import Iterator
from itertools import count

import asyncpg
import orjson

from tests.bench.measure import Context, Figure, closed_load, open_load, percentile, post
from tests.ports import free_port
from tests.stack import Process

AGENCY, PROCEDURE = "H55.242", "1.001193"


def dossier(number: int) -> dict[str, object]:
    """An invented applicant each time."""
    return {
        "procedure": PROCEDURE,
        "receiving_agency": AGENCY,
        "channel": "counter",
        "applicant": {"kind": "citizen", "name": f"Nguyễn Thị Mẫu {number}", "phone": f"09{number % 10**8:08}"},
        "return_by": "counter",
        "components": [{"name": "Tờ khai"}],
    }


def requests(token: str) -> Iterator[bytes]:
    return (post("/v1/dossiers", token, orjson.dumps(dossier(number))) for number in count())


async def p1(context: Context) -> Figure:
    """`POST /v1/dossiers`, durable, 64 clients; then the p99 at half that load."""
    stack, seconds = context.stack, max(4.0, 8.0 * context.scale)
    token = stack.token()["Authorization"]
    floor_process = Process("floor", free_port(), stack.processes["intake"].environment, stack.data / "floor.log")
    with floor_process.log.open("ab") as output:
        floor_process.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.floor_http", str(floor_process.port),
            env=floor_process.environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        await floor_process.ready(stack.http)
        rates: dict[str, list[float]] = {"ours": [], "floor": []}
        for _ in range(2):
            for name, url in (("floor", floor_process.url), ("ours", stack.url("intake"))):
                context.say(f"P1 {name}")
                rate, _ = await closed_load(url, requests(token), 64, seconds, 201)
                rates[name].append(rate)
    finally:
        await floor_process.stop()
    ours, floor = max(rates["ours"]), max(rates["floor"])
    context.say("P1 half load")
    latencies = await open_load(stack.url("intake"), requests(token), ours / 2, seconds, 201)
    p99 = percentile(latencies, 0.99) * 1000
    return Figure(
        "P1", "POST /v1/dossiers, durable, 64 clients", ours, floor, "requests/s",
        "ratio ≥ 0.5; p99 at half load ≤ 50 ms", ours / floor >= 0.5 and p99 <= 50,
        f"intake alone; p99 at half load {p99:.0f} ms", {"p99_ms": p99, "p50_ms": percentile(latencies, 0.5) * 1000},
    )  # fmt: skip


async def p2(context: Context) -> Figure:
    """`POST /v1/imports`, receive lines; the floor is a COPY of all the rows that they caused."""
    stack, lines = context.stack, int(30_000 * max(context.scale, 0.34))
    token = stack.token()
    source = f"bench-{time.time_ns()}"
    connection = await asyncpg.connect(stack.database_url)
    try:
        before = await connection.fetchval("SELECT coalesce(max(position), 0) FROM intake.event")
        chunks = [
            b"\n".join(
                orjson.dumps({"op": "receive", "ref": f"{number}", **dossier(number)})
                for number in range(start, min(start + 5000, lines))
            )
            for start in range(0, lines, 5000)
        ]
        context.say(f"P2 {lines} lines")
        began = time.monotonic()
        for chunk in chunks:
            answer = await stack.http.post(
                f"{stack.url('intake')}/v1/imports",
                params={"source": source},
                content=chunk,
                headers=token | {"Content-Type": "application/x-ndjson"},
            )
            answer.raise_for_status()
            assert b'"refused"' not in answer.content, answer.text[:500]
        ours = lines / (time.monotonic() - began)
        floor = lines / await copy_of_the_same_rows(connection, before, source)
    finally:
        await connection.close()
    return Figure(
        "P2", "POST /v1/imports, receive lines", ours, floor, "lines/s", "ratio ≥ 0.25 and ≥ 8,000 lines/s",
        ours / floor >= 0.25 and ours >= 8000, f"intake alone; {lines} lines, 5,000 a request",
    )  # fmt: skip


async def copy_of_the_same_rows(connection: asyncpg.Connection, position: int, source: str) -> float:
    """Seconds that one COPY each of all the rows takes, into empty tables with the same indexes."""
    codes = "SELECT code FROM intake.reference r JOIN intake.source s ON s.number = r.source WHERE s.name = $1"
    rows = {
        "event": (f"SELECT * FROM intake.event WHERE position > {position}", []),
        "dossier": (f"SELECT * FROM intake.dossier WHERE code IN ({codes})", [source]),
        "contact": (
            f"SELECT * FROM intake.contact WHERE contact_ref IN (SELECT contact_ref FROM intake.dossier"
            f" WHERE code IN ({codes}))",
            [source],
        ),
        "reference": (
            "SELECT r.* FROM intake.reference r JOIN intake.source s ON s.number = r.source WHERE s.name = $1",
            [source],
        ),
        "imported": (
            "SELECT r.* FROM intake.imported r JOIN intake.source s ON s.number = r.source WHERE s.name = $1",
            [source],
        ),
    }
    held = {table: [tuple(r) for r in await connection.fetch(sql, *args)] for table, (sql, args) in rows.items()}
    held["outbox"] = [(row[0], 0) for row in held["event"]]
    await connection.execute("DROP SCHEMA IF EXISTS bench_floor CASCADE; CREATE SCHEMA bench_floor")
    for table in held:
        await connection.execute(f"CREATE TABLE bench_floor.{table} (LIKE intake.{table} INCLUDING ALL)")
    began = time.monotonic()
    async with connection.transaction():
        for table, records in held.items():
            await connection.copy_records_to_table(table, schema_name="bench_floor", records=records)
    seconds = time.monotonic() - began
    await connection.execute("DROP SCHEMA bench_floor CASCADE")
    return seconds
