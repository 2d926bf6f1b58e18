"""Traces: off they cost nothing, on they say who caused what and nothing else."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest

from shared.observe.traces import Traces, cause_of, causing, readable, trace_id
from tests.collector import Collector
from tests.unit.test_contracts import envelope

ABOVE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def test_off_no_sdk_is_imported_and_nothing_made_or_remembered() -> None:
    services = "intake", "routing", "notify", "stats"
    imports = "; ".join(f"import services.{name}.app" for name in services)
    code = (
        f"import sys; {imports}; import deploy.site; print([m for m in sys.modules if '.exporter' in m or '.sdk' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
    traces = Traces("intake", "H55", "")
    assert traces.begin("POST", "server", ABOVE) is None
    traced = replace(envelope(b"{}"), traceparent=ABOVE)
    with traces.applying([traced], dict):
        assert cause_of(traced.subject) is None


def test_a_cause_is_remembered_by_key() -> None:
    with causing({"a": "1"}, "2"):
        assert (cause_of("a"), cause_of("b"), cause_of()) == ("1", "2", "2")
        with causing({}):
            assert cause_of("a") == "1"
    assert cause_of("a") is None


@pytest.mark.parametrize("wrong", ["", "x", ABOVE + "-", ABOVE.replace("0af7", "0AF7"), f"00-{'0' * 32}-{'1' * 16}-01"])
def test_what_is_no_trace_context_is_ignored(wrong: str) -> None:
    assert readable(wrong) is None
    assert readable(ABOVE) == ABOVE
    assert trace_id(ABOVE) == "0af7651916cd43dd8448eb211c80319c"


def test_spans_follow_from_their_events_and_say_what_failed(collector: Collector) -> None:
    traces = Traces("routing", "H55", collector.url)
    good = replace(envelope(b"{}"), traceparent=ABOVE)
    other = replace(good, subject="H55.242-261010-0002")
    with traces.applying([good, other, replace(good, traceparent=None)], lambda: {1: SimpleNamespace(reason="odd")}):
        caused = cause_of(good.subject)
    assert caused is not None
    assert trace_id(caused) == trace_id(ABOVE)
    with pytest.raises(ZeroDivisionError), traces.applying([good], dict):
        raise ZeroDivisionError("a secret 0912345678")
    traces.published([good])
    contact = replace(good, topic="lienthong.contact.v1", subject="c0123")
    traces.published([contact])
    assert Traces.traceparent(traces.begin("POST", "server", ABOVE[:-2] + "00")) is None  # its caller does not sample
    traces.close()
    found = [(span.name, span.status.code, span.parent_span_id.hex()) for _, _, span in collector.spans()]
    apply = f"apply {good.type}"
    above = ABOVE.split("-")[2]
    assert found == [(apply, 0, above), (apply, 2, above), (apply, 2, above)] + [(f"publish {good.type}", 0, above)] * 2
    assert collector.spans()[0][2].span_id.hex() == caused.split("-")[2]
    sent = b"".join(collector.bodies)
    assert b"odd" in sent
    assert b"ZeroDivisionError" in sent
    assert b"0912345678" not in sent
    assert b"c0123" not in sent


def test_a_collector_that_is_away_costs_a_stop_little_and_nobody_else_anything() -> None:
    traces = Traces("routing", "H55", "http://127.0.0.1:9/v1/traces")
    traces.end(traces.begin("POST", "server", None))
    traces.close()
