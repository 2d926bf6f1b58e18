"""What is planned goes out: the sender of a site, one at a time whichever process it is in.

An attempt is on record before its provider is called, and its outcome after; what lies between is, after a crash, an
unknown outcome. The lock of the one sender is a session's: it ends with the process that held it, and the next finds
what was in flight. Providers' rates and health are therefore known to one process.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import zip_longest
from typing import Any
from uuid import UUID

import asyncpg
import structlog

from services.notify.handlers import CONTACT_TOPIC, Handlers
from services.notify.health import Health, Outage, Pace, Purse, choose, order_of
from services.notify.line import Line
from services.notify.notice import (
    NoAnswer,
    Notice,
    NotTaken,
    Outcome,
    Pauses,
    Refused,
    Step,
    Taken,
    after_attempt,
    expired,
    handed_over,
    held,
    quiet_until,
    undeliverable,
    unnamed,
)
from services.notify.postal import Order, OrderStep, carrier_of, ordered, refused
from services.notify.providers import Caller, File, Http, Kannel, Sms, secret_of
from services.notify.settings import NotifySettings
from services.notify.store import Store
from services.notify.tracking import next_look, record_report, report_of, state_of
from shared.contracts.codes import LOCAL_ZONE
from shared.directory.bundle import CarrierEntry, ProviderEntry
from shared.observe.metrics import NOTICES_OLDEST, NOTICES_WAITING, SEND_SECONDS, SENDS
from shared.observe.traces import causing, now_ns
from shared.service import Service, age
from shared.store.pool import TRANSIENT_ERRORS, connect

log = structlog.get_logger("lienthong.notify")

CHANNEL = "notify_sender"
_LOCK = 0x4C54_736D  # advisory lock of the one sender of a site
CLAIM = 500  # notices at once
STOP_WITHIN = 1.5  # seconds that calls in flight are given at the end
SAID = {Taken: "taken", Refused: "refused", NotTaken: "not-taken", NoAnswer: "no-answer"}
STANDBY = 1.0  # seconds between two looks at the lock
TOGETHER = 0.01  # seconds; what ends within them is recorded in one transaction, while other calls still run
ORDERS_AT_ONCE = 8  # calls in flight with one carrier
CLOCK_STEP = 2.0  # seconds by which the wall clock may lag behind without having been put back


@dataclass(slots=True)
class Gateway:
    """One provider as it is used: its way, its health, its pace."""

    entry: ProviderEntry
    health: Health
    pace: Pace
    caller: Caller | None = None
    file: File | None = None
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def dedupes(self) -> bool:
        """The file is looked up before anything is written to it again."""
        return self.entry.dedupes or self.file is not None


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt and what came of it."""

    notice: UUID
    dossier: str
    provider: str
    outcome: Outcome
    began: int | None = None  # ns since 1970, where calls are traced
    at: int | None = None


