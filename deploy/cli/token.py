"""`lienthong token`: a bearer token, and nothing else."""

import asyncio
from enum import StrEnum
from typing import Annotated

import typer

from deploy.cli.console import say
from deploy.cli.errors import WrongUse
from deploy.cli.options import Data
from deploy.cli.site import KnownSite, find_site
from shared.contracts.codes import normalise_agency
from shared.security.tokens import SITE_WIDE, Role


class OutsideRole(StrEnum):
    """What a person or a system outside may be; the role `service` is for the services of a site among themselves."""

    DESK = "desk"
    OFFICER = "officer"
    LEADER = "leader"
    AUDITOR = "auditor"
    OPERATOR = "operator"
    PORTAL = "portal"
    ADMIN = "admin"


_HAS_AGENCY = """
SELECT EXISTS (SELECT 1 FROM jsonb_array_elements(content::jsonb -> 'agencies') AS agency WHERE agency ->> 'code' = $1)
FROM site.document ORDER BY version DESC LIMIT 1
"""


def token(
    role: Annotated[OutsideRole, typer.Option(help="What the bearer may do.")],
    data: Data = None,
    agency: Annotated[
        str | None,
        typer.Option(metavar="CODE", help="For whom; without it the whole site, where the role may have that."),
    ] = None,
    subtree: Annotated[bool, typer.Option("--subtree", help="Also the agencies below.")] = False,
    name: Annotated[str, typer.Option(metavar="N", help="Who it is, for the records.")] = "",
    hours: Annotated[float, typer.Option(help="How long it is good; fractions are allowed.")] = 8.0,
) -> None:
    """Print a bearer token (JWT, EdDSA, signed with the site's key).

    \b
    Examples:
      lienthong token --data ./data/site --role admin
      lienthong token --data ./data/site --role desk --agency H55.242 --name "Lan"
      lienthong token --data ./data/site --role leader --agency H55 --subtree --hours 0.5
    """
    site = find_site(data)
    wanted = Role(str(role))
    if agency is None and wanted not in SITE_WIDE:
        raise WrongUse(f"a token for {wanted} needs --agency CODE.")
    if hours <= 0:
        raise WrongUse("--hours must be above 0.")
    if agency is not None:
        try:
            agency = normalise_agency(agency)
        except ValueError as error:
            raise WrongUse(f"--agency: {error}") from None
        asyncio.run(_must_exist(site, agency))
    say(site.tokens().issue(wanted, agency=agency, subtree=subtree, name=name, hours=hours))


async def _must_exist(site: KnownSite, agency: str) -> None:
    """Raises WrongUse for an agency that the site does not have; a site whose database is down is not asked."""
    import asyncpg

    try:
        connection = await asyncpg.connect(site.database, timeout=3.0)
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return
    try:
        if await connection.fetchval(_HAS_AGENCY, agency) is False:
            raise WrongUse(f"the site {site.code} has no agency {agency}.")
    finally:
        await connection.close()
