"""Who stands at a desk page: a token posted once, or a login at the province's OpenID provider, kept as a session.

The session's cookie holds a token, is sent by browsers to this site's pages alone (HttpOnly, SameSite=Lax), and means
nothing to the JSON interface, which takes bearer tokens only. A form that changes something carries a secret of its session
(CSRF) besides; a request with a bearer token needs none.
"""

import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from math import ceil
from typing import Any, Final
from urllib.parse import urlencode

import httpx
from fastapi import Request
from starlette.responses import RedirectResponse, Response

from services.intake.pages import Lang, Pages, address, language, remember
from services.intake.settings import IntakeSettings
from services.intake.tracking import Language
from shared.security.access import scope_of
from shared.security.tokens import Principal, Role, TokenRefused
from shared.service import Service
from shared.web.problem import Problem, forbidden

COOKIE: Final = "lienthong_desk"
LOGIN_COOKIE: Final = "lienthong_login"
HOME: Final = "/desk"
PARKED: Final = "/parked"
LONGEST_TOKEN: Final = 3800
"""Bytes; browsers keep cookies of 4,096 with their name."""

SESSION_HOURS: Final = 8.0
LOGIN_SECONDS: Final = 600
AT_DESKS: Final = frozenset({Role.DESK, Role.OFFICER, Role.LEADER, Role.AUDITOR, Role.ADMIN})
OPERATORS: Final = frozenset({Role.OPERATOR, Role.AUDITOR, Role.ADMIN})


@dataclass(frozen=True, slots=True)
class Visit:
    """One request to a desk page: who, in which language, the secret of the session's forms (None: bearer token), and
    where the page is found again."""

    who: Principal
    lang: Language
    csrf: str | None
    here: str = HOME

    @property
    def subject(self) -> str:
        return self.who.subject

    @property
    def role(self) -> str:
        return self.who.role.value

    @property
    def agency(self) -> str | None:
        return self.who.agency

    @property
    def receives(self) -> bool:
        """Whether this role takes dossiers in."""
        return self.who.role in (Role.DESK, Role.ADMIN)

    @property
    def at_desk(self) -> bool:
        return self.who.role in AT_DESKS

    @property
    def operates(self) -> bool:
        """Whether this role sees what is parked."""
        return self.who.role in OPERATORS

    def says(self, vietnamese: str, english: str) -> str:
        return vietnamese if self.lang == "vi" else english


class LoginNeeded(Exception):
    """Nobody is logged in; the answer is 401 with the login form as its body."""

    def __init__(self, lang: Language, message: str = "") -> None:
        super().__init__("nobody is logged in")
        self.lang, self.message = lang, message


class PageRefused(Exception):
    """A page that is refused, with the problem that it would be over the JSON interface."""

    def __init__(self, lang: Language, problem: Problem, visit: Visit | None = None) -> None:
        super().__init__(problem.code)
        self.lang, self.problem, self.visit = lang, problem, visit


