"""`lienthong reconcile`: promise 5, no silent loss."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from deploy.cli.console import out, print_json, table
from deploy.cli.options import AsJson, Data
from deploy.cli.site import SiteClient, find_site

if TYPE_CHECKING:
    from pathlib import Path

    from deploy.cli.books import Account


def reconcile(
    data: Data = None,
    wait: Annotated[
        float, typer.Option(metavar="S", min=0, help="Seconds to wait until it is reconciled; done as soon as it is.")
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Compare what was accepted, stored, published, applied and told, and name what is missing. Exit 1 if anything is.

    \b
    Examples:
      lienthong reconcile --data ./data/site
      lienthong reconcile --wait 30 --json --data ./data/site
    """
    account = asyncio.run(_reconcile(data, wait))
    if as_json:
        print_json(account.as_dict())
    else:
        show(account)
    if not account.reconciled:
        raise typer.Exit(1)


async def _reconcile(data: "Path | None", wait: float) -> "Account":
    from deploy.cli.books import reconciled_within

    async with SiteClient(find_site(data), who="reconcile") as client:
        return await reconciled_within(client, wait)


def show(account: "Account", console: Console = out, title: str = "Reconciliation") -> None:
    """The books as a table, and in one sentence."""
    rows = [
        (
            hop.hop,
            hop.topic.removeprefix("lienthong.").removesuffix(".v1"),
            f"{hop.from_} → {hop.to}",
            hop.events,
            hop.applied,
            "yes" if hop.equal else "[red]no[/red]",
            " ".join(hop.missing),
        )
        for hop in account.hops
        if hop.events or not hop.equal
    ]
    table(title, ("hop", "topic", "way", "events", "there", "equal", "missing"), rows, console)
    if account.told["asked"]:
        why = "".join(f", {count} not: {reason}" for reason, count in account.told["reasons"].items())
        console.print(f"Told: {account.told['notices']} of {account.told['asked']} acts{why}.")
    for item in account.parked:
        console.print(
            f"parked in {item['service']}: {item['topic']} {item['key']} at {item['sequence']}: {item['reason']}"
        )
    console.print("Reconciled." if account.reconciled else "Not reconciled.")
