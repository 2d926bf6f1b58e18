"""Sends what waits: transfers to agencies of other sites, in the order in which they were asked for, and the events of
dossiers that the upper site has not been told of (what was here before the link was).

The person goes along, sealed: the ciphertext as intake published it, the person's data key wrapped to the site where an
officer will open it, and to no other. What this site says that others cannot give back to it in the clear is sealed to itself,
too (`own`): a ledger that a peer gives back after a loss can be read here.
"""

import asyncio
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog

from services.routing.carried import DOSSIER_TOPIC, event_json, site_of
from services.routing.crossing import Crossing
from services.routing.document import DOCUMENT_TOPIC
from services.routing.dossier import TRANSFER_TOPIC, Dossier
from services.routing.link_store import LinkStore
from services.routing.store import BEFORE_ALL, Person, Store
from services.routing.transfer import Transfer
from shared.contracts.codes import format_instant, parse_instant
from shared.contracts.envelope import Envelope, parse
from shared.contracts.events import (
    DocumentEvent,
    TransferRequested,
)
from shared.observe.traces import causing
from shared.security.peers import Identity, Jwk, canonical, wrap_to
from shared.security.sealing import SealBroken, unwrap
from shared.service import Service
from shared.store.pool import TRANSIENT_ERRORS, Connection

log = structlog.get_logger("lienthong.dispatch")

AT_ONCE: Final = 100
COPIES_AT_ONCE: Final = 100
LOOK_AFTER: Final = (0.0, 2.0, 10.0)  # seconds after a link was made: a batch may have begun before it was known
LOOK_EVERY: Final = 600.0
ERASURES_EVERY: Final = 5.0
START: Final = (datetime.min.replace(tzinfo=UTC), BEFORE_ALL)
LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Dispatch:
    """The loop that carries what waits into the ledgers."""

    def __init__(
        self, service: Service, store: Store, links: LinkStore, crossing: Crossing, identity: Identity
    ) -> None:
        self._service, self._store, self._links, self._crossing = service, store, links, crossing
        self._identity = identity
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
        after = START
        while True:
            async with self._service.pool.acquire() as connection:
                found = await self._store.to_send(connection, after, AT_ONCE)
            directory = self._service.directory.current
            sites = [(which, code, site_of(directory, receiver)) for which, code, receiver in found]
            waiting = [
                (which, code, site)
                for which, code, site in sites
                if site is not None and site != self._crossing.site and self._crossing.next_hop(site) is not None
            ]
            sent = await self._send(waiting) if waiting else 0
            if len(found) < AT_ONCE or sent:
                return sent
            async with self._service.pool.acquire() as connection:
                last = await self._store.transfer(connection, found[-1][0])
            assert last is not None
            after = (last[0].asked_at, last[0].id)

    async def _send(self, waiting: Sequence[tuple[UUID, str, str]]) -> int:
        """These transfers, in their order, in one transaction; if one of them cannot be sent, each by itself."""
        try:
            return await self._send_together(waiting)
        except TRANSIENT_ERRORS:
            raise
        except Exception as error:
            if len(waiting) == 1:
                log.error("transfer-not-sent", transfer=str(waiting[0][0]), exc_info=error)
                return 0
            return sum([await self._send([each]) for each in waiting])

    async def _send_together(self, waiting: Sequence[tuple[UUID, str, str]]) -> int:
        people = await self._people(waiting)
        codes = {code for _, code, _ in waiting}
        sent = 0
        async with self._service.pool.acquire() as connection, connection.transaction():
            dossiers = await self._store.lock(connection, codes)
            walks = await self._store.walks(connection, list(dossiers.values()))
            now = await self._service.log.now(connection)
            asked = await self._requested(connection, codes)
            home = self._crossing.site
            refs = {(home, person.contact_ref) for person in people.values()}
            erased = {ref for _, ref in await self._links.erased(connection, refs)}  # while they were being sealed
            out = self._crossing.out(self._service.directory.current, now)
            for which, code, site in waiting:
                dossier, walk = dossiers[code], walks[code]
                transfer = walk.transfers[which]
                if transfer.state != "requested":
                    continue
                walk.sent(which, now)
                person = people.get((code, site))
                if person is not None and person.contact_ref in erased:
                    person = None
                with causing({}, asked[which].traceparent):
                    out.send("ask", site, ask_of(dossier, transfer, asked[which], person))
                    out.transfers(dossier, walk)
                sent += 1
            await self._store.write(connection, [dossiers[code] for code in sorted(dossiers)], walks.values())
            await self._crossing.flush(connection, out, dossiers)
        self._service.wake()
        return sent

    async def _requested(self, connection: Connection, codes: Collection[str]) -> dict[UUID, Envelope]:
        """The events by which these dossiers' transfers were asked for."""
        found: dict[UUID, Envelope] = {}
        for envelope in await self._service.log.of_type(connection, TRANSFER_TOPIC, codes, TransferRequested.short):
            data = parse(envelope)
            if isinstance(data, TransferRequested):
                found[data.transfer] = envelope
        return found

    async def _people(self, waiting: Sequence[tuple[UUID, str, str]]) -> dict[tuple[str, str], Person]:
        """The applicants, each for the officer of one site alone, by code and site. Missing: nobody is known, or that site's
        key is not yet."""
        keys = {site: key for site in {site for _, _, site in waiting} if (key := await self._key_of(site)) is not None}
        rows = {row["code"]: row for row in await self._service.ask("intake", "/v1/sealed", code=_codes(waiting))}
        people: dict[tuple[str, str], Person] = {}
        for _, code, site in waiting:
            if code not in rows or site not in keys:
                continue
            row = rows[code]
            with suppress(SealBroken):
                data_key = unwrap(self._service.keys, row["wrapped"])
                wrapped = wrap_to(data_key, keys[site])
                people[code, site] = Person(
                    row["contact_ref"], row["nonce"], row["ciphertext"], wrapped, row["wrapped"]
                )
        return people

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
            await self._erase(each["contact_ref"], parse_instant(each["erased_at"]), each["dossiers"], each["again"])

    async def _erase(self, contact_ref: str, at: datetime, codes: Sequence[str], again: bool) -> None:
        """`again`: after a restoration, whose ledgers may not know any more where the person went: every site is told."""
        async with self._service.pool.acquire() as connection, connection.transaction():
            await self._store.lock(
                connection, codes
            )  # a transfer of theirs that is on its way out is in the ledger, or later
            if not await self._links.put_erased(connection, self._crossing.site, contact_ref, at):
                return
            out = self._crossing.out(self._service.directory.current, await self._service.log.now(connection))
            sites = await self._links.forget(connection, self._crossing.site, contact_ref)
            if again:
                sites |= {link.peer for link in self._crossing.peers if link.open}
                sites |= {site for site in await self._links.site_keys(connection) if self._crossing.next_hop(site)}
            for site in sorted(sites - {self._crossing.site}):
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
            own = self._identity.public["seal"]
            for envelope in await self._service.log.after(connection, DOCUMENT_TOPIC, which, document.told, 10_000):
                data = parse(envelope)
                if isinstance(data, DocumentEvent) and data.origin is None:
                    said = canonical(event_json(envelope))
                    out.send("document", site, {"sealed": wrap_to(said, key), "own": wrap_to(said, own)})
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


def _codes(waiting: Sequence[tuple[UUID, str, str]]) -> str:
    return ",".join(sorted({code for _, code, _ in waiting}))


def ask_of(dossier: Dossier, transfer: Transfer, asked: Envelope, person: Person | None) -> dict[str, Any]:
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
