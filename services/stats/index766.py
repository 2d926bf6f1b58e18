"""The index of Decision 766 (100 points): scores from counts. Pure; weights, targets, caps and what an empty set scores
are data with a validity date (`formulas.json`), and reproduce every score that the national portal publishes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction
from functools import cache
from importlib import resources
from typing import Any

import orjson

from services.stats.indicator import half_up

GROUPS = ("transparency", "progress", "online", "payment", "digitisation", "satisfaction")


@dataclass(frozen=True, slots=True)
class Rule:
    """score = weight × ratio / target, at most `most`. `empty`: what a denominator of 0 scores. `no_duty`: without any
    counts there is nothing to do, and all has been done."""

    weight: Fraction
    most: Fraction
    target: Fraction = Fraction(1)
    empty: int | None = None
    no_duty: bool = False

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Rule":
        return cls(
            Fraction(entry["weight"]),
            Fraction(entry["max"]),
            Fraction(entry.get("target", 1)),
            entry.get("empty"),
            entry.get("no_duty", False),
        )

    def score(self, numerator: int, denominator: int) -> Fraction:
        return min(self.most, self.weight * Fraction(numerator, denominator) / self.target)


@dataclass(frozen=True, slots=True)
class Formulas:
    """The formulas of one version of the index."""

    valid_from: date
    progress: Rule
    groups: Mapping[str, Mapping[str, Rule]]
    payment: tuple[tuple[str, str, Rule], ...]
    payment_max: int
    online_max: int


@cache
def all_formulas() -> tuple[Formulas, ...]:
    """All versions, the oldest first."""
    text = resources.files("services.stats").joinpath("formulas.json").read_bytes()
    found = [
        Formulas(
            date.fromisoformat(entry["valid_from"]),
            Rule.of(entry["progress"]),
            {group: {code: Rule.of(rule) for code, rule in rules.items()} for group, rules in entry["groups"].items()},
            tuple((part["numerator"], part["denominator"], Rule.of(part)) for part in entry["payment"]["parts"]),
            entry["payment"]["max"],
            entry["online"]["max"],
        )
        for entry in orjson.loads(text)["index766"]
    ]
    return tuple(sorted(found, key=lambda f: f.valid_from))


def formulas_on(day: date) -> Formulas:
    """The version in force on a day; the first one for what was before it."""
    versions = all_formulas()
    return next((f for f in reversed(versions) if f.valid_from <= day), versions[0])


@dataclass(frozen=True, slots=True)
class Scored:
    """A metric's ratio in percent and its score, both rounded; `reason` says why the score is missing."""

    ratio: float | None
    score: float | None
    most: int
    reason: str | None = None


def scored(rule: Rule, numerator: int | None, denominator: int | None) -> Scored:
    most = int(rule.most)
    if numerator is None or denominator is None:
        if numerator is None and denominator is None and rule.no_duty:
            return Scored(100.0, float(most), most)
        return Scored(None, None, most, "no-source")
    if denominator == 0:
        empty = None if rule.empty is None else float(rule.empty)
        return Scored(None, empty, most, None if empty is not None else "nothing-to-count")
    ratio = half_up(Fraction(100 * numerator, denominator))
    return Scored(ratio, half_up(rule.score(numerator, denominator)), most)


def total_of(scores: Iterable[float | None]) -> float | None:
    """The sum of rounded scores, those that are null left out; null when all are."""
    known = [Fraction(str(score)) for score in scores if score is not None]
    return half_up(sum(known, Fraction())) if known else None


def index766(counts: Mapping[str, Any], formulas: Formulas, *, silent: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The counts of one province with ratio, score and max beside them and the groups' scores at the end.

    `counts` are in the portal's shape and the answer keeps their order: `progress` {received, on_time, …}, the lists
    `transparency`, `digitisation`, `satisfaction` of {code, numerator, denominator}, `payment` with its counts and
    perhaps its score, and perhaps `group_scores` {online}. What is null is named in `missing` with its reason.
    `silent` are metrics of which nobody knows whether there was a duty: without counts they have no score.
    """
    answer: dict[str, Any] = {}
    missing: list[dict[str, str]] = []
    groups: dict[str, float | None] = dict.fromkeys(GROUPS)

    def note(field: str, found: Scored) -> dict[str, Any]:
        if found.reason is not None:
            missing.append({"field": field, "reason": found.reason})
        return {"ratio": found.ratio, "score": found.score, "max": found.most}

    for name, given in counts.items():
        if name == "progress":
            found = scored(formulas.progress, given["on_time"], given["received"])
            answer[name] = {**given, **note("progress", found)}
            groups[name] = found.score
        elif name in formulas.groups:
            lines = []
            for line in given:
                rule = formulas.groups[name][line["code"]]
                if line["code"] in silent:
                    rule = replace(rule, no_duty=False)
                lines.append(
                    {**line, **note(f"{name}.{line['code']}", scored(rule, line["numerator"], line["denominator"]))}
                )
            answer[name] = lines
            groups[name] = total_of(line["score"] for line in lines)
        elif name == "payment":
            parts = [scored(rule, given.get(n), given.get(d)) for n, d, rule in formulas.payment]
            score = given.get("score")
            rest = {key: value for key, value in given.items() if key != "score"}
            answer[name] = {**rest, "score": score}
            if score is None:
                answer[name]["computable"] = total_of(part.score for part in parts)
                missing.append({"field": "payment.score", "reason": "no-source"})
            answer[name]["max"] = formulas.payment_max
            groups[name] = score
        elif name != "group_scores":
            answer[name] = given
    groups["online"] = (counts.get("group_scores") or {}).get("online")
    if groups["online"] is None:
        missing.append({"field": "group_scores.online", "reason": "no-source"})
    for name, score in groups.items():
        if score is None and name not in counts and name != "online":
            missing.append({"field": name, "reason": "no-source"})
    whole = all(score is not None for score in groups.values())
    answer["group_scores"] = {**groups, "total": total_of(groups.values()) if whole else None}
    if not whole:
        answer["group_scores"]["subtotal"] = total_of(groups.values())
    return {"missing": missing, **answer} if missing else answer
