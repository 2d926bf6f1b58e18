"""What an SMS says and what it costs: rendering, tones, encoding and parts (3GPP TS 23.038 and 23.040)."""

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

Encoding = Literal["gsm7", "ucs2"]
Tones = Literal["keep", "drop", "keep_within"]

# 3GPP TS 23.038, 6.2.1: the default alphabet, and the table that is reached by an escape.
_BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION: Final = frozenset("\f^{}\\[~]|€")
_GSM: Final = _BASIC | _EXTENSION

# Units in a message of one part, and in each part of a longer one (six octets then carry the concatenation header).
_SINGLE: Final[dict[Encoding, int]] = {"gsm7": 160, "ucs2": 70}
_PART: Final[dict[Encoding, int]] = {"gsm7": 153, "ucs2": 67}

_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_MARKS: Final = range(0x300, 0x370)
_LATIN: Final = (*range(0xC0, 0x250), *range(0x1E00, 0x1F00))


def _bare_letter(letter: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", letter) if ord(c) not in _MARKS)


# What has no decomposition; and what a word processor makes of plain punctuation.
_PLAIN: Final = {
    "đ": "d",
    "Đ": "D",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
    "–": "-",
    "—": "-",
    "…": "...",
    "\u00a0": " ",
}
_BARE: Final[dict[int, str | None]] = {
    **{code: _bare_letter(chr(code)) for code in _LATIN},
    **dict.fromkeys(_MARKS),
    **{ord(letter): plain for letter, plain in _PLAIN.items()},
}


@dataclass(frozen=True, slots=True)
class Message:
    """A text as it is sent, and its cost. `characters` counts what a part is filled with: an extension character of
    GSM-7, and in UCS-2 a character outside the basic plane, count two."""

    text: str
    encoding: Encoding
    parts: int
    characters: int


def render(template: str, value: Callable[[str], str | None]) -> str:
    """The template with its placeholders filled; one that has no value stays as it stands."""
    return _PLACEHOLDER.sub(lambda match: match[0] if (found := value(match[1])) is None else found, template)


def message(text: str, tones: Tones = "keep", parts: int = 1) -> Message:
    """The text after NFC, with or without tones. `keep_within`: with them if it stays within `parts`, else without."""
    composed = unicodedata.normalize("NFC", text)
    if tones == "drop":
        return _measured(without_tones(composed))
    kept = _measured(composed)
    if tones == "keep_within" and kept.parts > parts:
        return _measured(without_tones(composed))
    return kept


def without_tones(text: str) -> str:
    """Vietnamese in plain letters (đ is d): most texts are then GSM-7, and one part."""
    return unicodedata.normalize("NFC", text).translate(_BARE)


def encoding_of(text: str) -> Encoding:
    return "gsm7" if _GSM.issuperset(text) else "ucs2"


def _measured(text: str) -> Message:
    encoding = encoding_of(text)
    if encoding == "gsm7":
        extended = 0 if _EXTENSION.isdisjoint(text) else sum(1 for c in text if c in _EXTENSION)
        characters = len(text) + extended
    else:
        characters = len(text.encode("utf-16-le", "surrogatepass")) // 2
    return Message(text, encoding, _parts(text, encoding, characters), characters)


def _parts(text: str, encoding: Encoding, characters: int) -> int:
    if characters <= _SINGLE[encoding]:
        return 1
    if characters == len(text):
        return -(-characters // _PART[encoding])
    return _parts_unsplit(_costs(text, encoding), _PART[encoding])


def _costs(text: str, encoding: Encoding) -> Iterable[int]:
    if encoding == "gsm7":
        return (2 if c in _EXTENSION else 1 for c in text)
    return (2 if ord(c) > 0xFFFF else 1 for c in text)


def _parts_unsplit(costs: Iterable[int], room: int) -> int:
    """Neither an escape pair nor a surrogate pair is split: what no longer fits begins the next part."""
    parts, used = 1, 0
    for cost in costs:
        if used + cost > room:
            parts, used = parts + 1, 0
        used += cost
    return parts
