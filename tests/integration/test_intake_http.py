"""Intake over HTTP, sentence by sentence of the outside contract."""

import asyncio
import itertools
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest

from services.intake import acts
from shared.security.tokens import Role
from tests.harness import RunningSite
from tests.integration.intake_site import (
    CONFIDENTIAL,
    HOME,
    NOT_ONLINE,
    OTHER,
    ROUTED,
    THREE_DAYS,
    act,
    ago,
    ahead,
    client,
    done,
    dossier,
    history,
    imported,
    instant,
    person,
    received,
    refused,
    site,
    submitted,
)

__all__ = ["site"]

CODE = re.compile(r"H55\.242-\d{6}-\d{4,}")


@pytest.fixture
def admin(site: RunningSite) -> httpx.AsyncClient:
    return client(site, Role.ADMIN)


@pytest.fixture
def desk(site: RunningSite) -> httpx.AsyncClient:
    return client(site, Role.DESK, HOME)


@pytest.fixture
def officer(site: RunningSite) -> httpx.AsyncClient:
    return client(site, Role.OFFICER, HOME)


@pytest.fixture
def portal(site: RunningSite) -> httpx.AsyncClient:
    return client(site, Role.PORTAL, name="portal-1")


# ------------------------------------------------------------------------------------ receive and submit


async def test_a_receipt(desk: httpx.AsyncClient) -> None:
    answer = await desk.post("/v1/dossiers", json=dossier(receiving_agency="H55.242"))
    assert answer.status_code == 201
    body = answer.json()
    assert CODE.fullmatch(body["code"])
    assert body["state"] == 2
    assert body["version"] == 1
    assert re.fullmatch(r"\d{6}", body["track_pin"])
    assert instant(body["received_at"]) < instant(body["due_at"])
    assert answer.headers["location"] == f"/v1/dossiers/{body['code']}"
    read = await desk.get(answer.headers["location"])
    assert read.headers["etag"] == answer.headers["etag"]
    assert read.json()["deciding_agency"] == HOME


async def test_a_code_carries_the_agency_and_the_local_day(admin: httpx.AsyncClient) -> None:
    body = await received(admin, received_at="2026-03-02T23:30:00+07:00")
    assert body["code"].startswith(f"{HOME}-260302-")
    assert body["due_at"] == "2026-03-05T17:00:00+07:00"
    late = await received(admin, received_at="2026-03-02T17:30:00Z")
    assert late["code"].startswith(f"{HOME}-260303-")


async def test_agency_codes_are_taken_in_both_forms(admin: httpx.AsyncClient) -> None:
    body = await received(admin, receiving_agency="000.00.24.H55", deciding_agency="000.00.17.H55")
    assert body["code"].startswith("H55.24-")
    read = (await admin.get(f"/v1/dossiers/{body['code']}")).json()
    assert (read["receiving_agency"], read["deciding_agency"]) == ("H55.24", "H55.17")
    listed = (await admin.get("/v1/dossiers", params={"agency": "000.00.24.H55"})).json()["items"]
    assert body["code"] in [item["code"] for item in listed]


async def test_a_submission_starts_at_1_and_has_no_due_date(desk: httpx.AsyncClient, portal: httpx.AsyncClient) -> None:
    for who in (desk, portal):
        body = await submitted(who)
        assert (body["state"], body["due_at"], body["received_at"]) == (1, None, None)
        assert CODE.fullmatch(body["code"])
    refused(await desk.post("/v1/submissions", json=dossier(due_at=ahead(days=9))), 422, "invalid", "/due_at")
    refused(await desk.post("/v1/submissions", json=dossier(received_at=ago(hours=1))), 422, "invalid", "/received_at")


async def test_the_same_code_again_changes_nothing_but_a_submission(
    portal: httpx.AsyncClient, desk: httpx.AsyncClient
) -> None:
    code = "000.00.15.H55-20260302-1234567"
    body = dossier(channel="online", code=code, applicant=person(phone="0912345678"))
    first = await portal.post("/v1/submissions", json=body)
    assert (first.status_code, first.json()["code"]) == (201, code)
    again = await portal.post("/v1/submissions", json=body)
    assert (again.status_code, again.json()["version"]) == (200, 1)
    changed = await portal.post("/v1/submissions", json=body | {"components": [{"name": "Đơn"}]})
    assert (changed.status_code, changed.json()["version"], changed.json()["state"]) == (200, 2, 1)
    read = (await desk.get(f"/v1/dossiers/{code}")).json()
    assert [c["name"] for c in read["components"]] == ["Đơn"]
    await done(desk, code, "receive")
    late = await portal.post("/v1/submissions", json=body)
    assert (late.status_code, late.json()["version"], late.json()["state"]) == (200, 3, 2)
    assert [c["name"] for c in (await desk.get(f"/v1/dossiers/{code}")).json()["components"]] == ["Đơn"]


async def test_an_upsert_is_only_for_who_sent_it(site: RunningSite, portal: httpx.AsyncClient) -> None:
    body = dossier(channel="online", code="H55.242-260302-7001")
    assert (await portal.post("/v1/submissions", json=body)).status_code == 201
    stranger = client(site, Role.PORTAL, name="portal-2")
    refused(await stranger.post("/v1/submissions", json=body), 404, "not-found")
    other = client(site, Role.DESK, OTHER)
    refused(await other.post("/v1/submissions", json=body | {"receiving_agency": OTHER}), 404, "not-found")


async def test_a_submission_cannot_be_moved_to_an_agency_out_of_scope(desk: httpx.AsyncClient) -> None:
    body = await submitted(desk, channel="counter")
    moved = dossier(code=body["code"], receiving_agency=OTHER)
    refused(await desk.post("/v1/submissions", json=moved), 403, "forbidden", "/receiving_agency")


