"""The desk's pages of petitions (phản ánh, kiến nghị): what is due, one petition with its answer, taking one in."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, time, timedelta
from hashlib import sha256
from typing import Annotated, Any, Final, Literal
from uuid import UUID, uuid4

import orjson
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import RedirectResponse, Response

from services.intake import desk
from services.intake.desk import FormFault, Words, validated
from services.intake.pages import Lang, form_of
from services.intake.petition import ALLOWED, Petition
from services.intake.petitions import ANSWERING, FILING, READERS, Petitions, etag
from services.intake.petitions_api import AnswerBody, ForwardBody, NewPetition, RatingBody
from services.intake.session import PageRefused, Sessions, Visit
from shared.contracts.codes import LOCAL_ZONE, AgencyCode, local_day
from shared.contracts.events import PetitionAnswered, PetitionEvent, PetitionForwarded, PetitionRated
from shared.directory.bundle import AgencyEntry, valid_on
from shared.directory.directory import Directory, DirectoryError
from shared.security.tokens import Role
from shared.service import Service
from shared.store.pool import Connection
from shared.web.app import router
from shared.web.problem import Problem, forbidden, not_found
from shared.web.writes import Answer, RequestKey, Writes

PATH: Final = "/desk/petitions"
PAGE: Final = 50
MOST_COUNTED: Final = 999
_FIRST: Final = (datetime(1900, 1, 1, tzinfo=UTC), UUID(int=0))
_NEVER: Final = (datetime(9999, 1, 1, tzinfo=UTC), UUID(int=2**128 - 1))

KINDS: Final[tuple[tuple[str, Words], ...]] = (
    ("reflection", ("Phản ánh, kiến nghị", "Reflection")),
    ("complaint", ("Khiếu nại", "Complaint")),
    ("letter", ("Thư", "Letter")),
)
Show = Literal["overdue", "today", "open", "answered"]
_SHOWN: Final[dict[Show, Words]] = {
    "overdue": ("Quá hạn trả lời", "Overdue"),
    "today": ("Phải trả lời hôm nay", "Due today"),
    "open": ("Chờ trả lời", "To be answered"),
    "answered": ("Đã trả lời", "Answered"),
}
_DONE: Final[dict[str, Words]] = {
    "new": ("Đã ghi nhận phản ánh, kiến nghị.", "The petition was filed."),
    "answer": ("Đã trả lời.", "The answer was recorded."),
    "forward": ("Đã chuyển đến cơ quan có thẩm quyền.", "It was passed on."),
    "rating": ("Đã ghi nhận đánh giá.", "The rating was recorded."),
}
_REFUSALS: Final[dict[str, Words]] = {
    "move-not-allowed": ("Trạng thái hiện tại không cho phép việc này.", "The present state does not allow this."),
    "changed-meanwhile": (
        "Phản ánh này vừa được người khác cập nhật. Mời xem lại rồi thực hiện.",
        "Somebody changed this petition meanwhile. Please look at it again.",
    ),
}
_MAY: Final = {"answer": ANSWERING, "forward": ANSWERING, "rating": FILING}

Since = Annotated[datetime | None, Query(description="The due date, or time of answer, of the last row before.")]
Done = Annotated[str | None, Query(max_length=40, description="What was just done.")]
Act = Callable[[Connection, str | None], Awaitable[Petition]]


def petition_pages(service: Service, petitions: Petitions, sessions: Sessions) -> APIRouter:
    routes = router()
    writes = Writes(service)
    Desk = Annotated[Visit, Depends(sessions.visit)]  # noqa: N806 - a type
    shown = sessions.shown

    # -- what is due

    @routes.get(PATH, include_in_schema=False)
    async def listed(
        visit: Desk,
        show: Show = "open",
        agency: AgencyCode | None = None,
        due: Since = None,
        cursor: UUID | None = None,
        done: Done = None,
        lang: Lang = None,
    ) -> Response:
        """The petitions of the visit's agencies: the unanswered ones by due date, the answered ones newest first."""
        directory = service.directory.current
        own = sessions.agencies_of(visit)
        if agency is not None:
            own = [agency] if agency in own else []
        after = None if due is None or cursor is None else (due, cursor)
        async with service.pool.acquire() as connection:
            now = await service.log.now(connection)
            counts = {each: _number(await count(connection, own, each, now)) for each in _SHOWN}
            found = await of(connection, own, show, now, after, PAGE + 1)
        return shown(
            visit,
            "petitions.html",
            lang,
            path=PATH,
            show=show,
            agency=agency,
            tabs=[(each, visit.says(*words), counts[each]) for each, words in _SHOWN.items()],
            rows=[_row(petition, directory, visit, now) for petition in found[:PAGE]],
            more=found[PAGE - 1] if len(found) > PAGE else None,
            files=_files(visit),
            done=visit.says(*_DONE[done]) if done in _DONE else "",
        )

    async def of(
        connection: Connection,
        own: Sequence[str],
        show: Show,
        now: datetime,
        after: tuple[datetime, UUID] | None,
        limit: int,
    ) -> list[Petition]:
        if show == "answered":
            return await petitions.answered(connection, own, after or _NEVER, limit)
        since, before = span(show, now)
        return await petitions.due(connection, own, max(after or _FIRST, (since, _FIRST[1])), before, limit)

    async def count(connection: Connection, own: Sequence[str], show: Show, now: datetime) -> int:
        if show == "answered":
            return await petitions.answered_counted(connection, own, MOST_COUNTED + 1)
        return await petitions.due_counted(connection, own, *span(show, now), MOST_COUNTED + 1)

    def span(show: Show, now: datetime) -> tuple[datetime, datetime]:
        """Between which instants what is shown falls due."""
        tomorrow = datetime.combine(local_day(now) + timedelta(days=1), time(), LOCAL_ZONE)
        return now if show == "today" else _FIRST[0], {"overdue": now, "today": tomorrow}.get(show, _NEVER[0])

    # -- taking one in

    def new_page(
        visit: Visit, given: dict[str, list[str]], faults: dict[str, str], asked: Lang = None, status: int = 200
    ) -> Response:
        directory = service.directory.current
        today = local_day(datetime.now(UTC))
        own = [directory.agencies[code] for code in sessions.agencies_of(visit)]
        answer = shown(
            visit,
            "petition_new.html",
            asked,
            here=f"{PATH}/new",
            path=PATH,
            agencies=[agency for agency in own if valid_on(agency, today)],
            kinds=KINDS,
            given=given,
            faults=faults,
            key=given.get("key", [uuid4().hex])[0],
        )
        answer.status_code = status
        return answer

    @routes.get(f"{PATH}/new", include_in_schema=False)
    async def fill_in(visit: Desk, lang: Lang = None) -> Response:
        _must_file(visit)
        return new_page(visit, {}, {}, lang)

    @routes.post(f"{PATH}/new", include_in_schema=False)
    async def file(request: Request, visit: Desk) -> Response:
        """Files what was brought to the desk; the form's own key makes a second click the same petition."""
        form = await form_of(request)
        sessions.check(visit, form)
        _must_file(visit)
        one = {name: values[0] for name, values in form.items()}
        contact = {name: one[name] for name in ("name", "phone", "email", "address") if name in one}
        said = {name: one[name] for name in ("agency", "kind", "text") if name in one}
        try:
            body = validated(NewPetition, said | ({"contact": contact} if contact else {}))
        except FormFault as fault:
            return new_page(visit, form, desk.in_words(fault.faults, visit.lang), status=422)

        async def act(connection: Connection) -> Answer:
            content = body.model_dump(mode="json", include={"text", "contact"}, exclude_none=True)
            petition = await petitions.file(connection, visit.who, body.agency, body.kind, content)
            return Answer(201, {"id": str(petition.id)})

        digest = sha256(orjson.dumps(body.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)).digest()
        key = RequestKey(visit.subject, request.url.path, one["key"][:200], digest) if "key" in one else None
        try:
            made = await writes.once(key, act)
        except Problem as problem:
            if problem.code == "idempotency-key-reused":
                return new_page(visit, form | {"key": [uuid4().hex]}, {"": visit.says(*desk.CHANGED)}, status=422)
            faults = desk.in_words(desk.faults_of(problem), visit.lang, problem.code)
            return new_page(visit, form, faults or {"": _refusal(problem, visit)}, status=problem.status)
        return RedirectResponse(f"{PATH}/{orjson.loads(bytes(made.body))['id']}?done=new", 303)

    # -- one petition

    @routes.get(f"{PATH}/{{identity}}", include_in_schema=False)
    async def one(visit: Desk, identity: str, done: Done = None, lang: Lang = None) -> Response:
        try:
            return await petition_page(visit, _identity(identity), done=done, asked=lang)
        except Problem as problem:
            return sessions.refused(visit, problem)

    async def petition_page(
        visit: Visit,
        identity: UUID,
        *,
        done: str | None = None,
        asked: Lang = None,
        at: str = "",
        given: dict[str, list[str]] | None = None,
        faults: dict[str, str] | None = None,
        message: str = "",
        status: int = 200,
    ) -> Response:
        """A petition with what it says, what happened to it and what may be done; `at`: the form with faults."""
        directory = service.directory.current
        async with service.pool.acquire() as connection:
            petition, sealing = await petitions.one(connection, visit.who, identity)
            said = await petitions.said(connection, visit.who, petition, sealing)
            history = await petitions.history(connection, identity)
            now = await service.log.now(connection)
        role = visit.who.role
        answer = shown(
            visit,
            "petition.html",
            asked,
            here=f"{PATH}/{identity}",
            path=PATH,
            p=_row(petition, directory, visit, now),
            said=said,
            reads=role in READERS,
            history=[_told(at, event, directory, visit) for at, event in history],
            may=[op for op in ALLOWED[petition.state] if role is Role.ADMIN or role in _MAY[op]],
            agencies=_others(directory, petition.agency, now),
            levels=desk.LEVELS,
            rating=dict(desk.LEVELS).get(petition.rating or ""),
            version=etag(petition),
            done=visit.says(*_DONE[done]) if done in _DONE else "",
            at=at,
            given=given or {},
            faults=faults or {},
            message=message,
        )
        answer.status_code = status
        return answer

    @routes.post(f"{PATH}/{{identity}}/{{operation}}", include_in_schema=False)
    async def do(request: Request, visit: Desk, identity: str, operation: str) -> Response:
        form = await form_of(request)
        sessions.check(visit, form)
        try:
            petition = _identity(identity)
            if operation not in _MAY:
                raise not_found("This operation")
            if visit.who.role is not Role.ADMIN and visit.who.role not in _MAY[operation]:
                raise forbidden("This role may not do this.")
            try:
                act = act_of(visit, petition, operation, form)
                async with service.pool.acquire() as connection, connection.transaction():
                    await act(connection, form.get("version", [None])[0])
            except FormFault as fault:
                faults = desk.in_words(fault.faults, visit.lang)
                return await petition_page(visit, petition, at=operation, given=form, faults=faults, status=422)
            except Problem as problem:
                if problem.status == 404:
                    raise
                return await petition_page(
                    visit,
                    petition,
                    at=operation,
                    given=form,
                    faults=desk.in_words(desk.faults_of(problem), visit.lang, problem.code),
                    message=_refusal(problem, visit),
                    status=problem.status,
                )
            service.wake()
            # What was passed on to another agency is no longer this one's to read.
            async with service.pool.acquire() as connection:
                try:
                    await petitions.one(connection, visit.who, petition)
                except Problem:
                    return RedirectResponse(f"{PATH}?done={operation}", 303)
        except Problem as problem:
            return sessions.refused(visit, problem)
        return RedirectResponse(f"{PATH}/{petition}?done={operation}", 303)

    def act_of(visit: Visit, petition: UUID, operation: str, form: dict[str, list[str]]) -> Act:
        """What a form asks for. Raises FormFault."""
        given: dict[str, Any] = {name: form[name][0] for name in ("text", "to", "reason", "level") if name in form}
        if operation == "answer":
            answer = validated(AnswerBody, given)
            return lambda connection, version: petitions.answer(connection, visit.who, petition, answer.text, version)
        if operation == "forward":
            forward = validated(ForwardBody, given)
            return lambda connection, version: petitions.forward(
                connection, visit.who, petition, forward.to, forward.reason, version
            )
        rating = validated(RatingBody, given)
        return lambda connection, version: petitions.rate(connection, visit.who, petition, rating.level, version)

    return routes


