"""`lienthong doctor`: what is wrong with this installation, and what to do about it."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from deploy.cli.console import out, print_json, say
from deploy.cli.options import AsJson, Data
from deploy.cli.site import KnownSite, find_site
from deploy.state import SERVICES

if TYPE_CHECKING:
    from deploy.kafka.plan import Plan
    from shared.bus.connection import BusSettings
    from shared.settings import Settings

LEAST_PYTHON = (3, 11)
LEAST_POSTGRES = 150_000
LEAST_FREE = 1 << 30  # bytes; PostgreSQL alone may keep 512 MB of write-ahead log
LEAST_CONNECTIONS = 40  # four services with a pool of 8 each, and what they lock with
CERTIFICATE_DAYS = 14
PREFIX = "LIENTHONG_"
CLOCK_OFF = 60.0  # seconds; from there receipts of two machines contradict each other
CODES = ("H55.10-260101-0001", "H55.1-260101-0001", "H55.1.2-260101-0001", "h55")  # no language orders these as C does
NEWEST = 20  # records of each partition that are looked at for who has published them
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
    from shared.settings import Settings

    settings = Settings()
    findings = [python(sys.version_info[:3]), *keys(site.keys), disk(site.data or Path.cwd())]
    findings += [
        names({**os.environ, **secret_files(os.environ)}, known_names()),
        *bus_settings(settings.bus(), site.bus),
        metrics_door(settings, site.urls),
    ]
    if site.data is not None:
        findings.append(folder(site.data))
    if settings.bus_ca_file is not None:
        findings.append(certificate(Path(settings.bus_ca_file), datetime.now(UTC)))
    findings += [finding async for finding in _database(site)]
    findings.append(await _bus(site))
    if not _embedded(site):
        findings += [finding async for finding in _neighbours(site)]
        findings += await _topics(site)
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


def disk(folder: Path, free: int | None = None) -> Finding:
    free = shutil.disk_usage(folder).free if free is None else free
    return judged(
        "disk", free >= LEAST_FREE, f"{free >> 20} MB free at {folder}", "make room: a full disk stops all writes."
    )


def folder(data: Path) -> Finding:
    """The site's folder holds keys, the database's password and what was sent."""
    open_ = [path for path in (data, data / "site.json") if path.exists() and path.stat().st_mode & 0o077]
    found = f"{', '.join(map(str, open_))} can be read by others" if open_ else str(data)
    todo = f"chmod -R go= {data}"
    return judged("folder", not open_, found, todo, Verdict.WARNING)


# -- settings


def known_names() -> set[str]:
    """Every name that a setting of the environment may have."""
    from importlib import import_module

    from shared.settings import Settings

    models = [Settings]
    models += [getattr(import_module(f"services.{name}.settings"), f"{name.capitalize()}Settings") for name in SERVICES]
    fields = {f"{PREFIX}{field.upper()}" for model in models for field in model.model_fields}
    return fields | {
        f"{PREFIX}DATA",
        f"{PREFIX}KAFKA_HOME",
        f"{PREFIX}KILLS",
        f"{PREFIX}SECRETS_DIR",
        f"{PREFIX}TEST_BUS",
        f"{PREFIX}TEST_DATABASE_URL",
    }


def secret_files(environment: Mapping[str, str]) -> dict[str, str]:
    """The settings that the files of LIENTHONG_SECRETS_DIR are named after, with where each is."""
    folder = Path(environment.get(f"{PREFIX}SECRETS_DIR", "") or os.devnull)
    return {file.name.upper(): str(file) for file in folder.iterdir()} if folder.is_dir() else {}


def names(environment: Mapping[str, str], known: set[str]) -> Finding:
    """A setting whose name is misspelt says nothing, and its default holds."""
    import difflib

    unknown = sorted(name for name in environment if name.startswith(PREFIX) and name not in known)
    # The upper-case names of secrets that a bundle points at are its own.
    near = {name: difflib.get_close_matches(name, known, 1, 0.8) for name in unknown}
    wrong = [f"{name} (is {near[name][0]} meant?)" for name in unknown if near[name]]
    return judged(
        "settings",
        not wrong,
        ", ".join(wrong) or "all names are known",
        "correct the name: it has no effect.",
        Verdict.WRONG,
    )


def bus_settings(bus: "BusSettings", bootstrap: str) -> list[Finding]:
    """How the services go to a bus that is not on this machine."""
    away = [host for host in bootstrap.split(",") if not host.startswith(("127.", "localhost", "[::1]"))]
    found = []
    if away:
        clear = not bus.security_protocol.endswith("SSL")
        todo = "set LIENTHONG_BUS_SECURITY=SASL_SSL and LIENTHONG_BUS_CA_FILE."
        found.append(judged("bus in clear", not clear, f"{bus.security_protocol} to {away[0]}", todo))
        todo = "set LIENTHONG_BUS_REPLICATION=3: one broker's disk must not hold the only copy."
        found.append(judged("bus copies", bus.replication >= 3, str(bus.replication), todo, Verdict.WARNING))
        todo = "set LIENTHONG_BUS_GROUPS=true: without groups a second process of a service does all the work again."
        found.append(judged("bus groups", bus.groups, str(bus.groups), todo))
    if bus.security_protocol.startswith("SASL"):
        todo = "set LIENTHONG_BUS_USERNAME and LIENTHONG_BUS_PASSWORD (docs/kafka-access.md)."
        named = bool(bus.username and bus.password)
        found.append(judged("bus login", named, bus.username or "no name or no password", todo))
    return found


def metrics_door(settings: "Settings", urls: Mapping[str, str]) -> Finding:
    """/metrics holds no personal data, but tells how a site is doing."""
    away = [url for url in urls.values() if not any(host in url for host in ("127.0.0.1", "localhost", "[::1]"))]
    return judged(
        "metrics",
        not away or settings.metrics_token is not None,
        "open to whoever reaches the services" if away else "on this machine alone",
        "set LIENTHONG_METRICS_TOKEN, and give it to Prometheus (authorization: credentials_file).",
        Verdict.WARNING,
    )


def certificate(file: Path, now: datetime) -> Finding:
    """The bus's certificate authority, as the services trust it."""
    from cryptography.x509 import load_pem_x509_certificates

    try:
        found = load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError) as error:
        why = f"{file}: {type(error).__name__}"
        return Finding("certificate", Verdict.WRONG, why, "set LIENTHONG_BUS_CA_FILE to the authority's PEM file.")
    days = min((c.not_valid_after_utc - now).days for c in found)
    verdict = Verdict.WRONG if days < 0 else Verdict.WARNING
    return judged(
        "certificate", days >= CERTIFICATE_DAYS, f"{days} days left", "renew it, then restart the services.", verdict
    )


