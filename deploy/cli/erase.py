"""`lienthong erase CODE`: a person's data goes, the dossiers' history stays."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from deploy.cli.console import print_json, say
from deploy.cli.options import AsJson, Data
from deploy.cli.site import ServiceAway, SiteClient, find_site

CONTACT = "lienthong.contact.v1"
DESTROYED_WITHIN = 10.0  # seconds that the command waits for notify's copy of the key
LOOK_EVERY = 0.1


def erase(
    code: Annotated[str, typer.Argument(metavar="CODE", help="The code of one of the person's dossiers.")],
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Erase the person behind a dossier, everywhere; what is erased does not come back.

    All dossiers with the same contact_ref are listed: their states, dates and figures stay, the person goes. Data and
    key are destroyed here and at notify, earlier contact records leave the log (number and digest stay), and a tombstone
    tells all readers of the topic. A restored backup is told again.

    \b
    Example:
      lienthong erase H55.242-260302-0001 --data ./data/site
    """
    done = asyncio.run(_erase(code, data))
    if as_json:
        print_json(done)
        return
    say(f"{done['contact_ref']}: erased at {done['erased_at']}{' (before)' if done['already'] else ''}")
    for dossier in done["dossiers"]:
        say(f"  {dossier}")
    if not done["everywhere"]:
        say("notify has not confirmed yet: it destroys its copy when the tombstone reaches it.")


async def _erase(code: str, data: Path | None) -> dict[str, Any]:
    async with SiteClient(find_site(data), who="erase") as client:
        done: dict[str, Any] = await client.post("intake", "/v1/erasures", {"code": code})
        sequence = done.pop("sequence")
        return done | {"everywhere": await _destroyed(client, done["contact_ref"], sequence)}


async def _destroyed(client: SiteClient, contact_ref: str, sequence: int) -> bool:
    """Whether notify has applied the tombstone, within DESTROYED_WITHIN seconds."""
    loop = asyncio.get_running_loop()
    until = loop.time() + DESTROYED_WITHIN
    while True:
        try:
            at = await client.get("notify", "/v1/heads/key", topic=CONTACT, side="consumed", key=contact_ref)
        except ServiceAway:
            return False
        if at["sequence"] >= sequence:
            return True
        if loop.time() >= until:
            return False
        await asyncio.sleep(LOOK_EVERY)
