"""Registers that write an agency's or a procedure's name where its code belongs: the directory knows which is meant.

A name is taken for a code only if it can mean nothing else: of all that are called so, with the same tones or else without
them, one alone was valid on the day. What is not clear goes as it stands and is refused; the report names what it may mean.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from shared.contracts.folding import fold

FIELDS: Final = {"receiving_agency": "agency", "deciding_agency": "agency", "procedure": "procedure"}
_CODE: Final = re.compile(r"[0-9A-Za-z.\-]*[0-9][0-9A-Za-z.\-]*")
# What stands before the name of a place's authority, and says no more than that it is one.
_AUTHORITY: Final = re.compile(r"^(?:uy ban nhan dan|ubnd|bo phan mot cua|bo phan tiep nhan va tra ket qua) +")
_LEVEL: Final = re.compile(r"^(?:xa|phuong|thi tran|dac khu|huyen|quan|thi xa|thanh pho|tinh) +")
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Named:
    code: str
    name: str
    valid_from: date
    valid_to: date | None

    def on(self, day: date) -> bool:
        return self.valid_from <= day and (self.valid_to is None or day <= self.valid_to)

    @property
    def text(self) -> str:
        until = f", until {self.valid_to}" if self.valid_to else ""
        return f"{self.code} ({self.name}{until})"


class Names:
    """The names of a site's agencies and procedures, as `/v1/agencies` and `/v1/procedures` give them."""

    def __init__(self, agencies: Iterable[Mapping[str, Any]], procedures: Iterable[Mapping[str, Any]]) -> None:
        self._named = {
            "agency": [_named(each) for each in agencies],
            "procedure": [_named(each) for each in procedures],
        }
        # From what is written most exactly to what leaves most out: how a cell is read, and by what the names are known.
        self._ways = {
            kind: [
                (_exact, _by(named, _exact)),
                (_folded, _by(named, _folded)),
                # A place without its level; with another level it is another place.
                *([(_folded, _by(named, _place))] if kind == "agency" else []),
            ]
            for kind, named in self._named.items()
        }

    def codes(self, said: Mapping[str, str]) -> dict[str, str]:
        """The codes of those fields that hold a name which means one thing alone on the dossier's first day."""
        day = _day(said.get("submitted_at") or said.get("received_at") or "")
        found = {name: self._code(kind, said[name], day) for name, kind in FIELDS.items() if name in said}
        return {name: code for name, code in found.items() if code is not None}

    def doubt(self, field: str, cell: str) -> str | None:
        """Why a name was not understood, with what it may mean; None for what is no name."""
        kind = FIELDS.get(field)
        if kind is None or _CODE.fullmatch(cell.strip()):
            return None
        meant = self._called(kind, cell)
        if meant:
            return f"this name may mean {', '.join(each.text for each in meant[:_SHOWN])}: write the code."
        words = set(_place(cell).split())
        near = [each for each in self._named[kind] if words and words <= set(fold(each.name).split())]
        like = f"; like it are {', '.join(each.text for each in near[:_SHOWN])}" if near else ""
        return f"no {kind} is called so{like}: write the code."

    def _code(self, kind: str, cell: str, day: date | None) -> str | None:
        if _CODE.fullmatch(cell.strip()):
            return None
        meant = self._called(kind, cell)
        if day is not None and len(meant) > 1:
            meant = [each for each in meant if each.on(day)]
        return meant[0].code if len(meant) == 1 else None

    def _called(self, kind: str, cell: str) -> list[Named]:
        return next((found for way, known in self._ways[kind] if (found := known.get(way(cell)))), [])


def _named(entry: Mapping[str, Any]) -> Named:
    until = entry["valid_to"]
    since = date.fromisoformat(entry["valid_from"])
    return Named(entry["code"], entry["name"], since, until and date.fromisoformat(until))


def _by(named: Iterable[Named], way: Callable[[str], str]) -> dict[str, list[Named]]:
    found: defaultdict[str, list[Named]] = defaultdict(list)
    for each in named:
        found[way(each.name)].append(each)
    return dict(found)


def _exact(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())


def _folded(name: str) -> str:
    return _AUTHORITY.sub("", " ".join(fold(name).split()))


def _place(name: str) -> str:
    """The bare name of a place, whatever it is of."""
    return _LEVEL.sub("", _folded(name))


def _day(instant: str) -> date | None:
    try:
        return date.fromisoformat(instant[:10])
    except ValueError:
        return None
