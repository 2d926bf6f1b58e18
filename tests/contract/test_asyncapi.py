"""`/asyncapi.json`: valid AsyncAPI 3.0, complete over the four services, and true to the contract's own table."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.validators import validator_for

from deploy.site import create
from shared.bus.connection import BusSettings
from shared.contracts.envelope import Envelope, Header, decode, parse
from shared.contracts.events import EVENTS, TOPICS, agency_topic, link_topics
from shared.service import SERVICES, owned_topics
from shared.web.asyncapi import asyncapi_document

Document = dict[str, Any]

BUS = BusSettings("bus.example:9092", prefix="h55.", partitions=12, replication=3, security_protocol="SASL_SSL")
# The official schema (@asyncapi/specs 6.11.1, Apache-2.0).
SPECIFICATION = Path(__file__).parent / "data" / "asyncapi-3.0.0.json"
WATERMARK = "lienthong.watermark.v1"


@cache
def document(service: str) -> Document:
    return asyncapi_document(service, BUS, owned_topics(service), consumed(service))


@cache
def consumed(service: str) -> tuple[str, ...]:
    return create(service, {"site": "H55", "keys_dir": _keys()}).consumes


@cache
def _keys() -> Path:
    import tempfile

    return Path(tempfile.mkdtemp(prefix="lienthong-keys-"))


@cache
def specification() -> Any:
    schema = json.loads(SPECIFICATION.read_text(encoding="utf-8"))
    return validator_for(schema)(schema)


def resolved(document: Document, reference: str) -> Any:
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def messages(document: Document) -> list[tuple[str, str, Document]]:
    """(channel, message name, message) of every channel."""
    return [
        (channel, name, resolved(document, message["$ref"]))
        for channel, described in document["channels"].items()
        for name, message in described["messages"].items()
    ]


@pytest.mark.parametrize("service", SERVICES)
def test_it_is_valid_by_the_specification(service: str) -> None:
    faults = [(list(error.path), error.message[:200]) for error in specification().iter_errors(document(service))]
    assert faults == []


def test_the_specifications_schema_refuses_what_is_not_asyncapi() -> None:
    broken = json.loads(json.dumps(document("intake")))
    broken["operations"]["send.lienthong.dossier.v1"]["action"] = "publish"
    assert not specification().is_valid(broken)


def test_the_four_together_cover_every_topic() -> None:
    addresses = {channel["address"] for service in SERVICES for channel in document(service)["channels"].values()}
    on_demand = {agency_topic("{agency}"), *link_topics("{site}")}
    assert addresses == {BUS.topic(name) for name in (*TOPICS, *on_demand)}


def test_every_topic_is_sent_by_its_owner_alone() -> None:
    senders: dict[str, set[str]] = {}
    for service in SERVICES:
        for operation in document(service)["operations"].values():
            if operation["action"] == "send":
                senders.setdefault(operation["channel"]["$ref"].removeprefix("#/channels/"), set()).add(service)
    for name, topic in TOPICS.items():
        assert senders[name] == (set(SERVICES) if topic.owner == "all" else {topic.owner}), name


@pytest.mark.parametrize("service", SERVICES)
def test_it_receives_what_it_consumes(service: str) -> None:
    received = {
        operation["channel"]["$ref"].removeprefix("#/channels/")
        for operation in document(service)["operations"].values()
        if operation["action"] == "receive"
    }
    assert set(consumed(service)) <= received


@pytest.mark.parametrize("service", SERVICES)
def test_every_reference_leads_somewhere(service: str) -> None:
    found = document(service)

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                resolved(found, value["$ref"])
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(found)


@pytest.mark.parametrize("service", SERVICES)
def test_channels_say_how_the_topic_is_kept(service: str) -> None:
    for name, channel in document(service)["channels"].items():
        if name in TOPICS:
            kafka = channel["bindings"]["kafka"]
            assert (kafka["partitions"], kafka["replicas"]) == (12, 3)
            assert kafka["topicConfiguration"]["cleanup.policy"] == [TOPICS[name].cleanup]
            kept = kafka["topicConfiguration"].get("retention.ms")
            assert kept == (7 * 86_400_000 if TOPICS[name].cleanup == "delete" else None)


@pytest.mark.parametrize("service", SERVICES)
def test_examples_are_what_the_service_itself_would_read(service: str) -> None:
    """Each example's headers and payload make an event that passes decode and parse, and its own schema."""
    found = document(service)
    for channel, name, message in messages(found):
        for example in message.get("examples", ()):
            payload = example["payload"]
            value = None if payload is None else json.dumps(payload).encode()
            headers: list[Header] = [(header, text.encode()) for header, text in example["headers"].items()]
            envelope = decode(channel, example["headers"]["ce_subject"].encode(), value, headers)
            data = parse(envelope)
            assert data is not None, name
            assert isinstance(envelope, Envelope)
            assert data.short == message["title"]
            schema = resolved(found, message["payload"]["$ref"])["schema"]
            root = {**schema, "components": found["components"]}
            Draft202012Validator(root, format_checker=FormatChecker()).validate(payload)


def test_every_event_type_is_described_with_an_example() -> None:
    described = {
        message["title"]: message
        for service in SERVICES
        for _, name, message in messages(document(service))
        if "title" in message
    }
    assert set(described) == set(EVENTS) - {"watermark.advanced"}
    assert all(message["examples"] for message in described.values())


def test_a_subscriber_without_tls_or_password_is_told_so() -> None:
    plain = asyncapi_document("stats", BusSettings("127.0.0.1:9092"), owned_topics("stats"), ())
    assert plain["servers"]["bus"] == {"host": "127.0.0.1:9092", "protocol": "kafka"}
    assert document("stats")["servers"]["bus"]["protocol"] == "kafka-secure"
    assert "h55." not in json.dumps(plain["channels"])
