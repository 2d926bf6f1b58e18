"""Everything that topics hold, read once past every group: for what is recomputed from the bus."""

import time
from collections.abc import AsyncIterator, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from shared.bus.connection import BusSettings
from shared.bus.topic_ids import partitions_of
from shared.store.inbox import Record, read

AT_ONCE = 2000  # records
SILENT = 30.0  # seconds without a record after which the bus is taken for gone


async def whole_topics(bus: BusSettings, topics: Sequence[str]) -> AsyncIterator[list[Record]]:
    """What these topics hold up to where each partition ended when it was first read; a key's records in their order.

    Raises ConnectionError when the bus does not answer.
    """
    consumer = AIOKafkaConsumer(**bus.client(), enable_auto_commit=False, fetch_max_wait_ms=50)
    try:
        await consumer.start()
        left: list[TopicPartition] = await partitions_of(consumer._client, [bus.topic(name) for name in topics])
        ends: dict[TopicPartition, int] = {}
        heard = time.monotonic()
        consumer.assign(left)
        if left:
            await consumer.seek_to_beginning()
        while left:
            batches = await consumer.getmany(timeout_ms=100, max_records=AT_ONCE)
            if batches:
                heard = time.monotonic()
                yield [
                    read(bus.plain(r.topic), r.key, r.value, r.headers, where=f"{r.topic}/{r.partition}/{r.offset}")
                    for batch in batches.values()
                    for r in batch
                ]
            elif time.monotonic() - heard > SILENT:
                raise ConnectionError("the bus does not answer")
            for partition in left:
                end = consumer.highwater(partition)  # what a fetch says: the embedded broker lists another one
                if end is not None:
                    ends.setdefault(partition, end)
            left = [p for p in left if p not in ends or await consumer.position(p) < ends[p]]
    except KafkaError as error:
        raise ConnectionError(f"the bus does not answer: {type(error).__name__}") from error
    finally:
        await consumer.stop()
