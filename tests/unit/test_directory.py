"""What services ask of the directory."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from shared.contracts.events import ToLevel, ToSector
from shared.directory.bundle import LevelTarget, NoticeRule, SectorTarget
from shared.directory.directory import (
    Directory,
    NoTarget,
    UnknownAgency,
    UnknownCalendar,
    UnknownProcedure,
    UnknownTemplate,
)
from shared.directory.merge import merge
from shared.directory.reading import parse_bundle

TODAY = date(2026, 10, 10)

# A province with a district that ended on 2025-07-01, two communes that became one, and sector agencies.
BUNDLE = """
site: {code: H55, name: Tỉnh Thái Nguyên}
agencies:
  - {code: H55, name: Tỉnh, level: province}
  - {code: H55.10, name: Huyện cũ, level: district, parent: H55, valid_to: 2025-06-30, successor: H55.242}
  - {code: H55.10.1, name: Xã cũ một, level: commune, parent: H55.10, valid_to: 2025-06-30, successor: H55.242}
  - {code: H55.10.2, name: Xã cũ hai, level: commune, parent: H55.10, valid_to: 2025-06-30, successor: H55.10.3}
  - {code: H55.10.3, name: Xã tạm, level: commune, parent: H55.10, valid_from: 2025-07-01, valid_to: 2025-12-31,
     successor: H55.242}
  - {code: H55.242, name: Xã Phú Tiến, level: commune, parent: H55, valid_from: 2025-07-01}
  - {code: H55.242.1, name: Công an xã, level: sector, parent: H55.242, site: null, sector: police}
  - {code: H55.243, name: Phường, level: commune, parent: H55, valid_from: 2025-07-01}
  - {code: H55.17, name: Công an tỉnh, level: sector, parent: H55, site: null, sector: police}
  - {code: H55.18, name: Thuế cũ, level: sector, parent: H55, sector: tax, valid_to: 2025-12-31, successor: H55.19}
  - {code: H55.19, name: Thuế mới, level: sector, parent: H55, sector: revenue, valid_from: 2026-01-01}
  - {code: H55.20, name: Đóng hẳn, level: sector, parent: H55, sector: closed, valid_to: 2025-12-31}
procedures:
  - {code: "1.001193", name: Khai sinh, field: {code: G01-TP01, name: Hộ tịch},
     limit: {value: 0, unit: working_days}, valid_from: 2025-07-01, valid_to: 2026-12-31}
calendars:
  - {agency: H55, version: 1, valid_from: 2025-07-01, same_day_cutoff: "14:00"}
  - {agency: H55, version: 2, valid_from: 2026-07-01, same_day_cutoff: "14:30"}
  - {agency: H55.243, version: 1, valid_from: 2025-07-01, same_day_cutoff: "16:00"}
templates:
  - {name: received, version: 1, lang: vi, text: "cũ {code}"}
  - {name: received, version: 3, lang: vi, text: "mới {code}"}
