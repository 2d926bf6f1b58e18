"""HTTP of routing: transfers and official documents."""

import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BeforeValidator, Field
from starlette.responses import JSONResponse, Response

from services.routing import document as documents
from services.routing.carried import site_of
from services.routing.crossing import Crossing
from services.routing.document import SENDER_OPERATIONS, Document, DocumentRefusal, document_id, envelope_of
from services.routing.store import Store
from services.routing.transfer import NotAllowed, Transfer, Walk, WrongTarget, next_steps
from shared.contracts.codes import LOCAL_ZONE, AgencyCode, DossierCodeText, Name, Text, local_day, uuid7
from shared.contracts.events import DocumentState, Paper, Result, TransferState
from shared.directory.directory import Directory, DirectoryError
from shared.security.access import in_scope, scope_of
from shared.security.peers import Identity, PeerRefused
from shared.security.sealing import SealBroken, unseal_with
from shared.security.tokens import Principal, Role
from shared.service import Service
from shared.store.pool import Connection
from shared.web.app import Asking, Body, allow, router
from shared.web.problem import Problem, Wrong, forbidden, invalid, not_found
from shared.web.writes import Answer, Writes, check_if_match

READERS = (Role.DESK, Role.OFFICER, Role.LEADER, Role.AUDITOR, Role.OPERATOR)
RECEIVER = (Role.OFFICER,)
SENDER = (Role.OFFICER, Role.DESK)
PAGE = 100
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DOCUMENT_ID = re.compile(r"[0-9A-Za-z.-]{1,500}")


def _day(value: object) -> date:
    """A local day as text; pydantic alone would take a number of seconds, too."""
    if isinstance(value, str) and _DAY.fullmatch(value):
        return date.fromisoformat(value)
    raise ValueError("a date is written YYYY-MM-DD")


Day = Annotated[date, BeforeValidator(_day)]
Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many items.")]


class Nothing(Body):
    """An operation that needs no more than its name."""


class Reason(Body):
    reason: Text


class PaperBody(Body):
    """A document that came of a leg. A plain text is taken as its name."""

    name: Name
    ref: Text | None = None
    digest: Text | None = None


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


class Complete(Body):
    result: Result
    note: Text | None = None
    documents: Annotated[
        list[Annotated[PaperBody, BeforeValidator(_named)]], Field(max_length=100, default_factory=list)
    ]


class Return(Body):
    reason: Text
    need: Literal["supplement", "correction"]


class Reroute(Body):
    to: AgencyCode
    reason: Text


class Assign(Body):
    to: Name


class NewDocument(Body):
    """A document to another agency. Kinds: 0 new, 1 recall, 2 update, 3 replacement of the one that `replaces` names."""

    number: Name
    date: Day
    kind: Literal[0, 1, 2, 3]
    from_agency: Annotated[AgencyCode, Field(alias="from")]
    to: AgencyCode
    title: Text
    dossier: DossierCodeText | None = None
    replaces: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    ref: Text | None = None
    digest: Text | None = None


Act = Callable[[Walk, Directory, datetime], None]


