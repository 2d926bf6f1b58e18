"""A leg between two sites, told as the stories that happen to it; each transfer ends the same at both."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from services.routing.transfer import Transfer, Walk, next_steps
from shared.contracts.codes import uuid7
from shared.contracts.events import RouteStep, TransferEvent
from shared.directory.directory import Directory
from shared.directory.merge import merge
from shared.directory.reading import parse_bundle

AGENCIES = """
agencies:
  - {code: H55, name: Tỉnh Thái Nguyên, level: province, site: H55}
  - {code: H55.23, name: Thuế tỉnh, level: sector, parent: H55, site: H55, sector: tax}
  - {code: H55.24, name: Văn phòng Đất đai, level: sector, parent: H55, site: H55, sector: land}
  - {code: H55.242, name: Xã Trung Hội, level: commune, parent: H55, site: H55.242}
"""
HOME = Directory(merge(None, parse_bundle("site: {code: H55.242, name: Xã Trung Hội, upper: H55}" + AGENCIES))[0])
THERE = Directory(merge(None, parse_bundle("site: {code: H55, name: Tỉnh Thái Nguyên}" + AGENCIES))[0])
CODE = "H55.242-261012-0001"
NOW = datetime(2026, 10, 12, 2, 30, tzinfo=UTC)


class Story:
    """Home and the working site, and what each has said that the other has not heard yet."""

    def __init__(self) -> None:
        self.home = Walk(CODE, "H55.242", 4, None)
        self.there = Walk(CODE, "H55.242", 4, None, "H55.242")
        self.leg = uuid7()
        route = (RouteStep(step=1, to="H55.24", limit=None, transfer=self.leg),)
        self.home.begin(route, uuid7(), uuid7(), HOME, NOW)
        assert self.kinds(self.home) == ["requested"]
        self.deliver(self.leg)

    def deliver(self, which: UUID) -> None:
        asked = self.home.transfers[which]
        self.home.sent(which, NOW)
        self.kinds(self.home)
        assert self.there.arrive(asked, THERE, NOW)
        self.hear()

    @staticmethod
    def kinds(walk: Walk) -> list[str]:
        found = [event.short.removeprefix("transfer.") for _, event in walk.events]
        walk.events.clear()
        return found

    @staticmethod
    def taken(walk: Walk) -> list[TransferEvent]:
        found = [event for _, event in walk.events]
        walk.events.clear()
        return found

    def hear(self) -> list[str]:
        """Home hears all that the working site has said."""
        return [self.home.hear(event, HOME, NOW) for event in self.taken(self.there)]

    def states(self, which: UUID | None = None) -> tuple[str, str]:
        each = which or self.leg
        return self.home.transfers[each].state, self.there.transfers[each].state


def test_accepted_completed_and_the_route_goes_on_at_home() -> None:
    story = Story()
    assert story.states() == ("delivered", "delivered")
    story.there.accept(story.leg, NOW)
    story.there.complete(story.leg, "granted", THERE, NOW, "xong")
    assert story.hear() == ["done", "done"]
    assert story.states() == ("completed", "completed")
    last: Any = story.taken(story.home)[-1]
    assert (last.route_complete, last.route_result, last.note) == (True, "granted", "xong")


def test_a_refusal_comes_home_with_its_reason_and_the_next_step_is_homes() -> None:
    story = Story()
    story.there.refuse(story.leg, "thiếu bản đồ", NOW)
    assert story.hear() == ["done"]
    assert story.states() == ("refused", "refused")
    assert story.home.transfers[story.leg].reason == "thiếu bản đồ"
    assert "request-again" in next_steps(story.home.transfers[story.leg], 4)
    assert next_steps(story.there.transfers[story.leg], 4, "H55.242") == ()


def test_a_recall_that_meets_a_completion_on_the_wire_yields_to_it() -> None:
    story = Story()
    story.there.accept(story.leg, NOW)
    story.hear()
    story.home.recall(story.leg, "nhầm", NOW)
    story.there.complete(story.leg, "granted", THERE, NOW)
    [recalled] = [event for event in story.taken(story.home) if event.state == "recalled"]
    assert not story.there.told(recalled, False, NOW)  # already completed
    assert story.hear() == ["done"]
    assert story.states() == ("completed", "completed")


def test_a_stop_that_meets_a_completion_on_the_wire_beats_it() -> None:
    story = Story()
    story.there.accept(story.leg, NOW)
    story.hear()
    story.home.state = 8
    story.home.recall_open("đã dừng", NOW)
    story.there.complete(story.leg, "granted", THERE, NOW)
    [recalled] = [event for event in story.taken(story.home) if event.state == "recalled"]
    assert story.hear() == ["final"]
    assert story.there.told(recalled, True, NOW)
    assert story.states() == ("recalled", "recalled")


def test_asked_again_meanwhile_the_old_legs_completion_comes_too_late() -> None:
    story = Story()
    story.there.accept(story.leg, NOW)
    story.hear()
    story.home.recall(story.leg, "nhầm", NOW)
    [recalled] = [event for event in story.taken(story.home) if event.state == "recalled"]
    again = uuid7()
    story.home.request_again(story.leg, again, HOME, NOW)
    story.kinds(story.home)
    story.there.complete(story.leg, "granted", THERE, NOW)
    assert story.hear() == ["final"]
    assert story.there.told(recalled, True, NOW)
    story.there.events.clear()
    assert story.states() == ("recalled", "recalled")
    story.deliver(again)
    assert story.states(again) == ("delivered", "delivered")


def test_what_arrives_twice_has_one_effect() -> None:
    story = Story()
    asked = story.home.transfers[story.leg]
    assert not story.there.arrive(asked, THERE, NOW)
    story.there.accept(story.leg, NOW)
    said = story.taken(story.there)
    assert [story.home.hear(event, HOME, NOW) for event in said + said] == ["done", "late"]


def test_an_agency_that_does_not_work_there_refuses_by_the_system() -> None:
    story = Story()
    stray = Transfer(uuid7(), CODE, uuid7(), 1, "H55.242", "H55.242", "requested", 1, None, NOW, NOW)
    assert story.there.arrive(stray, THERE, NOW)
    assert story.there.transfers[stray.id].state == "refused"
    assert story.there.transfers[stray.id].reason == "Cơ quan H55.242 không thuộc đơn vị này."
