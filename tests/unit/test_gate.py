"""What every request passes: the token first, then size and kind; and the manners of every answer that refuses."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import httpx
import orjson
import pytest
from fastapi import FastAPI, Query, Request
from pydantic import Field
from starlette.responses import Response
from starlette.types import ASGIApp, Message

from shared.contracts.codes import AgencyCode, Instant, Name, Phone
from shared.security.keys import load_keys
from shared.security.tokens import Role, Tokens
from shared.web.app import Asking, Body, allow, include, known_agency, make_app, router
from shared.web.gate import MAX_BODY, Gate, guarded
from shared.web.problem import PROBLEM_TYPE


class Paper(Body):
    path: Name
    pages: Annotated[int, Field(ge=1)]


class Thing(Body):
    name: Name
    agency: AgencyCode | None = None
    phone: Phone | None = None
    at: Instant | None = None
    papers: tuple[Paper, ...] = ()
    odd: Annotated[int, Field(alias="a/b~c")] = 0


def application() -> FastAPI:
    app = make_app("Test", "Test")
    routes = router()

    @routes.post("/v1/things", status_code=201)
    async def create(who: Asking, thing: Thing) -> dict[str, Any]:
        allow(who, Role.DESK)
        return {"name": thing.name, "agency": thing.agency, "phone": thing.phone}

    @routes.get("/v1/things/{key}")
    async def get(who: Asking, key: str, at: Instant | None = None, limit: int = Query(10, ge=1)) -> dict[str, Any]:
        return {"key": key, "limit": limit, "agency": known_agency("000.00.15.H55")}

    @routes.post("/v1/raw")
    async def raw(request: Request, who: Asking) -> dict[str, Any]:
        return {"bytes": len(await request.body())}

    @routes.get("/open/{name}")
    async def open_to_all(request: Request, name: str) -> dict[str, Any]:
        principal = request.state.principal
        return {"who": None if principal is None else principal.subject}

    @routes.get("/open/{name}/mine")
    async def mine(who: Asking, name: str) -> dict[str, Any]:
        return {"who": who.subject}

    @routes.get("/v1/breaks")
    async def breaks(who: Asking) -> Response:
        raise ZeroDivisionError("a secret 0912345678")

    @routes.get("/metrics")
    async def metrics(request: Request) -> dict[str, Any]:
        return {"token": request.headers.get("authorization")}

    include(app, routes)
    return app


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    return Tokens(load_keys(tmp_path_factory.mktemp("keys")), "H55")


@pytest.fixture(scope="module")
def gate(tokens: Tokens) -> ASGIApp:
    return Gate(
        application(),
        verify=tokens.verify,
        open_paths=(r"/open/.*",),
        large={"/v1/raw": 2 * MAX_BODY},
        plain={"/v1/raw": ("text/plain",)},
    )


@pytest.fixture
async def nobody(gate: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(gate, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture
async def desk(gate: ASGIApp, tokens: Tokens) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {tokens.issue(Role.DESK, agency='H55.242')}"}
    transport = httpx.ASGITransport(gate, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
        yield client


def problem(answer: httpx.Response, status: int, code: str) -> Any:
    """The problem document, with what every problem has."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].partition(";")[0] == PROBLEM_TYPE
    document = answer.json()
    assert (document["status"], document["code"]) == (status, code)
    assert document["title"]
    return document


def pointers(answer: httpx.Response) -> list[str]:
    return [error["pointer"] for error in problem(answer, 422, "invalid")["errors"]]


# -- the token comes first


@pytest.mark.parametrize(
    ("method", "path", "headers", "content"),
    [
        ("GET", "/v1/things/a", {}, b""),
        ("GET", "/nothing", {}, b""),
        ("DELETE", "/v1/things/a", {}, b""),
        ("GET", "/v1/things/a?unknown=1", {}, b""),
        ("POST", "/v1/things", {"Content-Type": "text/xml"}, b"<a/>"),
        ("POST", "/v1/things", {"Content-Type": "application/json"}, b"{" * (MAX_BODY + 1)),
        ("POST", "/v1/things", {"Content-Type": "application/json"}, b"nonsense"),
    ],
    ids=["read", "404", "405", "422", "415", "413", "400"],
)
@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", "Bearer nonsense", "Basic dTpw", "Bearer \xff"])
async def test_promise_10_without_a_good_token_it_is_401_before_anything_else(
    nobody: httpx.AsyncClient, method: str, path: str, headers: dict[str, str], content: bytes, authorization: str
) -> None:
    headers = {**headers, "Authorization": authorization} if authorization else headers
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    answer = await nobody.request(method, path, headers=encoded, content=content)
    problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_an_expired_token_is_401(nobody: httpx.AsyncClient, tokens: Tokens) -> None:
    late = tokens.issue(Role.ADMIN, hours=-1)
    problem(await nobody.get("/nothing", headers={"Authorization": f"Bearer {late}"}), 401, "unauthorized")


