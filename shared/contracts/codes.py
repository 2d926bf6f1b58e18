"""Codes, numbers and instants that cross between services and between sites.

Every function here is pure and raises `ValueError` with a sentence that never repeats the value it was
given: a telephone number or a name must not end in a log because it was mistyped.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, date, datetime
from functools import cache, lru_cache
from threading import Lock
from time import time_ns
from typing import Annotated, Any, Final, NamedTuple
from unicodedata import category
from uuid import UUID
from zoneinfo import ZoneInfo

import phonenumbers
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, PlainSerializer, WithJsonSchema

LOCAL_ZONE: Final = ZoneInfo("Asia/Ho_Chi_Minh")

_NEW_AGENCY: Final = re.compile(r"[A-Z][0-9]{2}(?:\.[0-9]{1,5}){0,4}")
_OLD_AGENCY: Final = re.compile(r"[0-9]{3}\.[0-9]{2}\.[0-9]{2}\.[A-Z][0-9]{2}")
_DOSSIER: Final = re.compile(rf"({_OLD_AGENCY.pattern}|{_NEW_AGENCY.pattern})-([0-9]{{6}}|[0-9]{{8}})-([0-9]{{4,7}})")
_INSTANT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_PLAIN_PHONE: Final = re.compile(r"(?:0|\+84)([1-9][0-9]{8})")
_PHONE: Final = re.compile(r"\+?[0-9 ().-]{8,24}")
_MOBILE: Final = re.compile(r"\+84[35789][0-9]{8}")


# ------------------------------------------------------------------------------------------------ agencies


@lru_cache(maxsize=8192)
def normalise_agency(code: str) -> str:
    """The agency's code in the new form: `000.00.15.H55` and `H55.15` both answer `H55.15`.

    The old form reads right to left and fills unused levels with zeros; its zero groups are dropped and the
    rest is reversed (both forms stand in one URL of the national portal).
    """
    if _NEW_AGENCY.fullmatch(code):
        return code
    if _OLD_AGENCY.fullmatch(code):
        groups = [group for group in code.split(".") if group.strip("0")]
        return ".".join(reversed(groups))
    raise ValueError("an agency code looks like H55, H55.242 or 000.00.15.H55")


# ------------------------------------------------------------------------------------------------ dossiers


class DossierCode(NamedTuple):
    """What a dossier code says. `agency` is in the new form; `digits` is the width the number was written in."""

    agency: str
    date: date
    number: int
    digits: int


def parse_dossier_code(code: str) -> DossierCode:
    """Read `H55.242-261010-0001` (circular of 2018) or `H55.242-20261010-0000001` (seen in 2026).

    The date must be one of the calendar. A six-digit date belongs to this century.
    """
    matched = _DOSSIER.fullmatch(code)
    if matched is None:
        raise ValueError("a dossier code looks like H55.242-261010-0001")
    agency, day, number = matched.groups()
    full = day if len(day) == 8 else f"20{day}"
    try:
        issued = date(int(full[:4]), int(full[4:6]), int(full[6:]))
    except ValueError:
        raise ValueError("the date in the dossier code is not a day of the calendar") from None
    return DossierCode(normalise_agency(agency), issued, int(number), len(number))


def format_dossier_code(agency: str, day: date, number: int) -> str:
    """The code that a receiving site issues: four digits, widening past 9999 to at most seven."""
    if not 1 <= number <= 9_999_999:
        raise ValueError("a dossier's number of the day is 1 to 9999999")
    return f"{normalise_agency(agency)}-{day:%y%m%d}-{number:04d}"


@lru_cache(maxsize=4096)
def check_dossier_code(code: str) -> str:
    """The code unchanged (it never changes when the dossier moves), or ValueError."""
    parse_dossier_code(code)
    return code


# -------------------------------------------------------------------------------------------------- phones


@cache
def _mobile_pattern() -> re.Pattern[str]:
    """The package's own pattern of Vietnamese mobile numbers: most numbers are one, and it costs a hundredth of a parse."""
    metadata: Any = phonenumbers.PhoneMetadata.metadata_for_region("VN")
    return re.compile(metadata.mobile.national_number_pattern, re.ASCII)


def normalise_phone(number: str) -> str:
    """`0912345678` or `+84 912 345 678` as `+84912345678`; landlines too.

    Raises ValueError for whatever package phonenumbers does not know as a valid Vietnamese number.
    """
    text = number.strip()
    if (plain := _PLAIN_PHONE.fullmatch(text)) and _mobile_pattern().fullmatch(plain[1]):
        return f"+84{plain[1]}"
    if _PHONE.fullmatch(text):
        try:
            parsed = phonenumbers.parse(text, "VN")
        except phonenumbers.NumberParseException:
            parsed = None
        if parsed is not None and phonenumbers.is_valid_number_for_region(parsed, "VN"):
            return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    raise ValueError("this is no valid Vietnamese telephone number")


