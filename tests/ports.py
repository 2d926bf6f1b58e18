"""Free ports for what the tests start, never the same for two test processes that run side by side."""

import fcntl
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

# Beside those of the demo, and below the ports that the system gives to clients: who comes back to its port must not
# find a client on it.
FIRST, LAST, SLOT = 10_000, 19_990, 10

_held: list[IO[bytes]] = []  # a slot is ours while its file is locked, which ends with this process


def free_port() -> int:
    return base_port(1)


def base_port(count: int = 6) -> int:
    """The first of `count` ports (at most 10) in a row that are free, for this process alone."""
    folder = Path(tempfile.gettempdir()) / "lienthong-test-ports"
    folder.mkdir(exist_ok=True, mode=0o777)
    for base in range(FIRST, LAST, SLOT):
        lock = (folder / str(base)).open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        _held.append(lock)
        with suppress(OSError):
            for port in range(base, base + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return base
    raise AssertionError("no free port")
