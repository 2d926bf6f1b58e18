"""How every client reaches the bus: settings, the site's topic prefix, and no topic made by naming it."""

import functools
import ssl
from dataclasses import dataclass
from typing import Any, Literal

import aiokafka.admin.client
import aiokafka.client
from aiokafka.protocol.metadata import MetadataRequest

# aiokafka asks the broker to create every topic that it names (the embedded broker makes four partitions of it, Kafka
# as its default says). A topic of this project is made from the plan, or not at all.
_NAMED_TOPICS_STAY_UNMADE = functools.partial(MetadataRequest, allow_auto_topic_creation=False)
aiokafka.client.MetadataRequest = _NAMED_TOPICS_STAY_UNMADE
aiokafka.admin.client.MetadataRequest = _NAMED_TOPICS_STAY_UNMADE


BusSecurity = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]


@dataclass(frozen=True, slots=True)
class BusSettings:
    """`prefix` stands before every topic and group name; `partitions` is for topics that are made (commune 3, province 12,
    nation 48); `idempotent` needs Apache Kafka (the embedded broker has no idempotent producers).

    `groups`: the processes of a service share its partitions. Without, its one process reads them all, from where its own
    database says: on the embedded broker, where joining a group takes 5 to 18 s, and where a fetch that waits is not woken
    by a new record, so that it must ask more often while records come.
    """

    bootstrap: str
    prefix: str = ""
    partitions: int = 3
    replication: int = 1
    idempotent: bool = False
    groups: bool = True
    security_protocol: str = "PLAINTEXT"
    username: str | None = None
    password: str | None = None
    ca_file: str | None = None

    @property
    def asks_for_login(self) -> bool:
        return self.security_protocol.startswith("SASL")

    def client(self) -> dict[str, Any]:
        """The arguments that producers, consumers and administrators share."""
        arguments: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap,
            # A deleted topic or an emptied broker is noticed after five seconds; at the default 300 s one read nothing.
            "metadata_max_age_ms": 5000,
            "security_protocol": self.security_protocol,
        }
        if self.security_protocol.endswith("SSL"):
            arguments["ssl_context"] = ssl.create_default_context(cafile=self.ca_file)
        if self.asks_for_login:
            arguments |= {
                "sasl_mechanism": "SCRAM-SHA-512",
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return arguments

    def topic(self, name: str) -> str:
        """The name on the bus of a topic of the contract."""
        return self.prefix + name

    def plain(self, topic: str) -> str:
        return topic.removeprefix(self.prefix)
