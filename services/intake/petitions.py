"""Petitions as they are kept: sealed under a data key of each petition's own, and each act with its event.

What the JSON interface and the desk's pages have in common; every method works in the caller's transaction.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from services.intake import petition as decisions
from services.intake.dossier import Refusal
from services.intake.petition import Kind, Petition, State
from services.intake.settings import IntakeSettings
from services.intake.store import MICROSECOND, Store, of_many
from services.intake.writer import problem_of
from shared.contracts.codes import uuid7
from shared.contracts.envelope import Envelope, parse
from shared.contracts.events import PetitionEvent, Satisfaction
from shared.security.access import in_scope
from shared.security.sealing import new_data_key, seal, unseal, unwrap
from shared.security.tokens import Principal, Role
from shared.service import Service
from shared.store.pool import Connection
from shared.web.problem import forbidden, not_found
from shared.web.writes import must_match

TOPIC: Final = "lienthong.petition.v1"
_BEFORE_ALL: Final = datetime(1900, 1, 1, tzinfo=UTC)
READERS: Final = (Role.DESK, Role.OFFICER, Role.ADMIN)
"""Who reads what a petition says; the portal that sent it sees the answer."""

FILING: Final = (Role.PORTAL, Role.DESK)
ANSWERING: Final = (Role.DESK, Role.OFFICER, Role.LEADER)


@dataclass(frozen=True, slots=True)
class Sealing:
    """What was sealed of a petition, with its wrapped key; base64 texts."""

    nonce: str
    ciphertext: str
    wrapped: str
    answer_nonce: str | None = None
    answer_ciphertext: str | None = None


class Petitions:
    """The petitions of one site."""

    def __init__(self, service: Service, store: Store, settings: IntakeSettings) -> None:
        self._service, self._store, self._days = service, store, settings.petition_working_days

    # -- reading

    async def one(self, connection: Connection, who: Principal, identity: UUID) -> tuple[Petition, Sealing]:
        """A petition that the principal may know of. Raises Problem 404."""
        return self._visible(await connection.fetchrow(self._store.queries["petition"], identity), who)

    async def said(
        self, connection: Connection, who: Principal, petition: Petition, sealing: Sealing
    ) -> dict[str, Any]:
        """`{text, contact?, answer?}` as far as this role reads it; each such read is recorded."""
        if who.role not in (*READERS, Role.PORTAL):
            return {}
        seen = (who.subject, who.role.value, str(petition.id), "petition")
        await connection.execute(self._service.store_queries["access_put"], *seen)
        keys = self._service.keys
        found: dict[str, Any] = {}
        if who.role in READERS:
            found |= unseal(keys, _said(petition.id), sealing.nonce, sealing.ciphertext, sealing.wrapped)
        if sealing.answer_nonce is not None and sealing.answer_ciphertext is not None:
            about = _answered(petition.id)
            found |= unseal(keys, about, sealing.answer_nonce, sealing.answer_ciphertext, sealing.wrapped)
        return found

    async def history(self, connection: Connection, identity: UUID) -> list[tuple[datetime, PetitionEvent]]:
        """Its events in order, each with its time."""
        found = []
        for envelope in await self._service.log.after(connection, TOPIC, str(identity), 0, 1000):
            data = parse(envelope)
            assert isinstance(data, PetitionEvent)
            found.append((envelope.time, data))
        return found

    async def listed(
        self,
        connection: Connection,
        agencies: Sequence[str] | None,
        sender: str | None,
        state: State | None,
        cursor: UUID | None,
        limit: int,
    ) -> list[Petition]:
        """By id, which is the order of filing; of all agencies when none are named."""
        own = None if agencies is None else list(agencies)
        if sender is not None:
            rows = await self._store.planned(connection, "petitions_sent", sender, cursor, state, limit, own)
        elif own is not None:

            async def ask(each: int, most: int | None, last: Any) -> list[Any]:
                end = None if last is None else last["id"]
                return await self._store.planned(connection, "petitions_of", own, cursor, state, end, each, most)

            rows = await of_many(len(own), limit, ask, ("agency",))
        else:
            rows = await self._store.planned(connection, "petitions_all", cursor, state, limit)
        return [_petition(row) for row in rows]

    async def due(
        self,
        connection: Connection,
        agencies: Sequence[str],
        after: tuple[datetime, UUID],
        before: datetime,
        limit: int,
    ) -> list[Petition]:
        """The unanswered ones by due date."""

        async def ask(each: int, most: int | None, last: Any) -> list[Any]:
            end = before if last is None else min(before, last["due_at"] + MICROSECOND)
            return await self._store.planned(connection, "petitions_due", list(agencies), *after, end, each, most)

        return [_petition(row) for row in await of_many(len(agencies), limit, ask, ("agency",))]

    async def due_counted(
        self, connection: Connection, agencies: Sequence[str], since: datetime, before: datetime, most: int
    ) -> int:
        """How many they are, up to `most`."""
        rows = await self._store.planned(connection, "petitions_due_counted", list(agencies), since, before, most)
        return int(rows[0]["count"])

    async def answered(
        self, connection: Connection, agencies: Sequence[str], before: tuple[datetime, UUID], limit: int
    ) -> list[Petition]:
        """The answered ones, the newest answer first."""

        async def ask(each: int, most: int | None, last: Any) -> list[Any]:
            since = _BEFORE_ALL if last is None else last["answered_at"]
            return await self._store.planned(
                connection, "petitions_answered", list(agencies), *before, since, each, most
            )

        return [_petition(row) for row in await of_many(len(agencies), limit, ask, ("agency",))]

    async def answered_counted(self, connection: Connection, agencies: Sequence[str], most: int) -> int:
        """How many they are, up to `most`."""
        rows = await self._store.planned(connection, "petitions_answered_counted", list(agencies), most)
        return int(rows[0]["count"])

    # -- acts

    async def file(
        self, connection: Connection, who: Principal, agency: str, kind: Kind, said: dict[str, Any]
    ) -> Petition:
        """A new petition; `said`: its text and who wrote it."""
        directory = self._service.directory.current
        if not in_scope(who, directory, agency):
            raise forbidden("You may not file petitions with this agency.")
        now = await self._service.log.now(connection)
        with refusals_as_problems():
            petition, event = decisions.file(uuid7(), agency, kind, who.subject, now, directory, self._days)
        sealed = seal(self._service.keys, _said(petition.id), said, new_data_key())
        await self._put(connection, petition, Sealing(sealed.nonce, sealed.ciphertext, sealed.wrapped), event, now)
        return petition

    async def answer(
        self, connection: Connection, who: Principal, identity: UUID, text: str, version: str | None
    ) -> Petition:
        petition, sealing, now = await self._locked(connection, who, identity, version)
        with refusals_as_problems():
            petition, event = decisions.answer(petition, now)
        data_key = unwrap(self._service.keys, sealing.wrapped)
        sealed = seal(self._service.keys, _answered(identity), {"answer": text}, data_key)
        sealing = replace(sealing, answer_nonce=sealed.nonce, answer_ciphertext=sealed.ciphertext)
        await self._put(connection, petition, sealing, event, now)
        return petition

    async def forward(
        self, connection: Connection, who: Principal, identity: UUID, to: str, reason: str | None, version: str | None
    ) -> Petition:
        petition, sealing, now = await self._locked(connection, who, identity, version)
        with refusals_as_problems():
            petition, event = decisions.forward(petition, to, reason, now, self._service.directory.current)
        await self._put(connection, petition, sealing, event, now)
        return petition

    async def rate(
        self, connection: Connection, who: Principal, identity: UUID, level: Satisfaction, version: str | None
    ) -> Petition:
        petition, sealing, now = await self._locked(connection, who, identity, version)
        with refusals_as_problems():
            petition, event = decisions.rate(petition, level, now)
        await self._put(connection, petition, sealing, event, now)
        return petition

    # -- within

    def _visible(self, row: Any, who: Principal) -> tuple[Petition, Sealing]:
        if row is None:
            raise not_found("This petition")
        if who.role is Role.PORTAL:
            if row["sender"] != who.subject:
                raise not_found("This petition")
        elif not in_scope(who, self._service.directory.current, row["agency"]):
            raise not_found("This petition")
        return _petition(row), Sealing(**{name: row[name] for name in Sealing.__slots__})

    async def _locked(
        self, connection: Connection, who: Principal, identity: UUID, version: str | None
    ) -> tuple[Petition, Sealing, datetime]:
        """For an act; `version`: the If-Match that came with it."""
        row = await connection.fetchrow(self._store.queries["petition_for_update"], identity)
        petition, sealing = self._visible(row, who)
        must_match(version, etag(petition))
        return petition, sealing, max(await self._service.log.now(connection), petition.recorded)

    async def _put(
        self, connection: Connection, petition: Petition, sealing: Sealing, event: PetitionEvent, now: datetime
    ) -> None:
        """The row and its event."""
        await connection.execute(
            self._store.queries["petition_put"],
            petition.id,
            petition.agency,
            petition.kind,
            petition.state,
            petition.filed_at,
            petition.due_at,
            petition.answered_at,
            petition.rating,
            petition.sender,
            sealing.nonce,
            sealing.ciphertext,
            sealing.wrapped,
            sealing.answer_nonce,
            sealing.answer_ciphertext,
            petition.sequence,
            petition.recorded,
        )
        envelope = Envelope(
            topic=TOPIC,
            id=uuid7(),
            source=self._service.source,
            type=event.short,
            subject=str(petition.id),
            time=now,
            recorded=petition.recorded,
            sequence=petition.sequence,
            mode="live",
            data=event.to_json(),
        )
        await self._service.log.append(connection, [envelope])


@contextmanager
def refusals_as_problems() -> Iterator[None]:
    try:
        yield
    except Refusal as refusal:
        raise problem_of(refusal) from None


def etag(petition: Petition) -> str:
    return f'"{petition.sequence}"'


def _said(petition: UUID) -> str:
    """What a sealed text is bound to, so that one petition's cannot be passed off as another's."""
    return f"petition:{petition}"


def _answered(petition: UUID) -> str:
    return f"petition:{petition}:answer"


def _petition(row: Any) -> Petition:
    return Petition(**{name: row[name] for name in Petition.__slots__})
