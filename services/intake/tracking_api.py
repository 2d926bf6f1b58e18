"""`/track/{code}`: the citizen's page, its throttle, the rating, and how they want to be told.

Whether a dossier exists is private: a wrong code and a wrong pin take the same way to the same answer, and wrong pins are
counted under the code as it was asked for, whether it exists or not. Six digits bear guessing only because of that count.
"""

from datetime import datetime
from hmac import compare_digest
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qsl

import orjson
from fastapi import APIRouter, Path, Query, Request
from jinja2 import Environment, PackageLoader
from pydantic import Field, ValidationError
from starlette.responses import HTMLResponse, JSONResponse, Response

from services.intake import acts
from services.intake.deadlines import at_home
from services.intake.dossier import ENDED, Actor, Dossier
from services.intake.reading import explanation, past_of
from services.intake.settings import IntakeSettings
from services.intake.store import Store
from services.intake.tracking import ACTS, STATES, Language, rating, standing, view
from services.intake.writer import Command, Writer
from shared.clock import ClockError
from shared.contracts.codes import Text
from shared.contracts.events import DossierRated, Preference, Satisfaction
from shared.security.keys import pin_digest
from shared.security.tokens import Principal, Role
from shared.service import Service
from shared.store.pool import Connection
from shared.web.app import Body, refused, router
from shared.web.openapi import problem_response
from shared.web.problem import Problem, Wrong
from shared.web.writes import Answer, Writes, replayed, request_key

FORM: Final = "application/x-www-form-urlencoded"
PLAIN: Final = {"/track/[^/]*": ("application/json", FORM)}
"""The paths that take a form beside JSON, for the gate."""

CITIZEN: Final = Principal("citizen", Role.PORTAL, None, False)
"""Whom an Idempotency-Key without a token belongs to; the path names the dossier."""

_LONGEST_CODE: Final = 60  # a code has at most 44 characters; the table keeps no more of what was asked

_ENVIRONMENT: Final = Environment(loader=PackageLoader("services.intake"), autoescape=True)
_ENVIRONMENT.filters["local"] = lambda text: f"{datetime.fromisoformat(text):%H:%M %d/%m/%Y}"

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept",
}

_TEXTS: Final[dict[Language, dict[str, str]]] = {
    "vi": {
        "title": "Tra cứu hồ sơ",
        "where": "Hồ sơ đang ở",
        "received": "Ngày tiếp nhận",
        "due": "Ngày hẹn trả",
        "why": "Vì sao hẹn ngày này?",
        "history": "Quá trình giải quyết",
        "pin": "Mã tra cứu (6 chữ số trên giấy tiếp nhận)",
        "look": "Tra cứu",
        "rate": "Đánh giá sự phục vụ",
        "rated": "Ông/bà đã đánh giá",
        "rate-again": "Đánh giá lại",
        "level": "Ông/bà hài lòng đến mức nào?",
        "complained": "Tôi đã phải phản ánh, kiến nghị về hồ sơ này",
        "comment": "Góp ý thêm (không bắt buộc)",
        "send": "Gửi đánh giá",
        "thanks": "Cảm ơn ông/bà đã đánh giá.",
        "wish": "Ông/bà muốn được báo tin bằng cách nào?",
        "wish-hint": "Áp dụng cho mọi hồ sơ của ông/bà từ nay về sau.",
        "keep": "Ghi nhận",
        "kept": "Đã ghi nhận cách báo tin",
        "not-home": "Hồ sơ này do một hệ thống khác giữ; vui lòng liên hệ bộ phận một cửa.",
        "erased": "Thông tin cá nhân của hồ sơ này đã được xóa.",
        "not-found": "Không tìm thấy hồ sơ với mã hồ sơ và mã tra cứu này.",
        "too-many-wrong-pins": "Mã tra cứu đã bị nhập sai nhiều lần. Vui lòng thử lại sau {minutes} phút.",
        "move-not-allowed": "Hồ sơ chưa kết thúc nên chưa thể đánh giá.",
        "other": "Chưa thực hiện được. Vui lòng thử lại.",
    },
    "en": {
        "title": "Dossier",
        "where": "It is at",
        "received": "Received",
        "due": "Due",
        "why": "Why this date?",
        "history": "What has happened",
        "pin": "Tracking pin (the 6 digits on your receipt)",
        "look": "Look up",
        "rate": "Rate the service",
        "rated": "You rated",
        "rate-again": "Rate again",
        "level": "How satisfied are you?",
        "complained": "I had to complain about this dossier",
        "comment": "Anything else (you may leave it out)",
        "send": "Send",
        "thanks": "Thank you for your rating.",
        "wish": "How do you want to be told?",
        "wish-hint": "It holds for all of your dossiers from now on.",
        "keep": "Save",
        "kept": "Saved: you will be told",
        "not-home": "This dossier is kept elsewhere; please ask the one-stop office.",
        "erased": "The personal data of this dossier have been erased.",
        "not-found": "There is no dossier with this code and pin.",
        "too-many-wrong-pins": "Too many wrong pins. Please try again in {minutes} minutes.",
        "move-not-allowed": "This dossier has not ended yet: it cannot be rated.",
        "other": "This did not work. Please try again.",
    },
}

