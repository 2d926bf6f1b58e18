"""`/openapi.json` and `/docs`: what the contract says of every operation, and nothing from elsewhere."""

import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.site import create
from shared.security.tokens import Role
from shared.service import SERVICES, Service
from shared.web.openapi import METHODS

OPEN = re.compile(
    r"/(healthz|readyz|metrics|asyncapi\.json)|/v1/(procedures|agencies)(/\{code\})?|/track/\{code\}"
    r"|/v1/receipts/\{provider\}|/v1/postal-events/\{carrier\}|/"
)


@cache
def service(name: str) -> Service:
    return create(name, {"site": "H55", "keys_dir": Path(tempfile.mkdtemp(prefix="lienthong-keys-"))})


def operations(name: str) -> list[tuple[str, str, dict[str, Any]]]:
    paths = service(name).app.openapi()["paths"]
    return [(path, method, item[method]) for path, item in paths.items() for method in METHODS if method in item]


@pytest.mark.parametrize("name", SERVICES)
def test_every_operation_says_who_may_and_how_it_fails(name: str) -> None:
    for path, method, operation in operations(name):
        is_open = OPEN.fullmatch(path) is not None
        assert operation["security"] == ([] if is_open else [{"bearer": []}]), path
        wanted = {"401", "422"} | (set() if is_open else {"403", "404"})
        if method == "post":
            wanted |= {"400", "413", "415"}
        assert wanted <= set(operation["responses"]), (path, method)
        for status, response in operation["responses"].items():
            if status >= "400" and path not in ("/healthz", "/readyz"):
                assert "application/problem+json" in response["content"], (path, method, status)


@pytest.mark.parametrize("name", SERVICES)
def test_writes_take_an_idempotency_key_and_if_match_where_something_exists(name: str) -> None:
    asking = {"/v1/deadlines", "/v1/dossiers/search", "/v1/preview", "/v1/index766"}
    for path, method, operation in operations(name):
        headers = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "header"}
        if method == "get" or path in asking:
            assert "Idempotency-Key" not in headers, path
        elif path.startswith("/v1/dossiers/"):
            assert {"Idempotency-Key", "If-Match"} <= headers
            assert {"409", "412"} <= set(operation["responses"])


@pytest.mark.parametrize("name", SERVICES)
def test_fastapis_own_error_schema_is_nowhere(name: str) -> None:
    document = service(name).app.openapi()
    assert "HTTPValidationError" not in str(document)
    assert "x-reads" not in str(document)
    assert "Problem" in document["components"]["schemas"]


@pytest.mark.parametrize("name", SERVICES)
async def test_docs_load_everything_from_the_same_service_without_a_token(name: str) -> None:
    transport = httpx.ASGITransport(service(name).asgi)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{name}") as http:
        page = await http.get("/docs")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "connect-src 'self'" in page.headers["content-security-policy"]
        loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(loaded) == 6
        for address in loaded:
            assert "//" not in address
            answer = await http.get(f"/{address}")
            assert answer.status_code == 200, address
            assert answer.content
        script = (await http.get("/docs/start.js")).text
        assert 'url: "openapi.json"' in script
        assert (await http.get("/docs/other.js")).status_code == 404
        assert (await http.get("/asyncapi.json")).json()["asyncapi"] == "3.0.0"


async def test_a_wrong_method_is_told_all_that_the_path_takes() -> None:
    intake = service("intake")
    token = {"authorization": f"Bearer {intake.tokens.issue(Role.ADMIN)}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(intake.asgi), base_url="http://intake") as http:
        for path, allowed in (
            ("/v1/petitions", "GET, POST"),
            ("/v1/dossiers", "GET, POST"),
            ("/track/H55-260101-0001", "GET, POST"),
            ("/v1/deadlines", "POST"),
            ("/v1/dossiers/search", "POST"),
            ("/schemas/public/dossier.received.v1.json", "GET"),
            ("/docs", "GET"),
        ):
            answer = await http.delete(path, headers=token)
            assert (answer.status_code, answer.headers["allow"], answer.json()["code"]) == (
                405,
                allowed,
                "method-not-allowed",
            )
