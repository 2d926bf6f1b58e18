"""The demo: a day of today lived on three linked sites, the articles' registers imported as history while the line to one
of them is cut, and every book compared."""

import asyncio
import json
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from deploy.cli.books import Account, reconciled_within
from deploy.cli.errors import CommandFailed
from deploy.cli.imports import Job, Memory, Mode, Tally, send
from deploy.cli.link import digests_of
from deploy.cli.site import KnownSite, SiteClient, find_site
from deploy.demo.cases import Case, Comparison, Verdict, compare, load_cases
from deploy.demo.child import SiteChild, SiteFailed, free_base_port
from deploy.demo.day import cut_day, live_day
from deploy.demo.line import CutLine
from deploy.demo.places import AREA, HANDED_OVER, PROVINCE, SITES, UPPER, WARD, write_bundles
from deploy.demo.play import Played, play
from deploy.demo.registers import Register, write_registers
from deploy.state import FolderLock

RECONCILED_WITHIN = 180.0
HEARD_WITHIN = 60.0  # seconds that sites are given to hear what another said
LOOK_EVERY = 0.1
MARK = "lienthong-demo"  # a file in a folder that the demo made and may make anew

Progress = Callable[[str, int, int], None]  # of what, how much is done, of how much


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One article's case: its printed figures beside ours."""

    case: Case
    comparisons: Sequence[Comparison]

    @property
    def ok(self) -> bool:
        return all(comparison.verdict is not Verdict.DIFFERENT for comparison in self.comparisons)

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.case.id,
            "title": self.case.title,
            "agency": self.case.agency,
            "ok": self.ok,
            "figures": [
                {
                    "name": each.name,
                    "article": number(each.article),
                    "ours": number(each.ours),
                    "verdict": each.verdict.value,
                    "note": each.note,
                }
                for each in self.comparisons
            ],
        }


@dataclass(slots=True)
class Cut:
    """What was seen of the cut line."""

    lasted: float = 0.0  # seconds
    received: int = 0  # dossiers, at the ward, while it was cut
    told: int = 0  # SMS handed to the ward's provider while it was cut
    handed_over: int = 0  # transfers that waited
    waiting: dict[str, int] = field(default_factory=dict)  # envelopes at both ends, by site
    caught_up: float = 0.0  # seconds until all was on the other side, from the moment the line was back
    counted: dict[str, int] = field(
        default_factory=dict
    )  # dossiers that the ward received, by the site that counts them
    digests: int = 0  # of a link's day and direction, at each end
    wrong: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """What the demo shows."""

    cases: list[CaseResult] = field(default_factory=list)
    refused: int = 0
    day: Played = field(default_factory=Played)
    cut: Cut = field(default_factory=Cut)
    rolling: dict[str, Any] = field(default_factory=dict)
    told: int = 0
    accounts: Mapping[str, Account] = field(default_factory=dict)  # by site
    urls: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # of each site's services
    seconds: float = 0.0

    @property
    def reconciled(self) -> bool:
        return bool(self.accounts) and all(account.reconciled for account in self.accounts.values())

    @property
    def ok(self) -> bool:
        return (
            self.reconciled
            and bool(self.cases)
            and all(case.ok for case in self.cases)
            and not self.day.wrong
            and not self.cut.wrong
            and not self.refused
        )


