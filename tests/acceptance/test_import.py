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

DOSSIERS = int(os.environ.get("LIENTHONG_IMPORT_DOSSIERS", "3400"))  # of three lines: 3,400 make three chunks


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


def test_what_is_no_file_is_told_in_a_sentence(up: Up, tmp_path: Path) -> None:
    done = lienthong("import", tmp_path / "none.ndjson", data=up.data)
    assert done.returncode == 1
    assert "none.ndjson" in done.stderr
    assert "Traceback" not in done.stderr
    broken = tmp_path / "broken.ndjson"
    broken.write_bytes(b"{\n\xff\n")
    tally = imported(broken, data=up.data)
    assert (tally["applied"], tally["refused"]) == (0, 2)