"""


@pytest.fixture(scope="module")
def directory() -> Directory:
    return Directory(merge(None, parse_bundle(BUNDLE))[0])


def test_an_agency_is_found_by_either_form_of_its_code(directory: Directory) -> None:
    assert directory.agency("000.00.17.H55").name == "Công an tỉnh"
    assert directory.agency("H55.17") is directory.agencies["H55.17"]


@pytest.mark.parametrize("code", ["H56", "H55.999", "no code at all", ""])
def test_an_unknown_agency_is_said_to_be_unknown(directory: Directory, code: str) -> None:
    with pytest.raises(UnknownAgency) as unknown:
        directory.agency(code)
    assert unknown.value.reason == "unknown-agency"


def test_both_ends_of_validity_are_inside(directory: Directory) -> None:
    assert directory.valid_on("H55.10", date(2025, 6, 30))
    assert not directory.valid_on("H55.10", date(2025, 7, 1))
    assert directory.valid_on("H55.242", date(2025, 7, 1))
    assert not directory.valid_on("H55.242", date(2025, 6, 30))


def test_a_closed_agency_s_place_is_taken_along_the_chain_of_successors(directory: Directory) -> None:
    assert directory.successor_of("H55.10.2", date(2025, 6, 30)) == "H55.10.2"
    assert directory.successor_of("H55.10.2", date(2025, 8, 1)) == "H55.10.3"
    assert directory.successor_of("H55.10.2", TODAY) == "H55.242"


def test_nothing_is_sent_to_an_agency_that_closed_without_a_successor(directory: Directory) -> None:
    with pytest.raises(NoTarget, match="nobody succeeds"):
        directory.successor_of("H55.20", TODAY)
    with pytest.raises(NoTarget):
        directory.successor_of("H55.242", date(2025, 1, 1))


def test_above_and_below(directory: Directory) -> None:
    assert directory.ancestors("H55.10.1") == ("H55.10", "H55")
    assert directory.ancestors("H55") == ()
    assert directory.subtree("H55.10") == {"H55.10", "H55.10.1", "H55.10.2", "H55.10.3"}
    assert directory.subtree("H55") == set(directory.agencies)


def test_scope_is_the_agency_and_what_it_succeeds(directory: Directory) -> None:
    succeeded = {"H55.242", "H55.10", "H55.10.1", "H55.10.2", "H55.10.3"}
    assert directory.scope("H55.242") == succeeded
    assert directory.scope("H55.242", subtree=True) == succeeded | {"H55.242.1"}
    assert directory.scope("H55.243") == {"H55.243"}
    assert directory.scope("H55", subtree=True) == set(directory.agencies)


def test_figures_are_not_inherited_by_a_successor(directory: Directory) -> None:
    assert directory.subtree("H55.242") == {"H55.242", "H55.242.1"}


def test_a_level_is_the_nearest_upwards(directory: Directory) -> None:
    assert directory.resolve_target(LevelTarget(level="province"), "H55.242", TODAY) == "H55"
    assert directory.resolve_target(ToLevel(level="province"), "H55", TODAY) == "H55"
    with pytest.raises(NoTarget, match="of level ministry"):
        directory.resolve_target(LevelTarget(level="ministry"), "H55.242", TODAY)


def test_a_district_is_no_target_after_it_ended(directory: Directory) -> None:
    district = LevelTarget(level="district")
    assert directory.resolve_target(district, "H55.10.1", date(2025, 6, 30)) == "H55.10"
    assert directory.resolve_target(district, "H55.10.1", TODAY) == "H55.242"


def test_a_sector_is_found_under_the_nearest_ancestor_that_has_one(directory: Directory) -> None:
    police = SectorTarget(sector="police")
    assert directory.resolve_target(police, "H55.242", TODAY) == "H55.242.1"
    assert directory.resolve_target(police, "H55.243", TODAY) == "H55.17"
    assert directory.resolve_target(ToSector(sector="tax"), "H55.243", TODAY) == "H55.19"
    assert directory.resolve_target(ToSector(sector="tax"), "H55.243", date(2025, 12, 31)) == "H55.18"
    for sector in ("army", "closed"):
        with pytest.raises(NoTarget):
            directory.resolve_target(SectorTarget(sector=sector), "H55.243", TODAY)


def test_a_named_agency_is_itself_or_its_successor(directory: Directory) -> None:
    assert directory.resolve_target("000.00.17.H55", "H55.242", TODAY) == "H55.17"
    assert directory.resolve_target("H55.18", "H55.242", TODAY) == "H55.19"
    with pytest.raises(UnknownAgency):
        directory.resolve_target("H56", "H55.242", TODAY)


def test_a_procedure_is_in_force_or_not(directory: Directory) -> None:
    assert directory.procedure_on("1.001193", TODAY) is directory.procedure("1.001193")
    assert directory.procedure_on("1.001193", date(2027, 1, 1)) is None
    with pytest.raises(UnknownProcedure):
        directory.procedure("9.999999")


def test_an_agency_without_a_calendar_uses_its_nearest_ancestor_s(directory: Directory) -> None:
    autumn = datetime(2026, 10, 10, 1, 0, tzinfo=UTC)
    assert directory.calendar_for("H55.242.1", autumn).version == 2
    assert directory.calendar_for("H55.243", autumn).same_day_cutoff == "16:00"


def test_the_version_is_the_one_of_the_local_day_of_receipt(directory: Directory) -> None:
    last_of_june = datetime(2026, 6, 30, 16, 59, tzinfo=UTC)
    first_of_july = datetime(2026, 6, 30, 17, 0, tzinfo=UTC)
    assert directory.calendar_for("H55.242", last_of_june).version == 1
    assert directory.calendar_for("H55.242", first_of_july).version == 2
    assert directory.calendar_for("H55.242", datetime(2020, 1, 1, tzinfo=UTC)).version == 1


def test_a_frozen_version_is_found_again(directory: Directory) -> None:
    assert directory.calendar("H55", 1).same_day_cutoff == "14:00"
    assert directory.calendar("H55.242", 2).agency == "H55"
    assert directory.calendar("H55", 0) is directory.site.default_calendar
    with pytest.raises(UnknownCalendar):
        directory.calendar("H55", 9)


def test_without_any_calendar_the_default_of_the_site_holds() -> None:
    plain = "site: {code: H55, name: T}\nagencies: [{code: H55, name: T, level: province}]"
    directory = Directory(merge(None, parse_bundle(plain))[0])
    calendar = directory.calendar_for("H55", datetime(2026, 10, 10, tzinfo=UTC))
    assert (calendar.agency, calendar.version, calendar.same_day_cutoff) == ("H55", 0, "15:00")
    assert calendar.shifts["fri"] == ("07:30-11:30", "13:00-17:00")
    assert "sat" not in calendar.shifts


def test_the_newest_text_is_used_and_a_missing_language_falls_back(directory: Directory) -> None:
    assert directory.template("received").text == "mới {code}"
    assert directory.template("received", "en").lang == "en"
    with pytest.raises(UnknownTemplate):
        directory.template("farewell")


def test_who_is_told_of_an_act(directory: Directory) -> None:
    rule = rule_of(directory)
    assert rule is not None
    assert (rule.template, rule.by) == ("received", ("sms", "postal"))
    assert rule_of(directory, "digitised") is None
    assert rule_of(directory, "returned", return_by="postal") is None  # a template that is switched off


def rule_of(directory: Directory, act: str = "received", **of: Any) -> NoticeRule | None:
    told: dict[str, Any] = {"agency": "H55.242", "procedure": "1", "return_by": "counter", "day": date(2026, 10, 10)}
    return directory.notice_for(act, **told | of)


def test_the_narrowest_rule_that_fits_counts() -> None:
    directory = Directory(
        merge(
            None,
            parse_bundle(
                """
