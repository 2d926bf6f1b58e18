"""`POST /v1/imports`: lines of other systems' registers, each applied, known already, or refused by itself."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any, Literal, TypeGuard
from uuid import UUID

import orjson
from pydantic import ValidationError

from services.intake import acts
from services.intake.dossier import Actor
from services.intake.store import Store
from services.intake.writer import Command, Line, Result, Writer
from shared.contracts.codes import parse_instant
from shared.courtesy import give_way
from shared.service import Service
from shared.web.problem import Problem, Wrong, pointer_of

MAX_LINES = 10_000
MAX_IMPORT = 16 << 20
SLICE = 500
_NEW_SOURCE = 0  # no source has this number
_CONTROL = ("op", "ref", "at", "id")
_LATER_RECEIPT = frozenset({"received_at", "due_at"})  # all that the receipt of a submitted ref needs to say


@dataclass(frozen=True, slots=True)
class Refused:
    """A line that could not even be read as a command."""

    code: str
    detail: str
    pointer: str = ""


@dataclass(slots=True)
class Read:
    """One line: its number from 1 (blank lines counted), its ref as far as it could be read, and what it asks for."""

    number: int
    ref: str | None
    command: Command | Refused


def lines_of(body: bytes) -> list[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers; 413 when there are too many."""
    lines = [(number, line) for number, line in enumerate(body.split(b"\n"), 1) if line.strip()]
    if len(lines) > MAX_LINES:
        raise Problem(413, "too-many-lines", f"At most {MAX_LINES} lines a request; send the file in parts.")
    return lines


def read_line(
    number: int,
    raw: bytes,
    source: int,
    actor: Actor,
    scope: frozenset[str] | None,
    mode: Literal["live", "history"],
) -> Read:
    """One line as a command, or why it is none."""
    try:
        content = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return Read(number, None, Refused("bad-json", "This line is no JSON."))
    if not isinstance(content, dict):
        return Read(number, None, Refused("invalid", "A line is a JSON object."))
    ref = content.get("ref")
    if not _is_name(ref):
        return Read(number, None, Refused("invalid", "ref is a text of 1 to 200 characters.", "/ref"))
    line_id = content.get("id")
    if line_id is not None and not _is_name(line_id):
        return Read(number, ref, Refused("invalid", "id is a text of 1 to 200 characters.", "/id"))
    at: datetime | None = None
    if content.get("at") is not None:
        try:
            at = parse_instant(str(content["at"]))
        except ValueError as error:
            return Read(number, ref, Refused("invalid", str(error), "/at"))
    op = content.get("op")
    fields = {name: value for name, value in content.items() if name not in _CONTROL}
    try:
        body: Any
        if op == "receive" and not fields.keys() - _LATER_RECEIPT:
            body, name = acts.ImportedReceipt.model_validate(fields), "receive"
            at = body.received_at or at
        elif op == "receive":
            body, name = acts.ImportedDossier.model_validate(fields), "new"
        elif op == "submit":
            body, name = acts.NewSubmission.model_validate(fields), "submit"
        elif isinstance(op, str) and op in acts.BODIES:
            body, name = acts.BODIES[op].model_validate(fields), op
        else:
            known = ", ".join(["receive", "submit", *(name for name in acts.BODIES if name != "receive")])
            return Read(number, ref, Refused("invalid", f"op is one of {known}.", "/op"))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        detail = str(first["msg"]).removeprefix("Value error, ")
        return Read(number, ref, Refused("invalid", detail, pointer_of(first["loc"])))
    value = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    digest = UUID(bytes=blake2b(value, digest_size=16).digest())
    line = Line(source, ref, digest, line_id)
    return Read(
        number,
        ref,
        Command(name, body, actor, at=at, mode=mode, scope=scope, line=line),
    )


def _is_name(text: Any) -> TypeGuard[str]:
    return isinstance(text, str) and 0 < len(text) <= 200 and text.isprintable()


class Imports:
    """Takes a body of lines through the writer, slice by slice, in order."""

    def __init__(self, service: Service, store: Store, writer: Writer) -> None:
        self._service, self._store, self._writer = service, store, writer

    async def run(
        self,
        body: bytes,
        source: str,
        mode: Literal["live", "history"],
        actor: Actor,
        scope: frozenset[str] | None,
        *,
        dry_run: bool = False,
    ) -> bytes:
        """NDJSON: one line for each line, in order. A dry run decides on all lines at once and writes nothing."""
        lines = lines_of(body)
        async with self._service.pool.acquire() as connection:
            if dry_run:
                number = await self._store.find_source(connection, source) or _NEW_SOURCE
            else:
                number = await self._store.source_number(connection, source)
        answers: list[bytes] = []
        size = max(len(lines), 1) if dry_run else SLICE
        under_way: asyncio.Task[list[bytes]] | None = None
        try:
            for start in range(0, len(lines), size):
                reads = []
                for index, (line, raw) in enumerate(lines[start : start + size]):
                    if index % 50 == 49:
                        await give_way()
                    reads.append(read_line(line, raw, number, actor, scope, mode))
                if under_way is not None:
                    answers += await under_way
                # While the database works on this slice, the next one is read.
                under_way = asyncio.create_task(self._execute(reads, dry_run=dry_run))
            if under_way is not None:
                answers += await under_way
        finally:
            if under_way is not None:
                under_way.cancel()
        return b"".join(answers)

    async def _execute(self, reads: Sequence[Read], *, dry_run: bool) -> list[bytes]:
        commands = [read.command for read in reads if isinstance(read.command, Command)]
        results: list[Result] = []
        if commands and dry_run:
            results = await self._writer.execute(commands, dry_run=True)
        elif commands:
            results = await self._writer.execute_apart(commands)
        answered = iter(results)
        return [_answer(read, answered) for read in reads]


def _answer(read: Read, results: Iterator[Result]) -> bytes:
    answer: dict[str, Any] = {"line": read.number, "ref": read.ref, "code": None, "status": "refused"}
    if isinstance(read.command, Refused):
        refused = read.command
        answer["error"] = {"code": refused.code, "detail": refused.detail, "pointer": refused.pointer}
    else:
        result = next(results)
        answer["code"] = result.code
        if result.problem is not None:
            problem = result.problem
            where = problem.errors[0] if problem.errors else Wrong("")
            answer["error"] = {"code": problem.code, "detail": problem.detail, "pointer": where.pointer} | problem.extra
        else:
            answer["status"] = "duplicate" if result.duplicate else "applied"
    return orjson.dumps(answer) + b"\n"
