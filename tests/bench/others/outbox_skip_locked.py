"""P5 by faststream-outbox: a SKIP LOCKED relay, its stacked decorator to Kafka, as its documentation shows."""

import asyncio
import json
import sys
import time

import asyncpg
from faststream.kafka import KafkaBroker
from faststream_outbox import OutboxBroker, make_outbox_table
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

TABLE = "bench_skip_locked"


async def main(url: str, bootstrap: str, topic: str, number: int) -> None:
    metadata = MetaData()
    table = make_outbox_table(metadata, table_name=TABLE)
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    database = await asyncpg.connect(url)
    await database.execute(
        f"INSERT INTO {TABLE} (queue, payload, headers)"
        " SELECT 'relay', convert_to(coalesce(payload, '{}'), 'UTF8'),"
        " jsonb_build_object('content-type', 'application/json', 'correlation_id', id::text)"
        f" FROM intake.event ORDER BY position LIMIT {number}"
    )
    outbox = OutboxBroker(engine, outbox_table=table)
    kafka = KafkaBroker(bootstrap, acks="all")
    publisher = kafka.publisher(topic)

    @publisher
    @outbox.subscriber(  # type: ignore[untyped-decorator]
        "relay", max_workers=8, fetch_batch_size=500, min_fetch_interval=0.01, terminal_flush_batch_size=100
    )
    async def relay(body: dict) -> dict:  # type: ignore[type-arg]
        return body

    await kafka.connect()
    began = time.monotonic()
    await outbox.start()
    while await database.fetchval(f"SELECT EXISTS (SELECT 1 FROM {TABLE})"):
        await asyncio.sleep(0.02)
    seconds = time.monotonic() - began
    await outbox.stop()
    await kafka.stop()
    await database.execute(f"DROP TABLE {TABLE}")
    await database.close()
    await engine.dispose()
    print(json.dumps({"rate": number / seconds, "events": number}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
