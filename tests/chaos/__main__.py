"""`make chaos`: a site at work, faults one after another and over one another, and a judge who compares every dossier.

    python -m tests.chaos --faults 30 --seed 1 --bus embedded
    python -m tests.chaos --faults 1000 --bus kafka --json build/chaos.json
    python -m tests.chaos --faults 100 --seed 1 --plant gap-request     (a mechanism is off: the judge must find it)

Exit 0 when nothing was found, 1 otherwise; the seed of the schedule is printed and gives the same schedule again.
"""

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import orjson
import yaml
from rich.console import Console
from rich.table import Table

from shared.service import SERVICES
from tests.chaos.faults import FAKETIME, SECRET, SESSION, Clock, Fault, Faults, ProviderProcess
from tests.chaos.figures import LOCAL
from tests.chaos.judge import TOLD, Finding, Judge, Verdict, subject_of
from tests.chaos.keeping import earlier_version
from tests.chaos.ledger import Ledger
from tests.chaos.load import PROBE_DESK, Load
from tests.chaos.planted import PLANTS, PREPARE
from tests.ports import free_port
from tests.stack import COMMAND, Process, Stack

SAMPLE = Path(__file__).parents[2] / "deploy" / "demo" / "sample.yaml"
RECOVERS_WITHIN = 90.0  # seconds; the promise is less, and is judged from what is measured
SETTLES_WITHIN = 120.0
AT_ONCE = 3


@dataclass
class Struck:
    """One fault of the schedule. `recovered`: seconds from its end until a dossier that was received then was told, counted
    and handed over to the agency of its route."""

    number: int
    fault: str
    at: float
    lasted: float
    recovered: float | None
    beside: list[str] = field(default_factory=list)
    steps: dict[str, float] = field(
        default_factory=dict
    )  # seconds until the probe was answered, told, handed over, counted


def chaos_bundle(folder: Path, provider: str) -> Path:
    """The sample province with our provider, and templates that say which act they tell."""
    bundle = yaml.safe_load(SAMPLE.read_text())
    bundle["providers"] = [{"name": "chaos", "kind": "http", "url": provider, "secret": SECRET, "dedupes": True}]
    bundle["templates"] = [
        {
            "name": act,
            "version": 1,
            "lang": "vi",
            "tones": "keep",
            "parts": 9,
            "text": f"{{code}};{act};{{reason}};{{amount}}",
        }
        for act in TOLD
    ]
    file = folder / "chaos.yaml"
    file.write_text(yaml.safe_dump(bundle, allow_unicode=True))
    return file


