"""The plans of intake's lists: no hot query scans more rows than it returns, times ten."""

import inspect
import itertools
import json
import os
import random
import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, Final, cast
from uuid import UUID

import asyncpg
import pytest

from services.intake import looking
from services.intake.petitions import Petitions
from services.intake.settings import IntakeSettings
from services.intake.store import Store, of_many
from shared.service import Service
from shared.store.queries import Queries
from tests.harness import Backing, real_services

QUERIES: Final = Queries("services.intake", "intake")
NOW: Final = datetime(2026, 11, 26, 3, 0, tzinfo=UTC)
FIRST: Final = datetime(1900, 1, 1, tzinfo=UTC)
NEVER: Final = datetime(9999, 1, 1, tzinfo=UTC)
HOME: Final = "H55.7"
OTHER: Final = "H55.10"  # all that it receives H55.11 decides
LIMIT: Final = 101
PAGE: Final = 51  # and one more row, that says whether there is a next page
NIL: Final = UUID(int=0)

# 100 agencies of ten years: 60,000 dossiers, of which one in twenty-six is open and a third of those overdue; every tenth is
# decided by another agency than received it.
SEED: Final = """
INSERT INTO intake.dossier (code, agency, deciding_agency, procedure, state, received_at, due_at, paused, overdue_from,
                            next_tick, contact_ref, sender, sequence, recorded, body)
SELECT format('H55.%s-%s-%s', a, to_char(at, 'YYMMDD'), lpad((n % 10000)::text, 4, '0')), 'H55.' || a,
       'H55.' || CASE WHEN n % 10 = 0 THEN (a + 1) % 100 ELSE a END, '1.001193', state, at, due, state = 5,
       CASE WHEN state IN (2, 4, 6, 7) THEN due END,
       CASE WHEN state IN (2, 4, 6, 7) AND (due > now() OR n % 97 = 0) THEN due END, 'c' || n % 30000,
       CASE WHEN n % 7 = 0 THEN 'portal' END, 3, at, '{}'
FROM (SELECT n, n % 100 AS a,
             CASE WHEN n % 51 = 0 OR n % 53 = 0 THEN (ARRAY[1, 2, 4, 5, 6, 9])[1 + n / 7 % 6]
                  ELSE (ARRAY[10, 10, 10, 10, 10, 10, 10, 3, 8])[1 + n % 9] END AS state,
             timestamptz '2016-11-26' + n * interval '87 minutes' AS at,
             timestamptz '2026-11-26 03:00+00' + (n % 300 - 100) * interval '2 hours' AS due
      FROM generate_series(1, 60000) n) AS drawn
ON CONFLICT DO NOTHING
"""

# And what 50 lower agencies' sites have passed on: 10,000 copies.
COPIES: Final = """
INSERT INTO intake.copy (code, home, agency, deciding_agency, procedure, state, received_at, due_at, paused, overdue_from,
                         late, sequence, body)
SELECT 'H55.1' || substr(code, 5), 'H55.100', 'H55.1' || substr(agency, 5), 'H55.1' || substr(agency, 5), procedure, state,
       received_at, due_at, paused, overdue_from, overdue_from IS NOT NULL AND next_tick IS NULL, sequence, body
FROM (SELECT * FROM intake.dossier WHERE agency ~ '^H55.[5-9][0-9]$' ORDER BY code LIMIT 10000) d
"""

# 12,000 petitions, of which one in forty waits for its answer.
PETITIONS: Final = """
INSERT INTO intake.petition (id, agency, kind, state, filed_at, due_at, answered_at, rating, sender, nonce, ciphertext,
                             wrapped, sequence, recorded)
SELECT format('01900000-0000-7000-8000-%s', lpad(n::text, 12, '0'))::uuid, 'H55.' || n % 100, 'letter',
       CASE WHEN n % 41 = 0 THEN 'filed' ELSE 'answered' END, at, at + interval '21 days',
       CASE WHEN n % 41 <> 0 THEN at + interval '9 days' END, NULL, CASE WHEN n % 7 = 0 THEN 'portal' ELSE 'desk' END,
       '', '', '', 2, at
FROM (SELECT n, timestamptz '2016-11-26' + n * interval '7 hours' AS at FROM generate_series(1, 12000) n) AS drawn
"""