def routes(service: Service, store: Store, crossing: Crossing, identity: Identity) -> APIRouter:
    api = router()
    writes = Writes(service)

    # ----------------------------------------------------------------------------------------------- transfers

    @api.get("/v1/transfers", tags=["transfers"])
    async def transfers(
        who: Asking,
        dossier: DossierCodeText | None = None,
        agency: AgencyCode | None = None,
        state: TransferState | None = None,
        cursor: UUID | None = None,
        limit: Limit = PAGE,
    ) -> Response:
        """Transfers that the asker's agencies send or receive, by id; `agency` matches sender or receiver."""
        allow(who, *READERS)
        async with service.pool.acquire() as connection:
            page = await store.transfers(
                connection,
                dossier=dossier,
                agency=agency,
                state=state,
                scope=scope_of(who, service.directory.current),
                after=cursor,
                limit=limit + 1,
            )
        more = len(page) > limit
        items = [transfer_json(each, dossier_state, who, home) for each, dossier_state, home in page[:limit]]
        return JSONResponse({"items": items, "next_cursor": items[-1]["id"] if more else None})

    @api.get("/v1/transfers/{which}", tags=["transfers"])
    async def transfer(which: str, who: Asking) -> Response:
        """One transfer. `next_steps` are operations: accept, refuse, complete and return are the receiver's; recall,
        reroute and request-again the sender's; resolution and supplement-request those of the dossier's desk."""
        allow(who, *READERS)
        async with service.pool.acquire() as connection:
            found = await store.transfer(connection, transfer_id(which))
        if found is None or not in_scope(who, service.directory.current, found[0].sender, found[0].receiver):
            raise not_found("This transfer")
        transfer, dossier_state, home = found
        body = transfer_json(transfer, dossier_state, who, home)
        if home is not None and may_see_the_person(who, transfer, service.directory.current):
            body["applicant"] = await applicant(who, transfer.dossier)
        return JSONResponse(body, headers={"ETag": etag(transfer.version)})

    async def applicant(who: Principal, dossier: str) -> dict[str, Any] | None:
        """The person behind another site's dossier, whom a transfer has given to an officer here; the read is recorded."""
        async with service.pool.acquire() as connection, connection.transaction():
            person = await store.sealed(connection, dossier)
            if person is None:
                return None
            await connection.execute(
                service.store_queries["access_put"], who.subject, who.role.value, dossier, "applicant"
            )
        try:
            data_key = identity.open(person.wrapped)
            return unseal_with(data_key, person.contact_ref, person.nonce, person.ciphertext)
        except (PeerRefused, SealBroken):
            return None

    async def operate(request: Request, wanted: UUID, who: Principal, side: Sequence[Role], act: Act) -> Response:
        """One act on a transfer by its receiver (RECEIVER) or its sender (SENDER)."""
        allow(who, *side)

        async def run(connection: Connection) -> Answer:
            directory = service.directory.current
            found = await store.transfer(connection, wanted)
            if found is None or not in_scope(who, directory, found[0].sender, found[0].receiver):
                raise not_found("This transfer")
            mine, whose = (found[0].receiver, "receives") if side is RECEIVER else (found[0].sender, "has sent")
            if not in_scope(who, directory, mine):
                raise forbidden(f"This is for the agency that {whose} the transfer.")
            if (found[2] is not None) if side is SENDER else (site_of(directory, mine) != crossing.site):
                where = found[2] or site_of(directory, mine)
                raise Problem(409, "not-home", f"This is done on the site {where} alone.")
            dossier = (await store.lock(connection, [found[0].dossier]))[found[0].dossier]
            walk = (await store.walks(connection, [dossier]))[dossier.code]
            check_if_match(request, etag(walk.transfers[wanted].version))
            now = await service.log.now(connection)
            try:
                act(walk, directory, now)
            except NotAllowed as refusal:
                raise Problem(
                    409,
                    refusal.code,
                    refusal.detail,
                    extra={"state": refusal.state, "allowed": list(refusal.allowed)},
                ) from None
            except WrongTarget as refusal:
                raise invalid(refusal.detail, "/to", refusal.code) from None
            out = crossing.out(directory, now)
            out.transfers(dossier, walk)
            await store.write(connection, [dossier], [walk])
            await crossing.flush(connection, out, {dossier.code: dossier})
            after = walk.transfers[wanted]
            headers = {"ETag": etag(after.version)}
            if after.replaced_by is not None:
                headers["Location"] = f"/v1/transfers/{after.replaced_by}"
            return Answer(200, transfer_json(after, walk.state, who, walk.home), headers)

        return await writes.write(request, who, run)

    @api.post("/v1/transfers/{which}/accept", tags=["transfers"])
    async def accept(which: str, body: Nothing, request: Request, who: Asking) -> Response:
        """The receiver takes the work on."""
        wanted = transfer_id(which)
        return await operate(request, wanted, who, RECEIVER, lambda walk, _, now: walk.accept(wanted, now))

    @api.post("/v1/transfers/{which}/refuse", tags=["transfers"])
    async def refuse(which: str, body: Reason, request: Request, who: Asking) -> Response:
        """The receiver does not take the work on, and says why; the sender decides what is next."""
        wanted = transfer_id(which)
        return await operate(request, wanted, who, RECEIVER, lambda walk, _, now: walk.refuse(wanted, body.reason, now))

    @api.post("/v1/transfers/{which}/complete", tags=["transfers"])
    async def complete(which: str, body: Complete, request: Request, who: Asking) -> Response:
        """The receiver has done the work, which it had accepted. With the route's last one the dossier is resolved."""
        wanted = transfer_id(which)
        papers = tuple(Paper(name=paper.name, ref=paper.ref, digest=paper.digest) for paper in body.documents)
        return await operate(
            request,
            wanted,
            who,
            RECEIVER,
            lambda walk, directory, now: walk.complete(wanted, body.result, directory, now, body.note, papers),
        )

    @api.post("/v1/transfers/{which}/return", tags=["transfers"])
    async def send_back(which: str, body: Return, request: Request, who: Asking) -> Response:
        """The receiver cannot go on before the dossier is supplemented or corrected at home."""
        wanted = transfer_id(which)
        return await operate(
            request, wanted, who, RECEIVER, lambda walk, _, now: walk.send_back(wanted, body.reason, body.need, now)
        )

    @api.post("/v1/transfers/{which}/recall", tags=["transfers"])
    async def recall(which: str, body: Reason, request: Request, who: Asking) -> Response:
        """The sender takes an open transfer back; a completed one is 409 `already-completed`."""
        wanted = transfer_id(which)
        return await operate(request, wanted, who, SENDER, lambda walk, _, now: walk.recall(wanted, body.reason, now))

    @api.post("/v1/transfers/{which}/reroute", tags=["transfers"])
    async def reroute(which: str, body: Reroute, request: Request, who: Asking) -> Response:
        """The sender asks another agency instead: a new transfer, named by `new_transfer` and Location."""
        wanted = transfer_id(which)
        return await operate(
            request,
            wanted,
            who,
            SENDER,
            lambda walk, directory, now: walk.reroute(wanted, body.to, body.reason, uuid7(), directory, now),
        )

    @api.post("/v1/transfers/{which}/request-again", tags=["transfers"])
    async def request_again(which: str, body: Nothing, request: Request, who: Asking) -> Response:
        """The sender asks the same agency once more: a new transfer, named by `new_transfer` and Location."""
        wanted = transfer_id(which)
        return await operate(
            request,
            wanted,
            who,
            SENDER,
            lambda walk, directory, now: walk.request_again(wanted, uuid7(), directory, now),
        )

    # ----------------------------------------------------------------------------------------------- documents

    @api.post("/v1/documents", tags=["documents"], status_code=201)
    async def send(body: NewDocument, request: Request, who: Asking) -> Response:
        """An agency sends an official document. Its id is made of organisation, date and number, the number without
        tones and with a hyphen for whatever is no Latin letter, digit or point: 12/QĐ-UBND is 12-QD-UBND."""
        allow(who, *SENDER)
        directory = service.directory.current
        if body.from_agency not in directory.agencies:
            raise invalid("No agency has this code.", "/from", "unknown-agency")
        if not in_scope(who, directory, body.from_agency):
            raise forbidden("A document is sent by one of the agency's own.")

        async def act(connection: Connection) -> Answer:
            now = await service.log.now(connection)
            new = new_document(body, directory, now, crossing.site)
            earlier = await document_referred_to(connection, body)
            if not await store.add_document(connection, new):
                raise Problem(
                    409, "document-exists", "A document of this organisation, date and number was sent before."
                )
            said = [
                envelope_of(new, event, sequence, service.source)
                for sequence, event in enumerate(documents.sent(new), start=1)
            ]
            if earlier is not None and (asked := documents.referred(earlier, new, now)) is not None:
                await store.move_document(connection, asked[0])
                said.append(envelope_of(*asked, asked[0].version, service.source))
            await service.log.append(connection, said)
            headers = {"Location": f"/v1/documents/{new.id}", "ETag": etag(new.version)}
            return Answer(201, document_json(new), headers)

        return await writes.write(request, who, act)

    async def document_referred_to(connection: Connection, body: NewDocument) -> Document | None:
        """The earlier document of kinds 1, 2 and 3, locked."""
        if body.kind == 0:
            if body.replaces is not None:
                raise invalid("A new document replaces none.", "/replaces")
            return None
        if body.replaces is None:
            raise invalid("A recall, an update and a replacement name the document that they concern.", "/replaces")
        earlier = None
        if _DOCUMENT_ID.fullmatch(body.replaces):
            earlier = await store.document(connection, body.replaces, lock=True)
        if earlier is None or earlier.sender != body.from_agency:
            raise invalid("This agency has sent no document of this id.", "/replaces", "unknown-document")
        return earlier

    @api.get("/v1/documents", tags=["documents"])
    async def list_documents(
        who: Asking,
        agency: AgencyCode | None = None,
        state: DocumentState | None = None,
        dossier: DossierCodeText | None = None,
        cursor: Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$")] = None,
        limit: Limit = PAGE,
    ) -> Response:
        """Documents that the asker's agencies send or receive, as they arrived; `agency` matches sender or receiver."""
        allow(who, *READERS)
        async with service.pool.acquire() as connection:
            page = await store.documents(
                connection,
                dossier=dossier,
                agency=agency,
                state=state,
                scope=scope_of(who, service.directory.current),
                after=int(cursor or 0),
                limit=limit + 1,
            )
        more = len(page) > limit
        items = [document_json(each) for _, each in page[:limit]]
        return JSONResponse({"items": items, "next_cursor": str(page[limit - 1][0]) if more else None})

    @api.get("/v1/documents/{which}", tags=["documents"])
    async def one_document(which: str, who: Asking) -> Response:
        allow(who, *READERS)
        async with service.pool.acquire() as connection:
            found = await store.document(connection, which) if _DOCUMENT_ID.fullmatch(which) else None
        if found is None or not in_scope(who, service.directory.current, found.sender, found.receiver):
            raise not_found("This document")
        return JSONResponse(document_json(found), headers={"ETag": etag(found.version)})

    async def handle(
        request: Request,
        which: str,
        who: Principal,
        operation: documents.Operation,
        *,
        reason: str | None = None,
        assignee: str | None = None,
    ) -> Response:
        """One act on a document by its receiver or its sender."""
        by_sender = operation in SENDER_OPERATIONS
        allow(who, *(SENDER if by_sender else RECEIVER))

        async def act(connection: Connection) -> Answer:
            directory = service.directory.current
            found = await store.document(connection, which, lock=True) if _DOCUMENT_ID.fullmatch(which) else None
            if found is None or not in_scope(who, directory, found.sender, found.receiver):
                raise not_found("This document")
            if not in_scope(who, directory, found.sender if by_sender else found.receiver):
                raise forbidden(f"This is for the agency that {'has sent' if by_sender else 'received'} the document.")
            if (where := found.home if by_sender else found.worked_at) is not None:
                raise Problem(409, "not-home", f"This is done on the site {where} alone.")
            check_if_match(request, etag(found.version))
            now = await service.log.now(connection)
            try:
                after, event = documents.move(found, operation, now, reason=reason, assignee=assignee)
            except DocumentRefusal as refusal:
                raise Problem(
                    409,
                    "move-not-allowed",
                    f"A document in {refusal.state} does not allow {operation}.",
                    extra={"state": refusal.state, "allowed": list(refusal.allowed)},
                ) from None
            await store.move_document(connection, after)
            await service.log.append(connection, [envelope_of(after, event, after.version, service.source)])
            return Answer(200, document_json(after), {"ETag": etag(after.version)})

        return await writes.write(request, who, act)

    def plain(operation: documents.Operation, sentence: str) -> None:
        """A route for an operation without further content."""

        async def endpoint(which: str, body: Nothing, request: Request, who: Asking) -> Response:
            return await handle(request, which, who, operation)

        _name(endpoint, operation, sentence)
        api.post(f"/v1/documents/{{which}}/{operation}", tags=["documents"])(endpoint)

    def with_reason(operation: documents.Operation, sentence: str) -> None:
        """A route for an operation that says why."""

        async def endpoint(which: str, body: Reason, request: Request, who: Asking) -> Response:
            return await handle(request, which, who, operation, reason=body.reason)

        _name(endpoint, operation, sentence)
        api.post(f"/v1/documents/{{which}}/{operation}", tags=["documents"])(endpoint)

    plain("accept", "The receiver takes the document in: 03.")
    plain("start", "The receiver works on it: 05.")
    plain("finish", "The receiver is done with it: 06.")
    plain("recall-accept", "The receiver gives it back, or agrees to the update: 15.")
    with_reason("refuse", "The receiver does not take it in: 02.")
    with_reason("recall", "The sender asks to take it back: 13.")
    with_reason("recall-refuse", "The receiver keeps it: 16, and works on from where it was.")

    @api.post("/v1/documents/{which}/assign", tags=["documents"])
    async def assign(which: str, body: Assign, request: Request, who: Asking) -> Response:
        """The receiver gives it to one of its units: 04. `to` names the unit, never a person."""
        return await handle(request, which, who, "assign", assignee=body.to)

    return api


