"""Import files: cut into chunks, flattened into CSV and read again."""

import csv
import gzip
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.cli import lines
from deploy.cli.errors import CommandFailed
from deploy.cli.lines import chunks_of, flat, line_of_row, whole_dossiers_of, write_refused

LINES = [orjson.dumps({"op": "start", "ref": str(number)}) for number in range(12)]


def all_lines(file: Path) -> list[bytes]:
    return [line for chunk in chunks_of(file) for line in chunk.lines]


def test_chunks_hold_every_line_once_and_know_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINES", 5)
    file = tmp_path / "register.ndjson"
    file.write_bytes(b"\n".join(LINES) + b"\n")
    chunks = list(chunks_of(file))
    assert [(chunk.first, len(chunk.lines)) for chunk in chunks] == [(1, 5), (6, 5), (11, 2)]
    assert all_lines(file) == LINES


def test_whole_dossiers_stay_together_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINES", 5)
    file = tmp_path / "register.ndjson"
    mixed = [*LINES[:4], b"{", b"", *LINES[:4], orjson.dumps({"op": "start"}), *LINES[:3]]
    file.write_bytes(b"\n".join(mixed) + b"\n")
    chunks = list(whole_dossiers_of(file))
    assert max(len(chunk.lines) for chunk in chunks) <= 5
    sent = [pair for chunk in chunks for pair in zip(chunk.numbers, chunk.lines, strict=True)]
    assert sorted(sent) == list(enumerate(mixed, 1))
    for ref in range(4):
        at = [index for index, chunk in enumerate(chunks) if LINES[ref] in chunk.lines]
        assert len(at) == 1
        numbers = [number for number, line in sent if line == LINES[ref]]
        assert numbers == sorted(numbers)


def test_a_chunk_stays_below_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_BYTES", 60)
    file = tmp_path / "register.ndjson"
    file.write_bytes(b"\n".join(LINES))
    assert max(len(chunk.body) for chunk in chunks_of(file)) <= 60
    assert all_lines(file) == LINES


def test_blank_lines_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "register.ndjson"
    file.write_bytes(LINES[0] + b"\r\n\r\n" + LINES[1])
    assert all_lines(file) == [LINES[0], b"", LINES[1]]


def test_gzip_is_told_by_its_first_bytes(tmp_path: Path) -> None:
    file = tmp_path / "register.ndjson"
    file.write_bytes(gzip.compress(b"\n".join(LINES)))
    assert all_lines(file) == LINES


def test_a_damaged_gzip_is_told_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "register.ndjson.gz"
    file.write_bytes(gzip.compress(b"\n".join(LINES))[:-12])
    with pytest.raises(CommandFailed, match=r"register\.ndjson\.gz"):
        all_lines(file)


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_csv_has_the_columns_of_a_line(tmp_path: Path, delimiter: str) -> None:
    file = tmp_path / "register.csv"
    columns = [
        "op",
        "ref",
        "applicant.name",
        "applicant.phone",
        "components.0.name",
        "components.0.digitised",
        "amount",
    ]
    rows = [
        ["receive", "1", "Nguyễn Văn A; B, C", "0912345678", "Tờ khai", "true", ""],
        ["payment", "1", "", "", "", "", "20000"],
    ]
    with file.open("w", encoding="utf-8-sig", newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows([columns, *rows])
    assert [orjson.loads(line) for line in all_lines(file)] == [
        {
            "op": "receive",
            "ref": "1",
            "applicant": {"name": "Nguyễn Văn A; B, C", "phone": "0912345678"},
            "components": [{"name": "Tờ khai", "digitised": True}],
        },
        {"op": "payment", "ref": "1", "amount": 20000},
    ]
    assert [chunk.first for chunk in chunks_of(file)] == [2]  # the header is line 1


def test_a_column_beside_the_whole_of_it_is_told_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "register.csv"
    file.write_text("applicant,applicant.name\nx,y\n", encoding="utf-8")
    with pytest.raises(CommandFailed, match=r"applicant\.name"):
        all_lines(file)


values: st.SearchStrategy[Any] = st.recursive(
    st.text() | st.booleans() | st.integers(-(2**53), 2**53) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    ["op", "ref", "amount", "digitised", "applicant", "components", "error", "pointer", "line", "raw", "a.b"]
)


@given(st.dictionaries(names, values, min_size=1, max_size=5))
def test_what_is_flattened_reads_the_same_again(content: dict[str, Any]) -> None:
    assert orjson.loads(line_of_row(flat(orjson.dumps(content)))) == content


@given(st.binary(max_size=40).filter(lambda raw: b"\n" not in raw and b"\r" not in raw))
def test_whatever_stands_on_a_line_has_a_row(raw: bytes) -> None:
    assert all(isinstance(cell, str) for cell in flat(raw).values())


def test_the_report_of_refused_lines_is_a_file_to_import(tmp_path: Path) -> None:
    contents: list[Any] = [
        {"op": "receive", "ref": "1", "applicant": {"kind": "citizen", "name": "Trần\nThị B"}},
        {"op": "rating", "ref": "2", "level": "neutral", "complained": False, "comment": None},
    ]
    refused = [
        {"line": str(number), "error": "invalid: so", "pointer": "/ref"} | flat(orjson.dumps(content))
        for number, content in enumerate(contents, 1)
    ]
    refused.append({"line": "3", "error": "bad-json: no JSON", "pointer": ""} | flat(b"{broken"))
    report = tmp_path / "register.ndjson.refused.csv"
    write_refused(report, refused)
    sent = all_lines(report)
    assert [orjson.loads(line) for line in sent[:2]] == contents
    assert sent[2] == b"{broken"
    assert report.read_text(encoding="utf-8").splitlines()[0].startswith("line,error,pointer,")
