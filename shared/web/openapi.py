"""The OpenAPI document, with what the contract says of every operation and FastAPI cannot know.

Errors are problem documents, not FastAPI's own; whoever asks carries a bearer token; writes take an Idempotency-Key, and
If-Match where they change something that exists. An operation that posts only to ask says so with `openapi_extra=READS`.
"""

import re
from functools import cache
from typing import Any, Final

from fastapi import FastAPI

from shared.web.problem import PROBLEM_TYPE

READS: Final[dict[str, Any]] = {"x-reads": True}
"""For `openapi_extra`: this POST changes nothing, or, as imports do, knows by itself what came before."""

WITHOUT_KEYS: Final = frozenset({"internal", "operators", "callbacks"})
"""Tags of operations that are not a client's writes: they do the same when they come twice."""

METHODS: Final = ("get", "put", "post", "delete", "patch")

_PROBLEM: Final = {
    "type": "object",
    "description": "RFC 9457. `code` is stable; `errors` point at what is wrong. A refusal may say more.",
    "required": ["type", "title", "status", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["detail", "pointer"],
                "properties": {
                    "detail": {"type": "string"},
                    "pointer": {"type": "string", "description": "A JSON Pointer from the body's root."},
                },
            },
        },
    },
}

_TITLES: Final = {
    400: "What came is no JSON.",
    401: "No token, or none that this site accepts.",
    403: "Outside the token's role or scope.",
    404: "It does not exist, or is not yours to see.",
    405: "The path takes another method.",
    409: "The present state does not allow it.",
    412: "Changed meanwhile: If-Match names another version.",
    413: "The body is too large.",
    415: "The body is of another media type.",
    422: "What came is not valid; `errors` say where.",
    429: "Too often; come back after `Retry-After` seconds.",
    503: "Not possible now; come back after `Retry-After` seconds.",
}

_HEADERS: Final[dict[int, dict[str, Any]]] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
    405: {"Allow": {"schema": {"type": "string"}}},
    429: {"Retry-After": {"schema": {"type": "integer", "minimum": 0}}},
}

_IDEMPOTENCY_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key with the same body is answered with the stored answer.",
    "schema": {"type": "string", "pattern": "^[!-~][ -~]{0,199}$"},
}
_IF_MATCH: Final = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "The ETag that this change is meant for.",
    "schema": {"type": "string"},
}


def describe_by_contract(app: FastAPI) -> None:
    """`app.openapi()` gives the document as the contract has it."""
    as_fastapi_has_it = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _finish_all(as_fastapi_has_it())
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _finish_all(document: dict[str, Any]) -> None:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    schemas["Problem"] = _PROBLEM
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                _finish(item[method], path, method)


def _finish(operation: dict[str, Any], path: str, method: str) -> None:
    reads = operation.pop("x-reads", False) or method == "get"
    keyless = reads or not WITHOUT_KEYS.isdisjoint(operation.get("tags", ()))
    statuses = {401, 405, 422}  # a token that is sent must be good, also where none is asked for
    if operation.setdefault("security", []):
        statuses |= {403, 404}
    if "{" in path:
        statuses.add(404)
    if method != "get":
        statuses |= {400, 413, 415}
    if not reads:
        statuses |= {409, 503}
    if not keyless:
        statuses |= {412} if "{" in path else set()
        headers = [_IDEMPOTENCY_KEY, _IF_MATCH] if "{" in path else [_IDEMPOTENCY_KEY]
        operation.setdefault("parameters", []).extend(headers)
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    for status in sorted(statuses):
        responses.setdefault(str(status), problem_response(status))


def methods_of(app: FastAPI, path: str) -> list[str]:
    """The methods of the resource at a path, over all its routes: what `Allow` lists. A literal path is no parameter."""
    paths = app.openapi()["paths"]
    templates = [template for template in paths if _pattern(template).fullmatch(path)]
    if not templates:
        return []
    item = paths[min(templates, key=lambda template: template.count("{"))]
    return sorted(method.upper() for method in METHODS if method in item)


@cache
def _pattern(template: str) -> re.Pattern[str]:
    """The paths of a template; a parameter named `path` takes slashes too."""
    parts = re.split(r"(\{\w+\})", template)
    kinds = {"{path}": ".+"}
    return re.compile("".join(kinds.get(part, "[^/]+") if part.startswith("{") else re.escape(part) for part in parts))


def problem_response(status: int) -> dict[str, Any]:
    """An answer that is a problem, for an operation's `responses`."""
    response: dict[str, Any] = {
        "description": _TITLES[status],
        "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if status in _HEADERS:
        response["headers"] = _HEADERS[status]
    return response
