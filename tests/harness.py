"""What the tests stand on: a PostgreSQL and a bus for the whole run, a fresh database and a fresh prefix for each test.

By default both are the embedded ones. LIENTHONG_TEST_DATABASE_URL (a role that may create databases) and
LIENTHONG_TEST_BUS (host:port of an Apache Kafka) put others in their place: the suite is the same.
"""

import asyncio
import contextlib
import hashlib
import inspect
import itertools
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from deploy.demo.sample import SAMPLE
from deploy.embedded.broker import EmbeddedBroker, make_topics
from deploy.embedded.postgres import EmbeddedPostgres
from deploy.serving import HttpServer, listen
from shared.bus.connection import BusSettings
from shared.bus.publisher import create_topics
from shared.bus.topic_ids import partitions_of
from shared.contracts.envelope import Envelope, encode
from shared.contracts.events import TOPICS
from shared.directory.reading import load_bundle
from shared.directory.store import load
from shared.security.keys import load_keys
from shared.security.tokens import Role, Tokens
from shared.security.trust import trusted
from shared.service import Service
from shared.settings import Settings
from shared.store.grants import service_url
from shared.store.migrations import migrate
from tests.ports import free_port

Make = Callable[[dict[str, Any]], Service]
Schemas = Mapping[str, tuple[str, ...]]

PARTITIONS = 3
LONG = 90.0  # seconds that a condition may take on a busy machine
# Nothing that a test answers has to outlive the machine's power.
FAST = {"fsync": "off", "full_page_writes": "off", "max_connections": "100"}


async def until(condition: Callable[[], Any], timeout: float = LONG, what: str | Callable[[], object] = "") -> Any:
    """Waits until the condition holds, and returns what it returned; `what` says how things stand if it never does."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            while True:
                found = condition()
                value = await found if inspect.isawaitable(found) else found
                if value:
                    return value
                await asyncio.sleep(0.01)
    stand = what() if callable(what) else what
    raise AssertionError(f"not within {timeout} s: {stand or inspect.getsource(condition).strip()}")


class Backing:
    """The PostgreSQL and the bus of a whole run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = folder / "keys"
        self.bootstrap = os.environ.get("LIENTHONG_TEST_BUS", "")
        self.url = os.environ.get("LIENTHONG_TEST_DATABASE_URL", "")
        self.embedded = not self.bootstrap
        self.broker: EmbeddedBroker | None = None
        self.prefixes: set[str] = set()
        self._postgres: EmbeddedPostgres | None = None
        self._watch: asyncio.Task[None] | None = None
        self._templates: dict[str, str] = {}
        self._count = itertools.count(1)
        self._run = secrets.token_hex(3)

    async def start(self) -> None:
        if not self.url:
            self._postgres = EmbeddedPostgres(self.folder, free_port(), settings=FAST)
            self.url = await self._postgres.start()
        if not self.bootstrap:
            self.broker = EmbeddedBroker(self.folder, free_port(), restart_above_mb=4000, prepare=self._make_all_topics)
            self.bootstrap = await self.broker.start()
            self._watch = asyncio.create_task(self.broker.watch())

    async def stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self.broker is not None:
            await self.broker.stop()
        for template in self._templates.values():
            await self._execute(f"DROP DATABASE IF EXISTS {template}")
        if self._postgres is not None:
            await self._postgres.stop()

    # -- databases

    async def database(self, schemas: Schemas) -> str:
        """The URL of a fresh database with these schemas and the sample province's directory."""
        template = await self._template(schemas)
        name = f"test_{self._run}_{next(self._count)}"
        await self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self._url(name)

    async def drop_database(self, url: str) -> None:
        await self._execute(f"DROP DATABASE IF EXISTS {urlsplit(url).path[1:]} WITH (FORCE)")

    async def _template(self, schemas: Schemas) -> str:
        name = hashlib.sha256(repr(sorted(schemas.items())).encode()).hexdigest()[:12]
        if name not in self._templates:
            database = f"template_{self._run}_{name}"
            await self._execute(f"CREATE DATABASE {database}")
            connection = await asyncpg.connect(self._url(database))
            try:
                for schema, packages in schemas.items():
                    await migrate(connection, schema, packages)
                await load(connection, load_bundle(SAMPLE), who="test")
            finally:
                await connection.close()
            self._templates[name] = database
        return self._templates[name]

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def _url(self, database: str) -> str:
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{database}"))

    # -- the bus

    def bus(self, prefix: str) -> BusSettings:
        return BusSettings(self.bootstrap, prefix=prefix, partitions=PARTITIONS, groups=not self.embedded)

    async def topics(self) -> str:
        """A fresh prefix with all topics of the contract."""
        prefix = f"t{self._run}{next(self._count)}."
        self.prefixes.add(prefix)
        await create_topics(self.bus(prefix), list(TOPICS))
        return prefix

    async def drop_topics(self, prefix: str) -> None:
        self.prefixes.discard(prefix)
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            await admin.delete_topics([prefix + name for name in TOPICS])
        finally:
            await admin.close()

    async def empty_bus(self, prefix: str) -> None:
        """Everything on the bus is lost: the embedded broker is killed, and is back empty; on Kafka the topics go."""
        if self.broker is None:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
            await admin.start()
            try:
                await admin.delete_topics([prefix + name for name in TOPICS])
            finally:
                await admin.close()
            return
        restarts, pid = self.broker.restarts, self.broker.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        broker = self.broker
        await until(lambda: broker.restarts > restarts and broker.alive)

    async def _make_all_topics(self, bootstrap: str) -> None:
        if self.prefixes:
            await make_topics(bootstrap, {prefix + name: PARTITIONS for prefix in self.prefixes for name in TOPICS})


