"""Reading a bundle: what is refused, where, and in which words; and what loading it changes."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from shared.directory.bundle import ACTS, Bundle, Site, bundle_schema
from shared.directory.defaults import DEFAULT_NOTICES, DEFAULT_TEMPLATES
from shared.directory.faults import BundleFault, codes_in_circles
from shared.directory.merge import merge
from shared.directory.reading import load_bundle, parse_bundle

BUNDLE = """
site: {code: H55, name: Tỉnh Thái Nguyên, upper: null}
agencies:
  - {code: H55, name: Tỉnh Thái Nguyên, level: province}
  - {code: H55.242, name: Xã Phú Tiến, level: commune, parent: H55, site: H55, sector: null,
     valid_from: 2025-07-01, valid_to: null, successor: null, petition_contact: null}
  - {code: 000.00.17.H55, name: Công an tỉnh, level: sector, parent: H55, site: null, sector: police}
procedures:
  - {code: "1.001193", name: Đăng ký khai sinh, field: {code: G01-TP01, name: Hộ tịch}, level: commune,
     online: full, fee: 0, confidential: false, payment_pauses: false, limit: {value: 0, unit: working_days},
     components: [{name: Tờ khai, required: true}],
     route: [{step: 1, to: H55.17, limit: {value: 4, unit: hours}},
             {step: 2, to: {level: province}, limit: {value: 0.5, unit: working_days}},
             {step: 2, to: {sector: police}}],
     valid_from: 2025-07-01, valid_to: null, decided_on: 2025-06-20, effective_on: 2025-07-01,
     published_on: 2025-06-25, content_full: true}
calendars:
  - {agency: H55, version: 1, valid_from: 2025-07-01, public_holidays: true, same_day_cutoff: 15:00,
     receipt_only: [sat], shifts: {mon: ["07:30-11:30", "13:00-17:00"], sat: ["07:30-11:30"]},
     closed: [2027-03-01], open: [2027-03-06]}
providers:
  - {name: a, kind: http, url: "http://127.0.0.1:9999/sms", secret: s3cret, per_second: 50, dedupes: true}
  - {name: file, kind: file}
notices: [{act: received, by: [sms], template: received}]
templates: [{name: received, version: 1, lang: vi, tones: keep, parts: 2, text: "Hồ sơ {code}, hẹn {due}"}]
quiet_hours: {from: "22:00", to: "07:00"}
sms: {sender: THAINGUYEN, expire_hours: 24}
carriers: [{name: file, kind: file}]
portals: [{name: national, url: "https://portal.example/api", unit: H55, version: 1, secret_env: PORTAL}]
"""


def tree() -> dict[str, Any]:
    """The bundle as JSON values, with the fields that it gives."""
    document: dict[str, Any] = json.loads(parse_bundle(BUNDLE).model_dump_json(exclude_unset=True))
    return document


def faults_of(change: dict[str, Any] | str, current: Site | None = None) -> dict[str, str]:
    text, name = (change, "b.yaml") if isinstance(change, str) else (json.dumps(change), "b.json")
    with pytest.raises(BundleFault) as refused:
        parse_bundle(text, name, current)
    assert all(line.startswith(f"{name}: ") and "\n" not in line for line in refused.value.lines())
    return {fault.pointer: fault.detail for fault in refused.value.faults}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The bundle with one value put at a pointer; a list is appended to at its length."""
    document: Any = tree()
    place = document
    *parents, last = path.strip("/").split("/")
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    if isinstance(place, list) and int(last) == len(place):
        place.append(value)
    elif isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
    return document  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------------------- reading


def test_yaml_and_json_say_the_same() -> None:
    assert parse_bundle(BUNDLE) == parse_bundle(json.dumps(tree()), "bundle.json")


def test_values_keep_their_meaning() -> None:
    bundle = parse_bundle(BUNDLE)
    assert bundle.agencies[2].code == "H55.17"
    assert bundle.agencies[1].valid_from == date(2025, 7, 1)
    assert bundle.procedures[0].code == "1.001193"
    assert bundle.calendars[0].same_day_cutoff == "15:00"
    assert [step.limit.value for step in bundle.procedures[0].route if step.limit] == [4, 0.5]


