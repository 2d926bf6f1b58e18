"""Experiment A: the mechanism of promises 2, 3, 4 and 6, without a database and without a bus.

An owner's log and outbox, a relay that dies between any two steps, a bus that duplicates, loses everything and reorders
between keys, a consumer that joins late, dies, meets gaps, bad and foreign events, asks the owner, parks, replays, drops.
The inbox is the project's own; the others are models of what stands around it. The last test plants faults in the
mechanism and proves that the machine finds each of them.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import shared.store.inbox
from shared.contracts.envelope import Envelope, encode
from shared.store.inbox import Fault, Inbox, Name, Place, Received, Record, Verdict, judge, read, record_of
from tests.property.memory_room import MemoryRoom, Row
from tests.toy.events import DOSSIERS, data

T = TypeVar("T")

KEYS = ("a", "b", "c")
PARTITIONS = 2
DATA = data().to_json()
EPOCH = datetime(2026, 10, 10, tzinfo=UTC)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Ends a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as ended:
        value: T = ended.value
        return value
    raise AssertionError("it waits")


def partition_of(key: str) -> int:
    return KEYS.index(key) % PARTITIONS


@dataclass
class Owner:
    """The owner's log. A position is taken when an event is written and seen when its transaction commits."""

    last_position: int = 0
    last_id: int = 0
    under_way: dict[int, Envelope] = field(default_factory=dict)
    log: dict[int, Envelope] = field(default_factory=dict)
    outbox: set[int] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    poisoned: set[str] = field(default_factory=set)

    def events(self, key: str, after: int = 0) -> list[Envelope]:
        found = [event for event in self.log.values() if event.subject == key and event.sequence > after]
        return sorted(found, key=lambda event: event.sequence)

    def begin(self, key: str, kind: str) -> int:
        """The writer holds the lock of the key until it commits: there is one at a time."""
        self.last_position += 1
        event = new_event(key, len(self.events(key)) + 1, number=self.last_position, unknown=kind == "unknown")
        if kind == "poisoned":
            self.poisoned.add(str(event.id))
        self.under_way[self.last_position] = event
        return self.last_position

    def commit(self, position: int) -> None:
        event = self.log[position] = self.under_way.pop(position)
        self.outbox.add(position)
        if event.type != "dossier.due-soon":
            self.unknown.add(str(event.id))


def new_event(key: str, sequence: int, *, number: int, unknown: bool = False, foreign: bool = False) -> Envelope:
    at = EPOCH + timedelta(seconds=number)
    return Envelope(
        topic=DOSSIERS,
        id=UUID(int=number + (1 << 64 if foreign else 0)),
        source="/sites/H55/intake",
        type="dossier.from-the-future" if unknown else "dossier.due-soon",
        subject=key,
        time=at,
        recorded=at,
        sequence=sequence,
        mode="live",
        data=DATA,
    )


@dataclass
class Bus:
    """Partitions that keep an order; nothing else is promised. Another life begins empty."""

    life: int = 1
    partitions: list[list[Record]] = field(default_factory=lambda: [[] for _ in range(PARTITIONS)])
    published: dict[str, list[int]] = field(default_factory=dict)  # by key the owner's sequences, as each came first

    def publish(self, event: Envelope) -> None:
        """An event of the owner."""
        self.put(record_of(event))
        if event.sequence not in (first := self.published.setdefault(event.subject, [])):
            first.append(event.sequence)

    def put(self, record: Record) -> None:
        self.partitions[partition_of(record.key)].append(record)

    def lose_everything(self) -> None:
        self.life += 1
        self.partitions = [[] for _ in range(PARTITIONS)]


class Relay:
    """Publishes what is in the outbox, in the order of positions, then deletes it; fills an emptied bus from the log with
    what had been published."""

    def __init__(self, owner: Owner, bus: Bus) -> None:
        self._owner, self._bus = owner, bus
        self.life = bus.life  # written down, like the place of a rebuild
        self.rebuild: tuple[int, int] | None = None

    def watch(self, window: int) -> None:
        """Notices another life and writes the rebuild down: from the start of the window to the log's end."""
        if self._bus.life != self.life:
            last = max(self._owner.log, default=0)
            self.rebuild, self.life = (max(0, last - window), last), self._bus.life

    def rebuild_page(self, size: int, *, crash: bool = False) -> None:
        assert self.rebuild is not None
        after, until = self.rebuild
        page = sorted(p for p in self._owner.log if after < p <= until and p not in self._owner.outbox)[:size]
        for position in page:
            self._bus.publish(self._owner.log[position])
        if not crash:
            self.rebuild = (page[-1], until) if page else None

    def publish_page(self, size: int, *, crash_after: int | None = None) -> None:
        page = sorted(self._owner.outbox)[:size]
        for position in page[:crash_after]:
            self._bus.publish(self._owner.log[position])
        if crash_after is None:
            self._owner.outbox -= set(page)


