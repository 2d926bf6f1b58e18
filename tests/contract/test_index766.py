"""The index of Decision 766: every score that the national portal publishes comes out of its counts."""

import copy
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from services.stats.index766 import all_formulas, formulas_on, index766

PUBLISHED = json.loads((Path(__file__).parent / "data" / "index766_published.json").read_text())["provinces"]
FORMULAS = formulas_on(date(2026, 10, 10))
COMPUTED = ("ratio", "score", "max")


def counts_of(province: dict[str, Any], *, given: bool) -> dict[str, Any]:
    """What the portal counts, without what is computed; `given`: with the two scores that no counts are published for."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: bare(inner) for key, inner in value.items() if key not in COMPUTED}
        return [bare(inner) for inner in value] if isinstance(value, list) else value

    counts: dict[str, Any] = bare(province)
    del counts["group_scores"]
    if given:
        counts["payment"]["score"] = province["payment"]["score"]
        counts["group_scores"] = {"online": province["group_scores"]["online"]}
    return counts


@pytest.mark.parametrize("province", PUBLISHED, ids=lambda p: p["code"])
def test_published_scores_come_out(province: dict[str, Any]) -> None:
    answer = index766(counts_of(province, given=True), FORMULAS)
    assert answer == province
    assert list(answer) == list(province)
    assert [list(line) for line in answer["digitisation"]] == [list(line) for line in province["digitisation"]]


@pytest.mark.parametrize("province", PUBLISHED, ids=lambda p: p["code"])
def test_what_is_not_published_is_null_and_named(province: dict[str, Any]) -> None:
    answer = index766(counts_of(province, given=False), FORMULAS)
    scores = answer["group_scores"]
    assert answer["payment"]["score"] is scores["payment"] is scores["online"] is scores["total"] is None
    known = ("transparency", "progress", "digitisation", "satisfaction")
    assert scores["subtotal"] == pytest.approx(sum(province["group_scores"][name] for name in known))
    assert {entry["field"] for entry in answer["missing"]} == {"payment.score", "group_scores.online"}
    assert 0 < answer["payment"]["computable"] < province["payment"]["score"]


def test_nothing_to_count() -> None:
    counts = counts_of(copy.deepcopy(PUBLISHED[0]), given=True)
    counts["progress"] |= {"received": 0, "on_time": 0}
    for group in ("transparency", "satisfaction"):
        for line in counts[group]:
            line |= {"numerator": 0, "denominator": 0}
    answer = index766(counts, FORMULAS)
    assert answer["progress"]["ratio"] is answer["progress"]["score"] is None
    assert answer["group_scores"]["progress"] is answer["group_scores"]["transparency"] is None
    assert [line["score"] for line in answer["satisfaction"]] == [6, 6, 0]
    assert [line["ratio"] for line in answer["satisfaction"]] == [None, None, None]
    assert answer["group_scores"]["satisfaction"] == 12
    assert {"field": "transparency.DOSSIER_SYNC", "reason": "nothing-to-count"} in answer["missing"]


def test_a_metric_without_a_source_is_left_out_of_its_group() -> None:
    counts = counts_of(copy.deepcopy(PUBLISHED[0]), given=True)
    line = counts["digitisation"][3]
    score = PUBLISHED[0]["digitisation"][3]["score"]
    line |= {"numerator": None, "denominator": None}
    answer = index766(counts, FORMULAS)
    assert answer["digitisation"][3]["score"] is None
    assert answer["group_scores"]["digitisation"] == pytest.approx(PUBLISHED[0]["group_scores"]["digitisation"] - score)
    assert answer["missing"] == [{"field": f"digitisation.{line['code']}", "reason": "no-source"}]


def test_the_index_has_100_points() -> None:
    for formulas in all_formulas():
        rules = [rule for group in formulas.groups.values() for rule in group.values()]
        metrics = sum(rule.most for rule in rules) + formulas.progress.most
        assert metrics + formulas.payment_max + formulas.online_max == 100