def _name(endpoint: Callable[..., Awaitable[Response]], operation: str, sentence: str) -> None:
    """What OpenAPI shows of a route that was made, not written."""
    endpoint.__name__, endpoint.__doc__ = f"document_{operation.replace('-', '_')}", sentence


def transfer_id(text: str) -> UUID:
    """The id in a path; what is none names nothing: 404."""
    try:
        return UUID(text)
    except ValueError:
        raise not_found("This transfer") from None


def etag(version: int) -> str:
    return f'"{version}"'


def local_time(instant: datetime | None) -> str | None:
    return None if instant is None else instant.astimezone(LOCAL_ZONE).isoformat()


def transfer_json(transfer: Transfer, dossier_state: int, who: Principal, home: str | None = None) -> dict[str, Any]:
    """A transfer as it is answered; what is not there is left out, but for the due date.

    The officer's note and papers are for the parties: auditor and operator see no personal data.
    """
    optional = {
        "reason": transfer.reason,
        "need": transfer.need,
        "result": transfer.result,
        "redirected_from": transfer.redirected_from,
        "home": home,
        "replaces": _text(transfer.replaces),
        "new_transfer": _text(transfer.replaced_by),
    }
    if who.role not in (Role.AUDITOR, Role.OPERATOR):
        optional["note"] = transfer.note
    answer: dict[str, Any] = {
        "id": str(transfer.id),
        "dossier": transfer.dossier,
        "step": transfer.step,
        "from": transfer.sender,
        "to": transfer.receiver,
        "state": transfer.state,
        "due_at": local_time(transfer.due_at),
        "attempt": transfer.attempt,
        "asked_at": local_time(transfer.asked_at),
        "changed_at": local_time(transfer.changed_at),
        **{name: value for name, value in optional.items() if value is not None},
        "next_steps": list(next_steps(transfer, dossier_state, home)),
    }
    if transfer.documents and who.role not in (Role.AUDITOR, Role.OPERATOR):
        answer["documents"] = [paper.model_dump(exclude_none=True) for paper in transfer.documents]
    return answer


