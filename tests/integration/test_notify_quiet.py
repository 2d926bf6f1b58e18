"""Quiet hours: over midnight, with a clock that steps, a restart within, and a long night's backlog in the morning.

LIENTHONG_TEST_HELD says how many notices are held in that night (50,000 for the full proof).
"""

import os
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from services.notify import app
from services.notify.settings import NotifySettings
from shared.contracts.codes import LOCAL_ZONE
from tests.harness import LONG, Backing, RunningSite, running_site
from tests.integration.test_notify import (
    CANARY,
    SCHEMAS,
    Intake,
    gateway,
    load_bundle,
    nothing_more,
    provider,
    restart,
    status,
)

SIZE: Final = int(os.environ.get("LIENTHONG_TEST_HELD", "120"))
PATIENCE: Final = LONG + SIZE / 5  # seconds, on a busy machine
NIGHT: Final = {"from": "22:00", "to": "07:00"}


class Clock:
    """The sender's wall clock, as the test says."""

    def __init__(self) -> None:
        self.midnight = datetime.now(LOCAL_ZONE).replace(hour=0, minute=0, second=0, microsecond=0)
        self.now = self.midnight

    def set(self, hours: float) -> None:
        """Hours after the last midnight."""
        self.now = self.midnight + timedelta(hours=hours)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("services.notify.sender._now", clock)
    return clock


@pytest.fixture
async def notify(
    backing: Backing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> AsyncIterator[RunningSite]:
    monkeypatch.setattr("shared.service.Service.ask_owner", nothing_more)

    def make(settings: dict[str, Any]) -> Any:
        return app.create(NotifySettings(**settings))

    quick = {"sender_poll": 0.05, "held_patience": 20.0, "retry_first": 50.0, "retry_most": 55.0}
    files = {"sent_file": tmp_path / "sent.ndjson", "postal_file": tmp_path / "postal.ndjson"}
    async with running_site(backing, {"notify": make}, SCHEMAS, **quick, **files) as site:
        await site.reading()
        yield site


async def reach(site: RunningSite, code: str, state: str) -> None:
    """By the database: a service that was started again has no server here."""
    query = "SELECT state = $2 FROM notify.notice WHERE dossier = $1"

    async def there() -> bool:
        return bool(await site.value(query, code, state))

    await site.until(there, LONG, f"{code} {state}")


async def test_a_night_with_a_restart_and_a_clock_that_steps(notify: RunningSite, clock: Clock) -> None:
    async with gateway() as sms:
        clock.set(-0.5)
        await load_bundle(notify, providers=[provider("a", sms.url)], quiet_hours=NIGHT)
        evening, night = (Intake(notify, f"H55.242-301015-000{n}") for n in range(2))
        await evening.say(evening.contact(**CANARY), evening.received())
        await reach(notify, evening.code, "held")
        clock.set(0.5)  # over midnight
        await notify.stop_service("notify")
        await restart(notify)
        await night.say(night.contact(**CANARY), night.received())
        await reach(notify, night.code, "held")
        clock.set(6.99)
        clock.set(5)  # a step back within the night
        third = Intake(notify, "H55.242-301015-0003")
        await third.say(third.contact(**CANARY), third.received())
        await reach(notify, third.code, "held")
        assert sms.calls == []
        clock.set(7)
        for dossier in (evening, night, third):
            await reach(notify, dossier.code, "sent")
        texts = [call["text"] for call in sms.calls]
        assert [dossier.code in each for dossier, each in zip((evening, night, third), texts, strict=True)] == [
            True
        ] * 3


async def test_a_clock_that_is_put_back_delays_no_retry(notify: RunningSite, clock: Clock) -> None:
    async with gateway() as sms:
        clock.set(12)
        sms.answers(status(500))
        await load_bundle(notify, providers=[provider("a", sms.url)], quiet_hours=NIGHT)
        dossier = Intake(notify, "H55.242-301015-0010")
        await dossier.say(dossier.contact(**CANARY), dossier.received())
        waits = "SELECT next_at FROM notify.notice"
        await notify.until(lambda: notify.value(waits), LONG)
        calls = len(sms.calls)
        clock.set(11)  # an hour back: what waits for 12 o'clock does not wait for an hour
        await notify.until(lambda: len(sms.calls) > calls, LONG)


@pytest.mark.timeout(int(4 * PATIENCE) + 60)
async def test_a_nights_backlog_goes_out_in_order_with_a_restart_within(notify: RunningSite, clock: Clock) -> None:
    async with gateway() as sms:
        clock.set(1)
        await load_bundle(notify, providers=[provider("a", sms.url, dedupes=True, per_second=2000)], quiet_hours=NIGHT)
        dossiers = [Intake(notify, f"H55.242-301016-{number:05}") for number in range(1, SIZE // 2 + 1)]
        for start in range(0, len(dossiers), 200):
            some = dossiers[start : start + 200]
            await notify.bus.send(
                *(event for d in some for event in (d.contact(**CANARY), d.received(), d.started(), d.resolved()))
            )

        async def so_many(number: int, state: str) -> None:
            query = "SELECT count(*) FROM notify.notice WHERE state = $1"

            async def there() -> bool:
                return bool(await notify.value(query, state) >= number)

            await notify.until(there, PATIENCE, f"{number} {state}")

        all_of_them = 2 * len(dossiers)
        await so_many(all_of_them, "held")
        assert sms.calls == []
        clock.set(8)
        await so_many(all_of_them // 3, "sent")
        await notify.stop_service("notify")
        await restart(notify)
        await so_many(all_of_them, "sent")
        seen = list(dict.fromkeys(call["id"] for call in sms.calls))  # the provider sends an id once
        assert len(seen) == all_of_them
        rows = await notify.fetch("SELECT id, recipient FROM notify.notice ORDER BY id")
        place = {identity: number for number, identity in enumerate(seen)}
        last: dict[str, int] = {}
        for row in rows:
            assert last.get(row["recipient"], -1) < place[str(row["id"])]  # each recipient's in the order planned
            last[row["recipient"]] = place[str(row["id"])]
