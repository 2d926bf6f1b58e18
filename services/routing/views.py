"""What one external subscriber sees: the events of the dossiers that concern its agencies, reduced to its tier.

A view is a topic of its own, `lienthong.agency.<code>.v1`, made when the subscriber is registered. It begins with the
replay window, and from then on every event that routing applies or makes is mirrored in the same transaction. A dossier is
in a view from the first event on that concerns the subscriber, for good; a confidential one never is (promise 10).
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, Final
from uuid import UUID

from services.routing.dossier import Dossier
from shared.contracts.envelope import Envelope, parse
from shared.contracts.events import DossierCorrected, DossierEvent, EventData, TransferEvent, agency_topic
from shared.contracts.views import reduce
from shared.service import Service
from shared.store.log import family
from shared.store.pool import Connection
from shared.store.queries import Queries

DOSSIER_TOPIC: Final = "lienthong.dossier.v1"
TRANSFER_TOPIC: Final = "lienthong.transfer.v1"
ASKED_AT_ONCE: Final = 16  # owners' answers under way while a view is filled
LOOK_EVERY: Final = 2.0  # seconds between two looks at who subscribes


@dataclass(frozen=True, slots=True)
class Head:
    """How far a subscriber's line of one dossier has come."""

    sequence: int = 0
    recorded: datetime | None = None


Heads = dict[tuple[str, str], Head]
"""By subscriber and dossier."""


def view_id(original: UUID, subscriber: str) -> UUID:
    """The id of an event in a subscriber's view: a UUIDv7 of the same instant, always the same for the same event."""
    seed = original.bytes + subscriber.encode()
    noise = int.from_bytes(blake2b(seed, digest_size=8, person=b"agency view").digest())
    head = (original.int >> 64) & ~0xF000 | 0x7000
    return UUID(int=head << 64 | 0x8000_0000_0000_0000 | noise & 0x3FFF_FFFF_FFFF_FFFF)


def concerns(agencies: frozenset[str], dossier: Dossier, data: EventData) -> bool:
    """Whether an event is about these agencies: they receive or decide the dossier, or a transfer goes between them."""
    said = {dossier.agency, dossier.deciding_agency}
    if isinstance(data, TransferEvent):
        said |= {data.from_agency, data.to}
    return not agencies.isdisjoint(said)


def seen_by(
    subscriber: str,
    agencies: frozenset[str],
    dossier: Dossier,
    original: Envelope,
    data: EventData,
    heads: Heads,
    now: datetime,
) -> Envelope | None:
    """The event as it stands in the subscriber's view, its head moved on; None when it is not in it."""
    head = heads.get((subscriber, dossier.code), Head())
    if dossier.confidential or (head.sequence == 0 and not concerns(agencies, dossier, data)):
        return None
    view = reduce(data, "agency")
    if isinstance(data, DossierCorrected):
        view = view.model_copy(update={"undoes": view_id(data.undoes, subscriber)})
    moved = Head(head.sequence + 1, max(now, head.recorded or now))
    heads[subscriber, dossier.code] = moved
    assert moved.recorded is not None
    return replace(
        original,
        topic=agency_topic(subscriber),
        id=view_id(original.id, subscriber),
        recorded=moved.recorded,
        sequence=moved.sequence,
        data=view.to_json(),
        replay=False,
    )


