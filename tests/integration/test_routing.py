"""Routing on a real database and bus: dossier events in, transfers over HTTP, transfer and public events out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID

import httpx
import pytest

from services.routing import app
from services.routing.settings import RoutingSettings
from services.routing.store import Store
from services.routing.worklist import BEFORE_ALL, WorkList
from shared.contracts.codes import uuid7
from shared.contracts.envelope import Envelope, Mode
from shared.contracts.events import (
    DossierEvent,
    DossierProcessingStarted,
    DossierReceived,
    DossierStopped,
    LimitData,
    RouteStep,
    ToSector,
    short_type,
)
from shared.directory.reading import parse_bundle
from shared.directory.store import load
from shared.security.tokens import Role
from shared.store.pool import connect
from tests.harness import Backing, RunningSite, running_site

COMMUNE, POLICE, INSURANCE = "H55.242", "H55.21", "H55.17"
SCHEMAS = {"site": ("shared.directory",), "routing": app.MIGRATIONS}


@pytest.fixture
async def routing(backing: Backing) -> AsyncIterator[RunningSite]:
    """Routing alone, on the sample province; the tests are its intake."""
    make = {"routing": lambda settings: app.create(RoutingSettings(**settings, closure_poll=0.2))}
    async with running_site(backing, make, SCHEMAS) as site:
        await site.reading()
        yield site


class Intake:
    """Puts a dossier's events on the bus as intake would."""

    def __init__(self, site: RunningSite, code: str, mode: Mode = "live", **base: Any) -> None:
        self.code, self._site, self._mode, self._sequence = code, site, mode, 0
        self._base: dict[str, Any] = {
            "agency": COMMUNE,
            "procedure": "2.002621",
            "due_at": datetime.now(UTC) + timedelta(days=9),
            "paused": False,
            "by": "desk",
            "confidential": False,
        } | base

    async def say(self, *events: DossierEvent) -> None:
        envelopes = []
        for data in events:
            self._sequence += 1
            now = datetime.now(UTC)
            envelopes.append(
                Envelope(
                    topic="lienthong.dossier.v1",
                    id=uuid7(),
                    source="/sites/H55/intake",
                    type=data.short,
                    subject=self.code,
                    time=now,
                    recorded=now,
                    sequence=self._sequence,
                    mode=self._mode,
                    data=data.to_json(),
                )
            )
        await self._site.bus.send(*envelopes)

    async def start(self, *route: RouteStep) -> None:
        received = DossierReceived(
            **self._base,
            previous=None,
            state=2,
            deciding_agency=COMMUNE,
            field="G01-TP01",
            channel="counter",
            return_by="counter",
            applicant_kind="citizen",
            contact_ref="c-1",
            limit=LimitData(value=5, unit="working_days"),
        )
        await self.say(received, DossierProcessingStarted(**self._base, previous=2, state=4, route=route))

    async def stop(self) -> None:
        await self.say(DossierStopped(**self._base, previous=4, state=8, reason="theo đơn"))


def step(number: int, to: str | ToSector) -> RouteStep:
    return RouteStep(step=number, to=to, limit=LimitData(value=3, unit="working_days"), transfer=uuid7())


async def state_of(client: httpx.AsyncClient, which: UUID | str) -> str:
    answer = await client.get(f"/v1/transfers/{which}")
    return str(answer.json()["state"]) if answer.status_code == 200 else str(answer.status_code)


async def wait_for(site: RunningSite, which: UUID, state: str = "delivered") -> None:
    client = site.client("routing")

    async def reached() -> bool:
        return await state_of(client, which) == state

    there: bool = await site.until(reached)
    assert there


async def on_bus(site: RunningSite, topic: str, code: str, number: int) -> list[str]:
    """The short types of a key's events on a topic, once there are so many; the bus may hold one twice, and no gap."""

    async def found() -> list[str]:
        records = {each.sequence: each for each in await site.bus.records(topic) if each.key == code.encode()}
        assert sorted(records) == list(range(1, len(records) + 1))
        types = [short_type(records[each].header["ce_type"]) for each in sorted(records)]
        return types if len(types) >= number else []

    types: list[str] = await site.until(found)
    return types


