"""Erasing a person: data and key go everywhere, the dossiers and their history stay."""

from base64 import b64decode, b64encode
from typing import Any

import asyncpg
import httpx
import pytest

from shared.contracts.codes import uuid7
from shared.security.keys import load_keys
from shared.security.sealing import new_data_key, seal
from shared.security.tokens import Role
from tests.harness import RunningSite
from tests.integration.intake_site import (
    HOME,
    OTHER,
    client,
    done,
    dossier,
    history,
    person,
    received,
    refused,
    submitted,
)

CONTACT = "lienthong.contact.v1"
CITIZEN = "034099001234"


async def erased(site: RunningSite, code: str) -> dict[str, Any]:
    answer = await client(site, Role.ADMIN).post("/v1/erasures", json={"code": code})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def search(who: httpx.AsyncClient, **by: str) -> list[str]:
    answer = await who.post("/v1/dossiers/search", json=by)
    return [item["code"] for item in answer.json()["items"]]


async def test_the_person_goes_everywhere_and_the_history_stays(site: RunningSite) -> None:
    admin, desk = client(site, Role.ADMIN), client(site, Role.DESK, HOME)
    someone = person(citizen_id=CITIZEN, phone="0912345678", address="Xóm 1")
    codes = [(await received(desk, applicant=someone))["code"] for _ in range(2)]
    await done(admin, codes[0], "start")
    await done(admin, codes[0], "resolution", result="granted")
    await done(admin, codes[0], "rating", level="satisfied", comment="Anh Mẫu làm tốt")
    before = await history(admin, codes[0])
    ref = await site.value("SELECT contact_ref FROM intake.dossier WHERE code = $1", codes[0])
    await site.until(lambda: site.value("SELECT wrapped IS NOT NULL FROM notify.contact WHERE contact_ref = $1", ref))
    await site.until(lambda: site.value("SELECT count(*) >= 3 FROM notify.notice WHERE recipient = $1", ref))

    answer = await erased(site, codes[1])
    assert answer["contact_ref"] == ref
    assert answer["dossiers"] == sorted(codes)
    assert answer["already"] is False

    # here: no data, no key, no hash, no remark; the log keeps number and digest
    row = (await site.fetch("SELECT * FROM intake.contact WHERE contact_ref = $1", ref))[0]
    assert [row[c] for c in ("nonce", "ciphertext", "wrapped", "person_hash", "phone_hash")] == [None] * 5
    assert not await site.fetch("SELECT FROM intake.remark WHERE code = ANY ($1)", codes)
    log = await site.fetch("SELECT * FROM intake.event WHERE aggregateid = $1 ORDER BY sequence", ref)
    assert [row["sequence"] for row in log] == list(range(1, len(log) + 1))
    assert log[-1]["type"] == "contact.erased"
    assert all(row["payload"] is None for row in log)
    assert all(len(row["digest"]) == 32 for row in log[:-1])
    # at notify: neither the contact nor a notice's text
    gone = "SELECT wrapped IS NULL AND ciphertext IS NULL FROM notify.contact WHERE contact_ref = $1"
    await site.until(lambda: site.value(gone, ref))
    assert not await site.value("SELECT count(*) FROM notify.notice WHERE recipient = $1 AND wrapped IS NOT NULL", ref)
    # on the bus: a null value under the contact_ref, with the headers of an event
    record = [r for r in await site.bus.records(CONTACT) if r.key == ref.encode()][-1]
    assert record.value is None
    assert record.header["ce_type"] == "vn.lienthong.contact.erased.v1"
    assert record.sequence == len(log)
    assert not {"content-type", "ce_dataschema"} & record.header.keys()

    # the dossier without the person; its history whole
    read = (await desk.get(f"/v1/dossiers/{codes[0]}")).json()
    assert (read["state"], read["applicant"]) == (9, None)
    assert await history(admin, codes[0]) == before
    assert await search(desk, phone="0912345678") == []
    assert await search(desk, citizen_id=CITIZEN) == []
    assert (await erased(site, codes[0]))["already"] is True


