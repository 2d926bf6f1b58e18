"""`lienthong site load`: agencies, procedures, calendars, templates and providers from a bundle."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli.console import complain, err, print_json, say, table
from deploy.cli.errors import CommandFailed
from deploy.cli.options import AsJson, Data, DryRun
from deploy.cli.site import KnownSite, ServiceAway, ServiceRefused, SiteClient, find_site
from deploy.state import SERVICES

if TYPE_CHECKING:
    from shared.directory.merge import Difference

SEEN_WITHIN = 10.0  # seconds in which a running service sees a load; each looks twice a second

app = typer.Typer(
    help="What the site knows of agencies, procedures, calendars.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def site() -> None:
    """What the site knows of agencies, procedures, calendars."""


@app.command("load")
def load(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A bundle, YAML or JSON.")],
    data: Data = None,
    dry_run: DryRun = False,
    move_open: Annotated[
        bool, typer.Option("--move-open", help="Also move the due dates of open dossiers to a new calendar version.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Load a bundle into the site. What it changes is shown first; loaded twice, it changes nothing the second time.

    A refused bundle changes nothing; each fault is one line: file, JSON Pointer, reason.

    \b
    Examples:
      lienthong site load commune.yaml --data ./data/site --dry-run
      lienthong site load commune.yaml --data ./data/site
      lienthong site load calendar-2027.yaml --data ./data/site --move-open
    """
    from shared.directory.faults import BundleFault

    try:
        asyncio.run(_load(find_site(data), file, dry_run, move_open, as_json))
    except BundleFault as fault:
        complain(fault.lines())
        raise typer.Exit(1) from None


async def _load(site: KnownSite, file: Path, dry_run: bool, move_open: bool, as_json: bool) -> None:
    import asyncpg

    from deploy.site import load_file
    from shared.store.pool import TRANSIENT_ERRORS, connect

    try:
        connection = await connect(site.database)
    except (*TRANSIENT_ERRORS, asyncpg.PostgresError) as error:
        raise CommandFailed(
            f"the site's database does not answer ({type(error).__name__}): {site.start_hint}."
        ) from None
    try:
        version, differences = await load_file(connection, file, who="site load", dry_run=dry_run)
    finally:
        await connection.close()
    async with SiteClient(site, who="site load") as client:
        if not as_json:
            _show(differences, version, dry_run)
        seen = dry_run or await _seen(client, version)
        moves = await _moves(client, dry_run or not move_open) if move_open or dry_run else None
    if as_json:
        changes = [asdict(difference) for difference in differences]
        print_json({"version": version, "applied": not dry_run, "differences": changes, "seen": seen, "moves": moves})
    elif moves is not None:
        _show_moves(moves, dry_run)


async def _seen(client: SiteClient, version: int) -> bool:
    """Waits until every service works with this version; says so when the site does not run."""
    waiting = set(SERVICES)
    try:
        async with asyncio.timeout(SEEN_WITHIN):
            while waiting:
                for service in sorted(waiting):
                    if (await client.get(service, "/v1/site"))["version"] >= version:
                        waiting.discard(service)
                if waiting:
                    await asyncio.sleep(0.05)
    except ServiceAway:
        err.print("The services do not run; they will work with it from their next start.")
        return False
    except TimeoutError:
        raise CommandFailed(
            f"{', '.join(sorted(waiting))} did not take version {version} within {SEEN_WITHIN:.0f} s."
        ) from None
    return True


async def _moves(client: SiteClient, dry_run: bool) -> Any:
    """Which open due dates the loaded calendars move; None when the site cannot say."""
    try:
        return await client.post("intake", "/v1/site/moves", {"dry_run": dry_run})
    except (ServiceRefused, ServiceAway):
        err.print("What this does to open dossiers is not available here.")
        return None


def _show(differences: Sequence["Difference"], version: int, dry_run: bool) -> None:
    if not differences:
        say(f"Nothing changes: this is version {version}.")
        return
    rows = [
        (each.kind, each.id, "new" if each.before is None else _short(each.before), _short(each.after))
        for each in differences
    ]
    table("This would change" if dry_run else f"Version {version}", ("what", "which", "before", "after"), rows)


def _show_moves(moves: Any, dry_run: bool) -> None:
    items = moves.get("items", [])
    verb = "would move" if dry_run else "moved"
    say(f"{len(items)} open due dates {verb}.")
    if items:
        table("Due dates", ("dossier", "before", "after"), [(m["code"], m["from"], m["to"]) for m in items[:50]])


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else text[:159] + "…"
