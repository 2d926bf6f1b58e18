"""What an operator does to a site at work: changes its keys, backs it up, brings it back on an empty machine, upgrades it."""

import asyncio
import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import orjson

from tests.chaos.ledger import Ledger
from tests.stack import Stack

ROOT = Path(__file__).parents[2]


@dataclass
class Keeping:
    """Done by the commands alone, as docs/keeping.md says. `late`: what did not go as it should."""

    stack: Stack
    ledger: Ledger
    late: list[str]
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def change_keys(self) -> None:
        await self.stack.lienthong("keys", "rotate", "--json")

    async def bring_back(self) -> None:
        """A backup at work must hold all that was answered before it began. Then the site stops, is backed up, its database
        and keys are gone, and it goes on from the backup: in an empty database, with keys out of a sealed file."""
        number = next(self._numbers)
        folder = self.stack.data / f"kept-{number}"
        folder.mkdir()
        identity = folder / "recovery.key"
        made = orjson.loads(await self.stack.lienthong("keys", "recipient", "--out", str(identity), "--json"))
        recipient: str = made["recipient"]
        answered = self._answered()
        await self._restored(await self._back_up(folder / "at-work", recipient), identity, f"aside_{number}")
        await self._holds(answered, f"aside_{number}")
        await self._drop(f"aside_{number}")

        processes = list(self.stack.processes.values())
        for process in processes:
            process.may_run.clear()
        try:
            await asyncio.gather(*(process.stop() for process in processes))
            before = self.stack.database_url.rpartition("/")[2]
            keys = await self._restored(await self._back_up(folder / "at-rest", recipient), identity, f"again_{number}")
            self.stack.database_url = self._url(f"again_{number}")
            self.stack.settings_are(LIENTHONG_DATABASE_URL=self.stack.database_url, LIENTHONG_KEYS_DIR=str(keys))
            await self._drop(before)
        finally:
            for process in processes:
                process.may_run.set()
        until = time.monotonic() + 60
        while any(process.process is None or process.process.returncode is not None for process in processes):
            if time.monotonic() > until:
                raise TimeoutError("the services were not started again")
            await asyncio.sleep(0.05)
        await asyncio.gather(*(process.ready(self.stack.http) for process in processes))

    def _answered(self) -> dict[str, int]:
        """The last version of each dossier that was answered by now."""
        return {
            code: max((act.version for act in dossier.done() if act.version is not None), default=1)
            for code, dossier in self.ledger.coded.items()
        }

    async def _holds(self, answered: dict[str, int], database: str) -> None:
        connection = await asyncpg.connect(self._url(database))
        try:
            rows = await connection.fetch(
                "SELECT aggregateid AS code, max(sequence) AS last FROM intake.event WHERE aggregatetype = 'dossier' GROUP BY 1"
            )
        finally:
            await connection.close()
        held = {row["code"]: row["last"] for row in rows}
        missing = [code for code, version in answered.items() if held.get(code, 0) < version]
        if missing:
            self.late.append(f"a backup lacks what was answered before it: {', '.join(missing[:5])} ({len(missing)})")

    async def _back_up(self, to: Path, recipient: str) -> tuple[Path, Path]:
        """The backup, and its sealed keys in another place."""
        safe = to.with_name(f"{to.name}-keys")
        given = ("--recipient", recipient, "--keys-to", str(safe), "--json")
        taken = Path(orjson.loads(await self.stack.lienthong("backup", str(to), *given))["backup"])
        return taken, next(safe.iterdir())

    async def _restored(self, backup: tuple[Path, Path], identity: Path, database: str) -> Path:
        """Makes the database and restores into it; the folder of the restored keys."""
        await self._administer(f"CREATE DATABASE {database}")
        taken, keys = backup
        empty = taken.with_name("restored")
        given = (
            "--identity",
            str(identity),
            "--keys",
            str(keys),
            "--data",
            str(empty),
            "--database",
            self._url(database),
        )
        await self.stack.lienthong("restore", str(taken), *given)
        return empty / "keys"

    async def _drop(self, database: str) -> None:
        await self._administer(f"DROP DATABASE {database} WITH (FORCE)")

    async def _administer(self, statement: str) -> None:
        connection = await asyncpg.connect(self._url("postgres"))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def _url(self, database: str) -> str:
        return f"{self.stack.database_url.rpartition('/')[0]}/{database}"


def earlier_version(folder: Path, commit: str | None) -> Path | None:
    """The project's files as they were at a commit; at `previous`, before its newest migrations came. Raises RuntimeError
    where there is no history to take them from."""
    if commit is None:
        return None
    if commit == "previous":
        commit = _git("log", "-1", "--format=%H^", "--diff-filter=A", "--", ":(glob)**/migrations/*.sql")
    folder.mkdir()
    archive = folder / "files.tar"
    _git("archive", f"--output={archive}", commit)
    subprocess.run(["tar", "-x", "-f", archive, "-C", folder], check=True)
    archive.unlink()
    return folder


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, env=os.environ)
    if done.returncode != 0:
        raise RuntimeError(f"git {' '.join(arguments)}: {done.stderr.strip()}: an earlier version needs the history")
    return done.stdout.strip()
