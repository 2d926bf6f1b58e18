"""The walk of a dossier along its route, told as the stories that happen to it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from services.routing.transfer import (
    OPERATIONS,
    NotAllowed,
    Operation,
    Transfer,
    Walk,
    WrongTarget,
    allowed,
    next_steps,
)
from shared.contracts.codes import uuid7
from shared.contracts.events import (
    LimitData,
    Paper,
    RouteStep,
    ToLevel,
    ToSector,
    TransferCompleted,
    TransferRefused,
    TransferRequested,
    TransferRerouted,
    TransferState,
)
from shared.directory.directory import Directory
from shared.directory.merge import merge
from shared.directory.reading import parse_bundle

BUNDLE = """
site: {code: H55, name: Tỉnh Thái Nguyên}
agencies:
  - {code: H55, name: Tỉnh Thái Nguyên, level: province}
  - {code: H55.17, name: Bảo hiểm xã hội, level: sector, parent: H55, site: null, sector: insurance}
  - {code: H55.21, name: Công an tỉnh, level: sector, parent: H55, site: null, sector: police}
  - {code: H55.23, name: Thuế tỉnh, level: sector, parent: H55, site: null, sector: tax}
  - {code: H55.41, name: Huyện Định Hóa, level: district, parent: H55, valid_to: 2025-06-30, successor: H55.241}
  - {code: H55.43, name: Phòng cũ, level: district, parent: H55, valid_to: 2025-06-30}
  - {code: H55.241, name: Xã Định Hóa, level: commune, parent: H55, valid_from: 2025-07-01}
  - {code: H55.242, name: Xã Trung Hội, level: commune, parent: H55, valid_from: 2025-07-01}
