"""A site of four processes under real Prometheus and Alertmanager: each cause is planted in turn, and the operator is told
of that cause and of nothing else. All windows of the rules are divided by one factor.
"""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from shared.bus.connection import BusSettings
from shared.security.tokens import Role
from tests.harness import RawBus, until
from tests.observability import DEPLOY, Observability, needed
from tests.stack import Stack

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

PROVIDER_AWAY = "http://127.0.0.1:9/sms"


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

    def __init__(self, stack: Stack, watchers: Observability, database: "asyncpg.Pool[asyncpg.Record]") -> None:
        self.stack, self.watchers, self.database = stack, watchers, database
        self.detected: dict[str, float] = {}

    async def quiet(self) -> None:
        async def nothing() -> bool:
            return not self.watchers.webhook.firing and not await self.watchers.alerts()

        await until(nothing, 120.0, lambda: f"still firing: {self.watchers.webhook.firing}")

    async def sees(
        self, alert: str, plant: Callable[[], Awaitable[object]], heal: Callable[[], Awaitable[object]]
    ) -> None:
        """The cause is planted, its alert comes and no other, it is healed, and all is quiet again."""
        await self.quiet()
        self.watchers.webhook.ever.clear()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await plant()
        try:
            await until(
                lambda: alert in self.watchers.webhook.firing, 300.0, lambda: f"told: {self.watchers.webhook.ever}"
            )
            self.detected[alert] = round(loop.time() - began, 1)
        finally:
            await heal()
        await self.quiet()
        assert set(self.watchers.webhook.ever) == {alert}

    async def receive(self) -> str:
        answer = await self.stack.http.post(
            self.stack.url("intake") + "/v1/dossiers",
            headers=self.stack.token(Role.ADMIN),
            json={
                "procedure": "1.001193",
                "receiving_agency": "H55.242",
                "channel": "counter",
                "return_by": "counter",
                "applicant": {"kind": "citizen", "name": "Nguyễn Văn Mẫu", "phone": "0912345678"},
            },
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["code"])

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


@pytest.fixture(scope="module")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    assert not needed("prometheus", "prometheus-alertmanager"), needed("prometheus", "prometheus-alertmanager")
    folder = tmp_path_factory.mktemp("watched")
    bundle = yaml.safe_load((DEPLOY / "demo" / "sample.yaml").read_text())
    bundle["quiet_hours"] = None
    file = folder / "bundle.yaml"
    file.write_text(yaml.safe_dump(bundle, allow_unicode=True))
    stack = Stack(
        folder / "site",
        "embedded",
        bundle=file,
        settings={"LIENTHONG_RECONCILE_SECONDS": "2", "LIENTHONG_TICK_SECONDS": "1"},
    )
    await stack.start()
    database = await asyncpg.create_pool(stack.database_url, min_size=1, max_size=2)
    watchers = Observability(
        folder / "watchers", [process.url.removeprefix("http://") for process in stack.processes.values()]
    )
    await watchers.start()
    site = Watched(stack, watchers, database)
    try:
        await until(watchers.scraped, 60.0)
        yield site
        print("seconds from cause to alert, all windows divided by 20:", json.dumps(site.detected))
    finally:
        await watchers.stop()
        database.terminate()
        await stack.stop()


async def test_a_service_that_is_gone(watched: Watched) -> None:
    process = watched.stack.processes["notify"]

    async def again() -> None:
        await process.start()
        await process.ready(watched.stack.http)

    await watched.sees("ServiceDown", process.kill, again)


async def test_a_bus_that_is_gone(watched: Watched) -> None:
    broker = watched.stack.broker
    assert broker is not None

    async def plant() -> None:
        await broker.stop()
        await watched.receive()

    await watched.sees("NotPublished", plant, broker.start)


async def test_a_database_that_is_gone(watched: Watched) -> None:
    await watched.sees("DatabaseDown", watched.stack.postgres.stop, watched.stack.postgres.start)


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

    await watched.sees("NotRaised", plant, heal)


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

    await watched.sees("NotTold", plant, lambda: load(before))


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

    await watched.sees("Parked", plant, heal)


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

    await watched.sees("EventsMissing", plant, heal)


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
        await watched.sees("CertificateExpires", lambda: ends_in(3), lambda: ends_in(300))
    finally:
        await restarted(before)


async def test_openmetrics_is_what_prometheus_reads(watched: Watched) -> None:
    await watched.receive()
    found = await watched.watchers.query('count by (service) ({__name__=~"lienthong_.*"})')
    assert {sample["metric"]["service"] for sample in found} == {"intake", "routing", "notify", "stats"}

    async def scraped_again() -> bool:
        routes = await watched.watchers.query("count by (route) (lienthong_http_requests_total)")
        return "/v1/dossiers" in {sample["metric"]["route"] for sample in routes}

    await until(scraped_again)


# What these dashboards show comes with links, certificates, and from the exporters of PostgreSQL and Kafka.
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
