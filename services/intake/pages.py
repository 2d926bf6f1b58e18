"""What intake's pages have in common: templates, the two languages, the headers, forms, the style sheet.

Server-rendered, without a script and with nothing from elsewhere: what a desk needs works on whatever machine stands there.
Texts stand in the templates in both languages side by side, `_("Tiếp nhận", "Receive")`, so that neither is forgotten.
"""

from collections.abc import Mapping
from datetime import datetime
from importlib import resources
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Query, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from services.intake.tracking import Language
from shared.contracts.codes import LOCAL_ZONE
from shared.service import Service
from shared.web.app import router
from shared.web.problem import Problem

FORM: Final = "application/x-www-form-urlencoded"
LANGUAGE_COOKIE: Final = "lienthong_lang"
STYLE: Final = "/static/lienthong.css"
OPEN: Final = (r"/static/[^/]*",)

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}

Lang = Annotated[Literal["vi", "en"] | None, Query(description="The page's language, remembered.")]

_MOST_FIELDS: Final = 500


def money(amount: int) -> str:
    """An amount in đồng as it is written: 15.000."""
    return f"{amount:,}".replace(",", ".")


def moment(value: datetime | str | None) -> str:
    """A local time as a person reads it: 09:30 12/10/2026."""
    if value is None or value == "":
        return ""
    instant = datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{instant.astimezone(LOCAL_ZONE):%H:%M %d/%m/%Y}"


def day(value: Any) -> str:
    """A local day as a person reads it: 12/10/2026."""
    if value is None:
        return ""
    found = value.astimezone(LOCAL_ZONE) if isinstance(value, datetime) else value
    return f"{found:%d/%m/%Y}"


class Pages:
    """Renders the templates of intake."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._environment = Environment(
            loader=PackageLoader("services.intake"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {"money": money, "moment": moment, "day": day}

    def html(
        self,
        name: str,
        lang: Language,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        here: str,
        **more: Any,
    ) -> Response:
        """`here`: the page's own address (`address`), under which it is offered in the other language."""

        def both(vietnamese: str, english: str) -> str:
            return vietnamese if lang == "vi" else english

        directory = self._service.directory
        values = {"visit": None, "message": "", "path": "", "wide": False} | more
        other = "en" if lang == "vi" else "vi"
        text = self._environment.get_template(name).render(
            _=both,
            lang=lang,
            other=f"{here}{'&' if '?' in here else '?'}lang={other}",
            style=STYLE,
            site=directory.current.site_name if directory.loaded else "",
            **values,
        )
        return HTMLResponse(text, status, HEADERS | dict(headers or {}))


def address(request: Request) -> str:
    """The page that is asked for, with its parameters but the language."""
    kept = urlencode([(name, value) for name, value in request.query_params.multi_items() if name != "lang"])
    return f"{request.url.path}?{kept}" if kept else request.url.path


def language(request: Request, asked: Language | None) -> Language:
    """As asked for now, else as last asked for, else Vietnamese."""
    if asked is not None:
        return asked
    return "en" if request.cookies.get(LANGUAGE_COOKIE) == "en" else "vi"


def remember(response: Response, asked: Language | None) -> Response:
    """The answer, with the language that was asked for kept for the next pages."""
    if asked is not None:
        response.set_cookie(LANGUAGE_COOKIE, asked, max_age=365 * 86400, path="/", httponly=True, samesite="lax")
    return response


async def form_of(request: Request) -> dict[str, list[str]]:
    """The fields of a form by name; one that was left empty was not given."""
    try:
        pairs = parse_qsl((await request.body()).decode(), max_num_fields=_MOST_FIELDS, strict_parsing=False)
    except ValueError:
        raise Problem(400, "bad-form", "The body is no form.") from None
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        # A textarea has line breaks, which no text of the contract may hold.
        if text := " ".join(value.split()):
            fields.setdefault(name, []).append(text)
    return fields


def page_routes() -> APIRouter:
    routes = router()
    style = resources.files("services.intake").joinpath("templates/lienthong.css").read_bytes()

    @routes.get(STYLE, include_in_schema=False)
    async def sheet() -> Response:
        return Response(style, media_type="text/css", headers={"Cache-Control": "public, max-age=3600"})

    return routes
