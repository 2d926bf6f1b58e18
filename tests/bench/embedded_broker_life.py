"""What can a memory-only broker carry? A million keyed records through it, restarted empty on the way.

    python -m tests.bench.embedded_broker_life --records 1000000
    python -m tests.bench.embedded_broker_life --records 1000000 --kills 5
    python -m tests.bench.embedded_broker_life --records 1000000 --bootstrap 127.0.0.1:9092 --read group

The producer stands for the relay: its ledger (the last number sent per key) is what the owner's log holds in
PostgreSQL, and in each new life of the broker it sends again what some group has not applied. The three groups stand
for services: they keep the last number applied per key, as an inbox does, and apply only the next one. A broker above
`--restart-above-mb` is restarted empty as soon as every group has applied all that was sent; the relay holds still
while that is asked. `--kills` ends the broker with -9 in the midst of it all, that often. Prints one JSON object;
exit status 1 if a record was lost.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import aiokafka.client
import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from deploy.embedded.broker import EmbeddedBroker, make_topics

TOPICS = [f"bench.life.{number}.v1" for number in range(5)]
PARTITIONS = 3
GROUPS = ("routing", "notify", "stats")
KEYS = [b"000.00.00.H55-261123-%04d" % number for number in range(3000)]
FILLING = b"x" * 567  # with key and number 600 bytes
CHUNK = 500  # records that the relay sends before it gathers the confirmations
WINDOW = (
    50_000  # records, 30 MB: so far the relay goes ahead of the slowest group; more could not be sent again in one life
)
LOOK_EVERY = 0.25  # seconds between two questions for the broker's life
STUCK_AFTER = 60.0  # seconds without an applied record: what is missing then is lost

# A client that names a topic before it is made must not make it, with a partition count of its own.
aiokafka.client.MetadataRequest = functools.partial(MetadataRequest, allow_auto_topic_creation=False)


class Ledger:
    """What was sent and what each group has applied: the last number per key, counted from 1."""

    def __init__(self) -> None:
        self.sent = [0] * len(KEYS)
        self.applied = {group: [0] * len(KEYS) for group in GROUPS}
        self.total_sent = 0
        self.total_applied = dict.fromkeys(GROUPS, 0)
        self.duplicates = 0
        self.ahead = 0
        self.republished = 0
        self.applied_at = time.monotonic()

    def next(self) -> tuple[int, int]:
        key = self.total_sent % len(KEYS)
        self.sent[key] += 1
        self.total_sent += 1
        return key, self.sent[key]

    def missing(self) -> list[tuple[int, int]]:
        """What some group lacks, in order within each key."""
        lowest = [min(applied) for applied in zip(*self.applied.values(), strict=True)]
        return [
            (key, number)
            for key, (low, high) in enumerate(zip(lowest, self.sent, strict=True))
            for number in range(low + 1, high + 1)
        ]

    def apply(self, group: str, key: int, number: int) -> None:
        applied = self.applied[group]
        if number == applied[key] + 1:
            applied[key] = number
            self.total_applied[group] += 1
            self.applied_at = time.monotonic()
        elif number <= applied[key]:
            self.duplicates += 1
        else:
            self.ahead += 1

    @property
    def ahead_of_slowest(self) -> int:
        return self.total_sent - min(self.total_applied.values())

    def has_sent(self, number: int) -> bool:
        return self.total_sent >= number

    @property
    def caught_up(self) -> bool:
        return all(applied == self.total_sent for applied in self.total_applied.values())


class Lives:
    """The broker's lives as the clients see them, and how long each group took to go on in a new one."""

    def __init__(self) -> None:
        self.current = ""
        self.begun = time.monotonic()
        self.recoveries: dict[str, list[float]] = {group: [] for group in GROUPS}
        self.waiting: set[str] = set()

    def begin(self) -> None:
        self.begun = time.monotonic()
        self.waiting = set(GROUPS)

    def applied_by(self, group: str) -> None:
        if group in self.waiting:
            self.waiting.discard(group)
            self.recoveries[group].append(time.monotonic() - self.begun)

    async def follow(self, bootstrap: str) -> None:
        """Ask for the cluster id, which the embedded broker changes with each life."""
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=2000)
        await admin.start()
        try:
            while True:
                with contextlib.suppress(KafkaError):
                    self.current = (await admin.describe_cluster())["cluster_id"]
                await asyncio.sleep(LOOK_EVERY)
        finally:
            await admin.close()


