"""HTTP of an agency's lists of transfers, for the desk's page of them."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from services.routing.api import READERS, Limit, transfer_json
from services.routing.store import Store
from services.routing.worklist import BEFORE_ALL, WorkList, cursor_of, place_of
from shared.contracts.codes import AgencyCode
from shared.security.access import scope_of
from shared.service import Service
from shared.web.app import Asking, allow, router
from shared.web.problem import invalid

PAGE = 50


def worklist_routes(service: Service, store: Store) -> APIRouter:
    api = router()

    @api.get("/v1/worklist", tags=["transfers"])
    async def worklist(
        who: Asking,
        show: WorkList = "incoming",
        agency: AgencyCode | None = None,
        cursor: Annotated[str | None, Query(pattern=r"^[0-9]{1,18}\.[0-9a-f]{32}$")] = None,
        limit: Limit = PAGE,
    ) -> dict[str, Any]:
        """One of the lists of the asker's agencies, or of one of them, by due date; and how many each list holds."""
        allow(who, *READERS)
        directory = service.directory.current
        scope = scope_of(who, directory)
        mine = set(directory.agencies) if scope is None else set(scope)
        if agency is not None:
            mine &= {agency}
        try:
            after = BEFORE_ALL if cursor is None else place_of(cursor)
        except ValueError:
            raise invalid("This is no cursor of this list.", "/cursor") from None
        async with service.pool.acquire() as connection:
            now = await service.log.now(connection)
            page = await store.work(connection, mine, show, now, after, limit + 1)
            counts = await store.work_counted(connection, mine, now)
        items = [transfer_json(transfer, state, who, home) for transfer, state, home, _ in page[:limit]]
        more = len(page) > limit
        last = page[limit - 1] if more else None
        return {
            "items": items,
            "counts": counts,
            "next_cursor": None if last is None else cursor_of((last[3], last[0].id)),
        }

    return api
