"""S1: ten times the steady load for a while, and the way back to steady by itself; drawn over time."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import orjson

from shared.service import SERVICES
from tests.bench.measure import Context, Figure, HttpClient, percentile, post, until
from tests.bench.path import reconciled
from tests.bench.plot import Series, write
from tests.bench.receive import dossier

STEADY = 20.0  # dossiers a second
TIMES = 10


@asynccontextmanager
async def watched(context: Context, began: float) -> AsyncIterator[tuple[Series, Series]]:
    """The rate of what stats has applied, and what waits: unpublished, or published and not yet applied by stats."""
    rate, lag = Series("dossiers counted", "per s"), Series("events behind", "events")
    connection = await asyncpg.connect(context.stack.database_url)

    async def look() -> None:
        before, at = 0, time.monotonic()
        while True:
            await asyncio.sleep(1.0)
            counted = await connection.fetchval("SELECT count(*) FROM stats.dossier")
            stored = await connection.fetchval("SELECT count(*) FROM intake.event WHERE aggregatetype = 'dossier'")
            applied = await connection.fetchval(
                "SELECT coalesce(sum(sequence), 0) FROM stats.inbox WHERE topic = 'lienthong.dossier.v1'"
            )
            now = time.monotonic()
            rate.add(now - began, (counted - before) / (now - at))
            lag.add(now - began, stored - applied)
            before, at = counted, now

    looking = asyncio.create_task(look())
    try:
        yield rate, lag
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        await connection.close()


async def offered(context: Context, rate: float, seconds: float, first: int, clients: int = 32) -> list[float]:
    """Dossiers received at a rate whatever the answers; latencies from when each was due, in seconds."""
    free: asyncio.Queue[HttpClient] = asyncio.Queue()
    for _ in range(clients):
        free.put_nowait(HttpClient(context.stack.url("intake")))
    token = context.stack.token()["Authorization"]
    latencies: list[float] = []

    async def one(number: int, due: float) -> None:
        client = await free.get()
        status, body = await client.send(post("/v1/dossiers", token, orjson.dumps(dossier(number))))
        assert status == 201, body[:200]
        latencies.append(time.monotonic() - due)
        free.put_nowait(client)

    began, tasks = time.monotonic(), []
    for number in range(int(rate * seconds)):
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.append(asyncio.create_task(one(first + number, due)))
    await asyncio.gather(*tasks)
    while not free.empty():
        await free.get_nowait().close()
    return latencies


async def s1(context: Context) -> Figure:
    """Steady, ten times steady, steady again: how long after the spike everything is as quick as before it."""
    stack = context.stack
    steady_for, spike_for = max(5.0, 30 * context.scale), max(3.0, 20 * context.scale)
    began = time.monotonic()
    async with watched(context, began) as (rate, lag):
        context.say("S1 steady")
        before = await offered(context, STEADY, steady_for, 0)
        at_spike = time.monotonic() - began
        context.say(f"S1 {TIMES} times")
        during = await offered(context, STEADY * TIMES, spike_for, 100_000)
        at_end = time.monotonic() - began
        context.say("S1 after")
        ended = time.monotonic()
        after = asyncio.create_task(offered(context, STEADY, steady_for, 200_000))
        # As quick as before: no more events behind than the steady load had at its worst.
        usual = max((value for at, value in lag.points if at < at_spike), default=0.0) + STEADY
        await until(lambda: _back(lag, usual, at_end), 600, "back to the steady state")
        back = time.monotonic() - ended
        afterwards = await after
        await until(lambda: reconciled(stack), 300, "S1 reconcile")
    marks = [(at_spike, f"{TIMES} times"), (at_end, "steady again")]
    file = write(context.plots, "spike", f"A spike of {TIMES} times the steady load", [rate, lag], marks)
    p99 = {name: percentile(each, 0.99) * 1000 for name, each in (("b", before), ("d", during), ("a", afterwards))}
    return Figure(
        "S1", f"a spike of {TIMES} times the steady load: back to steady", back, None, "s", "by itself",
        True, f"{SERVICES[0]} p99 {p99['b']:.0f} ms before, {p99['d']:.0f} during, {p99['a']:.0f} after; {file.name}",
        {"rate": rate.points, "lag": lag.points, "p99_ms": p99},
    )  # fmt: skip


async def _back(lag: Series, usual: float, since: float) -> bool:
    later = [value for at, value in lag.points if at > since]
    return bool(later) and later[-1] <= usual
