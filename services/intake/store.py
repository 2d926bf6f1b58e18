"""All SQL of intake, and how a dossier and a person lie in the database."""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Literal, NamedTuple
from uuid import UUID

import structlog

from services.intake import looking
from services.intake.dossier import Dossier, Past, from_json, to_json
from shared.contracts import events as ev
from shared.contracts.codes import parse_dossier_code, uuid7
from shared.contracts.envelope import Envelope, parse
from shared.security.sealing import SealBroken, new_data_key, seal, unseal, unwrap
from shared.service import Service
from shared.store.pool import Connection
from shared.store.queries import Queries
from shared.web.writes import RequestKey

log = structlog.get_logger("lienthong.intake")

FEW_AGENCIES = 4
"""Up to so many agencies are read with one statement, each through its own index, to a whole page at most."""
OPEN = frozenset({2, 4, 5, 6, 7})
"""The states in which the clock counts."""
MANY_AGENCIES = 200
"""Up to so many, a list by code is read from a few at a time; above, in the order of the codes."""

AGAIN = "restore"
"""Who erases, when a restored database is told again who was erased."""

MICROSECOND = timedelta(microseconds=1)
CONTACT, DOSSIER, COPY = "lienthong.contact.v1", "lienthong.dossier.v1", "lienthong.copy.v1"


@dataclass(slots=True)
class Person:
    """An applicant in clear, within one transaction: one contact_ref per citizen id, else per dossier."""

    contact_ref: str
    person_hash: str | None
    content: dict[str, Any] = field(default_factory=dict)
    wrapped: str | None = None
    sequence: int = 0
    changed: bool = False

    def take(self, content: dict[str, Any]) -> None:
        """What is said now stands; what is not said is kept."""
        merged = self.content | content
        if merged != self.content:
            self.content, self.changed = merged, True


class GivenPerson(NamedTuple):
    """A person as a peer gives one back: the ciphertext, and the person's key wrapped to this site."""

    contact_ref: str
    nonce: str
    ciphertext: str
    wrapped: str


