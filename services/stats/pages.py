"""What the pages of stats have in common: the templates, and numbers as they are written in Vietnamese. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any, Final
from urllib.parse import urlencode

from jinja2 import Environment, FunctionLoader

from services.stats.figures import names_of
from services.stats.report import ROW_HEADER, Heading, numbers
from services.stats.store import Question
from shared.contracts.codes import LOCAL_ZONE
from shared.directory.directory import Directory


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


OUTCOMES: Final = {"early": "trước hạn", "on_time": "đúng hạn", "late": "quá hạn"}
CELL_TITLES: Final = {
    "received.total": "Hồ sơ tiếp nhận",
    "received.carried_over": "Hồ sơ kỳ trước chuyển sang",
    "online_share.denominator": "Hồ sơ tiếp nhận mới",
    "resolved.total": "Hồ sơ đã giải quyết",
    "resolved.early": "Hồ sơ giải quyết trước hạn",
    "resolved.on_time": "Hồ sơ giải quyết đúng hạn",
    "resolved.late": "Hồ sơ giải quyết quá hạn",
    "pending.total": "Hồ sơ đang giải quyết",
    "pending.within": "Hồ sơ đang giải quyết, trong hạn",
    "pending.overdue": "Hồ sơ đang quá hạn",
    "pending.paused": "Hồ sơ đang tạm dừng",
    "extended": "Hồ sơ được gia hạn",
    "refused": "Hồ sơ bị từ chối tiếp nhận",
}


def dossiers_page(
    rows: Sequence[Any],
    directory: Directory,
    question: Question,
    agency: str,
    cell: str,
    following: Mapping[str, str] | None,
) -> str:
    """The dossiers behind a number; `following` are the parameters of the next page."""
    agencies, procedures = names_of(directory, "agency"), names_of(directory, "procedure")

    def told(row: Any) -> dict[str, str]:
        if "agency" not in row:  # an extension or a rating has its code alone
            return dict.fromkeys(("agency", "procedure", "outcome", "received", "due", "ended"), "") | {
                "code": row["code"]
            }
        return {
            "code": row["code"],
            "agency": agencies.get(row["agency"], row["agency"]),
            "procedure": procedures.get(row["procedure"], row["procedure"]),
            "outcome": OUTCOMES.get(row["outcome"] or "", ""),
            "received": moment(row["received_at"]),
            "due": moment(row["due_at"]),
            "ended": moment(row["ended_at"]),
        }

    start, judged = (at.astimezone(LOCAL_ZONE) for at in (question.period.start, question.period.judged))
    return (
        templates()
        .get_template("dossiers.html")
        .render(
            title=CELL_TITLES.get(cell, f"Hồ sơ của chỉ số {cell}"),
            place=agencies.get(agency, agency),
            chosen=agency,
            first=f"{start:%d/%m/%Y}",
            last=f"{judged:%d/%m/%Y}",
            judged=moment(judged),
            rows=[told(row) for row in rows],
            following=urlencode(following) if following else "",
        )
    )


def moment(at: datetime | None) -> str:
    return "" if at is None else at.astimezone(LOCAL_ZONE).strftime("%H:%M %d/%m/%Y")


def report_page(made: Mapping[str, Any], over: Heading) -> str:
    """Report II.06a as a page made for print."""
    template = templates().get_template("report.html")
    return template.render(rows=made["rows"], total=made["total"], over=over, header=ROW_HEADER[over.rows])
