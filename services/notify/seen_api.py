"""What an office sees of its notices and its post: the page, counts, the day's statement, manifests, labels, letters that
came back."""

import csv
import io
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from jinja2 import Environment, PackageLoader
from starlette.responses import HTMLResponse, Response

from services.notify.notice import Channel, State
from services.notify.store import Store
from shared.contracts.codes import LOCAL_ZONE, AgencyCode, DossierCodeText, Text, local_phone
from shared.security.access import scope_of, sees_personal_data
from shared.security.tokens import Principal, Role, TokenRefused
from shared.service import Service
from shared.web.app import Asking, Body, allow, router
from shared.web.problem import forbidden, not_found

PAGE: Final = 100
_CSV: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {"text/csv": {}}}}
READERS: Final = (Role.DESK, Role.OFFICER, Role.LEADER, Role.AUDITOR, Role.OPERATOR)
OPEN: Final = ("/notices",)
"""The page asks for its token itself: a browser brings the desk's session."""

SESSION: Final = "lienthong_desk"

_ENVIRONMENT: Final = Environment(loader=PackageLoader("services.notify"), autoescape=True)
_ENVIRONMENT.filters["local"] = lambda at: "" if at is None else f"{at.astimezone(LOCAL_ZONE):%H:%M %d/%m/%Y}"
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
STATES: Final[dict[State, str]] = {
    "planned": "Chờ gửi",
    "held": "Giữ đến sáng",
    "sent": "Đã gửi",
    "delivered": "Đã đến nơi",
    "failed": "Không gửi được",
    "expired": "Quá hạn, không gửi",
    "superseded": "Không còn cần gửi",
    "unknown": "Chưa rõ đã gửi",
}


class Handled(Body):
    """What the desk did with a letter or a result that came back."""

    note: Text


