"""The inbox: an event takes effect once, in its key's order, whatever the bus does (promises 3 and 4).

A key's place is the last sequence applied. What comes is judged against it:

    not above it            a duplicate: dropped
    one above it            applied
    further ahead           a gap: it waits, and the owner is asked for what is missing
    unreadable, or refused  parked with its reason: the key's later events wait behind it, others flow
    of an unknown type      moves the place on and is remembered for the upgrade

Records from the bus, from the owner's ledger, from a replay and from the waiting room all go through `Inbox.process`:
it is the only way to an effect.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from hashlib import sha256
from typing import Any, Protocol

from shared.contracts.envelope import Envelope, Invalid, Unreadable, decode, encode, parse
from shared.contracts.events import EventData
from shared.store.pool import Connection

Name = tuple[str, str]  # topic, key
Headers = Sequence[tuple[str, bytes | None]]

MAX_KEY = 200  # characters; the keys of the contract are codes and ids of at most forty


class Contradiction(Exception):
    """An event that its key's state does not allow: permanent; it is parked under `reason`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


class PlaceMoved(Exception):
    """Another process moved a place between our look and our write: the batch is done again."""


@dataclass(frozen=True, slots=True)
class Fault:
    reason: str
    detail: str = ""


@dataclass(slots=True)  # not frozen, as Envelope: one for each event read
class Record:
    """One record as it came, read as far as it could be read."""

    topic: str
    key: str
    sequence: int | None
    event_id: str
    headers: Headers
    value: bytes | None
    envelope: Envelope | None
    data: EventData | None
    fault: Fault | None
    number: int | None = None  # of its row in the waiting room, if it comes from there

    @property
    def known(self) -> bool:
        """A tombstone has no data and is known all the same."""
        return self.data is not None or self.value is None


def read(
    topic: str,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    *,
    where: str = "",
    number: int | None = None,
) -> Record:
    """Reads one record of the bus; what is wrong with it becomes its fault, never an exception.

    `where` names the record's place on the bus; it stands in for the id of an event that has none.
    """
    raw = dict(headers)
    event_id = (raw.get("ce_id") or b"").decode("utf-8", "replace").replace("\0", "")[:100] or f"no-id:{where}"
    sequence = _sequence(raw.get("ce_sequence"))
    text_key = _storable(key or b"")
    envelope, data, fault = None, None, None
    if text_key is None:
        text_key = f"unreadable-{sha256(key or b'').hexdigest()[:32]}"
        fault = Fault("bad-key", f"the key is no text of at most {MAX_KEY} characters")
    else:
        try:
            envelope = decode(topic, key, value, headers)
            data = parse(envelope)
        except (Unreadable, Invalid) as error:
            if not _erased(envelope):
                fault = Fault(error.reason, error.detail)
    return Record(topic, text_key, sequence, event_id, tuple(headers), value, envelope, data, fault, number=number)


def _storable(key: bytes) -> str | None:
    """The key as PostgreSQL can hold and index it."""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return None
    return text if len(text) <= MAX_KEY and "\0" not in text else None


def _erased(envelope: Envelope | None) -> bool:
    """An event about a person whose data was erased since: its log has it without payload, and so it comes again."""
    return envelope is not None and envelope.data is None and envelope.type.startswith("contact.")


def record_of(envelope: Envelope) -> Record:
    """An envelope from the owner's ledger as the record that it would be on the bus."""
    key, value, headers = encode(envelope)
    return read(envelope.topic, key, value, headers)


def _sequence(raw: bytes | None) -> int | None:
    text = (raw or b"").decode("ascii", "replace")
    return int(text) if text.isdecimal() and len(text) <= 9 and int(text) > 0 else None


@dataclass(slots=True)
class Place:
    """Where a key stands: the last sequence applied, and whether later events wait for a gap or behind a parked one."""

    sequence: int = 0
    waiting: str | None = None  # None | "gap" | "parked"


class Verdict(Enum):
    APPLY = "apply"
    DUPLICATE = "duplicate"
    WAIT = "wait"  # ahead of a gap, or behind a parked event
    PARK = "park"
    MOVE_ON = "move-on"  # an unknown type


def judge(place: Place, sequence: int | None, *, fault: bool = False, known: bool = True) -> Verdict:
    """What becomes of an event at its key's place."""
    if fault or sequence is None:
        return Verdict.PARK
    if sequence <= place.sequence:
        return Verdict.DUPLICATE
    if place.waiting == "parked" or sequence > place.sequence + 1:
        return Verdict.WAIT
    return Verdict.APPLY if known else Verdict.MOVE_ON


