"""A commune behind a line as the country has it, its province on Apache Kafka with TLS and SCRAM: real processes, the commune
in a network namespace of its own.

The line is cut while the work of three days waits; it comes back slow, and one of ten connections breaks; it is cut again, and
a backlog drains on a clean line. LIENTHONG_TEST_BACKLOG is how many envelopes that backlog has (3,000).
"""

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from shared.security.keys import load_keys
from shared.security.tokens import Role, Tokens
from tests.acceptance.linked import COMMUNE, LAND, PROCEDURE, bundles
from tests.bench.keeping import command
from tests.bench.receive import dossier
from tests.kafka import ADMIN, ADMIN_PASSWORD, Door, Kafka
from tests.line import STORE_PASSWORD, Network, Relay, Weather, certificates
from tests.ports import base_port, free_port
from tests.stack import COMMAND, Stack

pytestmark = [pytest.mark.system, pytest.mark.timeout(1500)]

BACKLOG = int(os.environ.get("LIENTHONG_TEST_BACKLOG", "3000"))  # envelopes
OF_EACH = 5  # envelopes of a dossier that is received, started and handed over: four copies and what asks for the work
BAD = Weather(delay=0.25, breaks=0.1)  # half a second to the bus and back
PATIENCE = 600.0


class Commune:
    """`lienthong up` in the namespace; the test reaches it by the wire."""

    def __init__(self, network: Network, data: Path, bundle: Path, settings: dict[str, str]) -> None:
        self.network, self.data = network, data
        ours = {name: value for name, value in os.environ.items() if not name.startswith("LIENTHONG_")}
        up = (
            "up",
            "--data",
            str(data),
            "--bundle",
            str(bundle),
            "--base-port",
            str(base_port()),
            "--host",
            network.wire,
        )
        self._environment = ours
        self.process = subprocess.Popen(
            network.inside(str(COMMAND), *up, "--json"), stdout=subprocess.PIPE, text=True, env=ours | settings
        )
        assert self.process.stdout is not None
        self.ready: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.tokens = Tokens(load_keys(data / "keys"), COMMUNE)

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            self.network.inside(str(COMMAND), *arguments, "--data", str(self.data)),
            capture_output=True, text=True, env=self._environment, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def http(self, service: str, role: Role = Role.ADMIN) -> httpx.AsyncClient:
        url = str(self.ready["services"][service])
        headers = {"Authorization": f"Bearer {self.tokens.issue(role, hours=2)}"}
        return httpx.AsyncClient(base_url=url, headers=headers, timeout=120.0, trust_env=False)

    async def link(self) -> dict[str, Any]:
        async with self.http("routing", Role.OPERATOR) as http:
            items: list[dict[str, Any]] = (await http.get("/v1/links")).json()["items"]
            return items[0]

    async def hand_over(self, source: str, dossiers: int) -> None:
        """So many dossiers, received and started, in mode live."""
        async with self.http("intake") as http:
            for first in range(0, dossiers, 500):
                lines = [
                    json.dumps(line)
                    for n in range(first, min(first + 500, dossiers))
                    for line in (
                        {"op": "receive", "ref": f"{n}", **dossier(n), "procedure": PROCEDURE},
                        {"op": "start", "ref": f"{n}"},
                    )
                ]
                kind = {"Content-Type": "application/x-ndjson"}
                done = await http.post("/v1/imports", params={"source": source}, content="\n".join(lines), headers=kind)
                assert done.status_code == 200, done.text
                assert '"refused"' not in done.text, done.text[:500]

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process.wait(30)


class Country:
    def __init__(self, province: Stack, commune: Commune, network: Network, relay: Relay) -> None:
        self.province, self.commune, self.network, self.relay = province, commune, network, relay


async def until(condition: Any, what: str, patience: float = PATIENCE) -> Any:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if found := await condition():
            return found
        await asyncio.sleep(0.5)
    raise AssertionError(f"not within {patience:.0f} s: {what}")