# What two portals are told of: one took 30,000 and has yet to be told of 1,500; the other is down.
TOLD: Final = """
INSERT INTO intake.portal (name, since) VALUES ('national', now()), ('provincial', now());
INSERT INTO intake.portal_dossier (portal, code, wanted, sent, state, changed)
SELECT 'national', 'H55-' || n, 3, 3, CASE WHEN n % 21 = 0 THEN 'waiting' WHEN n % 997 = 0 THEN 'refused' ELSE 'sent' END,
       timestamptz '2026-11-20' + n * interval '1 second' FROM generate_series(1, 31500) n
UNION ALL
SELECT 'provincial', 'H55-' || n, 3, 0, 'waiting', now() FROM generate_series(1, 12000) n;
"""


@pytest.fixture(scope="module")
async def database(backing: Backing) -> Any:
    url = await backing.database(real_services("intake")[1])
    connection = await asyncpg.connect(url)
    await connection.execute(SEED)
    await connection.execute(COPIES)
    await connection.execute(PETITIONS)
    await connection.execute(TOLD)
    await connection.execute("VACUUM ANALYZE intake.dossier, intake.copy, intake.petition, intake.portal_dossier")
    await connection.execute("SET plan_cache_mode = force_custom_plan")
    yield connection
    await connection.close()
    await backing.drop_database(url)


def rows_read(plan: dict[str, Any]) -> int:
    """The rows that the plan's scans of the tables looked at: those they gave and those they threw away."""
    read = sum(rows_read(inner) for inner in plan.get("Plans", ()))
    if plan.get("Relation Name") in TABLES and "Bitmap Index" not in plan["Node Type"]:
        thrown = plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Index Recheck", 0)
        read += int((plan["Actual Rows"] + thrown) * plan["Actual Loops"])
    return read


def allowed(found: int) -> int:
    """How many rows may be read for so many: ten times as many. What reads no more than a page may find nothing in it."""
    return max(10 * found, LIMIT)


def ranges_of(part: str, most: int = 10_000) -> tuple[list[str], list[str]]:
    """The ranges of codes that are asked for with one statement, on a site of these agencies."""
    found = looking.ranges(part, [f"H55.{number}" for number in range(100)])[:most]
    return [low for low, _ in found], [high for _, high in found]


TABLES: Final = ("dossier", "copy", "petition", "portal_dossier")
FEW: Final = [HOME, "H55.8", "H55.11", "H55.42"]
SIX: Final = [*FEW, "H55.60", "H55.160"]
ALL: Final = [f"H55.{number}" for number in range(100)]
OWN_CODES: Final = ([HOME, "H55.42"], [f"{HOME}-", "H55.42-"], [f"{HOME}.", "H55.42."])

