"""The schemas of a site's database: which migrations belong to which, and how they are brought up to date."""

from collections.abc import Mapping
from importlib import import_module

from shared.directory.store import SCHEMA as SITE_SCHEMA
from shared.service import SERVICES
from shared.store.migrations import Migration, migrate
from shared.store.pool import connect


def schemas() -> Mapping[str, tuple[str, ...]]:
    """Schema → the packages whose migrations make it, in order; the directory's schema first."""
    own = {name: import_module(f"services.{name}.app").MIGRATIONS for name in SERVICES}
    return {SITE_SCHEMA: ("shared.directory",), **own}


async def migrate_site(database_url: str, *, check: bool = False) -> dict[str, list[Migration]]:
    """Brings all schemas of a site up to date; by schema what was (with `check`: would be) applied.

    Raises MigrationRefused when the database was migrated with other files than these.
    """
    connection = await connect(database_url)
    try:
        return {
            schema: await migrate(connection, schema, packages, check=check) for schema, packages in schemas().items()
        }
    finally:
        await connection.close()


async def missing_for(database_url: str, name: str) -> list[Migration]:
    """What is missing in the schemas that the service `name` needs; nothing is applied."""
    connection = await connect(database_url)
    try:
        missing = []
        for schema, packages in schemas().items():
            if schema in (SITE_SCHEMA, name):
                missing += await migrate(connection, schema, packages, check=True)
        return missing
    finally:
        await connection.close()
