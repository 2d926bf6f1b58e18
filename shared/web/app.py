"""The HTTP side of a service: FastAPI with the contract's manners (problems, pointers, strict parameters)."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import orjson
import structlog
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.routing import APIRoute
from fastapi.security.base import SecurityBase
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.responses import Response

from shared.contracts.codes import normalise_agency
from shared.directory.store import NoBundle
from shared.security.tokens import Principal, Role
from shared.store.pool import TRANSIENT_ERRORS, passes_by_itself
from shared.web.openapi import describe_by_contract, methods_of
from shared.web.problem import Problem, Wrong, forbidden, not_found, pointer_of

log = structlog.get_logger("lienthong.web")


class _JsonRequest(Request):
    """JSON as the standard has it: no NaN, no lone surrogates, UTF-8 only, no depth that breaks a parser."""

    async def json(self) -> Any:
        return orjson.loads(await self.body())


class ContractRoute(APIRoute):
    """A route that refuses query parameters that it does not know."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()
        known = frozenset(_query_names(self.dependant))

        async def strict(request: Request) -> Response:
            if unknown := sorted(set(request.query_params) - known):
                raise Problem(
                    422,
                    "unknown-parameter",
                    f"Unknown query parameter {', '.join(unknown)}; known: {', '.join(sorted(known)) or 'none'}.",
                    [Wrong("This query parameter is not known.", "/" + name) for name in unknown],
                )
            if any("\0" in str(value) for value in request.path_params.values()):
                raise not_found("This")
            if nulls := sorted(name for name, value in request.query_params.multi_items() if "\0" in value):
                wrongs = [Wrong("A parameter is text without zero bytes.", "/" + name) for name in nulls]
                raise Problem(422, "invalid", wrongs[0].detail, wrongs)
            return await handler(_JsonRequest(request.scope, request.receive))

        return strict


def _query_names(dependant: Dependant) -> list[str]:
    names = [field.alias for field in dependant.query_params]
    return names + [name for inner in dependant.dependencies for name in _query_names(inner)]


class Body(BaseModel):
    """A request body: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


def router() -> APIRouter:
    return APIRouter(route_class=ContractRoute)


def include(whole: FastAPI | APIRouter, *parts: APIRouter) -> None:
    """The parts' routes as the whole's own. `include_router` would make each a second time when the first request comes, half
    a second of a site's start, and let every request ask part after part."""
    for part in parts:
        whole.routes.extend(part.routes)


class _PrincipalOf(SecurityBase):
    """The principal that the gate let through; on an open path without a token there is none: 401."""

    def __init__(self) -> None:
        self.model = HTTPBearerModel(bearerFormat="JWT")
        self.scheme_name = "bearer"

    async def __call__(self, request: Request) -> Principal:
        principal: Principal | None = request.state.principal
        if principal is None:
            raise Problem(401, "unauthorized", "This needs a bearer token.", headers={"WWW-Authenticate": "Bearer"})
        return principal


Asking = Annotated[Principal, Depends(_PrincipalOf())]


def allow(principal: Principal, *roles: Role) -> None:
    """403 for a role that may not do this at all; admin may do everything, `service` what services ask each other."""
    if principal.role is not Role.ADMIN and principal.role not in roles:
        raise forbidden(f"The role {principal.role} may not do this.")


def one_of(*roles: Role) -> Callable[[Principal], Coroutine[Any, Any, Principal]]:
    """A dependency: the principal in one of these roles (or admin). So 403 comes before the body is looked at."""

    async def permitted(who: Asking) -> Principal:
        allow(who, *roles)
        return who

    return permitted


def known_agency(text: str) -> str:
    """An agency code of either form, in the new one; 404 when it is none, as for a code that no agency has."""
    try:
        return normalise_agency(text)
    except ValueError as error:
        raise Problem(404, "not-found", f"No agency has this code: {error}.", [Wrong(str(error), "/agency")]) from None


def make_app(title: str, description: str) -> FastAPI:
    """An application whose errors are problem documents."""
    app = FastAPI(
        title=title,
        description=description,
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.router.route_class = ContractRoute
    describe_by_contract(app)

    @app.exception_handler(Problem)
    async def problem(_: Request, error: Problem) -> Response:
        return error.response()

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> Response:
        codes = {404: "not-found", 405: "method-not-allowed", 400: "bad-request", 413: "too-large"}
        detail = str(error.detail) if error.status_code != 400 else "The body is no JSON."
        headers = dict(error.headers or {})
        if error.status_code == 405 and (allowed := methods_of(app, request.url.path)):
            headers["Allow"] = ", ".join(allowed)
        return Problem(error.status_code, codes.get(error.status_code, "error"), detail, headers=headers).response()

    @app.exception_handler(RequestValidationError)
    async def validation(_: Request, error: RequestValidationError) -> Response:
        return refused(error.errors()).response()

    async def passing(request: Request, error: Exception) -> Response:
        """What passes by itself: the client sends it again, under its key if it has one."""
        if not passes_by_itself(error):
            raise error
        log.warning("not-now", path=request.scope.get("route_path"), error=type(error).__name__)
        detail = "This cannot be done now; send it again."
        return Problem(503, "not-now", detail, headers={"Retry-After": "1"}).response()

    for kind in TRANSIENT_ERRORS:
        app.add_exception_handler(kind, passing)

    @app.exception_handler(NoBundle)
    async def no_bundle(_: Request, error: NoBundle) -> Response:
        return Problem(503, "no-bundle", str(error), headers={"Retry-After": "5"}).response()

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        log.error("request-failed", path=request.scope.get("route_path"), error=type(error).__name__, exc_info=error)
        return Problem(500, "internal", "Something went wrong here; it has been logged.").response()

    return app


def refused(errors: Any) -> Problem:
    """The validation errors of pydantic as a problem: 400 for what is no JSON, else 422 with pointers."""
    wrongs = []
    for error in errors:
        location = error["loc"][1:]
        if error["type"] == "json_invalid":
            return Problem(400, "bad-json", "The body is no JSON.", [Wrong("not JSON", "")])
        message = str(error["msg"]).removeprefix("Value error, ")
        wrongs.append(Wrong(message, pointer_of(location)))
    detail = "; ".join(f"{wrong.pointer or 'body'}: {wrong.detail}" for wrong in wrongs[:5])
    return Problem(422, "invalid", detail, wrongs)