@dataclass
class Answer:
    """What an owner said, on its way to the consumer."""

    key: str
    events: list[Envelope]
    waited: set[int]
    unpark: bool


class Mechanism(RuleBasedStateMachine):
    """The promises under whatever may happen."""

    asks: ClassVar[bool] = True
    relay_of: ClassVar[type[Relay]] = Relay

    def __init__(self) -> None:
        super().__init__()
        self.owner, self.bus, self.room = Owner(), Bus(), MemoryRoom()
        self.relay = self.relay_of(self.owner, self.bus)
        self.inbox = Inbox(self.effect)
        self.joined = False
        self.life = self.bus.life
        self.read_to = [0] * PARTITIONS
        self.answers: list[Answer] = []
        self.mended = False  # the handler bears what it did not bear
        self.broken: set[str] = set()
        self.forged = 0

    @initialize(joined=st.sampled_from([True, True, False]))
    def begin(self, joined: bool) -> None:
        self.joined = joined

    # -- the owner

    @rule(key=st.sampled_from(KEYS), kind=st.sampled_from(["good", "good", "good", "good", "unknown", "poisoned"]))
    def write(self, key: str, kind: str) -> None:
        if key not in {event.subject for event in self.owner.under_way.values()}:
            self.owner.begin(key, kind)

    @rule(choice=st.integers(0, 9), commits=st.sampled_from([True, True, True, False]))
    def end_a_write(self, choice: int, commits: bool) -> None:
        if self.owner.under_way:
            position = sorted(self.owner.under_way)[choice % len(self.owner.under_way)]
            if commits:
                self.owner.commit(position)
            else:
                del self.owner.under_way[position]

    @rule(key=st.sampled_from(KEYS), count=st.integers(1, 2), reads=st.booleans())
    def all_goes_well(self, key: str, count: int, reads: bool) -> None:
        """Written, published and, if the consumer is there, read."""
        for _ in range(count):
            if key not in {event.subject for event in self.owner.under_way.values()}:
                self.owner.commit(self.owner.begin(key, "good"))
        self.publish(10)
        if reads and self.joined:
            self.read_batch([10] * PARTITIONS, True, "well")

    # -- the relay

    @rule(size=st.integers(1, 5))
    def publish(self, size: int) -> None:
        if self.relay.rebuild is None:
            self.relay.publish_page(size)

    @rule(size=st.integers(1, 5), sent=st.integers(0, 4))
    def relay_dies(self, size: int, sent: int) -> None:
        if self.relay.rebuild is None:
            self.relay.publish_page(size, crash_after=min(sent, size - 1))

    @rule(window=st.integers(1, 8))
    def watch(self, window: int) -> None:
        self.relay.watch(window)

    @rule(size=st.integers(1, 5), crash=st.booleans())
    def rebuild(self, size: int, crash: bool) -> None:
        if self.relay.rebuild is not None:
            self.relay.rebuild_page(size, crash=crash)

    # -- the bus

    @rule(partition=st.integers(0, PARTITIONS - 1), choice=st.integers(0, 50))
    def duplicate(self, partition: int, choice: int) -> None:
        if records := self.bus.partitions[partition]:
            records.append(records[choice % len(records)])

    @rule()
    def lose_everything(self) -> None:
        self.bus.lose_everything()

    @rule(partition=st.integers(0, PARTITIONS - 1), count=st.integers(1, 4))
    def retention_ends(self, partition: int, count: int) -> None:
        """Records are deleted before a consumer that was away has read them."""
        self.read_to[partition] = min(self.read_to[partition] + count, len(self.bus.partitions[partition]))

    @rule(key=st.sampled_from(KEYS), sequence=st.sampled_from([None, "next", 2, 5, 900]), broken=st.booleans())
    def forge(self, key: str, sequence: int | str | None, broken: bool) -> None:
        """A foreign event: broken, of an impossible sequence, or at the right place with what the state does not allow."""
        self.forged += 1
        place = self.room.stored.get((DOSSIERS, key), Place()).sequence + 1 if sequence == "next" else sequence
        event = new_event(key, int(place or 1), number=self.forged, foreign=True)
        name, value, headers = encode(event)
        if place is None:
            headers = [(header, b"0" if header == "ce_sequence" else content) for header, content in headers]
        self.bus.put(read(DOSSIERS, name, b"{" if broken else value, headers))

    @rule(choice=st.integers(0, 50))
    def garble(self, choice: int) -> None:
        """One of the owner's own events arrives with a payload that cannot be read."""
        if published := [event for position, event in self.owner.log.items() if position not in self.owner.outbox]:
            event = published[choice % len(published)]
            name, _, headers = encode(event)
            self.broken.add(str(event.id))
            self.bus.put(read(DOSSIERS, name, b'{"', headers))

    # -- the consumer

    @rule()
    def join(self) -> None:
        self.joined = True

    @rule()
    def notice_life(self) -> None:
        """Until then it reads on at its old place, and may miss what was published before it."""
        if self.life != self.bus.life:
            self.life, self.read_to = self.bus.life, [0] * PARTITIONS

    @precondition(lambda self: self.joined)
    @rule(
        counts=st.lists(st.integers(0, 4), min_size=PARTITIONS, max_size=PARTITIONS),
        order=st.booleans(),
        ends=st.sampled_from(["well", "well", "well", "dies before the commit", "dies before the offset"]),
    )
    def read_batch(self, counts: list[int], order: bool, ends: str) -> None:
        ranges = [(n, self.read_to[n], self.read_to[n] + count) for n, count in enumerate(counts)]
        batch = [r for n, start, end in (ranges if order else ranges[::-1]) for r in self.bus.partitions[n][start:end]]
        parked = {name: p.sequence for name, p in self.room.stored.items() if p.waiting == "parked"}
        room = self.room.copy()
        run(self.inbox.process(room, room, batch))  # type: ignore[arg-type]
        if ends == "dies before the commit":
            return
        self.room = room
        for name, sequence in parked.items():
            assert room.stored[name] == Place(sequence, "parked"), "a parked key has moved by itself"
        if ends == "well":
            self.read_to = [
                max(r, min(end, len(self.bus.partitions[n])))
                for (n, _, end), r in zip(ranges, self.read_to, strict=True)
            ]

    @precondition(lambda self: self.asks)
    @rule(choice=st.integers(0, 5))
    def ask_owner(self, choice: int) -> None:
        gaps = sorted(name for name, place in self.room.stored.items() if place.waiting == "gap")
        if gaps:
            self._ask(gaps[choice % len(gaps)][1], unpark=False)

    @rule(choice=st.integers(0, 5))
    def ask_for_a_replay(self, choice: int) -> None:
        parked = sorted(name for name, place in self.room.stored.items() if place.waiting == "parked")
        if parked:
            self._ask(parked[choice % len(parked)][1], unpark=True)

    @rule(choice=st.integers(0, 5), ends=st.sampled_from(["well", "well", "dies", "never comes"]))
    def take_answer(self, choice: int, ends: str) -> None:
        if self.answers:
            answer = self.answers.pop(choice % len(self.answers))
            if ends != "never comes":
                self._continue(answer, commits=ends == "well")

    @precondition(lambda self: self.asks and self.joined)
    @rule(choice=st.integers(0, 5), count=st.integers(1, 2))
    def a_slow_answer(self, choice: int, count: int) -> None:
        """Between the question and the answer the owner goes on, and what it publishes is read."""
        gaps = sorted(name for name, place in self.room.stored.items() if place.waiting == "gap")
        if gaps:
            key = gaps[choice % len(gaps)][1]
            self._ask(key, unpark=False)
            self.all_goes_well(key, count, True)
            self._continue(self.answers.pop())

    @rule(choice=st.integers(0, 9))
    def drop(self, choice: int) -> None:
        """An operator gives a parked event up: the owner's own is skipped, a foreign one is only discarded."""
        rows = [row for row in self.room.rows if row.state == "parked"]
        if not rows:
            return
        row = rows[choice % len(rows)]
        self._ask(row.record.key, unpark=True)
        answer = self.answers.pop()
        if answer.events and str(answer.events[0].id) == row.event_id:
            skipped = answer.events.pop(0)
            self.room.dropped.add(str(skipped.id))
            self.room.stored[row.name].sequence += 1
        self._continue(answer)

    async def effect(self, room: Any, events: Sequence[Received]) -> dict[int, Fault]:
        """A row an event. What is not the owner's contradicts the state, as far as a handler can see."""
        faults: dict[int, Fault] = {}
        owned = {str(event.id) for event in self.owner.log.values()}
        stopped: set[str] = set()
        for index, received in enumerate(events):
            key, event_id = received.envelope.subject, str(received.envelope.id)
            if key in stopped:
                continue
            if event_id not in owned or (event_id in self.owner.poisoned and not self.mended):
                faults[index] = Fault("state-contradiction")
                stopped.add(key)
            else:
                room.effects.setdefault(key, []).append(event_id)
        return faults

    def _ask(self, key: str, *, unpark: bool) -> None:
        place = self.room.stored.get((DOSSIERS, key), Place())
        waited = {row.number for row in self._rows((DOSSIERS, key))}
        self.answers.append(Answer(key, self.owner.events(key, place.sequence), waited, unpark))

    def _continue(self, answer: Answer, *, commits: bool = True) -> None:
        room = self.room.copy()
        name = (DOSSIERS, answer.key)
        work = self.inbox.from_owner(room, room, name, answer.events, waited=answer.waited, unpark=answer.unpark)  # type: ignore[arg-type]
        run(work)
        if commits:
            self.room = room

    def _rows(self, name: Name) -> list[Row]:
        return [row for row in self.room.rows if row.name == name and row.state != "unknown"]

    # -- what holds at any time

    def wanted(self, key: str) -> list[str]:
        ids = [str(event.id) for event in self.owner.events(key)]
        return [i for i in ids if i not in self.room.dropped and i not in self.owner.unknown]

    @invariant()
    def promise_2_stored_means_published_in_order(self) -> None:
        for position, event in self.owner.log.items():
            published = self.bus.published.get(event.subject, [])
            assert position in self.owner.outbox or event.sequence in published, f"{position} is lost to the bus"
            assert published == sorted(published), f"{event.subject} was published out of order"

    @invariant()
    def promise_3_effect_once_and_in_order(self) -> None:
        for key in KEYS:
            effects = self.room.effects.get(key, [])
            assert effects == self.wanted(key)[: len(effects)], f"the effects of {key} are no beginning of its events"

    @invariant()
    def the_place_says_what_has_taken_effect(self) -> None:
        for (_, key), place in self.room.stored.items():
            passed = [str(event.id) for event in self.owner.events(key)][: place.sequence]
            unknown = [i for i in passed if i in self.owner.unknown and i not in self.room.dropped]
            effects = [i for i in passed if i not in self.owner.unknown and i not in self.room.dropped]
            remembered = {row.event_id for row in self.room.rows if row.state == "unknown"}
            assert len(passed) == place.sequence
            assert self.room.effects.get(key, []) == effects
            assert set(unknown) <= remembered, "an event of an unknown type is forgotten"

    @invariant()
    def promise_4_only_what_is_bad_is_parked(self) -> None:
        owned = {str(event.id) for event in self.owner.log.values()}
        for row in self.room.rows:
            if row.state == "parked" and row.event_id in owned:
                assert row.event_id in self.owner.poisoned | self.broken, f"{row.event_id} is parked: {row.reason}"

    @invariant()
    def nothing_waits_unknown_to_anybody(self) -> None:
        for name in {*self.room.stored, *(row.name for row in self.room.rows)}:
            states = {row.state for row in self._rows(name)}
            waiting = self.room.stored.get(name, Place()).waiting
            if "parked" in states:
                assert waiting == "parked"
            elif "waiting" in states:
                assert waiting == "gap"
            else:
                assert waiting is None, f"{name} waits for nothing"

    # -- what holds in the end

    def teardown(self) -> None:
        """All writers end, the relay and the consumer get their turns, gaps are asked for, replays done: all is there."""
        for position in sorted(self.owner.under_way):
            self.owner.commit(position)
        self.mended = self.joined = True
        self._let_work()
        for key in KEYS:  # life goes on: what came before the window and was lost is known by what follows it
            self.owner.commit(self.owner.begin(key, "good"))
        self._let_work()
        for key in KEYS:
            assert self.room.effects.get(key, []) == self.wanted(key), f"{key} is not complete"
        assert all(row.state == "unknown" for row in self.room.rows), "something is parked or waits at the end"
        assert {row.event_id for row in self.room.rows} >= self.owner.unknown - self.room.dropped

    def _let_work(self) -> None:
        for _ in range(12):
            self.watch(window=8)
            while self.relay.rebuild is not None:
                self.relay.rebuild_page(100)
            while self.owner.outbox:
                self.relay.publish_page(100)
            self.notice_life()
            self.read_batch([100] * PARTITIONS, True, "well")
            for answer in self.answers:
                self._continue(answer)
            self.answers.clear()
            for (_, key), place in sorted(self.room.stored.items()):
                if place.waiting == "parked" or (place.waiting == "gap" and self.asks):
                    self._ask(key, unpark=place.waiting == "parked")
                    self._continue(self.answers.pop())
            for check in (
                self.promise_2_stored_means_published_in_order,
                self.promise_3_effect_once_and_in_order,
                self.promise_4_only_what_is_bad_is_parked,
                self.nothing_waits_unknown_to_anybody,
            ):
                check()


