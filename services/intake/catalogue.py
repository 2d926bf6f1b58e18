"""The public catalogue: procedures (thủ tục hành chính) and agencies, open to anybody, searched with or without tones."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Final, NamedTuple, TypeVar

from fastapi import APIRouter, Query

from shared.clock import Calendar
from shared.contracts.codes import AgencyCode
from shared.contracts.events import Level
from shared.contracts.folding import fold
from shared.directory.bundle import AgencyEntry, Online, ProcedureEntry
from shared.directory.directory import Directory, DirectoryError
from shared.service import Service
from shared.web.app import router
from shared.web.problem import Problem, Wrong, not_found

PAGE: Final = 100

Entry = TypeVar("Entry", AgencyEntry, ProcedureEntry)

Search = Annotated[str | None, Query(max_length=200, description="Every word, of name or code, with or without tones.")]
Cursor = Annotated[str | None, Query(max_length=100, description="The `next_cursor` of the page before.")]


def catalogue_routes(service: Service) -> APIRouter:
    routes = router()

    @routes.get("/v1/procedures", tags=["catalogue"])
    async def procedures(
        q: Search = None,
        field: Annotated[str | None, Query(max_length=100, description="The field's code.")] = None,
        level: Level | None = None,
        online: Online | None = None,
        cursor: Cursor = None,
    ) -> dict[str, Any]:
        """The procedures of this site, whether in force or not, by code."""
        directory = service.directory.current
        texts = searchable(directory).procedures
        words = fold(q or "").split()
        found = [
            procedure
            for procedure in directory.procedures.values()
            if (field is None or procedure.field.code == field)
            and (level is None or procedure.level == level)
            and (online is None or procedure.online == online)
            and all(word in texts[procedure.code] for word in words)
        ]
        return page(found, cursor, directory.procedures, described_procedure)

    @routes.get("/v1/procedures/{code}", tags=["catalogue"])
    async def procedure(code: str) -> dict[str, Any]:
        """One procedure, with its papers, fee, limit and route."""
        try:
            return described_procedure(service.directory.current.procedure(code))
        except DirectoryError:
            raise not_found("This procedure") from None

    @routes.get("/v1/agencies", tags=["catalogue"])
    async def agencies(
        q: Search = None,
        level: Level | None = None,
        parent: AgencyCode | None = None,
        sector: Annotated[str | None, Query(max_length=100)] = None,
        cursor: Cursor = None,
    ) -> dict[str, Any]:
        """The agencies of this site, closed ones too, by code; with their working hours and petition contact."""
        directory = service.directory.current
        texts = searchable(directory).agencies
        words = fold(q or "").split()
        now = datetime.now(UTC)
        found = [
            agency
            for agency in directory.agencies.values()
            if (level is None or agency.level == level)
            and (parent is None or agency.parent == parent)
            and (sector is None or agency.sector == sector)
            and all(word in texts[agency.code] for word in words)
        ]
        return page(found, cursor, directory.agencies, lambda agency: described_agency(agency, directory, now))

    @routes.get("/v1/agencies/{code}", tags=["catalogue"])
    async def agency(code: str) -> dict[str, Any]:
        """One agency, by its code in either form."""
        directory = service.directory.current
        try:
            return described_agency(directory.agency(code), directory, datetime.now(UTC))
        except DirectoryError:
            raise not_found("This agency") from None

    return routes


class Texts(NamedTuple):
    """What is searched of each agency and procedure, by code."""

    agencies: dict[str, str]
    procedures: dict[str, str]


@lru_cache(maxsize=2)
def searchable(directory: Directory) -> Texts:
    """Made once for each version of the directory."""
    return Texts(
        {agency.code: fold(f"{agency.code} {agency.name}") for agency in directory.agencies.values()},
        {
            procedure.code: fold(f"{procedure.code} {procedure.name} {procedure.field.name}")
            for procedure in directory.procedures.values()
        },
    )


def page(
    entries: Sequence[Entry], cursor: str | None, known: Iterable[str], describe: Callable[[Entry], dict[str, Any]]
) -> dict[str, Any]:
    """A page by code. The cursor is the last code of the page before: entries are never taken out of a directory."""
    if cursor is not None and cursor not in known:
        sentence = "A cursor is the next_cursor of an earlier page."
        raise Problem(422, "bad-cursor", sentence, [Wrong(sentence, "/cursor")])
    left = sorted((each for each in entries if cursor is None or each.code > cursor), key=lambda each: each.code)
    items = [describe(each) for each in left[:PAGE]]
    return {"items": items, "next_cursor": left[PAGE - 1].code if len(left) > PAGE else None}


def described_procedure(procedure: ProcedureEntry) -> dict[str, Any]:
    """All that the bundle says, and `published_on_time`: published by the day it took effect; null when not known."""
    published_on_time = None
    if procedure.effective_on is not None:
        published_on_time = procedure.published_on is not None and procedure.published_on <= procedure.effective_on
    return {**procedure.model_dump(mode="json"), "published_on_time": published_on_time}


def described_agency(agency: AgencyEntry, directory: Directory, now: datetime) -> dict[str, Any]:
    """All that the bundle says, with the working hours now in force and the calendar version that they are from."""
    calendar = directory.calendar_for(agency.code, now)
    return {
        **agency.model_dump(mode="json"),
        "shifts": calendar.model_dump(mode="json", include={"shifts"})["shifts"],
        "calendar": _described_calendar(calendar),
    }


def _described_calendar(calendar: Calendar) -> dict[str, Any]:
    told = {"agency", "version", "valid_from", "same_day_cutoff", "receipt_only", "public_holidays", "closed", "open"}
    return calendar.model_dump(mode="json", include=told)
