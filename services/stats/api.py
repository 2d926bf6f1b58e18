"""HTTP of stats: parse, call, answer."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import AfterValidator, ConfigDict, Field, StringConstraints
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from services.stats import forecast
from services.stats import report as ii06a
from services.stats.dashboard import Dashboard, View
from services.stats.figures import (
    BEHIND_LEVERS,
    CELLS,
    behind_lever,
    entered_counts,
    entered_metrics,
    freshness,
    indicators,
    levers,
    local_text,
    moved,
    names_of,
    own_index,
    ranking,
    report_ii06a,
)
from services.stats.index766 import formulas_on, index766
from services.stats.indicator import Period, half_up, last_instant, local_midnight, month_of
from services.stats.pages import dossiers_page, report_page
from services.stats.published import SCHEDULE, Wanted, heading, heading_of, publish
from services.stats.rebuild import Source, rebuild
from services.stats.session import LoginNeeded, Visits
from services.stats.settings import StatsSettings
from services.stats.sheet import XLSX_TYPE, as_xlsx
from services.stats.store import By, Channel, Question, Store, at_one_instant
from shared.contracts.codes import Instant, Name, local_day
from shared.directory.directory import Directory, UnknownAgency
from shared.security.access import scope_of
from shared.security.tokens import Principal, Role
from shared.service import Service
from shared.web.app import Asking, Body, allow, known_agency, one_of, router
from shared.web.openapi import READS
from shared.web.problem import Problem, Wrong, forbidden, invalid, not_found
from shared.web.writes import Answer, Writes

PAGE = 200
WINDOWS = {
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
    "90d": timedelta(days=90),
}
PAGES = ("/live", "/session", "/session/end", "/dossiers", "/report", "/dashboard.js")
MOST_LISTENING = 500  # pages that are told of changes at the same time, per process
SCRIPT = resources.files("services.stats").joinpath("templates/dashboard.js").read_text(encoding="utf-8")
SAFE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
OWN_SCOPE = (Role.DESK, Role.OFFICER, Role.PORTAL)
READERS = (*OWN_SCOPE, Role.LEADER, Role.AUDITOR, Role.OPERATOR, Role.SERVICE)


def _day(text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise ValueError("this day is not on the calendar") from None
    if not 1900 <= day.year <= 2200:
        raise ValueError("this day is not between 1900 and 2200")
    return day


Day = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$"), AfterValidator(_day)]
Agency = Annotated[str, Query(description="Agency code, of either form.")]
Code = Annotated[str | None, Query(min_length=1, max_length=200)]
Cursor = Annotated[str | None, Query(max_length=500)]


class Asked:
    """What every question about a period has in common."""

    def __init__(
        self,
        agency: Agency,
        first: Annotated[Day, Query(alias="from")],
        last: Annotated[Day, Query(alias="to")],
        subtree: bool = False,
        by: By = "receiving",
        as_of: Annotated[Instant | None, Query(description="Acts up to then; default now.")] = None,
        known_at: Annotated[Instant | None, Query(description="As it was known then; default now.")] = None,
        procedure: Code = None,
        field: Code = None,
        channel: Channel | None = None,
    ) -> None:
        self.agency, self.subtree, self.by = known_agency(agency), subtree, by
        self.first, self.last = _a_day(first), _a_day(last)
        self.as_of, self.known_at, self.procedure, self.field = as_of, known_at, procedure, field
        self.channel = channel

    def question(self, agencies: Sequence[str]) -> Question:
        """Judged at the earlier of as_of and the end of the period. 422 for what cannot be asked."""
        now = datetime.now(UTC)
        if self.last < self.first:
            raise invalid("to is before from.", "/to", "period-inverted")
        start = local_midnight(self.first)
        as_of = now if self.as_of is None else self.as_of
        if as_of > now:
            raise invalid("as_of lies in the future.", "/as_of", "as-of-in-the-future")
        if as_of < start:
            raise invalid("as_of is before from.", "/as_of", "as-of-before-from")
        period = Period(start, min(as_of, last_instant(self.last)))
        known = self.known_at or now
        present = self.as_of is None and self.known_at is None and period.judged == now
        return Question(agencies, period, known, self.by, self.procedure, self.field, self.channel, present)


def _a_day(value: Any) -> date:
    return value if isinstance(value, date) else _day(value)  # AfterValidator has made a day of a parameter's text


Period_ = Annotated[Asked, Depends(Asked)]


Number = Annotated[int, Field(ge=0, strict=True)] | None
Figure = Annotated[float, Field(ge=0, strict=True)] | None


class Count(Body):
    code: Annotated[str, Field(max_length=100)]
    numerator: Number
    denominator: Number


class ProgressCounts(Body):
    received: Number
    on_time: Number
    overdue: Number = None
    average_days: Figure = None


class PaymentCounts(Body):
    paid_online: Number
    with_fee: Number
    procedures_with_online_payment: Number
    procedures_with_fee: Number
    score: Annotated[float, Field(ge=0, le=10, strict=True)] | None = None


class GivenScores(Body):
    online: Annotated[float, Field(ge=0, le=12, strict=True)] | None = None


class ProvinceCounts(Body):
    """One province as the portal publishes it, without what is computed."""

    province: Name
    code: Annotated[str, Field(max_length=20)]
    progress: ProgressCounts
    transparency: list[Count]
    digitisation: list[Count]
    payment: PaymentCounts
    satisfaction: list[Count]
    group_scores: GivenScores | None = None


class ToPublish(Body):
    """Which report is to be frozen. `from` and `to` are local dates, both inside."""

    model_config = ConfigDict(extra="forbid", populate_by_name=False)

    agency: Annotated[str, Field(max_length=60)]
    first: Day = Field(alias="from")
    last: Day = Field(alias="to")
    subtree: Annotated[bool, Field(strict=True)] = False
    by: By = "receiving"
    rows: ii06a.Rows = "field"


class Entered(Body):
    """Counts of one metric of the index, for an agency itself (not for those below it)."""

    model_config = ConfigDict(extra="forbid", populate_by_name=False)

    agency: Annotated[str, Field(max_length=60)]
    metric: Annotated[str, Field(max_length=100)]
    first: Day = Field(alias="from")
    last: Day = Field(alias="to")
    numerator: Annotated[int, Field(ge=0, lt=1 << 53, strict=True)] | None
    denominator: Annotated[int, Field(ge=0, lt=1 << 53, strict=True)] | None


Form = Annotated[Literal["json", "csv", "xlsx", "html"], Query(alias="format")]
_REPORT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {}, "text/csv": {}, "text/html": {}, XLSX_TYPE: {}}}
}


def in_form(form: str, made: Mapping[str, Any], over: ii06a.Heading, name: str) -> Response:
    """A report in the form that was asked for."""
    if form == "json":
        return JSONResponse(made)
    if form == "html":
        return HTMLResponse(report_page(made, over))
    headers = {"Content-Disposition": f'attachment; filename="{name}.{form}"'}
    if form == "csv":
        return Response(ii06a.as_csv(made, over.rows), headers=headers, media_type="text/csv; charset=utf-8")
    return Response(as_xlsx(made, over), headers=headers, media_type=XLSX_TYPE)


def period_before(first: date, last: date) -> Period:
    """The period of the same length just before: the month before for a month."""
    until = first - timedelta(days=1)
    since = month_of(until)[0] if month_of(first) == (first, last) else until - (last - first)
    return Period(local_midnight(since), last_instant(until))


def routes(service: Service, store: Store, settings: StatsSettings, topics: Sequence[str]) -> APIRouter:
    """The routes of stats."""
    api = router()
    writes = Writes(service)
    visits = Visits(service)
    listening = asyncio.Semaphore(MOST_LISTENING)

    async def login_needed(_: Request, error: Exception) -> Response:
        assert isinstance(error, LoginNeeded)
        return visits.form(error.back, error.message)

    service.app.add_exception_handler(LoginNeeded, login_needed)
    dashboard = Dashboard(service, store, settings, topics)

    def directory() -> Directory:
        return service.directory.current

    def agencies_of(agency: str, subtree: bool) -> list[str]:
        """404 for an agency that the directory does not know."""
        try:
            found = directory().agency(agency).code
        except UnknownAgency:
            raise not_found("This agency") from None
        return sorted(directory().subtree(found)) if subtree else [found]

    def reaches(who: Principal, agencies: Sequence[str], *, named: bool) -> bool:
        bound = who.role in OWN_SCOPE or (who.role is Role.LEADER and named)
        scope = scope_of(who, directory()) if bound else None
        return scope is None or scope.issuperset(agencies)

    def may_ask(who: Principal, agencies: Sequence[str], *, named: bool = False) -> None:
        """Desk, officer and portal ask about their own scope; a leader about all, and about dossiers by name (`named`)
        in its subtree; auditor, operator and admin about everything."""
        allow(who, *READERS)
        if not reaches(who, agencies, named=named):
            raise forbidden("This is outside what your token reaches.")

    async def fresh(connection: Any) -> dict[str, Any]:
        return await freshness(connection, store, service.store_queries["complete"], directory(), topics)

    async def asked(who: Principal, period: Asked, *, named: bool = False) -> Question:
        agencies = agencies_of(period.agency, period.subtree)
        question = period.question(agencies)
        may_ask(who, agencies, named=named)
        return question

    async def note(connection: Any, period: Asked, question: Question) -> None:
        """Remembers that this period was asked for: what changes it from now on is a restatement."""
        await store.note_asked(
            connection, period.agency, period.subtree, period.first, period.last, question.period.judged
        )

    @api.get("/v1/indicators", tags=["figures"])
    async def get_indicators(who: Asking, period: Period_) -> dict[str, Any]:
        """The indicators of an agency over a period, as of an instant, as known at an instant."""
        question = await asked(who, period)
        async with service.pool.acquire() as connection:
            async with at_one_instant(connection):
                numbers = await indicators(store, connection, question)
                complete = await fresh(connection)
            await note(connection, period, question)
            return {
                "agency": period.agency,
                "from": period.first.isoformat(),
                "to": period.last.isoformat(),
                "as_of": local_text(question.period.judged),
                "known_at": local_text(question.known),
                **numbers,
                "freshness": complete,
            }

    @api.get("/v1/indicators/rolling", tags=["figures"])
    async def rolling(
        who: Asking,
        agency: Agency,
        window: Literal["1h", "24h", "7d", "30d", "90d"],
        subtree: bool = False,
        by: By = "receiving",
        procedure: Code = None,
        field: Code = None,
        channel: Channel | None = None,
    ) -> dict[str, Any]:
        """The same figures over a window that ends now; `from` and `to` are instants."""
        code = known_agency(agency)
        agencies = agencies_of(code, subtree)
        may_ask(who, agencies)
        now = datetime.now(UTC)
        question = Question(agencies, Period(now - WINDOWS[window], now), now, by, procedure, field, channel)
        async with service.pool.acquire() as connection, at_one_instant(connection):
            return {
                "agency": code,
                "from": local_text(question.period.start),
                "to": local_text(now),
                "as_of": local_text(now),
                "known_at": local_text(now),
                **await indicators(store, connection, question),
                "freshness": await fresh(connection),
            }

    @api.get("/v1/indicators/dossiers", tags=["figures"])
    async def behind(
        who: Asking,
        period: Period_,
        cell: str,
        cursor: Cursor = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = PAGE,
    ) -> dict[str, Any]:
        """The dossiers behind one number, by its path in the Indicators JSON, such as `resolved.late`."""
        if cell not in CELLS:
            raise invalid(f"A cell is one of {', '.join(sorted(CELLS))}.", "/cell", "unknown-cell")
        question = await asked(who, period, named=True)
        async with service.pool.acquire() as connection:
            rows = await store.behind(connection, question, cell, cursor or "", limit)
        return page([_behind(row) for row in rows], limit, "code")

    @api.get("/v1/reports/II.06a", tags=["reports"], response_model=None, responses=_REPORT)
    async def report(who: Asking, period: Period_, rows: ii06a.Rows = "field", form: Form = "json") -> Response:
        """Report II.06a by field, agency or procedure, its identities proven; `html` is a page made for print."""
        question = await asked(who, period)
        async with service.pool.acquire() as connection:
            try:
                made = await report_ii06a(store, connection, question, directory(), rows)
            except ii06a.IdentityBroken as broken:
                raise Problem(500, "identity-broken", str(broken)) from broken
            await note(connection, period, question)
        over = heading(directory(), period.agency, period.first, period.last, question.period.judged, rows)
        return in_form(form, made, over, f"II.06a-{period.agency}-{period.first}-{period.last}")

    @api.post("/v1/published-reports", tags=["reports"], status_code=201)
    async def publish_report(
        who: Annotated[Principal, Depends(one_of(Role.LEADER))], request: Request, body: ToPublish
    ) -> Response:
        """Freezes report II.06a of a period that is over, under a number."""
        period = Asked(body.agency, body.first, body.last, body.subtree, body.by)
        question = await asked(who, period, named=True)
        now = datetime.now(UTC)
        if last_instant(period.last) >= now:
            raise invalid("The period is not over yet.", "/to", "period-open")
        wanted = Wanted(period.agency, question.agencies, period.subtree, period.first, period.last, body.by, body.rows)

        async def act(connection: Any) -> Answer:
            number = await publish(store, connection, wanted, directory(), now, who.subject)
            row = await connection.fetchrow(store["report_get"], number)
            return Answer(201, _published(row), {"Location": f"/v1/published-reports/{number}"})

        return await writes.write(request, who, act)

    @api.get("/v1/published-reports", tags=["reports"])
    async def published_reports(
        who: Asking,
        agency: Agency,
        subtree: bool = False,
        cursor: Cursor = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = PAGE,
    ) -> dict[str, Any]:
        """The reports that were published of these agencies, by number; `restated` counts what changed since."""
        agencies = agencies_of(known_agency(agency), subtree)
        may_ask(who, agencies)
        async with service.pool.acquire() as connection:
            rows = await connection.fetch(store["reports"], agencies, cursor or "", limit)
        return page([_published(row, restated=row["restated"]) for row in rows], limit, "number")

    @api.get("/v1/published-reports/{number}", tags=["reports"], response_model=None, responses=_REPORT)
    async def published_report(
        who: Asking, number: Annotated[str, Path(max_length=200)], form: Form = "json"
    ) -> Response:
        """A published report as it was frozen, and what has been restated since."""
        async with service.pool.acquire() as connection:
            row = await connection.fetchrow(store["report_get"], number)
            if row is None:
                raise not_found("This report")
            may_ask(who, row["agencies"])
            if form != "json":
                return in_form(form, row["figures"], heading_of(directory(), row), number)
            restated = await connection.fetch(
                store["report_restated"], row["from_day"], row["to_day"], row["agencies"], row["known"]
            )
        items = [_since(change) for change in restated] if reaches(who, row["agencies"], named=True) else []
        return JSONResponse(_published(row, restated=len(restated)) | row["figures"] | {"restatements": items})

    @api.post("/v1/index766", tags=["index"], openapi_extra=READS)
    async def compute_index(who: Asking, request: Request, body: ProvinceCounts) -> dict[str, Any]:
        """The index of Decision 766 from a province's counts."""
        formulas = formulas_on(datetime.now(UTC).date())
        wrongs: list[Wrong] = []
        for group, rules in formulas.groups.items():
            seen: set[str] = set()
            for at, line in enumerate(getattr(body, group)):
                if line.code not in rules or line.code in seen:
                    why = "This metric comes twice." if line.code in seen else f"No metric of {group}."
                    wrongs.append(Wrong(why, f"/{group}/{at}/code"))
                seen.add(line.code)
        if wrongs:
            raise Problem(422, "unknown-metric", wrongs[0].detail, wrongs)
        return index766(await request.json(), formulas)  # as it was sent: the answer keeps its order

    @api.get("/v1/index766", tags=["index"])
    async def own(
        who: Asking,
        agency: Agency,
        first: Annotated[Day, Query(alias="from")],
        last: Annotated[Day, Query(alias="to")],
        subtree: bool = False,
        as_of: Instant | None = None,
        known_at: Instant | None = None,
    ) -> dict[str, Any]:
        """The index from this site's own events; a metric without a source is null and named in `missing`."""
        period = Asked(agency, first, last, subtree, "receiving", as_of, known_at)
        question = await asked(who, period)
        entry = directory().agency(period.agency)
        formulas = formulas_on(period.last)
        async with service.pool.acquire() as connection, at_one_instant(connection):
            entered = await entered_counts(store, connection, question, period.first, period.last)
            return await own_index(
                store, connection, question, formulas, code=entry.code, name=entry.name, entered=entered
            )

    @api.get("/v1/ranking", tags=["figures"])
    async def rank(
        who: Asking,
        agency: Agency,
        first: Annotated[Day | None, Query(alias="from")] = None,
        last: Annotated[Day | None, Query(alias="to")] = None,
        subtree: bool = True,
        of: Annotated[Literal["agency", "procedure"], Query(description="What is ranked.")] = "agency",
        by: By = "receiving",
        as_of: Instant | None = None,
        known_at: Instant | None = None,
        procedure: Code = None,
        field: Code = None,
        channel: Channel | None = None,
    ) -> dict[str, Any]:
        """The agencies below one (with it), or its procedures, by their progress, the best first; by default of this month.

        `moved` are the places gained since the period before, of the same length. Small ones are named without figures.
        """
        this = month_of(local_day(datetime.now(UTC)))
        period = Asked(
            agency, first or str(this[0]), last or str(this[1]), subtree, by, as_of, known_at, procedure, field, channel
        )
        question = await asked(who, period)
        before = replace(question, period=period_before(period.first, period.last))
        async with service.pool.acquire() as connection, at_one_instant(connection):
            rows = await store.figures_by(connection, question, of)
            rows_before = await store.figures_by(connection, before, of)
        formulas = formulas_on(period.last)
        names = names_of(directory(), of)
        items = moved(
            ranking(rows, names, formulas, settings.group, of),
            ranking(rows_before, names, formulas, settings.group, of),
            of,
        )
        return page(items, 0, of)

    @api.get("/v1/index766/levers", tags=["index"])
    async def index_levers(
        who: Asking,
        agency: Agency,
        first: Annotated[Day, Query(alias="from")],
        last: Annotated[Day, Query(alias="to")],
        subtree: bool = False,
    ) -> dict[str, Any]:
        """What would raise the index most: per metric the points that are missing, and for how many dossiers."""
        period = Asked(agency, first, last, subtree)
        question = await asked(who, period)
        entry = directory().agency(period.agency)
        async with service.pool.acquire() as connection, at_one_instant(connection):
            index = await own_index(
                store,
                connection,
                question,
                formulas_on(period.last),
                code=entry.code,
                name=entry.name,
                entered=await entered_counts(store, connection, question, period.first, period.last),
            )
        asked_of = {"agency": period.agency, "from": str(period.first), "to": str(period.last), "subtree": subtree}
        return page([lever | {"behind": behind_lever(lever["field"], asked_of)} for lever in levers(index)], 0, "field")

    @api.get("/v1/index766/dossiers", tags=["index"])
    async def index_dossiers(
        who: Asking,
        agency: Agency,
        first: Annotated[Day, Query(alias="from")],
        last: Annotated[Day, Query(alias="to")],
        metric: Annotated[str, Query(max_length=100, description="`field` of a lever.")],
        subtree: bool = False,
        as_of: Instant | None = None,
        known_at: Instant | None = None,
        cursor: Cursor = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = PAGE,
    ) -> dict[str, Any]:
        """The dossiers behind a lever: those that the metric counts and that keep it from its full score."""
        if metric not in BEHIND_LEVERS:
            names = ", ".join(sorted(BEHIND_LEVERS))
            raise invalid(f"Dossiers stand behind {names}.", "/metric", "unknown-metric")
        question = await asked(who, Asked(agency, first, last, subtree, "receiving", as_of, known_at), named=True)
        async with service.pool.acquire() as connection:
            rows = await store.behind_index(connection, question, metric, cursor or "", limit)
        return page([_behind(row) for row in rows], limit, "code")

    @api.post("/v1/index766/entered", tags=["index"], status_code=201)
    async def enter(
        who: Annotated[Principal, Depends(one_of(Role.LEADER))], request: Request, body: Entered
    ) -> Response:
        """What no event tells, as an agency counted it for a period; the newest stands, null takes it back."""
        agency = agencies_of(known_agency(body.agency), False)[0]
        may_ask(who, [agency], named=True)
        first, last = _a_day(body.first), _a_day(body.last)
        if last < first:
            raise invalid("to is before from.", "/to", "period-inverted")
        allowed = entered_metrics(formulas_on(last))
        if body.metric not in allowed:
            raise invalid(f"What is entered is one of {', '.join(sorted(allowed))}.", "/metric", "not-entered")
        if (body.numerator is None) != (body.denominator is None):
            raise invalid("Both counts, or neither.", "/denominator", "half-a-ratio")
        if (body.numerator or 0) > (body.denominator or 0):
            raise invalid("This is more than all.", "/numerator", "over-the-whole")

        async def act(connection: Any) -> Answer:
            counts = body.numerator, body.denominator
            await connection.execute(store["entered_put"], agency, body.metric, first, last, *counts, who.subject)
            told = {"agency": agency, "metric": body.metric, "from": first.isoformat(), "to": last.isoformat()}
            return Answer(201, told | {"numerator": counts[0], "denominator": counts[1], "who": who.subject})

        return await writes.write(request, who, act)

    @api.get("/v1/index766/entered", tags=["index"])
    async def entered_list(
        who: Asking,
        agency: Agency,
        first: Annotated[Day, Query(alias="from")],
        last: Annotated[Day, Query(alias="to")],
        subtree: bool = False,
        known_at: Instant | None = None,
    ) -> dict[str, Any]:
        """What was entered for just this period, by whom and when."""
        period = Asked(agency, first, last, subtree, "receiving", None, known_at)
        question = await asked(who, period)
        async with service.pool.acquire() as connection:
            rows = await store.entered(connection, question.agencies, period.first, period.last, question.known)
        return page([_behind(row) for row in rows if row["denominator"] is not None], 0, "agency")

    @api.get("/v1/forecast", tags=["figures"])
    async def get_forecast(
        who: Asking,
        agency: Agency,
        subtree: bool = False,
        days: Annotated[int, Query(ge=1, le=60)] = 7,
        limit: Annotated[int, Query(ge=0, le=1000)] = PAGE,
    ) -> dict[str, Any]:
        """What falls due in the next days, how much of it will be late at the present pace, and which dossiers likeliest."""
        code = known_agency(agency)
        agencies = agencies_of(code, subtree)
        may_ask(who, agencies, named=True)
        now = datetime.now(UTC)
        async with service.pool.acquire() as connection:
            pace = await store.pace(connection, agencies, now)
            pending = await store.open_until(connection, agencies, now, days)
        found = forecast.chances(pace, pending, now, days)
        return {
            "agency": code,
            "as_of": local_text(now),
            "days": [
                {"day": day.isoformat(), "due": due, "late": half_up(late)}
                for day, due, late in forecast.by_day(found, now, days)
            ],
            "agencies": [
                {"agency": whose, "due": due, "late": half_up(late)} for whose, due, late in forecast.by_agency(found)
            ],
            "dossiers": [
                {
                    "code": chance.dossier.code,
                    "agency": chance.dossier.agency,
                    "procedure": chance.dossier.procedure,
                    "due_at": local_text(chance.dossier.due_at),
                    "chance": half_up(chance.late),
                }
                for chance in found[:limit]
            ],
            "rule": forecast.RULE,
        }

    @api.get("/v1/restatements", tags=["figures"])
    async def restatements(
        who: Asking,
        agency: Agency,
        subtree: bool = False,
        cursor: Annotated[str | None, Query(pattern=r"^\d{1,18}$")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = PAGE,
    ) -> dict[str, Any]:
        """What changed figures of periods that were closed or asked for: the dossier, by how much, because of which event."""
        agencies = agencies_of(known_agency(agency), subtree)
        may_ask(who, agencies, named=True)
        async with service.pool.acquire() as connection:
            rows = await connection.fetch(store["restatements"], agencies, int(cursor or 0), limit)
        return {
            "items": [_restatement(row) for row in rows],
            "next_cursor": str(rows[-1]["number"]) if len(rows) == limit else None,
        }

    @api.get("/v1/freshness", tags=["figures"])
    async def get_freshness(who: Asking) -> dict[str, Any]:
        """Up to which instant everything that was recorded is counted."""
        allow(who, *READERS)
        async with service.pool.acquire() as connection:
            return await fresh(connection)

    @api.post("/v1/rebuild", tags=["operators"])
    async def rebuild_now(
        who: Asking,
        source: Annotated[
            Source, Query(alias="from", description="The owners' logs, or what the topics hold.")
        ] = "log",
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Promise 8: recomputes all figures beside the live ones, names every difference, and switches in one step."""
        allow(who, Role.OPERATOR, Role.SERVICE)
        return (await rebuild(service, store, source=source, dry_run=dry_run)).as_dict()

    # -- pages

    async def view_of(request: Request, agency: str | None, wall: bool) -> View:
        """403 for who asks beyond what his token reaches; anybody sees any agency without its small groups."""
        who, top = await visits.visitor(request), dashboard.whole()
        if who is not None and who.role not in READERS and who.role is not Role.ADMIN:
            raise forbidden(f"The role {who.role} may not do this.")
        chosen = agencies_of(known_agency(agency), False)[0] if agency else None
        if who is None:
            return View(chosen or top, wall=wall, chosen=chosen is not None)
        own = who.agency if who.role in (*OWN_SCOPE, Role.LEADER) and who.agency in directory().agencies else None
        alone = own is not None and who.role in OWN_SCOPE and not who.subtree
        view = View(chosen or own or top, True, wall, chosen is not None, alone)
        may_ask(who, sorted(directory().scope(view.agency, not alone)), named=True)
        return view

    @api.get("/", tags=["public"], response_class=HTMLResponse)
    async def page_for_all(request: Request, agency: Agency | None = None, wall: bool = False) -> HTMLResponse:
        """The dashboard: for anybody without small groups, for who is logged in exactly and within his reach."""
        return HTMLResponse(await dashboard.html(await view_of(request, agency, wall)), headers=SAFE)

    @api.get("/live", include_in_schema=False)
    async def live(request: Request, agency: Agency | None = None, wall: bool = False) -> Response:
        """Server-sent events: the version of the page's figures, whenever it changes."""
        view = await view_of(request, agency, wall)
        if listening.locked():
            raise Problem(503, "too-many", "Too many pages listen.", headers={"Retry-After": "30"})

        async def stream() -> AsyncIterator[str]:
            async with listening:
                async for version in dashboard.versions(view):
                    yield f"event: figures\ndata: {version}\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    @api.get("/dashboard.js", include_in_schema=False)
    async def script() -> Response:
        return Response(SCRIPT, media_type="text/javascript; charset=utf-8", headers={"Cache-Control": "max-age=3600"})

    @api.get("/session", include_in_schema=False)
    async def login_page() -> Response:
        return visits.form(status=200)

    @api.post("/session", include_in_schema=False)
    async def log_in(request: Request) -> Response:
        return await visits.begin(request)

    @api.post("/session/end", include_in_schema=False)
    async def log_out() -> Response:
        return visits.end()

    @api.get("/dossiers", include_in_schema=False)
    async def behind_page(
        request: Request,
        who: Annotated[Principal, Depends(visits.known)],
        period: Period_,
        cell: str,
        cursor: Cursor = None,
    ) -> Response:
        """The dossiers behind a number of the page; without a token the login form."""
        if cell not in CELLS:
            raise invalid(f"A cell is one of {', '.join(sorted(CELLS))}.", "/cell", "unknown-cell")
        question = await asked(who, period, named=True)
        async with service.pool.acquire() as connection:
            rows = await store.behind(connection, question, cell, cursor or "", PAGE)
        following = {**request.query_params, "cursor": rows[-1]["code"]} if len(rows) >= PAGE else None
        return HTMLResponse(dossiers_page(rows, directory(), question, period.agency, cell, following), headers=SAFE)

    @api.get("/report", include_in_schema=False)
    async def report_for_page(
        who: Annotated[Principal, Depends(visits.known)],
        period: Period_,
        rows: ii06a.Rows = "field",
        form: Form = "html",
    ) -> Response:
        """Report II.06a for who is logged in on the page."""
        return await report(who, period, rows, form)

    return api


def page(items: list[dict[str, Any]], limit: int, key: str) -> dict[str, Any]:
    """A list as the contract has it; with a limit of 0 it is whole."""
    more = bool(limit) and len(items) >= limit
    return {"items": items, "next_cursor": items[-1][key] if more else None}


def _behind(row: Any) -> dict[str, Any]:
    return {name: local_text(value) if isinstance(value, datetime) else value for name, value in row.items()}


def _restatement(row: Any) -> dict[str, Any]:
    return {
        "dossier": row["dossier"],
        "agency": row["agency"],
        "from": row["from_day"].isoformat(),
        "to": row["to_day"].isoformat(),
        "changes": row["changes"],
        "because": {"event": str(row["event"]), "type": row["type"]},
        "happened": local_text(row["happened"]),
        "known_since": local_text(row["known"]),
        "reports": row["reports"],
    }


def _since(row: Any) -> dict[str, Any]:
    """A restatement of a published report's period."""
    return {
        "dossier": row["dossier"],
        "agency": row["agency"],
        "changes": row["changes"],
        "because": {"event": str(row["event"]), "type": row["type"]},
        "happened": local_text(row["happened"]),
        "known_since": local_text(row["known"]),
    }


def _published(row: Any, restated: int = 0) -> dict[str, Any]:
    """What a published report is, without its figures."""
    return {
        "number": row["number"],
        "report": row["report"],
        "agency": row["agency"],
        "agencies": len(row["agencies"]),
        "by": row["by"],
        "rows_by": row["rows"],
        "from": row["from_day"].isoformat(),
        "to": row["to_day"].isoformat(),
        "as_of": local_text(row["judged"]),
        "known_at": local_text(row["known"]),
        "published_at": local_text(row["published"]),
        "scheduled": row["publisher"] == SCHEDULE,
        "restated": restated,
    }
