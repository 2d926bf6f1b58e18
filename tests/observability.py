"""Real Prometheus and Alertmanager for tests, from Debian (prometheus, prometheus-alertmanager), started and ended by us."""

import asyncio
import json
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.harness import until
from tests.ports import free_port

DEPLOY = Path(__file__).parent.parent / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yaml"
PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
}


def needed(*tools: str) -> str:
    """What to install when a tool is missing; empty when all are there."""
    missing = sorted({PACKAGES[tool] for tool in tools if shutil.which(tool) is None})
    return f"apt-get install {' '.join(missing)}" if missing else ""


def seconds(duration: str) -> float:
    """`5m` of a rule in seconds."""
    return float(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


def shortened(text: str, factor: float) -> str:
    """The rules with every window, wait and threshold in seconds divided by one factor."""
    rules = yaml.safe_load(text)
    for rule in rules["groups"][0]["rules"]:
        rule["for"] = f"{min(30, max(1, round(seconds(rule['for']) / factor)))}s"
        expr = re.sub(r"\[(\w+)\]", lambda m: f"[{max(5, round(seconds(m[1]) / factor))}s]", rule["expr"])
        if "_loop_" not in expr:  # a loop's own turn, up to 20 s, does not get shorter
            late = r"(\w+_(?:behind|oldest|since_[a-z]+)_seconds\S*) > (\d+)"
            expr = re.sub(late, lambda m: f"{m[1]} > {int(m[2]) / factor}", expr)
        rule["expr"] = expr
    return yaml.safe_dump(rules, sort_keys=False)


class Webhook:
    """Where Alertmanager tells: the alerts that fire now, and those that ever did."""

    def __init__(self) -> None:
        self.firing: set[str] = set()
        self.ever: list[str] = []
        self.port = free_port()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", self.port)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
                told = json.loads(await reader.readexactly(length))
                name = told["groupLabels"]["alertname"]
                if told["status"] == "firing":
                    self.firing.add(name)
                    self.ever.append(name)
                else:
                    self.firing.discard(name)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
        writer.close()


class Observability:
    """Prometheus over `targets` (host:port) with the project's rules, Alertmanager with its inhibitions. All windows are
    divided by `factor`; at 1 rules and intervals are those that are shipped."""

    def __init__(self, folder: Path, targets: Sequence[str], factor: float = 20.0) -> None:
        self.webhook = Webhook()
        self.http = httpx.AsyncClient(timeout=10.0, trust_env=False)
        self._folder, self._targets, self._factor = folder, targets, factor
        self._ports = free_port(), free_port()
        self._processes: list[asyncio.subprocess.Process] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._ports[0]}"

    async def start(self) -> None:
        await self.webhook.start()
        folder = self._folder
        folder.mkdir(parents=True, exist_ok=True)
        short = self._factor > 1
        rules = RULES.read_text()
        (folder / "rules.yaml").write_text(shortened(rules, self._factor) if short else rules)
        prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
        if short:
            every = f"{max(1, round(40 / self._factor))}s"
            prometheus["global"] = {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": "1s"}
        prometheus["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [f"127.0.0.1:{self._ports[1]}"]}]}]
        prometheus["scrape_configs"][0]["static_configs"] = [{"targets": list(self._targets)}]
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(prometheus))
        manager = yaml.safe_load((DEPLOY / "prometheus" / "alertmanager.yaml").read_text())
        # Long enough for the cause to arrive before what follows from it is told.
        if short:
            manager["route"] |= {"group_wait": "4s", "group_interval": "1s", "repeat_interval": "1m"}
        manager["receivers"][0]["webhook_configs"][0]["url"] = f"http://127.0.0.1:{self.webhook.port}/alerts"
        (folder / "alertmanager.yaml").write_text(yaml.safe_dump(manager))
        await self._run(
            "prometheus-alertmanager",
            f"--config.file={folder / 'alertmanager.yaml'}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{self._ports[1]}",
            "--cluster.listen-address=",
        )
        await self._run(
            "prometheus",
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{self._ports[0]}",
            *(("--rules.alert.resend-delay=1s",) if short else ()),
        )
        await until(self._ready, 60.0)

    async def stop(self) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
        await self.http.aclose()
        await self.webhook.stop()

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query. Raises AssertionError with Prometheus' own words when it refuses."""
        answer = (await self.http.get(f"{self.url}/api/v1/query", params={"query": expression})).json()
        assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    async def scraped(self) -> bool:
        return len(await self.query('up{job="lienthong"} == 1')) == len(self._targets)

    async def alerts(self) -> set[str]:
        """What fires in Prometheus now or is about to, silenced by its cause or not."""
        return {sample["metric"]["alertname"] for sample in await self.query("ALERTS")}

    async def _ready(self) -> bool:
        with suppress(httpx.HTTPError):
            manager = await self.http.get(f"http://127.0.0.1:{self._ports[1]}/-/ready")
            return manager.is_success and (await self.http.get(f"{self.url}/-/ready")).is_success
        return False

    async def _run(self, tool: str, *arguments: str) -> None:
        with (self._folder / f"{tool}.log").open("ab") as output:
            self._processes.append(await asyncio.create_subprocess_exec(tool, *arguments, stdout=output, stderr=output))
