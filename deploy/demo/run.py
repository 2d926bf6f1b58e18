"""The demo: the articles' registers imported as history, a day of today lived through HTTP, and every book compared."""

import asyncio
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from deploy.cli.books import Account, reconciled_within
from deploy.cli.errors import CommandFailed
from deploy.cli.imports import Job, Memory, Mode, Tally, send
from deploy.cli.site import KnownSite, SiteClient
from deploy.demo.cases import Case, Comparison, Verdict, compare, load_cases
from deploy.demo.child import SiteChild, SiteFailed
from deploy.demo.day import PROVINCE, live_day
from deploy.demo.play import Played, play
from deploy.demo.registers import Register, write_registers
from deploy.state import FolderLock

RECONCILED_WITHIN = 180.0
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
class Report:
    """What the demo shows."""

    cases: list[CaseResult] = field(default_factory=list)
    refused: int = 0
    day: Played = field(default_factory=Played)
    rolling: dict[str, Any] = field(default_factory=dict)
    told: int = 0
    account: Account | None = None
    dashboard: str = ""
    seconds: float = 0.0

    @property
    def reconciled(self) -> bool:
        return self.account is not None and self.account.reconciled

    @property
    def ok(self) -> bool:
        return (
            self.reconciled
            and bool(self.cases)
            and all(case.ok for case in self.cases)
            and not self.day.wrong
            and not self.refused
        )


class Demo:
    """One run of the demo below a folder. `run`, then `close`, whatever happened."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self._folder, self._progress = folder, progress
        self._data = folder / PROVINCE
        self._site = SiteChild(self._data)

    async def run(self) -> Report:
        """Raises SiteFailed, CommandFailed when a part of it cannot even be tried."""
        began = time.monotonic()
        report = Report()
        self._clear()
        ready = await self._site.start()
        site = KnownSite(
            ready["site"], ready["services"], ready["database"], ready["bus"], self._data / "keys", self._data
        )
        report.dashboard = f"{site.urls['stats']}/"
        async with SiteClient(site, who="demo", timeout=300.0) as client:
            # The day first: a desk does not wait behind years of history that are on their way.
            self._progress("a day of today", 0, 1)
            report.day, registers = await asyncio.gather(
                play(live_day(datetime.now(UTC)), site.urls, site.tokens()),
                asyncio.to_thread(write_registers, self._folder / "registers"),
            )
            report.refused = await self._import(client, registers)
            self._progress("reconciling", 0, 1)
            report.account = await reconciled_within(client, RECONCILED_WITHIN)
            report.cases = list(await asyncio.gather(*(_result(client, case) for case in load_cases())))
            report.rolling = await client.get(
                "stats", "/v1/indicators/rolling", agency=PROVINCE, subtree="true", window="24h"
            )
        report.told = _lines(self._data / "sent.ndjson")
        report.seconds = round(time.monotonic() - began, 1)
        return report

    async def close(self) -> None:
        await self._site.stop()

    def _clear(self) -> None:
        """An earlier demo's site is made anew; anything else there is left alone."""
        if self._data.exists():
            if not (self._data / MARK).exists():
                raise CommandFailed(f"{self._data} is not of a demo: give another folder.")
            lock = FolderLock(self._data)
            lock.take()
            lock.release()
            shutil.rmtree(self._data)
        self._data.mkdir(parents=True, mode=0o700)
        (self._data / MARK).touch()

    async def _import(self, client: SiteClient, registers: Sequence[Register]) -> int:
        """All registers side by side; how many lines were refused."""
        total = sum(register.lines for register in registers)
        sent = dict.fromkeys((register.case for register in registers), 0)

        async def one(register: Register) -> Tally:
            def moved(tally: Tally) -> None:
                sent[register.case] = tally.sent
                self._progress("register lines imported", sum(sent.values()), total)

            job = Job(register.path, register.case, Mode.HISTORY)
            return await send(client, job, Memory.of(job, self._data), moved)

        tallies = await asyncio.gather(*(one(register) for register in registers))
        return sum(tally.refused for tally in tallies)


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
