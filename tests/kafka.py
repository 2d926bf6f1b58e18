"""Apache Kafka for tests and benchmarks: its Maven artifacts, KRaft, one or three brokers, started and ended by us.

Needs Java 17 and Maven. The jars are fetched once into a cache folder (LIENTHONG_KAFKA_HOME, else the user's cache).
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
from base64 import urlsafe_b64encode
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from tests.ports import free_port

POM = Path(__file__).parent.parent / "deploy" / "kafka" / "pom.xml"
VERSION = re.findall(r"<kafka.version>(.*)</kafka.version>", POM.read_text())[0]

_LOG = """status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %m (%c)%n
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = console
"""


ADMIN, ADMIN_PASSWORD = "admin", "admin-secret"


@dataclass(frozen=True)
class Door:
    """A listener for lower sites, by TLS and login: its port here, how they are told to dial it, the broker's key and
    certificate."""

    at: int
    host: str
    port: int
    store: Path
    password: str


def _secured(broker: "Broker", door: "Door | None") -> dict[str, str]:
    """The controller's listener is on loopback and knows nobody by name; it alone is let in without."""
    login = f'org.apache.kafka.common.security.scram.ScramLoginModule required username="{ADMIN}" '
    scram = f'{login}password="{ADMIN_PASSWORD}";'
    listeners = [f"SASL_PLAINTEXT://127.0.0.1:{broker.port}", f"CONTROLLER://127.0.0.1:{broker.controller_port}"]
    advertised = [f"SASL_PLAINTEXT://127.0.0.1:{broker.port}"]
    lines: dict[str, str] = {}
    if door is not None:
        listeners.append(f"LINES://127.0.0.1:{door.at}")
        advertised.append(f"LINES://{door.host}:{door.port}")
        lines = {
            "listener.name.lines.ssl.keystore.type": "PKCS12",
            "listener.name.lines.ssl.keystore.location": str(door.store),
            "listener.name.lines.ssl.keystore.password": door.password,
            "listener.name.lines.ssl.key.password": door.password,
            "listener.name.lines.scram-sha-512.sasl.jaas.config": scram,
        }
    return {
        "listeners": ",".join(listeners),
        "advertised.listeners": ",".join(advertised),
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,LINES:SASL_SSL",
        "inter.broker.listener.name": "SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
        "listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config": scram,
        **lines,
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:{ADMIN};User:ANONYMOUS",
        "allow.everyone.if.no.acl.found": "false",
    }


class KafkaUnavailable(Exception):
    """Java 17 and Maven are needed; the message says what is missing."""


def libraries() -> Path:
    """The folder with Kafka's jars; fetched by Maven the first time."""
    for tool, package in (("java", "openjdk-17-jre-headless"), ("mvn", "maven")):
        if shutil.which(tool) is None:
            raise KafkaUnavailable(f"{tool} is not installed (Debian: {package})")
    home = Path(os.environ.get("LIENTHONG_KAFKA_HOME", Path.home() / ".cache" / "lienthong" / f"kafka-{VERSION}"))
    done = home / "complete"
    if not done.exists():
        home.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["mvn", "-q", "-B", "-f", POM, "dependency:copy-dependencies", f"-DoutputDirectory={home / 'libs'}"],
            cwd=home,
            check=True,
        )
        (home / "log4j2.properties").write_text(_LOG)
        done.touch()
    return home


@dataclass
class Broker:
    """One broker (and controller) of a cluster."""

    number: int
    port: int
    controller_port: int
    folder: Path
    process: "asyncio.subprocess.Process | None" = None


