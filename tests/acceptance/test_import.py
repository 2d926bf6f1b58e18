"""`lienthong import`: cut, resumed, sent twice, corrected."""

import csv
import gzip
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.acceptance.command import COMMAND, Up, environment, lienthong, receipt, reconciled, until, write_register

DOSSIERS = int(os.environ.get("LIENTHONG_IMPORT_DOSSIERS", "2000"))  # of three lines: 2,000 make two chunks


def imported(*arguments: object, data: Path) -> dict[str, Any]:
    done = lienthong("import", *arguments, "--json", data=data)
    assert done.returncode in (0, 1), done.stderr
    tally: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (1 if tally["refused"] else 0)
    return tally


def figures(up: Up, agency: str) -> Any:
    reconciled(up.data)
    with up.http("stats") as http:
        found = http.get("/v1/indicators", params={"agency": agency, "from": "2025-08-01", "to": "2025-11-30"}).json()
    return {name: found[name] for name in ("received", "resolved", "pending")}


def test_an_import_that_was_cut_goes_on_and_equals_one_that_was_not(up: Up, tmp_path: Path) -> None:
    cut, whole = tmp_path / "cut.ndjson", tmp_path / "whole.ndjson"
    lines = write_register(cut, DOSSIERS, "H55.226")
    write_register(whole, DOSSIERS, "H55.241")
    process = subprocess.Popen(
        [COMMAND, "import", str(cut), "--mode", "history", "--data", str(up.data)],
        env=environment(up.data),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    memories = up.data / "imports"
    until(lambda: list(memories.glob(".import-*.json")), "the first chunk is remembered")
    process.send_signal(signal.SIGKILL)
    process.wait()
    (memory,) = memories.glob(".import-*.json")
    before = json.loads(memory.read_text())["tally"]
    assert 0 < before["sent"] < len(lines)

    tally = imported(cut, "--mode", "history", data=up.data)
    assert tally["lines"] == len(lines)
    # The chunk in flight was stored and not yet remembered: its lines were known when they came again.
    assert tally["applied"] + tally["duplicate"] == len(lines)
    assert tally["applied"] >= before["sent"]
    assert not list(memories.iterdir())

    assert imported(whole, "--mode", "history", data=up.data)["applied"] == len(lines)
    assert figures(up, "H55.226") == figures(up, "H55.241")
    assert figures(up, "H55.226")["resolved"]["total"] == DOSSIERS


def test_the_same_file_again_changes_nothing(up: Up, tmp_path: Path) -> None:
    plain, zipped = tmp_path / "again.ndjson", tmp_path / "again.ndjson.gz"
    lines = write_register(plain, 20)
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    assert imported(plain, "--mode", "history", data=up.data)["applied"] == len(lines)
    again = imported(zipped, "--mode", "history", data=up.data)
    assert (again["applied"], again["duplicate"]) == (0, len(lines))


def test_a_dry_run_stores_nothing(up: Up, tmp_path: Path) -> None:
    file = tmp_path / "dry.ndjson"
    lines = write_register(file, 5)
    assert imported(file, "--mode", "history", "--dry-run", data=up.data)["applied"] == len(lines)
    assert imported(file, "--mode", "history", data=up.data)["applied"] == len(lines)


def test_refused_lines_are_corrected_in_their_report_and_sent_again(up: Up, tmp_path: Path) -> None:
    file = tmp_path / "desk.csv"
    body = receipt()
    person = body.pop("applicant")
    columns = ["op", "ref", "at", *body, *(f"applicant.{name}" for name in person), "level", "complained"]
    at = "2025-09-03T08:00:00+07:00"
    applicant = {f"applicant.{name}": person[name] for name in person}
    rows = [
        {"op": "receive", "ref": "1", "at": at, **body, **applicant},
        {"op": "receive", "ref": "2", "at": at, **body, **applicant, "applicant.phone": "12"},
        {"op": "resolution", "ref": "1", "at": "2025-09-03T09:00:00+07:00", "level": "satisfied"},
    ]
    with file.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, columns, delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    tally = imported(file, "--mode", "history", data=up.data)
    assert (tally["applied"], tally["refused"]) == (1, 2)

    report = Path(tally["report"])
    with report.open(encoding="utf-8", newline="") as stream:
        refused = list(csv.DictReader(stream))
    assert [(row["line"], row["pointer"]) for row in refused] == [("3", "/applicant/phone"), ("4", "/result")]
    assert all(row["error"].startswith("invalid: ") for row in refused)
    refused[0]["applicant.phone"] = "0912345678"
    refused[1] = {name: value for name, value in refused[1].items() if name != "level"} | {"result": "granted"}
    with report.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, dict.fromkeys(name for row in refused for name in row))
        writer.writeheader()
        writer.writerows(refused)
    again = imported(report, "--mode", "history", data=up.data)
    assert (again["applied"], again["refused"]) == (2, 0)


