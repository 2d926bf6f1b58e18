"""P5: the outbox relay beside aiokafka producing the same bytes from memory; and commit to bus at a steady rate."""

import asyncio
import time

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from shared.bus.connection import BusSettings
from shared.bus.topic_ids import partitions_of
from shared.contracts.envelope import Envelope, encode
from shared.contracts.events import TOPICS
from shared.store.log import envelope_of
from tests.bench.measure import Context, Figure, percentile, until
from tests.bench.others import by_others, told
from tests.bench.path import send_lifecycles


async def p5(context: Context) -> Figure:
    stack, number = context.stack, max(5_000, int(40_000 * context.scale))
    connection = await asyncpg.connect(stack.database_url)
    bus = BusSettings(bootstrap=stack.bootstrap, idempotent=stack.kafka is not None, groups=stack.kafka is not None)
    try:
        while (held := await connection.fetchval("SELECT count(*) FROM intake.event")) < number:
            await send_lifecycles(stack, f"p5-{time.time_ns()}", (number - held) // 5 + 1)
        await until(lambda: _empty(connection), 120, "the outbox is empty")
        await stack.processes["intake"].stop()
        await connection.execute(
            "INSERT INTO intake.outbox SELECT position, hashtext(aggregateid) & 3 FROM intake.event"
            " ORDER BY position LIMIT $1",
            number,
        )
        rows = await connection.fetch("SELECT * FROM intake.event ORDER BY position LIMIT $1", number)
        envelopes = [envelope_of(row) for row in rows]
        context.say("P5 floor")
        floor = await _from_memory(bus, envelopes)
        context.say("P5 relay")
        await stack.processes["intake"].start()
        await until(lambda: _begun(connection, number), 60, "the relay has begun", every=0.005)
        left = await connection.fetchval("SELECT count(*) FROM intake.outbox")
        began = time.monotonic()
        await until(lambda: _empty(connection), 300, "the relay has drained the outbox", every=0.005)
        ours = left / (time.monotonic() - began)
        await stack.processes["intake"].ready(stack.http)
        context.say("P5 steady")
        delays = await _commit_to_bus(context, bus)
        others: dict[str, float | str] = {}
        if context.others:
            count = min(number, 10_000)  # a JVM and a row at a time take their while
            for name, script in (("Debezium", "outbox_debezium"), ("faststream-outbox", "outbox_skip_locked")):
                context.say(f"P5 {name}")
                others[name] = await by_others(stack, script, f"bench.{script}", count, make=True)
    finally:
        await connection.close()
    p99 = percentile(delays, 0.99) * 1000
    return Figure(
        "P5", "outbox relay", ours, floor, "events/s", "ratio ≥ 0.6; commit to bus p99 ≤ 25 ms",
        ours / floor >= 0.6 and p99 <= 25,
        "; ".join(
            [f"intake alone; commit to bus p50 {percentile(delays, 0.5) * 1000:.0f} ms, p99 {p99:.0f} ms"]
            + [told(name, rate) for name, rate in others.items()]
        ),
        {"p99_ms": p99, "others": others},
    )  # fmt: skip


async def _empty(connection: asyncpg.Connection) -> bool:
    return not await connection.fetchval("SELECT EXISTS (SELECT 1 FROM intake.outbox)")


async def _begun(connection: asyncpg.Connection, number: int) -> bool:
    left: int = await connection.fetchval("SELECT count(*) FROM intake.outbox")
    return left < number


async def _from_memory(bus: BusSettings, envelopes: list[Envelope]) -> float:
    """aiokafka alone: the same bytes, encoded beforehand, confirmed by pages of a thousand."""
    records = [(bus.topic(envelope.topic), *encode(envelope)) for envelope in envelopes]
    producer = AIOKafkaProducer(
        **bus.client(), acks="all", enable_idempotence=bus.idempotent, linger_ms=2, max_batch_size=256 * 1024
    )
    await producer.start()
    try:
        for topic, key, value, headers in records[:3]:
            await producer.send_and_wait(topic, value=value, key=key, headers=headers)
        began = time.monotonic()
        for start in range(0, len(records), 1000):
            sent = [
                await producer.send(topic, value=value, key=key, headers=headers)
                for topic, key, value, headers in records[start : start + 1000]
            ]
            await asyncio.gather(*sent)
        return len(records) / (time.monotonic() - began)
    finally:
        await producer.stop()


async def _commit_to_bus(context: Context, bus: BusSettings, rate: int = 250, seconds: float = 6.0) -> list[float]:
    """Seconds from each event's recorded time to its arrival at a consumer, at 500 events a second."""
    from itertools import islice

    from tests.bench.measure import open_load
    from tests.bench.receive import requests

    stack = context.stack
    consumer = AIOKafkaConsumer(**bus.client(), auto_offset_reset="latest", fetch_max_wait_ms=100)
    await consumer.start()
    names = [bus.topic(n) for n in TOPICS if n in ("lienthong.dossier.v1", "lienthong.contact.v1")]
    partitions = await partitions_of(consumer._client, names)
    consumer.assign(partitions)
    await consumer.seek_to_end()
    for partition in partitions:
        await consumer.position(partition)
    delays: list[float] = []

    async def read() -> None:
        from datetime import datetime

        async for record in consumer:
            headers = dict(record.headers)
            recorded = datetime.fromisoformat(headers["ce_recordedtime"].decode())
            delays.append(time.time() - recorded.timestamp())

    reading = asyncio.create_task(read())
    token = stack.token()["Authorization"]
    prepared = list(islice(requests(token), int(rate * seconds) + 1))
    await open_load(stack.url("intake"), iter(prepared), rate, seconds, 201)
    await until(lambda: _enough(delays, int(rate * seconds)), 30, "the events have arrived")
    reading.cancel()
    await consumer.stop()
    return delays


async def _enough(delays: list[float], number: int) -> bool:
    return len(delays) >= number