_LEVELS: Final[dict[Language, tuple[tuple[Satisfaction, str], ...]]] = {
    "vi": (
        ("very_satisfied", "Rất hài lòng"),
        ("satisfied", "Hài lòng"),
        ("neutral", "Bình thường"),
        ("dissatisfied", "Không hài lòng"),
    ),
    "en": (
        ("very_satisfied", "Very satisfied"),
        ("satisfied", "Satisfied"),
        ("neutral", "Neutral"),
        ("dissatisfied", "Dissatisfied"),
    ),
}


WISHES: Final[dict[Language, tuple[tuple[Preference, str], ...]]] = {
    "vi": (
        ("sms", "Bằng tin nhắn"),
        ("postal", "Bằng thư qua bưu chính (nếu cơ quan có gửi thư và hồ sơ có địa chỉ)"),
        ("required", "Chỉ báo những việc bắt buộc phải báo"),
    ),
    "en": (
        ("sms", "By text message"),
        ("postal", "By letter (where the agency sends letters and the dossier has an address)"),
        ("required", "Only of what I must be told"),
    ),
}


Rated = tuple[DossierRated, datetime] | None


class CitizenRating(Body):
    """A rating with the pin that allows it."""

    pin: str
    level: Satisfaction
    quality: Satisfaction | None = None
    attitude: Satisfaction | None = None
    complained: Annotated[bool, Field(strict=True)] = False
    comment: Text | None = None


class CitizenWish(Body):
    """How the applicant wants to be told, with the pin that allows it."""

    pin: str
    notify: Preference


_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/html": {}, "application/json": {}}},
    **{
        status: problem_response(status) | {"content": {"text/html": {}} | problem_response(status)["content"]}
        for status in (400, 404, 409, 412, 422, 429, 503)
    },
}
_SAID_SCHEMA: Final = {"oneOf": [CitizenRating.model_json_schema(), CitizenWish.model_json_schema()]}

Code = Annotated[str, Path(description="The dossier's code.")]
Lang = Annotated[Literal["vi", "en"], Query(description="The page's language.")]


