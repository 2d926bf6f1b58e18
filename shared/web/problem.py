"""Errors over HTTP: RFC 9457 problem documents with a stable `code` and JSON Pointers to what is wrong."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import Response

PROBLEM_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Wrong:
    """One thing that is wrong: a sentence, and the JSON Pointer from the body's root ("" for the whole)."""

    detail: str
    pointer: str = ""

    def as_dict(self) -> dict[str, str]:
        return {"detail": self.detail, "pointer": self.pointer}


@dataclass(slots=True)
class Problem(Exception):
    """An answer that is an error. `code` is stable; `extra` are further members, `headers` further headers."""

    status: int
    code: str
    detail: str = ""
    errors: Sequence[Wrong] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
        }
        if self.detail:
            document["detail"] = self.detail
        if self.errors:
            document["errors"] = [wrong.as_dict() for wrong in self.errors]
        return document | self.extra

    def response(self) -> Response:
        return Response(orjson.dumps(self.document()), self.status, self.headers, PROBLEM_TYPE)


def not_found(what: str) -> Problem:
    return Problem(404, "not-found", f"{what} does not exist, or is not yours to see.")


def forbidden(why: str) -> Problem:
    return Problem(403, "forbidden", why)


def invalid(detail: str, pointer: str = "", code: str = "invalid") -> Problem:
    return Problem(422, code, detail, [Wrong(detail, pointer)])


def pointer_of(location: Sequence[str | int]) -> str:
    """A pydantic location below the body as a JSON Pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)
