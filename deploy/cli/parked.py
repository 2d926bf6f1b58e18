"""`lienthong parked`: events that could not be applied, and what is done about them (promise 4)."""

import asyncio
import getpass
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from deploy.cli.console import print_json, say, table
from deploy.cli.errors import CommandFailed
from deploy.cli.options import AsJson, Data, DryRun
from deploy.cli.site import SiteClient, find_site
from deploy.state import SERVICES, ServiceName

Key = Annotated[str, typer.Argument(metavar="KEY", help="The dossier's code (or another topic's key).")]

app = typer.Typer(
    help="Events that could not be applied: they wait, redacted, with their reason.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def parked() -> None:
    """Events that could not be applied: they wait, redacted, with their reason."""


@app.command("list")
def list_(data: Data = None, as_json: AsJson = False) -> None:
    """List what is parked in the four services, and what waits behind it.

    \b
    Example:
      lienthong parked list --data ./data/site
    """
    items = asyncio.run(_all(data, None))
    if as_json:
        print_json(items)
    elif not items:
        say("Nothing is parked.")
    else:
        columns = ("service", "number", "state", "topic", "key", "sequence", "type", "reason")
        table("Parked", columns, [[item[name] for name in columns] for item in items])


@app.command()
def show(key: Key, data: Data = None, as_json: AsJson = False) -> None:
    """Show all of a key that is parked or waits, without what the events say.

    \b
    Example:
      lienthong parked show H55.242-260302-0001 --data ./data/site
    """
    items = asyncio.run(_all(data, key))
    if not items:
        raise CommandFailed(f"nothing of {key} is parked.")
    if as_json:
        print_json(items)
        return
    for item in items:
        say(f"{item['service']} number {item['number']}: {item['state']} since {item['arrived']}")
        for name in ("topic", "key", "sequence", "event", "type", "reason", "detail", "bytes"):
            say(f"  {name}: {item[name] if item[name] is not None else ''}")


@app.command()
def replay(
    key: Annotated[str | None, typer.Argument(metavar="[KEY]", help="Without it, all that is parked.")] = None,
    data: Data = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Continue parked keys with their owner's own events. Exit 1 if a key is parked again.

    What the owner does not have is foreign, and is discarded.

    \b
    Examples:
      lienthong parked replay H55.242-260302-0001 --data ./data/site --dry-run
      lienthong parked replay --data ./data/site
    """
    results = asyncio.run(_replay(data, key, dry_run))
    if key is not None and not results:
        raise CommandFailed(f"nothing of {key} is parked.")
    if as_json:
        print_json(results)
    else:
        for done in results:
            verb = "would apply" if dry_run else "applied"
            again = "; ".join(f"parked again at {p['sequence']}: {p['reason']} {p['detail']}" for p in done["parked"])
            say(f"{done['service']} {done['topic']} {done['key']}: {verb} {done['applied']} {again}".rstrip())
        if not results:
            say("Nothing is parked.")
    if any(done["parked"] for done in results):
        raise typer.Exit(1)


@app.command()
def drop(
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="As `parked list` shows it.")],
    service: Annotated[ServiceName, typer.Option(help="Where it is parked.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is written down.")],
    data: Data = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Give one parked event up. The owner's event is then recorded as skipped; a foreign one is only discarded.

    \b
    Example:
      lienthong parked drop 7 --service stats --reason "sent by hand" --data ./data/site
    """
    done = asyncio.run(_drop(data, number, str(service), reason, dry_run))
    if as_json:
        print_json(done)
    else:
        verb = "would be " if dry_run else ""
        say(f"{done['topic']} {done['key']}: {verb}{'skipped' if done['skipped'] else 'discarded'}")


@app.command()
def acts(data: Data = None, as_json: AsJson = False) -> None:
    """List what was done with parked events: by whom, when, why, and what came of it.

    \b
    Example:
      lienthong parked acts --data ./data/site
    """
    items = asyncio.run(_acts(data))
    if as_json:
        print_json(items)
    elif not items:
        say("Nothing was done with parked events.")
    else:
        columns = ("at", "service", "who", "act", "key", "sequence", "outcome", "reason")
        table("Done", columns, [[item[name] for name in columns] for item in items])


def person() -> str:
    """Who sits at the machine: it is written down with what is done."""
    return f"{os.environ.get('SUDO_USER') or getpass.getuser()} at {socket.gethostname()}"


async def _acts(data: Path | None) -> list[dict[str, Any]]:
    """The newest of each service, in the order of time."""
    async with SiteClient(find_site(data), who="parked") as client:
        pages = await asyncio.gather(*(client.get(service, "/v1/parked/acts") for service in SERVICES))
    return sorted((item for page in pages for item in page["items"]), key=lambda item: str(item["at"]), reverse=True)


async def parked_items(client: SiteClient, key: str | None = None) -> list[dict[str, Any]]:
    """All that is parked or waits behind it, service by service."""
    items: list[dict[str, Any]] = []
    for service in SERVICES:
        cursor = None
        while True:
            page = await client.get(service, "/v1/parked", key=key, cursor=cursor)
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
    return items


async def _all(data: Path | None, key: str | None) -> list[dict[str, Any]]:
    async with SiteClient(find_site(data), who="parked") as client:
        return await parked_items(client, key)


async def _replay(data: Path | None, key: str | None, dry_run: bool) -> list[dict[str, Any]]:
    async with SiteClient(find_site(data), who=person()) as client:
        places = _places(await parked_items(client, key))
        results = []
        for service, topic, name in places:
            body = {"topic": topic, "key": name, "dry_run": dry_run}
            results.append({"service": service, **await client.post(service, "/v1/parked/replay", body)})
        return results


def _places(items: Sequence[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return list(dict.fromkeys((item["service"], item["topic"], item["key"]) for item in items))


async def _drop(data: Path | None, number: int, service: str, reason: str, dry_run: bool) -> dict[str, Any]:
    async with SiteClient(find_site(data), who=person()) as client:
        body = {"number": number, "reason": reason, "dry_run": dry_run}
        done: dict[str, Any] = await client.post(service, "/v1/parked/drop", body)
        return done