# -- the database


async def _database(site: KnownSite) -> AsyncIterator[Finding]:
    import asyncpg

    from deploy.schema import migrate_site
    from shared.directory.store import stored_site
    from shared.store.grants import may_rewrite, service_url
    from shared.store.migrations import MigrationRefused
    from shared.store.pool import TRANSIENT_ERRORS, connect

    try:
        connection = await connect(site.database)
    except (*TRANSIENT_ERRORS, asyncpg.PostgresError, ValueError) as error:
        yield Finding("database", Verdict.WRONG, f"does not answer ({type(error).__name__})", f"{site.start_hint}.")
        return
    try:
        rows = await connection.fetch("SELECT name, setting FROM pg_settings")
        for finding in postgres({row["name"]: row["setting"] for row in rows}):
            yield finding
        ordered = await connection.fetch("SELECT code FROM unnest($1::text[]) AS t (code) ORDER BY code", CODES)
        named = "SELECT datcollate FROM pg_database WHERE datname = current_database()"
        yield collation(await connection.fetchval(named), [row["code"] for row in ordered])
        if not _embedded(site):
            count = await connection.fetchval(
                "SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"
            )
            yield standby(count)
        offset = abs((await connection.fetchval("SELECT clock_timestamp()") - datetime.now(UTC)).total_seconds())
        yield judged("clock", offset < CLOCK_OFF, f"{offset:.1f} s from the database's", "set both clocks by NTP.")
        _, directory = await stored_site(connection)
    except asyncpg.UndefinedTableError:
        directory = None
    finally:
        await connection.close()
    if directory is not None:
        served = await connect(await service_url(site.database))
        try:
            yield append_only(await may_rewrite(served, SERVICES))
        finally:
            await served.close()
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
        yield telling({provider.kind for provider in directory.providers})
        yield same_site(site.code, directory.site.code)


