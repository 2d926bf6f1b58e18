"""What the pages of stats have in common: the templates, and numbers as they are written in Vietnamese. Pure."""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader

from services.stats.report import ROW_HEADER, Heading, numbers


def shown(number: float | None) -> str:
    """Vietnamese figures: 1.234 and 12,5; what is hidden is a dash."""
    if number is None:
        return "–"
    text = f"{number:,}" if isinstance(number, int) else f"{number:,.2f}"
    return text.translate(str.maketrans(",.", ".,"))


def shown_percent(number: float | None) -> str:
    return "–" if number is None else f"{shown(float(number))} %"


def _source(name: str) -> str:
    return resources.files("services.stats").joinpath(f"templates/{name}").read_text(encoding="utf-8")


@cache
def templates() -> Environment:
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=FunctionLoader(_source), auto_reload=False
    )
    environment.filters["number"] = shown
    environment.filters["percent"] = shown_percent
    environment.filters["numbers"] = numbers
    return environment


def report_page(made: Mapping[str, Any], over: Heading) -> str:
    """Report II.06a as a page made for print."""
    template = templates().get_template("report.html")
    return template.render(rows=made["rows"], total=made["total"], over=over, header=ROW_HEADER[over.rows])