LISTS: Final[dict[str, tuple[str, tuple[Any, ...]]]] = {
    "a desk's open dossiers": ("work", ([HOME], FIRST, "", NEVER, False, LIMIT, LIMIT)),
    "its overdue ones": ("work", ([HOME], FIRST, "", NOW, True, LIMIT, LIMIT)),
    "those of today": ("work", ([HOME], NOW, "", NOW + timedelta(hours=14), True, LIMIT, LIMIT)),
    "the next page": ("work", ([HOME], NOW, f"{HOME}-200101-0001", NEVER, False, LIMIT, LIMIT)),
    "three agencies' open dossiers": ("work", ([HOME, "H55.8", "H55.9"], FIRST, "", NEVER, False, LIMIT, LIMIT)),
    "to be received": ("waiting", ([HOME], 1, "", None, LIMIT, LIMIT)),
    "to be returned": ("waiting", ([HOME], 9, "", None, LIMIT, LIMIT)),
    "the register of a month": (
        "register",
        ([HOME], datetime(2020, 3, 1, tzinfo=UTC), "", datetime(2020, 4, 1, tzinfo=UTC), LIMIT),
    ),
    "a scope by code": ("listed_own", ([HOME], "", None, None, None, LIMIT, None)),
    "a scope, one state": ("listed_own", ([HOME], "", 4, None, None, LIMIT, None)),
    "a scope, returned ones": ("listed_own", ([HOME], "", 10, None, None, LIMIT, None)),
    "a scope, overdue": ("listed_own", ([HOME], "", None, True, None, LIMIT, None)),
    "a few agencies": ("listed_own", (FEW, "", None, None, None, LIMIT, None)),
    "a few agencies, so far": ("listed_own", (FEW, "", None, None, None, LIMIT, "H55.11-1")),
    "a few agencies, overdue": ("listed_own", (FEW, "", None, True, None, LIMIT, None)),
    "where a hundred agencies begin": ("listed_heads", (ALL, "", None, None, None)),
    "where a hundred agencies begin, one state": ("listed_heads", (ALL, "", 4, None, None)),
    "where a hundred agencies begin, a later page": ("listed_heads", (ALL, "H55.50", None, None, None)),
    "one receiving agency": ("listed_receiving", (HOME, "", None, None, None, LIMIT)),
    "one receiving agency, one state": ("listed_receiving", (HOME, "", 2, None, None, LIMIT)),
    "one receiving agency, overdue": ("listed_receiving", (HOME, "", None, True, None, LIMIT)),
    "another's, decided here": ("listed_between", (OTHER, "", None, None, None, LIMIT, FEW)),
    "another's, decided here, one state": ("listed_between", (OTHER, "", 4, None, None, LIMIT, FEW)),
    "another's, decided by one of a hundred": ("listed_between", (OTHER, "", 10, None, None, LIMIT, ALL)),
    "another's, none decided here": ("listed_between", (OTHER, "", None, None, None, LIMIT, [HOME])),
    "another's of a year": ("begun_between", (*ranges_of("19"), "", None, None, LIMIT, FEW, OTHER, None)),
    "another's of a number": ("begun_between", (*ranges_of("0010"), "", None, None, LIMIT, FEW, OTHER, "0010")),
    "the whole site": ("listed_site", (None, "", None, None, None, LIMIT)),
    "the whole site, a later page": ("listed_site", (None, "H55.50", None, None, None, LIMIT)),
    "the whole site, one state": ("listed_site", (None, "", 4, None, None, LIMIT)),
    "the whole site, one state, a later page": ("listed_site", (None, "H55.7-19", 6, None, None, LIMIT)),
    "the whole site, a state that few are in": ("listed_site", (None, "", 7, None, None, LIMIT)),
    "the whole site, returned ones": ("listed_site", (None, "", 10, None, None, LIMIT)),
    "the whole site, one state, codes that begin so": ("listed_site", (None, "", 4, None, r"^H55\.7-", LIMIT)),
    "many agencies, one state": ("listed_site", (ALL, "", 4, None, None, LIMIT)),
    "the whole site, overdue": ("listed_late", (None, "", None, None, LIMIT, None, None)),
    "the whole site, overdue, a later page": ("listed_late", (None, "H55.7-19", None, None, LIMIT, None, None)),
    "the whole site, overdue, one state": ("listed_late", (None, "", 6, None, LIMIT, None, None)),
    "the whole site, overdue, codes that begin so": ("listed_late", (None, "", None, r"^H55\.7-", LIMIT, None, None)),
    "many agencies, overdue": ("listed_late", (ALL, "", None, None, LIMIT, None, None)),
    "a year, overdue": ("begun_late", (*ranges_of("19"), "", None, LIMIT, None, None, None, None)),
    "a number, overdue": ("begun_late", (*ranges_of("0042"), "", None, LIMIT, None, None, None, "0042")),
    "what a portal sent, overdue": ("listed_late", (None, "", None, None, LIMIT, "portal", None)),
    "what a portal sent, one state": ("listed_sent", ("portal", "", 4, None, None, LIMIT, None)),
    "the whole site, codes that begin so": ("listed_site", (None, "", None, None, r"^H55\.7-1905", LIMIT)),
    "a day, a few agencies": ("begun_own", (*ranges_of("200101"), "", None, None, LIMIT, [HOME, "H55.8"], False)),
    "a year, a few agencies": ("begun_own", (*ranges_of("20"), "", None, None, LIMIT, [HOME, "H55.8"], False)),
    "a day and number, an agency": ("begun_own", (*ranges_of("200101-0"), "", None, None, LIMIT, [HOME], True)),
    "a year, the whole site": ("begun_site", (*ranges_of("20", 9), "", None, None, LIMIT, None, None)),
    "a day, the whole site": ("begun_site", (*ranges_of("200101", 9), "", None, None, LIMIT, None, None)),
    "a part of an agency": ("begun_site", (*ranges_of("55.7", 9), "", None, None, LIMIT, None, None)),
    "a day, what a portal sent": ("begun_sent", (*ranges_of("200101", 9), "", None, None, LIMIT, "portal", None)),
    "a number, the whole site": ("numbered_site", ("0042", "", None, None, LIMIT, None, None)),
    "a number, the whole site, a later page": ("numbered_site", ("0042", "H55.50", None, None, LIMIT, None, None)),
    "a number, a few agencies": ("numbered_own", ("0042", "", None, None, LIMIT, *OWN_CODES, False)),
    "a lower site's agency": ("listed_receiving", ("H55.172", "", None, None, None, LIMIT)),
    "a lower site's agency, one state": ("listed_own", (["H55.172"], "", 4, None, None, LIMIT, None)),
    "a lower site's agency, overdue": ("listed_own", (["H55.172"], "", None, True, None, LIMIT, None)),
    "a lower site's codes that begin so": ("listed_site", (None, "", None, None, r"^H55\.172-1905", LIMIT)),
    "what a portal sent": ("listed_sent", ("portal", "", None, None, None, LIMIT, None)),
    "a desk's petitions by due date": ("petitions_due", ([HOME], FIRST, NIL, NEVER, LIMIT, LIMIT)),
    "its overdue petitions": ("petitions_due", ([HOME], FIRST, NIL, NOW, LIMIT, LIMIT)),
    "its answered petitions": ("petitions_answered", ([HOME], NEVER, NIL, FIRST, LIMIT, LIMIT)),
    "answered petitions, a later page": (
        "petitions_answered",
        ([HOME], datetime(2020, 1, 1, tzinfo=UTC), NIL, FIRST, LIMIT, LIMIT),
    ),
    "an agency's petitions": ("petitions_of", ([HOME, "H55.8"], None, None, None, LIMIT, LIMIT)),
    "an agency's petitions of a state": ("petitions_of", ([HOME, "H55.8"], None, "filed", None, LIMIT, LIMIT)),
    "what a portal filed": ("petitions_sent", ("portal", None, None, LIMIT, None)),
    "what a portal filed, of a state": ("petitions_sent", ("portal", None, "filed", LIMIT, None)),
    "the site's petitions": ("petitions_all", (None, None, LIMIT)),
    "the site's petitions of a state": ("petitions_all", (None, "filed", LIMIT)),
    "a person's dossiers": ("found", (["c77", "c78"], "", [HOME, "H55.77", "H55.78"], None, LIMIT)),
    "one dossier": ("dossiers", ([f"{HOME}-161126-0007"],)),
}


