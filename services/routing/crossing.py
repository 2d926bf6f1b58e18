"""What crosses between sites: what this one says becomes envelopes for the others, and theirs take effect here.

Kinds of envelopes

    ask        home to the working site: a transfer, what is to be known of its dossier, and the person, sealed to that site
    leg        the working site to home: delivered, accepted, refused, completed, returned
    home       home to the working site: recalled, rerouted; `final` when it beats a completion
    copy       a lower site to the upper one: each event of its own dossiers and of their transfers, without contact data
    document   either site of an official document to the other: what was done to it there, sealed to that site
    erased     home to each site that it sealed a person to: that person was erased
    directory  agencies, procedures, calendars, templates and public keys: downwards all, upwards a site's own agencies

An envelope for a site that is no neighbour goes on to the next one; its hops say where it has been, and nothing goes
through a site twice.
"""

from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pydantic import ValidationError

from services.routing.carried import event_json, event_of, site_of
from services.routing.directories import Directories
from services.routing.documents import Documents
from services.routing.dossier import TRANSFER_TOPIC, Dossier
from services.routing.link_store import Link, LinkStore, key_of
from services.routing.store import Copy, Sealed, Store
from services.routing.transfer import Transfer, Walk
from services.routing.views import Views
from services.routing.wire import MAX_HOPS, UNREADABLE, Letter, Refused, letter
from shared.contracts.codes import parse_instant
from shared.contracts.envelope import Envelope
from shared.contracts.events import (
    DocumentEvent,
    DossierEvent,
    EventData,
    Origin,
    TransferAccepted,
    TransferCompleted,
    TransferDelivered,
    TransferEvent,
    TransferRecalled,
    TransferRefused,
    TransferRequested,
    TransferRerouted,
    TransferReturned,
)
from shared.directory.directory import Directory
from shared.service import Service
from shared.store.pool import Connection

COPY_TOPIC: Final = "lienthong.copy.v1"
OF_THE_LEG: Final = (TransferDelivered, TransferAccepted, TransferRefused, TransferCompleted, TransferReturned)
OF_HOME: Final = (TransferRecalled, TransferRerouted)


@dataclass(slots=True)
class Out:
    """What a transaction of routing says: events for the bus, envelopes for other sites by the site they are for."""

    site: str
    source: str
    directory: Directory
    upper: str | None
    now: datetime
    events: list[Envelope] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    behind: bool = False

    def dossier_event(self, dossier: Dossier, envelope: Envelope) -> None:
        """An event of our own dossier, applied here, for the upper site's tracking and figures."""
        if self.upper is None or dossier.home is not None:
            return
        if dossier.copied_dossier != envelope.sequence - 1:
            self.behind = True
            return
        dossier.copied_dossier = envelope.sequence
        self._copy(envelope)

    def transfers(self, dossier: Dossier, walk: Walk) -> None:
        """What the walk has made, numbered on its dossier's line and said to whom it concerns."""
        for happened, event in walk.events:
            envelope = dossier.say_transfer(event, happened, self.now, self.source)
            self.events.append(envelope)
            if dossier.home is not None:
                if isinstance(event, OF_THE_LEG) and event.origin is None:
                    self.send("leg", dossier.home, {"event": event_json(envelope)})
                continue
            self.transfer_event(dossier, envelope)
            if isinstance(event, OF_HOME):
                self._to_working_site(dossier, envelope, event)
        walk.events.clear()

    def transfer_event(self, dossier: Dossier, envelope: Envelope) -> None:
        if self.upper is None or dossier.home is not None:
            return
        if dossier.copied_transfer != envelope.sequence - 1:
            self.behind = True
            return
        dossier.copied_transfer = envelope.sequence
        self._copy(envelope)

    def _to_working_site(self, dossier: Dossier, envelope: Envelope, event: TransferEvent) -> None:
        site = site_of(self.directory, event.to)
        if site is not None and site != self.site:
            final = isinstance(event, TransferRerouted) or dossier.state in (3, 8, 9, 10)
            self.send("home", site, {"event": event_json(envelope), "final": final})

    def recall(self, to: str, said: TransferEvent, reason: str, id_: UUID, sequence: int) -> None:
        """Home's last word on a leg that is worked on elsewhere: it is over there, too."""
        recalled = TransferRecalled(
            transfer=said.transfer,
            dossier=said.dossier,
            step=said.step,
            from_agency=said.from_agency,
            to=said.to,
            attempt=said.attempt,
            due_at=said.due_at,
            agency=said.agency,
            reason=reason,
        )
        envelope = Envelope(
            topic=TRANSFER_TOPIC,
            id=id_,
            source=self.source,
            type=recalled.short,
            subject=said.dossier,
            time=self.now,
            recorded=self.now,
            sequence=max(1, sequence),
            mode="live",
            data=recalled.to_json(),
        )
        self.send("home", to, {"event": event_json(envelope), "final": True})

    def send(self, kind: str, to: str, body: Mapping[str, Any]) -> None:
        self.letters.append(letter(kind, body, origin=self.site, to=to, at=self.now))

    def pass_on(self, each: Letter, to: str) -> None:
        """Another site's envelope goes on under its own id; its hops say that it has been here."""
        hops = (*each.hops, self.site)
        passed = letter(each.kind, each.body, origin=each.origin, to=to, at=self.now, hops=hops, id=each.id)
        self.letters.append(passed)

    def instead(self, envelope: Envelope) -> None:
        """Home has gone on otherwise, after a loss, than its upper site has it: home's word stands."""
        if self.upper is not None:
            self.send("copy", self.upper, {"event": event_json(envelope), "instead": True})

    def _copy(self, envelope: Envelope) -> None:
        assert self.upper is not None
        self.send("copy", self.upper, {"event": event_json(envelope)})


