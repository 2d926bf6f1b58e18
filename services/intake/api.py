"""Intake over HTTP: parse, call, answer."""

from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Query, Request
from pydantic import AfterValidator, model_validator
from starlette.responses import Response

from services.intake import acts
from services.intake.attachments import described
from services.intake.dossier import Actor, Dossier
from services.intake.imports import Imports
from services.intake.reading import CODE, actor_of, explanation, must_be_code, past_of, readable
from services.intake.settings import IntakeSettings
from services.intake.store import Store
from services.intake.writer import Command, Result, Writer, etag, local_text
from shared.contracts.codes import AgencyCode, Name, Phone, check_dossier_code
from shared.security.access import scope_of, sees_personal_data
from shared.security.tokens import Principal, Role
from shared.service import Service
from shared.web.app import Body, one_of, router
from shared.web.openapi import READS
from shared.web.problem import not_found
from shared.web.writes import replayed, request_key

PAGE = 100
LINES = "application/x-ndjson"
_LINES_SCHEMA = {"schema": {"type": "string"}}

# Who may do what (the contract's 'Principals'); admin may do all.
ROLES: dict[str, tuple[Role, ...]] = {
    "receive": (Role.DESK,),
    "refuse": (Role.DESK,),
    "start": (Role.OFFICER,),
    "supplement-request": (Role.DESK, Role.OFFICER),
    "supplement": (Role.DESK, Role.PORTAL),
    "payment-request": (Role.DESK,),
    "payment": (Role.DESK, Role.PORTAL),
    "withdrawal-request": (Role.DESK, Role.PORTAL),
    "withdrawal": (Role.DESK,),
    "withdrawal-refusal": (Role.DESK,),
    "stop": (Role.DESK, Role.OFFICER),
    "extension": (Role.DESK, Role.OFFICER),
    "digitisation": (Role.DESK, Role.OFFICER),
    "resolution": (Role.OFFICER,),
    "return": (Role.DESK,),
    "correction": (Role.DESK, Role.OFFICER),
    "rating": (Role.DESK, Role.PORTAL),
}


# Who reads dossiers, and who takes them in; leaders, auditors and portals read without the applicant.
Reader = Annotated[Principal, Depends(one_of(Role.DESK, Role.OFFICER, Role.LEADER, Role.AUDITOR, Role.PORTAL))]
Searcher = Annotated[Principal, Depends(one_of(Role.DESK, Role.OFFICER, Role.LEADER, Role.PORTAL))]
Desk = Annotated[Principal, Depends(one_of(Role.DESK))]
Sender = Annotated[Principal, Depends(one_of(Role.PORTAL, Role.DESK))]
Counting = Annotated[Principal, Depends(one_of(Role.SERVICE, Role.OPERATOR, Role.AUDITOR))]
Sibling = Annotated[Principal, Depends(one_of(Role.SERVICE))]

Cursor = Annotated[str | None, AfterValidator(lambda text: text and check_dossier_code(text)), Query()]
"""A list goes on after this dossier code."""


class Moves(Body):
    dry_run: bool = True


class PhoneOrId(Body):
    phone: Phone | None = None
    citizen_id: acts.CitizenId | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "PhoneOrId":
        if (self.phone is None) == (self.citizen_id is None):
            raise ValueError("give exactly one of phone and citizen_id")
        return self