class Relay:
    """Sends the records, and in each new life of the broker again what is missing."""

    def __init__(self, ledger: Ledger, lives: Lives, bootstrap: str, records: int) -> None:
        self._ledger = ledger
        self._lives = lives
        self._records = records
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap, acks="all", linger_ms=5, metadata_max_age_ms=5000
        )
        self._life = ""
        self.may_send = asyncio.Event()
        self.may_send.set()
        self.held_back_seconds = 0.0
        self.idle = asyncio.Event()

    async def run(self) -> None:
        await self._producer.start()
        try:
            while self._ledger.total_sent < self._records or not self._ledger.caught_up:
                if time.monotonic() - self._ledger.applied_at > STUCK_AFTER:
                    return
                if self._life not in ("", self._lives.current):
                    await self._send_again()
                self._life = self._lives.current
                if self._ledger.ahead_of_slowest > WINDOW:
                    self.held_back_seconds += 0.01
                    await asyncio.sleep(0.01)
                elif self._ledger.total_sent < self._records and self._life:
                    await self._send_next()
                else:
                    await asyncio.sleep(LOOK_EVERY)
        finally:
            await self._producer.stop()

    async def _send_next(self) -> None:
        self.idle.set()
        await self.may_send.wait()
        self.idle.clear()
        count = min(CHUNK, self._records - self._ledger.total_sent)
        await self._send([self._ledger.next() for _ in range(count)])

    async def _send_again(self) -> None:
        missing = self._ledger.missing()
        self._ledger.republished += len(missing)
        for start in range(0, len(missing), CHUNK):
            await self._send(missing[start : start + CHUNK])

    async def _send(self, records: list[tuple[int, int]]) -> None:
        confirmations = [
            await self._producer.send(TOPICS[key % len(TOPICS)], number.to_bytes(8, "big") + FILLING, key=KEYS[key])
            for key, number in records
        ]
        for outcome in await asyncio.gather(*confirmations, return_exceptions=True):
            if isinstance(outcome, BaseException):
                print("not confirmed:", repr(outcome), file=sys.stderr)
                self._life = "not confirmed"  # sends what is missing again
                return


async def consume(group: str, ledger: Ledger, lives: Lives, bootstrap: str, read: str) -> None:
    """A service: apply a batch, then commit. Reading by `assign` it goes to the beginning in each new life by itself; reading
    by `group` the broker makes it join again, and it has no offset then."""
    consumer = AIOKafkaConsumer(
        *(TOPICS if read == "group" else ()),
        bootstrap_servers=bootstrap,
        group_id=f"bench-{group}-{os.getpid()}",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        metadata_max_age_ms=5000,
        heartbeat_interval_ms=500,
        fetch_max_wait_ms=100,
    )
    await consumer.start()
    if read == "assign":
        consumer.assign([TopicPartition(topic, number) for topic in TOPICS for number in range(PARTITIONS)])
    numbers = {key: number for number, key in enumerate(KEYS)}
    life = lives.current
    try:
        while True:
            batches: dict[TopicPartition, list[ConsumerRecord]] = await consumer.getmany(
                timeout_ms=100, max_records=2000
            )
            if life != lives.current:
                life = lives.current
                if read == "assign":
                    await consumer.seek_to_beginning()
                    continue
            for batch in batches.values():
                for record in batch:
                    before = ledger.total_applied[group]
                    ledger.apply(group, numbers[record.key], int.from_bytes(record.value[:8], "big"))
                    if ledger.total_applied[group] > before:
                        lives.applied_by(group)
            if batches:
                with contextlib.suppress(KafkaError):  # an old membership, or the broker is away
                    await asyncio.wait_for(consumer.commit(), 5)
    finally:
        await consumer.stop()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def make_topics_on_kafka(bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, PARTITIONS, 1) for topic in TOPICS])
    finally:
        await admin.close()


