"""due-soon and overdue over the whole of intake: raised by time, once for each due date."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from shared.security.tokens import Role
from tests.harness import Backing, RunningSite, real_services, running_site
from tests.integration.intake_site import client, done, dossier, history, imported, instant, received

MARCH = "2026-03-02T08:00:00+07:00"


@pytest.fixture(scope="module")
async def site(backing: Backing) -> AsyncIterator[RunningSite]:
    """Intake alone; due dates are looked at all the time."""
    async with running_site(backing, *real_services("intake"), tick_seconds=0.05) as running:
        yield running


@pytest.fixture
def admin(site: RunningSite) -> httpx.AsyncClient:
    return client(site, Role.ADMIN)


async def raised(who: httpx.AsyncClient, code: str) -> list[str]:
    names = [item["type"] for item in await history(who, code)]
    return [name for name in names if name in ("dossier.due-soon", "dossier.overdue")]


async def make_due(site: RunningSite, code: str, column: str, instant: Any) -> None:
    """Writes the dossier's clock: the instant at which it is looked at next."""
    await site.database.execute(f"UPDATE intake.dossier SET {column} = $2 WHERE code = $1", code, instant)


async def settled(site: RunningSite) -> None:
    """Waits until nothing is due to be looked at any more."""

    async def quiet() -> bool:
        return bool(await site.value("SELECT count(*) = 0 FROM intake.dossier WHERE next_tick <= clock_timestamp()"))

    await site.until(quiet)


async def test_overdue_is_raised_once_also_after_a_long_night(site: RunningSite, admin: httpx.AsyncClient) -> None:
    code = (await received(admin, received_at=MARCH))["code"]
    await site.until(lambda: raised(admin, code))
    await settled(site)
    assert await raised(admin, code) == ["dossier.overdue"]
    overdue = (await history(admin, code))[-1]
    assert (overdue["by"], overdue["state"], overdue["previous"]) == ("system", 2, 2)
    await done(admin, code, "start")
    await settled(site)
    assert await raised(admin, code) == ["dossier.overdue"]
    assert code in [d["code"] for d in (await admin.get("/v1/dossiers?overdue=true")).json()["items"]]


async def test_a_new_due_date_is_raised_anew(site: RunningSite, admin: httpx.AsyncClient) -> None:
    code = (await received(admin, received_at=MARCH))["code"]
    await site.until(lambda: raised(admin, code))
    later = "2026-03-20T17:00:00+07:00"
    await done(admin, code, "extension", reason="chậm", due_at=later, at="2026-03-04T08:00:00+07:00")
    await site.until(lambda: _count(admin, code, 2))
    await settled(site)
    assert await raised(admin, code) == ["dossier.overdue"] * 2


async def _count(who: httpx.AsyncClient, code: str, number: int) -> bool:
    return len(await raised(who, code)) == number


async def test_due_soon_is_raised_before_the_due_day(site: RunningSite, admin: httpx.AsyncClient) -> None:
    """A dossier of which the opening of the last working day before the due day is past, and the due instant is not."""
    now = await site.value("SELECT clock_timestamp()")
    code = (await received(admin, received_at=(now - timedelta(days=30)).isoformat()))["code"]
    await site.until(lambda: raised(admin, code))
    # The due date is a minute from now: its warning lies a working day or more before, and after the extension.
    soon = now + timedelta(minutes=10)
    await done(
        admin,
        code,
        "extension",
        reason="chậm",
        due_at=soon.isoformat(),
        at=(now - timedelta(days=20)).isoformat(),
    )
    await site.until(lambda: _count(admin, code, 2))
    await settled(site)
    assert await raised(admin, code) == ["dossier.overdue", "dossier.due-soon"]
    assert instant((await history(admin, code))[-1]["due_at"]) == soon


async def test_nothing_is_raised_while_paused_nor_for_history(site: RunningSite, admin: httpx.AsyncClient) -> None:
    lines = [
        {"op": "receive", "ref": "paused", **dossier(received_at=MARCH)},
        {"op": "supplement-request", "ref": "paused", "reason": "thiếu", "at": "2026-03-03T08:00:00+07:00"},
    ]
    (paused, _) = await imported(admin, lines, source="paused")
    old = [{"op": "receive", "ref": "old", **dossier(received_at=MARCH)}]
    (history_mode,) = await imported(admin, old, source="old", mode="history")
    witness = (await received(admin, received_at=MARCH))["code"]
    await site.until(lambda: raised(admin, witness))
    for code in (paused["code"], history_mode["code"]):
        await make_due(site, code, "next_tick", await site.value("SELECT clock_timestamp()"))
    await settled(site)
    for code in (paused["code"], history_mode["code"]):
        assert await raised(admin, code) == []
        assert await site.value("SELECT next_tick FROM intake.dossier WHERE code = $1", code) is None