@pytest.mark.parametrize("name", LISTS)
async def test_no_list_scans_more_than_ten_times_what_it_returns(database: Any, name: str) -> None:
    query, arguments = LISTS[name]
    found = await database.fetch(QUERIES[query], *arguments)
    text = await database.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {QUERIES[query]}", *arguments)
    plan = json.loads(text)[0]["Plan"]
    assert len(found) <= LIMIT
    assert rows_read(plan) <= allowed(len(found)), (len(found), text)


COUNTS: Final[dict[str, tuple[str, tuple[Any, ...]]]] = {
    "a desk's open dossiers": ("work_counted", ([HOME], FIRST, NEVER, False, 1000)),
    "a hundred agencies' open dossiers": ("work_counted", (ALL, FIRST, NEVER, False, 1000)),
    "a hundred agencies' overdue ones": ("work_counted", (ALL, FIRST, NOW, True, 1000)),
    "a hundred agencies' to be returned": ("waiting_counted", (ALL, 9, 1000)),
    "a hundred agencies' petitions": ("petitions_due_counted", (ALL, FIRST, NEVER, 1000)),
    "a hundred agencies' answered ones": ("petitions_answered_counted", (ALL, 1000)),
}


@pytest.mark.parametrize("name", COUNTS)
async def test_no_count_reads_more_than_ten_times_what_it_counts(database: Any, name: str) -> None:
    query, arguments = COUNTS[name]
    number = await database.fetchval(QUERIES[query], *arguments)
    text = await database.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {QUERIES[query]}", *arguments)
    assert number > 3
    assert rows_read(json.loads(text)[0]["Plan"]) <= 2 * number, text


