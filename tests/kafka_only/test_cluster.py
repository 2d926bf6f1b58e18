"""What a province runs: Apache Kafka with replicas, idempotent producers, several processes of each service.

People are at work the whole time, and the judge of `make chaos`, which is other code than the services, finds nothing.
"""

import asyncio
import os
import signal
from pathlib import Path

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from shared.contracts.events import TOPICS
from shared.service import SERVICES
from tests.chaos.keeping import earlier_version
from tests.harness import until
from tests.kafka_only.conftest import Worked, Working
from tests.stack import Stack

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

DOSSIERS = "lienthong.dossier.v1"
OURS = sorted(TOPICS)


async def replicas(stack: Stack) -> dict[tuple[str, int], tuple[int, list[int], list[int]]]:
    """Leader, replicas and in-sync replicas of each partition of ours."""
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.bootstrap)
    await admin.start()
    try:
        described = await admin.describe_topics(OURS)
    finally:
        await admin.close()
    return {
        (topic["topic"], p["partition"]): (p["leader"], p["replicas"], p["isr"])
        for topic in described
        for p in topic["partitions"]
    }


async def config_of(stack: Stack, topic: str) -> dict[str, str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.bootstrap)
    await admin.start()
    try:
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    finally:
        await admin.close()
    (_, _, _, _, entries), *_ = answer.resources
    return {entry[0]: entry[1] for entry in entries}


async def test_promise_2_one_of_three_brokers_dies_under_load(working: Working) -> None:
    async with working(kafka_size=3) as site:
        await site.acts(100)
        standing = await replicas(site.stack)
        assert {name for name, _ in standing} == set(OURS)
        assert all(len(each) == 3 for _, each, _ in standing.values())
        assert all([(await config_of(site.stack, name))["min.insync.replicas"] == "2" for name in OURS])

        assert site.stack.kafka is not None
        leader = standing[(DOSSIERS, 0)][0]
        broker = next(each for each in site.stack.kafka.brokers if each.number == leader)
        await site.stack.kafka.kill(broker)
        await site.acts(300)  # two of three replicas are enough to be confirmed
        await site.stack.kafka.start_broker(broker)
        await site.acts(100)

        async def whole() -> bool:
            return all(len(in_sync) == 3 for _, _, in_sync in (await replicas(site.stack)).values())

        await until(whole, 60.0, "every partition has its three replicas in sync again")
        assert await site.judged() == []


async def test_promise_3_a_group_rebalances_while_batches_are_in_flight(working: Working) -> None:
    """Two processes of each service: one is killed, one stops past its session and comes back, one ends in order."""
    async with working(replicas=dict.fromkeys(SERVICES, 2)) as site:
        processes = site.stack.processes
        await site.acts(100)
        await processes["stats-2"].kill()
        await processes["notify-2"].kill()
        await site.acts(100)
        await asyncio.gather(processes["stats-2"].start(), processes["notify-2"].start())
        processes["routing"].signal(signal.SIGSTOP)  # its partitions go to the other one; it wakes as a stranger
        await site.acts(150)
        await handed_over_by(site, "routing-2")
        processes["routing"].signal(signal.SIGCONT)
        await processes["intake-2"].stop()
        await site.acts(100)
        await processes["intake-2"].start()
        for name in SERVICES:
            await processes[f"{name}-2"].ready(site.stack.http)
        assert await site.judged() == []


async def test_promise_1_an_upgrade_at_work_answers_no_error(working: Working, tmp_path: Path) -> None:
    """From an earlier version, out of the history (LIENTHONG_UPGRADE_FROM): migrated while it works, then one process after
    another. Who finds one process away asks the other, as behind any load balancer."""
    earlier = earlier_version(tmp_path / "earlier", os.environ.get("LIENTHONG_UPGRADE_FROM", "previous"))
    async with working(replicas=dict.fromkeys(SERVICES, 2), earlier=earlier) as site:
        await site.acts(60)
        await site.stack.lienthong("migrate")
        await site.acts(20)  # the earlier version on the next one's schema
        site.stack.upgrade()
        for process in site.stack.processes.values():
            await process.stop()
            await process.start()
            await process.ready(site.stack.http)
        await site.acts(60)
        assert site.ledger.errors == 0
        assert await site.judged() == []


async def handed_over_by(site: Worked, name: str) -> None:
    """The process has taken over: a dossier that is received and started now is handed over by it."""
    dossier = await site.load.probe(1)

    async def delivered() -> bool:
        url = f"{site.stack.processes[name].url}/v1/transfers"
        answer = await site.stack.http.get(url, params={"dossier": dossier.code}, headers=site.stack.token())
        return any(item["state"] == "delivered" for item in answer.json()["items"])

    await until(delivered, 60.0, f"{name} has the partitions")


async def test_promise_6_a_deleted_topic_is_rebuilt_from_postgresql(working: Working) -> None:
    async with working() as site:
        await site.acts(150)
        before = await ids(site.stack)
        admin = AIOKafkaAdminClient(bootstrap_servers=site.stack.bootstrap)
        await admin.start()
        try:
            await admin.delete_topics([DOSSIERS])
        finally:
            await admin.close()
        await site.acts(100)

        async def made_again() -> bool:
            now = await ids(site.stack)
            return DOSSIERS in now and now[DOSSIERS] != before[DOSSIERS]

        await until(made_again, 60.0, "the topic is there again, another one")
        assert await site.judged() == []  # which reads every event of the log on the topic, in its dossier's order


async def ids(stack: Stack) -> dict[str, str]:
    """The id of each topic as intake's relay has written it down."""
    connection = await asyncpg.connect(stack.database_url)
    try:
        return {row["topic"]: row["id"] for row in await connection.fetch("SELECT topic, id FROM intake.bus_topic")}
    finally:
        await connection.close()
