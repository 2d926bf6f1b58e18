"""A history that cannot be rewritten unseen: whoever writes past the services, with all the rights, is found."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from deploy.cli.errors import CommandFailed
from deploy.cli.verify import verify_file
from services.intake.history import History
from services.intake.store import Store
from shared.contracts.codes import local_day
from shared.security.seals import key_id
from shared.security.tokens import Role
from shared.service import Service
from shared.store.chain import link
from shared.store.log import envelope_of
from shared.store.pool import Connection
from tests.harness import Backing, RunningSite, real_services, running_site
from tests.integration.intake_site import HOME, client, done, history, imported, received, refused


@pytest.fixture
async def site(backing: Backing) -> AsyncIterator[RunningSite]:
    """Intake alone; nothing is sealed but by hand."""
    async with running_site(backing, *real_services("intake"), tick_seconds=3600, seal_seconds=3600) as running:
        yield running


class Tomorrow(History):
    """As it will be when today is over."""

    async def first_open_day(self, connection: Connection) -> date:
        return local_day(datetime.now(UTC)) + timedelta(days=1)


def tomorrow(site: RunningSite) -> Tomorrow:
    service: Service = site.services["intake"]
    return Tomorrow(service, Store(service), 3600)


async def three(site: RunningSite) -> list[str]:
    """Dossiers with some history, one of them with a correction and one by import."""
    desk, admin = client(site, Role.DESK, HOME), client(site, Role.ADMIN)
    codes = [(await received(desk))["code"] for _ in range(2)]
    for code in codes:
        await done(admin, code, "start")
        await done(admin, code, "supplement-request", reason="thiếu giấy")
        await done(admin, code, "supplement")
    last = (await history(admin, codes[1]))[-1]
    await done(admin, codes[1], "correction", undoes=last["id"], reason="nhầm")
    await done(admin, codes[1], "supplement")
    lines = await imported(
        admin,
        [
            {
                "op": "receive",
                "ref": "1",
                "at": "2026-03-02T08:00:00+07:00",
                "procedure": "1.004873",
                "receiving_agency": HOME,
                "channel": "counter",
                "return_by": "counter",
                "applicant": {"kind": "citizen", "name": "Nguyễn Văn Nhập"},
            },
            {"op": "start", "ref": "1", "at": "2026-03-02T09:00:00+07:00"},
            {"op": "resolution", "ref": "1", "at": "2026-03-03T09:00:00+07:00", "result": "granted"},
        ],
    )
    assert [line["status"] for line in lines] == ["applied"] * 3
    return [*codes, lines[0]["code"]]


async def verified(site: RunningSite, code: str) -> dict[str, Any]:
    answer = await client(site, Role.AUDITOR).get(f"/v1/verify/dossiers/{code}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def verified_today(site: RunningSite) -> dict[str, Any]:
    answer = await client(site, Role.AUDITOR).get(f"/v1/verify/days/{local_day(datetime.now(UTC))}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def by_hand(site: RunningSite, *statements: str) -> None:
    """What somebody does who owns the database."""
    connection = await asyncpg.connect(site.database_url)
    try:
        await connection.execute("SET session_replication_role = replica")  # no trigger holds them up
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def reasons(answer: dict[str, Any]) -> list[tuple[int, str]]:
    return [(fault["sequence"], fault["reason"]) for fault in answer["faults"]]


async def test_what_was_not_touched_is_intact(site: RunningSite) -> None:
    codes = await three(site)
    for code in codes:
        answer = await verified(site, code)
        assert (answer["intact"], answer["faults"], answer["not_chained"]) == (True, [], 0)
    day = await verified_today(site)
    assert (day["intact"], day["dossiers"]) == (True, 3)
    assert day["events"] == await site.value("SELECT count(*) FROM intake.event WHERE aggregatetype = 'dossier'")


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE intake.event SET payload = replace(payload, 'thiếu', 'đủ') WHERE {3}", [(3, "chain-broken")]),
        ("UPDATE intake.event SET happened = happened - interval '1 day' WHERE {2}", [(2, "chain-broken")]),
        ("UPDATE intake.event SET recorded = recorded - interval '1 s' WHERE {1}", [(1, "chain-broken")]),
        ("UPDATE intake.event SET mode = 'history' WHERE {1}", [(1, "chain-broken")]),
        ("DELETE FROM intake.event WHERE {2}", [(2, "missing"), (4, "head-differs")]),
        ("DELETE FROM intake.event WHERE {4}", [(4, "head-differs")]),
        ("UPDATE intake.event SET chain = NULL WHERE {3}", [(3, "not-chained"), (4, "chain-broken")]),
        ("UPDATE intake.event SET chain = NULL WHERE {4}", [(4, "not-chained"), (4, "head-differs")]),
    ],
)
async def test_one_stored_event_changed_by_hand_is_found(
    site: RunningSite, statement: str, found: list[tuple[int, str]]
) -> None:
    codes = await three(site)
    where = "aggregateid = '{}' AND aggregatetype = 'dossier' AND sequence = {}"
    named = [where.format(codes[0], number) for number in range(5)]
    await by_hand(site, statement.format(*named))
    answer = await verified(site, codes[0])
    assert (answer["intact"], reasons(answer)) == (False, found)
    assert all([(await verified(site, code))["intact"] for code in codes[1:]])
    if found[0][1] != "head-differs":  # an end that is gone is seen by the dossier's row, or by the day's seal
        day = await verified_today(site)
        assert day["intact"] is False
        assert {fault["code"] for fault in day["faults"]} == {codes[0]}


async def rewrite(site: RunningSite, code: str) -> None:
    """A history rewritten well: one event changed, and all hashes from there on, and the dossier's row, made to fit."""
    rows = await site.fetch(
        "SELECT * FROM intake.event WHERE aggregateid = $1 AND aggregatetype = 'dossier' ORDER BY sequence", code
    )
    chain = ""
    for row in rows:
        changed = dict(row) | {"payload": row["payload"].replace("thiếu giấy", "thiếu phí")}
        chain = link(chain, envelope_of(changed))
        await by_hand(
            site,
            f"UPDATE intake.event SET payload = $ {changed['payload']}$, chain = '\\x{chain}'"
            f" WHERE position = {row['position']}".replace("$ ", "$x$").replace("$,", "$x$,"),
        )
    body = orjson.loads(await site.value("SELECT body FROM intake.dossier WHERE code = $1", code))
    text = orjson.dumps(body | {"chain": chain}).decode()
    await by_hand(site, f"UPDATE intake.dossier SET body = $x${text}$x$ WHERE code = '{code}'")


