"""A service's AsyncAPI 3.0 document, built from the contract's own table, so that it cannot say anything else.

A channel is a topic under its address on this site's bus. The service sends to the topics that it owns and receives from
those whose events it applies; a payload is the event's JSON Schema 2020-12 as that topic's readers see it.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final

import orjson

from shared.bus.connection import BusSettings
from shared.bus.consumer import PARKED_TOPIC
from shared.bus.publisher import WATERMARK_TOPIC, new_topic
from shared.contracts.events import (
    AGENCY_TOPIC_PARTITIONS,
    EVENTS,
    LINK_TOPIC_PARTITIONS,
    MOVES,
    TOPICS,
    Topic,
    full_type,
    tier_of_topic,
)
from shared.contracts.schema import json_schema, schema_path

JsonObject = dict[str, Any]

SCHEMA_FORMAT: Final = "application/schema+json;version=2020-12"
_BINDING: Final = "0.5.0"
_DAY_MS: Final = 86_400_000
_EVERY_SERVICE_SENDS: Final = (PARKED_TOPIC, WATERMARK_TOPIC)
_MADE_ON_DEMAND_BY: Final = "routing"

_HEADERS: Final[JsonObject] = {
    "type": "object",
    "description": "CloudEvents 1.0, Kafka binary mode. A tombstone has neither ce_dataschema nor content-type.",
    "required": [
        "ce_id",
        "ce_source",
        "ce_type",
        "ce_specversion",
        "ce_subject",
        "ce_time",
        "ce_recordedtime",
        "ce_sequence",
        "ce_partitionkey",
        "ce_mode",
    ],
    "properties": {
        "ce_id": {"type": "string", "format": "uuid", "description": "UUIDv7; the same each time it is published."},
        "ce_source": {"type": "string", "description": "/sites/<site>/<service>"},
        "ce_type": {"type": "string"},
        "ce_specversion": {"const": "1.0"},
        "ce_subject": {"type": "string", "description": "The record key."},
        "ce_time": {"type": "string", "format": "date-time", "description": "When it happened."},
        "ce_recordedtime": {"type": "string", "format": "date-time", "description": "When it was stored."},
        "ce_sequence": {
            "type": "string",
            "pattern": "^[1-9][0-9]*$",
            "description": "From 1, contiguous per key and topic.",
        },
        "ce_partitionkey": {"type": "string", "description": "The record key."},
        "ce_dataschema": {"type": "string", "description": "The path of the payload's schema at its owner."},
        "ce_mode": {"enum": ["live", "history"], "description": "history: loaded from an old system."},
        "ce_replay": {"const": "true", "description": "Only on replays."},
        "content-type": {"const": "application/json"},
        "traceparent": {"type": "string", "description": "W3C trace context, when tracing is on."},
    },
}

_WATERMARK: Final[JsonObject] = {
    "type": "object",
    "description": "All that the service recorded before `upto` lies below these offsets. Not a CloudEvent.",
    "required": ["service", "upto", "ends"],
    "properties": {
        "service": {"type": "string"},
        "upto": {"type": "string", "format": "date-time"},
        "ends": {
            "type": "array",
            "items": {
                "type": "array",
                "prefixItems": [{"type": "string"}, {"type": "integer"}, {"type": "integer"}],
                "description": "Topic, partition, next offset.",
            },
        },
    },
}

_LINK: Final[JsonObject] = {
    "type": "object",
    "description": "A signed envelope between two sites; exempt from the CloudEvents headers.",
}

_AGENCY_PARAMETER: Final = {"agency": {"description": "The subscriber's agency code, such as H55.17."}}
_SITE_PARAMETER: Final = {"site": {"description": "The lower site's code, such as H55.242."}}


def asyncapi_document(service: str, bus: BusSettings, owned: Sequence[str], consumed: Sequence[str]) -> JsonObject:
    """The document of one service. Agency views and links, made on demand, are templates in routing's."""
    document: JsonObject = {
        "asyncapi": "3.0.0",
        "info": {
            "title": f"Liên Thông: {service} on the bus",
            "version": "1",
            "description": "Events are at least once, each key in order; ce_id and ce_sequence make them exactly once.",
        },
        "defaultContentType": "application/json",
        "servers": {"bus": _server(bus)},
        "channels": {},
        "operations": {},
        "components": {"schemas": {"CloudEventsHeaders": _HEADERS}, "messages": {}},
    }
    if bus.security_protocol.startswith("SASL"):
        document["components"]["securitySchemes"] = {"scram": {"type": "scramSha512"}}
    sent = dict.fromkeys((*owned, *_EVERY_SERVICE_SENDS))
    for name in dict.fromkeys((*sent, *consumed)):
        _add_channel(document, name, _fixed_channel(bus, TOPICS[name]), TOPICS[name].types)
    for name in sent:
        _add_operation(document, "send", name)
    for name in (*consumed, WATERMARK_TOPIC):
        _add_operation(document, "receive", name, group=bus.topic(f"lienthong.{service}") if bus.groups else None)
    if service == _MADE_ON_DEMAND_BY:
        _add_made_on_demand(document, bus)
    return document


