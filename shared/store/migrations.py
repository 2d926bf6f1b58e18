"""Numbered SQL migrations, applied once, in order, under a lock; a migration that was changed after it ran is refused."""

import hashlib
import re
from dataclasses import dataclass
from importlib import resources

import asyncpg

from shared.store.grants import grant
from shared.store.pool import Connection

_FILE = re.compile(r"^(\d{4})_(\w+)\.sql$")
# Behind a statement that waits for a table's lock every other waits as well: it gives up, and is run again later.
LOCK_TIMEOUT = "10s"
_LOCK = 0x4C54_6D69  # one migration of a site at a time


class MigrationRefused(Exception):
    """The database was migrated with other files than these: the message names the first that differs."""


@dataclass(frozen=True, slots=True)
class Migration:
    package: str
    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations_of(package: str) -> list[Migration]:
    """The migrations in `package`/migrations, by number; numbers are contiguous from 1."""
    found = [
        Migration(package, int(match[1]), match[2], entry.read_text(encoding="utf-8"))
        for entry in resources.files(package).joinpath("migrations").iterdir()
        if (match := _FILE.match(entry.name))
    ]
    found.sort(key=lambda m: m.number)
    if [m.number for m in found] != list(range(1, len(found) + 1)):
        raise MigrationRefused(f"{package}/migrations: the numbers are not contiguous from 0001")
    return found


async def _run(connection: Connection, schema: str, migration: Migration) -> None:
    try:
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        await connection.execute(migration.sql)
    except asyncpg.LockNotAvailableError:
        raise MigrationRefused(
            f"{schema}: migration {migration.number:04}_{migration.name} waited {LOCK_TIMEOUT} for a table that is in use;"
            " nothing was changed, run it again when less is going on"
        ) from None


async def migrate(
    connection: Connection, schema: str, packages: tuple[str, ...], *, check: bool = False
) -> list[Migration]:
    """Brings `schema` up to the migrations of `packages`, in that order; returns what was (with `check`: would be) applied."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        there = await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f"{schema}.migration")
        if check and not there:
            return [m for package in packages for m in migrations_of(package)]
        if not there:  # who may not make it may still look
            await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        await connection.execute(f"SET LOCAL search_path = {schema}, pg_catalog")
        if not there:
            await connection.execute(
                "CREATE TABLE migration (package text NOT NULL, number integer NOT NULL, name text NOT NULL,"
                " checksum text NOT NULL, applied timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (package, number))"
            )
        done = {
            (r["package"], r["number"]): r["checksum"]
            for r in await connection.fetch("SELECT package, number, checksum FROM migration")
        }
        applied = []
        for migration in (m for package in packages for m in migrations_of(package)):
            known = done.get((migration.package, migration.number))
            if known is not None and known != migration.checksum:
                raise MigrationRefused(
                    f"{schema}: migration {migration.number:04}_{migration.name} of {migration.package} was changed after"
                    " it had been applied; restore the file and put the change into a new migration"
                )
            if known is None:
                applied.append(migration)
                if not check:
                    await _run(connection, schema, migration)
                    await connection.execute(
                        "INSERT INTO migration (package, number, name, checksum) VALUES ($1, $2, $3, $4)",
                        migration.package,
                        migration.number,
                        migration.name,
                        migration.checksum,
                    )
        if not check:
            await grant(connection, schema)
        return applied
