"""The portals over HTTP, for those who run the site: how each stands, what it refused, and sending again."""

from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import model_validator

from services.intake.history import span
from services.intake.store import Store
from services.intake.writer import local_text
from shared.contracts.codes import DossierCodeText, Name
from shared.security.tokens import Principal, Role
from shared.service import Service
from shared.web.app import Body, one_of, router
from shared.web.problem import not_found

Operating = Annotated[Principal, Depends(one_of(Role.OPERATOR, Role.AUDITOR))]
Sending = Annotated[Principal, Depends(one_of(Role.OPERATOR))]
REFUSED_SHOWN = 100
MOST_COUNTED = 10_000


class Resend(Body):
    """One dossier, all that were refused, or all that were recorded since a local day."""

    code: DossierCodeText | None = None
    refused: bool = False
    since: date | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "Resend":
        if (self.code is not None) + self.refused + (self.since is not None) != 1:
            raise ValueError("give exactly one of code, refused and since")
        return self


def portal_routes(service: Service, store: Store) -> APIRouter:
    api = router()

    @api.get("/v1/portals", tags=["portals"])
    async def portals(who: Operating) -> dict[str, Any]:
        """Each portal of the bundle: whether it answers, how many dossiers wait, what it refused and why. 10,000 dossiers are
        so many or more."""
        items = []
        async with service.pool.acquire() as connection:
            for entry in service.directory.current.portals:
                row = await connection.fetchrow(store.queries["portal_status"], entry.name, MOST_COUNTED)
                refused = await connection.fetch(store.queries["portal_refusals"], entry.name, REFUSED_SHOWN)
                items.append(
                    {
                        "name": entry.name,
                        "unit": entry.unit,
                        "version": entry.version,
                        "waiting": row["waiting"] if row else 0,
                        "sent": row["sent"] if row else 0,
                        "refused": row["refused"] if row else 0,
                        "oldest_waiting": local_text(row["oldest"]) if row else None,
                        "down_since": local_text(row["down"]) if row else None,
                        "error": row["error"] if row else None,
                        "refusals": [
                            {"code": r["code"], "reason": r["reason"], "at": local_text(r["changed"])} for r in refused
                        ],
                    }
                )
        return {"items": items}

    @api.post("/v1/portals/{name}/resend", tags=["portals"])
    async def resend(who: Sending, name: Name, body: Resend) -> dict[str, Any]:
        """Tells a portal again, from the first version on: it takes what it knows as an update."""
        entry = next((e for e in service.directory.current.portals if e.name == name), None)
        if entry is None:
            raise not_found("This portal")
        since = None if body.since is None else span(body.since)[0]
        agencies = sorted(service.directory.current.subtree(entry.unit))
        async with service.pool.acquire() as connection, connection.transaction():
            await connection.execute(store.queries["portal_known"], name)
            if body.refused:
                done = await connection.execute(store.queries["portal_again_refused"], name)
            else:
                done = await connection.execute(store.queries["portal_again"], name, body.code, since, agencies)
        count = int(done.split()[-1])
        if body.code is not None and count == 0:
            raise not_found("This dossier")
        return {"portal": name, "dossiers": count}

    return api