def tracking_routes(service: Service, store: Store, writer: Writer, settings: IntakeSettings) -> APIRouter:
    routes = router()
    writes = Writes(service)

    async def opened(connection: Connection, code: str, pin: str | None) -> Dossier:
        """The dossier, to whom has its pin. Raises Problem: 404 for a wrong code or pin alike, 429 after too many."""
        window, most = settings.track_window, settings.track_wrong_pins
        key = code[:_LONGEST_CODE]
        left = await connection.fetchval(store.queries["guesses_left"], key, window, most)
        dossier = await store.read(connection, code) or await store.read_copy(connection, code)
        if dossier is None or dossier.home is None:
            wanted = pin_digest(code, service.keys.track_pin(code))
        else:
            wanted = dossier.track or ""  # its home has made the pin
        right = compare_digest(wanted, pin_digest(code, (pin or "").strip()))
        if left is not None:
            raise _throttled(left)
        if dossier is not None and right:
            return dossier
        if pin is not None:
            wrong = await connection.fetchval(store.queries["guess_wrong"], key, window)
            if wrong > most:  # others guessed at the same time
                raise _throttled(window.total_seconds())
        raise Problem(404, "not-found", "There is no dossier with this code and pin.")

    async def wished(connection: Connection, dossier: Dossier, wish: Preference) -> Answer:
        """It lies sealed with the rest of the contact, and goes with it to who tells."""
        if dossier.home is not None or dossier.contact_ref is None:
            raise Problem(409, "not-home", "This dossier's applicant is known at its home site.")
        _, people = await store.persons(connection, [], [dossier.contact_ref])
        person = people.get(dossier.contact_ref)
        if person is None:
            raise Problem(409, "erased", "This dossier's applicant has been erased.")
        person.take({"notify": wish})
        now = await service.log.now(connection)
        await service.log.append(connection, await store.write_people(connection, [(person, now, "live")], now))
        return Answer(200, {"code": dossier.code, "notify": wish})

    async def described(dossier: Dossier, lang: Language) -> tuple[dict[str, Any], Rated]:
        history = await past_of(service, store, dossier)
        return view(dossier, history, service.directory.current, lang), rating(standing(history))

    def opened_page(
        dossier: Dossier,
        seen: dict[str, Any],
        rated: Rated,
        pin: str | None,
        lang: Language,
        *,
        thanks: bool = False,
        wish: Preference | None = None,
    ) -> Response:
        """The page of a dossier to whom has its pin; a rating that was given is shown, and may be given again. `wish`: the
        one that was just kept."""
        return page(
            dossier.code,
            lang,
            view=seen,
            pin=pin,
            rateable=dossier.state in ENDED and dossier.home is None,
            wishes=WISHES[lang] if dossier.home is None and dossier.state not in ENDED else (),
            wish=None if wish is None else dict(WISHES[lang])[wish],
            rated=None if rated is None else (dict(_LEVELS[lang])[rated[0].level], at_home(rated[1])),
            thanks=thanks,
            why=why(dossier, lang),
        )

    def why(dossier: Dossier, lang: Language) -> list[str]:
        """Why it is due when it is, in sentences; none for what was never received."""
        try:
            sentences: list[str] = explanation(dossier, service.directory.current, lang)["sentences"]
        except (Problem, ClockError):
            return []
        return sentences

    def page(
        code: str, lang: Language, status: int = 200, headers: dict[str, str] | None = None, **more: Any
    ) -> Response:
        html = _ENVIRONMENT.get_template("track.html").render(
            code=code,
            lang=lang,
            site=service.directory.current.site_name if service.directory.loaded else "",
            t=_TEXTS[lang],
            states=STATES[lang],
            acts=ACTS[lang],
            levels=_LEVELS[lang],
            **more,
        )
        return HTMLResponse(html, status, _HEADERS | (headers or {}))

    def problem_page(code: str, lang: Language, problem: Problem) -> Response:
        texts = _TEXTS[lang]
        minutes = -(-int(problem.headers.get("Retry-After", "0")) // 60)
        message = texts.get(problem.code, texts["other"]).format(minutes=minutes)
        return page(code, lang, problem.status, problem.headers, message=message)

    @routes.get("/track/{code}", tags=["citizen"], response_class=Response, responses=_ANSWERS)
    async def track(request: Request, code: Code, pin: str | None = None, lang: Lang = "vi") -> Response:
        """How a dossier stands, for whom has its pin: a page, or JSON when `Accept` asks for it."""
        as_json = wants_json(request)
        if pin is None and not as_json:
            return page(code, lang)
        try:
            async with service.pool.acquire() as connection:
                dossier = await opened(connection, code, pin)
            seen, rated = await described(dossier, lang)
        except Problem as problem:
            return problem.response() if as_json else problem_page(code, lang, problem)
        if as_json:
            return JSONResponse(seen, headers=_HEADERS)
        return opened_page(dossier, seen, rated, pin, lang)

    @routes.post(
        "/track/{code}",
        tags=["citizen"],
        response_class=Response,
        responses=_ANSWERS,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _SAID_SCHEMA}, FORM: {"schema": _SAID_SCHEMA}},
            }
        },
    )
    async def say(request: Request, code: Code, lang: Lang = "vi") -> Response:
        """What the applicant says, by a form from the page or as JSON: the rating, once the dossier has ended; or, with
        `notify`, how they want to be told from now on, in all of their dossiers."""
        as_form = request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM
        as_json = wants_json(request) or not as_form
        try:
            given = _checked(_form(await request.body()) if as_form else await _json(request))
            async with service.pool.acquire() as connection:
                dossier = await opened(connection, code, given.pin)
            if isinstance(given, CitizenWish):
                answer = await writes.once(
                    None if as_form else await request_key(request, CITIZEN),
                    lambda connection: wished(connection, dossier, given.notify),
                )
                if as_json:
                    return answer
                if answer.status_code != 200:
                    return problem_page(code, lang, Problem(answer.status_code, orjson.loads(answer.body)["code"], ""))
                seen, rated = await described(dossier, lang)
                return opened_page(dossier, seen, rated, given.pin, lang, wish=given.notify)
            command = Command(
                "rating",
                acts.Rating(**given.model_dump(exclude={"pin"})),
                Actor("citizen", CITIZEN.subject),
                code=code,
                key=None if as_form else await request_key(request, CITIZEN),
                if_match=request.headers.get("if-match"),
            )
            result = await writer.submit(command)
            if result.problem is not None:
                raise result.problem
            if as_json:
                if result.replayed is not None:
                    return replayed(*result.replayed)
                assert result.answer is not None
                return result.answer.response()
            async with service.pool.acquire() as connection:
                dossier = await opened(connection, code, given.pin)
            seen, rated = await described(dossier, lang)
        except Problem as problem:
            return problem.response() if as_json else problem_page(code, lang, problem)
        return opened_page(dossier, seen, rated, given.pin, lang, thanks=True)

    return routes


