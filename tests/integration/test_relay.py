"""The relay: promises 2 and 6 on a real PostgreSQL and a real bus."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from shared.contracts.envelope import Envelope
from shared.settings import Settings
from shared.store.relay import Partition, PublishFailed, RelaySettings
from tests.harness import Backing, BusRecord, RunningSite, running_site, toy_services
from tests.toy.app import append, owner
from tests.toy.events import DOSSIERS, event


@pytest.fixture
async def alone(backing: Backing) -> AsyncIterator[RunningSite]:
    """An owner whose events nobody consumes."""
    async with running_site(backing, *toy_services(consumers=())) as site:
        yield site


async def write(site: RunningSite, key: str, count: int = 1) -> int:
    service = site.services["intake"]
    async with service.pool.acquire() as connection, connection.transaction():
        last = await append(service, connection, key, count)
    service.wake()
    return last


async def unpublished(site: RunningSite) -> int:
    count: int = await site.value("SELECT count(*) FROM intake.outbox")
    return count


async def all_published(site: RunningSite) -> bool:
    return await unpublished(site) == 0


def by_key(records: Sequence[BusRecord]) -> dict[str, list[int]]:
    """The sequences of each key in the order in which they came first."""
    found: dict[str, list[int]] = defaultdict(list)
    for record in records:
        key = (record.key or b"").decode()
        if record.sequence not in found[key]:
            found[key].append(record.sequence)
    return dict(found)


async def test_promise_2_what_is_stored_is_published_in_the_keys_order(alone: RunningSite) -> None:
    await asyncio.gather(*(write(alone, f"key-{n % 7}", 1 + n % 3) for n in range(60)))
    await alone.until(lambda: all_published(alone))
    stored = await alone.fetch("SELECT id, aggregateid, sequence FROM intake.event")
    records = await alone.bus.records(DOSSIERS)
    assert sorted(record.header["ce_id"] for record in records) == sorted(str(row["id"]) for row in stored)
    assert all(sequences == list(range(1, len(sequences) + 1)) for sequences in by_key(records).values())


async def test_promise_2_a_write_is_on_the_bus_before_the_idle_poll(alone: RunningSite) -> None:
    relay = alone.services["intake"].relay
    await alone.until(lambda: relay.alone)
    relay.settings = RelaySettings(idle_poll=3600.0)
    await write(alone, "first")  # ends the wait that began with the old setting
    await alone.until(lambda: all_published(alone))
    await write(alone, "second")
    await alone.until(lambda: all_published(alone))


async def test_promise_2_a_commit_of_another_process_wakes_the_relay(backing: Backing, alone: RunningSite) -> None:
    first = alone.services["intake"]
    await alone.until(lambda: first.relay.alone)
    second = owner(Settings(**alone.settings()))
    await second.start()
    try:
        first.relay.settings = RelaySettings(idle_poll=3600.0)
        await write(alone, "ends-the-wait")
        await alone.until(lambda: all_published(alone))
        async with second.pool.acquire() as connection, connection.transaction():
            await append(second, connection, "theirs", 3)
        second.wake()
        await alone.until(lambda: all_published(alone))
        assert second.relay.held == set()
    finally:
        await second.stop()


class Stuck:
    """A bus that takes the first records of a batch, then holds the publisher until it is let go."""

    def __init__(self, site: RunningSite, takes: int) -> None:
        self._site, self._takes = site, takes
        self.reached, self.let_go = asyncio.Event(), asyncio.Event()
        self.sent_after = 0

    async def publish(self, envelopes: Sequence[Envelope]) -> dict[Partition, tuple[int, int]]:
        await self._site.bus.send(*envelopes[: self._takes])
        self.reached.set()
        await self.let_go.wait()
        self.sent_after += 1
        raise PublishFailed("it held too long")


async def test_promise_2_the_standby_takes_over_when_the_lock_session_ends_in_the_middle_of_a_batch(
    alone: RunningSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = alone.services["intake"]
    await alone.until(lambda: first.relay.alone)
    second = owner(Settings(**alone.settings()))
    await second.start()
    try:
        stuck = Stuck(alone, takes=4)
        monkeypatch.setattr(first.publisher, "publish", stuck.publish)
        for n in range(3):
            await write(alone, f"key-{n}", 4)
        await stuck.reached.wait()
        holders = await alone.fetch("SELECT DISTINCT pid FROM pg_locks WHERE locktype = 'advisory' AND granted")
        assert len(holders) == 1
        first.relay.settings = RelaySettings(shards=())  # or it would be the first to take the locks again
        await alone.value("SELECT pg_terminate_backend($1)", holders[0]["pid"])
        await alone.until(lambda: second.relay.alone)
        assert first.relay.held == set()
        await alone.until(lambda: all_published(alone))
        stuck.let_go.set()
        for n in range(3):
            await write(alone, f"key-{n}", 2)
        await alone.until(lambda: all_published(alone))
        assert stuck.sent_after == 0, "the first relay went on publishing without its lock"
        assert by_key(await alone.bus.records(DOSSIERS)) == {f"key-{n}": [1, 2, 3, 4, 5, 6] for n in range(3)}
    finally:
        await second.stop()


async def test_promise_2_what_the_bus_did_not_confirm_is_published_again_with_the_same_id(
    alone: RunningSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = alone.services["intake"]
    publish, failures = service.publisher.publish, 0

    async def sends_and_fails(envelopes: Sequence[Envelope]) -> dict[Partition, tuple[int, int]]:
        nonlocal failures
        await publish(envelopes)
        if (failures := failures + 1) <= 2:
            raise PublishFailed("the answer was lost")
        return {}

    monkeypatch.setattr(service.publisher, "publish", sends_and_fails)
    await write(alone, "a", 3)
    await alone.until(lambda: all_published(alone))
    records = await alone.bus.records(DOSSIERS)
    assert len(records) == 9
    assert len({(r.header["ce_id"], r.value, r.headers) for r in records}) == 3
    assert by_key(records) == {"a": [1, 2, 3]}


async def test_promise_6_an_emptied_bus_is_filled_again_with_the_same_events(
    backing: Backing, toy: RunningSite
) -> None:
    for n in range(8):
        await write(toy, f"key-{n}", 5)
    await toy.until(lambda: all_published(toy))
    before = await toy.bus.records(DOSSIERS)
    await toy.until(lambda: applied(toy, 40))
    await backing.empty_bus(toy.prefix)
    for n in range(8):
        await write(toy, f"key-{n}", 1)

    async def all_back() -> bool:
        return {r.header["ce_id"] for r in await toy.bus.records(DOSSIERS)} >= {r.header["ce_id"] for r in before}

    await toy.until(all_back, 60.0)
    await toy.until(lambda: applied(toy, 48), 60.0)
    after = {r.header["ce_id"]: (r.key, r.value, r.headers) for r in await toy.bus.records(DOSSIERS)}
    assert all(after[r.header["ce_id"]] == (r.key, r.value, r.headers) for r in before)
    await toy.until(lambda: all_published(toy))
    records = await toy.bus.records(DOSSIERS)
    assert all(sorted(sequences) == list(range(1, 7)) for sequences in by_key(records).values())
    assert await toy.value("SELECT count(*) FROM intake.bus_rebuild") == 0
    # What is written now is read as if nothing had been.
    await write(toy, "key-0", 1)
    await toy.until(lambda: applied(toy, 49))


async def test_promise_6_a_bus_that_was_emptied_right_after_the_first_event_is_noticed(
    backing: Backing, alone: RunningSite
) -> None:
    service = alone.services["intake"]
    await alone.until(lambda: service.relay.alone)
    await write(alone, "first")
    await alone.until(lambda: all_published(alone))
    await alone.stop_service("intake")  # as a kill would: the ends that were seen last may be older than the event
    await alone.value("UPDATE intake.bus_partition SET end_offset = 0")
    await backing.empty_bus(alone.prefix)
    again = owner(Settings(**alone.settings()))
    await again.start()
    try:
        await alone.until(lambda: is_on_the_bus(alone, "first"))
    finally:
        await again.stop()


async def test_promise_6_only_the_window_comes_again_and_the_rest_on_request(
    backing: Backing, alone: RunningSite
) -> None:
    service = alone.services["intake"]
    old = datetime.now(UTC) - timedelta(days=8)
    async with service.pool.acquire() as connection, connection.transaction():
        await service.log.append(connection, [event("old", 1, recorded=old), event("kept", 1, recorded=old)])
        await service.log.append(connection, [event("kept", 2)])
    service.wake()
    await alone.until(lambda: all_published(alone))
    await backing.empty_bus(alone.prefix)
    await alone.until(lambda: is_on_the_bus(alone, "kept"), 60.0)
    await alone.until(lambda: no_rebuild(alone))
    assert by_key(await alone.bus.records(DOSSIERS)) == {"kept": [2]}
    answer = await alone.client("intake").get("/v1/ledger", params={"topic": DOSSIERS, "key": "kept"})
    assert [item["sequence"] for item in answer.json()["items"]] == [1, 2]


async def test_promise_6_a_quiet_site_does_not_publish_its_whole_past(backing: Backing, alone: RunningSite) -> None:
    service = alone.services["intake"]
    old = datetime.now(UTC) - timedelta(days=30)
    async with service.pool.acquire() as connection, connection.transaction():
        await service.log.append(connection, [event("old", 1, recorded=old)])
    service.wake()
    await alone.until(lambda: all_published(alone))
    rebuilds = service.relay.rebuilds
    await backing.empty_bus(alone.prefix)
    await alone.until(lambda: service.relay.rebuilds >= rebuilds + 4, 60.0)
    assert await alone.bus.records(DOSSIERS) == []


async def test_promise_6_what_waits_in_the_outbox_keeps_its_place_behind_the_window(
    backing: Backing, alone: RunningSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unpublished event from before the window comes before the published ones of its key that follow it."""
    service = alone.services["intake"]
    await alone.until(lambda: service.relay.alone)
    publish = service.publisher.publish

    async def away(_: Sequence[Envelope]) -> dict[Partition, tuple[int, int]]:
        raise PublishFailed("the bus is away")

    monkeypatch.setattr(service.publisher, "publish", away)
    old = datetime.now(UTC) - timedelta(days=8)
    async with service.pool.acquire() as connection, connection.transaction():
        await service.log.append(connection, [event("a", 1, recorded=old), event("a", 2)])
    await backing.empty_bus(alone.prefix)
    monkeypatch.setattr(service.publisher, "publish", publish)
    await alone.until(lambda: all_published(alone), 60.0)
    await alone.until(lambda: no_rebuild(alone))
    assert by_key(await alone.bus.records(DOSSIERS)) == {"a": [1, 2]}


