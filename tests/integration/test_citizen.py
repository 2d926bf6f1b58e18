"""What citizens and portals see of intake: the tracking page and its throttle, ratings, the catalogue, petitions."""

import asyncio
from typing import Any

import httpx
import orjson
import pytest

from shared.contracts.envelope import parse
from shared.contracts.events import EventData
from shared.security.tokens import Role
from tests.harness import RunningSite
from tests.integration.intake_site import HOME, LAND, OTHER, client, done, dossier, person, received, refused, site

__all__ = ["site"]  # the fixture

JSON = {"accept": "application/json"}
PERSON = {"name": "Hoàng Thị Cánh Kiến", "phone": "0912345999", "citizen_id": "024095001999", "address": "Xóm Đồng Mây"}


@pytest.fixture
def desk(site: RunningSite) -> httpx.AsyncClient:
    return client(site, Role.DESK, HOME)


@pytest.fixture
def citizen(site: RunningSite) -> httpx.AsyncClient:
    return site.client("intake", None)


async def track(who: httpx.AsyncClient, code: str, pin: str | None, **headers: str) -> httpx.Response:
    return await who.get(f"/track/{code}", params={} if pin is None else {"pin": pin}, headers=headers)


async def ended(site: RunningSite, desk: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    """A dossier whose result was returned."""
    officer = client(site, Role.OFFICER, HOME)
    taken = await received(desk, **more)
    await done(officer, taken["code"], "resolution", result="granted")
    await done(desk, taken["code"], "return", by="counter")
    return taken


def wrong(pin: str) -> str:
    return f"{(int(pin) + 1) % 1_000_000:06}"


# ------------------------------------------------------------------------------------------------- tracking


async def test_the_page_and_its_json_show_how_a_dossier_stands(
    desk: httpx.AsyncClient, citizen: httpx.AsyncClient
) -> None:
    taken = await received(desk, applicant=person(**PERSON))
    await done(desk, taken["code"], "supplement-request", reason="Bản sao giấy chứng sinh, gọi 0912 345 999")
    answer = await track(citizen, taken["code"], taken["track_pin"], **JSON)
    assert answer.status_code == 200
    seen = answer.json()
    assert (seen["code"], seen["state"], seen["due_at"]) == (taken["code"], 5, taken["due_at"])
    assert [item["state"] for item in seen["history"]] == [2, 5]
    assert "Bản sao giấy chứng sinh" in seen["todo"]
    page = await track(citizen, taken["code"], taken["track_pin"], accept="text/html,*/*;q=0.8")
    assert page.headers["content-type"].startswith("text/html")
    assert '<html lang="vi">' in page.text
    assert "Yêu cầu bổ sung giấy tờ" in page.text
    assert "http" not in page.text
    assert "<script" not in page.text
    for told in (answer.text, page.text):
        assert not any(secret in told for secret in (*PERSON.values(), "0912 345 999", "84912345999"))
    assert f'href="?lang=en&amp;pin={taken["track_pin"]}"' in page.text
    english = await citizen.get(f"/track/{taken['code']}", params={"pin": taken["track_pin"], "lang": "en"})
    assert '<html lang="en">' in english.text
    assert "Supplement requested" in english.text


async def test_whether_a_dossier_exists_is_private(desk: httpx.AsyncClient, citizen: httpx.AsyncClient) -> None:
    taken = await received(desk)
    nobody = "H55.242-200101-0001"
    answers = [
        await track(citizen, taken["code"], wrong(taken["track_pin"]), **JSON),
        await track(citizen, taken["code"], "nicht ä pin", **JSON),
        await track(citizen, taken["code"], None, **JSON),
        await track(citizen, nobody, "123456", **JSON),
        await track(citizen, "no-code-at-all", "123456", **JSON),
    ]
    assert {(answer.status_code, answer.text) for answer in answers} == {(404, answers[0].text)}
    pages = [await track(citizen, code, None) for code in (taken["code"], nobody)]
    assert [page.status_code for page in pages] == [200, 200]
    assert pages[0].text.replace(taken["code"], "") == pages[1].text.replace(nobody, "")
    refused_pages = [await track(citizen, taken["code"], wrong(taken["track_pin"])), await track(citizen, nobody, "1")]
    assert [page.status_code for page in refused_pages] == [404, 404]
    assert refused_pages[0].text.replace(taken["code"], "") == refused_pages[1].text.replace(nobody, "")


async def test_guessing_closes_this_dossiers_page_alone(desk: httpx.AsyncClient, citizen: httpx.AsyncClient) -> None:
    taken, other = await received(desk), await received(desk)
    pins = wrong(taken["track_pin"])
    tried = [(await track(citizen, taken["code"], pins, **JSON)).status_code for _ in range(12)]
    assert tried == [404] * 10 + [429] * 2
    right = await track(citizen, taken["code"], taken["track_pin"], **JSON)
    refused(right, 429, "too-many-wrong-pins")
    assert 0 < int(right.headers["retry-after"]) <= 900
    page = await track(citizen, taken["code"], taken["track_pin"])
    assert page.status_code == 429
    assert "thử lại sau 15 phút" in page.text
    rating = await citizen.post(f"/track/{taken['code']}", json={"pin": taken["track_pin"], "level": "neutral"})
    assert rating.status_code == 429
    assert (await track(citizen, other["code"], other["track_pin"], **JSON)).status_code == 200
    nobody = "H55.242-200101-0002"
    assert [(await track(citizen, nobody, "1", **JSON)).status_code for _ in range(11)] == [404] * 10 + [429]


async def test_guesses_at_the_same_time_do_not_slip_through(site: RunningSite, citizen: httpx.AsyncClient) -> None:
    code = "H55.242-200101-0003"
    answers = await asyncio.gather(*(track(citizen, code, f"{pin:06}", **JSON) for pin in range(40)))
    assert sorted(answer.status_code for answer in answers) == [404] * 10 + [429] * 30


async def test_the_page_opens_again_after_the_window(
    site: RunningSite, desk: httpx.AsyncClient, citizen: httpx.AsyncClient
) -> None:
    taken = await received(desk)
    for _ in range(10):
        await track(citizen, taken["code"], wrong(taken["track_pin"]), **JSON)
    assert (await track(citizen, taken["code"], taken["track_pin"], **JSON)).status_code == 429
    await site.database.execute("UPDATE intake.guess SET since = since - interval '15 minutes'")
    assert (await track(citizen, taken["code"], taken["track_pin"], **JSON)).status_code == 200
    assert (await track(citizen, taken["code"], wrong(taken["track_pin"]), **JSON)).status_code == 404
    assert await site.value("SELECT wrong FROM intake.guess WHERE code = $1", taken["code"]) == 1


# -------------------------------------------------------------------------------------------------- ratings


async def test_the_citizen_rates_once_it_has_ended(
    site: RunningSite, desk: httpx.AsyncClient, citizen: httpx.AsyncClient
) -> None:
    taken = await ended(site, desk)
    body = {"pin": taken["track_pin"], "level": "satisfied", "comment": "Cô cán bộ rất nhiệt tình"}
    first = await citizen.post(f"/track/{taken['code']}", json=body, headers={"idempotency-key": "r1"})
    again = await citizen.post(f"/track/{taken['code']}", json=body, headers={"idempotency-key": "r1"})
    assert (first.status_code, first.json()["state"]) == (200, 10)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()
    events = await site.fetch("SELECT payload FROM intake.event WHERE type = 'dossier.rated'")
    (rated,) = [orjson.loads(event["payload"]) for event in events]
    assert (rated["level"], rated["by"]) == ("satisfied", "citizen")
    assert "nhiệt tình" not in orjson.dumps(rated).decode()


async def test_the_citizen_rates_by_the_pages_form(
    site: RunningSite, desk: httpx.AsyncClient, citizen: httpx.AsyncClient
) -> None:
    taken = await ended(site, desk)
    page = await track(citizen, taken["code"], taken["track_pin"])
    assert "Đánh giá sự phục vụ" in page.text
    form = {"pin": taken["track_pin"], "level": "dissatisfied", "complained": "true", "comment": "chờ\r\nlâu", "x": ""}
    form.pop("x")
    thanks = await citizen.post(f"/track/{taken['code']}", data=form)
    assert thanks.status_code == 200
    assert "Cảm ơn" in thanks.text
    assert "Ông/bà đã đánh giá: <strong>Không hài lòng</strong>" in thanks.text
    assert "Mời ông/bà đánh giá" not in thanks.text
    assert [
        item["act"] for item in (await track(citizen, taken["code"], taken["track_pin"], **JSON)).json()["history"]
    ][-1] == "rated"
    later = await citizen.get(f"/track/{taken['code']}", params={"pin": taken["track_pin"], "lang": "en"})
    assert "You rated: <strong>Dissatisfied</strong>" in later.text
    assert "Please rate" not in later.text
    again = await citizen.post(f"/track/{taken['code']}", data=form | {"level": "satisfied"})
    assert "Ông/bà đã đánh giá: <strong>Hài lòng</strong>" in again.text  # the last one counts


async def test_a_rating_that_cannot_be_is_refused(desk: httpx.AsyncClient, citizen: httpx.AsyncClient) -> None:
    taken = await received(desk)
    path = f"/track/{taken['code']}"
    early = await citizen.post(path, json={"pin": taken["track_pin"], "level": "satisfied"})
    assert refused(early, 409, "move-not-allowed")["state"] == 2
    page = await citizen.post(path, data={"pin": taken["track_pin"], "level": "satisfied"})
    assert (page.status_code, page.headers["content-type"]) == (409, "text/html; charset=utf-8")
    refused(await citizen.post(path, json={"pin": wrong(taken["track_pin"]), "level": "satisfied"}), 404, "not-found")
    refused(await citizen.post(path, json={"pin": taken["track_pin"], "level": "great"}), 422, "invalid", "/level")
    refused(await citizen.post(path, json={"level": "neutral"}), 422, "invalid", "/pin")
    refused(await citizen.post(path, json=[]), 422, "invalid", "")
    refused(await citizen.post(path, content=b"{", headers={"content-type": "application/json"}), 400, "bad-json")
    refused(await citizen.post(path, content=b"<x/>", headers={"content-type": "text/xml"}), 415, "media-type")


# ------------------------------------------------------------------------------------------- how they want to be told


async def test_the_applicant_says_how_they_want_to_be_told(
    site: RunningSite, desk: httpx.AsyncClient, citizen: httpx.AsyncClient
) -> None:
    applicant = person(**PERSON | {"citizen_id": "024095001777"})
    refused(
        await desk.post("/v1/dossiers", json=dossier(applicant=applicant | {"notify": "fax"})),
        422,
        "invalid",
        "/applicant/notify",
    )
    taken = await received(desk, applicant=applicant | {"notify": "postal"})
    path, pin = f"/track/{taken['code']}", taken["track_pin"]

    async def known(code: str) -> dict[str, Any]:
        found: dict[str, Any] = (await desk.get(f"/v1/dossiers/{code}")).json()["applicant"]
        return found

    before = await known(taken["code"])
    assert before["notify"] == "postal"
    refused(await citizen.post(path, json={"pin": wrong(pin), "notify": "sms"}), 404, "not-found")
    refused(await citizen.post(path, json={"pin": pin, "notify": "fax"}), 422, "invalid", "/notify")
    refused(await citizen.post(path, json={"pin": pin, "notify": "sms", "level": "neutral"}), 422, "invalid", "/level")
    key = {"idempotency-key": "wish-1"}
    for replayed in (None, "true"):
        done_ = await citizen.post(path, json={"pin": pin, "notify": "required"}, headers=key)
        assert (done_.json(), done_.headers.get("idempotent-replayed")) == (
            {"code": taken["code"], "notify": "required"},
            replayed,
        )
    assert await known(taken["code"]) == before | {"notify": "required"}
    page = await track(citizen, taken["code"], pin)
    assert 'name="notify" value="postal"' in page.text
    kept = await citizen.post(path, data={"pin": pin, "notify": "sms"})
    assert kept.status_code == 200
    assert "Đã ghi nhận cách báo tin: <strong>Bằng tin nhắn</strong>" in kept.text
    other = await received(desk, applicant=applicant)  # the same person: what is not said again stays as it was
    assert (await known(other["code"]))["notify"] == "sms"
    ref = await site.value("SELECT contact_ref FROM intake.dossier WHERE code = $1", taken["code"])
    said = await site.fetch("SELECT type, payload FROM intake.event WHERE aggregateid = $1 ORDER BY sequence", ref)
    assert [row["type"] for row in said] == ["contact.recorded", "contact.changed", "contact.changed"]
    assert not any("notify" in row["payload"] or "0912345999" in row["payload"] for row in said)  # sealed, as the rest

    erased = await client(site, Role.ADMIN).post("/v1/erasures", json={"code": taken["code"]})
    assert erased.status_code == 200
    refused(await citizen.post(path, json={"pin": pin, "notify": "sms"}), 409, "erased")
    gone = await citizen.post(path, data={"pin": pin, "notify": "sms"})
    assert (gone.status_code, "đã được xóa" in gone.text) == (409, True)


# ------------------------------------------------------------------------------------------------ catalogue


async def test_procedures_are_found_without_tones_and_without_a_token(citizen: httpx.AsyncClient) -> None:
    found = (await citizen.get("/v1/procedures", params={"q": "khai SINH dang ky"})).json()["items"]
    assert "1.001193" in [item["code"] for item in found]
    birth = (await citizen.get("/v1/procedures/1.001193")).json()
    assert (birth["name"], birth["field"]["name"], birth["limit"]) == (
        "Đăng ký khai sinh",
        "Hộ tịch",
        {"value": 0, "unit": "working_days"},
    )
    assert {"code", "fee", "online", "level", "components", "route", "valid_from", "published_on"} <= set(birth)
    assert birth["published_on_time"] is True
    both = {"field": birth["field"]["code"], "online": "full", "level": "commune"}
    for item in (await citizen.get("/v1/procedures", params=both)).json()["items"]:
        assert (item["field"]["code"], item["online"], item["level"]) == tuple(both.values())
    refused(await citizen.get("/v1/procedures/none"), 404, "not-found")
    refused(await citizen.get("/v1/procedures", params={"cursor": "none"}), 422, "bad-cursor", "/cursor")
    refused(await citizen.get("/v1/procedures", params={"level": "moon"}), 422, "invalid", "/level")
    refused(await citizen.get("/v1/procedures", params={"colour": "red"}), 422, "unknown-parameter")


async def test_agencies_come_with_shifts_and_petition_contact(citizen: httpx.AsyncClient) -> None:
    listed = (await citizen.get("/v1/agencies", params={"parent": "H55", "level": "commune", "q": "trung hoi"})).json()
    (agency,) = listed["items"]
    assert (agency["code"], agency["petition_contact"]) == (HOME, "Bộ phận một cửa xã Trung Hội")
    assert agency["shifts"]["mon"] == ["07:30-11:30", "13:00-17:00"]
    assert agency["calendar"]["same_day_cutoff"] == "15:00"
    assert (await citizen.get("/v1/agencies/000.00.00.H55")).json()["code"] == "H55"
    closed = (await citizen.get("/v1/agencies/H55.41.19")).json()
    assert (closed["successor"], closed["valid_to"]) == (HOME, "2025-06-30")
    refused(await citizen.get("/v1/agencies/H98"), 404, "not-found")
    refused(await citizen.get("/v1/agencies/nobody"), 404, "not-found")
    refused(await citizen.get("/v1/agencies", params={"parent": "nobody"}), 422, "invalid", "/parent")
    refused(await citizen.get("/v1/agencies", headers={"authorization": "Bearer x"}), 401, "unauthorized")


async def test_following_the_cursor_finds_every_entry_once(citizen: httpx.AsyncClient) -> None:
    whole = (await citizen.get("/v1/agencies")).json()
    codes = [item["code"] for item in whole["items"]]
    assert codes == sorted(set(codes))
    rest = (await citizen.get("/v1/agencies", params={"cursor": codes[4]})).json()
    assert [item["code"] for item in rest["items"]] == codes[5:]


# ------------------------------------------------------------------------------------------------ petitions

PETITION = {"agency": HOME, "kind": "complaint", "text": "Chờ quá lâu ở một cửa", "contact": PERSON["phone"]}


async def events_of(site: RunningSite, petition: str) -> list[EventData]:
    service = site.services["intake"]
    async with service.pool.acquire() as connection:
        envelopes = await service.log.after(connection, "lienthong.petition.v1", petition, 0)
    assert [envelope.sequence for envelope in envelopes] == list(range(1, len(envelopes) + 1))
    found = [parse(envelope) for envelope in envelopes]
    return [data for data in found if data is not None]


async def test_a_petition_from_portal_to_rating(site: RunningSite, desk: httpx.AsyncClient) -> None:
    portal, officer = client(site, Role.PORTAL, name="national"), client(site, Role.OFFICER, LAND)
    filed = await portal.post("/v1/petitions", json=PETITION)
    assert filed.status_code == 201, filed.text
    identity = filed.json()["id"]
    assert filed.headers["location"] == f"/v1/petitions/{identity}"
    assert (filed.json()["state"], filed.json()["agency"]) == ("filed", HOME)
    assert filed.json()["due_at"].endswith("T17:00:00+07:00")
    path = f"/v1/petitions/{identity}"

    read = (await desk.get(path)).json()
    assert (read["text"], read["contact"]) == (PETITION["text"], {"text": PERSON["phone"]})
    assert "text" not in (await portal.get(path)).json()

    early = await portal.post(f"{path}/rating", json={"level": "neutral"})
    assert refused(early, 409, "move-not-allowed")["allowed"] == ["answer", "forward"]
    forwarded = await desk.post(f"{path}/forward", json={"to": LAND, "reason": "đất đai"})
    assert (forwarded.status_code, forwarded.json()["agency"]) == (200, LAND)
    refused(await desk.get(path), 404, "not-found")
    answered = await officer.post(f"{path}/answer", json={"text": "Đã xử lý, xin lỗi bà Kiến"})
    assert answered.json()["state"] == "answered"
    twice = refused(await officer.post(f"{path}/answer", json={"text": "x"}), 409, "move-not-allowed")
    assert (twice["state"], twice["allowed"]) == ("answered", ["rating"])
    seen = (await portal.get(path)).json()
    assert (seen["state"], seen["answer"]) == ("answered", "Đã xử lý, xin lỗi bà Kiến")
    assert (await portal.post(f"{path}/rating", json={"level": "satisfied"})).status_code == 200

    assert [data.short for data in await events_of(site, identity)] == [
        "petition.filed",
        "petition.forwarded",
        "petition.answered",
        "petition.rated",
    ]
    reads = await site.fetch("SELECT who, role FROM intake.access_record WHERE code = $1", identity)
    assert sorted(row["role"] for row in reads) == ["desk", "portal", "portal"]  # the portal reads what it sent


async def test_what_a_petition_says_is_nowhere_in_clear(site: RunningSite, desk: httpx.AsyncClient) -> None:
    identity = (await desk.post("/v1/petitions", json=PETITION)).json()["id"]
    await desk.post(f"/v1/petitions/{identity}/answer", json={"text": "Đã trả lời bà Cánh Kiến"})
    rows = await site.fetch("SELECT * FROM intake.petition") + await site.fetch("SELECT * FROM intake.event")
    stored = str([tuple(row) for row in rows])
    assert not any(said in stored for said in ("Chờ quá lâu", "912345999", "Cánh Kiến"))


async def test_petitions_are_seen_by_role_and_scope(site: RunningSite, desk: httpx.AsyncClient) -> None:
    portal = client(site, Role.PORTAL, name="p1")
    identity = (await portal.post("/v1/petitions", json=PETITION)).json()["id"]
    path = f"/v1/petitions/{identity}"
    seen_by: list[tuple[httpx.AsyncClient, int, bool]] = [
        (desk, 200, True),
        (client(site, Role.OFFICER, HOME), 200, True),
        (client(site, Role.ADMIN), 200, True),
        (client(site, Role.LEADER, "H55", subtree=True), 200, False),
        (client(site, Role.AUDITOR), 200, False),
        (client(site, Role.PORTAL, name="p2"), 404, False),
        (client(site, Role.DESK, OTHER), 404, False),
        (client(site, Role.OPERATOR), 403, False),
        (site.client("intake", None), 401, False),
    ]
    for who, status, reads in seen_by:
        answer = await who.get(path)
        assert (answer.status_code, "text" in answer.json()) == (status, reads)
        listed = await who.get("/v1/petitions", params={"agency": HOME, "state": "filed"})
        assert listed.status_code == (200 if status == 404 else status)
        if listed.status_code == 200:
            items = {item["id"]: item for item in listed.json()["items"]}
            assert (identity in items) is (status == 200)
            assert not any({"text", "contact", "answer"} & set(item) for item in items.values())
    for who in (client(site, Role.DESK, OTHER), portal, client(site, Role.AUDITOR)):
        refusal = await who.post(f"{path}/answer", json={"text": "x"})
        assert refusal.status_code in (403, 404)
    refused(await client(site, Role.OFFICER, HOME).post("/v1/petitions", json=PETITION), 403, "forbidden")
    refused(await client(site, Role.DESK, OTHER).post("/v1/petitions", json=PETITION), 403, "forbidden")


async def test_petitions_are_written_once_and_by_whom_has_read_them(site: RunningSite, desk: httpx.AsyncClient) -> None:
    key = {"idempotency-key": "petition-1"}
    first = await desk.post("/v1/petitions", json=PETITION, headers=key)
    again = await desk.post("/v1/petitions", json=PETITION, headers=key)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    other = await desk.post("/v1/petitions", json={**PETITION, "kind": "letter"}, headers=key)
    refused(other, 422, "idempotency-key-reused")
    path = f"/v1/petitions/{first.json()['id']}"
    stale = await desk.post(f"{path}/answer", json={"text": "x"}, headers={"if-match": '"9"'})
    refused(stale, 412, "changed-meanwhile")
    good = await desk.post(f"{path}/answer", json={"text": "x"}, headers={"if-match": first.headers["etag"]})
    assert good.status_code == 200


async def test_a_bad_petition_says_where(site: RunningSite, desk: httpx.AsyncClient) -> None:
    admin = client(site, Role.ADMIN)
    for change, pointer in (
        ({"agency": "H98"}, "/agency"),
        ({"agency": "H55.41"}, "/agency"),
        ({"kind": "song"}, "/kind"),
        ({"text": " "}, "/text"),
        ({"text": "a\nb"}, "/text"),
        ({"contact": ""}, "/contact"),
        ({"contact": {"phone": "123"}}, "/contact/phone"),
        ({"mood": "bad"}, "/mood"),
    ):
        answer = await admin.post("/v1/petitions", json={**PETITION, **change})
        assert answer.status_code == 422, change
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    refused(await admin.get("/v1/petitions", params={"cursor": "x"}), 422, "invalid", "/cursor")
    refused(await admin.get("/v1/petitions", params={"agency": "H98"}), 404, "not-found")
    refused(await admin.get("/v1/petitions/01926f3c-7a40-7c11-8a5e-3f1b2c4d5e6f"), 404, "not-found")
    assert (await admin.get("/v1/petitions/x")).status_code in (404, 422)


async def test_public_pages_are_open_and_searched_without_tones(site: RunningSite) -> None:
    anybody = site.client("intake", None)
    page = await anybody.get("/procedures", params={"q": "khai sinh"})
    assert page.status_code == 200
    assert "Đăng ký khai sinh" in page.text
    assert "Đăng ký kết hôn" not in page.text
    one = (await anybody.get("/procedures/1.013978")).text
    for said in ("Giấy tờ về quyền sử dụng đất", "50.000 đồng", "20 ngày làm việc", "Đúng hạn"):
        assert said in one
    assert (await anybody.get("/procedures/none")).status_code == 404
    assert "Thứ hai - Thứ sáu: 07:30-11:30, 13:00-17:00" in (await anybody.get("/agencies?q=trung hoi")).text
    assert (await anybody.get("/track")).status_code == 200
    there = await anybody.get("/track", params={"code": "h55.242-261126-0001"})
    assert (there.status_code, there.headers["location"]) == (303, "/track/H55.242-261126-0001")


async def test_the_citizens_page_says_why_the_date(site: RunningSite) -> None:
    made = await received(client(site, Role.DESK, HOME))
    anybody = site.client("intake", None)
    page = await anybody.get(f"/track/{made['code']}", params={"pin": made["track_pin"]})
    assert "Vì sao hẹn ngày này?" in page.text
    assert "ngày tiếp nhận, không tính" in page.text
