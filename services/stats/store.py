"""All SQL of stats: the writes of a batch, and the questions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal
from uuid import UUID

import orjson
from asyncpg.transaction import Transaction

from services.stats.forecast import LOOKS_BACK, Done, Open, Pace
from services.stats.indicator import (
    Act,
    Changes,
    Counted,
    Dossier,
    LegAct,
    Opened,
    Period,
    in_order,
    instant_of,
    leg_rectangles,
    local_midnight,
    month_of,
    months_between,
)
from services.stats.settled import NOTHING, Settled, part_of, settled_before, together
from shared.contracts.codes import local_day
from shared.store.pool import Connection
from shared.store.queries import Queries

By = Literal["receiving", "deciding", "working"]
Part = Literal["agency", "field", "procedure"]
Channel = Literal["online", "counter", "postal"]

SIDES: Mapping[By, tuple[str, str]] = {
    "receiving": ("fact", "agency"),
    "deciding": ("fact", "deciding"),
    "working": ("working", "agency"),
}
PARTS = (  # the statements that ask by a side
    *("figures", "figures_new", "figures_settled", "figures_by", "figures_index", "extended", "rated"),
    *("behind", "behind_extended", "behind_rated", "behind_index"),
)


@dataclass(frozen=True, slots=True)
class Question:
    """Whom and what a number is asked of; `known` is the instant up to which acts must have been recorded."""

    agencies: Sequence[str]
    period: Period
    known: datetime
    by: By = "receiving"
    procedure: str | None = None
    field: str | None = None
    channel: Channel | None = None
    now: bool = False  # judged and known at the instant of the transaction that asks, whatever has been stored by then

    @property
    def parameters(self) -> tuple[Any, ...]:
        return (
            list(self.agencies),
            self.period.start,
            self.period.judged,
            self.known,
            self.procedure,
            self.field,
            self.channel,
        )


def nearest_tenth(value: float) -> Fraction:
    """The exact percentile of whole microseconds: between two of them PostgreSQL goes a tenth part of the way, or nine
    tenths, or half, in floating point."""
    return Fraction(round(Decimal(value) * 10), 10)


def at_one_instant(connection: Connection) -> Transaction:
    """Within it all questions see the same instant: an answer of several never mixes the figures from before a batch, or
    before the switch of a rebuild, with those from after."""
    return connection.transaction(isolation="repeatable_read", readonly=True)


class Store:
    """The tables of one stats service."""

    def __init__(self, schema: str = "stats") -> None:
        self._queries = Queries("services.stats", schema)
        self._settled = Settled()
        self._by = {
            (name, by): self._queries[name]
            .replace("{counts}", self._queries["counts"])
            .replace("{seen}", self._seen(by))
            .replace("{table}", table)
            .replace("{side}", side)
            .replace("{since}", "$8" if name == "figures_new" else "$2")
            for by, (table, side) in SIDES.items()
            for name in PARTS
        }

    def _seen(self, by: By) -> str:
        table, side = SIDES[by]
        seen = self._queries["seen"].replace("{table}", table).replace("{side}", side)
        if by != "working":
            return seen
        return self._queries["seen_working"].replace("{legs}", seen).replace("{own}", self._seen("receiving"))

    def __getitem__(self, name: str) -> str:
        return self._queries[name]

    # -- a batch

    async def dossiers(self, connection: Connection, codes: Iterable[str]) -> dict[str, Dossier]:
        """The dossiers that we hold, locked until the transaction ends."""
        rows = await connection.fetch(self._queries["dossiers_lock"], sorted(codes))
        return {
            row["code"]: Dossier(
                row["code"],
                row["topic"],
                row["agency"],
                row["procedure"],
                row["field"],
                row["channel"],
                row["state"],
                row["confidential"],
                row["began"],
                [Act(*act) for act in row["acts"]],
            )
            for row in rows
        }

    async def write(self, connection: Connection, changed: Sequence[tuple[Dossier, Changes]]) -> None:
        """What a batch changes: the dossiers, then the rectangles that are closed and those that are opened."""
        if not changed:
            return
        ordered = sorted((dossier for dossier, _ in changed), key=lambda d: d.code)
        await connection.execute(self._queries["dossiers_put"], *columns(map(dossier_row, ordered), 10))
        anew = [d.code for d, c in changed if c.anew]
        if anew:
            await connection.execute(self._queries["facts_empty"], anew)
        closed = [(d.code, valid, at) for d, c in changed for valid, at in c.closed]
        if closed:
            await connection.execute(self._queries["facts_close"], *columns(closed, 3, (1, 2)))
        opened = [fact_row(d, o) for d, c in changed for o in c.opened]
        if opened:
            await connection.execute(self._queries["facts_put"], *columns(map(flagged, opened), 19, INSTANTS["fact"]))
        extensions = [counted_row(d, e) for d, c in changed for e in c.extensions]
        if extensions:
            await connection.execute(self._queries["extensions_put"], *columns(extensions, 8, INSTANTS["extension"]))
        ratings = [rating_row(d, r) for d, c in changed for r in c.ratings]
        if ratings:
            await connection.execute(self._queries["ratings_put"], *columns(ratings, 10, INSTANTS["rating"]))
        now = month_of(local_day(datetime.now(UTC)))
        months = {
            (side, month)
            for d, c in changed
            for deciding, at in c.ended
            if (month := month_of(local_day(instant_of(at)))) != now
            for side in (d.agency, deciding)
        }
        if months:
            settled = sorted((side, first) for side, (first, _) in months)
            await connection.execute(self._queries["settled_put"], *columns(settled, 2))
        undone = [(UUID(identity), at) for _, c in changed for identity, at in c.undone]
        if undone:
            await connection.execute(self._queries["undo"], *columns(undone, 2, (1,)))

    async def legs(self, connection: Connection, transfers: Iterable[UUID]) -> dict[UUID, list[LegAct]]:
        rows = await connection.fetch(self._queries["legs_lock"], sorted(transfers))
        return {row["transfer"]: [LegAct(*act) for act in row["acts"]] for row in rows}

    async def write_legs(self, connection: Connection, legs: Sequence[tuple[UUID, str, Sequence[LegAct]]]) -> None:
        """The legs with all their rectangles: there are few of each, and they are written anew."""
        legs = sorted(legs, key=lambda leg: leg[0])
        await connection.execute(
            self._queries["legs_put"],
            [transfer for transfer, _, _ in legs],
            [dossier for _, dossier, _ in legs],
            [acts_json(in_order(acts)) for _, _, acts in legs],
        )
        await connection.execute(self._queries["leg_facts_empty"], [transfer for transfer, _, _ in legs])
        rows = [row for transfer, dossier, acts in legs for row in leg_rows(transfer, dossier, acts)]
        if rows:
            await connection.execute(self._queries["leg_facts_put"], *columns(rows, 13, INSTANTS["leg_fact"]))

    async def put(
        self, connection: Connection, name: str, rows: Sequence[tuple[Any, ...]], instants: Sequence[int] = ()
    ) -> None:
        """Rows by one of the `…_put` statements that take columns."""
        if rows:
            await connection.execute(self._queries[name], *columns(rows, len(rows[0]), instants))

    async def asked_before(
        self, connection: Connection, agencies: Iterable[str], since: datetime, recorded: datetime
    ) -> list[Any]:
        return await connection.fetch(self._queries["asked_before"], sorted(agencies), since, recorded)

    # -- questions

    async def figures(self, connection: Connection, question: Question) -> Mapping[str, Any]:
        """Every count of the Indicators JSON that comes from rectangles; `spread`: the exact median and p90, in µs."""
        before = settled_before(question.period.judged)
        if question.now and question.by != "working" and question.period.start < before:
            return await self._figures_now(connection, question, before)
        row = await connection.fetchrow(self._by["figures", question.by], *question.parameters)
        assert row is not None
        return dict(row) | {"spread": row["spread"] and [nearest_tenth(value) for value in row["spread"]]}

    async def _figures_now(self, connection: Connection, question: Question, before: datetime) -> Mapping[str, Any]:
        """Of the months before, only those are read that have changed since they were read the last time."""
        start, (first, last) = question.period.start, (local_day(question.period.start), local_day(before))
        months = [month for month, _ in months_between(start, before)]
        rows = await connection.fetch(
            self._queries["settled_versions"], question.parameters[0], first.replace(day=1), last
        )
        versions = {row["month"]: row["version"] for row in rows}
        whom = (question.by, tuple(question.agencies), start, question.procedure, question.field, question.channel)
        parts = self._settled.held(whom, versions, months)
        missing = [month for month in months if month not in parts]
        if missing:
            until = local_midnight(month_of(missing[-1])[1] + timedelta(days=1))
            since = max(start, local_midnight(missing[0]))
            asked = (*question.parameters, since, until)
            found = await connection.fetch(self._by["figures_settled", question.by], *asked)
            read = dict.fromkeys(missing, NOTHING) | {row["month"]: part_of(row) for row in found}
            self._settled.keep(whom, versions, read)
            parts |= read
        row = await connection.fetchrow(self._by["figures_new", question.by], *question.parameters, before)
        assert row is not None
        return together([*parts.values(), part_of(row)])

    async def figures_by(self, connection: Connection, question: Question, part: Part) -> list[Any]:
        return await connection.fetch(self._by["figures_by", question.by], *question.parameters, part)

    async def figures_index(self, connection: Connection, question: Question) -> Any:
        row = await connection.fetchrow(self._by["figures_index", "receiving"], *question.parameters[:4])
        assert row is not None
        return row

    async def extended(self, connection: Connection, question: Question) -> int:
        """A leg has no extension of its own."""
        if question.by == "working":
            return 0
        count: int = await connection.fetchval(self._by["extended", question.by], *question.parameters)
        return count

    async def rated(self, connection: Connection, question: Question) -> tuple[int, int, int]:
        """Dossiers rated, content, complained of; nobody rates a leg."""
        if question.by == "working":
            return 0, 0, 0
        row = await connection.fetchrow(self._by["rated", question.by], *question.parameters)
        assert row is not None
        return row["rated"], row["content"], row["complained"]

    async def documents(self, connection: Connection, question: Question) -> Any:
        row = await connection.fetchrow(self._queries["documents"], *question.parameters[:4])
        assert row is not None
        return row

    async def pace(self, connection: Connection, agencies: Sequence[str], now: datetime) -> Pace:
        """How long dossiers of these agencies take at present."""
        rows = await connection.fetch(self._queries["durations"], list(agencies), now - LOOKS_BACK, now)
        return Pace(Done(row["agency"], row["procedure"], row["seconds"]) for row in rows)

    async def open_until(self, connection: Connection, agencies: Sequence[str], now: datetime, days: int) -> list[Open]:
        """The dossiers that fall due from now to the end of the last of so many local days."""
        end = local_midnight(local_day(now) + timedelta(days=days))
        rows = await connection.fetch(self._queries["open_until"], list(agencies), now, end)
        return [Open(r["code"], r["agency"], r["procedure"], r["received_at"], r["due_at"]) for r in rows]

    async def petitions(self, connection: Connection, question: Question) -> Any:
        row = await connection.fetchrow(self._queries["petitions"], *question.parameters[:4])
        assert row is not None
        return row

    async def behind(self, connection: Connection, question: Question, cell: str, after: str, limit: int) -> list[Any]:
        """The dossiers (for documents: the documents) behind a cell, by code, from after a code on."""
        if cell.startswith("documents."):
            asked = (*question.parameters[:4], cell, after, limit)
            return await connection.fetch(self._queries["behind_documents"], *asked)
        if question.by == "working" and (cell == "extended" or cell.startswith("satisfaction.")):
            return []
        if cell == "extended":
            return await connection.fetch(self._by["behind_extended", question.by], *question.parameters, after, limit)
        if cell.startswith("satisfaction."):
            asked = (*question.parameters, after, limit, cell == "satisfaction.numerator")
            return await connection.fetch(self._by["behind_rated", question.by], *asked)
        return await connection.fetch(self._by["behind", question.by], *question.parameters, cell, after, limit)

    async def behind_index(
        self, connection: Connection, question: Question, metric: str, after: str, limit: int
    ) -> list[Any]:
        """The dossiers that keep a metric of the index from its full score."""
        asked = (*question.parameters[:4], metric, after, limit)
        return await connection.fetch(self._by["behind_index", "receiving"], *asked)

    async def entered(
        self, connection: Connection, agencies: Sequence[str], first: date, last: date, known: datetime
    ) -> list[Any]:
        """What these agencies entered for just this period, the newest of each metric; taken back: without counts."""
        return await connection.fetch(self._queries["entered"], list(agencies), first, last, known)

    async def note_asked(
        self, connection: Connection, agency: str, subtree: bool, first: date, last: date, judged: datetime
    ) -> None:
        await connection.execute(self._queries["asked_put"], agency, subtree, first, last, judged)


# ------------------------------------------------------------------------------------------------------------- rows
#
# In the order of the tables' columns, with instants as whole microseconds; None stands for infinity where one ends.

# Which columns are instants.
INSTANTS: Mapping[str, tuple[int, ...]] = {
    "fact": (1, 2, 3, 4, 11, 12, 15),
    "extension": (6, 7),
    "rating": (6, 7),
    "leg_fact": (3, 4, 5, 6, 8, 9, 10),
    "petition_act": (4, 5, 6),
    "document_act": (6, 7),
}


def columns(rows: Iterable[Sequence[Any]], width: int, instants: Sequence[int] = ()) -> list[list[Any]]:
    """Rows as the columns that unnest takes, those of `instants` as datetimes."""
    turned = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]
    for place in instants:
        turned[place] = [None if value is None else instant_of(value) for value in turned[place]]
    return turned


def acts_json(acts: Iterable[Sequence[Any]]) -> str:
    """Acts as JSON text: a list in an array of jsonb would be taken for one more dimension of the array. The same acts make
    the same text, whether they were read from the database or not."""
    return orjson.dumps([list(act) for act in acts], option=orjson.OPT_SORT_KEYS).decode()


def dossier_row(dossier: Dossier) -> tuple[Any, ...]:
    return (
        dossier.code,
        dossier.topic,
        dossier.agency,
        dossier.procedure,
        dossier.field,
        dossier.channel,
        dossier.state,
        dossier.confidential,
        dossier.began,
        acts_json(dossier.acts),
    )


def fact_row(dossier: Dossier, opened: Opened) -> tuple[Any, ...]:
    """A rectangle: a segment's fields from its third on stand in the order of the table's columns."""
    segment, known_from, known_to = opened
    valid_from, valid_to, *rest = segment
    return (dossier.code, valid_from, valid_to, known_from, known_to, dossier.agency, *rest)


def flagged(row: Sequence[Any]) -> tuple[Any, ...]:
    """The last eight columns as one number: fewer arrays to send."""
    return (*row[:-8], sum(1 << bit for bit, flag in enumerate(row[-8:]) if flag))


def counted_row(dossier: Dossier, counted: Counted) -> tuple[Any, ...]:
    act = counted.act
    return (
        UUID(act.id),
        dossier.code,
        dossier.agency,
        counted.deciding,
        counted.procedure,
        counted.field,
        act.happened,
        act.recorded,
    )


def rating_row(dossier: Dossier, counted: Counted) -> tuple[Any, ...]:
    return (*counted_row(dossier, counted), counted.act.more["content"], counted.act.more["complained"])


def leg_rows(transfer: UUID, dossier: str, acts: Sequence[LegAct]) -> list[tuple[Any, ...]]:
    return [
        (
            transfer,
            dossier,
            agency,
            segment.valid_from,
            segment.valid_to,
            known_from,
            known_to,
            segment.phase,
            segment.received_at,
            segment.due_at,
            segment.ended_at,
            segment.outcome,
            segment.elapsed,
        )
        for agency, (segment, known_from, known_to) in leg_rectangles(acts)
    ]
