"""Who reads events from outside: `lienthong subscriber` asks here; the bus's own access is the command's part."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response

from services.routing.views import Views
from shared.contracts.codes import Name, normalise_agency
from shared.contracts.events import TIERS, TOPICS, agency_topic
from shared.directory.directory import UnknownAgency
from shared.security.tokens import Role
from shared.service import Service
from shared.web.app import Asking, Body, allow, router
from shared.web.problem import Problem, invalid, not_found


class Subscription(Body):
    """A new subscriber; `topics` by their names in the contract, its own view among them or not."""

    code: Name
    tier: Literal["public", "agency"]
    topics: Annotated[list[Name], Field(min_length=1, max_length=20)]
    replay_days: Annotated[float, Field(ge=0, le=3650)] = 7.0


def subscriber_routes(service: Service, views: Views) -> APIRouter:
    routes = router()

    @routes.get("/v1/subscribers", tags=["operators"])
    async def list_(who: Asking) -> dict[str, Any]:
        """The registered subscribers."""
        allow(who, Role.OPERATOR, Role.AUDITOR)
        async with service.pool.acquire() as connection:
            return {"items": await views.list(connection), "next_cursor": None}

    @routes.post("/v1/subscribers", status_code=201, tags=["operators"])
    async def add(who: Asking, body: Subscription) -> dict[str, Any]:
        """Registers a subscriber; its own topic begins with the events of the last `replay_days`."""
        allow(who)
        try:
            code = normalise_agency(body.code)
        except ValueError as error:
            raise invalid(str(error), "/code") from None
        own = agency_topic(code)
        allowed = {own} if body.tier == "agency" else set()
        allowed |= {name for name, topic in TOPICS.items() if topic.in_contract and topic.tier == TIERS[0]}
        for at, topic in enumerate(body.topics):
            if topic not in allowed:
                detail = f"{topic} is not for tier {body.tier}; it may read: {', '.join(sorted(allowed))}."
                raise invalid(detail, f"/topics/{at}")
        agencies = agencies_of(service, code) if own in body.topics else None
        try:
            count = await views.add(code, body.tier, body.topics, agencies, body.replay_days, who.subject)
        except OSError as error:
            detail = f"{error}; nothing was changed, ask again."
            raise Problem(503, "owner-away", detail, headers={"Retry-After": "5"}) from None
        if count is None:
            raise Problem(409, "exists", f"{code} is registered; remove it first.")
        return {"code": code, "tier": body.tier, "topics": body.topics, "replayed": count}

    @routes.delete("/v1/subscribers/{code}", status_code=204, tags=["operators"])
    async def remove(code: str, who: Asking) -> Response:
        """Takes a subscriber away; its topic gets nothing more."""
        allow(who)
        if not await views.remove(code):
            raise not_found("This subscriber")
        return Response(status_code=204)

    return routes


def agencies_of(service: Service, code: str) -> list[str]:
    """Whose dossiers a view shows: an agency of the directory sees its own and those below; another, the whole site's."""
    directory = service.directory.current
    try:
        return sorted(directory.scope(code, True))
    except UnknownAgency:
        return sorted(directory.agencies)
