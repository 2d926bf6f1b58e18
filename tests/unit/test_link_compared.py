"""Two ledgers of a link that should be equal: which day is unlike, and which envelopes."""

from datetime import date

import pytest

from services.routing.compared import Part, other, part_of, size_for, unlike_days, unlike_parts
from services.routing.link import Place

MONDAY, TUESDAY = date(2026, 11, 23), date(2026, 11, 24)


def parts(digests: str, *, size: int = 1) -> list[Part]:
    """Of a ledger in epoch 2, one letter an envelope."""
    starts = range(0, len(digests), size)
    return [Part(Place(2, at + 1), min(at + size, len(digests)), digests[at : at + size]) for at in starts]


def test_days_are_compared_in_both_directions() -> None:
    ours = {(MONDAY, "out"): "a", (MONDAY, "in"): "b", (TUESDAY, "out"): "c"}
    assert unlike_days(ours, dict(ours)) == []  # type: ignore[arg-type]
    theirs = {(MONDAY, "out"): "a", (MONDAY, "in"): "x", (TUESDAY, "in"): "d"}
    assert unlike_days(ours, theirs) == [(MONDAY, "in"), (TUESDAY, "in"), (TUESDAY, "out")]  # type: ignore[arg-type]
    assert (other("in"), other("out")) == ("out", "in")


@pytest.mark.parametrize(
    ("ours", "theirs", "named"),
    [
        ("abcd", "abcd", []),
        ("abcd", "abxd", ["2/3"]),  # changed
        ("abcd", "abc", ["2/4"]),  # taken out at one side
        ("", "ab", ["2/1", "2/2"]),
    ],
)
def test_an_envelope_is_named_whoever_has_another_one(ours: str, theirs: str, named: list[str]) -> None:
    assert unlike_parts(parts(ours), parts(theirs)) == unlike_parts(parts(theirs), parts(ours)) == named


def test_of_a_large_day_a_few_are_named_together() -> None:
    assert (size_for(0), size_for(2000), size_for(2001), size_for(100_000)) == (1, 1, 2, 50)
    assert unlike_parts(parts("abcdef", size=2), parts("abcxef", size=2)) == ["2/3-4"]


def test_a_part_crosses_as_it_is() -> None:
    [part] = parts("abc", size=3)
    assert part_of(part.to_json()) == part
    with pytest.raises(ValueError, match="unpack"):
        part_of([1, 2])
