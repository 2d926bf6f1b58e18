"""Promise 8, rebuilt = live: all figures recomputed beside the live ones, compared with them, and switched in one step.

What is recomputed comes from the owners' logs, or from what the topics still hold. A page at a time, in the order of the
keys, so that memory is bounded and a dossier is whole: the page is folded by the very functions that the handlers use and
compared with the live rows and the inbox's places of one instant. What is not the same to the last field is copied into
temporary tables, where PostgreSQL says what differs. Nobody is locked out meanwhile. An event above a key's place has not
been applied yet and is left to the consumer.

What differs stays beside, with the place that it belongs to. At the end one transaction locks the places of those keys,
folds the ones again that have moved since, and puts all of it in place: whoever asks sees the figures from before or
those from after. Restatements are history and are not touched.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

import httpx
import orjson
import structlog

from services.stats.handlers import document_row, leg_act, petition_row
from services.stats.indicator import Contradiction, Dossier, Event, LegAct, Micros, Progress, in_order, micros
from services.stats.store import Store, acts_json, columns, counted_row, dossier_row, fact_row, leg_rows, rating_row
from shared.bus.whole import whole_topics
from shared.service import Service
from shared.store.inbox import Name, PlaceMoved
from shared.store.log import family, topic_of
from shared.store.pool import Connection, connect

log = structlog.get_logger("lienthong.stats")

PAGE = 5000  # events
BREATH = 200  # keys folded before other work has its turn
NAMED = 1000  # differences that are named; the others are counted
ROUNDS = 3  # in which what has moved is folded again before anything is locked
FEW = 200  # keys that may be folded again while all are locked
PATIENCE = 900.0  # seconds that a statement of the switch may take: it writes all that differs at once

# Which owners say what; below, the tables that follow from it, each with the column of its key and its place in a row, and
# with the family of events that it follows from.
STREAMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("intake", ("lienthong.dossier.v1",)),
    ("intake", ("lienthong.petition.v1",)),
    ("routing", ("lienthong.copy.v1", "lienthong.transfer.v1")),
    ("routing", ("lienthong.document.v1",)),
)
TABLES: Mapping[str, tuple[str, int, str]] = {
    "dossier": ("code", 0, "dossier"),
    "fact": ("code", 0, "dossier"),
    "extension": ("code", 1, "dossier"),
    "rating": ("code", 1, "dossier"),
    "leg": ("dossier", 1, "transfer"),
    "leg_fact": ("dossier", 1, "transfer"),
    "petition_act": ("petition", 0, "petition"),
    "document_act": ("document", 0, "document"),
}
WITH_ACTS = ("dossier", "leg")  # their last column is JSON
COPIES = "lienthong.copy.v1"
# PostgreSQL counts microseconds from 2000 on, and sends the highest number for infinity.
_Y2000: Micros = micros(datetime(2000, 1, 1, tzinfo=UTC))
FOREVER: Micros = (1 << 63) - 1 + _Y2000

Source = Literal["log", "topics"]


@dataclass(slots=True)
class Report:
    """What a rebuild found. `differences` are {key, table, is, columns}: a live row is `missing`, `extra` or `different`.

    `waiting`: keys of which nothing has been applied yet, and nothing need have been. `incomplete`: keys whose first
    events the topics no longer hold: nothing can be said of them. `switched`: what differed has been replaced.
    """

    source: Source = "log"
    events: int = 0
    dossiers: int = 0
    differing: int = 0
    differences: list[dict[str, Any]] = field(default_factory=list)
    waiting: int = 0
    incomplete: int = 0
    switched: bool = False
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "events": self.events,
            "dossiers": self.dossiers,
            "equal": self.differing == 0,
            "differing": self.differing,
            "differences": self.differences,
            "waiting": self.waiting,
            "incomplete": self.incomplete,
            "switched": self.switched,
            "seconds": round(self.seconds, 3),
            "events_per_second": round(self.events / self.seconds) if self.seconds else 0,
        }


class Logged(NamedTuple):
    """One event of an owner's log."""

    topic: str
    sequence: int
    event: Event