class Sender:
    """Sends what is due; `run` never ends by itself, `wake` says that there may be something due."""

    def __init__(self, service: Service, store: Store, handlers: Handlers, settings: NotifySettings) -> None:
        self._service, self._store, self._handlers, self._settings = service, store, handlers, settings
        self._awake, self._told_others, self._ended_event = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._gateways: dict[str, Gateway] = {}
        self._version = -1  # the directory's version
        self._ended: list[Ended] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._held_going: asyncio.Task[None] | None = None
        self._held_pace = Pace(settings.held_per_second)
        self._posting: asyncio.Task[None] | None = None
        self._tracking: asyncio.Task[None] | None = None
        self._turn = 0
        self._forgotten_to = UUID(int=0)
        self._forget_at = 0.0
        self._purse = Purse(_now().astimezone(LOCAL_ZONE).date())
        self._opted_out: frozenset[str] = frozenset()
        self._opt_outs_mark = ""
        self._skew: float | None = None  # the wall clock's distance from the one that only goes forward
        self._outages: dict[str, Outage] = {}  # of the carriers
        self._pauses = Pauses(timedelta(seconds=settings.retry_first), timedelta(seconds=settings.retry_most))
        self._ways: dict[str, Line] = {}  # by URL
        self.active = False

    def wake(self) -> None:
        """Called after each commit that may have planned something."""
        self._awake.set()
        if not self.active:
            self._told_others.set()

    async def observe(self, connection: Any) -> None:
        """What waits to be told, and for how long."""
        rows = {row["state"]: row for row in await connection.fetch(self._store.queries["notices_waiting"])}
        for state in ("planned", "held", "unknown"):
            self._service.metrics.set(NOTICES_WAITING, rows[state]["notices"] if state in rows else 0, state)
        self._service.metrics.set(NOTICES_OLDEST, age(rows["planned"]["oldest"]) if "planned" in rows else 0.0)

    # -- life

    async def run(self) -> None:
        """Waits for its turn as the site's sender, and sends. Whatever breaks, it begins again by taking the lock."""
        while True:
            self._service.beat("sender")
            try:
                await self._session()
            except (*TRANSIENT_ERRORS, asyncpg.PostgresError) as error:
                log.warning("sender-interrupted", service="notify", error=type(error).__name__)
                await asyncio.sleep(STANDBY)

    async def _session(self) -> None:
        connection = await connect(self._service.settings.database_url)
        try:
            while not self._service.directory.loaded:
                self._service.beat("sender")
                await asyncio.sleep(STANDBY)
            await self._until_locked(connection)
            self.active = True
            await connection.add_listener(CHANNEL, lambda *_: self._awake.set())
            self._version = -1
            recorder = asyncio.create_task(self._record_always())
            try:
                await self._recover(connection)
                await self._count_spent(connection, _now())
                await connection.execute(self._store.queries["notices_at_once"], _now(), False)
                await self._work(connection)
            finally:
                await self._wind_down(recorder)
                for way in self._ways.values():
                    way.close()
                self._ways.clear()
        finally:
            self.active = False
            with contextlib.suppress(*TRANSIENT_ERRORS, asyncpg.PostgresError):
                await connection.close(timeout=2.0)

    async def _until_locked(self, connection: Any) -> None:
        """Until then another process sends: it is told of what this one has planned."""
        while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            self._service.beat("sender")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STANDBY):
                    await self._told_others.wait()
            if self._told_others.is_set():
                self._told_others.clear()
                await connection.execute(f"NOTIFY {CHANNEL}")

    async def _wind_down(self, recorder: "asyncio.Task[None]") -> None:
        """Calls in flight may end; what they came to is recorded."""
        recorder.cancel()
        await asyncio.gather(recorder, return_exceptions=True)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=STOP_WITHIN)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        with contextlib.suppress(TimeoutError, *TRANSIENT_ERRORS, asyncpg.PostgresError):
            async with asyncio.timeout(STOP_WITHIN):
                await self._record()

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: "asyncio.Task[None]") -> None:
        """What broke in the midst stays as it is recorded: in flight, or due again."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("sending-interrupted", service="notify", error=type(error).__name__)

    # -- the loop

    async def _work(self, connection: Any) -> None:
        loop = asyncio.get_running_loop()
        next_look = 0.0
        while not connection.is_closed():
            self._service.beat("sender")
            if loop.time() >= next_look:
                await self._look(connection)
                next_look = loop.time() + self._settings.sender_poll
            self._awake.clear()
            claimed, pause = await self._claim(connection)
            if claimed:
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.001, min(pause, next_look - loop.time()))):
                    await self._awake.wait()
        raise ConnectionResetError("the sender's lock session ended")

    async def _look(self, connection: Any) -> None:
        """What time alone brings about: retries, the end of quiet hours, expiry, late decisions, letters, orders."""
        queries, now = self._store.queries, _now()
        await self._watch_clock(connection, now)
        await self._read_opt_outs(connection)
        look = await connection.fetchrow(queries["look"], now)
        if look["retry"]:
            await connection.execute(queries["notices_retry"], now)
        if look["held"] and self._quiet(now) is None:
            await connection.execute(queries["notices_release"])
        if look["expired"]:
            rows = await connection.fetch(queries["notices_expired"], now)
            await self._move([row["id"] for row in rows], expired, now)
        if look["tellings"] and await self._contacts_asked_for(connection, now):
            async with self._service.pool.acquire() as own, own.transaction():
                decided = await self._handlers.decide_late(own, now)
            if decided:
                self._service.wake()
        if look["post"]:
            rows = await connection.fetch(queries["notices_for_post"], now)
            async with self._service.pool.acquire() as own, own.transaction():
                await self._handlers.follow_by_post(own, [row["id"] for row in rows], now)
            self._service.wake()
        if look["orders"] and (self._posting is None or self._posting.done()):
            self._posting = self._start(self._post(now))
        if look["track"] and (self._tracking is None or self._tracking.done()):
            self._tracking = self._start(self._track(now))
        await self._forget_texts(connection, now)

    async def _watch_clock(self, connection: Any, now: datetime) -> None:
        """Put back, it would let what waits for a time wait for so much longer."""
        skew = now.timestamp() - asyncio.get_running_loop().time()
        if self._skew is not None and skew < self._skew - CLOCK_STEP:
            await connection.execute(self._store.queries["notices_at_once"], now, True)
            log.warning("clock-put-back", service="notify", seconds=round(self._skew - skew))
        self._skew = skew
        day = now.astimezone(LOCAL_ZONE).date()
        if day < self._purse.day:  # what was spent on that day is no longer known
            await self._count_spent(connection, now)
        self._purse.turn(day)

    async def _count_spent(self, connection: Any, now: datetime) -> None:
        """What has been spent of the day's budgets, from what was sent: a notice is not older than it lasts."""
        directory, local = self._service.directory.current, now.astimezone(LOCAL_ZONE)
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
        oldest = midnight - timedelta(hours=directory.sms.expire_hours + 1)
        rows = await connection.fetch(self._store.queries["parts_spent"], first_id_of(oldest), midnight)
        self._purse = Purse(local.date())
        for row in rows:
            self._purse.take(directory.budgets_of(row["agency"]), row["parts"])

    async def _read_opt_outs(self, connection: Any) -> None:
        mark = await connection.fetchval(self._store.queries["opt_outs_mark"])
        if mark != self._opt_outs_mark:
            rows = await connection.fetch(self._store.queries["opt_outs"])
            self._opted_out, self._opt_outs_mark = frozenset(row["phone_hash"] for row in rows), mark

    async def _contacts_asked_for(self, connection: Any, now: datetime) -> bool:
        """Before an act is given up for want of a contact, the contact's owner is asked: the bus may be behind, or empty.

        False while the owner is away: the act waits on.
        """
        consumer = self._service.consumer
        if consumer is None:
            return True
        try:
            for row in await connection.fetch(self._store.queries["contacts_missing"], now):
                await consumer.from_owner(CONTACT_TOPIC, row["contact_ref"])
        except OSError:
            return False
        return True

    async def _move(self, ids: Sequence[UUID], step: Callable[[Notice], Step], now: datetime) -> None:
        if not ids:
            return
        async with self._service.pool.acquire() as connection, connection.transaction():
            codes = await self._store.codes_of(connection, ids)
            await self._store.move(connection, codes, ids, step, now=now)
        self._service.wake()

    async def _forget_texts(self, connection: Any, now: datetime) -> None:
        """Sealed texts are kept for so many days: ids begin with the time at which they were made."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._forget_at:
            return
        before = first_id_of(now - timedelta(days=self._settings.text_days))
        rows = await connection.fetch(self._store.queries["texts_forget"], before, self._forgotten_to)
        if rows:
            self._forgotten_to = max(row["id"] for row in rows)
        self._forget_at = loop.time() + (1.0 if rows else 3600.0)

    def _quiet(self, now: datetime) -> datetime | None:
        return quiet_until(self._service.directory.current.quiet_hours, now)

    # -- claiming

    async def _claim(self, connection: Any) -> tuple[bool, float]:
        """Begins what may begin now; whether there was anything, else for how long to sleep at most."""
        now, clock = _now(), asyncio.get_running_loop().time()
        if (until := self._quiet(now)) is not None:
            rows = await connection.fetch(self._store.queries["notices_to_hold"])
            await self._move([row["id"] for row in rows], lambda notice: held(notice, until), now)
            if rows:
                return True, 0.0
        if self._refresh_gateways():
            await self._count_spent(connection, now)
            await connection.execute(self._store.queries["notices_at_once"], now, False)
        room = {name: self._room(gateway, clock) for name, gateway in self._gateways.items()}
        waits = [wait for gateway in self._gateways.values() if (wait := gateway.pace.wait(clock)) > 0]
        pause = min(waits, default=self._settings.sender_poll)
        if self._gateways and not any(free > 0 for free in room.values()):
            return False, pause
        page = min(CLAIM, 2 * sum(room.values()) or CLAIM)
        fresh, from_night = (0, 0) if until is not None else (page, min(page, self._room_for_held(clock)))
        full, free = ([name for name in room if (room[name] > 0) == wanted] for wanted in (False, True))
        rows = await connection.fetch(self._store.queries["notices_due"], page, fresh, from_night, full, free)
        if not rows:
            return False, min(pause, self._held_pace.wait(clock) or pause)
        chosen, homeless, unpaid = self._choose(fairly(rows), room, clock)
        if homeless:
            later = now + timedelta(seconds=self._settings.retry_most)
            await connection.execute(self._store.queries["notices_later"], homeless, later, "no-provider")
        if unpaid:
            await connection.execute(self._store.queries["notices_later"], unpaid, next_midnight(now), "over-budget")
        if not chosen:
            return bool(unpaid), pause
        prices = {name: gateway.entry.price for name, gateway in self._gateways.items()}
        marks = {name: gateway.file.end() for name, gateway in self._gateways.items() if gateway.file is not None}
        begun = await connection.fetch(
            self._store.queries["notices_begin"],
            [row["id"] for row, _ in chosen],
            [name for _, name in chosen],
            [marks.get(name) for _, name in chosen],
            [prices[name] for _, name in chosen],
        )
        ours = {row["id"]: row for row in begun}
        for row, _ in chosen:
            if row["id"] not in ours:
                self._pay(row, -row["parts"])
        waited = {row["id"] for row, _ in chosen if row["state"] == "held"}
        self._dispatch([(ours[row["id"]], name) for row, name in chosen if row["id"] in ours], waited)
        return bool(ours), self._settings.sender_poll

    def _room(self, gateway: Gateway, clock: float) -> int:
        """How many notices the gateway can take now; a file takes batches, and few of them wait for it.

        A call that has ended counts until that is recorded: should this process die, nobody else knows of either.
        """
        running = gateway.health.running
        if gateway.file is not None:
            at_once = CLAIM * (running < 4)
        else:
            unrecorded = sum(1 for ended in self._ended if ended.provider == gateway.entry.name)
            at_once = self._settings.calls_at_once - running - unrecorded
        return max(0, min(at_once, gateway.pace.free(clock)))

    def _room_for_held(self, clock: float) -> int:
        """How many held notices may begin now: one after another, and a long night's over minutes."""
        going = self._held_going is not None and not self._held_going.done()
        return 0 if going else self._held_pace.free(clock)

    def _choose(
        self, rows: Sequence[Any], room: dict[str, int], clock: float
    ) -> tuple[list[tuple[Any, str]], list[UUID], list[UUID]]:
        """A provider for each notice; those for which there is no provider at all; those that are over their budget."""
        trust = {name: gateway.health.trust(clock) for name, gateway in self._gateways.items()}
        entries = [gateway.entry for gateway in self._gateways.values()]
        directory = self._service.directory.current
        chosen, homeless, unpaid = [], [], []
        for row in rows:
            if not any(free > 0 for free in room.values()) and entries:
                break
            order = order_of(entries, trust, self._turn)
            name = choose(order, row["tried"], row["provider"] if row["bound"] else None)
            if name is None and order and not row["bound"]:
                name = order[0]
            if name is None:
                homeless.append(row["id"])
            elif room[name] <= 0:
                continue
            elif not (row["bound"] or row["urgent"]) and not self._purse.affords(
                directory.budgets_of(row["agency"]), row["parts"]
            ):
                unpaid.append(row["id"])
            else:
                room[name] -= 1
                self._pay(row, row["parts"])
                self._turn += 1
                self._gateways[name].pace.take(clock)
                if row["state"] == "held":
                    self._held_pace.take(clock)
                chosen.append((row, name))
        return chosen, homeless, unpaid

    def _pay(self, row: Any, parts: int) -> None:
        """Once for each notice: one that is repeated under its id was paid for."""
        if not row["bound"]:
            self._purse.take(self._service.directory.current.budgets_of(row["agency"]), parts)

    # -- calling

    def _dispatch(self, begun: Sequence[tuple[Any, str]], waited: Collection[UUID]) -> None:
        """`waited`: those of them that were held."""
        in_files: dict[str, list[Any]] = {}
        held_back: list[Callable[[], Coroutine[Any, Any, None]]] = []
        for row, name in begun:
            gateway = self._gateways[name]
            if gateway.file is not None:
                in_files.setdefault(name, []).append(row)
            elif row["id"] in waited:
                held_back.append(partial(self._call, gateway, row))
            else:
                self._start(self._call(gateway, row))
        for name, rows in in_files.items():
            self._start(self._write(self._gateways[name], rows))
        if held_back:
            self._held_going = self._start(self._one_after_another(held_back))

    async def _one_after_another(self, calls: Sequence[Callable[[], Coroutine[Any, Any, None]]]) -> None:
        """Held notices go out in the order planned, also where a provider takes many at once."""
        for call in calls:
            await asyncio.wait([self._start(call())], timeout=self._settings.held_patience)
        self.wake()

    async def _call(self, gateway: Gateway, row: Any) -> None:
        loop = asyncio.get_running_loop()
        content = self._store.open(row, row["recipient"])
        if (against := await self._never(content)) is not None:
            self._end(row, gateway, against)
            return
        assert content is not None
        assert gateway.caller is not None
        began, began_ns = loop.time(), now_ns()
        call = gateway.health.begin(began)
        outcome: Outcome = NoAnswer("cut-off")
        try:
            sms = Sms(row["id"], content["to"], content["text"], self._service.directory.current.sms.sender)
            outcome = await gateway.caller.send(sms)
        finally:
            # A recipient's fault is none of the provider's.
            gateway.health.end(call, loop.time(), failed=isinstance(outcome, NotTaken | NoAnswer))
            self._service.metrics.observe(SEND_SECONDS, loop.time() - began, gateway.entry.name)
            self._end(row, gateway, outcome, began_ns)

    async def _never(self, content: dict[str, Any] | None) -> Refused | None:
        """Why this person is not told after all: erased, or they have said since that they want no SMS."""
        if content is None:
            return Refused("erased")
        if self._opted_out and self._store.phone_hash(content["to"]) in self._opted_out:
            async with self._service.pool.acquire() as connection:  # they may have taken it back a moment ago
                if await self._store.opted_out(connection, [content["to"]]):
                    return Refused("opted-out")
        return None

    async def _write(self, gateway: Gateway, rows: Sequence[Any]) -> None:
        """A file takes a whole batch with one sync, in its order."""
        file, loop = gateway.file, asyncio.get_running_loop()
        assert file is not None
        contents, never = dict[UUID, dict[str, Any]](), dict[UUID, Refused]()
        for row in rows:
            content = self._store.open(row, row["recipient"])
            if (against := await self._never(content)) is not None:
                never[row["id"]] = against
            elif content is not None:
                contents[row["id"]] = content
        at = _now().astimezone(LOCAL_ZONE).isoformat(timespec="milliseconds")
        began = loop.time()
        call = gateway.health.begin(began)
        failed = False
        async with gateway.writing:
            again = [row["id"] for row in rows if row["bound"]]
            start = await asyncio.to_thread(file.end)
            try:
                there = await asyncio.to_thread(file.written, again, 0) if again else set[UUID]()
                documents = [
                    {"id": str(key), "to": content["to"], "text": content["text"], "at": at}
                    for key, content in contents.items()
                    if key not in there
                ]
                await asyncio.to_thread(file.append, documents)
            except OSError:
                failed = True
                there = await asyncio.to_thread(file.written, list(contents), start)
        gateway.health.end(call, loop.time(), failed=failed)
        self._service.metrics.observe(SEND_SECONDS, loop.time() - began, gateway.entry.name)
        for row in rows:
            if row["id"] in never:
                self._end(row, gateway, never[row["id"]])
            elif not failed or row["id"] in there:
                self._end(row, gateway, Taken())
            else:
                self._end(row, gateway, NotTaken("not-written"))

    def _end(self, row: Any, gateway: Gateway, outcome: Outcome, began: int | None = None) -> None:
        self._service.metrics.add(SENDS, 1, gateway.entry.name, SAID[type(outcome)])
        if isinstance(outcome, Refused | NotTaken):
            self._pay(row, -row["parts"])
        self._ended.append(Ended(row["id"], row["dossier"], gateway.entry.name, outcome, began, now_ns()))
        self._ended_event.set()

    # -- recording

    async def _record_always(self) -> None:
        while True:
            await self._ended_event.wait()
            self._ended_event.clear()
            if any(gateway.health.running for gateway in self._gateways.values()):
                await asyncio.sleep(TOGETHER)
            try:
                await self._record()
                if self._ended:
                    self._ended_event.set()
            except (*TRANSIENT_ERRORS, asyncpg.PostgresError) as error:
                log.warning("outcomes-not-recorded", service="notify", error=type(error).__name__)
                self._ended_event.set()
                await asyncio.sleep(0.5)

    async def _record(self) -> None:
        """Writes what attempts came to: many in one transaction when they end together."""
        batch = self._ended[:CLAIM]
        if not batch:
            return
        by_notice = {ended.notice: ended for ended in batch}
        providers = list(self._gateways)

        def step(notice: Notice) -> Step:
            ended = by_notice[notice.id]
            gateway = self._gateways.get(ended.provider)
            return after_attempt(
                notice,
                ended.provider,
                ended.outcome,
                dedupes=gateway is not None and gateway.dedupes,
                reports=gateway is not None and gateway.entry.receipts,
                providers=providers,
                now=now,
                pauses=self._pauses,
            )

        async with self._service.pool.acquire() as connection, connection.transaction():
            now = await self._service.log.now(connection)
            codes = [ended.dossier for ended in batch]
            with causing(await self._traced(connection, batch)):
                await self._store.move(connection, codes, list(by_notice), step, now=now)
        del self._ended[: len(batch)]
        self._service.wake()
        self._awake.set()

    async def _traced(self, connection: Any, batch: Sequence[Ended]) -> dict[str, str]:
        """Each call as a span of the act that it tells of, as far as that is traced; what is recorded follows from it."""
        traces = self._service.traces
        if not traces.on:
            return {}
        causes = await self._service.log.causes(connection, [ended.dossier for ended in batch], "notice.planned")
        for ended in batch:
            if (cause := causes.get(ended.dossier)) is None:
                continue
            said = {"lienthong.key": ended.dossier, "lienthong.notice": str(ended.notice)}
            span = traces.begin(f"send {ended.provider}", "client", cause, said, at=ended.began or ended.at)
            causes[ended.dossier] = traces.traceparent(span) or cause
            outcome = ended.outcome
            traces.end(span, failed=None if isinstance(outcome, Taken) else SAID[type(outcome)], at=ended.at)
        return causes

    async def _recover(self, connection: Any) -> None:
        """Attempts that had begun when their sender died: the file is looked up, of the others nobody knows."""
        self._refresh_gateways()
        rows = await connection.fetch(self._store.queries["notices_in_flight"])
        in_file = await asyncio.to_thread(_written, File(self._settings.sent_file), rows)
        for row in rows:
            gateway = self._gateways.get(row["provider"])
            outcome: Outcome = NoAnswer("cut-off")
            if gateway is not None and gateway.file is not None:
                outcome = Taken() if row["id"] in in_file else NotTaken("not-written")
            self._ended.append(Ended(row["id"], row["dossier"], row["provider"], outcome))
        while self._ended:
            await self._record()
        orders = await connection.fetch(self._store.queries["orders_in_flight"])
        in_file = await asyncio.to_thread(_written, File(self._settings.postal_file), orders)
        files = {carrier.name for carrier in self._service.directory.current.carriers if carrier.kind == "file"}
        outcomes: dict[UUID, Outcome] = {
            row["id"]: Taken()
            if row["id"] in in_file
            else NotTaken("not-written")
            if row["carrier"] in files
            else NoAnswer("cut-off")
            for row in orders
        }
        await self._record_orders(orders, outcomes)
        if rows or orders:
            log.info("attempts-recovered", service="notify", count=len(rows) + len(orders))

    # -- the providers of the bundle

    def _refresh_gateways(self) -> bool:
        """A load takes effect at once; a provider that did not change keeps its health and pace. Whether there was one."""
        live = self._service.directory
        if live.version == self._version:
            return False
        before, self._gateways = self._gateways, {}
        for entry in live.current.providers:
            known = before.get(entry.name)
            self._gateways[entry.name] = (
                known if known and known.entry == entry and self._version >= 0 else self._gateway(entry)
            )
        self._version = live.version
        return True

    def _gateway(self, entry: ProviderEntry) -> Gateway:
        settings = self._settings
        health = Health(
            settings.health_window,
            settings.health_least,
            settings.health_share,
            settings.call_slow,
            settings.health_back,
        )
        gateway = Gateway(entry, health, Pace(entry.per_second))
        gateway.pace.spend(asyncio.get_running_loop().time())  # another process may have sent until a moment ago
        match entry.kind:
            case "file":
                gateway.file = File(settings.sent_file)
            case "http":
                gateway.caller = Http(self._way(entry.url), settings.call_timeout)
            case "kannel":
                receipts = f"{settings.url_of('notify')}/v1/receipts/{entry.name}"
                gateway.caller = Kannel(self._way(entry.url), entry, settings.call_timeout, receipts, secret_of(entry))
        return gateway

    def _way(self, url: str | None) -> Line:
        """The connections to a URL, kept over loads that do not change it."""
        where = url or ""
        if where not in self._ways:
            self._ways[where] = Line(where, min(5.0, self._settings.call_timeout / 2))
        return self._ways[where]

    # -- the post

    async def _post(self, now: datetime) -> None:
        """Hands each order to the carrier that the bundle has for its agency and kind; while that one is down for long, to the
        next that serves them. A carrier takes an order's id once: an unknown outcome is repeated under it, and by no other."""
        directory = self._service.directory.current
        async with self._service.pool.acquire() as connection:
            rows = await connection.fetch(self._store.queries["orders_due"], now, CLAIM)
        clock = asyncio.get_running_loop().time()
        down = {name for name, outage in self._outages.items() if outage.down(clock)}
        by_carrier: dict[str, tuple[CarrierEntry, list[Any]]] = {}
        for row in rows:
            serving = directory.carriers_for(row["agency"], row["kind"])
            bound = row["carrier"] if row["unsure"] else None
            if (carrier := carrier_of(directory.carriers, serving, bound, down)) is not None:
                by_carrier.setdefault(carrier.name, (carrier, []))[1].append(row)
        for carrier, of_it in by_carrier.values():
            await self._hand_over(carrier, of_it, now)

    async def _hand_over(self, carrier: CarrierEntry, rows: Sequence[Any], now: datetime) -> None:
        charges = {each.name: each.charge for each in self._service.directory.current.carriers}
        # A letter has nothing to collect; of a carrier that is gone nobody knows what it would have charged.
        more = [
            0 if row["notice"] is not None else carrier.charge - charges.get(row["carrier"], carrier.charge)
            for row in rows
        ]
        async with self._service.pool.acquire() as connection:
            file = File(self._settings.postal_file) if carrier.kind == "file" else None
            mark = file.end() if file is not None else None
            begun = await connection.fetch(
                self._store.queries["orders_begin"], [row["id"] for row in rows], mark, carrier.name, more
            )
        fees = {row["id"]: row["fee_to_collect"] for row in begun}
        outcomes: dict[UUID, Outcome] = {}
        documents: dict[UUID, dict[str, Any]] = {}
        for row in rows:
            if row["id"] not in fees:
                continue
            document = self._order_document(row, fees[row["id"]], now)
            if isinstance(document, NotTaken | Refused):
                outcomes[row["id"]] = document
            else:
                documents[row["id"]] = document
        if file is not None:
            outcomes |= await asyncio.to_thread(_append_orders, file, documents)
        else:
            way, few = Http(self._way(carrier.url), self._settings.call_timeout), asyncio.Semaphore(ORDERS_AT_ONCE)

            outage = self._outages.setdefault(
                carrier.name, Outage(self._settings.carrier_patience, self._settings.carrier_again)
            )

            async def hand_over(key: UUID, document: dict[str, Any]) -> None:
                async with few:
                    outcome = outcomes[key] = _unnamed(await way.post(document), document)
                outage.note(asyncio.get_running_loop().time(), took=isinstance(outcome, Taken | Refused))

            await asyncio.gather(*(hand_over(key, document) for key, document in documents.items()))
        await self._record_orders([row for row in rows if row["id"] in outcomes], outcomes)

    async def _track(self, now: datetime) -> None:
        """Asks carriers what became of their orders, the more seldom the longer nothing changes."""
        first, most = (timedelta(seconds=s) for s in (self._settings.track_first, self._settings.track_most))
        carriers = {carrier.name: carrier for carrier in self._service.directory.current.carriers}
        few = asyncio.Semaphore(ORDERS_AT_ONCE)

        async def ask(carrier: CarrierEntry, key: UUID) -> None:
            async with few:
                report = await report_of(self._way(carrier.track_url), key, self._settings.call_timeout)
            if report is not None and (state := state_of(carrier, report.state)) is not None:
                await record_report(
                    self._service,
                    self._store,
                    carrier.name,
                    key,
                    state,
                    amount=report.amount,
                    reason=report.reason,
                    at=report.at,
                )

        async with self._service.pool.acquire() as connection:
            rows = await connection.fetch(self._store.queries["polls_due"], now)
            asked: list[tuple[str, UUID]] = []
            for row in rows:
                later = now + next_look(row["polls"] + 1, first, most)
                due = await connection.fetch(
                    self._store.queries["orders_to_track"], now, row["carrier"], later, row["polls"]
                )
                asked += [(row["carrier"], UUID(int=each["id"].int)) for each in due]
        await asyncio.gather(
            *(ask(carriers[name], key) for name, key in asked if name in carriers and carriers[name].track_url)
        )

    def _order_document(self, row: Any, fee: int, now: datetime) -> dict[str, Any] | NotTaken | Refused:
        """What the carrier is told: who sends, who receives, the agency, the dossier, the fee to collect."""
        if not row["known"]:
            waited = now - row["planned_at"] > timedelta(seconds=self._settings.contact_wait)
            return Refused("no-contact") if waited else NotTaken("no-contact")
        content = self._store.open(row, row["contact_ref"])
        if content is None:
            return Refused("erased")
        if not content.get("address"):
            return Refused("no-address")
        directory = self._service.directory.current
        agency = directory.agency(row["agency"]) if row["agency"] in directory.agencies else None
        office = {"name": agency.name if agency else row["agency"], "agency": row["agency"]}
        person = {name: content.get(name) for name in ("address", "phone")}
        person["name"] = content.get("to") or content.get("name")
        sender, receiver = (office, person) if row["kind"] == "deliver" else (person, office)
        document = {
            "id": str(row["id"]),
            "kind": row["kind"],
            "dossier": row["dossier"],
            "agency": row["agency"],
            "from": sender,
            "to": receiver,
            "fee_to_collect": fee,
            "at": _now().astimezone(LOCAL_ZONE).isoformat(timespec="milliseconds"),
        }
        return document | ({"text": content["text"]} if "text" in content else {})

    async def _record_orders(self, rows: Sequence[Any], outcomes: Mapping[UUID, Outcome]) -> None:
        if not rows:
            return

        tracked = {carrier.name for carrier in self._service.directory.current.carriers if carrier.track_url}
        first_look = timedelta(seconds=self._settings.track_first)

        def step(order: Order) -> OrderStep:
            match outcomes[order.id]:
                case Taken():
                    taken, events = ordered(order, now)
                    return replace(taken, track_at=now + first_look if order.carrier in tracked else None), events
                case Refused(reason):
                    return refused(order, reason, now)
                case (NotTaken(reason) | NoAnswer(reason)) as outcome:
                    later = now + self._pauses.after(order.rounds)
                    unsure = order.unsure or isinstance(outcome, NoAnswer)
                    again = replace(order, rounds=order.rounds + 1, next_at=later, reason=reason, unsure=unsure)
                    return replace(again, in_flight=False), ()

        def of_letter(order: Order, letter: Notice) -> Step:
            match order.state:
                case "ordered":
                    return handed_over(letter, order.carrier, now)
                case "cancelled":
                    return undeliverable(letter, order.reason or "cancelled")
            return letter, ()

        async with self._service.pool.acquire() as connection, connection.transaction():
            now = await self._service.log.now(connection)
            await self._store.move_orders(
                connection, [r["dossier"] for r in rows], [r["id"] for r in rows], step, of_letter, now=now
            )
        self._service.wake()