class Sessions:
    """Makes and reads the sessions of the desk pages."""

    def __init__(self, service: Service, settings: IntakeSettings, pages: Pages) -> None:
        self._service, self._settings, self._pages = service, settings, pages

    async def visit(self, request: Request, lang: Lang = None) -> Visit:
        """A dependency. Raises LoginNeeded, and PageRefused (403) for a role that has no business at a desk."""
        return await self._visit(request, lang, AT_DESKS, HOME)

    async def operator(self, request: Request, lang: Lang = None) -> Visit:
        """A dependency of the operators' pages; raises as `visit` does."""
        return await self._visit(request, lang, OPERATORS, PARKED)

    async def anybody(self, request: Request, lang: Lang = None) -> Visit:
        """A dependency of what every session may do; raises as `visit` does."""
        return await self._visit(request, lang, AT_DESKS | OPERATORS, HOME)

    async def _visit(self, request: Request, lang: Lang, roles: frozenset[Role], home: str) -> Visit:
        chosen = language(request, lang)
        principal: Principal | None = request.state.principal
        csrf = None
        if principal is None:
            token = request.cookies.get(COOKIE, "")
            if not token:
                raise LoginNeeded(chosen)
            try:
                principal = await self._service.asgi.authenticate(token)
            except TokenRefused:
                ended = ("Phiên làm việc đã hết. Mời đăng nhập lại.", "The session has ended. Please log in again.")
                raise LoginNeeded(chosen, ended[chosen == "en"]) from None
            csrf = self._csrf(token)
        if principal.role not in roles:
            raise PageRefused(chosen, _no_pages(principal))
        # What a form brought forth has no address of its own.
        return Visit(principal, chosen, csrf, address(request) if request.method == "GET" else home)

    def check(self, visit: Visit, form: Mapping[str, list[str]]) -> None:
        """403 for a form that is not of this session."""
        given = form.get("csrf", [""])[0]
        if visit.csrf is not None and not compare_digest(visit.csrf.encode(), given.encode()):
            problem = Problem(403, "foreign-form", "This form does not belong to this session; load the page again.")
            raise PageRefused(visit.lang, problem, visit)

    def _csrf(self, token: str) -> str:
        return self._service.keys.keyed_hash("csrf", token)[:40]

    # -- pages

    def shown(self, visit: Visit, name: str, asked: Lang = None, *, here: str = "", **more: Any) -> Response:
        """A page for who stands there; `asked`: the language that was just chosen."""
        return remember(self._pages.html(name, visit.lang, visit=visit, here=here or visit.here, **more), asked)

    def refused(self, visit: Visit | None, problem: Problem, lang: Language = "vi") -> Response:
        """A page that says that it may not be, or is not there."""
        words = {
            404: ("Không tìm thấy, hoặc không thuộc phạm vi của ông/bà.", "It does not exist, or is not yours to see."),
            429: (
                "Đăng nhập sai quá nhiều lần. Mời đợi rồi thử lại.",
                "Too many failed logins. Please wait and try again.",
            ),
            403: ("Vai trò hoặc phiên này không được làm việc đó.", "This role or session may not do this."),
        }.get(problem.status, ("Chưa thực hiện được.", "This did not work."))
        lang = lang if visit is None else visit.lang
        return self._pages.html(
            "message.html",
            lang,
            status=problem.status,
            headers=problem.headers,
            here=HOME if visit is None else visit.here,
            visit=visit,
            message=words[lang == "en"],
        )

    async def ask(self, visit: Visit, name: str, path: str, *, method: str = "GET", **given: Any) -> Any:
        """Another service's answer to what a page asks in its visitor's name. Raises OSError that names the service when it
        is away, PageRefused for what it refuses."""
        url = self._service.settings.url_of(name) + path
        try:
            answer = await self._service.http.request(method, url, headers=self._service.token_of(visit.who), **given)
        except httpx.HTTPError as error:
            raise ConnectionError(name) from error
        if answer.status_code == 503:
            raise ConnectionError(name)
        if answer.is_error:
            problem = answer.json()
            raise PageRefused(visit.lang, Problem(answer.status_code, problem["code"], problem["title"]), visit)
        return answer.json()

    def agencies_of(self, visit: Visit) -> list[str]:
        """The agencies whose work this visit sees."""
        directory = self._service.directory.current
        scope = scope_of(visit.who, directory)
        return sorted(directory.agencies if scope is None else scope)

    # -- login

    def login_page(self, lang: Language, message: str = "") -> Response:
        """401 with the form."""
        return self._pages.html(
            "login.html",
            lang,
            status=401,
            headers={"WWW-Authenticate": "Bearer"},
            here=f"{HOME}/login",
            message=message,
            provider=bool(self._settings.oidc_issuer and self._settings.oidc_client_id),
        )

    async def log_in(self, request: Request, token: str, lang: Language) -> Response:
        """A posted token becomes a session. A form on another site's page is refused: it would log in as its maker.
        So is, for a while, an address from which too many have failed."""
        self._throttled(request, lang)
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise PageRefused(lang, Problem(403, "foreign-form", "This form does not belong to this site."))
        try:
            if len(token) > LONGEST_TOKEN:
                raise TokenRefused("the token is too long")
            principal = await self._service.asgi.authenticate(token)
        except TokenRefused:
            self._service.logins.fail(_address(request), time.monotonic())
            raise LoginNeeded(
                lang,
                "Mã này không đúng hoặc đã hết hạn." if lang == "vi" else "This token is wrong or has expired.",
            ) from None
        if principal.role not in AT_DESKS | OPERATORS:
            raise PageRefused(lang, _no_pages(principal))
        return self._with_session(request, token, principal)

    def _throttled(self, request: Request, lang: Language) -> None:
        if (left := self._service.logins.wait(_address(request), time.monotonic())) > 0:
            headers = {"Retry-After": str(ceil(left))}
            raise PageRefused(lang, Problem(429, "too-many-logins", "Too many logins have failed.", headers=headers))

    def log_out(self) -> Response:
        answer = RedirectResponse("/desk", 303)
        answer.delete_cookie(COOKIE, path="/")
        return answer

    async def to_provider(self, request: Request) -> Response:
        """To the provider's login (authorization code, PKCE); what must come back is kept in a cookie until then."""
        settings = self._settings
        if not (settings.oidc_issuer and settings.oidc_client_id):
            raise Problem(404, "not-found", "This site has no OpenID provider.")
        try:
            address = str((await self._service.provider.metadata())["authorization_endpoint"])
        except (httpx.HTTPError, ValueError, KeyError):
            raise Problem(
                503, "provider-away", "The provider does not answer.", headers={"Retry-After": "30"}
            ) from None
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": settings.oidc_client_id,
            "redirect_uri": self._callback(request),
            "scope": "openid",
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        answer = RedirectResponse(f"{address}{'&' if '?' in address else '?'}{urlencode(asked)}", 303)
        self._keep(request, answer, LOGIN_COOKIE, f"{state}.{nonce}.{verifier}", LOGIN_SECONDS)
        return answer

    async def from_provider(self, request: Request, state: str, code: str, lang: Language) -> Response:
        """The provider's callback: its code becomes a session with a token of this site."""
        kept = request.cookies.get(LOGIN_COOKIE, "").split(".")
        failed = "Đăng nhập chưa thành công. Mời thử lại." if lang == "vi" else "The login failed. Please try again."
        if len(kept) != 3 or not code or not compare_digest(kept[0].encode(), state.encode()):
            raise LoginNeeded(lang, failed)
        self._throttled(request, lang)
        provider = self._service.provider
        try:
            token = await provider.id_token(code, kept[2], self._callback(request))
            who = await provider.verify(token, audience=self._settings.oidc_client_id, nonce=kept[1])
        except TokenRefused:
            self._service.logins.fail(_address(request), time.monotonic())
            raise LoginNeeded(lang, failed) from None
        if who.role not in AT_DESKS | OPERATORS:
            raise PageRefused(lang, _no_pages(who))
        own = self._service.tokens.issue(
            who.role, agency=who.agency, subtree=who.subtree, name=who.subject, hours=SESSION_HOURS
        )
        answer = self._with_session(request, own, who)
        answer.delete_cookie(LOGIN_COOKIE, path="/")
        return answer

    def _callback(self, request: Request) -> str:
        return public_address(self._settings, request) + "/desk/callback"

    def _with_session(self, request: Request, token: str, who: Principal) -> Response:
        answer = RedirectResponse(HOME if who.role in AT_DESKS else PARKED, 303)
        self._keep(request, answer, COOKIE, token, None)
        return answer

    def _keep(self, request: Request, answer: Response, name: str, value: str, seconds: int | None) -> None:
        secure = public_address(self._settings, request).startswith("https:")
        answer.set_cookie(name, value, max_age=seconds, path="/", httponly=True, secure=secure, samesite="lax")


def _address(request: Request) -> str:
    """Whose failures are counted together; before a proxy the server is told whom to believe (FORWARDED_ALLOW_IPS)."""
    return request.client.host if request.client else ""


def _no_pages(who: Principal) -> Problem:
    return forbidden(f"The role {who.role} has no desk pages.")


def public_address(settings: IntakeSettings, request: Request) -> str:
    """Where people reach this service: as set, else as this request found it."""
    return (settings.public_url or str(request.base_url)).rstrip("/")
