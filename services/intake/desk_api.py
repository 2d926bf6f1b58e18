"""The pages of the one-stop desk (bộ phận một cửa): take a dossier in, the work list, a dossier, the register.

Everything that is done here goes through the writer, as over the JSON interface, and obeys the same rules.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from hashlib import sha256
from typing import Annotated, Any, Final, Literal, cast, get_args
from uuid import uuid4

import orjson
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import RedirectResponse, Response

from services.intake import desk, paper, printing
from services.intake.api import ROLES
from services.intake.catalogue import searchable
from services.intake.desk import FORM_AFTER, FormFault, act_of, likely, new_of, offered
from services.intake.dossier import Dossier
from services.intake.pages import FORM, Lang, form_of, language, remember
from services.intake.reading import CODE, actor_of, explanation, past_of, readable
from services.intake.session import LoginNeeded, PageRefused, Sessions, Visit, public_address
from services.intake.settings import IntakeSettings
from services.intake.store import Store
from services.intake.tracking import ACTS, STATES, standing
from services.intake.transfer_pages import row_of
from services.intake.writer import Command, Writer, etag
from shared.clock import ClockError, Unit
from shared.contracts import events as ev
from shared.contracts.codes import LOCAL_ZONE, AgencyCode, check_dossier_code, local_day, normalise_phone
from shared.contracts.folding import fold
from shared.directory.bundle import AgencyEntry, ProcedureEntry, valid_on
from shared.directory.directory import Directory, DirectoryError
from shared.security.access import scope_of, sees_personal_data
from shared.security.tokens import Principal, Role
from shared.service import Service
from shared.store.pool import Connection
from shared.web.app import router
from shared.web.problem import Problem, forbidden, not_found
from shared.web.writes import RequestKey

OPEN: Final = (r"/desk(/.*)?", "/")
PLAIN: Final = {r"/desk(/.*)?": (FORM,)}

PAGE: Final = 50
REGISTER_PAGE: Final = 500
MOST_COUNTED: Final = 999
MOST_FOUND: Final = 50
_FIRST: Final = datetime(1900, 1, 1, tzinfo=UTC)
_NEVER: Final = datetime(9999, 1, 1, tzinfo=UTC)

Show = Literal["open", "overdue", "today", "submitted", "resolved"]
_SHOWN: Final[dict[Show, desk.Words]] = {
    "overdue": ("Quá hạn", "Overdue"),
    "today": ("Đến hạn hôm nay", "Due today"),
    "open": ("Đang giải quyết", "Open"),
    "submitted": ("Chờ tiếp nhận", "To be received"),
    "resolved": ("Chờ trả kết quả", "To be returned"),
}
_WAITING: Final = {"submitted": 1, "resolved": 9}

Since = Annotated[datetime | None, Query(description="The `due` of the last row of the page before.")]


def desk_routes(
    service: Service, store: Store, writer: Writer, settings: IntakeSettings, sessions: Sessions
) -> APIRouter:
    routes = router()
    shown, refused_page, agencies_of = sessions.shown, sessions.refused, sessions.agencies_of
    Desk = Annotated[Visit, Depends(sessions.visit)]  # noqa: N806 - a type

    async def not_logged_in(_: Request, error: Exception) -> Response:
        assert isinstance(error, LoginNeeded)
        return sessions.login_page(error.lang, error.message)

    async def page_refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, PageRefused)
        return refused_page(error.visit, error.problem, error.lang)

    service.app.add_exception_handler(LoginNeeded, not_logged_in)
    service.app.add_exception_handler(PageRefused, page_refused)

    def may_of(who: Principal) -> list[str]:
        """The operations of a role."""
        return [op for op, roles in ROLES.items() if who.role is Role.ADMIN or who.role in roles]

    # -- session

    @routes.get("/", include_in_schema=False)
    async def start(visit: Desk) -> Response:
        return RedirectResponse("/desk", 303)

    @routes.get("/desk/login", include_in_schema=False)
    async def login(request: Request, lang: Lang = None) -> Response:
        return remember(sessions.login_page(language(request, lang)), lang)

    @routes.post("/desk/login", include_in_schema=False)
    async def log_in(request: Request) -> Response:
        form = await form_of(request)
        return await sessions.log_in(request, form.get("token", [""])[0], language(request, None))

    @routes.post("/desk/logout", include_in_schema=False)
    async def log_out(request: Request, visit: Annotated[Visit, Depends(sessions.anybody)]) -> Response:
        sessions.check(visit, await form_of(request))
        return sessions.log_out()

    @routes.get("/desk/login/provider", include_in_schema=False)
    async def to_provider(request: Request) -> Response:
        return await sessions.to_provider(request)

    @routes.get("/desk/callback", include_in_schema=False)
    async def callback(
        request: Request, state: str = "", code: str = "", error: str = "", session_state: str = "", iss: str = ""
    ) -> Response:
        """The provider's answer; `error`, `session_state` and `iss` are what providers send besides."""
        return await sessions.from_provider(request, state, code, language(request, None))

    # -- work list

    @routes.get("/desk", include_in_schema=False)
    async def work(
        visit: Desk,
        show: Show = "open",
        agency: AgencyCode | None = None,
        due: Since = None,
        cursor: Annotated[str | None, Query(max_length=60)] = None,
        lang: Lang = None,
    ) -> Response:
        """What is due: overdue first, then by due date; and what waits for the desk."""
        directory = service.directory.current
        own = agencies_of(visit)
        if agency is not None:
            own = [agency] if agency in own else []
        async with service.pool.acquire() as connection:
            now = await service.log.now(connection)
            counts = {each: await count(connection, own, each, now) for each in _SHOWN}
            rows = await listed(connection, own, show, now, (due or _FIRST, cursor or ""), PAGE + 1)
            missing = await store.missing_counted(connection, own)
        more = rows[PAGE - 1] if len(rows) > PAGE else None
        return shown(
            visit,
            "work.html",
            lang,
            path="/desk",
            show=show,
            agency=agency,
            missing=missing,
            tabs=[(each, visit.says(*words), counts[each]) for each, words in _SHOWN.items()],
            rows=[_row(row, directory, visit, now) for row in rows[:PAGE]],
            more=more,
        )

    def span(show: Show, now: datetime) -> tuple[datetime, datetime]:
        """Between which instants what is shown falls due."""
        tomorrow = datetime.combine(local_day(now) + timedelta(days=1), time(), LOCAL_ZONE)
        return now if show == "today" else _FIRST, {"overdue": now, "today": tomorrow}.get(show, _NEVER)

    async def listed(
        connection: Connection, own: Sequence[str], show: Show, now: datetime, after: tuple[datetime, str], limit: int
    ) -> list[Any]:
        if show in _WAITING:
            return await store.waiting(connection, own, _WAITING[show], after[1], limit)
        since, before = span(show, now)
        return await store.work(connection, own, max(after, (since, "")), before, show != "open", limit)

    async def count(connection: Connection, own: Sequence[str], show: Show, now: datetime) -> str:
        if show in _WAITING:
            number = await store.waiting_counted(connection, own, _WAITING[show], MOST_COUNTED + 1)
        else:
            number = await store.work_counted(connection, own, *span(show, now), show != "open", MOST_COUNTED + 1)
        return f"{MOST_COUNTED}+" if number > MOST_COUNTED else str(number)

    @routes.post("/desk/find", include_in_schema=False)
    async def find(request: Request, visit: Desk) -> Response:
        """By code, phone number or citizen id; in a form's body, for query strings are kept in many places."""
        form = await form_of(request)
        sessions.check(visit, form)
        wanted = form.get("q", [""])[0]
        code = wanted.upper()
        try:
            check_dossier_code(code)
        except ValueError:
            pass
        else:
            return RedirectResponse(f"/desk/dossiers/{code}", 303)
        directory = service.directory.current
        scope = scope_of(visit.who, directory)
        async with service.pool.acquire() as connection:
            now = await service.log.now(connection)
            rows: list[Any] = []
            digits = wanted.replace(" ", "").replace(".", "")
            if visit.who.role in (Role.DESK, Role.OFFICER, Role.LEADER, Role.ADMIN) and digits.lstrip("+").isdigit():
                refs: list[str] = []
                if len(digits) in (9, 12) and not digits.startswith("+"):
                    refs += await store.refs_of(connection, None, digits)
                if phone := _phone(digits):
                    refs += await store.refs_of(connection, phone, None)
                rows = await store.found(connection, refs, scope, None, "", MOST_FOUND)
            if not rows and wanted and CODE.fullmatch(code):
                rows = await store.listed(connection, scope, None, None, None, None, code, None, MOST_FOUND)
        return shown(
            visit, "found.html", wanted=wanted, rows=[_row(row, directory, visit, now) for row in rows], path="/desk"
        )

    # -- taking a dossier in

    @routes.get("/desk/new", include_in_schema=False)
    async def choose(visit: Desk, q: Annotated[str, Query(max_length=200)] = "", lang: Lang = None) -> Response:
        """The search for a procedure, with or without tones."""
        directory = service.directory.current
        _must_receive(visit)
        texts = searchable(directory).procedures
        today, words = local_day(datetime.now(UTC)), fold(q).split()
        found = [
            procedure
            for procedure in directory.procedures.values()
            if valid_on(procedure, today) and all(word in texts[procedure.code] for word in words)
        ]
        found.sort(key=lambda procedure: (procedure.field.name, procedure.name))
        return shown(
            visit, "choose.html", lang, path="/desk/new", q=q, found=found[:MOST_FOUND], total=len(found), limit=_limit
        )

    def receipt_page(
        visit: Visit, procedure: ProcedureEntry, given: dict[str, list[str]], faults: dict[str, str], asked: Lang = None
    ) -> Response:
        directory = service.directory.current
        today = local_day(datetime.now(UTC))
        receiving = [
            directory.agencies[code] for code in agencies_of(visit) if valid_on(directory.agencies[code], today)
        ]
        answer = shown(
            visit,
            "receive.html",
            asked,
            here=f"/desk/new/{procedure.code}",
            path="/desk/new",
            procedure=procedure,
            limit=_limit(procedure),
            receiving=receiving,
            deciding=_deciding(directory, receiving, today),
            given=given,
            faults=faults,
            kinds=desk.KINDS,
            channels=desk.CHANNELS,
            wishes=desk.WISHES,
            key=given.get("key", [uuid4().hex])[0],
        )
        answer.status_code = 422 if faults else 200
        return answer

    @routes.get("/desk/new/{code}", include_in_schema=False)
    async def fill_in(visit: Desk, code: str, lang: Lang = None) -> Response:
        _must_receive(visit)
        procedure = _procedure(service.directory.current, code)
        if procedure is None:
            return refused_page(visit, not_found("This procedure"))
        return receipt_page(visit, procedure, {}, {}, lang)

    @routes.post("/desk/new/{code}", include_in_schema=False)
    async def receive(request: Request, visit: Desk, code: str) -> Response:
        """Receives the dossier; the form's own key makes a second click the same dossier."""
        form = await form_of(request)
        sessions.check(visit, form)
        _must_receive(visit)
        directory = service.directory.current
        procedure = _procedure(directory, code)
        if procedure is None:
            return refused_page(visit, not_found("This procedure"))
        try:
            body = new_of(procedure, form)
        except FormFault as fault:
            return receipt_page(visit, procedure, form, desk.in_words(fault.faults, visit.lang))
        command = Command("new", body, actor_of(visit.who, settings), scope=scope_of(visit.who, directory))
        if key := form.get("key"):
            value = sha256(orjson.dumps(body.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)).digest()
            command.key = RequestKey(visit.subject, request.url.path, key[0][:200], value)
        try:
            result = await writer.submit(command)
        except Problem as problem:
            return refused_page(visit, problem)
        if result.replayed is not None:
            key_given, row = result.replayed
            if bytes(row["digest"]) != key_given.digest:
                return receipt_page(visit, procedure, form | {"key": [uuid4().hex]}, {"": visit.says(*desk.CHANGED)})
            made = str(orjson.loads(row["body"])["code"])
        elif result.problem is not None:
            faults = desk.in_words(desk.faults_of(result.problem), visit.lang, result.problem.code)
            return receipt_page(visit, procedure, form, faults or {"": _refusal(result.problem, visit)})
        else:
            assert result.answer is not None
            made = str(result.answer.body["code"])
        return RedirectResponse(f"/desk/dossiers/{made}?done=new", 303)

    # -- one dossier

    @routes.get("/desk/dossiers/{code}", include_in_schema=False)
    async def one(
        request: Request,
        visit: Desk,
        code: str,
        done: Annotated[str | None, Query(max_length=40)] = None,
        warnings: Annotated[str, Query(max_length=200)] = "",
        lang: Lang = None,
    ) -> Response:
        try:
            return await dossier_page(visit, code, done=done, warnings=warnings, asked=lang)
        except Problem as problem:
            return refused_page(visit, problem)

    async def dossier_page(
        visit: Visit,
        code: str,
        *,
        done: str | None = None,
        warnings: str = "",
        asked: Lang = None,
        at: str = "",
        given: dict[str, list[str]] | None = None,
        faults: dict[str, str] | None = None,
        message: str = "",
        status: int = 200,
    ) -> Response:
        """A dossier with its history, why it is due when it is, and what may be done now; `at`: the form with faults."""
        dossier = await readable(service, store, visit.who, code)
        directory = service.directory.current
        history = await past_of(service, store, dossier)
        async with service.pool.acquire() as connection:
            now = await service.log.now(connection)
            applicant = await applicant_of(connection, visit, dossier)
        operations = offered(dossier, may_of(visit.who)) if dossier.home is None else []
        acts_done = standing(history)
        last = next((past for past in reversed(acts_done) if not isinstance(past.data, _RAISED)), None)
        try:
            told = explanation(dossier, directory, visit.lang)["sentences"]
        except (Problem, ClockError):
            told = []
        answer = shown(
            visit,
            "dossier.html",
            asked,
            here=f"/desk/dossiers/{code}" if at else "",
            path="/desk",
            d=dossier,
            procedure=_procedure(directory, dossier.procedure),
            agency_name=lambda agency: _agency_name(directory, agency),
            state=STATES[visit.lang][dossier.state],
            standing=standing_of(dossier.overdue_from, dossier.due_at, dossier.paused, visit, now),
            applicant=applicant,
            wishes=dict(desk.WISHES),
            pin=service.keys.track_pin(code) if applicant is not None else "",
            history=[_told(past, history, visit) for past in history],
            sentences=told,
            legs=await legs_of(visit, code, now),
            operations=operations,
            first=[at] if at else likely(dossier, operations),
            undoes="" if last is None else str(last.id),
            forms=[(each, paper.TITLES[each][visit.lang == "en"]) for each in paper.forms_of(dossier, history)]
            if sees_personal_data(visit.who)
            else [("control", paper.TITLES["control"][visit.lang == "en"])],
            done=_done(done, visit),
            print_now=FORM_AFTER.get(done or ""),
            warnings=[visit.says(*desk.WARNINGS[each]) for each in warnings.split(",") if each in desk.WARNINGS],
            version=etag(dossier.sequence),
            at=at,
            given=given or {},
            faults=faults or {},
            message=message,
        )
        answer.status_code = status
        return answer

    async def legs_of(visit: Visit, code: str, now: datetime) -> list[dict[str, Any]] | None:
        """The dossier's transfers as routing has them for this visitor; None when it does not answer."""
        try:
            found = await sessions.ask(visit, "routing", "/v1/transfers", params={"dossier": code})
        except (OSError, PageRefused):
            return None
        return [row_of(item, service.directory.current, visit, "back", now) for item in found["items"]]

    async def applicant_of(connection: Connection, visit: Visit, dossier: Dossier) -> dict[str, Any] | None:
        """Who applies, for whom that is shown; each such read is recorded."""
        if not sees_personal_data(visit.who) or dossier.contact_ref is None:
            return None
        found = await store.contact(connection, dossier.contact_ref)
        await connection.execute(
            service.store_queries["access_put"], visit.subject, visit.role, dossier.code, "applicant"
        )
        return found

    async def applicants_of(
        connection: Connection, visit: Visit, dossiers: Sequence[Dossier]
    ) -> dict[str, dict[str, Any]]:
        """The same for many dossiers, by contact_ref."""
        if not sees_personal_data(visit.who):
            return {}
        named = [dossier for dossier in dossiers if dossier.contact_ref is not None]
        found = await store.contacts(connection, {str(dossier.contact_ref) for dossier in named})
        await connection.executemany(
            service.store_queries["access_put"],
            [(visit.subject, visit.role, dossier.code, "applicant") for dossier in named],
        )
        return found

    @routes.post("/desk/dossiers/{code}/{operation}", include_in_schema=False)
    async def act(request: Request, visit: Desk, code: str, operation: str) -> Response:
        form = await form_of(request)
        sessions.check(visit, form)
        try:
            if operation not in desk.BY_NAME:
                raise not_found("This operation")
            if operation not in may_of(visit.who):
                raise forbidden("This role may not do this.")
            await readable(service, store, visit.who, code)
            try:
                body = act_of(operation, form)
            except FormFault as fault:
                faults = desk.in_words(fault.faults, visit.lang)
                return await dossier_page(visit, code, at=operation, given=form, faults=faults, status=422)
            command = Command(
                operation,
                body,
                actor_of(visit.who, settings),
                code=code,
                scope=scope_of(visit.who, service.directory.current),
                if_match=form.get("version", [None])[0],
            )
            result = await writer.submit(command)
            if result.problem is not None:
                return await dossier_page(
                    visit,
                    code,
                    at=operation,
                    given=form,
                    faults=desk.in_words(desk.faults_of(result.problem), visit.lang, result.problem.code),
                    message=_refusal(result.problem, visit),
                    status=result.problem.status,
                )
        except Problem as problem:
            return refused_page(visit, problem)
        assert result.answer is not None
        warned = ",".join(result.answer.body["warnings"])
        return RedirectResponse(
            f"/desk/dossiers/{code}?done={operation}" + (f"&warnings={warned}" if warned else ""), 303
        )

    # -- paper forms

    async def paper_of(request: Request, visit: Visit, code: str, form: str) -> paper.Paper:
        if form not in get_args(paper.Form):
            raise not_found("This form")
        dossier = await readable(service, store, visit.who, code)
        if form != "control" and not sees_personal_data(visit.who):
            raise forbidden("Only the desk prints what names the applicant.")
        history = await past_of(service, store, dossier)
        async with service.pool.acquire() as connection:
            applicant = None if form == "control" else await applicant_of(connection, visit, dossier)
        made = paper.paper(
            cast(paper.Form, form),
            dossier,
            history,
            applicant,
            service.directory.current,
            follow=f"{public_address(settings, request)}/track/{code}",
            pin=service.keys.track_pin(code) if form == "receipt" else "",
        )
        if made is None:
            raise not_found("This form")
        return made

    @routes.get("/desk/dossiers/{code}/forms/{form}", include_in_schema=False)
    async def form_page(request: Request, visit: Desk, code: str, form: str, lang: Lang = None) -> Response:
        """A paper form as a page to be printed, or (`….pdf`) as a PDF."""
        try:
            made = await paper_of(request, visit, code, form.removesuffix(".pdf"))
        except Problem as problem:
            return refused_page(visit, problem)
        if form.endswith(".pdf"):
            return _pdf(await printing.pdf(made), f"{code}-{form}")
        return shown(
            visit,
            "paper.html",
            lang,
            path="/desk",
            paper=made,
            qr=printing.qr_svg(made.follow),
            pdf=f"/desk/dossiers/{code}/forms/{form}.pdf",
            back=f"/desk/dossiers/{code}",
        )

    # -- register

    @routes.get("/desk/register", include_in_schema=False)
    async def register(
        visit: Desk,
        agency: AgencyCode | None = None,
        since: Annotated[date | None, Query(alias="from")] = None,
        until: Annotated[date | None, Query(alias="to")] = None,
        pdf: bool = False,
        lang: Lang = None,
    ) -> Response:
        """The register of a period, this month so far when none is given; names for whom they are shown."""
        directory = service.directory.current
        own = agencies_of(visit)
        chosen = agency or (visit.agency if visit.agency in own else None) or own[0]
        if chosen not in own:
            return refused_page(visit, not_found("This agency"))
        now = datetime.now(UTC)
        last = until or local_day(now)
        first = since or last.replace(day=1)
        after = datetime.combine(first, time(), LOCAL_ZONE)
        before = datetime.combine(min(last, date(9998, 12, 31)) + timedelta(days=1), time(), LOCAL_ZONE)
        async with service.pool.acquire() as connection:
            found = await store.register_of(connection, [chosen], (after, ""), before, REGISTER_PAGE + 1)
            people = await applicants_of(connection, visit, found[:REGISTER_PAGE])
        rows = [(dossier, people.get(dossier.contact_ref or "")) for dossier in found[:REGISTER_PAGE]]
        made = paper.register(rows, chosen, first, last, directory, now)
        if pdf:
            return _pdf(await printing.pdf(made), f"so-theo-doi-{chosen}-{first}-{last}")
        return shown(
            visit,
            "register.html",
            lang,
            path="/desk/register",
            paper=made,
            agency=chosen,
            agencies=[directory.agencies[code] for code in own],
            since=first.isoformat(),
            until=last.isoformat(),
            cut=len(found) > REGISTER_PAGE,
        )

    return routes