async def test_a_dossier_walks_its_route(routing: RunningSite) -> None:
    dossier, first, second = (
        Intake(routing, "H55.242-261012-0001"),
        step(1, ToSector(sector="police")),
        step(2, INSURANCE),
    )
    await dossier.start(first, second)
    await wait_for(routing, first.transfer)
    police = routing.client("routing", Role.OFFICER, POLICE)
    insurance = routing.client("routing", Role.OFFICER, INSURANCE)

    transfer = (await police.get(f"/v1/transfers/{first.transfer}")).json()
    assert (transfer["from"], transfer["to"], transfer["step"]) == (COMMUNE, POLICE, 1)
    assert transfer["next_steps"] == ["accept", "refuse", "return", "recall", "reroute"]
    assert transfer["due_at"].endswith("+07:00")
    assert await state_of(insurance, first.transfer) == "404"

    too_early = await police.post(f"/v1/transfers/{first.transfer}/complete", json={"result": "granted"})
    assert (too_early.status_code, too_early.json()["code"]) == (409, "move-not-allowed")
    assert too_early.json()["state"] == "delivered"
    assert "accept" in too_early.json()["allowed"]

    accepted = await police.post(f"/v1/transfers/{first.transfer}/accept", json={})
    assert (accepted.status_code, accepted.json()["state"]) == (200, "accepted")
    done = {"result": "denied", "note": "không đủ điều kiện", "documents": [{"name": "Thông báo"}]}
    completed = await police.post(f"/v1/transfers/{first.transfer}/complete", json=done)
    assert completed.json()["result"] == "denied"
    assert completed.json()["documents"] == [{"name": "Thông báo"}]

    assert await state_of(insurance, second.transfer) == "delivered"
    await insurance.post(f"/v1/transfers/{second.transfer}/accept", json={})
    await insurance.post(f"/v1/transfers/{second.transfer}/complete", json={"result": "granted"})
    leg = ["transfer.requested", "transfer.delivered", "transfer.accepted", "transfer.completed"]
    assert await on_bus(routing, "lienthong.transfer.v1", dossier.code, 8) == leg + leg
    assert await on_bus(routing, "lienthong.public.dossier.v1", dossier.code, 2) == [
        "dossier.received",
        "dossier.processing-started",
    ]
    last = [r for r in await routing.bus.records("lienthong.transfer.v1") if r.key == dossier.code.encode()][-1]
    assert last.value is not None
    assert b'"route_complete":true,"route_result":"denied"' in last.value


async def test_promise_7_a_refused_transfer_has_a_reason_and_a_next_step(routing: RunningSite) -> None:
    dossier, leg = Intake(routing, "H55.242-261012-0002"), step(1, POLICE)
    await dossier.start(leg)
    await wait_for(routing, leg.transfer)
    police = routing.client("routing", Role.OFFICER, POLICE)
    desk = routing.client("routing", Role.DESK, COMMUNE)
    path = f"/v1/transfers/{leg.transfer}"

    assert (await desk.post(f"{path}/accept", json={})).status_code == 403
    assert (await police.post(f"{path}/recall", json={"reason": "x"})).status_code == 403
    refused = await police.post(f"{path}/refuse", json={"reason": "không thuộc thẩm quyền"})
    assert refused.json()["next_steps"] == ["reroute", "request-again", "resolution"]
    assert (await desk.get(path)).json()["reason"] == "không thuộc thẩm quyền"

    wrong = await desk.post(f"{path}/reroute", json={"to": "H55.999", "reason": "nhầm"})
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/to")
    rerouted = await desk.post(f"{path}/reroute", json={"to": "000.00.17.H55", "reason": "đúng cơ quan"})
    assert rerouted.json()["state"] == "rerouted"
    new = rerouted.json()["new_transfer"]
    assert rerouted.headers["location"] == f"/v1/transfers/{new}"

    insurance = routing.client("routing", Role.OFFICER, INSURANCE)
    returned = await insurance.post(
        f"/v1/transfers/{new}/return", json={"reason": "thiếu giấy tờ", "need": "supplement"}
    )
    assert "supplement-request" in returned.json()["next_steps"]
    again = (await desk.post(f"/v1/transfers/{new}/request-again", json={})).json()["new_transfer"]
    assert (await desk.get(f"/v1/transfers/{again}")).json()["attempt"] == 3
    assert (await desk.post(f"/v1/transfers/{new}/request-again", json={})).status_code == 409

    mine = (await desk.get("/v1/transfers", params={"dossier": dossier.code})).json()
    assert [each["state"] for each in mine["items"]] == ["rerouted", "returned", "delivered"]
    assert mine["next_cursor"] is None
    open_there = await insurance.get("/v1/transfers", params={"agency": INSURANCE, "state": "delivered"})
    assert [each["id"] for each in open_there.json()["items"]] == [again]


