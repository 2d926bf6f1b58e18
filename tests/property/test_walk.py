"""Whatever is done with transfers, in whatever order: one outcome each, one step after the other, nothing loops."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from hypothesis import example, given
from hypothesis import strategies as st

from services.routing.transfer import ENDED, OPEN, NotAllowed, Refusal, Walk, allowed, next_steps
from shared.contracts.codes import uuid7
from shared.contracts.events import RouteStep, ToLevel, ToSector, TransferCompleted, TransferRequested
from shared.directory.directory import Directory
from shared.directory.merge import merge
from shared.directory.reading import parse_bundle

DIRECTORY = Directory(
    merge(
        None,
        parse_bundle(
            """
site: {code: H55, name: T}
agencies:
  - {code: H55, name: T, level: province}
  - {code: H55.1, name: A, level: sector, parent: H55, sector: police}
  - {code: H55.2, name: B, level: sector, parent: H55, sector: tax}
  - {code: H55.3, name: C, level: commune, parent: H55}
  - {code: H55.4, name: D, level: district, parent: H55, valid_to: 2025-06-30, successor: H55.3}
  - {code: H55.5, name: E, level: district, parent: H55, valid_to: 2025-06-30}
"""
        ),
    )[0]
)
NOW = datetime(2026, 10, 12, 2, 30, tzinfo=UTC)

targets: st.SearchStrategy[str | ToLevel | ToSector] = st.sampled_from(
    ["H55.1", "H55.2", "H55.4", "H55.5", ToLevel(level="province"), ToSector(sector="customs"), ToSector(sector="tax")]
)
routes = st.lists(st.tuples(st.integers(1, 3), targets), min_size=1, max_size=5)
acts = st.lists(
    st.tuples(
        st.sampled_from(
            ["accept", "refuse", "complete", "deny", "return", "recall", "reroute", "request-again", "stop", "undo"]
        ),
        st.integers(0, 30),
        st.sampled_from(["H55.1", "H55.2", "H55.4", "H55.5", "H55.9"]),
    ),
    max_size=40,
)


def act(walk: Walk, name: str, which: UUID, to: str) -> None:
    match name:
        case "accept":
            walk.accept(which, NOW)
        case "refuse":
            walk.refuse(which, "lý do", NOW)
        case "complete" | "deny":
            walk.complete(which, "granted" if name == "complete" else "denied", DIRECTORY, NOW)
        case "return":
            walk.send_back(which, "lý do", "supplement", NOW)
        case "recall":
            walk.recall(which, "lý do", NOW)
        case "reroute":
            walk.reroute(which, to, "lý do", uuid7(), DIRECTORY, NOW)
        case "request-again":
            walk.request_again(which, uuid7(), DIRECTORY, NOW)
        case "stop":
            walk.state = 8
            walk.recall_open("dừng", NOW)
        case "undo":
            walk.state = 2
            walk.undo("nhầm", NOW)


def refusal_of(walk: Walk, name: str, which: UUID, to: str) -> Refusal | None:
    try:
        act(walk, name, which, to)
    except Refusal as refusal:
        return refusal
    return None


def completed_legs(walk: Walk) -> set[UUID]:
    return {each.leg for each in walk.transfers.values() if each.state == "completed"}


def same_again(walk: Walk, steps: tuple[RouteStep, ...]) -> None:
    """A site that was restored hears its own events from its neighbour: they make the same of it, and nothing goes on twice."""
    again = Walk(walk.dossier, walk.agency, 4, None)
    again.began(steps, uuid7(), uuid7())
    for at, event in walk.events:
        again.follow(event, at)
    again.began(walk.route, walk.started, walk.entered)
    again.state = walk.state
    again.resume(DIRECTORY, NOW)
    assert again.events == []
    assert {k: replace(t, version=1) for k, t in again.transfers.items()} == {
        k: replace(t, version=1) for k, t in walk.transfers.items()
    }


# Two legs wait alike for one agency, and the second is asked for again.
@example([(1, "H55.1")] * 2, [("refuse", 0, "H55.1"), ("refuse", 1, "H55.1"), ("request-again", 1, "H55.1")])
@given(routes, acts)
def test_any_sequence_of_operations(
    route: list[tuple[int, str | ToLevel | ToSector]], todo: list[tuple[str, int, str]]
) -> None:
    walk = Walk("H55.3-261012-0001", "H55.3", 4, None)
    steps = tuple(RouteStep(step=number, to=to, transfer=uuid7()) for number, to in route)
    walk.begin(steps, uuid7(), uuid7(), DIRECTORY, NOW)
    for name, index, to in todo:
        ids = list(walk.transfers)
        before, events = dict(walk.transfers), len(walk.events)
        refusal = refusal_of(walk, name, ids[index % len(ids)], to)
        if refusal is not None:
            assert (walk.transfers, len(walk.events)) == (before, events)
            assert not isinstance(refusal, NotAllowed) or name not in refusal.allowed

        # A step is asked for only when every leg of the steps before it is completed.
        for transfer in walk.transfers.values():
            earlier = {each.transfer for each in steps if each.step < transfer.step}
            assert earlier <= completed_legs(walk)
        # A leg is with one agency at most, completed once at most, and every transfer has one successor at most.
        for leg in {each.leg for each in walk.transfers.values()}:
            of_leg = [each for each in walk.transfers.values() if each.leg == leg]
            assert sum(each.state in OPEN for each in of_leg) + sum(each.state == "completed" for each in of_leg) <= 1
            assert sorted(each.attempt for each in of_leg) == list(range(1, len(of_leg) + 1))
            assert len([each for each in of_leg if each.replaced_by is None]) == 1
        # Promise 7: while the dossier is open, what was refused has a reason, and the newest attempt a next step.
        for transfer in walk.transfers.values():
            if transfer.state == "refused":
                assert transfer.reason
            waits = transfer.state in ("refused", "returned", "recalled") and transfer.replaced_by is None
            assert bool(next_steps(transfer, walk.state)) == (
                walk.state not in ENDED and not transfer.undone and (waits or transfer.state in OPEN)
            )
            assert set(allowed(transfer, walk.state)) <= set(next_steps(transfer, walk.state))

    said = [event for _, event in walk.events]
    same_again(walk, steps)
    assert len([each for each in said if isinstance(each, TransferRequested)]) == len(walk.transfers)
    endings = [each for each in said if isinstance(each, TransferCompleted) and each.route_complete]
    everything = {each.transfer for each in steps} <= completed_legs(walk)
    assert len(endings) == (1 if everything else 0)
    if endings:
        results = {each.result for each in said if isinstance(each, TransferCompleted)}
        assert endings[0].route_result == ("denied" if "denied" in results else "granted")
