"""Promise 7 for one direction of a link: whatever the line and the machines do, both ledgers end equal.

The line loses, doubles and reorders records; either side stops between any two steps, or is set back to an earlier backup
of itself. The decisions are those of services.routing.link; the ledgers here are lists where the service has tables.
"""

from copy import deepcopy
from dataclasses import dataclass, field
from hashlib import sha256

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.routing.link import BEGIN, START, Outgoing, Place, Seen, chain_over, chained, judge, next_asked

PAGE = 3


def digest_of(name: str) -> str:
    return sha256(name.encode()).hexdigest()


@dataclass
class Sender:
    out: Outgoing = field(default_factory=Outgoing)
    ledger: dict[Place, tuple[str, str]] = field(default_factory=dict)  # name and chain, by place
    limbo: list[str] = field(default_factory=list)
    want: Place | None = None

    def append(self, name: str) -> None:
        if self.out.recovering:
            self.limbo.append(name)
            return
        [(place, chain)] = self.out.number([digest_of(name)])
        self.ledger[place] = (name, chain)

    def chain_at(self, place: Place, newest: Place) -> str | None:
        if place.number == 0:
            if place.epoch > newest.epoch:
                return None
            earlier = [p for p in self.ledger if p.epoch < place.epoch]
            return self.ledger[max(earlier)][1] if earlier else BEGIN
        found = self.ledger.get(place)
        return None if found is None else found[1]

    def records(self) -> list[tuple[Place, str, list[str]]]:
        """What is published next, as the service cuts it: records of one epoch."""
        if self.out.recovering:
            return []
        later = sorted(place for place in self.ledger if place > self.out.sent)[: 2 * PAGE]
        chain = self.chain_at(self.out.sent, self.out.last) or BEGIN
        made: list[tuple[Place, str, list[str]]] = []
        for place in later:
            if not made or len(made[-1][2]) == PAGE or made[-1][0].epoch != place.epoch:
                made.append((place, chain, []))
            made[-1][2].append(self.ledger[place][0])
            chain = self.ledger[place][1]
        if later:
            self.out.sent = later[-1]
        return made

    def heard(self, seen: Seen) -> None:
        if self.out.heard(seen, self.chain_at(seen.place, self.out.last)) == "recover":
            self.begin_recovery(self.out.confirmed)

    def begin_recovery(self, common: Place) -> None:
        behind = sorted(place for place in self.ledger if place > common)
        self.limbo = [self.ledger.pop(place)[0] for place in behind] + self.limbo
        self.out.confirmed = self.out.sent = common
        self.out.recovering = True
        self.out.chain = self.chain_at(common, common) or BEGIN
        self.want = common

    def given(self, after: Place, rows: list[tuple[Place, str]], have: Place) -> None:
        if not self.out.recovering or after != self.out.confirmed:
            return
        if have < after:
            self.begin_recovery(START)
        for place, name in rows:
            self.limbo = [each for each in self.limbo if each != name]
            self.out.chain = chained(self.out.chain, digest_of(name))
            self.ledger[place] = (name, self.out.chain)
            self.out.confirmed = place
        if self.out.confirmed == have:
            self.out.renew(self.out.confirmed, self.out.chain)
            for (place, chain), name in zip(
                self.out.number([digest_of(n) for n in self.limbo]), self.limbo, strict=True
            ):
                self.ledger[place] = (name, chain)
            self.limbo, self.want = [], None
        else:
            self.want = self.out.confirmed


