"""Pages for anybody: procedures as they must be posted up (niêm yết công khai), agencies with their hours, the way to /track."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from services.intake import paper
from services.intake.catalogue import PAGE, Texts, searchable
from services.intake.pages import Lang, Pages, address, language, remember
from shared.clock import Calendar, Unit
from shared.contracts.codes import check_dossier_code, local_day
from shared.contracts.events import Level
from shared.contracts.folding import fold
from shared.directory.bundle import LevelTarget, ProcedureEntry, SectorTarget, StepEntry, valid_on
from shared.directory.directory import Directory, DirectoryError
from shared.service import Service
from shared.web.app import router

OPEN: Final = (r"/procedures(/.*)?", "/agencies", "/track")

LEVELS: Final = {
    "commune": ("Cấp xã", "Commune"),
    "district": ("Cấp huyện", "District"),
    "province": ("Cấp tỉnh", "Province"),
    "ministry": ("Bộ, ngành", "Ministry"),
    "sector": ("Ngành dọc", "Sector"),
}
ONLINE: Final = {
    "none": ("Nộp trực tiếp hoặc qua bưu chính", "At the counter or by post"),
    "partial": ("Dịch vụ công trực tuyến một phần", "Partly online"),
    "full": ("Dịch vụ công trực tuyến toàn trình", "Fully online"),
}
_SECTORS: Final = {
    "police": ("Công an", "Police"),
    "military": ("Quân sự", "Military"),
    "insurance": ("Bảo hiểm xã hội", "Social insurance"),
    "tax": ("Thuế", "Tax"),
    "land": ("Đăng ký đất đai", "Land registration"),
}
_DAYS: Final = {
    "mon": ("Thứ hai", "Monday"),
    "tue": ("Thứ ba", "Tuesday"),
    "wed": ("Thứ tư", "Wednesday"),
    "thu": ("Thứ năm", "Thursday"),
    "fri": ("Thứ sáu", "Friday"),
    "sat": ("Thứ bảy", "Saturday"),
    "sun": ("Chủ nhật", "Sunday"),
}

Search = Annotated[str, Query(max_length=200)]


def public_routes(service: Service, pages: Pages) -> APIRouter:
    routes = router()

    @routes.get("/procedures", include_in_schema=False)
    async def procedures(
        request: Request,
        q: Search = "",
        field: Annotated[str, Query(max_length=100)] = "",
        level: Level | None = None,
        cursor: Annotated[str, Query(max_length=100)] = "",
        lang: Lang = None,
    ) -> Response:
        """The procedures in force, by field and name; searched with or without tones."""
        chosen, directory = language(request, lang), service.directory.current
        today, words, texts = local_day(datetime.now(UTC)), fold(q).split(), searchable(directory)
        in_force = [procedure for procedure in directory.procedures.values() if valid_on(procedure, today)]
        found = sorted((each for each in in_force if _matches(each, texts, words, field, level)), key=_order)
        rest = [each for each in found if not cursor or _order(each)[2] not in _until(found, cursor)]
        answer = pages.html(
            "procedures.html",
            chosen,
            here=address(request),
            path="/procedures",
            q=q,
            field=field,
            level=level,
            fields=sorted({(each.field.code, each.field.name) for each in in_force}, key=lambda each: each[1]),
            levels={name: words[chosen == "en"] for name, words in LEVELS.items()},
            online={name: words[chosen == "en"] for name, words in ONLINE.items()},
            total=len(found),
            found=rest[:PAGE],
            more=rest[PAGE - 1].code if len(rest) > PAGE else None,
            limit=_limit,
        )
        return remember(answer, lang)

    @routes.get("/procedures/{code}", include_in_schema=False)
    async def procedure(request: Request, code: str, lang: Lang = None) -> Response:
        """One procedure: papers, fee, limit, who works on it, when it was decided and published."""
        chosen, directory = language(request, lang), service.directory.current
        try:
            found = directory.procedure(code)
        except DirectoryError:
            none = ("Không có thủ tục với mã này.", "No procedure has this code.")[chosen == "en"]
            return pages.html(
                "message.html", chosen, status=404, here=address(request), message=none, path="/procedures"
            )
        on_time = None
        if found.effective_on is not None:
            on_time = found.published_on is not None and found.published_on <= found.effective_on
        answer = pages.html(
            "procedure.html",
            chosen,
            here=address(request),
            path="/procedures",
            p=found,
            limit=_limit(found),
            level=LEVELS[found.level][chosen == "en"] if found.level else "",
            online=ONLINE[found.online][chosen == "en"],
            route=[(step.step, _target(step, directory, chosen), _step_limit(step)) for step in found.route],
            on_time=on_time,
            in_force=valid_on(found, local_day(datetime.now(UTC))),
        )
        return remember(answer, lang)

    @routes.get("/agencies", include_in_schema=False)
    async def agencies(request: Request, q: Search = "", lang: Lang = None) -> Response:
        """The agencies of today with their hours and where petitions go."""
        chosen, directory = language(request, lang), service.directory.current
        now = datetime.now(UTC)
        words, texts = fold(q).split(), searchable(directory).agencies
        found = [
            agency
            for agency in directory.agencies.values()
            if valid_on(agency, local_day(now)) and all(word in texts[agency.code] for word in words)
        ]
        shown = [(agency, _hours(directory.calendar_for(agency.code, now), chosen == "en")) for agency in found[:PAGE]]
        levels = {name: words[chosen == "en"] for name, words in LEVELS.items()}
        answer = pages.html(
            "agencies.html",
            chosen,
            here=address(request),
            path="/agencies",
            q=q,
            found=shown,
            total=len(found),
            levels=levels,
        )
        return remember(answer, lang)

    @routes.get("/track", include_in_schema=False)
    async def track(request: Request, code: Annotated[str, Query(max_length=60)] = "", lang: Lang = None) -> Response:
        """Where a citizen enters the code on the receipt; the pin is asked for on the dossier's own page."""
        wanted = code.strip().upper()
        if wanted:
            try:
                check_dossier_code(wanted)
            except ValueError:
                pass
            else:
                return RedirectResponse(f"/track/{wanted}", 303)
        answer = pages.html("look.html", language(request, lang), here=address(request), path="/track", code=code)
        return remember(answer, lang)

    return routes