_RAISED = (ev.DossierDueSoon, ev.DossierOverdue, ev.DossierRescheduled)
_TITLES: Final[dict[str, desk.Words]] = {
    "due-soon": ("Sắp đến hạn trả", "Due soon"),
    "overdue": ("Quá hạn trả", "Overdue"),
    "digitised": ("Số hóa giấy tờ", "Paper digitised"),
    "corrected": ("Hủy thao tác nhập sai", "Mistake undone"),
}


def _must_receive(visit: Visit) -> None:
    if not visit.receives:
        problem = forbidden(f"The role {visit.role} takes no dossiers in.")
        raise PageRefused(visit.lang, problem, visit)


def _procedure(directory: Directory, code: str) -> ProcedureEntry | None:
    try:
        return directory.procedure(code)
    except DirectoryError:
        return None


def _limit(procedure: ProcedureEntry) -> str:
    return paper.limit_in_words(float(procedure.limit.value), Unit(procedure.limit.unit))


def _agency_name(directory: Directory, code: str) -> str:
    try:
        return directory.agency(code).name
    except DirectoryError:
        return code


def _deciding(directory: Directory, receiving: Sequence[AgencyEntry], today: date) -> list[AgencyEntry]:
    """Whom a desk may receive for: the valid agencies of its province (any desk receives for any of them)."""
    tops = {([*directory.ancestors(agency.code)] or [agency.code])[-1] for agency in receiving}
    found = {code for top in tops for code in directory.subtree(top)}
    return [directory.agencies[code] for code in sorted(found) if valid_on(directory.agencies[code], today)]


