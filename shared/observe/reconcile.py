"""Promise 5, no silent loss, all the time: each service compares what it has applied with what the owners have recorded.

It costs two grouped counts a topic and a look. Where the digests of an hour differ, the hour's keys are fetched from both
sides; a key under way differs as well, so that only what stood behind at the look before, and has not moved to there
since, is missing. `lienthong reconcile` names them; a metric only counts.
"""

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import asyncpg
import httpx
import structlog

from shared.contracts.codes import format_instant
from shared.contracts.events import TOPICS
from shared.observe.metrics import RECONCILE_AGE, RECONCILE_MISSING, Metrics
from shared.settings import Settings
from shared.store.pool import TRANSIENT_ERRORS, Pool
from shared.store.queries import Queries

log = structlog.get_logger("lienthong.reconcile")

WINDOW = timedelta(hours=6)  # newer heads than this are compared; `lienthong reconcile` compares all

Heads = Mapping[str, int]


def behind(owned: Heads, consumed: Heads) -> dict[str, int]:
    """The keys that stand further on at their owner, with where they stand there."""
    return {key: sequence for key, sequence in owned.items() if consumed.get(key, 0) < sequence}


def missing(before: Heads, consumed: Heads) -> list[str]:
    """Of what stood behind at the look before, the keys that have not come even to where they should have been then."""
    return sorted(key for key, sequence in before.items() if consumed.get(key, 0) < sequence)


class Compared(Protocol):
    """The service whose books are compared with the owners'."""

    name: str
    settings: Settings
    metrics: Metrics
    store_queries: Queries

    @property
    def consumes(self) -> tuple[str, ...]: ...
    @property
    def pool(self) -> Pool: ...
    @property
    def http(self) -> httpx.AsyncClient: ...
    def service_token(self) -> dict[str, str]: ...


class Reconciler:
    """One service's continuous look at its books."""

    def __init__(self, service: Compared) -> None:
        self._service = service
        self._behind: dict[str, dict[str, int]] = {}
        self._looked = time.monotonic()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._service.settings.reconcile_seconds)
            try:
                for topic in self._service.consumes:
                    if TOPICS[topic].owner != "all":
                        await self._look(topic)
                self._looked = time.monotonic()
            except (httpx.HTTPError, *TRANSIENT_ERRORS, asyncpg.PostgresError) as error:
                log.warning("books-not-compared", service=self._service.name, error=type(error).__name__)

    def observe(self) -> None:
        self._service.metrics.set(RECONCILE_AGE, time.monotonic() - self._looked)

    async def _look(self, topic: str) -> None:
        since = (datetime.now(UTC) - WINDOW).replace(minute=0, second=0, microsecond=0)
        owned = await self._owned(topic, "/v1/heads", since=format_instant(since))
        consumed = await self._consumed(topic, since)
        now_behind: dict[str, int] = {}
        still = list[str]()
        if hours := [item["hour"] for item in owned["items"] if _mark(item) != consumed.get(item["hour"])]:
            keys: dict[str, int] = {}
            for hour in hours:
                keys |= (await self._owned(topic, "/v1/heads/hour", hour=hour))["items"]
            standing = await self._standing(topic, list(keys.keys() | self._behind.get(topic, {}).keys()))
            now_behind = behind(keys, standing)
            still = missing(self._behind.get(topic, {}), standing)
        self._behind[topic] = now_behind
        self._service.metrics.set(RECONCILE_MISSING, len(still), topic)
        if still:
            log.warning("events-missing", service=self._service.name, topic=topic, count=len(still))

    async def _owned(self, topic: str, path: str, **asked: str) -> Any:
        service = self._service
        answer = await service.http.get(
            service.settings.url_of(TOPICS[topic].owner) + path,
            params={"topic": topic, "side": "owned", **asked},
            headers=service.service_token(),
        )
        answer.raise_for_status()
        return answer.json()

    async def _consumed(self, topic: str, since: datetime) -> dict[str, tuple[Any, ...]]:
        async with self._service.pool.acquire() as connection:
            rows = await connection.fetch(self._service.store_queries["heads_consumed"], topic, since)
        return {format_instant(row["hour"]): (row["keys"], int(row["events"]), row["digest"]) for row in rows}

    async def _standing(self, topic: str, keys: list[str]) -> dict[str, int]:
        async with self._service.pool.acquire() as connection:
            rows = await connection.fetch(self._service.store_queries["heads_consumed_keys"], topic, keys)
        return {row["key"]: row["sequence"] for row in rows}


def _mark(hour: Mapping[str, Any]) -> tuple[Any, ...]:
    return hour["keys"], int(hour["events"]), hour["digest"]