class Store:
    """Intake's tables. Every method works on many rows with one statement, in the caller's transaction."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.queries = Queries("services.intake", "intake")

    # -- dossiers

    async def lock(self, connection: Connection, codes: Sequence[str]) -> dict[str, Dossier]:
        if not codes:
            return {}
        rows = await connection.fetch(self.queries["dossiers_for_update"], list(codes))
        return {row["code"]: from_json(row["body"]) for row in rows}

    async def read(self, connection: Connection, code: str) -> Dossier | None:
        rows = await connection.fetch(self.queries["dossiers"], [code])
        return from_json(rows[0]["body"]) if rows else None

    async def taken(self, connection: Connection, codes: Sequence[str]) -> set[str]:
        return {row["code"] for row in await connection.fetch(self.queries["codes_taken"], list(codes))}

    async def write_dossiers(
        self,
        connection: Connection,
        new: Sequence[tuple[Dossier, datetime | None]],
        moved: Sequence[tuple[Dossier, datetime | None]],
    ) -> None:
        """Each with the instant of its next tick."""
        await self._copy(connection, "dossier", _DOSSIER_COLUMNS, [_row(*each) for each in new])
        if moved:
            columns = zip(*(_row(*each) for each in moved), strict=True)
            await connection.execute(self.queries["dossiers_update"], *map(list, columns))

    @staticmethod
    async def _copy(
        connection: Connection, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
    ) -> None:
        """New rows. What stands there already raises UniqueViolationError, as an INSERT would."""
        if rows:
            await connection.copy_records_to_table(table, schema_name="intake", columns=columns, records=rows)

    async def history(self, connection: Connection, code: str) -> list[Past]:
        """The dossier's events from the log, in order."""
        return _past(await self._service.log.after(connection, DOSSIER, code, 0, 10_000))

    async def copied_history(self, code: str) -> list[Past]:
        """A copy's, as routing keeps them. Raises OSError when it does not answer."""
        return _past(await self._service.ask_owner(COPY, code, 0))

    async def ticking(self, connection: Connection, now: datetime, limit: int) -> list[str]:
        """The dossiers at which time raises something now."""
        return [row["code"] for row in await connection.fetch(self.queries["due_ticks"], now, limit)]

    async def open_of(self, connection: Connection, agencies: Sequence[str], after: str, limit: int) -> list[str]:
        """The open dossiers of these agencies, by code."""
        rows = await connection.fetch(self.queries["open_under_calendar"], list(agencies), after, limit)
        return [row["code"] for row in rows]

    async def elsewhere(self, connection: Connection, codes: Sequence[str]) -> dict[str, set[str]]:
        """Dossiers whose home is another site, and the agencies here that they were transferred to."""
        found: dict[str, set[str]] = {}
        for row in await connection.fetch(self.queries["elsewhere"], list(codes)):
            found.setdefault(row["code"], set()).add(row["agency"])
        return found

    async def note_elsewhere(self, connection: Connection, seen: Collection[tuple[str, str]]) -> None:
        """Transfers of dossiers that were never received here: (code, agency that it was transferred to)."""
        if seen:
            rows = sorted(seen)
            await connection.execute(self.queries["elsewhere_put"], [c for c, _ in rows], [a for _, a in rows])

    async def lock_copies(self, connection: Connection, codes: Sequence[str]) -> dict[str, tuple[str, Dossier]]:
        """Dossiers of lower sites: their home, and what their events have made of them."""
        rows = await connection.fetch(self.queries["copies_for_update"], list(codes)) if codes else []
        return {row["code"]: (row["home"], from_json(row["body"])) for row in rows}

    async def read_copy(self, connection: Connection, code: str) -> Dossier | None:
        """A lower site's dossier, without its person, who stays at home."""
        row = await connection.fetchrow(self.queries["copy"], code)
        if row is None:
            return None
        dossier = from_json(row["body"])
        dossier.home, dossier.contact_ref = row["home"], None
        return dossier

    async def write_copies(self, connection: Connection, copies: Sequence[tuple[str, Dossier]]) -> None:
        if copies:
            await connection.execute(
                self.queries["copies_put"],
                [d.code for _, d in copies],
                [home for home, _ in copies],
                [d.agency for _, d in copies],
                [d.deciding_agency for _, d in copies],
                [d.procedure for _, d in copies],
                [d.state for _, d in copies],
                [d.received_at for _, d in copies],
                [d.due_at for _, d in copies],
                [d.paused for _, d in copies],
                [d.overdue_from for _, d in copies],
                [d.late for _, d in copies],
                [d.sequence for _, d in copies],
                [to_json(d) for _, d in copies],
            )

    async def numbers(self, connection: Connection, wanted: dict[tuple[str, date], int]) -> dict[tuple[str, date], int]:
        """Reserves that many numbers for each agency and day; the last of them."""
        names = sorted(wanted)
        rows = await connection.fetch(
            self.queries["numbers"], [a for a, _ in names], [d for _, d in names], [wanted[n] for n in names]
        )
        return {(row["agency"], row["day"]): row["last"] for row in rows}

    async def reach_numbers(self, connection: Connection, codes: Collection[str]) -> None:
        """The numbers of these codes have been issued: none up to them is issued again."""
        if codes:
            read = [parse_dossier_code(code) for code in sorted(codes)]
            columns = [[c.agency for c in read], [c.date for c in read], [c.number for c in read]]
            await connection.execute(self.queries["numbers_reach"], *columns)

    async def listed(
        self,
        connection: Connection,
        scope: frozenset[str] | None,
        sender: str | None,
        agency: str | None,
        state: int | None,
        overdue: bool | None,
        part: str | None,
        cursor: str | None,
        limit: int,
    ) -> list[Any]:
        """Dossiers by code, each shape of the question through the statement whose indexes answer it."""
        agencies = None if scope is None else sorted(scope)
        if overdue and state is not None and state not in OPEN:
            return []  # what has ended is late, not overdue
        begins = part is None or part[0].isalpha()
        if part is not None and not begins and not overdue:
            return await self._with_part(
                connection, part, agencies, sender, agency, (cursor or "", state, overdue, limit), limit
            )
        pattern = None if part is None else looking.pattern(part)
        filters = (cursor or "", state, overdue, pattern, limit)
        few = agencies is not None and len(agencies) <= (looking.AT_ONCE if overdue else FEW_AGENCIES)
        if overdue and (sender is not None or not (few or agency)):
            if part is not None and not begins:
                places = looking.ranges(part, self._service.directory.current.agencies)
                borders = ([low for low, _ in places], [high for _, high in places])
                number = looking.number(part) if sender is None else None  # a portal's are not looked for by number
                return await self.planned(
                    connection, "begun_late", *borders, cursor or "", state, limit, agencies, sender, agency, number
                )
            return await self.planned(
                connection, "listed_late", agencies, cursor or "", state, pattern, limit, sender, agency
            )
        if sender is not None:
            return await self.planned(connection, "listed_sent", sender, *filters, agency)
        if agency is not None and agencies is not None and agency not in agencies:
            return await self.planned(connection, "listed_between", agency, *filters, agencies)
        if agency is not None:
            return await self.planned(connection, "listed_receiving", agency, *filters)
        if agencies is None or len(agencies) > MANY_AGENCIES:
            return await self.planned(connection, "listed_site", agencies, *filters)
        if few:
            return await self.planned(connection, "listed_own", agencies, *filters, None)
        return await self._listed_of_many(connection, agencies, filters, limit)

    async def _listed_of_many(
        self,
        connection: Connection,
        agencies: list[str],
        filters: tuple[str, int | None, bool | None, str | None, int],
        limit: int,
    ) -> list[Any]:
        """A page is of the agencies whose lists begin first: most codes begin with their agency's, and the rest are read no
        further than the page goes."""
        heads = await self.planned(connection, "listed_heads", agencies, *filters[:-1])
        found: dict[str, Any] = {}
        page: list[str] = []
        while heads and not (len(page) == limit and heads[0]["code"] > page[-1]):
            some, heads = [row["agency"] for row in heads[:FEW_AGENCIES]], heads[FEW_AGENCIES:]
            until = page[-1] if len(page) == limit else None
            rows = await self.planned(connection, "listed_own", some, *filters, until)
            found |= {row["code"]: row for row in rows}
            page = sorted(found)[:limit]
        return [found[code] for code in page]

    async def _with_part(
        self,
        connection: Connection,
        part: str,
        scope: list[str] | None,
        sender: str | None,
        agency: str | None,
        filters: tuple[str, int | None, bool | None, int],
        limit: int,
    ) -> list[Any]:
        """Dossiers whose code has this part, by code (looking.py). A portal's are not looked for by number."""
        own = scope if agency is None else [agency] if scope is None or agency in scope else None
        few = own is not None and len(own) <= looking.AT_ONCE
        found: list[Any] = []
        places = looking.ranges(part, self._service.directory.current.agencies)
        if sender is None and own is None and scope is not None:
            borders = ([low for low, _ in places], [high for _, high in places])
            return await self.planned(
                connection, "begun_between", *borders, *filters, scope, agency, looking.number(part)
            )
        for first in range(0, len(places), looking.AT_ONCE):
            some = places[first : first + looking.AT_ONCE]
            if few and sender is None:
                some = places  # each of these is one look into an agency's index
            borders = ([low for low, _ in some], [high for _, high in some])
            if sender is not None:
                found += await self.planned(connection, "begun_sent", *borders, *filters, sender, agency)
            elif few:
                found += await self.planned(connection, "begun_own", *borders, *filters, own, agency is not None)
            else:
                found += await self.planned(connection, "begun_site", *borders, *filters, scope, agency)
            if len(found) >= limit or some is places:
                break
        if sender is None and (number := looking.number(part)) is not None:
            if few and own is not None:
                codes = [looking.beginning(f"{each}-") for each in own]
                columns = (own, [low for low, _ in codes], [high for _, high in codes], agency is not None)
                found += await self.planned(connection, "numbered_own", number, *filters, *columns)
            else:
                found += await self.planned(connection, "numbered_site", number, *filters, scope, agency)
        unique = {row["code"]: row for row in found}
        return [unique[code] for code in sorted(unique)][:limit]

    async def work(
        self,
        connection: Connection,
        agencies: Sequence[str],
        after: tuple[datetime, str],
        before: datetime,
        running: bool,
        limit: int,
    ) -> list[Any]:
        """Open dossiers by due date; `running`: without those whose clock stands still."""

        async def ask(each: int, most: int | None, last: Any) -> list[Any]:
            end = before if last is None else min(before, last["due_at"] + MICROSECOND)
            return await self.planned(connection, "work", list(agencies), *after, end, running, each, most)

        return await of_many(len(agencies), limit, ask, ("agency", "deciding_agency"))

    async def work_counted(
        self,
        connection: Connection,
        agencies: Sequence[str],
        since: datetime,
        before: datetime,
        running: bool,
        most: int,
    ) -> int:
        """How many they are, up to `most`."""
        rows = await self.planned(connection, "work_counted", list(agencies), since, before, running, most)
        return int(rows[0]["count"])

    async def waiting(
        self, connection: Connection, agencies: Sequence[str], state: int, cursor: str, limit: int
    ) -> list[Any]:
        """Dossiers in 1 or 9, which wait for the desk."""

        async def ask(each: int, most: int | None, last: Any) -> list[Any]:
            end = None if last is None else last["code"]
            return await self.planned(connection, "waiting", list(agencies), state, cursor, end, each, most)

        return await of_many(len(agencies), limit, ask, ("agency", "deciding_agency"))

    async def waiting_counted(self, connection: Connection, agencies: Sequence[str], state: int, most: int) -> int:
        """How many they are, up to `most`."""
        rows = await self.planned(connection, "waiting_counted", list(agencies), state, most)
        return int(rows[0]["count"])

    async def register_of(
        self,
        connection: Connection,
        agencies: Sequence[str],
        after: tuple[datetime, str],
        before: datetime,
        limit: int,
    ) -> list[Dossier]:
        """What these agencies received, in the order of receipt."""
        rows = await self.planned(connection, "register", list(agencies), *after, before, limit)
        return [from_json(row["body"]) for row in rows]

    async def planned(self, connection: Connection, name: str, *arguments: Any) -> list[Any]:
        """A list, planned for these very arguments."""
        async with connection.transaction(readonly=True):
            await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
            return await connection.fetch(self.queries[name], *arguments)

    async def refs_of(self, connection: Connection, phone: str | None, citizen_id: str | None) -> list[str]:
        """The contacts with this phone number or citizen id."""
        if phone is not None:
            rows = await connection.fetch(self.queries["contacts_by_phone"], self.phone_hash(phone))
        else:
            rows = await connection.fetch(self.queries["contacts_by_person_hash"], self.person_hash(citizen_id))
        return [row["contact_ref"] for row in rows]

    async def found(
        self,
        connection: Connection,
        refs: Sequence[str],
        scope: frozenset[str] | None,
        sender: str | None,
        cursor: str,
        limit: int,
    ) -> list[Any]:
        agencies = None if scope is None else sorted(scope)
        return await connection.fetch(self.queries["found"], list(refs), cursor, agencies, sender, limit)

    # -- people

    def person_hash(self, citizen_id: str | None) -> str | None:
        return None if citizen_id is None else self._service.keys.keyed_hash("citizen", citizen_id)

    def phone_hash(self, phone: str | None) -> str | None:
        return None if phone is None else self._service.keys.keyed_hash("phone", phone)

    async def persons(
        self, connection: Connection, hashes: Sequence[str], refs: Sequence[str]
    ) -> tuple[dict[str, Person], dict[str, Person]]:
        """Known people by keyed hash and by contact_ref, opened for comparison with what is said of them now."""
        if not hashes and not refs:
            return {}, {}
        rows = await connection.fetch(self.queries["contacts_for_update"], list(hashes), list(refs))
        people = [
            Person(
                row["contact_ref"],
                row["person_hash"],
                self.open_contact(row) or {},
                row["wrapped"],
                row["sequence"],
            )
            for row in rows
            if row["ciphertext"] is not None  # an erased person does not come back: who applies again is new
        ]
        return {p.person_hash: p for p in people if p.person_hash}, {p.contact_ref: p for p in people}

    def open_contact(self, row: Any) -> dict[str, Any] | None:
        """A contact row in clear; None when it was erased."""
        if row["ciphertext"] is None:
            return None
        return unseal(self._service.keys, row["contact_ref"], row["nonce"], row["ciphertext"], row["wrapped"])

    async def contact(self, connection: Connection, contact_ref: str) -> dict[str, Any] | None:
        row = await connection.fetchrow(self.queries["contact"], contact_ref)
        return None if row is None else self.open_contact(row)

    async def contacts(self, connection: Connection, refs: Collection[str]) -> dict[str, dict[str, Any]]:
        """The people behind these contact_refs; who was erased is not among them."""
        rows = await connection.fetch(self.queries["contacts"], sorted(refs))
        opened = {row["contact_ref"]: self.open_contact(row) for row in rows}
        return {ref: person for ref, person in opened.items() if person is not None}

    async def sealed_of(self, connection: Connection, codes: Sequence[str]) -> list[Any]:
        """The people behind these dossiers, sealed as they lie here: code, contact_ref, nonce, ciphertext, wrapped."""
        return await connection.fetch(self.queries["sealed_of"], list(codes))

    async def erase(self, connection: Connection, contact_ref: str, now: datetime, who: str) -> int | None:
        """Destroys a person's data and key here and in the log, and says so on the bus. The tombstone's sequence; None when
        the person had been erased before."""
        row = await connection.fetchrow(self.queries["contact_lock"], contact_ref)
        if row is None or row["erased"]:
            return None
        sequence: int = row["sequence"] + 1
        await connection.execute(self.queries["contact_erase"], contact_ref, sequence, now)
        await connection.execute(self.queries["remarks_forget"], contact_ref)
        await connection.execute(self.queries["erasure_put"], contact_ref, now, who)
        await self._service.log.forget(connection, CONTACT, [contact_ref])
        tombstone = Envelope(
            topic=CONTACT,
            id=uuid7(),
            source=self._service.source,
            type=ev.ContactErased.short,
            subject=contact_ref,
            time=now,
            recorded=now,
            sequence=sequence,
            mode="live",
            data=None,
        )
        await self._service.log.append(connection, [tombstone])
        return sequence

    async def note_erasure(self, connection: Connection, contact_ref: str, now: datetime) -> bool:
        """Somebody whom this restored database does not know (any more) was erased: other sites may know the person. False:
        it was noted before."""
        await connection.execute(self.queries["missing_forget"], [contact_ref])
        return await connection.fetchval(self.queries["erasure_put"], contact_ref, now, AGAIN) is not None

    async def erasure(self, connection: Connection, contact_ref: str) -> Any:
        """When a person was erased, the tombstone's sequence, and the dossiers that carry the contact_ref."""
        return await connection.fetchrow(self.queries["erasure"], contact_ref)

    async def erased_since(self, connection: Connection, since: datetime) -> list[Any]:
        """Erasures after an instant, the oldest first: contact_ref, at, dossiers."""
        return await connection.fetch(self.queries["erased_since"], since)

    async def give_back(self, connection: Connection, given: Sequence[GivenPerson], now: datetime) -> None:
        """People whom this restored database does not know, or knows as they were before: sealed under their own keys, as
        they once lay here. Who was erased, or has changed since, stays as is."""
        newest = {each.contact_ref: each for each in given}
        kept = {row["contact_ref"] for row in await connection.fetch(self.queries["people_kept"], sorted(newest))}
        opened: dict[str, dict[str, Any]] = {}
        for ref in sorted(newest.keys() - kept):
            each = newest[ref]
            try:
                opened[ref] = unseal(self._service.keys, ref, each.nonce, each.ciphertext, each.wrapped)
            except SealBroken:
                log.error("person-not-given-back", contact_ref=ref)
        hashes = {ref: self.person_hash(content.get("citizen_id")) for ref, content in opened.items()}
        by_hash, by_ref = await self.persons(connection, [h for h in hashes.values() if h], sorted(opened))
        people: list[tuple[Person, datetime, Literal["live", "history"]]] = []
        for ref, content in opened.items():
            person = by_ref.get(ref)
            if person is None:
                taken = hashes[ref] in by_hash  # the same person has applied anew meanwhile: two contacts, as it is
                person = Person(ref, None if taken else hashes[ref], wrapped=newest[ref].wrapped)
            person.take(content)
            people.append((person, now, "live"))
        await self._service.log.append(connection, await self.write_people(connection, people, now))
        await connection.execute(self.queries["missing_given"], sorted(opened), now)

    async def miss(self, connection: Connection, refs: Collection[str], now: datetime) -> None:
        """Applicants of dossiers that came back: whoever is neither known nor erased must be asked again."""
        await connection.execute(self.queries["missing_put"], sorted(refs), now)

    async def missing(self, connection: Connection, agencies: Sequence[str], limit: int) -> list[Dossier]:
        """Dossiers of these agencies whose applicants are to be asked again, by their codes."""
        rows = await connection.fetch(self.queries["missing_listed"], list(agencies), limit)
        return [from_json(row["body"]) for row in rows]

    async def missing_counted(self, connection: Connection, agencies: Sequence[str]) -> int:
        count: int = await connection.fetchval(self.queries["missing_counted"], list(agencies))
        return count

    async def answer_missing(
        self, connection: Connection, contact_ref: str, content: dict[str, Any], now: datetime
    ) -> bool:
        """The applicant has been asked again. False: nobody is missing there (any more)."""
        if await connection.fetchval(self.queries["missing"], contact_ref) is None:
            return False
        person_hash = self.person_hash(content.get("citizen_id"))
        by_hash, _ = await self.persons(connection, [person_hash] if person_hash else [], [])
        person = Person(contact_ref, None if by_hash else person_hash)
        person.take(content)
        await self._service.log.append(connection, await self.write_people(connection, [(person, now, "live")], now))
        await connection.execute(self.queries["missing_forget"], [contact_ref])
        return True

    async def write_people(
        self,
        connection: Connection,
        people: Sequence[tuple[Person, datetime, Literal["live", "history"]]],
        now: datetime,
    ) -> list[Envelope]:
        """Seals and stores who is new or changed; the events that say so."""
        due = {p.contact_ref: (p, at, mode) for p, at, mode in people if p.sequence == 0 or p.changed}
        rows: list[tuple[Any, ...]] = []
        envelopes = []
        for person, at, mode in due.values():
            data_key = new_data_key() if person.wrapped is None else unwrap(self._service.keys, person.wrapped)
            sealed = seal(self._service.keys, person.contact_ref, person.content, data_key)
            model = ev.ContactRecorded if person.sequence == 0 else ev.ContactChanged
            person.sequence, person.wrapped, person.changed = person.sequence + 1, sealed.wrapped, False
            data = model(
                contact_ref=person.contact_ref,
                nonce=sealed.nonce,
                ciphertext=sealed.ciphertext,
                keys=(ev.WrappedKey(kid=sealed.key_id, recipient=self._service.settings.site, wrapped=sealed.wrapped),),
            )
            rows.append(
                (
                    person.contact_ref,
                    person.person_hash,
                    self.phone_hash(person.content.get("phone")),
                    sealed.nonce,
                    sealed.ciphertext,
                    sealed.wrapped,
                    person.sequence,
                    now,
                )
            )
            envelopes.append(
                Envelope(
                    topic=CONTACT,
                    id=uuid7(),
                    source=self._service.source,
                    type=data.short,
                    subject=person.contact_ref,
                    time=at,
                    recorded=now,
                    sequence=person.sequence,
                    mode=mode,
                    data=data.to_json(),
                )
            )
        new = [row for row in rows if row[6] == 1]
        changed = [row for row in rows if row[6] > 1]
        await self._copy(connection, "contact", _CONTACT_COLUMNS, new)
        if changed:
            await connection.execute(self.queries["contacts_update"], *map(list, zip(*changed, strict=True)))
        return envelopes

    async def write_remarks(self, connection: Connection, remarks: Sequence[tuple[str, int, str | None, str]]) -> None:
        """What applicants wrote beside ratings, each sealed under its own applicant's key: (code, sequence, ref, text)."""
        refs = sorted({ref for _, _, ref, _ in remarks if ref is not None})
        wrapped = {r["contact_ref"]: r["wrapped"] for r in await connection.fetch(self.queries["contact_keys"], refs)}
        rows = []
        for code, sequence, contact_ref, text in remarks:
            if contact_ref not in wrapped:
                continue  # erased: nobody's words any more
            data_key = unwrap(self._service.keys, wrapped[contact_ref])
            sealed = seal(self._service.keys, f"remark:{code}:{sequence}", {"comment": text}, data_key)
            rows.append((code, sequence, sealed.nonce, sealed.ciphertext))
        if rows:
            await connection.execute(self.queries["remarks_put"], *(list(column) for column in zip(*rows, strict=True)))

    # -- import sources

    async def find_source(self, connection: Connection, name: str) -> int | None:
        """The number of a source that has imported before."""
        number: int | None = await connection.fetchval(self.queries["source_find"], name)
        return number

    async def lock_source(self, connection: Connection, number: int) -> None:
        await connection.execute(self.queries["source_lock"], number)

    async def source_number(self, connection: Connection, name: str) -> int:
        """The number of a source, new or known; two imports that begin at once get the same."""
        number = await self.find_source(connection, name)
        if number is None:
            await connection.execute(self.queries["source_put"], name)
            number = await self.find_source(connection, name)
        assert number is not None
        return number

    async def references(self, connection: Connection, source: int, refs: Sequence[str]) -> dict[str, str]:
        rows = await connection.fetch(self.queries["references_find"], source, list(refs))
        return {row["ref"]: row["code"] for row in rows}

    async def imported(self, connection: Connection, source: int, digests: Sequence[UUID]) -> dict[UUID, str]:
        rows = await connection.fetch(self.queries["imported_find"], source, list(digests))
        return {row["digest"]: row["code"] for row in rows}

    async def imported_ids(self, connection: Connection, source: int, ids: Sequence[str]) -> dict[str, UUID]:
        if not ids:
            return {}
        rows = await connection.fetch(self.queries["imported_ids_find"], source, list(ids))
        return {row["id"]: row["digest"] for row in rows}

    async def write_import(
        self,
        connection: Connection,
        source: int,
        refs: dict[str, str],
        digests: dict[UUID, str],
        ids: dict[str, UUID],
    ) -> None:
        await self._copy(connection, "reference", ("source", "ref", "code"), [(source, *row) for row in refs.items()])
        await self._copy(
            connection, "imported", ("source", "digest", "code"), [(source, *row) for row in digests.items()]
        )
        await self._copy(connection, "imported_id", ("source", "id", "digest"), [(source, *row) for row in ids.items()])

    # -- answers

    async def answers(self, connection: Connection, keys: Sequence[RequestKey]) -> dict[tuple[str, str, str], Any]:
        rows = await connection.fetch(
            self._service.store_queries["answer_find"],
            [k.subject for k in keys],
            [k.path for k in keys],
            [k.key for k in keys],
        )
        return {(row["subject"], row["path"], row["key"]): row for row in rows}


