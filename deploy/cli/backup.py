"""`lienthong backup` and `restore`: database and keys apart."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.console import print_json, say
from deploy.cli.errors import CommandFailed, WrongUse
from deploy.cli.options import AsJson, Data
from deploy.cli.site import find_site
from deploy.state import BASE_PORT


def backup(
    to: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder is made in it.")],
    data: Data = None,
    recipient: Annotated[
        str | None,
        typer.Option(
            "--recipient",
            metavar="KEY",
            envvar="LIENTHONG_RECOVERY_RECIPIENT",
            help="The keys too, sealed for this public key (`lienthong keys recipient`).",
        ),
    ] = None,
    keys_to: Annotated[
        Path | None, typer.Option("--keys-to", metavar="FOLDER", help="Where the sealed keys go; best another place.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Back a site up while it works: the database as at one instant, and its keys sealed for a recovery recipient.

    The database without the keys shows nobody's data. Keep the list of erasures (DIR/erasures.ndjson) beside the backups:
    what was erased after a backup is erased again when it is restored.

    \b
    Examples:
      lienthong keys recipient --out recovery.key
      lienthong backup /backups --recipient 3ZkP… --keys-to /safe --data ./data/site
    """
    from deploy.backup import BackupFailed, utc_now
    from deploy.backup import backup as take
    from shared.security.recovery import RecoveryRefused

    site = find_site(data)
    site.tokens()  # says what to do when there are no keys
    if keys_to is not None and recipient is None:
        raise WrongUse("--keys-to needs --recipient: keys are never written unsealed.")
    try:
        folder = asyncio.run(take(site.database, site.keys, to, keys_to=keys_to, recipient=recipient, now=utc_now()))
    except (BackupFailed, RecoveryRefused, OSError) as error:
        raise CommandFailed(str(error)) from None
    if as_json:
        print_json({"backup": str(folder), "keys": recipient is not None})
        return
    say(f"{folder}{'' if recipient else ' (without the keys: name --recipient to have them sealed)'}")


def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="A folder that `lienthong backup` has made.")],
    data: Data = None,
    identity: Annotated[
        Path | None, typer.Option("--identity", metavar="FILE", help="The recovery recipient's private key.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option("--keys", metavar="FILE", help="The sealed keys, if they are not in the backup.")
    ] = None,
    keys_dir: Annotated[
        Path | None, typer.Option("--keys-dir", metavar="DIR", help="The site's keys themselves, if they are at hand.")
    ] = None,
    erasures: Annotated[
        list[Path] | None,
        typer.Option("--erasures", metavar="FILE", help="Erasures since the backup: the newest erasures.ndjson."),
    ] = None,
    base_port: Annotated[int, typer.Option("--base-port", min=1, max=65530)] = BASE_PORT,
    database: Annotated[
        str | None, typer.Option("--database", metavar="URL", help="An empty database; else the embedded one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Restore a backup into an empty folder. Erasures are done again before anybody is served.

    Afterwards start the site with `lienthong up --data DIR`, and let `lienthong reconcile` look at it. Numbers of dossier
    codes jump by 5,000 for the days since the backup.

    \b
    Example:
      lienthong restore /backups/H55-20260302T010000Z --identity recovery.key --keys /safe/H55-…-keys.jwe
        --erasures erasures.ndjson --data ./data/restored
    """
    from deploy.backup import BackupFailed, utc_now
    from deploy.embedded.process import EmbeddedError
    from deploy.restore import restore as bring_back
    from shared.security.recovery import RecoveryRefused
    from shared.store.migrations import MigrationRefused

    if data is None:
        raise WrongUse("into which folder? Name an empty one by --data DIR.")
    try:
        done = asyncio.run(
            bring_back(
                source,
                data.resolve(),
                sealed_keys=keys,
                identity=identity,
                keys=keys_dir,
                erasures=erasures or (),
                base_port=base_port,
                database_url=database,
                now=utc_now(),
            )
        )
    except (BackupFailed, RecoveryRefused, EmbeddedError, MigrationRefused, OSError) as error:
        raise CommandFailed(str(error)) from None
    if as_json:
        print_json({"site": done.site, "taken": done.taken, "dossiers": done.dossiers, "erased": done.erased})
        return
    say(f"{done.site} as of {done.taken}: {done.dossiers} dossiers, {len(done.erased)} persons erased again")
    say(f"start it with `lienthong up --data {data}`")
