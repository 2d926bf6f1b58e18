"""The articles' registers, counted again from their lines: the generator's own bookkeeping is not asked."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.demo.cases import Case, Verdict, compare, load_cases
from deploy.demo.registers import Register, write_registers
from deploy.demo.sample import load_sample
from shared.clock.calendar import TZ, local_day
from shared.clock.deadline import Limit, Pause, current_due
from shared.contracts.codes import check_dossier_code

OPERATIONS = {
    "receive", "start", "supplement-request", "supplement", "digitisation", "resolution", "return", "rating",
}  # fmt: skip
SAMPLE = yaml.safe_load((Path(__file__).parents[2] / "deploy" / "demo" / "sample.yaml").read_text(encoding="utf-8"))
PLACES = load_sample()
PROCEDURES = {entry["code"]: entry for entry in SAMPLE["procedures"]}
CASES = {case.id: case for case in load_cases()}


@dataclass
class Told:
    """What a register says of one dossier."""

    receipt: dict[str, Any]
    acts: list[tuple[str, datetime, dict[str, Any]]] = field(default_factory=list)

    def first(self, op: str) -> datetime | None:
        return next((at for name, at, _ in self.acts if name == op), None)


@pytest.fixture(scope="module")
def registers(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Register]:
    return {register.case: register for register in write_registers(tmp_path_factory.mktemp("registers"))}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[str(request.param)]


@pytest.fixture
def dossiers(case: Case, registers: Mapping[str, Register]) -> list[Told]:
    return list(_read(registers[case.id].path))


def _read(path: Path) -> Iterator[Told]:
    told: dict[str, Told] = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        at = datetime.fromisoformat(line["at"])
        if line["op"] == "receive":
            assert line["ref"] not in told
            told[line["ref"]] = Told(line)
        told[line["ref"]].acts.append((line["op"], at, line))
    yield from told.values()


def test_every_line_is_an_import_line(case: Case, dossiers: list[Told], registers: Mapping[str, Register]) -> None:
    for dossier in dossiers:
        assert {op for op, _, _ in dossier.acts} <= OPERATIONS
        procedure = PROCEDURES[dossier.receipt["procedure"]]
        day = local_day(dossier.acts[0][1])
        assert procedure["valid_from"] <= day <= (procedure["valid_to"] or date.max)
        assert dossier.receipt["channel"] != "online" or procedure["online"] != "none"
        assert dossier.receipt["receiving_agency"] == case.receiving
        assert "phone" not in dossier.receipt["applicant"]
    assert registers[case.id].dossiers == len(dossiers)
    assert registers[case.id].lines == sum(len(dossier.acts) for dossier in dossiers)


def test_agencies_lived_in_the_time_of_their_case(case: Case) -> None:
    agencies = {entry["code"]: entry for entry in SAMPLE["agencies"]}
    for code in (case.agency, case.receiving):
        assert agencies[code]["valid_from"] <= case.from_
        assert case.to <= (agencies[code]["valid_to"] or date.max)


def test_acts_of_a_dossier_follow_each_other_in_working_time(case: Case, dossiers: list[Told]) -> None:
    calendar = PLACES.calendar_for(case.receiving, dossiers[0].acts[0][1])
    for dossier in dossiers:
        instants = [at for _, at, _ in dossier.acts]
        assert all(earlier < later for earlier, later in pairwise(instants))
        assert case.from_ <= local_day(instants[0]) <= case.to
        for at in instants:
            local = at.astimezone(TZ)
            minute = local.hour * 60 + local.minute
            shifts = calendar.days[local.toordinal()].shifts
            assert any(shift.start <= minute < shift.end for shift in shifts), (dossier.receipt["ref"], at)


def test_counts_are_the_articles(case: Case, dossiers: list[Told]) -> None:
    indicators = _tally(case, dossiers)
    compared = [compare(figure, indicators) for figure in case.figures]
    assert [row for row in compared if row.verdict is Verdict.DIFFERENT] == []
    assert indicators["resolved"]["late"] == 0
    assert indicators["pending"]["overdue"] == 0


def test_misprints_are_named() -> None:
    phu_tien = CASES["phu-tien-2024Q3"]
    indicators = {"digitised": {"percent": 85.28}}
    printed = next(figure for figure in phu_tien.figures if figure.cell == "digitised.percent")
    row = compare(printed, indicators)
    assert row.verdict is Verdict.MISPRINT
    assert "85.28" in (row.note or "")
    assert compare(printed, {"digitised": {"percent": 84.28}}).verdict is Verdict.DIFFERENT


def test_a_percentage_is_equal_at_the_printed_digits() -> None:
    kien_xuong = CASES["kien-xuong-2018Q1"]
    printed = next(figure for figure in kien_xuong.figures if figure.ratio == ("resolved.total", "received.total"))
    row = compare(printed, _totals(1745, 1932))
    assert row.verdict is Verdict.EQUAL
    assert str(row.ours) == "90.32"
    assert compare(printed, _totals(1740, 1932)).verdict is Verdict.DIFFERENT


def test_cut_off_percentage_of_the_plan_is_a_misprint() -> None:
    city = CASES["thai-nguyen-city-2020"]
    plan = next(figure for figure in city.figures if figure.counts)
    assert compare(plan, {}).verdict is Verdict.MISPRINT
    assert str(compare(plan, {}).ours) == "91.67"


def test_everything_of_phu_tien_ended_within_its_quarter(registers: Mapping[str, Register]) -> None:
    case = CASES["phu-tien-2024Q3"]
    for dossier in _read(registers[case.id].path):
        assert local_day(dossier.acts[-1][1]) <= case.to


def test_land_dossiers_name_the_land_office_as_deciding(registers: Mapping[str, Register]) -> None:
    deciding = Counter(told.receipt["deciding_agency"] for told in _read(registers["pho-yen-land-2019"].path))
    assert deciding == {CASES["pho-yen-land-2019"].agency: 15_000}


def test_kept_codes_are_codes_of_the_old_form(registers: Mapping[str, Register]) -> None:
    codes = [told.receipt["code"] for told in _read(registers["kien-xuong-2018Q1"].path)]
    assert len({check_dossier_code(code) for code in codes}) == 1932


def test_same_seed_makes_the_same_bytes(registers: Mapping[str, Register], tmp_path: Path) -> None:
    again = {register.case: register for register in write_registers(tmp_path / "again")}
    other = {register.case: register for register in write_registers(tmp_path / "other", seed=2)}
    for name, register in registers.items():
        assert again[name].path.read_bytes() == register.path.read_bytes()
        assert other[name].path.read_bytes() != register.path.read_bytes()


def _totals(resolved: int, received: int) -> dict[str, Any]:
    return {"resolved": {"total": resolved}, "received": {"total": received}}


def _tally(case: Case, dossiers: list[Told]) -> dict[str, Any]:
    """The Indicators of the period, as far as the articles' figures ask for them."""
    end_of_period = datetime.combine(case.to + timedelta(days=1), datetime.min.time(), TZ)
    seen: Counter[str] = Counter()
    for dossier in dossiers:
        acts = [act for act in dossier.acts if act[1] < end_of_period]
        ended = next((at for op, at, _ in acts if op == "resolution"), None)
        due = _due(dossier)
        seen[dossier.receipt["channel"]] += 1
        if ended is None:
            seen["within" if due >= end_of_period else "overdue"] += 1
        elif local_day(ended) < local_day(due):
            seen["early"] += 1
        else:
            seen["on_time" if ended <= due else "late"] += 1
        if dossier.receipt.get("components"):
            seen["listed"] += 1
            scanned = any(component.get("digitised") for component in dossier.receipt["components"])
            seen["digitised"] += scanned or any(op == "digitisation" for op, _, _ in acts)
        ratings = [line for op, _, line in acts if op == "rating"]
        seen["rated"] += bool(ratings)
        seen["satisfied"] += bool(ratings) and ratings[-1]["level"] in ("satisfied", "very_satisfied")
    resolved = seen["early"] + seen["on_time"] + seen["late"]
    received = seen["online"] + seen["counter"] + seen["postal"]
    return {
        "received": {"total": received, "online": seen["online"]},
        "resolved": {"total": resolved} | {name: seen[name] for name in ("early", "on_time", "late")},
        "pending": {
            "total": seen["within"] + seen["overdue"], "within": seen["within"], "overdue": seen["overdue"],
        },
        "digitised": _share(seen["digitised"], seen["listed"]),
        "online_share": _share(seen["online"], received),
        "satisfaction": _share(seen["satisfied"], seen["rated"]),
    }  # fmt: skip


def _share(numerator: int, denominator: int) -> dict[str, Any]:
    percent = (20_000 * numerator + denominator) // (2 * denominator) / 100 if denominator else None  # half up
    return {"numerator": numerator, "denominator": denominator, "percent": percent}


def _due(dossier: Told) -> datetime:
    received = dossier.acts[0][1]
    asked, brought = dossier.first("supplement-request"), dossier.first("supplement")
    pauses = [Pause(asked.astimezone(UTC), brought.astimezone(UTC))] if asked and brought else []
    calendar = PLACES.calendar_for(dossier.receipt["receiving_agency"], received)
    return current_due(
        Limit.model_validate(PROCEDURES[dossier.receipt["procedure"]]["limit"]), received, calendar, pauses
    )
