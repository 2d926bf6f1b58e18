"""What a site on a folder is: where it answers, written down so that every command finds it."""

import fcntl
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO

from deploy.embedded.process import DataInUse


class ServiceName(StrEnum):
    """The four, in the order of their ports."""

    INTAKE = "intake"
    ROUTING = "routing"
    NOTIFY = "notify"
    STATS = "stats"


SERVICES = tuple(name.value for name in ServiceName)
BASE_PORT = 8001
_BUS, _DATABASE = 4, 5  # after the services' four


@dataclass(frozen=True, slots=True)
class Ports:
    """A site's ports: base, +1, +2, +3 for the services in their order, +4 for the bus, +5 for the database."""

    base: int

    def service(self, name: str) -> int:
        return self.base + SERVICES.index(name)

    @property
    def bus(self) -> int:
        return self.base + _BUS

    @property
    def database(self) -> int:
        return self.base + _DATABASE


@dataclass(frozen=True, slots=True)
class State:
    """DIR/site.json. It stays when the site stops: the next start takes the same ports, and tokens can be made."""

    site: str
    base_port: int
    services: Mapping[str, str]
    bus: str
    database: str
    pid: int

    def write(self, data: Path) -> None:
        """Readable by its owner alone: the database's URL holds a password."""
        draft = data / "site.json.new"
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(asdict(self), indent=1) + "\n")
        draft.replace(data / "site.json")


def read_state(data: Path) -> State | None:
    """None when no site was ever ready on this folder."""
    try:
        return State(**json.loads((data / "site.json").read_text()))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None


class FolderLock:
    """Held while a site runs on a folder; the kernel lets it go when the process dies, however it dies."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._file: IO[str] | None = None

    def take(self) -> None:
        """Raises DataInUse, naming the process that runs the site there."""
        folder = self._data / "run"
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "site.lock").open("a+")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            file.close()
            raise DataInUse(
                f"a site already runs on {self._data} (process {owner}): stop it first, or give another folder."
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None
