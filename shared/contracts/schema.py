"""The events as JSON Schema 2020-12, in files that outsiders read.

`python -m shared.contracts.schema` writes the files anew; a test proves that files and code agree.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

import orjson

from shared.contracts.events import EVENTS, Tier, full_type, tier_of_topic
from shared.contracts.views import view_model

FOLDER: Final = Path(__file__).parent / "schemas"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

JsonSchema = dict[str, Any]


def _view(tier: Tier) -> str:
    """The folder of a view: the owners' events stand at the top."""
    return f"{tier}/" if tier in ("public", "agency") else ""


@cache
def schema_path(short: str, topic: str | None = None) -> str:
    """The path that `ce_dataschema` names and the service serves: `/schemas/dossier.received.v1.json`.

    Records of `lienthong.public.dossier.v1` and of an agency's view are reduced and have schemas of their
    own below `/schemas/public/` and `/schemas/agency/`. The indicators are public in full.
    """
    reduced = topic is not None and not topic.startswith("lienthong.indicator.")
    folder = _view(tier_of_topic(topic)) if topic is not None and reduced else ""
    return f"/schemas/{folder}{short}.v1.json"


def json_schema(short: str, tier: Tier = "internal") -> JsonSchema:
    """The JSON Schema of one event type as the tier sees it; `$ref`s are relative to the document."""
    body = view_model(short, tier).model_json_schema(by_alias=True, mode="validation")
    return {
        "$schema": DIALECT,
        "$id": f"/schemas/{_view(tier)}{short}.v1.json",
        **body,
        "title": full_type(short),
    }


def all_schemas() -> dict[str, JsonSchema]:
    """Every published schema by its path below `/schemas/`: `public/dossier.received.v1.json`."""
    found = {f"{short}.v1.json": json_schema(short) for short in EVENTS}
    for tier, families in (("public", ("dossier",)), ("agency", ("dossier", "transfer"))):
        for short in EVENTS:
            if short.split(".")[0] in families:
                found[f"{tier}/{short}.v1.json"] = json_schema(short, "public" if tier == "public" else "agency")
    return found


def read_schemas(folder: Path = FOLDER) -> dict[str, JsonSchema]:
    """The committed schemas by their path below the folder."""
    return {
        path.relative_to(folder).as_posix(): orjson.loads(path.read_bytes()) for path in sorted(folder.rglob("*.json"))
    }


def write_schemas(folder: Path = FOLDER) -> None:
    """Write every schema anew. Whether the change is compatible is the compatibility check's question."""
    for name, schema in all_schemas().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps(schema, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


if __name__ == "__main__":
    write_schemas()
