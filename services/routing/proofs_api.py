"""HTTP of proofs: what `lienthong export CODE` writes, for whoever must verify a hand-over elsewhere."""

from typing import Any

from fastapi import APIRouter
from httpx import HTTPError

from services.routing.carried import event_json
from services.routing.dossier import TRANSFER_TOPIC
from services.routing.link_store import LinkStore
from services.routing.links import Links
from shared.contracts.codes import DossierCodeText
from shared.security.peers import Identity
from shared.security.proofs import make
from shared.security.tokens import Role
from shared.service import Service
from shared.web.app import Asking, allow, router
from shared.web.problem import Problem, not_found


def proof_routes(service: Service, store: LinkStore, links: Links, identity: Identity) -> APIRouter:
    api = router()

    @api.get("/v1/proofs/{code}", tags=["history"])
    async def proof(code: DossierCodeText, who: Asking) -> dict[str, Any]:
        """A dossier's events, those of its transfers, and what other sites have said of it, signed: the manifest names the
        digest of each. No personal data is in it."""
        allow(who, Role.AUDITOR)
        history = await history_of(code)
        async with service.pool.acquire() as connection:
            now = await service.log.now(connection)
            said = await service.log.after(connection, TRANSFER_TOPIC, code, 0, 10_000)
            rows = await store.receipts(connection, code)
            certificates = links.certificates(await store.links(connection))
        if history is None and not said:
            raise not_found("This dossier")
        receipts = [
            {
                "from": row["peer"],
                "kind": row["kind"],
                "envelope": row["body"],
                "manifest": row["manifest"],
                "jws": row["jws"],
            }
            for row in rows
        ]
        return make(identity, code, now, history, [event_json(each) for each in said], receipts, certificates)

    async def history_of(code: str) -> dict[str, Any] | None:
        """The chained and sealed history of a dossier whose home is here. Raises Problem 503."""
        url = f"{service.settings.url_of('intake')}/v1/verify/dossiers/{code}/export"
        try:
            answer = await service.http.get(url, headers=service.service_token())
            if answer.status_code == 404:
                return None
            answer.raise_for_status()
        except HTTPError as error:
            detail = f"intake does not answer: {type(error).__name__}; ask again."
            raise Problem(503, "owner-away", detail, headers={"Retry-After": "5"}) from None
        found: dict[str, Any] = answer.json()
        return found

    return api