class Views:
    """The registered subscribers and their views. Reads and writes within the caller's transaction."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._queries = Queries("services.routing", service.schema)

    async def run(self) -> None:
        """The relay keeps the topics of all views, whichever process registered them."""
        while True:
            self._service.beat("views")
            async with self._service.pool.acquire() as connection:
                await self._follow(connection)
            await asyncio.sleep(LOOK_EVERY)

    async def mirror(
        self,
        connection: Connection,
        dossiers: Mapping[str, Dossier],
        said: Sequence[tuple[Envelope, EventData | None]],
    ) -> list[Envelope]:
        """What these events are in the views that they belong to; the dossiers' rows are locked. Data None: it is read."""
        views = await connection.fetch(self._queries["subscribers_with_view"])
        if not views:
            return []
        now = await self._service.log.now(connection)
        heads = await self._heads(connection, {envelope.subject for envelope, _ in said})
        before = dict(heads)
        out = []
        for original, given in said:
            data = given or parse(original)
            dossier = dossiers.get(original.subject)
            if dossier is None or not isinstance(data, DossierEvent | TransferEvent):
                continue
            mine = replace(original, source=self._service.source)
            for row in views:
                agencies = frozenset(row["view"])
                if envelope := seen_by(row["code"], agencies, dossier, mine, data, heads, now):
                    out.append(envelope)
        await self._write_heads(connection, {name: head for name, head in heads.items() if before.get(name) != head})
        return out

    async def list(self, connection: Connection) -> list[dict[str, Any]]:
        return [
            {
                "code": row["code"],
                "tier": row["tier"],
                "topics": list(row["topics"]),
                "added": row["added"].isoformat(),
                "added_by": row["added_by"],
            }
            for row in await connection.fetch(self._queries["subscribers"])
        ]

    async def add(
        self, code: str, tier: str, topics: Sequence[str], agencies: Sequence[str] | None, days: float, who: str
    ) -> int | None:
        """Registers a subscriber; its view begins with the events of the last days. How many; None: it exists.

        Until it is done what routing applies waits: no event may fall between the window and what comes live.
        Raises OSError when intake does not answer.
        """
        async with self._service.pool.acquire() as connection, connection.transaction():
            await connection.execute(self._queries["subscribers_lock"])
            if await connection.fetchval(self._queries["subscriber_add"], code, tier, topics, agencies, who) is None:
                return None
            count = 0
            if agencies is not None:
                count = await self._fill(connection, code, frozenset(agencies), days)
            await self._follow(connection)
        self._service.wake()
        return count

    async def remove(self, code: str) -> bool:
        """False: there is no such subscriber. What was not published of its view never is."""
        async with self._service.pool.acquire() as connection, connection.transaction():
            await connection.execute(self._queries["subscribers_lock"])
            row = await connection.fetchrow(self._queries["subscriber_remove"], code)
            if row is None:
                return False
            await connection.execute(self._queries["view_unpublished_forget"], family(agency_topic(code)))
            await self._follow(connection)
        return True

    async def _follow(self, connection: Connection) -> None:
        views = await connection.fetch(self._queries["subscribers"])
        self._service.relay.keep([agency_topic(row["code"]) for row in views if row["view"] is not None])

    async def _fill(self, connection: Connection, code: str, agencies: frozenset[str], days: float) -> int:
        now = await self._service.log.now(connection)
        since = now - timedelta(days=days)
        lines = await connection.fetch(self._queries["view_last"], family(agency_topic(code)))
        heads: Heads = {(code, row["dossier"]): Head(row["sequence"], row["recorded"]) for row in lines}
        count = 0
        rows = await connection.fetch(self._queries["dossiers_since"], since)
        for start in range(0, len(rows), ASKED_AT_ONCE):
            page = rows[start : start + ASKED_AT_ONCE]
            asked = await asyncio.gather(*(self._service.ask_owner(DOSSIER_TOPIC, row["code"], 0) for row in page))
            out: list[Envelope] = []
            for row, events in zip(page, asked, strict=True):
                dossier = Dossier(row["code"], agency=row["agency"], deciding_agency=row["deciding_agency"])
                applied = [event for event in events if event.sequence <= row["sequence"]]
                own = await self._service.log.after(connection, TRANSFER_TOPIC, row["code"], 0, 10_000)
                for original in sorted((*applied, *own), key=lambda event: event.recorded):
                    data = parse(original)
                    if data is None or original.recorded < since:
                        continue
                    mine = replace(original, source=self._service.source)
                    if envelope := seen_by(code, agencies, dossier, mine, data, heads, now):
                        out.append(envelope)
            await self._service.log.append(connection, out)
            count += len(out)
        await self._write_heads(connection, heads)
        return count

    async def _heads(self, connection: Connection, codes: set[str]) -> Heads:
        rows = await connection.fetch(self._queries["view_heads"], sorted(codes))
        return {(row["subscriber"], row["dossier"]): Head(row["sequence"], row["recorded"]) for row in rows}

    async def _write_heads(self, connection: Connection, heads: Heads) -> None:
        if heads:
            names = sorted(heads)
            await connection.execute(
                self._queries["view_heads_put"],
                [subscriber for subscriber, _ in names],
                [dossier for _, dossier in names],
                [heads[name].sequence for name in names],
                [heads[name].recorded for name in names],
            )