class Measured(Store):
    """A store that counts what its lists read; as many agencies in its directory as in this database."""

    def __init__(self) -> None:
        current = SimpleNamespace(agencies=dict.fromkeys(ALL))
        super().__init__(cast(Service, SimpleNamespace(name="intake", directory=SimpleNamespace(current=current))))
        self.looked_at = 0

    async def planned(self, connection: Any, name: str, *arguments: Any) -> list[Any]:
        text = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {self.queries[name]}", *arguments)
        self.looked_at += rows_read(json.loads(text)[0]["Plan"])
        return await super().planned(connection, name, *arguments)


ALL_FILTERS: Final = os.environ.get("LIENTHONG_ALL_FILTERS") == "1"
PARTS: Final = (None, "H55.7-19", "190503", "190503-0", "0042", "55.7", "H55.17")
WHOSE: Final[dict[str, tuple[frozenset[str] | None, str | None]]] = {
    "the site": (None, None),
    "a hundred agencies": (frozenset(ALL), None),
    "six agencies": (frozenset(SIX), None),
    "a few agencies": (frozenset(FEW), None),
    "one agency": (frozenset([HOME]), None),
    "a portal": (None, "portal"),
}


@pytest.mark.parametrize("agency", [None, HOME, OTHER])
@pytest.mark.parametrize("whose", WHOSE)
async def test_no_combination_of_filters_reads_more_than_ten_times_what_it_shows(
    database: Any, whose: str, agency: str | None
) -> None:
    """All that the list of dossiers offers: state, overdue, a part of the code, a later page. A third of it unless all is asked
    for (LIENTHONG_ALL_FILTERS=1)."""
    scope, sender = WHOSE[whose]
    faults = []
    every = list(itertools.product((None, 4, 7, 10), (None, True, False), PARTS, (None, "H55.42-2")))
    chance = random.Random(f"{whose} {agency}")
    for state, overdue, part, cursor in every if ALL_FILTERS else chance.sample(every, len(every) // 3):
        store = Measured()
        found = await store.listed(database, scope, sender, agency, state, overdue, part, cursor, LIMIT)
        if store.looked_at > allowed(len(found)):
            faults.append((store.looked_at, len(found), state, overdue, part, cursor))
    assert not faults, "\n".join(map(str, sorted(faults, key=lambda each: -each[0])))


@pytest.mark.parametrize("whose", WHOSE)
async def test_what_is_overdue_is_found_by_every_part_of_its_code(database: Any, whose: str) -> None:
    scope, sender = WHOSE[whose]
    number = 0
    for part, state in itertools.product(PARTS[1:], (None, 4)):
        store = Measured()
        found, cursor = [], "H55.3"
        for _ in range(2):
            page = await store.listed(database, scope, sender, None, state, True, part, cursor, 20)
            found += [row["code"] for row in page]
            cursor = page[-1]["code"] if page else cursor
        plain = await database.fetch(
            "SELECT code FROM intake.listed LEFT JOIN (SELECT code, sender FROM intake.dossier) d USING (code)"
            " WHERE code > 'H55.3' AND code ~ $1 AND overdue_from < now() AND ($2::int IS NULL OR state = $2)"
            " AND ($3::text[] IS NULL OR agency = ANY ($3) OR deciding_agency = ANY ($3))"
            " AND ($4::text IS NULL OR sender = $4) ORDER BY code LIMIT 40",
            looking.pattern(part) if sender is None else looking.pattern(part).partition("|-00")[0], state,
            None if scope is None else list(scope), sender,
        )  # fmt: skip
        assert found == [row["code"] for row in plain], (part, state)
        number += len(plain)
    assert number > 3


async def test_the_pages_of_a_hundred_agencies_read_little_more_than_they_show(database: Any) -> None:
    for agencies in (ALL, SIX, [HOME]):
        for since, before, running in ((FIRST, NEVER, False), (FIRST, NOW, True), (NOW, NEVER, True)):
            store = Measured()
            pages, after = [], (since, "")
            for _ in range(3):
                page = await store.work(database, agencies, after, before, running, PAGE)
                pages += [row["code"] for row in page]
                after = (page[-1]["due_at"], page[-1]["code"]) if page else after
            plain = await database.fetch(
                "SELECT code FROM intake.dossier WHERE state IN (2, 4, 5, 6, 7) AND due_at >= $2 AND due_at < $3"
                " AND (agency = ANY ($1) OR deciding_agency = ANY ($1)) AND (NOT $4 OR overdue_from IS NOT NULL)"
                " ORDER BY due_at, code LIMIT 153",
                agencies, since, before, running,
            )  # fmt: skip
            assert pages == [row["code"] for row in plain]
            assert store.looked_at <= 10 * max(len(pages), 1)
            assert await store.work_counted(database, agencies, since, before, running, 153) == len(plain)
        store, cursor, pages = Measured(), "", []
        for _ in range(3):
            page = await store.waiting(database, agencies, 9, cursor, PAGE)
            pages += [row["code"] for row in page]
            cursor = page[-1]["code"] if page else cursor
        plain = await database.fetch(
            "SELECT code FROM intake.dossier WHERE state = 9 AND (agency = ANY ($1) OR deciding_agency = ANY ($1))"
            " ORDER BY code LIMIT 153",
            agencies,
        )  # fmt: skip
        assert pages == [row["code"] for row in plain]
        assert await store.waiting_counted(database, agencies, 9, 153) == len(plain)
        assert store.looked_at <= 10 * max(len(pages), 1)


async def test_the_petitions_of_a_hundred_agencies_read_little_more_than_they_show(database: Any) -> None:
    for agencies in (ALL, SIX, [HOME]):
        store = Measured()
        petitions = Petitions(cast(Service, SimpleNamespace(name="intake")), store, IntakeSettings())
        due = await petitions.due(database, agencies, (FIRST, NIL), NEVER, 40)
        answered = await petitions.answered(database, agencies, (NEVER, NIL), 40)
        listed = await petitions.listed(database, agencies, None, None, None, 40)
        for found, which, order in (
            (due, "state = 'filed'", "due_at, id"),
            (answered, "answered_at IS NOT NULL", "answered_at DESC, id DESC"),
            (listed, "true", "id"),
        ):
            plain = await database.fetch(
                f"SELECT id FROM intake.petition WHERE agency = ANY ($1) AND {which} ORDER BY {order} LIMIT 40",
                agencies,
            )
            assert [each.id for each in found] == [row["id"] for row in plain]
        assert store.looked_at <= 10 * (len(due) + len(answered) + len(listed))


async def test_one_agency_with_all_the_work_is_read_to_the_end_of_the_page() -> None:
    """Of many agencies the first few of each are not the page when one has most of them."""
    rows: dict[str, list[int]] = {"busy": list(range(500)), "other": [3, 700], **{f"idle {n}": [] for n in range(30)}}
    asked: list[int] = []

    async def ask(each: int, most: int | None, last: Any) -> list[Any]:
        asked.append(each)
        found: list[dict[str, Any]] = [
            {"agency": agency, "place": place}
            for agency, places in rows.items()
            for place in [p for p in places if last is None or p <= last["place"]][:each]
        ]
        return sorted(found, key=lambda row: row["place"])[:most]

    page = await of_many(len(rows), 50, ask, ("agency",))
    assert [row["place"] for row in page] == sorted([*range(49), 3])
    assert asked == [3, 12, 48, 50]


FILTERS: Final = [(None, None), (4, None), (10, None), (None, True), (4, True), (None, False)]
SCOPES: Final = {"the site": None, "a hundred": ALL, "six": SIX}


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(("state", "overdue"), FILTERS)
async def test_every_way_to_a_list_gives_the_same_dossiers(
    database: Any, scope: str, state: int | None, overdue: bool | None
) -> None:
    """Two pages through the indexes, and the plain question."""
    store = Store(cast(Service, SimpleNamespace(name="intake")))
    agencies = SCOPES[scope]
    # Codes that came from another system need not begin with their agency.
    pages, cursor = [], "H55.3"
    for _ in range(2):
        own = None if agencies is None else frozenset(agencies)
        page = await store.listed(database, own, None, None, state, overdue, None, cursor, 40)
        pages += [row["code"] for row in page]
        cursor = page[-1]["code"] if page else cursor
    plain = await database.fetch(
        "SELECT code FROM intake.listed WHERE code > 'H55.3'"
        " AND ($1::text[] IS NULL OR agency = ANY ($1) OR deciding_agency = ANY ($1))"
        " AND ($2::int IS NULL OR state = $2) AND ($3::boolean IS NULL OR coalesce(overdue_from < now(), false) = $3)"
        " ORDER BY code LIMIT 80",
        agencies, state, overdue,
    )  # fmt: skip
    assert plain
    assert pages == [row["code"] for row in plain]


@pytest.mark.parametrize("scope", [FEW, [HOME], [*ALL[:10], "H55.110", "H55.11"]])
async def test_who_does_not_see_an_agency_sees_what_his_own_decide_of_it(database: Any, scope: list[str]) -> None:
    number = 0
    for part, (state, overdue) in itertools.product(PARTS, FILTERS):
        store = Measured()
        found, cursor = [], "H55.10-17"
        for _ in range(2):
            page = await store.listed(database, frozenset(scope), None, OTHER, state, overdue, part, cursor, 40)
            found += [row["code"] for row in page]
            cursor = page[-1]["code"] if page else cursor
        plain = await database.fetch(
            "SELECT code FROM intake.listed WHERE code > 'H55.10-17' AND agency = $1 AND deciding_agency = ANY ($2)"
            " AND ($3::int IS NULL OR state = $3) AND ($4::boolean IS NULL OR coalesce(overdue_from < now(), false) = $4)"
            " AND ($5::text IS NULL OR code ~ $5) ORDER BY code LIMIT 80",
            OTHER, scope, state, overdue, None if part is None else looking.pattern(part),
        )  # fmt: skip
        assert found == [row["code"] for row in plain], (part, state, overdue)
        assert store.looked_at <= 2 * allowed(len(found)), (part, state, overdue)
        number += len(plain)
    assert number > 100 or "H55.11" not in scope


async def test_a_portal_is_counted_no_further_than_is_said(database: Any) -> None:
    for portal, waiting, sent in (("national", 1500, 10_000), ("provincial", 10_000, 0)):
        row = await database.fetchrow(QUERIES["portal_status"], portal, 10_000)
        text = await database.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {QUERIES['portal_status']}", portal, 10_000)
        assert (row["waiting"], row["sent"]) == (waiting, sent)
        assert row["oldest"] is not None
        assert rows_read(json.loads(text)[0]["Plan"]) <= waiting + sent + row["refused"] + 1


async def test_the_lists_are_those_that_the_store_asks_for() -> None:
    """A list that is added to the store is added here."""
    source = inspect.getsource(Store) + inspect.getsource(Petitions)
    asked = set(re.findall(r'planned\(\s*connection, "(\w+)"', source)) | {"found", "dossiers"}
    assert asked == {query for query, _ in (*LISTS.values(), *COUNTS.values())}


async def test_the_measure_finds_a_list_that_is_read_through_the_wrong_index(database: Any) -> None:
    arguments = ([HOME], "", 6, None, None, LIMIT)
    found = await database.fetch(QUERIES["listed_site"], *arguments)
    text = await database.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {QUERIES['listed_site']}", *arguments)
    assert rows_read(json.loads(text)[0]["Plan"]) > 10 * max(len(found), 1)
