"""N1: notices a second through an `http` provider, from records on the bus to answered calls, notify alone."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import asyncpg
import orjson
import psutil

from shared.directory.reading import parse_bundle
from shared.directory.store import load, stored_site
from tests.bench.measure import Context, Figure, HttpClient, until
from tests.bench.path import send_lifecycles
from tests.stack import Process, Stack

TARGET = 1000  # notices a second
AT_ONCE = 64  # calls, as notify's own default
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Gateway(asyncio.Protocol):
    """An SMS gateway that takes everything at once and remembers when: as cheap as it can be on the same two cores."""

    calls: list[float]

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (head := self._buffer.find(b"\r\n\r\n")) >= 0:
            at = self._buffer.find(b"Content-Length: ")
            end = head + 4 + int(self._buffer[at + 16 : self._buffer.index(b"\r\n", at)])
            if len(self._buffer) < end:
                return
            self._buffer = self._buffer[end:]
            self.calls.append(time.monotonic())
            self._transport.write(OK)


@asynccontextmanager
async def gateway() -> AsyncIterator[tuple[str, list[float]]]:
    """Its URL, and when it was called."""
    calls: list[float] = []
    made = type("Counting", (Gateway,), {"calls": calls})
    server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/sms", calls
    finally:
        server.close()


async def use(stack: Stack, url: str) -> None:
    """The site's SMS go there from now on."""
    connection = await asyncpg.connect(stack.database_url)
    try:
        _, current = await stored_site(connection)
        assert current is not None
        text = orjson.dumps(
            {
                "site": {"code": current.site.code, "name": current.site.name},
                "agencies": [],
                "quiet_hours": None,
                "providers": [{"name": "bench", "kind": "http", "url": url}],
            }
        ).decode()
        await load(connection, parse_bundle(text, "bench.json", current), who="bench")
    finally:
        await connection.close()


async def floor_of(url: str, number: int) -> float:
    """Calls a second by a loop that does nothing else, with as many at once."""
    body = orjson.dumps({"id": "0" * 36, "to": "+84900000000", "text": "x" * 100, "sender": "THAINGUYEN"})
    request = (
        b"POST /sms HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    left = iter(range(number))

    async def client() -> None:
        connection = HttpClient(url)
        for _ in left:
            await connection.send(request + body)
        await connection.close()

    began = time.monotonic()
    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    return number / (time.monotonic() - began)


def cpu_seconds(stack: Stack, processes: Sequence[Process]) -> dict[str, float]:
    """What notify, PostgreSQL and this process have used so far; a server process that has ended counts no more."""

    def used(*some: psutil.Process) -> float:
        seconds = 0.0
        for each in some:
            try:
                times = each.cpu_times()
            except psutil.NoSuchProcess:
                continue
            seconds += times.user + times.system
        return seconds

    postmaster = psutil.Process(stack.postgres.pid)
    return {
        "notify": used(*(psutil.Process(each.pid) for each in processes)),
        "postgres": used(postmaster, *postmaster.children()),
        "generator": used(psutil.Process()),
    }


async def n1(context: Context) -> Figure:
    """A backlog of records, two notices to a dossier, is read, planned, sent and recorded; the start is not in it. First by
    one process of notify, then by two, of which one sends and both plan (on the embedded broker there is one)."""
    stack, number = context.stack, max(1_000, int(8_000 * context.scale))
    intake = stack.processes["intake"]
    notify = [process for process in stack.processes.values() if process.name == "notify"]
    connection = await asyncpg.connect(stack.database_url)

    async def published() -> bool:
        return not await connection.fetchval("SELECT EXISTS (SELECT 1 FROM intake.outbox)")

    async def backlog(processes: Sequence[Process], calls: list[float]) -> tuple[float, dict[str, float]]:
        """Notices a second, and the microseconds of CPU that one takes."""
        sent = "SELECT count(*) FROM notify.notice WHERE state = 'sent'"
        before = await connection.fetchval(sent)

        async def recorded() -> bool:
            return bool(await connection.fetchval(sent) >= before + 2 * number)

        context.say(f"N1 puts {number} dossiers on the bus")
        await send_lifecycles(stack, f"n1-{time.time_ns()}", number)
        await until(published, 300, "N1 is on the bus")
        await intake.stop()
        calls.clear()
        context.say(f"N1 {2 * number} notices, {len(processes)} of notify")
        await asyncio.gather(*(process.start() for process in processes))
        await asyncio.gather(*(process.ready(stack.http) for process in processes))
        used = cpu_seconds(stack, processes)
        await until(recorded, 600, "N1 all are sent", every=0.1)
        ended, after = time.monotonic(), cpu_seconds(stack, processes)
        await asyncio.gather(*(process.stop() for process in processes))
        assert len(calls) == 2 * number, f"{len(calls)} calls for {2 * number} notices"
        return 2 * number / (ended - calls[0]), {n: (after[n] - used[n]) / (2 * number) * 1e6 for n in after}

    try:
        async with gateway() as (url, calls):
            context.say("N1 floor")
            floor = await floor_of(url, 10_000)
            await asyncio.gather(*(process.stop() for process in notify))
            await use(stack, url)
            rates, cpu = list[float](), dict[str, float]()
            for some in [notify[:1], notify] if len(notify) > 1 else [notify]:
                if rates:
                    await intake.start()
                    await intake.ready(stack.http)
                rate, used = await backlog(some, calls)
                rates.append(rate)
                cpu = cpu or used
    finally:
        await connection.close()
    ours = max(rates)
    return Figure(
        "N1", "notices through an http provider, records to calls", ours, floor, "notices/s",
        f"≥ {TARGET:,} notices/s", ours >= TARGET,
        "notify alone; by one process, by two: " + ", ".join(f"{rate:.0f}" for rate in rates)
        + "; CPU µs a notice: " + ", ".join(f"{name} {value:.0f}" for name, value in cpu.items()),
        {"rates": rates, "cpu_us": cpu},
    )  # fmt: skip
