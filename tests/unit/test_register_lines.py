"""A one-stop register as CSV: Vietnamese headers, one row a dossier, days as they are written."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from deploy.cli.errors import CommandFailed
from deploy.cli.lines import chunks_of
from deploy.cli.names import Names
from deploy.demo.sample import load_sample
from services.intake.dossier import Actor
from services.intake.imports import Read, Refused, read_line

HEADER = (
    "STT;Mã hồ sơ;Mã thủ tục;Tên thủ tục;Đơn vị tiếp nhận;Hình thức nộp;Họ và tên;Số điện thoại;Ngày tiếp nhận;Ngày hẹn trả;"
    "Ngày có kết quả;Ngày trả;Thành phần hồ sơ"
)
ROW = (
    "1;H55.242-250806-0001;1.001193;Đăng ký khai sinh;000.00.42.H55;Trực tuyến;Nguyễn Thị Bưởi;0912345678;06/08/2025 09:30;"
    "6/8/2025;06/08/2025;07/08/2025;Tờ khai; Giấy chứng sinh"
)


def lines(
    tmp_path: Path, *rows: str, header: str = HEADER, names: Names | None = None
) -> list[tuple[int, dict[str, Any]]]:
    file = tmp_path / "so-theo-doi.csv"
    file.write_text("\n".join((header, *rows)), encoding="utf-8-sig")
    return [
        (number, orjson.loads(line))
        for chunk in chunks_of(file, names)
        for number, line in zip(chunk.numbers, chunk.lines, strict=True)
    ]


def test_a_row_becomes_what_it_tells_of(tmp_path: Path) -> None:
    quoted = ROW.replace("Tờ khai; Giấy chứng sinh", '"Tờ khai; Giấy chứng sinh"')
    found = lines(tmp_path, quoted)
    assert [number for number, _ in found] == [2, 2, 2]
    receipt, resolution, returned = (line for _, line in found)
    assert receipt == {
        "op": "receive",
        "ref": "H55.242-250806-0001",
        "code": "H55.242-250806-0001",
        "procedure": "1.001193",
        "receiving_agency": "000.00.42.H55",
        "channel": "online",
        "return_by": "counter",
        "due_at": "2025-08-06T17:00:00+07:00",
        "received_at": "2025-08-06T09:30:00+07:00",
        "applicant": {"kind": "citizen", "name": "Nguyễn Thị Bưởi", "phone": "0912345678"},
        "components": [{"name": "Tờ khai"}, {"name": "Giấy chứng sinh"}],
    }
    assert resolution == {
        "op": "resolution",
        "ref": "H55.242-250806-0001",
        "at": "2025-08-06T17:00:00+07:00",
        "result": "granted",
    }
    assert returned == {
        "op": "return",
        "ref": "H55.242-250806-0001",
        "at": "2025-08-07T17:00:00+07:00",
        "by": "counter",
    }


@pytest.mark.parametrize(
    ("column", "cell", "operations"),
    [
        ("Ngày dừng", "08/08/2025", ["receive", "stop"]),
        ("Ngày từ chối", "08/08/2025", ["submit", "refuse"]),
        ("Ngày nộp", "05/08/2025", ["submit", "receive"]),
        ("Ngày trả kết quả", "08:15 ngày 08/08/2025", ["receive", "resolution", "return"]),
    ],
)
def test_every_line_of_it_is_one_that_intake_reads(
    tmp_path: Path, column: str, cell: str, operations: list[str]
) -> None:
    header = f"Mã hồ sơ;Mã thủ tục;Đơn vị tiếp nhận;Chủ hồ sơ;Ngày tiếp nhận;{column}"
    found = lines(tmp_path, f"H55.242-250806-0001;1.001193;H55.242;Lê Văn Bình;06/08/2025;{cell}", header=header)
    assert [line["op"] for _, line in found] == operations
    for number, line in found:
        read = read_line(number, orjson.dumps(line), 1, Actor("import", "x"), None, "history")
        assert isinstance(read, Read)
        assert not isinstance(read.command, Refused), read.command


def test_what_is_not_understood_goes_as_it_stands_and_is_refused_by_its_pointer(tmp_path: Path) -> None:
    _, line = lines(tmp_path, ROW.replace("06/08/2025 09:30", "hôm qua").replace("Trực tuyến", "Bồ câu"))[0]
    assert (line["received_at"], line["channel"]) == ("hôm qua", "Bồ câu")
    assert isinstance(read_line(2, orjson.dumps(line), 1, Actor("import", "x"), None, "history").command, Refused)
    _, impossible = lines(tmp_path, ROW.replace("06/08/2025 09:30", "31/02/2025"))[0]
    assert impossible["received_at"] == "31/02/2025"


def test_an_unknown_header_refuses_the_register_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="Chòm sao"):
        lines(tmp_path, ROW, header=HEADER.replace("STT", "Chòm sao"))


def test_an_empty_row_tells_of_nothing(tmp_path: Path) -> None:
    assert lines(tmp_path, ";" * 12) == []


@pytest.mark.parametrize(
    ("received", "resolved", "returned", "expected"),
    [
        ("06/08/2025 09:30", "08/08/2025", "08/08/2025 16:10", ("09:30", "16:10", "16:10")),
        ("06/08/2025 17:20", "06/08/2025", "06/08/2025", ("17:20", "17:20", "17:20")),
        ("06/08/2025", "06/08/2025 07:10", "07/08/2025", ("07:10", "07:10", "17:00")),
        ("06/08/2025", "07/08/2025", "08/08/2025", ("07:30", "17:00", "17:00")),
    ],
)
def test_a_time_that_was_assumed_gives_way_to_those_of_its_day(
    tmp_path: Path, received: str, resolved: str, returned: str, expected: tuple[str, ...]
) -> None:
    row = f"1;H55.242-250806-0001;1.001193;;H55.242;;Nguyễn Thị Bưởi;;{received};;{resolved};{returned};"
    found = [line.get("received_at") or line["at"] for _, line in lines(tmp_path, row)]
    assert tuple(at[11:16] for at in found) == expected


def entry(code: str, name: str, valid_from: str = "2015-01-01", valid_to: str | None = None) -> dict[str, Any]:
    return {"code": code, "name": name, "valid_from": valid_from, "valid_to": valid_to}


SAMPLE = load_sample()
NAMES = Names(
    [
        *(agency.model_dump(mode="json") for agency in SAMPLE.agencies.values()),
        entry("H55.41.20", "Xã Trung Hội", valid_to="2025-06-30"),
        entry("H55.300", "Xã Phú Bình", "2025-07-01"),
        entry("H55.301", "Phường Phú Bình", "2025-07-01"),
        entry("H55.302", "Xã Bình Thành", "2025-07-01"),
        entry("H55.303", "Xã Bình Thanh", "2025-07-01"),
    ],
    [procedure.model_dump(mode="json") for procedure in SAMPLE.procedures.values()],
)


@pytest.mark.parametrize(
    ("procedure", "agency", "day", "expected"),
    [
        ("Đăng ký khai sinh", "Xã Trung Hội", "06/08/2025", ("1.001193", "H55.242")),
        ("ĐĂNG KÝ  KHAI SINH", "UBND xã Trung Hội", "06/08/2025", ("1.001193", "H55.242")),
        ("dang ky khai sinh", "trung hoi", "06/08/2025", ("1.001193", "H55.242")),
        ("Đăng ký khai sinh", "Xã Trung Hội", "06/08/2024", ("1.001193", "H55.41.20")),  # before the reorganisation
        ("Đăng ký khai sinh", "xã Bình Thanh", "06/08/2025", ("1.001193", "H55.303")),  # with the same tones
        ("1.001193", "000.00.42.H55", "06/08/2025", ("1.001193", "000.00.42.H55")),
        ("Đăng ký khai", "Phú Bình", "06/08/2025", ("Đăng ký khai", "Phú Bình")),
        ("Đăng ký khai sinh", "xa binh thanh", "06/08/2025", ("1.001193", "xa binh thanh")),
        ("Đăng ký khai sinh", "Phổ Yên", "06/08/2025", ("1.001193", "H55.226")),
        ("Đăng ký khai sinh", "Xã Phổ Yên", "06/08/2025", ("1.001193", "Xã Phổ Yên")),
        ("Đăng ký khai sinh", "Xã Trung Hội", "hôm qua", ("1.001193", "Xã Trung Hội")),
    ],
)
def test_a_name_that_means_one_thing_alone_stands_for_its_code(
    tmp_path: Path, procedure: str, agency: str, day: str, expected: tuple[str, str]
) -> None:
    header = "Mã hồ sơ;Mã thủ tục;Tên thủ tục;Đơn vị tiếp nhận;Chủ hồ sơ;Ngày tiếp nhận"
    row = f"H55.242-250806-0001;;{procedure};{agency};Lê Văn Bình;{day}"
    [(_, line)] = lines(tmp_path, row, header=header, names=NAMES)
    assert (line["procedure"], line["receiving_agency"]) == expected


def test_a_register_without_codes_of_procedures_is_a_register(tmp_path: Path) -> None:
    header = "Mã hồ sơ;Tên thủ tục;Đơn vị tiếp nhận;Chủ hồ sơ;Ngày tiếp nhận"
    row = "H55.242-250806-0001;Đăng ký kết hôn;Xã Trung Hội;Lê Văn Bình;06/08/2025"
    [(_, line)] = lines(tmp_path, row, header=header, names=NAMES)
    assert (line["procedure"], line["receiving_agency"]) == ("1.000894", "H55.242")


@pytest.mark.parametrize(
    ("field", "cell", "named"),
    [
        ("receiving_agency", "Phú Bình", ("H55.300 (Xã Phú Bình)", "H55.301 (Phường Phú Bình)")),
        ("receiving_agency", "xa binh thanh", ("H55.302", "H55.303")),
        ("deciding_agency", "Văn phòng đất đai", ("H55.24 (", "H55.24.5")),
        ("procedure", "khai sinh", ("1.001193 (Đăng ký khai sinh)",)),
        (
            "receiving_agency",
            "UBND xã Phổ Yên",
            ("H55.43 (Thành phố Phổ Yên, until 2025-06-30)", "H55.226 (Phường Phổ Yên)"),
        ),
        ("receiving_agency", "Xã Không Có", ("no agency is called so: write the code.",)),
    ],
)
def test_what_a_doubtful_name_may_mean_is_named(field: str, cell: str, named: tuple[str, ...]) -> None:
    doubt = NAMES.doubt(field, cell)
    assert doubt is not None
    assert all(each in doubt for each in named), doubt


@pytest.mark.parametrize(
    ("field", "cell"), [("receiving_agency", "H55.999"), ("procedure", "9.999999"), ("channel", "x")]
)
def test_a_wrong_code_is_no_name(field: str, cell: str) -> None:
    assert NAMES.doubt(field, cell) is None
