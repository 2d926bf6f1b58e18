"""Promise 8, rebuilt = live: all figures recomputed from the owners' logs, beside the live ones.

A page of an owner's log at a time, in the order of its keys, so that memory is bounded and a dossier is whole: the page
is folded by the very functions that the handlers use, copied into temporary tables, and compared there with the live
rows of the same keys, whose places in the inbox are locked meanwhile. An event above a key's place has not been applied
yet and is left to the consumer. What differs is named and replaced. Restatements are history and are not touched.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
import orjson
import structlog

from services.stats.handlers import document_row, leg_act, petition_row
from services.stats.indicator import Contradiction, Dossier, Event, LegAct, Progress, in_order, instant_of, micros
from services.stats.store import Store, acts_json, columns, counted_row, dossier_row, fact_row, leg_rows, rating_row
from shared.service import Service
from shared.store.inbox import Name, Place, PlaceMoved
from shared.store.pool import Connection
from shared.store.room import RoomInPostgres

log = structlog.get_logger("lienthong.stats")

PAGE = 5000  # events
BREATH = 200  # keys folded before other work has its turn
NAMED = 1000  # differences that are named; the others are counted

# Which owners say what; below, the tables that follow from it, each with the column of its key.
STREAMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("intake", ("lienthong.dossier.v1",)),
    ("intake", ("lienthong.petition.v1",)),
    ("routing", ("lienthong.copy.v1", "lienthong.transfer.v1")),
    ("routing", ("lienthong.document.v1",)),
)
TABLES = {
    "dossier": "code",
    "fact": "code",
    "extension": "code",
    "rating": "code",
    "leg": "dossier",
    "leg_fact": "dossier",
    "petition_act": "petition",
    "document_act": "document",
}
COPIES = "lienthong.copy.v1"
FOREVER = datetime.max  # noqa: DTZ901 - how asyncpg writes infinity, also of aware columns


@dataclass(slots=True)
class Report:
    """What a rebuild found. `differences` are {key, table}; a live row that differed has been replaced."""

    events: int = 0
    dossiers: int = 0
    differing: int = 0
    differences: list[dict[str, str]] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return {
            "events": self.events,
            "dossiers": self.dossiers,
            "equal": self.differing == 0,
            "differing": self.differing,
            "differences": self.differences,
            "seconds": round(self.seconds, 3),
            "events_per_second": round(self.events / self.seconds) if self.seconds else 0,
        }

    def differ(self, table: str, keys: Sequence[str]) -> None:
        self.differing += len(keys)
        room = NAMED - len(self.differences)
        self.differences += [{"key": key, "table": table} for key in sorted(keys)[:room]]


@dataclass(frozen=True, slots=True)
class Logged:
    """One event of an owner's log."""

    topic: str
    sequence: int
    event: Event


Keys = dict[str, list[Logged]]


async def rebuild(service: Service, store: Store) -> Report:
    """Recomputes, compares and, where they differ, replaces. Raises ConnectionError when an owner does not answer."""
    report, began = Report(), time.monotonic()
    async with service.pool.acquire() as connection:
        for table in TABLES:
            await connection.execute(f"DROP TABLE IF EXISTS pg_temp.rebuilt_{table}")
            await connection.execute(store["rebuild_table"].replace("{table}", table))
        for owner, topics in STREAMS:
            last = ""
            async for keys in _whole_keys(service, owner, topics):
                newest = next(reversed(keys)) if keys else None
                await _page(service, store, connection, topics, keys, report)
                if topics[0] in ("lienthong.dossier.v1", COPIES):
                    await _foreign(service, store, connection, (topics[0], last, newest, list(keys)), report)
                last = newest or last
        for table in TABLES:
            await connection.execute(f"DROP TABLE pg_temp.rebuilt_{table}")
    report.seconds = time.monotonic() - began
    log.info("rebuilt", **{k: v for k, v in report.as_dict().items() if k != "differences"})
    return report


