"""PostgreSQL from Debian's package, for tests and benchmarks: a cluster of our own on a free port, thrown away at the end."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from tests.ports import free_port

# Nothing that a test answers has to outlive the machine's power.
FAST = ("fsync=off", "full_page_writes=off", "max_connections=150", "unix_socket_directories=", "timezone=UTC")


class PostgresUnavailable(Exception):
    """Debian's package is not installed; the message says which."""


def binaries() -> Path:
    """The folder of the newest installed version. Raises PostgresUnavailable."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise PostgresUnavailable("PostgreSQL is not installed (Debian: postgresql)")
    return found[-1].parent


class DebianPostgres:
    """`start` to `stop`; `tools` has pg_dump and pg_restore of the same version.

    PostgreSQL refuses to run as root: started by root it runs as the package's own account.
    """

    def __init__(self, folder: Path, settings: tuple[str, ...] = FAST) -> None:
        self.tools = binaries()
        self.port = free_port()
        self._folder, self._settings = folder / "debian-postgres", settings
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://lienthong@127.0.0.1:{self.port}/postgres"

    def start(self) -> str:
        self._folder.mkdir(parents=True)
        account = "postgres" if os.geteuid() == 0 else None
        if account is not None:
            shutil.chown(self._folder, account)
            _let_in(self._folder.parent, account)
        self._run(account, "initdb", "-U", "lienthong", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        settings = [f"port={self.port}", "listen_addresses=127.0.0.1", *self._settings]
        with (self._folder.parent / "debian-postgres.log").open("wb") as log:
            self._process = subprocess.Popen(
                [self.tools / "postgres", "-D", self._folder / "cluster", *(f"--{each}" for each in settings)],
                user=account,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._until_ready()
        return self.url

    def _run(self, account: str | None, tool: str, *arguments: str) -> None:
        command = [str(self.tools / tool), "-D", str(self._folder / "cluster"), *arguments]
        subprocess.run(command, user=account, check=True, capture_output=True, cwd=self._folder)

    def _until_ready(self) -> None:
        ready = [str(self.tools / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port), "-t", "30"]
        while subprocess.run(ready, check=False).returncode != 0:
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError(f"PostgreSQL ended: see {self._folder.parent / 'debian-postgres.log'}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(2)  # SIGINT: fast shutdown
            self._process.wait(timeout=30)


def _let_in(folder: Path, account: str) -> None:
    """A folder of tempfile is closed to others; the account must reach what lies below."""
    if folder.stat().st_uid != pwd.getpwnam(account).pw_uid:
        folder.chmod(folder.stat().st_mode | 0o011)
