"""A backup becomes a site again.

It has not served anybody yet when the erasures that came after the backup have been done again (law 91/2025), and its code
numbers have jumped: what was issued after the backup is not issued twice. What it had said to its neighbours since then comes
back from them when it starts (`services/routing/restoring.py`).
"""

import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from deploy.backup import DATABASE, ERASURES, KEYS, BackupFailed, read_manifest, run, write
from deploy.embedded.postgres import EmbeddedPostgres
from deploy.schema import migrate_site, schemas
from deploy.site import create
from services.intake.store import AGAIN
from services.intake.store import Store as Intake
from services.notify.store import Contact
from services.notify.store import Store as Notify
from services.routing.link_store import LinkStore
from shared.security.recovery import open_folder
from shared.store.pool import Connection, connect
from shared.store.queries import Queries

JUMP = 5000
"""By which the code numbers of the days since the backup jump: those that were issued meanwhile are not known."""


RESTORED = ("--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction")
"""Owner and rights are those of the server it is restored to: the migration grants them again."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restoration came to."""

    site: str
    taken: str
    dossiers: int
    erased: list[str]


async def restore(
    folder: Path,
    data: Path,
    *,
    sealed_keys: Path | None,
    identity: Path | None,
    keys: Path | None,
    erasures: Iterable[Path],
    base_port: int,
    database_url: str | None,
    now: datetime,
) -> Restored:
    """A backup into an empty folder (or an empty database). `keys`: a folder of keys; else they are opened from the
    backup's with `identity`. Raises BackupFailed, RecoveryRefused; what was begun is then to be thrown away."""
    manifest = read_manifest(folder)
    _make_empty(data)
    own = data / "keys"
    if keys is not None:
        _copy(keys, own)
    elif identity is not None:
        sealed = sealed_keys or folder / KEYS
        if not sealed.is_file():
            raise BackupFailed(f"{sealed} is not there: name the sealed keys by --keys FILE.")
        open_folder(sealed.read_text(), identity, own)
    else:
        raise BackupFailed("without its keys nothing personal can be read: name --identity FILE, or --keys-dir DIR.")
    again = [folder / ERASURES, *erasures]
    async with _database(data, base_port, database_url) as url:
        if await _occupied(url):
            raise BackupFailed("the database is not empty: restore into a new one.")
        await run("pg_restore", url, *RESTORED, str(folder / DATABASE))
        await migrate_site(url)
        settings = {"site": manifest["site"], "database_url": url, "keys_dir": own}
        erased = await replay_erasures(url, settings, again, data / ERASURES)
        connection = await connect(url)
        try:
            queries = Queries("services.intake", "intake")
            await connection.execute(queries["numbers_jump"], datetime.fromisoformat(manifest["taken"]), now, JUMP)
            dossiers = await connection.fetchval(queries["dossiers_count"])
            await hear_first(connection, datetime.fromisoformat(manifest["taken"]), now)
        finally:
            await connection.close()
    if dossiers < manifest["dossiers"]:  # counted just before the dump: a site at work may have more, never fewer
        raise BackupFailed(f"the backup holds {dossiers} dossiers, its manifest says {manifest['dossiers']}.")
    return Restored(manifest["site"], manifest["taken"], dossiers, erased)


async def hear_first(connection: Connection, taken: datetime, now: datetime) -> None:
    """What was said between the backup and now lies with the peers: each link gives that back, in a new epoch, before
    anything is said or heard on it. People were told of it then, and are not told again."""
    links = LinkStore("routing")
    waits = False
    async with connection.transaction():
        for link in await links.links(connection):
            if link.open:
                out = await links.lock_out(connection, link.peer)
                await links.begin_recovery(connection, link.peer, out, out.confirmed)
                waits = waits or link.side == "upper"
        await connection.execute(Queries("services.intake", "intake")["restored_put"], now, taken, not waits)
        await connection.execute(Queries("services.notify", "notify")["restored_put"], taken, now)


async def replay_erasures(
    database_url: str, settings: Mapping[str, Any], files: Iterable[Path], note: Path
) -> list[str]:
    """Erases again whoever these files name and this database still knows, here and at notify; the contact_refs.

    Nobody is served yet: what intake says on the bus afterwards finds notify's copy gone already.
    """
    refs = dict.fromkeys(ref for file in files for ref in _noted(file))
    intake = Intake(create("intake", dict(settings)))
    notify = Notify(create("notify", dict(settings)))
    erased = []
    connection = await connect(database_url)
    try:
        for ref in refs:
            async with connection.transaction():
                now = await connection.fetchval("SELECT clock_timestamp()")
                if await intake.erase(connection, ref, now, AGAIN) is not None:
                    erased.append(ref)
                else:
                    await intake.note_erasure(connection, ref, now)
                codes = [row["code"] for row in await connection.fetch(notify.queries["dossiers_of_contacts"], [ref])]
                await notify.put_contacts(connection, [Contact(ref)])
                await connection.execute(notify.queries["notices_forget"], codes, [ref])
    finally:
        await connection.close()
    write(note, "".join(json.dumps({"contact_ref": ref}) + "\n" for ref in refs))
    return erased


def _make_empty(data: Path) -> None:
    if data.exists() and any(data.iterdir()):
        raise BackupFailed(f"{data} is not empty: restore into a new folder.")
    data.mkdir(parents=True, mode=0o700, exist_ok=True)


def _noted(file: Path) -> list[str]:
    """The contact_refs of a file of erasures."""
    try:
        return [json.loads(line)["contact_ref"] for line in file.read_text().splitlines() if line.strip()]
    except FileNotFoundError:
        raise BackupFailed(f"{file} is not there.") from None
    except (ValueError, KeyError, TypeError):
        raise BackupFailed(f"{file} is no file of erasures.") from None


@contextlib.asynccontextmanager
async def _database(data: Path, base_port: int, database_url: str | None) -> AsyncIterator[str]:
    if database_url is not None:
        yield database_url
        return
    postgres = EmbeddedPostgres(data, base_port + 5)
    try:
        yield await postgres.start()
    finally:
        await postgres.stop()


async def _occupied(database_url: str) -> bool:
    connection = await connect(database_url)
    try:
        found = await connection.fetchval(
            "SELECT count(*) FROM pg_namespace WHERE nspname = ANY ($1::text[])", list(schemas())
        )
        return bool(found)
    finally:
        await connection.close()


def _copy(source: Path, target: Path) -> None:
    if not (source / "site.pem").is_file():
        raise BackupFailed(f"{source} holds no keys of a site.")
    for file in source.rglob("*"):
        if file.is_file():
            to = target / file.relative_to(source)
            to.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
            to.touch(mode=0o600)
            to.write_bytes(file.read_bytes())
