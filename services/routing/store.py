"""All SQL of routing: dossiers with their walks, transfers for the lists, documents."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, get_args
from uuid import UUID

from pydantic import TypeAdapter

from services.routing.document import Document
from services.routing.dossier import Dossier
from services.routing.transfer import OPERATIONS, Transfer, Walk
from services.routing.worklist import FIRST, LAST, Place, WorkList, end_of_day
from shared.contracts.events import Paper, RouteStep, TransferState
from shared.store.pool import Connection
from shared.store.queries import Queries

STEPS = TypeAdapter(tuple[RouteStep, ...])
PAPERS = TypeAdapter(tuple[Paper, ...])
EVERY_STATE: tuple[TransferState, ...] = tuple(OPERATIONS)
BEFORE_ALL = UUID(int=0)

_DOSSIER = (
    "code",
    "state",
    "agency",
    "deciding_agency",
    "procedure",
    "confidential",
    "due_at",
    "routed",
    "last_event",
    "transfer_sequence",
    "transfer_recorded",
    "public_sequence",
    "public_recorded",
    "home",
    "copied_dossier",
    "copied_transfer",
)
_TRANSFER = (
    "id",
    "dossier",
    "leg",
    "step",
    "sender",
    "receiver",
    "state",
    "attempt",
    "due_at",
    "asked_at",
    "changed_at",
    "version",
    "reason",
    "need",
    "result",
    "note",
    "documents",
    "redirected_from",
    "no_target",
    "undone",
    "replaces",
    "replaced_by",
)
_DOCUMENT = (
    "id",
    "number",
    "date",
    "kind",
    "sender",
    "receiver",
    "title",
    "state",
    "sent_at",
    "changed_at",
    "dossier",
    "replaces",
    "ref",
    "digest",
    "before",
    "assignee",
    "reason",
    "version",
    "recorded",
    "home",
    "worked_at",
    "told",
)


class Sealed(NamedTuple):
    """A person as one site passes it to another: sealed under the person's key, that key wrapped to the other site (JWE)."""

    contact_ref: str
    nonce: str
    ciphertext: str
    wrapped: str


class Person(NamedTuple):
    """A person as home hands one over: `Sealed` for the working site, and the person's key as home wraps it for itself, so
    that a restored home gets the person back from the peer's ledger."""

    contact_ref: str
    nonce: str
    ciphertext: str
    wrapped: str
    own: str


@dataclass(slots=True)
class Copy:
    """How far a lower site's dossier was copied: its own two sequences, and ours on the topic of copies."""

    code: str
    home: str
    dossier_sequence: int
    transfer_sequence: int
    sequence: int
    recorded: datetime


