"""P3's floor by hand: the same rows and messages as a lifecycle makes, over asyncpg and aiokafka, without any logic.

    writer    1,000 dossiers a statement: dossier, contact, five events and their outbox rows; relays them with acks=all
    routing   inbox and projection upsert for each batch, and a public event for each event, stored and relayed
    notify    the same, with two notices and four events of theirs for each dossier
    stats     inbox and projection upsert, three facts for each dossier

Each prints the epoch seconds at which it began and ended.
"""

import asyncio
import sys
import time
from uuid import uuid4

import asyncpg
import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

import shared.bus.connection  # noqa: F401 - no topic is made by naming it
from shared.settings import Settings

EVENTS = 4
BATCH = 1000
HEADERS = [(f"ce_{n}", b"0123456789abcdef0123456789") for n in range(12)]
PAYLOAD = orjson.dumps({f"field_{n}": "value-of-a-field" for n in range(14)})

TABLES = """
CREATE SCHEMA IF NOT EXISTS {s};
CREATE TABLE {s}.event (position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id uuid, topic text, key text,
    sequence int, payload text, recorded timestamptz DEFAULT now());
CREATE UNIQUE INDEX ON {s}.event (key, sequence, topic);
CREATE TABLE {s}.outbox (position bigint PRIMARY KEY);
CREATE TABLE {s}.inbox (topic text, key text, sequence int, PRIMARY KEY (key, topic));
CREATE TABLE {s}.projection (key text PRIMARY KEY, state int, body text);
CREATE TABLE {s}.extra (id uuid PRIMARY KEY, key text, body text);
CREATE INDEX ON {s}.extra (key);
"""
APPEND = """
WITH stored AS (INSERT INTO {s}.event (id, topic, key, sequence, payload)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::int[], $5::text[]) RETURNING position)
INSERT INTO {s}.outbox SELECT position FROM stored
"""


class Hand:
    """One role's connections and statements."""

    def __init__(self, role: str, prefix: str) -> None:
        self.role, self.prefix = role, prefix
        self.schema = f"bench_{role}"
        self.settings = Settings()

    async def open(self) -> None:
        self.db = await asyncpg.connect(self.settings.database_url, server_settings={"jit": "off"})
        await self.db.execute(f"DROP SCHEMA IF EXISTS {self.schema} CASCADE;" + TABLES.format(s=self.schema))
        self.producer = AIOKafkaProducer(
            **self.settings.bus().client(), acks="all", linger_ms=2, max_batch_size=256 * 1024
        )
        await self.producer.start()

    async def close(self) -> None:
        await self.producer.stop()
        await self.db.execute(f"DROP SCHEMA {self.schema} CASCADE")
        await self.db.close()

    async def append(self, topic: str, keys: list[str], first: int, each: int) -> None:
        """`each` events for every key, numbered from `first`, in one statement."""
        names = [key for key in keys for _ in range(each)]
        numbers = [first + n for _ in keys for n in range(each)]
        payload = PAYLOAD.decode()
        await self.db.execute(
            APPEND.format(s=self.schema), [uuid4() for _ in names], [topic] * len(names), names, numbers,
            [payload] * len(names),
        )  # fmt: skip

    async def relay(self) -> None:
        """What is in the outbox, in order, confirmed, deleted."""
        while rows := await self.db.fetch(
            f"SELECT o.position, topic, key, payload FROM {self.schema}.outbox o"
            f" JOIN {self.schema}.event USING (position) ORDER BY position LIMIT 1000"
        ):
            sent = [
                await self.producer.send(
                    self.prefix + row["topic"], row["payload"].encode(), key=row["key"].encode(), headers=HEADERS
                )
                for row in rows
            ]
            await asyncio.gather(*sent)
            await self.db.execute(
                f"DELETE FROM {self.schema}.outbox WHERE position = ANY ($1)",
                [row["position"] for row in rows],
            )

    async def upsert(self, keys: list[str], state: int) -> None:
        await self.db.execute(
            f"INSERT INTO {self.schema}.projection SELECT k, $2, $3 FROM unnest($1::text[]) k"
            " ON CONFLICT (key) DO UPDATE SET state = excluded.state",
            sorted(keys), state, PAYLOAD.decode(),
        )  # fmt: skip

    async def extra(self, keys: list[str], each: int) -> None:
        names = [key for key in keys for _ in range(each)]
        await self.db.execute(
            f"INSERT INTO {self.schema}.extra SELECT i, k, $3 FROM unnest($1::uuid[], $2::text[]) u(i, k)",
            [uuid4() for _ in names], names, PAYLOAD.decode(),
        )  # fmt: skip