async def test_a_history_rewritten_with_all_its_hashes_differs_from_the_signed_day(site: RunningSite) -> None:
    codes = await three(site)
    assert await tomorrow(site).seal_next() is True
    assert await tomorrow(site).seal_next() is False
    sealed = await verified(site, codes[0])
    assert (sealed["intact"], sealed["seals"][0]["sealed"], sealed["seals"][0]["dossiers"]) == (True, True, 3)
    await rewrite(site, codes[0])
    answer = await verified(site, codes[0])
    assert (answer["intact"], answer["faults"]) == (False, [])
    assert answer["seals"][0]["reason"] == "seal-differs"
    assert (await verified_today(site))["intact"] is False


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE intake.seal SET events = events + 1", "signature-wrong"),
        ("UPDATE intake.seal SET previous = sha256('x')", "signature-wrong"),
        ("UPDATE intake.seal SET key_id = '0000000000000000'", "key-unknown"),
    ],
)
async def test_a_seal_changed_by_hand_is_found(site: RunningSite, statement: str, reason: str) -> None:
    await three(site)
    await tomorrow(site).seal_next()
    await by_hand(site, statement)
    assert (await verified_today(site))["seals"][0]["reason"] == reason


async def test_seals_are_for_good(site: RunningSite) -> None:
    await three(site)
    await tomorrow(site).seal_next()
    for statement in ("UPDATE intake.seal SET events = 0", "DELETE FROM intake.seal", "TRUNCATE intake.seal"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await site.fetch(statement)


async def exported(site: RunningSite, code: str, file: Path) -> dict[str, Any]:
    answer = await client(site, Role.AUDITOR).get(f"/v1/verify/dossiers/{code}/export")
    assert answer.status_code == 200, answer.text
    file.write_text(answer.text)
    found: dict[str, Any] = answer.json()
    return found


async def test_a_file_is_verified_without_the_site(site: RunningSite, tmp_path: Path) -> None:
    codes = await three(site)
    await tomorrow(site).seal_next()
    own = key_id(site.services["intake"].keys.signing.public_key())
    file = tmp_path / "history.json"
    for code in codes:
        export = await exported(site, code, file)
        answer = verify_file(file, frozenset({own}), None)
        assert (answer["intact"], answer["code"], answer["events"]) == (True, code, len(export["events"]))
    assert verify_file(file, None, own)["intact"] is True
    assert verify_file(file, None, "0" * 16)["seals"][0]["reason"] == "key-not-trusted"
    assert verify_file(file, frozenset(), None)["seals"][0]["reason"] == "key-not-trusted"

    def told(**changed: Any) -> dict[str, Any]:
        file.write_text(orjson.dumps(export | changed).decode())
        return verify_file(file, frozenset({own}), None)

    first, *rest = export["events"]
    assert told(events=[first | {"data": first["data"].replace("counter", "online")}, *rest])["intact"] is False
    assert told(events=rest)["intact"] is False
    assert told(events=export["events"][:-1])["seals"][0]["reason"] == "not-under-the-seal"
    assert told(code=codes[0])["intact"] is False
    unreadable: list[dict[str, Any]] = [{"events": [{}]}, {"seals": [{"day": 1}]}, {"events": None}]
    for changed in unreadable:
        with pytest.raises(CommandFailed, match="is nothing that `lienthong export`"):
            told(**changed)


async def test_who_may_verify(site: RunningSite) -> None:
    code = (await received(client(site, Role.DESK, HOME)))["code"]
    for role in (Role.DESK, Role.OFFICER, Role.LEADER, Role.PORTAL):
        who = client(site, role, None if role is Role.PORTAL else HOME)
        refused(await who.get(f"/v1/verify/dossiers/{code}"), 403, "forbidden")
        refused(await who.get("/v1/verify/days/2026-03-02"), 403, "forbidden")
    refused(await client(site, Role.OPERATOR).get(f"/v1/verify/dossiers/{code}/export"), 403, "forbidden")
    refused(await client(site, Role.AUDITOR).get("/v1/verify/dossiers/H55.242-260101-9999"), 404, "not-found")
