"""What an SMS says and costs, against the standard's limits and a counter of another make."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notify.text import encoding_of, message, render, without_tones

BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENDED = "\f^{}\\[~]|€"
VIETNAMESE = "Hồ sơ của ông bà đã được tiếp nhận ngày Thứ Hai, đường Điện Biên Phủ"


def parts_by_filling(text: str) -> tuple[str, int, int]:
    """An independent counter: encodes, then fills parts, stepping back where a pair would be split."""
    if all(c in BASIC or c in EXTENDED for c in text):
        units = b"".join(b"\x1b" + bytes([1]) if c in EXTENDED else bytes([0]) for c in text)
        single, room, heads = 160, 153, {0x1B}
        stream = list(units)
        kind = "gsm7"
    else:
        raw = text.encode("utf-16-be")
        stream = [int.from_bytes(raw[i : i + 2]) for i in range(0, len(raw), 2)]
        single, room, heads, kind = 70, 67, set(range(0xD800, 0xDC00)), "ucs2"
    if len(stream) <= single:
        return kind, 1, len(stream)
    parts, at = 0, 0
    while at < len(stream):
        end = min(at + room, len(stream))
        if end < len(stream) and stream[end - 1] in heads:
            end -= 1
        parts, at = parts + 1, end
    return kind, parts, len(stream)


@pytest.mark.parametrize(
    ("text", "encoding", "parts", "characters"),
    [
        ("a" * 160, "gsm7", 1, 160),
        ("a" * 161, "gsm7", 2, 161),
        ("a" * 306, "gsm7", 2, 306),
        ("a" * 307, "gsm7", 3, 307),
        ("€" * 80, "gsm7", 1, 160),
        ("€" * 81, "gsm7", 2, 162),
        ("a" * 152 + "€" * 77, "gsm7", 3, 306),  # the pair at the end of the first part is not split
        ("đ" * 70, "ucs2", 1, 70),
        ("đ" * 71, "ucs2", 2, 71),
        ("đ" * 134, "ucs2", 2, 134),
        ("đ" * 135, "ucs2", 3, 135),
        ("😀" * 35, "ucs2", 1, 70),
        ("😀" * 66, "ucs2", 2, 132),
        ("😀" * 67, "ucs2", 3, 134),  # 33 in a part
        ("", "gsm7", 1, 0),
    ],
)
def test_limits(text: str, encoding: str, parts: int, characters: int) -> None:
    measured = message(text)
    assert (measured.encoding, measured.parts, measured.characters) == (encoding, parts, characters)


@given(st.text(st.sampled_from(BASIC + EXTENDED), max_size=700))
def test_gsm_as_another_counter_counts(text: str) -> None:
    measured = message(text)
    assert (measured.encoding, measured.parts, measured.characters) == parts_by_filling(text)


@given(st.text(st.sampled_from("aế€😀𠀀đ "), max_size=400))
def test_ucs2_as_another_counter_counts(text: str) -> None:
    measured = message(text)
    assert (measured.encoding, measured.parts, measured.characters) == parts_by_filling(
        unicodedata.normalize("NFC", text)
    )


@given(st.text(max_size=300))
def test_the_text_is_nfc_and_its_tones_are_kept_by_default(text: str) -> None:
    assert message(text).text == unicodedata.normalize("NFC", text)


@given(st.text(max_size=300), st.integers(1, 4))
def test_tones_are_kept_within_the_parts_or_dropped(text: str, parts: int) -> None:
    kept, dropped, chosen = message(text), message(text, "drop"), message(text, "keep_within", parts)
    assert chosen == (kept if kept.parts <= parts else dropped)


def test_decomposed_vietnamese_counts_as_composed() -> None:
    assert message(unicodedata.normalize("NFD", VIETNAMESE)) == message(VIETNAMESE)


def test_without_tones_every_vietnamese_letter_is_plain() -> None:
    letters = "aăâbcdđeêghiklmnoôơpqrstuưvxy"
    marked = {
        unicodedata.normalize("NFC", each + mark) for each in letters for mark in "\u0300\u0301\u0303\u0309\u0323"
    }
    for text in (*marked, *(each.upper() for each in marked), letters, letters.upper()):
        assert without_tones(text).isascii(), text
        assert without_tones(unicodedata.normalize("NFD", text)) == without_tones(text)
    assert without_tones(VIETNAMESE) == "Ho so cua ong ba da duoc tiep nhan ngay Thu Hai, duong Dien Bien Phu"
    assert encoding_of(without_tones("“Hồ sơ” – lý do…")) == "gsm7"


def test_placeholders() -> None:
    values = {"code": "H55-261012-0001", "due": "-"}
    assert render("{code}: {due} {pin} {}", values.get) == "H55-261012-0001: - {pin} {}"
