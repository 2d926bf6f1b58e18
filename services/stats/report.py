"""Report II.06a: 13 columns by field (lĩnh vực), agency or procedure, its identities proven; as JSON and CSV. Pure."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

HEADER = (
    *("STT", "Lĩnh vực", "Tiếp nhận: tổng số", "Tiếp nhận: trực tuyến", "Tiếp nhận: trực tiếp, bưu chính"),
    *("Tiếp nhận: kỳ trước chuyển sang", "Đã giải quyết: tổng số", "Đã giải quyết: trước hạn"),
    *("Đã giải quyết: đúng hạn", "Đã giải quyết: quá hạn", "Đang giải quyết: tổng số"),
    *("Đang giải quyết: trong hạn", "Đang giải quyết: quá hạn"),
)
SHAPE: Mapping[str, Sequence[str]] = {
    "received": ("total", "online", "counter_postal", "carried_over"),
    "resolved": ("total", "early", "on_time", "late"),
    "pending": ("total", "within", "overdue"),
}
TOTAL = "Tổng số"
Rows = Literal["field", "agency", "procedure"]
ROW_HEADER: Mapping[Rows, str] = {"field": HEADER[1], "agency": "Cơ quan", "procedure": "Thủ tục hành chính"}


@dataclass(frozen=True, slots=True)
class Heading:
    """What stands above the figures of a report that is handed in. `number`: of a published one."""

    agency: str
    above: str | None
    first: date
    last: date
    judged: datetime
    rows: Rows = "field"
    number: str | None = None

    @property
    def period(self) -> str:
        return f"Từ ngày {self.first:%d/%m/%Y} đến ngày {self.last:%d/%m/%Y}"


class IdentityBroken(Exception):
    """A row whose numbers contradict each other; the message names the row and the identity."""


def row_of(number: int | None, name: str, counts: Mapping[str, int]) -> dict[str, Any]:
    """One row from counts: online, counter, postal, carried_over, received, early, on_time, late, resolved, pending,
    overdue. Raises IdentityBroken."""
    row: dict[str, Any] = {
        **({"number": number, "name": name} if number is not None else {}),
        "received": {
            "total": counts["received"],
            "online": counts["online"],
            "counter_postal": counts["counter"] + counts["postal"],
            "carried_over": counts["carried_over"],
        },
        "resolved": {
            "total": counts["resolved"],
            "early": counts["early"],
            "on_time": counts["on_time"],
            "late": counts["late"],
        },
        "pending": {
            "total": counts["pending"],
            "within": counts["pending"] - counts["overdue"],
            "overdue": counts["overdue"],
        },
    }
    prove(name, row)
    return row


def prove(name: str, row: Mapping[str, Any]) -> None:
    """Each group's total is the sum of its parts, and what was received is resolved or pending; else says where not."""
    for group, (total, *parts) in SHAPE.items():
        if row[group][total] != sum(row[group][part] for part in parts):
            raise IdentityBroken(f"{name}: {group}.total is not the sum of {', '.join(parts)}")
    if row["received"]["total"] != row["resolved"]["total"] + row["pending"]["total"]:
        raise IdentityBroken(f"{name}: received.total is not resolved.total + pending.total")


def report(fields: Iterable[tuple[str, Mapping[str, int]]]) -> dict[str, Any]:
    """The report from each field's name and counts: {rows, total}. Raises IdentityBroken."""
    rows = [row_of(number, name, counts) for number, (name, counts) in enumerate(fields, 1)]
    total = {group: {cell: sum(row[group][cell] for row in rows) for cell in shape} for group, shape in SHAPE.items()}
    prove(TOTAL, total)
    return {"rows": rows, "total": total}


def lines(made: Mapping[str, Any], rows: Rows = "field") -> list[list[str | int]]:
    """The 13 columns: a header, the rows, the total last."""
    body = [[row["number"], row["name"], *numbers(row)] for row in made["rows"]]
    header = [HEADER[0], ROW_HEADER[rows], *HEADER[2:]]
    return [header, *body, ["", TOTAL, *numbers(made["total"])]]


def numbers(row: Mapping[str, Any]) -> list[int]:
    return [row[group][cell] for group, shape in SHAPE.items() for cell in shape]


def as_csv(made: Mapping[str, Any], rows: Rows = "field") -> bytes:
    """UTF-8 with a byte order mark: spreadsheets then read Vietnamese letters right."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(lines(made, rows))
    return b"\xef\xbb\xbf" + text.getvalue().encode()
