"""HTTP of notify: what became of notices and orders, previews of texts, and what providers and carriers report."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeVar
from uuid import UUID

import orjson
import structlog
from fastapi import APIRouter, Depends, Query, Request
from pydantic import AfterValidator, Field, ValidationError, model_validator
from starlette.responses import JSONResponse, Response

from services.notify import text
from services.notify.notice import Notice, State, Step, after_receipt
from services.notify.postal import PostalState
from services.notify.providers import (
    DELIVERED,
    FAILED,
    REJECTED,
    id_signed,
    secret_of,
    signed,
)
from services.notify.seen_api import masked
from services.notify.store import Store
from services.notify.tracking import record_report, state_of
from shared.contracts.codes import LOCAL_ZONE, DossierCodeText, Instant, Phone, Text
from shared.directory.bundle import CarrierEntry, Language, ProviderEntry, Tones
from shared.directory.directory import UnknownTemplate
from shared.security.access import scope_of, sees_personal_data
from shared.security.tokens import Principal, Role
from shared.service import Service
from shared.web.app import Asking, Body, allow, one_of, refused, router
from shared.web.openapi import READS
from shared.web.problem import Problem, Wrong, invalid, not_found

PAGE: Final = 200
READERS: Final = (Role.DESK, Role.OFFICER, Role.LEADER, Role.AUDITOR, Role.OPERATOR)
# Paths that no token opens but a signature does.
CALLBACKS: Final = (r"/v1/receipts/[^/]+", r"/v1/postal-events/[^/]+")

log = structlog.get_logger("lienthong.notify")


def _text_as_sent(value: str) -> str:
    """Not empty, no control characters; the blanks around it are the text's own."""
    if not value.strip():
        raise ValueError("this text is empty")
    if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in value):
        raise ValueError("this text holds control characters")
    return value


class Preview(Body):
    """A template or a text, with what its braces stand for."""

    template: str | None = Field(default=None, min_length=1, max_length=100)
    text: Annotated[str, Field(max_length=2000), AfterValidator(_text_as_sent)] | None = None
    lang: Language = "vi"
    tones: Tones | None = None
    data: dict[Annotated[str, Field(max_length=100)], Annotated[str, Field(max_length=2000)] | int] = Field(
        default_factory=dict, max_length=50
    )
    costs: Annotated[bool, Field(strict=True, description="Also what it costs at each provider, in đồng.")] = False

    @model_validator(mode="after")
    def _one_of_them(self) -> "Preview":
        if (self.template is None) == (self.text is None):
            raise ValueError("give either template or text")
        return self


class OptOut(Body):
    """A mobile number whose owner wants no SMS."""

    phone: Phone
    out: bool = True


class Receipt(Body):
    """What an SMS provider reports of a notice."""

    id: Annotated[str, Field(max_length=100)]
    status: Literal["delivered", "failed"]
    reason: Text | None = None
    at: Instant | None = None


class PostalReport(Body):
    """What a carrier reports of an order. `state`: ordered, collected, in-transit, delivered, returned, cancelled, or the
    carrier's own word for one of them, as its entry maps it. `amount`: đồng collected at the door."""

    id: Annotated[str, Field(max_length=100)]
    state: Annotated[str, Field(min_length=1, max_length=100)]
    amount: Annotated[int, Field(ge=0, le=1_000_000_000_000)] | None = None
    reason: Text | None = None
    at: Instant | None = None


R = TypeVar("R", bound=Body)