@dataclass
class Kafka:
    """A KRaft cluster on loopback. `heap` in MB. `secured`: clients log in by SCRAM, and what nobody allows is denied; the
    administrator is ADMIN with ADMIN_PASSWORD."""

    data: Path
    size: int = 1
    heap: int = 512
    secured: bool = False
    door: Door | None = None
    brokers: list[Broker] = field(default_factory=list)
    cluster: str = field(default_factory=lambda: urlsafe_b64encode(uuid4().bytes).decode()[:22])

    @property
    def bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{broker.port}" for broker in self.brokers)

    async def start(self) -> str:
        self.brokers = [Broker(n, free_port(), free_port(), self.data / f"broker-{n}") for n in range(1, self.size + 1)]
        voters = ",".join(f"{b.number}@127.0.0.1:{b.controller_port}" for b in self.brokers)
        for broker in self.brokers:
            broker.folder.mkdir(parents=True, exist_ok=True)
            (broker.folder / "server.properties").write_text(self._properties(broker, voters))
            await self._format(broker)
        await asyncio.gather(*(self.start_broker(broker) for broker in self.brokers))
        return self.bootstrap

    async def _format(self, broker: Broker) -> None:
        configuration = str(broker.folder / "server.properties")
        tool = ("kafka.tools.StorageTool", "format", "--cluster-id", self.cluster, "-c", configuration)
        scram = ("--add-scram", f"SCRAM-SHA-512=[name={ADMIN},password={ADMIN_PASSWORD}]") if self.secured else ()
        await self._java(libraries(), broker, *tool, *scram, wait=True)

    async def empty(self, broker: Broker) -> None:
        """kill -9 and another disk: it comes back with nothing, groups and topics are gone."""
        await self.kill(broker)
        shutil.rmtree(broker.folder / "logs")
        await self._format(broker)
        await self.start_broker(broker)

    async def start_broker(self, broker: Broker) -> None:
        """Starts one broker on its folder and waits until it takes connections."""
        broker.process = await self._java(libraries(), broker, "kafka.Kafka", str(broker.folder / "server.properties"))
        async with asyncio.timeout(90):
            while True:
                if broker.process.returncode is not None:
                    raise RuntimeError(f"Kafka ended: see {broker.folder / 'kafka.log'}")
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", broker.port)
                    writer.close()
                    await writer.wait_closed()
                    break
                await asyncio.sleep(0.1)

    async def kill(self, broker: Broker) -> None:
        """kill -9."""
        assert broker.process is not None
        with suppress(ProcessLookupError):
            broker.process.send_signal(signal.SIGKILL)
        await broker.process.wait()

    async def stop(self) -> None:
        for broker in self.brokers:
            if broker.process is not None and broker.process.returncode is None:
                await self.kill(broker)  # its folder is thrown away: nothing is gained by waiting for it

    def _properties(self, broker: Broker, voters: str) -> str:
        replicas = min(3, self.size)
        return "\n".join(
            f"{name}={value}"
            for name, value in {
                "process.roles": "broker,controller",
                "node.id": broker.number,
                "controller.quorum.voters": voters,
                "listeners": f"PLAINTEXT://127.0.0.1:{broker.port},CONTROLLER://127.0.0.1:{broker.controller_port}",
                "advertised.listeners": f"PLAINTEXT://127.0.0.1:{broker.port}",
                "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
                "controller.listener.names": "CONTROLLER",
                "log.dirs": broker.folder / "logs",
                "auto.create.topics.enable": "false",
                "offsets.topic.replication.factor": replicas,
                "offsets.topic.num.partitions": 8,
                "transaction.state.log.replication.factor": replicas,
                "transaction.state.log.min.isr": max(1, replicas - 1),
                "share.coordinator.state.topic.replication.factor": replicas,
                "share.coordinator.state.topic.min.isr": max(1, replicas - 1),
                "group.initial.rebalance.delay.ms": 0,
                "broker.session.timeout.ms": 2000,
                "broker.heartbeat.interval.ms": 500,
                "log.segment.bytes": 64 << 20,
                **(_secured(broker, self.door) if self.secured else {}),
            }.items()
        )

    async def _java(
        self, home: Path, broker: Broker, main: str, *arguments: str, wait: bool = False
    ) -> "asyncio.subprocess.Process":
        with (broker.folder / "kafka.log").open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                "java",
                f"-Xmx{self.heap}m",
                f"-Xms{self.heap // 2}m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",  # it lives for minutes: half of its CPU went into compiling better
                f"-Dlog4j2.configurationFile={home / 'log4j2.properties'}",
                "-cp",
                f"{home / 'libs'}/*",
                main,
                *arguments,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        if wait and await process.wait() != 0:
            raise RuntimeError(f"{main} failed: see {broker.folder / 'kafka.log'}")
        return process
