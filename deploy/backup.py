"""A site's backup: the database as PostgreSQL dumps it at one instant, the keys apart and sealed.

A backup holds everything but the keys; without them the personal data in it cannot be read.
"""

import asyncio
import hashlib
import json
import os
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from deploy.embedded.postgres import binaries
from shared.directory.store import stored_site
from shared.security.recovery import seal_folder
from shared.store.pool import connect
from shared.store.queries import Queries

DATABASE, KEYS, MANIFEST, ERASURES = "database.dump", "keys.jwe", "manifest.json", "erasures.ndjson"


class BackupFailed(Exception):
    """The message is for the operator."""


async def backup(
    database_url: str, keys: Path, to: Path, *, keys_to: Path | None, recipient: str | None, now: datetime
) -> Path:
    """A new folder under `to` with the database as it stands at this instant; with a recipient, the keys in `keys_to`."""
    connection = await connect(database_url)
    try:
        _, site = await stored_site(connection)
        assert site is not None
        queries = Queries("services.intake", "intake")
        erasures = [dict(row) for row in await connection.fetch(queries["erasures"])]
        dossiers = await connection.fetchval(queries["dossiers_count"])
    finally:
        await connection.close()
    name = f"{site.site.code}-{now.strftime('%Y%m%dT%H%M%SZ')}"
    folder = to / name
    folder.mkdir(parents=True, mode=0o700)
    await run("pg_dump", database_url, "--format=custom", "--compress=1", f"--file={folder / DATABASE}")
    lines = [{"contact_ref": row["contact_ref"], "at": row["at"].isoformat()} for row in erasures]
    (folder / ERASURES).write_text("".join(json.dumps(line) + "\n" for line in lines))
    if recipient is not None:
        beside = keys_to or folder
        beside.mkdir(parents=True, mode=0o700, exist_ok=True)
        write(beside / (KEYS if keys_to is None else f"{name}-{KEYS}"), seal_folder(keys, recipient))
    manifest = {
        "site": site.site.code,
        "taken": now.isoformat(),
        "version": version("lienthong"),
        "dossiers": dossiers,
        "sha256": {file: _digest(folder / file) for file in (DATABASE, ERASURES)},
    }
    write(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    return folder


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises BackupFailed when the folder is no backup, or is not as it was written."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        digests = manifest["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise BackupFailed(f"{folder} is no whole backup of a site: it has no {MANIFEST}.") from None
    for file, digest in digests.items():
        if not (folder / file).is_file() or _digest(folder / file) != digest:
            raise BackupFailed(f"{folder / file} is not as it was written: take another backup.")
    return manifest


async def run(program: str, database_url: str, *arguments: str) -> None:
    """One of PostgreSQL's programs on a database; its password goes by the environment, never by the command line."""
    parts = urlsplit(database_url)
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "PGHOST": parts.hostname or "127.0.0.1",
        "PGPORT": str(parts.port or 5432),
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGDATABASE": parts.path.lstrip("/"),
        "LC_ALL": "C",
    }
    given = [f"--dbname={environment['PGDATABASE']}", *arguments] if program == "pg_restore" else list(arguments)
    process = await asyncio.create_subprocess_exec(
        str(binaries() / program),
        *given,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, complaint = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        # The first line names the object; later ones may quote rows.
        lines = complaint.decode(errors="replace").splitlines()
        raise BackupFailed(f"{program} ended with {process.returncode}: {lines[0] if lines else ''}")


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def write(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())


def utc_now() -> datetime:
    return datetime.now(UTC)