def routes(service: Service, store: Store) -> APIRouter:
    """The routes of notify."""
    api = router()

    # -- notices

    @api.get("/v1/notices", tags=["notices"])
    async def notices(
        who: Asking,
        dossier: DossierCodeText | None = None,
        state: State | None = None,
        cursor: UUID | None = None,
    ) -> dict[str, Any]:
        """Notices in the order planned; a desk that asks for one dossier sees whom they went to, masked."""
        allow(who, *READERS)
        scope = scope_of(who, service.directory.current)
        agencies = None if scope is None else sorted(scope)
        async with service.pool.acquire() as connection:
            rows = await connection.fetch(store.queries["notices_page"], dossier, state, agencies, cursor, PAGE)
            items = [_notice_item(row) for row in rows]
            if dossier is not None and rows and sees_personal_data(who):
                for item, row in zip(items, rows, strict=True):
                    item["recipient"] = masked(store.open(row, row["recipient"]))
                await connection.execute(
                    service.store_queries["access_put"], who.subject, who.role.value, dossier, "notice-recipient"
                )
        return _page(items)

    @api.post("/v1/preview", tags=["notices"], openapi_extra=READS)
    async def preview(who: Asking, body: Preview) -> dict[str, Any]:
        """A text as it would be sent, with its encoding and parts. Braces without a value stay as they are."""
        allow(who, *READERS, Role.PORTAL)
        if body.template is not None:
            try:
                template = service.directory.current.template(body.template, body.lang)
            except UnknownTemplate as error:
                raise invalid(error.detail, "/template", "unknown-template") from None
            source, tones, parts = template.text, body.tones or template.tones, template.parts
        else:
            source, tones, parts = body.text or "", body.tones or "keep", 1
        values = {name: str(value) for name, value in body.data.items()}
        message = text.message(text.render(source, values.get), tones, parts)
        shown: dict[str, Any] = {
            "text": message.text,
            "encoding": message.encoding,
            "parts": message.parts,
            "characters": message.characters,
        }
        if body.costs:
            shown["costs"] = [
                {"provider": entry.name, "price": entry.price, "cost": entry.price * message.parts}
                for entry in service.directory.current.providers
            ]
        return shown

    @api.get("/v1/told", tags=["internal"])
    async def told(who: Asking, since: Instant | None = None) -> dict[str, Any]:
        """Promise 5: by hour and act, what asked for a notice and what it got; `missing`: dossiers with acts that have
        neither a notice nor a reason yet (at most 100)."""
        allow(who, Role.SERVICE, Role.OPERATOR, Role.AUDITOR)
        async with service.pool.acquire() as connection:
            hours = await connection.fetch(store.queries["told"], since)
            missing = await connection.fetch(store.queries["told_missing"], since)
            reasons = await connection.fetch(store.queries["untold_reasons"], since)
        return {
            "items": [{**dict(row), "hour": _local(row["hour"])} for row in hours],
            "reasons": {row["reason"]: row["acts"] for row in reasons},
            "missing": [row["dossier"] for row in missing],
        }

    @api.post("/v1/opt-outs", tags=["notices"])
    async def opt_out(
        who: Annotated[Principal, Depends(one_of(Role.DESK, Role.PORTAL))], body: OptOut
    ) -> dict[str, Any]:
        """A number that wants no SMS, or (`out: false`) wants them again. It is kept as a keyed hash alone; its owner is
        told by letter where the rule has that way, else of nothing."""
        key = store.phone_hash(body.phone)
        async with service.pool.acquire() as connection, connection.transaction():
            if body.out:
                now = await service.log.now(connection)
                await connection.execute(store.queries["opt_out_put"], key, now, who.subject)
            else:
                await connection.execute(store.queries["opt_out_drop"], key)
        return {"out": body.out}

    # -- receipts

    async def record_receipt(
        provider: str, identity: str, status: Literal["delivered", "failed"], reason: str | None, at: datetime | None
    ) -> None:
        """The notice after a receipt; 404 for an id that this provider was never given."""
        key = _uuid(identity)
        found: Notice | None = None

        def step(notice: Notice) -> Step:
            nonlocal found
            found = notice
            return (
                after_receipt(notice, provider, status, reason, happened) if provider in notice.asked else (notice, ())
            )

        async with service.pool.acquire() as connection, connection.transaction():
            now = await service.log.now(connection)
            happened = now if at is None else min(at, now)
            codes = await store.codes_of(connection, [key])
            await store.move(connection, codes, [key], step, now=now, happened=happened)
        if found is None or provider not in found.asked:
            raise not_found("This notice")
        service.wake()

    @api.post("/v1/receipts/{provider}", tags=["callbacks"], openapi_extra=_signed_body(Receipt))
    async def receipt(request: Request, provider: str) -> Response:
        """A provider's report on a notice, signed with its secret; early, late and repeated ones are welcome."""
        body = await _signed(request, Receipt, service.directory.current.providers, provider)
        await record_receipt(provider, body.id, body.status, body.reason, body.at)
        return JSONResponse({"id": body.id})

    @api.get("/v1/receipts/{provider}", tags=["callbacks"])
    async def kannel_receipt(
        provider: str,
        identity: Annotated[str, Query(alias="id", max_length=100)] = "",
        kind: Annotated[int, Query(alias="type", ge=0, le=255)] = 0,
        sig: Annotated[str, Query(max_length=200)] = "",
    ) -> Response:
        """Kannel's dlr-url."""
        entry = _named(service.directory.current.providers, provider)
        secret = None if entry is None else secret_of(entry)
        if secret is None or not id_signed(secret, identity, sig):
            raise _unsigned()
        if kind & (DELIVERED | FAILED | REJECTED):
            status: Literal["delivered", "failed"] = "delivered" if kind & DELIVERED else "failed"
            await record_receipt(provider, identity, status, None if kind & DELIVERED else f"dlr-{kind}", None)
        return JSONResponse({"id": identity})

    # -- the post

    @api.get("/v1/postal-orders", tags=["post"])
    async def postal_orders(
        who: Asking,
        dossier: DossierCodeText | None = None,
        state: PostalState | None = None,
        cursor: UUID | None = None,
    ) -> dict[str, Any]:
        """Orders with the public post, in the order planned, with their tracking."""
        allow(who, *READERS)
        scope = scope_of(who, service.directory.current)
        agencies = None if scope is None else sorted(scope)
        async with service.pool.acquire() as connection:
            rows = await connection.fetch(store.queries["orders_page"], dossier, state, agencies, cursor, PAGE)
        return _page([_order_item(row) for row in rows])

    @api.post("/v1/postal-events/{carrier}", tags=["callbacks"], openapi_extra=_signed_body(PostalReport))
    async def postal_event(request: Request, carrier: str) -> Response:
        """A carrier's report on an order, signed like a receipt; one that comes late or twice changes nothing."""
        body = await _signed(request, PostalReport, service.directory.current.carriers, carrier)
        entry = _named(service.directory.current.carriers, carrier)
        assert isinstance(entry, CarrierEntry)
        state = state_of(entry, body.state)
        if state is None:
            raise invalid("This carrier has no such state.", "/state", "unknown-state")
        found = await record_report(
            service, store, carrier, _uuid(body.id), state, amount=body.amount, reason=body.reason, at=body.at
        )
        if found is None:
            raise not_found("This order")
        return JSONResponse({"id": body.id})

    return api


