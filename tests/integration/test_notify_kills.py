"""Promise 9 when the sender dies with -9 between any two steps of sending, and when its provider is hostile besides."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.notify import app
from services.notify.settings import NotifySettings
from tests.harness import LONG, Backing, RunningSite, running_site
from tests.integration.dying_notify import STEPS
from tests.integration.test_notify import (
    CANARY,
    OK,
    SCHEMAS,
    Answer,
    Gateway,
    Intake,
    gateway,
    load_bundle,
    nothing_more,
    provider,
    receipt,
    restart,
    status,
)

NOTICES = 3


@pytest.fixture
async def notify(backing: Backing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningSite]:
    """Notify's database and bus; what runs is for the test to start."""
    monkeypatch.setattr("shared.service.Service.ask_owner", nothing_more)

    def make(settings: dict[str, Any]) -> Any:
        return app.create(NotifySettings(**settings))

    quick: dict[str, Any] = {
        "call_timeout": 1.0,
        "retry_first": 0.05,
        "retry_most": 0.2,
        "sender_poll": 0.05,
        "sent_file": tmp_path / "sent.ndjson",
        "postal_file": tmp_path / "postal.ndjson",
    }
    async with running_site(backing, {"notify": make}, SCHEMAS, **quick) as site:
        await load_bundle(site, quiet_hours=None)
        await site.stop_service("notify")
        yield site


async def dies_at(site: RunningSite, step: str) -> None:
    """A process of notify that dies at that step of its first attempt."""
    environment = {f"LIENTHONG_{name.upper()}": str(value) for name, value in site.settings().items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.dying_notify", step, env=os.environ | environment
    )
    try:
        async with asyncio.timeout(2 * LONG):
            assert await process.wait() == -9
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def settled(site: RunningSite, *states: str) -> Counter[str]:
    """The states of all notices once all of them are in one of these."""
    query = "SELECT state FROM notify.notice WHERE NOT in_flight"

    async def there() -> Counter[str] | None:
        found = Counter(row["state"] for row in await site.fetch(query))
        return found if found.total() == NOTICES and found.keys() <= set(states) else None

    found: Counter[str] = await site.until(there, 2 * LONG, f"all in {states}")
    return found


async def tell(site: RunningSite) -> None:
    for number in range(NOTICES):
        dossier = Intake(site, f"H55.242-301014-{number + 1:04}")
        await dossier.say(dossier.contact(**CANARY), dossier.received())


def hostile(sms: Gateway, site: RunningSite, dedupes: bool) -> None:
    """It refuses, breaks off, reports before it answers; by the id alone, so that a repeated call comes to the same."""

    async def behave(document: dict[str, Any], call: int) -> Answer:
        mood, again = document["id"], sum(1 for each in sms.calls if each["id"] == document["id"])
        match int(mood[-1], 16) % 4:
            case 0 if again == 1:
                return status(500)  # not taken
            case 1 if again == 1 or not dedupes:
                return b"HTTP/1.1 2"  # taken or not: nobody knows
            case 2 if site.services:
                await receipt(site, "a", id=mood, status="delivered")
        return OK

    sms.behave = behave


@pytest.mark.parametrize(
    ("step", "dedupes"),
    [*((step, False) for step in STEPS), ("begun", True), ("asked", True), ("answered", True)],
)
async def test_told_once_though_the_sender_dies(notify: RunningSite, step: str, dedupes: bool) -> None:
    async with gateway() as sms:
        await load_bundle(notify, providers=[provider("a", sms.url, dedupes=dedupes)])
        await tell(notify)
        await dies_at(notify, step)
        left = len(sms.calls)
        await restart(notify)
        found = await settled(notify, "sent", "unknown")
        calls = Counter(call["id"] for call in sms.calls)
        if dedupes:
            assert found == {"sent": NOTICES}  # by the provider's own word each id went out once
            assert calls.keys() == {str(row["id"]) for row in await notify.fetch("SELECT id FROM notify.notice")}
        else:
            assert max(calls.values(), default=0) <= 1
            # What had begun and was not on record: at most what one process calls at once.
            assert found["unknown"] <= {"planned": 0, "recorded": NOTICES - 1}.get(step, NOTICES)
            assert found["sent"] + found["unknown"] == NOTICES
        if step in ("planned", "begun"):
            assert left == 0


async def test_two_hostile_providers_and_a_death_tell_nobody_twice(notify: RunningSite) -> None:
    async with gateway() as first, gateway() as second:
        hostile(first, notify, dedupes=False)
        await load_bundle(notify, providers=[provider("a", first.url), provider("b", second.url)])
        await tell(notify)
        await dies_at(notify, "asked")
        await restart(notify)
        await settled(notify, "sent", "delivered", "unknown")
        refused = {call["id"] for call in first.calls if int(call["id"][-1], 16) % 4 == 0}
        taken = Counter(call["id"] for call in [*first.calls, *second.calls])
        taken.subtract(Counter(refused))  # a 500 is a definite no
        assert max(taken.values()) <= 1