"""
CODE = "H55.242-261012-0001"
MONDAY = datetime(2026, 10, 12, 2, 30, tzinfo=UTC)  # 09:30 local, a working day
DUE = datetime(2026, 10, 30, 10, 0, tzinfo=UTC)
DIRECTORY = Directory(merge(None, parse_bundle(BUNDLE))[0])


def step(number: int, to: str | ToLevel | ToSector, limit: LimitData | None = None) -> RouteStep:
    return RouteStep(step=number, to=to, limit=limit, transfer=uuid7())


def begun(*route: RouteStep, now: datetime = MONDAY) -> Walk:
    walk = Walk(CODE, "H55.242", 4, DUE)
    walk.begin(route, uuid7(), uuid7(), DIRECTORY, now)
    return walk


def said(walk: Walk) -> list[str]:
    """The events since we last looked, by their short types without the family."""
    events = [event.short.removeprefix("transfer.") for _, event in walk.events]
    walk.events.clear()
    return events


def accept_and_complete(walk: Walk, which: UUID, result: Any = "granted") -> None:
    walk.accept(which, MONDAY)
    walk.complete(which, result, DIRECTORY, MONDAY)


def last(walk: Walk, kind: type[Any]) -> Any:
    return [event for _, event in walk.events if isinstance(event, kind)][-1]


# ------------------------------------------------------------------------------------------------- the route


def test_steps_one_after_the_other_until_the_route_is_complete() -> None:
    walk = begun(step(1, ToSector(sector="police")), step(2, "H55.17"))
    police, insurance = (each.transfer for each in walk.route)
    assert said(walk) == ["requested", "delivered"]
    assert walk.transfers[police].receiver == "H55.21"
    assert walk.transfers[police].sender == "H55.242"
    assert insurance not in walk.transfers

    accept_and_complete(walk, police)
    assert said(walk) == ["accepted", "completed", "requested", "delivered"]
    assert walk.transfers[insurance].receiver == "H55.17"

    accept_and_complete(walk, insurance)
    completed = last(walk, TransferCompleted)
    assert (completed.route_complete, completed.route_result) == (True, "granted")
    assert said(walk) == ["accepted", "completed"]


def test_the_first_step_need_not_have_the_number_one() -> None:
    walk = begun(step(7, "H55.23"), step(3, "H55.17"))
    assert [each.step for each in walk.transfers.values()] == [3]


def test_equal_step_numbers_run_in_parallel_and_the_next_waits_for_all() -> None:
    walk = begun(step(1, "H55.21"), step(1, "H55.17"), step(2, ToLevel(level="province")))
    police, insurance, province = (each.transfer for each in walk.route)
    assert {event.parallel for _, event in walk.events if isinstance(event, TransferRequested)} == {2}
    assert said(walk) == ["requested", "delivered"] * 2

    accept_and_complete(walk, insurance)
    assert said(walk) == ["accepted", "completed"]
    assert province not in walk.transfers

    accept_and_complete(walk, police)
    assert said(walk) == ["accepted", "completed", "requested", "delivered"]
    assert walk.transfers[province].receiver == "H55"


def test_of_two_that_work_side_by_side_one_refuses_and_another_is_asked_in_its_place() -> None:
    walk = begun(step(1, "H55.21"), step(1, "H55.17"), step(2, ToLevel(level="province")))
    police, insurance, province = (each.transfer for each in walk.route)
    walk.refuse(police, "không thuộc thẩm quyền", MONDAY)
    accept_and_complete(walk, insurance)  # the other goes on undisturbed, and the step waits for the refused one
    assert province not in walk.transfers
    assert "reroute" in next_steps(walk.transfers[police], 4)
    other = uuid7()
    walk.reroute(police, "H55.23", "Thuế tỉnh quản lý", other, DIRECTORY, MONDAY)
    assert province not in walk.transfers
    accept_and_complete(walk, other)
    assert walk.transfers[province].state == "delivered"


def test_a_denied_step_does_not_end_the_route_and_makes_the_dossier_denied() -> None:
    walk = begun(step(1, "H55.21"), step(2, "H55.17"))
    first, second = (each.transfer for each in walk.route)
    accept_and_complete(walk, first, "denied")
    assert second in walk.transfers
    accept_and_complete(walk, second, "granted")
    assert last(walk, TransferCompleted).route_result == "denied"


def test_what_came_of_a_leg_is_said_with_its_completion() -> None:
    walk = begun(step(1, "H55.21"))
    which = walk.route[0].transfer
    walk.accept(which, MONDAY)
    walk.complete(which, "granted", DIRECTORY, MONDAY, "đã nhập khẩu", (Paper(name="Sổ hộ khẩu", ref="s3://a"),))
    completed = last(walk, TransferCompleted)
    assert completed.note == "đã nhập khẩu"
    assert completed.documents == (Paper(name="Sổ hộ khẩu", ref="s3://a"),)


def test_completing_needs_accepting_first() -> None:
    walk = begun(step(1, "H55.21"))
    with pytest.raises(NotAllowed) as refused:
        walk.complete(walk.route[0].transfer, "granted", DIRECTORY, MONDAY)
    assert refused.value.code == "move-not-allowed"
    assert refused.value.state == "delivered"
    assert refused.value.allowed == ("accept", "refuse", "return", "recall", "reroute")


# --------------------------------------------------------------------------------------------------- the limit


def test_a_leg_is_due_by_its_own_limit_in_the_working_time_of_its_agency() -> None:
    walk = begun(step(1, "H55.21", LimitData(value=3, unit="working_days")))
    assert walk.transfers[walk.route[0].transfer].due_at == datetime(2026, 10, 15, 10, 0, tzinfo=UTC)


def test_half_a_working_day_ends_with_the_first_shift() -> None:
    walk = begun(step(1, "H55.21", LimitData(value=2.5, unit="working_days")))
    assert walk.transfers[walk.route[0].transfer].due_at == datetime(2026, 10, 15, 4, 30, tzinfo=UTC)


def test_a_leg_without_a_limit_has_the_dossiers_due_date() -> None:
    walk = begun(step(1, "H55.21"))
    assert walk.transfers[walk.route[0].transfer].due_at == DUE


def test_a_limit_beyond_all_calendars_leaves_the_dossiers_due_date() -> None:
    walk = begun(step(1, "H55.21", LimitData(value=10_000_000, unit="months")))
    assert walk.transfers[walk.route[0].transfer].due_at == DUE


# ------------------------------------------------------------------------------- refused, returned, asked again


def test_a_refusal_has_a_reason_and_a_next_step() -> None:
    walk = begun(step(1, "H55.21"))
    which = walk.route[0].transfer
    walk.refuse(which, "không thuộc thẩm quyền", MONDAY)
    refused = last(walk, TransferRefused)
    assert refused.reason == "không thuộc thẩm quyền"
    assert refused.next_steps == ("reroute", "request-again", "resolution")
    assert next_steps(walk.transfers[which], 4) == refused.next_steps


def test_a_return_for_a_supplement_sends_the_desk_to_the_applicant() -> None:
    walk = begun(step(1, "H55.21"))
    which = walk.route[0].transfer
    walk.accept(which, MONDAY)
    walk.send_back(which, "thiếu giấy chứng sinh", "supplement", MONDAY)
    assert next_steps(walk.transfers[which], 4) == ("reroute", "request-again", "supplement-request", "resolution")


def test_what_is_asked_again_goes_to_the_same_agency_and_finishes_the_leg() -> None:
    walk = begun(step(1, "H55.21"), step(2, "H55.17"))
    first, second = (each.transfer for each in walk.route)
    walk.refuse(first, "thiếu hồ sơ", MONDAY)
    again = uuid7()
    walk.request_again(first, again, DIRECTORY, MONDAY)
    new = walk.transfers[again]
    assert (new.receiver, new.attempt, new.step, new.leg, new.replaces) == ("H55.21", 2, 1, first, first)
    assert walk.transfers[first].state == "refused"
    assert allowed(walk.transfers[first], 4) == ()
    assert next_steps(walk.transfers[first], 4) == ()

    accept_and_complete(walk, again)
    assert second in walk.transfers


def test_nothing_is_asked_again_twice() -> None:
    walk = begun(step(1, "H55.21"))
    first = walk.route[0].transfer
    walk.refuse(first, "thiếu hồ sơ", MONDAY)
    walk.request_again(first, uuid7(), DIRECTORY, MONDAY)
    with pytest.raises(NotAllowed):
        walk.request_again(first, uuid7(), DIRECTORY, MONDAY)


# ------------------------------------------------------------------------------------------ rerouted, recalled


def test_an_open_transfer_is_rerouted_and_the_leg_goes_on_elsewhere() -> None:
    walk = begun(step(1, "H55.21"))
    first, new = walk.route[0].transfer, uuid7()
    said(walk)
    walk.reroute(first, "H55.23", "nhầm cơ quan", new, DIRECTORY, MONDAY)
    rerouted = last(walk, TransferRerouted)
    assert (rerouted.to, rerouted.to_agency, rerouted.new_transfer) == ("H55.21", "H55.23", new)
    assert said(walk) == ["rerouted", "requested", "delivered"]
    assert walk.transfers[first].state == "rerouted"
    assert walk.transfers[new].receiver == "H55.23"

    accept_and_complete(walk, new)
    assert last(walk, TransferCompleted).route_complete


@pytest.mark.parametrize(
    ("to", "code"), [("H55.99", "unknown-agency"), ("H55.43", "no-target"), ("H55.21", "same-agency")]
)
def test_a_reroute_needs_another_agency_that_is_there(to: str, code: str) -> None:
    walk = begun(step(1, "H55.21"))
    with pytest.raises(WrongTarget) as refused:
        walk.reroute(walk.route[0].transfer, to, "nhầm", uuid7(), DIRECTORY, MONDAY)
    assert refused.value.code == code
    assert walk.transfers[walk.route[0].transfer].state == "delivered"


def test_a_recall_takes_back_what_is_open_and_may_be_asked_again() -> None:
    walk = begun(step(1, "H55.21"))
    which = walk.route[0].transfer
    walk.accept(which, MONDAY)
    walk.recall(which, "gửi nhầm", MONDAY)
    assert walk.transfers[which].state == "recalled"
    assert next_steps(walk.transfers[which], 4) == ("reroute", "request-again", "resolution")


def test_a_recall_that_meets_a_completed_transfer_comes_too_late() -> None:
    walk = begun(step(1, "H55.21"))
    accept_and_complete(walk, walk.route[0].transfer)
    walk.state = 9  # intake has resolved the dossier meanwhile
    with pytest.raises(NotAllowed) as refused:
        walk.recall(walk.route[0].transfer, "gửi nhầm", MONDAY)
    assert refused.value.code == "already-completed"


def test_a_stopped_dossier_recalls_what_is_open_and_nothing_may_follow() -> None:
    walk = begun(step(1, "H55.21"), step(1, "H55.17"))
    police, insurance = (each.transfer for each in walk.route)
    walk.refuse(police, "thiếu", MONDAY)
    walk.state = 8
    walk.recall_open("Hồ sơ đã dừng giải quyết: theo đơn", MONDAY)
    assert walk.transfers[police].state == "refused"
    assert walk.transfers[insurance].state == "recalled"
    assert walk.transfers[insurance].reason == "Hồ sơ đã dừng giải quyết: theo đơn"
    assert {next_steps(each, walk.state) for each in walk.transfers.values()} == {()}


def test_a_start_that_is_undone_may_begin_afresh() -> None:
    first = begun(step(1, "H55.21"))
    old = first.route[0].transfer
    first.state = 2
    first.undo("nhầm hồ sơ", MONDAY)
    assert first.transfers[old].state == "recalled"
    assert allowed(first.transfers[old], 4) == ()

    first.state = 4
    fresh = step(1, "H55.21")
    first.begin((fresh,), uuid7(), uuid7(), DIRECTORY, MONDAY)
    accept_and_complete(first, fresh.transfer)
    assert last(first, TransferCompleted).route_complete


# ------------------------------------------------------------------------------------------- agencies that changed


def test_a_closed_agencys_successor_is_asked_and_the_event_says_so() -> None:
    walk = begun(step(1, "H55.41"))
    requested = last(walk, TransferRequested)
    assert (requested.to, requested.redirected_from) == ("H55.241", "H55.41")


def test_without_anybody_to_ask_the_transfer_is_there_refused_and_can_be_rerouted() -> None:
    walk = begun(step(1, "H55.43"))
    which = walk.route[0].transfer
    transfer = walk.transfers[which]
    assert (transfer.state, transfer.receiver) == ("refused", "H55.43")
    assert transfer.reason is not None
    assert next_steps(transfer, 4) == ("reroute", "resolution")
    assert said(walk) == ["requested", "refused"]

    new = uuid7()
    walk.reroute(which, "H55.23", "thay cơ quan", new, DIRECTORY, MONDAY)
    accept_and_complete(walk, new)
    assert last(walk, TransferCompleted).route_complete


def test_a_sector_that_nobody_has_stands_with_the_sender() -> None:
    walk = begun(step(1, ToSector(sector="customs")), step(1, ToLevel(level="ministry")))
    assert {each.receiver for each in walk.transfers.values()} == {"H55.242"}
    assert said(walk) == ["requested", "refused"] * 2


def test_what_lies_with_an_agency_that_closes_goes_to_its_successor() -> None:
    walk = Walk(CODE, "H55.242", 4, DUE)
    before = datetime(2025, 6, 30, 3, 0, tzinfo=UTC)
    walk.begin((step(1, "H55.41"),), uuid7(), uuid7(), DIRECTORY, before)
    which, new = walk.route[0].transfer, uuid7()
    assert walk.transfers[which].receiver == "H55.41"
    said(walk)

    walk.leave_closed({which: new}, DIRECTORY, before)
    assert said(walk) == []
    walk.leave_closed({which: new}, DIRECTORY, before + timedelta(days=1))
    assert said(walk) == ["rerouted", "requested", "delivered"]
    assert (walk.transfers[new].receiver, walk.transfers[new].redirected_from) == ("H55.241", "H55.41")


def test_asking_again_finds_the_successor() -> None:
    before = datetime(2025, 6, 30, 3, 0, tzinfo=UTC)
    walk = begun(step(1, "H55.41"), now=before)
    which, again = walk.route[0].transfer, uuid7()
    walk.refuse(which, "đang sáp nhập", before)
    walk.request_again(which, again, DIRECTORY, before + timedelta(days=1))
    assert (walk.transfers[again].receiver, walk.transfers[again].redirected_from) == ("H55.241", "H55.41")


def test_asking_a_closed_agency_again_that_nobody_succeeds_is_refused() -> None:
    before = datetime(2025, 6, 30, 3, 0, tzinfo=UTC)
    walk = begun(step(1, "H55.43"), now=before)
    which = walk.route[0].transfer
    walk.refuse(which, "đang sáp nhập", before)
    with pytest.raises(NotAllowed) as refused:
        walk.request_again(which, uuid7(), DIRECTORY, before + timedelta(days=1))
    assert (refused.value.code, refused.value.allowed) == ("no-target", ("reroute",))


def test_nothing_happens_before_what_it_follows_on() -> None:
    walk = begun(step(1, "H55.21"))
    walk.accept(walk.route[0].transfer, MONDAY - timedelta(minutes=5))
    assert [happened for happened, _ in walk.events] == [MONDAY] * 3


# -------------------------------------------------------------------------------------------------- the whole table

ACTS: dict[Operation, Callable[[Walk, UUID], None]] = {
    "accept": lambda walk, which: walk.accept(which, MONDAY),
    "refuse": lambda walk, which: walk.refuse(which, "lý do", MONDAY),
    "complete": lambda walk, which: walk.complete(which, "granted", DIRECTORY, MONDAY),
    "return": lambda walk, which: walk.send_back(which, "lý do", "correction", MONDAY),
    "recall": lambda walk, which: walk.recall(which, "lý do", MONDAY),
    "reroute": lambda walk, which: walk.reroute(which, "H55.23", "lý do", uuid7(), DIRECTORY, MONDAY),
    "request-again": lambda walk, which: walk.request_again(which, uuid7(), DIRECTORY, MONDAY),
}

TABLE = """
              accept    refuse   complete   return    recall    reroute   request-again
