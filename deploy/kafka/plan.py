"""What a site's bus should be, and what differs: topics and who may do what. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import yaml

from deploy.kafka.protocol import Acl
from shared.bus.connection import BusSettings
from shared.bus.publisher import new_topic
from shared.contracts.events import AGENCY_TOPIC_PARTITIONS, TOPICS, agency_topic, link_topics

SUBSCRIBER_USER, LINK_USER = "subscriber-", "link-"
EVERY_SERVICE_WRITES = tuple(name for name, topic in TOPICS.items() if topic.owner == "all")
EVERY_SERVICE_READS = ("lienthong.watermark.v1",)


def access() -> dict[str, Any]:
    """The file with the services' users and what they read."""
    text = resources.files("deploy.kafka").joinpath("access.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)["services"]
    return found


def service_acls(bus: BusSettings) -> set[Acl]:
    """What each service may do: write and make what it owns, read what it applies, in a group of its own."""
    acls = set[Acl]()
    for service, entry in access().items():
        principal = f"User:{entry['user']}"
        owned = [name for name, topic in TOPICS.items() if topic.owner == service]
        for name in (*owned, *EVERY_SERVICE_WRITES):
            acls |= {Acl(principal, "topic", "literal", bus.topic(name), op) for op in ("create", "write", "describe")}
        for name in (*entry["reads"], *EVERY_SERVICE_READS):
            acls |= {Acl(principal, "topic", "literal", bus.topic(name), op) for op in ("read", "describe")}
        acls.add(Acl(principal, "group", "literal", bus.topic(f"lienthong.{service}"), "read"))
        for prefix, operations in entry.get("prefixes", {}).items():
            acls |= {Acl(principal, "topic", "prefixed", bus.topic(prefix), op) for op in operations}
    return acls


def subscriber_user(code: str) -> str:
    return SUBSCRIBER_USER + code


def subscriber_group(bus: BusSettings, code: str) -> str:
    """What the names of a subscriber's consumer groups begin with."""
    return bus.topic(f"subscriber.{code}.")


def subscriber_acls(bus: BusSettings, code: str, topics: Sequence[str]) -> set[Acl]:
    """A subscriber reads its topics in groups of its own, and does nothing else."""
    principal = f"User:{subscriber_user(code)}"
    acls = {
        Acl(principal, "topic", "literal", bus.topic(name), operation)
        for name in topics
        for operation in ("read", "describe")
    }
    return acls | {Acl(principal, "group", "prefixed", subscriber_group(bus, code), "read")}


def link_user(code: str) -> str:
    """As whom the lower site `code` logs in here."""
    return LINK_USER + code


def link_acls(bus: BusSettings, code: str) -> set[Acl]:
    """A lower site writes its line up and reads its line down; this site makes both."""
    principal, (up, down) = f"User:{link_user(code)}", link_topics(code)
    return {
        Acl(principal, "topic", "literal", bus.topic(name), operation)
        for name, allowed in ((up, "write"), (down, "read"))
        for operation in (allowed, "describe")
    }


@dataclass(frozen=True, slots=True)
class Plan:
    """What `topics apply` does. `fewer`: topics that have more partitions than planned, which no broker takes back."""

    create: Sequence[str]
    repartition: Mapping[str, int]
    fewer: Mapping[str, int]
    configure: Mapping[str, Mapping[str, str]]
    allow: Sequence[Acl]
    disallow: Sequence[Acl]
    access_control: bool
    there: int = field(default=0)

    @property
    def empty(self) -> bool:
        return not (self.create or self.repartition or self.configure or self.allow or self.disallow)

    def as_dict(self) -> dict[str, Any]:
        return {
            "create": list(self.create),
            "repartition": dict(self.repartition),
            "fewer": dict(self.fewer),
            "configure": {name: dict(values) for name, values in self.configure.items()},
            "allow": [str(acl) for acl in self.allow],
            "disallow": [str(acl) for acl in self.disallow],
            "access_control": self.access_control,
        }


def planned(bus: BusSettings, subscribers: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Every topic that the site has, by its name on the bus, with its partitions."""
    topics = {bus.topic(name): bus.partitions for name in TOPICS}
    for subscriber in subscribers:
        own = agency_topic(subscriber["code"])
        if own in subscriber["topics"]:
            topics[bus.topic(own)] = AGENCY_TOPIC_PARTITIONS
    return topics


def plan(
    bus: BusSettings,
    subscribers: Sequence[Mapping[str, Any]],
    topics: Mapping[str, int],
    configs: Mapping[str, Mapping[str, str]],
    acls: set[Acl] | None,
) -> Plan:
    """The difference to what is there: `topics` with their partitions, their `configs`, and `acls` (None: no control).

    Access lists of others than the site's services and subscribers are left alone.
    """
    wanted = planned(bus, subscribers)
    configure = {}
    for name in wanted:
        asked = new_topic(bus, bus.plain(name)).topic_configs
        there = configs.get(name, {})
        if name in topics and (other := {k: v for k, v in asked.items() if there.get(k) != v}):
            configure[name] = other
    allowed = service_acls(bus)
    for subscriber in subscribers:
        allowed |= subscriber_acls(bus, subscriber["code"], subscriber["topics"])
    ours = {f"User:{entry['user']}" for entry in access().values()}
    have = {a for a in acls or () if a.principal in ours or a.principal.startswith(f"User:{SUBSCRIBER_USER}")}
    have = {a for a in have if a.name.startswith(bus.prefix)}  # the others are another site's, on the same bus
    return Plan(
        create=sorted(set(wanted) - set(topics)),
        repartition={name: n for name, n in sorted(wanted.items()) if topics.get(name, n) < n},
        fewer={name: topics[name] for name, n in sorted(wanted.items()) if topics.get(name, n) > n},
        configure=configure,
        allow=sorted(allowed - have) if acls is not None else (),
        disallow=sorted(have - allowed) if acls is not None else (),
        access_control=acls is not None,
    )