def _order(procedure: ProcedureEntry) -> tuple[str, str, str]:
    return (procedure.field.name, procedure.name, procedure.code)


def _until(found: list[ProcedureEntry], cursor: str) -> set[str]:
    """The codes up to the last one of the page before."""
    codes = [each.code for each in found]
    return set(codes[: codes.index(cursor) + 1]) if cursor in codes else set()


def _matches(procedure: ProcedureEntry, texts: Texts, words: list[str], field: str, level: Level | None) -> bool:
    text = texts.procedures[procedure.code]
    return (
        (not field or procedure.field.code == field)
        and (level is None or procedure.level == level)
        and all(word in text for word in words)
    )


def _limit(procedure: ProcedureEntry) -> str:
    return paper.limit_in_words(float(procedure.limit.value), Unit(procedure.limit.unit))


def _step_limit(step: StepEntry) -> str:
    return "" if step.limit is None else paper.limit_in_words(float(step.limit.value), Unit(step.limit.unit))


def _target(step: StepEntry, directory: Directory, lang: str) -> str:
    """Whom a step goes to, in words."""
    match step.to:
        case LevelTarget(level=level):
            return LEVELS[level][lang == "en"]
        case SectorTarget(sector=sector):
            return _SECTORS.get(sector, (sector, sector))[lang == "en"]
        case code:
            try:
                return directory.agency(str(code)).name
            except DirectoryError:
                return str(code)


def _hours(calendar: Calendar, english: bool) -> list[tuple[str, str]]:
    """Working hours by weekday, days with equal hours together: (Thứ hai - Thứ sáu, 07:30-11:30, 13:00-17:00)."""
    shifts: dict[str, Any] = calendar.model_dump(mode="json", include={"shifts"})["shifts"]
    lines: list[list[str]] = []
    for day, names in _DAYS.items():
        hours = ", ".join(shifts.get(day) or ())
        if not hours:
            continue
        if lines and lines[-1][2] == hours:
            lines[-1][1] = names[english]
        else:
            lines.append([names[english], names[english], hours])
    return [(first if first == last else f"{first} - {last}", hours) for first, last, hours in lines]
