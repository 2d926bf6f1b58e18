"""The commands verify, erase and keys on a running site."""

import asyncio
import json
from pathlib import Path
from typing import Any

import asyncpg

from tests.acceptance.command import Up, lienthong, receipt, running, until


def receive(up: Up, **fields: Any) -> str:
    with up.http("intake") as http:
        return str(http.post("/v1/dossiers", json=receipt(**fields)).json()["code"])


def answer(up: Up, *arguments: object, status: int = 0) -> Any:
    ran = lienthong(*arguments, "--json", data=up.data)
    assert ran.returncode == status, ran.stdout + ran.stderr
    return json.loads(ran.stdout)


def test_erase(up: Up) -> None:
    person = {"kind": "citizen", "name": "Lê Thị Quên", "phone": "0912000111", "citizen_id": "034099000111"}
    codes = [receive(up, applicant=person) for _ in range(2)]
    done = answer(up, "erase", codes[0])
    assert done["dossiers"] == sorted(codes)
    assert done["everywhere"] is True
    record = [r for r in asyncio.run(up.bus().records("lienthong.contact.v1")) if r.value is None][-1]
    assert record.key == done["contact_ref"].encode()
    with up.http("intake") as http:
        read = http.get(f"/v1/dossiers/{codes[1]}")
    assert (read.status_code, read.json()["state"]) == (200, 2)
    assert "Quên" not in read.text
    note = json.loads((up.data / "erasures.ndjson").read_text().splitlines()[-1])
    assert note["contact_ref"] == done["contact_ref"]
    assert lienthong("erase", "H55.242-260101-9999", data=up.data).returncode == 1


async def tamper(up: Up, code: str) -> None:
    connection = await asyncpg.connect(up.ready["database"], ssl=False)
    try:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(
            "UPDATE intake.event SET payload = replace(payload, 'counter', 'online')"
            " WHERE aggregateid = $1 AND aggregatetype = 'dossier'",
            code,
        )
    finally:
        await connection.close()


def test_verify(up: Up, tmp_path: Path) -> None:
    code, other = receive(up), receive(up)
    file = tmp_path / "history.json"
    assert answer(up, "verify", code, "--out", file)["intact"] is True
    assert answer(up, "verify", file)["events"] == 1
    assert lienthong("verify", file).returncode == 0
    asyncio.run(tamper(up, code))
    found = answer(up, "verify", code, status=1)
    assert [fault["reason"] for fault in found["faults"]] == ["chain-broken"]
    assert answer(up, "verify", other)["intact"] is True
    assert lienthong("verify", "H55.242-260101-9999", data=up.data).returncode == 1
    file.write_text("{}")
    ran = lienthong("verify", file)
    assert (ran.returncode, "Traceback" in ran.stderr) == (1, False)


def test_keys_rotate_while_the_site_works(tmp_path: Path) -> None:
    with running(tmp_path / "data") as up:
        code = receive(up)
        with up.http("intake") as old:
            done = answer(up, "keys", "rotate")
            assert set(done["new"]) == set(done["old"]) == {"site", "data", "link", "seal"}
            assert old.get(f"/v1/dossiers/{code}").json()["applicant"]["name"] == "Nguyễn Văn Mẫu"
            with up.http("intake") as new:
                assert old.headers["authorization"] != new.headers["authorization"]
                assert new.get(f"/v1/dossiers/{code}").status_code == 200
        fresh = receive(up)
        with up.http("notify") as http:

            def told() -> bool:
                items = http.get("/v1/notices", params={"dossier": fresh}).json()["items"]
                return [item["state"] for item in items] in (["sent"], ["delivered"])

            until(told, "the applicant is told after the rotation")
    with running(tmp_path / "data") as up, up.http("intake") as http:
        assert http.get(f"/v1/dossiers/{code}").json()["applicant"]["phone"] == "+84912345678"
