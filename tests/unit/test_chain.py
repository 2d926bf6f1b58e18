"""The chain and the tree under a day's seal."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.codes import LOCAL_ZONE, uuid7
from shared.contracts.envelope import Envelope
from shared.store.chain import leaf, link, proof, root, root_by

AT = datetime(2026, 3, 2, 1, 30, tzinfo=UTC)


def event(**changed: Any) -> Envelope:
    one = Envelope(
        topic="lienthong.dossier.v1",
        id=uuid7(),
        source="/sites/H55/intake",
        type="dossier.started",
        subject="H55.242-260302-0001",
        time=AT,
        recorded=AT,
        sequence=2,
        mode="live",
        data=b'{"state":4}',
    )
    return replace(one, **changed)


@pytest.mark.parametrize(
    "changed",
    [
        {"id": uuid7()},
        {"source": "/sites/H55/routing"},
        {"type": "dossier.resolved"},
        {"subject": "H55.242-260302-0002"},
        {"time": AT + timedelta(microseconds=1)},
        {"recorded": AT - timedelta(days=1)},
        {"sequence": 3},
        {"mode": "history"},
        {"data": b'{"state":9}'},
        {"data": None},
    ],
)
def test_whatever_is_changed_in_an_event_changes_its_hash(changed: dict[str, Any]) -> None:
    one = event()
    assert link("", one) == link("", replace(one, time=one.time.astimezone(LOCAL_ZONE)))
    assert link("", replace(one, **changed)) != link("", one)
    assert link("00", one) != link("", one)


@given(st.integers(1, 40), st.data())
def test_every_leaf_is_proven_by_its_own_proof_and_by_no_other(size: int, data: st.DataObject) -> None:
    leaves = [leaf(f"H55-260302-{n:04}", n, f"{n:064x}") for n in range(size)]
    index, other = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1))
    assert root_by(leaves[index], proof(leaves, index)) == root(leaves)
    if other != index:
        assert root_by(leaves[other], proof(leaves, index)) != root(leaves)
    assert root([*leaves, leaves[-1]]) != root(leaves)


def test_the_root_of_nothing_is_no_root_of_something() -> None:
    assert root([]) == sha256(b"").digest()
