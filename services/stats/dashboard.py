"""The public page: today, this month, what is overdue by agency, the trend, and how fresh all that is.

Anybody may see it, so small groups are suppressed and no dossier is named; a number links to the dossiers behind it,
which need a token. It needs no script and nothing from elsewhere.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from services.stats.figures import freshness, indicators, suppressed
from services.stats.indicator import Period, last_instant, local_midnight, month_of
from services.stats.pages import templates
from services.stats.settings import StatsSettings
from services.stats.store import Question, Store
from shared.contracts.codes import LOCAL_ZONE, local_day
from shared.service import Service

DAYS = 30
WIDTH, HEIGHT = 600, 160


@dataclass(frozen=True, slots=True)
class Bar:
    """One day of the trend: how high its two bars stand, in the units of the drawing; None is not shown."""

    day: date
    x: float
    received: float | None
    resolved: float | None


class Dashboard:
    """Renders the page, and keeps it for some seconds: a crowd costs the database as much as one reader."""

    def __init__(self, service: Service, store: Store, settings: StatsSettings, topics: Sequence[str]) -> None:
        self._service, self._store, self._settings, self._topics = service, store, settings, topics
        self._template = templates().get_template("dashboard.html")
        self._kept, self._until = "", 0.0
        self._making = asyncio.Lock()

    async def html(self) -> str:
        async with self._making:
            if time.monotonic() >= self._until:
                self._kept = self._template.render(await self._figures())
                self._until = time.monotonic() + self._settings.dashboard_keeps
            return self._kept

    async def _figures(self) -> dict[str, Any]:
        directory = self._service.directory.current
        now = datetime.now(UTC)
        today = local_day(now)
        root = _root(directory.agencies, directory.site_code)
        agencies = sorted(directory.agencies)
        group = self._settings.group
        first, last = month_of(today)
        async with self._service.pool.acquire() as connection:
            blocks = []
            for title, since, until in (("Hôm nay", today, today), ("Tháng này", first, last)):
                period = Period(local_midnight(since), min(now, last_instant(until)))
                numbers = await indicators(self._store, connection, Question(agencies, period, now))
                link = {"agency": root, "subtree": "true", "from": since.isoformat(), "to": until.isoformat()}
                blocks.append({"title": title, "link": urlencode(link), **suppressed(numbers, group)})
            question = Question(agencies, Period(local_midnight(first), now), now)
            rows = await self._store.figures_by(connection, question, "agency")
            trend = await connection.fetch(
                self._store["trend"], agencies, local_midnight(today - timedelta(days=DAYS - 1))
            )
            fresh = await freshness(
                connection, self._service.store_queries["complete"], directory.site_code, self._topics
            )
        overdue = [
            {
                "code": row["part"],
                "name": directory.agencies[row["part"]].name,
                "overdue": hidden(row["overdue"], group),
                "pending": hidden(row["pending"], group),
                "link": urlencode({"agency": row["part"], "from": first.isoformat(), "to": last.isoformat()}),
            }
            for row in sorted(rows, key=lambda r: (-r["overdue"], r["part"]))
            if row["pending"]
        ]
        return {
            "site": directory.site_name,
            "now": now.astimezone(LOCAL_ZONE).strftime("%H:%M ngày %d/%m/%Y"),
            "blocks": blocks,
            "overdue": overdue,
            "group": group,
            "days": DAYS,
            "complete_to": _moment(fresh["complete_to"]),
            **drawn(today, {r["day"]: (r["received"], r["resolved"]) for r in trend}, group),
        }


def _root(agencies: Mapping[str, Any], site: str) -> str:
    """The agency whose subtree is the site: the one with the site's code, else the first without a parent."""
    if site in agencies:
        return site
    return min((code for code, agency in agencies.items() if agency.parent is None), default=site)


def _moment(text: str | None) -> str | None:
    return None if text is None else datetime.fromisoformat(text).strftime("%H:%M:%S ngày %d/%m/%Y")


def hidden(count: int, group: int) -> int | None:
    return None if 0 < count < group else count


def drawn(today: date, counts: Mapping[date, tuple[int, int]], group: int) -> dict[str, Any]:
    """The trend as bars, the highest as high as the drawing, and the same numbers as a table."""
    span = [today - timedelta(days=back) for back in reversed(range(DAYS))]
    told = [(day, [hidden(count, group) for count in counts.get(day, (0, 0))]) for day in span]
    highest = max((count for _, pair in told for count in pair if count is not None), default=0) or 1
    step = WIDTH / DAYS
    bars = []
    for index, (day, pair) in enumerate(told):
        received, resolved = (None if count is None else round(count * HEIGHT / highest, 1) for count in pair)
        bars.append(Bar(day, round(index * step, 1), received, resolved))
    trend = [(day, *pair) for day, pair in told]
    return {"bars": bars, "trend": trend, "highest": highest, "width": WIDTH, "height": HEIGHT, "step": step}
