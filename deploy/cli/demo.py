"""`lienthong demo`: the articles' cases, a live day and a line that is cut, on three sites of its own."""

import asyncio
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from deploy.cli import reconcile
from deploy.cli.console import err, out, print_json, progress
from deploy.cli.errors import CommandFailed
from deploy.cli.options import AsJson

if TYPE_CHECKING:
    from deploy.demo.run import Report

_COLOURS = {"equal": "green", "misprint": "cyan", "recorded": "dim", "different": "red"}


def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="DIR", help="Keeps the demo's sites there; without it they are removed at the end."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the whole system on three sites, a ward, its area's land office, the province: a day of today, registers of five
    articles imported while the ward's line is cut, every figure and every ledger compared.

    KEEP=1 leaves the sites up until Ctrl-C. Takes a minute and a half. Exit 1 if a figure differs or a count is not equal.

    \b
    Examples:
      lienthong demo
      KEEP=1 lienthong demo --data ./data/demo
    """
    from deploy.demo.child import SiteFailed
    from deploy.embedded.process import EmbeddedError

    folder = data or Path(tempfile.mkdtemp(prefix="lienthong-demo-"))
    try:
        ok = asyncio.run(_run(folder, as_json))
    except (SiteFailed, EmbeddedError) as error:
        raise CommandFailed(str(error)) from None
    finally:
        if data is None:
            shutil.rmtree(folder, ignore_errors=True)
    if not ok:
        raise typer.Exit(1)


async def _run(folder: Path, as_json: bool) -> bool:
    from deploy.demo.run import Demo

    cut: list[signal.Signals] = []
    this = asyncio.current_task()
    assert this is not None

    def end(number: signal.Signals) -> None:
        if not cut:
            cut.append(number)
            this.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)
    console = err if as_json else out
    shown = False
    with progress() as bar:
        task = bar.add_task("starting", total=None)
        running = Demo(
            folder, lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
        )
        try:
            report = await running.run()
            bar.stop()
            _show(report, console)
            if as_json:
                cases = [case.as_dict() for case in report.cases]
                answer = {"ok": report.ok, "cases": cases, "reconciled": report.reconciled, "seconds": report.seconds}
                print_json(answer)
            shown = True
            if os.environ.get("KEEP") == "1":
                console.print(f"The sites stay up until Ctrl-C; their folders are below {folder}.")
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            if shown:  # Ctrl-C is how a kept demo ends
                return report.ok
            err.print("Cut.")
            raise typer.Exit(128 + cut[0] if cut else 1) from None
        finally:
            await running.close()
    return report.ok


def _show(report: "Report", console: Console) -> None:
    """The cases, the day, the books, and where to look."""
    figures = Table(
        "case", "figure", "article", "ours", "verdict", "", title="The articles' cases", title_justify="left"
    )
    for result in report.cases:
        title = result.case.title
        for each in result.comparisons:
            verdict = f"[{_COLOURS[each.verdict]}]{each.verdict}[/]"
            ours = "" if each.ours is None else str(each.ours)
            figures.add_row(title, each.name, str(each.article), ours, verdict, each.note or "")
            title = ""
    console.print(figures)
    day = Table("a day of today", "", title="Live, through HTTP", title_justify="left")
    for name, value in _day(report):
        day.add_row(name, str(value))
    console.print(day)
    cut = Table("the ward's line", "", title="Three sites, one line cut in the middle", title_justify="left")
    for name, value in _cut(report):
        cut.add_row(name, str(value))
    console.print(cut)
    for line in (*report.day.wrong, *report.cut.wrong):
        console.print(f"[red]wrong[/] {line}")
    if report.refused:
        console.print(f"[red]wrong[/] {report.refused} register lines were refused")
    for code, account in report.accounts.items():
        reconcile.show(account, console, f"Reconciliation of {code}")
    for code, urls in report.urls.items():
        console.print(f"{code}: the dashboard {urls['stats']}/, the desk {urls['intake']}/desk")
    console.print(f"{'All is well' if report.ok else 'Something is wrong'}, {report.seconds} s.")


def _day(report: "Report") -> list[tuple[str, object]]:
    rolling = report.rolling
    return [
        ("sites", ", ".join(report.urls)),
        ("requests answered as planned", report.day.steps),
        ("dossiers filed", report.day.dossiers),
        ("acts on dossiers", report.day.moves),
        ("answers to transfers", report.day.transfers),
        ("SMS handed to the provider", report.told),
        ("received in 24 hours", rolling["received"]["total"]),
        ("resolved in 24 hours", rolling["resolved"]["total"]),
        ("pending", rolling["pending"]["total"]),
    ]


def _cut(report: "Report") -> list[tuple[str, object]]:
    cut = report.cut
    return [
        ("cut for", f"{cut.lasted} s"),
        ("meanwhile: dossiers received at the ward", cut.received),
        ("meanwhile: SMS handed to its provider", cut.told),
        ("meanwhile: transfers that waited for the line", cut.handed_over),
        ("meanwhile: envelopes that waited", ", ".join(f"{count} at {code}" for code, count in cut.waiting.items())),
        ("line back: all on the other side after", f"{cut.caught_up} s"),
        ("the ward's dossiers, as counted", ", ".join(f"{count} by {code}" for code, count in cut.counted.items())),
        ("digests of the ledgers, compared", cut.digests),
    ]