async def test_a_procedure_that_is_not_online(desk: httpx.AsyncClient) -> None:
    online = dossier(procedure=NOT_ONLINE, channel="online")
    refused(await desk.post("/v1/submissions", json=online), 422, "not-online", "/channel")
    assert (await desk.post("/v1/submissions", json=dossier(procedure=NOT_ONLINE))).status_code == 201
    assert (await desk.post("/v1/dossiers", json=online)).status_code == 201


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"procedure": "9.999999"}, "/procedure"),
        ({"receiving_agency": "H55.999"}, "/receiving_agency"),
        ({"deciding_agency": "H55.999"}, "/deciding_agency"),
        ({"receiving_agency": "nowhere"}, "/receiving_agency"),
        ({"procedure": "2.000889"}, "/procedure"),
        ({"receiving_agency": "H55.41.19"}, "/receiving_agency"),
        ({"received_at": "2024-03-01T08:00:00+07:00"}, "/receiving_agency"),
        ({"channel": "fax"}, "/channel"),
        ({"return_by": "email"}, "/return_by"),
        ({"applicant": {"kind": "alien", "name": "A"}}, "/applicant/kind"),
        ({"applicant": {"kind": "citizen"}}, "/applicant/name"),
        ({"applicant": {"kind": "citizen", "name": "   "}}, "/applicant/name"),
        ({"applicant": {"kind": "citizen", "name": "x" * 201}}, "/applicant/name"),
        ({"applicant": {"kind": "citizen", "name": "a\u0000b"}}, "/applicant/name"),
        ({"applicant": {"kind": "citizen", "name": "a\nb"}}, "/applicant/name"),
        ({"applicant": {"kind": "citizen", "name": "A", "address": "x" * 2001}}, "/applicant/address"),
        ({"applicant": {"kind": "citizen", "name": "A", "citizen_id": "12"}}, "/applicant/citizen_id"),
        ({"applicant": {"kind": "citizen", "name": "A", "language": "fr"}}, "/applicant/language"),
        ({"applicant": {"kind": "citizen", "name": "A", "age": 9}}, "/applicant/age"),
        ({"applicant": []}, "/applicant"),
        ({"components": [{"name": "A"}, {"name": "A"}]}, "/components"),
        ({"components": [{"name": "A", "source": "theft"}]}, "/components/0/source"),
        ({"components": [{"digitised": True}]}, "/components/0/name"),
        ({"components": "A"}, "/components"),
        ({"received_at": "2026-03-02T08:00:00"}, "/received_at"),
        ({"received_at": 1_700_000_000}, "/received_at"),
        ({"received_at": "2026-02-30T08:00:00+07:00"}, "/received_at"),
        ({"received_at": "9999-12-31T23:59:59Z"}, "/received_at"),
        ({"received_at": "0001-01-01T00:00:00+14:00"}, "/received_at"),
        ({"colour": "red"}, "/colour"),
        ({"code": "H55.242-260302-0001"}, "/code"),
    ],
)
async def test_what_is_invalid_is_pointed_at(admin: httpx.AsyncClient, change: dict[str, Any], pointer: str) -> None:
    answer = await admin.post("/v1/dossiers", json=dossier(**change))
    assert answer.status_code == 422, answer.text
    refused(answer, 422, answer.json()["code"], pointer)


@pytest.mark.parametrize("field", ["procedure", "receiving_agency", "channel", "applicant", "return_by"])
async def test_a_missing_field_is_named(desk: httpx.AsyncClient, field: str) -> None:
    body = dossier()
    del body[field]
    refused(await desk.post("/v1/dossiers", json=body), 422, "invalid", f"/{field}")


@pytest.mark.parametrize(
    "phone", ["0112345678", "12345", "+14155552671", "not a number", "09123456789", "0912 345 67x"]
)
async def test_a_wrong_phone_is_refused_and_not_repeated(desk: httpx.AsyncClient, phone: str) -> None:
    answer = await desk.post("/v1/dossiers", json=dossier(applicant=person(phone=phone)))
    refused(answer, 422, "invalid", "/applicant/phone")
    assert phone not in answer.text


@pytest.mark.parametrize("phone", ["0912345678", "+84912345678", "0912 345 678", "02083855555"])
async def test_a_valid_phone_is_taken_however_it_is_written(desk: httpx.AsyncClient, phone: str) -> None:
    body = await received(desk, applicant=person(phone=phone))
    read = (await desk.get(f"/v1/dossiers/{body['code']}")).json()
    assert read["applicant"]["phone"].startswith("+84")


async def test_the_longest_name_and_text_are_taken(desk: httpx.AsyncClient) -> None:
    body = await received(desk, applicant=person(name="Ă" * 200, address=f"  {'đ' * 2000}  "))
    read = (await desk.get(f"/v1/dossiers/{body['code']}")).json()
    assert (len(read["applicant"]["name"]), len(read["applicant"]["address"])) == (200, 2000)


# ------------------------------------------------------------------------------------ operations over HTTP

MINIMAL: dict[str, dict[str, Any]] = {
    "receive": {},
    "refuse": {"reason": "sai"},
    "start": {},
    "supplement-request": {"reason": "thiếu"},
    "supplement": {},
    "payment-request": {"amount": 1000},
    "payment": {"amount": 1000, "method": "counter"},
    "withdrawal-request": {"reason": "thôi"},
    "withdrawal": {},
    "withdrawal-refusal": {"reason": "đã xong"},
    "stop": {"reason": "dừng"},
    "extension": {"reason": "xin lỗi", "due_at": "2030-01-01T10:00:00Z"},
    "digitisation": {"component": "Đơn"},
    "resolution": {"result": "granted"},
    "return": {"by": "counter"},
    "correction": {"undoes": "00000000-0000-7000-8000-000000000000", "reason": "nhầm"},
    "rating": {"level": "neutral"},
}