Keys = dict[str, list[Logged]]
Rows = list[tuple[Any, ...]]
Made = dict[str, Rows]  # by table
Places = Mapping[Name, int]  # the sequence that was last applied


async def rebuild(service: Service, store: Store, *, source: Source = "log", dry_run: bool = False) -> Report:
    """Recomputes, compares and, where they differ, switches. Raises ConnectionError when an owner does not answer."""
    began = time.monotonic()
    async with connection_in_micros(service) as connection:
        work = Rebuild(service, store, connection, source)
        try:
            await work.begin()
            await work.compare()
            if work.report.differing and not dry_run:
                await work.switch()
        finally:
            # What lies beside goes, whatever stopped us.
            if not connection.is_closed():
                await work.end()
    work.report.seconds = time.monotonic() - began
    log.info("rebuilt", **{k: v for k, v in work.report.as_dict().items() if k != "differences"})
    return work.report


@asynccontextmanager
async def connection_in_micros(service: Service) -> AsyncIterator[Connection]:
    """A connection of its own, on which instants are whole microseconds since 1970: a rebuild compares millions of them,
    and to make a datetime of each costs ten times as much."""
    connection = await connect(service.settings.database_url)
    try:
        await connection.set_type_codec(
            "timestamptz",
            schema="pg_catalog",
            format="tuple",
            encoder=lambda instant: (instant - _Y2000,),
            decoder=lambda sent: sent[0] + _Y2000,
        )
        yield connection
    finally:
        await connection.close()


