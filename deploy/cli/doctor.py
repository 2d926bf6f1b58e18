"""`lienthong doctor`: what is wrong with this installation, and what to do about it."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import typer

from deploy.cli.console import out, print_json, say
from deploy.cli.options import AsJson, Data
from deploy.cli.site import KnownSite, find_site
from deploy.state import SERVICES

LEAST_PYTHON = (3, 11)
LEAST_POSTGRES = 150_000
LEAST_FREE = 1 << 30  # bytes; PostgreSQL alone may keep 512 MB of write-ahead log
CLOCK_OFF = 60.0  # seconds; from there receipts of two machines contradict each other
SWAPS_KNOWN_FROM = (11, 1)  # by then the next year's swapped working days have been decreed


class Verdict(StrEnum):
    FINE = "fine"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `todo` says what to do when it is not fine."""

    what: str
    verdict: Verdict
    found: str
    todo: str = ""


def doctor(data: Data = None, as_json: AsJson = False) -> None:
    """Look at the installation: keys, database, schema, bus, services, disk, clock, calendars. Exit 1 if something is wrong.

    \b
    Example:
      lienthong doctor --data ./data/site
    """
    findings = asyncio.run(_examine(find_site(data)))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        colours = {Verdict.FINE: "green", Verdict.WARNING: "yellow", Verdict.WRONG: "red"}
        for finding in findings:
            out.print(f"[{colours[finding.verdict]}]{finding.verdict:8}[/] {finding.what}: ", end="")
            say(finding.found + (f" → {finding.todo}" if finding.todo else ""))
    if any(finding.verdict is Verdict.WRONG for finding in findings):
        raise typer.Exit(1)


async def _examine(site: KnownSite) -> list[Finding]:
    findings = [python(sys.version_info[:3]), *keys(site.keys), disk(site.data or Path.cwd())]
    findings += [finding async for finding in _database(site)]
    findings.append(await _bus(site))
    findings += [finding async for finding in _services(site)]
    return findings


def judged(what: str, fine: bool, found: str, todo: str, otherwise: Verdict = Verdict.WRONG) -> Finding:
    return Finding(what, Verdict.FINE, found) if fine else Finding(what, otherwise, found, todo)


# -- the machine


def python(version: tuple[int, ...]) -> Finding:
    text = ".".join(map(str, version))
    return judged("python", version >= LEAST_PYTHON, text, "install Python 3.11 or newer and run `make setup`.")


def keys(folder: Path) -> list[Finding]:
    """The keys are there, and nobody else reads them."""
    found = []
    for name in ("site.pem", "data.key", "hash.key"):
        path = folder / name
        if not path.exists():
            found.append(
                Finding(
                    "keys", Verdict.WRONG, f"{path} is missing", "put it back from the backup: what it sealed needs it."
                )
            )
        elif path.stat().st_mode & 0o077:
            found.append(Finding("keys", Verdict.WRONG, f"{path} can be read by others", f"chmod 600 {path}"))
    return found or [Finding("keys", Verdict.FINE, str(folder))]


def disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    return judged(
        "disk", free >= LEAST_FREE, f"{free >> 20} MB free at {folder}", "make room: a full disk stops all writes."
    )


# -- the database