def _phone(digits: str) -> str | None:
    try:
        return normalise_phone(digits)
    except ValueError:
        return None


def standing_of(
    overdue_from: datetime | None, due_at: datetime | None, paused: bool, visit: Visit, now: datetime
) -> tuple[str, str]:
    """How it stands against its due date: a class of the style sheet and a word or two."""
    if overdue_from is not None and overdue_from < now:
        return "late", visit.says("Quá hạn", "Overdue")
    if paused:
        return "soft", visit.says("Tạm dừng thời hạn", "Clock stands still")
    if overdue_from is not None and due_at is not None and local_day(due_at) == local_day(now):
        return "soon", visit.says("Đến hạn hôm nay", "Due today")
    return "", ""


def _row(row: Any, directory: Directory, visit: Visit, now: datetime) -> dict[str, Any]:
    procedure = _procedure(directory, row["procedure"])
    return {
        "code": row["code"],
        "procedure": procedure.name if procedure is not None else row["procedure"],
        "state": STATES[visit.lang][row["state"]],
        "received_at": row["received_at"],
        "due_at": row["due_at"],
        "standing": standing_of(row["overdue_from"], row["due_at"], row["paused"], visit, now),
    }


def _told(past: Any, history: Sequence[Any], visit: Visit) -> dict[str, Any]:
    """One event of the history in words."""
    name = past.data.short.removeprefix("dossier.")
    words = visit.says(*_TITLES[name]) if name in _TITLES else ACTS[visit.lang].get(name, name)
    undone = {each.data.undoes for each in history if isinstance(each.data, ev.DossierCorrected)}
    return {
        "words": words,
        "at": past.time,
        "recorded": past.recorded,
        "by": past.data.by,
        "state": STATES[visit.lang][past.data.state],
        "due_at": past.data.due_at,
        "reason": getattr(past.data, "reason", None) or getattr(past.data, "component", None) or "",
        "undone": past.id in undone,
    }


