"""One direction of a link: what its sender may publish, what its receiver takes, and how both agree again after anything.

Pure. A direction is a list of envelopes numbered from 1 within an epoch. Over each position runs a chain, a hash over all
digests up to there, through the epochs: two ledgers whose chains are equal at a position are equal up to it.

The receiver takes a record only if it continues its own chain. What it has, and the chain there, it tells the sender in
every control record. The sender finds that position in its own ledger:

    the same chain           it is confirmed up to there; what lies behind it and was sent is sent again when asked for
    no such place, or        this ledger was restored from an older backup: nothing is published any more, the peer gives
    another chain            back what lies behind the last place that both know, and all that was numbered here since
                             then goes on in a new epoch, in its order, so that no number is issued twice

Envelopes have an id of their own, and the receiver's ledger knows it: what comes a second time under another number takes
its number and has no effect.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal, NamedTuple

BATCH: Final = 256  # envelopes of one record, under one signature
BEGIN: Final = ""  # the chain before the first envelope


class Place(NamedTuple):
    """A position in a ledger: number 0 is the one before an epoch's first."""

    epoch: int
    number: int


START: Final = Place(1, 0)


def chained(chain: str, digest: str) -> str:
    """The chain after one more envelope: 64 hex digits."""
    return sha256(f"{chain}{digest}".encode()).hexdigest()


def chain_over(chain: str, digests: Sequence[str]) -> list[str]:
    """The chain after each of the digests."""
    chains = []
    for digest in digests:
        chain = chained(chain, digest)
        chains.append(chain)
    return chains


# ----------------------------------------------------------------------------------------------------- receiver


@dataclass(frozen=True, slots=True)
class Seen:
    """How far a receiver has come, and its chain there. `asks`: it knows, or fears, that it lacks what lies behind."""

    place: Place
    chain: str
    asks: bool = False


Verdict = Literal["new", "duplicate", "gap", "fork"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a receiver does with a record: of a new one it takes the envelopes from index `skip` on."""

    verdict: Verdict
    skip: int = 0


def judge(have: Place, chain: str, first: Place, before: str, digests: Sequence[str]) -> Judgement:
    """A record with these digests from `first` on, `before` being the sender's chain before it, at a receiver that has
    `have` with `chain` there."""
    last = Place(first.epoch, first.number + len(digests) - 1)
    if first.epoch < have.epoch:
        return Judgement("duplicate")
    if first.epoch > have.epoch:
        # A new epoch continues the chain of the one before: only what is complete here may be left behind.
        return Judgement("new" if first.number == 1 and before == chain else "gap")
    if first.number > have.number + 1:
        return Judgement("gap")
    skip = have.number + 1 - first.number
    if last.number < have.number:
        return Judgement("duplicate")
    here = before if skip == 0 else chain_over(before, digests[:skip])[-1]
    if here != chain:
        return Judgement("fork")
    return Judgement("new", skip) if skip < len(digests) else Judgement("duplicate")


# ------------------------------------------------------------------------------------------------------- sender


@dataclass(slots=True)
class Outgoing:
    """A direction as its sender keeps it, beside its ledger.

    `last` is the newest place and `chain` the chain there; `sent` how far it was published, `confirmed` how far the
    receiver is known to be. `recovering`: the ledger is being completed; nothing is numbered or published.
    """

    last: Place = START
    chain: str = BEGIN
    sent: Place = START
    confirmed: Place = START
    recovering: bool = False

    def number(self, digests: Sequence[str]) -> list[tuple[Place, str]]:
        """Places and chains for new envelopes. While recovering there are none: they wait in limbo."""
        if self.recovering:
            raise ValueError("a ledger that is being restored numbers nothing")
        numbered = []
        for digest in digests:
            self.last = Place(self.last.epoch, self.last.number + 1)
            self.chain = chained(self.chain, digest)
            numbered.append((self.last, self.chain))
        return numbered

    def heard(self, seen: Seen, ours: str | None) -> Literal["fine", "resend", "recover"]:
        """What the receiver says; `ours` is this ledger's chain at its place, None when there is no such place."""
        if self.recovering:
            return "fine"
        if ours != seen.chain:
            return "recover"
        self.confirmed = seen.place
        if self.sent < seen.place:
            self.sent = seen.place  # published before a restore that lost nothing else
        if seen.asks and seen.place < self.sent:
            self.sent = seen.place
            return "resend"
        return "fine"

    def renew(self, at: Place, chain: str) -> None:
        """The ledger is complete again up to the receiver's place: a new epoch begins after it."""
        epoch = max(at.epoch, self.last.epoch) + 1
        self.last, self.chain, self.recovering = Place(epoch, 0), chain, False
        self.sent = self.confirmed = at


def next_asked(seen: Place, peer_last: Place) -> bool:
    """Whether a receiver lacks something, by what the sender says it has numbered and published."""
    return seen < peer_last and not (peer_last.number == 0 and seen.epoch == peer_last.epoch - 1)
