"""Both ledgers of a link compared, day by day: which days are unlike, and which envelopes they are unlike in. Pure.

Each side tells the other one digest a day and direction, and the places of both ledgers that it was made at. Where those are
the other's own places the digests must be equal. Of a day on which they are not, both tell digests of parts of it, down to
single envelopes on any day of a usual size, and each finds by its own where they part.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Literal

from services.routing.link import Place

MOST_PARTS: Final = 2000
MOST_NAMED: Final = 100
UNLIKE: Final = "digest-differs"

Ledger = Literal["out", "in"]
DayDigests = Mapping[tuple[date, Ledger], str]


@dataclass(frozen=True, slots=True)
class Part:
    """So many envelopes in a row of one day, from `first` to `last` in an epoch, under one digest."""

    first: Place
    last: int
    digest: str

    @property
    def name(self) -> str:
        """As an operator reads it: 1/257, or 1/257-260."""
        epoch, number = self.first
        return f"{epoch}/{number}" if number == self.last else f"{epoch}/{number}-{self.last}"

    def to_json(self) -> list[Any]:
        return [*self.first, self.last, self.digest]


def part_of(value: Sequence[Any]) -> Part:
    """Raises ValueError, TypeError."""
    epoch, number, last, digest = value
    return Part(Place(int(epoch), int(number)), int(last), str(digest))


def size_for(envelopes: int) -> int:
    """How many envelopes a part has, so that a day has not too many parts."""
    return max(1, -(-envelopes // MOST_PARTS))


def other(ledger: Ledger) -> Ledger:
    """The peer's outgoing ledger is our incoming one."""
    return "in" if ledger == "out" else "out"


def unlike_days(ours: DayDigests, theirs: DayDigests) -> list[tuple[date, Ledger]]:
    """The days and ledgers, as we see them, in which the sides do not have the same; theirs likewise as we see them."""
    return sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))


def unlike_parts(ours: Iterable[Part], theirs: Iterable[Part]) -> list[str]:
    """Where two ledgers of a day part, by the names of the parts; both were cut alike."""
    mine, yours = ({part.first: part for part in parts} for parts in (ours, theirs))
    found = [
        (mine.get(place) or yours[place]).name
        for place in sorted(mine.keys() | yours.keys())
        if mine.get(place) != yours.get(place)
    ]
    return found[:MOST_NAMED]
