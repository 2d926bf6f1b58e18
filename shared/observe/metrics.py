"""Every metric of every service, in one list: its name, unit, labels, and why it is there.

No personal data, no codes of dossiers, and only labels with few values: a topic, a route as it is declared, a stable code.
`service` stands on all of them, so that one rule or one panel holds for the four.
"""

from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, choose_encoder

__all__ = ["CONTENT_TYPE_LATEST", "METRICS", "Metric", "Metrics", "choose_encoder"]

PREFIX: Final = "lienthong_"

Kind = Literal["counter", "gauge", "histogram"]
Unit = Literal["seconds", "bytes", "records", "events", "keys", ""]

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_DELAYS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
_SIZES: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `name` stands after `lienthong_` and ends with its unit; a counter's samples end with `_total`."""

    kind: Kind
    name: str
    unit: Unit
    why: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    services: tuple[str, ...] = ()
    """Who has it; empty: all four."""

    @property
    def full_name(self) -> str:
        return PREFIX + self.name

    @property
    def samples(self) -> tuple[str, ...]:
        """The names that a query may use."""
        ends = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}[self.kind]
        return tuple(self.full_name + end for end in ends)


# -- HTTP: what a desk, a portal, a citizen feels

REQUESTS: Final = Metric(
    "counter",
    "http_requests",
    "",
    "Requests answered, by the class of their status: a rise of 5xx is what a desk feels first.",
    ("method", "route", "status"),
)
REQUEST_SECONDS: Final = Metric(
    "histogram", "http_request_seconds", "seconds", "How long a desk waits for its answer.", ("route",), _SECONDS
)

# -- outbox and relay: promise 2, stored means published

OUTBOX_WAITING: Final = Metric(
    "gauge", "outbox_waiting_events", "events", "Stored and not yet on the bus: what nobody else knows of yet."
)
OUTBOX_OLDEST: Final = Metric(
    "gauge", "outbox_oldest_seconds", "seconds", "Age of the oldest event that is stored and not published."
)
OUTBOX_PUBLISHED: Final = Metric("counter", "outbox_published_events", "events", "Published, repeats included.")
OUTBOX_BATCH: Final = Metric(
    "histogram", "outbox_batch_events", "events", "Events that are confirmed together: the relay's load.", (), _SIZES
)
OUTBOX_PUBLISH_SECONDS: Final = Metric(
    "histogram",
    "outbox_publish_seconds",
    "seconds",
    "From the first send of a batch to its confirmation.",
    (),
    _SECONDS,
)
RELAY_INTERRUPTIONS: Final = Metric(
    "counter", "relay_interruptions", "", "Times that the relay had to begin again, by what broke.", ("error",)
)
BUS_REBUILDS: Final = Metric(
    "counter", "bus_rebuilds", "", "Times that an emptied bus was filled again, by shard (promise 6)."
)

# -- consumer: promise 3, effect once; promise 4, a bad event stops its dossier