async def of_many(
    agencies: int, limit: int, ask: Callable[[int, int | None, Any], Awaitable[list[Any]]], sides: Sequence[str]
) -> list[Any]:
    """A page of what many agencies have, which no index holds as a whole.

    `ask(each, most, last)` gives in order the first `each` of every agency, `most` of all, none after the row `last`; `sides`
    are the columns by which an agency's are found. How far the page goes shows in the first few of each agency, so that
    little more is read than is shown.
    """
    each = limit if agencies <= 1 else min(limit, max(2, 2 * limit // agencies))
    while each < limit:
        rows = await ask(each, None, None)
        page = rows[:limit]
        if all(count < each for side in sides for count in Counter(row[side] for row in page).values()):
            return page  # whatever else an agency has comes after the page
        if len(rows) >= limit:
            return await ask(limit, limit, page[-1])
        each = min(limit, 4 * each)
    return await ask(limit, limit, None)


def _past(events: Sequence[Envelope]) -> list[Past]:
    """The dossier's own among these events, numbered as its home has numbered them."""
    past: list[Past] = []
    for event in events:
        if isinstance(data := parse(event), ev.DossierEvent):
            past.append(Past(len(past) + 1, event.id, event.time, event.recorded, event.mode, data))
    return past


_DOSSIER_COLUMNS = (
    *("code", "agency", "deciding_agency", "procedure", "state", "received_at", "due_at", "paused", "overdue_from"),
    *("next_tick", "contact_ref", "sender", "sequence", "recorded", "body"),
)
_CONTACT_COLUMNS = (
    "contact_ref",
    "person_hash",
    "phone_hash",
    "nonce",
    "ciphertext",
    "wrapped",
    "sequence",
    "recorded",
)


def _row(dossier: Dossier, tick: datetime | None) -> tuple[Any, ...]:
    """A dossier with the instant of its next tick, as _DOSSIER_COLUMNS."""
    return (
        dossier.code,
        dossier.agency,
        dossier.deciding_agency,
        dossier.procedure,
        dossier.state,
        dossier.received_at,
        dossier.due_at,
        dossier.paused,
        dossier.overdue_from,
        tick,
        dossier.contact_ref,
        dossier.sender,
        dossier.sequence,
        dossier.recorded,
        to_json(dossier),
    )