@pytest.fixture
async def country(tmp_path: Path) -> AsyncIterator[Country]:
    assert os.geteuid() == 0, "network namespaces are made by root alone"
    for tool, package in (("ip", "iproute2"), ("java", "openjdk-17-jre-headless"), ("mvn", "maven")):
        assert shutil.which(tool) is not None, f"apt-get install {package}"
    tmp_path.chmod(0o755)
    network = Network(os.getpid() % 200 + 20)
    network.make()
    at = free_port()
    relay = Relay(network.near, ("127.0.0.1", at))
    ca, store = certificates(tmp_path, ["127.0.0.1", network.near])
    door = Door(at, network.near, relay.port, store, STORE_PASSWORD)
    kafka = Kafka(tmp_path / "kafka", secured=True, door=door)
    upper, lower = bundles(tmp_path)
    commune = province = None
    try:
        await kafka.start()
        login = {"LIENTHONG_BUS_SECURITY": "SASL_PLAINTEXT", "LIENTHONG_BUS_USERNAME": ADMIN,
                 "LIENTHONG_BUS_PASSWORD": ADMIN_PASSWORD}  # fmt: skip
        province = Stack(
            tmp_path / "province",
            bundle=upper,
            services=("intake", "routing", "stats"),
            given_bus=kafka.bootstrap,
            settings=login,
        )
        await province.start()
        invitation, reply, env = (str(tmp_path / name) for name in ("invitation.json", "reply.json", "commune.env"))
        dialled = ("--bus", f"{network.near}:{relay.port}", "--security", "SASL_SSL")
        await command(province, "link", "invite", "--site", COMMUNE, *dialled, "--out", invitation)
        await command(province, "link", "login", COMMUNE, "--out", env)
        settings = dict(
            line.split("=", 1) for line in Path(env).read_text().splitlines() if "=" in line and line[0] != "#"
        )
        commune = Commune(network, tmp_path / "commune", lower, settings | {"LIENTHONG_LINK_BUS_CA_FILE": str(ca)})
        commune.run("link", "join", invitation, "--out", reply)
        await command(province, "link", "confirm", reply)
        yield Country(province, commune, network, relay)
    finally:
        if commune is not None:
            commune.stop()
        if province is not None:
            await province.stop()
        await kafka.stop()
        relay.close()
        network.remove()


async def delivered(away: asyncpg.Connection, number: int) -> bool:
    found = await away.fetchval(
        "SELECT count(*) FROM routing.transfer WHERE receiver = $1 AND state = 'delivered'", LAND
    )
    return bool(found >= number)


async def test_a_line_as_the_country_has_it(country: Country) -> None:
    province, commune, network, relay = country.province, country.commune, country.network, country.relay
    away = await asyncpg.connect(province.database_url)
    try:

        async def up() -> bool:
            return bool((await commune.link())["up"])

        async def waits(number: int) -> bool:
            return bool((await commune.link())["waiting"] >= number)

        async def drained() -> bool:
            return bool((await commune.link())["waiting"] == 0)

        await until(up, "the commune has logged in and is heard")
        async with commune.http("intake") as http:

            async def knows() -> bool:
                return (await http.get(f"/v1/procedures/{PROCEDURE}")).status_code == 200

            await until(knows, "the directory has come down")
        await commune.hand_over("before", 5)
        await until(lambda: delivered(away, 5), "handed over on a good line")

        network.cut()
        await commune.hand_over("days", 200)  # three days of a busy commune
        await until(lambda: waits(200 * OF_EACH), "a thousand envelopes wait")
        async with commune.http("routing") as http:
            assert (await http.get("/readyz")).status_code == 200

        async def down() -> bool:
            return not await up()

        await until(down, "the line is seen to be down")
        relay.weather = BAD
        network.mend()
        began = time.monotonic()
        await until(lambda: delivered(away, 205), "delivered over a bad line")
        await until(drained, "and confirmed")
        slow = time.monotonic() - began
        assert relay.broken >= 1
        print(f"1,000 envelopes over a bad line: {slow:.1f} s, {relay.broken} of {relay.made} connections broken")

        relay.weather = Weather()
        network.cut()
        more = BACKLOG // OF_EACH
        await commune.hand_over("backlog", more)
        await until(lambda: waits(more * OF_EACH), "the backlog waits")
        network.mend()
        began = time.monotonic()
        await until(drained, "the backlog is drained")
        seconds = time.monotonic() - began
        print(f"a backlog of {more * OF_EACH:,} envelopes: {seconds:.1f} s, {more * OF_EACH / seconds:,.0f}/s")

        rows = await away.fetch(
            "SELECT t.asked_at, t.id FROM routing.event e JOIN routing.transfer t ON t.dossier = e.aggregateid"
            " WHERE e.type = 'transfer.delivered' ORDER BY e.position"
        )
        assert len(rows) == 205 + more  # each once
        assert [(row["asked_at"], row["id"]) for row in rows] == sorted((row["asked_at"], row["id"]) for row in rows)
        said = json.loads(commune.run("link", "digest", "--json"))
        assert all(each["equal"] for each in said), said
    finally:
        await away.close()
