"""The one way in: commands that arrive together share a statement and a commit, and each is answered by its own result.

A batch is decided in memory on locked rows, in the order in which the commands came; a command that is refused leaves no
trace and holds nothing up. Requests, import lines, routing's news and the clock's ticks all come through `Writer.execute`.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal
from uuid import UUID

import asyncpg
import structlog

from services.intake import acts
from services.intake.dossier import (
    Actor,
    Decision,
    Dossier,
    Past,
    Refusal,
    begin,
    correct,
    decide,
    fold,
    next_tick,
    reschedule,
    tick,
)
from services.intake.store import DOSSIER, Person, Store
from shared.contracts import events as ev
from shared.contracts.codes import LOCAL_ZONE, format_dossier_code, local_day, uuid7
from shared.contracts.envelope import Envelope
from shared.directory.directory import Directory
from shared.observe.metrics import DUE_BEHIND
from shared.observe.traces import cause_of, causing
from shared.security.keys import pin_digest
from shared.service import Service, age
from shared.store.chain import link
from shared.store.pool import Connection, passes_by_itself
from shared.web.problem import Problem, Wrong, not_found
from shared.web.writes import Answer, RequestKey, Running, answer_columns

Mode = Literal["live", "history"]
log = structlog.get_logger("lienthong.intake")


@dataclass(frozen=True, slots=True)
class Line:
    """Where an imported command comes from: the source's name for the dossier, and the digest of the line's JSON value."""

    source: int
    ref: str
    digest: UUID
    id: str | None


@dataclass(slots=True)
class Command:
    """One act that somebody wants: on a dossier by `code` (or, for imports, by the source's ref), or a new one."""

    op: str  # "new", "submit", or an operation of acts.BODIES
    body: Any
    actor: Actor
    code: str | None = None
    at: datetime | None = None
    mode: Mode = "live"
    scope: frozenset[str] | None = None  # the agencies that the actor speaks for; None: all
    if_match: str | None = None
    key: RequestKey | None = None
    line: Line | None = None
    cause: str | None = field(default_factory=cause_of)  # the span of the request, where it is traced


@dataclass(slots=True)
class Result:
    """What a command came to: a problem, a stored answer, a duplicate; else `code` names the dossier it was done on."""

    answer: Answer | None = None
    problem: Problem | None = None
    code: str | None = None
    duplicate: bool = False
    replayed: Any = None


@dataclass(slots=True)
class _Batch:
    """The state of a batch: what was read, and what is to be written."""

    now: datetime
    # what was read
    dossiers: dict[str, Dossier]  # by code; what comes into being is added under "new:…" until it has one
    elsewhere: dict[str, set[str]]  # other sites' dossiers: the agencies here that they were transferred to
    refs: dict[str, str]  # of the import's source: the key in dossiers
    imported: dict[UUID, str]
    ids: dict[str, UUID]
    persons: dict[str, Person]  # by keyed hash of the citizen id
    contacts: dict[str, Person]  # by contact_ref
    # what is to be written
    new: dict[str, Dossier] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    events: list[tuple[str, ev.DossierEvent, UUID, datetime, int, Mode]] = field(default_factory=list)
    people: list[tuple[Person, datetime, Mode]] = field(default_factory=list)  # of the commands that were taken
    remarks: list[tuple[str, int, str]] = field(default_factory=list)
    new_refs: dict[str, str] = field(default_factory=dict)
    new_imported: dict[UUID, str] = field(default_factory=dict)
    new_ids: dict[str, UUID] = field(default_factory=dict)
    causes: dict[str, str] = field(default_factory=dict)  # by key in dossiers, where the request is traced


# What another process wrote meanwhile (a code, a ref, an Idempotency-Key, a person) is seen when the batch is done again.
_MEANWHILE = (asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError)
_ATTEMPTS = 20


class Writer:
    """Executes commands in batches; `submit` waits for company, `execute` takes a batch as it is."""

    def __init__(self, service: Service, store: Store, batch_limit: int, tick_seconds: float) -> None:
        self._service, self._store, self._limit = service, store, batch_limit
        self._tick_seconds = tick_seconds
        self._queue: list[tuple[Command, asyncio.Future[Result]]] = []
        self._arrived = asyncio.Event()
        self._running = Running()
        self.batches = 0
        self.commands = 0

    # -- group commit

    async def submit(self, command: Command) -> Result:
        """The command's own result, after the commit that it shared. Promise 1: answered means stored."""
        with self._running.holding(command.key):
            future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
            self._queue.append((command, future))
            self._arrived.set()
            return await future

    async def run(self) -> None:
        """Takes what has arrived as one batch, again and again; two batches may be under way."""
        under_way: set[asyncio.Task[None]] = set()
        while True:
            self._service.beat("writer")
            if not self._queue:
                self._arrived.clear()
                try:
                    async with asyncio.timeout(5.0):
                        await self._arrived.wait()
                except TimeoutError:
                    continue
            if len(under_way) >= 2:
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                continue
            taken, self._queue = self._queue[: self._limit], self._queue[self._limit :]
            task = asyncio.create_task(self._answer(taken))
            under_way.add(task)
            task.add_done_callback(under_way.discard)

    async def _answer(self, taken: list[tuple[Command, "asyncio.Future[Result]"]]) -> None:
        try:
            results = await self.execute_apart([command for command, _ in taken])
        except Problem as problem:
            results = [Result(problem=problem) for _ in taken]
        for (_, future), result in zip(taken, results, strict=True):
            if not future.done():
                future.set_result(result)

    async def raise_due(self) -> None:
        """Raises due-soon and overdue, each once for each due date, also after a night switched off."""
        while True:
            self._service.beat("ticks")
            if self._service.directory.loaded:
                async with self._service.pool.acquire() as connection:
                    now = await self._service.log.now(connection)
                    codes = await self._store.ticking(connection, now, self._limit)
                if codes:
                    await self.execute_apart([Command("tick", None, SYSTEM, code=code) for code in codes])
                    if len(codes) == self._limit:
                        continue
            await asyncio.sleep(self._tick_seconds)

    async def observe(self, connection: Connection) -> None:
        """How far behind the due dates are."""
        oldest = await connection.fetchval(self._store.queries["due_oldest"])
        self._service.metrics.set(DUE_BEHIND, age(oldest))

    async def move_open(self, *, dry_run: bool) -> list[dict[str, Any]]:
        """Moves the open due dates that the calendar versions in force on them change; what was, or would be, moved."""
        directory = self._service.directory.current
        moved: list[dict[str, Any]] = []
        after = ""
        while True:
            async with self._service.pool.acquire() as connection:
                codes = await self._store.open_of(connection, sorted(directory.agencies), after, self._limit)
            if not codes:
                return moved
            after = codes[-1]
            commands = [Command("reschedule", None, SYSTEM, code=code) for code in codes]
            results = await self.execute(commands, dry_run=dry_run)
            moved += [r.answer.body["moved"] for r in results if r.answer is not None and r.answer.body["moved"]]

    async def execute_apart(self, commands: Sequence[Command]) -> list[Result]:
        """As `execute`; a command that is more than we can bear takes nobody with it: the batch is halved until it stands
        alone, and it alone is answered by an error. Raises Problem (503) when nothing can be stored now.
        """
        try:
            return await self.execute(commands)
        except Exception as error:
            if passes_by_itself(error):
                log.warning("not-stored", service="intake", error=type(error).__name__)
                detail = "This could not be stored now; send it again."
                raise Problem(503, "not-stored", detail, headers={"Retry-After": "1"}) from error
            if len(commands) == 1:
                log.error("write-failed", service="intake", kind=commands[0].op, exc_info=error)
                return [Result(problem=Problem(500, "internal", "Something went wrong here; it has been logged."))]
        half = len(commands) // 2
        return [*await self.execute_apart(commands[:half]), *await self.execute_apart(commands[half:])]

    async def execute(self, commands: Sequence[Command], *, dry_run: bool = False) -> list[Result]:
        """One transaction for all of them; results in the same order. `dry_run`: nothing is written, no code given."""
        directory = self._service.directory.current
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                async with self._service.pool.acquire() as connection, connection.transaction():
                    results = await self._execute(connection, commands, directory, dry_run)
                break
            except _MEANWHILE:
                if attempt == _ATTEMPTS:
                    raise
        self._service.wake()
        self.batches += 1
        self.commands += len(commands)
        return results

    # -- one batch

    async def _execute(
        self, connection: Connection, commands: Sequence[Command], directory: Directory, dry_run: bool
    ) -> list[Result]:
        replays = await self._replays(connection, commands)
        batch = await self._read(connection, commands)
        results: list[Result] = []
        for index, command in enumerate(commands):
            if index % 50 == 49:
                await asyncio.sleep(0)  # other requests are answered while a large batch is decided
            if index in replays:
                results.append(replays[index])
                continue
            try:
                results.append(await self._one(connection, command, batch, directory))
            except Refusal as refusal:
                results.append(Result(problem=problem_of(refusal)))
            except Problem as problem:
                results.append(Result(problem=problem))
        named: dict[str, str | None] = dict.fromkeys(batch.new)
        if not dry_run:
            named = await self._write(connection, commands, batch, directory)
        self._finish_answers(commands, results, named)
        if not dry_run:
            await self._keep_answers(connection, commands, results)
        return results

    async def _replays(self, connection: Connection, commands: Sequence[Command]) -> dict[int, Result]:
        """The commands whose Idempotency-Key has an answer already."""
        keyed = [(i, c.key) for i, c in enumerate(commands) if c.key is not None]
        if not keyed:
            return {}
        found = await self._store.answers(connection, [key for _, key in keyed])
        return {i: Result(replayed=(key, found[key.identity])) for i, key in keyed if key.identity in found}

    async def _read(self, connection: Connection, commands: Sequence[Command]) -> _Batch:
        """What the commands are decided on, locked until the commit; the batch's time is read under these locks."""
        lines = [c.line for c in commands if c.line is not None]
        imported: dict[UUID, str] = {}
        ids: dict[str, UUID] = {}
        refs: dict[str, str] = {}
        if lines:
            # Imports of one source take turns: what the one has applied is a duplicate to the other.
            source = lines[0].source
            await self._store.lock_source(connection, source)
            imported = await self._store.imported(connection, source, [line.digest for line in lines])
            ids = await self._store.imported_ids(connection, source, [line.id for line in lines if line.id is not None])
            refs = await self._store.references(connection, source, sorted({line.ref for line in lines}))
        begun = [c for c in commands if c.op in ("new", "submit")]
        codes = {c.code for c in commands if c.code is not None} | set(refs.values())
        codes |= {code for c in begun if (code := getattr(c.body, "code", None)) is not None}
        dossiers = await self._store.lock(connection, sorted(codes))
        unknown = sorted(codes - dossiers.keys())
        elsewhere = await self._store.elsewhere(connection, unknown) if unknown else {}
        hashes = {h for c in begun if (h := self._store.person_hash(c.body.applicant.citizen_id)) is not None}
        submitted = {d.contact_ref for d in dossiers.values() if d.state == 1 and d.contact_ref} if begun else set()
        persons, contacts = await self._store.persons(connection, sorted(hashes), sorted(submitted))
        now = await self._service.log.now(connection)
        return _Batch(now, dossiers, elsewhere, refs, imported, ids, persons, contacts)

    async def _one(self, connection: Connection, command: Command, batch: _Batch, directory: Directory) -> Result:
        line = command.line
        if line is not None:
            if (known := batch.imported.get(line.digest) or batch.new_imported.get(line.digest)) is not None:
                return Result(duplicate=True, code=known)
            if line.id is not None and (line.id in batch.ids or line.id in batch.new_ids):
                raise Refusal(409, "id-reused", "This id came before with other content.", "/id")
        if command.op in ("new", "submit"):
            result = self._begin(command, batch, directory)
        else:
            result = await self._act(connection, command, batch, directory)
        if command.cause is not None and result.code is not None:
            batch.causes[result.code] = command.cause
        if line is not None and result.code is not None:
            batch.new_imported[line.digest] = result.code
            if line.id is not None:
                batch.new_ids[line.id] = line.digest
        return result

    def _begin(self, command: Command, batch: _Batch, directory: Directory) -> Result:
        body, line = command.body, command.line
        ref = None if line is None else line.ref
        present = batch.dossiers.get(batch.refs.get(ref, "")) if ref is not None else None
        if command.op == "submit" and line is None and command.code is not None:
            present = batch.dossiers.get(command.code)
        if present is not None and command.op == "new":
            self._must_own(command, present)
            if present.state != 1:
                raise Refusal(409, "ref-used", "This ref names a dossier that was received already.", "/ref")
            if body.code not in (None, present.code):
                raise Refusal(409, "code-used", "This dossier was submitted under another code.", "/code")
            receipt = acts.ImportedReceipt(at=body.happened or command.at, due_at=body.due_at)
            decision = decide(present, "receive", receipt, command.actor, batch.now, directory)
            self._apply(present, decision, batch, command.mode)
            return self._done(command, present, decision, 200)
        if present is not None:
            if line is not None:
                raise Refusal(409, "ref-used", "This ref was submitted already.", "/ref")
            return self._submit_again(command, present, batch, directory)
        self._must_receive(command)
        person = self._person(body.applicant, batch)
        dossier, events, at = begin(
            body, command.actor, command.at, batch.now, directory, command.mode, person.contact_ref
        )
        kept = getattr(body, "code", None)
        if kept is not None and kept in batch.dossiers:
            raise Refusal(409, "code-used", "This code belongs to another dossier.", "/code")
        key = kept or f"new:{len(batch.new)}"
        dossier.code = kept or ""
        batch.new[key] = batch.dossiers[key] = dossier
        self._take(person, body.applicant, batch, at, command.mode)
        if ref is not None:
            batch.refs[ref] = batch.new_refs[ref] = key
        decision = Decision(events, at)
        self._apply(dossier, decision, batch, command.mode, key)
        return self._done(command, dossier, decision, 201, key)

    def _submit_again(self, command: Command, present: Dossier, batch: _Batch, directory: Directory) -> Result:
        """An upsert by code: it changes nothing but a dossier in state 1."""
        body = command.body
        self._must_own(command, present)
        if present.state != 1:
            return self._done(command, present, Decision([], batch.now), 200)
        self._must_receive(command)
        person = self._person(body.applicant, batch, present.contact_ref)
        fresh, (data,), at = begin(
            body, command.actor, command.at, batch.now, directory, command.mode, person.contact_ref
        )
        at = max(at, present.last_at or at)
        self._take(person, body.applicant, batch, at, command.mode)
        same = all(
            getattr(fresh, name) == getattr(present, name)
            for name in ("procedure", "agency", "deciding_agency", "channel", "return_by", "components", "contact_ref")
        )
        again = ev.DossierSubmitted.model_validate(dict(data) | {"previous": 1})
        decision = Decision([] if same else [again], at)
        self._apply(present, decision, batch, command.mode)
        return self._done(command, present, decision, 200)

    async def _act(self, connection: Connection, command: Command, batch: _Batch, directory: Directory) -> Result:
        key = command.code
        if command.line is not None:
            key = batch.refs.get(command.line.ref)
            if key is None:
                raise Refusal(404, "unknown-ref", "No earlier line of this source has this ref.", "/ref")
        dossier = batch.dossiers.get(key or "")
        if dossier is None or key is None:
            here = batch.elsewhere.get(key or "", set())
            if here and (command.scope is None or here & command.scope):
                raise Refusal(409, "not-home", "This dossier's home is another site; only there it is acted on.")
            raise not_found("This dossier")
        self._must_own(command, dossier)
        if command.if_match is not None and not matches(command.if_match, dossier.sequence):
            raise Problem(
                412,
                "changed-meanwhile",
                f"The present version is {dossier.sequence}; read it again.",
                headers={"ETag": etag(dossier.sequence)},
            )
        if command.op in _BY_ITSELF:
            decision = Decision(_BY_ITSELF[command.op](dossier, batch.now, directory), batch.now)
            was = dossier.due_at
            self._apply(dossier, decision, batch, "live", key)
            if not decision.events and command.op == "tick":
                batch.changed.add(key)  # its next tick is computed anew
            moved = (
                {"code": key, "from": local_text(was), "to": local_text(dossier.due_at)} if decision.events else None
            )
            return Result(answer=Answer(200, {"moved": moved, "version": dossier.sequence}), code=key)
        if command.op == "correction":
            return await self._correct(connection, command, dossier, key, batch, directory)
        body = command.body
        decision = decide(dossier, command.op, body, command.actor, batch.now, directory, command.at)
        self._apply(dossier, decision, batch, command.mode, key)
        if command.op == "rating" and body.comment is not None:
            batch.remarks.append((key, dossier.sequence, body.comment))
        return self._done(command, dossier, decision, 200, key)

    def _must_receive(self, command: Command) -> None:
        if command.scope is not None and command.body.receiving_agency not in command.scope:
            raise Refusal(403, "forbidden", "You may not take dossiers in for this agency.", "/receiving_agency")

    def _must_own(self, command: Command, dossier: Dossier) -> None:
        """A dossier belongs to its receiving and its deciding agency, and to the portal that sent it."""
        if command.scope is not None and not {dossier.agency, dossier.deciding_agency} & command.scope:
            raise not_found("This dossier")
        if command.actor.role == "portal" and dossier.sender != command.actor.subject:
            raise not_found("This dossier")

    async def _correct(
        self,
        connection: Connection,
        command: Command,
        dossier: Dossier,
        key: str,
        batch: _Batch,
        directory: Directory,
    ) -> Result:
        stored = await self._store.history(connection, dossier.code) if dossier.code else []
        fresh = [
            Past(sequence, event_id, at, batch.now, mode, data)
            for name, data, event_id, at, sequence, mode in batch.events
            if name == key
        ]
        body = command.body if command.at is None else command.body.model_copy(update={"at": command.at})
        decision, before = correct(dossier, [*stored, *fresh], body, command.actor, batch.now, directory)
        for number, event in enumerate(decision.events, dossier.sequence + 1):
            assert isinstance(event, ev.DossierEvent)
            batch.events.append((key, event, uuid7(), decision.at, number, command.mode))
        batch.dossiers[key] = before
        if key in batch.new:
            batch.new[key] = before
        batch.changed.add(key)
        return self._done(command, before, decision, 200, key)

    def _apply(self, dossier: Dossier, decision: Decision, batch: _Batch, mode: Mode, key: str | None = None) -> None:
        key = key or dossier.code
        recorded = max(batch.now, dossier.recorded) if dossier.recorded else batch.now
        for data in decision.events:
            assert isinstance(data, ev.DossierEvent)
            event_id = uuid7()
            fold(dossier, data, decision.at, recorded, mode)
            batch.events.append((key, data, event_id, decision.at, dossier.sequence, mode))
        if decision.events:
            batch.changed.add(key)

    def _done(
        self, command: Command, dossier: Dossier, decision: Decision, status: int, key: str | None = None
    ) -> Result:
        if command.line is not None:
            return Result(code=key or dossier.code)  # a line is answered by its code alone
        body: dict[str, Any] = {
            "code": dossier.code,
            "state": dossier.state,
            "due_at": local_text(dossier.due_at),
            "version": dossier.sequence,
        }
        if command.op in ("new", "submit"):
            body["received_at"] = local_text(dossier.received_at)
        else:
            body["warnings"] = decision.warnings
        return Result(answer=Answer(status, body), code=key or dossier.code)

    def _person(self, applicant: acts.Applicant, batch: _Batch, present: str | None = None) -> Person:
        """Who applies: one contact_ref per citizen id, else per dossier."""
        person_hash = self._store.person_hash(applicant.citizen_id)
        if person_hash is not None:
            known = batch.persons.get(person_hash)
            return known or Person(f"c{uuid7().hex}", person_hash)
        known = batch.contacts.get(present or "")
        return known if known is not None and known.person_hash is None else Person(f"c{uuid7().hex}", None)

    def _take(self, person: Person, applicant: acts.Applicant, batch: _Batch, at: datetime, mode: Mode) -> None:
        """The command was taken: what it says of its applicant stands."""
        person.take(applicant.model_dump(mode="json", exclude_none=True))
        batch.contacts[person.contact_ref] = person
        if person.person_hash is not None:
            batch.persons[person.person_hash] = person
        batch.people.append((person, at, mode))

    # -- writing

    async def _write(
        self,
        connection: Connection,
        commands: Sequence[Command],
        batch: _Batch,
        directory: Directory,
    ) -> dict[str, str | None]:
        """Writes what the batch came to; the code of each dossier that the commands named."""
        await self._give_codes(connection, batch)
        named = {key: dossier.code for key, dossier in batch.dossiers.items()}
        envelopes = [
            Envelope(
                topic=DOSSIER,
                id=event_id,
                source=self._service.source,
                type=data.short,
                subject=named[key],
                time=at,
                recorded=batch.dossiers[key].recorded or batch.now,
                sequence=sequence,
                mode=mode,
                data=self._said(named[key], data),
            )
            for key, data, event_id, at, sequence, mode in batch.events
        ]
        chains = self._chained(batch, envelopes)
        envelopes += await self._store.write_people(connection, batch.people, batch.now)
        new = [batch.dossiers[key] for key in batch.new]
        moved = [batch.dossiers[key] for key in sorted(batch.changed - set(batch.new))]
        await self._store.write_dossiers(
            connection, [(d, next_tick(d, directory)) for d in new], [(d, next_tick(d, directory)) for d in moved]
        )
        with causing(batch.causes and self._causes(batch)):
            await self._service.log.append(connection, envelopes, chains)
        if batch.remarks:
            await self._store.write_remarks(
                connection,
                [(named[key], number, batch.dossiers[key].contact_ref, text) for key, number, text in batch.remarks],
            )
        line = next((c.line for c in commands if c.line is not None), None)
        if line is not None:
            await self._store.write_import(
                connection,
                line.source,
                {ref: named[key] for ref, key in batch.new_refs.items()},
                {digest: named.get(key, key) for digest, key in batch.new_imported.items()},
                batch.new_ids,
            )
        return dict(named)

    def _said(self, code: str, data: ev.EventData) -> bytes:
        """The event's bytes; of the first ones also by what other sites know the pin of the code that was just given."""
        if isinstance(data, ev.DossierSubmitted | ev.DossierReceived):
            data = data.model_copy(update={"track": pin_digest(code, self._service.keys.track_pin(code))})
        return data.to_json()

    @staticmethod
    def _causes(batch: _Batch) -> dict[str, str]:
        """The span of each dossier's request, and of its person's, by the keys of their events."""
        caused = [(batch.dossiers[key], cause) for key, cause in batch.causes.items() if key in batch.dossiers]
        return {key: cause for dossier, cause in caused for key in (dossier.code, dossier.contact_ref) if key}

    @staticmethod
    def _chained(batch: _Batch, envelopes: Sequence[Envelope]) -> list[str]:
        """What each event makes of its dossier's chain; the dossier is written with the last."""
        chains = []
        for (key, *_), envelope in zip(batch.events, envelopes, strict=True):
            dossier = batch.dossiers[key]
            dossier.chain = link(dossier.chain, envelope)
            chains.append(dossier.chain)
        return chains

    async def _keep_answers(
        self, connection: Connection, commands: Sequence[Command], results: Sequence[Result]
    ) -> None:
        """What was done, or refused by the dossier's state, is kept under its Idempotency-Key."""
        kept: list[tuple[RequestKey, Answer]] = []
        for command, result in zip(commands, results, strict=True):
            if command.key is None or result.replayed is not None:
                continue
            if result.answer is not None:
                kept.append((command.key, result.answer))
            elif result.problem is not None and result.problem.status == 409:
                kept.append((command.key, Answer(409, result.problem.document())))
        if kept:
            await connection.execute(self._service.store_queries["answer_put"], *answer_columns(kept))

    def _finish_answers(
        self, commands: Sequence[Command], results: Sequence[Result], named: dict[str, str | None]
    ) -> None:
        """What can be said only once the codes are given."""
        for command, result in zip(commands, results, strict=True):
            if result.code is not None:
                result.code = named.get(result.code, result.code)
            if result.answer is None or result.code is None:
                continue
            result.answer.body["code"] = result.code
            headers = result.answer.headers
            headers["ETag"] = etag(result.answer.body["version"])
            if command.op in ("new", "submit"):
                result.answer.body["track_pin"] = self._service.keys.track_pin(result.code)
                headers["Location"] = f"/v1/dossiers/{result.code}"

    async def _give_codes(self, connection: Connection, batch: _Batch) -> None:
        """`<agency>-YYMMDD-NNNN`, issued once, for exactly the dossiers that came into being."""
        wanting: dict[tuple[str, date], list[Dossier]] = {}
        for key in batch.new:
            dossier = batch.dossiers[key]
            if not dossier.code:
                at = dossier.received_at or dossier.submitted_at
                assert at is not None
                wanting.setdefault((dossier.agency, local_day(at)), []).append(dossier)
        while wanting:
            last = await self._store.numbers(connection, {name: len(dossiers) for name, dossiers in wanting.items()})
            given: dict[str, Dossier] = {}
            for (agency, day), dossiers in wanting.items():
                first = last[(agency, day)] - len(dossiers) + 1
                for offset, dossier in enumerate(dossiers):
                    given[format_dossier_code(agency, day, first + offset)] = dossier
            taken = await self._store.taken(connection, list(given)) | {d.code for d in batch.dossiers.values()}
            wanting = {}
            for code, dossier in given.items():
                if code in taken:  # an imported dossier keeps this code from its old system: the next number
                    at = dossier.received_at or dossier.submitted_at
                    assert at is not None
                    wanting.setdefault((dossier.agency, local_day(at)), []).append(dossier)
                else:
                    dossier.code = code


# What nobody asks for: time raises it, or a new calendar version moves it.
_BY_ITSELF: dict[str, Callable[[Dossier, datetime, Directory], list[ev.EventData]]] = {
    "tick": tick,
    "reschedule": lambda dossier, now, directory: reschedule(dossier, directory),
}
SYSTEM = Actor("system", "intake")


def etag(version: int) -> str:
    return f'"{version}"'


def matches(if_match: str, version: int) -> bool:
    return if_match.strip() == "*" or etag(version) in [part.strip() for part in if_match.split(",")]


def local_text(instant: datetime | None) -> str | None:
    return None if instant is None else instant.astimezone(LOCAL_ZONE).isoformat()


def problem_of(refusal: Refusal) -> Problem:
    errors = [Wrong(refusal.detail, refusal.pointer)] if refusal.pointer else []
    return Problem(refusal.status, refusal.code, refusal.detail, errors, dict(refusal.extra))