def _server(bus: BusSettings) -> JsonObject:
    server: JsonObject = {
        "host": bus.bootstrap.split(",")[0],
        "protocol": "kafka-secure" if bus.security_protocol.endswith("SSL") else "kafka",
    }
    if bus.security_protocol.startswith("SASL"):
        server["security"] = [{"$ref": "#/components/securitySchemes/scram"}]
    return server


# ------------------------------------------------------------------------------------- channels, operations


def _fixed_channel(bus: BusSettings, topic: Topic) -> JsonObject:
    plan = new_topic(bus, topic.name)
    configuration = {
        "cleanup.policy": [topic.cleanup],
        **{
            name: int(value)
            for name, value in plan.topic_configs.items()
            if name in ("retention.ms", "max.message.bytes")
        },
    }
    about = f"Key: {topic.key}. Readers: {topic.tier}."
    if not topic.in_contract:
        about += " Between the services of one site, never for subscribers."
    return _channel(plan.name, about, plan.num_partitions, plan.replication_factor, configuration)


def _channel(address: str, description: str, partitions: int, replicas: int, configuration: JsonObject) -> JsonObject:
    return {
        "address": address,
        "description": description,
        "messages": {},
        "bindings": {
            "kafka": {
                "partitions": partitions,
                "replicas": replicas,
                "topicConfiguration": configuration,
                "bindingVersion": _BINDING,
            }
        },
    }


def _add_channel(document: JsonObject, name: str, channel: JsonObject, types: Iterable[str]) -> None:
    document["channels"][name] = channel
    if name == WATERMARK_TOPIC:
        _add_plain_message(document, channel, "watermark", _WATERMARK, "the service that says so")
        return
    for short in types:
        message = _message_name(short, name)
        channel["messages"][message] = {"$ref": f"#/components/messages/{message}"}
        if message not in document["components"]["messages"]:
            document["components"]["schemas"][message] = {
                "schemaFormat": SCHEMA_FORMAT,
                "schema": _payload_schema(message, short, name),
            }
            document["components"]["messages"][message] = _message(message, short, name)


def _add_operation(document: JsonObject, action: str, channel: str, group: str | None = None) -> None:
    operation: JsonObject = {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [
            {"$ref": f"#/channels/{channel}/messages/{message}"}
            for message in document["channels"][channel]["messages"]
        ],
    }
    if group is not None:
        operation["bindings"] = {"kafka": {"groupId": {"type": "string", "enum": [group]}, "bindingVersion": _BINDING}}
    document["operations"][f"{action}.{channel}"] = operation


def _add_made_on_demand(document: JsonObject, bus: BusSettings) -> None:
    """One external subscriber's view, and the two topics of a link, on the upper site's bus."""
    kept = {"cleanup.policy": ["delete"], "retention.ms": 7 * _DAY_MS}
    views = [short for short in EVENTS if short.split(".")[0] in ("dossier", "transfer")]
    view = "lienthong.agency.agency-code.v1"
    channel = _channel(
        bus.topic("lienthong.agency.{agency}.v1"),
        "Key: dossier code. One registered subscriber's view, made on demand.",
        AGENCY_TOPIC_PARTITIONS,
        bus.replication,
        kept,
    )
    channel["parameters"] = _AGENCY_PARAMETER
    _add_channel(document, view, channel, views)
    _add_operation(document, "send", view)
    for direction, from_to in (("up", "From the lower site to the upper."), ("down", "From the upper to the lower.")):
        name = f"lienthong.link.site-code.{direction}"
        channel = _channel(
            bus.topic(f"lienthong.link.{{site}}.{direction}"), from_to, LINK_TOPIC_PARTITIONS, bus.replication, kept
        )
        channel["parameters"] = _SITE_PARAMETER
        document["channels"][name] = channel
        _add_plain_message(document, channel, "link", _LINK, "none")
        for action in ("send", "receive"):
            _add_operation(document, action, name)


# --------------------------------------------------------------------------------------- messages, payloads