def local_phone(number: str) -> str:
    """`+84912345678` as people write it at home: `0912345678`. Takes a normalised number."""
    if not number.startswith("+84"):
        raise ValueError("a normalised Vietnamese number begins with +84")
    return f"0{number[3:]}"


def is_mobile(number: str) -> bool:
    """Whether a normalised number can take an SMS: `+84` followed by 3, 5, 7, 8 or 9 and eight digits."""
    return _MOBILE.fullmatch(number) is not None


# ------------------------------------------------------------------------------------------------ instants


def parse_instant(text: str) -> datetime:
    """An RFC 3339 instant with an offset, in UTC. Without an offset, or off the calendar: ValueError."""
    if not _INSTANT.fullmatch(text):
        raise ValueError("an instant is RFC 3339 with an offset, like 2026-10-10T08:00:00+07:00")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("this instant is not on the calendar") from None


def format_instant(instant: datetime) -> str:
    """An aware instant in UTC, as it stands in events: `2026-10-10T01:00:00Z`."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def local_day(instant: datetime) -> date:
    """The day that a person in Việt Nam lives in at this instant."""
    return instant.astimezone(LOCAL_ZONE).date()


# ------------------------------------------------------------------------------------------------------ ids

_last_tick = 0
_tick_lock = Lock()


def uuid7() -> UUID:
    """A version 7 UUID (RFC 9562), greater than every one that this process has made before.

    The 12 bits after the millisecond count its 4096ths (RFC 9562, 6.2, method 3), pushed forward by one when
    the clock stands or goes back, so that ids sort in the order in which they were made.
    """
    global _last_tick
    tick = time_ns() * 4096 // 1_000_000
    with _tick_lock:
        if tick <= _last_tick:
            tick = _last_tick + 1
        _last_tick = tick
    milliseconds, fraction = tick >> 12, tick & 0xFFF
    noise = int.from_bytes(os.urandom(8)) & 0x3FFF_FFFF_FFFF_FFFF
    return UUID(int=milliseconds << 80 | 0x7000 << 64 | fraction << 64 | 0x8000_0000_0000_0000 | noise)


# ------------------------------------------------------------------------- the same rules as pydantic types


def _instant_from_text(value: object) -> object:
    if isinstance(value, str):
        return parse_instant(value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    raise ValueError("an instant is RFC 3339 text with an offset, like 2026-10-10T08:00:00+07:00")


def _plain_text(value: str) -> str:
    text = value.strip()
    if not text:
        raise ValueError("this text is empty")
    if not text.isprintable() and any(category(character) == "Cc" for character in text):
        raise ValueError("this text holds control characters")
    return text


def _at_most(limit: int) -> AfterValidator:
    def check(value: str) -> str:
        text = _plain_text(value)
        if len(text) > limit:
            raise ValueError(f"this text is longer than {limit} characters")
        return text

    return AfterValidator(check)


AgencyCode = Annotated[
    str,
    AfterValidator(normalise_agency),
    WithJsonSchema({"type": "string", "pattern": f"^(?:{_NEW_AGENCY.pattern}|{_OLD_AGENCY.pattern})$"}),
]
"""An agency code, taken in both forms and kept in the new one."""

DossierCodeText = Annotated[
    str,
    AfterValidator(check_dossier_code),
    WithJsonSchema({"type": "string", "pattern": f"^{_DOSSIER.pattern}$"}),
]
"""A dossier code with a real date, kept as it was written."""

Phone = Annotated[str, AfterValidator(normalise_phone), WithJsonSchema({"type": "string"})]
"""A valid Vietnamese number, kept as +84…"""

Instant = Annotated[
    AwareDatetime,
    BeforeValidator(_instant_from_text),
    PlainSerializer(format_instant, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""An RFC 3339 instant with an offset, kept in UTC."""

_NOT_CONTROL: Final = r"[^\u0000-\u001f\u007f-\u009f]"
_SEEN: Final = r"[^\s\u0000-\u001f\u007f-\u009f]"
_TEXT_SCHEMA: Final = {"type": "string", "minLength": 1, "pattern": f"^{_NOT_CONTROL}*{_SEEN}{_NOT_CONTROL}*$"}

Name = Annotated[str, _at_most(200), WithJsonSchema({**_TEXT_SCHEMA, "maxLength": 200})]
"""A name: 1 to 200 characters after trimming, no control characters."""

Text = Annotated[str, _at_most(2000), WithJsonSchema({**_TEXT_SCHEMA, "maxLength": 2000})]
"""Other text: 1 to 2,000 characters after trimming, no control characters."""