@dataclass
class Receiver:
    have: Place = START
    chain: str = BEGIN
    ledger: dict[Place, str] = field(default_factory=dict)
    effects: list[str] = field(default_factory=list)
    asks: bool = False

    def take(self, first: Place, before: str, names: list[str]) -> None:
        digests = [digest_of(name) for name in names]
        verdict = judge(self.have, self.chain, first, before, digests)
        if verdict.verdict in ("gap", "fork"):
            self.asks = True
        if verdict.verdict != "new":
            return
        for index, name in enumerate(names[verdict.skip :], start=first.number + verdict.skip):
            if name not in self.ledger.values():
                self.effects.append(name)
            self.ledger[Place(first.epoch, index)] = name
            self.have = Place(first.epoch, index)
        self.chain = chain_over(self.chain, digests[verdict.skip :])[-1]

    def rows_after(self, after: Place) -> list[tuple[Place, str]]:
        return [(place, self.ledger[place]) for place in sorted(self.ledger) if place > after][:PAGE]


class Direction(RuleBasedStateMachine):
    """What lies on the line: records to the receiver, and what both sides say to each other."""

    @initialize()
    def begin(self) -> None:
        self.sender, self.receiver = Sender(), Receiver()
        self.line: list[tuple[Place, str, list[str]]] = []
        self.backups: list[tuple[str, object]] = []
        self.count = 0
        self.restored = False

    @rule(n=st.integers(1, 4))
    def record(self, n: int) -> None:
        for _ in range(n):
            self.count += 1
            self.sender.append(f"envelope {self.count}")

    @rule()
    def publish(self) -> None:
        self.line += self.sender.records()

    @rule(which=st.integers(0, 30), keep=st.booleans())
    def deliver(self, which: int, keep: bool) -> None:
        """Any record of the line, so late or so early, and perhaps once more later."""
        if self.line:
            index = which % len(self.line)
            record = self.line[index] if keep else self.line.pop(index)
            self.receiver.take(*record)

    @rule(which=st.integers(0, 30))
    def lose(self, which: int) -> None:
        if self.line:
            self.line.pop(which % len(self.line))

    @rule(back=st.booleans(), sent=st.booleans())
    def talk(self, back: bool, sent: bool) -> None:
        self.say(back=back, sent=sent)

    def say(self, *, back: bool, sent: bool) -> None:
        """The receiver's word reaches the sender; the sender's word, and what it wants, may reach the receiver."""
        if sent and next_asked(self.receiver.have, self.sender.out.sent):
            self.receiver.asks = True
        self.sender.heard(Seen(self.receiver.have, self.receiver.chain, self.receiver.asks))
        self.receiver.asks = False
        if back and self.sender.want is not None:
            after = self.sender.want
            self.sender.given(after, self.receiver.rows_after(after), self.receiver.have)

    @rule(who=st.sampled_from(["sender", "receiver"]))
    def back_up(self, who: str) -> None:
        self.backups.append((who, deepcopy(getattr(self, who))))

    @rule(which=st.integers(0, 30))
    def restore(self, which: int) -> None:
        if self.backups:
            who, state = self.backups[which % len(self.backups)]
            setattr(self, who, deepcopy(state))
            self.restored = True

    @invariant()
    def nothing_twice(self) -> None:
        assert len(set(self.receiver.effects)) == len(self.receiver.effects)
        names = [name for name, _ in self.sender.ledger.values()]
        assert len(set(names)) == len(names)

    @invariant()
    def in_order_without_a_restore(self) -> None:
        if not self.restored:
            numbers = [int(name.split()[1]) for name in self.receiver.effects]
            assert numbers == list(range(1, len(numbers) + 1))

    def teardown(self) -> None:
        """The line works again: both ledgers end equal, and everything that is in the sender's has had its effect."""
        for _ in range(20 + 2 * (self.count + len(self.line))):
            self.line += self.sender.records()
            while self.line:
                self.receiver.take(*self.line.pop(0))
            self.say(back=True, sent=True)
        ours = {place: name for place, (name, _) in self.sender.ledger.items()}
        assert ours == self.receiver.ledger
        assert not self.sender.out.recovering
        assert self.sender.limbo == []
        assert set(ours.values()) == set(self.receiver.effects)


TestDirection = Direction.TestCase
TestDirection.settings = settings(
    max_examples=100, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
