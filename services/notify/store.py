"""All SQL of notify, and how its rows become what the decisions work with."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter, itemgetter
from typing import Any, Final
from uuid import UUID

from services.notify.notice import Dossier, Notice, Person, Step, Telling
from services.notify.postal import Order, OrderStep
from shared.contracts.codes import uuid7
from shared.contracts.envelope import Envelope
from shared.contracts.events import EventData
from shared.observe.metrics import NOTICE_SECONDS, NOTICES
from shared.security.sealing import SealBroken, Sealed, seal, unseal, unwrap
from shared.service import Service
from shared.store.pool import Connection
from shared.store.queries import Queries

NOTICE_TOPIC = "lienthong.notice.v1"

_NOTICE_FIELDS = tuple(field.name for field in fields(Notice))
_NOTICE_COLUMNS: Final = (*_NOTICE_FIELDS, "nonce", "ciphertext", "wrapped")
_values_of, _values_in = attrgetter(*_NOTICE_FIELDS), itemgetter(*_NOTICE_FIELDS)
_MOVED: Final = (
    *("id", "state", "provider", "attempts", "rounds", "tried", "asked", "bound", "in_flight", "due", "next_at"),
    *("held_until", "sent_at", "delivered_at", "post_at", "reason", "receipt_by"),
)
_moved_of = attrgetter(*_MOVED)
"""What may change of a notice once it is stored: no more is written then."""

_ORDER_FIELDS = tuple(field.name for field in fields(Order))
_TELLING_FIELDS = tuple(field.name for field in fields(Telling))


@dataclass(frozen=True, slots=True)
class Contact:
    """A person's data as it came: sealed; without a key the person was erased."""

    contact_ref: str
    nonce: str | None = None
    ciphertext: str | None = None
    wrapped: str | None = None


@dataclass(frozen=True, slots=True)
class SealedNotice:
    """A new notice with its recipient and text."""

    notice: Notice
    sealed: Sealed

    def as_row(self) -> tuple[Any, ...]:
        """As _NOTICE_COLUMNS."""
        return (*_values_of(self.notice), self.sealed.nonce, self.sealed.ciphertext, self.sealed.wrapped)


Said = tuple[str, datetime, EventData]
"""A dossier's code, when it happened, and the event that says so."""