def seen_routes(service: Service, store: Store) -> APIRouter:
    """The routes of the page, the figures and the post's papers."""
    api = router()

    def agencies_of(who: Principal, agency: str | None) -> list[str] | None:
        """The agencies that are shown: of the token's scope, narrowed to one and those below it."""
        directory = service.directory.current
        scope = scope_of(who, directory)
        if agency is None:
            return None if scope is None else sorted(scope)
        below = directory.subtree(agency) if agency in directory.agencies else frozenset({agency})
        return sorted(below if scope is None else below & scope)

    # -- figures

    @api.get("/v1/notices/counts", tags=["notices"])
    async def counts(
        who: Asking,
        begin: Annotated[date, Query(alias="from")],
        end: Annotated[date, Query(alias="to")],
        agency: AgencyCode | None = None,
    ) -> dict[str, Any]:
        """Notices planned on these local days, both inside, by agency, channel, provider, state and reason."""
        allow(who, *READERS)
        async with service.pool.acquire() as connection:
            rows = await connection.fetch(
                store.queries["notice_counts"], _first(begin), _first(end, 1), agencies_of(who, agency)
            )
        return {"items": [dict(row) for row in rows]}

    @api.get("/v1/notices/statement", tags=["notices"])
    async def statement(who: Asking, day: date, agency: AgencyCode | None = None) -> dict[str, Any]:
        """What was sent on a local day and what it costs in đồng, by agency and provider: parts of SMS, orders with the post."""
        allow(who, *READERS)
        directory = service.directory.current
        begin, agencies = _midnight(day), agencies_of(who, agency)
        oldest = begin - timedelta(hours=directory.sms.expire_hours + 1)
        prices = {carrier.name: carrier.price for carrier in directory.carriers}
        async with service.pool.acquire() as connection:
            sms = await connection.fetch(
                store.queries["statement_sms"], _id_of(oldest), begin, _midnight(day, 1), agencies
            )
            post = await connection.fetch(store.queries["statement_post"], _first(day), _first(day, 1), agencies)
        items = [{"channel": "sms", **dict(row)} for row in sms]
        for row in post:
            cost = row["notices"] * prices.get(row["provider"], 0)
            items.append({"channel": "postal", **dict(row), "parts": 0, "cost": cost})
        items.sort(key=lambda item: (item["agency"], item["channel"], item["provider"]))
        total = {name: sum(item[name] for item in items) for name in ("notices", "parts", "cost")}
        return {"day": day.isoformat(), "items": items, "total": total}

    # -- the page

    @api.get("/notices", include_in_schema=False)
    async def page(
        request: Request,
        dossier: DossierCodeText | Literal[""] = "",
        state: State | Literal[""] = "",
        channel: Channel | Literal[""] = "",
        agency: AgencyCode | Literal[""] = "",
        provider: Annotated[str, Query(max_length=100)] = "",
        cursor: UUID | None = None,
    ) -> Response:
        """Notices with their filters; a desk sees where they went, masked, and that it looked is recorded."""
        who = await _visitor(service, request)
        if who is None:
            desk = f"{service.settings.url_of('intake')}/desk"
            return _html("login.html", 401, desk=desk, lang="vi")
        allow(who, *READERS)
        directory = service.directory.current
        async with service.pool.acquire() as connection, connection.transaction():
            rows = await connection.fetch(
                store.queries["notices_seen"],
                dossier or None,
                state or None,
                agencies_of(who, agency or None),
                cursor,
                channel or None,
                provider or None,
                PAGE,
            )
            items = [dict(row) | {"to": ""} for row in rows]
            if sees_personal_data(who):
                for item, row in zip(items, rows, strict=True):
                    item["to"] = masked(store.open(row, row["recipient"])) or ""
                for code in sorted({row["dossier"] for row in rows}):
                    await connection.execute(
                        service.store_queries["access_put"], who.subject, who.role.value, code, "notice-recipient"
                    )
        more = items[-1]["id"] if len(items) == PAGE else None
        asked = {"dossier": dossier, "state": state, "channel": channel, "agency": agency, "provider": provider}
        return _html(
            "notices.html", 200, items=items, states=STATES, asked=asked, more=more, site=directory.site_name, lang="vi"
        )

    # -- the post's papers

    async def orders_of(who: Principal, day: date, carrier: str | None, agency: str | None) -> list[dict[str, Any]]:
        """The orders of a local day with their addresses; each dossier's is a read of personal data, and recorded."""
        if not sees_personal_data(who):
            raise forbidden(f"The role {who.role} may not see addresses.")
        directory = service.directory.current
        async with service.pool.acquire() as connection, connection.transaction():
            rows = await connection.fetch(
                store.queries["orders_of_day"], _first(day), _first(day, 1), carrier, agencies_of(who, agency)
            )
            for code in sorted({row["dossier"] for row in rows}):
                await connection.execute(
                    service.store_queries["access_put"], who.subject, who.role.value, code, "postal-address"
                )
        found = []
        for row in rows:
            person = store.open(row, row["contact_ref"]) or {}
            known = directory.agencies.get(row["agency"])
            office = {"name": known.name if known else row["agency"], "address": "", "phone": ""}
            phone = person.get("phone") or ""
            home = {
                "name": person.get("name") or person.get("to") or "",
                "address": person.get("address") or "",
                "phone": local_phone(phone) if phone else "",
            }
            sender, receiver = (office, home) if row["kind"] == "deliver" else (home, office)
            found.append(dict(row) | {"from": sender, "to": receiver})
        return found

    @api.get("/v1/postal-orders/manifest", tags=["post"], response_class=Response, responses=_CSV)
    async def manifest(
        who: Asking, day: date, carrier: str | None = None, agency: AgencyCode | None = None
    ) -> Response:
        """The day's orders as the list that goes with them to the carrier, as CSV."""
        rows = await orders_of(who, day, carrier, agency)
        return Response(
            manifest_csv(rows),
            media_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="buu-chinh-{day}.csv"', "Cache-Control": "no-store"},
        )

    @api.get("/v1/postal-orders/labels", tags=["post"], response_class=HTMLResponse)
    async def labels(who: Asking, day: date, carrier: str | None = None, agency: AgencyCode | None = None) -> Response:
        """The day's labels, eight to a sheet of A4, for a browser to print."""
        import segno

        rows = await orders_of(who, day, carrier, agency)
        for row in rows:
            row["qr"] = segno.make(str(row["id"]), error="m").svg_data_uri(scale=2, border=1)
        return _html("labels.html", 200, rows=rows, day=day, lang="vi")

    # -- what came back

    @api.get("/v1/postal-tasks", tags=["post"])
    async def tasks(who: Asking, agency: AgencyCode | None = None) -> dict[str, Any]:
        """What the post brought back and no desk has dealt with yet, the oldest first (at most 200)."""
        allow(who, *READERS)
        async with service.pool.acquire() as connection:
            rows = await connection.fetch(store.queries["postal_tasks"], agencies_of(who, agency))
        return {"items": [dict(row) | {"returned_at": _local(row["returned_at"])} for row in rows]}

    @api.post("/v1/postal-orders/{order}/handled", tags=["post"])
    async def handled(who: Asking, order: UUID, body: Handled) -> dict[str, Any]:
        """A desk has dealt with what came back: it is no task any more. Again: nothing changes."""
        allow(who, Role.DESK)
        async with service.pool.acquire() as connection, connection.transaction():
            now = await service.log.now(connection)
            row = await connection.fetchrow(
                store.queries["order_handle"], order, now, who.subject, body.note, agencies_of(who, None)
            )
        if row is None:
            raise not_found("This order")
        return {"id": str(order), "handled_at": _local(row["handled_at"])}

    return api


