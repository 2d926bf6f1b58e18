"""What intake makes of routing's news on the bus."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from shared.contracts import events as ev
from shared.contracts.codes import uuid7
from shared.contracts.envelope import Envelope
from shared.security.tokens import Role
from tests.harness import Backing, RunningSite, real_services, running_site
from tests.integration.intake_site import HOME, ROUTED, TWO_STEPS, act, client, done, history, received, refused

POLICE = "H55.21"


@pytest.fixture(scope="module")
async def site(backing: Backing) -> AsyncIterator[RunningSite]:
    """Intake alone, reading the bus; the tests speak for routing."""
    async with running_site(backing, *real_services("intake"), tick_seconds=3600) as running:
        await running.reading()
        yield running


class Route:
    """Routing's line of events about one dossier."""

    def __init__(self, site: RunningSite, code: str) -> None:
        self.site, self.code, self.sequence = site, code, 0

    async def say(self, kind: type[ev.TransferEvent], transfer: str, to: str = POLICE, **more: Any) -> None:
        self.sequence += 1
        data = kind(
            transfer=UUID(transfer),
            dossier=self.code,
            step=1,
            from_agency=HOME,
            to=to,
            attempt=1,
            agency=HOME,
            due_at=None,
            **more,
        )
        now = datetime.now(UTC)
        await self.site.bus.send(
            Envelope(
                topic="lienthong.transfer.v1",
                id=uuid7(),
                source="/sites/H55/routing",
                type=data.short,
                subject=self.code,
                time=now,
                recorded=now,
                sequence=self.sequence,
                mode="live",
                data=data.to_json(),
            )
        )
        place = "SELECT sequence FROM intake.inbox WHERE key = $1"

        async def heard() -> bool:
            return bool(await self.site.value(place, self.code) == self.sequence)

        await self.site.until(heard)


async def test_a_transfer_from_request_to_result(site: RunningSite) -> None:
    desk, officer = client(site, Role.DESK, HOME), client(site, Role.OFFICER, HOME)
    police = client(site, Role.OFFICER, POLICE)
    code = (await received(desk, procedure=ROUTED))["code"]
    await done(officer, code, "start")
    started = (await history(desk, code))[-1]
    (step,) = started["route"]
    route = Route(site, code)
    problem = refused(await act(officer, code, "resolution", result="granted"), 409, "transfers-open")
    assert problem["transfers"] == [step["transfer"]]
    assert (await police.get(f"/v1/dossiers/{code}")).status_code == 404
    await route.say(ev.TransferRequested, step["transfer"])
    await route.say(ev.TransferDelivered, step["transfer"])
    read = await police.get(f"/v1/dossiers/{code}")
    assert (read.status_code, read.json()["working_agencies"]) == (200, [POLICE])
    assert "applicant" not in read.json()
    refused(await act(police, code, "stop", reason="x"), 404, "not-found")
    await route.say(ev.TransferAccepted, step["transfer"])
    refused(await act(officer, code, "correction", undoes=started["id"], reason="nhầm"), 409, "too-late")
    await done(desk, code, "supplement-request", reason="thiếu")
    await route.say(ev.TransferCompleted, step["transfer"], result="denied", route_complete=True, route_result="denied")
    assert (await desk.get(f"/v1/dossiers/{code}")).json()["state"] == 5
    assert (await done(desk, code, "supplement"))["state"] == 9
    resolved = (await history(desk, code))[-1]
    assert (resolved["type"], resolved["result"], resolved["by_route"]) == ("dossier.resolved", "denied", True)
    assert (await police.get(f"/v1/dossiers/{code}")).status_code == 404


async def test_the_last_step_resolves_at_once(site: RunningSite) -> None:
    desk, officer = client(site, Role.DESK, HOME), client(site, Role.OFFICER, HOME)
    code = (await received(desk, procedure=TWO_STEPS))["code"]
    await done(officer, code, "start")
    first, second = (step["transfer"] for step in (await history(desk, code))[-1]["route"])
    route = Route(site, code)
    await route.say(ev.TransferCompleted, first, result="granted", route_complete=False)
    assert (await desk.get(f"/v1/dossiers/{code}")).json()["state"] == 4
    await route.say(ev.TransferCompleted, second, result="granted", route_complete=True, route_result="granted")
    read = (await desk.get(f"/v1/dossiers/{code}")).json()
    assert (read["state"], read["version"]) == (9, 3)


async def test_a_dossier_of_another_site_is_known_as_such(site: RunningSite) -> None:
    code = "H31.133-261102-0001"
    await Route(site, code).say(ev.TransferDelivered, str(uuid7()), to=HOME)
    officer, stranger = client(site, Role.OFFICER, HOME), client(site, Role.OFFICER, "H55.201")
    refused(await act(officer, code, "start"), 409, "not-home")
    refused(await act(stranger, code, "start"), 404, "not-found")
    refused(await officer.get(f"/v1/dossiers/{code}"), 404, "not-found")
    assert await site.value("SELECT count(*) FROM intake.pending") == 0


async def test_a_result_at_the_door_is_paid_and_returned(site: RunningSite) -> None:
    desk, officer = client(site, Role.DESK, HOME), client(site, Role.OFFICER, HOME)
    code = (await received(desk))["code"]
    await done(officer, code, "start")
    await done(officer, code, "resolution", result="granted")
    order, letter = uuid7(), uuid7()
    news: list[ev.PostalEvent] = [
        ev.PostalOrdered(order=order, dossier=code, kind="deliver", carrier="vnpost", fee_to_collect=45000),
        ev.PostalDelivered(order=letter, dossier=code, kind="deliver", carrier="vnpost", notice=letter),
        ev.PostalCollected(order=uuid7(), dossier=code, kind="collect", carrier="vnpost", amount=9000),
    ]
    delivered = ev.PostalDelivered(order=order, dossier=code, kind="deliver", carrier="vnpost", amount=45000)

    async def say(sequence: int, data: ev.PostalEvent) -> None:
        now = datetime.now(UTC)
        topic, source = "lienthong.notice.v1", "/sites/H55/notify"
        await site.bus.send(
            Envelope(topic, uuid7(), source, data.short, code, now, now, sequence, "live", data.to_json())
        )
        place = "SELECT sequence FROM intake.inbox WHERE key = $1 AND topic = 'lienthong.notice.v1'"

        async def heard() -> bool:
            return bool(await site.value(place, code) == sequence)

        await site.until(heard)

    for sequence, data in enumerate(news, 1):
        await say(sequence, data)
    assert (await history(desk, code))[-1]["type"] == "dossier.resolved"  # a letter is not the result
    await say(4, delivered)
    paid, returned = (await history(desk, code))[-2:]
    assert (paid["amount"], paid["method"], paid["by"]) == (45000, "postal", "system")
    assert (returned["state"], returned["returned_by"]) == (10, "postal")
    await say(5, delivered.model_copy(update={"order": uuid7()}))  # the desk was quicker: nothing happens twice
    assert (await history(desk, code))[-1]["state"] == 10
