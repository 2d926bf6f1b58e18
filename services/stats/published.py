"""Published reports: frozen copies with a number, by a person or by the law's reporting days."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import structlog

from services.stats.figures import freshness, report_ii06a
from services.stats.indicator import Micros, Period, last_instant, local_midnight, micros
from services.stats.report import Heading, IdentityBroken, Rows
from services.stats.schedule import Reporting, closed, schedule_on
from services.stats.store import By, Question, Store
from shared.contracts.codes import LOCAL_ZONE, local_day
from shared.directory.directory import Directory
from shared.service import Service
from shared.store.pool import TRANSIENT_ERRORS, Connection

log = structlog.get_logger("lienthong.stats")

REPORT = "II.06a"
SCHEDULE = "schedule"  # who published what nobody asked for


@dataclass(frozen=True, slots=True)
class Wanted:
    """A report to be frozen."""

    agency: str
    agencies: Sequence[str]
    subtree: bool
    first: date
    last: date
    by: By = "receiving"
    rows: Rows = "field"

    @property
    def series(self) -> str:
        """What the editions of one report have in common."""
        name = period_name(self.first, self.last)
        tree = "-all" if self.subtree else ""
        more = "" if (self.by, self.rows) == ("receiving", "field") else f"-{self.by}-{self.rows}"
        return f"{REPORT}-{self.agency}{tree}-{name}{more}"


def period_name(first: date, last: date) -> str:
    """As short as it can be told: 2026-T11 and 2026-Q4 for the law's periods, else both days."""
    for period in closed(schedule_on(last), last.replace(day=28), within=28):
        if (period.first, period.last) == (first, last):
            return period.name
    return f"{first:%Y%m%d}-{last:%Y%m%d}"


async def publish(
    store: Store, connection: Connection, wanted: Wanted, directory: Directory, known: datetime, publisher: str
) -> str:
    """Freezes one report, in the caller's transaction; its number. Raises report.IdentityBroken."""
    judged = last_instant(wanted.last)
    period = Period(local_midnight(wanted.first), judged)
    question = Question(wanted.agencies, period, known, wanted.by)
    figures = await report_ii06a(store, connection, question, directory, wanted.rows)
    await connection.execute(store["report_lock"], wanted.series)
    edition = 1 + await connection.fetchval(store["report_editions"], wanted.series)
    number = f"{wanted.series}-{edition}"
    await connection.execute(
        store["report_put"],
        number,
        REPORT,
        wanted.agency,
        list(wanted.agencies),
        wanted.by,
        wanted.rows,
        wanted.first,
        wanted.last,
        judged,
        known,
        publisher,
        figures,
    )
    # What changes this period from now on is a restatement, and points here.
    await store.note_asked(connection, wanted.agency, wanted.subtree, wanted.first, wanted.last, judged)
    return number


def heading_of(directory: Directory, row: Any) -> Heading:
    """What stands above a published report."""
    return heading(
        directory, row["agency"], row["from_day"], row["to_day"], row["judged"], row["rows"], number=row["number"]
    )


def heading(
    directory: Directory, agency: str, first: date, last: date, judged: datetime, rows: Rows, number: str | None = None
) -> Heading:
    entry = directory.agencies.get(agency)
    above = directory.agencies.get(entry.parent) if entry is not None and entry.parent is not None else None
    return Heading(
        entry.name if entry is not None else agency,
        above.name if above is not None else None,
        first,
        last,
        judged.astimezone(LOCAL_ZONE),
        rows,
        number,
    )


class ScheduledReports:
    """The loop that publishes the law's reports on the law's days, each once, when everything of the period is counted.

    A period that ended before this site heard of its first dossier was kept elsewhere: nothing is published of it.
    """

    def __init__(self, service: Service, store: Store, topics: Sequence[str], every: float) -> None:
        self._service, self._store, self._topics, self._every = service, store, topics, every

    async def run(self) -> None:
        while True:
            self._service.beat("reports")
            try:
                await self.round(datetime.now(UTC))
            except TRANSIENT_ERRORS as error:
                log.warning("reports-not-published", error=type(error).__name__)
            await asyncio.sleep(self._every)

    async def round(self, now: datetime) -> list[str]:
        """Publishes what is due at an instant; the numbers."""
        if not self._service.directory.loaded:
            return []
        directory, today = self._service.directory.current, local_day(now)
        schedule = schedule_on(today)
        due = [
            (period, Wanted(code, agencies, subtree, period.first, period.last))
            for period in closed(schedule, today)
            for code, agencies, subtree in reporters(directory, period)
            if period.due(schedule, directory.agencies[code].level) <= today
        ]
        async with self._service.pool.acquire() as connection:
            names = [f"{wanted.series}-1" for _, wanted in due]
            done = {row["number"] for row in await connection.fetch(self._store["reports_scheduled"], names)}
            due = [entry for entry in due if f"{entry[1].series}-1" not in done]
            if not due:
                return []
            complete = (
                await freshness(
                    connection, self._store, self._service.store_queries["complete"], directory, self._topics
                )
            )["complete_to"]
            began: Micros | None = await connection.fetchval(self._store["began"])
            published = []
            for period, wanted in due:
                end = micros(last_instant(period.last))
                if complete is None or began is None or not began <= end < micros(complete):
                    continue
                self._service.beat("reports")
                async with connection.transaction():
                    try:
                        number = await publish(self._store, connection, wanted, directory, now, SCHEDULE)
                    except IdentityBroken as broken:
                        log.error("report-identity-broken", report=wanted.series, detail=str(broken))
                        continue
                published.append(number)
                log.info("report-published", report=number)
        return published


def reporters(directory: Directory, period: Reporting) -> list[tuple[str, list[str], bool]]:
    """Who reports of a period on this site: each agency in being for itself, and the one at the top for all of them."""
    own = [
        code
        for code, agency in sorted(directory.agencies.items())
        if agency.site == directory.site_code and directory.valid_on(code, period.last)
    ]
    single = [(code, [code], False) for code in own]
    top = directory.site_code
    return [*single, (top, sorted(directory.subtree(top)), True)] if top in directory.agencies else single
