"""A link's metrics: what its alert and its dashboard stand on."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.routing.link import Place
from services.routing.link_store import Link
from services.routing.links import show_link
from shared.observe.metrics import Metrics

PLACE, REFUSED_FOR = Place(1, 1), "unknown-key"


@pytest.fixture
def link() -> Link:
    return Link(
        peer="H55.242", side="lower", name="Phú Tiến", state="active", paused=False, bus=None, keys={}, ticket="",
        reaches=frozenset(), heard=datetime.now(UTC) - timedelta(minutes=2), tick=0, offset_ms=-1500, complete=None,
        refused={REFUSED_FOR: 3}, directory=None, last=PLACE, sent=PLACE, confirmed=PLACE, recovering=False, received=PLACE,
    )  # fmt: skip


def shown(link: Link) -> dict[str, float]:
    metrics = Metrics("routing")
    show_link(metrics, link, "H55.242", 7)
    samples = [s for family in metrics.registry.collect() for s in family.samples if "_link_" in s.name]
    return {s.name: s.value for s in samples if s.labels.get("reason", REFUSED_FOR) == REFUSED_FOR}


def test_silence_what_waits_and_the_clock(link: Link) -> None:
    found = shown(link)
    assert 119 < found["lienthong_link_since_answer_seconds"] < 180
    assert found["lienthong_link_waiting_records"] == 7
    assert found["lienthong_link_clock_offset_seconds"] == -1.5
    assert found["lienthong_link_refused_total"] == 3


def test_a_reason_is_there_before_it_is_counted(link: Link) -> None:
    """Of a counter that begins with its first count Prometheus does not see that it rose."""
    assert shown(replace(link, refused={}))["lienthong_link_refused_total"] == 0


def test_a_paused_line_is_silent_by_intent_and_one_never_heard_says_nothing(link: Link) -> None:
    assert shown(replace(link, paused=True))["lienthong_link_since_answer_seconds"] == 0
    assert "lienthong_link_since_answer_seconds" not in shown(replace(link, heard=None))
