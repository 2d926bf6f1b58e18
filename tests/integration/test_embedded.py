"""The embedded database and broker as an operator meets them: started, stopped, killed, on taken folders and ports."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deploy.embedded.broker import ClientCameFirst, EmbeddedBroker, make_topics
from deploy.embedded.postgres import EmbeddedPostgres
from deploy.embedded.process import DataInUse, PortTaken, running_in
from tests.ports import free_port

TOPIC = "lienthong.dossier.v1"
PARTITIONS = 3

# What the children of the tests run: a site's two programs until a signal comes. Its first line says that both are up.
SITE = """
import asyncio, json, os, signal, sys
from pathlib import Path
from deploy.embedded.broker import EmbeddedBroker
from deploy.embedded.postgres import EmbeddedPostgres

folder, database_port, bus_port, mode = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
if mode == "unprivileged":
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)

async def main():
    postgres, broker = EmbeddedPostgres(folder, database_port), EmbeddedBroker(folder, bus_port)
    if mode == "leaves-orphans":  # as if the kernel had not told the programs of our death
        postgres._process._on_our_death = broker._process._on_our_death = signal.SIGCONT
    url = await postgres.start()
    await broker.start()
    watches = [asyncio.ensure_future(part.watch()) for part in (postgres, broker)]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print(json.dumps({"url": url, "pids": [postgres.pid, broker.pid]}), flush=True)
    await stop.wait()
    for watch in watches:
        watch.cancel()
    await postgres.stop()
    await broker.stop()

asyncio.run(main())
"""


async def eventually(condition: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def gone(pid: int) -> bool:
    """Ended; a zombie that the system's init has not fetched yet does nothing any more."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextlib.asynccontextmanager
async def watched(part: EmbeddedPostgres | EmbeddedBroker) -> AsyncIterator[None]:
    """Under supervision inside, and gone afterwards."""
    watch = asyncio.ensure_future(part.watch())
    try:
        yield
    finally:
        await part.stop()
        await asyncio.wait_for(watch, 10)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that only its owner may enter, as an operator's home is."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name) / "site"