async def test_who_applies_again_is_somebody_new(site: RunningSite) -> None:
    desk = client(site, Role.DESK, HOME)
    someone = person(citizen_id="034099005678")
    first = (await received(desk, applicant=someone))["code"]
    ref = (await erased(site, first))["contact_ref"]
    second = (await received(desk, applicant=someone))["code"]
    assert await site.value("SELECT contact_ref FROM intake.dossier WHERE code = $1", second) != ref
    assert (await desk.get(f"/v1/dossiers/{first}")).json()["applicant"] is None
    assert (await desk.get(f"/v1/dossiers/{second}")).json()["applicant"]["name"] == someone["name"]


async def test_a_submission_sent_again_after_the_erasure_does_not_bring_the_erased_back(site: RunningSite) -> None:
    portal = client(site, Role.PORTAL, name="portal-e")
    code = (await submitted(portal, applicant=person()))["code"]
    ref = (await erased(site, code))["contact_ref"]
    again = dossier(code=code, channel="online", applicant=person(name="Trần Thị Khác"))
    assert (await portal.post("/v1/submissions", json=again)).status_code == 200
    assert await site.value("SELECT ciphertext IS NULL FROM intake.contact WHERE contact_ref = $1", ref)
    assert await site.value("SELECT contact_ref FROM intake.dossier WHERE code = $1", code) != ref


async def test_only_admin_erases(site: RunningSite) -> None:
    code = (await received(client(site, Role.DESK, HOME)))["code"]
    for role in (Role.DESK, Role.OFFICER, Role.LEADER, Role.AUDITOR, Role.OPERATOR, Role.PORTAL):
        who = client(site, role, OTHER if role in (Role.DESK, Role.OFFICER, Role.LEADER) else None)
        refused(await who.post("/v1/erasures", json={"code": code}), 403, "forbidden")
    unknown = await client(site, Role.ADMIN).post("/v1/erasures", json={"code": "H55.242-260101-9999"})
    refused(unknown, 404, "not-found")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE intake.event SET payload = replace(payload, '2', '3') WHERE aggregatetype = 'dossier'",
        "UPDATE intake.event SET payload = NULL WHERE aggregatetype = 'dossier'",
        "UPDATE intake.event SET payload = NULL WHERE aggregatetype = 'contact'",  # without its digest
        "UPDATE intake.event SET recorded = recorded - interval '1 day'",
        "DELETE FROM intake.event",
        "TRUNCATE intake.event",
    ],
)
async def test_the_log_is_append_only_for_the_owner_of_the_database_too(site: RunningSite, statement: str) -> None:
    await received(client(site, Role.DESK, HOME))
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
        await site.fetch(statement)


async def test_what_a_peer_gives_back_stands_as_it_was_and_no_code_is_issued_twice(site: RunningSite) -> None:
    """As after a restoration: another dossier's whole life, corrected once, under a code that this database does not know."""
    admin, desk, sibling = client(site, Role.ADMIN), client(site, Role.DESK, HOME), client(site, Role.SERVICE)
    known = (await received(desk))["code"]
    await done(admin, known, "start")
    await done(admin, known, "extension", reason="cần xác minh", due_at="2099-01-05T17:00:00+07:00")
    undone = (await history(admin, known))[-1]["id"]
    await done(admin, known, "correction", undoes=undone, reason="nhầm hồ sơ")
    asked = {"topic": "lienthong.dossier.v1", "key": known}
    events = (await sibling.get("/v1/ledger", params=asked)).json()["items"]
    code = f"{known.rpartition('-')[0]}-4711"
    ids = {event["id"]: str(uuid7()) for event in events}
    back = [{**event, "key": code, "id": ids[event["id"]], "data": event["data"]} for event in events]
    [corrected] = [event for event in back if event["type"] == "dossier.corrected"]
    corrected["data"] = b64encode(b64decode(corrected["data"]).replace(undone.encode(), ids[undone].encode())).decode()

    async def give(*items: dict[str, Any]) -> dict[str, Any]:
        answer = await sibling.post("/v1/restored", json={"events": list(items), "erased": []})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    assert await give(*back[:2]) == {"taken": 2, "forked": {}}
    assert await give(*back) == {"taken": len(back) - 2, "forked": {}}
    assert await give(*back) == {"taken": 0, "forked": {}}
    mine, other = [(await admin.get(f"/v1/dossiers/{each}")).json() for each in (code, known)]
    for name in ("state", "due_at", "received_at", "version", "procedure", "receiving_agency"):
        assert mine[name] == other[name], name
    assert [each["id"] for each in await history(admin, code)] == list(ids.values())
    assert (await client(site, Role.AUDITOR).get(f"/v1/verify/dossiers/{code}")).json()["intact"]
    await done(admin, code, "resolution", result="granted")  # it goes on
    elsewhere = {**back[-1], "sequence": len(back) + 1, "id": str(uuid7())}
    assert await give(elsewhere) == {"taken": 0, "forked": {code: len(back) + 1}}
    assert (await received(desk))["code"].rpartition("-")[2] == "4712"
    refused(await desk.post("/v1/restored", json={"events": [], "erased": []}), 403, "forbidden")


