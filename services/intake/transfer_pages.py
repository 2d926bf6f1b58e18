"""The desk's page of transfers, for one agency or all of the visitor's: what has come in, what was sent, what is due or late,
what came back.

The transfers are routing's; the page asks it in the visitor's name, and so shows what that role and agency may see.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from services.intake.desk import Words
from services.intake.pages import Lang
from services.intake.session import Sessions, Visit
from shared.contracts.codes import AgencyCode
from shared.directory.directory import Directory
from shared.service import Service
from shared.web.app import router

TRANSFERS: Final = "/desk/transfers"

Show = Literal["overdue", "due", "incoming", "outgoing", "back"]
_SHOWN: Final[dict[Show, Words]] = {
    "overdue": ("Quá hạn", "Overdue"),
    "due": ("Phải xong hôm nay", "Due today"),
    "incoming": ("Chuyển đến", "Incoming"),
    "outgoing": ("Chuyển đi", "Outgoing"),
    "back": ("Bị từ chối, trả lại", "Refused or returned"),
}
_STATES: Final[dict[str, Words]] = {
    "requested": ("Đã yêu cầu chuyển", "Asked for"),
    "sent": ("Đã gửi, chờ đường truyền", "Sent, on the line"),
    "delivered": ("Đã đến, chờ tiếp nhận", "Delivered, not yet accepted"),
    "accepted": ("Đang giải quyết", "In work"),
    "refused": ("Bị từ chối", "Refused"),
    "returned": ("Bị trả lại", "Returned"),
    "completed": ("Đã hoàn thành", "Completed"),
    "rerouted": ("Đã chuyển cơ quan khác", "Sent elsewhere"),
    "recalled": ("Đã thu hồi", "Recalled"),
}
_STEPS: Final[dict[str, Words]] = {
    "accept": ("tiếp nhận", "accept"),
    "refuse": ("từ chối", "refuse"),
    "complete": ("hoàn thành", "complete"),
    "return": ("trả lại", "return"),
    "recall": ("thu hồi", "recall"),
    "reroute": ("chuyển cơ quan khác", "send elsewhere"),
    "request-again": ("yêu cầu lại", "ask again"),
    "supplement-request": ("yêu cầu bổ sung", "ask for a supplement"),
    "resolution": ("giải quyết tại chỗ", "resolve without it"),
}
_OF_SENDER: Final = frozenset({"recall", "reroute"})
"""The next steps of an open transfer that are its sender's; of one that came back all are."""


def transfer_pages(service: Service, sessions: Sessions) -> APIRouter:
    routes = router()
    Desk = Annotated[Visit, Depends(sessions.visit)]  # noqa: N806 - a type

    @routes.get(TRANSFERS, include_in_schema=False)
    async def transfers(
        visit: Desk,
        show: Show = "incoming",
        agency: AgencyCode | None = None,
        cursor: Annotated[str | None, Query(max_length=60)] = None,
        lang: Lang = None,
    ) -> Response:
        """One of the lists, by due date; the numbers of all."""
        directory = service.directory.current
        asked = {"show": show, "agency": agency, "cursor": cursor}
        found: dict[str, Any] | None
        try:
            found = await sessions.ask(
                visit, "routing", "/v1/worklist", params={name: value for name, value in asked.items() if value}
            )
        except OSError:
            found = None
        counts = {} if found is None else found["counts"]
        now = datetime.now(UTC)
        return sessions.shown(
            visit,
            "transfers.html",
            lang,
            path=TRANSFERS,
            show=show,
            agency=agency,
            agencies=[directory.agencies[code] for code in sessions.agencies_of(visit)],
            tabs=[(each, visit.says(*words), counts.get(each, "–")) for each, words in _SHOWN.items()],
            rows=None if found is None else [row_of(item, directory, visit, show, now) for item in found["items"]],
            more=None if found is None else found["next_cursor"],
        )

    return routes


def row_of(item: Mapping[str, Any], directory: Directory, visit: Visit, show: Show, now: datetime) -> dict[str, Any]:
    """A transfer as a page shows it, with the next steps of who looks at it in that list."""
    due = None if item["due_at"] is None else datetime.fromisoformat(item["due_at"])
    steps = [step for step in item["next_steps"] if _is_ours(step, show)]
    return {
        "dossier": item["dossier"],
        "step": item["step"],
        "from": _name(item["from"], directory),
        "to": _name(item["to"], directory),
        "state": visit.says(*_STATES.get(item["state"], (item["state"], item["state"]))),
        "due_at": due,
        "late": due is not None and due < now,
        "asked_at": item["asked_at"],
        "changed_at": item["changed_at"],
        "reason": item.get("reason", ""),
        "steps": [visit.says(*_STEPS[step]) for step in steps if step in _STEPS],
        "home": item.get("home", ""),
    }


def _is_ours(step: str, show: Show) -> bool:
    """Whether a next step is that of who looks at the list."""
    return show == "back" or (step in _OF_SENDER) == (show == "outgoing")


def _name(code: str, directory: Directory) -> str:
    known = directory.agencies.get(code)
    return known.name if known else code