@contextlib.contextmanager
def site(folder: Path, mode: str = "plain") -> Iterator[tuple[subprocess.Popen[str], str, list[int]]]:
    """A Python process that owns both programs."""
    parent = subprocess.Popen(
        [sys.executable, "-c", SITE, str(folder), str(free_port()), str(free_port()), mode],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert parent.stdout is not None
        up = json.loads(parent.stdout.readline())
        yield parent, up["url"], up["pids"]
    finally:
        parent.kill()
        parent.communicate()


async def keep(url: str, value: int) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (value int)")
    await connection.execute("INSERT INTO kept VALUES ($1)", value)
    await connection.close()


async def kept(url: str) -> list[int]:
    connection = await asyncpg.connect(url)
    rows = await connection.fetch("SELECT value FROM kept ORDER BY value")
    await connection.close()
    return [row["value"] for row in rows]


async def test_postgres_keeps_its_data_and_leaves_no_process(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder, free_port())
    url = await postgres.start()
    await keep(url, 1)
    pid = postgres.pid
    await postgres.stop()
    assert not postgres.alive
    assert pid is not None
    assert gone(pid)
    assert running_in(folder / "postgres", "postgres") == []

    again = EmbeddedPostgres(folder, free_port())
    assert await kept(await again.start()) == [1]
    await again.stop()
    await again.stop()


async def test_postgres_is_durable_and_speaks_utf8(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder, free_port(), settings={"work_mem": "12MB"})
    connection = await asyncpg.connect(await postgres.start())
    shown = {
        name: await connection.fetchval("SELECT current_setting($1)", name)
        for name in ("synchronous_commit", "fsync", "jit", "work_mem", "server_encoding", "TimeZone")
    }
    lower = await connection.fetchval("SELECT lower('ĐẶNG')")
    await connection.close()
    await postgres.stop()
    assert shown == {
        "synchronous_commit": "on",
        "fsync": "on",
        "jit": "off",
        "work_mem": "12MB",
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
    }
    assert lower == "đặng"


async def test_postgres_asks_for_the_password(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder, free_port())
    url = await postgres.start()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(url, password="guessed")
    await postgres.stop()
    assert (folder / "postgres.password").stat().st_mode & 0o777 == 0o600


async def test_postgres_logs_nothing_of_a_statement(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder, free_port())
    url = await postgres.start()
    await keep(url, 1)
    connection = await asyncpg.connect(url)
    with pytest.raises(asyncpg.DataError):
        await connection.execute("SELECT 'Nông Văn Dền'::int")
    await connection.execute("CREATE UNIQUE INDEX ON kept (value)")
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute("INSERT INTO kept SELECT 1 WHERE 'Nông Văn Dền' = $1", "Nông Văn Dền")
    await connection.close()
    await postgres.stop()
    written = (folder / "logs" / "postgres.log").read_text()
    assert "ready to accept connections" in written
    assert "Nông" not in written
    assert "INSERT" not in written


async def test_killed_postgres_comes_back_with_its_data(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder, free_port())
    url = await postgres.start()
    async with watched(postgres):
        await keep(url, 1)
        busy = await asyncpg.connect(url)  # a dead postmaster's backend goes on with its statement
        sleep = asyncio.ensure_future(busy.execute("SELECT pg_sleep(600)"))
        assert postgres.pid is not None
        os.kill(postgres.pid, signal.SIGKILL)
        await eventually(lambda: postgres.restarts == 1)
        await keep(url, 2)
        assert await kept(url) == [1, 2]
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await sleep
        busy.terminate()
    assert running_in(folder / "postgres", "postgres") == []


async def test_stale_postmaster_pid_of_somebody_else_is_no_obstacle(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder, free_port())
    await postgres.start()
    await postgres.stop()
    (folder / "postgres" / "postmaster.pid").write_text(
        f"{os.getpid()}\n{folder / 'postgres'}\n0\n1\n\n127.0.0.1\n0\nready\n"
    )
    await postgres.start()
    assert postgres.alive
    await postgres.stop()


@pytest.mark.parametrize("mode", ["plain", "leaves-orphans"])
async def test_a_killed_site_starts_again_with_its_data_and_without_orphans(folder: Path, mode: str) -> None:
    with site(folder, mode) as (parent, url, pids):
        await keep(url, 7)
        parent.kill()
        parent.wait()
        if mode == "plain":
            await eventually(lambda: all(gone(pid) for pid in pids))
        else:
            assert not any(gone(pid) for pid in pids)
        with site(folder) as (again, new_url, new_pids):
            assert all(gone(pid) for pid in pids)
            assert await kept(new_url) == [7]
            again.terminate()
            assert again.wait(10) == 0
            assert all(gone(pid) for pid in new_pids)
    assert running_in(folder / "postgres", "postgres") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_it_runs_for_an_ordinary_user_too() -> None:
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, 65534, 65534)
        with site(Path(name), "unprivileged") as (parent, url, pids):
            await keep(url, 1)
            assert {psutil.Process(pid).uids().real for pid in pids} == {65534}
            parent.terminate()
            assert parent.wait(10) == 0
            assert all(gone(pid) for pid in pids)


async def test_a_folder_in_use_is_left_alone(folder: Path) -> None:
    with site(folder) as (parent, url, _):
        with pytest.raises(DataInUse, match=f"process {parent.pid}"):
            await EmbeddedPostgres(folder, free_port()).start()
        with pytest.raises(DataInUse):
            await EmbeddedBroker(folder, free_port()).start()
        await keep(url, 1)


