"""What the four services have in common, wired once: stores, relay, consumer, loops, probes, the routes between services.

A service's `app.py` makes a `Service`, says what it consumes, adds its routes and loops, and is done.
"""

import asyncio
import contextlib
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import structlog
from aiokafka.errors import KafkaError
from fastapi import APIRouter, FastAPI
from faststream.kafka import KafkaBroker
from faststream.security import BaseSecurity, SASLScram512

from shared.bus.consumer import PARKED_TOPIC, Consumer, ConsumerSettings
from shared.bus.publisher import WATERMARK_TOPIC, Publisher
from shared.contracts.envelope import Envelope
from shared.contracts.events import TOPICS
from shared.directory.store import LiveDirectory
from shared.observe import metrics as known
from shared.observe.metrics import Metrics
from shared.observe.reconcile import Reconciler
from shared.observe.traces import Traces, cause_of, trace_id
from shared.security.keys import RELOADED_WITHIN, SiteKeys, load_keys, stamp
from shared.security.oidc import Provider
from shared.security.tokens import Principal, Role, Tokens
from shared.security.trust import trusted
from shared.settings import Settings
from shared.store.housekeeping import Housekeeping, Wrapped
from shared.store.inbox import Apply, Fault, Received
from shared.store.log import Log
from shared.store.pool import TRANSIENT_ERRORS, Connection, Pool, open_pool
from shared.store.queries import Queries
from shared.store.relay import PublishFailed, Relay, RelaySettings, Waker
from shared.web.app import include, make_app
from shared.web.gate import Gate
from shared.web.ledger import envelope_from_json
from shared.web.throttle import Throttle

log = structlog.get_logger("lienthong.service")

SERVICES = ("intake", "routing", "notify", "stats")
PATIENCE = 60.0  # seconds without a turn, beyond its rest, after which a loop is not well


def owned_topics(service: str) -> tuple[str, ...]:
    """The topics of the contract that this service alone writes."""
    return tuple(name for name, topic in TOPICS.items() if topic.owner == service)