async def test_open_paths_need_no_token_and_take_no_bad_one(nobody: httpx.AsyncClient, tokens: Tokens) -> None:
    assert (await nobody.get("/open/x")).json() == {"who": None}
    good = {"Authorization": f"bearer {tokens.issue(Role.ADMIN, name='me')}"}
    assert (await nobody.get("/open/x", headers=good)).json() == {"who": "me"}
    problem(await nobody.get("/open/x", headers={"Authorization": "Bearer x"}), 401, "unauthorized")
    problem(await nobody.get("/open/x/mine"), 401, "unauthorized")
    problem(await nobody.get("/openly"), 401, "unauthorized")
    assert (await nobody.get("/openapi.json")).status_code == 200


async def test_the_token_of_the_metrics_is_not_the_gates_business(nobody: httpx.AsyncClient) -> None:
    answer = await nobody.get("/metrics", headers={"Authorization": "Bearer scraper"})
    assert answer.json() == {"token": "Bearer scraper"}


async def test_promise_10_a_role_that_may_not_is_403(nobody: httpx.AsyncClient, tokens: Tokens) -> None:
    for role, status in ((Role.AUDITOR, 403), (Role.OPERATOR, 403), (Role.ADMIN, 201)):
        headers = {"Authorization": f"Bearer {tokens.issue(role)}"}
        answer = await nobody.post("/v1/things", headers=headers, json={"name": "a"})
        assert answer.status_code == status
        if status == 403:
            problem(answer, 403, "forbidden")


# -- paths, methods, parameters


async def test_unknown_paths_and_methods(desk: httpx.AsyncClient) -> None:
    problem(await desk.get("/nothing"), 404, "not-found")
    refused = await desk.delete("/v1/things/a")
    problem(refused, 405, "method-not-allowed")
    assert refused.headers["allow"] == "GET"


async def test_unknown_query_parameters_are_named(desk: httpx.AsyncClient) -> None:
    document = problem(await desk.get("/v1/things/a?limit=1&weather=1&sky=2"), 422, "unknown-parameter")
    assert [error["pointer"] for error in document["errors"]] == ["/sky", "/weather"]
    assert "limit" in document["detail"]


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=", "limit=1e3", f"limit={'9' * 5000}"])
async def test_query_parameters_of_a_wrong_kind(desk: httpx.AsyncClient, query: str) -> None:
    assert pointers(await desk.get(f"/v1/things/a?{query}")) == ["/limit"]


@pytest.mark.parametrize(
    "at", ["2026-10-10", "2026-10-10T08:00:00", "yesterday", "2026-02-30T08:00:00Z", "2026-10-10T08:00:00%2B25:00", "0"]
)
async def test_instants_need_an_offset(desk: httpx.AsyncClient, at: str) -> None:
    assert pointers(await desk.get(f"/v1/things/a?at={at}")) == ["/at"]


async def test_zero_bytes_never_reach_a_database(desk: httpx.AsyncClient) -> None:
    assert pointers(await desk.get("/v1/things/a?at=%00")) == ["/at"]
    problem(await desk.get("/v1/things/a%00b"), 404, "not-found")
    assert pointers(await desk.post("/v1/things", json={"name": "a\0b"})) == ["/name"]


# -- bodies


@pytest.mark.parametrize(
    "content",
    [
        b"nonsense",
        b"{",
        b'{"name": "a",}',
        b"{'name': 'a'}",
        b'{"name": NaN}',
        b'{"name": Infinity}',
        b'{"name": "\xff"}',
        b'\xef\xbb\xbf{"name": "a"}',
        '{"name": "a"}'.encode("utf-16"),
        b'{"name": "\\ud800"}',
        b'{"name": "a"} {"name": "b"}',
        b'{"name": "a\nb"}',
        b"[" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    ],
    ids=lambda content: repr(content[:18]),
)
async def test_what_is_no_json_is_400(desk: httpx.AsyncClient, content: bytes) -> None:
    answer = await desk.post("/v1/things", content=content, headers={"Content-Type": "application/json"})
    problem(answer, 400, "bad-json")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b'"text"', b"1", b"true", b"[" * 500 + b"]" * 500, b'{"name":{"name":{}}}']
)
async def test_a_body_of_a_wrong_shape_is_422(desk: httpx.AsyncClient, content: bytes) -> None:
    answer = await desk.post("/v1/things", content=content, headers={"Content-Type": "application/json"})
    problem(answer, 422, "invalid")


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({}, ["/name"]),
        ({"name": "a", "weather": 1}, ["/weather"]),
        ({"name": " "}, ["/name"]),
        ({"name": "a" * 201}, ["/name"]),
        ({"name": "tab\there"}, ["/name"]),
        ({"name": 1}, ["/name"]),
        ({"name": None}, ["/name"]),
        ({"name": "a", "agency": "H55.x"}, ["/agency"]),
        ({"name": "a", "phone": "0123"}, ["/phone"]),
        ({"name": "a", "at": "2026-10-10T08:00:00"}, ["/at"]),
        ({"name": "a", "at": 1760000000}, ["/at"]),
        (
            {"name": "a", "papers": [{"path": "p", "pages": 1}, {"pages": 0, "x": 1}]},
            ["/papers/1/path", "/papers/1/pages", "/papers/1/x"],
        ),
        ({"name": "a", "papers": {"0": {}}}, ["/papers"]),
        ({"name": "a", "a/b~c": "x"}, ["/a~1b~0c"]),
    ],
    ids=lambda value: orjson.dumps(value).decode()[:60],
)  # fmt: skip
async def test_each_fault_has_its_pointer(desk: httpx.AsyncClient, body: Any, wrong: Sequence[str]) -> None:
    answer = await desk.post("/v1/things", json=body)
    assert pointers(answer) == wrong
    assert all(error["detail"] for error in answer.json()["errors"])


