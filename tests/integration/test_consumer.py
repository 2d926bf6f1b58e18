"""The consumer: promises 3 and 4 on a real PostgreSQL and a real bus."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import asyncpg
import pytest

from shared.bus.consumer import PARKED_TOPIC, PART, ConsumerSettings
from shared.contracts.envelope import Envelope, encode
from shared.security.tokens import Role
from shared.service import Service
from shared.settings import Settings
from shared.store.inbox import Fault, Received, Record, record_of
from shared.store.pool import Connection
from shared.store.room import RoomInPostgres, headers_from_json, headers_to_json
from tests.harness import Backing, RunningSite, running_site, toy_services
from tests.toy import app
from tests.toy.events import DOSSIERS, RAISES, REFUSED, TOO_LARGE, event

Raw = tuple[str, bytes | None, bytes | None, Sequence[tuple[str, bytes]]]


def consuming(site: RunningSite) -> Service:
    return site.services["routing"]


async def effects(site: RunningSite) -> dict[str, list[int]]:
    """What has taken effect: the sequences of each key in the order of their effects."""
    found: dict[str, list[int]] = {}
    for row in await site.fetch("SELECT key, sequence FROM routing.effect ORDER BY number"):
        found.setdefault(row["key"], []).append(row["sequence"])
    return found


async def has_effect(site: RunningSite, key: str, last: int) -> bool:
    return (await effects(site)).get(key, [])[-1:] == [last]


async def parked(site: RunningSite) -> dict[str, str]:
    """The reason of each parked key."""
    rows = await site.fetch("SELECT key, reason FROM routing.pending WHERE state = 'parked' ORDER BY number DESC")
    return {row["key"]: row["reason"] for row in rows}


async def is_parked(site: RunningSite, key: str) -> bool:
    return key in await parked(site)


async def waiting(site: RunningSite, key: str) -> list[int]:
    query = "SELECT sequence FROM routing.pending WHERE state = 'waiting' AND key = $1 ORDER BY sequence"
    return [row["sequence"] for row in await site.fetch(query, key)]


async def store_unpublished(site: RunningSite, *events: Envelope) -> None:
    """The owner has these events, and the bus does not get them."""
    owner = site.services["intake"]
    async with owner.pool.acquire() as connection, connection.transaction():
        await owner.log.append(connection, events)
        await connection.execute("DELETE FROM intake.outbox")


def with_headers(envelope: Envelope, value: bytes | None = None, **changed: bytes | None) -> Raw:
    """The record of an event with some headers changed, or left out where None is given."""
    key, data, headers = encode(envelope)
    names = {name.replace("_", "-") if name == "content_type" else name: content for name, content in changed.items()}
    kept = [(name, names.get(name, content)) for name, content in headers]
    return (envelope.topic, key, data if value is None else value, [(n, c) for n, c in kept if c is not None])


# -- promise 3


async def test_promise_3_one_batch_is_one_transaction(toy: RunningSite) -> None:
    await toy.bus.send(*(event(f"key-{n % 20}", 1 + n // 20) for n in range(200)))
    await toy.until(lambda: has_effect(toy, "key-19", 10))
    consumer = consuming(toy).consumer
    assert consumer is not None
    assert await toy.value("SELECT count(DISTINCT batch) FROM routing.effect") == consumer.batches
    assert await effects(toy) == {f"key-{n}": list(range(1, 11)) for n in range(20)}


async def test_promise_3_a_duplicate_has_no_effect(toy: RunningSite) -> None:
    events = [event("a", sequence) for sequence in (1, 2, 3)]
    await toy.bus.send(*events, *events, events[0], event("a", 4))
    await toy.until(lambda: has_effect(toy, "a", 4))
    assert await effects(toy) == {"a": [1, 2, 3, 4]}
    assert consuming(toy).consumer.totals.duplicates == 4  # type: ignore[union-attr]


async def test_promise_3_what_comes_out_of_order_waits_for_its_turn(toy: RunningSite) -> None:
    one, two, three, four = (event("a", sequence) for sequence in (1, 2, 3, 4))
    await toy.bus.send(one, four, three, three, two)
    await toy.until(lambda: has_effect(toy, "a", 4))
    assert await effects(toy) == {"a": [1, 2, 3, 4]}
    assert await toy.value("SELECT count(*) FROM routing.pending") == 0
    assert await toy.value("SELECT waiting FROM routing.inbox") is None


async def test_promise_3_a_gap_is_asked_for_at_the_owner(toy: RunningSite) -> None:
    events = [event("a", sequence) for sequence in range(1, 6)]
    await store_unpublished(toy, *events)
    await toy.bus.send(events[0], events[3])
    await toy.until(lambda: has_effect(toy, "a", 5))
    assert await effects(toy) == {"a": [1, 2, 3, 4, 5]}
    assert await toy.value("SELECT count(*) FROM routing.pending") == 0


@pytest.fixture
async def patient(backing: Backing) -> AsyncIterator[RunningSite]:
    """A consumer that waits an hour before it asks an owner."""
    async with running_site(backing, *toy_services(), gap_wait=3600.0) as site:
        await site.reading()
        yield site


async def test_promise_3_a_key_met_in_its_middle_is_asked_for_at_once(patient: RunningSite) -> None:
    events = [event("a", sequence) for sequence in (1, 2, 3)]
    await store_unpublished(patient, *events)
    await patient.bus.send(events[2])
    await patient.until(lambda: has_effect(patient, "a", 3))
    assert await effects(patient) == {"a": [1, 2, 3]}


async def test_promise_3_a_gap_waits_before_the_owner_is_asked(patient: RunningSite) -> None:
    events = [event("a", sequence) for sequence in (1, 2, 3)]
    await store_unpublished(patient, *events)
    await patient.bus.send(events[0], events[2])
    await patient.until(lambda: has_effect(patient, "a", 1))
    consumer = consuming(patient).consumer
    assert consumer is not None
    await patient.until(lambda: waiting(patient, "a"))
    assert await consumer.close_gaps() == 0
    consumer.settings = ConsumerSettings(gap_wait=0.0)
    await patient.until(lambda: has_effect(patient, "a", 3))


async def test_promise_3_an_owner_that_is_away_is_asked_again_and_keeps_nobody_up(toy: RunningSite) -> None:
    service = consuming(toy)
    consumer = service.consumer
    assert consumer is not None
    ask, away = consumer._ask_owner, True

    async def sometimes(topic: str, key: str, after: int) -> list[Envelope]:
        if away and key == "a":
            raise ConnectionError("away")
        return await ask(topic, key, after)

    consumer._ask_owner = sometimes
    await store_unpublished(toy, *(event(key, sequence) for key in "ab" for sequence in (1, 2)))
    await toy.bus.send(event("a", 2))
    await toy.until(lambda: waiting(toy, "a"))
    await toy.bus.send(event("b", 2))
    await toy.until(lambda: has_effect(toy, "b", 2))
    away = False
    await toy.until(lambda: has_effect(toy, "a", 2))


async def test_promise_3_a_consumer_that_starts_again_goes_on_where_it_was(backing: Backing, toy: RunningSite) -> None:
    await toy.bus.send(*(event("a", sequence) for sequence in range(1, 31)))
    await toy.until(lambda: has_effect(toy, "a", 30))
    if backing.embedded:  # without groups the place is in our own database
        await toy.until(lambda: read_to(toy, 30))
    await toy.stop_service("routing")
    await toy.bus.send(*(event("a", sequence) for sequence in range(31, 41)))
    again = app.consumer(Settings(**toy.settings()))
    await again.start()
    try:
        await toy.until(lambda: has_effect(toy, "a", 40))
        assert again.consumer is not None
        assert again.consumer.totals.duplicates == 0
    finally:
        await again.stop()


async def read_to(site: RunningSite, offset: int) -> bool:
    return bool(
        await site.fetch("SELECT FROM routing.bus_read WHERE next_offset >= $1 AND topic = $2", offset, DOSSIERS)
    )


async def test_promise_3_what_a_stopping_consumer_could_not_store_comes_again(
    toy: RunningSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = asyncio.Event()

    async def full(*_: Any) -> None:
        reached.set()
        raise asyncpg.DiskFullError("full")

    with monkeypatch.context() as patch:
        patch.setattr(RoomInPostgres, "write_places", full)
        await toy.bus.send(event("a", 1))
        await reached.wait()
        await toy.stop_service("routing")
    again = app.consumer(Settings(**toy.settings()))
    await again.start()
    try:
        await toy.until(lambda: has_effect(toy, "a", 1))
    finally:
        await again.stop()


async def test_promise_3_a_batch_is_tried_again_when_the_database_ends_its_connection(
    toy: RunningSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = consuming(toy)
    consumer = service.consumer
    assert consumer is not None
    apply, ended = consumer._inbox._apply, 0

    async def cut(connection: Connection, events: Sequence[Received]) -> dict[int, Fault]:
        nonlocal ended
        faults = await apply(connection, events)
        if (ended := ended + 1) <= 3:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            await toy.value("SELECT pg_terminate_backend($1)", pid)
        return faults

    monkeypatch.setattr(consumer._inbox, "_apply", cut)
    await toy.bus.send(*(event(key, sequence) for key in "abc" for sequence in (1, 2)))
    await toy.until(lambda: has_effect(toy, "c", 2))
    assert ended > 3
    assert await effects(toy) == {"a": [1, 2], "b": [1, 2], "c": [1, 2]}
    assert await parked(toy) == {}


async def test_promise_3_a_batch_that_cannot_be_stored_is_not_let_go(
    toy: RunningSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of our own, outside the effects: the consumer stands and says so; once it is mended the batch is there."""
    write, failures = RoomInPostgres.write_places, 0

    async def broken(self: RoomInPostgres, *arguments: Any) -> None:
        nonlocal failures
        if (failures := failures + 1) <= 4:
            raise RuntimeError("a bug")
        await write(self, *arguments)

    monkeypatch.setattr(RoomInPostgres, "write_places", broken)
    consumer = consuming(toy).consumer
    assert consumer is not None
    consumer.settings = replace(consumer.settings, stuck_after=0.0)
    await toy.bus.send(event("a", 1))
    await toy.until(lambda: failures > 2 and consumer.stuck() is not None)
    answer = await toy.client("routing").get("/healthz")
    assert answer.status_code == 503 or await has_effect(toy, "a", 1)
    await toy.until(lambda: has_effect(toy, "a", 1))
    assert await effects(toy) == {"a": [1]}