class Crossing:
    """The neighbours as they are now, and what goes to and comes from them."""

    def __init__(
        self,
        service: Service,
        store: Store,
        links: LinkStore,
        directories: Directories,
        documents: Documents,
        views: Views,
    ) -> None:
        self._service, self._store, self._links, self._directories = service, store, links, directories
        self._documents, self._views = documents, views
        self.peers: tuple[Link, ...] = ()
        self.behind = False
        self.site = service.settings.site

    @property
    def upper(self) -> Link | None:
        return next((link for link in self.peers if link.side == "upper" and link.open), None)

    def next_hop(self, site: str) -> Link | None:
        """The neighbour behind which a site lies: below one that reaches it, else above."""
        for link in self.peers:
            if link.side == "lower" and link.open and (site == link.peer or site in link.reaches):
                return link
        return self.upper

    def out(self, directory: Directory, now: datetime) -> Out:
        upper = self.upper
        return Out(self.site, self._service.source, directory, upper.peer if upper else None, now)

    async def flush(
        self,
        connection: Connection,
        out: Out,
        dossiers: Mapping[str, Dossier],
        said: Sequence[tuple[Envelope, EventData | None]] = (),
    ) -> None:
        """Into the log, the subscribers' views and the ledgers, in the caller's transaction, which has locked the dossiers.
        `said`: events of intake that were applied."""
        own = [(each, None) for each in out.events if each.topic == TRANSFER_TOPIC]
        seen = await self._views.mirror(connection, dossiers, [*said, *own])
        await self._service.log.append(connection, [*out.events, *seen])
        await self.post(connection, out.letters)
        self.behind = self.behind or out.behind

    async def coming_back(self, connection: Connection, codes: Collection[str]) -> set[str]:
        """Dossiers of this restored site whose transfers a peer has given back, and that do not stand again yet."""
        return await self._links.coming_back(connection, codes) if self.peers else set()

    async def post(self, connection: Connection, letters: Sequence[Letter]) -> None:
        by_peer: dict[str, list[Letter]] = {}
        for each in letters:
            if (hop := self.next_hop(each.to)) is None:
                raise LookupError(f"no link leads to {each.to}")
            by_peer.setdefault(hop.peer, []).append(each)
        for peer in sorted(by_peer):
            await self._links.append(connection, peer, by_peer[peer])

    # -- what came

    async def apply(self, connection: Connection, peer: Link, letters: Sequence[Letter]) -> list[str]:
        """The effect of envelopes in their order; of each `applied`, or why it had none."""
        arriving = Arriving(self, self._store, self._links, peer, self._service.directory.current)
        await arriving.read(connection, letters, await self._service.log.now(connection))
        known = await self._links.known(connection, peer.peer, [each.id for each in letters])
        outcomes: list[str] = []
        with self._service.traces.applying(list(traced(letters, known)), dict, name="link"):
            for each in letters:
                if each.id in known:
                    outcomes.append("repeated")
                    continue
                known.add(each.id)
                try:
                    if each.to == self.site and each.kind == "directory":
                        outcome = await self._directories.take(connection, peer, each)
                    elif each.to == self.site and each.kind == "document":
                        outcome = await self._documents.take(connection, each)
                    else:
                        outcome = arriving.take(each)
                except Refused as refused:
                    outcome = refused.reason
                    await self._links.refused(connection, peer.peer, refused.reason)
                outcomes.append(outcome)
            await arriving.write(connection)
        return outcomes