def postgres(settings: Mapping[str, str]) -> list[Finding]:
    """What PostgreSQL is set to; `settings` as pg_settings has them."""
    version = int(settings["server_version_num"])
    found = [
        judged("database", version >= LEAST_POSTGRES, f"PostgreSQL {version // 10_000}", "take PostgreSQL 15 or newer.")
    ]
    for name in ("fsync", "full_page_writes", "synchronous_commit"):
        todo = f"ALTER SYSTEM SET {name} = on: what is answered must be stored."
        found.append(judged(name, settings[name] != "off", settings[name], todo))
    todo = "ALTER SYSTEM SET autovacuum = on: tables that change all day grow without it."
    found.append(judged("autovacuum", settings["autovacuum"] == "on", settings["autovacuum"], todo))
    todo = "make the database anew with ENCODING 'UTF8': Vietnamese names need it."
    found.append(judged("encoding", settings["server_encoding"] == "UTF8", settings["server_encoding"], todo))
    least = LEAST_CONNECTIONS
    todo = f"ALTER SYSTEM SET max_connections = {least}, or lower LIENTHONG_DATABASE_POOL."
    count = int(settings["max_connections"])
    found.append(judged("connections", count >= least, str(count), todo, Verdict.WARNING))
    return found


def append_only(tables: Sequence[str]) -> Finding:
    """What is stored is changed by nobody that a service logs in as; `tables`: those that it could."""
    todo = "run `lienthong migrate` as the owner of the tables; then let the services log in as docs/keeping.md says."
    return judged("append-only", not tables, ", ".join(tables) or "held by grants", todo)


def collation(name: str, ordered: Sequence[str]) -> Finding:
    """Codes are listed, and looked for by their beginning, in the order of their characters; `ordered`: CODES as the database
    orders them."""
    todo = "make the database anew with LOCALE 'C' (and ENCODING 'UTF8'), or restore a backup into such a one."
    found = f"{name} orders codes {'as C does' if list(ordered) == sorted(CODES) else ' < '.join(ordered)}"
    return judged("collation", list(ordered) == sorted(CODES), found, todo)


def standby(count: int) -> Finding:
    """Promise 1 across a failover."""
    todo = "set synchronous_standby_names: a failover may lose answers."
    return judged("synchronous standby", count > 0, f"{count} in step", todo)


def telling(kinds: set[str]) -> Finding:
    """Whether anything leaves the machine at all; `kinds` of the bundle's providers."""
    todo = "give the bundle a provider of kind http or kannel, and load it."
    only = kinds <= {"file"}
    return judged("providers", not only, ", ".join(sorted(kinds)) or "none", todo, Verdict.WARNING)


def same_site(ours: str, loaded: str) -> Finding:
    todo = "set LIENTHONG_SITE and LIENTHONG_DATABASE_URL of one site."
    return judged("site", ours == loaded, f"this is {ours}, the database holds {loaded}", todo)


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


