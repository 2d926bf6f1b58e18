"""The articles' cases: what they printed, and how our figures compare with it."""

from collections.abc import Mapping
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

CASES = Path(__file__).with_name("cases.yaml")

# A number with the digits that the article printed: YAML reads 24.1 as a float, whose text is the print.
Printed = Annotated[Decimal, BeforeValidator(str)]


class Figure(BaseModel):
    """One printed number, and where ours comes from: a cell, two cells, or the article's own counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: Literal["register", "article"] = "register"
    cell: str | None = None
    ratio: tuple[str, str] | None = None
    difference: tuple[str, str] | None = None
    counts: tuple[int, int] | None = None
    article: Printed
    compare: Literal["equal", "at_least", "about", "between"] = "equal"
    between: tuple[Decimal, Decimal] | None = None
    ours: Printed | None = None
    erratum: str | None = None
    note: str | None = None


class Case(BaseModel):
    """One article's case: a period of one agency, with the desk whose register is imported for it."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    id: str
    title: str
    place: str
    agency: str
    receiving: str
    by: Literal["receiving", "deciding"]
    from_: date = Field(alias="from")
    to: date
    figures: tuple[Figure, ...]


class Verdict(StrEnum):
    """How a figure of ours stands beside the article's."""

    EQUAL = "equal"
    DIFFERENT = "different"
    # Ours is what the article's own counts give; the erratum says what was printed wrongly.
    MISPRINT = "misprint"
    # The article's matter is not in a register of dossiers: shown, not compared.
    RECORDED = "recorded"


class Comparison(NamedTuple):
    """One row of the demo's table."""

    name: str
    article: Decimal
    ours: Decimal | None
    verdict: Verdict
    note: str | None


def load_cases(path: Path = CASES) -> tuple[Case, ...]:
    """The cases in the order of the file; pydantic's ValidationError if it is not of the form."""
    file = yaml.safe_load(path.read_text(encoding="utf-8"))
    return tuple(Case.model_validate(case) for case in file["cases"])


def compare(figure: Figure, indicators: Mapping[str, Any]) -> Comparison:
    """Put one printed figure beside ours; `indicators`: the Indicators JSON of the case's agency and period.

    A percentage is compared at the digits that were printed: 90.32 is equal to a printed 90,3.
    """
    ours = _ours(figure, indicators)
    note = figure.erratum or figure.note
    return Comparison(figure.name, figure.article, ours, _verdict(figure, ours), note)


def _ours(figure: Figure, indicators: Mapping[str, Any]) -> Decimal | None:
    if figure.counts:
        return _percent(*figure.counts)
    if figure.ratio:
        numerator, denominator = (_cell(indicators, cell) for cell in figure.ratio)
        return _percent(numerator, denominator) if numerator is not None and denominator else None
    if figure.difference:
        whole, part = (_cell(indicators, cell) for cell in figure.difference)
        return whole - part if whole is not None and part is not None else None
    return _cell(indicators, figure.cell) if figure.cell else None


def _cell(indicators: Mapping[str, Any], path: str) -> Decimal | None:
    value: Any = indicators
    for name in path.split("."):
        value = value[name]
    return None if value is None else Decimal(str(value))


def _percent(numerator: int | Decimal, denominator: int | Decimal) -> Decimal:
    return (100 * Decimal(numerator) / Decimal(denominator)).quantize(Decimal("0.01"), ROUND_HALF_UP)


def _verdict(figure: Figure, ours: Decimal | None) -> Verdict:
    if ours is None:
        return Verdict.RECORDED if figure.source == "article" else Verdict.DIFFERENT
    if figure.erratum:
        return Verdict.MISPRINT if ours == figure.ours else Verdict.DIFFERENT
    return Verdict.EQUAL if _agrees(figure, ours) else Verdict.DIFFERENT


def _agrees(figure: Figure, ours: Decimal) -> bool:
    if figure.compare == "at_least":
        return ours >= figure.article
    if figure.between:
        low, high = figure.between
        return low <= ours <= high
    return ours.quantize(figure.article, ROUND_HALF_UP) == figure.article
