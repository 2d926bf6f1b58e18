"""Quiet hours: over midnight, with a clock that steps, a restart within, and a long night's backlog in the morning.

LIENTHONG_TEST_HELD says how many notices are held in that night (50,000 for the full proof).
"""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from services.notify import app
from services.notify.settings import NotifySettings
from shared.contracts.codes import LOCAL_ZONE
from shared.store.inbox import Inbox, record_of
from shared.store.room import RoomInPostgres
from tests.harness import LONG, Backing, RunningSite, running_site
from tests.integration.test_notify import (
    CANARY,
    SCHEMAS,
    Intake,
    app_handlers,
    gateway,
    load_bundle,
    nothing_more,
    provider,
    restart,
    status,
)

SIZE: Final = int(os.environ.get("LIENTHONG_TEST_HELD", "120"))
LIMIT: Final = max(40, SIZE // 125)  # SMS a second that the provider takes
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

    quick = {
        "sender_poll": 0.05,
        "held_patience": 20.0,
        "held_per_second": 1e6,
        "retry_first": 50.0,
        "retry_most": 55.0,
    }
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
        await load_bundle(notify, providers=[provider("a", sms.url, dedupes=True, per_second=LIMIT)], quiet_hours=NIGHT)
        dossiers = [Intake(notify, f"H55.242-301016-{number:05}") for number in range(1, SIZE // 2 + 1)]

        # As the consumer would, without a bus between: it is not what is looked at.
        service = notify.services["notify"]
        for start in range(0, len(dossiers), 100):
            acts = (
                (d.contact(**CANARY), d.received(), d.started(), d.resolved()) for d in dossiers[start : start + 100]
            )
            async with service.pool.acquire() as connection, connection.transaction():
                room = RoomInPostgres(connection, service.store_queries)
                records = [record_of(event) for each in acts for event in each]
                outcome = await Inbox(app_handlers(service)).process(room, connection, records)
                assert outcome.parked == []

        async def so_many(number: int, state: str) -> None:
            query = "SELECT count(*) FROM notify.notice WHERE state = $1"

            async def there() -> bool:
                await asyncio.sleep(SIZE / 50_000)  # to count so many takes a while
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
        # A second as it is counted here may hold a few more than as it was counted there: what came late stands closer to
        # the next. Over several seconds that is lost.
        came = sms.came
        took = came[-1] - came[0]
        assert len(came) <= LIMIT * (took + 1)
        span = 5 * LIMIT
        assert all(came[at + span] - came[at] >= 4 for at in range(len(came) - span))
        print(f"{len(came)} calls in {took:.1f} s at {LIMIT} a second at most")
        seen = list(dict.fromkeys(call["id"] for call in sms.calls))  # the provider sends an id once
        assert len(seen) == all_of_them
        rows = await notify.fetch("SELECT id, recipient FROM notify.notice ORDER BY id")
        place = {identity: number for number, identity in enumerate(seen)}
        last: dict[str, int] = {}
        for row in rows:
            assert last.get(row["recipient"], -1) < place[str(row["id"])]  # each recipient's in the order planned
            last[row["recipient"]] = place[str(row["id"])]


async def test_a_nights_backlog_is_let_go_little_by_little_and_the_day_does_not_wait_for_it(
    notify: RunningSite, clock: Clock, tmp_path: Path
) -> None:
    clock.set(1)
    await notify.stop_service("notify")
    await restart(notify, held_per_second=0.001)  # the next in a quarter of an hour
    await load_bundle(notify, quiet_hours=NIGHT)
    night = [Intake(notify, f"H55.242-301017-{number:04}") for number in range(3)]
    for dossier in night:
        await dossier.say(dossier.contact(**CANARY), dossier.received())
        await reach(notify, dossier.code, "held")
    clock.set(8)
    await reach(notify, night[0].code, "sent")
    day = Intake(notify, "H55.242-301017-0010")
    await day.say(day.contact(**CANARY), day.received())
    await reach(notify, day.code, "sent")
    assert await notify.value("SELECT count(*) FROM notify.notice WHERE state = 'held'") == 2
    assert len((tmp_path / "sent.ndjson").read_text().splitlines()) == 2
