"""`lienthong migrate`: the database's schemas, brought up to date."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.console import print_json, say
from deploy.cli.errors import CommandFailed, WrongUse
from deploy.cli.options import AsJson, Data
from deploy.cli.site import find_site


def migrate(
    data: Data = None,
    check: Annotated[bool, typer.Option("--check", help="Only say what is missing; exit 1 if anything is.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the schemas of the site and of its four services up to date. `lienthong up` does this by itself.

    A migration only adds what the new version needs: the services of the version before go on working meanwhile.

    \b
    Examples:
      LIENTHONG_DATABASE_URL=postgresql://… lienthong migrate
      lienthong migrate --check --data ./data/site
    """
    import asyncpg

    from deploy.schema import migrate_site
    from shared.store.migrations import MigrationRefused
    from shared.store.pool import TRANSIENT_ERRORS

    url = _database(data)
    try:
        done = asyncio.run(migrate_site(url, check=check))
    except MigrationRefused as error:
        raise CommandFailed(str(error)) from None
    except (*TRANSIENT_ERRORS, asyncpg.PostgresError) as error:
        raise CommandFailed(f"the database does not answer ({type(error).__name__}).") from None
    names = [f"{schema}: {m.number:04}_{m.name}" for schema, applied in done.items() for m in applied]
    if as_json:
        print_json({"missing" if check else "applied": names})
    else:
        for name in names:
            say(f"{'missing' if check else 'applied'} {name}")
        if not names:
            say("All schemas are up to date.")
    if check and names:
        raise typer.Exit(1)


def _database(data: Path | None) -> str:
    """By the folder, else by the setting alone: a new site has a database before it has a code."""
    if data is not None:
        return find_site(data).database
    from shared.settings import Settings

    if url := Settings().database_url:
        return url
    raise WrongUse("which database? Name the site's folder by --data DIR, or set LIENTHONG_DATABASE_URL.")
