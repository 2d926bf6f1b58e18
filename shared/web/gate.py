"""What every request passes before a route is looked at: the token, the size and kind of its body."""

import re
import time
from collections.abc import Awaitable, Callable, Iterable

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.courtesy import answering
from shared.observe.traces import Traces, causing, readable
from shared.security.tokens import Principal, TokenRefused
from shared.web.problem import Problem

MAX_BODY = 1 << 20
OPEN_PATHS = ("/healthz", "/readyz", "/metrics", "/docs", "/docs/.*", "/openapi.json", "/asyncapi.json")


# Asked all the time: a trace of its own for each would bury the others.
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
AMONG_SERVICES = ("/v1/heads", "/v1/ledger")  # traced where they belong to something that is
METRICS = "/metrics"  # a token that comes here is the scraper's, for the route to check


# Called after each answer: method, the route as it is declared, status, seconds.
Answered = Callable[[str, str, int, float], None]

_EVERYWHERE = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))
# A page loads what its own service serves, is shown in no other page, and sends its forms nowhere else.
_PAGES = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        b"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class TooLarge(HTTPException):
    """The body went over the limit while it was read. An HTTPException: FastAPI calls all else a body that is no JSON."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"The body is over {limit} bytes; send it in parts.")


class Gate:
    """401 before anything else, then 413 and 415. The principal is then in `request.state.principal`.

    `provider`: reads the tokens that the site's own key did not sign. `open_paths`: regular expressions of paths that
    need no token; a token that comes all the same must be good. `large`: paths whose bodies may be larger, with their
    limit. `plain`: regular expressions of paths that take other bodies than JSON. `traces`: makes a span of each request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        verify: Callable[[str], Principal],
        provider: Callable[[str], Awaitable[Principal]] | None = None,
        open_paths: Iterable[str] = (),
        large: dict[str, int] | None = None,
        plain: dict[str, tuple[str, ...]] | None = None,
        answered: Answered = lambda *_: None,
        traces: Traces | None = None,
    ) -> None:
        self._answered, self._traces = answered, traces
        self._app, self._verify, self._provider = app, verify, provider
        self._open = re.compile("|".join(f"(?:{path})" for path in (*OPEN_PATHS, *open_paths)))
        self._large = large or {}
        self._plain = [(re.compile(path), kinds) for path, kinds in (plain or {}).items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif (path := scope["path"]) in PROBES or path in self._large or path.startswith(AMONG_SERVICES):
            await self._answer(scope, receive, send)
        else:
            with answering():
                await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": guarded(message["headers"])}
            await send(message)

        method = scope["method"] if scope["method"] in _METHODS else "other"
        above, path = readable(_header(scope, b"traceparent")), scope["path"]
        if (
            self._traces is None
            or not self._traces.on
            or path in PROBES
            or (above is None and path.startswith(AMONG_SERVICES))
        ):
            try:
                await self._let_through(scope, receive, sending)
            finally:
                self._answered(method, route_of(scope), status, time.perf_counter() - began)
            return
        span = self._traces.begin(method, "server", above)
        try:
            with causing({}, self._traces.traceparent(span)):
                try:
                    await self._let_through(scope, receive, sending)
                finally:
                    self._answered(method, route_of(scope), status, time.perf_counter() - began)
        finally:
            # Only what was declared: a path and a query may hold a pin, a name, a number.
            said = {"http.request.method": method, "http.route": route_of(scope), "http.response.status_code": status}
            if span is not None:
                span.update_name(f"{method} {route_of(scope)}")
            self._traces.end(span, said, failed=str(status) if status >= 500 else None)

    async def _let_through(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            principal = await self._principal(scope)
            scope.setdefault("state", {})["principal"] = principal
            self._check_kind(scope)
            limit = self._large.get(scope["path"], MAX_BODY)
            declared = _header(scope, b"content-length")
            if declared.isascii() and declared.isdigit() and int(declared) > limit:
                raise TooLarge(limit)
        except Problem as problem:
            await problem.response()(scope, receive, send)
            return
        except TooLarge as error:
            await Problem(413, "too-large", error.detail).response()(scope, receive, send)
            return
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                if read > limit:
                    raise TooLarge(limit)
            return message

        await self._app(scope, limited, send)

    async def _principal(self, scope: Scope) -> Principal | None:
        scheme, _, token = _header(scope, b"authorization").partition(" ")
        if token.strip() and scheme.lower() == "bearer" and scope["path"] != METRICS:
            try:
                return await self.authenticate(token.strip())
            except TokenRefused as error:
                raise _unauthorized(str(error)) from None
        if self._open.fullmatch(scope["path"]) is None:
            raise _unauthorized("This needs a bearer token: Authorization: Bearer …")
        return None

    async def authenticate(self, token: str) -> Principal:
        """The principal of a token of the site or of its provider; raises TokenRefused."""
        try:
            return self._verify(token)
        except TokenRefused:
            if self._provider is None:
                raise
            return await self._provider(token)

    def _check_kind(self, scope: Scope) -> None:
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            return
        kind = _header(scope, b"content-type").partition(";")[0].strip().lower()
        allowed = next((kinds for path, kinds in self._plain if path.fullmatch(scope["path"])), ("application/json",))
        if kind in allowed or (kind.endswith("+json") and "application/json" in allowed):
            return
        empty = _header(scope, b"content-length") in ("", "0") and not _header(scope, b"transfer-encoding")
        if not kind and empty:
            return  # a body that is missing is named by the route
        raise Problem(415, "media-type", f"Send the body as {' or '.join(allowed)}.", headers={"Accept": allowed[0]})


def guarded(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """An answer's headers with those that a browser is to obey; what a route says itself stands."""
    said = list(headers)
    names = {name.lower() for name, _ in said}
    html = any(name.lower() == b"content-type" and value.startswith(b"text/html") for name, value in said)
    more = (*_EVERYWHERE, *_PAGES) if html else _EVERYWHERE
    return said + [(name, value) for name, value in more if name not in names]


def route_of(scope: Scope) -> str:
    """The declared path, such as `/v1/dossiers/{code}`: a label of few values. What no route took is one value."""
    return str(getattr(scope.get("route"), "path", "none"))


def _header(scope: Scope, name: bytes) -> str:
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return ""


def _unauthorized(detail: str) -> Problem:
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