CONSUMER_LAG: Final = Metric(
    "gauge", "consumer_lag_records", "records", "On the bus and not yet applied here.", ("topic",)
)
CONSUMER_BEHIND: Final = Metric(
    "gauge",
    "consumer_behind_seconds",
    "seconds",
    "Age of the instant up to which all that the topic's owner recorded is applied here: the lag as people feel it.",
    ("topic",),
)
CONSUMER_APPLIED: Final = Metric("counter", "consumer_applied_events", "events", "Events that took effect.")
CONSUMER_DUPLICATES: Final = Metric("counter", "consumer_duplicate_events", "events", "Dropped as known before.")
CONSUMER_BATCH: Final = Metric(
    "histogram", "consumer_batch_events", "events", "Events that are stored in one transaction.", (), _SIZES
)
CONSUMER_BATCH_SECONDS: Final = Metric(
    "histogram", "consumer_batch_seconds", "seconds", "From a batch's arrival to its commit.", (), _SECONDS
)
CONSUMER_DELAY: Final = Metric(
    "histogram",
    "consumer_delay_seconds",
    "seconds",
    "From recorded at the owner to applied here: what one hop costs an event.",
    ("topic",),
    _DELAYS,
)
CONSUMER_RETRIES: Final = Metric(
    "counter", "consumer_batch_retries", "", "Batches that were tried again, by what broke.", ("error",)
)
CONSUMER_PROGRESS: Final = Metric(
    "gauge",
    "consumer_since_progress_seconds",
    "seconds",
    "Time since the consume loop last ended a batch while records waited.",
)
PARKED: Final = Metric("gauge", "parked_keys", "keys", "Dossiers that wait behind a parked event: each is somebody's.")
PARKED_EVENTS: Final = Metric(
    "counter", "parked_events", "events", "Events that were parked, by their reason's stable code.", ("reason",)
)
BREAKER: Final = Metric("gauge", "breaker_open", "", "1 while too many bad events hold the consumer, else 0.")

# -- loops, machine

LOOP_PROGRESS: Final = Metric(
    "gauge",
    "loop_since_progress_seconds",
    "seconds",
    "Time since a loop of the service last turned, beyond the rest that it takes between two turns.",
    ("loop",),
)
LOOP_FAILURES: Final = Metric(
    "counter", "loop_failures", "", "Times that a loop of the service broke and was begun again.", ("loop",)
)
DISK_FREE: Final = Metric(
    "gauge", "disk_free_bytes", "bytes", "Free where the service's keys and files lie: a full disk stops all writes."
)
CERTIFICATE: Final = Metric(
    "gauge",
    "certificate_expires_seconds",
    "seconds",
    "Until the first of the bus's certificates expires that this service trusts by file.",
)
BUILD: Final = Metric("gauge", "build_info", "", "1; its label names the version that runs.", ("version",))

DATABASE: Final = Metric("gauge", "database_up", "", "1 while PostgreSQL answers this service within 5 s, else 0.")

# -- links between sites: promise 7

LINK_SILENT: Final = Metric(
    "gauge",
    "link_since_answer_seconds",
    "seconds",
    "Time since the other site last answered over the link.",
    ("link",),
    (),
    ("routing",),
)
LINK_WAITING: Final = Metric(
    "gauge",
    "link_waiting_records",
    "records",
    "Envelopes that the other site has not confirmed yet.",
    ("link", "direction"),
    (),
    ("routing",),
)
LINK_CLOCK: Final = Metric(
    "gauge",
    "link_clock_offset_seconds",
    "seconds",
    "The other site's clock against ours, by its receipts: over 60 s durations contradict each other.",
    ("link",),
    (),
    ("routing",),
)

LINK_REFUSED: Final = Metric(
    "counter",
    "link_refused",
    "",
    "Records and envelopes of the other site that were not taken, by reason; duplicates among them are harmless.",
    ("link", "reason"),
    (),
    ("routing",),
)

# -- reconciliation: promise 5, no silent loss

RECONCILE_MISSING: Final = Metric(
    "gauge",
    "reconcile_missing_keys",
    "keys",
    "Keys whose newest events the owner has and this service has not, at two looks in a row.",
    ("topic",),
)
RECONCILE_AGE: Final = Metric(
    "gauge", "reconcile_since_look_seconds", "seconds", "Time since the books were last compared with the owner's."
)

# -- intake: due dates

DUE_BEHIND: Final = Metric(
    "gauge",
    "due_behind_seconds",
    "seconds",
    "How long the oldest due-soon or overdue event has been due and is not raised.",
    services=("intake",),
)

# -- notify: promise 9, told once

