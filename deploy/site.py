"""A whole site in one process: embedded database and broker, and the four services on one loop."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import structlog

from deploy.demo.sample import SAMPLE
from deploy.embedded.broker import EmbeddedBroker, make_topics
from deploy.embedded.postgres import EmbeddedPostgres
from deploy.logfile import LogFolder
from deploy.schema import migrate_site
from deploy.serving import HttpServer, calm_garbage_collector, give_back_memory, listen
from deploy.state import BASE_PORT, FolderLock, Ports, State, read_state
from shared.contracts.events import TOPICS
from shared.directory.bundle import Bundle
from shared.directory.directory import Directory
from shared.directory.faults import BundleFault
from shared.directory.merge import Difference
from shared.directory.reading import load_bundle
from shared.directory.store import load, stored_site
from shared.observe.logs import configure_logs
from shared.security.keys import load_keys
from shared.security.trust import trusted
from shared.service import SERVICES, Service
from shared.settings import Settings
from shared.store.grants import service_url
from shared.store.pool import TRANSIENT_ERRORS, Connection, connect

log = structlog.get_logger("lienthong.site")

# Connections of each service's pool, beside one for its relay's locks. At five dossiers a second more of them only cost
# memory, some 7 MB each.
POOL = 2
# What an emptied embedded bus is filled with again, in MB for the whole site: a service's share must leave room below
# what makes its supervisor restart it, or the refill would make it restart.
BUS_WINDOW_MB = 20
ON_ITS_WAY = 500  # records that a service has still to publish or to read; at work there are always some
READY_WITHIN = 60.0
GIVE_BACK_EVERY = 60.0
SERVICE_ENDS_WITHIN = 3.0


class NotReady(Exception):
    """The services did not become ready; the message says which and why."""


class SiteProcess:
    """One site on one folder in this process, from `start` to `stop`.

    Promise 6 at work: the broker holds everything in memory and is emptied when it grows; the services' relays fill it
    again from the database.
    """

    def __init__(
        self, data: Path, *, bundle: Path | None = None, base_port: int | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.data = data.resolve()
        self.services: dict[str, Service] = {}
        self._bundle, self._host = bundle, host
        known = read_state(self.data)
        self._ports = Ports(base_port or (known.base_port if known else BASE_PORT))
        self._lock = FolderLock(self.data)
        self._logs: LogFolder | None = None
        self._database: EmbeddedPostgres | None = None
        self._broker: EmbeddedBroker | None = None
        self._servers: list[HttpServer] = []
        self._watches: list[asyncio.Task[None]] = []

    async def start(self) -> State:
        """Everything up and answering; raises EmbeddedError, BundleFault, MigrationRefused, NotReady, OSError."""
        given = Settings()
        if self._bundle is not None and not (given.database_url or (self.data / "postgres").exists()):
            load_bundle(self._bundle)  # a new site: what is wrong in it is said before anything is made
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock.take()
        listeners = {name: listen(name, self._host, self._ports.service(name)) for name in SERVICES}
        self._logs = LogFolder(self.data / "logs", SERVICES)
        configure_logs(given.log_level, self._logs)  # type: ignore[arg-type]
        load_keys(self.data / "keys")
        database = await self._start_database(given)
        await migrate_site(database)
        site = await self._load(database)
        settings = self._settings(given, site, await service_url(database))
        await self._start_broker(given, settings)
        for name in SERVICES:
            self.services[name] = create(name, settings)
        await asyncio.gather(*(service.start() for service in self.services.values()))
        for name, service in self.services.items():
            server = HttpServer(service.asgi, listeners[name])
            self._servers.append(server)
            server.start()
        state = State(site, self._ports.base, self._urls(), settings["bus_bootstrap"], database, os.getpid())
        await until_ready(state.services)
        state.write(self.data)
        calm_garbage_collector()
        self._watches.append(asyncio.create_task(_stay_small()))
        log.info("site-ready", site=site, pid=os.getpid(), port=self._ports.base)
        return state

    async def stop(self) -> None:
        """Ends everything within ten seconds; what was answered is stored, what was not comes again."""
        await asyncio.gather(*(server.stop() for server in self._servers))
        await asyncio.gather(*(_ended(service) for service in self.services.values()))
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        if self._broker is not None:
            await self._broker.stop()
        if self._database is not None:
            await self._database.stop()
        if self._logs is not None:
            self._logs.close()
        self._lock.release()

    # -- the parts

    async def _start_database(self, given: Settings) -> str:
        if given.database_url:
            return given.database_url
        self._database = EmbeddedPostgres(self.data, self._ports.database)
        url = await self._database.start()
        self._watch(self._database.watch)
        return url

    async def _start_broker(self, given: Settings, settings: dict[str, Any]) -> None:
        if "bus_bootstrap" in given.model_fields_set:
            return
        bus = Settings(**settings).bus()

        async def make_all(bootstrap: str) -> None:
            await make_topics(bootstrap, {bus.topic(name): bus.partitions for name in TOPICS})

        self._broker = EmbeddedBroker(
            self.data,
            self._ports.bus,
            restart_above_mb=given.bus_restart_above_mb,
            caught_up=self._caught_up,
            prepare=make_all,
        )
        await self._broker.start()
        self._watch(self._broker.watch)

    async def _load(self, database: str) -> str:
        """Loads the bundle, at first the sample province; the site's code."""
        connection = await connect(database)
        try:
            version, _ = await stored_site(connection)
            if self._bundle is not None or version == 0:
                await load_file(connection, self._bundle or SAMPLE, who="up")
            _, site = await stored_site(connection)
        finally:
            await connection.close()
        assert site is not None
        return Directory(site).site_code

    def _settings(self, given: Settings, site: str, database: str) -> dict[str, Any]:
        """What all services are told; the environment may say the rest."""
        told: dict[str, Any] = {
            "site": site,
            "database_url": database,
            "database_pool": POOL,
            "keys_dir": self.data / "keys",
            "bus_bootstrap": given.bus_bootstrap,
            "sent_file": self.data / "sent.ndjson",
            "erasures_file": self.data / "erasures.ndjson",
            "postal_file": self.data / "postal.ndjson",
        }
        if "bus_bootstrap" not in given.model_fields_set:
            told |= {
                "bus_bootstrap": f"127.0.0.1:{self._ports.bus}",
                "bus_window_mb": max(1, (given.bus_window_mb or BUS_WINDOW_MB) // len(SERVICES)),
                # What the embedded broker has not: idempotent producers, and groups that are joined within seconds.
                "bus_idempotent": False,
                "bus_groups": False,
            }
        return told | {f"{name}_url": url for name, url in self._urls().items()}

    def _urls(self) -> dict[str, str]:
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self._host, self._host)  # noqa: S104 - compared, not bound
        return {name: f"http://{host}:{self._ports.service(name)}" for name in SERVICES}

    def _watch(self, watch: Callable[[], Awaitable[None]]) -> None:
        async def kept_up() -> None:
            while True:
                try:
                    await watch()
                    return
                except asyncio.CancelledError:
                    raise
                except Exception as error:
                    log.error("watch-failed", exc_info=error)
                    await asyncio.sleep(1.0)

        self._watches.append(asyncio.create_task(kept_up()))

    async def _caught_up(self) -> bool:
        """The bus can be emptied now without a word between services: what is on its way lies well within the window that
        it is filled with again."""
        for service in self.services.values():
            if not service.started:
                return False
            behind = 0 if service.consumer is None else service.consumer.behind()
            if behind is None or behind > ON_ITS_WAY:
                return False
            async with service.pool.acquire() as connection:
                backlog = await connection.fetchrow(service.store_queries["backlog"])
            if backlog is None or backlog["waiting"] > ON_ITS_WAY:
                return False
        return bool(self.services)


