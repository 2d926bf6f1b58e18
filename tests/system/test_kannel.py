"""SMS through Kannel itself: bearerbox, smsbox and its fake message centre, all killed and started in the middle.

LIENTHONG_TEST_KANNEL_SMS says how many SMS (10,000 for the full proof). Kannel keeps nothing on disk here: what it had taken
and not passed on when it died, it has lost; it never sends anything twice.
"""

import asyncio
import contextlib
import os
import re
import shutil
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
KILLS: Final = 2
PATIENCE: Final = 60 + SIZE / 10  # seconds, on a busy machine
LASTS: Final = 40 + SIZE / 20  # seconds until a notice expires
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


class Kannel:
    """The three processes, and what the message centre was given."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = {name: free_port() for name in ("admin", "smsbox", "smsc", "sendsms")}
        self._configuration = folder / "kannel.conf"
        self._configuration.write_text(_CONFIGURATION.format(**self._ports))
        self._processes: list[asyncio.subprocess.Process] = []
        self.url = f"http://127.0.0.1:{self._ports['sendsms']}/cgi-bin/sendsms"

    async def start(self) -> None:
        await self._run(_program("bearerbox"), str(self._configuration))
        await _answers(self._ports["smsbox"])
        centre = _program("fakesmsc", "/usr/lib/kannel/test")
        await self._run(centre, "-H", "127.0.0.1", "-r", str(self._ports["smsc"]), "-m", "0", "1 2 text x")
        await self._run(_program("smsbox"), str(self._configuration))
        await _answers(self._ports["sendsms"])

    async def _run(self, program: str, *arguments: str) -> None:
        with (self._folder / f"{Path(program).name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(program, *arguments, stdout=log, stderr=log)
        self._processes.append(process)

    async def kill(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        for process in self._processes:
            await process.wait()
        self._processes.clear()

    def given(self) -> Counter[str]:
        """How often the message centre was given an SMS about each dossier."""
        log = (self._folder / "fakesmsc.log").read_text(errors="replace")
        return Counter(re.findall(r"Got message \d+: <.* text .*?(H55\.242-\d{6}-\d{4,7})", log))


def _program(name: str, folder: str | None = None) -> str:
    found = shutil.which(name, path=folder) or shutil.which(name)
    if found is None:
        pytest.fail("Kannel is missing: apt-get install kannel kannel-extras")
    return found


async def _answers(port: int) -> None:
    async with asyncio.timeout(30):
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
                return bool(await notify.value(states, list(which)) >= number)

            await notify.until(there, PATIENCE, lambda: f"{number} notices in {which}")

        async def in_flight() -> bool:
            return bool(await notify.value("SELECT EXISTS (SELECT 1 FROM notify.notice WHERE in_flight)"))

        for kill in range(KILLS):
            await so_many(SIZE * (kill + 1) // (KILLS + 2), "delivered")
            await notify.until(in_flight, PATIENCE)
            await kannel.kill()
            await kannel.start()
        await told
        await so_many(SIZE, "delivered", "failed")
        # Two lines of Kannel's log are one SMS given twice.
        given = kannel.given()
        rows = await notify.fetch("SELECT dossier, state, reason, sent_at FROM notify.notice")
    finally:
        await kannel.kill()
    assert len(rows) == SIZE
    assert [code for code, times in given.items() if times > 1] == []
    delivered = {row["dossier"] for row in rows if row["state"] == "delivered"}
    failed = [row for row in rows if row["state"] != "delivered"]
    assert {(row["state"], row["reason"]) for row in failed} <= {("failed", "unknown")}
    assert delivered <= given.keys()
    cut_off = [row for row in failed if row["sent_at"] is None]
    lost = [row for row in failed if row["sent_at"] is not None]
    lost_reports = [row for row in lost if row["dossier"] in given]
    print(
        f"{SIZE} SMS, {KILLS} kills: {len(delivered)} delivered, {len(cut_off)} calls cut off, "
        f"lost by Kannel {len(lost) - len(lost_reports)} SMS and {len(lost_reports)} reports"
    )
    assert len(cut_off) <= KILLS * IN_FLIGHT
    # Every report that Kannel sent found its notice: it counts none that was not taken.
    assert await notify.value("SELECT count(*) FROM notify.notice WHERE state = 'delivered' AND sent_at IS NULL") == 0


async def _tell(notify: RunningSite, codes: list[str]) -> None:
    for start in range(0, len(codes), 500):
        dossiers = [Intake(notify, code) for code in codes[start : start + 500]]
        await notify.bus.send(*(event for each in dossiers for event in (each.contact(**CANARY), each.received())))