NOTICES_WAITING: Final = Metric(
    "gauge", "notices_waiting", "", "Notices that are planned, held or of unknown outcome.", ("state",), (), ("notify",)
)
NOTICES_OLDEST: Final = Metric(
    "gauge",
    "notices_oldest_seconds",
    "seconds",
    "Age of the oldest notice that is planned and not sent: an applicant who is not told.",
    services=("notify",),
)
SENDS: Final = Metric(
    "counter", "sends", "", "Calls of a provider, by what came of them.", ("provider", "outcome"), (), ("notify",)
)
SEND_SECONDS: Final = Metric(
    "histogram", "send_seconds", "seconds", "How long a provider takes.", ("provider",), _SECONDS, ("notify",)
)
NOTICES: Final = Metric(
    "counter", "notices", "", "Notices that came into a state.", ("channel", "state"), (), ("notify",)
)
NOTICE_SECONDS: Final = Metric(
    "histogram",
    "notice_seconds",
    "seconds",
    "From the act as it was recorded until its notice was sent, and until it was delivered.",
    ("channel", "until"),
    _DELAYS,
    ("notify",),
)

# -- stats: what the site has before it, as a whole; by agency only with a token

DOSSIERS: Final = Metric(
    "gauge",
    "dossiers",
    "",
    "Dossiers of the site now: pending, overdue, and those that fall due within a day and are not overdue.",
    ("state",),
    (),
    ("stats",),
)
RESTATEMENTS: Final = Metric(
    "gauge", "restatements", "", "Changes of figures of periods that were closed or asked for.", (), (), ("stats",)
)

METRICS: Final[tuple[Metric, ...]] = tuple(value for value in dict(globals()).values() if isinstance(value, Metric))


class Metrics:
    """The metrics of one service, in a registry of its own: four services may run in one process."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        self._service = service
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        # What was counted once is found at once: `labels` costs as much as the counting.
        self._counted: dict[tuple[str, ...], Counter] = {}
        self._observed: dict[tuple[str, ...], Histogram] = {}
        for metric in METRICS:
            if metric.services and service not in metric.services:
                continue
            labels = ("service", *metric.labels)
            name, why, unit = metric.full_name, metric.why, metric.unit
            match metric.kind:
                case "counter":
                    self._counters[metric.name] = Counter(name, why, labels, unit=unit, registry=self.registry)
                case "gauge":
                    self._gauges[metric.name] = Gauge(name, why, labels, unit=unit, registry=self.registry)
                case "histogram":
                    self._histograms[metric.name] = Histogram(
                        name, why, labels, unit=unit, registry=self.registry, buckets=metric.buckets
                    )
            if not metric.labels:
                self._begin(metric)

    def _begin(self, metric: Metric) -> None:
        """What has no other label is 0 from the start: a rate needs its first sample."""
        match metric.kind:
            case "counter":
                self._counters[metric.name].labels(self._service)
            case "histogram":
                self._histograms[metric.name].labels(self._service)
            case "gauge":
                pass  # a gauge that was never set is absent, not 0

    def add(self, metric: Metric, amount: float = 1, *labels: str) -> None:
        name = (metric.name, *labels)
        if (child := self._counted.get(name)) is None:
            child = self._counted[name] = self._counters[metric.name].labels(self._service, *labels)
        child.inc(amount)

    def total(self, metric: Metric, total: float, *labels: str) -> None:
        """Moves a counter up to a total that is counted elsewhere."""
        counter = self._counters[metric.name].labels(self._service, *labels)
        counter.inc(max(0.0, total - counter._value.get()))

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        self._gauges[metric.name].labels(self._service, *labels).set(value)

    def observe(self, metric: Metric, value: float, *labels: str, trace: str | None = None) -> None:
        """`trace`: the id of a trace in which this was seen; it stands beside the bucket as an exemplar."""
        name = (metric.name, *labels)
        if (child := self._observed.get(name)) is None:
            child = self._observed[name] = self._histograms[metric.name].labels(self._service, *labels)
        child.observe(value, {"trace_id": trace} if trace else None)
