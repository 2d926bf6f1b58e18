"""`lienthong topics`: what the site's bus should be, and what differs."""

import asyncio
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli.console import print_json, say
from deploy.cli.errors import CommandFailed
from deploy.cli.options import AsJson, Data
from deploy.cli.site import KnownSite, SiteClient, find_site

if TYPE_CHECKING:
    from deploy.kafka.plan import Plan
    from deploy.kafka.protocol import Admin
    from shared.bus.connection import BusSettings

app = typer.Typer(
    help="The site's topics and who may do what on them, planned from one file.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def topics() -> None:
    """The site's topics and who may do what on them, planned from one file (deploy/kafka/access.yaml)."""


@app.command("plan")
def plan_(data: Data = None, as_json: AsJson = False) -> None:
    """Show what `topics apply` would do; it changes nothing. Clients of the bus are told by LIENTHONG_BUS_….

    \b
    Examples:
      lienthong topics plan --data ./data/site
      LIENTHONG_BUS_BOOTSTRAP=kafka:9092 LIENTHONG_BUS_PARTITIONS=12 lienthong topics plan --json
    """
    found = asyncio.run(_plan(data))
    if as_json:
        print_json(found.as_dict())
    else:
        _show(found)


@app.command()
def apply(
    data: Data = None,
    repartition: Annotated[
        bool, typer.Option("--repartition", help="Also raise the number of partitions: keys then move between them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make topics, set how they are kept, and open and close access, as planned.

    More partitions move keys between them. The services stand that, because each key is numbered; subscribers that read
    without looking at ce_sequence may see one key's events out of order once. It is therefore done only when asked for.

    \b
    Example:
      LIENTHONG_BUS_BOOTSTRAP=kafka:9092 lienthong topics apply --repartition
    """
    done = asyncio.run(_apply(data, repartition))
    if as_json:
        print_json(done.as_dict())
        return
    _show(done)
    if done.repartition and not repartition:
        say("Partitions are left as they are: give --repartition to raise them.")


def _show(found: "Plan") -> None:
    for name in found.create:
        say(f"create {name}")
    for name, number in found.repartition.items():
        say(f"repartition {name}: {number} partitions")
    for name, number in found.fewer.items():
        say(f"leave {name}: its {number} partitions are more than planned, and no broker takes one back")
    for name, values in found.configure.items():
        say(f"configure {name}: " + ", ".join(f"{key}={value}" for key, value in values.items()))
    for acl in found.allow:
        say(f"allow: {acl}")
    for acl in found.disallow:
        say(f"disallow: {acl}")
    if not found.access_control:
        say("This broker has no access control: whoever reaches it may read and write everything.")
    if found.empty:
        say("Everything is as planned.")


def bus_of(site: KnownSite) -> "BusSettings":
    """How the site's bus is reached: its address from the folder, the rest from LIENTHONG_BUS_…."""
    from shared.settings import Settings

    return dataclasses.replace(Settings().bus(), bootstrap=site.bus)


async def with_admin(bus: "BusSettings", work: Any) -> Any:
    """`work(admin)` on an administrator's connection. Raises CommandFailed with the broker's words."""
    from aiokafka.errors import KafkaError

    from deploy.kafka.protocol import Admin

    try:
        async with Admin(bus) as admin:
            return await work(admin)
    except (KafkaError, OSError, TimeoutError) as error:
        raise CommandFailed(f"the bus on {bus.bootstrap} refused: {type(error).__name__}: {error}") from None


async def subscribers_of(site: KnownSite) -> list[dict[str, Any]]:
    async with SiteClient(site, who="topics") as client:
        found: list[dict[str, Any]] = (await client.get("routing", "/v1/subscribers"))["items"]
    return found


async def look(admin: "Admin", bus: "BusSettings", subscribers: list[dict[str, Any]]) -> "Plan":
    from deploy.kafka.plan import plan, planned
    from deploy.kafka.protocol import NoAccessControl

    try:
        acls = await admin.acls()
    except NoAccessControl:
        acls = None
    there = await admin.topics()
    configs = await admin.configs([name for name in planned(bus, subscribers) if name in there])
    return plan(bus, subscribers, there, configs, acls)


async def _plan(data: Path | None) -> "Plan":
    site = find_site(data)
    bus, subscribers = bus_of(site), await _known_subscribers(site)
    found: Plan = await with_admin(bus, lambda admin: look(admin, bus, subscribers))
    return found


async def _known_subscribers(site: KnownSite) -> list[dict[str, Any]]:
    """Before the services run there are none: a new site's topics are planned first."""
    from deploy.cli.site import ServiceAway

    try:
        return await subscribers_of(site)
    except ServiceAway:
        return []
    except CommandFailed:  # without the site's keys nobody is answered
        if await _answers(f"{site.urls['routing']}/healthz"):
            raise
        return []  # its services, which make its keys, have not run yet


async def _answers(url: str) -> bool:
    import httpx

    try:
        async with httpx.AsyncClient(timeout=5.0, trust_env=False) as http:
            await http.get(url)
    except httpx.HTTPError:
        return False
    return True


async def _apply(data: Path | None, repartition: bool) -> "Plan":
    from aiokafka.errors import IncompatibleBrokerVersion

    from shared.bus.publisher import create_topics

    site = find_site(data)
    bus, subscribers = bus_of(site), await _known_subscribers(site)

    async def work(admin: "Admin") -> "Plan":
        wanted = await look(admin, bus, subscribers)
        if wanted.create:
            await create_topics(bus, [bus.plain(name) for name in wanted.create])
        try:
            for name, values in wanted.configure.items():
                await admin.configure(name, values)
        except IncompatibleBrokerVersion:
            # The embedded broker has no settings of topics: nothing was changed, and nothing is said to have been.
            wanted = dataclasses.replace(wanted, configure={})
        if repartition:
            await admin.repartition(wanted.repartition)
        await admin.allow(wanted.allow)
        await admin.disallow(wanted.disallow)
        return wanted

    done: Plan = await with_admin(bus, work)
    return done