async def carry(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Carry the records; the figures."""
    ledger, lives = Ledger(), Lives()
    peak = 0

    async def prepare(bootstrap: str) -> None:
        await make_topics(bootstrap, dict.fromkeys(TOPICS, PARTITIONS))
        lives.begin()

    async def caught_up() -> bool:
        relay.may_send.clear()
        try:
            async with asyncio.timeout(4):
                await relay.idle.wait()
                await until(lambda: ledger.caught_up)
            return True
        except TimeoutError:
            return False
        finally:
            # In time for the restart: what is sent in between is in flight then, as in a crash.
            asyncio.get_running_loop().call_later(0.2, relay.may_send.set)

    broker = None
    if arguments.bootstrap is None:
        broker = EmbeddedBroker(
            folder,
            arguments.port,
            restart_above_mb=arguments.restart_above_mb,
            caught_up=caught_up,
            prepare=prepare,
        )
    bootstrap = arguments.bootstrap or await broker.start()  # type: ignore[union-attr]
    if broker is None:
        await make_topics_on_kafka(bootstrap)
    relay = Relay(ledger, lives, bootstrap, arguments.records)

    async def kill_now_and_then() -> None:
        for part in range(1, arguments.kills + 1):
            moment = arguments.records * part // (arguments.kills + 1)
            await until(functools.partial(ledger.has_sent, moment))
            if broker is not None and broker.pid is not None:
                os.kill(broker.pid, signal.SIGKILL)

    async def measure_memory() -> None:
        nonlocal peak
        while broker is not None:
            peak = max(peak, broker.resident)
            await asyncio.sleep(0.05)

    background = [
        asyncio.ensure_future(work)
        for work in (
            *([broker.watch()] if broker else []),
            lives.follow(bootstrap),
            measure_memory(),
            kill_now_and_then(),
            *(consume(group, ledger, lives, bootstrap, arguments.read) for group in GROUPS),
        )
    ]
    started, processor = time.monotonic(), time.process_time()
    try:
        await relay.run()
        seconds = time.monotonic() - started
    finally:
        for work in background:
            work.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        restarts = broker.restarts if broker else 0
        if broker:
            await broker.stop()
    recoveries = [time_taken for of_group in lives.recoveries.values() for time_taken in of_group[1:]]
    return {
        "broker": arguments.bootstrap or "embedded",
        "read": arguments.read,
        "records": ledger.total_sent,
        "seconds": round(seconds, 1),
        "records_per_second": round(ledger.total_sent / seconds),
        "python_processor_seconds": round(time.process_time() - processor, 1),
        "restarts": restarts,
        "kills": arguments.kills,
        "peak_broker_mb": round(peak / 2**20) if broker else None,
        "peak_own_mb": round(psutil.Process().memory_info().rss / 2**20),
        "recovery_seconds": {
            "median": round(statistics.median(recoveries), 2) if recoveries else None,
            "max": round(max(recoveries), 2) if recoveries else None,
        },
        "relay_waited_for_groups_seconds": round(relay.held_back_seconds, 1),
        "republished": ledger.republished,
        "duplicates": ledger.duplicates,
        "ahead_of_their_turn": ledger.ahead,
        "lost": sum(ledger.total_sent - applied for applied in ledger.total_applied.values()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--restart-above-mb", type=int, default=96)
    parser.add_argument("--kills", type=int, default=0, help="kill -9 the embedded broker so many times")
    parser.add_argument("--read", choices=("assign", "group"), default="assign")
    parser.add_argument("--port", type=int, default=18004, help="of the embedded broker")
    parser.add_argument("--bootstrap", help="host:port of another broker instead of the embedded one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(carry(arguments, Path(folder)))
    print(json.dumps(figures, indent=2))
    return 1 if figures["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
