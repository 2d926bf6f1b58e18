"""The command itself, as an operator starts, signals and kills it.

With LIENTHONG_TEST_BUS (host:port of an Apache Kafka) every site stands on that bus, under a prefix of its own.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx
import psutil

from shared.bus.connection import BusSettings
from shared.security.keys import load_keys
from shared.security.tokens import Role, Tokens
from shared.security.trust import trusted
from tests.harness import RawBus
from tests.ports import base_port

COMMAND = str(Path(sys.executable).with_name("lienthong"))
LONG = 120.0  # seconds that a condition may take on a busy machine

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1

T = TypeVar("T")


BUS = os.environ.get("LIENTHONG_TEST_BUS", "")  # an Apache Kafka in the embedded broker's place


def environment(data: Path | None = None) -> dict[str, str]:
    """Ours without any deployment's settings; the site on `data` has its place on the bus of the run, if there is one."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("LIENTHONG_")}
    return ours | bus_settings(data) if data is not None else ours


def bus_settings(data: Path) -> dict[str, str]:
    """What puts the site on `data` on the run's Kafka; nothing on the embedded broker."""
    if not BUS:
        return {}
    return {
        "LIENTHONG_BUS_BOOTSTRAP": BUS,
        "LIENTHONG_BUS_PREFIX": prefix_of(data),
        "LIENTHONG_BUS_IDEMPOTENT": "true",
        "LIENTHONG_SESSION_SECONDS": "6",
    }


def prefix_of(data: Path) -> str:
    """Each folder's own: the sites of a whole run share one Kafka."""
    return f"a{hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:10]}." if BUS else ""


def lienthong(*arguments: object, data: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end."""
    given = [str(argument) for argument in arguments]
    if data is not None:
        given += ["--data", str(data)]
    return subprocess.run(
        [COMMAND, *given], capture_output=True, text=True, timeout=400, env=environment(data), check=False
    )


def until(condition: Callable[[], T], what: str, timeout: float = LONG) -> T:
    """Waits until the condition holds, and returns what it returned."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout} s: {what}")


def processes_on(data: Path) -> list[psutil.Process]:
    """The processes that work on a folder: by their arguments or their working directory."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            here = str(data) in " ".join(process.cmdline()) or Path(process.cwd()).is_relative_to(data)
            if here and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _end_with_us() -> None:
    """In a child that starts: SIGTERM when the tests die without a chance to end it."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


@dataclass
class Up:
    """A site that `lienthong up` runs, as its ready line describes it."""

    data: Path
    process: "subprocess.Popen[str]"
    ready: Mapping[str, Any]

    @classmethod
    def start(
        cls, data: Path, *arguments: object, at: int | None = None, told: Mapping[str, str] | None = None
    ) -> "Up":
        """Starts it and waits until it is ready. A folder that has a site keeps its ports. `told`: settings by their names."""
        given = ["up", "--data", str(data), "--json", *(str(argument) for argument in arguments)]
        if at is not None or not (data / "site.json").exists():
            given += ["--base-port", str(at or base_port())]
        data.mkdir(parents=True, exist_ok=True)
        with (data / "up.err").open("a") as complaints:
            env = environment(data) | {f"LIENTHONG_{name.upper()}": value for name, value in (told or {}).items()}
            process = subprocess.Popen(
                [COMMAND, *given],
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                env=env,
                preexec_fn=_end_with_us,
            )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise AssertionError(f"up ended with {process.wait()}: {(data / 'up.err').read_text()}")
        return cls(data, process, json.loads(line))

    def url(self, service: str) -> str:
        return str(self.ready["services"][service])

    def token(self, role: Role = Role.ADMIN, agency: str | None = None) -> str:
        tokens = Tokens(load_keys(self.data / "keys"), self.ready["site"])
        return tokens.issue(role, agency=agency, name=f"test {role} {agency}")

    def http(self, service: str, role: Role = Role.ADMIN, agency: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token(role, agency)}"}
        return httpx.Client(
            base_url=self.url(service), headers=headers, timeout=30.0, trust_env=False, verify=trusted()
        )

    def bus(self) -> RawBus:
        """The bus by hand."""
        return RawBus(BusSettings(self.ready["bus"], prefix=prefix_of(self.data), groups=bool(BUS)))

    async def rows(self, statement: str, *values: object) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.ready["database"], ssl=False)
        try:
            return await connection.fetch(statement, *values)
        finally:
            await connection.close()

    def signal(self, number: int) -> int:
        """Sends a signal and waits for the end; the exit status."""
        self.process.send_signal(number)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(timeout=30)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.signal(15)
        elif self.process.stdout is not None:
            self.process.stdout.close()


@contextlib.contextmanager
def running(data: Path, *arguments: object, told: Mapping[str, str] | None = None) -> Iterator[Up]:
    up = Up.start(data, *arguments, told=told)
    try:
        yield up
    finally:
        up.stop()


def has_parked(up: Up, service: str, key: str) -> bool:
    with up.http(service, Role.OPERATOR) as http:
        items = http.get("/v1/parked").json()["items"]
        return any(item["key"] == key and item["state"] == "parked" for item in items)


def receipt(agency: str = "H55.242", **fields: object) -> dict[str, Any]:
    """The body of a dossier received at a desk, with an applicant who can be told."""
    return {
        "procedure": "1.004873",
        "receiving_agency": agency,
        "channel": "counter",
        "applicant": {"kind": "citizen", "name": "Nguyễn Văn Mẫu", "phone": "0912345678"},
        "return_by": "counter",
        **fields,
    }


def write_register(file: Path, dossiers: int, agency: str = "H55.242") -> list[dict[str, Any]]:
    """A register of history: each dossier received, started, resolved. Returns its lines."""
    lines: list[dict[str, Any]] = []
    for number in range(dossiers):
        ref, day = f"{number:05}", f"2025-{8 + number % 4:02}-{1 + number % 28:02}"
        body = receipt(agency, applicant={"kind": "citizen", "name": f"Người thứ {number}"})
        lines += [
            {"op": "receive", "ref": ref, "at": f"{day}T08:00:00+07:00", **body},
            {"op": "start", "ref": ref, "at": f"{day}T08:30:00+07:00"},
            {"op": "resolution", "ref": ref, "at": f"{day}T16:00:00+07:00", "result": "granted"},
        ]
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return lines


def reconciled(data: Path, wait: int = 60) -> dict[str, Any]:
    """The books of a site that must agree within `wait` seconds."""
    done = lienthong("reconcile", "--wait", wait, "--json", data=data)
    assert done.returncode == 0, done.stdout + done.stderr
    books: dict[str, Any] = json.loads(done.stdout)
    assert books["reconciled"] is True
    return books


def json_lines(file: Path) -> Sequence[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
