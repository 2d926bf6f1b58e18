"""`POST /v1/imports`: lines of other systems' registers, each applied, known already, or refused by itself."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal
from uuid import UUID

import orjson
from pydantic import ValidationError

from services.intake import acts
from services.intake.dossier import Actor
from services.intake.store import Store
from services.intake.writer import Command, Line, Result, Writer
from shared.contracts.codes import parse_instant
from shared.service import Service
from shared.web.problem import Problem, Wrong, pointer_of

MAX_LINES = 10_000
MAX_IMPORT = 16 << 20
SLICE = 500
_CONTROL = ("op", "ref", "at", "id")


@dataclass(frozen=True, slots=True)
class Refused:
    """A line that could not even be read as a command."""

    code: str
    detail: str
    pointer: str = ""


@dataclass(frozen=True, slots=True)
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
    dry_run: bool,
) -> Read:
    """One line as a command, or why it is none."""
    try:
        content = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return Read(number, None, Refused("bad-json", "This line is no JSON."))
    if not isinstance(content, dict):
        return Read(number, None, Refused("invalid", "A line is a JSON object."))
    ref = content.get("ref")
    if not isinstance(ref, str) or not 0 < len(ref) <= 200 or not ref.isprintable():
        return Read(number, None, Refused("invalid", "ref is a text of 1 to 200 characters.", "/ref"))
    line_id = content.get("id")
    if line_id is not None and (
        not isinstance(line_id, str) or not 0 < len(line_id) <= 200 or not line_id.isprintable()
    ):
        return Read(number, ref, Refused("invalid", "id is a text of 1 to 200 characters.", "/id"))
    try:
        at = parse_instant(content["at"]) if content.get("at") is not None else None
    except (ValueError, TypeError) as error:
        return Read(number, ref, Refused("invalid", str(error), "/at"))
    op = content.get("op")
    fields = {name: value for name, value in content.items() if name not in _CONTROL}
    try:
        body: Any
        if op == "receive" and fields:
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
        Command(name, body, actor, at=at, mode=mode, scope=scope, line=line, dry_run=dry_run),
    )


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
        """NDJSON: one line for each line, in order."""
        lines = lines_of(body)
        async with self._service.pool.acquire() as connection:
            number = await self._store.source_number(connection, source)
        answers: list[bytes] = []
        size = (
            max(len(lines), 1) if dry_run else SLICE
        )  # a dry run is one transaction, so that later lines see earlier ones
        for start in range(0, len(lines), size):
            reads = []
            for index, (line, raw) in enumerate(lines[start : start + size]):
                if index % 100 == 99:
                    await asyncio.sleep(0)  # requests are answered beside an import
                reads.append(read_line(line, raw, number, actor, scope, mode, dry_run))
            commands = [read.command for read in reads if isinstance(read.command, Command)]
            results = iter(await self._writer.execute(commands) if commands else [])
            answers.extend(_answer(read, results) for read in reads)
        return b"".join(answers)


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
