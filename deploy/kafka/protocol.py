"""What an administrator asks Apache Kafka that aiokafka has no call for: access lists, SCRAM credentials, quotas, configs.

One question, one answer, errors as KafkaError with the broker's own words. KIP-554 (SCRAM), KIP-546 (quotas), KIP-290
(prefixed access lists).
"""

import asyncio
import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import IncompatibleBrokerVersion, KafkaConnectionError, KafkaError, for_code
from aiokafka.protocol.admin import (
    CreateAclsRequest_v1,
    DeleteAclsRequest_v1,
    DescribeAclsRequest_v1,
)
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Array,
    Boolean,
    CompactArray,
    CompactBytes,
    CompactString,
    Float64,
    Int8,
    Int16,
    Int32,
    Schema,
    String,
    TaggedFields,
)

from shared.bus.connection import BusSettings

SECURITY_DISABLED: Final = 54  # the broker has no authorizer
SCRAM_SHA_512: Final = 2
ITERATIONS: Final = 8192

# DescribeAcls, CreateAcls, DeleteAcls, AlterUserScramCredentials
ACCESS_CONTROL: Final = (29, 30, 31, 51)

ANY, TOPIC, GROUP, CLUSTER = 1, 2, 3, 4
RESOURCES: Final = {"topic": TOPIC, "group": GROUP, "cluster": CLUSTER}
LITERAL, PREFIXED = 3, 4
PATTERNS: Final = {"literal": LITERAL, "prefixed": PREFIXED}
OPERATIONS: Final = {
    "read": 3,
    "write": 4,
    "create": 5,
    "delete": 6,
    "alter": 7,
    "describe": 8,
    "describe_configs": 10,
    "alter_configs": 11,
}
ALLOW: Final = 3


class NoAccessControl(Exception):
    """This broker lets everybody do everything: there is nothing that a credential could open or close."""


@dataclass(frozen=True, slots=True, order=True)
class Acl:
    """One thing that a principal (`User:…`) may do."""

    principal: str
    resource: str
    pattern: str
    name: str
    operation: str

    def __str__(self) -> str:
        stars = "*" if self.pattern == "prefixed" else ""
        return f"{self.principal} may {self.operation} {self.resource} {self.name}{stars}"


class _Once(Request[RequestStruct]):  # type: ignore[misc]
    """A request that is built already."""

    API_KEY = -1

    def __init__(self, built: RequestStruct) -> None:
        self.API_KEY = built.API_KEY
        self._built = built

    def build(self, request_struct_class: type[RequestStruct]) -> RequestStruct:
        return self._built

    def prepare(self, versions: dict[int, tuple[int, int]]) -> RequestStruct:
        low, high = versions.get(self._built.API_KEY, (1, 0))
        if not low <= self._built.API_VERSION <= high:
            raise IncompatibleBrokerVersion(f"the broker does not know API {self._built.API_KEY}")
        return self._built


