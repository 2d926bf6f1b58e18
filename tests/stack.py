"""A site as a province runs it, for benchmarks and fault injection: PostgreSQL, a bus, and each service its own process."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import asyncpg
import httpx

from deploy.embedded.broker import EmbeddedBroker, make_topics
from deploy.embedded.postgres import EmbeddedPostgres
from shared.contracts.events import TOPICS
from shared.directory.reading import load_bundle
from shared.directory.store import load
from shared.security.keys import load_keys
from shared.security.tokens import Role, Tokens
from shared.service import SERVICES
from tests.kafka import Kafka
from tests.ports import free_port

COMMAND = Path(sys.executable).parent / "lienthong"
EARLIER = "PYTHONPATH"  # where Python looks before it finds the version that is installed
BusKind = Literal["embedded", "kafka"]
PARTITIONS = 3
STARTS_WITHIN = 180.0  # seconds, of eight processes on a busy machine; nothing is measured by it


@dataclass
class Process:
    """One service process and how to start it again. `name` is the service's; `command` what `run NAME` is given to; while
    `may_run` is not set, nobody who looks after it starts it again."""

    name: str
    port: int
    environment: dict[str, str]
    log: Path
    process: "asyncio.subprocess.Process | None" = None
    command: Sequence[str] = (str(COMMAND),)
    may_run: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_run.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                "run",
                self.name,
                "--port",
                str(self.port),
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    async def ready(self, http: httpx.AsyncClient, timeout: float = 60.0) -> float:
        """Waits until it answers /readyz with 200; how long that took, in seconds."""
        began = time.monotonic()
        async with asyncio.timeout(timeout):
            while True:
                assert self.process is not None
                if self.process.returncode is not None:
                    raise RuntimeError(f"{self.name} ended with {self.process.returncode}: see {self.log}")
                with suppress(httpx.HTTPError):
                    if (await http.get(f"{self.url}/readyz")).status_code == 200:
                        return time.monotonic() - began
                await asyncio.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self.process is not None:
            await self.process.wait()

    async def stop(self) -> None:
        """SIGTERM, and after ten seconds SIGKILL."""
        self.signal(signal.SIGTERM)
        if self.process is not None:
            try:
                async with asyncio.timeout(10):
                    await self.process.wait()
            except TimeoutError:
                await self.kill()


@dataclass
class Stack:
    """The whole site. `start` to `stop`; every part can be killed and started again.

    `replicas`: processes of each service; the second is `processes["intake-2"]`. The embedded broker has no groups: there
    one process of a service reads everything. `database` is where PostgreSQL has its files, by default below `data`.
    `given_bus`: a bus that is not ours to start; `users`: the name and password with which a service logs in to it.
    `earlier`: the files of an earlier version, which the site is made by and begins with, until `upgrade`.
    """

    data: Path
    bus: BusKind = "kafka"
    bundle: Path = Path(__file__).parent.parent / "deploy" / "demo" / "sample.yaml"
    kafka_size: int = 1
    settings: dict[str, str] = field(default_factory=dict)
    services: Sequence[str] = SERVICES
    replicas: Mapping[str, int] = field(default_factory=dict)
    command: Sequence[str] = (str(COMMAND),)
    database: Path | None = None
    postgres_settings: Mapping[str, str] = field(default_factory=dict)
    given_bus: str = ""
    users: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    earlier: Path | None = None
    postgres: EmbeddedPostgres = field(init=False)
    kafka: Kafka | None = None
    broker: EmbeddedBroker | None = None
    processes: dict[str, Process] = field(default_factory=dict)
    database_url: str = ""
    bootstrap: str = ""
    site: str = ""
    http: httpx.AsyncClient = field(init=False)
    tokens: Tokens = field(init=False)
    _watches: list["asyncio.Task[None]"] = field(default_factory=list)

    async def start(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        self.http = httpx.AsyncClient(timeout=60.0, limits=httpx.Limits(max_connections=256))
        settings = {"max_connections": "150", **self.postgres_settings}
        self.postgres = EmbeddedPostgres(self.database or self.data, free_port(), settings=settings)
        self.database_url = await self.postgres.start()
        if self.given_bus:
            self.bootstrap = self.given_bus
        elif self.bus == "kafka":
            self.kafka = Kafka(self.data / "kafka", self.kafka_size)
            self.bootstrap = await self.kafka.start()
        else:
            self.broker = EmbeddedBroker(self.data, free_port(), prepare=_all_topics)
            self.bootstrap = await self.broker.start()
        bundle = load_bundle(self.bundle)
        self.site = bundle.site.code
        self.tokens = Tokens(load_keys(self.data / "keys"), self.site)
        ports = {name: free_port() for name in SERVICES}
        environment = os.environ | {
            "LIENTHONG_SITE": self.site,
            "LIENTHONG_DATABASE_URL": self.database_url,
            "LIENTHONG_BUS_BOOTSTRAP": self.bootstrap,
            "LIENTHONG_BUS_IDEMPOTENT": str(self.bus == "kafka").lower(),
            "LIENTHONG_BUS_REPLICATION": str(min(3, self.kafka_size)),
            "LIENTHONG_KEYS_DIR": str(self.data / "keys"),
            "LIENTHONG_SENT_FILE": str(self.data / "sent.ndjson"),
            "LIENTHONG_POSTAL_FILE": str(self.data / "postal.ndjson"),
            "LIENTHONG_BUS_GROUPS": str(self.bus == "kafka").lower(),
            **{f"LIENTHONG_{name.upper()}_URL": f"http://127.0.0.1:{port}" for name, port in ports.items()},
            **self.settings,
        }
        if self.earlier is not None:
            environment[EARLIER] = str(self.earlier)
        await self._command(environment, "migrate")
        if self.earlier is None:
            connection = await asyncpg.connect(self.database_url)
            try:
                await load(connection, bundle, who="test")
            finally:
                await connection.close()
        else:
            await self._command(environment, "site", "load", str(self.bundle))
        for name in self.services:
            for number in range(1, self.replicas.get(name, 1) + 1):
                known = name if number == 1 else f"{name}-{number}"
                port = ports[name] if number == 1 else free_port()
                own = dict(environment)
                if name in self.users:
                    own["LIENTHONG_BUS_USERNAME"], own["LIENTHONG_BUS_PASSWORD"] = self.users[name]
                self.processes[known] = Process(name, port, own, self.data / f"{known}.log", command=self.command)
        await asyncio.gather(*(process.start() for process in self.processes.values()))
        await asyncio.gather(*(process.ready(self.http, STARTS_WITHIN) for process in self.processes.values()))

    async def lienthong(self, *arguments: str) -> bytes:
        """This version's command on the site, by the site's settings and the true clock: what it prints. Raises RuntimeError
        with its words."""
        given = next(iter(self.processes.values())).environment
        environment = {name: value for name, value in given.items() if name not in (EARLIER, "LD_PRELOAD")}
        return await self._command(environment, *arguments)

    def upgrade(self) -> None:
        """Whatever is started from now on is of this version."""
        for process in self.processes.values():
            process.environment.pop(EARLIER, None)

    def settings_are(self, **changed: str) -> None:
        """What is started from now on has these settings (environment)."""
        for process in self.processes.values():
            process.environment |= changed

    async def _command(self, environment: dict[str, str], *arguments: str) -> bytes:
        process = await asyncio.create_subprocess_exec(
            str(COMMAND), *arguments, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, complaint = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"lienthong {' '.join(arguments)}: {(output + complaint).decode()}")
        return output

    def token(self, role: Role = Role.ADMIN, agency: str | None = None, *, subtree: bool = False) -> dict[str, str]:
        token = self.tokens.issue(role, agency=agency, subtree=subtree, hours=24)
        return {"Authorization": f"Bearer {token}"}

    def url(self, service: str) -> str:
        return self.processes[service].url

    def urls(self, service: str) -> list[str]:
        """Of every process of the service."""
        return [process.url for process in self.processes.values() if process.name == service]

    def keep_up(self) -> None:
        """From now on PostgreSQL and the embedded broker are brought back whenever they die, as `lienthong up` does."""
        watches = [self.postgres.watch] + ([self.broker.watch] if self.broker is not None else [])
        self._watches += [asyncio.create_task(watch()) for watch in watches]

    async def stop(self) -> None:
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        await asyncio.gather(*(process.stop() for process in self.processes.values()))
        await self.http.aclose()
        if self.kafka is not None:
            await self.kafka.stop()
        if self.broker is not None:
            await self.broker.stop()
        await self.postgres.stop()


async def _all_topics(bootstrap: str) -> None:
    """The embedded broker has its topics before any client can name them."""
    await make_topics(bootstrap, dict.fromkeys(TOPICS, PARTITIONS))
