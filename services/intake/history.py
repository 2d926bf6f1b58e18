"""A history that cannot be rewritten unseen: the days' heads are sealed, and dossiers and days are verified.

Events are chained where they are made (`writer.py`); when a local day is over, the heads of the dossiers that moved in it
go under one root that the site signs.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

import structlog

from services.intake.store import DOSSIER, Store
from shared.contracts.codes import LOCAL_ZONE, local_day
from shared.security.seals import Seal, sign
from shared.service import Service
from shared.store.chain import Broken, Proof, broken, leaf, proof, root
from shared.store.log import envelope_of, family
from shared.store.pool import Connection

log = structlog.get_logger("lienthong.intake")

_YIELD_EVERY = 500  # rows after which other requests get their turn
_SEALING = 0x4C54_5365  # one process seals
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Heads:
    """Where each dossier that had an event on a day stood at its end, in the order of the codes."""

    codes: list[str]
    leaves: list[bytes]
    events: int


class History:
    """Seals days, and verifies what is stored against chains and seals."""

    def __init__(self, service: Service, store: Store, seconds: float) -> None:
        self._service, self._store, self._seconds = service, store, seconds

    # -- sealing

    async def seal_always(self) -> None:
        """Seals each local day that is over, in order; a site that was off seals the days that it missed."""
        while True:
            self._service.beat("seals")
            while await self.seal_next():
                self._service.beat("seals")
            await asyncio.sleep(self._seconds)

    async def seal_next(self) -> bool:
        """Seals the first day that is over and not sealed; whether there was one."""
        queries = self._store.queries
        async with self._service.pool.acquire() as connection, connection.transaction():
            if not await connection.fetchval(queries["seal_lock"], _SEALING):
                return False
            if await connection.fetchval(queries["restored_waits"]):
                return False  # what the days of before held is still coming back
            last = await self._last_seal(connection)
            day = await connection.fetchval(queries["first_day"]) if last is None else _next(last.day)
            if day is None or day >= await self.first_open_day(connection):
                return False
            heads = await self._heads(connection, day)
            seal = sign(
                self._service.keys.signing,
                {
                    "site": self._service.settings.site,
                    "day": day.isoformat(),
                    "dossiers": len(heads.codes),
                    "events": heads.events,
                    "root": root(heads.leaves).hex(),
                    "previous": None if last is None else last.digest(),
                },
            )
            await connection.execute(
                queries["seal_put"],
                day,
                seal.dossiers,
                seal.events,
                bytes.fromhex(seal.root),
                seal.previous and bytes.fromhex(seal.previous),
                seal.key_id,
                seal.signature,
            )
        # The root is in the log as well: whoever keeps logs elsewhere has a witness.
        log.info("day-sealed", service="intake", day=seal.day, count=seal.dossiers, root=seal.root)
        return True

    async def first_open_day(self, connection: Connection) -> date:
        """The local day in which something can still be recorded: no transaction that is under way began before it."""
        settled: datetime = await connection.fetchval(self._service.store_queries["under_way"])
        return local_day(settled)

    async def _last_seal(self, connection: Connection) -> Seal | None:
        row = await connection.fetchrow(self._store.queries["seal_last"])
        return None if row is None else self._seal(row)

    def _seal(self, row: Any) -> Seal:
        return Seal(
            self._service.settings.site,
            row["day"].isoformat(),
            row["dossiers"],
            row["events"],
            row["root"].hex(),
            row["previous"] and row["previous"].hex(),
            row["key_id"],
            row["signature"],
        )

    async def _heads(self, connection: Connection, day: date) -> Heads:
        heads = Heads([], [], 0)
        events = 0
        query = self._service.store_queries["heads_between"]
        async for row in _streamed(connection, query, family(DOSSIER), *span(day)):
            heads.codes.append(row["aggregateid"])
            heads.leaves.append(leaf(row["aggregateid"], row["sequence"], (row["chain"] or b"").hex()))
            events += row["events"]
        return Heads(heads.codes, heads.leaves, events)

    # -- verifying

    async def verify_dossier(self, code: str, *, export: bool) -> dict[str, Any] | None:
        """A dossier's chain, its own row, and the seals of the days on which it moved; None: not here.

        With `export` all that is needed to verify it elsewhere: events, seals, proofs, the public keys.
        """
        async with self._service.pool.acquire() as connection, connection.transaction():
            dossier = await self._store.read(connection, code)
            if dossier is None:
                return None
            rows = await self._events(connection, code)
            events = [(envelope_of(row), row["chain"] and row["chain"].hex()) for row in rows]
            faults = broken(events)
            chain = events[-1][1] if events else None
            if (dossier.sequence, dossier.chain) != (len(events), chain or ""):
                faults.append(Broken(code, dossier.sequence, "head-differs"))
            days = sorted({local_day(event.recorded) for event, _ in events})
            seals = [await self._verify_seal(connection, day, code) for day in days]
        answer = {
            "code": code,
            "events": len(events),
            "not_chained": sum(chain is None for _, chain in events),
            "faults": [_described(fault) for fault in faults],
            "seals": [described for described, _, _ in seals],
            "intact": not faults and all(described["intact"] for described, _, _ in seals),
        }
        if export:
            answer["export"] = {
                "site": self._service.settings.site,
                "code": code,
                "events": [_exported(row) for row in rows],
                "seals": [
                    _proven(seal, way, self._public_key(seal.key_id)) for _, seal, way in seals if seal is not None
                ],
            }
        return answer

    async def _events(self, connection: Connection, code: str) -> list[Any]:
        rows: list[Any] = []
        while True:
            after = rows[-1]["sequence"] if rows else 0
            page = await connection.fetch(self._service.store_queries["chained"], family(DOSSIER), code, after, _PAGE)
            rows += page
            if len(page) < _PAGE:
                return rows

    async def _verify_seal(
        self, connection: Connection, day: date, code: str | None = None
    ) -> tuple[dict[str, Any], Seal | None, Proof]:
        """Whether a day's heads are those that were signed; with the proof of one dossier."""
        row = await connection.fetchrow(self._store.queries["seal"], day)
        if row is None:
            # A day that is not over has no seal yet, nor has one before the first; between two sealed ones it was taken out.
            gone = await connection.fetchval(self._store.queries["seal_gone"], day)
            reason = "seal-missing" if gone else None
            return {"day": day.isoformat(), "sealed": False, "intact": not gone, "reason": reason}, None, []
        seal = self._seal(row)
        heads = await self._heads(connection, day)
        before = await connection.fetchrow(self._store.queries["seal"], day - timedelta(days=1))
        key = self._service.keys.public_key(seal.key_id)
        reason = None
        if key is None:
            reason = "key-unknown"
        elif not seal.signed_by(key):
            reason = "signature-wrong"
        elif (None if before is None else self._seal(before).digest()) != seal.previous:
            reason = "seals-broken"
        elif (len(heads.codes), heads.events, root(heads.leaves).hex()) != (seal.dossiers, seal.events, seal.root):
            reason = "seal-differs"
        way: Proof = []
        if code in heads.codes:
            way = proof(heads.leaves, heads.codes.index(code))
        described = {
            "day": seal.day,
            "sealed": True,
            "intact": reason is None,
            "reason": reason,
            "dossiers": seal.dossiers,
            "events": seal.events,
            "root": seal.root,
            "key_id": seal.key_id,
        }
        return described, seal, way

    async def verify_day(self, day: date) -> dict[str, Any]:
        """Every event recorded on a local day against its dossier's chain, and the day's heads against its seal."""
        faults: list[Broken] = []
        count = codes = 0
        async with self._service.pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
            pages = self._by_dossier(connection, day)
            async for dossiers in pages:
                codes += len(dossiers)
                starts = await connection.fetch(
                    self._service.store_queries["chains_before"],
                    family(DOSSIER),
                    list(dossiers),
                    [events[0][0].sequence for events in dossiers.values()],
                )
                before = {row["aggregateid"]: row["chain"] and row["chain"].hex() for row in starts}
                for code, events in dossiers.items():
                    count += len(events)
                    first = events[0][0].sequence
                    if first > 1 and code not in before:
                        faults.append(Broken(code, first - 1, "missing"))
                        continue
                    faults += broken(events, before.get(code), first - 1)
                await asyncio.sleep(0)
            described, _, _ = await self._verify_seal(connection, day)
        return {
            "day": day.isoformat(),
            "dossiers": codes,
            "events": count,
            "faults": [_described(fault) for fault in faults],
            "seals": [described],
            "intact": not faults and described["intact"],
        }

    async def _by_dossier(
        self, connection: Connection, day: date
    ) -> AsyncIterator[dict[str, Sequence[tuple[Any, str | None]]]]:
        """The day's events, some hundred dossiers at a time, each with all of its events of the day."""
        page: dict[str, list[tuple[Any, str | None]]] = {}
        query = self._service.store_queries["chained_between"]
        async for row in _streamed(connection, query, family(DOSSIER), *span(day)):
            code = row["aggregateid"]
            if code not in page and len(page) >= _YIELD_EVERY:
                yield dict(page)
                page = {}
            page.setdefault(code, []).append((envelope_of(row), row["chain"] and row["chain"].hex()))
        if page:
            yield dict(page)

    def _public_key(self, name: str) -> str | None:
        key = self._service.keys.public_key(name)
        return None if key is None else key.public_bytes_raw().hex()