@contextlib.asynccontextmanager
async def backing_for_a_run() -> AsyncIterator[Backing]:
    folder = Path(tempfile.mkdtemp(prefix="lienthong-tests-"))
    backing = Backing(folder)
    try:
        await backing.start()
        yield backing
    finally:
        await backing.stop()
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class BusRecord:
    """A record as it lies on the bus; `topic` without the prefix."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    @property
    def header(self) -> dict[str, str]:
        return {name: content.decode() for name, content in self.headers}

    @property
    def sequence(self) -> int:
        return int(self.header["ce_sequence"])


class RawBus:
    """Reads and writes the bus by hand, past everything that the services do."""

    def __init__(self, settings: BusSettings) -> None:
        self._settings = settings

    async def send(
        self, *records: Envelope | tuple[str, bytes | None, bytes | None, Sequence[tuple[str, bytes]]]
    ) -> None:
        """Puts envelopes, or (topic, key, value, headers), on their topics in this order."""
        producer = AIOKafkaProducer(bootstrap_servers=self._settings.bootstrap, acks="all", max_request_size=8 << 20)
        await producer.start()
        try:
            for record in records:
                if isinstance(record, Envelope):
                    key, value, headers = encode(record)
                    topic = record.topic
                else:
                    topic, key, value, headers = record  # type: ignore[assignment]
                await producer.send_and_wait(self._settings.topic(topic), value=value, key=key, headers=list(headers))
        finally:
            await producer.stop()

    async def records(self, topic: str) -> list[BusRecord]:
        """Everything that is on a topic now, each partition in its order."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.bootstrap, enable_auto_commit=False, fetch_max_wait_ms=20
        )
        await consumer.start()
        found: list[BusRecord] = []
        try:
            partitions: list[TopicPartition] = await partitions_of(consumer._client, [self._settings.topic(topic)])
            if not partitions:
                return []
            consumer.assign(partitions)
            await consumer.seek_to_beginning()
            # What a fetch says of the end, for the embedded broker lists another one.
            while not all([await _is_read(consumer, partition) for partition in partitions]):
                for batch in (await consumer.getmany(timeout_ms=50)).values():
                    found += [BusRecord(topic, r.partition, r.offset, r.key, r.value, tuple(r.headers)) for r in batch]
        finally:
            await consumer.stop()
        return found


async def _is_read(consumer: AIOKafkaConsumer, partition: TopicPartition) -> bool:
    end = consumer.highwater(partition)
    return end is not None and await consumer.position(partition) >= end