@dataclass(slots=True)
class Sorted:
    """What a batch comes to, before its effects: places moved as if every effect succeeded."""

    places: dict[Name, Place]
    apply: list[Record] = field(default_factory=list)
    wait: list[Record] = field(default_factory=list)
    park: list[tuple[Record, Fault]] = field(default_factory=list)
    unknown: list[Record] = field(default_factory=list)
    duplicates: int = 0


def sort(places: dict[Name, Place], records: Iterable[Record]) -> Sorted:
    """Judges each record in turn and moves the places; pure but for the places given."""
    out = Sorted(places)
    for record in records:
        place = places.setdefault((record.topic, record.key), Place())
        match judge(place, record.sequence, fault=record.fault is not None, known=record.known):
            case Verdict.APPLY:
                out.apply.append(record)
                place.sequence += 1
            case Verdict.MOVE_ON:
                out.unknown.append(record)
                place.sequence += 1
            case Verdict.DUPLICATE:
                out.duplicates += 1
            case Verdict.WAIT:
                out.wait.append(record)
                place.waiting = place.waiting or "gap"
            case Verdict.PARK:
                out.park.append((record, record.fault or Fault("sequence-invalid")))
                place.waiting = "parked"
    return out


def settle(out: Sorted, faults: dict[int, Fault]) -> None:
    """Takes back what the effects refused: the place returns to before the first refused event of its key, that event is
    parked, and those of the key after it wait. `faults` is by index into `out.apply`."""
    stopped: set[Name] = set()
    kept: list[Record] = []
    for index, record in enumerate(out.apply):
        key = (record.topic, record.key)
        place = out.places[key]
        if key in stopped:
            out.wait.append(record)
        elif index in faults:
            stopped.add(key)
            out.park.append((record, faults[index]))
            place.sequence = (record.sequence or 1) - 1
            place.waiting = "parked"
        else:
            kept.append(record)
    # An unknown type after the refused event has moved nothing on.
    out.wait.extend(r for r in out.unknown if (r.sequence or 0) > out.places[(r.topic, r.key)].sequence)
    out.unknown = [r for r in out.unknown if (r.sequence or 0) <= out.places[(r.topic, r.key)].sequence]
    out.apply = kept


@dataclass(slots=True)  # not frozen, as Envelope
class Received:
    """An event to apply: the envelope and its data (None: a tombstone)."""

    envelope: Envelope
    data: Any


# The effect of a batch, inside its transaction: returns the events that its keys' states refuse, by index. After the
# first refused event of a key the effect leaves out that key's later ones.
Apply = Callable[[Connection, Sequence[Received]], Awaitable[dict[int, Fault]]]


@dataclass(slots=True)
class Outcome:
    """What a batch came to."""

    applied: int = 0
    duplicates: int = 0
    waiting: int = 0
    unknown: int = 0
    parked: list[tuple[Record, Fault]] = field(default_factory=list)

    def add(self, other: "Outcome") -> None:
        self.applied += other.applied
        self.duplicates += other.duplicates
        self.waiting += other.waiting
        self.unknown += other.unknown
        self.parked.extend(other.parked)


@dataclass(frozen=True, slots=True)
class Parking:
    """A record for the waiting room: state "waiting" (ahead or behind), "parked" (with its reason) or "unknown"."""

    record: Record
    state: str
    fault: Fault


class Room(Protocol):
    """Where places and waiting records are kept, within one transaction. `RoomInPostgres` is the real one."""

    async def places(self, names: Sequence[Name]) -> dict[Name, Place]:
        """The places that exist, locked until the transaction ends."""

    async def write_places(
        self, before: dict[Name, Place], after: dict[Name, Place], recorded: dict[Name, datetime]
    ) -> None:
        """Writes those that differ; raises PlaceMoved when one that was new to us exists by now."""

    async def waiting(self, names: Sequence[Name]) -> list[Record]:
        """The waiting records of these keys by sequence; not the parked ones."""

    async def put(self, parkings: Sequence[Parking]) -> None:
        """Adds records, of one key and event id only one; one that waits may become parked or unknown, and never the
        other way."""

    async def passed(self, numbers: Sequence[int]) -> None:
        """Deletes those of these records that wait: their keys have passed them."""

    async def empty(self, numbers: Sequence[int]) -> None:
        """Deletes these records, whether they wait or are parked; what was remembered as unknown since stays."""

    async def left(self, name: Name) -> str | None:
        """What of the key is left in the waiting room: "parked", "gap" for what only waits, or None."""


