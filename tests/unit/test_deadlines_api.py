"""`POST /v1/deadlines` without a database: the answer, its explanation, and what is refused where."""

import itertools
from collections.abc import AsyncIterator
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from deploy.demo.sample import SAMPLE
from services.intake.deadlines import deadline_routes
from shared.directory.directory import Directory
from shared.directory.merge import merge
from shared.directory.reading import load_bundle
from shared.security.tokens import Principal, Role, TokenRefused
from shared.web.app import include, make_app
from shared.web.gate import Gate


def verify(token: str) -> Principal:
    """A gate's keeper that takes the name of a role for its token."""
    try:
        return Principal(token, Role(token), None, False)
    except ValueError:
        raise TokenRefused("no role") from None


@pytest.fixture(scope="module")
def app() -> ASGIApp:
    directory = Directory(merge(None, load_bundle(SAMPLE))[0])
    service: Any = SimpleNamespace(directory=SimpleNamespace(current=directory))
    application = make_app("clock", "for a test")
    include(application, deadline_routes(service))
    return Gate(application, verify=verify)


@pytest.fixture
async def http(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://intake", headers={"Authorization": "Bearer auditor"}
    ) as client:
        yield client


def question(**more: Any) -> dict[str, Any]:
    return {
        "agency": "H55.242",
        "limit": {"value": 3, "unit": "working_days"},
        "received_at": "2026-10-08T09:30:00+07:00",  # a Thursday
        **more,
    }


async def test_the_due_date_and_every_interval_on_the_way_to_it(http: httpx.AsyncClient) -> None:
    answer = (await http.post("/v1/deadlines", json=question())).json()
    assert answer["due_at"] == "2026-10-13T17:00:00+07:00"
    told = [(item["rule"], item["counted"], item["amount"]) for item in answer["explain"]]
    assert told == [
        ("receipt-day", False, 0),
        ("working-day", True, 1),
        ("weekend", False, 0),
        ("working-day", True, 2),
    ]
    assert answer["explain"][0]["from"] == "2026-10-08T09:30:00+07:00"
    assert answer["explain"][-1]["to"] == answer["due_at"]
    assert all(one["to"] == next_one["from"] for one, next_one in itertools.pairwise(answer["explain"]))
    assert answer["sentences"][-1] == "Hẹn trả kết quả: 17:00 ngày 13/10/2026."
    assert "provisional_year" not in answer


async def test_a_year_whose_swapped_days_are_not_known_says_so_in_explain(http: httpx.AsyncClient) -> None:
    answer = (await http.post("/v1/deadlines", json=question(received_at="2031-03-03T08:00:00+07:00"))).json()
    assert answer["provisional_year"] == answer["explain"][-1]["provisional_year"] == 2031
    assert "2031" in answer["sentences"][-1]


async def test_pauses_move_the_due_date(http: httpx.AsyncClient) -> None:
    paused = question(pauses=[{"from": "2026-10-09T10:00:00+07:00", "to": "2026-10-14T10:00:00+07:00"}])
    answer = (await http.post("/v1/deadlines", json=paused)).json()
    assert answer["due_at"] == "2026-10-16T17:00:00+07:00"
    assert "pause" in [item["rule"] for item in answer["explain"]]


async def test_both_forms_of_an_agency_and_a_version_given(http: httpx.AsyncClient) -> None:
    plain = (await http.post("/v1/deadlines", json=question(agency="H55"))).json()
    old = await http.post("/v1/deadlines", json=question(agency="000.00.00.H55"))
    assert old.json() == plain
    same = question(agency="H55", calendar_version=plain["calendar"]["version"])
    assert (await http.post("/v1/deadlines", json=same)).json() == plain


@pytest.mark.parametrize(
    ("change", "status", "pointer"),
    [
        ({"agency": "H99.1"}, 404, None),
        ({"calendar_version": 99}, 404, None),
        ({"agency": "nobody"}, 404, "/agency"),
        ({"received_at": "2026-10-08T09:30:00"}, 422, "/received_at"),
        ({"received_at": "9999-12-31T23:00:00Z"}, 422, "/received_at"),
        ({"received_at": "9999-12-30T10:00:00+07:00"}, 422, "/received_at"),
        ({"received_at": "0001-01-01T00:00:00+07:00"}, 422, "/received_at"),
        ({"limit": {"value": 10**30, "unit": "hours"}}, 422, "/limit"),
        ({"limit": {"value": 1.5, "unit": "days"}}, 422, "/limit"),
        ({"limit": {"value": -1, "unit": "days"}}, 422, "/limit/value"),
        ({"limit": {"value": True, "unit": "days"}}, 422, "/limit/value"),
        ({"limit": {"value": 1, "unit": "years"}}, 422, "/limit/unit"),
        ({"calendar_version": True}, 422, "/calendar_version"),
        ({"pauses": [{"from": "2026-10-07T09:00:00Z", "to": "2026-10-09T09:00:00Z"}]}, 422, "/pauses/0/from"),
        ({"pauses": [{"from": "2026-10-09T09:00:00Z", "to": "2026-10-09T09:00:00Z"}]}, 422, "/pauses/0/to"),
        (
            {
                "pauses": [
                    {"from": "2026-10-09T09:00:00Z", "to": "2026-10-12T09:00:00Z"},
                    {"from": "2026-10-12T08:00:00Z", "to": "2026-10-13T09:00:00Z"},
                ]
            },
            422,
            "/pauses/1/from",
        ),
        ({"pauses": [{"from": "2026-10-09T09:00:00Z"}]}, 422, "/pauses/0/to"),
        ({"surprise": 1}, 422, "/surprise"),
    ],
)
async def test_what_cannot_be_counted_says_where(
    http: httpx.AsyncClient, change: dict[str, Any], status: int, pointer: str | None
) -> None:
    answer = await http.post("/v1/deadlines", json=question(**change))
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    if pointer is not None:
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


async def test_a_pause_may_begin_when_another_ends(http: httpx.AsyncClient) -> None:
    pauses = [
        {"from": "2026-10-09T09:00:00Z", "to": "2026-10-12T09:00:00Z"},
        {"from": "2026-10-12T09:00:00Z", "to": "2026-10-13T09:00:00Z"},
    ]
    assert (await http.post("/v1/deadlines", json=question(pauses=pauses))).status_code == 200


@pytest.mark.parametrize("received_at", ["0001-01-01T07:00:00+07:00", "1900-05-05T05:05:05Z", "9999-01-01T00:00:00Z"])
async def test_it_takes_any_date_and_answers_rfc_3339(http: httpx.AsyncClient, received_at: str) -> None:
    """Before 1911 the local offset had seconds, which RFC 3339 has no form for."""
    answer = (await http.post("/v1/deadlines", json=question(received_at=received_at))).json()
    instants = [answer["due_at"], *(item[end] for item in answer["explain"] for end in ("from", "to"))]
    assert all(instant.endswith("+07:00") and datetime.fromisoformat(instant) for instant in instants)


async def test_any_role_may_ask_and_nobody_without_a_token(http: httpx.AsyncClient) -> None:
    for role in Role:
        answer = await http.post("/v1/deadlines", json=question(), headers={"Authorization": f"Bearer {role}"})
        assert answer.status_code == 200, role
    assert (await http.post("/v1/deadlines", json=question(), headers={"Authorization": ""})).status_code == 401
