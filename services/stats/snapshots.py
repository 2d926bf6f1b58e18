"""Publishes figures on lienthong.indicator.v1: snapshots of the running month, restatements of closed ones.

The key is "agency,month,2026-11": the topic is compacted, and the newest record of a key holds the figures in force.
Small groups are suppressed. One process of the site does it at a time.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import structlog

from services.stats.figures import indicators, suppressed
from services.stats.indicator import Period, last_instant, local_midnight, month_of
from services.stats.store import Question, Store
from shared.contracts.codes import local_day, uuid7
from shared.contracts.envelope import Envelope
from shared.contracts.events import IndicatorRestated, IndicatorSnapshot
from shared.observe.metrics import DOSSIERS, RESTATEMENTS
from shared.service import Service
from shared.store.pool import TRANSIENT_ERRORS, Connection

log = structlog.get_logger("lienthong.stats")

TOPIC = "lienthong.indicator.v1"
GRAIN = "month"
AT_ONCE = 50  # agencies a round: the lock of the round is then held for a second, not for minutes
TURN = 10.0  # seconds
SHARE = 4  # a round rests this many times as long as it worked: figures in a storm must not starve the storm


@dataclass(frozen=True, slots=True)
class Due:
    """A month of an agency whose figures are to be told. `because`: the events that changed a closed one, each with
    its dossier."""

    agency: str
    month: tuple[date, date]
    because: Sequence[tuple[str, UUID]] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        return self.agency, GRAIN, f"{self.month[0]:%Y-%m}"


class Snapshots:
    """The loop that publishes changed figures."""

    def __init__(self, service: Service, store: Store, every: float, group: int) -> None:
        self._service, self._store, self._every, self._group = service, store, every, group

    async def run(self) -> None:
        while True:
            self._service.beat("snapshots")
            began, told = time.monotonic(), 0
            try:
                told = await self.publish()
            except TRANSIENT_ERRORS as error:
                log.warning("snapshots-not-published", error=type(error).__name__)
            worked = time.monotonic() - began
            await self._rest(max(0.0 if told == AT_ONCE else self._every, SHARE * worked))

    async def _rest(self, seconds: float) -> None:
        """After a long round a long rest: a loop that rests turns all the same, and nobody is to call it stuck."""
        while seconds > 0:
            self._service.beat("snapshots")
            await asyncio.sleep(min(seconds, TURN))
            seconds -= TURN

    async def observe(self, connection: Any) -> None:
        """The site's dossiers as gauges, when they are asked for."""
        if not self._service.directory.loaded:
            return
        agencies = sorted(self._service.directory.current.agencies)
        row = await connection.fetchrow(self._store["site_now"], agencies)
        for state in ("pending", "overdue", "due"):
            self._service.metrics.set(DOSSIERS, row[state], state)
        self._service.metrics.set(RESTATEMENTS, row["restatements"])

    async def publish(self) -> int:
        """One round; returns how many agencies it told of."""
        pool, store = self._service.pool, self._store
        async with pool.acquire() as connection, connection.transaction():
            if not await connection.fetchval(store["snapshot_lock"]):
                return 0
            moved = await connection.fetch(store["moved"], AT_ONCE)
            restated = await connection.fetch(store["restated_take"], AT_ONCE)
            if not moved and not restated:
                return 0
            now = await self._service.log.now(connection)
            due = [Due(row["agency"], month_of(local_day(now))) for row in moved]
            due += _restated(restated)
            await self._tell(connection, due, now)
            await connection.execute(
                store["moved_clear"], [row["agency"] for row in moved], [row["mark"] for row in moved]
            )
        self._service.wake()
        return len(moved)

    async def _tell(self, connection: Connection, due: Sequence[Due], now: datetime) -> None:
        keys = [d.key for d in due]
        rows = await connection.fetch(self._store["snapshots"], *map(list, zip(*keys, strict=True)))
        held = {(row["agency"], row["grain"], row["period"]): row for row in rows}
        codes = sorted({code for d in due for code, _ in d.because})
        private = (
            {row["code"] for row in await connection.fetch(self._store["confidential"], codes)} if codes else set()
        )
        envelopes: list[Envelope] = []
        told: list[tuple[Any, ...]] = []
        for each in due:
            self._service.beat("snapshots")
            before = held.get(each.key)
            judged = min(now, last_instant(each.month[1]))
            question = Question([each.agency], Period(local_midnight(each.month[0]), judged), now)
            figures = suppressed(await indicators(self._store, connection, question), self._group)
            if before is not None and before["figures"] == figures:
                continue
            sequence = 1 + (before["sequence"] if before is not None else 0)
            recorded = max(now, before["recorded"]) if before is not None else now
            event = _event(each, judged, figures, before, private)
            envelopes.append(
                Envelope(
                    topic=TOPIC,
                    id=uuid7(),
                    source=self._service.source,
                    type=event.short,
                    subject=",".join(each.key),
                    time=now,
                    recorded=recorded,
                    sequence=sequence,
                    mode="live",
                    data=event.to_json(),
                )
            )
            told.append((*each.key, sequence, recorded, figures))
        await self._service.log.append(connection, envelopes)
        await self._store.put(connection, "snapshots_put", told)


def _restated(rows: Sequence[Any]) -> list[Due]:
    months: dict[tuple[str, tuple[date, date]], list[tuple[str, UUID]]] = defaultdict(list)
    for row in rows:
        months[row["agency"], (row["from_day"], row["to_day"])].append((row["dossier"], row["event"]))
    return [Due(agency, month, because) for (agency, month), because in sorted(months.items())]


def _event(
    due: Due, judged: datetime, figures: dict[str, Any], before: Any, private: set[str]
) -> IndicatorSnapshot | IndicatorRestated:
    first, last = (day.isoformat() for day in due.month)
    if not due.because:
        return IndicatorSnapshot(
            agency=due.agency, grain=GRAIN, from_day=first, to=last, as_of=judged.astimezone(UTC), figures=figures
        )
    dossiers = {code for code, _ in due.because}
    alone = next(iter(dossiers)) if len(dossiers) == 1 and not dossiers & private else None
    return IndicatorRestated(
        agency=due.agency,
        grain=GRAIN,
        from_day=first,
        to=last,
        dossier=alone,
        before=before["figures"] if before is not None else {},
        after=figures,
        because=str(due.because[-1][1]),
    )