async def test_a_whole_life(desk: httpx.AsyncClient, officer: httpx.AsyncClient) -> None:
    code = (await received(desk))["code"]
    states = []
    life: list[tuple[httpx.AsyncClient, str, dict[str, Any]]] = [
        (officer, "start", {}),
        (desk, "supplement-request", {"reason": "thiếu"}),
        (desk, "supplement", {}),
        (desk, "payment-request", {"amount": 15000}),
        (desk, "payment", {"amount": 15000, "method": "online"}),
        (desk, "withdrawal-request", {"reason": "thôi"}),
        (desk, "withdrawal-refusal", {"reason": "gần xong"}),
        (officer, "extension", {"reason": "chậm", "due_at": "2030-01-01T10:00:00Z"}),
        (officer, "resolution", {"result": "granted", "electronic": True, "ref": "s3://x", "digest": "abc"}),
        (desk, "return", {"by": "counter"}),
        (desk, "rating", {"level": "very_satisfied", "quality": "satisfied", "complained": False, "comment": "Tốt"}),
    ]
    for who, op, body in life:
        answer = await act(who, code, op, **body)
        assert answer.status_code == 200, (op, answer.text)
        found = answer.json()
        assert set(found) == {"code", "state", "due_at", "version", "warnings"}
        assert answer.headers["etag"] == f'"{found["version"]}"'
        states.append(found["state"])
    assert states == [4, 5, 4, 6, 4, 7, 4, 4, 9, 10, 10]
    items = await history(desk, code)
    assert [item["sequence"] for item in items] == list(range(1, 13))
    assert "Tốt" not in orjson.dumps(items).decode()
    assert "contact_ref" not in items[0]


async def test_a_move_that_is_not_allowed_says_what_is(officer: httpx.AsyncClient, desk: httpx.AsyncClient) -> None:
    code = (await received(desk))["code"]
    await done(officer, code, "start")
    problem = refused(await act(officer, code, "start"), 409, "move-not-allowed")
    assert problem["state"] == 4
    assert {"supplement-request", "payment-request", "withdrawal-request", "stop", "resolution"} <= set(
        problem["allowed"]
    )
    assert "start" not in problem["allowed"]