async def test_an_applicant_comes_back_sealed_as_once_here_and_who_does_not_is_asked_again(site: RunningSite) -> None:
    """As after a restoration: a dossier comes back without its applicant; the applicant, with a transfer, or by the desk."""
    admin, desk, sibling = client(site, Role.ADMIN), client(site, Role.DESK, HOME), client(site, Role.SERVICE)
    await site.fetch("INSERT INTO intake.restored VALUES ('2020-01-02Z', '2020-01-01Z', true)")
    known = (await received(desk))["code"]
    own = await site.value("SELECT contact_ref FROM intake.dossier WHERE code = $1", known)
    [event] = (await sibling.get("/v1/ledger", params={"topic": "lienthong.dossier.v1", "key": known})).json()["items"]
    refs = {f"{known.rpartition('-')[0]}-481{n}": f"c{uuid7().hex}" for n in (1, 2)}
    keys, data_key = load_keys(site.backing.keys), new_data_key()

    async def give(**given: Any) -> None:
        answer = await sibling.post("/v1/restored", json={"events": [], "erased": [], **given})
        assert answer.status_code == 200, answer.text

    def sealed(ref: str, phone: str) -> dict[str, str]:
        made = seal(keys, ref, person(phone=phone) | {"phone": phone}, data_key)
        return {"contact_ref": ref, "nonce": made.nonce, "ciphertext": made.ciphertext, "wrapped": made.wrapped}

    async def phone_of(code: str) -> Any:
        return ((await admin.get(f"/v1/dossiers/{code}")).json().get("applicant") or {}).get("phone")

    back = [
        {
            **event,
            "key": code,
            "id": str(uuid7()),
            "data": b64encode(b64decode(event["data"]).replace(own.encode(), ref.encode())).decode(),
        }
        for code, ref in refs.items()
    ]
    await give(events=back)
    page = (await desk.get("/desk/missing")).text
    assert all(code in page for code in refs)
    assert known not in page
    (first, ref), (second, _) = refs.items()
    await give(people=[sealed(ref, "+84912345671")])
    assert await phone_of(first) == "+84912345671"
    await give(people=[sealed(ref, "+84912345672")])  # as it was handed over later
    assert await phone_of(first) == "+84912345672"
    assert first not in (await desk.get("/desk/missing")).text
    await give(whole=True)
    await give(people=[sealed(ref, "+84912345673")])  # all had come back: what stands here is newer
    assert await phone_of(first) == "+84912345672"
    await site.until(lambda: site.value("SELECT wrapped IS NOT NULL FROM notify.contact WHERE contact_ref = $1", ref))

    asked = await desk.post(f"/desk/missing/{second}", data={"name": "Nguyễn Văn Mẫu", "phone": "0912345674"})
    assert asked.headers["location"] == f"/desk/dossiers/{second}"
    assert await phone_of(second) == "+84912345674"
    assert second not in (await desk.get("/desk/missing")).text
    again = await desk.post(f"/desk/missing/{second}", data={"name": "Ai Khác"})
    assert again.headers["location"] == "/desk/missing"  # nobody is missing there any more

    await erased(site, first)
    await give(people=[sealed(ref, "+84912345675")])
    assert await phone_of(first) is None
