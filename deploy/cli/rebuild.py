"""`lienthong rebuild stats`: promise 8, rebuilt = live."""

import asyncio
from typing import Any

import typer

from deploy.cli.console import print_json, say
from deploy.cli.options import AsJson, Data
from deploy.cli.site import SiteClient, find_site

app = typer.Typer(help="Compute again what is derived from the events.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def rebuild() -> None:
    """Compute again what is derived from the events."""


@app.command()
def stats(data: Data = None, as_json: AsJson = False) -> None:
    """Compute the indicators again from the log, and say where they differ from the live ones. Exit 1 if they do.

    \b
    Example:
      lienthong rebuild stats --data ./data/site
    """
    report = asyncio.run(_rebuild(data))
    if as_json:
        print_json(report)
    else:
        say(
            f"{report['events']} events of {report['dossiers']} dossiers in {report['seconds']} s"
            f" ({report['events_per_second']} a second): {'equal' if report['equal'] else 'different'}."
        )
        for difference in report["differences"]:
            say(f"  {difference['key']} in {difference['table']}")
    if not report["equal"]:
        raise typer.Exit(1)


async def _rebuild(data: Any) -> dict[str, Any]:
    async with SiteClient(find_site(data), who="rebuild stats", timeout=3600.0) as client:
        report: dict[str, Any] = await client.post("stats", "/v1/rebuild", {})
    return report
