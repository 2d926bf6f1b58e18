"""After a restoration from an older backup: what this site had said since then, and its peers have, stands again as it did.

A peer gives back the ledger's envelopes (`link.py`); what they say of this site itself waits in `link_back`, and is taken
here, in its order, before anything that the peer has said is heard:

    dossier, transfer   copies of its own dossiers' events, under their ids and numbers: intake's go to intake, and over the
                        bus to all who follow it; routing's own are followed by the walks, which say nothing anew
    leg                 what was said here of a leg of another site: it is said again when that leg has been asked for again
    ask, home           of a transfer that nobody could give back: it is recalled where it is worked on, and its dossier named
    document            what was done here to a document, which this site sealed to itself, too: under its id and number, once
                        the other site has said again what came before
    erased              a person who was erased, and is so again

The applicants of dossiers that were handed over come back with them, sealed as they lie in intake. Of the others no site has
anything: intake keeps a list of the dossiers whose applicants must be asked again (decision 0009).

Where a dossier has gone on otherwise meanwhile, because this site was restored alone, what it has itself stands, and the
upper site is told it instead.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import httpx
import structlog

from services.routing.carried import DOSSIER_TOPIC, event_of
from services.routing.crossing import Crossing, Out, with_origin
from services.routing.documents import Documents
from services.routing.dossier import TRANSFER_TOPIC, Dossier
from services.routing.link_store import LinkStore
from services.routing.store import Store
from services.routing.transfer import Refusal, Walk
from services.routing.wire import Letter, Refused, read_letter
from shared.contracts.codes import uuid7
from shared.contracts.envelope import Envelope
from shared.contracts.events import TransferEvent, TransferRequested
from shared.service import Service
from shared.store.pool import TRANSIENT_ERRORS, Connection
from shared.web.ledger import envelope_to_json

log = structlog.get_logger("lienthong.restoring")

PAGE: Final = 200
FOLLOWS_WITHIN: Final = 120.0  # seconds for what was given to intake to come back over the bus
READY_WITHIN: Final = 20.0  # seconds that a site that starts waits for its peers; then it goes on alone
AS_INTAKE: Final = {"contact_ref": "contact_ref", "nonce": "nonce", "ciphertext": "ciphertext", "wrapped": "own"}
LOST: Final = "Cơ quan gửi đã khôi phục dữ liệu từ bản sao lưu cũ; hồ sơ sẽ được chuyển lại."


@dataclass(slots=True)
class Page:
    """Rows of `link_back` and what they are about, locked."""

    peer: str
    out: Out
    dossiers: dict[str, Dossier]
    walks: dict[str, Walk]
    forked: dict[str, int]
    again: list[Envelope] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    later: dict[int, str | None] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    erased: list[tuple[str, datetime]] = field(default_factory=list)
    people: set[tuple[str, str]] = field(default_factory=set)  # by contact_ref, and the site that they were sealed to
    documents: list[tuple[int, Letter]] = field(default_factory=list)


class Restoring:
    """The loop that takes what was given back."""

    def __init__(
        self, service: Service, store: Store, links: LinkStore, crossing: Crossing, documents: Documents
    ) -> None:
        self._service, self._store, self._links, self._crossing = service, store, links, crossing
        self._documents = documents
        self._given: dict[int, float] = {}
        self._began = time.monotonic()
        self._was = False

    def unready(self) -> list[str]:
        """A site that was restored first hears what it had said; alone, it goes on after a while."""
        waits = any(link.recovering and not link.paused and link.open for link in self._crossing.peers)
        return ["what was said since the backup is coming back"] if waits and not self._waited() else []

    def _waited(self) -> bool:
        return time.monotonic() - self._began > READY_WITHIN

    async def run(self) -> None:
        while True:
            self._service.beat("restoring")
            moved = False
            try:
                if any(link.recovering for link in self._crossing.peers) and self._service.directory.loaded:
                    self._was = True
                    moved = await self._turn()
                elif self._was:
                    await self._tell_intake(whole=True)
                    self._was = False
            except TRANSIENT_ERRORS as error:
                log.warning("restoring-interrupted", error=type(error).__name__)
            await asyncio.sleep(0.0 if moved else 0.2)

    async def _turn(self) -> bool:
        """One page of one peer's rows; whether there may be more now."""
        async with self._service.pool.acquire() as connection:
            peers = await self._links.back_peers(connection)
            rows: list[Any] = []
            for peer in peers:
                if rows := await self._links.back_page(connection, peer, PAGE):
                    break
        if not rows:
            return False
        forked = await self._to_intake(rows)
        if forked is None:
            return False
        await self._take(peer, rows, forked)
        for row in rows:
            self._given.pop(row["ord"], None)
        self._service.wake()
        return True

    # -- intake's

    async def _to_intake(self, rows: Sequence[Any]) -> dict[str, int] | None:
        """The dossiers' events of a page are in intake's log again, and were followed here; None: not yet. Those that have
        gone on otherwise, from which number on."""
        letters = [read_letter(row["body"], row["digest"]) for row in rows if row["kind"] == "dossier"]
        envelopes = [event_of(each.body["event"])[0] for each in letters]
        erased = [
            str(read_letter(row["body"], row["digest"]).body["contact_ref"]) for row in rows if row["kind"] == "erased"
        ]
        people = [
            person
            for row in rows
            if row["kind"] == "ask" and (person := own_person(read_letter(row["body"], row["digest"]))) is not None
        ]
        if not envelopes and not erased and not people:
            return {}
        answer = await self._tell_intake(envelopes, erased, people)
        forked: dict[str, int] = answer["forked"]
        heads: dict[str, int] = {}
        for each in envelopes:
            if each.subject not in forked:
                heads[each.subject] = max(each.sequence, heads.get(each.subject, 0))
        since = self._given.setdefault(rows[0]["ord"], time.monotonic())
        async with self._service.pool.acquire() as connection:
            places = await self._store.places(connection, heads)
        behind = [code for code, head in heads.items() if places.get(code, (0, False))[0] < head]
        if not behind or all(places.get(code, (0, False))[1] for code in behind):
            return forked
        if time.monotonic() - since > FOLLOWS_WITHIN:
            log.error("given-back-not-followed", codes=behind[:20])
            return forked
        return None

    async def _tell_intake(
        self,
        events: Sequence[Envelope] = (),
        erased: Sequence[str] = (),
        people: Sequence[Mapping[str, str]] = (),
        *,
        whole: bool = False,
    ) -> dict[str, Any]:
        """Raises OSError when intake does not answer."""
        body = {
            "events": [envelope_to_json(each) for each in events],
            "erased": list(erased),
            "people": list(people),
            "whole": whole,
        }
        try:
            answer = await self._service.http.post(
                f"{self._service.settings.url_of('intake')}/v1/restored",
                json=body,
                headers=self._service.service_token(),
            )
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise ConnectionError(f"intake does not take what came back: {type(error).__name__}") from error
        said: dict[str, Any] = answer.json()
        return said

    # -- routing's

    async def _take(self, peer: str, rows: Sequence[Any], forked: dict[str, int]) -> None:
        """The rest of a page, in one transaction."""
        codes = {row["key"] for row in rows if row["key"] is not None}
        stood = {code: await self._service.ask_owner(DOSSIER_TOPIC, code, at - 1) for code, at in forked.items()}
        async with self._service.pool.acquire() as connection, connection.transaction():
            dossiers = await self._store.lock(connection, codes)
            walks = await self._store.walks(connection, list(dossiers.values()))
            now = await self._service.log.now(connection)
            out = self._crossing.out(self._service.directory.current, now)
            page = Page(peer, out, dossiers, walks, forked)
            for row in rows:
                self._row(page, row)
            for row, each in page.documents:
                key = await self._documents.stand_again(connection, each)
                if key is not None:
                    page.taken.remove(row)
                    page.later[row] = key
            await self._links.back_taken(connection, page.taken, page.later)
            await self._transfers_forked(connection, page, stood)
            self._go_on(page, await self._links.coming_back(connection, codes))
            await self._people(connection, page)
            await self._service.log.append(connection, page.again)
            await self._store.write(connection, [dossiers[code] for code in sorted(dossiers)], walks.values())
            await self._crossing.flush(connection, out, dossiers, [(each, None) for each in page.again])
            for code in page.lost:
                await self._links.put_lost(connection, code, peer, now)
                log.error("dossier-lost", code=code, peer=peer)

    def _row(self, page: Page, row: Any) -> None:
        each = read_letter(row["body"], row["digest"])
        page.taken.append(row["ord"])
        if row["kind"] == "erased":
            page.erased.append((str(each.body["contact_ref"]), each.at))
            return
        if row["kind"] == "document":
            page.documents.append((row["ord"], each))
            return
        try:
            envelope, data = event_of(each.body["event"])
        except (Refused, KeyError):
            return
        code = envelope.subject
        dossier, walk = page.dossiers.get(code), page.walks.get(code)
        if row["kind"] == "dossier":
            if dossier is not None and code not in page.forked:
                dossier.copied_dossier = max(dossier.copied_dossier, envelope.sequence)
            return
        if not isinstance(data, TransferEvent):
            return
        if each.person is not None:
            page.people.add((each.person, each.to))
        match row["kind"]:
            case "transfer" if dossier is not None and walk is not None and dossier.home is None:
                self._transfer(page, dossier, walk, envelope, data)
            case "ask" if isinstance(data, TransferRequested):
                self._ask(page, each, walk, data)
            case "leg":
                self._leg(page, row["ord"], walk, envelope, data)
            case "home" if walk is not None and data.transfer in walk.transfers:
                with suppress(Refusal):
                    walk.recall(data.transfer, getattr(data, "reason", LOST), page.out.now)

    def _transfer(self, page: Page, dossier: Dossier, walk: Walk, envelope: Envelope, data: TransferEvent) -> None:
        if envelope.sequence <= dossier.transfer_sequence or dossier.code in page.forked:
            return
        if envelope.sequence != dossier.transfer_sequence + 1:
            return
        dossier.transfer_sequence = dossier.copied_transfer = envelope.sequence
        dossier.transfer_recorded = max(envelope.recorded, dossier.transfer_recorded or envelope.recorded)
        walk.follow(data, envelope.time)
        page.again.append(envelope)

    def _ask(self, page: Page, each: Letter, walk: Walk | None, data: TransferRequested) -> None:
        """A hand-over that is known here again goes on; of any other nobody would ever hear the answer."""
        if walk is not None and data.transfer in walk.transfers:
            return
        page.out.recall(each.to, data, LOST, uuid7(), 1)
        if walk is None:
            page.lost.add(data.dossier)

    def _leg(self, page: Page, row: int, walk: Walk | None, envelope: Envelope, data: TransferEvent) -> None:
        if walk is None or data.transfer not in walk.transfers:
            page.taken.remove(row)
            page.later[row] = envelope.subject
            return
        before = len(walk.events)
        if walk.again(data, max(envelope.time, page.out.now)):
            walk.events[before:] = [(at, with_origin(event, envelope)) for at, event in walk.events[before:]]

    async def _transfers_forked(self, connection: Connection, page: Page, stood: dict[str, list[Envelope]]) -> None:
        """Of dossiers that have gone on otherwise the upper site is told what stands, from there on."""
        for code, events in stood.items():
            log.error("dossier-went-on-otherwise", code=code, at=page.forked[code])
            for each in events:
                page.out.instead(each)
            for each in await self._service.log.after(connection, TRANSFER_TOPIC, code, 0, 10_000):
                page.out.instead(each)
            if (dossier := page.dossiers.get(code)) is not None and events:
                dossier.copied_dossier = max(dossier.copied_dossier, events[-1].sequence)
                dossier.copied_transfer = dossier.transfer_sequence

    def _go_on(self, page: Page, more: set[str]) -> None:
        """`more`: dossiers of whose transfers later pages know more."""
        for code, walk in page.walks.items():
            dossier = page.dossiers[code]
            if dossier.home is None and code not in page.forked and code not in more:
                walk.state, walk.due_at = dossier.state, dossier.due_at
                walk.resume(page.out.directory, page.out.now)
            page.out.transfers(dossier, walk)

    async def _people(self, connection: Connection, page: Page) -> None:
        """Who was erased goes out of the envelopes that came back, and is taken back where they had gone."""
        home = self._crossing.site
        for ref, at in page.erased:
            await self._links.put_erased(connection, home, ref, at)
        known = await self._links.erased(connection, {(home, ref) for ref, _ in page.people})
        told = {(ref, to) for ref, to in page.people if (home, ref) in known}
        for ref in sorted({ref for ref, _ in page.erased} | {ref for _, ref in known}):
            told |= {(ref, site) for site in await self._links.forget(connection, home, ref)}
        for ref, site in sorted(told):
            page.out.send("erased", site, {"contact_ref": ref})


def own_person(each: Letter) -> dict[str, str] | None:
    """The applicant that went with a transfer, as intake had sealed it; None when nobody did, or was erased since."""
    sealed = each.body.get("sealed")
    if each.person is None or not isinstance(sealed, Mapping) or "own" not in sealed:
        return None
    return {name: str(sealed[of]) for name, of in AS_INTAKE.items()}
