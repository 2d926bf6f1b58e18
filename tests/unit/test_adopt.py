"""What a site takes over from its neighbour's directory, and what stays its own."""

import orjson

from shared.directory.adopt import Entry, adopt, offered
from shared.directory.bundle import Site
from shared.directory.merge import merge
from shared.directory.reading import parse_bundle

UPPER = """
site: {code: H55, name: Tỉnh}
agencies:
  - {code: H55, name: Tỉnh, level: province}
  - {code: H55.24, name: Đất đai, level: sector, parent: H55, sector: land}
  - {code: H55.242, name: Xã, level: commune, parent: H55, site: H55.242}
calendars:
  - {agency: H55, version: 1, valid_from: 2025-07-01}
"""
LOWER = """
site: {code: H55.242, name: Xã, upper: H55}
agencies: [{code: H55.242, name: Xã của mình, level: commune, parent: H55, site: H55.242}]
"""


def site(text: str, current: Site | None = None) -> Site:
    return merge(current, parse_bundle(text, current=current))[0]


def over_the_link(current: Site, upper: Site, before: dict[Entry, str]) -> tuple[Site, dict[Entry, str]]:
    return adopt(current, orjson.loads(orjson.dumps(offered(upper))), before)


def names(of: Site) -> dict[str, str]:
    return {agency.code: agency.name for agency in of.agencies}


def test_what_is_new_is_taken_and_what_is_its_own_stays() -> None:
    lower, taken = over_the_link(site(LOWER), site(UPPER), {})
    assert names(lower) == {"H55.242": "Xã của mình", "H55": "Tỉnh", "H55.24": "Đất đai"}
    assert [(each.agency, each.version) for each in lower.calendars] == [("H55", 1)]
    assert ("agencies", "H55.24") in taken


def test_the_same_again_changes_nothing() -> None:
    lower, taken = over_the_link(site(LOWER), site(UPPER), {})
    assert over_the_link(lower, site(UPPER), taken)[0] is lower


def test_a_change_above_comes_down_unless_it_was_changed_here() -> None:
    lower, taken = over_the_link(site(LOWER), site(UPPER), {})
    renamed = site(UPPER.replace("Đất đai", "Đất đai mới"))
    assert names(over_the_link(lower, renamed, taken)[0])["H55.24"] == "Đất đai mới"
    own = (
        "site: {code: H55.242, name: Xã, upper: H55}\nagencies: [{code: H55.24, name: Riêng, level: sector, site: H55}]"
    )
    assert names(over_the_link(site(own, lower), renamed, taken)[0])["H55.24"] == "Riêng"


def test_upwards_a_site_tells_of_its_own_agencies_alone() -> None:
    told = offered(site(LOWER), {"H55.242"})
    assert [(kind, entry["code"]) for kind, entry in told] == [("agencies", "H55.242")]
    upper = site(UPPER)
    strange = [("agencies", {**told[0][1], "code": "H55.99", "site": "H55"})]
    assert adopt(upper, strange, {}, {"H55.242"})[0] is upper