async def _neighbours(site: KnownSite) -> AsyncIterator[Finding]:
    """Who else has published under this site's names lately: each site on one Kafka needs a prefix of its own."""
    from aiokafka.errors import KafkaError

    from deploy.cli.topics import bus_of

    with suppress(KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(20):
            yield own_names(await _publishing(bus_of(site)), site.code)


async def _publishing(bus: "BusSettings") -> set[str]:
    """The sites whose events are the newest on topics that only this site's services may write."""
    from aiokafka import AIOKafkaConsumer

    from shared.bus.topic_ids import partitions_of

    topics = [bus.topic(f"lienthong.{name}.v1") for name in ("dossier", "transfer", "contact", "notice")]
    consumer = AIOKafkaConsumer(**bus.client(), enable_auto_commit=False)
    await consumer.start()
    found: set[str] = set()
    try:
        partitions = await partitions_of(consumer._client, topics)
        if not partitions:
            return found
        ends, starts = await consumer.end_offsets(partitions), await consumer.beginning_offsets(partitions)
        filled = [each for each in partitions if ends[each] > starts[each]]
        consumer.assign(filled)
        for each in filled:
            consumer.seek(each, max(starts[each], ends[each] - NEWEST))
        left = set(filled)
        while left:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found |= {site for record in records if (site := site_of_source(dict(record.headers).get("ce_source")))}
            left = {each for each in left if await consumer.position(each) < ends[each]}
    finally:
        await consumer.stop()
    return found


def site_of_source(source: bytes | None) -> str | None:
    """`/sites/H55/intake` is of H55."""
    parts = (source or b"").decode("utf-8", "replace").split("/")
    return parts[2] if len(parts) == 4 and parts[1] == "sites" else None


def own_names(publishing: Collection[str], code: str) -> Finding:
    """Whether nobody else publishes on this site's topics."""
    strangers = sorted(set(publishing) - {code})
    todo = "set LIENTHONG_BUS_PREFIX: each site on one Kafka needs a prefix of its own (docs/two-sites.md)."
    return judged("topics of one site", not strangers, ", ".join(["also", *strangers]) if strangers else code, todo)


async def _topics(site: KnownSite) -> list[Finding]:
    """Topics and access against the plan; and whether anybody is kept out at all."""
    from deploy.cli.errors import CommandFailed
    from deploy.cli.topics import bus_of, look, with_admin

    bus = bus_of(site)
    try:
        plan: Plan = await with_admin(bus, lambda admin: look(admin, bus, []))
    except CommandFailed as error:
        return [
            Finding("topics", Verdict.WARNING, str(error), "log in as an administrator of the bus to look at them.")
        ]
    return against_plan(plan)


def against_plan(plan: "Plan") -> list[Finding]:
    differ = [*plan.create, *plan.repartition, *plan.configure]
    closed = [str(acl) for acl in plan.allow]
    return [
        judged(
            "topics",
            not differ,
            ", ".join(differ) or "as planned",
            "lienthong topics plan, then apply.",
            Verdict.WARNING,
        ),
        judged(
            "access control",
            plan.access_control,
            "on" if plan.access_control else "off: whoever reaches the bus reads everything",
            "set authorizer.class.name on the brokers (docs/kafka-access.md).",
            Verdict.WARNING,
        ),
        judged("access", not closed, f"{len(closed)} rights missing", "lienthong topics apply", Verdict.WARNING),
    ]


def of_one_site(told: Mapping[str, Mapping[str, Any]], code: str) -> list[Finding]:
    """What the services say of themselves at /v1/site: one site, one version of its directory."""
    strangers = sorted(f"{name} is of {said['site']}" for name, said in told.items() if said["site"] != code)
    versions = sorted({int(said["version"]) for said in told.values()})
    todo = "set LIENTHONG_INTAKE_URL and the other three to services of one site."
    return [
        judged("services of one site", not strangers, ", ".join(strangers) or code, todo),
        judged(
            "directory",
            len(versions) <= 1,
            f"version {' and '.join(map(str, versions))}",
            "ask again in a minute; then restart the services that are behind.",
            Verdict.WARNING,
        ),
    ]


def parked_keys(count: int) -> Finding:
    todo = "lienthong parked list, then show, replay or drop."
    return judged("parked", count == 0, f"{count} events", todo, Verdict.WARNING)


async def _services(site: KnownSite) -> AsyncIterator[Finding]:
    import httpx

    from deploy.cli.errors import CommandFailed
    from deploy.cli.parked import parked_items
    from deploy.cli.site import SiteClient

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
    try:
        async with SiteClient(site, who="doctor") as client:
            told = {name: await client.get(name, "/v1/site") for name in SERVICES}
            items = await parked_items(client)
    except CommandFailed:
        return  # said above
    for finding in of_one_site(told, site.code):
        yield finding
    yield parked_keys(sum(item["state"] == "parked" for item in items))
