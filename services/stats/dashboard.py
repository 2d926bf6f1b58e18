"""The page for a leader: today, this month, what is overdue and who has it, the trend, and how fresh all that is.

Anybody may see it; small groups are then suppressed. Who is logged in sees exact figures of what his token reaches. Each
number leads to the dossiers behind it, which need a token. It needs no script and nothing from elsewhere.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

import orjson

from services.stats import forecast
from services.stats.chart import days_up_to, drawn, hidden
from services.stats.figures import freshness, indicators, moved, names_of, ranking, suppressed
from services.stats.index766 import formulas_on
from services.stats.indicator import Period, half_up, last_instant, local_midnight, month_of
from services.stats.pages import templates
from services.stats.settings import StatsSettings
from services.stats.store import Question, Store, at_one_instant
from shared.contracts.codes import LOCAL_ZONE, local_day
from shared.service import Service
from shared.store.pool import Connection

DAYS = 30
AHEAD = 7
KEPT_VIEWS = 64
PACE_KEPT = 600.0  # seconds: how long dossiers take at present does not change from one minute to the next
GOOD, SLOW = Fraction(95, 100), Fraction(80, 100)


@dataclass(frozen=True, slots=True)
class View:
    """What one reader sees: of which agency with all below it, and whether exactly. `chosen`: not the whole site."""

    agency: str
    exact: bool = False
    wall: bool = False
    chosen: bool = False
    alone: bool = False  # the agency without those below it


class Dashboard:
    """Gathers and renders the page, and keeps it for some seconds: a crowd costs the database as much as one reader."""

    def __init__(
        self,
        service: Service,
        store: Store,
        settings: StatsSettings,
        topics: Sequence[str],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._service, self._store, self._settings, self._topics, self._now = service, store, settings, topics, now
        self._kept: OrderedDict[View, tuple[str, str, float]] = OrderedDict()  # page, version, until
        self._paces: dict[View, tuple[forecast.Pace, float]] = {}
        self._making = asyncio.Lock()

    def whole(self) -> str:
        """The agency whose subtree is the site: the one with the site's code, else the first without a parent."""
        directory = self._service.directory.current
        if directory.site_code in directory.agencies:
            return directory.site_code
        tops = (code for code, agency in directory.agencies.items() if agency.parent is None)
        return min(tops, default=directory.site_code)

    async def html(self, view: View) -> str:
        return (await self._page(view))[0]

    async def version(self, view: View) -> str:
        """Changes when a figure on the page does."""
        return (await self._page(view))[1]

    async def versions(self, view: View) -> AsyncIterator[str]:
        """The version now, and each new one; the same again from time to time, so that a line that broke is noticed."""
        while self._service.started:
            yield await self.version(view)
            await asyncio.sleep(max(1.0, self._settings.dashboard_keeps))

    async def _page(self, view: View) -> tuple[str, str]:
        async with self._making:
            page, version, until = self._kept.get(view, ("", "", 0.0))
            if time.monotonic() >= until:
                figures = await self._figures(view)
                told = {name: value for name, value in figures.items() if name not in ("now", "instant", "sites")}
                version = sha256(orjson.dumps(told, default=str)).hexdigest()[:16]
                page = templates().get_template("dashboard.html").render(**figures, version=version)
                self._kept[view] = page, version, time.monotonic() + self._settings.dashboard_keeps
                self._kept.move_to_end(view)
                if len(self._kept) > KEPT_VIEWS:
                    self._kept.popitem(last=False)
            return page, version

    async def _figures(self, view: View) -> dict[str, Any]:
        directory, store = self._service.directory.current, self._store
        now = self._now()
        today = local_day(now)
        whole = view.agency == self.whole()
        agencies = sorted(directory.agencies if whole else directory.scope(view.agency, not view.alone))
        group = 1 if view.exact else self._settings.group
        month, before = month_of(today), month_of(today.replace(day=1) - timedelta(days=1))
        async with self._service.pool.acquire() as connection, at_one_instant(connection):
            blocks = []
            for title, since, until in spans(today):
                question = Question(
                    agencies, Period(local_midnight(since), min(now, last_instant(until))), now, now=True
                )
                numbers = await indicators(store, connection, question)
                shown = numbers if view.exact else suppressed(numbers, group)
                blocks.append({"title": title, "link": _link(view, since, until), **shown})
            question = Question(agencies, Period(local_midnight(month[0]), now), now)
            rows = await store.figures_by(connection, question, "agency")
            past = Question(agencies, Period(local_midnight(before[0]), last_instant(before[1])), now)
            rows_before = await store.figures_by(connection, past, "agency")
            trend = await connection.fetch(store["trend"], agencies, local_midnight(today - timedelta(days=DAYS - 1)))
            overdue = await connection.fetch(store["overdue_now"], agencies, now)
            petitions = await store.petitions(connection, question)
            ahead = await self._ahead(connection, view, agencies, now) if view.exact else []
            fresh = await freshness(connection, store, self._service.store_queries["complete"], directory, self._topics)
        place = directory.site_name if whole else directory.agency(view.agency).name
        formulas, names = formulas_on(today), names_of(directory, "agency")
        ranks = moved(ranking(rows, names, formulas, group), ranking(rows_before, names, formulas, group))
        return {
            "site": directory.site_name,
            "place": place,
            "chosen": view.agency if view.chosen else "",
            "wall": view.wall,
            "exact": view.exact,
            "now": now.astimezone(LOCAL_ZONE).strftime("%H:%M ngày %d/%m/%Y"),
            "instant": now.astimezone(LOCAL_ZONE).isoformat(timespec="seconds"),
            "blocks": blocks,
            "overdue": _overdue(overdue, directory.agencies, group, now, month),
            "tiles": [tile for row in ranks if (tile := _tile(row, rows, group)) is not None],
            "trend": drawn(days_up_to(today, DAYS), {r["day"]: (r["received"], r["resolved"]) for r in trend}, group),
            "days": DAYS,
            "ahead": ahead or [(day, None, None) for day in days_up_to(today + timedelta(days=AHEAD - 1), AHEAD)],
            "rule": forecast.RULE,
            "ranking": [row for row in ranks if not row["suppressed"]],
            "petitions": {name: hidden(petitions[name], group) for name in ("counted", "on_time", "content")},
            "sites": [
                {
                    "name": _name(directory.agencies, site["site"], directory),
                    "complete_to": _moment(site["complete_to"]),
                    "last_word": _moment(site["last_word"]),
                }
                for site in fresh["sites"]
            ],
            "group": group,
        }

    async def _ahead(
        self, connection: Connection, view: View, agencies: Sequence[str], now: datetime
    ) -> list[tuple[date, int, float]]:
        key = View(view.agency, alone=view.alone)
        pace, until = self._paces.get(key, (None, 0.0))
        if pace is None or time.monotonic() >= until:
            pace = await self._store.pace(connection, agencies, now)
            self._paces[key] = pace, time.monotonic() + PACE_KEPT
        found = await self._store.open_until(connection, agencies, now, AHEAD)
        rows = forecast.by_day(forecast.chances(pace, found, now, AHEAD), now, AHEAD)
        return [(day, due, half_up(late)) for day, due, late in rows]


