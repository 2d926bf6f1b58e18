"""The operators' page of links: how each line to another site stands, what waits on it, and what was not taken.

It shows what routing answers, with the visitor's own rights: `lienthong link status` in a browser.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends
from starlette.responses import Response

from services.intake.desk import Words
from services.intake.pages import Lang
from services.intake.session import Sessions, Visit
from shared.web.app import router

LINKS: Final = "/links"
OPEN: Final = (LINKS,)
HARMLESS: Final = "duplicate"

_STATES: Final[Mapping[str, Words]] = {
    "invited": ("Đã mời", "Invited"),
    "joined": ("Đã nhận lời, chờ xác nhận", "Joined, to be confirmed"),
    "paused": ("Tạm dừng", "Paused"),
    "up": ("Đang thông", "Up"),
    "down": ("Mất đường truyền", "Down"),
    "recovering": ("Đang khôi phục sổ", "Its ledger is being restored"),
}


def link_pages(sessions: Sessions) -> APIRouter:
    routes = router()
    Operator = Annotated[Visit, Depends(sessions.operator)]  # noqa: N806 - a type

    @routes.get(LINKS, include_in_schema=False)
    async def links(visit: Operator, lang: Lang = None) -> Response:
        """Every link as it stands now."""
        try:
            found = (await sessions.ask(visit, "routing", "/v1/links"))["items"]
        except OSError:
            found = None
        rows = None if found is None else [_row(each, visit) for each in found]
        return sessions.shown(visit, "links.html", lang, path=LINKS, rows=rows)

    return routes


def _row(item: Mapping[str, Any], visit: Visit) -> dict[str, Any]:
    state = item["state"]
    if state == "active":
        state = "recovering" if item["recovering"] else "up" if item["up"] else "down"
    refused = {reason: count for reason, count in item["refused"].items() if count and reason != HARMLESS}
    return {
        "name": item["name"],
        "peer": item["peer"],
        "above": item["side"] == "upper",
        "words": visit.says(*_STATES[state]),
        "good": state == "up",
        "late": state in ("down", "recovering"),
        "waiting": item["waiting"],
        "missing": item["missing"],
        "heard_at": item["heard_at"],
        "clock": None if item["clock_offset_ms"] is None else round(item["clock_offset_ms"] / 1000, 1),
        "refused": sorted(refused.items()),
        "lost": item["lost"],
    }