async def _streamed(connection: Connection, query: str, *arguments: Any) -> AsyncIterator[Any]:
    """Rows by a cursor: a busy day is never in memory as a whole."""
    number = 0
    async for row in connection.cursor(query, *arguments, prefetch=_YIELD_EVERY, timeout=600):
        yield row
        number += 1
        if number % _YIELD_EVERY == 0:
            await asyncio.sleep(0)


def span(day: date) -> tuple[datetime, datetime]:
    """The first instant of a local day, and of the next."""
    start = datetime.combine(day, time(), LOCAL_ZONE)
    return start, datetime.combine(day + timedelta(days=1), time(), LOCAL_ZONE)


def _next(day: str) -> date:
    return date.fromisoformat(day) + timedelta(days=1)


def _described(fault: Broken) -> dict[str, Any]:
    return {"code": fault.key, "sequence": fault.sequence, "reason": fault.reason}


def _exported(row: Any) -> dict[str, Any]:
    event = envelope_of(row)
    return {
        "topic": event.topic,
        "id": str(event.id),
        "source": event.source,
        "type": event.type,
        "key": event.subject,
        "time": event.time.isoformat(),
        "recorded": event.recorded.isoformat(),
        "sequence": event.sequence,
        "mode": event.mode,
        "data": None if event.data is None else event.data.decode(),
        "chain": row["chain"] and row["chain"].hex(),
    }


def _proven(seal: Seal, way: Proof, public_key: str | None) -> dict[str, Any]:
    return {
        "day": seal.day,
        "dossiers": seal.dossiers,
        "events": seal.events,
        "root": seal.root,
        "previous": seal.previous,
        "key_id": seal.key_id,
        "signature": seal.signature.hex(),
        "public_key": public_key,
        "proof": [list(step) for step in way],
    }
