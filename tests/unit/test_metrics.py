"""The list of metrics says all, names keep their form, and no label can grow without bound."""

import re
import time
from pathlib import Path

import pytest
from prometheus_client.openmetrics import exposition, parser

from deploy.site import create
from services.stats.snapshots import Snapshots
from services.stats.store import Store
from shared.observe import metrics as known
from shared.observe.metrics import METRICS, Metric, Metrics
from shared.observe.reconcile import behind, missing
from shared.service import PATIENCE

# What a label may be: each has as many values as the project declares, not as many as the world sends.
BOUNDED = {
    "method",
    "channel",
    "until",
    "route",
    "status",
    "error",
    "topic",
    "reason",
    "loop",
    "version",
    "state",
    "provider",
    "outcome",
    "link",
    "direction",
    "transport",
    "portal",
}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_has_a_name_a_unit_and_a_reason(metric: Metric) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", metric.name)
    assert len(metric.why) > 15
    assert metric.why.endswith(".")
    assert not metric.unit or metric.name.endswith("_" + metric.unit)
    assert set(metric.labels) <= BOUNDED
    assert bool(metric.buckets) == (metric.kind == "histogram")


def test_names_stand_once() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_openmetrics_reads_back_what_was_counted_with_units_and_exemplars() -> None:
    metrics = Metrics("intake")
    metrics.add(known.REQUESTS, 2, "GET", "/v1/dossiers/{code}", "2xx")
    metrics.observe(known.CONSUMER_DELAY, 0.2, "lienthong.dossier.v1", trace="0af7651916cd43dd8448eb211c80319c")
    metrics.total(known.OUTBOX_PUBLISHED, 7)
    metrics.total(known.OUTBOX_PUBLISHED, 7)
    metrics.total(known.OUTBOX_PUBLISHED, 9)
    text = exposition.generate_latest(metrics.registry).decode()  # type: ignore[no-untyped-call]
    families = parser.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    found = {family.name: family for family in families}
    assert found["lienthong_outbox_published_events"].unit == "events"
    assert [s.value for s in found["lienthong_outbox_published_events"].samples if s.name.endswith("_total")] == [9.0]
    requests = found["lienthong_http_requests"].samples
    assert [s.labels for s in requests if s.name.endswith("_total")] == [
        {"service": "intake", "method": "GET", "route": "/v1/dossiers/{code}", "status": "2xx"}
    ]
    exemplars = [s.exemplar for s in found["lienthong_consumer_delay_seconds"].samples if s.exemplar]
    assert exemplars[0].labels == {"trace_id": "0af7651916cd43dd8448eb211c80319c"}


def test_what_a_service_does_not_do_it_does_not_show() -> None:
    names = {family.name for family in Metrics("stats").registry.collect()}
    assert "lienthong_due_behind_seconds" not in names
    assert "lienthong_outbox_oldest_seconds" in names


def test_a_gauge_that_was_never_set_is_absent_and_a_counter_begins_at_zero() -> None:
    samples = {s.name for family in Metrics("stats").registry.collect() for s in family.samples}
    assert "lienthong_parked_keys" not in samples
    assert "lienthong_outbox_published_events_total" in samples


def test_a_loop_is_late_beyond_the_rest_that_it_takes(tmp_path: Path) -> None:
    service = create("stats", {"site": "H55", "keys_dir": tmp_path / "keys", "housekeeping_seconds": 600.0})
    names = ("relay", "housekeeping", "snapshots")
    for name in names:
        service.beat(name)
    began = time.monotonic()
    assert service.late(began + 650) == pytest.approx({"relay": 650, "housekeeping": 0, "snapshots": 650}, abs=1)
    assert service.late(began + 2000)["housekeeping"] > 1000


async def test_a_loop_that_rests_for_long_turns_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = create("stats", {"site": "H55", "keys_dir": tmp_path / "keys"})
    slept: list[float] = []
    beats: list[str] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("services.stats.snapshots.asyncio.sleep", sleep)
    monkeypatch.setattr(service, "beat", beats.append)
    await Snapshots(service, Store(), 5.0, 10)._rest(34.0)
    assert sum(slept) == 34.0
    assert max(slept) < PATIENCE / 2
    assert beats == ["snapshots"] * len(slept)


def test_missing_is_what_did_not_move_between_two_looks() -> None:
    first = behind({"a": 3, "b": 2, "c": 1}, {"a": 2, "b": 1, "c": 1})
    assert first == {"a": 3, "b": 2}
    assert missing(first, {"a": 3, "b": 1}) == ["b"]
    assert missing(first, {"a": 4, "b": 2}) == []
    assert missing({}, {"a": 0}) == []