def explore(machine: type[Mechanism], examples: int) -> None:
    """The same schedules each time; a violation is not made smaller, which takes longest, when it was planted."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.generate] if machine is not Mechanism else list(Phase),
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_promises_2_3_4_6_hold_whatever_happens() -> None:
    explore(Mechanism, 500)


# -- planted faults


class NoSequenceCheck(Mechanism):
    """Applies what comes, as it comes."""

    @staticmethod
    def judge(place: Place, sequence: int | None, *, fault: bool = False, known: bool = True) -> Verdict:
        verdict = judge(place, sequence, fault=fault, known=known)
        return Verdict.APPLY if verdict is Verdict.DUPLICATE else verdict


class AppliesBeyondAGap(Mechanism):
    @staticmethod
    def judge(place: Place, sequence: int | None, *, fault: bool = False, known: bool = True) -> Verdict:
        verdict = judge(place, sequence, fault=fault, known=known)
        return Verdict.APPLY if verdict is Verdict.WAIT and place.waiting != "parked" else verdict


class AppliesBehindAParkedEvent(Mechanism):
    @staticmethod
    def judge(place: Place, sequence: int | None, *, fault: bool = False, known: bool = True) -> Verdict:
        return judge(Place(place.sequence), sequence, fault=fault, known=known)


class NeverAsks(Mechanism):
    asks = False


class UnparksWithoutTheOwner(Mechanism):
    """A replay that takes what lies in the waiting room for the truth."""

    def _continue(self, answer: Answer, *, commits: bool = True) -> None:
        if not answer.unpark:
            super()._continue(answer, commits=commits)
            return
        room = self.room.copy()
        name = (DOSSIERS, answer.key)
        records = [row.record for row in self._rows(name)]
        run(room.empty([row.number for row in self._rows(name)]))
        room.stored[name].waiting = None
        run(self.inbox.process(room, room, sorted(records, key=lambda r: r.sequence or 0)))  # type: ignore[arg-type]
        if commits:
            self.room = room


class TakesWhatCameAfterTheQuestionForForeign(Mechanism):
    """The owner may have written and published more since it answered."""

    def _continue(self, answer: Answer, *, commits: bool = True) -> None:
        answer.waited = {row.number for row in self._rows((DOSSIERS, answer.key))}
        super()._continue(answer, commits=commits)


class DeletesBeforePublishing(Mechanism):
    class Relay(Relay):
        def publish_page(self, size: int, *, crash_after: int | None = None) -> None:
            page = sorted(self._owner.outbox)[:size]
            self._owner.outbox -= set(page)
            for position in page[:crash_after]:
                self._bus.publish(self._owner.log[position])

    relay_of = Relay


class FollowsACursor(Mechanism):
    """`position > last` overtakes the writer that took its position early and commits late."""

    class Relay(Relay):
        def __init__(self, owner: Owner, bus: Bus) -> None:
            super().__init__(owner, bus)
            self.last = 0

        def publish_page(self, size: int, *, crash_after: int | None = None) -> None:
            page = sorted(position for position in self._owner.log if position > self.last)[:size]
            for position in page[:crash_after]:
                self._bus.publish(self._owner.log[position])
            if crash_after is None:
                self.last = max(page, default=self.last)
                self._owner.outbox -= {position for position in self._owner.outbox if position <= self.last}

    relay_of = Relay


MUTANTS = [
    NoSequenceCheck,
    AppliesBeyondAGap,
    AppliesBehindAParkedEvent,
    NeverAsks,
    UnparksWithoutTheOwner,
    TakesWhatCameAfterTheQuestionForForeign,
    DeletesBeforePublishing,
    FollowsACursor,
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_planted_fault_is_found(mutant: type[Mechanism], monkeypatch: pytest.MonkeyPatch) -> None:
    if hasattr(mutant, "judge"):
        monkeypatch.setattr(shared.store.inbox, "judge", mutant.judge)
    with pytest.raises(AssertionError):
        explore(mutant, 3000)