class Demo:
    """One run of the demo below a folder. `run`, then `close`, whatever happened."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self._folder, self._progress = folder, progress
        self._sites: dict[str, SiteChild] = {}
        self._line = CutLine()

    async def run(self) -> Report:
        """Raises SiteFailed, CommandFailed when a part of it cannot even be tried."""
        began = time.monotonic()
        report = Report()
        self._clear()
        sites = await self._start()
        report.urls = {code: site.urls for code, site in sites.items()}
        async with AsyncExitStack() as stack:
            clients = {
                code: await stack.enter_async_context(SiteClient(site, who="demo", timeout=300.0))
                for code, site in sites.items()
            }
            await self._link(clients)
            # The day first: a desk does not wait behind years of history that are on their way.
            self._progress("a day of today", 0, 1)
            report.day, registers = await asyncio.gather(
                play(live_day(datetime.now(UTC)), sites), asyncio.to_thread(write_registers, self._folder / "registers")
            )
            await self._import_while_the_line_is_cut(clients, registers, report)
            self._progress("reconciling", 0, 1)
            accounts = await asyncio.gather(*(reconciled_within(clients[code], RECONCILED_WITHIN) for code in SITES))
            report.accounts = dict(zip(SITES, accounts, strict=True))
            await _compare(clients, report.cut)
            province = clients[PROVINCE]
            report.cases = list(await asyncio.gather(*(_result(province, case) for case in load_cases())))
            report.rolling = await _last_day(province, PROVINCE)
        report.told = sum(self._told(code) for code in SITES)
        report.seconds = round(time.monotonic() - began, 1)
        return report

    async def close(self) -> None:
        await asyncio.gather(*(site.stop() for site in self._sites.values()), self._line.close())

    def _clear(self) -> None:
        """An earlier demo's sites are made anew; anything else there is left alone."""
        folders = [self._folder / code for code in SITES]
        for data in folders:
            if data.exists():
                if not (data / MARK).exists():
                    raise CommandFailed(f"{data} is not of a demo: give another folder.")
                lock = FolderLock(data)
                lock.take()
                lock.release()
        for data in folders:
            shutil.rmtree(data, ignore_errors=True)
            data.mkdir(parents=True, mode=0o700)
            (data / MARK).touch()

    async def _start(self) -> Mapping[str, KnownSite]:
        """All three at once, each with its own bus and database."""
        self._progress("starting three sites", 0, 1)
        bundles = write_bundles(self._folder / "bundles")
        bases: list[int] = []
        for code in SITES:
            bases.append(free_base_port(bases))
            self._sites[code] = SiteChild(self._folder / code, bundles[code], bases[-1])
        await asyncio.gather(*(site.start() for site in self._sites.values()))
        return {code: find_site(self._folder / code) for code in SITES}

    async def _link(self, clients: Mapping[str, SiteClient]) -> None:
        """Invited, joined, confirmed, from the top down; the ward's line is ours to cut."""
        self._progress("linking them", 0, 1)
        for lower, upper in UPPER.items():
            bus = clients[upper].site.bus
            if lower == WARD:
                bus = f"127.0.0.1:{await self._line.open(int(bus.rpartition(':')[2]))}"
            invitation = await clients[upper].post("routing", "/v1/links/invite", {"site": lower, "bus": bus})
            reply = await clients[lower].post("routing", "/v1/links/join", {"text": json.dumps(invitation)})
            await clients[upper].post("routing", "/v1/links/confirm", {"text": json.dumps(reply)})

        async def known() -> bool:
            answers = [await clients[code].ask("intake", "GET", f"/v1/procedures/{HANDED_OVER}") for code in UPPER]
            [below] = await _links(clients[PROVINCE])
            return all(answer.is_success for answer in answers) and WARD in below["reaches"]

        await _until(known, "the sites know each other")

    async def _import_while_the_line_is_cut(
        self, clients: Mapping[str, SiteClient], registers: Sequence[Register], report: Report
    ) -> None:
        """The ward goes on alone; what it has for the others, and they for it, waits, and goes when the line is back."""
        cut, plan = report.cut, cut_day(datetime.now(UTC))
        sites = {code: client.site for code, client in clients.items()}
        before = await play(plan.before, sites)
        told, cut_at = self._told(WARD), time.monotonic()
        self._line.cut()
        meanwhile, report.refused = await asyncio.gather(
            play(plan.meanwhile, sites, before.saved), self._import(clients[PROVINCE], registers)
        )
        self._progress("the line is back", 0, 1)

        async def down() -> bool:
            return not any(link["up"] for link in await _links(clients[WARD]))

        async def drained() -> bool:
            ways = [link for code in reversed(SITES) for link in await _links(clients[code])]
            return all(link["up"] and not link["waiting"] for link in ways)

        await _until(down, "the ward sees that its line is down")
        cut.received, cut.handed_over = meanwhile.dossiers, plan.handed_over
        cut.told = self._told(WARD) - told
        for code in (WARD, AREA):
            cut.waiting[code] = sum(link["waiting"] for link in await _links(clients[code]) if link["link"] == WARD)
        back_at = time.monotonic()
        cut.lasted = round(back_at - cut_at, 1)
        self._line.mend()
        await _until(drained, "nothing waits any more")
        cut.caught_up = round(time.monotonic() - back_at, 1)
        after = await play(plan.after, sites, {**before.saved, **meanwhile.saved})
        cut.wrong += [*before.wrong, *meanwhile.wrong, *after.wrong]
        cut.wrong += [
            f"nothing waited at {code} while the line was cut" for code, count in cut.waiting.items() if not count
        ]

    def _told(self, code: str) -> int:
        return _lines(self._folder / code / "sent.ndjson")

    async def _import(self, client: SiteClient, registers: Sequence[Register]) -> int:
        """All registers side by side; how many lines were refused."""
        total = sum(register.lines for register in registers)
        sent = dict.fromkeys((register.case for register in registers), 0)

        async def one(register: Register) -> Tally:
            def moved(tally: Tally) -> None:
                sent[register.case] = tally.sent
                self._progress("register lines imported", sum(sent.values()), total)

            job = Job(register.path, register.case, Mode.HISTORY)
            return await send(client, job, Memory.of(job, self._folder / PROVINCE), moved)

        tallies = await asyncio.gather(*(one(register) for register in registers))
        return sum(tally.refused for tally in tallies)


