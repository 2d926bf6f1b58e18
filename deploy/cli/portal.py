"""`lienthong portal`: the portals that are kept up to date, and what they refused."""

import asyncio
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from deploy.cli.console import print_json, say, table
from deploy.cli.errors import WrongUse
from deploy.cli.options import AsJson, Data
from deploy.cli.site import SiteClient, find_site

app = typer.Typer(
    help="The province's and the nation's portals: how they stand, and sending again.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def portal() -> None:
    """The province's and the nation's portals: how they stand, and sending again."""


@app.command()
def status(data: Data = None, as_json: AsJson = False) -> None:
    """Show each portal: whether it answers, what waits, what it refused with its own reason. Counted up to 10,000.

    \b
    Example:
      lienthong portal status --data ./data/site
    """
    items = asyncio.run(_status(data))
    if as_json:
        print_json(items)
        return
    if not items:
        say("The bundle names no portals.")
        return
    columns = ("name", "unit", "version", "waiting", "sent", "refused", "oldest_waiting", "down_since", "error")
    table("Portals", columns, [[item[name] for name in columns] for item in items])
    for item in items:
        for refusal in item["refusals"]:
            say(f"{item['name']} refused {refusal['code']}: {refusal['reason']}")


@app.command()
def resend(
    code: Annotated[str | None, typer.Argument(metavar="[CODE]", help="One dossier.")] = None,
    portal: Annotated[str | None, typer.Option("--portal", metavar="NAME", help="One portal; else all.")] = None,
    refused: Annotated[bool, typer.Option("--refused", help="All that were refused.")] = False,
    since: Annotated[str | None, typer.Option("--since", metavar="DAY", help="All recorded since this day.")] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Tell the portals again: of one dossier, of all that were refused, or of all since a day.

    \b
    Examples:
      lienthong portal resend H55.242-260302-0001 --data ./data/site
      lienthong portal resend --refused --portal national --data ./data/site
    """
    if (code is not None) + refused + (since is not None) != 1:
        raise WrongUse("name a dossier, or say --refused or --since DAY.")
    body = {name: value for name, value in (("code", code), ("since", since)) if value is not None}
    sent = asyncio.run(_resend(data, portal, {"refused": True} if refused else body))
    if as_json:
        print_json(sent)
        return
    for each in sent:
        say(f"{each['portal']}: {each['dossiers']} dossiers are told again")


async def _status(data: Path | None) -> list[dict[str, Any]]:
    async with SiteClient(find_site(data), who="portal status") as client:
        items: list[dict[str, Any]] = (await client.get("intake", "/v1/portals"))["items"]
    return items


async def _resend(data: Path | None, portal: str | None, body: dict[str, Any]) -> list[dict[str, Any]]:
    async with SiteClient(find_site(data), who="portal resend") as client:
        known = [item["name"] for item in (await client.get("intake", "/v1/portals"))["items"]]
        names = known if portal is None else [portal]
        return [await client.post("intake", f"/v1/portals/{quote(name, safe='')}/resend", body) for name in names]