async def test_an_agency_sees_what_lies_with_it_what_it_sent_and_what_came_back(routing: RunningSite) -> None:
    legs = [step(1, POLICE) for _ in range(4)]
    for number, leg in enumerate(legs):
        await Intake(routing, f"H55.242-261012-004{number}").start(leg)
        await wait_for(routing, leg.transfer)
    later, late, today, back = (leg.transfer for leg in legs)
    police = routing.client("routing", Role.OFFICER, POLICE)
    desk = routing.client("routing", Role.DESK, COMMUNE)
    await police.post(f"/v1/transfers/{back}/refuse", json={"reason": "không thuộc thẩm quyền"})
    noon = datetime(2026, 11, 26, 5, tzinfo=UTC)
    for which, due in (
        (late, noon),
        (today, noon + timedelta(hours=11, minutes=59)),
        (later, noon + timedelta(hours=12)),
    ):
        await routing.database.execute("UPDATE routing.transfer SET due_at = $2 WHERE id = $1", which, due)

    connection = await connect(routing.database_url)
    try:
        store, now = Store("routing"), noon + timedelta(seconds=1)
        with_police = {
            show: [each.id for each, *_ in await store.work(connection, {POLICE}, show, now, BEFORE_ALL, 9)]
            for show in get_args(WorkList)
        }
        counts = await store.work_counted(connection, {POLICE}, now)
    finally:
        await connection.close()
    with_them = {"overdue": [late], "due": [today], "incoming": [late, today, later], "outgoing": [], "back": []}
    assert with_police == with_them
    assert counts == {show: len(found) for show, found in with_them.items()}

    async def listed(client: httpx.AsyncClient, **asked: str | int) -> tuple[list[str], dict[str, int], str | None]:
        answer = (await client.get("/v1/worklist", params=asked)).json()
        return [each["id"] for each in answer["items"]], answer["counts"], answer["next_cursor"]

    ours, counted, _ = await listed(desk, show="back")
    assert ours == [str(back)]
    assert (counted["incoming"], counted["outgoing"], counted["back"]) == (0, 3, 1)
    paged, cursor = list[str](), "0." + 32 * "0"
    while cursor:
        found, _, cursor = await listed(desk, show="outgoing", limit=1, cursor=cursor)  # type: ignore[assignment]
        paged += found
    assert paged == [str(which) for which in (late, today, later)]
    again = (await desk.post(f"/v1/transfers/{back}/request-again", json={})).json()["new_transfer"]
    assert (await listed(desk, show="back"))[0] == []
    assert again in (await listed(police, show="incoming"))[0]
    assert (await listed(desk, agency=POLICE))[1]["incoming"] == 0  # not of its scope
    assert (await desk.get("/v1/worklist", params={"cursor": "here"})).status_code == 422
    assert (await desk.get("/v1/worklist", params={"cursor": 18 * "9" + "." + 32 * "0"})).status_code == 422


async def test_a_stopped_dossier_recalls_and_a_late_recall_is_told_so(routing: RunningSite) -> None:
    dossier, done, left = Intake(routing, "H55.242-261012-0003"), step(1, POLICE), step(1, INSURANCE)
    await dossier.start(done, left)
    await wait_for(routing, left.transfer)
    police, desk = routing.client("routing", Role.OFFICER, POLICE), routing.client("routing", Role.DESK, COMMUNE)
    await police.post(f"/v1/transfers/{done.transfer}/accept", json={})
    await police.post(f"/v1/transfers/{done.transfer}/complete", json={"result": "granted"})
    late = await desk.post(f"/v1/transfers/{done.transfer}/recall", json={"reason": "nhầm"})
    assert (late.status_code, late.json()["code"]) == (409, "already-completed")

    await dossier.stop()
    await wait_for(routing, left.transfer, "recalled")
    insurance = routing.client("routing", Role.OFFICER, INSURANCE)
    transfer = (await insurance.get(f"/v1/transfers/{left.transfer}")).json()
    assert transfer["reason"] == "Hồ sơ đã dừng giải quyết: theo đơn"
    assert transfer["next_steps"] == []


