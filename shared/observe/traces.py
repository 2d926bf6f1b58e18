"""Traces: one act followed over HTTP, the outbox, topics and links, by OpenTelemetry. Off unless a collector is named.

An event keeps, in the log and on the bus, the span in which it was stored (`traceparent`), so that what is done with it
later, in another process or on another site, belongs to the same trace. Requests share a commit and a batch holds many
dossiers' events: a cause is therefore remembered by key, and what is stored under a key has that key's cause.

A span holds names, codes, ids and times; nothing that a request or an event says. A dossier's code is in it, a
`contact_ref`, a path and a query are not.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from shared.contracts.envelope import TRACEPARENT, Envelope

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

Kind = Literal["server", "client", "producer", "consumer"]
Said = Mapping[str, str | int | None]

CONTACTS: Final = "lienthong.contact.v1"  # its keys are nobody's business in a trace
EXPORT_WITHIN: Final = 2.0  # seconds that one call of the collector may take


@dataclass(frozen=True, slots=True)
class _Causes:
    by_key: Mapping[str, str]
    otherwise: str | None


_NONE: Final = _Causes({}, None)
_causes: ContextVar[_Causes] = ContextVar("lienthong_causes", default=_NONE)


def cause_of(key: str | None = None) -> str | None:
    """The `traceparent` of what is stored under this key now; None when nothing is traced."""
    causes = _causes.get()
    return causes.by_key.get(key, causes.otherwise) if key is not None else causes.otherwise


@contextmanager
def causing(by_key: Mapping[str, str], otherwise: str | None = None) -> Iterator[None]:
    """What is stored meanwhile has these causes."""
    if not by_key and otherwise is None:
        yield
        return
    before = _causes.set(_Causes(by_key, otherwise))
    try:
        yield
    finally:
        _causes.reset(before)


def readable(traceparent: str | None) -> str | None:
    """A W3C trace context as it came from outside, or None: one that is malformed is ignored, as its standard says."""
    return traceparent if traceparent is not None and TRACEPARENT.fullmatch(traceparent) else None


def trace_id(traceparent: str | None) -> str | None:
    """For exemplars."""
    return None if traceparent is None else traceparent[3:35]


class Traces:
    """One service's spans. Without `url` (OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`) no SDK is imported, nothing
    made or sent. What the standard's own variables (`OTEL_…`: sampler, limits) say holds.
    """

    def __init__(self, service: str, site: str, url: str) -> None:
        self._service, self._site, self._url = service, site, url
        self._provider: TracerProvider | None = None
        self._tracer: Tracer | None = None
        if url:
            self._connect()

    def _connect(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        names = {"service.name": f"lienthong-{self._service}", "service.namespace": self._site}
        self._provider = TracerProvider(resource=Resource.create(names), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=self._url, timeout=EXPORT_WITHIN)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
        self._tracer = self._provider.get_tracer("lienthong")

    @property
    def on(self) -> bool:
        return self._tracer is not None

    def close(self) -> None:
        """Sends what is left, for EXPORT_WITHIN at most; call it off the loop."""
        if self._provider is not None:
            self._provider.shutdown()

    # -- spans

    def begin(
        self, name: str, kind: Kind, parent: str | None, said: Said | None = None, *, at: int | None = None
    ) -> "Span | None":
        """A span from now, or from `at` (ns since 1970), below `parent`; without one it is a trace of its own."""
        if self._tracer is None:
            return None
        from opentelemetry import trace
        from opentelemetry.context import Context

        above = Context()
        if parent is not None and (found := TRACEPARENT.fullmatch(parent)):
            where = trace.SpanContext(
                int(found[1], 16), int(found[2], 16), is_remote=True, trace_flags=trace.TraceFlags(int(found[3], 16))
            )
            above = trace.set_span_in_context(trace.NonRecordingSpan(where), above)
        return self._tracer.start_span(
            name,
            above,
            kind=trace.SpanKind[kind.upper()],
            attributes={key: value for key, value in (said or {}).items() if value is not None},
            start_time=at,
        )

    @staticmethod
    def traceparent(span: "Span | None") -> str | None:
        """What follows from the span names it by this; None when it is not recorded."""
        if span is None or not span.is_recording():
            return None
        context = span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    @staticmethod
    def end(span: "Span | None", said: Said | None = None, *, failed: str | None = None, at: int | None = None) -> None:
        """`failed`: the stable code of what went wrong."""
        if span is None:
            return
        span.set_attributes({key: value for key, value in (said or {}).items() if value is not None})
        if failed is not None:
            from opentelemetry.trace import StatusCode

            span.set_attribute("error.type", failed)
            span.set_status(StatusCode.ERROR)
        span.end(at)

    # -- what the services trace alike

    def published(self, envelopes: Sequence[Envelope]) -> None:
        """The way of events through the outbox: from stored to confirmed by the bus."""
        if self._tracer is None:
            return
        for envelope in envelopes:
            if envelope.traceparent is not None:
                at = nanoseconds(envelope.recorded)
                self.end(self.begin(f"publish {envelope.type}", "producer", envelope.traceparent, _of(envelope), at=at))

    @contextmanager
    def applying(
        self, envelopes: Sequence[Envelope], faults: Callable[[], Mapping[int, Any]], name: str = "apply"
    ) -> Iterator[None]:
        """Events take effect: what is stored meanwhile under their keys follows from them. `faults`: those that did not,
        by place, with their `reason`."""
        if self._tracer is None:
            yield
            return
        spans: dict[int, Span] = {}
        causes: dict[str, str] = {}
        for place, envelope in enumerate(envelopes):
            if envelope.traceparent is not None:
                span = self.begin(f"{name} {envelope.type}", "consumer", envelope.traceparent, _of(envelope))
                if span is not None and (text := self.traceparent(span)) is not None:
                    spans[place] = span
                    causes[envelope.subject] = text
        failed: str | None = None
        try:
            with causing(causes):
                yield
        except BaseException as error:
            failed = type(error).__name__
            raise
        finally:
            refused = {} if failed else faults()
            for place, span in spans.items():
                fault = refused.get(place)
                self.end(span, failed=failed or (None if fault is None else fault.reason))


def nanoseconds(instant: datetime) -> int:
    return round(instant.timestamp() * 1_000_000) * 1000


def now_ns() -> int:
    return time.time_ns()


def _of(envelope: Envelope) -> Said:
    return {
        "messaging.system": "kafka",
        "messaging.destination.name": envelope.topic,
        "messaging.message.id": str(envelope.id),
        "lienthong.key": None if envelope.topic == CONTACTS else envelope.subject,
    }
