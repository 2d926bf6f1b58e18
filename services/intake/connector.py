"""Keeps the portals of the bundle up to date: query, insert or update, then progress; at least once, in dossier order.

A dossier's news is found by its recorded time, so that taking dossiers in costs nothing more; a portal may be down for
days. What a portal refuses is kept with its reason, and stands until the dossier moves again or somebody sends it again;
other dossiers go on.
"""

import asyncio
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import orjson
import structlog

from services.intake import portal as words
from services.intake.portal import Refused
from services.intake.store import Store
from shared.directory.bundle import PortalEntry
from shared.directory.directory import DirectoryError
from shared.security.tokens import Role
from shared.service import Service

log = structlog.get_logger("lienthong.intake")

LEASE = timedelta(seconds=60)
FIRST_PAUSE = 2.0  # seconds, while a portal is down; twice as long each time
_PAGE = 1000
_ROUND = 100
# What a portal says of one record; anything else is the portal's own fault, or ours with it, and passes or is mended.
_OF_THE_RECORD = (400, 409, 413, 422)
_MOST_OF_AN_ANSWER = 1 << 20


class Down(Exception):
    """The portal does not take anything now; `why` holds nothing that it was told."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class Due:
    """A dossier that a portal is to be told of, from version `sent` on."""

    code: str
    wanted: int
    sent: int


class Connector:
    """One loop for all portals of the bundle."""

    def __init__(self, service: Service, store: Store, *, seconds: float, longest_pause: float, parallel: int) -> None:
        self._service, self._store = service, store
        self._seconds, self._longest_pause, self._parallel = seconds, longest_pause, parallel

    async def run(self) -> None:
        while True:
            self._service.beat("portals")
            busy = False
            if self._service.directory.loaded:
                for entry in self._service.directory.current.portals:
                    busy |= await self.tell(entry)
            if not busy:
                await asyncio.sleep(self._seconds)

    async def tell(self, entry: PortalEntry) -> bool:
        """One round with one portal; whether there is more at once."""
        queries = self._store.queries
        async with self._service.pool.acquire() as connection:
            await connection.execute(queries["portal_known"], entry.name)
        more = await self._collect(entry)
        async with self._service.pool.acquire() as connection:
            row = await connection.fetchrow(queries["portal_take"], entry.name, LEASE)
        if row is None:
            return False  # another process tells it, or it is down and its pause is not over
        try:
            due = await self._due(entry)
            if due:
                await self._send_all(entry, due)
            elif row["failures"]:
                await self._ask(entry, words.query("-"))  # is it back?
            async with self._service.pool.acquire() as connection:
                await connection.execute(queries["portal_up"], entry.name)
        except Down as down:
            pause = min(self._longest_pause, FIRST_PAUSE * 2 ** min(row["failures"], 10))
            log.warning("portal-down", service="intake", kind=entry.name, reason=down.why, pause=pause)
            async with self._service.pool.acquire() as connection:
                await connection.execute(queries["portal_down"], entry.name, down.why, timedelta(seconds=pause))
            return False
        return more or len(due) == _ROUND

    # -- what it is to be told

    async def _collect(self, entry: PortalEntry) -> bool:
        """Notes the dossiers that moved since the last look, up to where nothing can still be committed."""
        directory, queries = self._service.directory.current, self._store.queries
        try:
            agencies = directory.subtree(entry.unit)
        except DirectoryError:
            return False
        async with self._service.pool.acquire() as connection, connection.transaction():
            at = await connection.fetchrow(queries["portal_at"], entry.name)
            assert at is not None
            settled = await connection.fetchval(self._service.store_queries["under_way"])
            rows = await connection.fetch(
                queries["portal_moved"], at["since"], at["after"], settled, sorted(agencies), _PAGE
            )
            if told := [row for row in rows if row["told"]]:
                codes, versions = [row["code"] for row in told], [row["sequence"] for row in told]
                await connection.execute(queries["portal_note"], entry.name, codes, versions)
            if rows:
                last = rows[-1]
                await connection.execute(queries["portal_move"], entry.name, last["recorded"], last["code"])
        return len(rows) == _PAGE

    async def _due(self, entry: PortalEntry) -> list[Due]:
        async with self._service.pool.acquire() as connection:
            rows = await connection.fetch(self._store.queries["portal_due"], entry.name, _ROUND)
        return [Due(row["code"], row["wanted"], row["sent"]) for row in rows]

    # -- telling

    async def _send_all(self, entry: PortalEntry, due: list[Due]) -> None:
        """Some dossiers at a time, each alone in its own order. Raises Down when the portal is; what was told stands."""
        waiting = list(reversed(due))

        async def one_by_one() -> None:
            while waiting:
                self._service.beat("portals")
                await self._send(entry, waiting.pop())

        workers = [asyncio.create_task(one_by_one()) for _ in range(min(self._parallel, len(due)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _send(self, entry: PortalEntry, due: Due) -> None:
        directory, queries = self._service.directory.current, self._store.queries
        async with self._service.pool.acquire() as connection:
            dossier = await self._store.read(connection, due.code)
            assert dossier is not None
            history = await self._store.history(connection, due.code)
            person = await self._store.contact(connection, dossier.contact_ref) if dossier.contact_ref else None
            if person is not None:
                who = (f"portal:{entry.name}", Role.SERVICE.value, due.code, "applicant-name")
                await connection.execute(self._service.store_queries["access_put"], *who)
            await connection.execute(queries["portal_lease"], entry.name, LEASE)
        name = person["name"] if person is not None else ""
        known = words.knows(await self._ask(entry, words.query(due.code)))
        refused = await self._told(entry, words.record(dossier, name, history, directory, entry.version, known=known))
        steps = words.progress(dossier, history, due.sent, directory)
        if refused is None and steps is not None:
            refused = await self._told(entry, steps)
        async with self._service.pool.acquire() as connection:
            if refused is not None:
                await connection.execute(queries["portal_refused"], entry.name, due.code, due.wanted, refused.reason)
            else:
                await connection.execute(queries["portal_sent"], entry.name, due.code, dossier.sequence)

    async def _told(self, entry: PortalEntry, body: dict[str, Any]) -> Refused | None:
        answer = await self._ask(entry, body)
        return answer if isinstance(answer, Refused) else words.taken(answer)

    async def _ask(self, entry: PortalEntry, body: dict[str, Any]) -> Any:
        """The JSON of the answer, or Refused for what it says of the record by its status. Raises Down."""
        secret = os.environ.get(entry.secret_env or "", "")
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        try:
            async with self._service.http.stream(
                "POST", entry.url, json={"madonvi": entry.unit, **body}, headers=headers, follow_redirects=False
            ) as response:
                content = b""
                async for part in response.aiter_bytes():
                    content += part
                    if len(content) > _MOST_OF_AN_ANSWER:
                        raise Down("the answer is too long")
        except httpx.HTTPError as error:
            raise Down(type(error).__name__) from None
        try:
            answer = orjson.loads(content) if content else {}
        except ValueError:
            answer = {}
        if response.status_code in _OF_THE_RECORD:
            said = words.taken(answer)
            reason = (
                said.reason if said is not None else str(answer.get("reason", "")) if isinstance(answer, dict) else ""
            )
            return Refused(reason[:500] or f"HTTP {response.status_code}")
        if not response.is_success:
            raise Down(f"HTTP {response.status_code}")
        return answer