async def test_writes_are_idempotent_and_know_versions(routing: RunningSite) -> None:
    dossier, leg = Intake(routing, "H55.242-261012-0004"), step(1, POLICE)
    await dossier.start(leg)
    await wait_for(routing, leg.transfer)
    police = routing.client("routing", Role.OFFICER, POLICE)
    path = f"/v1/transfers/{leg.transfer}"
    etag = (await police.get(path)).headers["etag"]
    stale = await police.post(f"{path}/accept", json={}, headers={"If-Match": '"7"'})
    assert stale.status_code == 412
    headers = {"If-Match": etag, "Idempotency-Key": "k-1"}
    first = await police.post(f"{path}/accept", json={}, headers=headers)
    second = await police.post(f"{path}/accept", json={}, headers=headers)
    assert (first.status_code, second.status_code, first.content) == (200, 200, second.content)
    assert second.headers["idempotent-replayed"] == "true"
    assert len(await on_bus(routing, "lienthong.transfer.v1", dossier.code, 3)) == 3


async def test_history_and_confidential_dossiers_stay_where_they_belong(routing: RunningSite) -> None:
    history, secret = (
        Intake(routing, "H55.242-250101-0001", "history"),
        Intake(routing, "H55.242-261012-0005", confidential=True),
    )
    leg = step(1, POLICE)
    await history.start(step(1, POLICE))
    await secret.start(leg)
    await wait_for(routing, leg.transfer)
    await on_bus(routing, "lienthong.public.dossier.v1", history.code, 2)
    public = await routing.bus.records("lienthong.public.dossier.v1")
    assert {each.key for each in public} == {history.code.encode()}
    assert {each.header["ce_mode"] for each in public} == {"history"}
    assert all(each.value is not None and b"contact_ref" not in each.value for each in public)
    assert await routing.value("SELECT count(*) FROM routing.transfer WHERE dossier = $1", history.code) == 0