class _ScramAnswer(Response):  # type: ignore[misc]
    API_KEY = 51
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "results",
            CompactArray(
                ("user", CompactString("utf-8")),
                ("error_code", Int16),
                ("error_message", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _Scram(RequestStruct):  # type: ignore[misc]
    """AlterUserScramCredentials, version 0."""

    FLEXIBLE_VERSION = True
    API_KEY = 51
    API_VERSION = 0
    RESPONSE_TYPE = _ScramAnswer
    SCHEMA = Schema(
        ("deletions", CompactArray(("name", CompactString("utf-8")), ("mechanism", Int8), ("tags", TaggedFields))),
        (
            "upsertions",
            CompactArray(
                ("name", CompactString("utf-8")),
                ("mechanism", Int8),
                ("iterations", Int32),
                ("salt", CompactBytes),
                ("salted_password", CompactBytes),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _QuotaAnswer(Response):  # type: ignore[misc]
    API_KEY = 49
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "entries",
            Array(
                ("error_code", Int16),
                ("error_message", String("utf-8")),
                ("entity", Array(("type", String("utf-8")), ("name", String("utf-8")))),
            ),
        ),
    )


class _Quota(RequestStruct):  # type: ignore[misc]
    """AlterClientQuotas, version 0."""

    API_KEY = 49
    API_VERSION = 0
    RESPONSE_TYPE = _QuotaAnswer
    SCHEMA = Schema(
        (
            "entries",
            Array(
                ("entity", Array(("type", String("utf-8")), ("name", String("utf-8")))),
                ("ops", Array(("key", String("utf-8")), ("value", Float64), ("remove", Boolean))),
            ),
        ),
        ("validate_only", Boolean),
    )


class Admin:
    """An administrator's connection, for as long as the `async with`. Raises KafkaError, OSError."""

    def __init__(self, bus: BusSettings) -> None:
        self.bus = bus
        self.client = AIOKafkaAdminClient(**bus.client())

    async def __aenter__(self) -> "Admin":
        await self.client.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    async def _ask(self, built: RequestStruct) -> Any:
        return await self.client._send_to_controller(_Once(built))

    # -- access lists

    async def _must_know(self, *keys: int) -> None:
        """Raises NoAccessControl when the broker does not offer these APIs: the embedded one has some of them, for show."""
        client = self.client._client
        connection = await client._get_conn(client.get_random_node())
        if connection is None:
            raise KafkaConnectionError(f"{self.bus.bootstrap} does not answer")
        if not set(keys) <= set(connection._versions):
            raise NoAccessControl

    async def acls(self, principal: str | None = None) -> set[Acl]:
        """What is allowed, of one principal or of all. Raises NoAccessControl."""
        await self._must_know(*ACCESS_CONTROL)
        try:
            # pattern type 1: any
            answer = await self._ask(DescribeAclsRequest_v1(ANY, None, 1, principal, None, 1, 1))
        except (IncompatibleBrokerVersion, NotImplementedError) as error:
            raise NoAccessControl from error
        _raise(answer.error_code, answer.error_message)
        resources = {number: name for name, number in RESOURCES.items()}
        patterns = {number: name for name, number in PATTERNS.items()}
        operations = {number: name for name, number in OPERATIONS.items()}
        return {
            Acl(who, resources[kind], patterns[pattern], name, operations[operation])
            for kind, name, pattern, found in answer.resources
            for who, _, operation, permission in found
            if kind in resources and operation in operations and permission == ALLOW
        }

    async def allow(self, acls: Iterable[Acl]) -> None:
        wanted = [
            (RESOURCES[a.resource], a.name, PATTERNS[a.pattern], a.principal, "*", OPERATIONS[a.operation], ALLOW)
            for a in sorted(acls)
        ]
        if wanted:
            answer = await self._ask(CreateAclsRequest_v1(wanted))
            for code, message in answer.creation_responses:
                _raise(code, message)

    async def disallow(self, acls: Iterable[Acl]) -> None:
        wanted = [
            (RESOURCES[a.resource], a.name, PATTERNS[a.pattern], a.principal, "*", OPERATIONS[a.operation], ALLOW)
            for a in sorted(acls)
        ]
        if wanted:
            answer = await self._ask(DeleteAclsRequest_v1(wanted))
            for code, message, _ in answer.filter_responses:
                _raise(code, message)

    # -- credentials and quotas

    async def set_password(self, user: str, password: str) -> None:
        """SCRAM-SHA-512; the broker gets the salted password alone."""
        salt = secrets.token_bytes(32)
        salted = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS)
        answer = await self._ask(_Scram([], [(user, SCRAM_SHA_512, ITERATIONS, salt, salted, {})], {}))
        for _, code, message, _ in answer.results:
            _raise(code, message)

    async def forget_password(self, user: str) -> None:
        """One that is not there is forgotten as well."""
        answer = await self._ask(_Scram([(user, SCRAM_SHA_512, {})], [], {}))
        for _, code, message, _ in answer.results:
            if code != 91:  # RESOURCE_NOT_FOUND
                _raise(code, message)

    async def limit(self, user: str, bytes_per_second: float | None) -> None:
        """How much a user may read in a second from each broker; None takes the limit away."""
        change = ("consumer_byte_rate", bytes_per_second or 0.0, bytes_per_second is None)
        answer = await self._ask(_Quota([([("user", user)], [change])], False))
        for code, message, _ in answer.entries:
            _raise(code, message)

    # -- topics

    async def topics(self) -> dict[str, int]:
        """Every topic that this principal may see, with its number of partitions."""
        return {topic["topic"]: len(topic["partitions"]) for topic in await self.client.describe_topics()}

    async def configs(self, topics: Sequence[str]) -> dict[str, dict[str, str]]:
        """The settings of topics by name."""
        from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

        if not topics:
            return {}
        asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in topics]
        found: dict[str, dict[str, str]] = {}
        for answer in await self.client.describe_configs(asked):
            for code, message, _, name, entries in answer.resources:
                _raise(code, message)
                found[name] = {entry[0]: entry[1] for entry in entries}
        return found

    async def configure(self, topic: str, configs: Mapping[str, str]) -> None:
        from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

        for answer in await self.client.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic, configs=dict(configs))]
        ):
            for code, message, *_ in answer.resources:
                _raise(code, message)

    async def repartition(self, partitions: Mapping[str, int]) -> None:
        from aiokafka.admin import NewPartitions

        if partitions:
            answer = await self.client.create_partitions({name: NewPartitions(n) for name, n in partitions.items()})
            for _, code, message in answer.topic_errors:
                _raise(code, message)

    async def delete_topics(self, topics: Sequence[str]) -> None:
        if topics:
            await self.client.delete_topics(list(topics))


async def logs_in(bus: BusSettings, within: float = 15.0) -> bool:
    """Whether these credentials are taken: a broker learns of them a moment after the controller."""
    client = AIOKafkaAdminClient(**bus.client())
    until = asyncio.get_running_loop().time() + within
    while True:
        try:
            await client.start()
            return True
        except (KafkaError, OSError):
            if asyncio.get_running_loop().time() > until:
                return False
            await asyncio.sleep(0.2)
        finally:
            await client.close()


def _raise(code: int, message: str | None) -> None:
    if code == SECURITY_DISABLED:
        raise NoAccessControl
    if code:
        error: KafkaError = for_code(code)(message or "refused")
        raise error
