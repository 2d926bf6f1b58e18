"""SMS through Kannel itself: bearerbox, smsbox and its fake message centre, killed and started in the middle.

LIENTHONG_TEST_KANNEL_SMS says how many SMS (10,000 for the full proof). Kannel keeps nothing on disk here: what it had taken
and not passed on when it died, it has lost; it never sends anything twice.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from services.notify import app
from services.notify.settings import NotifySettings
from tests.harness import Backing, RunningSite, running_site
from tests.integration.test_notify import CANARY, SCHEMAS, SECRET, Intake, load_bundle, nothing_more
from tests.ports import free_port

pytestmark = pytest.mark.system

SIZE: Final = int(os.environ.get("LIENTHONG_TEST_KANNEL_SMS", "300"))
# All of it; then what stands behind smsbox, which goes on taking calls meanwhile.
KILLS: Final[tuple[tuple[str, ...], ...]] = ((), ("bearerbox", "fakesmsc"))
PATIENCE: Final = 60 + SIZE / 10  # seconds, on a busy machine
LASTS: Final = 40 + SIZE / 40  # seconds until a notice expires
IN_FLIGHT: Final = 64  # calls at once with one provider, the default

_CONFIGURATION = """
group = core
admin-port = {admin}
admin-password = x
smsbox-port = {smsbox}
box-allow-ip = "127.0.0.1"
box-deny-ip = "*.*.*.*"
admin-allow-ip = "127.0.0.1"
admin-deny-ip = "*.*.*.*"
dlr-storage = internal

group = smsc
smsc = fake
smsc-id = fake
port = {smsc}
host = 127.0.0.1
connect-allow-ip = 127.0.0.1

group = smsbox
bearerbox-host = 127.0.0.1
bearerbox-port = {smsbox}
sendsms-port = {sendsms}
sendsms-interface = 127.0.0.1
http-request-retry = 5
http-queue-delay = 1

group = sendsms-user
username = u
password = p
concatenation = true
max-messages = 5