async def _whole_keys(service: Service, owner: str, topics: Sequence[str]) -> AsyncIterator[Keys]:
    """The owner's log by keys, a page at a time; a key that a page cuts comes with the next one. The last has none."""
    held: Keys = {}
    after = ("", 0, "")
    following = asyncio.ensure_future(_read(service, owner, topics, after))
    try:
        while True:
            page = await following
            if len(page) == PAGE:
                after = (page[-1][1], page[-1][2], page[-1][0])
                following = asyncio.ensure_future(_read(service, owner, topics, after))
            for family, key, sequence, identity, kind, happened, recorded, mode, data in page:
                event = Event(kind, identity, happened, recorded, mode, data)
                held.setdefault(key, []).append(Logged(f"lienthong.{family}.v1", sequence, event))
            if len(page) < PAGE:
                yield held
                if held:
                    yield {}
                return
            cut, rest = held.popitem()
            if held:
                yield held
            held = {cut: rest}
    finally:
        following.cancel()


async def _read(service: Service, owner: str, topics: Sequence[str], after: tuple[str, int, str]) -> list[list[Any]]:
    key, sequence, family = after
    try:
        answer = await service.http.get(
            f"{service.settings.url_of(owner)}/v1/log",
            params={
                "topics": ",".join(topics),
                "after_key": key,
                "after_sequence": sequence,
                "after_family": family,
                "limit": PAGE,
            },
            headers=service.service_token(),
            timeout=60.0,
        )
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise ConnectionError(f"{owner} does not answer: {type(error).__name__}") from error
    items: list[list[Any]] = orjson.loads(answer.content)
    return items


async def _page(
    service: Service, store: Store, connection: Connection, topics: Sequence[str], keys: Keys, report: Report
) -> None:
    """One page: fold what has been applied, compare, replace what differs."""
    if not keys:
        return
    report.events += sum(map(len, keys.values()))
    while True:
        try:
            async with connection.transaction():
                room = RoomInPostgres(connection, service.store_queries)
                places = await room.places([(topic, key) for key in keys for topic in topics])
                await _adopt(room, keys, places)
                for key in [k for k, logged in keys.items() if _behind(k, logged, places)]:
                    keys[key] = await _again(service, topics, key)
                made = await _fold(keys, places)
                for table, rows in made.items():
                    await _compare(store, connection, table, rows, _keys_of(table, topics, keys), report)
            break
        except PlaceMoved:
            continue  # the consumer met one of these keys at the same moment
    report.dossiers += len(made["dossier"])


async def _adopt(room: RoomInPostgres, keys: Keys, places: dict[Name, Place]) -> None:
    """A key that the inbox has never seen (its tables were lost) is taken over whole, and has its place from then on."""
    new: dict[Name, Place] = {}
    recorded: dict[Name, datetime] = {}
    for key, logged in keys.items():
        for each in logged:
            name = (each.topic, key)
            if name not in places:
                new[name] = Place(each.sequence)
                recorded[name] = instant_of(each.event.recorded)
    await room.write_places({}, new, recorded)
    places.update(new)


def _behind(key: str, logged: Sequence[Logged], places: dict[Name, Place]) -> bool:
    """Whether more has been applied since the page was read."""
    heads = {each.topic: each.sequence for each in logged}
    return any(places[topic, key].sequence > sequence for topic, sequence in heads.items())


async def _again(service: Service, topics: Sequence[str], key: str) -> list[Logged]:
    """All events of one key, asked for anew."""
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
        for envelope in await service.ask_owner(topic, key, 0)
    ]