def spans(today: date) -> list[tuple[str, date, date]]:
    """Today, this month, this year, each with its first and last day."""
    return [
        ("Hôm nay", today, today),
        ("Tháng này", *month_of(today)),
        ("Năm nay", today.replace(month=1, day=1), today.replace(month=12, day=31)),
    ]


def _link(view: View, first: date, last: date) -> str:
    subtree = "false" if view.alone else "true"
    return urlencode({"agency": view.agency, "subtree": subtree, "from": first.isoformat(), "to": last.isoformat()})


def _overdue(
    rows: Sequence[Any], agencies: Mapping[str, Any], group: int, now: datetime, month: tuple[date, date]
) -> list[dict[str, Any]]:
    def name(code: str) -> str:
        return str(agencies[code].name) if code in agencies else code

    return [
        {
            "holder": name(row["holder"]),
            "name": name(row["agency"]),
            "overdue": hidden(row["overdue"], group),
            "days": None if hidden(row["overdue"], group) is None else (now - row["oldest"]).days,
            "link": urlencode({"agency": row["agency"], "from": month[0].isoformat(), "to": month[1].isoformat()}),
        }
        for row in rows
    ]


def _tile(row: Mapping[str, Any], counts: Sequence[Any], group: int) -> dict[str, Any] | None:
    """One agency at a glance. What its colour says stands there as a word as well."""
    found = next((each for each in counts if each["part"] == row["agency"]), None)
    if found is None:
        return None
    # The rest of a whole that is shown gives a part away.
    few = None in (hidden(found["overdue"], group), hidden(found["pending"] - found["overdue"], group))
    tile = {
        "code": row["agency"],
        "name": row["name"] or row["agency"],
        "overdue": None if few else found["overdue"],
        "pending": hidden(found["pending"], group),
        "ratio": None,
        "mark": "few",
        "word": "ít hồ sơ",
    }
    if row["suppressed"]:
        return tile
    share = Fraction(row["progress"]["on_time"], row["progress"]["counted"])
    mark, word = ("good", "tốt") if share >= GOOD else ("slow", "chậm") if share < SLOW else ("fair", "cần chú ý")
    return tile | {"ratio": row["progress"]["ratio"], "mark": mark, "word": word}


def _name(agencies: Mapping[str, Any], code: str, directory: Any) -> str:
    return str(
        agencies[code].name if code in agencies else directory.site_name if code == directory.site_code else code
    )


def _moment(text: str | None) -> str | None:
    return None if text is None else datetime.fromisoformat(text).strftime("%H:%M:%S ngày %d/%m/%Y")