site: {code: H55, name: T}
agencies: [{code: H55, name: T, level: province}, {code: H55.242, name: X, level: commune, parent: H55}]
procedures: [{code: "1", name: P, field: {code: F, name: F}, limit: {value: 1, unit: days}}]
templates:
  - {name: received, version: 1, text: "cũ {code}", valid_to: 2026-06-30}
  - {name: received, version: 2, text: "mới {code}", valid_from: 2026-07-01}
notices:
  - {act: received, template: received}
  - {act: received, template: refused, agency: H55}
  - {act: received, template: stopped, agency: H55.242, valid_from: 2026-01-01, valid_to: 2026-12-31}
  - {act: received, template: extended, agency: H55.242, valid_from: 2026-07-01}
  - {act: received, template: resolved, procedure: "1", agency: H55, enabled: false}
  - {act: received, template: returned, agency: H55, channel: online}
carriers:
  - {name: a, kind: file}
  - {name: b, kind: file, agency: H55, kinds: [deliver]}
  - {name: c, kind: file, agency: H55.242, kinds: [deliver]}
  - {name: d, kind: file, agency: H55.242, kinds: [deliver]}
"""
            ),
        )[0]
    )

    def template(**of: Any) -> str | None:
        rule = rule_of(directory, **of)
        return None if rule is None else rule.template

    assert template(agency="H31", procedure="2") == "received"
    assert template(agency="H55", procedure="2") == "refused"
    assert template(procedure="2", day=date(2026, 1, 1)) == "stopped"
    assert template(procedure="2", day=date(2025, 12, 31)) == "refused"
    assert template(procedure="2") == "extended"
    assert template(agency="H55", procedure="2", channel="online") == "returned"
    assert template(agency="H55", procedure="2", channel="postal") == "refused"
    assert template(procedure="2", channel="online") == "extended"  # the nearer agency's goes first
    assert template() is None  # the one for the procedure, and it is switched off
    for agency, kind, name in (
        ("H55.242", "deliver", "c"), ("H55", "deliver", "b"), ("H55.242", "collect", "a"), ("H31", "deliver", "a")
    ):  # fmt: skip
        carrier = directory.carrier_for(agency, kind)  # type: ignore[arg-type]
        assert carrier is not None
        assert carrier.name == name
    assert directory.template("received", day=date(2026, 6, 30)).text == "cũ {code}"
    assert directory.template("received", day=date(2026, 7, 1)).text == "mới {code}"
    assert directory.template("received", day=date(2025, 7, 1)).version == 1