async def test_a_taken_port_is_named(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as server:
        port = server.getsockname()[1]
        for part in (EmbeddedPostgres(folder, port), EmbeddedBroker(folder, port)):
            with pytest.raises(PortTaken, match=rf"port {port} .* by process {os.getpid()} .*--base-port"):
                await part.start()
            assert not part.alive


async def test_a_cancelled_start_leaves_nothing(folder: Path) -> None:
    async def never(_: str) -> None:
        await asyncio.Event().wait()

    broker = EmbeddedBroker(folder, free_port(), prepare=never)
    start = asyncio.ensure_future(broker.start())
    await eventually(lambda: broker.alive)
    assert broker.pid is not None
    pid = broker.pid
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert gone(pid)


async def make_topic(bootstrap: str) -> None:
    await make_topics(bootstrap, {TOPIC: PARTITIONS})


async def partitions(bootstrap: str) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    described = await admin.describe_topics([TOPIC])
    await admin.close()
    return len(described[0]["partitions"])


async def test_killed_broker_comes_back_on_its_port_with_its_topics(folder: Path) -> None:
    broker = EmbeddedBroker(folder, free_port(), prepare=make_topic)
    bootstrap = await broker.start()
    async with watched(broker):
        assert await partitions(bootstrap) == PARTITIONS
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        await eventually(lambda: broker.restarts == 1)
        assert await partitions(bootstrap) == PARTITIONS
    assert not broker.alive


async def test_a_topic_made_by_naming_it_is_not_kept(folder: Path) -> None:
    broker = EmbeddedBroker(folder, free_port())
    bootstrap = await broker.start()
    await name_topic(bootstrap)
    assert await partitions(bootstrap) != PARTITIONS
    with pytest.raises(ClientCameFirst):
        await make_topic(bootstrap)
    await broker.stop()


async def test_a_life_in_which_a_client_came_first_ends_at_once(folder: Path) -> None:
    lives = []

    async def prepare(bootstrap: str) -> None:
        lives.append(broker.pid)
        if len(lives) == 1:
            await name_topic(bootstrap)
        await make_topic(bootstrap)

    broker = EmbeddedBroker(folder, free_port(), prepare=prepare)
    bootstrap = await broker.start()
    assert len(set(lives)) == 2
    assert await partitions(bootstrap) == PARTITIONS
    await broker.stop()


async def test_records_confirmed_before_their_topic_was_made_end_the_life(folder: Path) -> None:
    broker = EmbeddedBroker(folder, free_port(), prepare=make_topic)
    bootstrap = await broker.start()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", metadata_max_age_ms=300_000)
    await producer.start()
    await producer.send_and_wait(TOPIC, b"before", key=b"H55.242")
    await broker.stop()

    bare = EmbeddedBroker(folder, int(bootstrap.rpartition(":")[2]))  # the producer still believes in the topic
    await bare.start()
    await asyncio.wait_for(producer.send_and_wait(TOPIC, b"into the void", key=b"H55.242"), 20)
    with pytest.raises(ClientCameFirst, match="has written"):
        await make_topic(bootstrap)
    await producer.stop()
    await bare.stop()


async def name_topic(bootstrap: str) -> None:
    """What a client that names an unknown topic brings about."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(TOPIC, 4, 1)])
    await admin.close()


async def fill(producer: AIOKafkaProducer, megabytes: int) -> None:
    for _ in range(megabytes):
        await asyncio.gather(*[producer.send_and_wait(TOPIC, bytes(100_000)) for _ in range(10)])


async def test_broker_restarts_empty_when_all_have_caught_up_and_its_clients_go_on(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caught_up = False

    async def answer() -> bool:
        return caught_up

    broker = EmbeddedBroker(folder, free_port(), restart_above_mb=32, caught_up=answer, prepare=make_topic)
    bootstrap = await broker.start()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", metadata_max_age_ms=5000)
    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=bootstrap,
        group_id="stats",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        metadata_max_age_ms=5000,
        heartbeat_interval_ms=500,
    )
    await producer.start()
    await consumer.start()
    async with watched(broker):
        try:
            await producer.send_and_wait(TOPIC, b"before", key=b"H55.242")
            assert (await asyncio.wait_for(consumer.getone(), 10)).value == b"before"
            await fill(producer, 40)
            assert broker.resident > 32 << 20
            assert broker.restarts == 0
            caught_up = True
            await eventually(lambda: broker.restarts == 1)
            caught_up = False
            assert broker.resident < 32 << 20
            await asyncio.wait_for(producer.send_and_wait(TOPIC, b"after", key=b"H55.242"), 20)
            while (record := await asyncio.wait_for(consumer.getone(), 30)).value != b"after":
                assert record.value == bytes(100_000)
            assert record.offset == 0
            errors = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
            assert [entry.name for entry in errors if entry.name.startswith("aiokafka")] == []
        finally:
            await consumer.stop()
            await producer.stop()


async def test_broker_is_restarted_above_its_hard_limit_whoever_lags(folder: Path) -> None:
    async def never() -> bool:
        return False

    broker = EmbeddedBroker(folder, free_port(), restart_above_mb=12, caught_up=never, prepare=make_topic)
    bootstrap = await broker.start()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, metadata_max_age_ms=5000)
    await producer.start()
    async with watched(broker):
        try:
            await fill(producer, 30)
            assert broker.restarts == 0
            await fill(producer, 25)
            await eventually(lambda: broker.restarts >= 1)
        finally:
            await producer.stop()
