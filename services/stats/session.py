"""Who looks at the pages of stats: a bearer token, or one that was posted once and is kept in a cookie.

The cookie is the desk pages' own, so that who works there is known here; the JSON interface takes bearer tokens only.
The pages change nothing, so that their forms need no secret.
"""

import time
from math import ceil
from typing import Final
from urllib.parse import parse_qs, quote

from fastapi import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from services.stats.pages import templates
from shared.security.tokens import Principal, TokenRefused
from shared.service import Service
from shared.web.problem import Problem

COOKIE: Final = "lienthong_desk"
HOURS: Final = 8
LONGEST_TOKEN: Final = 3800  # bytes; browsers keep cookies of 4,096 with their name
FORMS: Final[dict[str, tuple[str, ...]]] = {"/session(/end)?": ("application/x-www-form-urlencoded",)}


class LoginNeeded(Exception):
    """Nobody is logged in; the answer is 401 with the login form as its body."""

    def __init__(self, back: str, message: str = "") -> None:
        super().__init__("nobody is logged in")
        self.back, self.message = back, message


class Visits:
    """Reads and makes the sessions of the pages."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def visitor(self, request: Request) -> Principal | None:
        """None: nobody, or one whose session has ended."""
        principal: Principal | None = request.state.principal
        token = request.cookies.get(COOKIE, "")
        if principal is None and token:
            try:
                return await self._service.asgi.authenticate(token)
            except TokenRefused:
                return None
        return principal

    async def known(self, request: Request) -> Principal:
        """A dependency of pages that need a token. Raises LoginNeeded."""
        principal = await self.visitor(request)
        if principal is None:
            raise LoginNeeded(f"{request.url.path}?{request.url.query}")
        return principal

    def form(self, back: str = "/", message: str = "", status: int = 401) -> Response:
        page = templates().get_template("login.html")
        site = self._service.directory.current.site_name
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        return HTMLResponse(page.render(site=site, back=back, message=message), status, headers)

    async def begin(self, request: Request) -> Response:
        """A posted token becomes a session. A form on another site's page is refused: it would log in as its maker."""
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Problem(403, "foreign-form", "This form does not belong to this site.")
        fields = parse_qs((await request.body()).decode("utf-8", "replace"))
        token, back = fields.get("token", [""])[0].strip(), _here(fields.get("back", ["/"])[0])
        address = request.client.host if request.client else ""
        if (left := self._service.logins.wait(address, time.monotonic())) > 0:
            headers = {"Retry-After": str(ceil(left))}
            raise Problem(429, "too-many-logins", "Too many logins have failed.", headers=headers)
        try:
            if len(token) > LONGEST_TOKEN:
                raise TokenRefused("the token is too long")
            await self._service.asgi.authenticate(token)
        except TokenRefused:
            self._service.logins.fail(address, time.monotonic())
            raise LoginNeeded(back, "Mã này không đúng hoặc đã hết hạn.") from None
        answer = RedirectResponse(back, 303)
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, token, max_age=HOURS * 3600, path="/", httponly=True, secure=secure, samesite="lax")
        return answer

    def end(self) -> Response:
        answer = RedirectResponse("/", 303)
        answer.delete_cookie(COOKIE, path="/")
        return answer


def _here(back: str) -> str:
    """The page to go back to; one of this site, whatever the form says."""
    if not back.startswith("/") or back.startswith(("//", "/\\")):
        return "/"
    return quote(back, safe="/?&=%:+,.-_")
