"""The judge's own figures: how each dossier counts, from its history alone; see the contract's "Indicators JSON"."""

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from tests.chaos.ledger import Dossier

LOCAL = timezone(timedelta(hours=7))


def kind(event: dict[str, Any]) -> str:
    """The type of an event of a history, without its namespace."""
    name: str = event["type"]
    return name.removeprefix("dossier.")


def own_figures(
    dossiers: Sequence[Dossier],
    histories: dict[str, list[dict[str, Any]]],
    pausing: set[str],
    as_of: datetime,
) -> dict[str, set[str]]:
    """The dossiers behind each figure, by the figure's path in the Indicators JSON. Everything happened in the period."""
    names = (
        "received.total received.online received.counter received.postal resolved.total resolved.early"
        " resolved.on_time resolved.late pending.total pending.within pending.overdue pending.paused extended refused"
        " digitised.denominator digitised.numerator online_share.denominator online_share.numerator"
        " satisfaction.denominator satisfaction.numerator"
    )
    cells: dict[str, set[str]] = {name: set() for name in names.split()}
    for dossier in dossiers:
        events, code = histories[dossier.code], dossier.code
        types = [kind(event) for event in events]
        if "extended" in types:
            cells["extended"].add(code)
        if "refused" in types:
            cells["refused"].add(code)
        if ratings := [event["level"] for event in events if kind(event) == "rated"]:
            cells["satisfaction.denominator"].add(code)
            if ratings[-1] in ("satisfied", "very_satisfied"):
                cells["satisfaction.numerator"].add(code)
        if "received" not in types:
            continue
        cells["received.total"].add(code)
        cells[f"received.{dossier.channel}"].add(code)
        cells["online_share.denominator"].add(code)
        if dossier.channel == "online":
            cells["online_share.numerator"].add(code)
        digitised = dossier.digitised + types.count("digitised")
        if dossier.components or digitised:
            cells["digitised.denominator"].add(code)
            if digitised:
                cells["digitised.numerator"].add(code)
        _standing(code, events, dossier.procedure in pausing, as_of, cells)
    return cells


def _standing(
    code: str, events: Sequence[dict[str, Any]], payment_pauses: bool, as_of: datetime, cells: dict[str, set[str]]
) -> None:
    """How a received dossier has ended, or how it stands."""
    paused_at: datetime | None = None
    received = False
    due = as_of
    for event in events:
        at, state = datetime.fromisoformat(event["at"]), event["state"]
        received = received or kind(event) == "received"
        if event["due_at"] is not None:
            due = datetime.fromisoformat(event["due_at"])
        if state in (8, 9, 10):
            judged = min(paused_at, at) if paused_at else at
            day, due_day = judged.astimezone(LOCAL).date(), due.astimezone(LOCAL).date()
            cells["resolved.total"].add(code)
            cells[f"resolved.{'early' if day < due_day else 'on_time' if judged <= due else 'late'}"].add(code)
            return
        stands = received and (state == 5 or (state == 6 and payment_pauses) or (state == 7 and paused_at is not None))
        paused_at = (paused_at or at) if stands else None
    cells["pending.total"].add(code)
    if paused_at is not None:
        cells["pending.paused"].add(code)
    overdue = as_of > due and not (paused_at is not None and paused_at <= due)
    cells["pending.overdue" if overdue else "pending.within"].add(code)


def figure_in(document: Any, path: str) -> Any:
    for name in path.split("."):
        document = document[name]
    return document
