"""Report II.06a: 13 columns by field (lĩnh vực), its identities proven, as JSON, CSV and XLSX. Pure."""

import csv
import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

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


def lines(made: Mapping[str, Any]) -> list[list[str | int]]:
    """The 13 columns: a header, the rows, the total last."""
    body = [[row["number"], row["name"], *_numbers(row)] for row in made["rows"]]
    return [list(HEADER), *body, ["", TOTAL, *_numbers(made["total"])]]


def _numbers(row: Mapping[str, Any]) -> list[int]:
    return [row[group][cell] for group, shape in SHAPE.items() for cell in shape]


def as_csv(made: Mapping[str, Any]) -> bytes:
    """UTF-8 with a byte order mark: spreadsheets then read Vietnamese letters right."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(lines(made))
    return b"\xef\xbb\xbf" + text.getvalue().encode()


# ------------------------------------------------------------------------------------------------------------- XLSX

XLSX_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_KIND = "application/vnd.openxmlformats-officedocument.spreadsheetml"

_PARTS = {
    "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/>'
    f'<Override PartName="/xl/workbook.xml" ContentType="{_KIND}.sheet.main+xml"/>'
    f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_KIND}.worksheet+xml"/>'
    f'<Override PartName="/xl/styles.xml" ContentType="{_KIND}.styles+xml"/></Types>',
    "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets>'
    '<sheet name="II.06a" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Type="{_OFFICE}/worksheet" Target="worksheets/sheet1.xml"/>'
    f'<Relationship Id="rId2" Type="{_OFFICE}/styles" Target="styles.xml"/></Relationships>',
    "xl/styles.xml": f'<styleSheet xmlns="{_MAIN}"><fonts count="1"><font><sz val="11"/><name val="Calibri"/></font>'
    '</fonts><fills count="2"><fill><patternFill patternType="none"/></fill><fill><patternFill patternType="gray125"/>'
    '</fill></fills><borders count="1"><border><left/><right/><top/><bottom/><diagonal/></border></borders>'
    '<cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/></cellStyleXfs><cellXfs count="1">'
    '<xf numFmtId="0" fontId="0" fillId="0" borderId="0" xfId="0"/></cellXfs><cellStyles count="1">'
    '<cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles></styleSheet>',
}


def as_xlsx(made: Mapping[str, Any]) -> bytes:
    """One sheet of an Office Open XML workbook (ECMA-376), texts inline: no more than 13 columns of text and numbers."""
    rows = "".join(
        f'<row r="{number}">{"".join(_cell(number, column, value) for column, value in enumerate(line))}</row>'
        for number, line in enumerate(lines(made), 1)
    )
    sheet = f'<worksheet xmlns="{_MAIN}"><sheetData>{rows}</sheetData></worksheet>'
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as book:
        for name, part in {**_PARTS, "xl/worksheets/sheet1.xml": sheet}.items():
            book.writestr(zipfile.ZipInfo(name), _HEAD + part, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _cell(row: int, column: int, value: str | int) -> str:
    place = f"{chr(ord('A') + column)}{row}"
    if isinstance(value, int):
        return f'<c r="{place}"><v>{value}</v></c>'
    return f'<c r="{place}" t="inlineStr"><is><t>{escape(value)}</t></is></c>' if value else ""