class RunningSite:
    """Services in this process on free ports, their database and their bus."""

    def __init__(self, backing: Backing, database_url: str, prefix: str, told: dict[str, Any]) -> None:
        self.backing, self.database_url, self.prefix = backing, database_url, prefix
        self.service_url = database_url  # what the services are told
        self.bus = RawBus(backing.bus(prefix))
        self.services: dict[str, Service] = {}
        self.urls: dict[str, str] = {}
        self.database: asyncpg.Pool[asyncpg.Record]
        self._told = told
        self._tokens = Tokens(load_keys(backing.keys), "H55")
        self._servers: dict[str, HttpServer] = {}
        self._clients: list[httpx.AsyncClient] = []

    def settings(self, **more: Any) -> dict[str, Any]:
        """What the services of this site are told."""
        return {
            "site": "H55",
            "database_url": self.service_url,
            "keys_dir": self.backing.keys,
            "sent_file": self.backing.folder / f"sent-{self.prefix}ndjson",
            "postal_file": self.backing.folder / f"postal-{self.prefix}ndjson",
            "bus_bootstrap": self.backing.bootstrap,
            "bus_prefix": self.prefix,
            "bus_partitions": PARTITIONS,
            "bus_groups": not self.backing.embedded,
            "bus_idempotent": not self.backing.embedded,
            **{f"{name}_url": url for name, url in self.urls.items()},
            **self._told,
            **more,
        }

    def token(self, role: Role = Role.ADMIN, agency: str | None = None, *, subtree: bool = False) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._tokens.issue(role, agency=agency, subtree=subtree)}"}

    def client(
        self, service: str, role: Role | None = Role.ADMIN, agency: str | None = None, *, subtree: bool = False
    ) -> httpx.AsyncClient:
        """A client of one service with a token for the role; without a role, without a token. The site closes it."""
        headers = {} if role is None else self.token(role, agency, subtree=subtree)
        client = httpx.AsyncClient(
            base_url=self.urls[service], headers=headers, timeout=30.0, trust_env=False, verify=trusted()
        )
        self._clients.append(client)
        return client

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        return await self.database.fetch(query, *arguments)

    async def value(self, query: str, *arguments: Any) -> Any:
        return await self.database.fetchval(query, *arguments)

    async def until(
        self, condition: Callable[[], Any], timeout: float = LONG, what: str | Callable[[], object] = ""
    ) -> Any:
        return await until(condition, timeout, what)

    async def start(self, makes: Mapping[str, Make]) -> None:
        listeners = {name: listen(name, "127.0.0.1", 0) for name in makes}
        self.urls = {name: f"http://127.0.0.1:{listener.getsockname()[1]}" for name, listener in listeners.items()}
        self.database = await asyncpg.create_pool(self.database_url, min_size=1, max_size=4)
        self.service_url = await service_url(self.database_url)
        for name, make in makes.items():
            self.services[name] = make(self.settings())
        await asyncio.gather(*(service.start() for service in self.services.values()))
        for name, listener in listeners.items():
            self._servers[name] = HttpServer(self.services[name].asgi, listener)
            self._servers[name].start()
        await until(lambda: all(server.started for server in self._servers.values()))

    async def reading(self) -> None:
        """Waits until every consumer has its partitions."""
        consumers = [service.consumer for service in self.services.values() if service.consumer is not None]
        await until(lambda: all(consumer.assigned() for consumer in consumers))

    async def stop_service(self, name: str) -> None:
        await self._servers.pop(name).stop()
        await self.services.pop(name).stop()

    async def stop(self) -> None:
        for client in self._clients:
            await client.aclose()
        await asyncio.gather(*(server.stop() for server in self._servers.values()))
        await asyncio.gather(*(service.stop() for service in self.services.values()))
        await self.database.close()


@contextlib.asynccontextmanager
async def running_site(
    backing: Backing, makes: Mapping[str, Make], schemas: Schemas, **told: Any
) -> AsyncIterator[RunningSite]:
    """A site of these services on a fresh database and a fresh prefix; nothing of it is left behind."""
    tasks = asyncio.all_tasks()
    database_url = await backing.database(schemas)
    prefix = await backing.topics()
    site = RunningSite(backing, database_url, prefix, told)
    try:
        await site.start(makes)
        yield site
    finally:
        await site.stop()
        await backing.drop_database(database_url)
        await backing.drop_topics(prefix)
        await until(lambda: not _left(tasks), 5.0, lambda: f"tasks left behind: {_left(tasks)}")


def _left(before: set[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """Tasks that the site has left behind; the broker's watch, which makes new ones, is the run's."""
    new = asyncio.all_tasks() - before - {asyncio.current_task()}
    return [task for task in new if "OwnedProcess" not in repr(task.get_coro())]


def real_services(*names: str) -> tuple[dict[str, Make], dict[str, tuple[str, ...]]]:
    """How the project's own services are made, and their schemas."""
    from deploy.schema import schemas
    from deploy.site import create

    def made(name: str) -> Make:
        return lambda settings: create(name, settings)

    wanted = {schema: packages for schema, packages in schemas().items() if schema == "site" or schema in names}
    return {name: made(name) for name in names}, wanted


def toy_services(consumers: Sequence[str] = ("routing",)) -> tuple[dict[str, Make], Schemas]:
    """How the toy's services are made, and their schemas."""
    from tests.toy import app

    makes: dict[str, Make] = {"intake": lambda settings: app.owner(Settings(**settings))}
    if consumers:
        makes["routing"] = lambda settings: app.consumer(Settings(**settings))
    return makes, app.SCHEMAS
