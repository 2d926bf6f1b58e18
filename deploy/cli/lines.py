"""Import lines in a file: NDJSON or CSV, plain or gzip, cut into chunks; and CSV written from refused lines.

CSV has a column for each field, the names of nested ones joined by dots (`applicant.name`, `components.0.name`); an empty
cell is a field that is not there. A register as one-stop desks keep it, with Vietnamese headers, is read too: register.py.
"""

import csv
import gzip
import io
import re
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import orjson

from deploy.cli.errors import CommandFailed
from deploy.cli.names import Names
from deploy.cli.register import is_register, lines_of, unknown_headers

MAX_LINES, MAX_BYTES = 5000, 8 << 20  # half of what a request may hold
GZIP = b"\x1f\x8b"

# What the report of refused lines says of each, and what is not sent again.
REPORT_COLUMNS = ("line", "error", "pointer")
# A refused line that was no JSON object, as it stood: it is sent again as it then stands.
RAW = "raw"

_FLAGS = frozenset({"digitised", "reused", "electronic", "complained"})
_AMOUNTS = frozenset({"amount"})
_NUMBER = re.compile(r"-?\d+")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Lines that are sent together, each with the number of its line or row in its file, from 1."""

    numbers: Sequence[int]
    lines: Sequence[bytes]

    @property
    def first(self) -> int:
        return self.numbers[0]

    @property
    def body(self) -> bytes:
        return b"\n".join(self.lines)


def is_csv(file: Path) -> bool:
    return file.name.lower().removesuffix(".gz").endswith(".csv")


def digest_of(file: Path) -> str:
    """Hex SHA-256 of the file as it lies there."""
    digest = sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def chunks_of(file: Path, names: Names | None = None) -> Iterator[Chunk]:
    """The file's lines in order, in chunks of at most MAX_LINES and MAX_BYTES; `names`: for a register's that stand for codes.
    Raises CommandFailed, OSError."""
    numbers, lines, size = list[int](), list[bytes](), 0
    for number, line in _numbered(file, names):
        if lines and (len(lines) >= MAX_LINES or size + len(line) + 1 > MAX_BYTES):
            yield Chunk(numbers, lines)
            numbers, lines, size = [], [], 0
        numbers.append(number)
        lines.append(line)
        size += len(line) + 1
    if lines:
        yield Chunk(numbers, lines)


def whole_dossiers_of(file: Path, names: Names | None = None) -> Iterator[Chunk]:
    """The same lines with those of one `ref` in one chunk, in their order: what is decided without being stored is known
    to the lines of the same request alone. They are sorted on disk. Raises CommandFailed, OSError."""
    with tempfile.TemporaryDirectory() as folder, closing(sqlite3.connect(Path(folder) / "lines")) as sorting:
        sorting.execute("CREATE TABLE line (ref TEXT, place INTEGER PRIMARY KEY, number, content BLOB)")
        sorting.executemany(
            "INSERT INTO line (ref, number, content) VALUES (?, ?, ?)",
            ((_ref(line), number, line) for number, line in _numbered(file, names)),
        )
        # A line whose ref cannot be read belongs to no other.
        rows = sorting.execute("SELECT coalesce(ref, place), number, content FROM line ORDER BY ref, place")
        numbers, lines, size = list[int](), list[bytes](), 0
        for _, dossier in groupby(rows, key=itemgetter(0)):
            own = [(number, content) for _, number, content in dossier]
            more = sum(len(content) + 1 for _, content in own)
            if lines and (len(lines) + len(own) > MAX_LINES or size + more > MAX_BYTES):
                yield Chunk(numbers, lines)
                numbers, lines, size = [], [], 0
            numbers += [number for number, _ in own]
            lines += [content for _, content in own]
            size += more
        if lines:
            yield Chunk(numbers, lines)


def _ref(line: bytes) -> str | None:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    ref = found.get("ref") if isinstance(found, dict) else None
    return ref if isinstance(ref, str) else None


def _numbered(file: Path, names: Names | None) -> Iterator[tuple[int, bytes]]:
    with file.open("rb") as plain:
        zipped = plain.read(2) == GZIP
    try:
        with gzip.open(file, "rb") if zipped else file.open("rb") as stream:
            if is_csv(file):
                # A row may span lines; a chunk's lines are counted as rows, the header being the first.
                with io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:
                    yield from _rows(text, names)
            else:
                yield from enumerate((line.rstrip(b"\r\n") for line in stream), start=1)
    except (gzip.BadGzipFile, EOFError):
        raise CommandFailed(f"{file.name}: this gzip file is damaged.") from None
    except UnicodeDecodeError:
        raise CommandFailed(f"{file.name}: this CSV is not UTF-8 text.") from None
    except csv.Error as error:
        raise CommandFailed(f"{file.name}: this is no CSV: {error}.") from None


def _rows(text: io.TextIOWrapper, names_of: Names | None) -> Iterator[tuple[int, bytes]]:
    """The lines of a CSV, with the number of their row: one a row, or as many as a register's row tells of."""
    header = text.readline()
    # A spreadsheet in Vietnam writes semicolons.
    delimiter = max(",;\t", key=header.count)
    names = next(csv.reader([header], delimiter=delimiter), [])
    register = is_register(names)
    if register and (unknown := unknown_headers(names)):
        raise CommandFailed(
            f"These headers of the register are not known: {', '.join(unknown)}; rename or remove them."
        )
    for number, row in enumerate(csv.reader(text, delimiter=delimiter), start=2):
        cells = dict(zip(names, row, strict=False))
        if register:
            for line in lines_of(cells, names_of):
                yield number, orjson.dumps(line)
        else:
            yield number, line_of_row(cells)


