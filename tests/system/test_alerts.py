"""A site of four processes under real Prometheus and Alertmanager: each cause is planted in turn, and the operator is told
of that cause and of nothing else. All windows of the rules are divided by one factor (LIENTHONG_ALERT_FACTOR; less on a machine
that has no time for it).
"""

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
import yaml
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from services.routing.link import BEGIN
from services.routing.wire import Way, control_record
from shared.bus.connection import BusSettings
from shared.contracts.codes import format_instant
from shared.contracts.events import link_topics
from shared.security.peers import Identity, canonical
from shared.security.tokens import Role
from tests.acceptance.linked import Proxy
from tests.detection import FOUND
from tests.harness import RawBus, until
from tests.observability import DEPLOY, Observability, needed
from tests.ports import free_port
from tests.stack import STARTS_WITHIN, Stack

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

PROVIDER_AWAY = "http://127.0.0.1:9/sms"
FACTOR = float(os.environ.get("LIENTHONG_ALERT_FACTOR", "20"))
BELOW = "H55.9001"  # a lower site, by hand
KEYS_DISK = 2200  # MB of the disk for the keys: DiskFull is told below 2048
BREAKS_ABOVE = 3  # parked events a minute


def test_rules_fire_for_their_cause_and_stay_quiet_without_it() -> None:
    assert not needed("promtool"), needed("promtool")
    for arguments in (("check", "rules", "rules.yaml"), ("test", "rules", "rules_test.yaml")):
        done = subprocess.run(["promtool", *arguments], cwd=DEPLOY / "prometheus", capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run(
        ["promtool", "check", "config", "prometheus.yaml"], cwd=DEPLOY / "prometheus", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def expiring(path: Path, days: int) -> None:
    """Puts a certificate there that ends so soon; at once, whoever reads it meanwhile."""
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bus")])
    now = datetime.now(UTC)
    certificate = x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + timedelta(days=days)).sign(
        key, None
    )
    new = path.with_suffix(".new")
    new.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    new.replace(path)


class Watched:
    """A site, its watchers, and what is planted in it."""

    def __init__(
        self,
        stack: Stack,
        watchers: Observability,
        database: "asyncpg.Pool[asyncpg.Record]",
        below: "Below",
        books: Proxy,
        storage: "Storage",
    ) -> None:
        self.stack, self.watchers, self.database = stack, watchers, database
        self.below, self.books, self.storage = below, books, storage
        self.detected: dict[str, dict[str, Any]] = {}

    async def quiet(self) -> None:
        """Nothing fires and nothing is about to: what still waits out its rule's time would be told under the next cause."""

        async def nothing() -> bool:
            return not self.watchers.webhook.firing and not await self.watchers.alerts()

        await until(nothing, 120.0, lambda: f"still firing: {self.watchers.webhook.firing}")

    async def sees(
        self,
        alert: str,
        cause: str,
        plant: Callable[[], Awaitable[object]],
        heal: Callable[[], Awaitable[object]],
        *,
        last: bool = False,
    ) -> None:
        """The cause is planted, its alert comes and no other, it is healed, and all is quiet again, unless it is the last."""
        await self.quiet()
        self.watchers.webhook.ever.clear()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await plant()
        try:
            await until(
                lambda: alert in self.watchers.webhook.firing, 300.0, lambda: f"told: {self.watchers.webhook.ever}"
            )
            self.detected[alert] = {
                "cause": cause,
                "seconds": round(loop.time() - began, 1),
                "factor": FACTOR,
            }
        finally:
            await heal()
        if not last:
            await self.quiet()
        assert set(self.watchers.webhook.ever) == {alert}

    async def receive(self, **more: object) -> str:
        answer = await self.stack.http.post(
            self.stack.url("intake") + "/v1/dossiers",
            headers=self.stack.token(Role.ADMIN),
            json={
                "procedure": "1.001193",
                "receiving_agency": "H55.242",
                "channel": "counter",
                "return_by": "counter",
                "applicant": {"kind": "citizen", "name": "Nguyễn Văn Mẫu", "phone": "0912345678"},
                **more,
            },
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["code"])

    @contextlib.asynccontextmanager
    async def desks(self, count: int) -> AsyncIterator[None]:
        """Desks at work meanwhile, whatever they are answered."""

        async def desk() -> None:
            while True:
                with contextlib.suppress(AssertionError, httpx.HTTPError):
                    await self.receive()
                await asyncio.sleep(0.2)

        working = [asyncio.create_task(desk()) for _ in range(count)]
        try:
            yield
        finally:
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def session(self, **settings: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        """Somebody's own session on the database; whatever it holds it holds no longer than this."""
        connection = await asyncpg.connect(self.stack.database_url, server_settings=settings)
        try:
            yield connection
        finally:
            await connection.close()

    async def received_everywhere(self) -> str:
        code = await self.receive()

        async def applied() -> bool:
            return bool(
                await self.database.fetchval(
                    "SELECT count(*) = 2 FROM (SELECT 1 FROM stats.inbox WHERE key = $1 AND topic = 'lienthong.dossier.v1'"
                    " UNION ALL SELECT 1 FROM routing.inbox WHERE key = $1) both_have_it",
                    code,
                )
            )

        await until(applied)
        return code


class Below:
    """A lower site, by hand: every other second it says over its line that it is there."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._stack = stack
        self.identity, self.stranger = (_identity(folder / name) for name in ("below", "stranger"))
        self.silent, self.offset = False, timedelta(0)
        self._way = Way(BELOW, "up", BELOW, stack.site)
        self._producer = AIOKafkaProducer(**BusSettings(stack.bootstrap).client(), request_timeout_ms=3000)
        self._tick = 0

    async def join(self) -> None:
        routing, headers = self._stack.url("routing"), self._stack.token(Role.OPERATOR)
        invited = await self._stack.http.post(f"{routing}/v1/links/invite", headers=headers, json={"site": BELOW})
        assert invited.status_code == 200, invited.text
        content = {
            "kind": "lienthong-reply",
            "site": BELOW,
            "name": "Xã Thử Nghiệm",
            "upper": self._stack.site,
            "keys": self.identity.announced,
            "ticket": invited.json()["ticket"],
        }
        reply = json.dumps({**content, "jws": self.identity.sign(canonical(content))})
        done = await self._stack.http.post(f"{routing}/v1/links/confirm", headers=headers, json={"text": reply})
        assert done.status_code == 200, done.text

        bus = RawBus(BusSettings(self._stack.bootstrap, groups=False))

        async def answered() -> bool:
            return bool(await bus.records(link_topics(BELOW)[1]))

        await until(answered)
        await self._producer.start()

    async def leave(self) -> None:
        await self._producer.stop()

    async def speak(self) -> None:
        while True:
            if not self.silent:
                with contextlib.suppress(KafkaError, OSError):
                    await self.say(self.identity)
            await asyncio.sleep(2)

    async def say(self, identity: Identity) -> None:
        self._tick += 1
        said = {
            "seen": {"epoch": 1, "number": 0, "chain": BEGIN, "asks": False},
            "sent": [1, 0],
            "clock": format_instant(datetime.now(UTC) + self.offset),
            "reaches": [],
            "complete": None,
            "digests": None,
        }
        record = control_record(identity, self._way, self._tick, said)
        await self._producer.send_and_wait(link_topics(BELOW)[0], record, partition=0)


def _identity(folder: Path) -> Identity:
    folder.mkdir()
    return Identity(BELOW, folder)


class Storage:
    """Where attachments lie: an answer of it may never end."""

    def __init__(self) -> None:
        self.port, self.drips = free_port(), False
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", self.port)

    async def stop(self) -> None:
        self.drips = False
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            if self.drips:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                while self.drips:
                    writer.write(b".")
                    await writer.drain()
                    await asyncio.sleep(1)
            else:
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await writer.drain()
        writer.close()


@contextlib.contextmanager
def disk_of_its_own(folder: Path) -> Iterator[Path]:
    """A small disk that can be filled without harm."""
    assert os.geteuid() == 0, "the keys get a disk of their own: run this as root"
    folder.mkdir(parents=True)
    options = f"size={KEYS_DISK}m,mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=False)


@pytest.fixture(scope="module")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    assert not needed("prometheus", "prometheus-alertmanager"), needed("prometheus", "prometheus-alertmanager")
    folder = tmp_path_factory.mktemp("watched")
    bundle = yaml.safe_load((DEPLOY / "demo" / "sample.yaml").read_text())
    bundle["quiet_hours"] = None
    file = folder / "bundle.yaml"
    file.write_text(yaml.safe_dump(bundle, allow_unicode=True))
    storage = Storage()
    await storage.start()
    stack = Stack(
        folder / "site",
        "embedded",
        bundle=file,
        settings={
            "LIENTHONG_RECONCILE_SECONDS": "2",
            "LIENTHONG_TICK_SECONDS": "1",
            "LIENTHONG_BREAKER_LIMIT": str(BREAKS_ABOVE),
            "LIENTHONG_ATTACHMENT_LONGEST": "3600",  # so that a storage whose answer never ends holds its loop
            "LIENTHONG_ATTACHMENT_ROOTS": json.dumps([f"http://127.0.0.1:{storage.port}/"]),
        },
    )
    async with contextlib.AsyncExitStack() as ends:
        ends.push_async_callback(storage.stop)
        ends.enter_context(disk_of_its_own(stack.data / "keys"))
        ends.push_async_callback(stack.stop)
        await stack.start()
        books = Proxy(int(stack.url("intake").rpartition(":")[2]))
        ends.callback(books.close)
        stats = stack.processes["stats"]
        await stats.stop()
        stats.environment["LIENTHONG_INTAKE_URL"] = f"http://127.0.0.1:{books.port}"
        await stats.start()
        await stats.ready(stack.http, STARTS_WITHIN)
        database = await asyncpg.create_pool(stack.database_url, min_size=1, max_size=2)
        ends.callback(database.terminate)
        below = Below(stack, folder)
        await below.join()
        ends.push_async_callback(below.leave)
        speaking = asyncio.create_task(below.speak())
        ends.push_async_callback(asyncio.wait, {speaking})
        ends.callback(speaking.cancel)
        targets = [process.url.removeprefix("http://") for process in stack.processes.values()]
        watchers = Observability(folder / "watchers", targets, FACTOR)
        ends.push_async_callback(watchers.stop)
        await watchers.start()
        site = Watched(stack, watchers, database, below, books, storage)
        await until(watchers.scraped, 60.0)
        yield site
        FOUND.parent.mkdir(exist_ok=True)
        before: dict[str, Any] = json.loads(FOUND.read_text()) if FOUND.exists() else {}
        FOUND.write_text(json.dumps(before | site.detected, indent=1, ensure_ascii=False) + "\n")


async def test_a_service_that_is_gone(watched: Watched) -> None:
    process = watched.stack.processes["notify"]

    async def again() -> None:
        await process.start()
        await process.ready(watched.stack.http)

    await watched.sees("ServiceDown", "notify is killed", process.kill, again)


async def test_a_bus_that_is_gone(watched: Watched) -> None:
    broker = watched.stack.broker
    assert broker is not None

    async def plant() -> None:
        await broker.stop()
        await watched.receive()

    await watched.sees("NotPublished", "the bus is stopped, a dossier is received", plant, broker.start)


async def test_a_database_that_is_gone(watched: Watched) -> None:
    postgres = watched.stack.postgres
    await watched.sees("DatabaseDown", "PostgreSQL is stopped", postgres.stop, postgres.start)


async def test_a_due_date_that_is_not_raised(watched: Watched) -> None:
    """Somebody holds the dossier's row in a transaction that does not end."""
    code = await watched.received_everywhere()
    holder = await asyncpg.connect(watched.stack.database_url)

    async def plant() -> None:
        await holder.execute("UPDATE intake.dossier SET next_tick = now() - interval '1 day' WHERE code = $1", code)
        await holder.execute("BEGIN")
        await holder.execute("SELECT 1 FROM intake.dossier WHERE code = $1 FOR UPDATE", code)

    async def heal() -> None:
        await holder.execute("ROLLBACK")
        await holder.execute("UPDATE intake.dossier SET next_tick = NULL WHERE code = $1", code)
        await holder.close()

    await watched.sees("NotRaised", "somebody holds an overdue dossier's row", plant, heal)


async def test_an_applicant_who_is_not_told(watched: Watched) -> None:
    """The only provider does not answer."""
    bundle = yaml.safe_load((watched.stack.bundle).read_text())
    before = bundle.get("providers", [{"name": "file", "kind": "file"}])

    async def load(providers: list[dict[str, Any]]) -> None:
        file = watched.stack.data / "providers.yaml"
        file.write_text(yaml.safe_dump(bundle | {"providers": providers}, allow_unicode=True))
        process = watched.stack.processes["intake"]
        done = await asyncio.create_subprocess_exec(
            *process.command, "site", "load", str(file), env=process.environment, stdout=asyncio.subprocess.DEVNULL
        )
        assert await done.wait() == 0

    async def plant() -> None:
        await load([{"name": "away", "kind": "http", "url": PROVIDER_AWAY, "secret": "x", "dedupes": True}])
        await watched.receive()

    await watched.sees("NotTold", "the only provider does not answer", plant, lambda: load(before))


async def test_a_dossier_that_waits_behind_a_bad_event(watched: Watched) -> None:
    code = await watched.received_everywhere()

    async def plant() -> None:
        assert watched.stack.bootstrap
        bus = RawBus(BusSettings(watched.stack.bootstrap, groups=False))
        headers = {
            "ce_id": "01926f3c-7a40-7c11-8a5e-3f1b2c4d5e6f",
            "ce_source": "/sites/H55/intake",
            "ce_type": "vn.lienthong.dossier.resolved.v1",
            "ce_specversion": "1.0",
            "ce_subject": code,
            "ce_time": "2026-10-12T01:00:00Z",
            "ce_recordedtime": "2026-10-12T01:00:00Z",
            "ce_sequence": "2",
            "ce_partitionkey": code,
            "ce_mode": "live",
            "content-type": "application/json",
        }
        pairs = [(name, text.encode()) for name, text in headers.items()]
        await bus.send(("lienthong.dossier.v1", code.encode(), b'{"no": "dossier"}', pairs))

    async def heal() -> None:
        process = watched.stack.processes["intake"]
        done = await asyncio.create_subprocess_exec(
            *process.command, "parked", "replay", code, env=process.environment, stdout=asyncio.subprocess.DEVNULL
        )
        assert await done.wait() == 0

    await watched.sees("Parked", "an event that nobody can read", plant, heal)


async def test_events_that_a_service_lacks(watched: Watched) -> None:
    code = await watched.received_everywhere()
    table = "stats.inbox WHERE key = $1 AND topic = 'lienthong.dossier.v1'"
    row = await watched.database.fetchrow(f"SELECT sequence, recorded FROM {table}", code)
    assert row is not None

    async def plant() -> None:
        await watched.database.execute(f"DELETE FROM {table}", code)

    async def heal() -> None:
        await watched.database.execute(
            "INSERT INTO stats.inbox (topic, key, sequence, recorded) VALUES ('lienthong.dossier.v1', $1, $2, $3)",
            code,
            row["sequence"],
            row["recorded"],
        )

    await watched.sees("EventsMissing", "stats forgets a dossier's place", plant, heal)


async def test_a_certificate_that_ends_soon(watched: Watched) -> None:
    """The file is read anew at each look: it is renewed without a restart, which would be a cause of its own."""
    process = watched.stack.processes["stats"]
    file = watched.stack.data / "bus.pem"
    expiring(file, 300)

    async def restarted(environment: dict[str, str]) -> None:
        await process.stop()
        process.environment = environment
        await process.start()
        await process.ready(watched.stack.http)

    async def ends_in(days: int) -> None:
        expiring(file, days)

    before = dict(process.environment)
    await restarted(before | {"LIENTHONG_BUS_CA_FILE": str(file)})
    try:
        await until(watched.watchers.scraped, 60.0)
        cause = "the authority's certificate ends in 3 days"
        await watched.sees("CertificateExpires", cause, lambda: ends_in(3), lambda: ends_in(300))
    finally:
        await restarted(before)


async def test_a_desk_that_gets_errors(watched: Watched) -> None:
    """Somebody has taken a right away from the service's role."""
    role = await watched.database.fetchval("SELECT rolname FROM pg_roles WHERE rolname = 'lienthong_service'")
    assert role is not None

    async def plant() -> None:
        await watched.database.execute(f"REVOKE INSERT, UPDATE ON intake.counter FROM {role}")

    async def heal() -> None:
        await watched.database.execute(f"GRANT INSERT, UPDATE ON intake.counter TO {role}")

    async with watched.desks(1):
        await watched.sees("NotReceived", "the services' role may not write a table of intake", plant, heal)


async def test_a_desk_that_waits(watched: Watched) -> None:
    """Each receipt takes four seconds in the database."""

    async def plant() -> None:
        await watched.database.execute(
            "CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_sleep(4); RETURN NEW; END';"
            "CREATE TRIGGER slow BEFORE INSERT ON intake.counter FOR EACH ROW EXECUTE FUNCTION public.slow()"
        )

    async def heal() -> None:
        await watched.database.execute("DROP TRIGGER slow ON intake.counter; DROP FUNCTION public.slow()")

    async with watched.desks(2):
        await watched.sees("SlowAnswers", "the database takes 4 s for a receipt", plant, heal)


async def test_a_consumer_that_cannot_store(watched: Watched) -> None:
    async with watched.session() as holder:

        async def plant() -> None:
            await holder.execute("BEGIN; LOCK TABLE routing.inbox IN SHARE MODE")
            await watched.receive()

        await watched.sees("NotApplied", "somebody locks routing's inbox", plant, lambda: holder.execute("ROLLBACK"))


async def test_figures_that_are_too_old(watched: Watched) -> None:
    """Nobody can say that all is recorded up to an instant while a transaction of the site's may still commit."""
    async with watched.session(application_name="lienthong") as holder:

        async def plant() -> None:
            await holder.execute("BEGIN; SELECT 1")

        await watched.sees("NotCounted", "a transaction that does not end", plant, lambda: holder.execute("ROLLBACK"))


async def test_a_loop_that_stands(watched: Watched) -> None:
    async def plant() -> None:
        watched.storage.drips = True
        ref = f"http://127.0.0.1:{watched.storage.port}/scan.pdf"
        await watched.receive(components=[{"name": "Tờ khai", "ref": ref}])

    async def heal() -> None:
        watched.storage.drips = False

    await watched.sees("LoopStuck", "storage whose answer never ends", plant, heal)


async def test_more_bad_events_than_a_consumer_bears(watched: Watched) -> None:
    count = BREAKS_ABOVE + 1
    headers = {
        "ce_source": "/sites/H55/intake",
        "ce_type": "vn.lienthong.dossier.received.v1",
        "ce_specversion": "1.0",
        "ce_time": "2026-10-12T01:00:00Z",
        "ce_recordedtime": "2026-10-12T01:00:00Z",
        "ce_sequence": "1",
        "ce_mode": "live",
        "content-type": "application/json",
    }

    async def plant() -> None:
        bus = RawBus(BusSettings(watched.stack.bootstrap, groups=False))
        records = []
        for number in range(count):
            code = f"H55.242-261012-9{number:03}"
            own = headers | {"ce_id": str(uuid4()), "ce_subject": code, "ce_partitionkey": code}
            pairs = [(name, text.encode()) for name, text in own.items()]
            records.append(("lienthong.dossier.v1", code.encode(), b'{"no": "dossier"}', pairs))
        await bus.send(*records)

    async def heal() -> None:
        """One after another is let through and dropped, until the consumers of dossiers have read on."""
        left = {(service, number) for service in ("routing", "notify", "stats") for number in range(count)}
        operator = watched.stack.token(Role.OPERATOR)

        async def dropped() -> bool:
            for service in ("routing", "notify", "stats"):
                url = f"{watched.stack.url(service)}/v1/parked"
                for item in (await watched.stack.http.get(url, headers=operator)).json()["items"]:
                    body = {"number": item["number"], "reason": "planted"}
                    done = await watched.stack.http.post(f"{url}/drop", headers=operator, json=body)
                    assert done.status_code == 200, done.text
                    left.discard((service, int(item["key"][-3:])))
            return not left

        await until(dropped, 240.0, lambda: f"not dropped: {left}")

    await watched.sees(
        "BreakerOpen", f"{count} events that nobody can read, where {BREAKS_ABOVE} are borne", plant, heal
    )


async def test_books_that_nobody_compares(watched: Watched) -> None:
    async def plant() -> None:
        watched.books.cut()

    async def heal() -> None:
        watched.books.mend()

    await watched.sees("BooksNotCompared", "stats does not reach intake", plant, heal)


async def test_a_disk_that_fills(watched: Watched) -> None:
    filler = watched.stack.data / "keys" / "filler"

    async def plant() -> None:
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, (KEYS_DISK - 2000) << 20)

    async def heal() -> None:
        filler.unlink()

    await watched.sees("DiskFull", "2000 MB are left where the keys are", plant, heal)


async def test_a_line_that_is_silent(watched: Watched) -> None:
    async def turned(*, silent: bool) -> None:
        watched.below.silent = silent

    await watched.sees(
        "LinkDown", "the lower site says nothing", lambda: turned(silent=True), lambda: turned(silent=False)
    )


async def test_a_lower_site_whose_clock_is_wrong(watched: Watched) -> None:
    async def turned(seconds: int) -> None:
        watched.below.offset = timedelta(seconds=seconds)

    await watched.sees("LinkClockOff", "its clock is two minutes ahead", lambda: turned(120), lambda: turned(0))


async def test_openmetrics_is_what_prometheus_reads(watched: Watched) -> None:
    await watched.receive()
    found = await watched.watchers.query('count by (service) ({__name__=~"lienthong_.*"})')
    assert {sample["metric"]["service"] for sample in found} == {"intake", "routing", "notify", "stats"}

    async def scraped_again() -> bool:
        routes = await watched.watchers.query("count by (route) (lienthong_http_requests_total)")
        return "/v1/dossiers" in {sample["metric"]["route"] for sample in routes}

    await until(scraped_again)


# What these dashboards show comes with certificates, and from the exporters of PostgreSQL and Kafka.
NOT_HERE = ("lienthong_link_", "lienthong_certificate_", "pg_", "kafka_")


async def test_every_query_of_every_dashboard_answers(watched: Watched) -> None:
    """Prometheus takes each of them, and has an answer wherever this site has the metric."""
    await watched.received_everywhere()
    # What has not happened here yet: its label has no value to show.
    never = ("relay_interruptions", "batch_retries", "loop_failures", "parked_events")
    asked = {
        target["expr"]: f"{file.name}: {panel['title']}: {target['expr']}"
        for file in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
        for panel in json.loads(file.read_text())["panels"]
        for target in panel["targets"]
    }
    assert len(asked) > 30
    empty = list(asked)

    async def answered() -> bool:
        """A rate has an answer from the second sample on, which has to be scraped first."""
        empty[:] = [expr for expr in empty if not await watched.watchers.query(expr)]
        return not [expr for expr in empty if not any(name in expr for name in (*never, *NOT_HERE))]

    await until(answered, 60.0, lambda: [asked[expr] for expr in empty])


async def test_a_stranger_on_the_line(watched: Watched) -> None:
    """The last: that something was refused is told for as long as the rule's window is."""

    async def nothing() -> None:
        pass

    await watched.sees(
        "LinkRefused",
        "a record signed by a stranger",
        lambda: watched.below.say(watched.below.stranger),
        nothing,
        last=True,
    )