def _message_name(short: str, topic: str) -> str:
    """`dossier.received` at its owner, `public.dossier.received` and `agency.dossier.received` where it is reduced."""
    path = schema_path(short, topic).removeprefix("/schemas/").removesuffix(".v1.json")
    return path.replace("/", ".")


def _message(name: str, short: str, topic: str) -> JsonObject:
    return {
        "name": full_type(short),
        "title": short,
        "summary": (EVENTS[short].__doc__ or "").strip().split("\n")[0],
        "description": f"ce_dataschema: {schema_path(short, topic)}",
        "contentType": "application/json",
        "headers": {
            "allOf": [
                {"$ref": "#/components/schemas/CloudEventsHeaders"},
                {"properties": {"ce_type": {"const": full_type(short)}}},
            ]
        },
        "payload": {"$ref": f"#/components/schemas/{name}"},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": TOPICS[topic].key if topic in TOPICS else "dossier code"},
                "bindingVersion": _BINDING,
            }
        },
        "examples": [_message_example(short, topic)],
    }


def _add_plain_message(document: JsonObject, channel: JsonObject, name: str, schema: JsonObject, key: str) -> None:
    channel["messages"][name] = {"$ref": f"#/components/messages/{name}"}
    document["components"]["schemas"][name] = {"schemaFormat": SCHEMA_FORMAT, "schema": schema}
    document["components"]["messages"][name] = {
        "name": name,
        "description": schema["description"],
        "payload": {"$ref": f"#/components/schemas/{name}"},
        "bindings": {"kafka": {"key": {"type": "string", "description": key}, "bindingVersion": _BINDING}},
    }


def _payload_schema(name: str, short: str, topic: str) -> JsonObject:
    """The published schema, its references made to hold inside this document."""
    if short == "contact.erased":
        return {"type": "null", "description": "A tombstone: the key is destroyed wherever it went."}
    schema = dict(json_schema(short, tier_of_topic(topic)))
    del schema["$schema"], schema["$id"]
    text = orjson.dumps(schema).replace(b'"#/$defs/', f'"#/components/schemas/{name}/schema/$defs/'.encode())
    found: JsonObject = orjson.loads(text)
    return found


# --------------------------------------------------------------------------------------------------- examples

_INSTANT: Final = "2026-10-12T01:00:00Z"
_IDENTITY: Final = "01926f3c-7a40-7c11-8a5e-3f1b2c4d5e6f"
_TEXTS: Final = ("H55.242", "H55.242-261012-0001", "2026-10-12", "example")
_KEYS: Final = {"petition id": _IDENTITY, "contact_ref": "c-1", "document id": "H55.242/2026-10-12/15"}


def _message_example(short: str, topic: str) -> JsonObject:
    key = _KEYS.get(TOPICS[topic].key, "H55.242-261012-0001") if topic in TOPICS else "H55.242-261012-0001"
    headers = {
        "ce_id": _IDENTITY,
        "ce_source": f"/sites/H55/{TOPICS[topic].owner if topic in TOPICS else _MADE_ON_DEMAND_BY}",
        "ce_type": full_type(short),
        "ce_specversion": "1.0",
        "ce_subject": key,
        "ce_time": _INSTANT,
        "ce_recordedtime": _INSTANT,
        "ce_sequence": "1",
        "ce_partitionkey": key,
        "ce_mode": "live",
    }
    if short == "contact.erased":
        return {"headers": headers, "payload": None}
    headers |= {"ce_dataschema": schema_path(short, topic), "content-type": "application/json"}
    return {"headers": headers, "payload": _payload_example(short, topic)}


@cache
def _payload_example(short: str, topic: str) -> JsonObject:
    """The least that the type's schema asks for, in a move that it may make."""
    schema = json_schema(short, tier_of_topic(topic))
    payload: JsonObject = _example(schema, schema.get("$defs", {}))
    if moves := MOVES.get(short):
        before, after = min(moves, key=lambda move: (move[0] or 0, move[1]))
        payload |= {"previous": before, "state": after}
    return payload


def _example(schema: JsonObject, definitions: JsonObject) -> Any:
    if "$ref" in schema:
        return _example(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return _example(schema["anyOf"][0], definitions)
    match schema.get("type"):
        case "object":
            wanted = schema.get("required", ())
            return {name: _example(schema["properties"][name], definitions) for name in wanted}
        case "array":
            return [_example(schema["items"], definitions)] * schema.get("minItems", 0)
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return False
        case "string" if "format" in schema:
            return {"date-time": _INSTANT, "uuid": _IDENTITY}[schema["format"]]
        case "string":
            pattern = re.compile(schema.get("pattern", ""))
            return next(text for text in _TEXTS if pattern.search(text))
    return None
