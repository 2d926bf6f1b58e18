"""Promise 7 for links: whatever the lines and the machines do, both ledgers of each direction end equal.

Three sites in a row, envelopes in both directions, some of them through the middle. The lines lose, double and reorder
records; a site's process ends between any two steps, and a site is set back to an earlier backup of itself, with all that it
knew. Some envelopes carry a person, whom home may erase: the word of it goes the same ways, and home's list of who was
erased outlives its database. The decisions are those of services.routing.link; the ledgers here are lists where the service
has tables.

LIENTHONG_TEST_SCHEDULES sets how many schedules are played: 100 of themselves, thousands on a long run; the same ones each time,
others by LIENTHONG_TEST_SEED. With LIENTHONG_TEST_SHRINK=0 one that fails is not made smaller.
"""

import os
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from itertools import pairwise, permutations

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.routing.link import BEGIN, START, Outgoing, Place, Seen, chain_over, chained, judge, next_asked

PAGE = 3
SITES = ("commune", "district", "province")
LINKS = (("commune", "district"), ("district", "province"))
DIRECTIONS = tuple(way for link in LINKS for way in (link, link[::-1]))
PAIRS = tuple(permutations(SITES, 2))
SEED = os.environ.get("LIENTHONG_TEST_SEED", "")
SHRINKS = os.environ.get("LIENTHONG_TEST_SHRINK", "1") != "0"
SCHEDULES = settings(
    max_examples=int(os.environ.get("LIENTHONG_TEST_SCHEDULES", "100")),
    stateful_step_count=30,
    derandomize=not SEED,
    deadline=None,
    phases=[phase for phase in Phase if SHRINKS or phase is not Phase.shrink],
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
    whole: set[str] = field(default_factory=set)  # envelopes from which the person was not taken

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

    def records(self) -> list["Record"]:
        """What is published next, as the service cuts it: records of one epoch."""
        if self.out.recovering:
            return []
        later = sorted(place for place in self.ledger if place > self.out.sent)[: 2 * PAGE]
        chain = self.chain_at(self.out.sent, self.out.last) or BEGIN
        made: list[Record] = []
        for place in later:
            if not made or len(made[-1][2]) == PAGE or made[-1][0].epoch != place.epoch:
                made.append((place, chain, [], set()))
            name, chain = self.ledger[place]
            made[-1][2].append(name)
            made[-1][3].update({name} & self.whole)
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
        """Rows that the receiver has, and that this ledger lacked."""
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
    whole: set[str] = field(default_factory=set)

    def take(self, first: Place, before: str, names: list[str], whole: set[str]) -> list[str]:
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
                self.whole |= {name} & whole
            self.ledger[Place(first.epoch, index)] = name
            self.have = Place(first.epoch, index)
        self.chain = chain_over(self.chain, digests[verdict.skip :])[-1]
        return effects

    def rows_after(self, after: Place) -> list[tuple[Place, str]]:
        return [(place, self.ledger[place]) for place in sorted(self.ledger) if place > after][:PAGE]


Record = tuple[Place, str, list[str], set[str]]


def next_to(at: str, to: str) -> str:
    """The neighbour behind which a site lies."""
    step = 1 if SITES.index(to) > SITES.index(at) else -1
    return SITES[SITES.index(at) + step]


def kind_of(name: str) -> str:
    return name.split()[3]


@dataclass
class Site:
    """All that a site's database holds. An envelope is named by origin, incarnation, number, kind and the site it is for.

    `keys`: people that can be read here, by the envelope that brought them; `erased`: those that never can be any more.
    """

    name: str
    out: dict[str, Sender]
    into: dict[str, Receiver]
    effects: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    erased: set[str] = field(default_factory=set)

    def say(self, name: str, *, whole: bool = False) -> None:
        sender = self.out[next_to(self.name, name.split()[-1])]
        sender.append(name)
        sender.whole |= {name} if whole else set()

    def take(self, peer: str, record: Record) -> None:
        """One transaction: what is for others goes on in it. What comes while this ledger is being restored is asked for
        again."""
        if self.out[peer].out.recovering:
            return
        into = self.into[peer]
        for name in into.take(*record):
            kind, to = kind_of(name), name.split()[-1]
            if to != self.name:
                self.say(name, whole=name in into.whole)
            else:
                self.effects.append(name)
            if kind.startswith("erased:"):
                self.forget(kind.removeprefix("erased:"))
            elif kind == "person" and to == self.name and name in into.whole and number_of(name) not in self.erased:
                self.keys.add(number_of(name))

    @property
    def lines(self) -> list[Sender | Receiver]:
        return [*self.out.values(), *self.into.values()]

    def forget(self, person: str) -> set[str]:
        """Takes a person out of the ledgers; the sites that the person was sealed to."""
        self.erased.add(person)
        self.keys.discard(person)
        sites = set()
        for line in self.lines:
            gone = {name for name in line.whole if number_of(name) == person}
            line.whole -= gone
            sites |= {name.split()[-1] for name in gone if isinstance(line, Sender)}
        return sites

    def given(self, peer: str, rows: list[tuple[Place, str]], whole: set[str], have: Place, after: Place) -> set[str]:
        """Rows come back; the people in them who were erased meanwhile, and where they had been sealed to."""
        sender = self.out[peer]
        before = len(sender.ledger)
        sender.given(after, rows, have)
        if len(sender.ledger) == before:
            return set()
        back = {name for _, name in rows if kind_of(name) == "person"}
        known = {name for name in back if number_of(name) in self.erased}
        sender.whole |= (back & whole) - known
        return {name for name in known if name.split()[0] == self.name}


def number_of(name: str) -> str:
    """The person that an envelope carries, by the origin and the number of the envelope."""
    return "-".join(name.split()[:3])


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
        self.erased: dict[str, list[str]] = {site: [] for site in SITES}  # each home's list, beside its database

    @rule(pair=st.sampled_from(PAIRS), n=st.integers(1, 3), person=st.booleans())
    def record(self, pair: tuple[str, str], n: int, person: bool) -> None:
        for _ in range(n):
            self.tell(*pair, "person" if person else "plain")

    def tell(self, origin: str, to: str, kind: str) -> None:
        self.count += 1
        name = f"{origin} {self.incarnation[origin]} {self.count} {kind} {to}"
        self.sites[origin].say(name, whole=kind == "person")
        self.said.add(name)

    @rule(origin=st.sampled_from(SITES), which=st.integers(0, 30))
    def erase(self, origin: str, which: int) -> None:
        """Home erases a person that it knows: its list is written first."""
        site = self.sites[origin]
        mine = sorted(
            number_of(name)
            for sender in site.out.values()
            for name in sender.whole
            if name.split()[0] == origin and number_of(name) not in site.erased
        )
        if mine:
            person = mine[which % len(mine)]
            self.erased[origin].append(person)
            for to in sorted(site.forget(person)):
                self.tell(origin, to, f"erased:{person}")

    @rule(pair=st.sampled_from(PAIRS), n=st.integers(0, 2), person=st.booleans())
    def publish(self, pair: tuple[str, str], n: int, person: bool) -> None:
        """Something is said first: hypothesis leaves some rules out of a schedule, and one in which nobody says anything shows
        nothing."""
        self.record(pair, n, person)
        self.put_on_the_line((pair[0], next_to(*pair)))

    def put_on_the_line(self, way: tuple[str, str]) -> None:
        self.lines[way] += self.sites[way[0]].out[way[1]].records()

    @precondition(lambda self: any(self.lines.values()))
    @rule(which=st.integers(0, 300), keep=st.booleans())
    def deliver(self, which: int, keep: bool) -> None:
        """Any record of any line, so late or so early, and perhaps once more later."""
        self.deliver_on(*self.under_way(which), keep=keep)

    def deliver_on(self, way: tuple[str, str], index: int, *, keep: bool) -> None:
        line = self.lines[way]
        self.sites[way[1]].take(way[0], line[index] if keep else line.pop(index))

    def under_way(self, which: int) -> tuple[tuple[str, str], int]:
        """One of the records that are on a line: which line, and where on it."""
        there = [(way, index) for way in DIRECTIONS for index in range(len(self.lines[way]))]
        return there[which % len(there)]

    @precondition(lambda self: any(self.lines.values()))
    @rule(which=st.integers(0, 300))
    def lose(self, which: int) -> None:
        way, index = self.under_way(which)
        self.lines[way].pop(index)

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
            after, site = sender.want, self.sites[way[0]]
            known = site.given(way[1], receiver.rows_after(after), receiver.whole, receiver.have, after)
            for name in sorted(known):
                self.tell(site.name, name.split()[-1], f"erased:{number_of(name)}")

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

    @precondition(lambda self: self.backups)
    @rule(which=st.integers(0, 30), hears_first=st.booleans())
    def restore(self, which: int, hears_first: bool) -> None:
        """By `lienthong restore`, which lets the site hear before it speaks; or by other means, and nobody knows of it."""
        site = deepcopy(self.backups[which % len(self.backups)])
        self.sites[site.name] = site
        self.incarnation[site.name] += 1
        for line in site.out.values() if hears_first else ():
            line.begin_recovery(line.out.confirmed)
        for person in self.erased[site.name]:  # done again before anybody is served, and told to all
            site.forget(person)
            for to in SITES:
                if to != site.name:
                    self.tell(site.name, to, f"erased:{person}")

    @rule(way=st.sampled_from(DIRECTIONS), lost=st.integers(1, 2), more=st.integers(1, 4))
    def live_on_after_a_loss(self, way: tuple[str, str], lost: int, more: int) -> None:
        """The moment that matters most, which chance alone seldom finds: what a site has said last was heard, the site is set
        back to before that by other means, and says other things before it hears anything."""
        self.back_up(way[0])
        self.say_and_be_heard(way, lost)
        self.restore(len(self.backups) - 1, hears_first=False)
        self.say_and_be_heard(way, more)

    def say_and_be_heard(self, way: tuple[str, str], n: int) -> None:
        self.record(way, n, n > 1)
        self.put_on_the_line(way)
        while self.lines[way]:
            self.deliver_on(way, 0, keep=False)

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
                origin, life, number, *_ = name.split()
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
        gone = {person for people in self.erased.values() for person in people}
        for site in self.sites.values():
            assert not gone & site.keys, site.name
            for line in site.lines:
                assert not gone & {number_of(name) for name in line.whole}, site.name

    def equal(self, way: tuple[str, str]) -> bool:
        sender, receiver = self.sites[way[0]].out[way[1]], self.sites[way[1]].into[way[0]]
        ours = {place: name for place, (name, _) in sender.ledger.items()}
        return ours == receiver.ledger and not sender.out.recovering and not sender.limbo


if SEED:
    seed(int(SEED))(Row)
TestRow = Row.TestCase
TestRow.settings = SCHEDULES