REGISTER = (
    "STT;Mã hồ sơ;Mã thủ tục;Tên thủ tục;Đơn vị tiếp nhận;Hình thức nộp;Họ và tên;Số điện thoại;Ngày tiếp nhận;"
    "Ngày hẹn trả;Ngày có kết quả;Ngày trả kết quả;Ghi chú\n"
    "1;H55.242-250806-0101;;Cấp Giấy xác nhận tình trạng hôn nhân;UBND xã Trung Hội;Trực tiếp;Lò Thị Sáu;0912 345 601;"
    "06/08/2025 09:30;11/08/2025;08/08/2025;08/08/2025 16:10;\n"
    "2;H55.242-250806-0102;1.004873;Cấp Giấy xác nhận tình trạng hôn nhân;H55.242;Bưu chính công ích;Lò Văn Bảy;12;"
    "06/08/2025 10:00;11/08/2025;12/08/2025;13/08/2025;gọi lại\n"
    "3;H55.242-250807-0103;1.004873;Cấp Giấy xác nhận tình trạng hôn nhân;H55.242;Trực tiếp;Lò Thị Tám;;"
    "07/08/2025;12/08/2025;;;\n"
    "4;H55.242-250832-0104;1.004873;Cấp Giấy xác nhận tình trạng hôn nhân;H55.242;Trực tiếp;Lò Thị Chín;;"
    "07/08/2025;12/08/2025;;;\n"
    "5;H55.242-250807-0105;1.004873;Cấp Giấy xác nhận tình trạng hôn nhân;Xã Phổ Yên;Trực tiếp;Lò Văn Mười;;"
    "07/08/2025;12/08/2025;;;\n"
)
"""A one-stop register as a spreadsheet in Vietnam writes it; the first row names its agency and procedure; the second's
number, the fourth's code and the fifth's agency, which is no commune but a ward, are wrong."""


def test_a_one_stop_register_comes_in_as_it_is_and_its_refused_rows_after_correction(up: Up, tmp_path: Path) -> None:
    file = tmp_path / "so-theo-doi.csv.gz"
    file.write_bytes(gzip.compress(REGISTER.encode("utf-8-sig")))
    lines, wrong = 9, 5  # a receipt, a result and its return where the register has them
    dry = imported(file, "--mode", "history", "--dry-run", data=up.data)
    assert (dry["applied"], dry["refused"]) == (lines - wrong, wrong)
    with up.http("intake") as http:
        assert http.get("/v1/dossiers", params={"q": "H55.242-250806-0101"}).json()["items"] == []

    tally = imported(file, "--mode", "history", data=up.data)
    assert (tally["lines"], tally["applied"], tally["refused"]) == (lines, lines - wrong, wrong)
    report = Path(tally["report"])
    with report.open(encoding="utf-8", newline="") as stream:
        refused = list(csv.DictReader(stream))
    assert [(row["line"], row["pointer"]) for row in refused[:1] + refused[-1:]] == [
        ("3", "/applicant/phone"),
        ("6", "/receiving_agency"),
    ]
    assert {row["line"] for row in refused} == {"3", "5", "6"}
    assert "H55.226 (Phường Phổ Yên)" in refused[-1]["error"]
    for row in refused:
        if row["applicant.phone"] == "12":
            row["applicant.phone"] = "0912 345 602"
        if row["line"] == "5":
            row["code"] = row["ref"] = "H55.242-250807-0104"
        if row["line"] == "6":
            row["receiving_agency"] = "H55.226"
    with report.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, dict.fromkeys(name for row in refused for name in row))
        writer.writeheader()
        writer.writerows(refused)
    again = imported(report, "--mode", "history", data=up.data)
    assert (again["applied"], again["refused"]) == (wrong, 0)
    whole = imported(file, "--mode", "history", data=up.data)
    assert (whole["applied"], whole["duplicate"], whole["refused"]) == (
        0,
        lines - 3,
        3,
    )  # the three receipts stay wrong

    with up.http("intake") as http:
        found = {
            f"{n}": http.get(f"/v1/dossiers/H55.242-25080{n}").json() for n in ("6-0101", "6-0102", "7-0103", "7-0104")
        }
    assert {name: one["state"] for name, one in found.items()} == {"6-0101": 10, "6-0102": 10, "7-0103": 2, "7-0104": 2}
    first, second = found["6-0101"], found["6-0102"]
    assert (first["received_at"], first["due_at"]) == ("2025-08-06T09:30:00+07:00", "2025-08-11T17:00:00+07:00")
    assert (second["channel"], second["applicant"]["phone"]) == ("postal", "+84912345602")
    assert second["ended_at"] > second["due_at"]  # late, as the register says


def test_a_dry_run_of_a_long_register_knows_its_dossiers_throughout(up: Up, tmp_path: Path) -> None:
    file = tmp_path / "by-time.ndjson"
    count = 5100 // 3  # the chunks of an import would part receipts from results
    lines = sorted(write_register(file, count), key=lambda line: ("receive", "start", "resolution").index(line["op"]))
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    dry = imported(file, "--mode", "history", "--dry-run", data=up.data)
    assert (dry["lines"], dry["applied"]) == (len(lines), len(lines))


def test_what_is_no_file_is_told_in_a_sentence(up: Up, tmp_path: Path) -> None:
    done = lienthong("import", tmp_path / "none.ndjson", data=up.data)
    assert done.returncode == 1
    assert "none.ndjson" in done.stderr
    assert "Traceback" not in done.stderr
    broken = tmp_path / "broken.ndjson"
    broken.write_bytes(b"{\n\xff\n")
    tally = imported(broken, data=up.data)
    assert (tally["applied"], tally["refused"]) == (0, 2)
