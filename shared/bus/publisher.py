"""The keyed publisher: envelopes in order, confirmed by the broker, or PublishFailed.

It stands on aiokafka's producer and not on FastStream's: that one puts an empty content-type on a tombstone, which the
contract forbids, and its batches ignore keys.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import lru_cache

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.conn import CloseReason
from aiokafka.errors import KafkaError, NoError, ProducerClosed, TopicAlreadyExistsError, for_code
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import RecordMetadata

from shared.bus.connection import BusSettings
from shared.bus.topic_ids import partitions_of, topic_ids
from shared.contracts.envelope import Envelope, encode
from shared.contracts.envelope import Record as BusRecord
from shared.contracts.events import AGENCY_TOPIC_PARTITIONS, TOPICS, Topic
from shared.store.relay import Partition, PublishFailed

WATERMARK_TOPIC = "lienthong.watermark.v1"

_OWN_VIEW = Topic("lienthong.agency.", "dossier code", "routing", "delete", "agency", ())

# Seconds. A batch that the broker has not confirmed by then is published again by a new producer: an idempotent producer
# never expires a batch by itself, and any producer waits 40 s for a topic that does not exist.
CONFIRM_TIMEOUT = 10.0

MAX_REQUEST = 4 * 1024 * 1024  # bytes; a body over HTTP has at most 1 MiB, its event a little more


class Publisher:
    """One process's way to the bus; `lienthong.…` names go in, the site's prefix is added here."""

    def __init__(self, settings: BusSettings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._watcher: AIOKafkaConsumer | None = None
        self._ids: dict[str, str] = {}
        self._confirmed: dict[Partition, int] = {}
        self._starting = asyncio.Lock()
        self._asking = asyncio.Lock()

    async def publish(self, envelopes: Sequence[Envelope]) -> dict[Partition, tuple[int, int]]:
        """Sends all in their order, then gathers the confirmations: first and next offset by partition.

        Whole batches are handed over, each of one partition: record by record, the producer's own bookkeeping costs more than
        the records (measured beside the encoding: 20 to 28 µs of CPU each; in batches 7 to 10).
        """
        sent: list[asyncio.Future[RecordMetadata]] = []
        counts: list[int] = []
        try:
            async with asyncio.timeout(CONFIRM_TIMEOUT):
                producer = await self._started()
                for (topic, partition), records in (await self._by_partition(producer, envelopes)).items():
                    for batch in _batches(producer, records):
                        sent.append(await producer.send_batch(batch, topic, partition=partition))
                        counts.append(batch.record_count())
                confirmed = await asyncio.gather(*sent)
        except (KafkaError, OSError, TimeoutError) as error:
            for each in sent:
                each.cancel()
            await self._discard_producer()
            raise PublishFailed(f"{type(error).__name__}: {error}") from error
        offsets: dict[Partition, tuple[int, int]] = {}
        for metadata, count in zip(confirmed, counts, strict=True):
            name = (self._settings.plain(metadata.topic), metadata.partition)
            first, end = offsets.get(name, (metadata.offset, 0))
            offsets[name] = (min(first, metadata.offset), max(end, metadata.offset + count))
        self._confirmed |= {name: end for name, (_, end) in offsets.items()}
        return offsets

    async def _by_partition(
        self, producer: AIOKafkaProducer, envelopes: Sequence[Envelope]
    ) -> dict[Partition, list[BusRecord]]:
        """The records of each partition in their order; a key's partition is the one that every Kafka client chooses."""
        numbers: dict[str, list[int]] = {}
        found: dict[Partition, list[BusRecord]] = {}
        for envelope in envelopes:
            topic = self._settings.topic(envelope.topic)
            if topic not in numbers:
                numbers[topic] = sorted(await producer.partitions_for(topic))
            record = encode(envelope)
            number = numbers[topic][_hash(record[0]) % len(numbers[topic])]
            found.setdefault((topic, number), []).append(record)
        return found

    async def ends(self, topics: Sequence[str]) -> dict[Partition, int]:
        async with self._watching() as watcher:
            partitions = await partitions_of(watcher._client, [self._settings.topic(name) for name in topics])
            ends = await watcher.end_offsets(partitions) if partitions else {}
        found = {(self._settings.plain(tp.topic), tp.partition): offset for tp, offset in ends.items()}
        if self._settings.groups:
            return found
        # The embedded broker answers the first offset of its last batch, plus one (measured with Tansu 0.6: 11 after
        # three batches of five); what it has confirmed to us is known better, as long as the topic is the same.
        return {name: max(end, self._confirmed.get(name, 0)) for name, end in found.items()}

    async def ids(self, topics: Sequence[str]) -> dict[str, str]:
        """The ids of topics. The producer's line stands before they are looked at: a broker that is emptied after this look
        has broken that line, and nothing is published before the next look."""
        try:
            async with asyncio.timeout(CONFIRM_TIMEOUT):
                await self._started()
        except (KafkaError, OSError, TimeoutError) as error:
            raise PublishFailed(f"{type(error).__name__}: {error}") from error
        async with self._watching() as watcher:
            found = await topic_ids(watcher._client, [self._settings.topic(name) for name in topics])
        ids = {self._settings.plain(topic): found[topic] for topic in found}
        emptied = {topic for topic, known in self._ids.items() if topic in topics and ids.get(topic) != known}
        self._confirmed = {name: end for name, end in self._confirmed.items() if name[0] not in emptied}
        self._ids |= ids
        return ids

    async def create(self, topics: Sequence[str]) -> None:
        """Creates topics as the plan says; one that exists by now is left as it is."""
        try:
            async with asyncio.timeout(CONFIRM_TIMEOUT):
                await create_topics(self._settings, topics)
        except (KafkaError, OSError, TimeoutError) as error:
            raise PublishFailed(f"{type(error).__name__}: {error}") from error

    async def watermark(self, service: str, ends: dict[Partition, int], upto: datetime) -> None:
        value = orjson.dumps(
            {
                "service": service,
                "upto": upto.isoformat(),
                "ends": [[topic, number, end] for (topic, number), end in sorted(ends.items())],
            }
        )
        try:
            async with asyncio.timeout(CONFIRM_TIMEOUT):
                producer = await self._started()
                await producer.send_and_wait(self._settings.topic(WATERMARK_TOPIC), value=value, key=service.encode())
        except (KafkaError, OSError, TimeoutError) as error:
            await self._discard_producer()
            raise PublishFailed(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        await self._discard_producer()
        await self._discard_watcher()

    @asynccontextmanager
    async def _watching(self) -> AsyncIterator[AIOKafkaConsumer]:
        """The client that asks about topics, for one question at a time; what goes wrong is a PublishFailed."""
        async with self._asking:
            try:
                async with asyncio.timeout(CONFIRM_TIMEOUT):
                    if self._watcher is None:
                        watcher = AIOKafkaConsumer(**self._settings.client(), enable_auto_commit=False)
                        try:
                            await watcher.start()
                        except BaseException:
                            await watcher.stop()
                            raise
                        self._watcher = watcher
                    yield self._watcher
            except (KafkaError, OSError, TimeoutError) as error:
                await self._discard_watcher()
                raise PublishFailed(f"{type(error).__name__}: {error}") from error

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **self._settings.client(),
                    acks="all",
                    enable_idempotence=self._settings.idempotent,
                    linger_ms=2,
                    max_batch_size=256 * 1024,
                    max_request_size=MAX_REQUEST,
                    # Longer than we wait: a batch that expired by itself would let the next one go before it.
                    request_timeout_ms=int(2 * CONFIRM_TIMEOUT * 1000),
                )
                _let_go_when_broken(producer)
                try:
                    await producer.start()
                    await asyncio.gather(*(producer.client.ready(b.nodeId) for b in producer.client.cluster.brokers()))
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer

    async def _discard_producer(self) -> None:
        """Lets go of what it has not sent yet: it will be published again, and must not come late and out of order."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        _let_go(producer)
        await producer.client.close()
        await _stop(producer)

    async def _discard_watcher(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            await _stop(watcher)


@lru_cache(maxsize=8192)
def _hash(key: bytes) -> int:
    """As Kafka's default partitioner takes it; a dossier's events follow one another."""
    value: int = murmur2(key)
    return value & 0x7FFFFFFF


def _batches(producer: AIOKafkaProducer, records: Sequence[BusRecord]) -> Iterator[BatchBuilder]:
    """As few batches as hold them, closed: the producer sends them without waiting for more."""
    batch = producer.create_batch()
    for key, value, headers in records:
        if batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
            yield batch
            batch = producer.create_batch()
            batch.append(timestamp=None, key=key, value=value, headers=headers)
    batch.close()
    yield batch


def _let_go(producer: AIOKafkaProducer) -> None:
    """What it has not sent, or not seen confirmed, it neither sends nor confirms any more."""
    producer._message_accumulator.fail_all(ProducerClosed())
    if (sender := producer._sender.sender_task) is not None:
        sender.cancel()


def _let_go_when_broken(producer: AIOKafkaProducer) -> None:
    """Promise 2, in order: a producer sends again by itself what was under way when its line broke. If the broker has come
    back empty, that would lie there before everything earlier; so who asked for it looks at the topics first."""
    client = producer.client
    closed = client._on_connection_closed

    def on_closed(connection: object, reason: CloseReason | None = None) -> None:
        closed(connection, reason)
        if reason is CloseReason.CONNECTION_BROKEN:
            _let_go(producer)

    client._on_connection_closed = on_closed


async def _stop(client: AIOKafkaProducer | AIOKafkaConsumer) -> None:
    """Ends a client within three seconds, in a task of its own: aiokafka cancels its sender in the middle of a retry, and
    that cancellation must not be taken for ours."""
    stopping = asyncio.create_task(client.stop())
    await asyncio.wait({stopping}, timeout=3.0)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)


def new_topic(settings: BusSettings, name: str) -> NewTopic:
    """A topic of the plan. Partitions come from the site's size; a subscriber's own topic has its fixed number."""
    topic = TOPICS.get(name, _OWN_VIEW)
    configs = {
        "cleanup.policy": topic.cleanup,
        "min.insync.replicas": str(max(1, settings.replication - 1)),
        "max.message.bytes": str(MAX_REQUEST),
    }
    if topic.cleanup == "delete":
        configs["retention.ms"] = str(topic.retention_days * 86_400_000)
    partitions = AGENCY_TOPIC_PARTITIONS if topic is _OWN_VIEW else settings.partitions
    return NewTopic(settings.topic(name), partitions, settings.replication, topic_configs=configs)


async def create_topics(settings: BusSettings, topics: Sequence[str]) -> None:
    """Makes topics with the plan's partitions, cleanup and retention; one that exists is left as it is.

    Raises KafkaError, with the broker's reason, for one that is refused.
    """
    admin = AIOKafkaAdminClient(**settings.client())
    await admin.start()
    try:
        answer = await admin.create_topics([new_topic(settings, name) for name in topics])
    finally:
        await admin.close()
    for topic, code, *reason in answer.topic_errors:
        if code not in (NoError.errno, TopicAlreadyExistsError.errno):
            raise for_code(code)(f"{topic}: {reason}")
