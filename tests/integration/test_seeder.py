"""The benchmarks' seeder makes what an import makes: the same dossiers, histories and lists."""

import os
import random
from typing import Any, Final

import asyncpg
import orjson

from shared.security.tokens import Role
from tests.bench.stored import asks_of, seed
from tests.harness import Backing, RunningSite, real_services, running_site
from tests.integration.intake_site import HOME, client, dossier, history, imported

EACH: Final = int(os.environ.get("LIENTHONG_SEEDED_DOSSIERS", "7"))  # dossiers that are imported, and of each copy
COPIES: Final = (0, 1, 2)
STRIDE: Final = 10 ** max(3, len(str(EACH)))  # between the numbers of a dossier and its copy
LIVES: Final = (
    (),
    ("start",),
    ("start", "supplement-request"),
    ("start", "supplement-request", "supplement", "resolution"),
    ("start", "resolution", "return", "rating"),
    ("extension",),
    ("withdrawal-request", "withdrawal"),
)
BODIES: Final[dict[str, dict[str, Any]]] = {
    "supplement-request": {"reason": "thiếu giấy"},
    "resolution": {"result": "granted"},
    "return": {"by": "counter"},
    "rating": {"level": "satisfied"},
    "extension": {"reason": "mưa lũ", "due_at": "2026-04-02T17:00:00+07:00"},
    "withdrawal-request": {"reason": "đổi ý"},
}


def code_of(copy: int, number: int) -> str:
    return f"{HOME}-260302-{number + 1 + copy * STRIDE:04}"


def lines(copy: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number in range(EACH):
        code = code_of(copy, number)
        applicant = {"kind": "citizen", "name": f"Người thứ {number}", "phone": f"09120{number:05}"}
        at = "2026-03-02T08:{:02}:00+07:00"
        body = dossier(applicant=applicant, received_at=at.format(0), code=code)
        found.append({"op": "receive", "ref": code, **body})
        for minute, op in enumerate(LIVES[number % len(LIVES)], 1):
            found.append({"op": op, "ref": code, "at": at.format(minute), **BODIES.get(op, {})})
    return found


async def taken(site: RunningSite, register: list[dict[str, Any]]) -> None:
    """In as many requests as it takes."""
    admin = client(site, Role.ADMIN)
    for first in range(0, len(register), 1_000):
        answers = await imported(admin, register[first : first + 1_000], mode="history")
        assert {answer["status"] for answer in answers} == {"applied"}


async def told(site: RunningSite) -> dict[str, Any]:
    """All that a site answers of its dossiers, less what is a site's own: ids, pins, the time of writing."""
    admin = client(site, Role.ADMIN)
    found: dict[str, Any] = {}
    for copy in COPIES:
        for number in range(EACH):
            code = code_of(copy, number)
            one = (await admin.get(f"/v1/dossiers/{code}")).json()
            events = await history(admin, code)
            why = (await admin.get(f"/v1/dossiers/{code}/explain")).json()
            chained = (await admin.get(f"/v1/verify/dossiers/{code}")).json()
            assert chained["intact"], chained
            assert (chained["events"], chained["not_chained"]) == (len(events), 0)
            found[code] = (
                {name: value for name, value in one.items() if name != "track_pin"},
                [{name: value for name, value in e.items() if name not in ("id", "recorded_at")} for e in events],
                why,
            )
    for query in ("state=2", "state=10", "overdue=true", "q=260302", "q=0003"):
        items = (await admin.get(f"/v1/dossiers?agency={HOME}&{query}")).json()["items"]
        found[query] = [item["code"] for item in items]
    rows = await site.fetch("SELECT * FROM intake.dossier ORDER BY code")
    for row in rows:
        own = ("body", "contact_ref", "recorded")
        body = orjson.loads(row["body"])
        found[f"row {row['code']}"] = (
            {name: value for name, value in row.items() if name not in own},
            {
                name: value
                for name, value in body.items()
                if name not in ("contact_ref", "chain", "recorded", "due_since")
            },
        )
    return found


async def test_what_the_seeder_stores_is_what_an_import_stores(backing: Backing) -> None:
    tables = {"intake": ("event", "dossier", "contact")}
    async with running_site(backing, *real_services("intake"), tick_seconds=3600) as seeded:
        await taken(seeded, lines(0))
        connection = await asyncpg.connect(seeded.database_url)
        try:
            # In two goes, as a long one is.
            assert await seed(connection, 2 * EACH, lambda _: None, tables) == 2 * EACH
            assert await seed(connection, EACH * len(COPIES), lambda _: None, tables) == EACH * len(COPIES)
        finally:
            await connection.close()
        by_seed = await told(seeded)
        codes = [code_of(copy, 0) for copy in COPIES]
        async with client(seeded, Role.ADMIN) as http:
            for ask in asks_of(http, "", {}, codes, random.Random(1)).values():
                await ask()  # all that P14 times is answered
    async with running_site(backing, *real_services("intake"), tick_seconds=3600) as site:
        for copy in COPIES:
            await taken(site, lines(copy))
        by_import = await told(site)
    assert by_seed.keys() == by_import.keys()
    for name, value in by_import.items():
        assert by_seed[name] == value, name
