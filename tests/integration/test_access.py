"""On Apache Kafka with its authorizer: the plan opens what it says and nothing else, for every principal, topic and
operation; a subscriber gets its topics, and is gone without a trace when it is removed.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
)
from aiokafka.protocol.api import RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Float64, Int8, Int16, Int32, Schema, String

from deploy.kafka.plan import access, service_acls
from deploy.kafka.protocol import Acl, Admin, logs_in
from services.routing.settings import RoutingSettings
from shared.bus.connection import BusSettings
from shared.bus.line import Line, LineDown, Reading
from shared.bus.publisher import create_topics
from shared.contracts.events import TOPICS, agency_topic, link_topics
from shared.security.tokens import Role
from tests.harness import until
from tests.kafka import ADMIN, ADMIN_PASSWORD, Kafka, libraries
from tests.stack import Stack

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]

PREFIX, SITE_PREFIX = "matrix.", "h55."
PASSWORD = "a-test-password"
ROOT = Path(__file__).parents[2]
SERVICES = tuple(access())


class Secured:
    """A broker with an authorizer, and the plan applied to it."""

    def __init__(self, kafka: Kafka) -> None:
        self.kafka = kafka
        self.bus = BusSettings(
            kafka.bootstrap, prefix=PREFIX, security_protocol="SASL_PLAINTEXT", username=ADMIN, password=ADMIN_PASSWORD
        )

    def as_user(self, user: str, password: str = PASSWORD) -> BusSettings:
        return dataclasses.replace(self.bus, username=user, password=password)


@pytest.fixture(scope="module")
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secured]:
    kafka = Kafka(tmp_path_factory.mktemp("secured"), secured=True)
    await kafka.start()
    try:
        found = Secured(kafka)
        await until(lambda: ready(found.bus), 60.0)
        await create_topics(found.bus, list(TOPICS))
        async with Admin(found.bus) as admin:
            await admin.allow(service_acls(found.bus))
        producer = AIOKafkaProducer(**found.bus.client())
        await producer.start()
        for name in map(found.bus.topic, TOPICS):  # something to be read on each
            await producer.send_and_wait(name, b"{}", key=b"k", partition=0)
        await producer.stop()
        async with Admin(found.bus) as admin:
            for entry in access().values():
                await admin.set_password(entry["user"], PASSWORD)
        for entry in access().values():
            assert await logs_in(found.as_user(entry["user"]))
        yield found
    finally:
        await kafka.stop()


async def ready(bus: BusSettings) -> bool:
    with contextlib.suppress(KafkaError, OSError):
        async with Admin(bus) as admin:
            return await admin.acls() is not None
    return False


# -- every principal, topic and operation


async def outcome(attempt: Any) -> bool:
    """Whether the broker let it happen."""
    try:
        async with asyncio.timeout(30.0):
            await attempt
    except (TopicAuthorizationFailedError, GroupAuthorizationFailedError):
        return False
    return True


async def write(producer: AIOKafkaProducer, topic: str) -> None:
    await producer.send_and_wait(topic, b"{}", key=b"k")


async def read(client: dict[str, Any], topic: str) -> None:
    """By a consumer of its own: aiokafka tells of a denied topic whenever it is asked next, for whatever topic."""
    consumer = AIOKafkaConsumer(**client, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek(TopicPartition(topic, 0), 0)
        while not await consumer.getmany(timeout_ms=100):
            if topic in consumer._client.cluster.unauthorized_topics:
                raise TopicAuthorizationFailedError(topic)
    finally:
        await consumer.stop()


async def create(admin: AIOKafkaAdminClient, topic: str) -> None:
    """An existing topic is refused as existing by who may make it, and as not allowed to others."""
    answer = await admin.create_topics([NewTopic(topic, 1, 1)])
    if answer.topic_errors[0][1] == TopicAuthorizationFailedError.errno:
        raise TopicAuthorizationFailedError(topic)


async def delete(admin: AIOKafkaAdminClient, topic: str) -> None:
    answer = await admin.delete_topics([topic])
    if answer.topic_error_codes[0][1] == TopicAuthorizationFailedError.errno:
        raise TopicAuthorizationFailedError(topic)


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_may_do_what_the_plan_says_and_nothing_else(secured: Secured, service: str) -> None:
    user = access()[service]["user"]
    acls = {(a.name, a.operation) for a in service_acls(secured.bus) if a.principal == f"User:{user}"}
    client = secured.as_user(user).client()
    producer = AIOKafkaProducer(**client)
    admin = AIOKafkaAdminClient(**client)
    await producer.start()
    await admin.start()
    wrong = []
    try:
        for name in map(secured.bus.topic, TOPICS):
            for operation, attempt in (
                ("write", write(producer, name)),
                ("read", read(client, name)),
                ("create", create(admin, name)),
                ("delete", delete(admin, name)),
            ):
                expected = (name, operation) in acls
                if await outcome(attempt) is not expected:
                    wrong.append(f"{user} {operation} {name}: expected {'allowed' if expected else 'denied'}")
    finally:
        await producer.stop()
        await admin.close()
    assert wrong == []


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_joins_its_own_group_alone(secured: Secured, service: str) -> None:
    entry = access()[service]
    topic = secured.bus.topic(entry["reads"][0])
    for other in SERVICES:
        consumer = AIOKafkaConsumer(
            topic,
            **secured.as_user(entry["user"]).client(),
            group_id=secured.bus.topic(f"lienthong.{other}"),
            enable_auto_commit=False,
        )

        async def join(consumer: AIOKafkaConsumer = consumer) -> None:
            try:
                await consumer.start()
                await consumer.getmany(timeout_ms=200)
            finally:
                await consumer.stop()

        assert await outcome(join()) is (other == service)


async def test_a_password_that_is_wrong_lets_nobody_in(secured: Secured) -> None:
    with pytest.raises(KafkaError):
        async with Admin(secured.as_user(access()["stats"]["user"], "not this")):
            pass


async def test_access_is_shown_as_it_was_given_and_taken_again(secured: Secured) -> None:
    acl = Acl("User:nobody", "topic", "prefixed", "x.", "read")
    async with Admin(secured.bus) as admin:
        assert await admin.acls("User:nobody") == set()
        await admin.allow([acl])
        await until(lambda: shown(admin, {acl}))
        await admin.disallow([acl])
        await until(lambda: shown(admin, set()))
        assert service_acls(secured.bus) <= await admin.acls()


async def shown(admin: Admin, wanted: set[Acl]) -> bool:
    return await admin.acls("User:nobody") == wanted


# -- a whole site on it, by the command


class Site:
    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack, self.folder = stack, folder

    @property
    def environment(self) -> dict[str, str]:
        """The site's settings, as the bus's administrator."""
        login = {"LIENTHONG_BUS_USERNAME": ADMIN, "LIENTHONG_BUS_PASSWORD": ADMIN_PASSWORD}
        return self.stack.processes["intake"].environment | login

    async def command(self, *arguments: str) -> tuple[int, str, str]:
        process = self.stack.processes["intake"]
        running = await asyncio.create_subprocess_exec(
            *process.command,
            *arguments,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await running.communicate()
        assert running.returncode is not None
        return running.returncode, out.decode(), err.decode()

    async def asked(self, *arguments: str) -> Any:
        status, out, err = await self.command(*arguments, "--json")
        assert status == 0, out + err
        return json.loads(out)

    async def receive(self, agency: str) -> str:
        answer = await self.stack.http.post(
            self.stack.url("intake") + "/v1/dossiers",
            headers=self.stack.token(Role.ADMIN),
            json={
                "procedure": "1.001193",
                "receiving_agency": agency,
                "channel": "counter",
                "return_by": "counter",
                "applicant": {"kind": "citizen", "name": "Nguyễn Văn Mẫu", "phone": "0912345678"},
            },
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["code"])

    async def view(self, file: Path, count: int) -> list[tuple[str, dict[str, str], dict[str, Any]]]:
        """The first records of a subscriber's own topic, read with its own credentials."""
        known = json.loads(file.read_text())
        bus = BusSettings(
            known["bootstrap"],
            security_protocol=known["security"],
            username=known["username"],
            password=known["password"],
        )
        consumer = AIOKafkaConsumer(
            known["topics"][0],
            **bus.client(),
            group_id=known["group_prefix"] + "reader",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        found: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        try:
            async with asyncio.timeout(60.0):
                while len(found) < count:
                    for records in (await consumer.getmany(timeout_ms=200)).values():
                        for r in records:
                            headers = {name: value.decode() for name, value in r.headers}
                            found.append((r.key.decode(), headers, json.loads(r.value)))
        finally:
            await consumer.stop()
        return found


@pytest.fixture(scope="module")
async def site(secured: Secured, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    bus = dataclasses.replace(secured.bus, prefix=SITE_PREFIX)
    async with Admin(bus) as admin:
        await admin.allow(service_acls(bus))
    stack = Stack(
        folder / "site",
        "kafka",
        settings={
            "LIENTHONG_BUS_PREFIX": SITE_PREFIX,
            "LIENTHONG_BUS_SECURITY": "SASL_PLAINTEXT",
            "LIENTHONG_BUS_USERNAME": ADMIN,
            "LIENTHONG_BUS_PASSWORD": ADMIN_PASSWORD,
        },
        given_bus=secured.kafka.bootstrap,
        users={name: (entry["user"], PASSWORD) for name, entry in access().items()},
    )
    await stack.start()
    try:
        yield Site(stack, folder)
    finally:
        await stack.stop()


async def test_the_services_run_with_no_more_than_the_plan_gives_them(site: Site) -> None:
    code = await site.receive("H55.242")
    done = await site.asked("reconcile", "--wait", "60")
    assert done["reconciled"], code


async def test_a_plan_that_is_applied_has_nothing_left_to_do(site: Site) -> None:
    await site.asked("topics", "apply")
    found = await site.asked("topics", "plan")
    assert found["access_control"] is True
    assert {name: found[name] for name in ("create", "allow", "disallow", "configure")} == {
        "create": [],
        "allow": [],
        "disallow": [],
        "configure": {},
    }


async def test_a_subscriber_comes_sees_its_window_and_what_follows_and_goes(site: Site, secured: Secured) -> None:
    user = "subscriber-H55.242"
    first = await site.receive("H55.242")
    other = await site.receive("H55.245") if "H55.245" in await agencies(site) else ""
    assert (await site.asked("reconcile", "--wait", "60"))["reconciled"]
    file = site.folder / "commune.json"
    done = await site.asked(
        "subscriber", "add", "H55.242", "--tier", "agency", "--topics", "own,public", "--out", str(file)
    )
    assert done["replayed"] >= 1
    wanted = site.folder / "subscribers.yaml"
    wanted.write_text(
        "subscribers:\n"
        "  - {code: H55.242, tier: agency, topics: [own, public]}\n"
        "  - {code: H55.218, tier: agency, topics: [own]}\n"
    )
    applied = await site.asked("subscriber", "apply", str(wanted), "--out", str(site.folder))
    assert [(line["code"], line["outcome"]) for line in applied] == [("H55.242", "there"), ("H55.218", "added")]
    assert (await site.command("subscriber", "test", str(site.folder / "H55.218.json")))[0] == 0
    await site.asked("subscriber", "remove", "H55.218")
    async with Admin(secured.bus) as admin:
        await until(lambda: has_quota(admin, user, {"consumer_byte_rate": float(1 << 20)}))
    assert file.stat().st_mode & 0o077 == 0
    second = await site.receive("H55.242")
    keys: list[str] = []
    for key, headers, data in await site.view(file, done["replayed"] + 1):
        keys.append(key)
        assert headers["ce_type"].startswith("vn.lienthong.")
        assert headers["ce_dataschema"].startswith("/schemas/agency/")
        assert "contact_ref" not in data
        assert "Nguyễn" not in json.dumps(data, ensure_ascii=False)
    assert {first, second} <= set(keys)
    assert other not in keys
    status, out, err = await site.command("subscriber", "test", str(file), "--json")
    assert status == 0, out + err
    tried = json.loads(out)
    assert {line["operation"] for line in tried} == {"read", "write", "join"}
    assert sum(line["found"] == "denied" for line in tried) >= 2 * len(TOPICS) - 2
    assert [item["code"] for item in await site.asked("subscriber", "list")] == ["H55.242"]
    assert await site.asked("subscriber", "remove", "H55.242") == {"code": "H55.242", "removed": True}
    assert await site.asked("subscriber", "list") == []
    async with Admin(secured.bus) as admin:
        assert await admin.acls(f"User:{user}") == set()
        await until(lambda: has_quota(admin, user, {}))
        assert SITE_PREFIX + agency_topic("H55.242") not in await admin.topics()
    status, _, err = await site.command("subscriber", "test", str(file))
    assert status == 1
    assert "Traceback" not in err
    assert (await site.receive("H55.242")) != ""
    assert (await site.asked("reconcile", "--wait", "60"))["reconciled"]


async def test_a_lower_site_logs_in_to_its_line_and_to_nothing_else(site: Site, secured: Secured) -> None:
    file, invitation = site.folder / "commune.env", site.folder / "invitation.json"
    up, down = link_topics("H55.242")
    await site.asked("link", "invite", "--site", "H55.242", "--out", str(invitation))
    told = json.loads(invitation.read_text())["bus"]
    assert told["security"] == "SASL_PLAINTEXT"  # at our own address, as we do
    assert (await site.asked("link", "login", "H55.242", "--out", str(file)))["user"] == "link-H55.242"
    assert file.stat().st_mode & 0o077 == 0
    login = dict(line.split("=", 1) for line in file.read_text().splitlines())
    known = {name.removeprefix("LIENTHONG_").lower(): value for name, value in login.items()}
    bus = RoutingSettings.model_validate(known).upper_bus(told)
    # as the upper site's routing makes them once the link is confirmed
    await Line(dataclasses.replace(secured.bus, prefix=SITE_PREFIX), single=False).make((up, down))
    assert await logs_in(bus)
    line = Line(bus, single=False)
    await line.open()
    try:
        ids = await line.ids([up, down, "lienthong.dossier.v1"])
        assert set(ids) == {up, down}  # of the others it does not even see that they are there
        await line.send(up, [b"{}"])
        await line.read({down: Reading(None, 0)}, ids)
        assert await line.poll(0.1) == []
        for topic in (down, "lienthong.dossier.v1"):
            with pytest.raises(LineDown):
                await line.send(topic, [b"{}"])
    finally:
        await line.close()
    for topic in (up, "lienthong.dossier.v1", "lienthong.contact.v1"):
        assert not await outcome(read(bus.client(), bus.topic(topic)))
    await site.asked("link", "login", "H55.242", "--remove")
    async with Admin(secured.bus) as admin:
        assert await admin.acls("User:link-H55.242") == set()
    await until(lambda: logged_out(bus))


async def logged_out(bus: BusSettings) -> bool:
    return not await logs_in(bus, within=0.0)


class _QuotasAnswer(Response):  # type: ignore[misc]
    API_KEY = 48
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("error_message", String("utf-8")),
        (
            "entries",
            Array(
                ("entity", Array(("type", String("utf-8")), ("name", String("utf-8")))),
                ("values", Array(("key", String("utf-8")), ("value", Float64))),
            ),
        ),
    )


class _Quotas(RequestStruct):  # type: ignore[misc]
    """DescribeClientQuotas, version 0 (KIP-546)."""

    API_KEY = 48
    API_VERSION = 0
    RESPONSE_TYPE = _QuotasAnswer
    SCHEMA = Schema(
        ("components", Array(("type", String("utf-8")), ("match_type", Int8), ("match", String("utf-8")))),
        ("strict", Boolean),
    )


async def quota_of(admin: Admin, user: str) -> dict[str, float]:
    """What a user may do in a second, as the broker has it."""
    answer = await admin._ask(_Quotas([("user", 0, user)], True))
    assert answer.error_code == 0, answer.error_message
    return {key: value for _, values in answer.entries or [] for key, value in values}


async def has_quota(admin: Admin, user: str, wanted: dict[str, float]) -> bool:
    return await quota_of(admin, user) == wanted


async def agencies(site: Site) -> set[str]:
    answer = await site.stack.http.get(site.stack.url("intake") + "/v1/agencies")
    return {item["code"] for item in answer.json()["items"]}


async def test_what_a_tier_may_not_see_is_refused(site: Site) -> None:
    out = str(site.folder / "none.json")
    status, _, err = await site.command("subscriber", "add", "G14", "--topics", "lienthong.contact.v1", "--out", out)
    assert status == 1
    assert "lienthong.contact.v1 is not for tier public" in err
    assert not Path(out).exists()


# -- docs/subscribe.md, line by line


async def test_a_newcomer_follows_the_page_and_sees_the_first_event(site: Site) -> None:
    """Every shell block of the page is run as it stands, in an empty folder beside the project's docs."""
    page = (ROOT / "docs" / "subscribe.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 4
    code = await site.receive("H55.242")
    assert (await site.asked("reconcile", "--wait", "120"))["reconciled"]
    folder = site.folder / "newcomer"
    folder.mkdir()
    (folder / "docs").symlink_to(ROOT / "docs")
    environment = site.environment | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "KAFKA_LIBS": str(libraries() / "libs"),
    }
    said = []
    try:
        for block in blocks:
            running = await asyncio.create_subprocess_shell(
                block,
                cwd=folder,
                env=environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            try:
                out, err = await asyncio.wait_for(running.communicate(), 300.0)
            except TimeoutError:
                os.killpg(running.pid, signal.SIGKILL)
                raise AssertionError(f"this does not end: {block}") from None
            assert running.returncode == 0, f"{block}{out.decode()}{err.decode()}"
            said.append(out.decode())
    finally:
        await site.command("subscriber", "remove", "H55.242")
    for sample in said[2:]:
        event = json.loads(sample.strip().splitlines()[-1])
        assert event["type"].startswith("vn.lienthong.dossier.")
        assert event["sequence"] == 1
    assert code.startswith("H55.242-")