def wants_json(request: Request) -> bool:
    """JSON for whom names it; a browser, and whoever takes anything, gets the page."""
    accepted = request.headers.get("accept", "")
    return "application/json" in accepted and "text/html" not in accepted


def _throttled(seconds: float) -> Problem:
    headers = {"Retry-After": str(max(1, int(seconds)))}
    return Problem(429, "too-many-wrong-pins", "Too many wrong pins were tried for this code.", headers=headers)


async def _json(request: Request) -> Any:
    try:
        return await request.json()
    except ValueError:
        raise Problem(400, "bad-json", "The body is no JSON.", [Wrong("not JSON", "")]) from None


def _form(body: bytes) -> dict[str, Any]:
    """The fields of a form; one that was left empty was not given."""
    try:
        pairs = parse_qsl(body.decode(), max_num_fields=20)
    except ValueError:
        raise Problem(400, "bad-form", "The body is no form.") from None
    # A textarea has line breaks, which no text of the contract may hold.
    fields: dict[str, Any] = {name: " ".join(value.split()) for name, value in pairs}
    if fields.get("complained") in ("true", "on"):
        fields["complained"] = True
    return fields


def _checked(given: Any) -> CitizenRating | CitizenWish:
    model = CitizenWish if isinstance(given, dict) and "notify" in given else CitizenRating
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise refused([{**one, "loc": ("body", *one["loc"])} for one in error.errors()]) from None
