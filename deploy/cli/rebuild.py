"""`lienthong rebuild stats`: promise 8, rebuilt = live."""

import asyncio
from enum import StrEnum
from typing import Annotated, Any

import typer

from deploy.cli.console import print_json, say
from deploy.cli.options import AsJson, Data, DryRun
from deploy.cli.site import SiteClient, answered, find_site

app = typer.Typer(help="Compute again what is derived from the events.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def rebuild() -> None:
    """Compute again what is derived from the events."""


class Source(StrEnum):
    """Where the events come from."""

    LOG = "log"
    TOPICS = "topics"


@app.command()
def stats(
    data: Data = None,
    source: Annotated[
        Source, typer.Option("--from", help="The owners' logs in PostgreSQL, or what the topics still hold.")
    ] = Source.LOG,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Compute the indicators again beside the live ones, say where they differ, and switch at once. Exit 1 if they differ.

    The site goes on counting meanwhile; whoever asks sees the figures from before or those from after.

    \b
    Examples:
      lienthong rebuild stats --data ./data/site
      lienthong rebuild stats --dry-run --json --data ./data/site
      lienthong rebuild stats --from topics --data ./data/site
    """
    report = asyncio.run(_rebuild(data, source, dry_run))
    if as_json:
        print_json(report)
    else:
        say(
            f"{report['events']} events of {report['dossiers']} dossiers in {report['seconds']} s"
            f" ({report['events_per_second']} a second): {'equal' if report['equal'] else 'different'}."
        )
        for difference in report["differences"]:
            columns = f" ({', '.join(difference['columns'])})" if difference["is"] == "different" else ""
            say(f"  {difference['key']} in {difference['table']}: {difference['is']}{columns}")
        if unnamed := report["differing"] - len(report["differences"]):
            say(f"  and {unnamed} more")
        if not report["equal"]:
            say("The rebuilt figures are in place." if report["switched"] else "Nothing was changed.")
        if report["incomplete"]:
            say(f"The topics no longer hold all events of {report['incomplete']} keys: they were not compared.")
        if report["waiting"]:
            say(f"{report['waiting']} keys are on their way and have not been counted yet.")
    if not report["equal"]:
        raise typer.Exit(1)


async def _rebuild(data: Any, source: Source, dry_run: bool) -> dict[str, Any]:
    async with SiteClient(find_site(data), who="rebuild stats", timeout=3600.0) as client:
        asked = {"from": source.value, "dry_run": str(dry_run).lower()}
        answer = await client.ask("stats", "POST", "/v1/rebuild", params=asked)
        report: dict[str, Any] = answered("stats", answer)
    return report