class Rebuild:
    """One rebuild on one connection (`connection_in_micros`), whose temporary tables hold what is recomputed and not as the
    live rows: `rebuilt_…` of a page, `staged_…` of all."""

    def __init__(self, service: Service, store: Store, connection: Connection, source: Source = "log") -> None:
        self._service, self._store, self._connection = service, store, connection
        self.report = Report(source)

    async def begin(self) -> None:
        await self.end()
        for table in TABLES:
            await self._connection.execute(self._statement("rebuild_table", table))
            await self._connection.execute(self._statement("rebuild_staged", table))
        for name in ("rebuild_staged_key", "rebuild_staged_place"):
            await self._connection.execute(self._store[name])
        if self.report.source == "topics":
            await self._connection.execute(self._store["rebuild_told"])
            await self._take_topics()

    async def end(self) -> None:
        names = [f"{kind}_{table}" for table in TABLES for kind in ("rebuilt", "staged")]
        for name in (*names, "staged_key", "staged_place", "told"):
            await self._connection.execute(f"DROP TABLE IF EXISTS pg_temp.{name}")

    # -- comparing

    async def compare(self) -> None:
        """Gathers beside the live figures all that differs from them."""
        for owner, topics in STREAMS:
            last = ""
            async for keys in self._whole_keys(owner, topics):
                newest = next(reversed(keys)) if keys else None
                names = list(keys)
                await self._page(topics, keys)
                if self.report.source == "log" and topics[0] in ("lienthong.dossier.v1", COPIES):
                    await self._foreign((topics[0], last, newest, names))
                last = newest or last

    async def _page(self, topics: Sequence[str], keys: Keys) -> None:
        """One page at one instant: fold what has been applied, compare, and stage what differs."""
        if not keys:
            return
        self.report.events += sum(map(len, keys.values()))
        async with self._connection.transaction(isolation="repeatable_read"):
            places = await self._places([(topic, key) for key in keys for topic in topics])
            marks = await self._marks()
            for key, logged in list(keys.items()):
                if self.report.source == "topics" and not _complete(key, topics, logged, places):
                    self.report.incomplete += 1
                    del keys[key]
                elif _behind(key, topics, logged, places):
                    keys[key] = await self._again(topics, key)
            lost = _lost(keys, topics, places, marks)
            known = places.keys() | lost
            self.report.waiting += sum(
                not any((topic, key) in known for topic in _heads(logged)) for key, logged in keys.items()
            )
            named = _keys_of(topics, keys)
            reading = asyncio.create_task(self._live(named))  # PostgreSQL reads what is live while we fold
            try:
                made = await _fold(keys, places, lost)
                live = await reading
            finally:
                reading.cancel()
            self.report.dossiers += len(made["dossier"])
            staged = {key for _, key in lost}
            self._differ([{"key": key, "table": "inbox", "is": "missing", "columns": []} for key in sorted(staged)])
            for table, of in named.items():
                unlike = _unlike(table, made[table], live[table], of)
                if unlike:
                    await self._put(table, [row for row in made[table] if row[TABLES[table][1]] in unlike])
                    staged |= await self._differing(table, sorted(unlike))
            await self._note_places(topics, keys, places, lost, staged)

    async def _live(self, named: Mapping[str, list[str]]) -> Made:
        """The live rows of these keys, table by table."""
        live: Made = {}
        for table, keys in named.items():
            rows = await self._connection.fetch(self._statement("rebuild_live", table), keys)
            if table in WITH_ACTS:
                live[table] = [(*row[:-1], acts_json(row[-1])) for row in map(tuple, rows)]
            else:
                live[table] = list(map(tuple, rows))
        return live

    def _differ(self, differences: Sequence[dict[str, Any]]) -> None:
        self.report.differing += len(differences)
        self.report.differences += differences[: max(0, NAMED - len(self.report.differences))]

    async def _differing(self, table: str, keys: list[str]) -> set[str]:
        """Names and stages the keys of a table whose rows beside are not the live ones."""
        found = await self._connection.fetch(self._statement("rebuild_compare", table), keys)
        differing = sorted(row["key"] for row in found)
        if differing:
            room = max(0, NAMED - len(self.report.differences))
            told = await self._connection.fetch(self._statement("rebuild_name", table), differing[:room])
            self.report.differences += [
                {"key": r["key"], "table": table, "is": r["is"], "columns": r["columns"]} for r in told
            ]
            self.report.differing += len(differing)
            await self._stage(table, differing)
        return set(differing)

    async def _foreign(self, span: tuple[str, str, str | None, list[str]]) -> None:
        """Stages without rows what we hold of dossiers that their owner has never heard of, between two of its keys.

        `span`: the topic, the key before, the last key (None: to the end), and the keys that the owner has said.
        """
        rows = await self._connection.fetch(self._store["rebuild_foreign"], *span)
        # One that came since the page was read is known to its owner by now.
        codes = [row["code"] for row in rows if not await self._service.ask_owner(span[0], row["code"], 0)]
        if codes:
            for table in ("dossier", "fact", "extension", "rating"):
                await self._stage(table, codes)
            places = await self._places([(span[0], code) for code in codes])
            await self._note_places([span[0]], {code: [] for code in codes}, places, set(), set(codes))
            self._differ([{"key": code, "table": "dossier", "is": "extra", "columns": []} for code in sorted(codes)])

    # -- switching

    async def switch(self) -> None:
        """Puts all that differs in place at once."""
        for _ in range(ROUNDS):
            async with self._connection.transaction():
                moved = await self._connection.fetch(self._store["rebuild_moved"])
                if len(moved) <= FEW:
                    break
                await self._fold_again(moved)
        while not self.report.switched:
            try:
                async with self._connection.transaction():
                    await self._switch()
                self.report.switched = True
            except PlaceMoved:
                continue  # the consumer met a key for the first time at the same moment

    async def _switch(self) -> None:
        await self._connection.execute(self._store["rebuild_lock"], timeout=PATIENCE)
        moved = await self._connection.fetch(self._store["rebuild_moved"])
        await self._fold_again(moved)
        agencies = [row["agency"] for row in await self._connection.fetch(self._store["rebuild_agencies"])]
        settled = await self._connection.fetch(self._store["rebuild_settled"], timeout=PATIENCE)
        for table in TABLES:
            await self._connection.execute(self._statement("rebuild_remove", table), timeout=PATIENCE)
        for table in TABLES:
            await self._connection.execute(self._statement("rebuild_insert", table), timeout=PATIENCE)
        rows = await self._connection.fetch(self._store["rebuild_adopted"])
        written = await self._connection.fetch(
            self._service.store_queries["places_new"],
            *columns([(r["topic"], r["key"], r["head"], r["recorded"], None) for r in rows], 5),
        )
        if len(written) < len(rows):
            raise PlaceMoved
        await self._store.put(self._connection, "settled_put", list(map(tuple, settled)))
        if agencies:
            await self._connection.execute(self._store["moved_put"], agencies)

    async def _fold_again(self, moved: Sequence[Any]) -> None:
        """Stages keys anew that have moved since they were compared; nothing above their places of now is folded."""
        for _, topics in STREAMS:
            names = sorted({row["key"] for row in moved if row["topic"] in topics})
            if not names:
                continue
            places = await self._places([(topic, key) for key in names for topic in topics])
            keys = {key: await self._again(topics, key) for key in names}
            lost = _lost(keys, topics, places, await self._marks())
            made = await _fold(keys, places, lost)
            for table, of in _keys_of(topics, keys).items():
                await self._connection.execute(self._statement("rebuild_clear", table))
                await self._put(table, made[table])
                await self._stage(table, of)
            await self._note_places(topics, keys, places, lost, set(names))

    # -- the tables beside

    async def _put(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Rows of a page, beside the live ones."""
        if not rows:
            return
        if table in WITH_ACTS:  # COPY has no JSON
            await self._connection.execute(self._store[f"rebuild_put_{table}"], *columns(rows, len(rows[0])))
        else:
            await self._connection.copy_records_to_table(f"rebuilt_{table}", records=rows, schema_name="pg_temp")

    async def _stage(self, table: str, keys: Sequence[str]) -> None:
        """Keeps what the page has of these keys for the switch, in place of what was kept of them before."""
        await self._connection.execute(self._store["rebuild_stage_keys"], table, list(keys))
        await self._connection.execute(self._statement("rebuild_unstage", table), list(keys))
        await self._connection.execute(self._statement("rebuild_stage", table), list(keys))

    async def _note_places(
        self,
        topics: Sequence[str],
        keys: Mapping[str, Sequence[Logged]],
        places: Places,
        lost: AbstractSet[Name],
        staged: AbstractSet[str],
    ) -> None:
        """Remembers the places at which these keys were folded; what was lost gets the place of its last event."""
        rows = []
        for key in sorted(staged):
            for topic in topics:
                last = (
                    next(each for each in reversed(keys[key]) if each.topic == topic) if (topic, key) in lost else None
                )
                head = (None, None) if last is None else (last.sequence, last.event.recorded)
                rows.append((topic, key, places.get((topic, key)), *head))
        if rows:
            await self._connection.execute(self._store["rebuild_note_places"], *columns(rows, 5))

    def _statement(self, name: str, table: str) -> str:
        return self._store[name].replace("{table}", table).replace("{key}", TABLES[table][0])

    # -- the inbox

    async def _places(self, names: Sequence[Name]) -> dict[Name, int]:
        rows = await self._connection.fetch(self._store["rebuild_places"], [t for t, _ in names], [k for _, k in names])
        return {(topic, key): sequence for topic, key, sequence in rows}

    async def _marks(self) -> dict[str, Micros]:
        """Up to when each topic is counted without a gap."""
        rows = await self._connection.fetch(self._service.store_queries["complete"])
        marks: dict[str, Micros] = {}
        for row in rows:
            if row["upto"] is not None:
                marks[row["topic"]] = min(row["upto"], marks.get(row["topic"], row["upto"]))
        return marks

    # -- where events come from

    async def _take_topics(self) -> None:
        """Copies what the topics hold beside: there it can be read in the order of the keys, however much it is."""
        topics = [topic for _, names in STREAMS for topic in names]
        async for records in whole_topics(self._service.settings.bus(), topics):
            rows = []
            for record in records:
                envelope = record.envelope
                if envelope is not None and record.data is not None:
                    happened, recorded = micros(envelope.time), micros(envelope.recorded)
                    told = (envelope.type, happened, recorded, envelope.mode, (envelope.data or b"null").decode())
                    rows.append((family(envelope.topic), record.key, envelope.sequence, str(envelope.id), *told))
            if rows:
                await self._connection.execute(self._store["rebuild_tell"], *columns(rows, 9))

    async def _whole_keys(self, owner: str, topics: Sequence[str]) -> AsyncIterator[Keys]:
        """Events by keys, a page at a time; a key that a page cuts comes with the next one. The last page has none."""
        held: Keys = {}
        page = await self._read(owner, topics, ("", 0, ""))
        ahead: asyncio.Future[list[list[Any]]] | None = None
        try:
            while len(page) == PAGE:
                after = (page[-1][1], page[-1][2], page[-1][0])
                if self.report.source == "log":  # the next page comes while this one is folded
                    ahead = asyncio.ensure_future(self._read(owner, topics, after))
                _gather(held, page)
                cut, rest = held.popitem()
                if held:
                    yield held
                held = {cut: rest}
                page = await (ahead or self._read(owner, topics, after))
        finally:
            if ahead is not None:
                ahead.cancel()
        _gather(held, page)
        yield held
        if held:
            yield {}

    async def _read(self, owner: str, topics: Sequence[str], after: tuple[str, int, str]) -> list[list[Any]]:
        """A page in the order of its keys, from after (key, sequence, family) on. Raises ConnectionError."""
        key, sequence, of = after
        page: list[list[Any]]
        if self.report.source == "topics":
            families = [family(topic) for topic in topics]
            page = orjson.loads(
                await self._connection.fetchval(self._store["rebuild_told_page"], families, key, sequence, of, PAGE)
            )
            return page
        service = self._service
        try:
            answer = await service.http.get(
                f"{service.settings.url_of(owner)}/v1/log",
                params={
                    "topics": ",".join(topics),
                    "after_key": key,
                    "after_sequence": sequence,
                    "after_family": of,
                    "limit": PAGE,
                },
                headers=service.service_token(),
                timeout=60.0,
            )
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise ConnectionError(f"{owner} does not answer: {type(error).__name__}") from error
        page = orjson.loads(answer.content)
        return page

    async def _again(self, topics: Sequence[str], key: str) -> list[Logged]:
        """All events of one key, asked for anew of its owner."""
        return [
            Logged(
                topic,
                envelope.sequence,
                Event(
                    envelope.type,
                    str(envelope.id),
                    micros(envelope.time),
                    micros(envelope.recorded),
                    envelope.mode,
                    orjson.loads(envelope.data or b"null"),
                ),
            )
            for topic in topics
            for envelope in await self._service.ask_owner(topic, key, 0)
        ]


def _gather(held: Keys, page: Sequence[Sequence[Any]]) -> None:
    """Adds a page's events to their keys."""
    topics = {of: topic_of(of) for of in {item[0] for item in page}}
    for of, key, sequence, identity, kind, happened, recorded, mode, data in page:
        event = Event(kind, identity, happened, recorded, mode, data)
        held.setdefault(key, []).append(Logged(topics[of], sequence, event))


def _heads(logged: Sequence[Logged]) -> dict[str, int]:
    """The last sequence of a key's events, by topic."""
    return {topic: sequence for topic, sequence, _ in logged}


def _behind(key: str, topics: Sequence[str], logged: Sequence[Logged], places: Places) -> bool:
    """Whether more has been applied since the page was read."""
    heads = _heads(logged)
    return any(places.get((topic, key), 0) > heads.get(topic, 0) for topic in topics)


def _complete(key: str, topics: Sequence[str], logged: Sequence[Logged], places: Places) -> bool:
    """Whether the events of a key begin with its first and go on without a gap, in each topic that has told of it."""
    for topic in topics:
        told = [each.sequence for each in logged if each.topic == topic]
        if told != list(range(1, len(told) + 1)) or (not told and (topic, key) in places):
            return False
    return True


def _lost(keys: Keys, topics: Sequence[str], places: Places, marks: Mapping[str, Micros]) -> set[Name]:
    """The names that have no place in the inbox although everything of that time has been counted: their rows were lost.
    They are taken over whole. Others without a place are on their way, and nothing of them has been applied."""
    marked = [topic for topic in topics if topic in marks]
    return {
        (topic, key)
        for key, logged in keys.items()
        for topic in marked
        if (topic, key) not in places
        and any(each.topic == topic and each.event.recorded < marks[topic] for each in logged)
    }


def _applied(key: str, logged: Sequence[Logged], places: Places, lost: AbstractSet[Name]) -> Sequence[Logged]:
    """What has been applied of a key's events, or has to be."""
    upto = {
        topic: head if (topic, key) in lost else places.get((topic, key), 0) for topic, head in _heads(logged).items()
    }
    if all(upto[topic] >= sequence for topic, sequence, _ in logged):
        return logged
    return [each for each in logged if each.sequence <= upto[each.topic]]


async def _fold(keys: Keys, places: Places, lost: AbstractSet[Name]) -> Made:
    """The rows of all tables that follow from the keys' events up to their places."""
    made: Made = {table: [] for table in TABLES}
    for number, (key, logged) in enumerate(keys.items()):
        dossier: list[Event] = []
        legs: dict[UUID, list[LegAct]] = {}
        home = ""
        for topic, sequence, event in _applied(key, logged, places, lost):
            kind = event.type.partition(".")[0]
            if kind == "dossier":
                home = home or topic
                dossier.append(event)
            elif kind == "petition":
                made["petition_act"].append(petition_row(key, sequence, event))
            elif kind == "document":
                made["document_act"].append(document_row(key, sequence, event))
            elif kind == "transfer" and (act := leg_act(event)) is not None:
                legs.setdefault(UUID(event.data["transfer"]), []).append(act)
        if dossier:
            _fold_dossier(Dossier(key, home), dossier, made)
        for transfer, acts in legs.items():
            made["leg"].append((transfer, key, acts_json(in_order(acts))))
            made["leg_fact"] += [_everlasting(row, 4, 6) for row in leg_rows(transfer, key, acts)]
        if number % BREATH == BREATH - 1:
            await asyncio.sleep(0)
    return made


def _fold_dossier(dossier: Dossier, events: Sequence[Event], made: Made) -> None:
    progress = Progress(dossier, revisions=False)
    for event in events:
        try:
            progress.take(event)
        except Contradiction:  # it was dropped by an operator; the live state has not seen it either
            continue
    changes = progress.finish()
    made["dossier"].append(dossier_row(dossier))
    made["fact"] += [_everlasting(fact_row(dossier, opened), 2, 4) for opened in changes.opened]
    undone = dict(changes.undone)
    for counted in changes.extensions:
        made["extension"].append((*counted_row(dossier, counted), undone.get(counted.act.id, FOREVER)))
    for counted in changes.ratings:
        *head, content, complained = rating_row(dossier, counted)
        made["rating"].append((*head, undone.get(counted.act.id, FOREVER), content, complained))


def _everlasting(row: Sequence[Any], *places: int) -> tuple[Any, ...]:
    """The row with infinity where None stands for it."""
    filled = list(row)
    for place in places:
        if filled[place] is None:
            filled[place] = FOREVER
    return tuple(filled)


def _keys_of(topics: Sequence[str], keys: Keys) -> dict[str, list[str]]:
    """The tables that follow from what this owner says, each with the keys of a page of which it holds something: a
    dossier's rows come from its home's events only."""
    families = {of for _, _, of in TABLES.values()} if COPIES in topics else {family(topic) for topic in topics}
    told = {
        of: [key for key, logged in keys.items() if any(each.event.type.startswith(f"{of}.") for each in logged)]
        for of in families
    }
    return {table: told[of] for table, (_, _, of) in TABLES.items() if told.get(of)}


def _unlike(table: str, made: Rows, live: Rows, keys: Sequence[str]) -> AbstractSet[str]:
    """The keys whose rows beside are not, to the last field, those that are live."""
    beside = set(made)
    if len(beside) < len(made):  # twice the same: left to PostgreSQL, which says so
        return set(keys)
    place = TABLES[table][1]
    return {row[place] for row in beside.symmetric_difference(live)}
