"""Where codes with a part lie: every code that the ranges hold has the part, and none that should be there is left out."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.intake.looking import number, ranges

AGENCIES = ("H55", "H55.2", "H55.24", "H55.241", "H55.242", "H07.242")
CODES = [f"{agency}-{day}-{n:04}" for agency in AGENCIES for day in ("250806", "261126") for n in (1, 42, 2611)]


def lies(code: str, part: str) -> bool:
    return any(low <= code < high for low, high in ranges(part, AGENCIES))


@given(st.sampled_from(CODES), st.data())
def test_what_a_code_begins_with_and_what_follows_its_agency_finds_it(code: str, data: st.DataObject) -> None:
    agency, _, rest = code.partition("-")
    length = data.draw(st.integers(1, len(code)))
    for part in (
        code[:length],
        rest[: min(length, len(rest))],
        agency[-min(length, len(agency)) :],
        f"{agency[-3:]}-{rest[:4]}",
    ):
        assert lies(code, part), part


@given(st.sampled_from(CODES), st.text("0123456789.-H", min_size=1, max_size=14))
def test_only_codes_with_the_part_are_in_the_ranges(code: str, part: str) -> None:
    assert not lies(code, part) or part in code


@given(st.text("0123456789.-H", min_size=1, max_size=14))
def test_ranges_are_in_order_and_apart(part: str) -> None:
    found = ranges(part, AGENCIES)
    assert all(low < high for low, high in found)
    assert all(one[1] <= next_one[0] for one, next_one in pairwise(found))


def test_a_number_is_written_as_codes_have_it() -> None:
    assert [number(part) for part in ("42", "0042", "12345", "261126-0042", "H55", "12345678", "٣")] == [
        "0042", "0042", "12345", None, None, None, None,
    ]  # fmt: skip
