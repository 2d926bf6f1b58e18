"""`lienthong import`: a register from another system, sent in chunks, resumed where it was cut."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from deploy.cli.console import complain, err, print_json, progress, say
from deploy.cli.errors import CommandFailed
from deploy.cli.lines import Chunk, chunks_of, digest_of, flat, is_csv, whole_dossiers_of, write_refused
from deploy.cli.names import Names
from deploy.cli.options import AsJson, Data, DryRun
from deploy.cli.site import ServiceAway, SiteClient, answered, find_site

NDJSON = "application/x-ndjson"
COMES_BACK_WITHIN = 60.0  # seconds that a service may be away in the middle of an import


class Mode(StrEnum):
    LIVE = "live"
    HISTORY = "history"


@dataclass(slots=True)
class Tally:
    """What became of the lines so far, and how many of the file's lines were sent."""

    sent: int = 0
    applied: int = 0
    duplicate: int = 0
    refused: int = 0

    @property
    def answered(self) -> int:
        return self.applied + self.duplicate + self.refused


@dataclass(frozen=True, slots=True)
class Job:
    """One file to one source of a site."""

    file: Path
    source: str
    mode: Mode
    dry_run: bool = False

    @property
    def params(self) -> dict[str, str]:
        given = {"source": self.source, "mode": str(self.mode)}
        return given | {"dry_run": "true"} if self.dry_run else given


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="NDJSON or CSV (also a register with Vietnamese headers); either may be gzip."
        ),
    ],
    data: Data = None,
    mode: Annotated[
        Mode, typer.Option(help="live: with transfers and notices. history: states and figures only.")
    ] = Mode.LIVE,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Whose references (`ref`) these are; default: the file's name up to its first dot."
        ),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Send a register's lines to intake. Cut short, it goes on where it was cut; sent twice, nothing happens twice.

    Refused lines go into FILE.refused.csv with their errors: correct them there and import that file. Exit 1 if any.

    \b
    Examples:
      lienthong import register.ndjson.gz --data ./data/site --mode history
      lienthong import register.csv --data ./data/site --dry-run
      lienthong import so-theo-doi.csv --data ./data/site --mode history
      lienthong import register.csv.refused.csv --data ./data/site
    """
    if not file.is_file():
        raise CommandFailed(f"{file} is no file that can be read.")
    job = Job(file, source or file.name.partition(".")[0], mode, dry_run)
    try:
        tally, report = asyncio.run(_import(job, data))
    except KeyboardInterrupt:
        complain([f"Cut. The same command goes on where this one stopped: {file.name}."])
        raise typer.Exit(130) from None
    except OSError as error:
        raise CommandFailed(f"{file}: {error.strerror or error}.") from None
    if as_json:
        print_json(
            {
                **{name: value for name, value in asdict(tally).items() if name != "sent"},
                "lines": tally.answered,
                "dry_run": dry_run,
                "report": str(report) if report else None,
            }
        )
    else:
        would = "would be " if dry_run else ""
        say(
            f"{tally.answered} lines: {tally.applied} {would}applied, {tally.duplicate} duplicate, {tally.refused} refused."
        )
        if report:
            say(f"Refused lines, to be corrected and imported: {report}")
    if tally.refused:
        raise typer.Exit(1)


async def _import(job: Job, data: Path | None) -> tuple[Tally, Path | None]:
    with progress() as bar:
        total = sum(len(chunk.lines) for chunk in chunks_of(job.file))
        task = bar.add_task(job.file.name, total=total)
        async with SiteClient(find_site(data), who=f"import {job.source}", timeout=300.0) as client:
            memory = Memory.of(job, data)
            names = await _names(client) if is_csv(job.file) else None
            tally = await send(client, job, memory, lambda now: bar.update(task, completed=now.sent), names)
    report = job.file.with_name(f"{job.file.name}.refused.csv")
    report.unlink(missing_ok=True)
    if tally.refused:
        write_refused(report, memory.refused())
    memory.forget()
    return tally, report if tally.refused else None


async def _names(client: SiteClient) -> Names:
    """What the site's agencies and procedures are called."""
    found: dict[str, list[dict[str, Any]]] = {"agencies": [], "procedures": []}
    for what, entries in found.items():
        page = await client.get("intake", f"/v1/{what}")
        entries += page["items"]
        while page["next_cursor"] is not None:
            page = await client.get("intake", f"/v1/{what}", cursor=page["next_cursor"])
            entries += page["items"]
    return Names(**found)


