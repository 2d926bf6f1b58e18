"""What the JSON interface and the pages have in common: who reads a dossier, who acts on it, why it is due when it is."""

import re
from datetime import timedelta
from typing import Any, Final

from services.intake.deadlines import explained
from services.intake.dossier import Actor, Dossier, Past
from services.intake.settings import IntakeSettings
from services.intake.store import Store
from services.intake.writer import local_text
from shared.clock import Language, deadline
from shared.directory.directory import Directory, DirectoryError
from shared.security.access import in_scope
from shared.security.tokens import Principal, Role
from shared.service import Service
from shared.web.problem import Problem, not_found

CODE: Final = re.compile(r"[0-9A-Z.\-]{1,60}")


def must_be_code(text: str) -> None:
    """404 for what no dossier can have as its code."""
    if CODE.fullmatch(text) is None:
        raise not_found("This dossier")


async def readable(service: Service, store: Store, who: Principal, code: str) -> Dossier:
    """A dossier that the principal may read, its home's or a copy, else 404 (its existence is private)."""
    must_be_code(code)
    async with service.pool.acquire() as connection:
        dossier = await store.read(connection, code) or await store.read_copy(connection, code)
    if dossier is None:
        raise not_found("This dossier")
    if who.role is Role.PORTAL:
        if dossier.sender != who.subject:
            raise not_found("This dossier")
    elif not in_scope(
        who, service.directory.current, dossier.agency, dossier.deciding_agency, *dossier.working.values()
    ):
        raise not_found("This dossier")
    return dossier


async def past_of(service: Service, store: Store, dossier: Dossier) -> list[Past]:
    """The events of a dossier or a copy, in order. Raises Problem 503 when those of a copy cannot be read now."""
    if dossier.home is None:
        async with service.pool.acquire() as connection:
            return await store.history(connection, dossier.code)
    try:
        return await store.copied_history(dossier.code)
    except OSError as error:
        raise Problem(503, "owner-away", f"{error}; ask again.", headers={"Retry-After": "5"}) from None


def actor_of(who: Principal, settings: IntakeSettings) -> Actor:
    """Who acts; desk and officer write back only so far."""
    bound = who.role in (Role.DESK, Role.OFFICER)
    back = timedelta(hours=settings.backdating_hours) if bound else None
    return Actor(who.role.value, who.subject, back)  # type: ignore[arg-type]


def explanation(dossier: Dossier, directory: Directory, lang: Language) -> dict[str, Any]:
    """Why a dossier is due when it is, as JSON and in sentences. Raises Problem 409 when it was never received, or was
    counted by a calendar that its home alone has."""
    if dossier.limit is None or dossier.received_at is None or dossier.due_at is None:
        raise Problem(409, "no-due-date", "This dossier was never received: it has no due date.")
    try:
        calendar = dossier.calendar_in(directory)
    except DirectoryError:
        raise Problem(409, "calendar-unknown", "The calendar by which this was counted is at its home alone.") from None
    found = deadline(
        dossier.limit,
        dossier.received_at,
        calendar,
        pauses=dossier.clock_pauses(),
        extension=dossier.clock_extension(),
        kept=dossier.kept_due,
    )
    return {
        "code": dossier.code,
        "limit": dossier.limit.model_dump(mode="json"),
        "received_at": local_text(dossier.received_at),
        **explained(found, dossier.limit, lang),
        # What was promised stands, also where a kept or rescheduled date differs from the plain count.
        "due_at": local_text(dossier.due_at),
    }
