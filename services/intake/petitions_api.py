"""Petitions over HTTP."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Query, Request
from pydantic import GetJsonSchemaHandler, TypeAdapter, ValidationError, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from starlette.responses import Response

from services.intake.deadlines import at_home
from services.intake.petition import Kind, Petition, State
from services.intake.petitions import ANSWERING, FILING, Petitions, etag
from shared.contracts.codes import AgencyCode, Name, Phone, Text
from shared.contracts.events import Satisfaction
from shared.security.access import scope_of
from shared.security.tokens import Principal, Role
from shared.service import Service
from shared.store.pool import Connection
from shared.web.app import Body, one_of, router
from shared.web.problem import not_found
from shared.web.writes import Answer, Writes

PAGE = 100

Filing = Annotated[Principal, Depends(one_of(*FILING))]
Answering = Annotated[Principal, Depends(one_of(*ANSWERING))]
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


def petition_routes(service: Service, petitions: Petitions) -> APIRouter:
    routes = router()
    writes = Writes(service)

    @routes.post("/v1/petitions", status_code=201, tags=["petitions"])
    async def file(request: Request, who: Filing, body: NewPetition) -> Response:
        """Files a petition with an agency, which answers it in 15 working days (a setting)."""

        async def act(connection: Connection) -> Answer:
            said = body.model_dump(mode="json", include={"text", "contact"}, exclude_none=True)
            petition = await petitions.file(connection, who, body.agency, body.kind, said)
            headers = {"Location": f"/v1/petitions/{petition.id}", "ETag": etag(petition)}
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
        own = None if agencies is None else sorted(agencies)
        async with service.pool.acquire() as connection:
            found = await petitions.listed(connection, own, sender, state, cursor, PAGE)
            now = await service.log.now(connection)
        items = [_described(petition, now) for petition in found]
        return {"items": items, "next_cursor": items[-1]["id"] if len(items) == PAGE else None}

    @routes.get("/v1/petitions/{id}", tags=["petitions"])
    async def one(who: Reader, id: UUID) -> Response:  # noqa: A002 - the contract's word
        """One petition. What it says is shown to desk and officer of its agency and admin, and each such read recorded;
        the portal that sent it sees the answer."""
        async with service.pool.acquire() as connection:
            petition, sealing = await petitions.one(connection, who, id)
            body = _described(petition, await service.log.now(connection))
            body |= await petitions.said(connection, who, petition, sealing)
        return Response(orjson.dumps(body), 200, {"ETag": etag(petition)}, "application/json")

    @routes.post("/v1/petitions/{id}/answer", tags=["petitions"])
    async def answer(request: Request, who: Answering, id: UUID, body: AnswerBody) -> Response:  # noqa: A002
        """Answers a petition; the answer is shown by the petition's id."""

        async def act(connection: Connection) -> Answer:
            version = request.headers.get("if-match")
            return _done(await petitions.answer(connection, who, id, body.text, version))

        return await writes.write(request, who, act)

    @routes.post("/v1/petitions/{id}/forward", tags=["petitions"])
    async def forward(request: Request, who: Answering, id: UUID, body: ForwardBody) -> Response:  # noqa: A002
        """Passes a petition on to the agency whose matter it is; its due date stays."""

        async def act(connection: Connection) -> Answer:
            version = request.headers.get("if-match")
            return _done(await petitions.forward(connection, who, id, body.to, body.reason, version))

        return await writes.write(request, who, act)

    @routes.post("/v1/petitions/{id}/rating", tags=["petitions"])
    async def rating(request: Request, who: Filing, id: UUID, body: RatingBody) -> Response:  # noqa: A002
        """How content the petitioner is with the answer."""

        async def act(connection: Connection) -> Answer:
            version = request.headers.get("if-match")
            return _done(await petitions.rate(connection, who, id, body.level, version))

        return await writes.write(request, who, act)

    return routes


def _done(petition: Petition) -> Answer:
    return Answer(200, _short(petition), {"ETag": etag(petition)})


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