def test_site_and_agencies_are_enough() -> None:
    bundle = parse_bundle("site: {code: H55, name: T}\nagencies: [{code: H55, name: T, level: province}]")
    site, _ = merge(None, bundle)
    assert site.quiet_hours is not None
    assert [provider.kind for provider in site.providers] == ["file"]
    assert site.notices == DEFAULT_NOTICES


def test_the_published_schema_accepts_the_bundle_and_refuses_an_unknown_field() -> None:
    schema = bundle_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(tree(), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed("/agencies/1/colour", "red"), schema)


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/agencies/1/level", "village"),
        ("/agencies/1/code", "xyz"),
        ("/agencies/1/name", "  "),
        ("/agencies/1/name", "x" * 201),
        ("/agencies/1/valid_from", "2025-02-30"),
        ("/agencies/1/valid_from", 20250701),
        ("/agencies/1/colour", "red"),
        ("/agencies/1/parent", "H55.999"),
        ("/agencies/1/parent", "H55.242"),
        ("/agencies/1/successor", "H56"),
        ("/agencies/1/valid_to", "2025-06-30"),
        ("/procedures/0/code", 1.001193),
        ("/procedures/0/fee", "0"),
        ("/procedures/0/fee", -1),
        ("/procedures/0/online", "maybe"),
        ("/procedures/0/limit/value", 0.5),
        ("/procedures/0/limit/unit", "weeks"),
        ("/procedures/0/valid_to", "2025-01-01"),
        ("/procedures/0/route/0/to", "H55.18"),
        ("/procedures/0/route/1/to/level", "village"),
        ("/procedures/0/route/2/to/sector", "army"),
        ("/procedures/0/route/1/limit/value", 0.25),
        ("/calendars/0/agency", "H55.999"),
        ("/calendars/0/version", 0),
        ("/calendars/0/same_day_cutoff", "25:00"),
        ("/calendars/0/receipt_only/0", "saturday"),
        ("/calendars/0/shifts/mon/0", "11:30-07:30"),
        ("/calendars/0/shifts/mon/1", "1pm-5pm"),
        ("/calendars/0/shifts/mon", ["07:30-12:00", "11:00-17:00"]),
        ("/calendars/0/shifts", {}),
        ("/providers/0/url", "not a url"),
        ("/providers/0/url", None),
        ("/providers/0/kind", "pigeon"),
        ("/providers/1/name", "a"),
        ("/notices/0/act", "applauded"),
        ("/notices/0/template", "none"),
        ("/templates/0/text", "Hồ sơ {mã}"),
        ("/templates/0/text", "Hồ sơ {code"),
        ("/templates/0/lang", "fr"),
        ("/quiet_hours/from", "22h"),
        ("/sms/sender", "MUCH TOO LONG"),
        ("/sms/sender", "Thái Nguyên"),
        ("/portals/0/unit", "H56"),
        ("/site/upper", "H55"),
        ("/farewell", "goodbye"),
    ],
)
def test_a_fault_is_told_with_its_pointer(pointer: str, value: Any) -> None:
    assert set(faults_of(changed(pointer, value))) == {pointer}


def test_a_missing_field_is_named() -> None:
    document = tree()
    del document["agencies"][1]["level"]
    del document["site"]["name"]
    assert faults_of(document) == {
        "/agencies/1/level": "this field is missing",
        "/site/name": "this field is missing",
    }


def test_codes_used_twice_are_faults_in_either_form() -> None:
    again = {"code": "H55.17", "name": "Công an", "level": "sector", "parent": "H55"}
    assert set(faults_of(changed("/agencies/3", again))) == {"/agencies/3/code"}
    assert set(faults_of(changed("/procedures/1", tree()["procedures"][0]))) == {"/procedures/1/code"}
    assert set(faults_of(changed("/calendars/1", tree()["calendars"][0]))) == {"/calendars/1/version"}
    assert set(faults_of(changed("/templates/1", tree()["templates"][0]))) == {"/templates/1/version"}


def test_halves_of_days_and_months_are_refused() -> None:
    for unit in ("days", "months"):
        faults = faults_of(changed("/procedures/0/route/1/limit", {"value": 1.5, "unit": unit}))
        assert set(faults) == {"/procedures/0/route/1/limit/value"}


