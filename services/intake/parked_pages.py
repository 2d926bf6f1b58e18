"""The operators' pages of parked events (promise 4): what waits in the four services and why, replay and drop.

They show and do what the interface of each service does, with the visitor's own name and rights: `lienthong parked` in a
browser. What an event says is not shown to anybody.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from services.intake.pages import FORM, Lang, form_of
from services.intake.session import PARKED, PageRefused, Sessions, Visit
from shared.contracts.codes import Name
from shared.security.tokens import Role
from shared.service import SERVICES, Service
from shared.web.app import router
from shared.web.problem import Problem, not_found

OPEN: Final = (r"/parked(/.*)?",)
PLAIN: Final = {r"/parked/.*": (FORM,)}

MOST_KEYS: Final = 200
MOST_ACTS: Final = 30
ACTING: Final = frozenset({Role.OPERATOR, Role.ADMIN})


def parked_routes(service: Service, sessions: Sessions) -> APIRouter:
    routes = router()
    Operator = Annotated[Visit, Depends(sessions.operator)]  # noqa: N806 - a type

    def shown(visit: Visit, name: str, asked: Lang = None, **more: Any) -> Response:
        return sessions.shown(visit, name, asked, path=PARKED, acts=visit.who.role in ACTING, **more)

    async def everywhere(visit: Visit, path: str, **params: str) -> tuple[list[dict[str, Any]], list[str]]:
        """What the services have, and which of them are away."""
        items: list[dict[str, Any]] = []
        away: list[str] = []
        for name in SERVICES:
            try:
                items += (await sessions.ask(visit, name, path, params=params))["items"]
            except OSError:
                away.append(name)
        return items, away

    @routes.get(PARKED, include_in_schema=False)
    async def parked(visit: Operator, lang: Lang = None) -> Response:
        """The keys that stand, oldest first, and what was last done with such."""
        items, away = await everywhere(visit, "/v1/parked")
        keys: dict[tuple[str, str, str], dict[str, Any]] = {}
        for item in sorted(items, key=lambda item: item["arrived"]):
            place = keys.setdefault((item["service"], item["topic"], item["key"]), item | {"events": 0})
            place["events"] += 1
        acts, _ = await everywhere(visit, "/v1/parked/acts")
        acts.sort(key=lambda act: act["at"], reverse=True)
        return shown(
            visit,
            "parked.html",
            lang,
            keys=list(keys.values())[:MOST_KEYS],
            left=max(0, len(keys) - MOST_KEYS),
            away=away,
            done=acts[:MOST_ACTS],
        )

    async def of_key(visit: Visit, name: str, topic: str, key: str) -> list[dict[str, Any]]:
        if name not in SERVICES:
            raise PageRefused(visit.lang, not_found("This service"), visit)
        try:
            items = (await sessions.ask(visit, name, "/v1/parked", params={"key": key}))["items"]
        except OSError as error:
            raise PageRefused(visit.lang, _away(error), visit) from None
        return [item for item in items if item["topic"] == topic]

    async def one(visit: Visit, name: str, topic: str, key: str, lang: Lang, **more: Any) -> Response:
        items = await of_key(visit, name, topic, key)
        told = {"outcome": None, "fault": ""} | more
        return shown(visit, "parked_key.html", lang, items=items, service=name, topic=topic, key=key, **told)

    @routes.get("/parked/key", include_in_schema=False)
    async def key_page(
        visit: Operator,
        at: Annotated[str, Query(max_length=20)],
        topic: Name,
        key: Name,
        lang: Lang = None,
    ) -> Response:
        """All of a key that is parked or waits in one service, without what the events say."""
        return await one(visit, at, topic, key, lang)

    async def act(visit: Visit, request: Request, path: str) -> Response:
        """Replay or drop, or what either would do; the outcome stands above the key as it then is."""
        form = await form_of(request)
        sessions.check(visit, form)
        name, topic, key = (form.get(field, [""])[0] for field in ("at", "topic", "key"))
        dry_run = "dry_run" in form
        body: dict[str, Any] = {"dry_run": dry_run}
        if path == "replay":
            body |= {"topic": topic, "key": key}
        elif "reason" not in form:
            return await one(visit, name, topic, key, None, fault="reason")
        else:
            number = form.get("number", ["0"])[0]
            body |= {"number": int(number) if number.isdecimal() else 0, "reason": form["reason"][0]}
        await of_key(visit, name, topic, key)  # such a service, and it answers
        try:
            outcome: Mapping[str, Any] = await sessions.ask(visit, name, f"/v1/parked/{path}", method="POST", json=body)
        except OSError as error:
            raise PageRefused(visit.lang, _away(error), visit) from None
        return await one(
            visit, name, topic, key, None, outcome={"parked": [], "act": path, "dry_run": dry_run, **outcome}
        )

    @routes.post("/parked/replay", include_in_schema=False)
    async def replay(request: Request, visit: Operator) -> Response:
        return await act(visit, request, "replay")

    @routes.post("/parked/drop", include_in_schema=False)
    async def drop(request: Request, visit: Operator) -> Response:
        return await act(visit, request, "drop")

    return routes


def _away(error: OSError) -> Problem:
    return Problem(503, "owner-away", f"{error} does not answer; nothing was changed.", headers={"Retry-After": "5"})