requested     -         -        -          -         recalled  rerouted  -
sent          -         -        -          -         recalled  rerouted  -
delivered     accepted  refused  -          returned  recalled  rerouted  -
accepted      -         -        completed  returned  recalled  rerouted  -
refused       -         -        -          -         -         rerouted  refused
returned      -         -        -          -         -         rerouted  returned
recalled      -         -        -          -         -         rerouted  recalled
completed     -         -        -          -         -         -         -
rerouted      -         -        -          -         -         -         -
"""


def table() -> list[tuple[Any, Any, str | None]]:
    """Every (state, operation) with the state that the transfer has after it; None: refused."""
    head, *rows = [line.split() for line in TABLE.strip().splitlines()]
    return [
        (row[0], operation, None if cell == "-" else cell)
        for row in rows
        for operation, cell in zip(head, row[1:], strict=True)
    ]


def in_state(state: TransferState) -> tuple[Walk, UUID]:
    walk = begun(step(1, "H55.21"))
    which = walk.route[0].transfer
    transfer = walk.transfers[which]
    walk.transfers[which] = Transfer(
        **{name: getattr(transfer, name) for name in Transfer.__slots__} | {"state": state}
    )
    walk.events.clear()
    return walk, which


@pytest.mark.parametrize(("state", "operation", "after"), table())
def test_every_state_and_operation(state: TransferState, operation: Operation, after: str | None) -> None:
    walk, which = in_state(state)
    if after is None:
        with pytest.raises(NotAllowed) as refused:
            ACTS[operation](walk, which)
        assert refused.value.state == state
        assert refused.value.allowed == OPERATIONS[state]
        assert walk.events == []
        assert walk.transfers[which].state == state
    else:
        ACTS[operation](walk, which)
        assert walk.transfers[which].state == after
        assert walk.transfers[which].version == 2
        assert operation in OPERATIONS[state]


def test_the_table_names_every_state_and_operation() -> None:
    assert {(state, operation) for state, operation, _ in table()} == {(s, o) for s in OPERATIONS for o in ACTS}


@pytest.mark.parametrize("state", [3, 8, 9, 10])
@pytest.mark.parametrize("operation", list(ACTS))
def test_an_ended_dossier_allows_nothing(state: int, operation: Operation) -> None:
    walk, which = in_state("delivered")
    walk.state = state
    with pytest.raises(NotAllowed) as refused:
        ACTS[operation](walk, which)
    assert refused.value.allowed == ()


def test_the_days_of_the_stories_are_what_they_say() -> None:
    assert MONDAY.date() == date(2026, 10, 12)
    assert MONDAY.weekday() == 0