def routes(service: Service, store: Store, writer: Writer, settings: IntakeSettings) -> APIRouter:
    """The routes of dossiers; the public ones are beside."""
    api = router()
    imports = Imports(service, store, writer)

    async def answered(request: Request, who: Principal, command: Command) -> Response:
        command.key = await request_key(request, who)
        command.if_match = request.headers.get("if-match")
        return _response(await writer.submit(command))

    @api.post("/v1/dossiers", status_code=201, tags=["dossiers"])
    async def receive_new(request: Request, who: Desk, body: acts.NewDossier) -> Response:
        """Takes a dossier in at a desk: state 2, with its code, due date and tracking pin."""
        scope = scope_of(who, service.directory.current)
        return await answered(request, who, Command("new", body, actor_of(who, settings), scope=scope))

    @api.post("/v1/submissions", status_code=201, tags=["dossiers"])
    async def submit(request: Request, who: Sender, body: acts.NewSubmission) -> Response:
        """Sends a dossier in, from portal or desk: state 1. The same code again updates it while it is in 1."""
        scope = None if who.role is Role.PORTAL and who.agency is None else scope_of(who, service.directory.current)
        return await answered(
            request, who, Command("submit", body, actor_of(who, settings), code=body.code, scope=scope)
        )

    def operation(name: str, model: type[acts.Act]) -> None:
        async def do(request: Request, who: Principal, code: str, body: Any) -> Response:
            must_be_code(code)
            scope = None if who.role is Role.PORTAL else scope_of(who, service.directory.current)
            return await answered(request, who, Command(name, body, actor_of(who, settings), code=code, scope=scope))

        do.__annotations__ |= {"who": Annotated[Principal, Depends(one_of(*ROLES[name]))], "body": model}
        do.__doc__ = f"The operation `{name}` on a dossier."
        api.add_api_route(
            f"/v1/dossiers/{{code}}/{name}",
            do,
            methods=["POST"],
            name=f"dossier-{name}",
            operation_id=f"dossier_{name.replace('-', '_')}",
            tags=["dossiers"],
        )

    @api.post("/v1/dossiers/search", tags=["dossiers"], openapi_extra=READS)
    async def search(who: Searcher, body: PhoneOrId, cursor: Cursor = None) -> dict[str, Any]:
        """The dossiers of a phone number or citizen id, found by keyed hash, within the principal's scope."""
        scope = scope_of(who, service.directory.current)
        sender = who.subject if who.role is Role.PORTAL else None
        async with service.pool.acquire() as connection:
            refs = await store.refs_of(connection, body.phone, body.citizen_id)
            rows = await store.found(connection, refs, scope, sender, cursor or "", PAGE + 1)
        return _page([_listed(row) for row in rows])

    for name, model in acts.BODIES.items():
        operation(name, model)

    @api.post(
        "/v1/imports",
        tags=["imports"],
        response_class=Response,
        responses={200: {"content": {LINES: {}}}},
        openapi_extra=READS
        | {"requestBody": {"required": False, "content": dict.fromkeys((LINES, "text/plain"), _LINES_SCHEMA)}},
    )
    async def run_import(
        request: Request,
        who: Desk,
        source: Name,
        mode: Literal["live", "history"] = "live",
        dry_run: bool = False,
    ) -> Response:
        """Lines of another system's register (NDJSON); the answer has one line for each, in order."""
        actor = Actor("import", who.subject)
        scope = scope_of(who, service.directory.current)
        answer = await imports.run(await request.body(), source, mode, actor, scope, dry_run=dry_run)
        return Response(answer, media_type=LINES)

    @api.get("/v1/dossiers", tags=["dossiers"])
    async def listed(
        who: Reader,
        agency: AgencyCode | None = None,
        state: Annotated[int | None, Query(ge=1, le=10)] = None,
        overdue: bool | None = None,
        q: Annotated[str | None, Query(max_length=200)] = None,
        cursor: Cursor = None,
    ) -> dict[str, Any]:
        """Dossiers by receiving agency, state, overdue now, or a part of their code: its beginning, its agency, its day and
        what follows, its number."""
        directory = service.directory.current
        scope = scope_of(who, directory)
        sender = who.subject if who.role is Role.PORTAL else None
        if agency is not None and agency not in directory.agencies:
            raise not_found("This agency")
        if q and CODE.fullmatch(q.strip().upper()) is None:
            return _page([])  # no code has this in it
        part = q.strip().upper() if q else None
        async with service.pool.acquire() as connection:
            rows = await store.listed(
                connection, scope if sender is None else None, sender, agency, state, overdue, part, cursor, PAGE + 1
            )
        return _page([_listed(row) for row in rows])

    @api.get("/v1/dossiers/{code}", tags=["dossiers"])
    async def one(request: Request, who: Reader, code: str) -> Response:
        """A dossier as it stands; with its applicant for desk and admin, and each such read is recorded."""
        dossier = await readable(service, store, who, code)
        body = _described(dossier, service.settings.site)
        if sees_personal_data(who) and dossier.contact_ref is not None:
            async with service.pool.acquire() as connection:
                applicant = await store.contact(connection, dossier.contact_ref)
                if applicant is not None:  # null: the person was erased
                    await connection.execute(
                        service.store_queries["access_put"], who.subject, who.role.value, code, "applicant"
                    )
            body["applicant"] = applicant
            body["track_pin"] = service.keys.track_pin(code)
        headers = {"ETag": etag(dossier.sequence)}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(orjson.dumps(body), 200, headers, "application/json")

    @api.get("/v1/dossiers/{code}/history", tags=["dossiers"])
    async def history(
        who: Reader, code: str, cursor: Annotated[int | None, Query(ge=0, le=10**9)] = None
    ) -> dict[str, Any]:
        """Every event of a dossier, in order; nothing is ever taken out of it."""
        past = await past_of(service, store, await readable(service, store, who, code))
        after = cursor or 0
        items = [
            {
                "id": str(each.id),
                "type": each.data.short,
                "sequence": each.sequence,
                "at": local_text(each.time),
                "recorded_at": local_text(each.recorded),
                "mode": each.mode,
                **each.data.model_dump(mode="json", by_alias=True, exclude={"contact_ref", "track"}),
            }
            for each in past[after : after + PAGE]
        ]
        return {"items": items, "next_cursor": str(items[-1]["sequence"]) if len(past) > after + PAGE else None}

    @api.get("/v1/dossiers/{code}/attachments", tags=["dossiers"])
    async def attachments(who: Reader, code: str) -> dict[str, Any]:
        """The files that a dossier refers to: their size as storage has it, and whether they are what the digest says."""
        await readable(service, store, who, code)
        async with service.pool.acquire() as connection:
            rows = await connection.fetch(store.queries["attachments_of"], code)
        return {"items": [described(row) for row in rows], "next_cursor": None}

    @api.get("/v1/dossiers/{code}/explain", tags=["dossiers"])
    async def explain(who: Reader, code: str, lang: Literal["vi", "en"] = "vi") -> dict[str, Any]:
        """Why this due date: every interval counted or skipped, with its rule and calendar version."""
        dossier = await readable(service, store, who, code)
        return explanation(dossier, service.directory.current, lang)

    @api.get("/v1/accepted", tags=["internal"])
    async def accepted(who: Counting) -> dict[str, Any]:
        """What was accepted here: dossiers, and the events that their rows stand at."""
        async with service.pool.acquire() as connection:
            row = await connection.fetchrow(store.queries["accepted"])
        assert row is not None
        return {"dossiers": row["dossiers"], "events": int(row["events"])}

    @api.post("/v1/site/moves", tags=["internal"])
    async def move_open(who: Sibling, body: Moves) -> dict[str, Any]:
        """What the newest calendar versions would change for open dossiers; without `dry_run` it is done."""
        return {"items": await writer.move_open(dry_run=body.dry_run)}

    return api