def may_see_the_person(who: Principal, transfer: Transfer, directory: Directory) -> bool:
    """An officer of the receiver, or the admin, while the transfer is open (law 91/2025: as long as it is needed)."""
    return (
        who.role in (Role.OFFICER, Role.ADMIN)
        and transfer.state in ("delivered", "accepted")
        and in_scope(who, directory, transfer.receiver)
    )


def new_document(body: NewDocument, directory: Directory, now: datetime, site: str) -> Document:
    """The document as it arrives, or is on its way to another site; 422 when its number or its receiver is none. A closed
    receiver's successor gets it."""
    try:
        name = document_id(body.from_agency, body.date, body.number)
    except ValueError as error:
        raise invalid(str(error), "/number") from None
    try:
        receiver = directory.successor_of(body.to, local_day(now))
    except DirectoryError as error:
        wrong = Wrong("No agency that could take this has this code.", "/to")
        raise Problem(422, error.reason, wrong.detail, [wrong]) from None
    there = site_of(directory, receiver)
    elsewhere = there if there != site else None
    return Document(
        id=name,
        number=body.number,
        date=body.date,
        kind=body.kind,
        sender=body.from_agency,
        receiver=receiver,
        title=body.title,
        state="01",
        sent_at=now,
        changed_at=now,
        dossier=body.dossier,
        replaces=body.replaces,
        ref=body.ref,
        digest=body.digest,
        recorded=now,
        version=2 if elsewhere is None else 1,
        worked_at=elsewhere,
    )


def document_json(document: Document) -> dict[str, Any]:
    """A document as it is answered; what is not there is left out."""
    optional = {
        "dossier": document.dossier,
        "replaces": document.replaces,
        "ref": document.ref,
        "digest": document.digest,
        "assignee": document.assignee,
        "reason": document.reason,
        "home": document.home,
    }
    steps = [each for each in documents.allowed(document) if may_here(document, each)]
    return {
        "id": document.id,
        "number": document.number,
        "date": document.date.isoformat(),
        "kind": document.kind,
        "from": document.sender,
        "to": document.receiver,
        "title": document.title,
        "state": document.state,
        "arrived": document.arrived,
        "sent_at": local_time(document.sent_at),
        "changed_at": local_time(document.changed_at),
        **{name: value for name, value in optional.items() if value is not None},
        "next_steps": steps,
    }


def may_here(document: Document, operation: documents.Operation) -> bool:
    """Between two sites each side does its own part at its own."""
    return (document.home if operation in SENDER_OPERATIONS else document.worked_at) is None


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)
