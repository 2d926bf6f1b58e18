"""The end of the districts on 2025-07-01 in Thái Nguyên (with Bắc Kạn), with the real units: what lay open goes on with the
commune that came after, and what was is still read under its old names."""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from services.routing.transfer import Walk
from shared.contracts.codes import uuid7
from shared.contracts.events import RouteStep, ToLevel
from shared.directory.directory import Directory
from shared.directory.merge import merge
from shared.directory.reading import parse_bundle

LAST, FIRST = date(2025, 6, 30), date(2025, 7, 1)
BEFORE, AFTER = datetime(2025, 6, 25, 2, 0, tzinfo=UTC), datetime(2025, 7, 2, 2, 0, tzinfo=UTC)
PROVINCE = "H55"


def successors() -> dict[str, str]:
    """Each commune of before, named `province_district_commune`, and the one that it went to for the most part."""
    file = Path(str(distribution("vietnamadminunits").locate_file("vietnamadminunits/data/converter_2025.json")))
    units: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    whole = units["DICT_PROVINCE_WARD_NO_DIVIDED"]["tinhthainguyen"]
    split = units["DICT_PROVINCE_WARD_DIVIDED"].get("tinhthainguyen", {})
    found = {old: new for new, olds in whole.items() for old in olds}
    return found | {old: next(n["newWardKey"] for n in news if n["isDefaultNewWard"]) for old, news in split.items()}


class Reorganisation:
    """The directory of before and of after, and the codes that the units have in it."""

    def __init__(self) -> None:
        self.went = successors()
        districts = sorted({old.rpartition("_")[0] for old in self.went})
        names = [*districts, *sorted(self.went), *sorted(set(self.went.values()))]
        self.code = {name: f"{PROVINCE}.{number}" for number, name in enumerate(names, start=1000)}
        self.districts = [self.code[name] for name in districts]
        began = {"valid_from": "2000-01-01"}
        before = [self.agency(name, "district", PROVINCE, **began) for name in districts]
        before += [self.agency(old, "commune", self.code[old.rpartition("_")[0]], **began) for old in self.went]
        ended = {"valid_to": LAST.isoformat()}
        after = [self.agency(name, "district", PROVINCE, **began, **ended, successor=PROVINCE) for name in districts]
        after += [
            self.agency(old, "commune", self.code[old.rpartition("_")[0]], **began, **ended, successor=self.code[new])
            for old, new in self.went.items()
        ]
        new = {"valid_from": FIRST.isoformat()}
        after += [self.agency(name, "commune", PROVINCE, **new) for name in sorted(set(self.went.values()))]
        province = {"code": PROVINCE, "name": "Tỉnh Thái Nguyên", "level": "province", "parent": None, "site": PROVINCE}
        site = {"code": PROVINCE, "name": "Tỉnh Thái Nguyên"}
        first = merge(None, parse_bundle(json.dumps({"site": site, "agencies": [province, *before]})))[0]
        second = merge(first, parse_bundle(json.dumps({"site": site, "agencies": [province, *after]})))[0]
        self.before, self.after = Directory(first), Directory(second)

    def agency(self, name: str, level: str, parent: str, **more: str) -> Mapping[str, Any]:
        return {"code": self.code[name], "name": name, "level": level, "parent": parent, "site": PROVINCE, **more}


@pytest.fixture(scope="module")
def units() -> Reorganisation:
    return Reorganisation()


def walk_to(to: str | ToLevel, agency: str, directory: Directory, at: datetime) -> Walk:
    walk = Walk(f"{agency}-250625-0001", agency, 4, None)
    walk.begin((RouteStep(step=1, to=to, limit=None, transfer=uuid7()),), uuid7(), uuid7(), directory, at)
    walk.events.clear()
    return walk


def test_the_units_are_the_real_ones(units: Reorganisation) -> None:
    """92 communes and wards of the new province, after 17 districts, towns and cities of two old ones."""
    assert len(set(units.went.values())) == 92
    assert len(units.districts) == 17
    assert len(units.went) > 250


def test_each_open_leg_goes_on_with_the_commune_that_came_after(units: Reorganisation) -> None:
    for old, new in units.went.items():
        walk = walk_to(units.code[old], PROVINCE, units.before, BEFORE)
        [leg] = walk.transfers
        assert (walk.transfers[leg].receiver, walk.transfers[leg].state) == (units.code[old], "delivered")
        walk.leave_closed({leg: (again := uuid7())}, units.after, AFTER)
        was, goes_on = walk.transfers[leg], walk.transfers[again]
        assert (was.state, was.replaced_by) == ("rerouted", again)
        assert "đã ngừng hoạt động" in (was.reason or "")
        assert (goes_on.receiver, goes_on.state) == (units.code[new], "delivered")
        assert goes_on.redirected_from == units.code[old]


def test_what_is_asked_of_a_closed_commune_later_goes_to_its_successor_and_says_so(units: Reorganisation) -> None:
    old, new = next(iter(units.went.items()))
    walk = walk_to(units.code[old], PROVINCE, units.after, AFTER)
    [transfer] = walk.transfers.values()
    assert (transfer.receiver, transfer.redirected_from) == (units.code[new], units.code[old])


def test_three_tiers_before_and_two_after(units: Reorganisation) -> None:
    old, new = next(iter(units.went.items()))
    district = units.code[old.rpartition("_")[0]]
    [before] = walk_to(ToLevel(level="district"), units.code[old], units.before, BEFORE).transfers.values()
    assert (before.receiver, before.state) == (district, "delivered")
    [after] = walk_to(ToLevel(level="district"), units.code[new], units.after, AFTER).transfers.values()
    assert (after.state, after.no_target) == ("refused", True)
    [above] = walk_to(ToLevel(level="province"), units.code[new], units.after, AFTER).transfers.values()
    assert (above.receiver, above.state) == (PROVINCE, "delivered")


def test_history_is_read_under_its_old_names(units: Reorganisation) -> None:
    for old in units.went:
        agency = units.after.agency(units.code[old])
        assert agency.name == old
        assert units.after.valid_on(agency.code, LAST)
        assert not units.after.valid_on(agency.code, FIRST)
    for district in units.districts:
        assert units.after.agency(district).level == "district"
        assert not units.after.valid_on(district, FIRST)
