"""Sends what waits: transfers to agencies of other sites, in the order in which they were asked for, and the events of
dossiers that the upper site has not been told of (what was here before the link was).

The person goes along, sealed: the ciphertext as intake published it, the person's data key wrapped to the site where an
officer will open it, and to no other.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog

from services.routing.carried import DOSSIER_TOPIC, event_json, site_of
from services.routing.crossing import Crossing
from services.routing.document import DOCUMENT_TOPIC
from services.routing.dossier import TRANSFER_TOPIC, Dossier
from services.routing.link_store import LinkStore
from services.routing.store import BEFORE_ALL, Sealed, Store
from services.routing.transfer import Transfer
from shared.contracts.codes import format_instant, parse_instant
from shared.contracts.envelope import Envelope, parse
from shared.contracts.events import (
    ContactChanged,
    ContactRecorded,
    DocumentEvent,
    DossierReceived,
    DossierSubmitted,
    TransferRequested,
)
from shared.observe.traces import causing
from shared.security.peers import Jwk, canonical, wrap_to
from shared.security.sealing import SealBroken, unwrap
from shared.service import Service
from shared.store.pool import TRANSIENT_ERRORS, Connection

log = structlog.get_logger("lienthong.dispatch")

CONTACT_TOPIC: Final = "lienthong.contact.v1"
AT_ONCE: Final = 50
COPIES_AT_ONCE: Final = 100
LOOK_AFTER: Final = (0.0, 2.0, 10.0)  # seconds after a link was made: a batch may have begun before it was known
LOOK_EVERY: Final = 600.0
ERASURES_EVERY: Final = 5.0
START: Final = (datetime.min.replace(tzinfo=UTC), BEFORE_ALL)
LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Dispatch:
    """The loop that carries what waits into the ledgers."""

    def __init__(self, service: Service, store: Store, links: LinkStore, crossing: Crossing) -> None:
        self._service, self._store, self._links, self._crossing = service, store, links, crossing
        self._upper: str | None = None
        self._look: list[float] = []
        self._erasures_at = 0.0

    async def run(self) -> None:
        while True:
            self._service.beat("dispatch")
            try:
                sent = await self._transfers() if self._crossing.peers and self._service.directory.loaded else 0
                sent += await self._documents() if self._crossing.peers else 0
                await self._copies()
                if self._crossing.peers:
                    await self._erasures()
            except TRANSIENT_ERRORS as error:
                log.warning("dispatch-interrupted", error=type(error).__name__)
                sent = 0
            if not sent:
                await asyncio.sleep(0.2)

    # -- transfers

    async def _transfers(self) -> int:
        """A page of those that have a way; how many were sent."""
        sent, after = 0, START
        while True:
            async with self._service.pool.acquire() as connection:
                found = await self._store.to_send(connection, after, AT_ONCE)
            directory = self._service.directory.current
            for which, code, receiver in found:
                site = site_of(directory, receiver)
                if site is not None and site != self._crossing.site and self._crossing.next_hop(site) is not None:
                    sent += await self._send(which, code, site)
            if len(found) < AT_ONCE or sent:
                return sent
            async with self._service.pool.acquire() as connection:
                last = await self._store.transfer(connection, found[-1][0])
            assert last is not None
            after = (last[0].asked_at, last[0].id)

    async def _send(self, which: UUID, code: str, site: str) -> int:
        person = await self._person(code, site)
        async with self._service.pool.acquire() as connection, connection.transaction():
            dossier = (await self._store.lock(connection, [code]))[code]
            walk = (await self._store.walks(connection, [dossier]))[code]
            transfer = walk.transfers[which]
            if transfer.state != "requested":
                return 0
            now = await self._service.log.now(connection)
            asked = await self._requested(connection, code, which)
            walk.sent(which, now)
            if person is not None and await self._links.erased(connection, {(self._crossing.site, person.contact_ref)}):
                person = None  # erased while it was being sealed
            out = self._crossing.out(self._service.directory.current, now)
            with causing({}, asked.traceparent):
                out.send("ask", site, ask_of(dossier, transfer, asked, person))
                out.transfers(dossier, walk)
                await self._store.write(connection, [dossier], [walk])
                await self._crossing.flush(connection, out, {code: dossier})
        self._service.wake()
        return 1

    async def _requested(self, connection: Connection, code: str, which: UUID) -> Envelope:
        """The event by which the transfer was asked for."""
        for envelope in await self._service.log.after(connection, TRANSFER_TOPIC, code, 0, 10_000):
            data = parse(envelope)
            if isinstance(data, TransferRequested) and data.transfer == which:
                return envelope
        raise LookupError(f"no transfer.requested of {which} is in the log")

    async def _person(self, code: str, site: str) -> Sealed | None:
        """The applicant, for the officer of that site alone. None: nobody is known, or that site's key is not yet."""
        key = await self._key_of(site)
        contact_ref = None
        for envelope in await self._service.ask_owner(DOSSIER_TOPIC, code, 0):
            data = parse(envelope)
            if isinstance(data, DossierReceived | DossierSubmitted):
                contact_ref = data.contact_ref
        if key is None or contact_ref is None:
            return None
        known = [parse(each) for each in await self._service.ask_owner(CONTACT_TOPIC, contact_ref, 0) if each.data]
        newest = known[-1] if known else None
        if not isinstance(newest, ContactRecorded | ContactChanged):
            return None
        try:
            data_key = unwrap(self._service.keys, newest.keys[0].wrapped)
        except SealBroken:
            return None
        return Sealed(contact_ref, newest.nonce, newest.ciphertext, wrap_to(data_key, key))

    # -- people who were erased

    async def _erasures(self) -> None:
        """Who was erased here is taken out of the ledgers, and told to each site that an officer could read the person at."""
        now = time.monotonic()
        if now < self._erasures_at:
            return
        self._erasures_at = now + ERASURES_EVERY
        home = self._crossing.site
        async with self._service.pool.acquire() as connection:
            newest = await self._links.erased_upto(connection, home)
        # Again a little of what is known: acts that were committed in another order than they were dated in.
        since = LONG_AGO if newest is None else newest - timedelta(minutes=5)
        for each in await self._service.ask("intake", "/v1/erasures", since=format_instant(since)):
            await self._erase(each["contact_ref"], parse_instant(each["erased_at"]), each["dossiers"])

    async def _erase(self, contact_ref: str, at: datetime, codes: Sequence[str]) -> None:
        async with self._service.pool.acquire() as connection, connection.transaction():
            await self._store.lock(
                connection, codes
            )  # a transfer of theirs that is on its way out is in the ledger, or later
            if not await self._links.put_erased(connection, self._crossing.site, contact_ref, at):
                return
            out = self._crossing.out(self._service.directory.current, await self._service.log.now(connection))
            for site in sorted(await self._links.forget(connection, self._crossing.site, contact_ref)):
                out.send("erased", site, {"contact_ref": contact_ref})
            await self._crossing.flush(connection, out, {})

    # -- documents

    async def _documents(self) -> int:
        """Tells other sites what was done here to documents that concern them, in its order; to how many."""
        async with self._service.pool.acquire() as connection:
            waiting = await self._store.documents_to_tell(connection, AT_ONCE)
        return sum([await self._tell(each, site) for each, site in waiting])

    async def _tell(self, which: str, site: str) -> int:
        key = await self._key_of(site)
        if key is None or self._crossing.next_hop(site) is None:
            return 0  # it waits for the link, or for that site's key
        async with self._service.pool.acquire() as connection, connection.transaction():
            document = await self._store.document(connection, which, lock=True)
            assert document is not None
            out = self._crossing.out(self._service.directory.current, await self._service.log.now(connection))
            for envelope in await self._service.log.after(connection, DOCUMENT_TOPIC, which, document.told, 10_000):
                data = parse(envelope)
                if isinstance(data, DocumentEvent) and data.origin is None:
                    out.send("document", site, {"sealed": wrap_to(canonical(event_json(envelope)), key)})
            await self._store.told_document(connection, which, document.version)
            await self._crossing.flush(connection, out, {})
        return 1

    async def _key_of(self, site: str) -> Jwk | None:
        for link in self._crossing.peers:
            if link.peer == site:
                key: Jwk = link.keys["seal"]
                return key
        async with self._service.pool.acquire() as connection:
            return (await self._links.site_keys(connection)).get(site)

    # -- copies

    async def _copies(self) -> None:
        """Looks through all dossiers after a link was made, when one was seen to be behind, and now and then."""
        upper = self._crossing.upper
        now = time.monotonic()
        if upper is None:
            self._upper = None
            return
        if self._upper != upper.peer:
            self._upper, self._look = upper.peer, [now + after for after in LOOK_AFTER]
        if self._crossing.behind:
            self._crossing.behind = False
            self._look.append(now)
        if not self._look or now < min(self._look):
            return
        self._look = [at for at in self._look if at > now] or [now + LOOK_EVERY]
        last = ""
        while True:
            async with self._service.pool.acquire() as connection:
                codes = await self._store.behind_copies(connection, last, COPIES_AT_ONCE)
            if not codes:
                return
            await self._copy(codes)
            last = codes[-1]
            self._service.beat("dispatch")

    async def _copy(self, codes: Sequence[str]) -> None:
        """Takes these dossiers' events from their owners' logs, from where the copies end."""
        async with self._service.pool.acquire() as connection:
            dossiers = await self._store.lock(connection, codes)
        events = {
            code: await self._service.ask_owner(DOSSIER_TOPIC, code, dossiers[code].copied_dossier) for code in codes
        }
        async with self._service.pool.acquire() as connection, connection.transaction():
            dossiers = await self._store.lock(connection, codes)
            applied = await self._store.applied(connection, codes)
            out = self._crossing.out(self._service.directory.current, await self._service.log.now(connection))
            for code in codes:
                dossier = dossiers[code]
                for envelope in events[code]:
                    if dossier.copied_dossier < envelope.sequence <= applied.get(code, 0):
                        out.dossier_event(dossier, envelope)
                if dossier.copied_transfer < dossier.transfer_sequence:
                    after = dossier.copied_transfer
                    for envelope in await self._service.log.after(connection, TRANSFER_TOPIC, code, after, 10_000):
                        out.transfer_event(dossier, envelope)
            await self._store.write(connection, [dossiers[code] for code in sorted(dossiers)], [])
            await self._crossing.flush(connection, out, dossiers)


def ask_of(dossier: Dossier, transfer: Transfer, asked: Envelope, person: Sealed | None) -> dict[str, Any]:
    """What the working site must know to do its leg."""
    return {
        "event": event_json(asked),
        "transfer": {
            "leg": str(transfer.leg),
            "replaces": None if transfer.replaces is None else str(transfer.replaces),
        },
        "dossier": {
            "code": dossier.code,
            "state": dossier.state,
            "agency": dossier.agency,
            "deciding_agency": dossier.deciding_agency,
            "procedure": dossier.procedure,
            "confidential": dossier.confidential,
            "due_at": None if dossier.due_at is None else format_instant(dossier.due_at),
        },
        "sealed": None if person is None else person._asdict(),
    }