async def test_a_good_body_is_normalised(desk: httpx.AsyncClient) -> None:
    body = {"name": "  Hoa ", "agency": "000.00.15.H55", "phone": "0912 345 678"}
    answer = await desk.post("/v1/things", json=body, headers={"Content-Type": "application/json; charset=utf-8"})
    assert (answer.status_code, answer.json()) == (201, {"name": "Hoa", "agency": "H55.15", "phone": "+84912345678"})


async def test_the_last_of_duplicate_keys_counts(desk: httpx.AsyncClient) -> None:
    answer = await desk.post(
        "/v1/things", content=b'{"name":"a","name":"b"}', headers={"Content-Type": "application/json"}
    )
    assert answer.json()["name"] == "b"


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/xml", "multipart/form-data", "application/x-www-form-urlencoded", "json", ""]
)
async def test_other_kinds_of_bodies_are_415(desk: httpx.AsyncClient, kind: str) -> None:
    problem(await desk.post("/v1/things", content=b'{"name":"a"}', headers={"Content-Type": kind}), 415, "media-type")


async def test_a_path_may_take_other_kinds_and_more(desk: httpx.AsyncClient) -> None:
    plain = {"Content-Type": "text/plain"}
    answer = await desk.post("/v1/raw", content=b"x" * (MAX_BODY + 1), headers=plain)
    assert answer.json() == {"bytes": MAX_BODY + 1}
    problem(await desk.post("/v1/raw", content=b"{}", headers={"Content-Type": "application/json"}), 415, "media-type")
    problem(await desk.post("/v1/raw", content=b"x" * (2 * MAX_BODY + 1), headers=plain), 413, "too-large")


async def streamed(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_too_large_bodies_are_413_declared_or_streamed(desk: httpx.AsyncClient) -> None:
    json = {"Content-Type": "application/json"}
    exact = b'{"name":"a"' + b" " * (MAX_BODY - 12) + b"}"
    assert len(exact) == MAX_BODY
    assert (await desk.post("/v1/things", content=exact, headers=json)).status_code == 201
    problem(await desk.post("/v1/things", content=exact + b" ", headers=json), 413, "too-large")
    answer = await desk.post("/v1/things", content=streamed(exact[:500_000], exact[500_000:]), headers=json)
    assert answer.status_code == 201
    problem(await desk.post("/v1/things", content=streamed(exact, b" "), headers=json), 413, "too-large")


async def test_a_body_is_read_no_further_than_its_limit(gate: ASGIApp, tokens: Tokens) -> None:
    """A sender without an end is not listened to."""
    received, answers = 0, []

    async def receive() -> Message:
        nonlocal received
        received += 1
        return {"type": "http.request", "body": b"x" * 100_000, "more_body": True}

    async def send(message: Message) -> None:
        answers.append(message)

    token = tokens.issue(Role.DESK, agency="H55.242").encode()
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/v1/things",
        "raw_path": b"/v1/things", "query_string": b"", "scheme": "http", "root_path": "", "client": ("test", 1),
        "server": ("test", 80), "state": {},
        "headers": [(b"authorization", b"Bearer " + token), (b"content-type", b"application/json")],
    }  # fmt: skip
    await gate(scope, receive, send)
    assert answers[0]["status"] == 413
    assert received <= 12


async def test_what_breaks_is_500_without_a_word_of_it(desk: httpx.AsyncClient) -> None:
    document = problem(await desk.get("/v1/breaks"), 500, "internal")
    assert "secret" not in document["detail"]
    assert "0912345678" not in str(document)


# -- what a browser is to obey


def test_every_answer_says_how_it_may_be_used_and_a_page_says_more() -> None:
    plain = dict(guarded([(b"content-type", b"application/json")]))
    assert plain[b"x-content-type-options"] == b"nosniff"
    assert plain[b"referrer-policy"] == b"no-referrer"
    assert b"content-security-policy" not in plain
    page = dict(guarded([(b"content-type", b"text/html; charset=utf-8")]))
    assert b"frame-ancestors 'none'" in page[b"content-security-policy"]
    assert b"script-src 'self';" in page[b"content-security-policy"]


def test_what_a_route_says_itself_stands() -> None:
    own = (b"Content-Security-Policy", b"default-src 'none'")
    assert guarded([(b"content-type", b"text/html"), own]).count(own) == 1
    assert [n for n, _ in guarded([(b"content-type", b"text/html"), own])].count(b"content-security-policy") == 0
