"""A site's keys are changed while it works: nothing that was signed or wrapped before is lost."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared.security.keys import KEPT, load_keys, prepare, ring, stamp, swap
from shared.security.sealing import SealBroken, new_data_key, unwrap, wrap
from shared.security.seals import key_id, sign
from shared.security.tokens import Role, TokenRefused, Tokens

NOW = datetime.now(UTC)
DAY = timedelta(hours=24)


def rotate(folder: Path, overlap: timedelta = DAY, now: datetime = NOW) -> None:
    prepare(folder, ("site", "data"), now)
    swap(folder, now, overlap)


def test_before_the_swap_every_process_reads_what_the_new_keys_will_write(tmp_path: Path) -> None:
    before = load_keys(tmp_path)
    prepare(tmp_path, ("site", "data"), NOW)
    prepared = load_keys(tmp_path)
    swap(tmp_path, NOW, DAY)
    after = load_keys(tmp_path)
    assert prepared.data == before.data != after.data
    assert unwrap(prepared, wrap(after, b"k" * 32)) == b"k" * 32
    assert unwrap(after, wrap(before, b"k" * 32)) == b"k" * 32
    assert after.data_key_id in prepared.data_key_ids
    assert before.data_key_id in after.data_key_ids
    Tokens(prepared, "H55").verify(Tokens(after, "H55").issue(Role.ADMIN))
    assert after.hashing == before.hashing
    with pytest.raises(SealBroken):
        unwrap(before, wrap(after, new_data_key()))


def test_tokens_of_the_old_key_are_accepted_for_the_overlap_and_not_longer(tmp_path: Path) -> None:
    token = Tokens(load_keys(tmp_path), "H55").issue(Role.ADMIN)
    rotate(tmp_path)
    Tokens(load_keys(tmp_path), "H55").verify(token)
    rotate(tmp_path, overlap=timedelta(0))
    Tokens(load_keys(tmp_path), "H55").verify(token)  # its own overlap still runs
    later = tmp_path / "stolen"
    stolen = Tokens(load_keys(later), "H55").issue(Role.ADMIN)
    rotate(later, overlap=timedelta(0))
    with pytest.raises(TokenRefused):
        Tokens(load_keys(later), "H55").verify(stolen)


def test_a_token_of_a_key_that_is_not_known_yet_makes_the_keys_be_read_again(tmp_path: Path) -> None:
    tokens = Tokens(load_keys(tmp_path), "H55", lambda: load_keys(tmp_path))
    rotate(tmp_path)
    assert tokens.verify(Tokens(load_keys(tmp_path), "H55").issue(Role.ADMIN)).role is Role.ADMIN


def test_what_an_old_key_signed_is_verified_for_good(tmp_path: Path) -> None:
    before = load_keys(tmp_path)
    fields = {"site": "H55", "day": "2026-03-02", "dossiers": 1, "events": 1, "root": "00", "previous": None}
    seal = sign(before.signing, fields)
    for turn in range(3):
        rotate(tmp_path, now=NOW - KEPT * 2 + turn * timedelta(days=1))
    rotate(tmp_path)
    after = load_keys(tmp_path)
    public = after.public_key(seal.key_id)
    assert public is not None
    assert seal.signed_by(public)
    assert key_id(before.signing.public_key()) not in {other.id for other in ring(tmp_path)}  # the private one is gone


def test_old_private_keys_are_kept_for_400_days(tmp_path: Path) -> None:
    wrapped = wrap(load_keys(tmp_path), b"k" * 32)
    rotate(tmp_path, now=NOW - KEPT + timedelta(days=1))
    rotate(tmp_path)
    assert unwrap(load_keys(tmp_path), wrapped) == b"k" * 32
    rotate(tmp_path, now=NOW + timedelta(days=2))
    with pytest.raises(SealBroken):
        unwrap(load_keys(tmp_path), wrapped)


def test_a_rotation_that_was_cut_is_done_again(tmp_path: Path) -> None:
    before = load_keys(tmp_path)
    prepare(tmp_path, ("site", "data"), NOW)  # cut here: the new keys were never used
    mark = stamp(tmp_path)
    rotate(tmp_path)
    after = load_keys(tmp_path)
    assert stamp(tmp_path) != mark
    assert unwrap(after, wrap(before, b"k" * 32)) == b"k" * 32
    assert {other.id for other in ring(tmp_path) if other.kind == "data"} == {before.data_key_id}
    assert all(other.until is not None for other in ring(tmp_path))
    assert all(file.stat().st_mode & 0o077 == 0 for file in tmp_path.rglob("*") if file.is_file())
