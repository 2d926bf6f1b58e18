"""A site at steady load under real Prometheus and Alertmanager: nobody is told of anything.

By default a minute, with all windows of the rules divided by 20. LIENTHONG_STEADY_MINUTES=60 is the hour, with the rules and
intervals exactly as they are shipped (not in CI). LIENTHONG_STEADY_RATE: dossiers a second, each a whole lifecycle.
"""

import asyncio
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest
import yaml

from tests.bench.measure import HttpClient, post
from tests.bench.one_process import token_of
from tests.bench.receive import dossier
from tests.harness import until
from tests.observability import DEPLOY, Observability, needed
from tests.ports import base_port
from tests.stack import COMMAND

MINUTES = float(os.environ.get("LIENTHONG_STEADY_MINUTES", "1"))
RATE = float(os.environ.get("LIENTHONG_STEADY_RATE", "5"))
FACTOR = 20.0 if MINUTES < 20 else 1.0
DESKS = 4
STOOD_ABOVE = 30.0  # seconds that a dossier is late

pytestmark = [pytest.mark.system, pytest.mark.timeout(MINUTES * 60 + 600)]


@dataclass
class Desks:
    """What the desks have done. `stood`: seconds in which the whole machine stood still, which is no load; `again`: requests that
    were answered by 503 and sent once more."""

    url: str
    token: str
    done: int = 0
    again: int = 0
    stood: float = 0.0

    async def work(self, number: int, began: float) -> None:
        """Every DESKS-th dossier of the load, each begun when it is due."""
        client, due, own = HttpClient(self.url), began + number / RATE, 0
        try:
            while due < began + MINUTES * 60:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if (late := time.monotonic() - due) > STOOD_ABOVE:
                    self.stood += late / DESKS
                    due += late
                await self._lifecycle(client, own * DESKS + number)
                self.done, own, due = self.done + 1, own + 1, due + DESKS / RATE
        finally:
            await client.close()

    async def _lifecycle(self, client: HttpClient, number: int) -> None:
        """One dossier: received, started, resolved, returned."""
        code = orjson.loads(await self._act(client, "", dossier(number)))["code"]
        for act, content in (("start", {}), ("resolution", {"result": "granted"}), ("return", {"by": "counter"})):
            await self._act(client, f"/{code}/{act}", content)

    async def _act(self, client: HttpClient, path: str, content: object) -> bytes:
        while True:
            status, body = await client.send(post(f"/v1/dossiers{path}", self.token, orjson.dumps(content)))
            if status != 503:
                assert status in (200, 201), body
                return body
            self.again += 1
            await asyncio.sleep(1)


async def test_no_alert_fires_in_steady_load(tmp_path: Path) -> None:
    assert not needed("prometheus", "prometheus-alertmanager"), needed("prometheus", "prometheus-alertmanager")
    bundle = yaml.safe_load((DEPLOY / "demo" / "sample.yaml").read_text())
    bundle["quiet_hours"] = None  # every applicant is told within the hour
    (tmp_path / "bundle.yaml").write_text(yaml.safe_dump(bundle, allow_unicode=True))
    folder = tmp_path / "site"
    command = (str(COMMAND), "up", "--data", str(folder), "--bundle", str(tmp_path / "bundle.yaml"), "--json")
    site = await asyncio.create_subprocess_exec(
        *command,
        "--base-port",
        str(base_port()),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    watchers: Observability | None = None
    try:
        assert site.stdout is not None
        ready = orjson.loads(await site.stdout.readline())
        targets = [url.removeprefix("http://") for url in ready["services"].values()]
        watchers = Observability(tmp_path / "watchers", targets, FACTOR)
        await watchers.start()
        await until(watchers.scraped, 120.0)
        token = await token_of(str(folder))
        desks, began = Desks(ready["services"]["intake"], token), time.monotonic()
        await asyncio.gather(*(desks.work(number, began) for number in range(DESKS)))
        took = time.monotonic() - began
        window = f"[{int(took) + 60}s]"
        fired = await watchers.query(f'max by (alertname) (max_over_time(ALERTS{{alertstate="firing"}}{window}))')
        nearly = await watchers.query(f'max by (alertname) (max_over_time(ALERTS{{alertstate="pending"}}{window}))')
        seen = {
            "minutes": round(took / 60, 1),
            "minutes in which the machine stood": round(desks.stood / 60, 1),
            "dossiers": desks.done,
            "requests sent again after a 503": desks.again,
            "windows divided by": FACTOR,
            "fired": sorted(sample["metric"]["alertname"] for sample in fired),
            "told": watchers.webhook.ever,
            "true for less than the rule's wait": sorted(sample["metric"]["alertname"] for sample in nearly),
        }
        print("steady load:", json.dumps(seen))
        assert desks.done >= (took - desks.stood) * RATE * 0.9
        assert seen["fired"] == seen["told"] == []
    finally:
        if watchers is not None:
            await watchers.stop()
        site.send_signal(signal.SIGTERM)
        await site.wait()
