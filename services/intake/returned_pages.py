"""The desk's page of what the post brought back: letters and results that nobody took, until the desk has dealt with them.

The orders are notify's; the page asks it, and tells it, in the visitor's name.
"""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from starlette.responses import RedirectResponse, Response

from services.intake.pages import Lang, form_of
from services.intake.session import PageRefused, Sessions, Visit
from shared.security.tokens import Role
from shared.service import Service
from shared.web.app import router
from shared.web.problem import Problem

RETURNED: Final = "/desk/returned"
HANDLING: Final = frozenset({Role.DESK, Role.ADMIN})


def returned_routes(service: Service, sessions: Sessions) -> APIRouter:
    routes = router()
    Desk = Annotated[Visit, Depends(sessions.visit)]  # noqa: N806 - a type

    async def page(visit: Visit, asked: Lang = None, wanting: UUID | None = None) -> Response:
        tasks: list[dict[str, Any]] | None
        try:
            tasks = (await sessions.ask(visit, "notify", "/v1/postal-tasks"))["items"]
        except OSError:
            tasks = None
        agencies = service.directory.current.agencies
        for task in tasks or ():
            known = agencies.get(task["agency"])
            task["agency_name"] = known.name if known else task["agency"]
        handles = visit.who.role in HANDLING
        return sessions.shown(
            visit, "returned.html", asked, path=RETURNED, tasks=tasks, handles=handles, wanting=str(wanting or "")
        )

    @routes.get(RETURNED, include_in_schema=False)
    async def returned(visit: Desk, lang: Lang = None) -> Response:
        """What came back, the oldest first."""
        return await page(visit, lang)

    @routes.post(RETURNED + "/{order}", include_in_schema=False)
    async def handled(request: Request, visit: Desk, order: UUID) -> Response:
        """The desk says what it did with it."""
        form = await form_of(request)
        sessions.check(visit, form)
        if "note" not in form:
            return await page(visit, wanting=order)
        body = {"note": form["note"][0]}
        try:
            await sessions.ask(visit, "notify", f"/v1/postal-orders/{order}/handled", method="POST", json=body)
        except OSError as error:
            problem = Problem(503, "owner-away", f"{error} does not answer; nothing was changed.")
            raise PageRefused(visit.lang, problem, visit) from None
        return RedirectResponse(RETURNED, 303)

    return routes
