"""A site's books. Promise 5, no silent loss: accepted = stored = published = routed = told = counted."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deploy.cli.parked import parked_items
from deploy.cli.site import ServiceAway, SiteClient
from deploy.state import SERVICES
from shared.contracts.events import TOPICS

MISSING_SHOWN = 20
LOOK_EVERY = 0.3  # seconds, while it waits

Hour = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of an event's way, with what went in and what came out of it."""

    hop: str  # stored, published, applied, told
    topic: str
    from_: str
    to: str
    events: int
    applied: int
    keys: int
    equal: bool
    missing: Sequence[str] = ()

    def as_dict(self) -> dict[str, Any]:
        return {name.rstrip("_"): value for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Account:
    """A site's books: every hop, what is parked, and of the acts that ask for a notice how many got one, or why not."""

    hops: Sequence[Hop]
    parked: Sequence[Mapping[str, Any]]
    told: Mapping[str, Any]

    @property
    def reconciled(self) -> bool:
        return all(hop.equal for hop in self.hops) and not self.parked

    def as_dict(self) -> dict[str, Any]:
        return {
            "reconciled": self.reconciled,
            "hops": [hop.as_dict() for hop in self.hops],
            "parked": list(self.parked),
            "told": dict(self.told),
        }


async def reconciled_within(client: SiteClient, wait: float) -> Account:
    """The account as soon as it is reconciled, else as it stands after `wait` seconds, with what is missing named.

    Raises ServiceAway when a service does not answer at the end of the wait.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + wait
    while loop.time() < until:
        try:
            account = await take(client, name_missing=False)
        except ServiceAway:
            pass
        else:
            if account.reconciled:
                return account
        await asyncio.sleep(min(LOOK_EVERY, max(0.0, until - loop.time())))
    return await take(client, name_missing=True)


async def take(client: SiteClient, *, name_missing: bool) -> Account:
    """One look at all the books. Counts that move meanwhile differ: a site at work is reconciled by waiting."""
    sites = await asyncio.gather(*(client.get(service, "/v1/site") for service in SERVICES))
    consumers = dict(zip(SERVICES, (site["consumes"] for site in sites), strict=True))
    hops = await asyncio.gather(
        _accepted(client),
        *(_published(client, topic) for topic in _owned()),
        *(
            _applied(client, topic, consumer, name_missing)
            for topic in _owned()
            for consumer, consumed in consumers.items()
            if topic in consumed
        ),
    )
    parked = [item for item in await parked_items(client) if item["state"] == "parked"]
    told = await client.get("notify", "/v1/told")
    return Account([*hops, telling(told)], parked, summed(told))


def telling(told: Mapping[str, Any]) -> Hop:
    """Told: each act that asks for a notice has one, in any state, or a recorded reason."""
    asked = sum(hour["asked"] for hour in told["items"])
    waiting = sum(hour["neither"] for hour in told["items"])
    missing = told["missing"][:MISSING_SHOWN]
    return Hop("told", "", "notify", "applicant", asked, asked - waiting, 0, not missing, missing)


def summed(told: Mapping[str, Any]) -> dict[str, Any]:
    """Over all hours: acts that asked for a notice, acts that got one, and why the others did not."""
    counts = {name: sum(hour[name] for hour in told["items"]) for name in ("asked", "notices")}
    return counts | {"reasons": told["reasons"], "missing": told["missing"]}


def _owned() -> list[str]:
    """The topics that one service alone writes: their keys have a place that can be compared."""
    return [name for name, topic in TOPICS.items() if topic.owner in SERVICES]


async def _accepted(client: SiteClient) -> Hop:
    """Accepted = stored: the sequences that the dossiers stand at, and the events in the log."""
    topic = "lienthong.dossier.v1"
    accepted, stored = await asyncio.gather(
        client.get("intake", "/v1/accepted"), client.get("intake", "/v1/stored", topic=topic)
    )
    events, kept = accepted["events"], stored["stored"]
    return Hop("stored", topic, "intake", "intake", events, kept, accepted["dossiers"], events == kept)


async def _published(client: SiteClient, topic: str) -> Hop:
    """Stored = published: nothing of the topic is in the outbox any more."""
    owner = TOPICS[topic].owner
    stored = await client.get(owner, "/v1/stored", topic=topic)
    count, waiting = stored["stored"], stored["unpublished"]
    return Hop("published", topic, owner, "bus", count, count - waiting, 0, waiting == 0)


async def _applied(client: SiteClient, topic: str, consumer: str, name_missing: bool) -> Hop:
    """Published = applied: each key stands where its owner has it, compared by the owner's recorded hour."""
    owner = TOPICS[topic].owner
    owned, consumed = await asyncio.gather(
        _hours(client, owner, topic, "owned"), _hours(client, consumer, topic, "consumed")
    )
    hours = differing(owned, consumed)
    missing = await _missing(client, topic, consumer, hours) if hours and name_missing else ()
    return Hop(
        "applied",
        topic,
        owner,
        consumer,
        sum(hour["events"] for hour in owned.values()),
        sum(hour["events"] for hour in consumed.values()),
        sum(hour["keys"] for hour in owned.values()),
        not hours,
        missing,
    )


async def _hours(client: SiteClient, service: str, topic: str, side: str) -> dict[str, Hour]:
    answer = await client.get(service, "/v1/heads", topic=topic, side=side)
    return {item["hour"]: item for item in answer["items"]}


def differing(owned: Mapping[str, Hour], consumed: Mapping[str, Hour]) -> list[str]:
    """The hours whose keys do not all stand alike on both sides, oldest first."""

    def mark(hour: Hour | None) -> tuple[Any, ...]:
        return (hour["keys"], int(hour["events"]), hour["digest"]) if hour else ()

    return sorted(h for h in owned.keys() | consumed.keys() if mark(owned.get(h)) != mark(consumed.get(h)))


async def _missing(client: SiteClient, topic: str, consumer: str, hours: Sequence[str]) -> list[str]:
    """The first keys that do not stand alike. A key that lags lies in an earlier hour at the consumer: both are asked."""
    owner, missing = TOPICS[topic].owner, list[str]()
    seen: dict[str, int] = {}
    for hour in hours:
        seen |= (await client.get(consumer, "/v1/heads/hour", topic=topic, side="consumed", hour=hour))["items"]
    for hour in hours:
        owned = (await client.get(owner, "/v1/heads/hour", topic=topic, side="owned", hour=hour))["items"]
        missing += unlike(owned, seen)
        if len(missing) >= MISSING_SHOWN:
            break
        for key in owned:
            seen.pop(key, None)
    return (missing or sorted(seen))[:MISSING_SHOWN]


def unlike(owned: Mapping[str, int], consumed: Mapping[str, int]) -> list[str]:
    """Keys that stand elsewhere at the consumer, or not at all."""
    return sorted(key for key, sequence in owned.items() if consumed.get(key) != sequence)
