"""The committed schemas are what the code says, are JSON Schema 2020-12, and may change only compatibly."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import jsonschema
import orjson
import pytest

from shared.contracts.compatibility import breaks
from shared.contracts.events import (
    EVENTS,
    TIERS,
    TOPICS,
    CalendarRef,
    Component,
    DossierReceived,
    LimitData,
    agency_topic,
)
from shared.contracts.schema import all_schemas, json_schema, read_schemas, schema_path
from shared.contracts.views import reduce

SCHEMAS = read_schemas()
RECEIVED = "dossier.received.v1.json"
NOW = datetime(2026, 10, 10, 1, 0, tzinfo=UTC)


def properties(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for part in (schema, *schema.get("$defs", {}).values()):
        yield from part.get("properties", {}).items()


def received() -> DossierReceived:
    return DossierReceived(
        agency="H55.242", procedure="1.001193", previous=1, state=2, due_at=NOW, paused=False, by="desk",
        confidential=False, deciding_agency="H55", field="G01-TP01", channel="online", return_by="online",
        applicant_kind="business", components=(Component(name="Tờ khai", source="store"),),
        limit=LimitData(value=4, unit="hours"), calendar=CalendarRef(agency="H55", version=1),
    )  # fmt: skip


def test_files_and_code_agree() -> None:
    written = json.loads(json.dumps(all_schemas()))
    assert written == SCHEMAS, "write them anew: python -m shared.contracts.schema"


def test_every_record_s_schema_is_there() -> None:
    for topic in (*TOPICS, agency_topic("G01")):
        types = TOPICS[topic].types if topic in TOPICS else ("dossier.received", "transfer.requested")
        for short in types:
            assert schema_path(short, topic).removeprefix("/schemas/") in SCHEMAS


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_a_schema_is_valid_self_contained_and_says_who_may_see_each_field(name: str) -> None:
    schema = SCHEMAS[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"/schemas/{name}"
    references = [part.split('"')[1] for part in json.dumps(schema).split('"$ref": ')[1:]]
    assert all(reference.startswith("#/$defs/") for reference in references)
    limit = name.split("/")[0] if "/" in name else "restricted"
    allowed = TIERS[: TIERS.index(limit) + 1]
    for field, rules in properties(schema):
        assert rules.get("x-sensitivity") in allowed, field


@pytest.mark.parametrize("tier", TIERS)
def test_an_event_satisfies_the_schema_of_its_view(tier: Any) -> None:
    data = orjson.loads(reduce(received(), tier).to_json())
    jsonschema.Draft202012Validator(json_schema("dossier.received", tier)).validate(data)
    del data["channel"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, json_schema("dossier.received", tier))


def test_a_topic_that_anybody_may_read_has_nothing_that_not_everybody_may() -> None:
    for topic in TOPICS.values():
        if topic.tier == "public":
            for short in topic.types:
                schema = SCHEMAS[schema_path(short, topic.name).removeprefix("/schemas/")]
                assert {rules["x-sensitivity"] for _, rules in properties(schema)} == {"public"}


def test_every_type_has_one_schema() -> None:
    assert {name for name in SCHEMAS if "/" not in name} == {f"{short}.v1.json" for short in EVENTS}


# ------------------------------------------------------------------------------------------- compatibility

Change = Callable[[dict[str, Any]], object]


def after(change: Change) -> list[str]:
    changed = copy.deepcopy(SCHEMAS)
    change(changed[RECEIVED])
    return [f"{found.schema}{found.pointer}" for found in breaks(SCHEMAS, changed)]


def test_the_same_schemas_are_compatible() -> None:
    assert breaks(SCHEMAS, SCHEMAS) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda schema: schema["properties"].update(colour={"type": "string", "x-sensitivity": "agency"}),
        lambda schema: schema.update(description="Said better."),
        lambda schema: schema["properties"]["fee"].update(title="Lệ phí"),
        lambda schema: schema["$defs"]["Component"]["properties"].update(pages={"type": "integer"}),
        lambda schema: schema["required"].reverse(),
        lambda schema: schema["properties"]["channel"]["enum"].reverse(),
    ],
)
def test_a_new_field_that_may_be_left_out_and_other_words_are_compatible(change: Change) -> None:
    assert after(change) == []


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        (lambda schema: schema["properties"].pop("fee"), "/properties/fee"),
        (lambda schema: schema["properties"]["fee"].update(type="string"), "/properties/fee/type"),
        (lambda schema: schema["required"].append("fee"), "/properties/fee"),
        (lambda schema: schema["required"].remove("channel"), "/properties/channel"),
        (lambda schema: schema["properties"]["channel"]["enum"].remove("postal"), "/properties/channel/enum"),
        (lambda schema: schema["properties"]["channel"]["enum"].append("fax"), "/properties/channel/enum"),
        (lambda schema: schema["properties"]["state"].update(maximum=9), "/properties/state/maximum"),
        (lambda schema: schema["properties"]["state"].pop("maximum"), "/properties/state/maximum"),
        (lambda schema: schema["properties"]["paused"].update(const=False), "/properties/paused/const"),
        (
            lambda schema: schema["properties"]["contact_ref"].update({"x-sensitivity": "public"}),
            "/properties/contact_ref/x-sensitivity",
        ),
        (lambda schema: schema["properties"]["due_at"]["anyOf"].pop(), "/properties/due_at/anyOf"),
        (
            lambda schema: schema["$defs"]["Component"]["required"].append("digitised"),
            "/properties/components/items/properties/digitised",
        ),
        (
            lambda schema: (
                schema["properties"].update(colour={"type": "string"}), schema["required"].append("colour")
            ),
            "/properties/colour",
        ),
    ],
)  # fmt: skip
def test_a_breaking_change_is_refused_where_it_stands(change: Change, pointer: str) -> None:
    assert after(change) == [RECEIVED + pointer]


def test_a_type_that_is_gone_is_a_break_and_a_new_one_is_not() -> None:
    fewer = {name: schema for name, schema in SCHEMAS.items() if name != RECEIVED}
    assert [found.schema for found in breaks(SCHEMAS, fewer)] == [RECEIVED]
    assert breaks(fewer, SCHEMAS) == []