async def test_promise_3_two_consumers_of_a_group_change_places_in_the_middle_of_work(
    backing: Backing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group join takes the embedded broker five seconds and more: this is the one test with a group there."""
    monkeypatch.setattr("shared.service.ConsumerSettings", partial(ConsumerSettings, session_timeout=3.0))
    async with running_site(backing, *toy_services(), bus_groups=True) as site:
        await site.reading()
        last = 0

        async def write_on(count: int) -> None:
            nonlocal last
            for _ in range(count):
                last += 1
                await site.bus.send(*(event(f"key-{n}", last) for n in range(12)))

        second = app.consumer(Settings(**site.settings()))
        first = consuming(site).consumer
        assert first is not None
        await write_on(3)
        await second.start()
        try:
            assert second.consumer is not None
            while not second.consumer.assigned():
                await write_on(1)
            await write_on(3)
            await site.until(lambda: all_have_effect(site, last))
            assert second.consumer.totals.applied > 0
        finally:
            await second.stop()
        await write_on(3)
        await site.until(lambda: all_have_effect(site, last), 60.0)
        assert await effects(site) == {f"key-{n}": list(range(1, last + 1)) for n in range(12)}
        assert await parked(site) == {}


async def all_have_effect(site: RunningSite, last: int) -> bool:
    found = await effects(site)
    return len(found) == 12 and all(sequences[-1] == last for sequences in found.values())


# -- promise 4


def bad_records() -> dict[str, tuple[str, Raw]]:
    """By key: the reason for which it is parked, and the record."""
    long, zero = "k" * 5000, "nul\0key"
    return {
        "header": ("bad-header", with_headers(event("header", 1), ce_type=b"\xff\xfe\x00")),
        "no-text": ("bad-header", with_headers(event("no-text", 1), ce_source=b"\xc3\x28")),
        "no-id": ("missing-header", with_headers(event("no-id", 1), ce_id=None)),
        "zero-id": ("bad-header", with_headers(event("zero-id", 1), ce_id=b"\0\0")),
        "no-sequence": ("missing-header", with_headers(event("no-sequence", 1), ce_sequence=None)),
        "sequence-0": ("bad-header", with_headers(event("sequence-0", 1), ce_sequence=b"0")),
        "sequence-x": ("bad-header", with_headers(event("sequence-x", 1), ce_sequence=b"\xd9\xa1")),
        "sequence-high": ("sequence-invalid", with_headers(event("sequence-high", 1), ce_sequence=b"1" * 17)),
        "other-key": ("bad-key", with_headers(event("other-key", 1), ce_subject=b"another")),
        "kind": ("bad-content-type", with_headers(event("kind", 1), content_type=b"text/plain")),
        "json": ("not-json", with_headers(event("json", 1), value=b'{"agency":')),
        "utf8": ("not-json", with_headers(event("utf8", 1), value=b'{"agency":"\xff"}')),
        "deep": ("not-json", with_headers(event("deep", 1), value=b"[" * 100_000)),
        "shape": ("not-valid", with_headers(event("shape", 1), value=b"[]")),
        "move": ("not-valid", with_headers(event("move", 1), value=(event("x", 1).data or b"").replace(b"2", b"9"))),
        "tombstone": ("no-data", (DOSSIERS, b"tombstone", None, encode(event("tombstone", 1))[2])),
        long: ("bad-key", with_headers(event(long, 1))),
        zero: ("bad-key", with_headers(event(zero, 1))),
    }


async def test_promise_4_bad_records_stop_their_keys_alone(toy: RunningSite) -> None:
    bad = bad_records()
    good = [event(f"good-{n}", 1) for n in range(len(bad))]
    records = [each for pair in zip((raw for _, raw in bad.values()), good, strict=True) for each in pair]
    no_key: Raw = (DOSSIERS, None, b"{}", [])
    nameless: Raw = (DOSSIERS, b"\xff\xfe", b"{}", [("ce_id", b"\0"), ("x", b"")])
    await toy.bus.send(*records, *records, no_key, nameless, *(event(e.subject, 2) for e in good))
    for n in range(len(good)):
        await toy.until(partial(has_effect, toy, f"good-{n}", 2))
    consumer = consuming(toy).consumer
    assert consumer is not None
    await toy.until(consumer.caught_up)
    found = await parked(toy)
    unreadable = [reason for key, reason in found.items() if key.startswith("unreadable-")]
    assert unreadable == ["bad-key"] * 3
    wanted = {key: reason for key, (reason, _) in bad.items() if reason != "bad-key" or key == "other-key"}
    assert {key: found[key] for key in wanted} == wanted
    assert found[""] == "no-key"
    assert await effects(toy) == {f"good-{n}": [1, 2] for n in range(len(good))}
    items = (await toy.client("routing", Role.OPERATOR).get("/v1/parked")).json()["items"]
    assert {item["key"] for item in items} == set(found)


async def test_promise_4_later_events_queue_behind_the_parked_one(toy: RunningSite) -> None:
    await toy.bus.send(
        event("a", 1), event("a", 2, procedure=REFUSED), event("a", 3), event("b", 1), event("a", 4), event("b", 2)
    )
    await toy.until(lambda: has_effect(toy, "b", 2))
    await toy.until(lambda: waited_for(toy, "a", [3, 4]))
    await toy.bus.send(event("a", 5), event("b", 3))
    await toy.until(lambda: has_effect(toy, "b", 3))
    await toy.until(lambda: waited_for(toy, "a", [3, 4, 5]))
    # What is parked waits for its replay, also when it comes in good form.
    await toy.bus.send(event("a", 2), event("b", 4))
    await toy.until(lambda: has_effect(toy, "b", 4))
    assert await effects(toy) == {"a": [1], "b": [1, 2, 3, 4]}
    assert await parked(toy) == {"a": "state-contradiction"}


async def waited_for(site: RunningSite, key: str, sequences: list[int]) -> bool:
    return await waiting(site, key) == sequences


async def test_promise_4_an_unknown_type_or_field_parks_nothing(toy: RunningSite) -> None:
    future = with_headers(event("a", 2), ce_type=b"vn.lienthong.dossier.teleported.v1")
    later = with_headers(event("a", 3), ce_type=b"vn.lienthong.dossier.due-soon.v2")
    data = (event("a", 4).data or b"")[:-1] + b',"weather":{"sky":["blue"]}}'
    await toy.bus.send(event("a", 1), future, later, with_headers(event("a", 4), value=data), event("a", 5))
    await toy.until(lambda: has_effect(toy, "a", 5))
    assert await effects(toy) == {"a": [1, 4, 5]}
    assert await parked(toy) == {}
    rows = await toy.fetch("SELECT number, state, headers FROM routing.pending ORDER BY sequence")
    assert [row["state"] for row in rows] == ["unknown", "unknown"]


async def test_promise_4_an_unknown_type_takes_effect_after_the_upgrade(toy: RunningSite) -> None:
    await toy.bus.send(with_headers(event("a", 1), ce_type=b"vn.lienthong.dossier.teleported.v1"), event("a", 2))
    await toy.until(lambda: has_effect(toy, "a", 2))
    service = consuming(toy)
    assert service.consumer is not None
    assert await service.consumer.replay_unknown() == 0
    async with service.pool.acquire() as connection:  # the upgrade: this version knows the type
        stored = await connection.fetchval("SELECT headers FROM routing.pending")
        known = [
            (n, b"vn.lienthong.dossier.due-soon.v1" if n == "ce_type" else c) for n, c in headers_from_json(stored)
        ]
        await connection.execute("UPDATE routing.pending SET headers = $1", headers_to_json(known))
    assert await service.consumer.replay_unknown() == 1
    assert await effects(toy) == {"a": [2, 1]}
    assert await toy.value("SELECT count(*) FROM routing.pending") == 0


async def test_promise_4_an_event_that_breaks_the_handler_is_found_and_parked(toy: RunningSite) -> None:
    events = [event(f"key-{n}", 1) for n in range(10)]
    await toy.bus.send(
        *events[:5], event("breaks", 1, procedure=RAISES), event("large", 1, procedure=TOO_LARGE), *events[5:],
        event("breaks", 2),
    )  # fmt: skip
    await toy.until(lambda: has_effect(toy, "key-9", 1))
    await toy.until(lambda: waited_for(toy, "breaks", [2]))
    assert await parked(toy) == {"breaks": "handler-failed", "large": "handler-failed"}
    assert await effects(toy) == {f"key-{n}": [1] for n in range(10)}


async def test_promise_4_what_is_parked_is_said_on_its_topic_without_what_it_said(toy: RunningSite) -> None:
    canary = b"Nguyen Thi Canary 0912345678"
    await toy.bus.send(with_headers(event("a", 1), value=b'{"agency":"' + canary + b'"}'), event("b", 1))
    await toy.bus.send(with_headers(event("a", 2), ce_source=canary + b"\xff"), event("b", 2))
    await toy.until(lambda: parked_records(toy, 2))
    records = await toy.bus.records(PARKED_TOPIC)
    assert [(r.key, r.sequence, r.header["ce_type"]) for r in records] == [
        (b"a", 1, "vn.lienthong.parked.recorded.v1"),
        (b"a", 2, "vn.lienthong.parked.recorded.v1"),
    ]
    everything = b"".join((r.value or b"") + b"".join(content for _, content in r.headers) for r in records)
    assert b"not-valid" in everything
    assert b"bad-header" in everything
    listed = (await toy.client("routing", Role.OPERATOR).get("/v1/parked")).content
    for found in (everything, listed):
        assert b"Canary" not in found
        assert b"912345678" not in found


async def parked_records(site: RunningSite, count: int) -> bool:
    return len(await site.bus.records(PARKED_TOPIC)) == count


async def test_promise_4_too_many_bad_events_stop_the_consumer_and_it_goes_on_when_they_are_few(
    backing: Backing,
) -> None:
    async with running_site(backing, *toy_services(), breaker_limit=5) as site:
        await site.reading()
        service = consuming(site)
        consumer = service.consumer
        assert consumer is not None
        consumer.settings = replace(consumer.settings, breaker_rest=0.05)
        bad = [with_headers(event(f"bad-{n}", 1), value=b"{") for n in range(12)]
        await site.bus.send(*bad, event("good", 1))
        await site.until(lambda: stands(site))
        answer = await site.client("routing", None).get("/healthz")
        assert answer.status_code == 503
        assert "breaker" in answer.json()["reasons"][0]
        assert len(await parked(site)) <= 5
        consumer.breaker._window = 0.1  # the minute is over sooner
        await site.until(lambda: has_effect(site, "good", 1))
        await site.until(lambda: are_parked(site, 12))
        assert (await site.client("routing", None).get("/healthz")).status_code == 200


async def are_parked(site: RunningSite, count: int) -> bool:
    return len(await parked(site)) == count


async def stands(site: RunningSite) -> bool:
    return consuming(site).consumer.stuck() is not None  # type: ignore[union-attr]


# -- gaps and foreign events, replay and drop


async def settled(site: RunningSite, key: str) -> None:
    """The key is parked, and all that is on the bus has been looked at."""
    await site.until(lambda: is_parked(site, key))
    await site.until(consuming(site).consumer.caught_up)  # type: ignore[union-attr]


async def replay(site: RunningSite, key: str, **more: Any) -> Any:
    operator = site.client("routing", Role.OPERATOR)
    answer = await operator.post("/v1/parked/replay", json={"topic": DOSSIERS, "key": key, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_promise_4_a_replay_heals_from_the_owner(toy: RunningSite) -> None:
    events = [event("a", sequence) for sequence in (1, 2, 3)]
    await store_unpublished(toy, *events)
    foreign = event("a", 2, procedure=REFUSED)
    await toy.bus.send(events[0], foreign, events[1], events[2])
    await settled(toy, "a")
    shown = await replay(toy, "a", dry_run=True)
    assert (shown["applied"], shown["parked"]) == (2, [])
    assert await effects(toy) == {"a": [1]}
    assert await parked(toy) == {"a": "state-contradiction"}
    assert (await replay(toy, "a"))["applied"] == 2
    assert await effects(toy) == {"a": [1, 2, 3]}
    assert await toy.value("SELECT count(*) FROM routing.pending") == 0
    acts = await toy.fetch("SELECT who, act, outcome FROM routing.parked_act")
    assert [(row["act"], row["outcome"]) for row in acts] == [("replay", "applied 2")]
    await toy.bus.send(event("a", 4))
    await toy.until(lambda: has_effect(toy, "a", 4))


async def test_promise_4_a_foreign_event_beyond_the_owner_is_parked_and_replayed_away(toy: RunningSite) -> None:
    events = [event("a", sequence) for sequence in (1, 2, 3)]
    await store_unpublished(toy, *events)
    await toy.bus.send(events[0], event("a", 900))
    await toy.until(lambda: is_parked(toy, "a"))
    assert await parked(toy) == {"a": "sequence-beyond-owner"}
    assert await effects(toy) == {"a": [1, 2, 3]}  # what the owner has above the gap came with its answer
    assert (await replay(toy, "a"))["parked"] == []
    await toy.bus.send(event("a", 4))
    await toy.until(lambda: has_effect(toy, "a", 4))
    assert await effects(toy) == {"a": [1, 2, 3, 4]}


async def test_promise_4_what_the_owner_still_writes_is_not_taken_for_foreign(toy: RunningSite) -> None:
    """An event that arrives while the owner is asked is not in its answer, and is its own all the same."""
    consumer = consuming(toy).consumer
    assert consumer is not None
    ask, asked = consumer._ask_owner, 0
    events = [event("a", sequence) for sequence in range(1, 7)]

    async def slow(topic: str, key: str, after: int) -> list[Envelope]:
        nonlocal asked
        answer = await ask(topic, key, after)
        if (asked := asked + 1) == 1:
            await store_unpublished(toy, *events[4:])
            await toy.bus.send(*events[4:])
            await toy.until(lambda: waited_for(toy, "a", [3, 5, 6]))
        return answer

    await store_unpublished(toy, *events[:3])
    consumer._ask_owner = slow
    await toy.bus.send(events[0], events[2])
    await toy.until(lambda: waited_for(toy, "a", [5, 6]))
    assert await parked(toy) == {}
    await store_unpublished(toy, events[3])
    await toy.until(lambda: has_effect(toy, "a", 6))
    assert await effects(toy) == {"a": [1, 2, 3, 4, 5, 6]}


async def test_promise_4_an_owners_event_that_is_dropped_is_skipped(toy: RunningSite) -> None:
    events = [event("a", 1), event("a", 2, procedure=REFUSED), event("a", 3)]
    await store_unpublished(toy, *events)
    await toy.bus.send(*events)
    await toy.until(lambda: waited_for(toy, "a", [3]))
    assert [entry["reason"] for entry in (await replay(toy, "a"))["parked"]] == ["state-contradiction"]
    operator = toy.client("routing", Role.OPERATOR)
    number = (await operator.get("/v1/parked", params={"key": "a"})).json()["items"][0]["number"]
    drop = {"number": number, "reason": "a test of the owner's"}
    shown = await operator.post("/v1/parked/drop", json={**drop, "dry_run": True})
    assert (shown.status_code, shown.json()["skipped"]) == (200, True)
    assert await effects(toy) == {"a": [1]}
    dropped = await operator.post("/v1/parked/drop", json=drop)
    assert (dropped.status_code, dropped.json()["skipped"]) == (200, True)
    assert await effects(toy) == {"a": [1, 3]}
    assert await toy.value("SELECT count(*) FROM routing.pending") == 0
    assert (await operator.post("/v1/parked/drop", json=drop)).status_code == 404
    acts = await toy.fetch("SELECT act, outcome, reason FROM routing.parked_act WHERE act = 'drop'")
    assert [(row["outcome"], row["reason"]) for row in acts] == [("skipped", "a test of the owner's")]


async def test_promise_4_a_foreign_event_that_is_dropped_moves_nothing(toy: RunningSite) -> None:
    events = [event("a", 1), event("a", 2)]
    await store_unpublished(toy, *events)
    await toy.bus.send(events[0], event("a", 2, procedure=REFUSED), events[1])
    await settled(toy, "a")
    operator = toy.client("routing", Role.OPERATOR)
    number = (await operator.get("/v1/parked", params={"key": "a"})).json()["items"][0]["number"]
    dropped = await operator.post("/v1/parked/drop", json={"number": number, "reason": "not ours"})
    assert (dropped.status_code, dropped.json()["skipped"]) == (200, False)
    assert await effects(toy) == {"a": [1, 2]}


async def test_parked_events_are_for_operators_and_need_the_owner(toy: RunningSite) -> None:
    await toy.bus.send(event("a", 1, procedure=REFUSED))
    await toy.until(lambda: is_parked(toy, "a"))
    body = {"topic": DOSSIERS, "key": "a"}
    for role in (Role.AUDITOR, Role.PORTAL):
        assert (await toy.client("routing", role).post("/v1/parked/replay", json=body)).status_code == 403
    operator = toy.client("routing", Role.OPERATOR)
    for wrong in ({**body, "topic": "lienthong.link.H1.up"}, {**body, "topic": "nothing"}):
        assert (await operator.post("/v1/parked/replay", json=wrong)).status_code == 404
    assert (await operator.post("/v1/parked/replay", json={**body, "key": "a\0"})).status_code == 422
    await toy.stop_service("intake")
    away = await operator.post("/v1/parked/replay", json=body)
    assert (away.status_code, away.json()["code"]) == (503, "owner-away")
    assert await parked(toy) == {"a": "state-contradiction"}


async def test_a_batch_is_applied_in_parts_while_somebody_is_near(
    toy: RunningSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = consuming(toy).consumer
    assert consumer is not None
    store, sizes = consumer._store, list[int]()

    async def counted(records: Sequence[Record], *, isolate: bool = False) -> None:
        sizes.append(len(records))
        await store(records, isolate=isolate)

    monkeypatch.setattr(consumer, "_store", counted)
    for near, keys in ((True, "ab"), (False, "cd")):
        monkeypatch.setattr("shared.bus.consumer.somebody_is_near", lambda near=near: near)
        sizes.clear()
        assert await consumer._in_parts([record_of(event(key, n)) for key in keys for n in range(1, PART + 1)])
        assert sizes == ([PART, PART] if near else [2 * PART])
    assert await effects(toy) == {key: list(range(1, PART + 1)) for key in "abcd"}