def traced(letters: Sequence[Letter], known: Container[UUID]) -> Iterator[Envelope]:
    """The events in envelopes that carry a trace, and that did not come before."""
    for each in letters:
        event = each.body.get("event")
        if each.id not in known and isinstance(event, dict) and "traceparent" in event:
            with suppress(Refused):
                yield event_of(event)[0]


class Arriving:
    """Envelopes of one record, taken one by one, in memory."""

    def __init__(self, crossing: Crossing, store: Store, links: LinkStore, peer: Link, directory: Directory) -> None:
        self._crossing, self._store, self._links = crossing, store, links
        self._peer, self._directory = peer, directory
        self._dossiers: dict[str, Dossier] = {}
        self._walks: dict[str, Walk] = {}
        self._copies: dict[str, Copy] = {}
        self._sealed: dict[str, Sealed] = {}
        self._erased: set[tuple[str, str]] = set()
        self._erasing: dict[tuple[str, str], datetime] = {}
        self._said: dict[str, list[tuple[int, Letter]]] = {}
        self._stands: list[int] = []
        self._touched: set[str] = set()
        self._copied: set[str] = set()

    async def read(self, connection: Connection, letters: Sequence[Letter], now: datetime) -> None:
        """What the envelopes are about, locked."""
        self._out = self._crossing.out(self._directory, now)
        mine = [each for each in letters if each.to == self._crossing.site]
        people = {(each.origin, each.person) for each in mine if each.person is not None}
        self._erased = await self._links.erased(connection, people)
        self._copies = await self._store.lock_copies(connection, {k for k in map(key_of, mine) if k is not None})
        legs = {k for each in mine if each.kind != "copy" and (k := key_of(each)) is not None}
        if legs:
            self._dossiers = await self._store.lock(connection, legs)
            self._walks = await self._store.walks(connection, list(self._dossiers.values()))
            for row, each in await self._links.back_legs(connection, self._peer.peer, legs):
                self._said.setdefault(key_of(each) or "", []).append((row, each))

    async def write(self, connection: Connection) -> None:
        touched = [self._dossiers[code] for code in sorted(self._touched)]
        await self._store.write(connection, touched, [self._walks[code] for code in sorted(self._touched)])
        for (home, ref), at in self._erasing.items():
            await self._links.put_erased(connection, home, ref, at)
            await self._store.forget_sealed(connection, home, ref)
        if self._stands:
            await self._links.back_taken(connection, self._stands)
        await self._store.put_sealed(connection, self._sealed)
        await self._store.write_copies(connection, [self._copies[code] for code in sorted(self._copied)])
        await self._crossing.flush(connection, self._out, self._dossiers)

    def take(self, each: Letter) -> str:
        """Raises Refused."""
        if each.kind == UNREADABLE:
            raise Refused("bad-envelope")
        if each.to != self._crossing.site:
            return self._pass_on(each)
        try:
            match each.kind:
                case "copy":
                    return self._copy(each)
                case "ask":
                    return self._ask(each)
                case "leg":
                    return self._leg(each)
                case "home":
                    return self._home(each)
                case "erased":
                    return self._person_erased(each)
        except (KeyError, TypeError, ValueError, ValidationError):
            raise Refused("bad-envelope") from None
        raise Refused("unknown-kind")

    def _pass_on(self, each: Letter) -> str:
        site = self._crossing.site
        if site in each.hops or each.origin == site or len(each.hops) >= MAX_HOPS:
            raise Refused("loop")
        hop = self._crossing.next_hop(each.to)
        if hop is None or hop.peer == self._peer.peer:
            raise Refused("no-way")
        self._out.pass_on(each, each.to)
        return "passed-on"

    def _copy(self, each: Letter) -> str:
        """An event of a lower site's dossier, for tracking and figures here and above."""
        if self._peer.side != "lower" or each.origin not in (self._peer.peer, *self._peer.reaches):
            raise Refused("not-below")
        envelope, data = event_of(each.body["event"])
        if isinstance(data, DocumentEvent):
            raise Refused("bad-event")
        if envelope.source.split("/")[1:3] != ["sites", each.origin]:
            raise Refused("wrong-source")
        home = site_of(self._directory, data.agency)
        if home is not None and home != each.origin:
            raise Refused("not-theirs")
        if self._out.upper is not None:
            self._out.pass_on(each, self._out.upper)
        code = envelope.subject
        copy = self._copies.get(code) or Copy(code, each.origin, 0, 0, 0, self._out.now)
        of_dossier = isinstance(data, DossierEvent)
        have = copy.dossier_sequence if of_dossier else copy.transfer_sequence
        if copy.home != each.origin:
            raise Refused("not-theirs")
        if envelope.sequence <= have and each.body.get("instead") is not True:
            return "repeated"
        if envelope.sequence > have + 1:
            raise Refused("out-of-order")
        if of_dossier:
            copy.dossier_sequence = envelope.sequence
        else:
            copy.transfer_sequence = envelope.sequence
        self._copies[code] = copy
        self._copied.add(code)
        if isinstance(data, TransferEvent) and site_of(self._directory, data.to) == self._crossing.site:
            return "known"  # a leg that is worked on here: this site's own events count it
        copy.sequence += 1
        copy.recorded = max(self._out.now, copy.recorded)
        self._out.events.append(
            Envelope(
                topic=COPY_TOPIC,
                id=envelope.id,
                source=envelope.source,
                type=envelope.type,
                subject=code,
                time=envelope.time,
                recorded=copy.recorded,
                sequence=copy.sequence,
                mode=envelope.mode,
                data=envelope.data,
            )
        )
        return "applied"

    def _ask(self, each: Letter) -> str:
        """A transfer of another site's dossier arrives."""
        envelope, data = event_of(each.body["event"])
        about, asked = each.body["dossier"], each.body["transfer"]
        code = envelope.subject
        if not isinstance(data, TransferRequested) or about["code"] != code:
            raise Refused("bad-event")
        dossier = self._dossiers.get(code)
        if dossier is None:
            dossier = Dossier(
                code,
                state=int(about["state"]),
                agency=str(about["agency"]),
                deciding_agency=str(about["deciding_agency"]),
                procedure=str(about["procedure"]),
                confidential=bool(about["confidential"]),
                due_at=_instant(about["due_at"]),
                routed=True,
                last_event=envelope.id,
                home=each.origin,
            )
        elif dossier.home != each.origin:
            raise Refused("not-theirs")
        dossier.state = int(about["state"])
        walk = self._walks.get(code) or Walk(code, dossier.agency, dossier.state, dossier.due_at, dossier.home)
        walk.state = dossier.state
        transfer = Transfer(
            id=data.transfer,
            dossier=code,
            leg=UUID(asked["leg"]),
            step=data.step,
            sender=data.from_agency,
            receiver=data.to,
            state="requested",
            attempt=data.attempt,
            due_at=data.due_at,
            asked_at=envelope.time,
            changed_at=envelope.time,
            redirected_from=data.redirected_from,
            replaces=None if asked["replaces"] is None else UUID(asked["replaces"]),
        )
        if data.transfer not in walk.transfers:
            walk.events.append((envelope.time, with_origin(data, envelope)))
        if not walk.arrive(transfer, self._directory, self._out.now):
            return "repeated"
        self._dossiers[code], self._walks[code] = dossier, walk
        person = each.body["sealed"]
        if person is not None and (each.origin, str(person["contact_ref"])) not in self._erased:
            self._sealed[code] = Sealed(*(str(person[name]) for name in Sealed._fields))
        self._say_again(code, walk)
        self._say(code)
        return "applied"

    def _say_again(self, code: str, walk: Walk) -> None:
        """A site that was restored has said things of this leg that its own database knows no more."""
        left = []
        for row, each in self._said.get(code, ()):
            envelope, data = event_of(each.body["event"])
            if isinstance(data, TransferEvent) and data.transfer in walk.transfers:
                if walk.again(data, max(envelope.time, self._out.now)):
                    self._mark(walk, data, envelope)
                self._stands.append(row)
            else:
                left.append((row, each))
        self._said[code] = left

    def _leg(self, each: Letter) -> str:
        """What a working site says of a leg of ours."""
        envelope, data = event_of(each.body["event"])
        code = envelope.subject
        walk, dossier = self._walks.get(code), self._dossiers.get(code)
        if walk is None or dossier is None or dossier.home is not None or not isinstance(data, TransferEvent):
            raise Refused("not-ours")
        transfer = walk.transfers.get(data.transfer)
        if transfer is None or site_of(self._directory, transfer.receiver) != each.origin:
            raise Refused("not-theirs")
        outcome = walk.hear(data, self._directory, envelope.time)
        if outcome == "final":
            # The work came too late: the working site's leg ends as it has ended here.
            gone = transfer.state == "rerouted"
            why = transfer.reason or ("Đã chuyển cơ quan khác giải quyết." if gone else "Hồ sơ đã kết thúc.")
            self._out.recall(each.origin, data, why, each.id, dossier.transfer_sequence)
            return "too-late"
        if outcome == "late":
            return "late"
        self._mark(walk, data, envelope)
        self._say(code)
        return "applied"

    def _person_erased(self, each: Letter) -> str:
        """The person behind legs of that home is forgotten here, whatever comes later."""
        who = (each.origin, str(each.body["contact_ref"]))
        self._erased.add(who)
        self._erasing[who] = self._out.now
        for code in [code for code, sealed in self._sealed.items() if self._is(who, code, sealed)]:
            del self._sealed[code]
        return "applied"

    def _is(self, who: tuple[str, str], code: str, sealed: Sealed) -> bool:
        return (self._dossiers[code].home, sealed.contact_ref) == who

    def _home(self, each: Letter) -> str:
        """Home recalls or reroutes a leg that is worked on here."""
        envelope, data = event_of(each.body["event"])
        code = envelope.subject
        walk, dossier = self._walks.get(code), self._dossiers.get(code)
        if walk is None or dossier is None or dossier.home != each.origin or not isinstance(data, TransferEvent):
            raise Refused("not-theirs")
        if not walk.told(data, bool(each.body["final"]), envelope.time):
            return "late"
        self._mark(walk, data, envelope)
        self._say(code)
        return "applied"

    def _mark(self, walk: Walk, data: TransferEvent, envelope: Envelope) -> None:
        """The event that repeats another site's says so."""
        walk.events[:] = [
            (
                at,
                with_origin(event, envelope)
                if event.transfer == data.transfer and event.state == data.state
                else event,
            )
            for at, event in walk.events
        ]

    def _say(self, code: str) -> None:
        self._touched.add(code)
        self._out.transfers(self._dossiers[code], self._walks[code])


def with_origin(event: TransferEvent, envelope: Envelope) -> TransferEvent:
    origin = Origin(id=envelope.id, source=envelope.source, sequence=envelope.sequence, time=envelope.time)
    return event.model_copy(update={"origin": origin})


def _instant(value: Any) -> datetime | None:
    return None if value is None else parse_instant(value)