def test_circles_of_parents_and_successors_are_faults() -> None:
    faults = faults_of(changed("/agencies/0/parent", "H55.242"))
    assert set(faults) == {"/agencies/0/parent", "/agencies/1/parent"}
    document = changed("/agencies/1/successor", "H55.17")
    document["agencies"][2]["successor"] = "H55.242"
    assert set(faults_of(document)) == {"/agencies/1/successor", "/agencies/2/successor"}


def test_only_what_lies_on_a_circle_is_on_it() -> None:
    assert codes_in_circles({"a": "b", "b": "c", "c": "b", "d": None, "e": "a"}) == {"b", "c"}


def test_faults_of_shape_and_of_reference_are_told_together_and_once() -> None:
    document = changed("/agencies/1/level", "village")
    document["agencies"][1]["parent"] = "H55.999"
    document["procedures"][0]["code"] = 1.001193
    document["procedures"][0]["route"][0]["to"] = "H55.18"
    document["calendars"][0]["version"] = "one"
    document["calendars"][0]["agency"] = "H55.77"
    assert set(faults_of(document)) == {
        "/agencies/1/level",
        "/agencies/1/parent",
        "/procedures/0/code",
        "/procedures/0/route/0/to",
        "/calendars/0/version",
        "/calendars/0/agency",
    }


def test_an_unquoted_code_is_told_to_be_quoted() -> None:
    faults = faults_of(BUNDLE.replace('"1.001193"', "1.001193"))
    assert "quotes" in faults["/procedures/0/code"]


def test_an_agency_may_stand_below_the_upper_site_before_the_link_brought_it() -> None:
    bundle = parse_bundle(
        "site: {code: H55.242, name: Xã, upper: H55}\n"
        "agencies: [{code: H55.242, name: Xã, level: commune, parent: H55}]"
    )
    assert bundle.agencies[0].parent == "H55"


# ------------------------------------------------------------------------------------------------- parsing


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("site: [", "broken.yaml"),
        ("site: {}\n  bad: 1", "broken.yaml"),
        ("\x00", "broken.yaml"),
        ("", "empty.yaml"),
        ("- a", "list.yaml"),
        ("a: 1\na: 2", "twice.yaml"),
        ("!!python/object:os.system x", "tagged.yaml"),
        ("? {a: b}\n: c", "key.yaml"),
        ("a: &a [*a]", "circle.yaml"),
        ("[" * 60_000 + "]" * 60_000, "deep.yaml"),
        ("- " * 60_000, "deep.yaml"),
        ('{"site": ', "broken.json"),
        ("[" * 60_000 + "]" * 60_000, "deep.json"),
        ('{"a": "\\ud800"}', "surrogate.json"),
    ],
)
def test_what_cannot_be_parsed_is_one_sentence_with_the_file_s_name(text: str, name: str) -> None:
    with pytest.raises(BundleFault) as refused:
        parse_bundle(text, name)
    [line] = refused.value.lines()
    assert line.startswith(f"{name}: ")


