"""The desk's pages: who gets in, and a counter day without a browser."""

import json
import re
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest

from shared.security.tokens import Role
from shared.web.throttle import Throttle
from tests.harness import RunningSite
from tests.integration.intake_site import HOME, LAND, OTHER, SAME_DAY, THREE_DAYS, client, received, site, submitted

__all__ = ["site"]


def browser(site: RunningSite, role: Role = Role.DESK, agency: str | None = HOME) -> httpx.AsyncClient:
    """A client with cookies and no token of its own; `log_in` gives it a session."""
    found = site.client("intake", None)
    found.headers["Accept"] = "text/html"
    return found


async def log_in(site: RunningSite, role: Role = Role.DESK, agency: str | None = HOME) -> httpx.AsyncClient:
    web = browser(site)
    token = site.services["intake"].tokens.issue(role, agency=agency)
    answer = await web.post("/desk/login", data={"token": token})
    assert (answer.status_code, answer.headers["location"]) == (303, "/desk"), answer.text
    return web


def hidden(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found is not None, name
    return unescape(found[1])


async def csrf(web: httpx.AsyncClient) -> str:
    return hidden((await web.get("/desk")).text, "csrf")


@pytest.mark.parametrize(
    "path", ["/", "/desk", "/desk/new", "/desk/dossiers/H55.242-261126-0001", "/desk/register", "/desk/transfers"]
)
async def test_a_page_without_a_token_is_401_with_the_login_form(site: RunningSite, path: str) -> None:
    answer = await browser(site).get(path)
    assert answer.status_code == 401
    assert 'lang="vi"' in answer.text
    assert '<form method="post" action="/desk/login">' in answer.text
    assert 'name="token"' in answer.text
    assert "script" not in answer.headers["content-security-policy"]


async def test_a_bad_token_is_401_and_a_role_without_pages_403(site: RunningSite) -> None:
    answer = await browser(site).post("/desk/login", data={"token": "nonsense"})
    assert (answer.status_code, "aria-invalid" in answer.text) == (401, True)
    token = site.services["intake"].tokens.issue(Role.PORTAL)
    assert (await browser(site).post("/desk/login", data={"token": token})).status_code == 403


async def test_an_operator_stands_before_what_is_parked_and_nowhere_else(site: RunningSite) -> None:
    web = browser(site)
    token = site.services["intake"].tokens.issue(Role.OPERATOR, name="Trực ca")
    answer = await web.post("/desk/login", data={"token": token})
    assert (answer.status_code, answer.headers["location"]) == (303, "/parked")
    page = await web.get("/parked")
    assert page.status_code == 200, page.text
    assert "Trực ca" in page.text
    assert "routing, notify, stats" in page.text  # which are not running here, and said to be away
    assert 'href="/desk"' not in page.text
    assert (await web.get("/desk")).status_code == (await web.get("/desk/transfers")).status_code == 403
    desk = await log_in(site)
    assert "chưa trả lời" in (await desk.get("/desk/transfers")).text  # routing is not running here
    assert (await desk.get("/parked")).status_code == 403
    assert "/parked" not in (await desk.get("/desk")).text
    assert (
        await web.post("/parked/replay", data={"at": "stats", "topic": "x", "key": "y"})
    ).status_code == 403  # no csrf
    gone = await web.post("/desk/logout", data={"csrf": hidden(page.text, "csrf")})
    assert gone.status_code == 303
    assert (await web.get("/parked")).status_code == 401


async def test_too_many_failed_logins_wait_and_others_do_not(site: RunningSite) -> None:
    intake = site.services["intake"]
    good = intake.tokens.issue(Role.DESK, agency=HOME)
    logins, intake.logins = intake.logins, Throttle(3, 600)
    try:
        for _ in range(3):
            assert (await browser(site).post("/desk/login", data={"token": "nonsense"})).status_code == 401
        waits = await browser(site).post("/desk/login", data={"token": good})
        assert waits.status_code == 429
        assert 0 < int(waits.headers["retry-after"]) <= 600
        assert "Đăng nhập sai quá nhiều lần" in waits.text
        elsewhere = {"X-Forwarded-For": "203.0.113.7"}  # as a proxy on this machine says it
        assert (await browser(site).post("/desk/login", data={"token": good}, headers=elsewhere)).status_code == 303
    finally:
        intake.logins = logins


async def test_what_the_post_brought_back_is_a_task_until_the_desk_has_dealt_with_it(site: RunningSite) -> None:
    """Notify is asked and told in the name of who stands there."""
    intake = site.services["intake"]
    order, told = "01939ca0-0000-7000-8000-000000000001", list[tuple[str, str, object]]()
    task = {"id": order, "dossier": "H55.242-261126-0001", "agency": HOME, "kind": "deliver", "carrier": "file"}

    class Notify(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            who = intake.tokens.verify(self.headers["authorization"].removeprefix("Bearer "))
            told.append((who.subject, self.path, None))
            came_back = {"reason": "vắng nhà", "returned_at": "2026-11-26T08:00:00+07:00"}
            self._answer({"items": [] if any(body for _, _, body in told) else [task | came_back]})

        def do_POST(self) -> None:
            who = intake.tokens.verify(self.headers["authorization"].removeprefix("Bearer "))
            told.append((who.subject, self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
            self._answer({"id": order})

        def _answer(self, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    web = await log_in(site)
    assert "chưa trả lời" in (await web.get("/desk/returned")).text  # notify is away
    server = ThreadingHTTPServer(("127.0.0.1", 0), Notify)
    Thread(target=server.serve_forever, daemon=True).start()
    url, intake.settings.notify_url = intake.settings.notify_url, f"http://127.0.0.1:{server.server_address[1]}"
    try:
        page = (await web.get("/desk/returned")).text
        assert "vắng nhà" in page
        secret = {"csrf": hidden(page, "csrf")}
        empty = await web.post(f"/desk/returned/{order}", data=secret)
        assert "Cần điền mục này." in empty.text
        assert (await web.post(f"/desk/returned/{order}", data={"note": "đã gọi"})).status_code == 403
        done = await web.post(f"/desk/returned/{order}", data=secret | {"note": "đã gọi điện"})
        assert done.status_code == 303
        assert "Không có bưu gửi nào" in (await web.get("/desk/returned")).text
    finally:
        intake.settings.notify_url = url
        server.shutdown()
        server.server_close()
    assert {who for who, _, _ in told} == {f"desk@{HOME}"}
    assert (f"/v1/postal-orders/{order}/handled", {"note": "đã gọi điện"}) in [(path, body) for _, path, body in told]


async def test_the_session_cookie_is_the_browsers_alone_and_means_nothing_to_the_interface(site: RunningSite) -> None:
    web = await log_in(site)
    answer = await browser(site).post(
        "/desk/login", data={"token": site.services["intake"].tokens.issue(Role.DESK, agency=HOME)}
    )
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert (await web.get("/v1/dossiers")).status_code == 401


async def test_a_form_without_the_sessions_secret_is_refused(site: RunningSite) -> None:
    web = await log_in(site)
    answer = await web.post(f"/desk/new/{SAME_DAY}", data={"name": "Nguyễn Thị Bưởi"})
    assert answer.status_code == 403
    foreign = await browser(site).post("/desk/login", data={"token": "x"}, headers={"Sec-Fetch-Site": "cross-site"})
    assert foreign.status_code == 403


async def test_logging_out_ends_the_session(site: RunningSite) -> None:
    web = await log_in(site)
    await web.post("/desk/logout", data={"csrf": await csrf(web)})
    assert (await web.get("/desk")).status_code == 401


async def test_a_bearer_token_opens_the_pages_too_and_needs_no_secret(site: RunningSite) -> None:
    desk = client(site, Role.DESK, HOME)
    assert (await desk.get("/desk")).status_code == 200
    made = await desk.post(f"/desk/new/{SAME_DAY}", data=form())
    assert made.status_code == 303, made.text


def form(**more: str | list[str]) -> dict[str, str | list[str]]:
    return {
        "kind": "citizen",
        "name": "Nguyễn Thị Bưởi",
        "phone": "0912 345 678",
        "channel": "counter",
        "return_by": "counter",
        "receiving_agency": HOME,
        "component": ["Tờ khai đăng ký khai sinh", "Giấy chứng sinh"],
        "digitised": ["Giấy chứng sinh"],
        **more,
    }


async def take_in(web: httpx.AsyncClient, procedure: str = SAME_DAY, **more: str | list[str]) -> str:
    page = await web.get(f"/desk/new/{procedure}")
    assert page.status_code == 200, page.text
    data = form(csrf=hidden(page.text, "csrf"), key=hidden(page.text, "key"), **more)
    answer = await web.post(f"/desk/new/{procedure}", data=data)
    assert answer.status_code == 303, answer.text
    again = await web.post(f"/desk/new/{procedure}", data=data)
    assert again.headers["location"] == answer.headers["location"]  # a second click is the same dossier
    code = re.search(r"/desk/dossiers/([^?]+)\?done=new", answer.headers["location"])
    assert code is not None
    return code[1]


async def do(web: httpx.AsyncClient, code: str, operation: str, **fields: str) -> httpx.Response:
    page = await web.get(f"/desk/dossiers/{code}")
    data = {"csrf": hidden(page.text, "csrf"), "version": hidden(page.text, "version"), **fields}
    if operation == "correction":
        data["undoes"] = hidden(page.text, "undoes")
    return await web.post(f"/desk/dossiers/{code}/{operation}", data=data)


async def test_procedures_are_found_without_tones(site: RunningSite) -> None:
    web = await log_in(site)
    page = (await web.get("/desk/new", params={"q": "dang ky khai sinh"})).text
    assert f'href="/desk/new/{SAME_DAY}"' in page
    assert f'href="/desk/new/{THREE_DAYS}"' not in page
    assert "nghia vu" not in page
    assert "Không" in (await web.get("/desk/new/9.999999")).text


async def test_a_counter_day(site: RunningSite) -> None:
    web, officer = await log_in(site), await log_in(site, Role.OFFICER)
    code = await take_in(web)
    page = (await web.get(f"/desk/dossiers/{code}", params={"done": "new"})).text
    assert "Nguyễn Thị Bưởi" in page
    assert f"/desk/dossiers/{code}/forms/receipt" in page
    assert code in (await web.get("/desk")).text
    started = await do(officer, code, "start")
    assert started.headers["location"].endswith("?done=start")
    assert "Nguyễn Thị Bưởi" not in (await officer.get(f"/desk/dossiers/{code}")).text
    assert (await do(web, code, "supplement-request", reason="Giấy chứng sinh bản gốc")).status_code == 303
    assert "Giấy chứng sinh bản gốc" in (await web.get(f"/desk/dossiers/{code}/forms/supplement")).text
    assert (await do(web, code, "supplement")).status_code == 303
    assert (await do(officer, code, "resolution", result="granted")).status_code == 303
    assert code in (await web.get("/desk", params={"show": "resolved"})).text
    assert (await do(web, code, "return", by="counter")).status_code == 303
    assert (await do(web, code, "rating", level="satisfied")).status_code == 303
    page = (await web.get(f"/desk/dossiers/{code}")).text
    assert "Đã trả kết quả" in page
    assert "Hẹn trả kết quả" in page  # why it was due when it was
    for name in ("receipt", "supplement", "control"):
        pdf = await web.get(f"/desk/dossiers/{code}/forms/{name}.pdf")
        assert (pdf.status_code, pdf.content[:5]) == (200, b"%PDF-"), name
    assert (await web.get(f"/desk/dossiers/{code}/forms/refusal")).status_code == 404
    assert (await officer.get(f"/desk/dossiers/{code}/forms/receipt")).status_code == 403


async def test_what_was_filled_in_wrongly_is_named_and_kept(site: RunningSite) -> None:
    web = await log_in(site)
    page = (await web.get(f"/desk/new/{SAME_DAY}")).text
    data = form(csrf=hidden(page, "csrf"), key=hidden(page, "key"), phone="12", name="")
    answer = await web.post(f"/desk/new/{SAME_DAY}", data=data)
    assert answer.status_code == 422
    assert 'id="phone-wrong"' in answer.text
    assert 'id="name-wrong"' in answer.text
    assert 'value="12"' in answer.text
    assert "Đây không phải số điện thoại Việt Nam." in answer.text
    assert "Cần điền mục này." in answer.text
    code = (await received(client(site, Role.DESK, HOME)))["code"]
    wrong = await do(web, code, "extension", reason="Mưa lũ", due_at="2020-01-01T10:00")
    assert wrong.status_code == 422
    assert 'id="extension-due_at-wrong"' in wrong.text
    assert "Ngày hẹn lại phải sau ngày hẹn hiện tại." in wrong.text
    english = await web.post(f"/desk/new/{SAME_DAY}?lang=en", data=data)
    assert "Not valid: this is no valid Vietnamese telephone number" in english.text


async def test_a_mistake_is_undone_and_a_stale_page_refused(site: RunningSite) -> None:
    web = await log_in(site)
    code = (await received(client(site, Role.DESK, HOME)))["code"]
    stale = (await web.get(f"/desk/dossiers/{code}")).text
    assert (await do(web, code, "supplement-request", reason="nhầm")).status_code == 303
    assert (await do(web, code, "correction", reason="nhầm hồ sơ")).status_code == 303
    page = (await web.get(f"/desk/dossiers/{code}")).text
    assert "<s>Yêu cầu bổ sung</s>" in page
    answer = await web.post(
        f"/desk/dossiers/{code}/stop",
        data={"csrf": hidden(stale, "csrf"), "version": hidden(stale, "version"), "reason": "x"},
    )
    assert answer.status_code == 412
    assert "vừa được người khác cập nhật" in answer.text


async def test_scope_and_role_hold_on_pages_too(site: RunningSite) -> None:
    code = (await received(client(site, Role.DESK, HOME)))["code"]
    elsewhere, officer = await log_in(site, Role.DESK, OTHER), await log_in(site, Role.OFFICER)
    assert (await elsewhere.get(f"/desk/dossiers/{code}")).status_code == 404
    assert code not in (await elsewhere.get("/desk")).text
    assert (await officer.get("/desk/new")).status_code == 403
    answer = await officer.post(f"/desk/dossiers/{code}/return", data={"csrf": await csrf(officer), "by": "counter"})
    assert answer.status_code == 403


async def test_a_dossier_is_found_by_code_phone_and_citizen_id(site: RunningSite) -> None:
    desk = client(site, Role.DESK, HOME)
    applicant = {"kind": "citizen", "name": "Lê Văn Bình", "phone": "0987654321", "citizen_id": "019200001234"}
    code = (await received(desk, applicant=applicant))["code"]
    web = await log_in(site)
    secret = await csrf(web)
    for wanted in ("0987 654 321", "019200001234", code[:-2]):
        page = await web.post("/desk/find", data={"csrf": secret, "q": wanted})
        assert code in page.text, wanted
    there = await web.post("/desk/find", data={"csrf": secret, "q": code.lower()})
    assert there.headers["location"] == f"/desk/dossiers/{code}"


async def test_the_register_lists_the_period_and_prints(site: RunningSite) -> None:
    web = await log_in(site)
    code = await take_in(web, name="Hoàng Thị Sim")
    page = (await web.get("/desk/register")).text
    assert code in page
    assert "Hoàng Thị Sim" in page
    assert code not in (await web.get("/desk/register", params={"from": "2020-01-01", "to": "2020-01-31"})).text
    pdf = await web.get("/desk/register", params={"pdf": "true"})
    assert pdf.content[:5] == b"%PDF-"
    assert (await web.get("/desk/register", params={"agency": OTHER})).status_code == 404


async def test_the_language_is_remembered(site: RunningSite) -> None:
    web = await log_in(site)
    assert "Work list" in (await web.get("/desk", params={"lang": "en"})).text
    assert '<html lang="en">' in (await web.get("/desk/new")).text
    await web.get("/desk", params={"lang": "vi"})
    assert "Việc cần làm" in (await web.get("/desk")).text


async def test_the_other_language_keeps_what_was_asked_for(site: RunningSite) -> None:
    web = await log_in(site)

    async def other(path: str) -> str:
        found = re.search(r'href="([^"]+)" lang="en"', (await web.get(path)).text)
        assert found is not None, path
        return unescape(found[1])

    for path in (
        "/desk",
        f"/desk/register?agency={HOME}&from=2026-01-01",
        "/desk?show=overdue",
        "/desk/new?q=d%E1%BA%A5u",
    ):
        assert await other(path) == f"{path}{'&' if '?' in path else '?'}lang=en"
    anybody = browser(site)
    page = await anybody.get("/procedures", params={"q": "khai sinh", "level": "commune", "lang": "en"})
    assert 'href="/procedures?q=khai+sinh&amp;level=commune&amp;lang=vi" lang="vi"' in page.text
    # What a form brought forth is offered where it can be asked for.
    code = (await received(client(site, Role.DESK, HOME)))["code"]
    wrong = await do(web, code, "extension", reason="Mưa lũ", due_at="2020-01-01T10:00")
    assert f'href="/desk/dossiers/{code}?lang=en"' in wrong.text


async def printed(web: httpx.AsyncClient, code: str, name: str) -> str:
    """A form's page, which is also there as a PDF."""
    pdf = await web.get(f"/desk/dossiers/{code}/forms/{name}.pdf")
    assert (pdf.status_code, pdf.content[:5]) == (200, b"%PDF-"), name
    page = await web.get(f"/desk/dossiers/{code}/forms/{name}")
    assert page.status_code == 200
    assert "<svg" in page.text  # the QR code
    assert f"/track/{code}" in page.text
    return page.text


async def test_the_forms_of_refusal_apology_and_stop(site: RunningSite) -> None:
    web = await log_in(site)
    refused = (await submitted(client(site, Role.DESK, HOME)))["code"]
    done = await do(web, refused, "refuse", reason="Không thuộc thẩm quyền")
    assert "forms/refusal" in (await web.get(done.headers["location"])).text
    page = await printed(web, refused, "refusal")
    assert "Phiếu từ chối tiếp nhận, giải quyết hồ sơ" in page
    assert "Không thuộc thẩm quyền" in page
    assert (await web.get(f"/desk/dossiers/{refused}/forms/receipt")).status_code == 404

    code = (await received(client(site, Role.DESK, HOME)))["code"]
    answer = await do(web, code, "extension", reason="Mưa lũ kéo dài", due_at="2099-12-31T17:00")
    assert answer.status_code == 303, answer.text
    page = await printed(web, code, "apology")
    assert "Mưa lũ kéo dài" in page
    assert "17:00 31/12/2099" in page
    assert (await do(web, code, "stop", reason="Người nộp đề nghị")).status_code == 303
    assert "Người nộp đề nghị" in await printed(web, code, "stop")
    slip = await printed(web, code, "control")
    assert "Xin lỗi và hẹn lại ngày trả" in slip
    assert "Nguyễn" not in slip  # it stays in the office and names nobody


async def test_a_correction_takes_its_form_back(site: RunningSite) -> None:
    web = await log_in(site)
    code = (await received(client(site, Role.DESK, HOME)))["code"]
    await do(web, code, "supplement-request", reason="nhầm")
    assert (await web.get(f"/desk/dossiers/{code}/forms/supplement")).status_code == 200
    await do(web, code, "correction", reason="nhầm")
    assert (await web.get(f"/desk/dossiers/{code}/forms/supplement")).status_code == 404


# ------------------------------------------------------------------------------------------------ petitions

SAID = "Chờ quá lâu ở bộ phận một cửa"


def petition_form(**more: str) -> dict[str, str]:
    return {"kind": "reflection", "agency": HOME, "text": SAID, "name": "Lý Thị Mận", "phone": "0912 000 111", **more}


async def file_petition(web: httpx.AsyncClient, **more: str) -> str:
    """Takes a petition in by the page's form; its address."""
    page = (await web.get("/desk/petitions/new")).text
    data = petition_form(csrf=hidden(page, "csrf"), key=hidden(page, "key"), **more)
    answer = await web.post("/desk/petitions/new", data=data)
    assert answer.status_code == 303, answer.text
    again = await web.post("/desk/petitions/new", data=data)
    assert again.headers["location"] == answer.headers["location"]  # a second click is the same petition
    changed = await web.post("/desk/petitions/new", data=data | {"text": "Khác"})
    assert changed.status_code == 422
    return str(answer.headers["location"]).partition("?")[0]


async def handle(web: httpx.AsyncClient, address: str, operation: str, **fields: str) -> httpx.Response:
    page = (await web.get(address)).text
    data = {"csrf": hidden(page, "csrf"), "version": hidden(page, "version"), **fields}
    return await web.post(f"{address}/{operation}", data=data)


async def test_a_petition_is_taken_in_passed_on_answered_and_rated_at_the_desk(site: RunningSite) -> None:
    web, land = await log_in(site), await log_in(site, Role.OFFICER, LAND)
    address = await file_petition(web, text=SAID + "\r\nxin xem lại")
    page = (await web.get(address)).text
    for said in (SAID + " xin xem lại", "Lý Thị Mận", "0912000111", "Chờ trả lời", "Hạn trả lời"):
        assert said in page
    assert address in (await web.get("/desk/petitions")).text
    wrong = await handle(web, address, "forward", to=HOME)
    assert wrong.status_code == 422
    assert "đang ở cơ quan đó" in wrong.text
    passed = await handle(web, address, "forward", to=LAND, reason="Việc của ngành đất đai")
    assert passed.headers["location"] == "/desk/petitions?done=forward"
    assert "Đã chuyển đến cơ quan" in (await web.get(passed.headers["location"])).text
    assert (await web.get(address)).status_code == 404  # it is the other agency's now

    page = (await land.get(address)).text
    assert SAID in page
    assert "Việc của ngành đất đai" in page
    empty = await handle(land, address, "answer", text=" ")
    assert empty.status_code == 422
    assert 'id="answer-text-wrong"' in empty.text
    stale = hidden(page, "csrf")
    assert (await handle(land, address, "answer", text="Đã thêm quầy, cảm ơn bà.")).status_code == 303
    late = await land.post(f"{address}/answer", data={"csrf": stale, "version": '"2"', "text": "x"})
    assert late.status_code == 412
    page = (await land.get(f"{address}?done=answer")).text
    assert "Đã thêm quầy, cảm ơn bà." in page
    assert "/rating" not in page  # an officer records no rating
    assert address in (await land.get("/desk/petitions", params={"show": "answered"})).text
    assert address not in (await land.get("/desk/petitions")).text
    desk = await log_in(site, Role.DESK, LAND)
    assert (await handle(desk, address, "rating", level="satisfied")).status_code == 303
    assert "Hài lòng" in (await desk.get("/desk/petitions", params={"show": "answered"})).text


async def test_petitions_show_what_is_overdue_and_what_is_due_today(site: RunningSite) -> None:
    web = await log_in(site, Role.DESK, OTHER)
    first, second, third = [await file_petition(web, agency=OTHER) for _ in range(3)]
    for address, due in (
        (second, "now() - interval '1 hour'"),
        (third, "(now() AT TIME ZONE 'Asia/Ho_Chi_Minh')::date"),
    ):
        ends = due if address == second else f"({due} + time '23:59:59') AT TIME ZONE 'Asia/Ho_Chi_Minh'"
        identity = address.rpartition("/")[2]
        await site.database.execute(f"UPDATE intake.petition SET due_at = {ends} WHERE id = '{identity}'")
    pages = {
        show: (await web.get("/desk/petitions", params={"show": show})).text for show in ("overdue", "today", "open")
    }
    listed = {show: re.findall(r'href="(/desk/petitions/[0-9a-f-]{36})"', page) for show, page in pages.items()}
    assert listed == {"overdue": [second], "today": [third], "open": [second, third, first]}
    assert "Quá hạn" in (await web.get(second)).text
    rest = await web.get("/desk/petitions", params={"due": "1900-01-01T00:00:00Z", "cursor": first.rpartition("/")[2]})
    assert re.findall(r'href="(/desk/petitions/[0-9a-f-]{36})"', rest.text) == [second, third, first]


async def test_what_a_petition_says_is_shown_by_role_and_each_reading_recorded(site: RunningSite) -> None:
    web, leader = await log_in(site), await log_in(site, Role.LEADER, "H55")
    address = await file_petition(web)
    identity = address.rpartition("/")[2]
    await web.get(address)
    page = (await leader.get(address)).text
    assert SAID not in page
    assert "Lý Thị Mận" not in page
    assert (await leader.get("/desk/petitions/new")).status_code == 403
    assert (await (await log_in(site, Role.DESK, OTHER)).get(address)).status_code == 404
    assert (await web.get("/desk/petitions/nonsense")).status_code == 404
    auditor = await log_in(site, Role.AUDITOR, None)
    forbidden = await auditor.post(f"{address}/answer", data={"csrf": await csrf(auditor), "text": "x"})
    assert forbidden.status_code == 403
    reads = await site.fetch("SELECT role FROM intake.access_record WHERE code = $1", identity)
    assert [row["role"] for row in reads] == ["desk"]
    wrong = await web.post("/desk/petitions/new", data=petition_form(csrf=await csrf(web), phone="12", text=""))
    assert wrong.status_code == 422
    assert 'id="phone-wrong"' in wrong.text
    assert 'id="text-wrong"' in wrong.text