def _response(result: Result) -> Response:
    if result.replayed is not None:
        return replayed(*result.replayed)
    if result.problem is not None:
        return result.problem.response()
    assert result.answer is not None
    return result.answer.response()


def _page(items: list[dict[str, Any]]) -> dict[str, Any]:
    """One page of items that were asked for with one more than a page holds."""
    page = items[:PAGE]
    return {"items": page, "next_cursor": page[-1]["code"] if len(items) > PAGE else None}


def _listed(row: Any) -> dict[str, Any]:
    """A dossier in a list; of a copy also its home."""
    home = row.get("home")
    return {
        "code": row["code"],
        "state": row["state"],
        "procedure": row["procedure"],
        "receiving_agency": row["agency"],
        "deciding_agency": row["deciding_agency"],
        "received_at": local_text(row["received_at"]),
        "due_at": local_text(row["due_at"]),
        "paused": row["paused"],
        "version": row["sequence"],
        **({} if home is None else {"home": home}),
    }


def _described(d: Dossier, site: str) -> dict[str, Any]:
    return {
        "code": d.code,
        "home": d.home or site,
        "state": d.state,
        "procedure": d.procedure,
        "receiving_agency": d.agency,
        "deciding_agency": d.deciding_agency,
        "working_agencies": sorted(set(d.working.values())) or [d.deciding_agency],
        "channel": d.channel,
        "return_by": d.return_by,
        "submitted_at": local_text(d.submitted_at),
        "received_at": local_text(d.received_at),
        "due_at": local_text(d.due_at),
        "ended_at": local_text(d.ended_at),
        "paused": d.paused,
        "version": d.sequence,
        "fee": d.fee,
        "paid": d.paid,
        "components": d.components,
        "transfers": d.transfers,
        "allowed": d.allowed() if d.home is None else [],
    }
