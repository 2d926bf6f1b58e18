"""Group commit: commands share a transaction, and each is answered by its own result."""

import asyncio
from collections import Counter
from typing import Any

import httpx
import pytest

from services.intake.acts import NewDossier
from services.intake.dossier import Actor
from services.intake.settings import IntakeSettings
from services.intake.store import Store
from services.intake.writer import Command, Result, Writer
from shared.security.tokens import Role
from tests.harness import RunningSite
from tests.integration.intake_site import HOME, act, client, done, dossier, numbers, received, refused, site

__all__ = ["site"]

ADMIN = Actor("admin", "a")


@pytest.fixture
def admin(site: RunningSite) -> httpx.AsyncClient:
    return client(site, Role.ADMIN)


async def test_many_clients_at_once_each_get_their_own_answer(site: RunningSite, admin: httpx.AsyncClient) -> None:
    agencies = (HOME, "H55.201", "H55.218")

    async def one(number: int) -> tuple[int, dict[str, Any]]:
        applicant = {"kind": "citizen", "name": f"Người {number}"}
        if number % 8 == 7:  # refused: harms no other
            wrong = await admin.post("/v1/dossiers", json=dossier(receiving_agency="H55.999"))
            refused(wrong, 422, "unknown-agency", "/receiving_agency")
            return number, {}
        return number, await received(admin, receiving_agency=agencies[number % 3], applicant=applicant)

    answers = await asyncio.gather(*(one(number) for number in range(64 * 4)))
    taken = [(number, body) for number, body in answers if body]
    codes = [body["code"] for _, body in taken]
    assert len(set(codes)) == len(codes) == 64 * 4 * 7 // 8
    for each in numbers(codes).values():
        assert each == list(range(1, len(each) + 1))
    for number, body in taken[::9]:
        read = (await admin.get(f"/v1/dossiers/{body['code']}")).json()
        assert read["applicant"]["name"] == f"Người {number}"
        assert read["receiving_agency"] == agencies[number % 3]
        assert body["track_pin"] == read["track_pin"]


async def test_of_many_who_want_the_same_one_gets_it(admin: httpx.AsyncClient) -> None:
    code = (await received(admin))["code"]
    answers = await asyncio.gather(*(act(admin, code, "start") for _ in range(32)))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 31}
    assert (await admin.get(f"/v1/dossiers/{code}")).json()["version"] == 2


async def test_acts_on_one_dossier_are_numbered_without_a_gap(admin: httpx.AsyncClient) -> None:
    code = (await received(admin))["code"]
    answers = await asyncio.gather(*(done(admin, code, "digitisation", component=f"Giấy {i}") for i in range(40)))
    assert sorted(answer["version"] for answer in answers) == list(range(2, 42))
    items = (await admin.get(f"/v1/dossiers/{code}/history")).json()["items"]
    assert [item["sequence"] for item in items] == list(range(1, 42))
    times = [item["recorded_at"] for item in items]
    assert times == sorted(times)


async def test_one_key_at_once_is_one_act(site: RunningSite, admin: httpx.AsyncClient) -> None:
    before = await site.value("SELECT count(*) FROM intake.dossier")
    body, key = dossier(), {"Idempotency-Key": "all at once"}
    answers = await asyncio.gather(*(admin.post("/v1/dossiers", json=body, headers=key) for _ in range(20)))
    assert set(Counter(answer.status_code for answer in answers)) <= {201, 409}
    assert len({answer.json()["code"] for answer in answers if answer.status_code == 201}) == 1
    assert await site.value("SELECT count(*) FROM intake.dossier") == before + 1


# ---------------------------------------------------------------------------------------- two writers


@pytest.fixture
def writers(site: RunningSite) -> list[Writer]:
    """A second process on the same database, as far as writing goes."""
    service = site.services["intake"]
    settings = IntakeSettings.model_validate(site.settings())
    store = Store(service)
    return [Writer(service, store, settings.batch_limit, settings.tick_seconds) for _ in range(2)]