class Store:
    """The tables of notify. Locks are taken in one order: dossiers by code; who has a dossier may lock what hangs on it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.queries = Queries("services.notify", "notify")

    # -- sealed data

    def person(self, contact: Contact) -> Person:
        """What a notice needs of a person, opened by the system to tell them; not a read by anybody."""
        if contact.nonce is None or contact.ciphertext is None or contact.wrapped is None:
            return Person(erased=True)
        try:
            content = unseal(
                self._service.keys, contact.contact_ref, contact.nonce, contact.ciphertext, contact.wrapped
            )
        except SealBroken:
            return Person()  # sealed for others only: there is no way to this person from here
        return Person(
            content.get("name"),
            content.get("phone"),
            content.get("address"),
            "en" if content.get("language") == "en" else "vi",
            wants=content.get("notify"),
        )

    def seal(self, contact: Contact, content: dict[str, Any]) -> Sealed:
        assert contact.wrapped is not None
        keys = self._service.keys
        return seal(keys, contact.contact_ref, content, unwrap(keys, contact.wrapped))

    def open(self, row: Any, contact_ref: str) -> dict[str, Any] | None:
        """The content of a notice or order; None when it was forgotten, or the key that opened it is gone."""
        if row["wrapped"] is None:
            return None
        try:
            return unseal(self._service.keys, contact_ref, row["nonce"], row["ciphertext"], row["wrapped"])
        except SealBroken:
            return None

    # -- dossiers and what is said of them

    async def lock_dossiers(self, connection: Connection, codes: Iterable[str]) -> dict[str, Dossier]:
        rows = await connection.fetch(self.queries["dossiers_lock"], sorted(set(codes)))
        return {row["code"]: Dossier(**row) for row in rows}

    async def put_dossiers(self, connection: Connection, dossiers: Iterable[Dossier]) -> None:
        await connection.execute(self.queries["dossiers_put"], sorted(dossiers, key=lambda d: d.code))

    async def say(
        self, connection: Connection, dossiers: Mapping[str, Dossier], said: Sequence[Said], now: datetime
    ) -> None:
        """Appends events to dossiers that are locked and counts their sequences on; the caller writes the dossiers."""
        envelopes = []
        for code, happened, event in said:
            dossier = dossiers[code]
            dossier.sequence += 1
            dossier.recorded = now if dossier.recorded is None else max(now, dossier.recorded)
            envelopes.append(
                Envelope(
                    topic=NOTICE_TOPIC,
                    id=uuid7(),
                    source=self._service.source,
                    type=event.short,
                    subject=code,
                    time=happened,
                    recorded=dossier.recorded,
                    sequence=dossier.sequence,
                    mode="live",
                    data=event.to_json(),
                )
            )
        await self._service.log.append(connection, envelopes)

    async def _publish(
        self, connection: Connection, dossiers: Mapping[str, Dossier], said: Sequence[Said], now: datetime
    ) -> None:
        if not said:
            return
        await self.say(connection, dossiers, said, now)
        changed = sorted({code for code, _, _ in said})
        await connection.execute(
            self.queries["dossiers_publish"],
            changed,
            [dossiers[code].sequence for code in changed],
            [dossiers[code].recorded for code in changed],
        )

    # -- contacts and acts that wait

    async def contacts(self, connection: Connection, refs: Iterable[str]) -> dict[str, Contact]:
        rows = await connection.fetch(self.queries["contacts"], sorted(set(refs)))
        return {row["contact_ref"]: Contact(**row) for row in rows}

    async def put_contacts(self, connection: Connection, contacts: Sequence[Contact]) -> None:
        ordered = sorted(contacts, key=lambda c: c.contact_ref)
        await connection.execute(
            self.queries["contacts_put"],
            [c.contact_ref for c in ordered],
            [c.nonce for c in ordered],
            [c.ciphertext for c in ordered],
            [c.wrapped for c in ordered],
        )

    async def opted_out(self, connection: Connection, mobiles: Iterable[str | None]) -> set[str]:
        """Those of the numbers that want no SMS."""
        hashes = {self.phone_hash(mobile): mobile for mobile in mobiles if mobile is not None}
        if not hashes:
            return set()
        rows = await connection.fetch(self.queries["opted_out"], sorted(hashes))
        return {hashes[row["phone_hash"]] for row in rows}

    def phone_hash(self, mobile: str) -> str:
        """As opt-outs are kept: without the site's key it says nothing of the number."""
        return self._service.keys.keyed_hash("opt-out", mobile)

    async def take_tellings(self, connection: Connection, tellings: Sequence[Telling]) -> list[Telling]:
        """Those of the waiting acts that are ours to decide: another process may have been quicker."""
        rows = await connection.fetch(self.queries["tellings_take"], [t.event for t in tellings])
        taken = {row["event"] for row in rows}
        return [t for t in tellings if t.event in taken]

    # -- notices

    async def put_new(self, connection: Connection, new: Sequence[SealedNotice | Order]) -> None:
        """Stores new notices and orders; promise 9: the unique index lets no notice be stored twice.

        Notices are copied: as one JSON array of an INSERT they cost the database twice as much.
        """
        if notices := [each.as_row() for each in new if isinstance(each, SealedNotice)]:
            await connection.copy_records_to_table(
                "notice", schema_name="notify", columns=_NOTICE_COLUMNS, records=notices
            )
        if orders := [each for each in new if isinstance(each, Order)]:
            await connection.execute(self.queries["orders_put"], orders)

    async def write(self, connection: Connection, steps: Sequence[tuple[Notice, Step]], now: datetime) -> list[Said]:
        """Writes the notices that changed; what is to be said of them, in order."""
        changed = [after for before, (after, _) in steps if after is not before]
        if changed:
            rows = [dict(zip(_MOVED, _moved_of(notice), strict=True)) for notice in changed]
            await connection.execute(self.queries["notices_move"], rows)
        for before, (after, _) in steps:
            self._count(before, after, now)
        gone = [n.id for n in changed if n.channel == "postal" and n.state in ("superseded", "expired", "failed")]
        if gone:
            await connection.execute(self.queries["orders_cancel"], gone, now)
        return [(after.dossier, now, event) for _, (after, events) in steps for event in events]

    def _count(self, before: Notice, after: Notice, now: datetime) -> None:
        """A transaction that is rolled back after this is counted again: these are for graphs, not for books."""
        if after.state == before.state:
            return
        metrics = self._service.metrics
        metrics.add(NOTICES, 1, after.channel, after.state)
        for until, at, had in (
            ("sent", after.sent_at, before.sent_at),
            ("delivered", after.delivered_at, before.delivered_at),
        ):
            if at is not None and had is None:
                metrics.observe(
                    NOTICE_SECONDS, max(0.0, (now - after.act_recorded).total_seconds()), after.channel, until
                )

    async def move(
        self,
        connection: Connection,
        codes: Iterable[str],
        ids: Sequence[UUID],
        step: Callable[[Notice], Step],
        *,
        now: datetime,
        happened: datetime | None = None,
    ) -> dict[UUID, Notice]:
        """Locks, changes, writes and says: one transition of many notices, in the caller's transaction."""
        dossiers = await self.lock_dossiers(connection, codes)
        rows = await connection.fetch(self.queries["notices_lock"], list(ids))
        steps = [(notice, step(notice)) for notice in map(notice_of, rows)]
        said = await self.write(connection, steps, now)
        if happened is not None:
            said = [(code, happened, event) for code, _, event in said]
        await self._publish(connection, dossiers, said, now)
        return {after.id: after for _, (after, _) in steps}

    async def codes_of(self, connection: Connection, ids: Sequence[UUID]) -> list[str]:
        return [row["dossier"] for row in await connection.fetch(self.queries["notice_dossiers"], list(ids))]

    # -- orders

    async def words_of(self, connection: Connection, order: UUID) -> list[str]:
        """The person's own words that the carrier of an order was given; none once the person was erased."""
        row = await connection.fetchrow(self.queries["order_sealed"], order)
        content = None if row is None else self.open(row, row["contact_ref"])
        names = ("name", "to", "address", "phone")
        return [content[name] for name in names if content.get(name)] if content else []

    async def move_orders(
        self,
        connection: Connection,
        codes: Iterable[str],
        ids: Sequence[UUID],
        step: Callable[[Order], OrderStep],
        of_letter: Callable[[Order, Notice], Step],
        *,
        now: datetime,
        happened: datetime | None = None,
    ) -> list[Order]:
        """Locks, changes, writes and says: a transition of orders, and with it of the letters that they carry."""
        dossiers = await self.lock_dossiers(connection, codes)
        orders = [order_of(row) for row in await connection.fetch(self.queries["orders_lock"], list(ids))]
        letters = {
            notice.id: notice
            for notice in map(
                notice_of,
                await connection.fetch(self.queries["notices_lock"], [o.notice for o in orders if o.notice]),
            )
        }
        said: list[Said] = []
        changed, steps = [], []
        for before in orders:
            after, events = step(before)
            if after is not before:
                changed.append(after)
            said += [(after.dossier, now, event) for event in events]
            if before.notice in letters:
                letter = letters[before.notice]
                steps.append((letter, of_letter(after, letter)))
        if changed:
            await connection.execute(self.queries["orders_move"], changed)
        said += await self.write(connection, steps, now)
        if happened is not None:
            said = [(code, happened, event) for code, _, event in said]
        await self._publish(connection, dossiers, said, now)
        return changed


def notice_of(row: Any) -> Notice:
    notice = Notice(*_values_in(row))
    notice.id, notice.event = UUID(int=notice.id.int), UUID(int=notice.event.int)
    notice.tried, notice.asked = tuple(notice.tried), tuple(notice.asked)
    return notice


def order_of(row: Any) -> Order:
    values = {name: row[name] for name in _ORDER_FIELDS}
    values["id"], values["notice"] = _uuid(row["id"]), _uuid(row["notice"])
    return Order(**values)


def telling_of(row: Any) -> Telling:
    values = {name: row[name] for name in _TELLING_FIELDS}
    values["event"], values["met_by"] = _uuid(row["event"]), _uuid(row["met_by"])
    return Telling(**values)


def _uuid(value: UUID | None) -> UUID | None:
    """asyncpg's own kind of UUID is none that goes into JSON."""
    return None if value is None else UUID(int=value.int)
