"""The bus side of notify: a batch of dossier and contact events becomes notices, in one transaction (promises 3 and 9)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from services.notify import text
from services.notify.notice import (
    FOLLOWED_BY_POST,
    Channel,
    Dossier,
    Matter,
    Notice,
    Person,
    Step,
    Telling,
    Wait,
    facts_of,
    follow,
    forgotten,
    matter_of,
    planned,
    settled,
    superseded,
    value_of,
    way_to_tell,
)
from services.notify.postal import Kind, Order, wanted
from services.notify.settings import NotifySettings
from services.notify.store import Contact, Said, SealedNotice, Store, notice_of, telling_of
from shared.contracts.codes import local_day, uuid7
from shared.contracts.events import ContactChanged, ContactRecorded, DossierEvent
from shared.directory.bundle import NoticeRule, TemplateEntry
from shared.directory.directory import Directory, UnknownAgency, UnknownProcedure, UnknownTemplate
from shared.service import Service
from shared.store.inbox import Fault, Received
from shared.store.pool import Connection

CONTACT_TOPIC, DOSSIER_TOPIC = "lienthong.contact.v1", "lienthong.dossier.v1"
CONTRADICTS = "state-contradiction"
TOLD_BEFORE = "before-restore"


@dataclass(slots=True)
class Batch:
    """What a batch comes to while it is folded in memory."""

    dossiers: dict[str, Dossier]
    contacts: dict[str, Contact] = field(default_factory=dict)
    changed_contacts: dict[str, Contact] = field(default_factory=dict)
    steps: dict[UUID, tuple[Notice, Step]] = field(default_factory=dict)
    tellings: list[Telling] = field(default_factory=list)
    met: list[tuple[str, Matter, UUID]] = field(default_factory=list)
    orders: list[tuple[Dossier, Kind, int]] = field(default_factory=list)  # dossier, kind, fee to collect
    new: list[SealedNotice | Order] = field(default_factory=list)
    untold: list[tuple[Telling, str]] = field(default_factory=list)
    waiting: list[Telling] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    persons: dict[str, Person] = field(default_factory=dict)
    opted_out: set[str] = field(default_factory=set)  # mobile numbers that want no SMS
    rules: dict[tuple[Any, ...], NoticeRule | None] = field(default_factory=dict)  # those that were looked for

    def rule(
        self,
        directory: Directory,
        act: str,
        agency: str,
        procedure: str,
        return_by: str,
        channel: str | None,
        day: date,
    ) -> NoticeRule | None:
        """The rule by which an act is told, as the directory stands now: the events of a batch are of few kinds."""
        asked = (act, agency, procedure, return_by, channel, day)
        if asked not in self.rules:
            self.rules[asked] = directory.notice_for(
                act, agency=agency, procedure=procedure, return_by=return_by, channel=channel, day=day
            )
        return self.rules[asked]


class Handlers:
    """Applies the events that notify consumes, and decides what had to wait."""

    def __init__(self, service: Service, store: Store, settings: NotifySettings) -> None:
        self._service, self._store, self._settings = service, store, settings
        self._restored: list[tuple[datetime, datetime]] = []

    async def recall_restorations(self) -> None:
        """From which backups this database was restored, and when: before the service begins."""
        async with self._service.pool.acquire() as connection:
            rows = await connection.fetch(self._store.queries["restored"])
        self._restored = [(row["taken"], row["at"]) for row in rows]

    def _told_before(self, recorded: datetime) -> bool:
        """Whether the act is one of those that a restored site had lost, and got back: people were told of it then."""
        return any(taken < recorded < at for taken, at in self._restored)

    async def apply(self, connection: Connection, events: Sequence[Received]) -> dict[int, Fault]:
        """One batch, a few statements: load, fold, decide, write. Refuses what its dossier's state does not allow."""
        store, queries = self._store, self._store.queries
        changed = {e.envelope.subject: self._contact(e) for e in events if e.envelope.topic == CONTACT_TOPIC}
        codes = {e.envelope.subject for e in events if isinstance(e.data, DossierEvent)}
        waiting = set[str]()
        if changed:
            rows = await connection.fetch(queries["waiting_dossiers"], sorted(changed))
            waiting = {row["dossier"] for row in rows}
        erased = sorted(ref for ref, contact in changed.items() if contact.wrapped is None)
        touched: list[str] = []
        if erased:
            touched = [r["code"] for r in await connection.fetch(queries["dossiers_of_contacts"], erased)]
        batch = Batch(await store.lock_dossiers(connection, codes | waiting | set(touched)), changed_contacts=changed)
        now = await self._service.log.now(connection)
        faults = self._fold(batch, events)
        if batch.met:
            await self._overtake(connection, batch)
        waited = await self._waiting(connection, batch, codes | waiting) if waiting else []
        await self._load_contacts(connection, batch, [*batch.tellings, *waited])
        if erased:
            await self._erase(connection, batch, erased, touched, now)
        await self._follow_changes(connection, batch, _known_before(events))
        self._decide(batch, [*waited, *batch.tellings], now, waited_for=frozenset())
        self._order(batch, now)
        await self._write(connection, batch, now)
        return faults

    async def decide_late(self, connection: Connection, now: datetime) -> int:
        """Decides the acts that have waited long enough for their contact, or whose contact has come unseen."""
        rows = await connection.fetch(self._store.queries["tellings_due"], now)
        if not rows:
            return 0
        batch = Batch(await self._store.lock_dossiers(connection, [row["dossier"] for row in rows]))
        tellings = await self._store.take_tellings(connection, [telling_of(row) for row in rows])
        await self._load_contacts(connection, batch, tellings)
        self._decide(batch, tellings, now, waited_for=frozenset(t.event for t in tellings))
        await self._write(connection, batch, now)
        return len(tellings)

    async def follow_by_post(self, connection: Connection, ids: Sequence[UUID], now: datetime) -> int:
        """A letter for each SMS that has not arrived in time, where the person has an address. It is a notice of its
        own, by another channel."""
        store = self._store
        batch = Batch(await store.lock_dossiers(connection, await store.codes_of(connection, ids)))
        rows = await connection.fetch(store.queries["notices_lock"], list(ids))
        notices = {row["id"]: (notice_of(row), row) for row in rows if row["post_at"] is not None}
        batch.contacts = await store.contacts(connection, {notice.recipient for notice, _ in notices.values()})
        for notice, row in notices.values():
            batch.steps[notice.id] = (notice, (replace(notice, post_at=None), ()))
            contact = batch.contacts.get(notice.recipient)
            content = store.open(row, notice.recipient)
            if contact is None or content is None or notice.state == "delivered":
                continue
            person = store.person(contact)
            if person.address:
                self._add_letter(batch, notice, contact, person, content["text"], now)
        await self._write(connection, batch, now)
        return len(notices)

    def _contact(self, event: Received) -> Contact:
        """The contact that an event brings; a tombstone brings one without anything."""
        data = event.data
        if not isinstance(data, ContactRecorded | ContactChanged):
            return Contact(event.envelope.subject)
        own = self._service.keys.data_key_ids
        wrapped = next((key.wrapped for key in data.keys if key.kid in own), "")  # "": sealed for others only
        return Contact(event.envelope.subject, data.nonce, data.ciphertext, wrapped)

    @property
    def _directory(self) -> Directory:
        """Before the first load nothing can be decided: that passes by itself."""
        if not self._service.directory.loaded:
            raise ConnectionError("no bundle has been loaded")
        return self._service.directory.current

    # -- folding

    def _fold(self, batch: Batch, events: Sequence[Received]) -> dict[int, Fault]:
        faults: dict[int, Fault] = {}
        stopped: set[str] = set()
        directory = self._directory
        for index, event in enumerate(events):
            data, envelope = event.data, event.envelope
            if not isinstance(data, DossierEvent) or envelope.subject in stopped:
                continue
            dossier = batch.dossiers.get(envelope.subject) or Dossier(envelope.subject)
            if data.previous != dossier.state:
                faults[index] = Fault(CONTRADICTS, f"the dossier is in {dossier.state}, not in {data.previous}")
                stopped.add(envelope.subject)
                continue
            batch.dossiers[envelope.subject] = dossier
            due_before = dossier.due_at
            follow(dossier, data, envelope.time)
            for matter in settled(data, due_before):
                batch.met.append((dossier.code, matter, envelope.id))
                batch.tellings = [_met(t, dossier.code, matter, envelope.id) for t in batch.tellings]
            if envelope.mode == "history":
                continue
            act = data.short.removeprefix("dossier.")
            told = self._told_before(envelope.recorded)
            kind = (
                act,
                dossier.agency,
                dossier.procedure,
                dossier.return_by,
                dossier.channel,
                local_day(envelope.time),
            )
            if batch.rule(directory, *kind) is not None:
                telling = Telling(
                    event=envelope.id,
                    dossier=dossier.code,
                    agency=dossier.agency,
                    act=act,
                    happened=envelope.time,
                    recorded=envelope.recorded,
                    contact_ref=dossier.contact_ref,
                    facts=facts_of(data, dossier),
                )
                if told:
                    batch.untold.append((telling, TOLD_BEFORE))
                else:
                    batch.tellings.append(telling)
            if told:
                continue
            if (order := wanted(data, dossier)) is not None and dossier.contact_ref is not None:
                way, fee = order
                carrier = directory.carrier_for(dossier.agency, way)
                batch.orders.append((replace(dossier), way, fee + (carrier.charge if carrier else 0)))
        return faults

    async def _overtake(self, connection: Connection, batch: Batch) -> None:
        """What acts of this batch settled: earlier notices that are unsent are not sent, acts that wait are marked."""
        queries = self._store.queries
        by = {(code, matter): event for code, matter, event in reversed(batch.met)}
        codes, matters = sorted({code for code, _ in by}), sorted({matter for _, matter in by})
        for row in await connection.fetch(queries["notices_unsent"], codes, matters):
            event = by.get((row["dossier"], row["matter"]))
            if event is not None:
                notice = notice_of(row)
                batch.steps[notice.id] = (notice, superseded(notice, event))
        acts = [(code, act, event) for (code, matter), event in by.items() for act in _ACTS_OF[matter]]
        await connection.execute(
            queries["tellings_met"], [code for code, _, _ in acts], [act for _, act, _ in acts], [e for _, _, e in acts]
        )

    async def _waiting(self, connection: Connection, batch: Batch, codes: set[str]) -> list[Telling]:
        """The acts that waited for contacts of this batch and are ours to decide now."""
        queries = self._store.queries
        if not batch.changed_contacts or not codes:
            return []
        rows = await connection.fetch(queries["tellings_of_contacts"], sorted(batch.changed_contacts), sorted(codes))
        if not rows:
            return []
        return await self._store.take_tellings(connection, [telling_of(row) for row in rows])

    async def _load_contacts(self, connection: Connection, batch: Batch, tellings: Iterable[Telling]) -> None:
        refs = {t.contact_ref for t in tellings if t.contact_ref is not None}
        missing = refs - set(batch.changed_contacts)
        if missing:
            batch.contacts = await self._store.contacts(connection, missing)
        batch.contacts |= batch.changed_contacts
        mobiles = {person.mobile for ref in refs if (person := self._person(batch, ref)) is not None}
        batch.opted_out = await self._store.opted_out(connection, mobiles)

    async def _erase(
        self, connection: Connection, batch: Batch, erased: list[str], codes: list[str], now: datetime
    ) -> None:
        """The person's key is gone: what was sealed under it is forgotten, what was not sent fails with that reason."""
        queries = self._store.queries
        for row in await connection.fetch(queries["notices_unsent_of_contacts"], erased, codes):
            notice = notice_of(row)
            batch.steps.setdefault(notice.id, (notice, forgotten(notice)))
        await connection.execute(queries["notices_forget"], codes, erased)
        await connection.execute(queries["orders_forget"], erased, now)

    async def _follow_changes(self, connection: Connection, batch: Batch, known: set[str]) -> None:
        """A new number of a person known before: what has surely not gone out goes to that one."""
        refs = sorted(ref for ref, contact in batch.changed_contacts.items() if contact.wrapped and ref in known)
        if not refs:
            return
        for row in await connection.fetch(self._store.queries["notices_redirectable"], refs):
            person, content = self._person(batch, row["recipient"]), self._store.open(row, row["recipient"])
            if person is None or content is None:
                continue
            to = {"to": person.mobile} if row["channel"] == "sms" else {"to": person.name, "address": person.address}
            if all(to.values()) and to.items() - content.items():
                sealed = self._store.seal(batch.changed_contacts[row["recipient"]], content | to)
                await connection.execute(
                    self._store.queries["notice_reseal"], row["id"], sealed.nonce, sealed.ciphertext, sealed.wrapped
                )

    # -- deciding

    def _person(self, batch: Batch, contact_ref: str | None) -> Person | None:
        if contact_ref is None or contact_ref not in batch.contacts:
            return None
        if contact_ref not in batch.persons:
            batch.persons[contact_ref] = self._store.person(batch.contacts[contact_ref])
        return batch.persons[contact_ref]

    def _decide(self, batch: Batch, tellings: Iterable[Telling], now: datetime, *, waited_for: frozenset[UUID]) -> None:
        directory = self._directory
        for telling in tellings:
            facts = telling.facts
            rule = batch.rule(
                directory,
                telling.act,
                telling.agency,
                facts["procedure"],
                facts.get("return_by", "counter"),
                facts.get("channel"),
                local_day(telling.happened),
            )
            if rule is None:  # the rule was taken away while the act waited
                batch.untold.append((telling, "no-rule"))
                continue
            person = self._person(batch, telling.contact_ref)
            opted_out = person is not None and person.mobile in batch.opted_out
            way = way_to_tell(
                rule, telling.contact_ref, person, waited=telling.event in waited_for, opted_out=opted_out
            )
            if isinstance(way, Wait):
                batch.waiting.append(telling)
            elif way not in ("sms", "postal"):
                batch.untold.append((telling, way))
            else:
                assert person is not None
                self._plan(batch, telling, rule, person, way, directory, now)

    def _plan(
        self,
        batch: Batch,
        telling: Telling,
        rule: NoticeRule,
        person: Person,
        channel: Channel,
        directory: Directory,
        now: datetime,
    ) -> None:
        try:
            template = directory.template(rule.template, person.language, local_day(telling.happened))
        except UnknownTemplate:
            batch.untold.append((telling, "no-template"))
            return
        assert telling.contact_ref is not None
        message = self._text(template, telling, directory, channel)
        lasts = timedelta(hours=directory.sms.expire_hours) if channel == "sms" else LETTER_LASTS
        stale = now - telling.happened > timedelta(hours=self._settings.act_expires_hours)
        follows = rule.post_if_undelivered and channel == "sms" and telling.act in FOLLOWED_BY_POST and not stale
        before = Notice(
            id=uuid7(),
            dossier=telling.dossier,
            agency=telling.agency,
            act=telling.act,
            event=telling.event,
            act_recorded=telling.recorded,
            recipient=telling.contact_ref,
            channel=channel,
            state="planned",
            template=template.name,
            version=template.version,
            parts=message.parts,
            planned_at=now,
            expires_at=now + lasts,
            matter=matter_of(telling.act),
            urgent=rule.urgent,
            post_at=now + timedelta(hours=self._settings.post_after_hours) if follows else None,
        )
        notice, events = planned(before, stale=stale, met_by=telling.met_by)
        contact = batch.contacts[telling.contact_ref]
        content = {"to": person.mobile} if channel == "sms" else {"to": person.name, "address": person.address}
        sealed = self._store.seal(contact, content | {"text": message.text})
        batch.new.append(SealedNotice(notice, sealed))
        batch.said += [(telling.dossier, now, event) for event in events]
        if channel == "postal" and notice.state == "planned":
            batch.new.append(self._letter_order(notice, now))

    def _text(self, template: TemplateEntry, telling: Telling, directory: Directory, channel: str) -> text.Message:
        def name_of(kind: str, code: str) -> str:
            try:
                return directory.agency(code).name if kind == "agency" else directory.procedure(code).name
            except (UnknownAgency, UnknownProcedure):
                return code

        def value(placeholder: str) -> str | None:
            pin = self._service.keys.track_pin
            return value_of(placeholder, telling.dossier, telling.facts, template.lang, name_of, pin)

        tones = template.tones if channel == "sms" else "keep"
        return text.message(text.render(template.text, value), tones, template.parts)

    # -- the post

    def _add_letter(
        self, batch: Batch, sms: Notice, contact: Contact, person: Person, body: str, now: datetime
    ) -> None:
        before = replace(
            sms,
            id=uuid7(),
            channel="postal",
            state="planned",
            matter=None,
            provider=None,
            attempts=0,
            rounds=0,
            tried=(),
            asked=(),
            bound=False,
            in_flight=False,
            due=False,
            next_at=None,
            held_until=None,
            sent_at=None,
            delivered_at=None,
            post_at=None,
            reason=None,
            cost=0,
            receipt_by=None,
            planned_at=now,
            expires_at=now + LETTER_LASTS,
        )
        notice, events = planned(before)
        sealed = self._store.seal(contact, {"to": person.name, "address": person.address, "text": body})
        batch.new.append(SealedNotice(notice, sealed))
        batch.said += [(notice.dossier, now, event) for event in events]
        batch.new.append(self._letter_order(notice, now))

    def _letter_order(self, notice: Notice, now: datetime) -> Order:
        """The order that brings a letter, under the notice's own id."""
        return Order(
            id=notice.id,
            dossier=notice.dossier,
            agency=notice.agency,
            kind="deliver",
            carrier=self._carrier(notice.agency, "deliver"),
            state="planned",
            contact_ref=notice.recipient,
            fee_to_collect=0,
            planned_at=now,
            notice=notice.id,
        )

    def _order(self, batch: Batch, now: datetime) -> None:
        """What acts ask of the post itself: results to bring, papers to fetch. The address is looked up at sending."""
        for dossier, kind, fee in batch.orders:
            assert dossier.contact_ref is not None
            batch.new.append(
                Order(
                    id=uuid7(),
                    dossier=dossier.code,
                    agency=dossier.agency,
                    kind=kind,
                    carrier=self._carrier(dossier.agency, kind),
                    state="planned",
                    contact_ref=dossier.contact_ref,
                    fee_to_collect=fee,
                    planned_at=now,
                )
            )

    def _carrier(self, agency: str, kind: Kind) -> str:
        carrier = self._directory.carrier_for(agency, kind)
        return carrier.name if carrier else "none"

    # -- writing

    async def _write(self, connection: Connection, batch: Batch, now: datetime) -> None:
        store, queries = self._store, self._store.queries
        if batch.changed_contacts:
            await store.put_contacts(connection, list(batch.changed_contacts.values()))
        if batch.waiting:
            decide_by = now + timedelta(seconds=self._settings.contact_wait)
            await connection.execute(
                queries["tellings_put"],
                [_telling_row(telling, decide_by) for telling in batch.waiting],
            )
        if batch.untold:
            await connection.execute(
                queries["untold_put"],
                [t.event for t, _ in batch.untold],
                [t.dossier for t, _ in batch.untold],
                [t.act for t, _ in batch.untold],
                [t.recorded for t, _ in batch.untold],
                [reason for _, reason in batch.untold],
            )
        await store.put_new(connection, batch.new)
        said = [*batch.said, *await store.write(connection, list(batch.steps.values()), now)]
        await store.say(connection, batch.dossiers, said, now)
        if batch.dossiers:
            await store.put_dossiers(connection, batch.dossiers.values())


