"""The plan of the live day holds together: every name is saved before it is used, every code is valid today."""

import re
from datetime import UTC, date, datetime
from typing import Any

import pytest
import yaml

from deploy.demo.day import Step, cut_day, desks_of, live_day
from deploy.demo.places import PROVINCE, SITES, UPPER, WARD, load_places
from deploy.demo.sample import SAMPLE
from shared.contracts.codes import normalise_phone
from shared.directory.merge import merge
from shared.directory.reading import parse_bundle

NOW = datetime(2026, 10, 10, 2, 0, tzinfo=UTC)
BUNDLE: dict[str, Any] = yaml.safe_load(SAMPLE.read_text(encoding="utf-8"))
ROLES = {"desk", "officer", "leader", "portal"}


@pytest.fixture
def steps() -> list[Step]:
    return live_day(NOW)


def test_names_are_saved_before_they_are_used(steps: list[Step]) -> None:
    saved: set[str] = set()
    for step in steps:
        assert set(re.findall(r"\{([^}]+)\}", step.path)) <= saved, step.name
        assert not saved & set(step.saves), step.name
        saved |= set(step.saves)


def test_all_four_services_are_asked(steps: list[Step]) -> None:
    assert {step.service for step in steps} == {"intake", "routing", "notify", "stats"}


def test_what_travels_is_only_waited_for_by_reading(steps: list[Step]) -> None:
    assert all(step.method == "GET" for step in steps if step.eventually)
    assert all(step.body is None for step in steps if step.method == "GET")


def test_agencies_and_procedures_are_valid_today(steps: list[Step]) -> None:
    agencies = {entry["code"] for entry in BUNDLE["agencies"] if _valid(entry, NOW.date())}
    procedures = {entry["code"]: entry for entry in BUNDLE["procedures"] if _valid(entry, NOW.date())}
    assert {agency for _, _, agency in desks_of(steps) if agency} <= agencies
    assert {role for _, role, _ in desks_of(steps)} <= ROLES
    filed = [step.body for step in steps if step.body and "procedure" in step.body]
    assert len(filed) >= 35
    for body in filed:
        assert body["receiving_agency"] in agencies
        assert body["channel"] != "online" or procedures[body["procedure"]]["online"] != "none"
        assert body["procedure"] in procedures
        if "phone" in body["applicant"]:
            assert normalise_phone(body["applicant"]["phone"]).startswith("+84")


def test_the_extension_promises_a_later_day(steps: list[Step]) -> None:
    extension = next(step.body for step in steps if step.path.endswith("/extension"))
    assert extension is not None
    assert datetime.fromisoformat(extension["due_at"]) > NOW


def test_each_step_is_asked_for_on_the_site_of_who_does_it(steps: list[Step]) -> None:
    works = {entry["code"]: entry["site"] for entry in load_places()[PROVINCE]["agencies"]}
    assert {step.site for step in steps} == set(SITES)
    for step in steps:
        if step.agency is not None and works[step.agency] is not None:
            assert step.site == works[step.agency], step.name
    assert any(step.site == WARD and works[step.agency or PROVINCE] is None for step in steps), "the tax office, there"


def test_while_the_line_is_cut_nothing_is_waited_for_that_lies_behind_it() -> None:
    day = cut_day(NOW)
    known: set[str] = set()
    for part in (day.before, day.meanwhile, day.after):
        for step in part:
            assert set(re.findall(r"\{([^}]+)\}", step.path)) <= known, step.name
            known |= set(step.saves)
    asked = [step for step in day.meanwhile if step.eventually]
    assert {step.site for step in asked} == {WARD}
    assert sum(step.eventually == {"/items/0/state": "sent"} for step in asked) == day.handed_over > 0
    assert {step.site for step in day.after} == set(SITES)


def test_every_site_knows_itself_and_who_is_above_it() -> None:
    for code, bundle in load_places().items():
        site, _ = merge(None, parse_bundle(yaml.safe_dump(bundle)))
        assert (site.site.code, site.site.upper) == (code, UPPER.get(code))
        assert any(agency.code == code == agency.site for agency in site.agencies)


def _valid(entry: dict[str, Any], day: date) -> bool:
    return bool(entry["valid_from"] <= day <= (entry["valid_to"] or date.max))
