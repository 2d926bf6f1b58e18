"""The portal connector against a portal that is strict: upsert, at least once, in dossier order, also after days down."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from deploy.serving import HttpServer, listen
from shared.directory.bundle import PortalEntry
from shared.directory.reading import parse_bundle
from shared.directory.store import load, stored_site
from shared.security.tokens import Role
from shared.store.pool import connect
from tests.harness import Backing, RunningSite, real_services, running_site
from tests.integration.intake_site import CONFIDENTIAL, HOME, client, done, dossier, imported, person, received, refused
from tests.portal_stub import Portal

SECRET = "bí mật".encode().hex()


@pytest.fixture(params=[1, 2])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
async def portal(monkeypatch: pytest.MonkeyPatch) -> Portal:
    monkeypatch.setenv("TEST_PORTAL_SECRET", SECRET)
    return Portal("H55", SECRET)


@pytest.fixture
async def site(backing: Backing, portal: Portal) -> AsyncIterator[RunningSite]:
    """Intake with one portal of the second version."""
    async with running_portal(backing, portal, 2) as running:
        yield running
    assert portal.complaints == []


def running_portal(backing: Backing, portal: Portal, version: int) -> Any:
    return _Running(backing, portal, version)


class _Running:
    """The site, and the portal that its bundle names."""

    def __init__(self, backing: Backing, portal: Portal, version: int) -> None:
        listener = listen("portal", "127.0.0.1", 0)
        self._server = HttpServer(portal.app(), listener)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/sync"
        self._entry = PortalEntry(
            name="national", url=url, unit="H55", version=version, secret_env="TEST_PORTAL_SECRET"
        )
        self._site = running_site(
            backing, *real_services("intake"), tick_seconds=3600, portal_seconds=0.05, portal_longest_pause=0.1
        )

    async def __aenter__(self) -> RunningSite:
        self._server.start()
        site = await self._site.__aenter__()
        await named(site, self._entry)
        return site

    async def __aexit__(self, *error: Any) -> None:
        await self._site.__aexit__(*error)
        await self._server.stop()


async def named(site: RunningSite, entry: PortalEntry) -> None:
    """The portal into the site's bundle."""
    connection = await connect(site.database_url)
    try:
        _, known = await stored_site(connection)
        assert known is not None
        text = f'{{"site": {known.site.model_dump_json()}, "agencies": [], "portals": [{entry.model_dump_json()}]}}'
        await load(connection, parse_bundle(text, "portal.json", current=known), who="test")
    finally:
        await connection.close()
    await site.services["intake"].directory.refresh()


async def status(site: RunningSite) -> dict[str, Any]:
    answer = await client(site, Role.OPERATOR).get("/v1/portals")
    (found,) = answer.json()["items"]
    assert isinstance(found, dict)
    return found


async def all_sent(site: RunningSite, count: int) -> dict[str, Any]:
    async def sent() -> dict[str, Any] | None:
        found = await status(site)
        return found if (found["sent"], found["waiting"]) == (count, 0) else None

    found: dict[str, Any] = await site.until(sent)
    return found


async def told(site: RunningSite, portal: Portal, code: str, *states: str) -> None:
    """The portal knows exactly these states of the dossier, in this order, and its record stands at the last."""

    def so() -> bool:
        record = portal.records.get(code, {})
        return record.get("TrangThaiHoSo") == states[-1] and len(portal.steps.get(code, [])) >= len(states)

    await site.until(so)
    assert [step["TrangThai"] for step in portal.steps[code]] == list(states)


async def whole_life(site: RunningSite, **more: Any) -> str:
    admin = client(site, Role.ADMIN)
    code = (await received(client(site, Role.DESK, HOME), **more))["code"]
    await done(admin, code, "start")
    await done(admin, code, "supplement-request", reason="thiếu giấy khai sinh")
    await done(admin, code, "supplement")
    await done(admin, code, "resolution", result="granted")
    await done(admin, code, "return", by="counter")
    return str(code)


async def test_a_whole_life(site: RunningSite, portal: Portal) -> None:
    someone = person(kind="household")
    code = await whole_life(site, applicant=someone)
    await told(site, portal, code, "2", "4", "5", "4", "9", "10")
    found = portal.records[code]
    assert (found["TrangThaiHoSo"], found["KenhThucHien"], found["HinhThuc"]) == ("10", "1", "1")
    assert (found["ChuHoSo"], found["LoaiDoiTuong"]) == (someone["name"], "2")
    assert found["DanhSachHoSoBoSung"][0]["NoiDungBoSung"] == "thiếu giấy khai sinh"
    assert found["DanhSachHoSoBoSung"][0]["NgayTiepNhanBoSung"]
    assert len(found["DanhSachGiayToKetQua"]) == 1
    assert found["NgayTra"] >= found["NgayKetThucXuLy"] >= found["NgayTiepNhan"]
    mine = [service for service, name in portal.calls if name == code]
    assert mine[:3] == ["query", "insert", "progress"]
    who = await site.fetch("SELECT who, what FROM intake.access_record WHERE code = $1", code)
    assert {(row["who"], row["what"]) for row in who} == {("portal:national", "applicant-name")}