class Service:
    """One service in one process: `start` connects and runs its loops, `stop` ends them, `asgi` answers HTTP.

    Everything in it may be used by the service's routes, handlers and loops once it has started.
    """

    pool: Pool
    http: httpx.AsyncClient
    directory: LiveDirectory

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        title: str,
        description: str,
        open_paths: Iterable[str] = (),
        large: dict[str, int] | None = None,
        plain: dict[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.name = self.schema = name
        self.settings = settings
        self.source = f"/sites/{settings.site}/{name}"
        self.keys = load_keys(settings.keys_dir)
        self._keys_stamp = stamp(settings.keys_dir)
        self.logins = Throttle(settings.login_failures, settings.login_minutes * 60)
        self.tokens = Tokens(self.keys, settings.site, self.reload_keys)
        self.metrics = Metrics(name)
        self.traces = Traces(name, settings.site, settings.traces_url)
        self.log = Log(name)
        self.store_queries = Queries("shared.store", name)
        self.app: FastAPI = make_app(title, description)
        self.provider = Provider(settings)
        self.asgi = Gate(
            self.app,
            verify=self.tokens.verify,
            provider=self.provider.verify if self.provider.configured else None,
            open_paths=open_paths,
            large=large,
            plain=plain,
            answered=self._note_answer,
            traces=self.traces,
        )
        self.topics = (*owned_topics(name), PARKED_TOPIC, WATERMARK_TOPIC)
        self.publisher = Publisher(settings.bus())
        self.relay = Relay(
            settings.database_url,
            name,
            self.publisher,
            self.topics,
            RelaySettings(
                window_days=settings.bus_window_days,
                window_bytes=settings.bus_window_mb << 20 if settings.bus_window_mb else 1 << 60,
            ),
            progress=lambda: self.beat("relay"),
            metrics=self.metrics,
            published=self.traces.published,
        )
        self.wake = Waker(self.relay, settings.database_url)
        self.consumer: Consumer | None = None
        self._broker: KafkaBroker | None = None
        self._consumed: tuple[str, ...] = ()
        self._apply: Apply | None = None
        self._wrapped: tuple[Wrapped, ...] = ()
        self._loops: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._beats: dict[str, float] = {}
        self._limits: dict[str, float] = {"relay": PATIENCE, "housekeeping": settings.housekeeping_seconds + 300}
        self._on_start: list[Callable[[], Awaitable[None]]] = []
        self._on_applied: list[Callable[[], None]] = [self.wake]
        self._on_observe: list[Callable[[Connection], Awaitable[None]]] = []
        self._on_unready: list[Callable[[], list[str]]] = []
        self.reconciler: Reconciler | None = None
        self.started = False

    # -- what app.py says

    def consume(self, topics: Sequence[str], apply: Apply) -> None:
        """This service applies the events of these topics, each once and in its key's order."""
        self._consumed, self._apply = tuple(topics), self._traced(apply) if self.traces.on else apply

    def include(self, *parts: APIRouter) -> None:
        """This service answers these routes."""
        include(self.app, *parts)

    def _traced(self, apply: Apply) -> Apply:
        async def traced(connection: Connection, events: Sequence[Received]) -> dict[int, Fault]:
            faults: dict[int, Fault] = {}
            with self.traces.applying([event.envelope for event in events], lambda: faults):
                faults = await apply(connection, events)
            return faults

        return traced

    @property
    def consumes(self) -> tuple[str, ...]:
        """The topics of the contract whose events this service applies."""
        return self._consumed

    def run_always(self, name: str, loop: Callable[[], Awaitable[None]], *, silent_for: float = PATIENCE) -> None:
        """A loop of the service; it calls `beat(name)` at each turn, or the service is unhealthy after `silent_for` s."""
        self._loops.append((name, loop))
        self._limits[name] = silent_for

    def wraps(self, *tables: Wrapped) -> None:
        """These tables hold data keys that are wrapped under the site's key."""
        self._wrapped += tables

    def on_start(self, action: Callable[[], Awaitable[None]]) -> None:
        self._on_start.append(action)

    def on_applied(self, action: Callable[[], None]) -> None:
        """`action` is called after each commit of the consumer."""
        self._on_applied.append(action)

    def on_observe(self, action: Callable[[Connection], Awaitable[None]]) -> None:
        """`action` sets the service's own gauges when they are asked for."""
        self._on_observe.append(action)

    def on_unready(self, reasons: Callable[[], list[str]]) -> None:
        """`reasons` says why the service cannot be asked yet, beside what all services need."""
        self._on_unready.append(reasons)

    def _note_answer(self, method: str, route: str, status: int, seconds: float) -> None:
        self.metrics.add(known.REQUESTS, 1, method, route, f"{status // 100}xx")
        self.metrics.observe(known.REQUEST_SECONDS, seconds, route, trace=trace_id(cause_of()))

    def _applied(self) -> None:
        for action in self._on_applied:
            action()

    def reload_keys(self) -> SiteKeys | None:
        """The keys anew if a rotation has changed them, else None."""
        now = stamp(self.settings.keys_dir)
        if now == self._keys_stamp:
            return None
        self.keys, self._keys_stamp = load_keys(self.settings.keys_dir), now
        return self.keys

    async def _watch_keys(self) -> None:
        while True:
            if (keys := self.reload_keys()) is not None:
                self.tokens.use(keys)
                log.info("keys-reloaded", service=self.name)
            await asyncio.sleep(RELOADED_WITHIN / 2)

    def beat(self, name: str) -> None:
        """The loop `name` has made progress."""
        self._beats[name] = time.monotonic()

    # -- life

    async def start(self) -> None:
        """Connects to the database and starts the loops; the bus may come later. The site's schema must exist."""
        self.pool = await open_pool(self.settings.database_url, size=self.settings.database_pool)
        self.http = httpx.AsyncClient(timeout=10.0, verify=trusted())
        self.directory = LiveDirectory(self.pool)
        await self.directory.refresh()
        for action in self._on_start:
            await action()
        self._task("relay", self.relay.run)
        self._task("wake", self.wake.run)
        self._task("directory", self.directory.run)
        self._task("keys", self._watch_keys)
        if self._apply is not None:
            self._broker = self._kafka()
            self.consumer = Consumer(
                self._broker,
                self.settings.bus(),
                service=self.name,
                topics=self._consumed,
                pool=self.pool,
                schema=self.schema,
                source=self.source,
                apply=self._apply,
                ask_owner=self.ask_owner,
                after_commit=self._applied,
                settings=ConsumerSettings(
                    gap_wait=self.settings.gap_wait,
                    breaker_limit=self.settings.breaker_limit,
                    session_timeout=self.settings.session_seconds,
                ),
                metrics=self.metrics,
            )
            self.reconciler = Reconciler(self)
            self._task("reconcile", self.reconciler.run)
            self._task("consumer", self._start_consumer)
            self._task("gaps", self.consumer.run_gaps)
            reading = self.consumer.run_topic_ids if self.settings.bus_groups else self.consumer.run_positions
            self._task("positions", reading)
        housekeeping = Housekeeping(self, self._wrapped, self.settings.housekeeping_seconds)
        for name, loop in (*self._loops, ("housekeeping", housekeeping.run)):
            self.beat(name)
            self._task(name, loop)
        self.beat("relay")
        self.started = True

    async def stop(self) -> None:
        """Ends what is in flight within seconds; what was answered is stored, what was not comes again."""
        self.started = False
        if self.consumer is not None:
            await self.consumer.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._broker is not None:
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                async with asyncio.timeout(5.0):
                    await self._broker.stop()
        await self.publisher.close()
        if self.traces.on:
            await asyncio.to_thread(self.traces.close)
        if hasattr(self, "http"):
            await self.http.aclose()
        if hasattr(self, "pool"):
            try:
                async with asyncio.timeout(3.0):
                    await self.pool.close()
            except TimeoutError:
                self.pool.terminate()

    def _task(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        async def kept_alive() -> None:
            """A loop that breaks is a bug to be seen in the log and in /healthz, and goes on."""
            while True:
                try:
                    await run()
                    return
                except asyncio.CancelledError:
                    raise
                except Exception as error:
                    self.metrics.add(known.LOOP_FAILURES, 1, name)
                    log.error("loop-failed", service=self.name, kind=name, exc_info=error)
                    await asyncio.sleep(1.0)

        self._tasks.append(asyncio.create_task(kept_alive(), name=f"{self.name}:{name}"))

    def _kafka(self) -> KafkaBroker:
        bus = self.settings.bus()
        client = bus.client()
        security: BaseSecurity | None = None
        if bus.security_protocol.startswith("SASL"):
            security = SASLScram512(
                username=bus.username or "",
                password=bus.password or "",
                use_ssl=bus.security_protocol.endswith("SSL"),
                ssl_context=client.get("ssl_context"),
            )
        elif "ssl_context" in client:
            security = BaseSecurity(use_ssl=True, ssl_context=client["ssl_context"])
        return KafkaBroker(
            bus.bootstrap.split(","),  # one text would be taken for one address
            metadata_max_age_ms=client["metadata_max_age_ms"],
            security=security,
            allow_auto_create_topics=False,
            graceful_timeout=5.0,
            logger=None,
        )

    async def _start_consumer(self) -> None:
        """Waits for the topics, which their owners make, and joins the group; a group join takes its broker seconds."""
        assert self._broker is not None
        assert self.consumer is not None
        wanted = set(self._consumed) | {WATERMARK_TOPIC}
        while True:
            with contextlib.suppress(PublishFailed):
                if wanted <= {topic for topic, _ in await self.publisher.ends(sorted(wanted))}:
                    break
            await asyncio.sleep(0.2)
        while True:
            try:
                await self.consumer.remember(await self.publisher.ids(sorted(wanted)))
                await self._broker.start()
                self.consumer.go_on()
                return
            except (KafkaError, PublishFailed, *TRANSIENT_ERRORS) as error:
                log.warning("consumer-not-started", service=self.name, error=type(error).__name__)
                await self._broker.stop()
                await asyncio.sleep(1.0)

    # -- between services

    async def ask_owner(self, topic: str, key: str, after: int) -> list[Envelope]:
        """All of the owner's events of a key above a sequence. Raises OSError when the owner does not answer."""
        url = f"{self.settings.url_of(TOPICS[topic].owner)}/v1/ledger"
        events: list[Envelope] = []
        while True:
            try:
                answer = await self.http.get(
                    url, params={"topic": topic, "key": key, "after": after}, headers=self.service_token()
                )
                answer.raise_for_status()
            except httpx.HTTPError as error:
                raise ConnectionError(f"{TOPICS[topic].owner} does not answer: {type(error).__name__}") from error
            page = [envelope_from_json(topic, item) for item in answer.json()["items"]]
            events += page
            if not page or len(page) < 1000:
                return events
            after = page[-1].sequence

    async def ask(self, service: str, path: str, **params: str) -> list[Any]:
        """The items of another service's list. Raises OSError when it does not answer."""
        try:
            answer = await self.http.get(
                self.settings.url_of(service) + path, params=params, headers=self.service_token()
            )
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise ConnectionError(f"{service} does not answer: {type(error).__name__}") from error
        items: list[Any] = answer.json()["items"]
        return items

    def token_of(self, who: Principal) -> dict[str, str]:
        """For what a page asks of another service in the name, and with the rights, of who looks at it."""
        token = self.tokens.issue(who.role, agency=who.agency, subtree=who.subtree, name=who.subject, hours=0.1)
        cause = cause_of()
        return {"Authorization": f"Bearer {token}", **({} if cause is None else {"traceparent": cause})}

    def service_token(self) -> dict[str, str]:
        token = self.tokens.issue(Role.SERVICE, name=self.name, hours=0.1)
        cause = cause_of()
        return {"Authorization": f"Bearer {token}", **({} if cause is None else {"traceparent": cause})}

    # -- probes

    def late(self, now: float) -> dict[str, float]:
        """By loop: the seconds since it last turned, beyond the rest that it takes between two turns."""
        return {
            name: max(0.0, now - beat - (self._limits.get(name, PATIENCE) - PATIENCE))
            for name, beat in self._beats.items()
        }

    def unhealthy(self) -> list[str]:
        """What makes no progress; empty when all is well."""
        now = time.monotonic()
        reasons = [
            f"{name}: no progress for {now - self._beats[name]:.0f} s"
            for name, limit in self._limits.items()
            if name in self._beats and now - self._beats[name] > limit
        ]
        if self.consumer is not None and (why := self.consumer.stuck()):
            reasons.append(f"consumer: {why}")
        return reasons

    async def unready(self) -> list[str]:
        """Why requests cannot be answered now; empty when they can."""
        if not self.started:
            return ["starting"]
        reasons = []
        if not self.directory.loaded:
            reasons.append("no bundle has been loaded: lienthong site load FILE")
        try:
            async with asyncio.timeout(3.0), self.pool.acquire() as connection:
                await connection.fetchval("SELECT 1")
        except TRANSIENT_ERRORS:
            reasons.append("the database does not answer")
        return reasons + [reason for more in self._on_unready for reason in more()]

    async def observe(self) -> None:
        """Brings the gauges up to date, when they are asked for."""
        metrics = self.metrics
        metrics.set(known.DATABASE, 0)
        with contextlib.suppress(*TRANSIENT_ERRORS):
            async with asyncio.timeout(5.0), self.pool.acquire() as connection:
                backlog = await connection.fetchrow(self.store_queries["backlog"])
                assert backlog is not None
                metrics.set(known.OUTBOX_WAITING, backlog["waiting"])
                metrics.set(known.OUTBOX_OLDEST, age(backlog["oldest"]))
                metrics.set(known.PARKED, await connection.fetchval(self.store_queries["parked_count"]))
                if self.consumer is not None:
                    await self._observe_completeness(connection)
                for action in self._on_observe:
                    await action(connection)
            metrics.set(known.DATABASE, 1)
        metrics.total(known.OUTBOX_PUBLISHED, self.relay.published)
        metrics.total(known.BUS_REBUILDS, self.relay.rebuilds)
        metrics.set(known.DISK_FREE, free_at(self.settings.keys_dir))
        metrics.set(known.BUILD, 1, version("lienthong"))
        if (expires := expiry_of(self.settings.bus_ca_file)) is not None:
            metrics.set(known.CERTIFICATE, expires)
        for name, late in self.late(time.monotonic()).items():
            metrics.set(known.LOOP_PROGRESS, late, name)
        if self.reconciler is not None:
            self.reconciler.observe()
        if self.consumer is not None:
            lags = dict.fromkeys(self._consumed, 0)
            for (topic, _), lag in self.consumer.lag().items():
                lags[topic] = lags.get(topic, 0) + lag
            for topic, lag in lags.items():
                metrics.set(known.CONSUMER_LAG, lag, topic)
            metrics.total(known.CONSUMER_APPLIED, self.consumer.totals.applied)
            metrics.total(known.CONSUMER_DUPLICATES, self.consumer.totals.duplicates)
            metrics.set(known.CONSUMER_PROGRESS, self.consumer.seconds_without_progress())
            metrics.set(known.BREAKER, 1 if self.consumer.breaker.open else 0)

    async def _observe_completeness(self, connection: Connection) -> None:
        """How old what is applied is, by topic; a topic that no mark has reached yet says nothing."""
        for row in await connection.fetch(self.store_queries["complete"]):
            if row["upto"] is not None:
                self.metrics.set(known.CONSUMER_BEHIND, age(row["upto"]), row["topic"])


def age(instant: datetime | None) -> float:
    """Seconds since then; 0 for what is not there."""
    return 0.0 if instant is None else max(0.0, time.time() - instant.timestamp())


def free_at(folder: Path) -> int:
    """Bytes free on the file system of a folder, or of what will hold it."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def expiry_of(file: str | None) -> float | None:
    """Seconds until the first certificate of a PEM file expires; None without one, 0 when it cannot be read."""
    if file is None:
        return None
    from cryptography.x509 import load_pem_x509_certificates

    try:
        found = load_pem_x509_certificates(Path(file).read_bytes())
    except (OSError, ValueError):
        return 0.0
    return min(certificate.not_valid_after_utc.timestamp() for certificate in found) - time.time()