def _done(name: str | None, visit: Visit) -> str:
    if name == "new":
        return visit.says("Đã tiếp nhận hồ sơ.", "The dossier was received.")
    return visit.says(*desk.BY_NAME[name].done) if name in desk.BY_NAME else ""


def _refusal(problem: Problem, visit: Visit) -> str:
    words = {
        "move-not-allowed": ("Trạng thái hiện tại không cho phép việc này.", "The present state does not allow this."),
        "changed-meanwhile": (
            "Hồ sơ vừa được người khác cập nhật. Mời xem lại rồi thực hiện.",
            "Somebody changed this dossier meanwhile. Please look at it again.",
        ),
        "transfers-open": (
            "Các cơ quan liên thông chưa trả lời; thu hồi hoặc chờ họ trả lời.",
            "Agencies still work on this dossier; recall their transfers, or wait.",
        ),
        "too-late": (
            "Không thể hủy: kết quả đã trả hoặc cơ quan khác đã nhận chuyển.",
            "Too late: the result was returned or a transfer accepted.",
        ),
        "receipt-stays": (
            "Không hủy được việc tiếp nhận; hãy dừng hoặc từ chối hồ sơ.",
            "A receipt is not undone; stop or refuse the dossier instead.",
        ),
    }.get(problem.code, ("Chưa thực hiện được.", "This did not work."))
    return visit.says(*words)


def _pdf(content: bytes, name: str) -> Response:
    file = name if name.endswith(".pdf") else f"{name}.pdf"
    headers = {"Cache-Control": "no-store", "Content-Disposition": f'inline; filename="{file}"'}
    return Response(content, media_type="application/pdf", headers=headers)
