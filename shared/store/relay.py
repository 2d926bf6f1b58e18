"""The relay: from the outbox to the bus, in each key's order, whatever dies in between (promises 2 and 6).

The outbox is cut into four shards by key. A relay publishes the shards whose advisory lock its own session holds, so
that one key is never published by two at once; another relay stands by and takes over when the session ends. A row
leaves the outbox after the broker has confirmed it: a relay that dies in between publishes again, with the same id and
bytes, and every inbox knows a duplicate by its sequence.

A bus that was emptied is filled again from the log by the same relay before it goes on with the outbox: nothing but
the source of the rows differs.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import asyncpg
import structlog

from shared.contracts.envelope import Envelope
from shared.observe import metrics as known
from shared.observe.metrics import Metrics
from shared.store.log import envelope_of, family
from shared.store.pool import TRANSIENT_ERRORS, connect
from shared.store.queries import Queries

SHARDS = (0, 1, 2, 3)
_LOCK_CLASS = 0x4C54_0000  # advisory locks of outbox shards, plus a hash of the schema

LONGEST_PAUSE = 5.0  # seconds, before it begins again

log = structlog.get_logger("lienthong.relay")


class PublishFailed(Exception):
    """The bus did not confirm a batch: the relay waits and publishes it again."""


Partition = tuple[str, int]


class Bus(Protocol):
    """Where the relay publishes to."""

    async def publish(self, envelopes: Sequence[Envelope]) -> dict[Partition, tuple[int, int]]:
        """Sends in order and returns, when all are confirmed, the first and the next offset of each partition written to.

        Raises PublishFailed.
        """

    async def ends(self, topics: Sequence[str]) -> dict[Partition, int]:
        """The next offset of each partition of those topics that exist, as the broker lists it: it never goes back, but
        the embedded broker counts the last batch as one record.
        """

    async def ids(self, topics: Sequence[str]) -> dict[str, str]:
        """The id of those topics that exist: a topic that was lost and made again has another."""

    async def create(self, topics: Sequence[str]) -> None:
        """Creates those that do not exist."""

    async def watermark(self, service: str, ends: dict[Partition, int], upto: datetime) -> None:
        """Says on the internal topic that all that was recorded before `upto` lies below these offsets."""


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """Times in seconds; the window is what a rebuilt bus holds again (older events come on request)."""

    page: int = 1000
    rebuild_page: int = 250  # small: what a rebuild takes at its highest, the process keeps
    idle_poll: float = 1.0
    standby_poll: float = 1.0
    watch_every: float = 2.0
    watermark_every: float = 5.0
    window_days: float = 7.0
    window_bytes: int = 1 << 60
    shards: tuple[int, ...] = SHARDS


class Relay:
    """One service's relay. `run` never ends by itself; `wake` says that there may be something to publish."""

    def __init__(
        self,
        database_url: str,
        schema: str,
        bus: Bus,
        topics: Sequence[str],
        settings: RelaySettings | None = None,
        *,
        progress: Callable[[], None] = lambda: None,
        metrics: Metrics | None = None,
        published: Callable[[Sequence[Envelope]], None] = lambda _: None,
    ) -> None:
        self.settings = settings or RelaySettings()
        self._url, self._schema, self._bus = database_url, schema, bus
        self._own = self._topics = tuple(topics)
        self._queries = Queries("shared.store", schema)
        self._progress, self._published = progress, published
        self._metrics = metrics or Metrics(schema)
        self._awake = asyncio.Event()
        self.channel = f"{schema}_outbox"
        self.held: set[int] = set()
        self._ends: dict[Partition, int] = {}
        self._listed: dict[Partition, int] = {}
        self._ids: dict[str, str] = {}
        self._emptied: set[str] = set()
        self._next_watch = 0.0
        self.published = 0
        self.rebuilds = 0

    def wake(self) -> None:
        self._awake.set()

    def keep(self, topics: Sequence[str]) -> None:
        """Topics beside the service's own that are made, watched and filled again like these from now on."""
        self._topics = (*self._own, *topics)

    @property
    def alone(self) -> bool:
        """This process publishes everything: no other needs to be woken."""
        return self.held == set(SHARDS)

    async def run(self) -> None:
        """Publishes until cancelled. Whatever breaks (broker, database, lock), it begins again by taking its locks."""
        loop = asyncio.get_running_loop()
        pause = 0.1
        while True:
            began = loop.time()
            try:
                await self._session()
            except (*TRANSIENT_ERRORS, PublishFailed, asyncpg.PostgresError) as error:
                if loop.time() - began > 2 * LONGEST_PAUSE:
                    pause = 0.1  # it has worked since the last time
                self._metrics.add(known.RELAY_INTERRUPTIONS, 1, type(error).__name__)
                log.warning("relay-interrupted", service=self._schema, error=type(error).__name__, pause=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    async def _session(self) -> None:
        """The work is a task of its own: what ends it when the locks are lost must not end the relay, whatever it is doing."""
        connection = await connect(self._url)
        ours = asyncio.current_task()
        assert ours is not None
        work: asyncio.Task[None] | None = None

        def on_lost(_: object) -> None:
            # The locks went with the session: another relay may hold them by now, so this one stops publishing at once.
            if work is not None:
                work.cancel()

        connection.add_termination_listener(on_lost)
        try:
            await connection.add_listener(self.channel, lambda *_: self.wake())
            work = asyncio.create_task(self._work(connection))
            await work
        except asyncio.CancelledError:
            if ours.cancelling():
                raise
            raise ConnectionResetError("the relay's lock session ended") from None
        finally:
            self.held = set()
            connection.remove_termination_listener(on_lost)
            with suppress(*TRANSIENT_ERRORS, asyncpg.PostgresError):
                await connection.close(timeout=2.0)

    async def _work(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        loop = asyncio.get_running_loop()
        next_locks = next_watermark = self._next_watch = 0.0
        while True:
            self._progress()
            now = loop.time()
            if now >= next_locks and set(self.settings.shards) - self.held:
                if await self._take_locks(connection):
                    await self._remember_bus(connection)
                    self._next_watch = 0.0
                next_locks = now + self.settings.standby_poll
            if not self.held:
                await asyncio.sleep(self.settings.standby_poll)
                continue
            if now >= self._next_watch:
                await self._watch(connection)
                self._next_watch = loop.time() + self.settings.watch_every
            self._awake.clear()
            published = await self._publish_page(connection)
            if published == self.settings.page:
                continue  # a backlog: nothing is complete yet
            if now >= next_watermark:
                await self._send_watermark(connection)
                next_watermark = loop.time() + self.settings.watermark_every
            if not self._emptied:  # what was committed meanwhile has woken it already
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.settings.idle_poll):
                        await self._awake.wait()

    async def _take_locks(self, connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
        """Takes the locks in their order, as far as they are free: who is first gets them all."""
        before = len(self.held)
        for shard in sorted(set(self.settings.shards) - self.held):
            if not await connection.fetchval(
                "SELECT pg_try_advisory_lock($1 + (hashtext($2) & 4095) * 16, $3)",
                _LOCK_CLASS,
                self._schema,
                shard,
            ):
                break
            self.held.add(shard)
        return len(self.held) > before

    async def _remember_bus(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """What was written down of the bus, by this relay or by the one before it."""
        rows = await connection.fetch(self._queries["bus_partitions"])
        self._listed = {(row["topic"], row["partition"]): row["end_offset"] for row in rows}
        self._ends = dict(self._listed)
        self._ids = {row["topic"]: row["id"] for row in await connection.fetch(self._queries["bus_topics"])}

    async def _publish_page(self, connection: "asyncpg.Connection[asyncpg.Record]") -> int:
        rows = await connection.fetch(self._queries["unpublished"], sorted(self.held), self.settings.page)
        if rows:
            envelopes = [envelope_of(row) for row in rows]
            await self._publish(envelopes)
            await connection.execute(self._queries["published"], [row["position"] for row in rows])
            self.published += len(rows)
            self._published(envelopes)
        return len(rows)

    async def _publish(self, envelopes: Sequence[Envelope]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for partition, (first, end) in (await self._bus.publish(envelopes)).items():
            if first < self._ends.get(partition, 0):
                self._emptied.add(partition[0])
            self._ends[partition] = end
        self._metrics.observe(known.OUTBOX_PUBLISH_SECONDS, loop.time() - began)
        self._metrics.observe(known.OUTBOX_BATCH, len(envelopes))
        if self._emptied:
            self._next_watch = 0.0

    async def _watch(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Promise 6: what a bus that was emptied has lost is published again, before anything new.

        A topic that we have seen and that does not exist, has another id, or whose end lies below the one seen before, has
        lost its records. The rebuild is written down before the topic is created, so that a crash in between changes
        nothing; it is written down for all shards: who holds the others may not have noticed.
        """
        ids = await self._bus.ids(self._topics)
        ends = await self._bus.ends(self._topics)
        missing = set(self._topics) - {topic for topic, _ in ends}
        lower = {topic for (topic, number), end in ends.items() if end < self._listed.get((topic, number), 0)}
        other = {topic for topic in ids if self._ids.get(topic, ids[topic]) != ids[topic]}
        if emptied := sorted((missing & set(self._ids)) | lower | other | self._emptied):
            await connection.execute(
                self._queries["rebuild_begin"],
                SHARDS,
                timedelta(days=self.settings.window_days),
                self.settings.window_bytes,
                [family(topic) for topic in emptied],
            )
            log.warning("bus-emptied", service=self._schema, topics=emptied)
            self._ends = {(topic, n): end for (topic, n), end in self._ends.items() if topic not in emptied}
            self._emptied.clear()
        if missing:
            await self._bus.create(sorted(missing))
            ids = await self._bus.ids(self._topics)
            ends = await self._bus.ends(self._topics)
        if new := {topic: ids[topic] for topic in ids if self._ids.get(topic) != ids[topic]}:
            await connection.execute(self._queries["bus_topic_put"], list(new), list(new.values()))
            self._ids |= new
        self._ends = {partition: max(end, self._ends.get(partition, 0)) for partition, end in ends.items()}
        if ends != self._listed:
            self._listed = dict(ends)
            names = sorted(ends)
            await connection.execute(
                self._queries["bus_partition_put"],
                [topic for topic, _ in names],
                [number for _, number in names],
                [ends[name] for name in names],
            )
        for rebuild in await connection.fetch(self._queries["rebuilds"], sorted(self.held)):
            position = rebuild["position"]
            while rows := await connection.fetch(
                self._queries["rebuild_page"],
                position,
                rebuild["until"],
                rebuild["shard"],
                rebuild["topics"],
                self.settings.rebuild_page,
            ):
                await self._publish([envelope_of(row) for row in rows])
                position = rows[-1]["position"]
                await connection.execute(self._queries["rebuild_moved"], rebuild["shard"], position)
                self._progress()
            await connection.execute(self._queries["rebuild_done"], rebuild["shard"])
            self.rebuilds += 1

    async def _send_watermark(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        if self.alone:
            began = await connection.fetchval(self._queries["under_way"])
            waiting = await connection.fetchval(self._queries["oldest_unpublished"])
            await self._bus.watermark(self._schema, dict(self._ends), min(began, waiting or began))


class Waker:
    """Wakes the relay after commits: its own at once, another process's by one notification for many commits."""

    def __init__(self, relay: Relay, database_url: str) -> None:
        self._relay, self._url = relay, database_url
        self._commits = asyncio.Event()

    def __call__(self) -> None:
        if self._relay.held:
            self._relay.wake()
        if not self._relay.alone:
            self._commits.set()

    async def run(self) -> None:
        """Sends the notifications on a connection of its own: NOTIFY in writers' transactions would serialise them."""
        while True:
            await self._commits.wait()
            try:
                connection = await connect(self._url)
                try:
                    while True:
                        await self._commits.wait()
                        self._commits.clear()
                        await connection.execute(f"NOTIFY {self._relay.channel}")
                        await asyncio.sleep(0.005)
                finally:
                    await connection.close(timeout=2.0)
            except (*TRANSIENT_ERRORS, asyncpg.PostgresError):
                await asyncio.sleep(1.0)
