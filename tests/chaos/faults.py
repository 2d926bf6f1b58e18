"""What is done to a site: each fault strikes, and returns when it is over; what comes back by itself is not waited for."""

import asyncio
import contextlib
import errno
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import httpx
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

import shared.bus.connection  # noqa: F401 - no client of ours makes a topic by naming it
from shared.contracts.envelope import encode
from shared.contracts.events import TOPICS
from shared.store.log import envelope_of
from tests.chaos.judge import COPY
from tests.chaos.keeping import Keeping
from tests.chaos.load import Load
from tests.stack import Process, Stack

SESSION = 6  # seconds; Kafka's least
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)  # Debian's package faketime
SECRET = "a-secret-between-us"


@dataclass(frozen=True, slots=True)
class Fault:
    """`parts` are what it strikes: two faults at once strike different parts. `kills`: it kills a process."""

    name: str
    parts: frozenset[str]
    strike: Callable[[], Awaitable[None]]
    weight: float = 1.0
    kills: bool = False


@dataclass(frozen=True, slots=True)
class Clock:
    """The clock of the services' machine, where libfaketime is installed: `settings` give it to a process. The database
    and the driver keep the true time, as on a machine whose time daemon steps."""

    file: Path

    @property
    def settings(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",  # or every module would look changed
        }

    def step(self, seconds: int) -> None:
        """So far from the true time, from now on."""
        draft = self.file.with_suffix(".new")
        draft.write_text(f"{seconds:+}\n")
        draft.replace(self.file)


class ProviderProcess:
    """The SMS provider, started and told how to behave."""

    def __init__(self, port: int, log: Path, receipts: Sequence[str]) -> None:
        self.url, self._port, self.log, self._receipts = f"http://127.0.0.1:{port}", port, log, receipts
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.with_suffix(".err").open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.chaos.provider", "--port", str(self._port), "--log", str(self.log)),
                *("--secret", SECRET),
                *(each for url in self._receipts for each in ("--receipts", url)),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        async with asyncio.timeout(30), httpx.AsyncClient() as http:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    await http.get(f"{self.url}/state")
                    return
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def behave(self, **mode: object) -> None:
        async with httpx.AsyncClient() as http:
            (await http.post(f"{self.url}/mode", json=mode)).raise_for_status()