async def test_lists_page_by_cursor_and_stay_in_scope(routing: RunningSite) -> None:
    legs = [step(1, POLICE) for _ in range(5)]
    for number, leg in enumerate(legs):
        await Intake(routing, f"H55.242-261012-010{number}").start(leg)
    for leg in legs:
        await wait_for(routing, leg.transfer)
    for client in (
        routing.client("routing", Role.OFFICER, POLICE),
        routing.client("routing", Role.DESK, COMMUNE),
        routing.client("routing", Role.LEADER, "H55", subtree=True),
        routing.client("routing", Role.AUDITOR),
    ):
        seen: list[str] = []
        cursor = None
        while True:
            page = (
                await client.get("/v1/transfers", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))
            ).json()
            seen += [each["id"] for each in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seen == sorted(str(leg.transfer) for leg in legs)
    other = routing.client("routing", Role.OFFICER, "H55.241")
    assert (await other.get("/v1/transfers", params={"agency": POLICE})).json() == {"items": [], "next_cursor": None}
    for query in ("state=lost", "cursor=x", "dossier=x", "nonsense=1"):
        assert (await other.get(f"/v1/transfers?{query}")).status_code == 422
    assert (await routing.client("routing", Role.PORTAL).get("/v1/transfers")).status_code == 403
    assert (await other.get("/v1/transfers/no-id")).status_code == 404


async def test_what_lies_with_an_agency_that_closes_goes_to_its_successor(routing: RunningSite) -> None:
    dossier, leg = Intake(routing, "H55.242-261012-0006"), step(1, "H55.24.5")
    await dossier.start(leg)
    await wait_for(routing, leg.transfer)
    closed = """
site: {code: H55, name: Tỉnh Thái Nguyên}
agencies:
  - {code: H55.24.5, name: Chi nhánh, level: sector, parent: H55.24, site: H55, sector: land, valid_from: 2015-01-01,
     valid_to: 2026-01-01, successor: H55.24}
"""
    connection = await connect(routing.database_url)
    await load(connection, parse_bundle(closed, current=routing.services["routing"].directory.current.site), who="test")
    await connection.close()
    await wait_for(routing, leg.transfer, "rerouted")
    land = routing.client("routing", Role.OFFICER, "H55.24")
    items = (await land.get("/v1/transfers", params={"agency": "H55.24", "state": "delivered"})).json()["items"]
    assert [(each["to"], each["redirected_from"]) for each in items] == [("H55.24", "H55.24.5")]
    assert (await land.post(f"/v1/transfers/{items[0]['id']}/accept", json={})).status_code == 200


async def test_a_dossier_that_contradicts_itself_is_parked_and_others_flow(routing: RunningSite) -> None:
    bad, good, leg = Intake(routing, "H55.242-261012-0007"), Intake(routing, "H55.242-261012-0008"), step(1, POLICE)
    await bad.stop()
    await good.start(leg)
    await wait_for(routing, leg.transfer)
    parked = await routing.client("routing", Role.OPERATOR).get("/v1/parked", params={"key": bad.code})
    assert [each["reason"] for each in parked.json()["items"]] == ["state-contradiction"]


async def test_documents_from_sending_to_done(routing: RunningSite) -> None:
    desk, police = routing.client("routing", Role.DESK, COMMUNE), routing.client("routing", Role.OFFICER, POLICE)
    body = {"number": "12/QĐ-UBND", "date": "2026-11-23", "kind": 0, "from": COMMUNE, "to": POLICE, "title": "Phối hợp"}
    sent = await desk.post("/v1/documents", json=body)
    assert sent.status_code == 201
    assert {name: sent.json()[name] for name in ("id", "state")} == {
        "id": "H55.242-2026-11-23-12-QD-UBND",
        "state": "01",
    }
    path = sent.headers["location"]
    assert (await desk.post("/v1/documents", json=body)).json()["code"] == "document-exists"
    assert (await police.post("/v1/documents", json=body)).status_code == 403
    assert (await police.post(f"{path}/start", json={})).json()["allowed"] == ["accept", "refuse", "recall"]
    for operation, content, state in (
        ("accept", {}, "03"),
        ("assign", {"to": "Đội quản lý hành chính"}, "04"),
        ("start", {}, "05"),
    ):
        assert (await police.post(f"{path}/{operation}", json=content)).json()["state"] == state
    assert (await desk.post(f"{path}/recall", json={"reason": "sai số liệu"})).json()["state"] == "13"
    kept = await police.post(f"{path}/recall-refuse", json={"reason": "đã xử lý"})
    assert (kept.json()["state"], kept.json()["next_steps"]) == ("16", ["finish", "recall"])
    assert (await police.post(f"{path}/finish", json={})).json()["state"] == "06"

    types = await on_bus(routing, "lienthong.document.v1", sent.json()["id"], 8)
    assert types == [
        f"document.{each}"
        for each in (
            "sent",
            "arrived",
            "accepted",
            "assigned",
            "started",
            "recall-requested",
            "recall-refused",
            "finished",
        )
    ]
    listed = (await police.get("/v1/documents", params={"agency": POLICE, "state": "06"})).json()
    assert [each["id"] for each in listed["items"]] == [sent.json()["id"]]
    stranger = routing.client("routing", Role.OFFICER, "H55.241")
    assert (await stranger.get("/v1/documents")).json()["items"] == []
    assert (await stranger.get(path)).status_code == 404


async def test_an_update_asks_for_the_document_that_it_replaces(routing: RunningSite) -> None:
    desk, police = routing.client("routing", Role.DESK, COMMUNE), routing.client("routing", Role.OFFICER, POLICE)
    body = {"number": "1/CV", "date": "2026-11-23", "kind": 0, "from": COMMUNE, "to": POLICE, "title": "A"}
    first = (await desk.post("/v1/documents", json=body)).json()["id"]
    nameless = await desk.post("/v1/documents", json=body | {"number": "2/CV", "kind": 2})
    assert (nameless.status_code, nameless.json()["errors"][0]["pointer"]) == (422, "/replaces")
    update = await desk.post("/v1/documents", json=body | {"number": "2/CV", "kind": 2, "replaces": first})
    assert update.status_code == 201
    assert (await police.get(f"/v1/documents/{first}")).json()["state"] == "13"
    assert (await police.post(f"/v1/documents/{first}/recall-accept", json={})).json()["state"] == "15"
    for wrong in ({"date": "23/11/2026"}, {"date": 0}, {"kind": 4}, {"to": "H55.999"}, {"number": "//"}, {"more": 1}):
        assert (await desk.post("/v1/documents", json=body | wrong)).status_code == 422


async def test_links_and_heads(routing: RunningSite) -> None:
    operator = routing.client("routing", Role.OPERATOR)
    assert (await operator.get("/v1/links")).json() == {"items": [], "next_cursor": None}
    assert (await routing.client("routing", Role.DESK, COMMUNE).get("/v1/links")).status_code == 403
    leg = step(1, POLICE)
    await Intake(routing, "H55.242-261012-0009").start(leg)
    await wait_for(routing, leg.transfer)
    for topic, events in (
        ("lienthong.transfer.v1", 2),
        ("lienthong.public.dossier.v1", 2),
        ("lienthong.document.v1", 0),
    ):
        items = (await operator.get("/v1/heads", params={"topic": topic, "side": "owned"})).json()["items"]
        assert sum(each["events"] for each in items) == events
