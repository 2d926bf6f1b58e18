"""Erasing a person (law 91/2025): the key is destroyed, what was sealed under it goes, the dossiers' history stays whole."""

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from services.intake.settings import IntakeSettings
from services.intake.store import AGAIN, Store
from services.intake.writer import local_text
from shared.contracts.codes import DossierCodeText, Instant, format_instant
from shared.security.tokens import Principal, Role
from shared.service import Service
from shared.store.pool import Connection
from shared.web.app import Body, one_of, router
from shared.web.problem import not_found
from shared.web.writes import Answer, Writes

Admin = Annotated[Principal, Depends(one_of())]
Sibling = Annotated[Principal, Depends(one_of(Role.SERVICE))]


class Erasure(Body):
    code: DossierCodeText


def erasure_routes(service: Service, store: Store, settings: IntakeSettings) -> APIRouter:
    """One route: the person behind a dossier, erased."""
    api = router()
    writes = Writes(service)

    @api.post("/v1/erasures", tags=["people"])
    async def erase(request: Request, who: Admin, body: Erasure) -> Response:
        """Erases the applicant of a dossier, hence of all dossiers that carry the same contact_ref, and lists them.

        Asked again it changes nothing and lists the same. Nothing of the state of a dossier changes.
        """

        async def act(connection: Connection) -> Answer:
            dossier = await store.read(connection, body.code)
            if dossier is None or dossier.contact_ref is None:
                raise not_found("This dossier")
            ref = dossier.contact_ref
            now = await service.log.now(connection)
            sequence = await store.erase(connection, ref, now, who.subject)
            # A restored database may not know whom: then the other sites may.
            new = sequence is not None or await store.note_erasure(connection, ref, now)
            if new:
                _note(settings.erasures_file, ref, now)
            done = await store.erasure(connection, ref)
            assert done is not None
            return Answer(200, {"code": body.code, **_described(ref, done), "already": not new})

        return await writes.write(request, who, act)

    @api.get("/v1/erasures", tags=["people"])
    async def erased(who: Sibling, since: Instant) -> dict[str, Any]:
        """Who was erased since: for the service that has passed them on to other sites. `again`: after a restoration."""
        async with service.pool.acquire() as connection:
            rows = await store.erased_since(connection, since)
        return {
            "items": [
                {
                    "contact_ref": row["contact_ref"],
                    "erased_at": format_instant(row["at"]),
                    "dossiers": row["dossiers"],
                    "again": row["who"] == AGAIN,
                }
                for row in rows
            ]
        }

    @api.get("/v1/sealed", tags=["people"])
    async def sealed(who: Sibling, code: Annotated[str, Query(max_length=8000)]) -> dict[str, Any]:
        """The people behind dossiers (codes with commas between), sealed: for the service that hands these over."""
        async with service.pool.acquire() as connection:
            rows = await store.sealed_of(connection, code.split(","))
        return {"items": [dict(row) for row in rows]}

    return api


def _described(ref: str, row: Any) -> dict[str, Any]:
    return {
        "contact_ref": ref,
        "erased_at": local_text(row["at"]),
        "dossiers": list(row["dossiers"]),
        "sequence": row["sequence"],
    }


def _note(file: Path | None, contact_ref: str, at: datetime) -> None:
    """Outside the database as well, before the commit: a restored database is told again (`lienthong restore`)."""
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as out:
        out.write(json.dumps({"contact_ref": contact_ref, "at": at.isoformat()}) + "\n")
        out.flush()
        os.fsync(out.fileno())