def new(number: int, agency: str = HOME, **more: Any) -> Command:
    applicant = {"kind": "citizen", "name": f"Người {number}", **more}
    return Command("new", NewDossier(**dossier(receiving_agency=agency, applicant=applicant)), ADMIN)


def code_of(result: Result) -> str:
    assert result.answer is not None, result.problem
    assert result.answer.body["code"] == result.code
    assert result.code is not None
    return result.code


async def test_two_writers_issue_each_code_once(writers: list[Writer]) -> None:
    batches = [[new(10 * i + j, "H55.226") for j in range(10)] for i in range(20)]
    results = await asyncio.gather(*(writers[i % 2].execute(batch) for i, batch in enumerate(batches)))
    codes = [code_of(result) for batch in results for result in batch]
    (issued,) = numbers(codes).values()
    assert issued == list(range(1, 201))


async def test_two_writers_meet_one_new_person(site: RunningSite, writers: list[Writer]) -> None:
    batches = [[new(i, citizen_id="077777777777") for i in range(5)] for _ in range(8)]
    results = await asyncio.gather(*(writers[i % 2].execute(batch) for i, batch in enumerate(batches)))
    codes = [code_of(result) for batch in results for result in batch]
    refs = await site.fetch("SELECT DISTINCT contact_ref FROM intake.dossier WHERE code = ANY ($1)", codes)
    assert len(refs) == 1
    sequences = await site.fetch(
        "SELECT sequence FROM intake.event WHERE aggregatetype = 'contact' AND aggregateid = $1 ORDER BY 1",
        refs[0]["contact_ref"],
    )
    assert [row["sequence"] for row in sequences] == list(range(1, len(sequences) + 1))


async def test_two_writers_lock_in_one_order(admin: httpx.AsyncClient, writers: list[Writer]) -> None:
    codes = [(await received(admin))["code"] for _ in range(10)]

    def batch(order: list[str], component: str) -> list[Command]:
        from services.intake.acts import Digitisation

        return [Command("digitisation", Digitisation(component=component), ADMIN, code=code) for code in order]

    results = await asyncio.gather(
        *(writers[i % 2].execute(batch(codes if i % 2 else codes[::-1], f"Giấy {i}")) for i in range(20))
    )
    assert all(result.answer is not None for each in results for result in each)
    for code in codes:
        assert (await admin.get(f"/v1/dossiers/{code}")).json()["version"] == 21


# --------------------------------------------------------------------------------------- what goes wrong


async def test_a_command_that_is_more_than_we_can_bear_takes_nobody_with_it(
    site: RunningSite, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = Store.write_dossiers

    async def breaks(self: Store, connection: Any, new: Any, moved: Any) -> None:
        if any(d.deciding_agency == "H55.40" for d, _ in new):
            raise RuntimeError("a fault of ours")
        await whole(self, connection, new, moved)

    monkeypatch.setattr(Store, "write_dossiers", breaks)

    async def one(number: int) -> int:
        answer = await admin.post("/v1/dossiers", json=dossier(deciding_agency="H55.201"))
        return answer.status_code

    async def poison() -> int:
        service = site.services["intake"]
        writer = Writer(service, Store(service), 500, 5.0)
        commands = [new(i) for i in range(9)]
        commands[4].body = commands[4].body.model_copy(
            update={"deciding_agency": "H55.40", "receiving_agency": "H55.40"}
        )
        commands[4].at = None
        commands[4].body = commands[4].body.model_copy(update={"received_at": _year(2024), "procedure": "2.000889"})
        results = await writer.execute_apart(commands)
        statuses = [r.answer.status if r.answer else r.problem.status if r.problem else 0 for r in results]
        assert statuses == [201] * 4 + [500] + [201] * 4
        return 201

    assert set(await asyncio.gather(poison(), *(one(i) for i in range(16)))) == {201}


def _year(year: int) -> Any:
    from datetime import UTC, datetime

    return datetime(year, 3, 5, 3, tzinfo=UTC)
