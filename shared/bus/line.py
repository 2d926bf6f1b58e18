"""A way to a bus for links: records with a value alone, on topics of one partition, read from where the reader says.

The lower site dials the upper one's bus, through whatever lies between; so the address that it was given is used for every
broker when there is but one (`single`): what an embedded broker says of itself means nothing on another machine.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, NoError, TopicAlreadyExistsError, for_code

from shared.bus.connection import BusSettings
from shared.bus.topic_ids import topic_ids

TIMEOUT = 10.0
MAX_RECORD = 4 << 20


class LineDown(ConnectionError):
    """The bus does not answer; everything is tried again on a new line."""


class Arrived(NamedTuple):
    """A record as it was read."""

    topic: str
    offset: int
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Reading:
    """Where a topic is read: `topic_id` is that of the topic whose next record has `offset`; another one begins at 0."""

    topic_id: str | None
    offset: int


class Line:
    """One producer and one consumer on a bus; `open` before use, `close` after a LineDown. Topic names are plain."""

    def __init__(self, bus: BusSettings, *, single: bool) -> None:
        self._bus = replace(bus, groups=False)
        self._single = single
        self._producer: AIOKafkaProducer | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._reading: tuple[str, ...] = ()

    @property
    def reading(self) -> tuple[str, ...]:
        """The topics that are read, sorted."""
        return self._reading

    def forget(self) -> None:
        """The places that were given no longer hold: `read` takes new ones."""
        self._reading = ()

    async def open(self) -> None:
        """Raises LineDown."""
        if self._producer is not None:
            return
        try:
            async with asyncio.timeout(TIMEOUT):
                client = self._bus.client()
                self._producer = AIOKafkaProducer(
                    **client, acks="all", max_request_size=2 * MAX_RECORD, request_timeout_ms=10_000
                )
                self._consumer = AIOKafkaConsumer(
                    **client,
                    auto_offset_reset="earliest",
                    enable_auto_commit=False,
                    fetch_max_wait_ms=100,
                    max_partition_fetch_bytes=2 * MAX_RECORD,
                )
                for each in (self._producer.client, self._consumer._client):
                    if self._single:
                        _always_dial(each, self._bus.bootstrap)
                await self._producer.start()
                await self._consumer.start()
        except (KafkaError, OSError, TimeoutError) as error:
            await self.close()
            raise LineDown(type(error).__name__) from error

    async def close(self) -> None:
        producer, consumer = self._producer, self._consumer
        self._producer = self._consumer = None
        self._reading = ()
        for client in (producer, consumer):
            if client is not None:
                stopping = asyncio.create_task(client.stop())
                await asyncio.wait({stopping}, timeout=3.0)
                stopping.cancel()
                await asyncio.gather(stopping, return_exceptions=True)

    async def ids(self, topics: Sequence[str]) -> dict[str, str]:
        """The ids of those topics that exist. Raises LineDown."""
        assert self._consumer is not None
        try:
            async with asyncio.timeout(TIMEOUT):
                found = await topic_ids(self._consumer._client, [self._bus.topic(name) for name in topics])
        except (KafkaError, OSError, TimeoutError) as error:
            raise LineDown(type(error).__name__) from error
        return {self._bus.plain(topic): name for topic, name in found.items()}

    async def make(self, topics: Sequence[str]) -> None:
        """Makes topics of a link, kept for good reading after a long cut. Raises LineDown."""
        admin = AIOKafkaAdminClient(**self._bus.client())
        try:
            async with asyncio.timeout(TIMEOUT):
                await admin.start()
                wanted = [
                    NewTopic(
                        self._bus.topic(name),
                        1,
                        self._bus.replication,
                        topic_configs={"retention.ms": "604800000", "max.message.bytes": str(MAX_RECORD)},
                    )
                    for name in topics
                ]
                answer = await admin.create_topics(wanted)
            for topic, code, *_ in answer.topic_errors:
                if code not in (NoError.errno, TopicAlreadyExistsError.errno):
                    raise for_code(code)(topic)
        except (KafkaError, OSError, TimeoutError) as error:
            raise LineDown(type(error).__name__) from error
        finally:
            await admin.close()

    async def read(self, places: Mapping[str, Reading], ids: Mapping[str, str]) -> None:
        """From now on reads these topics, each from its place. Raises LineDown."""
        assert self._consumer is not None
        topics = tuple(sorted(places))
        if topics == self._reading:
            return
        try:
            self._consumer.assign([TopicPartition(self._bus.topic(name), 0) for name in topics])
            for name in topics:
                place = places[name]
                offset = place.offset if place.topic_id == ids.get(name) else 0
                self._consumer.seek(TopicPartition(self._bus.topic(name), 0), offset)
        except (KafkaError, OSError, TimeoutError) as error:
            raise LineDown(type(error).__name__) from error
        self._reading = topics

    async def poll(self, wait: float) -> list[Arrived]:
        """What has arrived, waiting at most `wait` seconds for it. Raises LineDown."""
        assert self._consumer is not None
        if not self._reading:
            await asyncio.sleep(wait)
            return []
        try:
            async with asyncio.timeout(TIMEOUT):
                found = await self._consumer.getmany(timeout_ms=int(wait * 1000), max_records=16)
        except (KafkaError, OSError, TimeoutError) as error:
            raise LineDown(type(error).__name__) from error
        return [
            Arrived(self._bus.plain(partition.topic), record.offset, record.value)
            for partition, records in found.items()
            for record in records
        ]

    async def send(self, topic: str, values: Sequence[bytes]) -> None:
        """In their order, and confirmed. Raises LineDown."""
        assert self._producer is not None
        try:
            async with asyncio.timeout(TIMEOUT):
                futures = [
                    await self._producer.send(self._bus.topic(topic), value=value, partition=0) for value in values
                ]
                await asyncio.gather(*futures)
        except (KafkaError, OSError, TimeoutError) as error:
            raise LineDown(type(error).__name__) from error


def _always_dial(client: AIOKafkaClient, bootstrap: str) -> None:
    host, _, port = bootstrap.rpartition(":")
    known: Any = client.cluster.broker_metadata

    def dialled(node: object) -> Any:
        broker = known(node)
        return None if broker is None else broker._replace(host=host.strip("[]"), port=int(port))

    client.cluster.broker_metadata = dialled
