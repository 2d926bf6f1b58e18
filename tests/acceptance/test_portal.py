"""`lienthong portal`: two portals of the bundle, one of them down for days, and a record that one of them refuses."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.command import Up, lienthong, receipt, until
from tests.portal_stub import Portal, serving

AGENCY = "H55.218"  # no other test of this site receives for it
NOT_LISTED = "Mã TTHC không có trong danh mục"


@dataclass
class Portals:
    province: Portal
    nation: Portal


@pytest.fixture
def portals(up: Up, tmp_path: Path) -> Iterator[Portals]:
    """The province's portal, of the first version, and the nation's, of the second; the site's bundle names them."""
    both = Portals(Portal(AGENCY), Portal(AGENCY))
    with serving(both.province) as first, serving(both.nation) as second:
        named = [
            {"name": "province", "url": first, "unit": AGENCY, "version": 1},
            {"name": "national", "url": second, "unit": AGENCY, "version": 2},
        ]
        loaded(up, tmp_path, named)
        yield both
        loaded(up, tmp_path, [])
    assert both.province.complaints + both.nation.complaints == []


def loaded(up: Up, folder: Path, portals: list[dict[str, Any]]) -> None:
    bundle = folder / "portals.json"
    bundle.write_text(
        json.dumps(
            {"site": {"code": "H55", "name": "Tỉnh Thái Nguyên", "upper": None}, "agencies": [], "portals": portals}
        )
    )
    done = lienthong("site", "load", bundle, data=up.data)
    assert done.returncode == 0, done.stdout + done.stderr


def status(up: Up) -> dict[str, dict[str, Any]]:
    done = lienthong("portal", "status", "--json", data=up.data)
    assert done.returncode == 0, done.stderr
    return {item["name"]: item for item in json.loads(done.stdout)}


def test_a_portal_that_was_down_for_days_and_one_that_refuses(up: Up, portals: Portals) -> None:
    portals.nation.down = 503
    with up.http("intake") as http:
        household = receipt(AGENCY, applicant={"kind": "household", "name": "Hộ Lý Thị Mận"})
        codes = [http.post("/v1/dossiers", json=body).json()["code"] for body in (household, receipt(AGENCY))]
        portals.province.refuse[codes[1]] = NOT_LISTED
        for code in codes:
            assert http.post(f"/v1/dossiers/{code}/start", json={}).status_code == 200

    def shown() -> dict[str, dict[str, Any]]:
        now = status(up)
        waits, refused = now["national"]["waiting"] == len(codes), now["province"]["refused"] == 1
        return now if waits and refused and now["national"]["down_since"] and now["province"]["sent"] == 1 else {}

    now = until(shown, "the province's portal has told, the nation's is down")
    assert now["national"]["error"] == "HTTP 503"
    assert [(refusal["code"], refusal["reason"]) for refusal in now["province"]["refusals"]] == [
        (codes[1], f"-1: {NOT_LISTED}")
    ]
    assert NOT_LISTED in lienthong("portal", "status", data=up.data).stdout

    # Three days pass for the portal, and it comes back.
    asyncio.run(
        up.rows("UPDATE intake.portal SET down = down - interval '3 days', next_at = now() WHERE name = 'national'")
    )
    portals.nation.down = None
    until(lambda: all(len(portals.nation.steps.get(code, ())) == 2 for code in codes), "all of it is told")
    assert [[step["TrangThai"] for step in portals.nation.steps[code]] for code in codes] == [["2", "4"], ["2", "4"]]
    kinds = [portal.records[codes[0]]["LoaiDoiTuong"] for portal in (portals.province, portals.nation)]
    assert kinds == ["2", "2"]  # a household: an organisation to the first version
    assert portals.nation.records[codes[1]]["LoaiDoiTuong"] == "0"

    portals.province.refuse.clear()
    done = lienthong("portal", "resend", "--refused", "--portal", "province", "--json", data=up.data)
    assert json.loads(done.stdout) == [{"portal": "province", "dossiers": 1}]
    until(lambda: codes[1] in portals.province.records, "the refused one is taken")
    assert portals.province.records[codes[1]]["LoaiDoiTuong"] == "1"
    now = until(lambda: _calm(status(up), len(codes)), "nothing waits")
    assert [now[name]["down_since"] for name in now] == [None, None]

    before = len(portals.nation.calls)
    assert lienthong("portal", "resend", codes[0], "--portal", "national", data=up.data).returncode == 0
    until(lambda: ("update", codes[0]) in portals.nation.calls[before:], "it is told again, as an update")
    assert lienthong("portal", "resend", data=up.data).returncode == 2
    none = lienthong("portal", "resend", "H55.218-260101-9999", "--portal", "national", data=up.data)
    assert none.returncode == 1
    assert "Traceback" not in none.stderr


def _calm(now: dict[str, dict[str, Any]], sent: int) -> dict[str, dict[str, Any]]:
    return now if all((item["waiting"], item["refused"], item["sent"]) == (0, 0, sent) for item in now.values()) else {}
