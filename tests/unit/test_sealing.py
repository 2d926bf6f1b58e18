"""Personal data at rest: opened by the site that it was sealed for, as the person's that it is, or not at all."""

import base64
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.security.keys import SiteKeys, load_keys
from shared.security.sealing import SealBroken, Sealed, new_data_key, seal, unseal, unwrap, wrap

CONTENT: dict[str, Any] = {"name": "Nguyễn Thị Hoa", "phone": "+84912345678", "address": None}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> SiteKeys:
    return load_keys(tmp_path_factory.mktemp("keys"))


def opened(keys: SiteKeys, sealed: Sealed, contact_ref: str = "ref-1") -> dict[str, Any]:
    return unseal(keys, contact_ref, sealed.nonce, sealed.ciphertext, sealed.wrapped)


@given(st.dictionaries(st.text(), st.none() | st.text() | st.booleans() | st.integers(-(2**53), 2**53)))
def test_what_is_sealed_is_opened_as_it_was(content: dict[str, Any]) -> None:
    keys = SiteKeys(signing=None, data=b"d" * 32, hashing=b"h" * 32)  # type: ignore[arg-type]
    assert opened(keys, seal(keys, "ref-1", content, new_data_key())) == content


def test_nothing_of_it_can_be_read(keys: SiteKeys) -> None:
    sealed = seal(keys, "ref-1", CONTENT, new_data_key())
    visible = b"".join(base64.b64decode(text) for text in (sealed.nonce, sealed.ciphertext, sealed.wrapped))
    for part in ("Hoa", "912345678", "Nguy"):
        assert part.encode() not in visible
    assert seal(keys, "ref-1", CONTENT, new_data_key()).ciphertext != sealed.ciphertext


def test_one_persons_data_is_not_anothers(keys: SiteKeys) -> None:
    with pytest.raises(SealBroken):
        opened(keys, seal(keys, "ref-1", CONTENT, new_data_key()), "ref-2")


def test_another_sites_keys_do_not_open_it(keys: SiteKeys, tmp_path: Path) -> None:
    with pytest.raises(SealBroken):
        opened(load_keys(tmp_path), seal(keys, "ref-1", CONTENT, new_data_key()))


@pytest.mark.parametrize("field", ["nonce", "ciphertext", "wrapped"])
@pytest.mark.parametrize("change", ["flipped", "cut", "empty", "no base64"])
def test_what_was_altered_is_not_opened(keys: SiteKeys, field: str, change: str) -> None:
    sealed = seal(keys, "ref-1", CONTENT, new_data_key())
    content = bytearray(base64.b64decode(getattr(sealed, field)))
    content[len(content) // 2] ^= 1
    altered = {
        "flipped": base64.b64encode(content).decode(),
        "cut": base64.b64encode(content[:-3]).decode(),
        "empty": "",
        "no base64": "%%%é",
    }[change]
    parts = {name: getattr(sealed, name) for name in ("nonce", "ciphertext", "wrapped")} | {field: altered}
    with pytest.raises(SealBroken):
        unseal(keys, "ref-1", **parts)


def test_the_same_data_key_opens_what_was_sealed_later(keys: SiteKeys) -> None:
    data_key = new_data_key()
    first = seal(keys, "ref-1", CONTENT, data_key)
    later = seal(keys, "ref-1", {"name": "Hoa"}, unwrap(keys, first.wrapped))
    assert unseal(keys, "ref-1", later.nonce, later.ciphertext, first.wrapped) == {"name": "Hoa"}
    assert unwrap(keys, wrap(keys, data_key)) == data_key


def test_the_hashes_and_pins_are_the_sites_own(keys: SiteKeys, tmp_path: Path) -> None:
    other = load_keys(tmp_path)
    assert keys.keyed_hash("phone", "+84912345678") == keys.keyed_hash("phone", "+84912345678")
    assert keys.keyed_hash("phone", "+84912345678") != keys.keyed_hash("citizen", "+84912345678")
    assert keys.keyed_hash("phone", "+84912345678") != other.keyed_hash("phone", "+84912345678")
    pins = [keys.track_pin(f"H55.242-261010-{n:04}") for n in range(200)]
    assert all(len(pin) == 6 and pin.isdigit() for pin in pins)
    assert len(set(pins)) > 190
    assert keys.data_key_id != other.data_key_id