class Store:
    """Reads and writes within the caller's transaction. A dossier's row is the lock of all that belongs to it."""

    def __init__(self, schema: str) -> None:
        self._queries = Queries("services.routing", schema)

    # -------------------------------------------------------------------------------------- dossiers and walks

    async def lock(self, connection: Connection, codes: Collection[str]) -> dict[str, Dossier]:
        """The dossiers that exist, locked in the order of their codes."""
        rows = await connection.fetch(self._queries["dossiers_lock"], sorted(codes))
        return {row["code"]: Dossier(*row.values()) for row in rows}

    async def walks(self, connection: Connection, dossiers: Sequence[Dossier]) -> dict[str, Walk]:
        """The walks of these dossiers, which are locked and have a route."""
        if not dossiers:
            return {}
        codes = [dossier.code for dossier in dossiers]
        walks = {d.code: Walk(d.code, d.agency, d.state, d.due_at, d.home) for d in dossiers}
        for row in await connection.fetch(self._queries["routes"], codes):
            walk = walks[row["dossier"]]
            walk.route, walk.started, walk.entered = STEPS.validate_json(row["steps"]), row["started"], row["entered"]
        for row in await connection.fetch(self._queries["transfers_of_walks"], codes):
            walks[row["dossier"]].transfers[row["id"]] = transfer_of(row)
        return walks

    async def write(self, connection: Connection, dossiers: Sequence[Dossier], walks: Iterable[Walk]) -> None:
        """Writes dossiers that are locked or new, and what has changed of their walks: at most three statements."""
        if dossiers:
            await connection.execute(self._queries["dossiers_write"], *_columns(dossiers, _DOSSIER))
        walks = list(walks)
        if routes := [walk for walk in walks if walk.route_changed]:
            await connection.execute(
                self._queries["routes_write"],
                [walk.dossier for walk in routes],
                [STEPS.dump_json(walk.route).decode() for walk in routes],
                [walk.started for walk in routes],
                [walk.entered for walk in routes],
            )
        if changed := [walk.transfers[each] for walk in walks for each in walk.changed]:
            columns = _columns(changed, _TRANSFER)
            papers = _TRANSFER.index("documents")
            columns[papers] = [PAPERS.dump_json(transfer.documents).decode() for transfer in changed]
            await connection.execute(self._queries["transfers_write"], *columns)

    # ----------------------------------------------------------------------------------------------- transfers

    async def transfer(self, connection: Connection, which: UUID) -> tuple[Transfer, int, str | None] | None:
        """A transfer, its dossier's state, and its dossier's home when that is another site."""
        row = await connection.fetchrow(self._queries["transfer"], which)
        return None if row is None else (transfer_of(row), row["dossier_state"], row["home"])

    async def transfers(
        self,
        connection: Connection,
        *,
        dossier: str | None,
        agency: str | None,
        state: TransferState | None,
        scope: Collection[str] | None,
        after: UUID | None,
        limit: int,
    ) -> list[tuple[Transfer, int, str | None]]:
        """A page by id: transfers whose sender or receiver is `agency`, as far as they are in `scope` (None: all)."""
        states = list(EVERY_STATE if state is None else (state,))
        mine = None if scope is None else sorted(scope)
        after = after or BEFORE_ALL
        if dossier is not None:
            arguments: tuple[Any, ...] = (dossier, after, states, agency, mine, limit)
            rows = await connection.fetch(self._queries["transfers_of_dossier"], *arguments)
        elif agency is not None or mine is not None:
            agencies = mine if agency is None else [agency]
            rows = await connection.fetch(
                self._queries["transfers_of_agencies"], agencies, after, states, mine if agency else None, limit
            )
        else:
            rows = await connection.fetch(self._queries["transfers_of_site"], after, states, limit)
        return [(transfer_of(row), row["dossier_state"], row["home"]) for row in rows]

    async def work(
        self,
        connection: Connection,
        agencies: Collection[str],
        show: WorkList,
        now: datetime,
        after: Place,
        limit: int,
    ) -> list[tuple[Transfer, int, str | None, datetime]]:
        """A page of one of the agencies' lists: each with its dossier's state, home, and its place in the list."""
        mine, today = sorted(agencies), end_of_day(now)
        match show:
            case "back" | "outgoing":
                query = self._queries["work_back" if show == "back" else "work_sent"]
                rows = await connection.fetch(query, mine, *after, limit)
            case _:
                since, before = {"incoming": (FIRST, LAST), "due": (now, today), "overdue": (FIRST, now)}[show]
                rows = await connection.fetch(self._queries["work_received"], mine, *after, since, before, limit)
        return [(transfer_of(row), row["dossier_state"], row["home"], row["place"]) for row in rows]

    async def work_counted(
        self, connection: Connection, agencies: Collection[str], now: datetime
    ) -> dict[WorkList, int]:
        """How many transfers each of the agencies' lists holds."""
        row = await connection.fetchrow(self._queries["work_counted"], sorted(agencies), now, end_of_day(now))
        assert row is not None
        return {show: row[show] for show in get_args(WorkList)}

    async def open_at(self, connection: Connection, agencies: Collection[str], limit: int) -> dict[str, list[UUID]]:
        """The open transfers that lie with these agencies, by dossier."""
        found: dict[str, list[UUID]] = {}
        for row in await connection.fetch(self._queries["transfers_at"], sorted(agencies), limit):
            found.setdefault(row["dossier"], []).append(row["id"])
        return found

    async def to_send(
        self, connection: Connection, after: tuple[datetime, UUID], limit: int
    ) -> list[tuple[UUID, str, str]]:
        """Transfers that wait for another site, in the order in which they were asked for: id, dossier, receiver."""
        rows = await connection.fetch(self._queries["transfers_to_send"], *after, limit)
        return [(row["id"], row["dossier"], row["receiver"]) for row in rows]

    # ----------------------------------------------------------------------------------- other sites' dossiers

    async def put_sealed(self, connection: Connection, people: Mapping[str, Sealed]) -> None:
        """The people behind other sites' dossiers, by code."""
        if people:
            columns = list(zip(*((code, *person) for code, person in people.items()), strict=True))
            await connection.execute(self._queries["sealed_put"], *map(list, columns))

    async def forget_sealed(self, connection: Connection, home: str, contact_ref: str) -> None:
        """The person behind that home's legs, who was erased there."""
        await connection.execute(self._queries["sealed_forget"], home, contact_ref)

    async def sealed(self, connection: Connection, dossier: str) -> Sealed | None:
        row = await connection.fetchrow(self._queries["sealed"], dossier)
        return None if row is None else Sealed(*row.values())

    async def behind_copies(self, connection: Connection, after: str, limit: int) -> list[str]:
        rows = await connection.fetch(self._queries["behind_copies"], after, limit)
        return [row["code"] for row in rows]

    async def applied(self, connection: Connection, codes: Collection[str]) -> dict[str, int]:
        """How many of each dossier's events have been applied here."""
        rows = await connection.fetch(self._queries["applied_of"], sorted(codes))
        return {row["key"]: row["sequence"] for row in rows}

    async def places(self, connection: Connection, codes: Collection[str]) -> dict[str, tuple[int, bool]]:
        """How far each dossier's events have been applied here, and whether one of them is parked."""
        rows = await connection.fetch(self._queries["places_of"], sorted(codes))
        return {row["key"]: (row["sequence"], bool(row["parked"])) for row in rows}

    async def lock_copies(self, connection: Connection, codes: Collection[str]) -> dict[str, Copy]:
        rows = await connection.fetch(self._queries["copies_lock"], sorted(codes))
        return {row["code"]: Copy(*row.values()) for row in rows}

    async def write_copies(self, connection: Connection, copies: Sequence[Copy]) -> None:
        if copies:
            names = ("code", "home", "dossier_sequence", "transfer_sequence", "sequence", "recorded")
            await connection.execute(self._queries["copies_write"], *_columns(copies, names))

    # ----------------------------------------------------------------------------------------------- documents

    async def document(self, connection: Connection, which: str, *, lock: bool = False) -> Document | None:
        row = await connection.fetchrow(self._queries["document_lock" if lock else "document"], which)
        return None if row is None else document_of(row)

    async def add_document(self, connection: Connection, document: Document) -> bool:
        """False when a document of this id exists."""
        values = [getattr(document, name) for name in _DOCUMENT if name not in ("before", "assignee", "told")]
        return await connection.fetchval(self._queries["document_add"], *values) is not None

    async def move_document(self, connection: Connection, document: Document) -> None:
        names = ("id", "state", "before", "changed_at", "assignee", "reason", "version", "recorded")
        await connection.execute(self._queries["document_move"], *(getattr(document, name) for name in names))

    async def documents_to_tell(self, connection: Connection, limit: int) -> list[tuple[str, str]]:
        """Documents with events that the other site has not been told of, and that site."""
        rows = await connection.fetch(self._queries["documents_to_tell"], limit)
        return [(row["id"], row["site"]) for row in rows]

    async def told_document(self, connection: Connection, which: str, upto: int) -> None:
        await connection.execute(self._queries["document_told"], which, upto)

    async def documents(
        self,
        connection: Connection,
        *,
        dossier: str | None,
        agency: str | None,
        state: str | None,
        scope: Collection[str] | None,
        after: int,
        limit: int,
    ) -> list[tuple[int, Document]]:
        """A page in the order of arrival, each with its number in it; as `transfers`."""
        mine = None if scope is None else sorted(scope)
        if dossier is not None:
            arguments: tuple[Any, ...] = (dossier, after, state, agency, mine, limit)
            rows = await connection.fetch(self._queries["documents_of_dossier"], *arguments)
        elif agency is not None or mine is not None:
            agencies = mine if agency is None else [agency]
            rows = await connection.fetch(
                self._queries["documents_of_agencies"], agencies, after, state, mine if agency else None, limit
            )
        else:
            rows = await connection.fetch(self._queries["documents_of_site"], after, state, limit)
        return [(row["arrival"], document_of(row)) for row in rows]


def transfer_of(row: Any) -> Transfer:
    values = {name: row[name] for name in _TRANSFER}
    return Transfer(**values | {"documents": tuple(Paper.model_validate(paper) for paper in row["documents"])})


def document_of(row: Any) -> Document:
    return Document(**{name: row[name] for name in _DOCUMENT})


def _columns(items: Sequence[object], names: Sequence[str]) -> list[list[Any]]:
    return [[getattr(item, name) for item in items] for name in names]
