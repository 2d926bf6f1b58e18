"""The inbox's room in memory. A transaction is a copy that is kept or dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from shared.store.inbox import Name, Parking, Place, Record


@dataclass(slots=True)
class Row:
    """A record in the waiting room."""

    number: int
    record: Record
    state: str
    reason: str

    @property
    def name(self) -> Name:
        return (self.record.topic, self.record.key)

    @property
    def event_id(self) -> str:
        return self.record.event_id


@dataclass(slots=True)
class MemoryRoom:
    """Places and waiting records, and beside them the effects: all that one transaction writes."""

    stored: dict[Name, Place] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    effects: dict[str, list[str]] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    last_number: int = 0

    def copy(self) -> MemoryRoom:
        return MemoryRoom(
            {name: Place(place.sequence, place.waiting) for name, place in self.stored.items()},
            [Row(row.number, row.record, row.state, row.reason) for row in self.rows],
            {key: list(ids) for key, ids in self.effects.items()},
            set(self.dropped),
            self.last_number,
        )

    async def places(self, names: Sequence[Name]) -> dict[Name, Place]:
        return {n: Place(self.stored[n].sequence, self.stored[n].waiting) for n in names if n in self.stored}

    async def write_places(
        self, before: dict[Name, Place], after: dict[Name, Place], recorded: dict[Name, datetime]
    ) -> None:
        for name, place in after.items():
            if name not in before or (name in self.stored and before[name] != place):
                self.stored[name] = Place(place.sequence, place.waiting)

    async def waiting(self, names: Sequence[Name]) -> list[Record]:
        rows = [row for row in self.rows if row.state == "waiting" and row.name in names]
        rows.sort(key=lambda row: (row.name, row.record.sequence or 0, row.number))
        return [replace(row.record, number=row.number) for row in rows]

    async def put(self, parkings: Sequence[Parking]) -> None:
        for parking in parkings:
            record = parking.record
            same = [r for r in self.rows if r.name == (record.topic, record.key) and r.event_id == record.event_id]
            if not same:
                self.last_number += 1
                self.rows.append(Row(self.last_number, record, parking.state, parking.fault.reason))
            elif same[0].state == "waiting" and parking.state in ("parked", "unknown"):
                same[0].state, same[0].reason = parking.state, parking.fault.reason

    async def passed(self, numbers: Sequence[int]) -> None:
        self.rows = [row for row in self.rows if row.number not in numbers or row.state != "waiting"]

    async def empty(self, numbers: Sequence[int]) -> None:
        self.rows = [row for row in self.rows if row.number not in numbers or row.state == "unknown"]

    async def left(self, name: Name) -> str | None:
        states = {row.state for row in self.rows if row.name == name and row.state != "unknown"}
        return "parked" if "parked" in states else "gap" if states else None
