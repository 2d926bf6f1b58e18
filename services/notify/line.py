"""HTTP/1.1 to a gateway: one request, its status, the beginning of its body; connections are kept for the next.

Why not httpx: a call costs it over a millisecond (measured, most of it in its pool's locks), and a notice is to reach its
provider within some 30 ms of a dossier's receipt at 200 dossiers a second.

Errors

    CallFailed
    ├── NotReached    no connection: the request has surely not left
    └── LineBroke     the request may have left, and no answer that is HTTP came
"""

import asyncio
import contextlib
import ssl
import time
from collections import deque
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

import httptools

MOST_OF_A_BODY: Final = 16 << 10
BODY_WITHIN: Final = 2.0  # seconds; the status has been there for as long
KEPT_IDLE: Final = 2.0  # seconds; most servers close an idle connection after five
# A request on a connection that its server is just closing is lost, and nobody knows it. So one is used again only when its
# server has had this long to close it without having said so, and none is kept for a while of a server that does. Seconds.
SETTLED, DISTRUST = 0.02, 60.0
_CHUNK: Final = 16 << 10


class CallFailed(Exception):
    """No answer."""


class NotReached(CallFailed):
    """There was no connection."""


class LineBroke(CallFailed):
    """It broke after the request was begun, or what came is no HTTP."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes


class _Reading:
    """What httptools says of an answer as it comes in."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.status: int | None = None
        self.body = bytearray()
        self.asked = False  # the request was begun: from then on nobody knows what became of it
        self.complete = False
        self.keeps = False  # the connection, as the gateway says
        self.more = False  # than was asked for: another answer behind the first

    def on_message_begin(self) -> None:
        self.more = self.complete

    def on_headers_complete(self) -> None:
        if not self.complete:
            self.status = self.parser.get_status_code()

    def on_body(self, piece: bytes) -> None:
        if not self.complete and len(self.body) < MOST_OF_A_BODY:
            self.body += piece[: MOST_OF_A_BODY - len(self.body)]

    def on_message_complete(self) -> None:
        if self.status is not None and self.status < 200:
            self.status = None  # 100 Continue and its like: the answer is still to come
        elif not self.complete:
            # Asked for later, the parser has forgotten that there was a length, and takes the end of the line for the end.
            self.complete, self.keeps = True, bool(self.parser.should_keep_alive())


_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Line:
    """The connections to one gateway."""

    def __init__(self, url: str, connect_within: float) -> None:
        """Seconds. `url` is http or https."""
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._connect_within = connect_within
        self._target = quote(parts.path or "/", safe="/%:=&~+!$,;'@()*") + (f"?{parts.query}" if parts.query else "")
        host = f"[{self._host}]" if ":" in self._host else self._host.encode("idna").decode()
        self._authority = host if parts.port is None else f"{host}:{parts.port}"
        self._idle: deque[tuple[float, _Streams]] = deque()
        self._keep_from = 0.0  # by the clock of `time.monotonic`

    async def ask(self, method: str, *, query: str = "", body: bytes = b"", kind: str = "", within: float) -> Answer:
        """The answer; a redirect is one like any other. Raises NotReached, LineBroke, and TimeoutError after `within` s."""
        target = self._target
        if query:
            target += ("&" if "?" in target else "?") + query
        head = f"{method} {target} HTTP/1.1\r\nHost: {self._authority}\r\nUser-Agent: lienthong-notify\r\n"
        if body:
            head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        reading = _Reading()
        try:
            async with asyncio.timeout(within):
                await self._converse(f"{head}\r\n".encode() + body, reading)
        except TimeoutError as error:
            if not reading.asked:
                raise NotReached(type(error).__name__) from error
            if reading.status is None:
                raise
        except (OSError, EOFError, httptools.HttpParserError) as error:
            if reading.status is None:
                raise LineBroke(type(error).__name__) from error
        # A status that came before the line broke is the answer.
        assert reading.status is not None
        return Answer(reading.status, bytes(reading.body))

    async def _converse(self, request: bytes, reading: _Reading) -> None:
        streams = await self._connected()
        kept = False
        try:
            kept = await self._exchange(streams, request, reading)
        finally:
            if kept and (now := time.monotonic()) >= self._keep_from:
                self._idle.append((now, streams))
            else:
                streams[1].transport.abort()

    async def _connected(self) -> _Streams:
        now = time.monotonic()
        while self._idle and self._idle[0][0] <= now - SETTLED:  # the oldest first
            since, streams = self._idle.popleft()
            quiet = not streams[0].at_eof() and not streams[1].is_closing() and not _came(streams[0])
            if quiet and now - since < KEPT_IDLE:
                return streams
            streams[1].transport.abort()
            if not quiet and now - since < KEPT_IDLE:
                self._keep_from = now + DISTRUST
        try:
            async with asyncio.timeout(self._connect_within):
                return await asyncio.open_connection(self._host, self._port, ssl=self._tls, limit=_CHUNK * 2)
        except (OSError, UnicodeError, TimeoutError) as error:
            raise NotReached(type(error).__name__) from error

    async def _exchange(self, streams: _Streams, request: bytes, reading: _Reading) -> bool:
        """Sends and reads; whether the connection may be used again."""
        reader, writer = streams
        reading.asked = True
        writer.write(request)
        await writer.drain()
        while reading.status is None:
            reading.parser.feed_data(await _some(reader))
        if not reading.complete:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BODY_WITHIN):
                    while not reading.complete and len(reading.body) < MOST_OF_A_BODY:
                        reading.parser.feed_data(await _some(reader))
        return reading.complete and not reading.more and reading.keeps

    def close(self) -> None:
        for _, (_, writer) in self._idle:
            writer.transport.abort()
        self._idle.clear()


def _came(reader: asyncio.StreamReader) -> bool:
    """Whether something has come that nobody asked for: it would be taken for the next answer. Nothing is waited for."""
    reading = reader.read(1)
    try:
        reading.send(None)
    except StopIteration:
        return True
    reading.close()
    return False


async def _some(reader: asyncio.StreamReader) -> bytes:
    data = await reader.read(_CHUNK)
    if not data:
        raise EOFError
    return data