# ------------------------------------------------------------------------------------------------------- callbacks


async def _signed(request: Request, model: type[R], entries: Sequence[ProviderEntry | CarrierEntry], name: str) -> R:
    """The body of a callback, once its signature is found good: nothing unsigned is even parsed."""
    header = request.headers.get("x-signature", "")
    entry = _named(entries, name)
    secret = None if entry is None else secret_of(entry)
    body = await request.body()
    if secret is None or not header or not signed(secret, body, header):
        raise _unsigned()
    try:
        return model.model_validate(orjson.loads(body))
    except orjson.JSONDecodeError:
        raise Problem(400, "bad-json", "The body is no JSON.", [Wrong("not JSON", "")]) from None
    except ValidationError as error:
        raise refused(error.errors()) from None


def _named(entries: Sequence[ProviderEntry | CarrierEntry], name: str) -> ProviderEntry | CarrierEntry | None:
    return next((entry for entry in entries if entry.name == name), None)


def _unsigned() -> Problem:
    """The same for an unknown name: who it is, is not told to who cannot sign."""
    return Problem(401, "unauthorized", "This needs a valid signature.", headers={"WWW-Authenticate": "Signature"})


def _uuid(identity: str) -> UUID:
    try:
        return UUID(identity)
    except ValueError:
        raise not_found("This id") from None


def _signed_body(model: type[Body]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    signature = {
        "name": "X-Signature",
        "in": "header",
        "required": True,
        "description": "sha256=<hex HMAC-SHA256 of the body under the secret>",
        "schema": {"type": "string"},
    }
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "parameters": [signature],
    }


# ----------------------------------------------------------------------------------------------------------- answers


def _page(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"items": items, "next_cursor": items[-1]["id"] if len(items) == PAGE else None}


def _notice_item(row: Any) -> dict[str, Any]:
    item = {
        "id": str(row["id"]),
        "dossier": row["dossier"],
        "act": row["act"],
        "channel": row["channel"],
        "provider": row["provider"],
        "state": row["state"],
        "parts": row["parts"],
        "planned_at": _local(row["planned_at"]),
    }
    if row["urgent"]:
        item["urgent"] = True
    if row["reason"] is not None:
        item["reason"] = row["reason"]
    for name in ("sent_at", "delivered_at"):
        if row[name] is not None:
            item[name] = _local(row[name])
    return item


def _order_item(row: Any) -> dict[str, Any]:
    item = {
        "id": str(row["id"]),
        "dossier": row["dossier"],
        "agency": row["agency"],
        "kind": row["kind"],
        "carrier": row["carrier"],
        "state": row["state"],
        "fee_to_collect": row["fee_to_collect"],
        "planned_at": _local(row["planned_at"]),
    }
    if row["notice"] is not None:
        item["notice"] = str(row["notice"])
    for name in ("amount", "reason"):
        if row[name] is not None:
            item[name] = row[name]
    if row["changed_at"] is not None:
        item["changed_at"] = _local(row["changed_at"])
    return item


def _local(instant: datetime) -> str:
    return instant.astimezone(LOCAL_ZONE).isoformat()
