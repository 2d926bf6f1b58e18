"""The routes that every service has: probes, metrics, schemas, and what the services and operators ask each other."""

from hmac import compare_digest
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from shared.contracts.codes import Instant, Name, Text, format_instant
from shared.contracts.envelope import Unreadable, decode
from shared.contracts.schema import all_schemas
from shared.observe.metrics import choose_encoder
from shared.security.tokens import Role
from shared.service import Service
from shared.store.log import family
from shared.store.room import headers_from_json
from shared.web.app import Asking, Body, allow, include, router
from shared.web.docs import docs_routes
from shared.web.ledger import envelope_to_json
from shared.web.problem import Problem, not_found

PAGE = 1000

# What the OpenAPI document cannot see: other media types than JSON, other answers than 200.
_METRICS: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {}, "application/openmetrics-text": {}}}}
_SCHEMA: dict[int | str, dict[str, Any]] = {200: {"content": {"application/schema+json": {}}}}
_UNWELL: dict[int | str, dict[str, Any]] = {
    503: {"description": "With the reasons.", "content": {"application/json": {}}}
}
LOG_PAGE = 10_000


def common_routes(service: Service) -> APIRouter:
    """To be included by each service's app."""
    routes = router()
    include(routes, docs_routes(service))
    store = service.store_queries

    @routes.get("/healthz", tags=["probes"], responses=_UNWELL)
    async def healthz() -> Response:
        """200 while every loop makes progress, else 503 with what does not."""
        reasons = service.unhealthy()
        return JSONResponse({"status": "stuck" if reasons else "ok", "reasons": reasons}, 503 if reasons else 200)

    @routes.get("/readyz", tags=["probes"], responses=_UNWELL)
    async def readyz() -> Response:
        """200 when requests can be answered, else 503 with why not. A line that is down does not count."""
        reasons = await service.unready()
        return JSONResponse({"status": "unready" if reasons else "ready", "reasons": reasons}, 503 if reasons else 200)

    @routes.get("/metrics", tags=["probes"], response_class=Response, responses=_METRICS)
    async def metrics(request: Request) -> Response:
        """Prometheus text, or OpenMetrics when `Accept` asks for it."""
        wanted = service.settings.metrics_token
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if wanted is not None and not compare_digest(given.encode(), wanted.get_secret_value().encode()):
            raise Problem(401, "unauthorized", "This needs the metrics token.", headers={"WWW-Authenticate": "Bearer"})
        await service.observe()
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(service.metrics.registry), media_type=kind)

    @routes.get("/schemas/{path:path}", tags=["contract"], response_class=Response, responses=_SCHEMA)
    async def schema(path: str, who: Asking) -> Response:
        """The JSON Schema that `ce_dataschema` names."""
        found = all_schemas().get(path)
        if found is None:
            raise not_found("This schema")
        return JSONResponse(found, media_type="application/schema+json")

    @routes.get("/v1/ledger", tags=["internal"])
    async def ledger(
        who: Asking,
        topic: str,
        key: str,
        after: Annotated[int, Query(ge=0, lt=1 << 31)] = 0,
        limit: Annotated[int, Query(ge=1, le=PAGE)] = PAGE,
    ) -> dict[str, Any]:
        """The events of a key above a sequence, in order: for the services of this site."""
        allow(who, Role.SERVICE)
        async with service.pool.acquire() as connection:
            events = await service.log.after(connection, topic, key, after, limit)
        return {"items": [envelope_to_json(event) for event in events]}

    @routes.get("/v1/log", tags=["internal"])
    async def log_page(
        who: Asking,
        topics: str,
        after_key: str = "",
        after_sequence: Annotated[int, Query(ge=0, lt=1 << 31)] = 0,
        after_family: str = "",
        limit: Annotated[int, Query(ge=1, le=LOG_PAGE)] = LOG_PAGE,
    ) -> Response:
        """All events of topics (with commas between) key by key, each key in order: what a projection is rebuilt from."""
        allow(who, Role.SERVICE)
        families = [family(topic) for topic in topics.split(",")]
        async with service.pool.acquire() as connection:
            page = await connection.fetchval(
                store["log_page"], families, after_key, after_sequence, after_family, limit
            )
        return Response(page, media_type="application/json")

    @routes.get("/v1/heads", tags=["internal"])
    async def heads(
        who: Asking, topic: str, side: Literal["owned", "consumed"], since: Instant | None = None
    ) -> dict[str, Any]:
        """Counts and digests of a topic's keys by the hour in which their newest event was recorded."""
        allow(who, Role.SERVICE, Role.OPERATOR, Role.AUDITOR)
        async with service.pool.acquire() as connection:
            rows = await connection.fetch(store[f"heads_{side}"], topic, since)
        return {
            "items": [
                {
                    "hour": format_instant(row["hour"]),
                    "keys": row["keys"],
                    "events": row["events"],
                    "digest": row["digest"],
                }
                for row in rows
            ]
        }

    @routes.get("/v1/heads/hour", tags=["internal"])
    async def heads_hour(who: Asking, topic: str, side: Literal["owned", "consumed"], hour: Instant) -> dict[str, Any]:
        """The keys behind one hour's digest, each with its last sequence."""
        allow(who, Role.SERVICE, Role.OPERATOR, Role.AUDITOR)
        async with service.pool.acquire() as connection:
            rows = await connection.fetch(store[f"heads_{side}_hour"], topic, hour)
        return {"items": {row["key"]: row["sequence"] for row in rows}}

    @routes.get("/v1/heads/key", tags=["internal"])
    async def heads_key(who: Asking, topic: str, side: Literal["owned", "consumed"], key: str) -> dict[str, Any]:
        """The last sequence of one key on this side; 0 when there is none."""
        allow(who, Role.SERVICE, Role.OPERATOR, Role.AUDITOR)
        async with service.pool.acquire() as connection:
            rows = await connection.fetch(store[f"heads_{side}_keys"], topic, [key])
        return {"sequence": rows[0]["sequence"] if rows else 0}

    @routes.get("/v1/stored", tags=["internal"])
    async def stored(who: Asking, topic: str) -> dict[str, Any]:
        """How many events of a topic the log holds, and how many of them are not on the bus yet."""
        allow(who, Role.SERVICE, Role.OPERATOR, Role.AUDITOR)
        async with service.pool.acquire() as connection:
            row = await connection.fetchrow(
                store["stored_events"], topic.removeprefix("lienthong.").removesuffix(".v1")
            )
        assert row is not None
        return {"stored": row["stored"], "unpublished": row["unpublished"]}

    @routes.get("/v1/access", tags=["operators"])
    async def access(
        who: Asking,
        code: Annotated[str | None, Query(max_length=200)] = None,
        since: Instant | None = None,
        cursor: Annotated[str | None, Query(pattern=r"^\d{1,18}$")] = None,
    ) -> dict[str, Any]:
        """Who read unsealed personal data here, newest first; kept for two years. It says of whom only by the code."""
        allow(who, Role.AUDITOR)
        async with service.pool.acquire() as connection:
            rows = await connection.fetch(store["access_of"], code, int(cursor or (1 << 62)), since, 200)
        return {
            "items": [
                {
                    "at": format_instant(row["at"]),
                    "who": row["who"],
                    "role": row["role"],
                    "code": row["code"],
                    "what": row["what"],
                }
                for row in rows
            ],
            "next_cursor": str(rows[-1]["number"]) if len(rows) == 200 else None,
        }

    @routes.get("/v1/parked", tags=["operators"])
    async def parked(
        who: Asking, key: str | None = None, cursor: Annotated[str | None, Query(pattern=r"^\d{1,18}$")] = None
    ) -> dict[str, Any]:
        """The events that are parked here or wait behind one, without what they say."""
        allow(who, Role.OPERATOR, Role.AUDITOR, Role.SERVICE)
        async with service.pool.acquire() as connection:
            rows = await connection.fetch(store["parked"], int(cursor or 0), 200, key)
        return {
            "items": [redacted(service.name, row) for row in rows],
            "next_cursor": str(rows[-1]["number"]) if len(rows) == 200 else None,
        }

    @routes.get("/v1/parked/acts", tags=["operators"])
    async def parked_acts(
        who: Asking, cursor: Annotated[int, Query(ge=1, lt=1 << 63)] = (1 << 63) - 1
    ) -> dict[str, Any]:
        """What was done with parked events, by whom and why; the newest first."""
        allow(who, Role.OPERATOR, Role.AUDITOR, Role.SERVICE)
        async with service.pool.acquire() as connection:
            rows = await connection.fetch(store["parked_acts"], cursor, 200)
        return {
            "items": [
                {
                    "service": service.name,
                    "at": format_instant(row["at"]),
                    **{name: row[name] for name in ("who", "act", "topic", "key", "sequence", "outcome", "reason")},
                    "event": row["event_id"],
                }
                for row in rows
            ],
            "next_cursor": str(rows[-1]["number"]) if len(rows) == 200 else None,
        }

    class Replay(Body):
        topic: Name
        key: Name
        dry_run: bool = False

    @routes.post("/v1/parked/replay", tags=["operators"])
    async def replay(who: Asking, body: Replay) -> dict[str, Any]:
        """Continues a parked key with its owner's own events; what the owner does not have is discarded."""
        allow(who, Role.OPERATOR, Role.SERVICE)
        if service.consumer is None or body.topic not in service.consumer.topics:
            raise not_found("A parked event here")
        try:
            return await service.consumer.replay(body.topic, body.key, who=who.subject, dry_run=body.dry_run)
        except OSError as error:
            raise _owner_away(error) from None

    class Drop(Body):
        number: Annotated[int, Field(ge=1, lt=1 << 63)]
        reason: Text
        dry_run: bool = False

    @routes.post("/v1/parked/drop", tags=["operators"])
    async def drop(who: Asking, body: Drop) -> dict[str, Any]:
        """Gives one parked event up, with a reason; an owner's event is then recorded as skipped."""
        allow(who, Role.OPERATOR, Role.SERVICE)
        if service.consumer is None:
            raise not_found("A parked event here")
        try:
            done = await service.consumer.drop(body.number, body.reason, who=who.subject, dry_run=body.dry_run)
        except OSError as error:
            raise _owner_away(error) from None
        if done is None:
            raise not_found("This parked event")
        return done

    @routes.get("/v1/site", tags=["internal"])
    async def site(who: Asking) -> dict[str, Any]:
        """The version of the directory that this service works with, and the topics whose events it applies."""
        return {
            "site": service.settings.site,
            "version": service.directory.version,
            "consumes": list(service.consumes),
        }

    return routes


def _owner_away(error: OSError) -> Problem:
    return Problem(503, "owner-away", f"{error}; nothing was changed, ask again.", headers={"Retry-After": "5"})


def redacted(service: str, row: Any) -> dict[str, Any]:
    """A parked event as an operator may see it: where it came from and why it waits; never what it said."""
    headers = headers_from_json(row["headers"])
    try:
        kind = decode(row["topic"], row["key"].encode(), row["value"], headers).type
    except Unreadable:
        kind = (dict(headers).get("ce_type") or b"").decode("utf-8", "replace")
    return {
        "service": service,
        "number": row["number"],
        "topic": row["topic"],
        "key": row["key"],
        "sequence": row["sequence"],
        "event": row["event_id"],
        "type": kind[:120],
        "state": row["state"],
        "reason": row["reason"],
        "detail": row["detail"],
        "bytes": len(row["value"] or b""),
        "arrived": format_instant(row["arrived"]),
    }
