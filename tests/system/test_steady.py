"""A site at steady load under real Prometheus and Alertmanager: nobody is told of anything.

By default a minute, with all windows of the rules divided by 20. LIENTHONG_STEADY_MINUTES=60 is the hour, with the rules and
intervals exactly as they are shipped (not in CI). LIENTHONG_STEADY_RATE: dossiers a second, each a whole lifecycle.
"""

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import orjson
import pytest
import yaml

from tests.bench.commune_node import lifecycle
from tests.bench.measure import HttpClient
from tests.bench.one_process import token_of
from tests.harness import until
from tests.observability import DEPLOY, Observability, needed
from tests.ports import base_port
from tests.stack import COMMAND

MINUTES = float(os.environ.get("LIENTHONG_STEADY_MINUTES", "1"))
RATE = float(os.environ.get("LIENTHONG_STEADY_RATE", "5"))
FACTOR = 20.0 if MINUTES < 20 else 1.0
DESKS = 4

pytestmark = [pytest.mark.system, pytest.mark.timeout(MINUTES * 60 + 600)]


async def desk(number: int, url: str, token: str, began: float) -> int:
    """Every DESKS-th dossier of the load, each begun when it is due; how many it was."""
    client, done = HttpClient(url), 0
    try:
        while (due := (done * DESKS + number) / RATE) < MINUTES * 60:
            await asyncio.sleep(max(0.0, began + due - time.monotonic()))
            await lifecycle(client, token, done * DESKS + number)
            done += 1
    finally:
        await client.close()
    return done


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
        began = time.monotonic()
        desks = [desk(number, ready["services"]["intake"], token, began) for number in range(DESKS)]
        done = sum(await asyncio.gather(*desks))
        took = time.monotonic() - began
        window = f"[{int(took) + 60}s]"
        fired = await watchers.query(f'max by (alertname) (max_over_time(ALERTS{{alertstate="firing"}}{window}))')
        nearly = await watchers.query(f'max by (alertname) (max_over_time(ALERTS{{alertstate="pending"}}{window}))')
        seen = {
            "minutes": round(took / 60, 1),
            "dossiers": done,
            "windows divided by": FACTOR,
            "fired": sorted(sample["metric"]["alertname"] for sample in fired),
            "told": watchers.webhook.ever,
            "true for less than the rule's wait": sorted(sample["metric"]["alertname"] for sample in nearly),
        }
        print("steady load:", json.dumps(seen))
        assert done >= MINUTES * 60 * RATE - DESKS
        assert seen["fired"] == seen["told"] == []
    finally:
        if watchers is not None:
            await watchers.stop()
        site.send_signal(signal.SIGTERM)
        await site.wait()
