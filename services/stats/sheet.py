"""Report II.06a as a workbook: the figures as a plain table, and the form as offices hand it in."""

import io
from collections.abc import Mapping
from typing import Any

from services.stats.report import ROW_HEADER, Heading, lines, numbers

XLSX_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
FIGURES, FORM = "II.06a", "Biểu mẫu"
NUMBER = "#,##0"

# The form of circular 01/2020/TT-VPCP: three groups of columns, and below them the columns with their numbers. A total
# says of which columns it is the sum.
_GROUPS = (
    ("Số lượng hồ sơ tiếp nhận", 2, ("Tổng số", "Trực tuyến", "Trực tiếp, dịch vụ bưu chính", "Từ kỳ trước")),
    ("Số lượng hồ sơ đã giải quyết", 6, ("Tổng số", "Trước hạn", "Đúng hạn", "Quá hạn")),
    ("Số lượng hồ sơ đang giải quyết", 10, ("Tổng số", "Trong hạn", "Quá hạn")),
)
_SUMS = {2: "(3)=(4)+(5)+(6)", 6: "(7)=(8)+(9)+(10)", 10: "(11)=(12)+(13)"}
_LAST = 12  # the index of the thirteenth column


def as_xlsx(made: Mapping[str, Any], heading: Heading) -> bytes:
    """The workbook. First sheet: header, rows, total last, in 13 columns, for whoever goes on computing; second sheet:
    the same figures under the form's header and above its signatures, each total a formula over its parts."""
    import xlsxwriter  # only a report needs it, and it takes a megabyte

    file = io.BytesIO()
    # A name that begins with "=" is a name.
    with xlsxwriter.Workbook(file, {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False}) as book:
        _figures(book, made, heading)
        _form(book, made, heading)
    return file.getvalue()


def _figures(book: Any, made: Mapping[str, Any], heading: Heading) -> None:
    sheet = book.add_worksheet(FIGURES)
    head = book.add_format({"bold": True, "text_wrap": True, "valign": "vcenter", "align": "center", "border": 1})
    text = book.add_format({"border": 1, "text_wrap": True})
    number = book.add_format({"border": 1, "num_format": NUMBER})
    total, total_text = (
        book.add_format({"border": 1, "bold": True, "num_format": NUMBER}),
        book.add_format({"border": 1, "bold": True}),
    )
    header, *body = lines(made, heading.rows)
    sheet.write_row(0, 0, header, head)
    for at, line in enumerate(body, 1):
        last = at == len(body)
        for column, value in enumerate(line):
            if isinstance(value, int):
                sheet.write_number(at, column, value, total if last else number)
            elif value:
                sheet.write_string(at, column, value, total_text if last else text)
            else:
                sheet.write_blank(at, column, None, total_text)
    sheet.set_row(0, 48)
    sheet.set_column(0, 0, 6)
    sheet.set_column(1, 1, 36)
    sheet.set_column(2, _LAST, 12)
    sheet.freeze_panes(1, 2)


def _form(book: Any, made: Mapping[str, Any], heading: Heading) -> None:
    sheet = book.add_worksheet(FORM)
    font = {"font_name": "Times New Roman", "font_size": 12}

    def style(**more: Any) -> Any:
        return book.add_format({**font, **more})

    middle = {"align": "center", "valign": "vcenter", "text_wrap": True}
    plain, bold = style(**middle), style(**middle, bold=True)
    title, italic = style(**middle, bold=True, font_size=14), style(**middle, italic=True)
    head, index = style(**middle, bold=True, border=1), style(**middle, italic=True, border=1, font_size=10)
    text, number = style(border=1, text_wrap=True, valign="vcenter"), style(border=1, num_format=NUMBER)
    sum_text, sum_number = style(border=1, bold=True), style(border=1, bold=True, num_format=NUMBER)

    sheet.merge_range(0, 0, 0, 4, (heading.above or heading.agency).upper(), plain)
    sheet.merge_range(1, 0, 1, 4, heading.agency.upper() if heading.above else "", bold)
    sheet.merge_range(0, 6, 0, _LAST, "CỘNG HÒA XÃ HỘI CHỦ NGHĨA VIỆT NAM", bold)
    sheet.merge_range(1, 6, 1, _LAST, "Độc lập - Tự do - Hạnh phúc", bold)
    sheet.merge_range(2, 0, 2, 4, f"Số: {heading.number or '……'}", plain)
    sheet.merge_range(2, 6, 2, _LAST, "Biểu số II.06a/VPCP/KSTT", italic)
    sheet.merge_range(4, 0, 4, _LAST, "TÌNH HÌNH, KẾT QUẢ GIẢI QUYẾT THỦ TỤC HÀNH CHÍNH", title)
    sheet.merge_range(5, 0, 5, _LAST, f"Kỳ báo cáo: {heading.period}", italic)
    sheet.merge_range(6, 9, 6, _LAST, "Đơn vị tính: số hồ sơ", italic)

    sheet.merge_range(7, 0, 8, 0, "STT", head)
    sheet.merge_range(7, 1, 8, 1, ROW_HEADER[heading.rows], head)
    for name, first, parts in _GROUPS:
        sheet.merge_range(7, first, 7, first + len(parts) - 1, name, head)
        for at, part in enumerate(parts):
            sheet.write_string(8, first + at, part, head)
    for column in range(_LAST + 1):
        sheet.write_string(9, column, _SUMS.get(column, f"({column + 1})"), index)

    at = 10
    for row in made["rows"]:
        sheet.write_number(at, 0, row["number"], text)
        sheet.write_string(at, 1, row["name"], text)
        _write_numbers(sheet, at, numbers(row), number)
        at += 1
    sheet.merge_range(at, 0, at, 1, "TỔNG SỐ", sum_text)
    _write_numbers(sheet, at, numbers(made["total"]), sum_number)

    judged = heading.judged
    signed = f"{heading.agency}, ngày {judged:%d} tháng {judged:%m} năm {judged:%Y}"
    sheet.merge_range(at + 2, 8, at + 2, _LAST, signed, italic)
    sheet.merge_range(at + 3, 0, at + 3, 3, "NGƯỜI LẬP BIỂU", bold)
    sheet.merge_range(at + 3, 8, at + 3, _LAST, "THỦ TRƯỞNG ĐƠN VỊ", bold)
    sheet.merge_range(at + 4, 0, at + 4, 3, "(Ký, ghi rõ họ tên)", italic)
    sheet.merge_range(at + 4, 8, at + 4, _LAST, "(Ký, đóng dấu, ghi rõ họ tên)", italic)

    sheet.set_column(0, 0, 5)
    sheet.set_column(1, 1, 34)
    sheet.set_column(2, _LAST, 10.5)
    sheet.set_row(8, 48)
    sheet.set_landscape()
    sheet.set_paper(9)  # A4
    sheet.fit_to_pages(1, 0)
    sheet.repeat_rows(7, 9)


def _write_numbers(sheet: Any, row: int, values: list[int], style: Any) -> None:
    """The eleven numbers from the third column on; the totals are formulas that hold their value as well."""
    for _, first, parts in _GROUPS:
        for column in range(first, first + len(parts)):
            value = values[column - 2]
            if column == first:
                span = f"{_letter(first + 1)}{row + 1}:{_letter(first + len(parts) - 1)}{row + 1}"
                sheet.write_formula(row, column, f"=SUM({span})", style, value)
            else:
                sheet.write_number(row, column, value, style)


def _letter(column: int) -> str:
    return chr(ord("A") + column)
