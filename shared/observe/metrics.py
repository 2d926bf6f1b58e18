"""Every metric of every service, in one list: its name, unit, labels, and why it is there. No personal data, no codes of
dossiers, and only labels with few values."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, choose_encoder

__all__ = ["CONTENT_TYPE_LATEST", "Metrics", "choose_encoder"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one service, in a registry of its own: four services may run in one process."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        self._service = service
        # How many requests are answered and how: a rise of 5xx is what a desk feels first.
        self.requests = self._counter("http_requests", "Requests answered", "method", "route", "status")
        # How long a desk waits.
        self.request_seconds = self._histogram("http_request_seconds", "Time to answer", "route")
        # Promise 2: what is stored and not yet on the bus, and for how long.
        self.outbox_waiting = self._gauge("outbox_waiting", "Events stored and not yet published")
        self.outbox_oldest_seconds = self._gauge("outbox_oldest_seconds", "Age of the oldest unpublished event")
        self.outbox_published = self._counter("outbox_published", "Events published, repeats included")
        self.bus_rebuilds = self._counter("bus_rebuilds", "Times that an emptied bus was filled again, by shard")
        # Promise 3: how far behind the consumer is, and whether it moves.
        self.consumer_lag = self._gauge("consumer_lag_records", "Records on the bus and not yet applied", "topic")
        self.consumer_applied = self._counter("consumer_applied", "Events applied")
        self.consumer_duplicates = self._counter("consumer_duplicates", "Events dropped as duplicates")
        self.consumer_progress_seconds = self._gauge(
            "consumer_since_progress_seconds", "Time since the consume loop last ended a batch while records waited"
        )
        # Promise 4: what is parked, and whether the breaker stopped the consumer.
        self.parked = self._gauge("parked_keys", "Dossiers that wait behind a parked event")
        self.breaker_open = self._gauge("breaker_open", "1 while too many bad events hold the consumer")

    def _counter(self, name: str, why: str, *labels: str) -> Counter:
        return Counter(f"lienthong_{self._service}_{name}", why, labels, registry=self.registry)

    def _gauge(self, name: str, why: str, *labels: str) -> Gauge:
        return Gauge(f"lienthong_{self._service}_{name}", why, labels, registry=self.registry)

    def _histogram(self, name: str, why: str, *labels: str) -> Histogram:
        return Histogram(f"lienthong_{self._service}_{name}", why, labels, registry=self.registry, buckets=_SECONDS)