def test_a_file_that_is_missing_or_no_text_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BundleFault, match=r"gone\.yaml: this file cannot be opened"):
        load_bundle(tmp_path / "gone.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"site: \xff")
    with pytest.raises(BundleFault, match=r"latin\.yaml: this file is not UTF-8 text"):
        load_bundle(tmp_path / "latin.yaml")


def test_a_file_is_read_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(BUNDLE, encoding="utf-8-sig")
    assert load_bundle(tmp_path / "b.yaml") == parse_bundle(BUNDLE)


# ------------------------------------------------------------------------------------------------- merging


def loaded() -> Site:
    return merge(None, parse_bundle(BUNDLE))[0]


def test_loading_the_same_bundle_twice_changes_nothing() -> None:
    site = loaded()
    again, differences = merge(site, parse_bundle(BUNDLE, current=site))
    assert differences == ()
    assert again == site


def test_a_site_is_stored_as_one_document_and_read_back() -> None:
    site = loaded()
    stored = Site.model_validate_json(site.model_dump_json())
    assert stored == site
    assert merge(stored, parse_bundle(BUNDLE))[1] == ()


def test_a_partial_bundle_adds_and_keeps_the_rest() -> None:
    site = loaded()
    part = parse_bundle(
        "site: {code: H55, name: Tỉnh Thái Nguyên}\n"
        "agencies: [{code: H55.300, name: Xã mới, level: commune, parent: H55}]",
        current=site,
    )
    merged, differences = merge(site, part)
    assert [(each.kind, each.id, each.before) for each in differences] == [("agency", "H55.300", None)]
    assert merged.agencies[-1].site == "H55"
    assert merged.providers == site.providers
    assert merged.quiet_hours == site.quiet_hours
    assert len(merged.agencies) == 4


def test_a_reference_to_what_is_already_loaded_is_no_fault() -> None:
    text = "site: {code: H55, name: T}\nagencies: []\nportals: [{name: p, url: 'http://x/', unit: H55.242}]"
    assert parse_bundle(text, current=loaded()).portals[0].unit == "H55.242"
    assert set(faults_of(text)) == {"/portals/0/unit"}


def test_a_change_shows_the_fields_that_differ_and_no_secret() -> None:
    site = loaded()
    document = changed("/agencies/1/name", "Xã Phú Tiến (mới)")
    document["providers"][0]["secret"] = "another"
    _, differences = merge(site, parse_bundle(json.dumps(document), "b.json", site))
    agency, providers = differences
    assert (agency.before, agency.after) == ({"name": "Xã Phú Tiến"}, {"name": "Xã Phú Tiến (mới)"})
    assert providers.kind == "providers"
    assert "s3cret" not in repr(differences)
    assert "another" not in repr(differences)


def test_a_calendar_version_never_changes() -> None:
    site = loaded()
    document = changed("/calendars/0/closed", ["2027-03-02"])
    faults = faults_of(document, site)
    assert set(faults) == {"/calendars/0/version"}
    assert "already loaded" in faults["/calendars/0/version"]
    with pytest.raises(BundleFault):
        merge(site, Bundle.model_validate_json(json.dumps(document)))
    document["calendars"][0]["version"] = 2
    merged, _ = merge(site, parse_bundle(json.dumps(document), "b.json", site))
    assert [calendar.version for calendar in merged.calendars] == [1, 2]


def test_a_calendar_written_otherwise_but_equal_is_the_same_version() -> None:
    site = loaded()
    document = changed("/calendars/0/shifts/mon", ["13:00-17:00", "07:30-11:30"])
    document["calendars"][0]["shifts"]["tue"] = []
    assert merge(site, parse_bundle(json.dumps(document), "b.json", site))[1] == ()


def test_a_newer_holiday_package_changes_no_stored_version() -> None:
    site = loaded()
    older = site.calendars[0].model_copy(update={"holidays": frozenset({date(2026, 1, 1)})})
    site = site.model_copy(update={"calendars": (older,)})
    merged, differences = merge(site, parse_bundle(BUNDLE, current=site))
    assert differences == ()
    assert merged.calendars[0].holidays == {date(2026, 1, 1)}


def test_null_quiet_hours_switch_them_off_and_silence_keeps_them() -> None:
    site, _ = merge(loaded(), parse_bundle(json.dumps(changed("/quiet_hours", None)), "b.json"))
    assert site.quiet_hours is None
    silent = parse_bundle("site: {code: H55, name: Tỉnh Thái Nguyên}\nagencies: []", current=site)
    assert merge(site, silent)[0].quiet_hours is None


def test_a_bundle_of_another_site_is_refused() -> None:
    other = "site: {code: H56, name: Khác}\nagencies: [{code: H56, name: Khác, level: province}]"
    assert set(faults_of(other, loaded())) == {"/site/code"}


# ------------------------------------------------------------------------------------------------ defaults


def test_every_default_notice_has_a_text_in_both_languages_that_names_the_code() -> None:
    told = {"received", "refused", "supplement-requested", "payment-requested", "extended", "rescheduled",
            "resolved", "stopped"}  # fmt: skip
    assert {rule.act for rule in DEFAULT_NOTICES if rule.enabled} == told
    told |= {"returned"}
    assert {rule.act for rule in DEFAULT_NOTICES} == told <= ACTS
    texts = {(template.name, template.lang): template.text for template in DEFAULT_TEMPLATES}
    assert texts.keys() == {(name, lang) for name in told for lang in ("vi", "en")}
    assert all("{code}" in text for text in texts.values())
