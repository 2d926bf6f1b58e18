"""`lienthong subscriber`: who reads events from outside, and with what."""

import asyncio
import dataclasses
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deploy.cli.console import print_json, say, table
from deploy.cli.errors import CommandFailed, WrongUse
from deploy.cli.options import AsJson, Data
from deploy.cli.site import ServiceRefused, SiteClient, find_site
from deploy.cli.topics import bus_of, subscribers_of, with_admin

if TYPE_CHECKING:
    from deploy.kafka.protocol import Admin
    from shared.bus.connection import BusSettings

Code = Annotated[str, typer.Argument(metavar="CODE", help="The subscriber's agency code.")]

# What --topics may say for short.
SHORT = {"public": "lienthong.public.dossier.v1", "indicator": "lienthong.indicator.v1"}
OWN = ("own", "agency", "dossier", "transfer")
QUOTA = 1 << 20  # bytes a second from each broker: a slow line's worth, and far below what would hold up the services

app = typer.Typer(help="Agencies that read events from the site's bus.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def subscriber() -> None:
    """Agencies that read events from the site's bus, each with credentials, topics and a quota of its own."""


@app.command()
def add(
    code: Code,
    out: Annotated[Path, typer.Option(metavar="F", help="Where its credentials are written; it holds a secret.")],
    tier: Annotated[Literal["public", "agency"], typer.Option(help="How far it sees.")] = "public",
    topics: Annotated[
        str, typer.Option(metavar="A,B", help="public, indicator, own (its own view, tier agency), or names of topics.")
    ] = "public",
    replay_days: Annotated[float, typer.Option(min=0, help="How far back its own view begins.")] = 7.0,
    quota: Annotated[int, typer.Option(min=1024, help="Bytes a second from each broker.")] = QUOTA,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Register a subscriber: its topics, access, credentials and quota. Refused where the broker has no access control.

    \b
    Examples:
      lienthong subscriber add H55.17 --tier agency --topics own,public --out police.json
      lienthong subscriber add G14 --topics public,indicator --out g14.json
    """
    done = asyncio.run(_add(data, code, tier, topics, replay_days, quota, out))
    if as_json:
        print_json(done)
    else:
        say(
            f"{done['code']} reads {', '.join(done['topics'])}; {done['replayed']} events of the window are on its way."
        )
        say(f"{out} holds its credentials: hand it over by a safe way, and delete it here.")


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML or JSON: who reads what, from how far back.")],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the credentials of new ones are written: DIR/CODE.json.")
    ],
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Register all subscribers of a file that are not registered yet. One that is there otherwise is named, and stays: exit 1.

    
    The file:
      subscribers:
        - {code: H55.242, tier: agency, topics: [own, public], replay_days: 30}
        - {code: G14, topics: [public, indicator]}
    
    Example:
      lienthong subscriber apply subscribers.yaml --out ./credentials
    """
    wanted = read_subscribers(file)
    out.mkdir(parents=True, exist_ok=True)
    done = asyncio.run(_apply(data, wanted, out))
    if as_json:
        print_json(done)
    else:
        for line in done:
            say(f"{line['code']}: {line['outcome']}")
    if any(line["outcome"] == "other" for line in done):
        raise CommandFailed("remove those that are registered otherwise (`other`), and apply the file again.")


@app.command("test")
def try_(
    file: Annotated[Path, typer.Argument(metavar="F", help="As `subscriber add` wrote it.")], as_json: AsJson = False
) -> None:
    """Try a subscriber's credentials: it reads what it may, and what it may not is denied. Exit 1 if not so.

    \b
    Example:
      lienthong subscriber test police.json
    """
    import json

    try:
        known = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{file} cannot be read: {error}") from None
    results = asyncio.run(_test(known))
    if as_json:
        print_json(results)
    else:
        table("Access", ("topic", "operation", "expected", "found"), [list(line.values())[:4] for line in results])
    if any(line["expected"] != line["found"] for line in results):
        raise typer.Exit(1)


@app.command("list")
def list_(data: Data = None, as_json: AsJson = False) -> None:
    """List the subscribers.

    \b
    Example:
      lienthong subscriber list --data ./data/site
    """
    items = asyncio.run(subscribers_of(find_site(data)))
    if as_json:
        print_json(items)
    elif not items:
        say("There is no subscriber.")
    else:
        columns = ("code", "tier", "topics", "added", "added_by")
        rows = [[i["code"], i["tier"], ", ".join(i["topics"]), i["added"], i["added_by"]] for i in items]
        table("Subscribers", columns, rows)


@app.command()
def remove(code: Code, data: Data = None, as_json: AsJson = False) -> None:
    """Take a subscriber's access, credentials and topic away.

    \b
    Example:
      lienthong subscriber remove H55.17
    """
    asyncio.run(_remove(data, code))
    if as_json:
        print_json({"code": code, "removed": True})
    else:
        say(f"{code} reads nothing any more.")


def topics_of(code: str, said: str) -> list[str]:
    """The topics that `--topics` names, in full."""
    from shared.contracts.events import agency_topic

    names = [name.strip() for name in said.split(",") if name.strip()]
    if not names:
        raise WrongUse("--topics names no topic.")
    return list(dict.fromkeys(agency_topic(code) if name in OWN else SHORT.get(name, name) for name in names))


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """One entry of a file of subscribers; `topics` in full."""

    code: str
    tier: str
    topics: tuple[str, ...]
    replay_days: float
    quota: int


def read_subscribers(file: Path) -> list[Wanted]:
    """Raises CommandFailed with the file's name and the place of each fault."""
    import yaml
    from pydantic import BaseModel, ConfigDict, Field, ValidationError

    from shared.contracts.codes import AgencyCode

    class Entry(BaseModel):
        model_config = ConfigDict(extra="forbid")

        code: AgencyCode
        tier: Literal["public", "agency"] = "public"
        topics: Annotated[list[str], Field(min_length=1)] = ["public"]
        replay_days: Annotated[float, Field(ge=0)] = 7.0
        quota: Annotated[int, Field(ge=1024)] = QUOTA

    class Content(BaseModel):
        model_config = ConfigDict(extra="forbid")

        subscribers: list[Entry]

    try:
        entries = Content.model_validate(yaml.safe_load(file.read_text(encoding="utf-8"))).subscribers
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CommandFailed(f"{file} cannot be read: {error}") from None
    except ValidationError as error:
        faults = [f"{file} /{'/'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)]
        raise CommandFailed("\n".join(faults)) from None
    codes = [entry.code for entry in entries]
    if twice := sorted({code for code in codes if codes.count(code) > 1}):
        raise CommandFailed(f"{file} /subscribers: more than once: {', '.join(twice)}")
    return [
        Wanted(e.code, e.tier, tuple(topics_of(e.code, ",".join(e.topics))), e.replay_days, e.quota) for e in entries
    ]


async def _apply(data: Path | None, wanted: list[Wanted], out: Path) -> list[dict[str, Any]]:
    """Of each what was done: `added`, `there` already, or there as an `other`."""
    known = {item["code"]: item for item in await subscribers_of(find_site(data))}
    done: list[dict[str, Any]] = []
    for each in wanted:
        if (there := known.get(each.code)) is not None:
            same = (there["tier"], sorted(there["topics"])) == (each.tier, sorted(each.topics))
            done.append({"code": each.code, "outcome": "there" if same else "other"})
            continue
        file = out / f"{each.code}.json"
        said = ",".join(each.topics)
        added = await _add(data, each.code, each.tier, said, each.replay_days, each.quota, file)
        done.append({"code": each.code, "outcome": "added", "replayed": added["replayed"], "file": str(file)})
    return done


async def _add(
    data: Path | None, code: str, tier: str, said: str, replay_days: float, quota: int, out: Path
) -> dict[str, Any]:
    from deploy.kafka.plan import subscriber_acls, subscriber_group, subscriber_user
    from deploy.kafka.protocol import NoAccessControl, logs_in
    from shared.contracts.codes import normalise_agency

    try:
        code = normalise_agency(code)
    except ValueError as error:
        raise CommandFailed(str(error)) from None
    site = find_site(data)
    bus, topics = bus_of(site), topics_of(code, said)
    await _must_have_access_control(bus)
    async with SiteClient(site, who="subscriber") as client:
        body = {"code": code, "tier": tier, "topics": topics, "replay_days": replay_days}
        done: dict[str, Any] = await client.post("routing", "/v1/subscribers", body)
    password, user = secrets.token_urlsafe(32), subscriber_user(code)

    async def work(admin: "Admin") -> None:
        await admin.set_password(user, password)
        await admin.allow(subscriber_acls(bus, code, topics))
        await admin.limit(user, quota)
        if not await logs_in(dataclasses.replace(bus, username=user, password=password)):
            raise CommandFailed(f"the bus on {bus.bootstrap} does not take the new credentials of {user}.")

    try:
        await with_admin(bus, work)
    except NoAccessControl:
        raise CommandFailed(_NO_CONTROL.format(bus=bus.bootstrap)) from None
    known = {
        "site": site.code,
        "code": code,
        "bootstrap": bus.bootstrap,
        "security": bus.security_protocol,
        "mechanism": "SCRAM-SHA-512",
        "username": user,
        "password": password,
        "topics": [bus.topic(name) for name in topics],
        "group_prefix": subscriber_group(bus, code),
        "prefix": bus.prefix,
    }
    _write_secret(out, known)
    return done


_NO_CONTROL = (
    "the bus on {bus} has no access control: whoever reaches it reads everything, so that no subscriber can be let in."
    " Use Apache Kafka with an authorizer and SASL (docs/kafka-access.md)."
)


async def _must_have_access_control(bus: "BusSettings") -> None:
    from deploy.kafka.protocol import NoAccessControl

    try:
        await with_admin(bus, lambda admin: admin.acls("User:nobody"))
    except NoAccessControl:
        raise CommandFailed(_NO_CONTROL.format(bus=bus.bootstrap)) from None


def _write_secret(out: Path, known: dict[str, Any]) -> None:
    import json

    try:
        with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(json.dumps(known, ensure_ascii=False, indent=1) + "\n")
    except OSError as error:
        raise CommandFailed(
            f"{out} cannot be written ({error.strerror}): remove the subscriber, and add it again."
        ) from None


async def _remove(data: Path | None, code: str) -> None:
    from deploy.kafka.plan import subscriber_user
    from deploy.kafka.protocol import NoAccessControl
    from shared.contracts.events import agency_topic

    site = find_site(data)
    bus = bus_of(site)
    async with SiteClient(site, who="subscriber") as client:
        answer = await client.ask("routing", "DELETE", f"/v1/subscribers/{code}")
    if answer.status_code != 204:
        raise ServiceRefused(f"there is no subscriber {code}.", answer.status_code)

    async def work(admin: "Admin") -> None:
        user = subscriber_user(code)
        await admin.disallow(await admin.acls(f"User:{user}"))
        await admin.forget_password(user)
        await admin.limit(user, None)
        if bus.topic(agency_topic(code)) in await admin.topics():
            await admin.delete_topics([bus.topic(agency_topic(code))])

    try:
        await with_admin(bus, work)
    except NoAccessControl:
        raise CommandFailed(_NO_CONTROL.format(bus=bus.bootstrap)) from None


# -- trying


async def _test(known: dict[str, Any]) -> list[dict[str, Any]]:
    """Reads a record of each topic, and tries what must be denied: to write there, and to read what is internal."""
    from shared.bus.connection import BusSettings
    from shared.contracts.events import TOPICS

    try:
        bus = BusSettings(
            known["bootstrap"],
            prefix=known["prefix"],
            security_protocol=known["security"],
            username=known["username"],
            password=known["password"],
        )
        group, topics = known["group_prefix"] + "test", list(known["topics"])
    except (KeyError, TypeError) as error:
        raise CommandFailed(f"this is no file of `subscriber add`: {error} is missing.") from None
    results = []
    for topic in topics:
        results.append(await _try(bus, topic, "read", "allowed", _read(bus, topic, group)))
        results.append(await _try(bus, topic, "write", "denied", _write(bus, topic)))
    for name in TOPICS:
        topic = bus.topic(name)
        if topic not in topics:
            results.append(await _try(bus, topic, "read", "denied", _look_into(bus, topic)))
            results.append(await _try(bus, topic, "write", "denied", _write(bus, topic)))
    if topics:
        foreign = _read(bus, topics[0], bus.topic("lienthong.stats"))
        results.append(await _try(bus, f"group {bus.topic('lienthong.stats')}", "join", "denied", foreign))
    return results


async def _try(bus: "BusSettings", topic: str, operation: str, expected: str, attempt: Any) -> dict[str, Any]:
    from aiokafka.errors import (
        GroupAuthorizationFailedError,
        KafkaError,
        TopicAuthorizationFailedError,
    )

    try:
        async with asyncio.timeout(30.0):
            sample = await attempt
        return {"topic": topic, "operation": operation, "expected": expected, "found": "allowed", "sample": sample}
    except (TopicAuthorizationFailedError, GroupAuthorizationFailedError):
        return {"topic": topic, "operation": operation, "expected": expected, "found": "denied", "sample": None}
    except (KafkaError, OSError, TimeoutError) as error:
        raise CommandFailed(f"{bus.bootstrap}: {topic}: {type(error).__name__}: {error}") from None


async def _read(bus: "BusSettings", topic: str, group: str) -> dict[str, str] | None:
    """Joins the group, reads; the headers of the first record, or None when there is none yet."""
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(
        topic, **bus.client(), group_id=group, auto_offset_reset="earliest", enable_auto_commit=False
    )
    try:
        await consumer.start()
        for records in (await consumer.getmany(timeout_ms=5000)).values():
            return {name: value.decode() for name, value in records[0].headers}
        return None
    finally:
        await consumer.stop()


async def _look_into(bus: "BusSettings", topic: str) -> None:
    """Reads without a group: that a topic is closed is known by asking for it, before anything is joined."""
    from aiokafka import AIOKafkaConsumer, TopicPartition
    from aiokafka.errors import TopicAuthorizationFailedError

    consumer = AIOKafkaConsumer(**bus.client(), enable_auto_commit=False)
    try:
        await consumer.start()
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek(TopicPartition(topic, 0), 0)
        for _ in range(25):
            if topic in consumer._client.cluster.unauthorized_topics:
                raise TopicAuthorizationFailedError(topic)
            if await consumer.getmany(timeout_ms=200):
                return
    finally:
        await consumer.stop()


async def _write(bus: "BusSettings", topic: str) -> None:
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(**bus.client())
    try:
        await producer.start()
        await producer.send_and_wait(topic, b"{}", key=b"denied")
    finally:
        await producer.stop()