def fairly(rows: Sequence[Any]) -> list[Any]:
    """The urgent ones first; then by turns those of the day and those of the night, so that neither waits for the other."""
    urgent = [row for row in rows if row["urgent"]]
    day = [row for row in rows if not row["urgent"] and row["state"] != "held"]
    night = [row for row in rows if not row["urgent"] and row["state"] == "held"]
    return urgent + [row for pair in zip_longest(day, night) for row in pair if row is not None]


def first_id_of(instant: datetime) -> UUID:
    """Ids begin with the time at which they were made: none made from then on is lower."""
    return UUID(int=int(instant.timestamp() * 1000) << 80)


def next_midnight(now: datetime) -> datetime:
    """When the next local day begins."""
    day = now.astimezone(LOCAL_ZONE).date() + timedelta(days=1)
    return datetime.combine(day, datetime.min.time(), LOCAL_ZONE)


def _written(file: File, rows: Sequence[Any]) -> set[UUID]:
    since = min((row["mark"] for row in rows if row["mark"] is not None), default=0)
    return file.written([row["id"] for row in rows], since) if rows else set()


def _append_orders(file: File, documents: dict[UUID, dict[str, Any]]) -> dict[UUID, Outcome]:
    start = file.end()
    try:
        file.append(list(documents.values()))
    except OSError:
        there = file.written(list(documents), start)
        return {key: Taken() if key in there else NotTaken("not-written") for key in documents}
    return {key: Taken() for key in documents}


def _unnamed(outcome: Outcome, document: Mapping[str, Any]) -> Outcome:
    """A carrier's reason is published: without the person whom it was told of."""
    if not isinstance(outcome, Refused):
        return outcome
    person = document["to"] if document["kind"] == "deliver" else document["from"]
    return Refused(unnamed(outcome.reason, person.values()))


def _now() -> datetime:
    return datetime.now(UTC)
