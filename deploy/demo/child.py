"""A site of the demo: `lienthong up` as a child process on free ports, which ends with us."""

import asyncio
import json
import os
import random
import signal
import socket
import sys
from collections.abc import Container
from contextlib import suppress
from pathlib import Path
from typing import Any

from deploy.embedded.process import before_exec

READY_WITHIN = 120.0  # three at once start in about 10 s on two free cores
ENDS_WITHIN = 12.0
PORTS_OF_A_SITE = 6


class SiteFailed(Exception):
    """The site did not start; the message is what it complained of."""


class SiteChild:
    """`start` until it is ready, `stop` until it is gone."""

    def __init__(self, data: Path, bundle: Path, base_port: int) -> None:
        self._data, self._bundle, self._base_port = data, bundle, base_port
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> dict[str, Any]:
        """The ready line. Raises SiteFailed."""
        arguments = ["up", "--data", str(self._data), "--bundle", str(self._bundle)]
        arguments += ["--base-port", str(self._base_port), "--json"]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "deploy.cli.main", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for us: we end the site in order
            preexec_fn=before_exec(signal.SIGTERM, None),
        )
        assert self._process.stdout is not None
        line = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_WITHIN):
                line = await self._process.stdout.readline()
        if not line:
            raise SiteFailed(await self._complaint())
        ready: dict[str, Any] = json.loads(line)
        return ready

    async def _complaint(self) -> str:
        await self.stop()
        assert self._process is not None
        assert self._process.stderr is not None
        said = (await self._process.stderr.read()).decode(errors="replace").strip()
        return said or f"the site was not ready within {READY_WITHIN:.0f} s: look into {self._data / 'logs'}"

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL to one that does not heed it: its own children then end by themselves."""
        if self._process is None or self._process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(ENDS_WITHIN):
                await self._process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


def _environment() -> dict[str, str]:
    """Ours without LIENTHONG_…: the demo's sites never touch a database or bus that is somebody's."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith("LIENTHONG_")}


def free_base_port(taken: Container[int] = ()) -> int:
    """A base whose six ports are free, below those that the system hands out by itself. `taken`: bases of sites that may
    not have opened theirs yet."""
    for base in random.sample(range(20_000, 32_000, 10), 200):
        if base in taken:
            continue
        sockets = [socket.socket() for _ in range(PORTS_OF_A_SITE)]
        try:
            for offset, probe in enumerate(sockets):
                probe.bind(("127.0.0.1", base + offset))
        except OSError:
            continue
        else:
            return base
        finally:
            for probe in sockets:
                probe.close()
    raise SiteFailed("no six ports in a row are free between 20000 and 32000.")