async def send(
    client: SiteClient,
    job: Job,
    memory: "Memory",
    moved: Callable[[Tally], None] = lambda _: None,
    names: Names | None = None,
) -> Tally:
    """Sends what the memory does not know as sent. Raises CommandFailed; what was answered until then is remembered."""
    tally = memory.tally
    if tally.sent:
        err.print(f"{job.file.name}: going on after line {tally.sent}.")
    chunks = whole_dossiers_of(job.file, names) if job.dry_run else _after(chunks_of(job.file, names), tally.sent)
    for chunk in chunks:
        refused = []
        for answer in await _send_chunk(client, job, chunk):
            status = answer["status"]
            setattr(tally, status, getattr(tally, status) + 1)
            if status == "refused":
                refused.append(_refusal(chunk, answer, names))
        tally.sent += len(chunk.lines)
        memory.remember(refused)
        moved(tally)
    return tally


def _after(chunks: Iterator[Chunk], sent: int) -> Iterator[Chunk]:
    """Cut short, a file was cut between two chunks, and the same file makes the same chunks."""
    passed = 0
    for chunk in chunks:
        passed += len(chunk.lines)
        if passed > sent:
            yield chunk


async def _send_chunk(client: SiteClient, job: Job, chunk: Chunk) -> list[dict[str, Any]]:
    """The answers, line by line. While intake is away the chunk is sent again: what was stored is then a duplicate."""
    loop = asyncio.get_running_loop()
    until, pause = loop.time() + COMES_BACK_WITHIN, 0.2
    while True:
        try:
            response = await client.ask(
                "intake",
                "POST",
                "/v1/imports",
                params=job.params,
                content=chunk.body,
                headers={"Content-Type": NDJSON},
            )
            if not response.is_success:
                answered("intake", response)
            return [orjson.loads(line) for line in response.content.splitlines() if line]
        except ServiceAway:
            if loop.time() > until:
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, 3.0)


def _refusal(chunk: Chunk, answer: Mapping[str, Any], names: Names | None) -> dict[str, str]:
    """A refused line as a row of the report; of a name that was not understood, what it may mean."""
    place = answer["line"] - 1
    error, pointer = answer["error"], answer["error"].get("pointer", "")
    line = flat(chunk.lines[place])
    field = pointer.removeprefix("/")
    doubt = names.doubt(field, line[field]) if names is not None and field in line else None
    row = {
        "line": str(chunk.numbers[place]),
        "error": f"{error['code']}: {doubt or error['detail']}",
        "pointer": pointer,
    }
    return row | line


@dataclass(slots=True)
class Memory:
    """What was sent and answered, kept beside the site until the file is through. A dry run remembers nothing.

    NAME.json is the tally; NAME.refused the refused rows, of which `_length` bytes belong to it.
    """

    _path: Path | None
    tally: Tally = field(default_factory=Tally)
    _length: int = 0
    _unsaved: list[dict[str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, job: Job, data: Path | None) -> "Memory":
        """The memory of this content for this source and mode. Without a site's folder it lies beside the file."""
        if job.dry_run:
            return cls(None)
        name = sha256(f"{digest_of(job.file)}\0{job.source}\0{job.mode}".encode()).hexdigest()[:32]
        path = (data / "imports" if data else job.file.parent) / f".import-{name}.json"
        with suppress(FileNotFoundError, ValueError, TypeError, KeyError):
            saved = json.loads(path.read_text())
            return cls(path, Tally(**saved["tally"]), saved["refused_bytes"])
        return cls(path)

    @property
    def _refused_path(self) -> Path:
        assert self._path is not None
        return self._path.with_suffix(".refused")

    def remember(self, refused: list[dict[str, str]]) -> None:
        if self._path is None:
            self._unsaved += refused
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if refused:
            # Refused lines hold personal data until they are corrected and sent.
            self._refused_path.touch(mode=0o600)
            with self._refused_path.open("r+b") as rows:
                rows.truncate(self._length)
                rows.seek(self._length)
                rows.write(b"".join(orjson.dumps(row) + b"\n" for row in refused))
                self._length = rows.tell()
        draft = self._path.with_suffix(".new")
        draft.write_text(json.dumps({"tally": asdict(self.tally), "refused_bytes": self._length}))
        draft.replace(self._path)

    def refused(self) -> list[dict[str, str]]:
        """All refused rows, in the file's order."""
        if self._path is None or self._length == 0:
            return sorted(self._unsaved, key=lambda row: int(row["line"]))  # a dry run goes by dossier
        return [orjson.loads(row) for row in self._refused_path.read_bytes()[: self._length].splitlines()]

    def forget(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._refused_path.unlink(missing_ok=True)