async def test_promise_6_of_an_erased_person_only_the_tombstone_comes_again(
    backing: Backing, alone: RunningSite
) -> None:
    contacts = "lienthong.contact.v1"
    service = alone.services["intake"]
    erased = [
        Envelope(contacts, e.id, e.source, kind, e.subject, e.time, e.recorded, e.sequence, e.mode, None)
        for e, kind in ((event("p", 1), "contact.recorded"), (event("p", 2), "contact.erased"))
    ]
    async with service.pool.acquire() as connection, connection.transaction():
        await service.log.append(connection, erased)
    service.wake()
    await alone.until(lambda: all_published(alone))
    await backing.empty_bus(alone.prefix)

    async def found() -> list[BusRecord]:
        return await alone.bus.records(contacts)

    await alone.until(found, 60.0)
    await alone.until(lambda: no_rebuild(alone))
    assert [(r.sequence, r.value) for r in await found()] == [(2, None)]


async def test_a_mark_names_what_is_complete_on_the_bus(toy: RunningSite) -> None:
    """The consumer knows up to when it has everything, and that instant moves on although nothing is written."""
    for service in toy.services.values():
        service.relay.settings = RelaySettings(watermark_every=0.1, idle_poll=0.1)
    await write(toy, "a", 3)
    written = await toy.value("SELECT max(recorded) FROM intake.event")

    async def complete_to() -> datetime | None:
        rows = await toy.fetch(toy.services["routing"].store_queries["complete"])
        return next((row["upto"] for row in rows if row["topic"] == DOSSIERS), None)

    async def is_after(instant: datetime) -> bool:
        upto = await complete_to()
        return upto is not None and upto > instant

    await toy.until(lambda: is_after(written))
    assert await applied(toy, 3)
    now = datetime.now(UTC)
    await toy.until(lambda: is_after(now))


async def test_a_mark_does_not_overtake_a_transaction_that_is_still_open(
    alone: RunningSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = alone.services["intake"]
    relay = service.relay
    await alone.until(lambda: relay.alone)
    marks: list[datetime] = []

    async def marked(_: str, __: dict[Partition, int], upto: datetime) -> None:
        marks.append(upto)

    monkeypatch.setattr(service.publisher, "watermark", marked)
    async with service.pool.acquire() as connection, connection.transaction():
        recorded = await service.log.now(connection)
        relay.settings = RelaySettings(watermark_every=0.01, idle_poll=0.01)
        marks.clear()
        await alone.until(lambda: len(marks) > 5)
        assert max(marks) <= recorded
    await alone.until(lambda: max(marks) > recorded)


async def applied(site: RunningSite, count: int) -> bool:
    found: int = await site.value("SELECT count(*) FROM routing.effect")
    assert found <= count, "an effect happened twice"
    return found == count


async def no_rebuild(site: RunningSite) -> bool:
    return not await site.fetch("SELECT FROM intake.bus_rebuild")


async def is_on_the_bus(site: RunningSite, key: str) -> bool:
    return key in by_key(await site.bus.records(DOSSIERS))
