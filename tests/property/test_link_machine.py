"""Promise 7 for links: whatever the lines and the machines do, both ledgers of each direction end equal.

Three sites in a row, envelopes in both directions, some of them through the middle. The lines lose, double and reorder
records; a site's process ends between any two steps, and a site is set back to an earlier backup of itself, with all that it
knew. The decisions are those of services.routing.link; the ledgers here are lists where the service has tables.

LIENTHONG_TEST_SCHEDULES sets how many schedules are played: 100 of themselves, thousands on a long run.
"""

import os
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from itertools import pairwise

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.routing.link import BEGIN, START, Outgoing, Place, Seen, chain_over, chained, judge, next_asked

PAGE = 3
SITES = ("commune", "district", "province")
LINKS = (("commune", "district"), ("district", "province"))
DIRECTIONS = tuple(way for link in LINKS for way in (link, link[::-1]))
SCHEDULES = settings(
    max_examples=int(os.environ.get("LIENTHONG_TEST_SCHEDULES", "100")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@cache
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
    asks: bool = False

    def take(self, first: Place, before: str, names: list[str]) -> list[str]:
        """What has an effect now."""
        digests = [digest_of(name) for name in names]
        verdict = judge(self.have, self.chain, first, before, digests)
        if verdict.verdict in ("gap", "fork"):
            self.asks = True
        if verdict.verdict != "new":
            return []
        effects = []
        for index, name in enumerate(names[verdict.skip :], start=first.number + verdict.skip):
            if name not in self.ledger.values():
                effects.append(name)
            self.ledger[Place(first.epoch, index)] = name
            self.have = Place(first.epoch, index)
        self.chain = chain_over(self.chain, digests[verdict.skip :])[-1]
        return effects

    def rows_after(self, after: Place) -> list[tuple[Place, str]]:
        return [(place, self.ledger[place]) for place in sorted(self.ledger) if place > after][:PAGE]


Record = tuple[Place, str, list[str]]


def next_to(at: str, to: str) -> str:
    """The neighbour behind which a site lies."""
    step = 1 if SITES.index(to) > SITES.index(at) else -1
    return SITES[SITES.index(at) + step]


@dataclass
class Site:
    """All that a site's database holds. An envelope is named by origin, incarnation, number and the site it is for."""

    name: str
    out: dict[str, Sender]
    into: dict[str, Receiver]
    effects: list[str] = field(default_factory=list)

    def say(self, name: str) -> None:
        self.out[next_to(self.name, name.split()[-1])].append(name)

    def take(self, peer: str, record: Record) -> None:
        """One transaction: what is for others goes on in it."""
        for name in self.into[peer].take(*record):
            if name.split()[-1] == self.name:
                self.effects.append(name)
            else:
                self.say(name)


class Row(RuleBasedStateMachine):
    """What lies on the lines: records of each direction, and what the sides say to each other."""

    @initialize()
    def begin(self) -> None:
        near = {site: [b if a == site else a for a, b in LINKS if site in (a, b)] for site in SITES}
        self.sites = {s: Site(s, {p: Sender() for p in near[s]}, {p: Receiver() for p in near[s]}) for s in SITES}
        self.lines: dict[tuple[str, str], list[Record]] = {way: [] for way in DIRECTIONS}
        self.backups: list[Site] = []
        self.incarnation = dict.fromkeys(SITES, 0)
        self.count = 0
        self.said: set[str] = set()

    @rule(origin=st.sampled_from(SITES), to=st.sampled_from(SITES), n=st.integers(1, 3))
    def record(self, origin: str, to: str, n: int) -> None:
        for _ in range(n if origin != to else 0):
            self.count += 1
            name = f"{origin} {self.incarnation[origin]} {self.count} {to}"
            self.sites[origin].say(name)
            self.said.add(name)

    @rule(way=st.sampled_from(DIRECTIONS))
    def publish(self, way: tuple[str, str]) -> None:
        self.lines[way] += self.sites[way[0]].out[way[1]].records()

    @rule(way=st.sampled_from(DIRECTIONS), which=st.integers(0, 30), keep=st.booleans())
    def deliver(self, way: tuple[str, str], which: int, keep: bool) -> None:
        """Any record of the line, so late or so early, and perhaps once more later."""
        if line := self.lines[way]:
            index = which % len(line)
            self.sites[way[1]].take(way[0], line[index] if keep else line.pop(index))

    @rule(way=st.sampled_from(DIRECTIONS), which=st.integers(0, 30))
    def lose(self, way: tuple[str, str], which: int) -> None:
        if line := self.lines[way]:
            line.pop(which % len(line))

    @rule(way=st.sampled_from(DIRECTIONS), back=st.booleans(), sent=st.booleans())
    def talk(self, way: tuple[str, str], back: bool, sent: bool) -> None:
        self.say(way, back=back, sent=sent)

    def say(self, way: tuple[str, str], *, back: bool, sent: bool) -> None:
        """The receiver's word reaches the sender; the sender's word, and what it wants, may reach the receiver."""
        sender, receiver = self.sites[way[0]].out[way[1]], self.sites[way[1]].into[way[0]]
        if sent and next_asked(receiver.have, sender.out.sent):
            receiver.asks = True
        sender.heard(Seen(receiver.have, receiver.chain, receiver.asks))
        receiver.asks = False
        if sender.out.recovering and sender.want is None:
            sender.want = sender.out.confirmed  # this process has not asked yet
        if back and sender.want is not None:
            after = sender.want
            sender.given(after, receiver.rows_after(after), receiver.have)

    @rule(site=st.sampled_from(SITES))
    def restart(self, site: str) -> None:
        """The process ends: what it had in memory alone is gone."""
        for sender in self.sites[site].out.values():
            sender.want = None
        for receiver in self.sites[site].into.values():
            receiver.asks = False

    @rule(site=st.sampled_from(SITES))
    def back_up(self, site: str) -> None:
        self.backups.append(deepcopy(self.sites[site]))

    @rule(which=st.integers(0, 30))
    def restore(self, which: int) -> None:
        if self.backups:
            site = deepcopy(self.backups[which % len(self.backups)])
            self.sites[site.name] = site
            self.incarnation[site.name] += 1

    @rule(way=st.sampled_from(DIRECTIONS), lost=st.integers(1, 2), more=st.integers(1, 4))
    def live_on_after_a_loss(self, way: tuple[str, str], lost: int, more: int) -> None:
        """The moment that matters most, which chance alone seldom finds: what a site has said last was heard, the site is set
        back to before that, and says other things before it hears anything."""
        self.back_up(way[0])
        self.say_and_be_heard(way, lost)
        self.restore(len(self.backups) - 1)
        self.say_and_be_heard(way, more)

    def say_and_be_heard(self, way: tuple[str, str], n: int) -> None:
        self.record(way[0], way[1], n)
        self.publish(way)
        while self.lines[way]:
            self.deliver(way, 0, False)

    @invariant()
    def nothing_twice(self) -> None:
        for site in self.sites.values():
            assert len(set(site.effects)) == len(site.effects)

    @invariant()
    def in_the_order_in_which_it_was_said(self) -> None:
        """What one life of a site has said to another takes effect in its order, also when that site does not know yet that
        it was restored."""
        for site in self.sites.values():
            by_life: dict[tuple[str, str], list[int]] = {}
            for name in site.effects:
                origin, life, number, _ = name.split()
                by_life.setdefault((origin, life), []).append(int(number))
            assert all(a < b for numbers in by_life.values() for a, b in pairwise(numbers))

    def teardown(self) -> None:
        """The lines work again: all ledgers end equal, and whatever is in the ledger of the site that said it has had its
        effect at the site that it was for."""
        for _ in range(30 + 4 * self.count):
            for way in DIRECTIONS:
                self.lines[way] += self.sites[way[0]].out[way[1]].records()
                for record in self.lines[way]:
                    self.sites[way[1]].take(way[0], record)
                self.lines[way].clear()
                self.say(way, back=True, sent=True)
            if all(self.equal(way) for way in DIRECTIONS):
                break
        for way in DIRECTIONS:
            assert self.equal(way), way
        for site in self.sites.values():
            for sender in site.out.values():
                for name, _ in sender.ledger.values():
                    assert name in self.sites[name.split()[-1]].effects
            assert set(site.effects) <= self.said
        self.nothing_twice()
        self.in_the_order_in_which_it_was_said()

    def equal(self, way: tuple[str, str]) -> bool:
        sender, receiver = self.sites[way[0]].out[way[1]], self.sites[way[1]].into[way[0]]
        ours = {place: name for place, (name, _) in sender.ledger.items()}
        return ours == receiver.ledger and not sender.out.recovering and not sender.limbo


TestRow = Row.TestCase
TestRow.settings = SCHEDULES