async def _compare(clients: Mapping[str, SiteClient], cut: Cut) -> None:
    """The ward's dossiers are counted alike, once, on all three sites; both ledgers of each link are equal."""
    for code in SITES:
        cut.counted[code] = (await _last_day(clients[code], WARD))["received"]["total"]
    if len(set(cut.counted.values())) != 1:
        cut.wrong.append(f"the ward's dossiers are counted as {cut.counted}")
    for code in SITES:
        digests = await digests_of(clients[code], HEARD_WITHIN)
        cut.digests += len(digests)
        cut.wrong += [
            f"{code}: the ledgers of {each['link']} {each['direction']} differ on {each['day']}"
            for each in digests
            if not each["equal"]
        ]


async def _last_day(client: SiteClient, agency: str) -> dict[str, Any]:
    query = {"agency": agency, "subtree": "true", "window": "24h"}
    answer: dict[str, Any] = await client.get("stats", "/v1/indicators/rolling", **query)
    return answer


async def _links(client: SiteClient) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await client.get("routing", "/v1/links"))["items"]
    return items


async def _until(seen: Callable[[], Awaitable[bool]], what: str) -> None:
    """Raises CommandFailed when it is not seen."""
    loop = asyncio.get_running_loop()
    until = loop.time() + HEARD_WITHIN
    while not await seen():
        if loop.time() > until:
            raise CommandFailed(f"not within {HEARD_WITHIN:.0f} s: {what}.")
        await asyncio.sleep(LOOK_EVERY)


async def _result(client: SiteClient, case: Case) -> CaseResult:
    period = {"from": case.from_.isoformat(), "to": case.to.isoformat()}
    indicators = await client.get("stats", "/v1/indicators", agency=case.agency, by=case.by, **period)
    return CaseResult(case, [compare(figure, indicators) for figure in case.figures])


def number(value: Decimal | None) -> int | float | None:
    if value is None:
        return None
    return int(value) if value == value.to_integral_value() else float(value)


def _lines(file: Path) -> int:
    with suppress(FileNotFoundError), file.open("rb") as stream:
        return sum(1 for _ in stream)
    return 0


__all__ = ["Demo", "Report", "SiteFailed", "number"]