async def _visitor(service: Service, request: Request) -> Principal | None:
    """Who looks at the page: by a bearer token, else by the session of the desk's pages on the same host."""
    principal: Principal | None = request.state.principal
    token = request.cookies.get(SESSION)
    if principal is None and token:
        try:
            return await service.asgi.authenticate(token)
        except TokenRefused:
            return None
    return principal


def _html(name: str, status: int, **values: Any) -> HTMLResponse:
    headers = _HEADERS | ({"WWW-Authenticate": "Bearer"} if status == 401 else {})
    return HTMLResponse(_ENVIRONMENT.get_template(name).render(**values), status, headers)


_COLUMNS: Final = (
    "Mã đơn", "Loại", "Mã hồ sơ", "Người gửi", "Địa chỉ gửi", "Điện thoại gửi",
    "Người nhận", "Địa chỉ nhận", "Điện thoại nhận", "Tiền thu hộ (đồng)",
)  # fmt: skip


def manifest_csv(rows: Sequence[dict[str, Any]]) -> str:
    """With a byte order mark, so that spreadsheets read Vietnamese; no cell begins as a formula does."""
    out = io.StringIO()
    out.write("\ufeff")
    writer = csv.writer(out)
    writer.writerow(_COLUMNS)
    for row in rows:
        ends = [row[end][name] for end in ("from", "to") for name in ("name", "address", "phone")]
        kind = "Phát" if row["kind"] == "deliver" else "Thu gom"
        writer.writerow([_plain(str(each)) for each in (row["id"], kind, row["dossier"], *ends, row["fee_to_collect"])])
    return out.getvalue()


def _plain(cell: str) -> str:
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def masked(content: dict[str, Any] | None) -> str | None:
    """A number with its middle hidden; of a letter only that there is one."""
    to = None if content is None else content.get("to")
    if not isinstance(to, str) or not to.startswith("+84"):
        return None
    number = local_phone(to)
    return f"{number[:2]}{'•' * (len(number) - 5)}{number[-3:]}"


def _midnight(day: date, later: int = 0) -> datetime:
    return datetime.combine(day + timedelta(days=later), datetime.min.time(), LOCAL_ZONE)


def _id_of(instant: datetime) -> UUID:
    """Ids begin with the time at which they were made."""
    return UUID(int=max(0, int(instant.timestamp() * 1000)) << 80)


def _first(day: date, later: int = 0) -> UUID:
    """The lowest id of that local day."""
    return _id_of(_midnight(day, later))


def _local(instant: datetime | None) -> str | None:
    return None if instant is None else instant.astimezone(LOCAL_ZONE).isoformat()
