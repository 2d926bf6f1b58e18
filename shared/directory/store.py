"""The site's directory as the services of a site share it: one document a version, in the schema `site`."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from shared.directory.bundle import Bundle
from shared.directory.directory import Directory
from shared.directory.merge import Difference, Site, merge
from shared.store.pool import TRANSIENT_ERRORS, Connection, Pool

SCHEMA = "site"
log = structlog.get_logger("lienthong.directory")


async def stored_site(connection: Connection) -> tuple[int, Site | None]:
    """The newest version and what it holds; (0, None) before the first load."""
    row = await connection.fetchrow("SELECT version, content FROM site.document ORDER BY version DESC LIMIT 1")
    return (0, None) if row is None else (row["version"], Site.model_validate_json(row["content"]))


async def load(
    connection: Connection, bundle: Bundle, *, who: str, dry_run: bool = False
) -> tuple[int, tuple[Difference, ...]]:
    """Merges a bundle into the site, in one transaction; the version that holds, and the differences it made.

    Loading the same twice makes no version. Raises BundleFault; nothing is then changed.
    """
    async with connection.transaction():
        await lock_site(connection)
        version, current = await stored_site(connection)
        site, differences = merge(current, bundle)
        if dry_run or (current is not None and not differences):
            return version, differences
        await connection.execute(
            "INSERT INTO site.document (version, content, who) VALUES ($1, $2, $3)",
            version + 1,
            site.model_dump_json(),
            who,
        )
        return version + 1, differences


async def lock_site(connection: Connection) -> None:
    """One load at a time, until the transaction ends."""
    await connection.execute("LOCK TABLE site.document IN SHARE ROW EXCLUSIVE MODE")


async def replace_site(connection: Connection, version: int, site: Site, *, who: str) -> None:
    """What a neighbour's directory makes of ours, in the caller's transaction, which has locked the site."""
    await connection.execute(
        "INSERT INTO site.document (version, content, who) VALUES ($1, $2, $3)",
        version + 1,
        site.model_dump_json(),
        who,
    )


class NoBundle(LookupError):
    """Nothing has been loaded yet: there are no agencies to work for."""


class LiveDirectory:
    """The directory as it stands; a load on a running site is seen within the polling time, or at once by `refresh`."""

    def __init__(self, pool: Pool, poll: float = 0.5) -> None:
        self._pool, self._poll = pool, poll
        self._directory: Directory | None = None
        self.version = 0
        self.on_change: list[Callable[[Directory], Awaitable[None]]] = []

    @property
    def current(self) -> Directory:
        """Raises NoBundle before the first load."""
        if self._directory is None:
            raise NoBundle("no bundle has been loaded: lienthong site load FILE")
        return self._directory

    @property
    def loaded(self) -> bool:
        return self._directory is not None

    async def refresh(self) -> None:
        async with self._pool.acquire() as connection:
            version = await connection.fetchval("SELECT max(version) FROM site.document") or 0
            if version == self.version:
                return
            version, site = await stored_site(connection)
        if site is not None:
            self._directory, self.version = Directory(site), version
            for changed in self.on_change:
                await changed(self._directory)

    async def run(self) -> None:
        while True:
            try:
                await self.refresh()
            except TRANSIENT_ERRORS as error:
                log.warning("directory-not-read", error=type(error).__name__)
            await asyncio.sleep(self._poll)
