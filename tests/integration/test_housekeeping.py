"""What is too old goes, what a rotation left under an old key is wrapped anew."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from shared.security.sealing import unwrap
from shared.security.tokens import Role
from shared.store.housekeeping import Housekeeping, Wrapped
from tests.harness import Backing, RunningSite, real_services, running_site
from tests.integration.intake_site import HOME, client, dossier, person, received


@pytest.fixture
async def site(backing: Backing) -> AsyncIterator[RunningSite]:
    async with running_site(backing, *real_services("intake"), tick_seconds=3600) as running:
        yield running


def keeping(site: RunningSite) -> Housekeeping:
    tables = (Wrapped("contact", "contact_ref", "text"), Wrapped("petition", "id", "uuid"))
    return Housekeeping(site.services["intake"], tables, 3600)


async def test_answers_go_after_seven_days_and_records_of_access_after_two_years(site: RunningSite) -> None:
    desk = client(site, Role.DESK, HOME)
    for key in ("old", "new"):
        await desk.post("/v1/dossiers", json=dossier(), headers={"Idempotency-Key": key})
    code = (await received(desk))["code"]
    for _ in range(2):
        await desk.get(f"/v1/dossiers/{code}")
    await site.fetch("UPDATE intake.idempotency SET at = now() - interval '7 days 1 minute' WHERE key = 'old'")
    await site.fetch(
        "UPDATE intake.access_record SET at = now() - interval '730 days 1 minute'"
        " WHERE number = (SELECT min(number) FROM intake.access_record)"
    )
    await keeping(site).once()
    assert [row["key"] for row in await site.fetch("SELECT key FROM intake.idempotency")] == ["new"]
    assert await site.value("SELECT count(*) FROM intake.access_record") == 1


async def test_after_a_rotation_all_lies_under_the_new_key(site: RunningSite) -> None:
    desk, service = client(site, Role.DESK, HOME), site.services["intake"]
    someone = person()
    code = (await received(desk, applicant=someone))["code"]
    petition = {"agency": HOME, "kind": "letter", "text": "Xin hỏi"}
    assert (await desk.post("/v1/petitions", json=petition)).status_code == 201
    before = service.keys
    service.keys = replace(before, data=b"n" * 32, old_data=(before.data,))
    assert (await desk.get(f"/v1/dossiers/{code}")).json()["applicant"]["name"] == someone["name"]
    await keeping(site).once()
    alone = replace(service.keys, old_data=())
    for table in ("contact", "petition"):
        for row in await site.fetch(f"SELECT wrapped FROM intake.{table}"):
            unwrap(alone, row["wrapped"])
    service.keys = alone
    assert (await desk.get(f"/v1/dossiers/{code}")).json()["applicant"]["name"] == someone["name"]
