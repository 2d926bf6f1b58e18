"""The batch consumer of every service: one batch, one transaction, then the commit (promises 3 and 4).

FastStream runs the subscription; four of its ways are not taken:

- acknowledgement is manual and comes after the transaction. FastStream swallows what a handler raises, and the next
  acknowledgement would commit past the lost batch; so a batch that fails is tried again in place and never raised, and
  nothing is read any more once one was given up because the process stops;
- records are read here one by one (its parser drops a whole batch for one header that is no text);
- publishing is `shared.bus.publisher`;
- after a poll in vain it sleeps (`_poll_until_there_is_something`).
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaAckableMessage

from shared.bus.connection import BusSettings
from shared.bus.publisher import WATERMARK_TOPIC
from shared.bus.topic_ids import topic_ids
from shared.contracts.codes import uuid7
from shared.contracts.envelope import Envelope
from shared.contracts.events import ParkedRecorded
from shared.courtesy import give_way, somebody_is_near
from shared.observe import metrics as known
from shared.observe.metrics import Metrics
from shared.observe.traces import trace_id
from shared.store.inbox import Apply, Fault, Inbox, Name, Outcome, PlaceMoved, Received, Record, read
from shared.store.log import Log
from shared.store.pool import TRANSIENT_ERRORS, Connection, Pool, passes_by_itself
from shared.store.queries import Queries
from shared.store.room import RoomInPostgres, record_of_row

log = structlog.get_logger("lienthong.consumer")

PARKED_TOPIC = "lienthong.parked.v1"

# Asks the owner of a topic for a key's events above a sequence: all of them, in order. Raises OSError when it is away.
AskOwner = Callable[[str, str, int], Awaitable[list[Envelope]]]


@dataclass(frozen=True, slots=True)
class ConsumerSettings:
    """Times in seconds. The breaker opens when more than `breaker_limit` events were parked within `breaker_window`."""

    max_records: int = 500
    gap_wait: float = 10.0
    gap_poll: float = 1.0
    breaker_limit: int = 100
    breaker_window: float = 60.0
    breaker_rest: float = 30.0
    session_timeout: float = 15.0
    stuck_after: float = 30.0
    look_every: float = 1.0  # without groups: whether the topics are still the same ones
    busy_for: float = 3.0
    complete_every: float = 0.5  # how far was read is not written with every small batch


class BreakerOpen(Exception):
    """Too many bad events: the consumer rests instead of emptying the topic into the parking."""


POLL_MS = 1000  # it ends with the first record


def _poll_until_there_is_something(consumer: AIOKafkaConsumer) -> None:
    """FastStream sleeps after a poll in vain for as long as it has polled; a record that comes meanwhile waits, and a site at
    rest polls all the time. So it never sees a poll in vain."""
    poll = consumer.getmany

    async def getmany(*partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None) -> Any:
        while not (records := await poll(*partitions, timeout_ms=POLL_MS, max_records=max_records)):
            pass
        return records

    consumer.getmany = getmany


# Milliseconds that a fetch waits on the broker. The embedded broker looks for new records only at half of this time: a
# waiting record is found after 5 ms or 210 ms (median), and eight idle consumers cost 38 % or 4 % of a core.
FETCH_WAIT_BUSY, FETCH_WAIT_IDLE = 20, 500

PART = 100
"""Records of a batch that are applied at once while somebody is near: a whole one holds the loop for up to a quarter of a
second, and costs a quarter less CPU (decision 0012)."""


class Breaker:
    """Counts parked events over a sliding window and says when it is too many."""

    def __init__(self, limit: int, window: float) -> None:
        self.limit, self._window = limit, window
        self._parked: deque[float] = deque()
        self.open = False

    def check(self, parked: int, now: float) -> None:
        """Raises BreakerOpen when `parked` more would be too many."""
        while self._parked and self._parked[0] < now - self._window:
            self._parked.popleft()
        self.open = len(self._parked) + parked > self.limit
        if self.open:
            raise BreakerOpen

    def add(self, parked: int, now: float) -> None:
        self._parked.extend([now] * parked)


class Consumer(ConsumerRebalanceListener):  # type: ignore[misc]
    """Reads a service's topics and applies what is new, in order, once."""

    def __init__(
        self,
        broker: KafkaBroker,
        bus: BusSettings,
        *,
        service: str,
        topics: Sequence[str],
        pool: Pool,
        schema: str,
        source: str,
        apply: Apply,
        ask_owner: AskOwner,
        after_commit: Callable[[], None] = lambda: None,
        settings: ConsumerSettings | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.settings = settings or ConsumerSettings()
        self.topics = tuple(topics)
        self.group = bus.topic(f"lienthong.{service}")
        self.breaker = Breaker(self.settings.breaker_limit, self.settings.breaker_window)
        self.totals = Outcome()
        self._metrics = metrics or Metrics(service)
        self.batches = 0
        self.batch_seconds = 0.0
        self._bus, self._service, self._pool, self._ask_owner = bus, service, pool, ask_owner
        self._source, self._log = source, Log(schema)
        self._apply, self._after_commit = apply, after_commit
        self._inbox = Inbox(apply)
        self._queries = Queries("shared.store", schema)
        self._idle = asyncio.Event()
        self._idle.set()
        self._began: float | None = None
        self._progressed = time.monotonic()
        self._stopping = asyncio.Event()
        self._ids: dict[str, str] = {}
        self._go_on_at: dict[TopicPartition, int] = {}
        self._busy_until = self._complete_at = 0.0
        self._complete_owed = False
        self._stored: dict[TopicPartition, int] = {}  # and not yet committed
        self._committing: asyncio.Task[None] | None = None
        self._on_bus = [bus.topic(name) for name in (*self.topics, WATERMARK_TOPIC)]
        self._subscriber = broker.subscriber(
            *self._on_bus,
            group_id=self.group if bus.groups else None,
            batch=True,
            max_records=self.settings.max_records,
            ack_policy=AckPolicy.MANUAL,
            auto_offset_reset="earliest",
            session_timeout_ms=int(self.settings.session_timeout * 1000),
            heartbeat_interval_ms=500,
            max_poll_interval_ms=600_000,
            fetch_max_wait_ms=FETCH_WAIT_IDLE,
            # What is fetched ahead of a batch is memory: some batches' worth, not the default 50 MB.
            fetch_max_bytes=4 << 20,
            max_partition_fetch_bytes=256 << 10,
            listener=self,
            parser=self._raw,
            decoder=self._undecoded,
        )
        self._subscriber(self._handle)

    # -- what FastStream calls

    async def _raw(self, records: Any) -> KafkaAckableMessage:
        consumer = self._subscriber.consumer
        return KafkaAckableMessage(body=b"", raw_message=records, headers={}, consumer=consumer)

    async def _undecoded(self, message: Any) -> Any:
        return message.raw_message

    async def _handle(self, body: Any) -> None:
        if self._stopping.is_set():
            return
        records: Sequence[ConsumerRecord[bytes, bytes]] = body
        self._idle.clear()
        self._began = time.monotonic()
        try:
            await self._work(records)
        finally:
            self._began = None
            self._idle.set()

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Waits, bounded, for the batch in flight: its partitions then go to another with its offsets committed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.session_timeout / 2):
                await self._until_committed()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Nothing is kept by partition: the inbox keeps all places."""

    # -- one batch

    async def _work(self, raw: Sequence["ConsumerRecord[bytes, bytes]"]) -> None:
        records, watermarks = [], []
        for r in raw:
            topic = self._bus.plain(r.topic)
            if topic == WATERMARK_TOPIC:
                watermarks.append(r)
            else:
                where = f"{r.topic}/{r.partition}/{r.offset}"
                records.append(read(topic, r.key, r.value, r.headers, where=where))
        started = time.monotonic()
        if records:
            self._fetch_often()
            if not await self._in_parts(records):
                return
            self.batch_seconds += time.monotonic() - started
            self._measure(records, time.monotonic() - started)
        if self._bus.groups:
            self._stored |= {TopicPartition(r.topic, r.partition): r.offset + 1 for r in raw}
            if self._committing is None or self._committing.done():
                self._committing = asyncio.create_task(self._commit())
        with contextlib.suppress(*TRANSIENT_ERRORS, asyncpg.PostgresError):
            for r in watermarks:
                await self._note_watermark(r.value)
            self._complete_owed = True
            if watermarks or time.monotonic() >= self._complete_at:
                await self._write_complete()

    async def _commit(self) -> None:
        """Tells the group how far was stored, beside the work on the next batch: just so far, whatever was fetched since.

        A commit that is refused belongs to a membership that has ended: the records come again, as duplicates.
        """
        while self._stored and (consumer := self._subscriber.consumer) is not None:
            offsets, self._stored = self._stored, {}
            with contextlib.suppress(KafkaError):
                await consumer.commit(offsets)

    async def _until_committed(self) -> None:
        await self._idle.wait()
        if self._committing is not None:
            await asyncio.wait({self._committing})

    def _measure(self, records: Sequence[Record], seconds: float) -> None:
        self._metrics.observe(known.CONSUMER_BATCH, len(records))
        self._metrics.observe(known.CONSUMER_BATCH_SECONDS, seconds)
        now = time.time()
        for envelope in (record.envelope for record in records):
            if envelope is not None and envelope.mode == "live":
                delay = max(0.0, now - envelope.recorded.timestamp())
                trace = trace_id(envelope.traceparent)
                self._metrics.observe(known.CONSUMER_DELAY, delay, envelope.topic, trace=trace)

    async def _in_parts(self, records: Sequence[Record]) -> bool:
        """A batch at once, or a part at a time while this process has people to answer; False when the consumer is stopped."""
        done = 0
        while done < len(records):
            await give_way()
            part = records[done : done + PART] if somebody_is_near() else records[done:]
            if not await self._until_done(part):
                return False
            self.batches += 1
            done += len(part)
        return True

    async def _until_done(self, records: Sequence[Record]) -> bool:
        """Tries a batch until it is stored; False when the consumer is stopped before."""
        pause, isolate = 0.05, False
        while not self._stopping.is_set():
            try:
                await self._store(records, isolate=isolate)
            except PlaceMoved:
                continue
            except BreakerOpen:
                log.error("breaker-open", service=self._service, rest=self.settings.breaker_rest)
                await self._rest(self.settings.breaker_rest)
                if len(records) > self.breaker.limit:
                    # More bad events in one batch than the breaker lets through: in parts, it lets some through.
                    parts = range(0, len(records), self.breaker.limit)
                    return all([await self._until_done(records[n : n + self.breaker.limit]) for n in parts])
            except Exception as error:
                self._metrics.add(known.CONSUMER_RETRIES, 1, type(error).__name__)
                if passes_by_itself(error):
                    log.warning("batch-retried", service=self._service, error=type(error).__name__, pause=pause)
                elif not isolate:
                    # One of the events is more than the service can bear. Find it by taking them one by one.
                    log.error("batch-isolated", service=self._service, error=type(error).__name__)
                    isolate = True
                    continue
                else:
                    # A fault of our own. To let the batch go would lose it: the consumer stands, and /healthz says so.
                    log.error("batch-not-stored", service=self._service, pause=pause, exc_info=error)
                await self._rest(pause)
                pause = min(pause * 2, 5.0)
            else:
                return True
        return False

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _store(self, records: Sequence[Record], *, isolate: bool = False) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            room = RoomInPostgres(connection, self._queries)
            inbox = Inbox(self._one_by_one) if isolate else self._inbox
            outcome = await inbox.process(room, connection, records)
            if outcome.parked:
                self.breaker.check(len(outcome.parked), time.monotonic())
                await self._publish_parked(connection, outcome)
        self._count(outcome)

    async def _publish_parked(self, connection: Connection, outcome: Outcome) -> None:
        """Says on the topic of parked events what is parked here and why, without what it said."""
        await connection.execute(self._queries["parked_lock"], f"{self._service} parked")
        now = await self._log.now(connection)
        keys = sorted({record.key or "unknown" for record, _ in outcome.parked})
        rows = await connection.fetch(self._queries["parked_sequences"], keys)
        last = dict.fromkeys(keys, 0) | {row["aggregateid"]: row["sequence"] for row in rows}
        envelopes = []
        for record, fault in outcome.parked:
            key = record.key or "unknown"
            last[key] += 1
            parked = ParkedRecorded(
                parked=uuid7(),
                consumer=self._service,
                topic=record.topic,
                event=record.event_id or None,
                type=record.envelope.type[:200] if record.envelope else None,
                sequence=record.sequence,
                reason=fault.reason,
                size=len(record.value or b""),
            )
            envelopes.append(
                Envelope(
                    topic=PARKED_TOPIC,
                    id=parked.parked,
                    source=self._source,
                    type=parked.short,
                    subject=key,
                    time=now,
                    recorded=now,
                    sequence=last[key],
                    mode="live",
                    data=parked.to_json(),
                )
            )
        await self._log.append(connection, envelopes)

    def _count(self, outcome: Outcome) -> None:
        if outcome.parked:
            self.breaker.add(len(outcome.parked), time.monotonic())
            for record, fault in outcome.parked:
                self._metrics.add(known.PARKED_EVENTS, 1, fault.reason)
                log.warning(
                    "event-parked",
                    service=self._service,
                    topic=record.topic,
                    sequence=record.sequence,
                    reason=fault.reason,
                )
        if outcome.applied or outcome.parked:
            self._after_commit()
        self.totals.add(replace(outcome, parked=[]))
        self._progressed = time.monotonic()

    async def _one_by_one(self, connection: Connection, events: Sequence[Received]) -> dict[int, Fault]:
        """The effect of each event in a savepoint of its own: one that raises is refused, the others take effect."""
        faults: dict[int, Fault] = {}
        stopped: set[Name] = set()
        for index, event in enumerate(events):
            name = (event.envelope.topic, event.envelope.subject)
            if name in stopped:
                continue
            try:
                async with connection.transaction():
                    refused = await self._apply(connection, [event])
            except Exception as error:
                if passes_by_itself(error):
                    raise
                refused = {0: Fault("handler-failed", type(error).__name__)}
            if refused:
                faults[index] = refused[0]
                stopped.add(name)
        return faults

    # -- gaps, replays

    async def run_gaps(self) -> None:
        """Promise 3: asks the owners for what is missing, after the wait or at once for a key met in its middle."""
        while not self._stopping.is_set():
            try:
                await self.close_gaps()
                # A mark that another process of the group has written down, or what the last batches left to be written.
                if self._idle.is_set() and (self._bus.groups or self._complete_owed):
                    await self._write_complete()
            except (*TRANSIENT_ERRORS, asyncpg.PostgresError) as error:
                log.warning("gaps-not-looked-for", service=self._service, error=type(error).__name__)
            await self._rest(self.settings.gap_poll)

    async def close_gaps(self) -> int:
        """One round; returns the number of keys that their owners answered for."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(self._queries["gaps"], timedelta(seconds=self.settings.gap_wait))
        closed = 0
        for row in rows:
            try:
                await self.from_owner(row["topic"], row["key"])
                closed += 1
            except OSError as error:  # one owner is away; the others are asked all the same
                log.warning("gap-not-asked", service=self._service, topic=row["topic"], error=type(error).__name__)
        return closed

    async def from_owner(
        self, topic: str, key: str, *, unpark: bool = False, dry_run: bool = False, drop: int | None = None
    ) -> Outcome:
        """Continues a key with its owner's own events; with `drop` without the parked event of that number.

        Raises OSError when the owner does not answer.
        """
        while True:
            async with self._pool.acquire() as connection:
                waited = {r["number"] for r in await connection.fetch(self._queries["pending_numbers"], topic, key)}
                sequence = await connection.fetchval(self._queries["place_sequence"], topic, key) or 0
                dropped = None if drop is None else await connection.fetchrow(self._queries["parked_row"], drop)
            events = await self._ask_owner(topic, key, sequence)
            try:
                async with self._pool.acquire() as connection:
                    transaction = connection.transaction()
                    await transaction.start()
                    try:
                        if dropped is not None and events and str(events[0].id) == dropped["event_id"]:
                            await connection.execute(self._queries["place_skip"], topic, key, sequence)
                            events = events[1:]
                        room = RoomInPostgres(connection, self._queries)
                        inbox = Inbox(self._one_by_one) if unpark else self._inbox
                        outcome = await inbox.from_owner(
                            room, connection, (topic, key), events, waited=waited, unpark=unpark
                        )
                        if outcome.parked and not dry_run:
                            await self._publish_parked(connection, outcome)
                    except BaseException:
                        await transaction.rollback()
                        raise
                    await (transaction.rollback() if dry_run else transaction.commit())
            except PlaceMoved:
                continue
            if not dry_run:
                self._count(outcome)
            return outcome

    async def replay(self, topic: str, key: str, *, who: str, dry_run: bool = False) -> dict[str, Any]:
        """Heals a parked key from its owner's own events, and writes down who did it.

        Raises OSError when the owner does not answer.
        """
        outcome = await self.from_owner(topic, key, unpark=True, dry_run=dry_run)
        answer = {
            "topic": topic,
            "key": key,
            "applied": outcome.applied,
            "parked": [{"sequence": r.sequence, "reason": f.reason, "detail": f.detail} for r, f in outcome.parked],
            "dry_run": dry_run,
        }
        if not dry_run:
            result = "parked again" if outcome.parked else f"applied {outcome.applied}"
            await self._record_act(who, "replay", topic, key, None, None, result, None)
        return answer

    async def drop(self, number: int, reason: str, *, who: str, dry_run: bool = False) -> dict[str, Any] | None:
        """Gives up one parked event. One that the owner has is skipped: the key goes on after it; one that it does not
        have is foreign and is only discarded. None: there is no such event. Raises OSError when the owner does not answer.
        """
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(self._queries["parked_row"], number)
            if row is None:
                return None
            topic, key = row["topic"], row["key"]
            sequence = await connection.fetchval(self._queries["place_sequence"], topic, key) or 0
        events = await self._ask_owner(topic, key, sequence)
        skipped = bool(events) and str(events[0].id) == row["event_id"]
        await self.from_owner(topic, key, unpark=True, dry_run=dry_run, drop=number)
        if not dry_run:
            result = "skipped" if skipped else "discarded"
            await self._record_act(who, "drop", topic, key, row["sequence"], row["event_id"], result, reason)
        return {"topic": topic, "key": key, "event": row["event_id"], "skipped": skipped, "dry_run": dry_run}

    async def _record_act(self, *act: object) -> None:
        async with self._pool.acquire() as connection:
            await connection.execute(self._queries["parked_act"], *act)

    async def replay_unknown(self) -> int:
        """After an upgrade: events of types that an older version did not know take effect now, where their data allows."""
        async with self._pool.acquire() as connection, connection.transaction():
            rows = await connection.fetch(self._queries["pending_unknown"], 1000)
            known = [r for r in map(record_of_row, rows) if r.data is not None and r.envelope is not None]
            received = [Received(r.envelope, r.data) for r in known if r.envelope is not None]
            if received:
                await self._one_by_one(connection, received)
                await connection.execute(self._queries["pending_delete"], [r.number for r in known])
        return len(known)

    # -- completeness

    async def _note_watermark(self, value: bytes | None) -> None:
        """Writes the mark down: another process of this service may be the one that reads those partitions."""
        try:
            mark = orjson.loads(value or b"")
            source, upto = str(mark["service"]), datetime.fromisoformat(mark["upto"]).astimezone(UTC)
            ends = [(str(t), int(number), int(end)) for t, number, end in mark["ends"] if t in self.topics]
        except (ValueError, KeyError, TypeError, OverflowError):
            return
        if ends and source.isidentifier():
            topics, numbers, offsets = map(list, zip(*ends, strict=True))
            async with self._pool.acquire() as connection:
                await connection.execute(self._queries["complete_mark"], source, topics, numbers, upto, offsets)

    async def _write_complete(self) -> None:
        """A watermark counts once its partition is read up to the offset that it names; called while no batch is in work."""
        self._complete_at, self._complete_owed = time.monotonic() + self.settings.complete_every, False
        if positions := self._positions():
            async with self._pool.acquire() as connection:
                await connection.execute(
                    self._queries["complete_reached"],
                    [self._bus.plain(partition.topic) for partition in positions],
                    [partition.partition for partition in positions],
                    list(positions.values()),
                )

    # -- reading without a group

    def _fetch_often(self) -> None:
        self._busy_until = time.monotonic() + self.settings.busy_for
        self._fetch_wait(FETCH_WAIT_BUSY)

    def _fetch_wait(self, milliseconds: int) -> None:
        consumer = self._subscriber.consumer
        if not self._bus.groups and consumer is not None and consumer._fetcher is not None:
            consumer._fetcher._fetch_max_wait_ms = milliseconds

    async def run_positions(self) -> None:
        """Without a group nobody else remembers how far this process has read, or notices that a topic is a new one.

        A position is written down only when the topic is seen, after it was taken, to be the one that it was before.
        """
        written: dict[TopicPartition, int] = {}
        while not self._stopping.is_set():
            await self._rest(self.settings.look_every)
            if time.monotonic() > self._busy_until:
                self._fetch_wait(FETCH_WAIT_IDLE)
            consumer = self._subscriber.consumer
            if consumer is None or not self._idle.is_set():
                continue
            positions = self._positions()
            try:
                ids = await topic_ids(consumer._client, self._on_bus)
                other = {topic for topic in ids if self._ids.get(topic) != ids[topic]}
                if again := [p for p in consumer.assignment() if p.topic in other]:
                    if self._ids:
                        log.warning("topics-made-again", service=self._service, topics=sorted(other))
                    await consumer.seek_to_beginning(*again)
                self._ids |= ids
                moved = {
                    p: at
                    for p, at in positions.items()
                    if p.topic in ids and p.topic not in other and written.get(p) != at
                }
                if moved:
                    await self._write_positions(moved)
                    written |= moved
            except (KafkaError, *TRANSIENT_ERRORS, asyncpg.PostgresError) as error:
                log.warning("positions-not-written", service=self._service, error=type(error).__name__)

    async def run_topic_ids(self) -> None:
        """Promise 6, with a group: its offsets outlive a topic. Of one that was made again they name other records, and those
        before them would never be read: it is read from its beginning, once, by whoever has the partition by then.
        """
        known: dict[TopicPartition, str] = {}
        while not self._stopping.is_set():
            await self._rest(self.settings.look_every)
            consumer = self._subscriber.consumer
            if consumer is None or not consumer.assignment():
                continue
            try:
                ids = await topic_ids(consumer._client, self._on_bus)
                new = {
                    p: ids[p.topic] for p in consumer.assignment() if p.topic in ids and known.get(p) != ids[p.topic]
                }
                if not new:
                    continue
                async with self._pool.acquire() as connection:
                    rows = await connection.fetch(self._queries["bus_read"])
                before = {TopicPartition(self._bus.topic(r["topic"]), r["partition"]): r["id"] for r in rows}
                if again := [p for p in new if before.get(p, new[p]) != new[p]]:
                    log.warning("topics-made-again", service=self._service, topics=sorted({p.topic for p in again}))
                    await consumer.seek_to_beginning(*again)
                self._ids |= ids
                await self._write_positions(dict.fromkeys(new, 0))
                known |= new
            except (KafkaError, *TRANSIENT_ERRORS, asyncpg.PostgresError) as error:
                log.warning("topic-ids-not-seen", service=self._service, error=type(error).__name__)

    async def _write_positions(self, positions: dict[TopicPartition, int]) -> None:
        async with self._pool.acquire() as connection:
            await connection.execute(
                self._queries["bus_read_put"],
                [self._bus.plain(partition.topic) for partition in positions],
                [partition.partition for partition in positions],
                [self._ids[partition.topic] for partition in positions],
                list(positions.values()),
            )

    async def remember(self, ids: dict[str, str]) -> None:
        """Before the start, without a group: how far an earlier process of this service had read in topics that are still
        the same; `ids` are those of the topics now.
        """
        if self._bus.groups:
            return
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(self._queries["bus_read"])
        self._ids = {self._bus.topic(name): ids[name] for name in ids}
        self._go_on_at = {
            TopicPartition(self._bus.topic(row["topic"]), row["partition"]): row["next_offset"]
            for row in rows
            if ids.get(row["topic"]) == row["id"]
        }

    def go_on(self) -> None:
        """Right after the start: reads on from there, before anything is fetched from the beginning."""
        consumer = self._subscriber.consumer
        if consumer is not None:
            _poll_until_there_is_something(consumer)
            for partition in consumer.assignment() & set(self._go_on_at):
                consumer.seek(partition, self._go_on_at[partition])

    # -- life

    async def stop(self) -> None:
        """Lets the batch in flight end; what is not stored comes again."""
        self._stopping.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                await self._until_committed()

    def assigned(self) -> bool:
        consumer = self._subscriber.consumer
        return consumer is not None and bool(consumer.assignment())

    def _positions(self) -> dict[TopicPartition, int]:
        """The next offset of each partition that is read here. What is below is stored, unless a batch is in work."""
        consumer = self._subscriber.consumer
        if consumer is None:
            return {}
        assignment = consumer._subscription.subscription and consumer._subscription.subscription.assignment
        if assignment is None:
            return {}
        states = {partition: assignment.state_value(partition) for partition in assignment.tps}
        return {p: state.position for p, state in states.items() if state is not None and state.has_valid_position}

    def lag(self) -> dict[tuple[str, int], int]:
        """Records that are on the bus and not yet read, by topic and partition."""
        consumer = self._subscriber.consumer
        if consumer is None:
            return {}
        highs = {partition: consumer.highwater(partition) for partition in self._positions()}
        return {
            (self._bus.plain(p.topic), p.partition): max(0, high - position)
            for p, position in self._positions().items()
            if (high := highs[p]) is not None
        }

    def behind(self) -> int | None:
        """Records on the bus that are not yet read; None as long as a partition has not been looked at."""
        consumer = self._subscriber.consumer
        lag = self.lag()
        if consumer is None or not consumer.assignment() or len(lag) < len(consumer.assignment()):
            return None
        return sum(lag.values())

    def caught_up(self) -> bool:
        """Nothing is on the bus that is not applied."""
        return self._idle.is_set() and self.behind() == 0

    def seconds_without_progress(self) -> float:
        """How long records have waited without a batch being stored; 0 while none wait."""
        waiting = self._began is not None or any(self.lag().values())
        return time.monotonic() - self._progressed if waiting else 0.0

    def stuck(self) -> str | None:
        """Why the consume loop makes no progress, if it makes none."""
        if self._began is not None and time.monotonic() - self._began > self.settings.stuck_after:
            return "a batch has been in work for too long"
        if self.breaker.open:
            return "the breaker is open: too many events were parked"
        return None
