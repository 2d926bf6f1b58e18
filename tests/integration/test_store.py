"""The log and the migrations on a real PostgreSQL."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from deploy.schema import migrate_site
from shared.service import SERVICES
from shared.settings import Settings
from shared.store.grants import SERVICE_ROLE, may_rewrite, service_url
from shared.store.log import Log
from shared.store.migrations import MigrationRefused, migrate, migrations_of
from shared.store.pool import connect, open_pool
from shared.store.queries import Queries
from tests.harness import Backing
from tests.toy.app import SCHEMAS, append, owner
from tests.toy.events import DOSSIERS, event


@pytest.fixture
async def database(backing: Backing) -> AsyncIterator[str]:
    url = await backing.database(SCHEMAS)
    yield url
    await backing.drop_database(url)


@pytest.fixture
async def connection(database: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `fresh` with two migrations; its folder."""
    folder = tmp_path / "fresh" / "migrations"
    folder.mkdir(parents=True)
    (tmp_path / "fresh" / "__init__.py").touch()
    (folder / "0001_first.sql").write_text("CREATE TABLE one (id integer PRIMARY KEY)")
    (folder / "0002_second.sql").write_text("CREATE TABLE two (id integer PRIMARY KEY)")
    monkeypatch.delitem(sys.modules, "fresh", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return folder


@pytest.mark.usefixtures("package")
async def test_migrations_are_applied_once_and_in_order(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    assert [m.name for m in await migrate(connection, "fresh", ("fresh",), check=True)] == ["first", "second"]
    assert [m.name for m in await migrate(connection, "fresh", ("fresh",))] == ["first", "second"]
    assert await migrate(connection, "fresh", ("fresh",)) == []
    assert await connection.fetchval("SELECT count(*) FROM fresh.migration") == 2
    assert await connection.fetchval("SELECT count(*) FROM fresh.one") == 0


@pytest.mark.usefixtures("package")
async def test_two_migrations_at_once_apply_each_file_once(database: str) -> None:
    connections = [await asyncpg.connect(database) for _ in range(4)]
    try:
        applied = await asyncio.gather(*(migrate(c, "fresh", ("fresh",)) for c in connections))
    finally:
        await asyncio.gather(*(c.close() for c in connections))
    assert sorted(len(each) for each in applied) == [0, 0, 0, 2]


async def test_a_migration_that_was_changed_after_it_ran_is_refused(
    connection: "asyncpg.Connection[asyncpg.Record]", package: Path
) -> None:
    await migrate(connection, "fresh", ("fresh",))
    (package / "0001_first.sql").write_text("CREATE TABLE one (id bigint PRIMARY KEY)")
    (package / "0003_third.sql").write_text("CREATE TABLE three (id integer)")
    with pytest.raises(MigrationRefused, match="0001_first"):
        await migrate(connection, "fresh", ("fresh",))
    assert await connection.fetchval("SELECT to_regclass('fresh.three')") is None


async def test_a_migration_that_fails_leaves_nothing(
    connection: "asyncpg.Connection[asyncpg.Record]", package: Path
) -> None:
    (package / "0002_second.sql").write_text("CREATE TABLE two (id nonsense)")
    with pytest.raises(asyncpg.UndefinedObjectError):
        await migrate(connection, "fresh", ("fresh",))
    assert await connection.fetchval("SELECT to_regnamespace('fresh')") is None


def test_migrations_without_a_gap_in_their_numbers(package: Path) -> None:
    (package / "0002_second.sql").rename(package / "0003_second.sql")
    with pytest.raises(MigrationRefused, match="contiguous"):
        migrations_of("fresh")


async def test_what_is_appended_is_in_the_ledger_with_the_same_id_and_bytes(
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    log = Log("intake")
    events = [event("a", 1), event("b", 1), event("a", 2), event("a", 3, topic="lienthong.public.dossier.v1")]
    await log.append(connection, events)
    assert await log.after(connection, DOSSIERS, "a", 0) == [events[0], events[2]]
    assert await log.after(connection, DOSSIERS, "a", 1) == [events[2]]
    assert await log.after(connection, DOSSIERS, "a", 0, limit=1) == [events[0]]
    assert await log.after(connection, DOSSIERS, "nobody", 0) == []
    assert await connection.fetchval("SELECT count(*) FROM intake.outbox") == 4


async def test_a_sequence_is_given_once(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    await Log("intake").append(connection, [event("a", 1)])
    with pytest.raises(asyncpg.UniqueViolationError):
        await Log("intake").append(connection, [event("a", 1)])


async def test_promise_2_sixteen_writers_leave_no_gap_and_no_disorder(backing: Backing, database: str) -> None:
    service = owner(Settings(site="H55", keys_dir=backing.keys, database_url=database))
    pool = await open_pool(database, size=16)

    async def write(writer: int) -> None:
        for turn in range(12):
            async with pool.acquire() as connection, connection.transaction():
                await append(service, connection, f"key-{(writer + turn) % 5}", 1 + turn % 3)

    try:
        await asyncio.gather(*(write(writer) for writer in range(16)))
        rows = await pool.fetch("SELECT aggregateid AS key, sequence FROM intake.event ORDER BY position")
        by_key: dict[str, list[int]] = {}
        for row in rows:
            by_key.setdefault(row["key"], []).append(row["sequence"])
        assert len(rows) == 16 * 12 * 2
        assert by_key == {key: list(range(1, len(by_key[key]) + 1)) for key in by_key}
    finally:
        await pool.close()


# What rewrites history, and what would let a session do so.
REWRITES = (
    "UPDATE intake.event SET happened = happened - interval '1 day'",
    "UPDATE intake.event SET recorded = now(), payload = '{}'",
    "DELETE FROM intake.event",
    "TRUNCATE intake.event",
    "ALTER TABLE intake.event ENABLE TRIGGER USER",
    "DROP TABLE intake.event",
    "DELETE FROM intake.migration",
    "SET session_replication_role = replica",
)


async def stored(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    await connection.execute(
        "INSERT INTO intake.event (id, aggregatetype, aggregateid, type, payload, sequence, source, happened, recorded, mode)"
        " VALUES (gen_random_uuid(), 'dossier', 'H55-1', 'received', '{}', 1, '/x', now(), now(), 'live')"
    )


@pytest.mark.parametrize("statement", REWRITES)
async def test_the_log_is_kept_by_grants_also_when_its_trigger_is_off(database: str, statement: str) -> None:
    above, service = await connect(database), await connect(await service_url(database))
    try:
        await stored(service)
        await above.execute("ALTER TABLE intake.event DISABLE TRIGGER USER")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match=r"permission denied|must be owner"):
            await service.execute(statement)
        assert await may_rewrite(above, ["intake"]) == ["intake.event"]  # no grant binds a superuser
        assert await may_rewrite(service, ["intake"]) == []
        # What the erasure of a person needs is there.
        await service.execute("UPDATE intake.event SET payload = NULL, digest = 'x'")
    finally:
        await above.close()
        await service.close()


async def test_a_service_keeps_its_role_and_sees_what_others_have_under_way(database: str) -> None:
    url = await service_url(database)
    pool, other = await open_pool(url, size=1), await connect(url)
    try:
        async with pool.acquire() as connection:
            await connection.execute("SET LOCAL timezone = 'UTC'")
        async with other.transaction():
            began = await other.fetchval("SELECT transaction_timestamp()")
            async with pool.acquire() as connection:  # given back once, and reset by that
                assert await connection.fetchval("SELECT current_user::text") == SERVICE_ROLE
                query = Queries("shared.store", "intake")["under_way"]
                assert await connection.fetchval(query) <= began
    finally:
        await other.close()
        await pool.close()


async def test_an_owner_that_is_no_superuser_has_taken_the_rights_from_itself(database: str) -> None:
    """As on a province's PostgreSQL: the owner migrates, and the services log in as it, or as a member of the role."""
    above = await asyncpg.connect(database)
    place = urlsplit(database)
    names = [f"{name}_{place.path[1:]}" for name in ("owner", "member")]
    try:
        for name in names:
            await above.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
        await above.execute(f"GRANT {SERVICE_ROLE} TO {names[1]}")
        await above.execute(f"DROP SCHEMA {', '.join(SCHEMAS)} CASCADE")
        await above.execute(f"GRANT CREATE ON DATABASE {place.path[1:]} TO {names[0]}")
        host = place.netloc.rpartition("@")[2]
        owner_url, member_url = (urlunsplit(place._replace(netloc=f"{name}:x@{host}")) for name in names)
        await migrate_site(owner_url)
        for login in (owner_url, member_url):
            service = await connect(await service_url(login))
            try:
                if login == owner_url:
                    await stored(service)
                assert sum(map(len, (await migrate_site(login, check=True)).values())) == 0
                assert await may_rewrite(service, SERVICES) == []
                for statement in REWRITES[:4]:
                    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
                        await service.execute(statement)
            finally:
                await service.close()
    finally:
        for name in names:
            await above.execute(f"DROP OWNED BY {name}")
            await above.execute(f"DROP ROLE {name}")
        await above.close()