def _known_before(events: Sequence[Received]) -> set[str]:
    """The people of whom this is not the first that is heard: there may be notices to them."""
    return {e.envelope.subject for e in events if e.envelope.topic == CONTACT_TOPIC and e.envelope.sequence > 1}


LETTER_LASTS = timedelta(days=7)
"""How long a letter is kept for a carrier that cannot be reached."""

_ACTS_OF: dict[Matter, tuple[str, ...]] = {
    "supplement": ("supplement-requested",),
    "payment": ("payment-requested",),
    "due": ("extended", "rescheduled"),
}


def _met(telling: Telling, code: str, matter: Matter, by: UUID) -> Telling:
    """The act as settled by a later one, if it is of that dossier and matter."""
    if telling.dossier != code or telling.met_by is not None or matter_of(telling.act) != matter:
        return telling
    return replace(telling, met_by=by)


def _telling_row(telling: Telling, decide_by: datetime) -> dict[str, Any]:
    return {
        "event": telling.event,
        "dossier": telling.dossier,
        "agency": telling.agency,
        "act": telling.act,
        "happened": telling.happened,
        "recorded": telling.recorded,
        "contact_ref": telling.contact_ref,
        "facts": telling.facts,
        "met_by": telling.met_by,
        "decide_by": decide_by.astimezone(UTC),
    }