async def _fold(keys: Keys, places: dict[Name, Place]) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of all tables that follow from the keys' events up to their places."""
    made: dict[str, list[tuple[Any, ...]]] = {table: [] for table in TABLES}
    for number, (key, logged) in enumerate(keys.items()):
        applied = [each for each in logged if each.sequence <= places[each.topic, key].sequence]
        dossiers = [each for each in applied if each.event.type.startswith("dossier.")]
        if dossiers:
            _fold_dossier(Dossier(key, dossiers[0].topic), [each.event for each in dossiers], made)
        legs: dict[UUID, list[LegAct]] = {}
        for each in applied:
            event = each.event
            if event.type.startswith("petition."):
                made["petition_act"].append(petition_row(key, each.sequence, event))
            elif event.type.startswith("document."):
                made["document_act"].append(document_row(key, each.sequence, event))
            elif event.type.startswith("transfer.") and (act := leg_act(event)) is not None:
                legs.setdefault(UUID(event.data["transfer"]), []).append(act)
        for transfer, acts in legs.items():
            made["leg"].append((transfer, key, acts_json(in_order(acts))))
            made["leg_fact"] += [_everlasting(row, 4, 6) for row in leg_rows(transfer, key, acts)]
        if number % BREATH == BREATH - 1:
            await asyncio.sleep(0)
    return made


def _fold_dossier(dossier: Dossier, events: Sequence[Event], made: dict[str, list[tuple[Any, ...]]]) -> None:
    progress = Progress(dossier, revisions=False)
    for event in events:
        try:
            progress.take(event)
        except Contradiction:  # it was dropped by an operator; the live state has not seen it either
            continue
    changes = progress.finish()
    made["dossier"].append(dossier_row(dossier))
    made["fact"] += [_everlasting(fact_row(dossier, opened), 2, 4) for opened in changes.opened]
    undone = {identity: instant_of(at) for identity, at in changes.undone}
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


def _keys_of(table: str, topics: Sequence[str], keys: Keys) -> list[str]:
    """The keys of a page whose rows in a table come from this owner: a dossier's from its home's events only."""
    family = {"petition_act": "petition.", "document_act": "document.", "leg": "transfer.", "leg_fact": "transfer."}
    start = family.get(table, "dossier.")
    if not any(start.removesuffix(".") in topic or topic == COPIES for topic in topics):
        return []
    return [key for key, logged in keys.items() if any(each.event.type.startswith(start) for each in logged)]


async def _compare(
    store: Store, connection: Connection, table: str, rows: Sequence[tuple[Any, ...]], keys: list[str], report: Report
) -> None:
    """Writes the rows beside the live ones, names the keys whose rows differ, and puts theirs in place."""
    if not keys:
        return
    column = TABLES[table]
    if table in ("dossier", "leg"):  # COPY has no JSON
        if rows:
            await connection.execute(store[f"rebuild_put_{table}"], *columns(rows, len(rows[0])))
    else:
        await connection.copy_records_to_table(f"rebuilt_{table}", records=rows, schema_name="pg_temp")

    def statement(name: str) -> str:
        return store[name].replace("{table}", table).replace("{key}", column)

    differing = [row["key"] for row in await connection.fetch(statement("rebuild_compare"), keys)]
    if differing:
        await connection.execute(statement("rebuild_remove"), differing)
        await connection.execute(statement("rebuild_insert"), differing)
        report.differ(table, differing)


async def _foreign(
    service: Service,
    store: Store,
    connection: Connection,
    span: tuple[str, str, str | None, list[str]],
    report: Report,
) -> None:
    """Removes what we hold of dossiers that their owner has never heard of, between two of its keys.

    `span`: the topic, the key before, the last key (None: to the end), and the keys that the owner has said.
    """
    async with connection.transaction():
        rows = await connection.fetch(store["rebuild_foreign"], *span)
        # One that came since the page was read is known to its owner by now.
        codes = [row["code"] for row in rows if not await service.ask_owner(span[0], row["code"], 0)]
        if codes:
            for table in ("dossier", "fact", "extension", "rating"):
                await connection.execute(
                    store["rebuild_remove"].replace("{table}", table).replace("{key}", "code"), codes
                )
            report.differ("dossier", codes)