@dataclass
class Faults:
    """The faults that this site can be struck with, and those that it cannot, with why."""

    stack: Stack
    provider: ProviderProcess
    load: Load
    chance: random.Random
    small_disk: Path | None
    clock: Clock | None
    lost: set[str] = field(default_factory=set)
    touched: dict[str, int] = field(default_factory=dict)  # by code: the version that shows every consumer its gap
    late: list[str] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)
    _upgraded: bool = False

    def __post_init__(self) -> None:
        if self.clock is None:
            self.not_run["clock stepped"] = "libfaketime is not installed (Debian: faketime)"
        if self.small_disk is None:
            self.not_run["disk full"] = "a small disk can be mounted by root alone"

    def all(self) -> list[Fault]:
        kafka = self.stack.bus == "kafka"
        keeping = Keeping(self.stack, self.load.ledger, self.late)
        everything = frozenset({*self.stack.processes, "postgres", "copies", "keys"})
        faults = [
            *(self._of_process(name, process) for name, process in self.stack.processes.items()),
            *(self._stopped(name, process) for name, process in self.stack.processes.items()),
            Fault("kill postgres", frozenset({"postgres"}), self._kill_postgres, 2.0, kills=True),
            Fault("connections cut", frozenset({"postgres"}), self._cut_connections),
            Fault("broker paused", frozenset({"bus"}), self._pause_broker),
            Fault("bus loses records", frozenset({"bus", "copies", "postgres"}), self._lose_records, 1.5),
            Fault("records again, in disorder", frozenset({"copies", "postgres"}), self._copy_records, 2.0),
            Fault("provider slow", frozenset({"provider"}), lambda: self._provider(6, delay=2.0), 0.7),
            Fault("provider answers 503", frozenset({"provider"}), lambda: self._provider(6, status=503), 0.7),
            Fault("provider hangs", frozenset({"provider"}), lambda: self._provider(8, hangs=True), 0.7),
            Fault("provider refuses connections", frozenset({"provider"}), self._provider_away, 0.7),
            Fault("receipts twice", frozenset({"provider"}), lambda: self._provider(4, receipts=2), 0.7),
            Fault("receipts before the answer", frozenset({"provider"}), lambda: self._provider(4, early=True), 0.7),
            Fault("rolling restart", frozenset(self.stack.processes), self._rolling_restart, 0.7),
            Fault("keys changed", frozenset({"keys"}), keeping.change_keys, 0.5),
            Fault("brought back from a backup", everything, keeping.bring_back, 0.5),
        ]
        if self.stack.earlier is not None:
            faults.append(Fault("rolling upgrade", frozenset({*self.stack.processes, "postgres"}), self._upgrade))
        if kafka:
            faults += [
                Fault("kill broker", frozenset({"bus"}), self._kill_kafka, 2.0, kills=True),
                Fault("broker emptied", frozenset({"bus", "copies"}), self._empty_kafka, 1.0, kills=True),
                Fault("topics deleted", frozenset({"bus", "copies"}), self._delete_topics),
            ]
        else:
            faults.append(Fault("kill broker, it is empty", frozenset({"bus"}), self._kill_broker, 3.0, kills=True))
        if self.small_disk is not None:
            faults.append(Fault("disk full", frozenset({"postgres"}), self._fill_disk, 0.7))
        if self.clock is not None:
            faults.append(Fault("clock stepped", frozenset({"clock"}), self._step_clock))
        return faults

    # -- processes

    def _of_process(self, name: str, process: Process) -> Fault:
        return Fault(f"kill {name}", frozenset({name}), process.kill, 1.5, kills=True)

    def _stopped(self, name: str, process: Process) -> Fault:
        async def strike() -> None:
            stopped = process.process
            process.signal(signal.SIGSTOP)
            await asyncio.sleep(SESSION + self.chance.uniform(1, 3))
            if process.process is stopped:
                process.signal(signal.SIGCONT)

        return Fault(f"stop {name} past its session", frozenset({name}), strike, 0.5)

    async def _rolling_restart(self, *, ours: bool = True) -> None:
        """SIGTERM each in turn, as an upgrade does; the next one only when the one before is ready. `ours`: what ends is of
        this version, and is judged by how long it takes."""
        for name, process in self.stack.processes.items():
            old = process.process
            process.signal(signal.SIGTERM)
            began = time.monotonic()
            assert old is not None
            try:
                async with asyncio.timeout(10):
                    await old.wait()
            except TimeoutError:
                if ours:
                    self.late.append(f"{name} did not end within 10 s of SIGTERM")
                await process.kill()
            while process.process is old and time.monotonic() < began + 30:
                await asyncio.sleep(0.05)
            with contextlib.suppress(RuntimeError, TimeoutError):
                await process.ready(self.stack.http, 30)

    async def _upgrade(self) -> None:
        """The migrations of the next version while the one before still works, then one process after another."""
        await self.stack.lienthong("migrate")
        first, self._upgraded = not self._upgraded, True
        self.stack.upgrade()
        await self._rolling_restart(ours=not first)

    async def _step_clock(self) -> None:
        """Minutes forward or back, and after some seconds right again, which is a step as well."""
        assert self.clock is not None
        self.clock.step(self.chance.choice((-1, 1)) * self.chance.randrange(60, 900))
        await asyncio.sleep(self.chance.uniform(3, 6))
        self.clock.step(0)

    # -- the database

    async def _kill_postgres(self) -> None:
        assert self.stack.postgres.pid is not None
        os.kill(self.stack.postgres.pid, signal.SIGKILL)

    async def _cut_connections(self) -> None:
        connection = await asyncpg.connect(self.stack.database_url)
        try:
            rows = await connection.fetch("SELECT pid FROM pg_stat_activity WHERE application_name = 'lienthong'")
            chosen = [row["pid"] for row in rows if self.chance.random() < 0.6]
            await connection.execute("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) pid", chosen)
        finally:
            await connection.close()

    async def _fill_disk(self) -> None:
        """Nothing more can be written where the database is, for some seconds."""
        assert self.small_disk is not None
        filler = self.small_disk / "filler"

        def fill() -> None:
            with filler.open("wb", buffering=0) as file:
                end, piece = 0, 1 << 30
                while piece >= 1 << 12:
                    try:
                        os.posix_fallocate(file.fileno(), end, piece)
                        end += piece
                    except OSError as error:
                        if error.errno != errno.ENOSPC:
                            raise
                        piece >>= 1

        await asyncio.to_thread(fill)
        await asyncio.sleep(self.chance.uniform(2, 4))
        filler.unlink()

    # -- the bus

    async def _kill_broker(self) -> None:
        assert self.stack.broker is not None
        assert self.stack.broker.pid is not None
        os.kill(self.stack.broker.pid, signal.SIGKILL)

    async def _kill_kafka(self) -> None:
        assert self.stack.kafka is not None
        broker = self.stack.kafka.brokers[0]
        await self.stack.kafka.kill(broker)
        await self.stack.kafka.start_broker(broker)

    async def _empty_kafka(self) -> None:
        assert self.stack.kafka is not None
        await self.stack.kafka.empty(self.stack.kafka.brokers[0])

    async def _delete_topics(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.stack.bootstrap)
        await admin.start()
        try:
            await admin.delete_topics(list(TOPICS))
        finally:
            await admin.close()

    def _broker_pid(self) -> int:
        if self.stack.kafka is not None:
            process = self.stack.kafka.brokers[0].process
            assert process is not None
            return process.pid
        assert self.stack.broker is not None
        assert self.stack.broker.pid is not None
        return self.stack.broker.pid

    async def _pause_broker(self) -> None:
        pid = self._broker_pid()
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(self.chance.uniform(1, 5))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    async def _lose_records(self) -> None:
        """Records that the bus has confirmed are gone from it (a follower that had not seen them was elected): they are
        taken from the outbox unsent. Each of these dossiers then has one event more, which shows the gap."""
        pid = self._broker_pid()
        taken: list[asyncpg.Record] = []
        os.kill(pid, signal.SIGSTOP)
        try:
            connection = await asyncpg.connect(self.stack.database_url)
            try:
                await asyncio.sleep(1.0)  # what is written meanwhile cannot leave the outbox
                end = time.monotonic() + 5.0
                while not taken and time.monotonic() < end:
                    await asyncio.sleep(0.2)
                    rows = await connection.fetch(
                        "DELETE FROM intake.outbox WHERE position IN (SELECT o.position FROM intake.outbox o"
                        " JOIN intake.event e USING (position) WHERE e.aggregatetype = 'dossier'"
                        " ORDER BY o.position DESC LIMIT 6) RETURNING position"
                    )
                    taken = await connection.fetch(
                        "SELECT id, aggregateid FROM intake.event WHERE position = ANY ($1::bigint[])",
                        [row["position"] for row in rows],
                    )
            finally:
                await connection.close()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self.lost |= {str(row["id"]) for row in taken}
        for code in sorted({row["aggregateid"] for row in taken}):
            if (version := await self.load.touch(code)) is not None:
                self.touched[code] = version

    async def _copy_records(self) -> None:
        """Events that were published before come again, in no order at all."""
        connection = await asyncpg.connect(self.stack.database_url)
        try:
            rows = []
            for owner, families in (
                ("intake", ["dossier", "contact"]),
                ("routing", ["transfer"]),
                ("notify", ["notice"]),
            ):
                rows += await connection.fetch(
                    "SELECT id, aggregatetype, aggregateid, type, payload, sequence, source, happened, recorded, mode"
                    f" FROM {owner}.event e WHERE aggregatetype = ANY ($1::text[])"
                    f" AND NOT EXISTS (SELECT 1 FROM {owner}.outbox o WHERE o.position = e.position)"
                    " ORDER BY position DESC LIMIT 300",
                    families,
                )
        finally:
            await connection.close()
        chosen = self.chance.sample(rows, min(len(rows), 150))
        producer = AIOKafkaProducer(bootstrap_servers=self.stack.bootstrap, acks="all")
        await producer.start()
        try:
            for row in chosen:
                envelope = envelope_of(row)
                key, value, headers = encode(envelope)
                await producer.send(envelope.topic, value=value, key=key, headers=[*headers, (COPY, b"1")])
            await producer.flush()
        finally:
            with contextlib.suppress(KafkaError):
                await producer.stop()

    # -- the provider

    async def _provider(self, seconds: float, **mode: object) -> None:
        await self.provider.behave(**mode)
        await asyncio.sleep(seconds)
        await self.provider.behave()

    async def _provider_away(self) -> None:
        await self.provider.kill()
        await asyncio.sleep(self.chance.uniform(2, 5))
        await self.provider.start()
