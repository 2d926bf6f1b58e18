"""The batch consumer of every service: one batch, one transaction, then the commit (promises 3 and 4).

FastStream runs the subscription; three of its ways are not taken, each for a promise:

- acknowledgement is manual and comes after the transaction. FastStream swallows what a handler raises, and the next
  acknowledgement would commit past the lost batch; so a batch that fails is tried again in place and never raised;
- records are read here one by one (its parser drops a whole batch for one header that is no text);
- publishing is `shared.bus.publisher`.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson
import structlog
from aiokafka import ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaAckableMessage

from shared.bus.connection import BusSettings
from shared.bus.publisher import WATERMARK_TOPIC
from shared.contracts.codes import uuid7
from shared.contracts.envelope import Envelope
from shared.contracts.events import ParkedRecorded
from shared.store.inbox import Apply, Fault, Inbox, Name, Outcome, PlaceMoved, Received, Record, read
from shared.store.log import Log
from shared.store.pool import TRANSIENT_ERRORS, Connection, Pool
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
    poll_ms: int = 50
    gap_wait: float = 10.0
    gap_poll: float = 1.0
    breaker_limit: int = 100
    breaker_window: float = 60.0
    breaker_rest: float = 30.0
    session_timeout: float = 15.0
    stuck_after: float = 30.0


class BreakerOpen(Exception):
    """Too many bad events: the consumer rests instead of emptying the topic into the parking."""


class Breaker:
    """Counts parked events over a sliding window and says when it is too many."""

    def __init__(self, limit: int, window: float) -> None:
        self._limit, self._window = limit, window
        self._parked: deque[float] = deque()
        self.open = False

    def check(self, parked: int, now: float) -> None:
        """Raises BreakerOpen when `parked` more would be too many."""
        while self._parked and self._parked[0] < now - self._window:
            self._parked.popleft()
        self.open = len(self._parked) + parked > self._limit
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
    ) -> None:
        self.settings = settings or ConsumerSettings()
        self.topics = tuple(topics)
        self.group = bus.topic(f"lienthong.{service}")
        self.breaker = Breaker(self.settings.breaker_limit, self.settings.breaker_window)
        self.totals = Outcome()
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
        self._stopping = False
        self._watermarks: dict[tuple[str, str, int], tuple[int, datetime]] = {}
        self._subscriber = broker.subscriber(
            *[bus.topic(name) for name in (*self.topics, WATERMARK_TOPIC)],
            group_id=self.group,
            batch=True,
            max_records=self.settings.max_records,
            batch_timeout_ms=self.settings.poll_ms,
            ack_policy=AckPolicy.MANUAL,
            auto_offset_reset="earliest",
            session_timeout_ms=int(self.settings.session_timeout * 1000),
            heartbeat_interval_ms=500,
            max_poll_interval_ms=600_000,
            fetch_max_wait_ms=500,
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
                await self._idle.wait()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._watermarks.clear()

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
        if records and not await self._until_done(records):
            return
        self.batches += 1
        self.batch_seconds += time.monotonic() - started
        for r in watermarks:
            self._note_watermark(r.value)
        # A commit that is refused belongs to a membership that has ended: the records come again, as duplicates.
        with contextlib.suppress(KafkaError):
            if self._subscriber.consumer is not None:
                await self._subscriber.consumer.commit()
        await self._write_complete()

    async def _until_done(self, records: Sequence[Record]) -> bool:
        """Tries a batch until it is stored; False when the consumer is stopped before."""
        pause, isolate = 0.05, False
        while not self._stopping:
            try:
                await self._store(records, isolate=isolate)
            except PlaceMoved:
                continue
            except BreakerOpen:
                log.error("breaker-open", service=self._service, rest=self.settings.breaker_rest)
                await self._rest(self.settings.breaker_rest)
            except TRANSIENT_ERRORS as error:
                log.warning("batch-retried", service=self._service, error=type(error).__name__, pause=pause)
                await self._rest(pause)
                pause = min(pause * 2, 5.0)
            except Exception as error:
                # Not transient: one of the events is more than the service can bear. Find it by taking them one by one.
                if isolate:
                    raise
                log.error("batch-isolated", service=self._service, error=type(error).__name__)
                isolate = True
            else:
                return True
        return False

    async def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < end:
            await asyncio.sleep(min(0.2, seconds))

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
        now = await self._log.now(connection)
        envelopes, last = [], dict[str, int]()
        for record, fault in outcome.parked:
            key = record.key or "unknown"
            if key not in last:
                last[key] = await connection.fetchval(self._queries["parked_sequence"], key)
            last[key] += 1
            parked = ParkedRecorded(
                parked=uuid7(),
                consumer=self._service,
                topic=record.topic,
                event=record.event_id or None,
                type=record.envelope.type if record.envelope else None,
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
                log.warning(
                    "event-parked",
                    service=self._service,
                    topic=record.topic,
                    sequence=record.sequence,
                    reason=fault.reason,
                )
        outcome.parked = []
        self.totals.add(outcome)
        self._progressed = time.monotonic()
        if outcome.applied:
            self._after_commit()

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
            except TRANSIENT_ERRORS:
                raise
            except Exception as error:
                refused = {0: Fault("handler-failed", type(error).__name__)}
            if refused:
                faults[index] = refused[0]
                stopped.add(name)
        return faults

    # -- gaps, replays

    async def run_gaps(self) -> None:
        """Promise 3: asks the owners for what is missing, after the wait or at once for a key met in its middle."""
        while not self._stopping:
            try:
                await self.close_gaps()
            except (*TRANSIENT_ERRORS, asyncpg.PostgresError) as error:
                log.warning("gap-not-asked", service=self._service, error=type(error).__name__)
            await asyncio.sleep(self.settings.gap_poll)

    async def close_gaps(self) -> int:
        """One round; returns the number of keys asked for."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(self._queries["gaps"], timedelta(seconds=self.settings.gap_wait))
        for row in rows:
            await self.from_owner(row["topic"], row["key"], row["sequence"])
        return len(rows)

    async def from_owner(
        self, topic: str, key: str, sequence: int, *, unpark: bool = False, dry_run: bool = False
    ) -> Outcome:
        """Continues a key with its owner's events above `sequence`."""
        events = await self._ask_owner(topic, key, sequence)
        while True:
            try:
                async with self._pool.acquire() as connection:
                    transaction = connection.transaction()
                    await transaction.start()
                    try:
                        room = RoomInPostgres(connection, self._queries)
                        inbox = Inbox(self._one_by_one) if unpark else self._inbox
                        outcome = await inbox.from_owner(room, connection, (topic, key), events, unpark=unpark)
                    except BaseException:
                        await transaction.rollback()
                        raise
                    if dry_run:
                        await transaction.rollback()
                        return outcome
                    if outcome.parked:
                        await self._publish_parked(connection, outcome)
                    await transaction.commit()
            except PlaceMoved:
                continue
            parked = list(outcome.parked)
            self._count(outcome)
            outcome.parked = parked
            return outcome

    async def replay(self, topic: str, key: str, *, who: str, dry_run: bool = False) -> dict[str, Any]:
        """Heals a parked key from its owner's own events, and writes down who did it."""
        async with self._pool.acquire() as connection:
            sequence = await connection.fetchval(self._queries["place_sequence"], topic, key) or 0
        outcome = await self.from_owner(topic, key, sequence, unpark=True, dry_run=dry_run)
        answer = {
            "topic": topic,
            "key": key,
            "applied": outcome.applied,
            "parked": [{"sequence": r.sequence, "reason": f.reason, "detail": f.detail} for r, f in outcome.parked],
            "dry_run": dry_run,
        }
        if not dry_run:
            result = "parked again" if outcome.parked else f"applied {outcome.applied}"
            await self._record_act(who, "replay", topic, key, sequence, None, result, None)
        return answer

    async def drop(self, number: int, reason: str, *, who: str, dry_run: bool = False) -> dict[str, Any] | None:
        """Gives up one parked event. One that the owner has is skipped: the key goes on after it; one that it does not
        have is foreign and is only discarded. None: there is no such event."""
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(self._queries["parked_row"], number)
            if row is None:
                return None
            topic, key = row["topic"], row["key"]
            sequence = await connection.fetchval(self._queries["place_sequence"], topic, key) or 0
        events = await self._ask_owner(topic, key, sequence)
        skipped = bool(events) and str(events[0].id) == row["event_id"]
        answer = {"topic": topic, "key": key, "event": row["event_id"], "skipped": skipped, "dry_run": dry_run}
        if dry_run:
            return answer
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(self._queries["pending_delete"], [number])
            if skipped:
                await connection.execute(self._queries["place_skip"], topic, key, sequence)
        await self._record_act(
            who, "drop", topic, key, row["sequence"], row["event_id"], "skipped" if skipped else "discarded", reason
        )
        await self.from_owner(topic, key, sequence + skipped, unpark=True)
        return answer

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

    def _note_watermark(self, value: bytes | None) -> None:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            mark = orjson.loads(value or b"")
            upto = datetime.fromisoformat(mark["upto"]).astimezone(UTC)
            for topic, number, end in mark["ends"]:
                if topic in self.topics:
                    self._watermarks[(mark["service"], topic, number)] = (end, upto)

    async def _write_complete(self) -> None:
        """A watermark counts once this process has read its partition up to the offset that it names."""
        consumer = self._subscriber.consumer
        if consumer is None or not self._watermarks:
            return
        reached = []
        assigned = consumer.assignment()
        for (service, topic, number), (end, upto) in self._watermarks.items():
            partition = TopicPartition(self._bus.topic(topic), number)
            if partition in assigned and await consumer.position(partition) >= end:
                reached.append((service, topic, number, upto))
        for service, topic, number, _ in reached:
            del self._watermarks[(service, topic, number)]
        if reached:
            with contextlib.suppress(*TRANSIENT_ERRORS):
                async with self._pool.acquire() as connection:
                    await connection.execute(
                        self._queries["complete_put"],
                        [service for service, _, _, _ in reached],
                        [topic for _, topic, _, _ in reached],
                        [number for _, _, number, _ in reached],
                        [upto for _, _, _, upto in reached],
                    )

    # -- life

    async def stop(self) -> None:
        """Lets the batch in flight end; what is not stored comes again."""
        self._stopping = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                await self._idle.wait()

    def assigned(self) -> bool:
        consumer = self._subscriber.consumer
        return consumer is not None and bool(consumer.assignment())

    def lag(self) -> dict[tuple[str, int], int]:
        """Records that are on the bus and not yet read, by topic and partition."""
        consumer = self._subscriber.consumer
        lags: dict[tuple[str, int], int] = {}
        if consumer is None:
            return lags
        for partition in consumer.assignment():
            high = consumer.highwater(partition)
            state = consumer._subscription.subscription.assignment.state_value(partition)
            if high is not None and state.has_valid_position:
                lags[(self._bus.plain(partition.topic), partition.partition)] = max(0, high - state.position)
        return lags

    def caught_up(self) -> bool:
        return self.assigned() and self._idle.is_set() and not any(self.lag().values())

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
