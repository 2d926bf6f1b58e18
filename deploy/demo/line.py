"""The line between two sites of the demo: TCP from a port of its own to a bus, which can be cut and mended."""

import asyncio
from contextlib import suppress

BLOCK = 1 << 16  # bytes


class CutLine:
    """`open`, then `close`, whatever happened. While it is cut, who dials is hung up on."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self._cut = False

    async def open(self, target: int) -> int:
        """The port on which it answers for `target`, a port of this machine."""

        async def call(near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._calls.add(task)
            try:
                if not self._cut:
                    with suppress(OSError, asyncio.CancelledError):  # a call that is cut ends as one that was hung up
                        await _carry(near, back, target)
            finally:
                self._calls.discard(task)
                back.transport.abort()

        self._server = await asyncio.start_server(call, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def cut(self) -> None:
        self._cut = True
        for call in self._calls:
            call.cancel()

    def mend(self) -> None:
        self._cut = False

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        await asyncio.gather(*self._calls, return_exceptions=True)


async def _carry(near: asyncio.StreamReader, back: asyncio.StreamWriter, target: int) -> None:
    """Both directions, until one end hangs up."""
    far, there = await asyncio.open_connection("127.0.0.1", target)

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while block := await source.read(BLOCK):
            sink.write(block)
            await sink.drain()

    try:
        ways = [asyncio.ensure_future(pump(near, there)), asyncio.ensure_future(pump(far, back))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
    finally:
        there.transport.abort()