def _identity(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise not_found("This petition") from None


def _files(visit: Visit) -> bool:
    return visit.who.role is Role.ADMIN or visit.who.role in FILING


def _must_file(visit: Visit) -> None:
    if not _files(visit):
        raise PageRefused(visit.lang, forbidden(f"The role {visit.role} files no petitions."), visit)


def _number(found: int) -> str:
    return f"{MOST_COUNTED}+" if found > MOST_COUNTED else str(found)


def _others(directory: Directory, agency: str, now: datetime) -> list[AgencyEntry]:
    """Whom a petition may be passed on to: the agencies of today."""
    today = local_day(now)
    return [each for each in directory.agencies.values() if each.code != agency and valid_on(each, today)]


def _name(directory: Directory, code: str) -> str:
    try:
        return directory.agency(code).name
    except DirectoryError:
        return code


def _row(petition: Petition, directory: Directory, visit: Visit, now: datetime) -> dict[str, Any]:
    return {
        "id": petition.id,
        "kind": visit.says(*dict(KINDS)[petition.kind]),
        "agency": _name(directory, petition.agency),
        "filed_at": petition.filed_at,
        "due_at": petition.due_at,
        "answered_at": petition.answered_at,
        "rating": None if petition.rating is None else visit.says(*dict(desk.LEVELS)[petition.rating]),
        "standing": _standing(petition, visit, now),
    }


def _standing(petition: Petition, visit: Visit, now: datetime) -> tuple[str, str]:
    """How it stands against its due date: a class of the style sheet and a word or two."""
    if petition.answered_at is not None:
        return ("late", visit.says("Trả lời quá hạn", "Answered late")) if petition.overdue(now) else ("good", "✓")
    if petition.overdue(now):
        return "late", visit.says("Quá hạn", "Overdue")
    if local_day(petition.due_at) == local_day(now):
        return "soon", visit.says("Đến hạn hôm nay", "Due today")
    return "", ""


def _told(at: datetime, event: PetitionEvent, directory: Directory, visit: Visit) -> dict[str, Any]:
    """One event of the history in words."""
    reason = ""
    match event:
        case PetitionForwarded(from_agency=before, to=to, reason=given):
            names = (_name(directory, before), _name(directory, to))
            words = visit.says("Chuyển từ {} đến {}", "Passed on from {} to {}").format(*names)
            reason = given or ""
        case PetitionAnswered(on_time=on_time):
            words = visit.says("Đã trả lời", "Answered")
            reason = visit.says("Đúng hạn", "On time") if on_time else visit.says("Quá hạn", "Late")
        case PetitionRated(level=level):
            words = visit.says("Người gửi đánh giá", "Rated")
            reason = visit.says(*dict(desk.LEVELS)[level])
        case _:
            words = visit.says("Ghi nhận", "Filed")
    return {"at": at, "words": words, "reason": reason}


def _refusal(problem: Problem, visit: Visit) -> str:
    return visit.says(*_REFUSALS.get(problem.code, ("Chưa thực hiện được.", "This did not work.")))