def line_of_row(row: Mapping[str, str]) -> bytes:
    """One CSV row as an import line."""
    if row.get(RAW):
        return row[RAW].encode()
    line: dict[str, Any] = {}
    for column, cell in row.items():
        if cell != "" and column not in (*REPORT_COLUMNS, RAW):
            _put(line, column.strip().split("."), cell)
    return orjson.dumps(_lists(line)) if line else b""


def _put(tree: dict[str, Any], path: Sequence[str], cell: str) -> None:
    *parents, leaf = path
    for name in parents:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise csv.Error(f"the column {'.'.join(path)} stands beside one that holds the whole of it")
    tree[leaf] = _value(leaf, cell)


def _value(name: str, cell: str) -> Any:
    """The few fields that are no text; what does not look like its kind goes as text, and is refused by its pointer."""
    if name in _FLAGS and cell.strip().lower() in ("true", "false"):
        return cell.strip().lower() == "true"
    if name in _AMOUNTS and _NUMBER.fullmatch(cell.strip()):
        return int(cell)
    return cell


def _lists(tree: Any) -> Any:
    """Mappings whose names are all numbers are lists."""
    if not isinstance(tree, dict):
        return tree
    inner = {name: _lists(value) for name, value in tree.items()}
    if inner and all(name.isdecimal() for name in inner):
        return [inner[name] for name in sorted(inner, key=int)]
    return inner


def flat(line: bytes) -> dict[str, str]:
    """An import line as a CSV row; `line_of_row` reads it again."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        value = None
    row = dict(_leaves(value, "")) if isinstance(value, dict) else {}
    # What columns cannot say (null, an empty list, a name with a dot) is kept as it stands.
    return row if row and _says(row, value) else {RAW: line.decode("utf-8", "replace")}


def _says(row: Mapping[str, str], value: Any) -> bool:
    try:
        return RAW not in row and orjson.loads(line_of_row(row) or b"null") == value
    except csv.Error:
        return False


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}.{index}")
    elif isinstance(value, bool):
        yield path, "true" if value else "false"
    elif isinstance(value, str):
        yield path, value
    else:
        yield path, orjson.dumps(value).decode()


def write_refused(file: Path, refused: Iterable[Mapping[str, str]]) -> None:
    """The report: each refused line with its number, error and pointer, in columns that `import` reads."""
    rows = list(refused)
    fields = dict.fromkeys(name for row in rows for name in row if name not in REPORT_COLUMNS)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [*REPORT_COLUMNS, *fields])
        writer.writeheader()
        writer.writerows(rows)