async def _database(site: KnownSite) -> AsyncIterator[Finding]:
    import asyncpg

    from deploy.schema import migrate_site
    from shared.directory.store import stored_site
    from shared.store.migrations import MigrationRefused
    from shared.store.pool import TRANSIENT_ERRORS, connect

    try:
        connection = await connect(site.database)
    except (*TRANSIENT_ERRORS, asyncpg.PostgresError, ValueError) as error:
        yield Finding("database", Verdict.WRONG, f"does not answer ({type(error).__name__})", f"{site.start_hint}.")
        return
    try:
        version = await connection.fetchval("SELECT current_setting('server_version_num')::int")
        yield judged(
            "database", version >= LEAST_POSTGRES, f"PostgreSQL {version // 10_000}", "take PostgreSQL 15 or newer."
        )
        for name in ("fsync", "full_page_writes", "synchronous_commit"):
            value = await connection.fetchval("SELECT current_setting($1)", name)
            yield judged(name, value != "off", value, f"ALTER SYSTEM SET {name} = on: what is answered must be stored.")
        if not _embedded(site):
            count = await connection.fetchval(
                "SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"
            )
            yield judged(
                "synchronous standby",
                count > 0,
                str(count),
                "set synchronous_standby_names: a failover may lose answers.",
            )
        offset = abs((await connection.fetchval("SELECT clock_timestamp()") - datetime.now(UTC)).total_seconds())
        yield judged("clock", offset < CLOCK_OFF, f"{offset:.1f} s from the database's", "set both clocks by NTP.")
        _, directory = await stored_site(connection)
    except asyncpg.UndefinedTableError:
        directory = None
    finally:
        await connection.close()
    try:
        missing = sum(map(len, (await migrate_site(site.database, check=True)).values()))
        yield judged("schema", not missing, f"{missing} migrations missing", "run `lienthong migrate`.")
    except MigrationRefused as error:
        yield Finding("schema", Verdict.WRONG, str(error), "install the version that the database was migrated with.")
    if directory is None:
        yield Finding("bundle", Verdict.WRONG, "none has been loaded", "lienthong site load FILE")
    else:
        calendars = [*directory.calendars, directory.default_calendar]
        known = {year for calendar in calendars for year in calendar.swap_years}
        yield swap_years(known, datetime.now(UTC).date())


def _embedded(site: KnownSite) -> bool:
    return site.data is not None and (site.data / "postgres").exists()


def swap_years(known: set[int], today: date) -> Finding:
    """Due dates of a year whose swapped working days no calendar version knows are provisional."""
    wanted = today.year + ((today.month, today.day) >= SWAPS_KNOWN_FROM)
    return judged(
        "swapped working days",
        {today.year, wanted} <= known,
        f"known for {', '.join(map(str, sorted(year for year in known if year >= today.year))) or 'no year to come'}",
        f"update the package holidays and load a new calendar version that knows {wanted}.",
        Verdict.WARNING,
    )


# -- bus and services


async def _bus(site: KnownSite) -> Finding:
    import dataclasses

    from shared.bus.publisher import Publisher
    from shared.contracts.events import TOPICS
    from shared.settings import Settings
    from shared.store.relay import PublishFailed

    settings = Settings().bus()
    publisher = Publisher(dataclasses.replace(settings, bootstrap=site.bus))
    try:
        partitions = await publisher.ends(list(TOPICS))
    except PublishFailed as error:
        return Finding("bus", Verdict.WRONG, f"{site.bus} does not answer ({error})", f"{site.start_hint}.")
    finally:
        await publisher.close()
    missing = sorted(set(TOPICS) - {topic for topic, _ in partitions})
    return judged(
        "bus",
        not missing,
        f"{site.bus}, {len(TOPICS) - len(missing)} topics, {len(partitions)} partitions"
        + (f", without {', '.join(missing)}" if missing else ""),
        "the services make their topics by themselves: look at the logs of those that own these.",
    )


async def _services(site: KnownSite) -> AsyncIterator[Finding]:
    import httpx

    async with httpx.AsyncClient(timeout=10.0, trust_env=False) as http:
        for name in SERVICES:
            for probe in ("healthz", "readyz"):
                try:
                    answer: dict[str, Any] = (await http.get(f"{site.urls[name]}/{probe}")).json()
                    reasons = "; ".join(answer["reasons"])
                    todo = f"look at the log of {name}."
                    yield judged(f"{name} {probe}", not reasons, reasons or str(answer["status"]), todo)
                except (httpx.HTTPError, ValueError, KeyError) as error:
                    found = f"{site.urls[name]} does not answer ({type(error).__name__})"
                    yield Finding(f"{name} {probe}", Verdict.WRONG, found, f"{site.start_hint}.")
                    break
