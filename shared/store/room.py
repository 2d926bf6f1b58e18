"""The inbox's places and waiting room in a service's schema."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from shared.store.inbox import Name, Parking, Place, PlaceMoved, Record, read
from shared.store.pool import Connection
from shared.store.queries import Queries


class RoomInPostgres:
    """Places and waiting records within one transaction; two or three statements a batch."""

    def __init__(self, connection: Connection, queries: Queries) -> None:
        self._connection, self._queries = connection, queries

    async def places(self, names: Sequence[Name]) -> dict[Name, Place]:
        rows = await self._connection.fetch(self._queries["places"], *_columns(names))
        return {(r["topic"], r["key"]): Place(r["sequence"], r["waiting"]) for r in rows}

    async def write_places(
        self, before: dict[Name, Place], after: dict[Name, Place], recorded: dict[Name, datetime]
    ) -> None:
        # Sorted as `places` locks: two processes never wait for each other.
        new = sorted((n for n in after if n not in before), key=lambda n: (n[1], n[0]))
        moved = [n for n in after if n in before and before[n] != after[n]]
        if new:
            written = await self._connection.fetch(self._queries["places_new"], *_place_columns(new, after, recorded))
            if len(written) < len(new):
                raise PlaceMoved
        if moved:
            await self._connection.execute(self._queries["places_move"], *_place_columns(moved, after, recorded))

    async def waiting(self, names: Sequence[Name]) -> list[Record]:
        rows = await self._connection.fetch(self._queries["pending_of"], *_columns(names))
        return [record_of_row(row) for row in rows if row["state"] == "waiting"]

    async def put(self, parkings: Sequence[Parking]) -> None:
        if not parkings:
            return
        await self._connection.execute(
            self._queries["pending_put"],
            [p.record.topic for p in parkings],
            [p.record.key for p in parkings],
            [p.record.sequence for p in parkings],
            [p.record.event_id for p in parkings],
            [[[name, content.decode("latin-1")] for name, content in p.record.headers] for p in parkings],
            [p.record.value for p in parkings],
            [p.state for p in parkings],
            [p.fault.reason for p in parkings],
            [p.fault.detail[:500] for p in parkings],
        )

    async def delete(self, numbers: Sequence[int]) -> None:
        if numbers:
            await self._connection.execute(self._queries["pending_delete"], list(numbers))

    async def empty(self, name: Name) -> None:
        await self._connection.execute(self._queries["pending_empty"], *name)


def record_of_row(row: Any) -> Record:
    """A row of the waiting room, read again: what an older version could not read, this one may."""
    headers = [(name, content.encode("latin-1")) for name, content in row["headers"]]
    return read(row["topic"], row["key"].encode(), row["value"], headers, where=row["event_id"], number=row["number"])


def _columns(names: Sequence[Name]) -> tuple[list[str], list[str]]:
    return [topic for topic, _ in names], [key for _, key in names]


def _place_columns(
    names: Sequence[Name], places: dict[Name, Place], recorded: dict[Name, datetime]
) -> tuple[list[Any], ...]:
    return (
        *_columns(names),
        [places[n].sequence for n in names],
        [recorded.get(n) for n in names],
        [places[n].waiting for n in names],
    )
