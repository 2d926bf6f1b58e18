"""What nobody asks for: old answers and old records of access go, and after a rotation keys are wrapped anew."""

import asyncio
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, Protocol

import structlog
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from shared.security.keys import SiteKeys
from shared.security.sealing import SealBroken, unwrap
from shared.settings import Settings
from shared.store.pool import Pool
from shared.store.queries import Queries

log = structlog.get_logger("lienthong.housekeeping")

ACCESS_KEPT = timedelta(days=730)
"""Law: who read personal data is known for two years."""
_PAGE = 500
_BATCH = 10_000


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A table with wrapped data keys in its column `wrapped`, and its primary key."""

    name: str
    key: str
    type: Literal["text", "uuid"]


class Kept(Protocol):
    """The service whose house is kept. Its keys change while it runs."""

    name: str
    settings: Settings
    keys: SiteKeys
    store_queries: Queries

    @property
    def pool(self) -> Pool: ...

    def beat(self, name: str) -> None: ...


class Housekeeping:
    """One loop of a service. `wrapped` names its tables that hold wrapped data keys."""

    def __init__(self, service: Kept, wrapped: Sequence[Wrapped], seconds: float) -> None:
        self._service, self._wrapped, self._seconds = service, wrapped, seconds

    async def run(self) -> None:
        while True:
            self._service.beat("housekeeping")
            await self.once()
            await asyncio.sleep(self._seconds)

    async def once(self) -> None:
        """One round: a batch at a time, each a short transaction of its own."""
        await self._forget("answer_forget", timedelta(days=self._service.settings.idempotency_days))
        await self._forget("access_forget", ACCESS_KEPT)
        await self._rewrap()

    async def _forget(self, query: str, age: timedelta) -> None:
        statement = self._service.store_queries[query]
        while True:
            async with self._service.pool.acquire() as connection:
                gone = await connection.execute(statement, age, _BATCH)
            if int(gone.split()[-1]) < _BATCH:
                return
            self._service.beat("housekeeping")

    async def _rewrap(self) -> None:
        """Everything under the present wrapping key, so that an old one can go when its time is over."""
        keys, queries = self._service.keys, self._service.store_queries
        if not keys.old_data:
            return
        async with self._service.pool.acquire() as connection:
            if await connection.fetchval(queries["rewrapped"], keys.data_key_id):
                return
        count = 0
        for table in self._wrapped:
            count += await self._rewrap_table(table)
        async with self._service.pool.acquire() as connection:
            await connection.execute(queries["rewrapped_put"], keys.data_key_id)
        log.info("keys-rewrapped", service=self._service.name, count=count)

    async def _rewrap_table(self, table: Wrapped) -> int:
        keys, queries = self._service.keys, self._service.store_queries

        def of(name: str) -> str:
            return (
                queries[name].replace("{table}", table.name).replace("{key}", table.key).replace("{type}", table.type)
            )

        after, count = "", 0
        while True:
            self._service.beat("housekeeping")
            async with self._service.pool.acquire() as connection:
                rows = await connection.fetch(of("wrapped_page"), after, _PAGE)
                changed: list[tuple[str, str, str]] = []
                for row in rows:
                    try:
                        new = b64encode(aes_key_wrap(keys.data, unwrap(keys, row["wrapped"]))).decode()
                    except SealBroken:
                        continue  # another recipient's
                    if new != row["wrapped"]:  # AES key wrap is deterministic: the same key gives the same text
                        changed.append((row["key"], row["wrapped"], new))
                if changed:
                    await connection.execute(of("wrapped_move"), *(list(c) for c in zip(*changed, strict=True)))
            count += len(changed)
            if len(rows) < _PAGE:
                return count
            after = rows[-1]["key"]
            await asyncio.sleep(0.02)
