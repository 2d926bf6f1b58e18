"""What every measurement gives, and the load that it is taken under."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.stack import Stack

Progress = Callable[[str], None]


@dataclass
class Figure:
    """One row of the table: ours beside the floor of the same run. `unit` is of both; higher is better unless a target
    says otherwise."""

    id: str
    work: str
    ours: float | None
    floor: float | None
    unit: str
    target: str
    met: bool | None = None
    note: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        return None if not self.ours or not self.floor else self.ours / self.floor


@dataclass
class Context:
    """What a measurement may use. `scale` multiplies the sizes of the long ones; `others`: comparators by other hands are
    run too; `plots`: where drawings go; `alone`: nothing else was asked for, so that a long one may be long."""

    stack: Stack
    scale: float
    say: Progress
    others: bool = False
    plots: Path = Path("build/bench")
    alone: bool = False


class HttpClient:
    """One keep-alive connection that sends prepared requests and reads whole answers: cheap, so that the two cores are
    left to what is measured."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Status and body."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        assert self._reader is not None
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":", 1)[1])
        return status, await self._reader.readexactly(length) if length else b""

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            await self._writer.wait_closed()


def post(path: str, token: str, body: bytes, kind: str = "application/json") -> bytes:
    """A prepared request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: {token}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def closed_load(
    url: str, requests: Iterator[bytes], clients: int, seconds: float, expect: int
) -> tuple[float, list[float]]:
    """Each client sends its next request when the last was answered, until the time or the requests are at an end: requests
    a second, and every latency in seconds."""
    latencies: list[float] = []
    end = time.monotonic() + seconds

    async def client() -> None:
        connection = HttpClient(url)
        try:
            for request in requests:
                if (began := time.monotonic()) >= end:
                    return
                status, body = await connection.send(request)
                if status != expect:
                    raise AssertionError(f"{status} {body[:300]!r}")
                latencies.append(time.monotonic() - began)
        finally:
            await connection.close()

    began = time.monotonic()
    await asyncio.gather(*(client() for _ in range(clients)))
    return len(latencies) / (time.monotonic() - began), latencies


async def open_load(
    url: str, requests: Iterator[bytes], rate: float, seconds: float, expect: int, clients: int = 64
) -> list[float]:
    """Requests at a steady rate whatever the answers; latency counts from when each was due."""
    latencies: list[float] = []
    free: asyncio.Queue[HttpClient] = asyncio.Queue()
    for _ in range(clients):
        free.put_nowait(HttpClient(url))

    async def one(due: float) -> None:
        connection = await free.get()
        status, body = await connection.send(next(requests))
        if status != expect:
            raise AssertionError(f"{status} {body[:300]!r}")
        latencies.append(time.monotonic() - due)
        free.put_nowait(connection)

    began = time.monotonic()
    tasks = []
    for number in range(int(rate * seconds)):
        due = began + number / rate
        if (pause := due - time.monotonic()) > 0:
            await asyncio.sleep(pause)
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    while not free.empty():
        await free.get_nowait().close()
    return latencies


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def until(condition: Callable[[], Awaitable[bool]], timeout: float, what: str, every: float = 0.1) -> float:
    """Waits for a condition; how long it took. AssertionError when it does not come true."""
    began = time.monotonic()
    while time.monotonic() - began < timeout:
        if await condition():
            return time.monotonic() - began
        await asyncio.sleep(every)
    raise AssertionError(f"{what}: not within {timeout:.0f} s")
