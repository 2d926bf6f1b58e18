"""Who may do what in the database: the log is append-only by grants, not by its triggers alone.

No grant binds a superuser, and the embedded database has no other login: there the services work as SERVICE_ROLE, which owns
nothing. Elsewhere they log in as the owner of the tables, or better as a login that is a member of SERVICE_ROLE; the owner has
taken these rights from itself as well. Why it is so: docs/decisions/0011.
"""

import contextlib
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

import asyncpg

from shared.store.pool import Connection, connect

SERVICE_ROLE: Final = "lienthong_service"

# Of a payload that is erased there are two columns to write; the trigger allows it for contacts alone.
_ERASED: Final = "payload, digest"


async def grant(connection: Connection, schema: str) -> None:
    """The rights on all that lies in `schema`, as they are to be; only what has not been granted yet is touched."""
    role = await _service_role(connection)
    tables = await connection.fetch(
        "SELECT relname AS name, EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND tgname = 'append_only') AS kept"
        " FROM pg_class c WHERE relnamespace = to_regnamespace($1) AND relkind IN ('r', 'p', 'v')"
        " AND (relacl IS NULL OR NOT has_table_privilege(to_regrole($2)::oid, c.oid, 'SELECT'))",
        schema,
        SERVICE_ROLE,
    )
    kept = [table["name"] for table in tables if table["kept"]]
    for name in kept:
        await connection.execute(f"REVOKE UPDATE, DELETE, TRUNCATE ON {schema}.{name} FROM CURRENT_USER")
        if name == "event":
            await connection.execute(f"GRANT UPDATE ({_ERASED}) ON {schema}.{name} TO CURRENT_USER")
    if not role or not tables:
        return
    await connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO {SERVICE_ROLE}")
    await connection.execute(f"GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA {schema} TO {SERVICE_ROLE}")
    for table in tables:
        rights = "SELECT, INSERT, UPDATE, DELETE"
        if table["kept"]:
            rights = f"SELECT, INSERT, UPDATE ({_ERASED})" if table["name"] == "event" else "SELECT, INSERT"
        elif table["name"] == "migration":
            rights = "SELECT"
        await connection.execute(f"GRANT {rights} ON {schema}.{table['name']} TO {SERVICE_ROLE}")


async def _service_role(connection: Connection) -> bool:
    """Whether there is the role; a superuser makes it. It sees when others' transactions began (`under_way`)."""
    there: bool = await connection.fetchval("SELECT to_regrole($1) IS NOT NULL", SERVICE_ROLE)
    if not await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        return there
    if not there:
        # Roles are the whole server's: another database's migration may make it at the same moment.
        with contextlib.suppress(asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
            async with connection.transaction():
                await connection.execute(f"CREATE ROLE {SERVICE_ROLE} NOLOGIN")
    if not await connection.fetchval("SELECT pg_has_role($1, 'pg_read_all_stats', 'USAGE')", SERVICE_ROLE):
        await connection.execute(f"GRANT pg_read_all_stats TO {SERVICE_ROLE}")
    return True


async def service_url(database_url: str) -> str:
    """The URL by which a service is to work: a superuser takes the role with each connection, anybody else is held already."""
    connection = await connect(database_url)
    try:
        takes = await connection.fetchval(
            "SELECT rolsuper AND to_regrole($1) IS NOT NULL FROM pg_roles WHERE rolname = current_user", SERVICE_ROLE
        )
    finally:
        await connection.close()
    if not takes:
        return database_url
    parts = urlsplit(database_url)
    query = "&".join(filter(None, (parts.query, urlencode({"role": SERVICE_ROLE}))))
    return urlunsplit(parts._replace(query=query))


async def may_rewrite(connection: Connection, schemas: Iterable[str]) -> list[str]:
    """The append-only tables that this connection could change or empty."""
    rows = await connection.fetch(
        "SELECT c.oid::regclass::text AS name FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
        " WHERE tgname = 'append_only' AND relnamespace = ANY (SELECT to_regnamespace(n) FROM unnest($1::text[]) n)"
        " AND has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE') ORDER BY 1",
        list(schemas),
    )
    return [row["name"] for row in rows]