def create(name: str, settings: dict[str, Any] | None = None) -> Service:
    """The service `name`, told these settings; without them, as its environment says."""
    module = import_module(f"services.{name}.app")
    told = None
    if settings is not None:
        told = getattr(import_module(f"services.{name}.settings"), f"{name.capitalize()}Settings")(**settings)
    service: Service = module.create(told)
    return service


async def load_file(
    connection: Connection, file: Path, *, who: str, dry_run: bool = False
) -> tuple[int, Sequence[Difference]]:
    """Loads a bundle's file into the site. Raises OSError, and BundleFault that names the file."""
    _, current = await stored_site(connection)
    bundle: Bundle = load_bundle(file, current)
    try:
        return await load(connection, bundle, who=who, dry_run=dry_run)
    except BundleFault as fault:
        raise BundleFault(file.name, fault.faults) from None


async def until_ready(services: dict[str, str] | Any) -> None:
    """Waits until each service answers its probe. Raises NotReady after READY_WITHIN seconds."""
    waiting = dict(services)
    why = "no answer"
    with suppress(TimeoutError):
        async with (
            asyncio.timeout(READY_WITHIN),
            httpx.AsyncClient(timeout=5.0, trust_env=False, verify=trusted()) as http,
        ):
            while waiting:
                for name, url in list(waiting.items()):
                    with suppress(httpx.TransportError):
                        answer = await http.get(f"{url}/readyz")
                        if answer.status_code == 200:
                            del waiting[name]
                        else:
                            why = "; ".join(answer.json()["reasons"])
                if waiting:
                    await asyncio.sleep(0.02)
    if waiting:
        raise NotReady(f"{', '.join(waiting)} not ready within {READY_WITHIN:.0f} s: {why}")


async def _stay_small() -> None:
    while True:
        give_back_memory()
        await asyncio.sleep(GIVE_BACK_EVERY)


async def _ended(service: Service) -> None:
    """A service that does not end in time is cut off: nothing that it has answered is lost by that."""
    with suppress(TimeoutError, *TRANSIENT_ERRORS):
        async with asyncio.timeout(SERVICE_ENDS_WITHIN):
            await service.stop()