class Driver:
    """One run."""

    def __init__(self, arguments: argparse.Namespace, folder: Path, console: Console) -> None:
        self.arguments, self.folder, self.console = arguments, folder, console
        self.chance = random.Random(arguments.seed)
        self.ledger = Ledger()
        self.struck: list[Struck] = []
        self.findings: list[Finding] = []
        self.ended_badly: Counter[str] = Counter()
        self._active: dict[str, frozenset[str]] = {}
        self._strikes: dict[asyncio.Task[None], Fault] = {}
        self._probes = 0
        self._calls_read = 0
        self._told: set[str] = set()
        self.began_at = datetime.now(UTC)

    async def run(self) -> Verdict:
        running = asyncio.current_task()
        assert running is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
        small_disk = self._mount()
        provider_port = free_port()
        bundle = chaos_bundle(self.folder, f"http://127.0.0.1:{provider_port}/sms")
        plant = self.arguments.plant
        clock = Clock(self.folder / "clock") if FAKETIME is not None else None
        if clock is not None:
            clock.step(0)
        self.stack = Stack(
            self.folder / "site",
            self.arguments.bus,
            bundle,
            settings={
                "LIENTHONG_SESSION_SECONDS": str(SESSION),
                "LIENTHONG_GAP_WAIT": "5",
                "LIENTHONG_HOUSEKEEPING_SECONDS": "3",  # it is at work all the time
                "LIENTHONG_CALL_TIMEOUT": "3",
                "LIENTHONG_RETRY_FIRST": "0.5",
                "LIENTHONG_RETRY_MOST": "5",
                **(clock.settings if clock is not None else {}),
            },
            replicas=self._replicas(),
            command=(sys.executable, "-m", "tests.chaos.planted", plant) if plant else (str(COMMAND),),
            database=small_disk,
            earlier=earlier_version(self.folder / "earlier", self.arguments.upgrade_from),
        )
        supervisors: list[asyncio.Task[None]] = []
        self.provider: ProviderProcess | None = None
        try:
            await self.stack.start()
            self.stack.keep_up()
            await self._prepare(PREPARE.get(plant or "", ()))
            receipts = [f"{url}/v1/receipts/chaos" for url in self.stack.urls("notify")]
            self.provider = ProviderProcess(provider_port, self.folder / "calls.ndjson", receipts)
            await self.provider.start()
            supervisors = [asyncio.create_task(self._supervise(n, p)) for n, p in self.stack.processes.items()]
            self.load = Load(
                self.stack,
                self.ledger,
                self.arguments.seed,
                lives=self.arguments.people,
                think=self.arguments.think,
            )
            self.faults = Faults(self.stack, self.provider, self.load, self.chance, small_disk, clock)
            working = asyncio.create_task(self.load.run())
            try:
                await self._schedule(working)
            except BaseException:
                for task in (working, *self._strikes):
                    task.cancel()
                await asyncio.gather(working, *self._strikes, return_exceptions=True)
                raise
            self.load.stop()
            await working
            await self._all_ready()
            self.console.print(
                f"{self._clock()} the faults are over; the judge looks at {len(self.ledger.coded)} dossiers"
            )
            judge = Judge(
                self.stack,
                self.ledger,
                bundle,
                self.provider.log,
                self.stack.data / "postal.ndjson",
                self.provider.url,
                self.faults.lost,
                self.began_at,
            )
            verdict = await judge.judge(SETTLES_WITHIN if plant is None else SETTLES_WITHIN / 4)
            verdict.findings[:0] = self.findings + [Finding("-", "-", late) for late in self.faults.late]
            return verdict
        finally:
            for task in supervisors:
                task.cancel()
            await asyncio.gather(*supervisors, return_exceptions=True)
            if hasattr(self, "load"):
                await self.load.client.close()
            if self.provider is not None:
                await self.provider.kill()
            await self.stack.stop()
            if small_disk is not None:
                await asyncio.to_thread(subprocess.run, ["umount", str(small_disk)], check=False)

    # -- the site

    def _mount(self) -> Path | None:
        """A small disk for the database, where root may mount one: it can be filled without harm."""
        folder = self.folder / "small"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", str(folder)]
        try:
            mounted = subprocess.run(command, capture_output=True, check=False)
        except FileNotFoundError:
            return None
        return folder if mounted.returncode == 0 else None

    def _replicas(self) -> dict[str, int]:
        if self.arguments.plant == "relay-lock":
            return {"intake": 2}
        return dict.fromkeys(SERVICES, self.arguments.replicas)

    async def _prepare(self, statements: Any) -> None:
        connection = await asyncpg.connect(self.stack.database_url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def _supervise(self, name: str, process: Process) -> None:
        """Starts a service again whenever it ends, as systemd or Kubernetes does."""
        while True:
            assert process.process is not None
            status = await process.process.wait()
            if status not in (-9, 0):
                self.ended_badly[f"{name} ended with {status}"] += 1
            await asyncio.sleep(0.1 if status in (-9, 0) else 0.5)
            await process.may_run.wait()
            await process.start()

    async def _all_ready(self) -> None:
        for name, process in self.stack.processes.items():
            until = time.monotonic() + 60
            while time.monotonic() < until:
                with contextlib.suppress(httpx.HTTPError):
                    if (await self.stack.http.get(f"{process.url}/readyz")).status_code == 200:
                        break
                await asyncio.sleep(0.1)
            else:
                self.findings.append(Finding("-", "-", f"{name} was not ready within 60 s after the faults"))

    # -- the schedule

    async def _schedule(self, working: "asyncio.Task[None]") -> None:
        under_way = self._strikes
        await self._probe(60.0)  # the site works before anything is done to it
        self.console.print(f"{self._clock()} the site works")
        for number, (fault, alone, rest) in enumerate(self._drawn(), 1):
            if working.done():
                working.result()  # the load broke: nothing can be judged
            if len(self.struck) >= 3 and all(struck.recovered is None for struck in self.struck[-3:]):
                break  # the site is stuck: the judge says what on
            while len(under_way) >= AT_ONCE or any(fault.parts & other.parts for other in under_way.values()):
                done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    del under_way[task]
            task = asyncio.create_task(self._strike(number, fault))
            under_way[task] = fault
            if alone:
                await asyncio.wait(under_way)
                under_way.clear()
            await asyncio.sleep(rest)
        if under_way:
            await asyncio.wait(under_way)

    def _drawn(self) -> list[tuple[Fault, bool, float]]:
        """The schedule: each fault, whether its recovery is waited for, and the seconds of rest before the next.

        Every fault once, in an order that the seed gives, then by weight: a short run leaves none out.
        """
        faults, chance = self.faults.all(), random.Random(f"schedule {self.arguments.seed}")
        if self.arguments.only:
            faults = [fault for fault in faults if any(part in fault.name for part in self.arguments.only.split(","))]
        wanted: int = self.arguments.faults
        chosen = chance.sample(faults, min(wanted, len(faults)))
        chosen += chance.choices(faults, [fault.weight for fault in faults], k=wanted - len(chosen))
        return [(fault, chance.random() < 0.7, chance.uniform(0.2, 1.5)) for fault in chosen]

    async def _strike(self, number: int, fault: Fault) -> None:
        beside = sorted(self._active)
        self._active[f"{number} {fault.name}"] = fault.parts
        began = time.monotonic()
        try:
            await fault.strike()
        except Exception as error:  # a fault that could not be done is said, and the schedule goes on
            self.findings.append(Finding("-", "-", f"the fault {fault.name} could not be done: {error!r}"))
        ended = time.monotonic()
        recovered: float | None = None
        steps: dict[str, float] = {}
        try:
            await self._probe(RECOVERS_WITHIN, steps)
            await self._gaps_closed(RECOVERS_WITHIN)
            recovered = time.monotonic() - ended
        except TimeoutError as error:
            missing = {"answered", "told", "counted", "handed over"} - steps.keys() or {"applied beyond its gap"}
            what = f"not {', '.join(sorted(missing))} {RECOVERS_WITHIN:.0f} s after {fault.name}"
            self.findings.append(Finding("5", str(error), what))
        del self._active[f"{number} {fault.name}"]
        at = began - self._began
        self.struck.append(Struck(number, fault.name, at, ended - began, recovered, beside, steps))
        took = "never" if recovered is None else f"{recovered:.1f} s"
        took += f" ({', '.join(f'{name} {seconds:.1f}' for name, seconds in steps.items())})"
        note = f" (beside {', '.join(beside)})" if beside else ""
        self.console.print(f"{self._clock()} {number:4} {fault.name}{note}: recovered {took}", highlight=False)

    _began = time.monotonic()

    def _clock(self) -> str:
        return f"{time.monotonic() - self._began:7.1f}"

    async def _probe(self, within: float, steps: dict[str, float] | None = None) -> None:
        """A dossier is received and started now; returns when its applicant is told, it is counted, and its first transfer
        has arrived. Raises TimeoutError (code)."""
        self._probes += 1
        code, began = "-", time.monotonic()
        steps = {} if steps is None else steps
        looks = {"told": self._is_told, "counted": self._is_counted, "handed over": self._is_handed_over}
        try:
            async with asyncio.timeout(within):
                code = (await self.load.probe(self._probes)).code
                steps["answered"] = time.monotonic() - began
                while len(steps) <= len(looks):
                    for name, look in looks.items():
                        if name not in steps and await look(code):
                            steps[name] = time.monotonic() - began
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise TimeoutError(code) from None

    async def _gaps_closed(self, within: float) -> None:
        """The dossiers that lost records stand where they should at every consumer. Raises TimeoutError (code)."""
        touched, self.faults.touched = self.faults.touched, {}
        for code, version in touched.items():
            try:
                async with asyncio.timeout(within):
                    while not await self._applied(code, version):
                        await asyncio.sleep(0.2)
            except TimeoutError:
                raise TimeoutError(code) from None

    async def _applied(self, code: str, version: int) -> bool:
        """Whether every consumer of dossiers has come so far; not, as long as the database is away."""
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection = await asyncpg.connect(self.stack.database_url)
            try:
                for consumer in ("routing", "notify", "stats"):
                    place = await connection.fetchval(
                        f"SELECT sequence FROM {consumer}.inbox WHERE topic = 'lienthong.dossier.v1' AND key = $1", code
                    )
                    if (place or 0) < version:
                        return False
                return True
            finally:
                await connection.close()
        return False

    async def _is_told(self, code: str) -> bool:
        assert self.provider is not None
        if self.provider.log.exists():
            with self.provider.log.open("rb") as file:
                file.seek(self._calls_read)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._calls_read += len(line)
                    call = orjson.loads(line)
                    if call.get("outcome") in ("taken", "refused", "again"):
                        self._told.add(subject_of(call["text"])[0])
        return code in self._told

    async def _is_counted(self, code: str) -> bool:
        days = (self.began_at, datetime.now(UTC))
        period = dict(zip(("from", "to"), (day.astimezone(LOCAL).date().isoformat() for day in days), strict=True))
        asked = {"agency": PROBE_DESK, "cell": "received.total", "limit": "1000", **period}
        found = await self.load.client.get("stats", "/v1/indicators/dossiers", self.stack.token(), **asked)
        return found is not None and any(item["code"] == code for item in found["items"])

    async def _is_handed_over(self, code: str) -> bool:
        found = await self.load.client.get("routing", "/v1/transfers", self.stack.token(), dossier=code)
        return found is not None and any(item["state"] == "delivered" for item in found["items"])


def errors_logged(folder: Path) -> Counter[str]:
    """What the services themselves called an error."""
    counted: Counter[str] = Counter()
    for file in sorted(folder.glob("*.log")):
        for line in file.read_bytes().splitlines():
            with contextlib.suppress(ValueError, AttributeError):
                entry = json.loads(line)
                if entry.get("level") in ("error", "critical"):
                    counted[f"{entry.get('service', file.stem)} {entry['event']} {entry.get('kind', '')}".strip()] += 1
    return counted


def show(driver: Driver, verdict: Verdict, console: Console) -> None:
    by_fault: dict[str, list[Struck]] = defaultdict(list)
    for struck in driver.struck:
        by_fault[struck.fault].append(struck)
    table = Table("fault", "times", "longest recovery", "median", title="Faults")
    for name, times in sorted(by_fault.items()):
        known = [struck.recovered for struck in times if struck.recovered is not None]
        never = len(times) - len(known)
        longest = "never" if never else f"{max(known):.1f} s"
        table.add_row(name, str(len(times)), longest, f"{statistics.median(known):.1f} s" if known else "-")
    for name, why in sorted(driver.faults.not_run.items()):
        table.add_row(name, "not run", why, "")
    console.print(table)
    ledger = driver.ledger
    console.print(
        f"seed {driver.arguments.seed}, bus {driver.arguments.bus}: {len(ledger.coded)} dossiers, {ledger.acts} acts"
        f" ({ledger.refused} refused), {ledger.lines} import lines, {ledger.requests} requests ({ledger.repeated} repeated),"
        f" {verdict.events} events, {verdict.records} records on the bus ({verdict.copies} of our own,"
        f" {len(driver.faults.lost)} taken from it),"
        f" {verdict.notices} notices, {verdict.transfers} transfers; settled after"
        f" {'never' if verdict.settled_after is None else f'{verdict.settled_after:.1f} s'}",
        highlight=False,
    )
    for name, number in [*ledger.unexpected.items(), *driver.ended_badly.items()]:
        console.print(f"noticed: {name}: {number} times", highlight=False)
    for name, number in errors_logged(driver.stack.data).items():
        console.print(f"logged as an error: {name}: {number} times", highlight=False)
    for finding in verdict.findings[:100]:
        console.print(f"promise {finding.promise}, {finding.dossier}: {finding.what}", style="red", highlight=False)
    if verdict.findings:
        kinds = Counter(finding.promise for finding in verdict.findings)
        found = ", ".join(f"{number} of promise {promise}" for promise, number in sorted(kinds.items()))
        console.print(f"{len(verdict.findings)} findings: {found}. Again: {again(driver.arguments)}", style="bold red")
    else:
        console.print("Nothing was found.", style="bold green")


def again(arguments: argparse.Namespace) -> str:
    plant = f" --plant {arguments.plant}" if arguments.plant else ""
    plant += f" --upgrade-from {arguments.upgrade_from}" if arguments.upgrade_from else ""
    return f"python -m tests.chaos --faults {arguments.faults} --seed {arguments.seed} --bus {arguments.bus}{plant}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--seed", type=int, default=None, help="of the schedule; without one it is drawn")
    parser.add_argument("--bus", choices=["embedded", "kafka"], default="embedded")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="turn one mechanism off; the judge must find it")
    parser.add_argument("--replicas", type=int, default=None, help="processes of each service (Kafka: 2, embedded: 1)")
    parser.add_argument("--people", type=int, default=16, help="how many dossiers are worked on at a time")
    parser.add_argument("--think", type=float, default=0.6, help="seconds between two acts of one of them, on average")
    parser.add_argument("--only", default="", help="for example kill,provider: faults whose name holds one of these")
    parser.add_argument(
        "--upgrade-from",
        metavar="COMMIT",
        help="the site begins with that version, and is upgraded; `previous`: the newest that had fewer migrations",
    )
    parser.add_argument("--json", type=Path, help="write the report there")
    parser.add_argument("--keep", action="store_true", help="leave the site's folder with its logs")
    arguments = parser.parse_args()
    if arguments.seed is None:
        arguments.seed = random.SystemRandom().randrange(1_000_000)
    if arguments.replicas is None:
        arguments.replicas = 2 if arguments.bus == "kafka" else 1
    console = Console(width=160)
    console.print(f"seed {arguments.seed}: {again(arguments)}", highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="lienthong-chaos-"))
    folder.chmod(0o755)  # PostgreSQL may run as another account
    driver = Driver(arguments, folder, console)
    try:
        verdict = asyncio.run(driver.run())
        show(driver, verdict, console)
        if arguments.json is not None:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_bytes(orjson.dumps(report(driver, verdict), option=orjson.OPT_INDENT_2))
    finally:
        if arguments.keep:
            console.print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if verdict.findings else 0


def report(driver: Driver, verdict: Verdict) -> dict[str, Any]:
    ledger, arguments = driver.ledger, driver.arguments
    return {
        "seed": arguments.seed,
        "bus": arguments.bus,
        "plant": arguments.plant,
        "again": again(arguments),
        "at": driver.began_at.isoformat(),
        "faults": [asdict(struck) for struck in sorted(driver.struck, key=lambda each: each.number)],
        "not_run": driver.faults.not_run,
        "dossiers": len(ledger.coded),
        "acts": ledger.acts,
        "refused": ledger.refused,
        "import_lines": ledger.lines,
        "requests": ledger.requests,
        "repeated": ledger.repeated,
        "events": verdict.events,
        "records": verdict.records,
        "records_lost": len(driver.faults.lost),
        "notices": verdict.notices,
        "transfers": verdict.transfers,
        "settled_after": verdict.settled_after,
        "noticed": {**ledger.unexpected, **driver.ended_badly},
        "logged": dict(errors_logged(driver.stack.data)),
        "findings": [asdict(finding) for finding in verdict.findings],
    }


if __name__ == "__main__":
    sys.exit(main())