group = sms-service
keyword = default
max-messages = 0
text = ""
"""


_BROKEN: Final = re.compile(r'lienthong_sends_total\{outcome="no-answer",provider="kannel",service="notify"\} (\S+)')
_CODE: Final = re.compile(r"H55\.242-\d{6}-\d{4,7}")


class Kannel:
    """The three processes under a supervisor that starts what has ended, and what they were given."""

    BOXES = ("bearerbox", "fakesmsc", "smsbox")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = {name: free_port() for name in ("admin", "smsbox", "smsc", "sendsms")}
        self._configuration = folder / "kannel.conf"
        self._configuration.write_text(_CONFIGURATION.format(**self._ports))
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self.url = f"http://127.0.0.1:{self._ports['sendsms']}/cgi-bin/sendsms"

    async def start(self) -> None:
        programs = [(name, _program(name)) for name in self.BOXES]
        self._keepers = [asyncio.create_task(self._keep(name, program)) for name, program in programs]
        await self.up()

    async def up(self) -> None:
        for port in ("smsbox", "sendsms"):
            await _answers(self._ports[port])

    async def _keep(self, name: str, program: str) -> None:
        """Also smsbox, which may fall when bearerbox does."""
        told = [str(self._configuration)]
        if name == "fakesmsc":
            told = ["-H", "127.0.0.1", "-r", str(self._ports["smsc"]), "-m", "0", "1 2 text x"]
        while True:
            if name != "bearerbox":
                await _answers(self._ports["smsbox"])
            with (self._folder / f"{name}.log").open("ab") as log:
                process = await asyncio.create_subprocess_exec(program, *told, stdout=log, stderr=log)
            self._processes[name] = process
            try:
                await process.wait()
            finally:
                await _killed(process)

    def halt(self, name: str) -> None:
        """It takes nothing more, and says nothing, until it is killed."""
        self._processes[name].send_signal(signal.SIGSTOP)

    def kill(self, *names: str) -> None:
        """These, or all of them, at once."""
        for name in names or self.BOXES:
            with contextlib.suppress(ProcessLookupError):
                self._processes[name].kill()

    async def stop(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        ended = await asyncio.gather(*self._keepers, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended

    def asked(self) -> Counter[str]:
        """How often smsbox was asked for an SMS about each dossier, by its own log."""
        return self._count("smsbox.log", "sendsms sender:")

    def given(self) -> Counter[str]:
        """How often the message centre was given one."""
        return self._count("fakesmsc.log", "Got message ")

    def _count(self, log: str, mark: str) -> Counter[str]:
        with (self._folder / log).open(errors="replace") as lines:
            return Counter(found[0] for line in lines if mark in line and (found := _CODE.search(line)))


def _program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/lib/kannel/test")
    if found is None:
        pytest.fail("Kannel is missing: apt-get install kannel kannel-extras")
    return found


async def _killed(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


async def _answers(port: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)


@pytest.fixture
async def notify(backing: Backing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningSite]:
    monkeypatch.setattr("shared.service.Service.ask_owner", nothing_more)

    def make(settings: dict[str, Any]) -> Any:
        return app.create(NotifySettings(**settings))

    quick: dict[str, Any] = {"retry_first": 0.2, "retry_most": 1.0, "sender_poll": 0.1, "call_timeout": 10.0}
    quick["contact_wait"] = PATIENCE  # two topics, read at their own pace, and no intake that could be asked
    async with running_site(backing, {"notify": make}, SCHEMAS, **quick) as site:
        await site.reading()
        yield site


@pytest.mark.timeout(int(2 * PATIENCE + LASTS) + 120)
async def test_nobody_is_told_twice_and_whoever_is_not_told_is_seen(notify: RunningSite, tmp_path: Path) -> None:
    kannel = Kannel(tmp_path)
    await kannel.start()
    try:
        entry = {"name": "kannel", "kind": "kannel", "url": kannel.url, "username": "u", "password": "p"}
        await load_bundle(
            notify,
            providers=[entry | {"secret": SECRET, "receipts": True}],
            quiet_hours=None,
            sms={"sender": "THAINGUYEN", "expire_hours": LASTS / 3600},
        )
        codes = [f"H55.242-301013-{number:04}" for number in range(1, SIZE + 1)]
        told = asyncio.create_task(_tell(notify, codes))
        states = "SELECT count(*) FROM notify.notice WHERE state = ANY ($1::text[])"

        async def so_many(number: int, *which: str) -> None:
            async def there() -> bool:
                await asyncio.sleep(SIZE / 20_000)  # to count so many takes a while
                return bool(await notify.value(states, list(which)) >= number)

            await notify.until(there, PATIENCE, lambda: f"{number} notices in {which}")

        async def in_flight() -> bool:
            query = "SELECT count(*) FROM notify.notice WHERE in_flight"
            return bool(await notify.value(query) >= IN_FLIGHT // 2)

        for kill, killed in enumerate(KILLS, 1):
            await so_many(SIZE * kill // (len(KILLS) + 2), "delivered")
            kannel.halt("bearerbox")  # so that calls wait when it dies
            await notify.until(in_flight, PATIENCE, "calls in flight")
            kannel.kill(*killed)
            await kannel.up()
        await told
        await so_many(SIZE, "delivered", "failed")
        asked, given = kannel.asked(), kannel.given()
        metrics = (await notify.client("notify", None).get("/metrics")).text
        rows = await notify.fetch("SELECT dossier, state, reason, sent_at FROM notify.notice")
    finally:
        await kannel.stop()
    assert len(rows) == SIZE
    assert [code for code, times in given.items() if times > 1] == []
    delivered = {row["dossier"] for row in rows if row["state"] == "delivered"}
    failed = [row for row in rows if row["state"] != "delivered"]
    assert {(row["state"], row["reason"]) for row in failed} <= {("failed", "unknown")}
    assert delivered <= given.keys()
    # What Kannel said that it had taken, and never reported on: an SMS that it lost, or its report.
    lost = {row["dossier"] for row in failed if row["sent_at"] is not None}
    lost_reports = lost & given.keys()
    assert lost <= asked.keys()
    # What was in flight at the kills: its call broke, and no report came.
    cut_off = {row["dossier"] for row in failed if row["sent_at"] is None}
    broken = int(float(found[1])) if (found := _BROKEN.search(metrics)) else 0
    print(
        f"{SIZE} SMS, {len(KILLS)} kills: {len(delivered)} delivered; {broken} calls broken, "
        f"{len(cut_off)} of them failed: unknown; lost by Kannel {len(lost - lost_reports)} SMS and {len(lost_reports)} reports"
    )
    assert len(cut_off) <= broken <= len(KILLS) * IN_FLIGHT
    # Every report that Kannel sent found its notice: it counts none that was not taken.
    assert await notify.value("SELECT count(*) FROM notify.notice WHERE state = 'delivered' AND sent_at IS NULL") == 0


async def _tell(notify: RunningSite, codes: list[str]) -> None:
    """As fast as the bus takes them, so that calls are in flight when Kannel dies."""
    lines = 8

    async def some(line: int) -> None:
        mine = codes[line::lines]
        for start in range(0, len(mine), 100):
            dossiers = [Intake(notify, code) for code in mine[start : start + 100]]
            await notify.bus.send(*(event for each in dossiers for event in (each.contact(**CANARY), each.received())))

    await asyncio.gather(*(some(line) for line in range(lines)))