async def test_both_versions_of_the_applicants_kind(backing: Backing, portal: Portal, version: int) -> None:
    async with running_portal(backing, portal, version) as site:
        desk = client(site, Role.DESK, HOME)
        kinds = ("citizen", "business", "household")
        codes = [(await received(desk, applicant=person(kind=kind)))["code"] for kind in kinds]
        await all_sent(site, 3)
        found = [portal.records[code]["LoaiDoiTuong"] for code in codes]
        assert found == {1: ["1", "2", "2"], 2: ["0", "1", "2"]}[version]


async def test_down_for_days_and_back(site: RunningSite, portal: Portal) -> None:
    portal.down = 503
    codes = [await whole_life(site) for _ in range(3)]

    async def seen_down() -> bool:
        found = await status(site)
        return found["down_since"] is not None and found["waiting"] == 3 and found["error"] == "HTTP 503"

    await site.until(seen_down)
    assert portal.records == {}
    portal.down = None
    await all_sent(site, 3)

    async def up() -> bool:
        return (await status(site))["down_since"] is None

    await site.until(up)
    for code in codes:
        await told(site, portal, code, "2", "4", "5", "4", "9", "10")


async def test_an_answer_that_is_lost_is_asked_for_again(site: RunningSite, portal: Portal) -> None:
    """The portal has taken the record and its answer does not come: it is found there, and not inserted twice."""
    portal.drop_answers = 0
    code = (await received(client(site, Role.DESK, HOME)))["code"]
    await all_sent(site, 1)
    portal.drop_answers = 2
    await done(client(site, Role.ADMIN), code, "start")

    async def down() -> bool:
        return portal.drop_answers == 0

    await site.until(down)
    await told(site, portal, code, "2", "4")


async def test_what_it_refuses_is_shown_with_its_reason_and_holds_up_nobody(site: RunningSite, portal: Portal) -> None:
    desk, admin = client(site, Role.DESK, HOME), client(site, Role.ADMIN)
    portal.down = 503
    bad, good = [(await received(desk))["code"] for _ in range(2)]
    portal.refuse[bad] = "MaTTHC không có trong danh mục"
    portal.down = None
    await site.until(lambda: good in portal.records)

    async def shown() -> list[dict[str, Any]]:
        return list((await status(site))["refusals"])

    (refusal,) = await site.until(shown)
    assert (refusal["code"], refusal["reason"]) == (bad, "-1: MaTTHC không có trong danh mục")
    asked = portal.calls.count(("query", bad))
    await done(admin, bad, "start")  # it moves: it is tried again
    await site.until(lambda: portal.calls.count(("query", bad)) > asked)
    await site.until(shown)
    del portal.refuse[bad]
    answer = await client(site, Role.OPERATOR).post("/v1/portals/national/resend", json={"refused": True})
    assert answer.json() == {"portal": "national", "dossiers": 1}
    await told(site, portal, bad, "2", "4")


async def test_history_and_what_is_confidential_is_not_told(site: RunningSite, portal: Portal) -> None:
    admin = client(site, Role.ADMIN)
    lines = [{"op": "receive", "ref": "1", "at": "2026-03-02T08:00:00+07:00", **dossier()}]
    assert (await imported(admin, lines, mode="history"))[0]["status"] == "applied"
    await received(admin, procedure=CONFIDENTIAL)
    last = (await received(admin))["code"]
    await all_sent(site, 1)
    assert list(portal.records) == [last]


async def test_resend_and_who_may(site: RunningSite, portal: Portal) -> None:
    code = (await received(client(site, Role.DESK, HOME)))["code"]
    await all_sent(site, 1)
    before = len(portal.calls)
    operator: httpx.AsyncClient = client(site, Role.OPERATOR)
    assert (await operator.post("/v1/portals/national/resend", json={"code": code})).status_code == 200
    await site.until(lambda: len(portal.calls) >= before + 3)
    assert portal.calls[before : before + 3] == [("query", code), ("update", code), ("progress", code)]
    refused(await operator.post("/v1/portals/none/resend", json={"code": code}), 404, "not-found")
    refused(await operator.post("/v1/portals/national/resend", json={}), 422, "invalid")
    unknown = {"code": "H55.242-260101-9999"}
    refused(await operator.post("/v1/portals/national/resend", json=unknown), 404, "not-found")
    for role in (Role.DESK, Role.PORTAL, Role.AUDITOR):
        who = client(site, role, HOME if role is Role.DESK else None)
        refused(await who.post("/v1/portals/national/resend", json={"code": code}), 403, "forbidden")
