"""Petitions over HTTP, and how they lie in the database: sealed under a data key of each petition's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Query, Request
from pydantic import GetJsonSchemaHandler, TypeAdapter, ValidationError, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from starlette.responses import Response

from services.intake import petition as decisions
from services.intake.deadlines import at_home
from services.intake.dossier import Refusal
from services.intake.petition import Kind, Petition, State
from services.intake.settings import IntakeSettings
from services.intake.store import Store
from services.intake.writer import problem_of
from shared.contracts.codes import AgencyCode, Name, Phone, Text, uuid7
from shared.contracts.envelope import Envelope
from shared.contracts.events import PetitionEvent, Satisfaction
from shared.security.access import in_scope, scope_of
from shared.security.sealing import new_data_key, seal, unseal, unwrap
from shared.security.tokens import Principal, Role
from shared.service import Service
from shared.store.pool import Connection
from shared.web.app import Body, one_of, router
from shared.web.problem import forbidden, not_found
from shared.web.writes import Answer, Writes, check_if_match

TOPIC = "lienthong.petition.v1"
PAGE = 100

Filing = Annotated[Principal, Depends(one_of(Role.PORTAL, Role.DESK))]
Answering = Annotated[Principal, Depends(one_of(Role.DESK, Role.OFFICER, Role.LEADER))]
Reader = Annotated[Principal, Depends(one_of(Role.DESK, Role.OFFICER, Role.LEADER, Role.AUDITOR, Role.PORTAL))]

_TEXT: TypeAdapter[str] = TypeAdapter(Text)


class Contact(Body):
    """Who wrote it and how to reach them; a plain text will do. All of it is personal."""

    name: Name | None = None
    phone: Phone | None = None
    email: Name | None = None
    address: Text | None = None
    text: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _plain_text(cls, given: Any) -> Any:
        if not isinstance(given, str):
            return given
        try:
            return {"text": _TEXT.validate_python(given)}
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        written = handler.resolve_ref_schema(handler(core))
        return {"anyOf": [{"type": "string", "minLength": 1, "maxLength": 2000}, written]}


class NewPetition(Body):
    agency: AgencyCode
    kind: Kind
    text: Text
    contact: Contact | None = None


class AnswerBody(Body):
    text: Text


class ForwardBody(Body):
    to: AgencyCode
    reason: Text | None = None


class RatingBody(Body):
    level: Satisfaction


@dataclass(frozen=True, slots=True)
class Sealing:
    """What was sealed of a petition, with its wrapped key; base64 texts."""

    nonce: str
    ciphertext: str
    wrapped: str
    answer_nonce: str | None = None
    answer_ciphertext: str | None = None


def petition_routes(service: Service, store: Store, settings: IntakeSettings) -> APIRouter:
    routes = router()
    writes = Writes(service)

    @routes.post("/v1/petitions", status_code=201, tags=["petitions"])
    async def file(request: Request, who: Filing, body: NewPetition) -> Response:
        """Files a petition with an agency, which answers it in 15 working days (a setting)."""
        directory = service.directory.current
        if not in_scope(who, directory, body.agency):
            raise forbidden("You may not file petitions with this agency.")

        async def act(connection: Connection) -> Answer:
            now = await service.log.now(connection)
            with refusals_as_problems():
                petition, event = decisions.file(
                    uuid7(), body.agency, body.kind, who.subject, now, directory, settings.petition_working_days
                )
            said = body.model_dump(mode="json", include={"text", "contact"}, exclude_none=True)
            sealed = seal(service.keys, _what_was_said(petition.id), said, new_data_key())
            sealing = Sealing(nonce=sealed.nonce, ciphertext=sealed.ciphertext, wrapped=sealed.wrapped)
            await put(connection, petition, sealing, event, now)
            headers = {"Location": f"/v1/petitions/{petition.id}", "ETag": _etag(petition)}
            return Answer(201, _short(petition), headers)

        return await writes.write(request, who, act)

    @routes.get("/v1/petitions", tags=["petitions"])
    async def listed(
        who: Reader,
        agency: AgencyCode | None = None,
        state: State | None = None,
        cursor: Annotated[UUID | None, Query(description="The `next_cursor` of the page before.")] = None,
    ) -> dict[str, Any]:
        """Petitions by the agency that answers and by state, without what they say; the portal's are those it sent."""
        directory = service.directory.current
        agencies = scope_of(who, directory)
        if agency is not None:
            if agency not in directory.agencies:
                raise not_found("This agency")
            agencies = frozenset({agency}) if agencies is None else agencies & {agency}
        sender = who.subject if who.role is Role.PORTAL else None
        async with service.pool.acquire() as connection:
            rows = await connection.fetch(
                store.queries["petitions"],
                cursor,
                None if agencies is None else sorted(agencies),
                sender,
                state,
                PAGE,
            )
            now = await service.log.now(connection)
        items = [_described(_petition(row), now) for row in rows]
        return {"items": items, "next_cursor": items[-1]["id"] if len(items) == PAGE else None}

    @routes.get("/v1/petitions/{id}", tags=["petitions"])
    async def one(who: Reader, id: UUID) -> Response:  # noqa: A002 - the contract's word
        """One petition. What it says is shown to desk and officer of its agency and admin, and each such read recorded;
        the portal that sent it sees the answer."""
        async with service.pool.acquire() as connection:
            row = await connection.fetchrow(store.queries["petition"], id)
            petition, sealing = visible(row, who)
            body = _described(petition, await service.log.now(connection))
            if who.role in (Role.DESK, Role.OFFICER, Role.ADMIN, Role.PORTAL):
                await connection.execute(
                    service.store_queries["access_put"], who.subject, who.role.value, str(id), "petition"
                )
            if who.role in (Role.DESK, Role.OFFICER, Role.ADMIN):
                body |= unseal(service.keys, _what_was_said(id), sealing.nonce, sealing.ciphertext, sealing.wrapped)
                body |= answered(petition, sealing)
            elif who.role is Role.PORTAL:
                body |= answered(petition, sealing)
        return Response(orjson.dumps(body), 200, {"ETag": _etag(petition)}, "application/json")

    @routes.post("/v1/petitions/{id}/answer", tags=["petitions"])
    async def answer(request: Request, who: Answering, id: UUID, body: AnswerBody) -> Response:  # noqa: A002
        """Answers a petition; the answer is shown by the petition's id."""

        async def act(connection: Connection) -> Answer:
            petition, sealing, now = await locked(connection, request, who, id)
            with refusals_as_problems():
                petition, event = decisions.answer(petition, now)
            data_key = unwrap(service.keys, sealing.wrapped)
            sealed = seal(service.keys, _what_was_answered(id), {"answer": body.text}, data_key)
            sealing = replace(sealing, answer_nonce=sealed.nonce, answer_ciphertext=sealed.ciphertext)
            await put(connection, petition, sealing, event, now)
            return Answer(200, _short(petition), {"ETag": _etag(petition)})

        return await writes.write(request, who, act)

    @routes.post("/v1/petitions/{id}/forward", tags=["petitions"])
    async def forward(request: Request, who: Answering, id: UUID, body: ForwardBody) -> Response:  # noqa: A002
        """Passes a petition on to the agency whose matter it is; its due date stays."""

        async def act(connection: Connection) -> Answer:
            petition, sealing, now = await locked(connection, request, who, id)
            directory = service.directory.current
            with refusals_as_problems():
                petition, event = decisions.forward(petition, body.to, body.reason, now, directory)
            await put(connection, petition, sealing, event, now)
            return Answer(200, _short(petition), {"ETag": _etag(petition)})

        return await writes.write(request, who, act)

    @routes.post("/v1/petitions/{id}/rating", tags=["petitions"])
    async def rating(request: Request, who: Filing, id: UUID, body: RatingBody) -> Response:  # noqa: A002
        """How content the petitioner is with the answer."""

        async def act(connection: Connection) -> Answer:
            petition, sealing, now = await locked(connection, request, who, id)
            with refusals_as_problems():
                petition, event = decisions.rate(petition, body.level, now)
            await put(connection, petition, sealing, event, now)
            return Answer(200, _short(petition), {"ETag": _etag(petition)})

        return await writes.write(request, who, act)

    def visible(row: Any, who: Principal) -> tuple[Petition, Sealing]:
        """A row that the principal may know of; 404 otherwise."""
        if row is None:
            raise not_found("This petition")
        if who.role is Role.PORTAL:
            if row["sender"] != who.subject:
                raise not_found("This petition")
        elif not in_scope(who, service.directory.current, row["agency"]):
            raise not_found("This petition")
        return _petition(row), Sealing(**{name: row[name] for name in Sealing.__slots__})

    async def locked(
        connection: Connection, request: Request, who: Principal, identity: UUID
    ) -> tuple[Petition, Sealing, datetime]:
        row = await connection.fetchrow(store.queries["petition_for_update"], identity)
        petition, sealing = visible(row, who)
        check_if_match(request, _etag(petition))
        return petition, sealing, max(await service.log.now(connection), petition.recorded)

    def answered(petition: Petition, sealing: Sealing) -> dict[str, Any]:
        if sealing.answer_nonce is None or sealing.answer_ciphertext is None:
            return {}
        about = _what_was_answered(petition.id)
        return unseal(service.keys, about, sealing.answer_nonce, sealing.answer_ciphertext, sealing.wrapped)

    async def put(
        connection: Connection, petition: Petition, sealing: Sealing, event: PetitionEvent, now: datetime
    ) -> None:
        """The row and its event, in the caller's transaction."""
        await connection.execute(
            store.queries["petition_put"],
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
            source=service.source,
            type=event.short,
            subject=str(petition.id),
            time=now,
            recorded=petition.recorded,
            sequence=petition.sequence,
            mode="live",
            data=event.to_json(),
        )
        await service.log.append(connection, [envelope])

    return routes


@contextmanager
def refusals_as_problems() -> Iterator[None]:
    try:
        yield
    except Refusal as refusal:
        raise problem_of(refusal) from None


def _what_was_said(petition: UUID) -> str:
    """What a sealed text is bound to, so that one petition's cannot be passed off as another's."""
    return f"petition:{petition}"


def _what_was_answered(petition: UUID) -> str:
    return f"petition:{petition}:answer"


def _petition(row: Any) -> Petition:
    return Petition(**{name: row[name] for name in Petition.__slots__})


def _etag(petition: Petition) -> str:
    return f'"{petition.sequence}"'


def _short(petition: Petition) -> dict[str, Any]:
    return {
        "id": str(petition.id),
        "state": petition.state,
        "agency": petition.agency,
        "due_at": at_home(petition.due_at),
        "version": petition.sequence,
    }


def _described(petition: Petition, now: datetime) -> dict[str, Any]:
    return {
        **_short(petition),
        "kind": petition.kind,
        "filed_at": at_home(petition.filed_at),
        "answered_at": None if petition.answered_at is None else at_home(petition.answered_at),
        "overdue": petition.overdue(now),
        "rating": petition.rating,
    }
