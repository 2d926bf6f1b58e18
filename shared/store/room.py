"""The inbox's places and waiting room in a service's schema."""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson

from shared.store.inbox import Headers, Name, Parking, Place, PlaceMoved, Record, read
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
        return [record_of_row(row) for row in rows]

    async def put(self, parkings: Sequence[Parking]) -> None:
        if not parkings:
            return
        await self._connection.execute(
            self._queries["pending_put"],
            [p.record.topic for p in parkings],
            [p.record.key for p in parkings],
            [p.record.sequence for p in parkings],
            [p.record.event_id for p in parkings],
            # As text: a list of lists would be taken for an array of more dimensions.
            [orjson.dumps(headers_to_json(p.record.headers)).decode() for p in parkings],
            [p.record.value for p in parkings],
            [p.state for p in parkings],
            [p.fault.reason for p in parkings],
            [p.fault.detail[:500] for p in parkings],
        )

    async def passed(self, numbers: Sequence[int]) -> None:
        if numbers:
            await self._connection.execute(self._queries["pending_passed"], list(numbers))

    async def empty(self, numbers: Sequence[int]) -> None:
        if numbers:
            await self._connection.execute(self._queries["pending_empty"], list(numbers))

    async def left(self, name: Name) -> str | None:
        left: str | None = await self._connection.fetchval(self._queries["pending_left"], *name)
        return left


def record_of_row(row: Any) -> Record:
    """A row of the waiting room, read again: what an older version could not read, this one may."""
    headers = headers_from_json(row["headers"])
    return read(row["topic"], row["key"].encode(), row["value"], headers, where=row["event_id"], number=row["number"])


def headers_to_json(headers: Headers) -> list[list[str | None]]:
    """Headers as PostgreSQL can hold them whatever their bytes are: it takes no zero byte in a text."""
    return [[_to_base64(name.encode()), None if content is None else _to_base64(content)] for name, content in headers]


def _to_base64(content: bytes) -> str:
    return b64encode(content).decode()


def headers_from_json(stored: Sequence[Sequence[str | None]]) -> list[tuple[str, bytes | None]]:
    """The headers as they came."""
    return [
        (b64decode(name or "").decode(), None if content is None else b64decode(content)) for name, content in stored
    ]


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