async def write(hand: Hand, number: int) -> None:
    for start in range(0, number, BATCH):
        keys = [f"H55.242-{start + n:09}" for n in range(min(BATCH, number - start))]
        async with hand.db.transaction():
            await hand.upsert(keys, 10)
            await hand.extra(keys, 1)
            await hand.append("dossier", keys, 1, EVENTS)
            await hand.append("contact", keys, 1, 1)
        await hand.relay()


async def consume(hand: Hand, number: int) -> None:
    consumer = AIOKafkaConsumer(
        **hand.settings.bus().client(),
        group_id=f"{hand.prefix}{hand.role}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_poll_records=500,
    )
    await consumer.start()
    partitions = [TopicPartition(hand.prefix + "dossier", n) for n in range(hand.settings.bus_partitions)]
    consumer.assign(partitions)
    seen = 0
    try:
        while seen < number * EVENTS:
            batches = await consumer.getmany(timeout_ms=200, max_records=500)
            records = [record for batch in batches.values() for record in batch]
            if not records:
                continue
            keys = [record.key.decode() for record in records]
            unique = sorted(set(keys))
            for record in records:
                orjson.loads(record.value)
            async with hand.db.transaction():
                await hand.db.fetch(
                    f"SELECT sequence FROM {hand.schema}.inbox WHERE key = ANY ($1) FOR UPDATE",
                    unique,
                )
                await hand.upsert(unique, 4)
                if hand.role == "routing":
                    await hand.db.execute(
                        APPEND.format(s=hand.schema), [uuid4() for _ in records], ["public"] * len(records), keys,
                        [seen + n for n in range(len(records))], [PAYLOAD.decode()] * len(records),
                    )  # fmt: skip
                else:
                    # Two notices, or three facts, a dossier: spread over its four events as they come.
                    share = 2 if hand.role == "notify" else 3
                    some = keys[: len(keys) * share // EVENTS]
                    await hand.extra(some, 1)
                    if hand.role == "notify":
                        await hand.db.execute(
                            APPEND.format(s=hand.schema), [uuid4() for _ in records], ["notice"] * len(records), keys,
                            [seen + n for n in range(len(records))], [PAYLOAD.decode()] * len(records),
                        )  # fmt: skip
                await hand.db.execute(
                    f"INSERT INTO {hand.schema}.inbox SELECT 'dossier', k, 1 FROM unnest($1::text[]) k"
                    " ON CONFLICT (key, topic) DO UPDATE SET sequence = inbox.sequence + 1",
                    unique,
                )
            await hand.relay()
            await consumer.commit()
            seen += len(records)
    finally:
        await consumer.stop()


async def main(role: str, prefix: str, number: int) -> None:
    hand = Hand(role, prefix)
    await hand.open()
    if role == "writer":
        admin = AIOKafkaAdminClient(**hand.settings.bus().client())
        await admin.start()
        names = ("dossier", "contact", "public", "notice")
        await admin.create_topics([NewTopic(prefix + name, hand.settings.bus_partitions, 1) for name in names])
        await admin.close()
    else:
        watcher = AIOKafkaConsumer(**hand.settings.bus().client())
        await watcher.start()
        while not {prefix + "dossier", prefix + "notice", prefix + "public"} <= await watcher.topics():
            await asyncio.sleep(0.1)
        await watcher.stop()
    began = time.time()
    await (write(hand, number) if role == "writer" else consume(hand, number))
    ended = time.time()
    await hand.close()
    print(orjson.dumps([began, ended]).decode())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
