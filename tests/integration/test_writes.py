"""Writes over HTTP: stored before they are answered, once under an Idempotency-Key."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest

from shared.security.tokens import Role
from shared.settings import Settings
from shared.store.log import Log
from tests.harness import Backing, RunningSite, running_site, toy_services
from tests.toy.app import owner

KEY = {"Idempotency-Key": "4711"}


@pytest.fixture
async def alone(backing: Backing) -> AsyncIterator[RunningSite]:
    async with running_site(backing, *toy_services(consumers=())) as site:
        yield site


@pytest.fixture
def desk(alone: RunningSite) -> httpx.AsyncClient:
    return alone.client("intake", Role.DESK, "H55.242")


async def things(site: RunningSite) -> dict[str, int]:
    return {row["key"]: row["sequence"] for row in await site.fetch("SELECT key, sequence FROM intake.thing")}


async def test_promise_1_what_is_answered_is_stored(alone: RunningSite, desk: httpx.AsyncClient) -> None:
    assert (await desk.post("/v1/things", json={"key": "a", "count": 3})).status_code == 201
    assert await things(alone) == {"a": 3}
    service = alone.services["intake"]
    async with service.pool.acquire() as connection:
        assert await connection.fetchval("SHOW synchronous_commit") == "on"


async def test_promise_1_what_is_not_stored_is_not_answered(
    alone: RunningSite, desk: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cut(self: Log, connection: Any, envelopes: Any) -> None:
        raise asyncpg.ConnectionDoesNotExistError("cut")

    monkeypatch.setattr(Log, "append", cut)
    answer = await desk.post("/v1/things", json={"key": "a"}, headers=KEY)
    assert (answer.status_code, answer.json()["code"]) == (503, "not-now")
    assert await things(alone) == {}
    monkeypatch.undo()
    again = await desk.post("/v1/things", json={"key": "a"}, headers=KEY)
    assert again.status_code == 201
    assert "idempotent-replayed" not in again.headers


async def test_the_same_key_is_answered_with_the_stored_answer(alone: RunningSite, desk: httpx.AsyncClient) -> None:
    body = {"key": "a", "count": 2, "papers": [{"path": "p", "pages": 1}]}
    first = await desk.post("/v1/things", json=body, headers=KEY)
    other_order = b'{ "papers":[{"pages":1.0,"path":"p"}],"count":2,  "key":"a"}'
    second = await desk.post("/v1/things", content=other_order, headers={**KEY, "Content-Type": "application/json"})
    assert (first.status_code, "idempotent-replayed" in first.headers) == (201, False)
    assert second.headers["idempotent-replayed"] == "true"
    assert (second.status_code, second.content) == (first.status_code, first.content)
    for header in ("location", "etag", "content-type"):
        assert second.headers[header] == first.headers[header]
    assert await things(alone) == {"a": 2}
    assert (await desk.post("/v1/things", json=body)).json()["sequence"] == 4  # without a key it is another act


async def test_the_same_key_with_another_value_is_refused(alone: RunningSite, desk: httpx.AsyncClient) -> None:
    await desk.post("/v1/things", json={"key": "a"}, headers=KEY)
    answer = await desk.post("/v1/things", json={"key": "b"}, headers=KEY)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency-key-reused")
    assert await things(alone) == {"a": 1}


async def test_a_key_belongs_to_the_subject_and_the_path(alone: RunningSite, desk: httpx.AsyncClient) -> None:
    other = alone.client("intake", Role.DESK, "H55.17")
    for client in (desk, other):
        answer = await client.post("/v1/things", json={"key": "a"}, headers=KEY)
        assert (answer.status_code, "idempotent-replayed" in answer.headers) == (201, False)
    assert await things(alone) == {"a": 2}


async def test_a_refusal_by_the_state_is_kept_and_stores_nothing_else(
    alone: RunningSite, desk: httpx.AsyncClient
) -> None:
    body = {"key": "a", "conflict": True}
    first = await desk.post("/v1/things", json=body, headers=KEY)
    second = await desk.post("/v1/things", json=body, headers=KEY)
    assert (first.status_code, first.json()["code"], first.json()["state"]) == (409, "move-not-allowed", 1)
    assert (second.status_code, second.content) == (409, first.content)
    assert second.headers["content-type"] == "application/problem+json"
    assert second.headers["idempotent-replayed"] == "true"
    assert await things(alone) == {}


async def test_a_wrong_request_may_be_corrected_under_its_key(alone: RunningSite, desk: httpx.AsyncClient) -> None:
    wrong = await desk.post("/v1/things", json={"key": "a", "count": 0}, headers=KEY)
    assert wrong.status_code == 422
    assert (await desk.post("/v1/things", json={"key": "a", "count": 1}, headers=KEY)).status_code == 201
    assert await things(alone) == {"a": 1}


@pytest.mark.parametrize("key", ["", "a" * 201, "tab\there", "é"])
async def test_a_key_is_printable_and_short(desk: httpx.AsyncClient, key: str) -> None:
    headers = [(b"Idempotency-Key", key.encode())]
    answer = await desk.post("/v1/things", json={"key": "a"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency-key-invalid")


async def test_the_first_request_still_runs(
    alone: RunningSite, desk: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same process the second is told to come again; in another process it waits and gets the first's answer."""
    reached, go_on = asyncio.Event(), asyncio.Event()
    append = Log.append

    async def slow(self: Log, connection: Any, envelopes: Any) -> None:
        reached.set()
        await go_on.wait()
        await append(self, connection, envelopes)

    monkeypatch.setattr(Log, "append", slow)
    body = {"key": "a"}
    first = asyncio.create_task(desk.post("/v1/things", json=body, headers=KEY))
    await reached.wait()
    second = await desk.post("/v1/things", json=body, headers=KEY)
    assert (second.status_code, second.json()["code"]) == (409, "idempotency-key-running")
    elsewhere = owner(Settings(**alone.settings()))
    await elsewhere.start()
    try:
        transport = httpx.ASGITransport(elsewhere.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://other", headers=desk.headers) as other:
            third = asyncio.create_task(other.post("/v1/things", json=body, headers=KEY))
            await alone.until(lambda: somebody_waits(alone))
            go_on.set()
            answers = await asyncio.gather(first, third)
    finally:
        await elsewhere.stop()
    assert [(a.status_code, a.headers.get("idempotent-replayed")) for a in answers] == [(201, None), (201, "true")]
    assert answers[0].content == answers[1].content
    assert await things(alone) == {"a": 1}


async def somebody_waits(site: RunningSite) -> bool:
    return bool(await site.fetch("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))


async def test_many_requests_with_one_key_are_one_act(alone: RunningSite, desk: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(desk.post("/v1/things", json={"key": "a"}, headers=KEY) for _ in range(20)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert sum(answer.status_code == 201 and "idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert await things(alone) == {"a": 1}


async def test_over_the_wire_a_body_without_an_end_is_413(desk: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b" " * 10_000

    answer = await desk.post("/v1/things", content=endless(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "too-large")
    declared = await desk.post("/v1/things", content=b" " * 2_000_000, headers={"Content-Type": "application/json"})
    assert declared.status_code == 413
    assert (await desk.post("/v1/things", json={"key": "a"})).status_code == 201


async def test_probes_and_what_services_ask_each_other(toy: RunningSite) -> None:
    nobody = toy.client("routing", None)
    assert (await nobody.get("/readyz")).json() == {"status": "ready", "reasons": []}
    assert (await nobody.get("/healthz")).json() == {"status": "ok", "reasons": []}
    desk = toy.client("intake", Role.DESK, "H55.242")
    await desk.post("/v1/things", json={"key": "a", "count": 3})

    async def counted() -> bool:
        text = (await nobody.get("/metrics")).text
        return (
            'lienthong_consumer_applied_events_total{service="routing"} 3.0' in text and "consumer_lag_records{" in text
        )

    await toy.until(counted)
    open_metrics = await nobody.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
    assert open_metrics.text.endswith("# EOF\n")
    operator = {name: toy.client(name, Role.OPERATOR) for name in ("intake", "routing")}
    topic = "lienthong.dossier.v1"
    owned = (await operator["intake"].get("/v1/heads", params={"topic": topic, "side": "owned"})).json()["items"]
    read = (await operator["routing"].get("/v1/heads", params={"topic": topic, "side": "consumed"})).json()["items"]
    assert owned == read
    assert [(item["keys"], item["events"]) for item in owned] == [(1, 3)]
    params = {"topic": topic, "side": "owned", "hour": owned[0]["hour"]}
    assert (await operator["intake"].get("/v1/heads/hour", params=params)).json() == {"items": {"a": 3}}
    assert (await operator["intake"].get("/v1/stored", params={"topic": topic})).json()["stored"] == 3
    assert (await operator["intake"].get("/v1/ledger", params={"topic": topic, "key": "a"})).status_code == 403
    assert (await nobody.get("/v1/heads", params=params)).status_code == 401
    schema = await operator["intake"].get("/schemas/dossier.due-soon.v1.json")
    assert schema.json()["$schema"].endswith("2020-12/schema")
    assert (await operator["intake"].get("/schemas/../pyproject.toml")).status_code == 404


async def test_metrics_may_have_a_token_of_their_own(backing: Backing) -> None:
    async with running_site(backing, *toy_services(consumers=()), metrics_token="scrape-me") as site:
        nobody = site.client("intake", None)
        assert (await nobody.get("/metrics")).status_code == 401
        assert (await nobody.get("/metrics", headers=site.token(Role.ADMIN))).status_code == 401
        assert (await nobody.get("/metrics", headers={"Authorization": "Bearer scrape-me"})).status_code == 200
