"""The desk's page of applicants who must be asked again: after a restoration their dossiers came back from the upper site, which
has nobody's name; the applicants themselves are known to no other site.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import RedirectResponse, Response

from services.intake import acts
from services.intake.desk import FormFault, in_words, validated
from services.intake.pages import Lang, form_of
from services.intake.reading import readable
from services.intake.session import PageRefused, Sessions, Visit
from services.intake.store import Store
from shared.security.tokens import Role
from shared.service import Service
from shared.web.app import router
from shared.web.problem import Problem, forbidden, not_found

MISSING: Final = "/desk/missing"
ASKING: Final = frozenset({Role.DESK, Role.ADMIN})
SHOWN: Final = 200
FIELDS: Final = ("name", "phone", "address", "citizen_id")


def missing_routes(service: Service, store: Store, sessions: Sessions) -> APIRouter:
    routes = router()
    Desk = Annotated[Visit, Depends(sessions.visit)]  # noqa: N806 - a type

    async def page(
        visit: Visit,
        asked: Lang = None,
        *,
        code: str | None = None,
        given: Mapping[str, str] | None = None,
        faults: Mapping[str, str] | None = None,
    ) -> Response:
        own = sessions.agencies_of(visit)
        async with service.pool.acquire() as connection:
            dossiers = await store.missing(connection, own, SHOWN)
            count = await store.missing_counted(connection, own)
        agencies, procedures = service.directory.current.agencies, service.directory.current.procedures
        rows: list[dict[str, Any]] = [
            {
                "code": each.code,
                "procedure": known.name if (known := procedures.get(each.procedure)) else each.procedure,
                "agency": there.name if (there := agencies.get(each.agency)) else each.agency,
                "received_at": each.received_at,
            }
            for each in dossiers
        ]
        answer = sessions.shown(
            visit,
            "missing.html",
            asked,
            path=MISSING,
            rows=rows,
            count=count,
            asks=visit.who.role in ASKING,
            at=code,
            given=given or {},
            faults=faults or {},
        )
        answer.status_code = 422 if faults else 200
        return answer

    @routes.get(MISSING, include_in_schema=False)
    async def missing(
        visit: Desk, code: Annotated[str | None, Query(max_length=60)] = None, lang: Lang = None
    ) -> Response:
        """Whose applicants are to be asked again; with the form of one of them."""
        return await page(visit, lang, code=code)

    @routes.post(MISSING + "/{code}", include_in_schema=False)
    async def answered(request: Request, visit: Desk, code: str) -> Response:
        """The desk has asked."""
        form = await form_of(request)
        sessions.check(visit, form)
        try:
            if visit.who.role not in ASKING:
                raise forbidden("Only the desk asks who applies.")
            dossier = await readable(service, store, visit.who, code)
            if dossier.contact_ref is None or dossier.agency not in sessions.agencies_of(visit):
                raise not_found("This dossier")
        except Problem as problem:
            raise PageRefused(visit.lang, problem, visit) from None
        given: dict[str, str] = {name: form[name][0] for name in FIELDS if name in form}
        try:
            applicant = validated(acts.Applicant, {"kind": dossier.applicant_kind, **given})
        except FormFault as fault:
            return await page(visit, code=code, given=given, faults=in_words(fault.faults, visit.lang))
        content = applicant.model_dump(mode="json", exclude_none=True)
        async with service.pool.acquire() as connection, connection.transaction():
            now = await service.log.now(connection)
            taken = await store.answer_missing(connection, dossier.contact_ref, content, now)
        service.wake()
        return RedirectResponse(f"/desk/dossiers/{code}" if taken else MISSING, 303)

    return routes
