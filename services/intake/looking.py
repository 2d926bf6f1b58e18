"""What a part of a dossier's code may be, so that an index finds it: a code's beginning, an agency, a day, a number. Pure.

`H55.242-261126-0042` is found by what it begins with (`H55.242-26`), by what follows its agency (`261126`, `261126-00`), by
a part of its agency (`242`, `242-2611`) and by its number (`42`, `0042`).
"""

import re
from collections.abc import Iterable
from typing import Final

Range = tuple[str, str]
"""Codes from the first up to the second, which is not in it."""

AT_ONCE: Final = 9
"""So many ranges are read with one statement, each to a whole page at most: what is read stays near to what is shown."""


def beginning(text: str) -> Range:
    """All codes that begin so."""
    return text, text[:-1] + chr(ord(text[-1]) + 1)


def ranges(part: str, agencies: Iterable[str]) -> list[Range]:
    """Where codes with this part lie, in the order of the codes and none in another; `agencies`: whose codes there may be."""
    head, dash, tail = part.partition("-")
    found = [beginning(part)]
    for agency in agencies:
        if not dash and part in agency:
            found.append(beginning(f"{agency}-"))
        else:
            found.append(beginning(f"{agency}-{part}"))
            if dash and agency.endswith(head):
                found.append(beginning(f"{agency}-{tail}"))
    apart: list[Range] = []
    for low, high in sorted(set(found)):
        if not apart or low >= apart[-1][1]:
            apart.append((low, high))
        elif high > apart[-1][1]:
            apart[-1] = (apart[-1][0], high)
    return apart


def number(part: str) -> str | None:
    """The number that this is, as codes have it."""
    return part.zfill(4) if part.isascii() and part.isdigit() and len(part) <= 7 else None


def pattern(part: str) -> str:
    """What codes with this part look like, as a regular expression: they begin with it, have it in their agency, go on with it
    behind their agency, or end with it as their number. What begins like a code begins a code."""
    text = re.escape(part)
    if part[0].isalpha():
        return f"^{text}"
    ending = number(part)
    return f"^[^-]*{text}|^[^-]+-{text}" + (f"|-{ending}$" if ending else "")