async def test_warnings(desk: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    code = (await received(admin, received_at="2026-03-02T08:00:00+07:00"))["code"]
    first = await done(desk, code, "extension", reason="chậm", due_at=ahead(days=30))
    assert first["warnings"] == ["extension-late"]
    second = await done(desk, code, "extension", reason="chậm", due_at=ahead(days=40))
    assert second["warnings"] == ["extension-repeated"]
    assert (await done(desk, code, "supplement-request", reason="thiếu"))["warnings"] == []
    await done(desk, code, "supplement")
    assert (await done(desk, code, "supplement-request", reason="thiếu"))["warnings"] == ["supplement-repeated"]


async def test_an_extension_must_be_later(desk: httpx.AsyncClient) -> None:
    body = await received(desk)
    same = await act(desk, body["code"], "extension", reason="chậm", due_at=body["due_at"])
    refused(same, 422, "not-later", "/due_at")
    for beyond in ("9999-12-31T23:59:59Z", "2030-01-01T10:00:00"):
        refused(await act(desk, body["code"], "extension", reason="chậm", due_at=beyond), 422, "invalid", "/due_at")


async def test_times_of_acts(desk: httpx.AsyncClient, officer: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    code = (await received(desk, received_at=ago(hours=2)))["code"]
    refused(await act(officer, code, "start", at=ahead(minutes=6)), 422, "time-ahead", "/at")
    refused(await act(officer, code, "start", at=ago(hours=3)), 422, "time-goes-back", "/at")
    refused(await act(officer, code, "start", at="2026-10-10T08:00:00"), 422, "invalid", "/at")
    same = ago(hours=1)
    await done(officer, code, "start", at=same)
    await done(officer, code, "digitisation", component="Đơn", at=same)
    assert [item["at"] for item in (await history(desk, code))[1:]] == [
        datetime.fromisoformat(same).astimezone(instant("2026-01-01T00:00:00+07:00").tzinfo).isoformat()
    ] * 2
    refused(
        await desk.post("/v1/dossiers", json=dossier(received_at=ago(hours=25))),
        422,
        "time-too-far-back",
        "/received_at",
    )
    refused(
        await desk.post("/v1/dossiers", json=dossier(received_at=ahead(minutes=6))), 422, "time-ahead", "/received_at"
    )
    assert (await desk.post("/v1/dossiers", json=dossier(received_at=ahead(minutes=4)))).status_code == 201
    old = (await received(admin, received_at=ago(days=40)))["code"]
    refused(await act(officer, old, "start", at=ago(hours=25)), 422, "time-too-far-back", "/at")
    await done(admin, old, "start", at=ago(days=30))


async def test_a_correction(desk: httpx.AsyncClient, officer: httpx.AsyncClient) -> None:
    code = (await received(desk))["code"]
    await done(officer, code, "start")
    last = (await history(desk, code))[-1]["id"]
    refused(await act(desk, code, "correction", undoes=last, reason="nhầm"), 403, "forbidden")
    problem = refused(
        await act(officer, code, "correction", undoes=str(uuid4()), reason="nhầm"), 409, "not-the-last-act"
    )
    assert problem["state"] == 4
    undone = await done(officer, code, "correction", undoes=last, reason="nhầm")
    assert (undone["state"], undone["version"]) == (2, 3)
    items = await history(desk, code)
    assert (items[-1]["type"], items[-1]["undoes"]) == ("dossier.corrected", last)
    refused(await act(officer, code, "correction", undoes=last, reason="nhầm"), 409, "not-the-last-act")
    await done(officer, code, "start")
    await done(officer, code, "resolution", result="granted")
    resolved = (await history(desk, code))[-1]["id"]
    await done(desk, code, "return", by="counter")
    returned = (await history(desk, code))[-1]["id"]
    assert (await act(officer, code, "correction", undoes=resolved, reason="nhầm")).status_code == 409
    assert (await act(desk, code, "correction", undoes=returned, reason="nhầm")).status_code == 409


@pytest.mark.parametrize("op", sorted(MINIMAL))
async def test_every_operation_refuses_unknown_fields_and_names_the_missing(desk: httpx.AsyncClient, op: str) -> None:
    admin = desk
    code = (await received(admin))["code"]
    for field in (name for name in MINIMAL[op] if acts.BODIES[op].model_fields[name].is_required()):
        body = {name: value for name, value in MINIMAL[op].items() if name != field}
        answer = await act(desk, code, op, **body)
        if answer.status_code != 403:  # not for the desk
            refused(answer, 422, "invalid", f"/{field}")
    answer = await act(desk, code, op, **MINIMAL[op], colour="red")
    if answer.status_code != 403:
        refused(answer, 422, "invalid", "/colour")


async def test_a_dossier_or_an_operation_that_does_not_exist(admin: httpx.AsyncClient) -> None:
    code = (await received(admin))["code"]
    refused(await act(admin, "H55.242-260302-9999", "start"), 404, "not-found")
    refused(await act(admin, code, "celebrate"), 404, "not-found")
    for wrong in ("x", "%00", "a%00b", "H55.242-260302-0001%00", "%F0%9F%98%80", "..%2F..", "'; DROP TABLE dossier"):
        refused(await act(admin, wrong, "start"), 404, "not-found")
        refused(await admin.get(f"/v1/dossiers/{wrong}"), 404, "not-found")
        assert (await admin.get(f"/v1/dossiers/{wrong}/history")).status_code == 404
        assert (await admin.get(f"/v1/dossiers/{wrong}/explain")).status_code == 404


async def test_a_dossier_of_another_site_is_not_acted_on_here(site: RunningSite, admin: httpx.AsyncClient) -> None:
    await site.database.execute("INSERT INTO intake.elsewhere VALUES ('H31.133-260302-0001', 'H55.242')")
    refused(await act(admin, "H31.133-260302-0001", "start"), 409, "not-home")
    officer, stranger = client(site, Role.OFFICER, HOME), client(site, Role.OFFICER, OTHER)
    refused(await act(officer, "H31.133-260302-0001", "start"), 409, "not-home")
    refused(await act(stranger, "H31.133-260302-0001", "start"), 404, "not-found")


# -------------------------------------------------------------------------------------------- Idempotency-Key


async def test_the_same_key_is_answered_with_the_same_answer(desk: httpx.AsyncClient) -> None:
    body, key = dossier(), {"Idempotency-Key": uuid4().hex}
    first = await desk.post("/v1/dossiers", json=body, headers=key)
    assert "idempotent-replayed" not in first.headers
    content = orjson.dumps(dict(reversed(body.items())), option=orjson.OPT_INDENT_2)  # the same JSON value
    again = await desk.post("/v1/dossiers", content=content, headers={**key, "content-type": "application/json"})
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    for name in ("location", "etag", "content-type"):
        assert again.headers[name] == first.headers[name]
    other = await desk.post("/v1/dossiers", json=body | {"channel": "postal"}, headers=key)
    refused(other, 422, "idempotency-key-reused")


async def test_a_key_belongs_to_subject_and_path(site: RunningSite, desk: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": uuid4().hex}
    body = dossier()
    first = await desk.post("/v1/dossiers", json=body, headers=key)
    elsewhere = await desk.post("/v1/submissions", json=body, headers=key)
    assert elsewhere.status_code == 201
    someone = client(site, Role.DESK, HOME, name="someone else")
    theirs = await someone.post("/v1/dossiers", json=body, headers=key)
    assert len({answer.json()["code"] for answer in (first, elsewhere, theirs)}) == 3


async def test_a_refusal_by_state_is_replayed_too(officer: httpx.AsyncClient, desk: httpx.AsyncClient) -> None:
    code = (await received(desk))["code"]
    key = {"Idempotency-Key": uuid4().hex}
    first = await officer.post(f"/v1/dossiers/{code}/return", json={"by": "counter"}, headers=key)
    assert first.status_code == 403
    first = await desk.post(f"/v1/dossiers/{code}/return", json={"by": "counter"}, headers=key)
    await done(officer, code, "start")
    again = await desk.post(f"/v1/dossiers/{code}/return", json={"by": "counter"}, headers=key)
    assert (first.status_code, again.status_code, again.json()["state"]) == (409, 409, 2)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["content-type"] == "application/problem+json"


async def test_a_key_that_still_runs_is_a_conflict(
    site: RunningSite, officer: httpx.AsyncClient, desk: httpx.AsyncClient
) -> None:
    code = (await received(desk))["code"]
    key = {"Idempotency-Key": uuid4().hex}
    async with site.database.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM intake.dossier WHERE code = $1 FOR UPDATE", code)
        first = asyncio.create_task(officer.post(f"/v1/dossiers/{code}/start", json={}, headers=key))
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%intake.dossier%'"
        )
        await site.until(lambda: site.value(waiting))
        refused(await officer.post(f"/v1/dossiers/{code}/start", json={}, headers=key), 409, "idempotency-key-running")
    assert (await first).status_code == 200
    again = await officer.post(f"/v1/dossiers/{code}/start", json={}, headers=key)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")


async def test_a_wrong_key(desk: httpx.AsyncClient) -> None:
    for wrong in (b"", b"x" * 201, b"\xe9"):
        answer = await desk.post("/v1/dossiers", json=dossier(), headers=[(b"Idempotency-Key", wrong)])
        refused(answer, 422, "idempotency-key-invalid")


# ----------------------------------------------------------------------------------------------- If-Match


async def test_if_match(desk: httpx.AsyncClient, officer: httpx.AsyncClient) -> None:
    body = await received(desk)
    url = f"/v1/dossiers/{body['code']}/start"
    stale = await officer.post(url, json={}, headers={"If-Match": '"7"'})
    refused(stale, 412, "changed-meanwhile")
    assert stale.headers["etag"] == '"1"'
    fresh = await officer.post(url, json={}, headers={"If-Match": stale.headers["etag"]})
    assert (fresh.status_code, fresh.headers["etag"]) == (200, '"2"')
    any_of = await desk.post(
        f"/v1/dossiers/{body['code']}/digitisation", json={"component": "Đơn"}, headers={"If-Match": "*"}
    )
    assert any_of.status_code == 200
    unchanged = await desk.get(f"/v1/dossiers/{body['code']}", headers={"If-None-Match": any_of.headers["etag"]})
    assert unchanged.status_code == 304


# --------------------------------------------------------------------------------------------- wrong bodies

NESTED = b'{"a":' * 5000 + b"1" + b"}" * 5000
WRONG_BODIES = [
    b"",
    b"[]",
    b"[{}]",
    b"null",
    b'"x"',
    b"42",
    b"{",
    b"{'a': 1}",
    b'{"channel": NaN}',
    b'{"channel": Infinity}',
    b'\xff\xfe{"a":1}',
    b'{"procedure":"\xff"}',
    b'{"procedure":"\\ud800"}',
    b'{"procedure":"\\u0000"}',
    NESTED,
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 300 + b"1" + b"}" * 300,
    b'{"amount":' + b"9" * 5000 + b"}",
    b'{"amount":1e400}',
    b'{"amount":-1}',
    b'{"amount":1.5}',
    b'{"amount":true}',
    b'{"amount":99999999999999999999}',
]


@pytest.mark.parametrize("number", range(len(WRONG_BODIES)))
async def test_bodies_of_a_wrong_shape_are_never_500(desk: httpx.AsyncClient, number: int) -> None:
    code = (await received(desk))["code"]
    for path in ("/v1/dossiers", "/v1/submissions", f"/v1/dossiers/{code}/payment-request", "/v1/dossiers/search"):
        for key in ({}, {"Idempotency-Key": uuid4().hex}):
            answer = await desk.post(
                path, content=WRONG_BODIES[number], headers={"content-type": "application/json", **key}
            )
            assert answer.status_code in (400, 422), (path, answer.text)
            refused(answer, answer.status_code, answer.json()["code"])


async def test_what_is_no_json_is_400(desk: httpx.AsyncClient) -> None:
    for body in (b"{", b"{'a': 1}", NESTED, b'{"channel": NaN}'):
        answer = await desk.post("/v1/dossiers", content=body, headers={"content-type": "application/json"})
        refused(answer, 400, "bad-json")


async def test_amounts(desk: httpx.AsyncClient) -> None:
    code = (await received(desk))["code"]
    for amount in (-1, 1.5, "5", True, 10**12 + 1, None):
        refused(await act(desk, code, "payment-request", amount=amount), 422, "invalid", "/amount")
    await done(desk, code, "payment-request", amount=10**12)


async def test_too_large_and_of_another_kind(desk: httpx.AsyncClient) -> None:
    big = orjson.dumps({"x": "y" * (1 << 20)})
    json = {"content-type": "application/json"}
    refused(await desk.post("/v1/dossiers", content=big, headers=json), 413, "too-large")

    async def in_pieces() -> Any:
        for start in range(0, len(big), 1 << 16):
            yield big[start : start + (1 << 16)]

    refused(await desk.post("/v1/dossiers", content=in_pieces(), headers=json), 413, "too-large")
    for kind in ("text/plain", "application/xml", "multipart/form-data; boundary=x"):
        answer = await desk.post("/v1/dossiers", content=b"{}", headers={"content-type": kind})
        refused(answer, 415, "media-type")
    assert (await desk.post("/v1/dossiers", content=b"{}")).status_code == 415
    charset = {"content-type": "application/json; charset=utf-8"}
    assert (await desk.post("/v1/dossiers", content=orjson.dumps(dossier()), headers=charset)).status_code == 201


async def test_other_methods(desk: httpx.AsyncClient) -> None:
    code = (await received(desk))["code"]
    for method, path, allowed in [
        ("DELETE", f"/v1/dossiers/{code}", "GET"),
        ("GET", f"/v1/dossiers/{code}/start", "POST"),
        ("PUT", "/v1/submissions", "POST"),
        ("PATCH", "/v1/imports", "POST"),
    ]:
        headers = {"content-type": "application/x-ndjson" if path == "/v1/imports" else "application/json"}
        answer = await desk.request(method, path, headers=headers)
        refused(answer, 405, "method-not-allowed")
        assert allowed in answer.headers["allow"]


async def test_a_token_comes_before_everything(site: RunningSite) -> None:
    expired = site.services["intake"].tokens.issue(Role.ADMIN, hours=-1)
    for headers in (
        {},
        {"Authorization": "Bearer x"},
        {"Authorization": f"Bearer {expired}"},
        {"Authorization": "Basic x"},
    ):
        nobody = site.client("intake", None)
        nobody.headers.update(headers)
        for method, path in itertools.product(
            ("GET", "POST", "DELETE"), ("/v1/dossiers", "/v1/imports", "/v1/nothing")
        ):
            answer = await nobody.request(method, path, content=b"{", headers={"content-type": "text/weird"})
            refused(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"].startswith("Bearer")


# --------------------------------------------------------------------------------------- roles and scopes

MAY: dict[Role, set[str]] = {
    Role.DESK: {
        "receive",
        "refuse",
        "supplement-request",
        "supplement",
        "payment-request",
        "payment",
        "withdrawal-request",
        "withdrawal",
        "withdrawal-refusal",
        "stop",
        "extension",
        "digitisation",
        "rating",
        "return",
        "correction",
    },
    Role.OFFICER: {"start", "resolution", "supplement-request", "extension", "stop", "digitisation", "correction"},
    Role.PORTAL: {"payment", "supplement", "withdrawal-request", "rating"},
    Role.LEADER: set(),
    Role.AUDITOR: set(),
    Role.OPERATOR: set(),
    Role.ADMIN: set(MINIMAL),
}
AGENCY_OF = {Role.DESK: HOME, Role.OFFICER: HOME, Role.LEADER: HOME}


@pytest.mark.parametrize("role", sorted(MAY))
async def test_every_operation_by_every_role(site: RunningSite, desk: httpx.AsyncClient, role: Role) -> None:
    code = (await received(desk))["code"]
    who = client(site, role, AGENCY_OF.get(role))
    version = 1
    for op, body in MINIMAL.items():
        if op in MAY[role]:
            continue
        refused(await act(who, code, op, **body), 403, "forbidden")
        refused(await act(who, code, op, wrong=1), 403, "forbidden")  # before the body is looked at
    assert (await desk.get(f"/v1/dossiers/{code}")).json()["version"] == version
    for op in sorted(MAY[role]):
        answer = await act(who, code, op, **MINIMAL[op])
        expected = (404,) if role is Role.PORTAL else (200, 409)
        assert answer.status_code in expected, (op, answer.text)


@pytest.mark.parametrize("role", sorted(MAY))
async def test_who_receives_submits_imports_and_reads(site: RunningSite, desk: httpx.AsyncClient, role: Role) -> None:
    code = (await received(desk))["code"]
    who = client(site, role, AGENCY_OF.get(role))
    assert (await who.post("/v1/dossiers", json=dossier())).status_code == (201 if role in ("desk", "admin") else 403)
    sent = await who.post("/v1/submissions", json=dossier())
    assert sent.status_code == (201 if role in ("desk", "portal", "admin") else 403)
    lines = await who.post("/v1/imports?source=x", content=b"", headers={"content-type": "application/x-ndjson"})
    assert lines.status_code == (200 if role in ("desk", "admin") else 403)
    reads = {"operator": 403, "portal": 404}.get(role, 200)
    for path in ("", "/history", "/explain"):
        assert (await who.get(f"/v1/dossiers/{code}{path}")).status_code == reads
    assert (await who.get("/v1/dossiers")).status_code == (403 if role is Role.OPERATOR else 200)
    found = await who.post("/v1/dossiers/search", json={"phone": "0912345678"})
    assert found.status_code == (403 if role in ("auditor", "operator") else 200)


async def test_the_applicant_is_for_desk_and_admin_and_each_read_is_recorded(
    site: RunningSite, desk: httpx.AsyncClient, admin: httpx.AsyncClient, officer: httpx.AsyncClient
) -> None:
    applicant = person(phone="0987654321", citizen_id="001234567890", address="Xóm 1")
    code = (await received(desk, applicant=applicant))["code"]
    reads = "SELECT count(*) FROM intake.access_record WHERE code = $1"
    before = await site.value(reads, code)
    for who in (desk, admin):
        read = (await who.get(f"/v1/dossiers/{code}")).json()
        assert read["applicant"] == applicant | {"phone": "+84987654321"}
    assert await site.value(reads, code) == before + 2
    others = [officer, client(site, Role.LEADER, HOME), client(site, Role.AUDITOR)]
    for who in others:
        answer = await who.get(f"/v1/dossiers/{code}")
        assert answer.status_code == 200
        assert "applicant" not in answer.json()
        assert "track_pin" not in answer.json()
        for secret in (applicant["name"], "987654321", "001234567890", "Xóm 1"):
            assert secret not in answer.text
            assert secret not in (await who.get(f"/v1/dossiers/{code}/history")).text
    assert await site.value(reads, code) == before + 2


async def test_another_agencys_dossier(site: RunningSite, desk: httpx.AsyncClient) -> None:
    code = (await received(desk))["code"]
    strangers = [client(site, role, OTHER) for role in (Role.DESK, Role.OFFICER, Role.LEADER)]
    for who in strangers:
        refused(await who.get(f"/v1/dossiers/{code}"), 404, "not-found")
        listed = (await who.get("/v1/dossiers", params={"q": code})).json()
        assert listed == {"items": [], "next_cursor": None}
    refused(await act(strangers[0], code, "stop", reason="x"), 404, "not-found")
    refused(await act(strangers[1], code, "start"), 404, "not-found")
    above = client(site, Role.OFFICER, "H55")
    refused(await act(above, code, "start"), 404, "not-found")
    whole = client(site, Role.OFFICER, "H55", subtree=True)
    await done(whole, code, "start")
    refused(await desk.post("/v1/dossiers", json=dossier(receiving_agency=OTHER)), 403, "forbidden")


async def test_a_dossier_belongs_to_its_deciding_agency_too(site: RunningSite, desk: httpx.AsyncClient) -> None:
    code = (await received(desk, deciding_agency=OTHER))["code"]
    officer = client(site, Role.OFFICER, OTHER)
    await done(officer, code, "start")
    assert code in [d["code"] for d in (await officer.get("/v1/dossiers")).json()["items"]]
    assert (await officer.get("/v1/dossiers", params={"agency": OTHER})).json()["items"] == []


async def test_the_scope_holds_what_the_agency_succeeds(site: RunningSite, admin: httpx.AsyncClient) -> None:
    old = await received(admin, receiving_agency="H55.41.19", received_at="2024-03-01T08:00:00+07:00")
    successor = client(site, Role.DESK, HOME)
    assert (await successor.get(f"/v1/dossiers/{old['code']}")).status_code == 200


async def test_a_working_agency_reads_while_its_transfer_is_open(site: RunningSite, desk: httpx.AsyncClient) -> None:
    code = (await received(desk, procedure=ROUTED))["code"]
    police = client(site, Role.OFFICER, "H55.21")
    refused(await police.get(f"/v1/dossiers/{code}"), 404, "not-found")
    working = '{"0190": "H55.21"}'
    change = "UPDATE intake.dossier SET body = jsonb_set(body::jsonb, '{working}', $2::jsonb)::text WHERE code = $1"
    await site.database.execute(change, code, working)
    assert (await police.get(f"/v1/dossiers/{code}")).status_code == 200
    refused(await act(police, code, "start"), 404, "not-found")
    await site.database.execute(change, code, "{}")
    refused(await police.get(f"/v1/dossiers/{code}"), 404, "not-found")


async def test_a_token_of_an_agency_that_nobody_knows(site: RunningSite, desk: httpx.AsyncClient) -> None:
    code = (await received(desk))["code"]
    lost = client(site, Role.DESK, "H99.9")
    assert (await lost.post("/v1/dossiers", json=dossier())).status_code == 403
    assert (await lost.get(f"/v1/dossiers/{code}")).status_code == 404
    assert (await lost.get("/v1/dossiers")).json()["items"] == []


async def test_a_portal_sees_and_does_only_what_it_sent(
    site: RunningSite, portal: httpx.AsyncClient, desk: httpx.AsyncClient, officer: httpx.AsyncClient
) -> None:
    code = (await submitted(portal, applicant=person(phone="0912345678")))["code"]
    other = client(site, Role.PORTAL, name="portal-2")
    for who, status in ((portal, 200), (other, 404)):
        assert (await who.get(f"/v1/dossiers/{code}")).status_code == status
        assert (await who.get(f"/v1/dossiers/{code}/history")).status_code == status
    assert code in [d["code"] for d in (await portal.get("/v1/dossiers")).json()["items"]]
    assert code not in [d["code"] for d in (await other.get("/v1/dossiers")).json()["items"]]
    await done(desk, code, "receive")
    await done(desk, code, "supplement-request", reason="thiếu")
    refused(await act(other, code, "supplement"), 404, "not-found")
    await done(portal, code, "supplement")
    await done(portal, code, "payment", amount=1000, method="online")
    await done(portal, code, "withdrawal-request", reason="thôi")
    await done(desk, code, "withdrawal-refusal", reason="xong rồi")
    await done(officer, code, "resolution", result="granted")
    await done(portal, code, "rating", level="satisfied")
    assert "applicant" not in (await portal.get(f"/v1/dossiers/{code}")).json()


# -------------------------------------------------------------------------------------------------- search


async def test_search_by_phone_and_citizen_id_within_scope(site: RunningSite, desk: httpx.AsyncClient) -> None:
    applicant = person(phone="0977123456", citizen_id="019283746501")
    mine = [(await received(desk, applicant=applicant))["code"] for _ in range(2)]
    other = client(site, Role.DESK, OTHER)
    theirs = (await received(other, receiving_agency=OTHER, applicant=applicant))["code"]
    for query in ({"phone": "+84 977 123 456"}, {"phone": "0977123456"}, {"citizen_id": "019283746501"}):
        for who, expected in ((desk, mine), (other, [theirs]), (client(site, Role.ADMIN), sorted([*mine, theirs]))):
            answer = await who.post("/v1/dossiers/search", json=query)
            assert [item["code"] for item in answer.json()["items"]] == sorted(expected)
            assert applicant["name"] not in answer.text
    for wrong in ({}, {"phone": "0977123456", "citizen_id": "019283746501"}, {"phone": "1"}, {"name": "Nguyễn"}):
        assert (await desk.post("/v1/dossiers/search", json=wrong)).status_code == 422
    refused(await desk.post("/v1/dossiers/search?cursor=x", json={"phone": "0977123456"}), 422, "invalid")


async def test_nothing_personal_lies_in_clear(site: RunningSite, desk: httpx.AsyncClient) -> None:
    secrets = {"name": "Đặng Thị Bí Mật", "phone": "0966554433", "citizen_id": "098765432109", "address": "Ngõ Vắng 7"}
    code = (await received(desk, applicant=person(**secrets)))["code"]
    await done(desk, code, "stop", reason="dừng")
    await done(desk, code, "rating", level="neutral", comment="Lời riêng tư")
    rows = []
    for table in ("event", "dossier", "contact", "remark", "idempotency"):
        rows += [row["row"] for row in await site.fetch(f"SELECT t::text AS row FROM intake.{table} t")]
    stored = "\n".join(rows)
    for secret in (*secrets.values(), "966554433", "Lời riêng tư", "Bí Mật"):
        assert secret not in stored


# --------------------------------------------------------------------------------------------------- lists


async def test_lists_page_by_cursor(site: RunningSite, admin: httpx.AsyncClient) -> None:
    agency = "H55.226"
    lines = [{"op": "receive", "ref": f"p{i}", **dossier(receiving_agency=agency)} for i in range(230)]
    codes = sorted(line["code"] for line in await imported(admin, lines, source="paging"))
    found: list[str] = []
    cursor: dict[str, str] = {}
    pages = 0
    while True:
        page = (await admin.get("/v1/dossiers", params={"agency": agency, **cursor})).json()
        found += [item["code"] for item in page["items"]]
        pages += 1
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert (found, pages) == (codes, 3)
    assert (await admin.get("/v1/dossiers", params={"agency": agency, "q": codes[7]})).json()["items"][0][
        "code"
    ] == codes[7]
    tail = codes[7][-4:]
    assert codes[7] in [
        d["code"] for d in (await admin.get("/v1/dossiers", params={"agency": agency, "q": tail})).json()["items"]
    ]


@pytest.mark.parametrize(
    "query",
    [
        "foo=1",
        "cursor=garbage",
        "cursor=ABC",
        "cursor=%00",
        "cursor=H55.242-269999-0001",
        "state=11",
        "state=0",
        "state=x",
        "overdue=perhaps",
        "agency=x",
        "agency=H55.242&sort=code",
    ],
)
async def test_bad_queries(admin: httpx.AsyncClient, query: str) -> None:
    answer = await admin.get(f"/v1/dossiers?{query}")
    refused(answer, 422, answer.json()["code"])


async def test_a_dossier_is_found_by_every_part_of_its_code(site: RunningSite, admin: httpx.AsyncClient) -> None:
    mine = (await received(admin, receiving_agency="H55.241"))["code"]
    other = (await received(admin, receiving_agency="H55.241", deciding_agency="H55.24"))["code"]
    agency, day, number = mine.split("-")
    land = client(site, Role.OFFICER, "H55.24")
    leader = client(site, Role.LEADER, "H55", subtree=True)
    few, many = client(site, Role.DESK, agency), client(site, Role.DESK, "H55", subtree=True)

    async def found(who: httpx.AsyncClient, q: str, **more: str) -> list[str]:
        codes: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = (await who.get("/v1/dossiers", params={"q": q, **more, **cursor})).json()
            codes += [item["code"] for item in page["items"]]
            if page["next_cursor"] is None:
                assert codes == sorted(set(codes))
                return codes
            cursor = {"cursor": page["next_cursor"]}

    for q in (
        mine,
        mine[:-1],
        agency,
        f"{agency}-{day[:2]}",
        day,
        f"{day}-{number}",
        number,
        number.lstrip("0"),
        "241",
        f"241-{day}",
    ):
        for who in (admin, leader, many, few):
            assert mine in await found(who, q), q
            assert mine in await found(who, q, agency=agency), q
        assert mine not in await found(client(site, Role.DESK, "H55.201"), q)
        assert mine not in await found(land, q)
    _, _, last = other.split("-")
    for q in (other, day, f"{day}-{last}", last, "241"):
        assert other in await found(land, q), q
    assert await found(admin, "999999") == await found(few, "999999") == []
    assert mine not in await found(admin, number, agency="H55.201")
    assert mine in await found(admin, day, state="2")
    assert mine not in await found(admin, day, state="9")


async def test_lists_by_state_and_overdue(site: RunningSite, admin: httpx.AsyncClient) -> None:
    agency = "H55.218"
    late = (await received(admin, receiving_agency=agency, received_at="2026-03-02T08:00:00+07:00"))["code"]
    paused = (await received(admin, receiving_agency=agency, received_at="2026-03-02T08:00:00+07:00"))["code"]
    await done(admin, paused, "supplement-request", reason="thiếu", at="2026-03-03T08:00:00+07:00")
    fresh = (await received(admin, receiving_agency=agency))["code"]
    sent = (await submitted(admin, receiving_agency=agency))["code"]

    async def codes(**params: Any) -> set[str]:
        items = (await admin.get("/v1/dossiers", params={"agency": agency, **params})).json()["items"]
        return {item["code"] for item in items}

    assert await codes() == {late, paused, fresh, sent}
    assert await codes(overdue="true") == {late}
    assert await codes(overdue="false") == {paused, fresh, sent}
    assert await codes(state="2") == {late, fresh}
    assert await codes(state="1") == {sent}
    assert await codes(q="Nguyễn Văn") == set()
    assert await codes(q="%") == set()
    refused(await admin.get("/v1/dossiers?agency=H55.999"), 404, "not-found")


async def test_history_pages_and_explain(admin: httpx.AsyncClient) -> None:
    body = await received(admin, received_at="2026-03-02T08:00:00+07:00")
    code = body["code"]
    lines = [{"op": "digitisation", "ref": "h", "component": f"Giấy {i}"} for i in range(120)]
    ref = {"op": "receive", "ref": "h", **dossier(), "received_at": "2026-03-02T08:00:00+07:00"}
    answers = await imported(admin, [ref, *lines], source="history-paging", mode="history")
    assert {line["status"] for line in answers} == {"applied"}
    items = await history(admin, answers[0]["code"])
    assert [item["sequence"] for item in items] == list(range(1, 122))
    assert (await admin.get(f"/v1/dossiers/{code}/history?cursor=x")).status_code == 422
    assert (await admin.get(f"/v1/dossiers/{code}/history?page=2")).status_code == 422
    why = (await admin.get(f"/v1/dossiers/{code}/explain")).json()
    assert why["due_at"] == body["due_at"] == "2026-03-05T17:00:00+07:00"
    assert why["calendar"] == {"agency": "H55", "version": 1}
    assert sum(interval["amount"] for interval in why["explain"]) == 3
    sent = (await submitted(admin))["code"]
    assert (await admin.get(f"/v1/dossiers/{sent}/explain")).status_code == 409


async def test_a_confidential_dossier_is_received_as_any_other(desk: httpx.AsyncClient) -> None:
    body = await received(desk, procedure=CONFIDENTIAL)
    assert (await history(desk, body["code"]))[0]["confidential"] is True


async def test_instants_carry_an_offset(admin: httpx.AsyncClient) -> None:
    code = (await received(admin))["code"]
    read = (await admin.get(f"/v1/dossiers/{code}")).json()
    listed = (await admin.get("/v1/dossiers", params={"q": code})).json()["items"][0]
    for value in (read["received_at"], read["due_at"], listed["received_at"], listed["due_at"]):
        assert instant(value) > datetime.now(UTC) - timedelta(days=1)
    for item in await history(admin, code):
        instant(item["at"])
        instant(item["recorded_at"])


async def test_an_answer_is_kept_over_a_restart(site: RunningSite, desk: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": uuid4().hex}
    body = dossier(procedure=THREE_DAYS)
    first = await desk.post("/v1/dossiers", json=body, headers=key)
    row = await site.value("SELECT count(*) FROM intake.idempotency WHERE key = $1", key["Idempotency-Key"])
    assert row == 1  # it lies in the database, in the transaction of the act itself
    again = await desk.post("/v1/dossiers", json=body, headers=key)
    assert again.content == first.content
