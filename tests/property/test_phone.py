"""The short way for mobile numbers says what package phonenumbers says."""

import phonenumbers
from hypothesis import example, given
from hypothesis import strategies as st

from shared.contracts.codes import normalise_phone


def by_the_package(text: str) -> str | None:
    parsed = phonenumbers.parse(text, "VN")
    if not phonenumbers.is_valid_number_for_region(parsed, "VN"):
        return None
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


def ours(text: str) -> str | None:
    try:
        return normalise_phone(text)
    except ValueError:
        return None


@given(prefix=st.sampled_from(["0", "+84"]), number=st.integers(10**8, 10**9 - 1))
@example(prefix="0", number=912345678)
@example(prefix="0", number=112345678)
@example(prefix="+84", number=208385555)
def test_plain_numbers_of_nine_digits(prefix: str, number: int) -> None:
    assert ours(f"{prefix}{number}") == by_the_package(f"{prefix}{number}")