class Inbox:
    """One service's inbox. It holds no state: the room does."""

    def __init__(self, apply: Apply) -> None:
        self._apply = apply

    async def process(self, room: Room, connection: Connection, records: Sequence[Record]) -> Outcome:
        """Judges, applies and writes down a batch, in the caller's transaction.

        What waited for an event of this batch is applied with it. Raises PlaceMoved when another process was quicker.
        """
        names = sorted({(r.topic, r.key) for r in records})
        places = await room.places(names)
        before = {name: Place(place.sequence, place.waiting) for name, place in places.items()}
        recorded: dict[Name, datetime] = {}
        outcome = await self._round(room, connection, places, records, recorded)
        while gaps := [name for name in names if places[name].waiting == "gap"]:
            waiting = await room.waiting(gaps)
            reached = [r for r in waiting if (r.sequence or 0) <= places[(r.topic, r.key)].sequence + 1]
            if reached:
                outcome.add(await self._round(room, connection, places, waiting, recorded))
            passed = {r.number for r in waiting if (r.sequence or 0) <= places[(r.topic, r.key)].sequence}
            await room.passed([number for number in passed if number is not None])
            still = {(r.topic, r.key) for r in waiting if r.number not in passed}
            for name in gaps:
                if name not in still and places[name].waiting == "gap":
                    places[name].waiting = None
            if not reached:
                break
        await room.write_places(before, places, recorded)
        return outcome

    async def from_owner(
        self,
        room: Room,
        connection: Connection,
        name: Name,
        events: Sequence[Envelope],
        *,
        waited: Collection[int],
        unpark: bool = False,
    ) -> Outcome:
        """Continues a key with its owner's own events: the answer to a gap, and (with `unpark`) a replay.

        `events` are all that the owner has above the key's place; `waited` are the numbers of the records that were in
        the key's waiting room before the owner was asked. An owner stores an event before it publishes it: so a record
        of these that is not among `events` is foreign. It is discarded without moving the place, or parked for an
        operator to see when it lies beyond the owner's last and nobody asked for a replay. What came later stays.
        """
        place = (await room.places([name])).get(name, Place())
        if place.waiting == "parked" and not unpark:
            return Outcome()
        owned = {str(event.id) for event in events}
        head = max((event.sequence for event in events), default=place.sequence)
        foreign = [r for r in await room.waiting([name]) if r.number in waited and r.event_id not in owned]
        beyond = [] if unpark else [r for r in foreign if (r.sequence or 0) > head]
        await room.empty(sorted(waited))
        await room.write_places({name: place}, {name: Place(place.sequence, await room.left(name))}, {})
        outcome = await self.process(room, connection, [record_of(event) for event in events]) if events else Outcome()
        if beyond:
            fault = Fault("sequence-beyond-owner", f"the owner has events up to {head}")
            now = (await room.places([name])).get(name, Place())
            await room.put([Parking(r, "parked", fault) for r in beyond])
            await room.write_places({name: now}, {name: Place(now.sequence, "parked")}, {})
            outcome.parked.extend((r, fault) for r in beyond)
        return outcome

    async def _round(
        self,
        room: Room,
        connection: Connection,
        places: dict[Name, Place],
        records: Sequence[Record],
        recorded: dict[Name, datetime],
    ) -> Outcome:
        out = sort(places, records)
        received = [Received(r.envelope, r.data) for r in out.apply if r.envelope is not None]
        if received:
            settle(out, await self._apply(connection, received))
        # What came twice in one batch is written once, and parked rather than waiting.
        parkings: dict[tuple[str, str, str], Parking] = {}
        for parking in (
            *(Parking(r, "parked", fault) for r, fault in out.park),
            *(Parking(r, "unknown", Fault("unknown-type")) for r in out.unknown),
            *(Parking(r, "waiting", Fault("waits")) for r in out.wait if r.number is None),
        ):
            record = parking.record
            parkings.setdefault((record.topic, record.key, record.event_id), parking)
        await room.put(list(parkings.values()))
        for record in sorted((*out.apply, *out.unknown), key=lambda r: r.sequence or 0):
            if record.envelope is not None:
                recorded[(record.topic, record.key)] = record.envelope.recorded
        fresh = sum(1 for r in out.wait if r.number is None)
        duplicates = out.duplicates if any(r.number is None for r in records) else 0
        return Outcome(len(out.apply), duplicates, fresh, len(out.unknown), list(out.park))
