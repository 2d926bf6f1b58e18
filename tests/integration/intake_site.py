"""Intake alone, and the desks, officers and portals that talk to it, for the tests of its HTTP side."""

import itertools
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest

from shared.security.tokens import Role
from tests.harness import Backing, RunningSite, real_services, running_site

HOME, OTHER, LAND = "H55.242", "H55.201", "H55.24"
SAME_DAY = "1.001193"  # birth: no route, free
THREE_DAYS = "1.004873"  # certificate of marital status: 3 working days, 15,000 đồng, no route
PAUSING = "2.000720"  # household business: payment pauses, no route
ROUTED = "1.004222"  # residence: decided by the police
TWO_STEPS = "2.002621"  # birth, residence, insurance: police, then H55.17
NOT_ONLINE = "2.000884"
CONFIDENTIAL = "2.001263"

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
async def site(backing: Backing) -> AsyncIterator[RunningSite]:
    """Intake alone, for all tests of a module; due dates are not looked at."""
    async with running_site(backing, *real_services("intake"), tick_seconds=3600) as running:
        yield running


def person(**more: Any) -> dict[str, Any]:
    return {"kind": "citizen", "name": f"Nguyễn Văn {next(_numbers)}", **more}


def dossier(**more: Any) -> dict[str, Any]:
    """A body of POST /v1/dossiers."""
    return {
        "procedure": THREE_DAYS,
        "receiving_agency": HOME,
        "channel": "counter",
        "applicant": person(),
        "return_by": "counter",
        **more,
    }


def client(
    site: RunningSite, role: Role, agency: str | None = None, *, name: str = "", subtree: bool = False
) -> httpx.AsyncClient:
    """A client with a token of its own subject."""
    token = site.services["intake"].tokens.issue(role, agency=agency, subtree=subtree, name=name)
    found = site.client("intake", None)
    found.headers["Authorization"] = f"Bearer {token}"
    return found


def text(instant: datetime) -> str:
    return instant.isoformat()


def ago(**how_long: float) -> str:
    return text(datetime.now(UTC) - timedelta(**how_long))


def ahead(**how_long: float) -> str:
    return text(datetime.now(UTC) + timedelta(**how_long))


def instant(value: str | None) -> datetime:
    assert value is not None
    found = datetime.fromisoformat(value)
    assert found.utcoffset() is not None
    return found


async def received(who: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    answer = await who.post("/v1/dossiers", json=dossier(**more))
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def submitted(who: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    answer = await who.post("/v1/submissions", json=dossier(**{"channel": "online", **more}))
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def act(who: httpx.AsyncClient, code: str, operation: str, **body: Any) -> httpx.Response:
    return await who.post(f"/v1/dossiers/{code}/{operation}", json=body)


async def done(who: httpx.AsyncClient, code: str, operation: str, **body: Any) -> dict[str, Any]:
    answer = await act(who, code, operation, **body)
    assert answer.status_code == 200, (operation, answer.text)
    found: dict[str, Any] = answer.json()
    return found


def refused(answer: httpx.Response, status: int, code: str, pointer: str | None = None) -> dict[str, Any]:
    """The problem document of an answer, checked for its form (RFC 9457) and for what it says."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert (found["status"], found["code"]) == (status, code), found
    assert found["title"]
    if pointer is not None:
        assert pointer in [error["pointer"] for error in found["errors"]], found
        assert all(error["detail"] for error in found["errors"])
    return found


async def history(who: httpx.AsyncClient, code: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        answer = await who.get(f"/v1/dossiers/{code}/history", params={} if cursor is None else {"cursor": cursor})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return items


def numbers(codes: list[str]) -> dict[str, list[int]]:
    """The numbers issued, by agency and day."""
    found: dict[str, list[int]] = {}
    for code in codes:
        name, _, number = code.rpartition("-")
        found.setdefault(name, []).append(int(number))
    return {name: sorted(each) for name, each in found.items()}


def ndjson(lines: Iterable[Any]) -> bytes:
    return b"".join(line if isinstance(line, bytes) else orjson.dumps(line) + b"\n" for line in lines)


async def imported(who: httpx.AsyncClient, lines: Iterable[Any] | bytes, **params: Any) -> list[dict[str, Any]]:
    """The answer lines of an import."""
    body = lines if isinstance(lines, bytes) else ndjson(lines)
    answer = await who.post(
        "/v1/imports",
        params={"source": "test", **params},
        content=body,
        headers={"content-type": "application/x-ndjson"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return [orjson.loads(line) for line in answer.content.splitlines()]
