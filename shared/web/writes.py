"""Writes over HTTP: one transaction, the answer kept under the client's Idempotency-Key, the relay woken after the commit.

The key belongs to the token's subject and the path. The same key with the same JSON value is answered with the stored
status, body and headers; with another value it is refused; while the first request still runs it is a conflict. What is
kept are the answers of acts that took place or that the state refused (2xx, 409): a request that was itself wrong (4xx)
may be corrected and sent again under its key.
"""

import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from shared.security.tokens import Principal
from shared.service import Service
from shared.store.pool import Connection
from shared.web.problem import PROBLEM_TYPE, Problem

_KEY = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,199}")
KEPT_HEADERS = ("location", "etag")


@dataclass(frozen=True, slots=True)
class Answer:
    """What an act answers."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        kind = PROBLEM_TYPE if self.status >= 400 else "application/json"
        return Response(orjson.dumps(self.body), self.status, self.headers, kind)


@dataclass(frozen=True, slots=True)
class RequestKey:
    """An Idempotency-Key with what it belongs to, and the digest of the JSON value that came with it."""

    subject: str
    path: str
    key: str
    digest: bytes

    @property
    def identity(self) -> tuple[str, str, str]:
        return (self.subject, self.path, self.key)


async def request_key(request: Request, who: Principal) -> RequestKey | None:
    """The key of a write, if it has one; 422 when it is not printable ASCII of at most 200 characters."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if _KEY.fullmatch(key) is None:
        raise Problem(422, "idempotency-key-invalid", "An Idempotency-Key is 1 to 200 printable ASCII characters.")
    body = await request.body()
    value = orjson.dumps(_comparable(orjson.loads(body)), option=orjson.OPT_SORT_KEYS) if body else b""
    return RequestKey(who.subject, request.url.path, key, sha256(value).digest())


def _comparable(value: Any) -> Any:
    """The value with equal numbers written alike: 1.0 is 1."""
    if isinstance(value, dict):
        return {name: _comparable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_comparable(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53 else value


def replayed(key: RequestKey, row: Any) -> Response:
    """The stored answer; 422 when the key came with another value."""
    if bytes(row["digest"]) != key.digest:
        raise Problem(422, "idempotency-key-reused", "This Idempotency-Key was used with another body; take a new one.")
    kind = PROBLEM_TYPE if row["status"] >= 400 else "application/json"
    headers = {**row["headers"], "Idempotent-Replayed": "true"}
    return Response(row["body"].encode(), row["status"], headers, kind)


class Running:
    """The keys whose first request still runs in this process."""

    def __init__(self) -> None:
        self._keys: set[tuple[str, str, str]] = set()

    @contextmanager
    def holding(self, key: RequestKey | None) -> Iterator[None]:
        if key is None:
            yield
            return
        if key.identity in self._keys:
            raise Problem(409, "idempotency-key-running", "The first request with this key still runs; ask again.")
        self._keys.add(key.identity)
        try:
            yield
        finally:
            self._keys.discard(key.identity)


class Writes:
    """The writes of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._running = Running()

    async def write(self, request: Request, who: Principal, act: Callable[[Connection], Awaitable[Answer]]) -> Response:
        """Runs `act` in a transaction and answers; promise 1: the answer leaves after the commit.

        A Problem that `act` raises with status 409 is kept under the key as well; nothing of the act is then stored.
        """
        return await self.once(await request_key(request, who), act)

    async def once(self, key: RequestKey | None, act: Callable[[Connection], Awaitable[Answer]]) -> Response:
        """The same for a key that came another way, as with a page's form."""
        queries = self._service.store_queries
        with self._running.holding(key):
            async with self._service.pool.acquire() as connection, connection.transaction():
                if key is not None:
                    # Two processes with one key: the second waits here for the first and finds its answer.
                    await connection.execute(
                        "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", "\n".join(key.identity)
                    )
                    rows = await connection.fetch(queries["answer_find"], [key.subject], [key.path], [key.key])
                    if rows:
                        return replayed(key, rows[0])
                try:
                    async with connection.transaction():
                        answer = await act(connection)
                except Problem as problem:
                    if problem.status != 409:
                        raise
                    answer = Answer(409, problem.document(), problem.headers)
                if key is not None:
                    await connection.execute(queries["answer_put"], *answer_columns([(key, answer)]))
        self._service.wake()
        return answer.response()


def answer_columns(answers: list[tuple[RequestKey, Answer]]) -> tuple[list[Any], ...]:
    """The columns of `answer_put`."""
    return (
        [key.subject for key, _ in answers],
        [key.path for key, _ in answers],
        [key.key for key, _ in answers],
        [key.digest for key, _ in answers],
        [answer.status for _, answer in answers],
        [
            {name: value for name, value in answer.headers.items() if name.lower() in KEPT_HEADERS}
            for _, answer in answers
        ],
        [orjson.dumps(answer.body).decode() for _, answer in answers],
    )


def check_if_match(request: Request, etag: str) -> None:
    """412 when the client's If-Match names another version than the present one."""
    must_match(request.headers.get("if-match"), etag)


def must_match(wanted: str | None, etag: str) -> None:
    """412 when `wanted`, an If-Match, names another version than the present one."""
    if wanted is not None and wanted.strip() != "*" and etag not in [part.strip() for part in wanted.split(",")]:
        raise Problem(
            412, "changed-meanwhile", f"The present version is {etag}; read it again.", headers={"ETag": etag}
        )
