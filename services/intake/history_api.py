"""Verifying over HTTP: a dossier's history, and a day's."""

from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Depends

from services.intake.history import History
from shared.contracts.codes import DossierCodeText
from shared.security.tokens import Principal, Role
from shared.service import Service
from shared.web.app import one_of, router
from shared.web.problem import not_found

Auditing = Annotated[Principal, Depends(one_of(Role.AUDITOR, Role.OPERATOR))]
Exporting = Annotated[Principal, Depends(one_of(Role.AUDITOR, Role.SERVICE))]


def history_routes(service: Service, history: History) -> APIRouter:
    api = router()

    @api.get("/v1/verify/dossiers/{code}", tags=["history"])
    async def dossier(who: Auditing, code: DossierCodeText) -> dict[str, Any]:
        """Whether a dossier's history is what was stored: its chain, its row, the seals of its days."""
        found = await history.verify_dossier(code, export=False)
        if found is None:
            raise not_found("This dossier")
        return found

    @api.get("/v1/verify/dossiers/{code}/export", tags=["history"])
    async def export(who: Exporting, code: DossierCodeText) -> dict[str, Any]:
        """The history with the proofs by which it is verified elsewhere; no personal data is in it."""
        found = await history.verify_dossier(code, export=True)
        if found is None:
            raise not_found("This dossier")
        exported: dict[str, Any] = found["export"]
        return exported

    @api.get("/v1/verify/days/{day}", tags=["history"])
    async def whole_day(who: Auditing, day: date) -> dict[str, Any]:
        """All events recorded on a local day against their chains, and the day's heads against its seal."""
        return await history.verify_day(day)

    return api
