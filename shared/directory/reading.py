"""From a file to a bundle: YAML or JSON, with every fault found in one reading."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, cast, get_args, get_origin

import orjson
import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from shared.directory.bundle import (
    AgencyEntry,
    Bundle,
    CalendarEntry,
    CarrierEntry,
    Entry,
    NoticeRule,
    PortalEntry,
    ProcedureEntry,
    ProviderEntry,
    Site,
    TemplateEntry,
)
from shared.directory.faults import BundleFault, Fault, Parts, find_faults

E = TypeVar("E", bound=Entry)


# ------------------------------------------------------------------------------------------------- parsing


class _Loader(yaml.CSafeLoader):
    """YAML whose dates and times of day stay text, whose booleans are true and false alone, and in which a
    key that stands twice in one mapping is a mistake and not the loss of the first."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {name} stands twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


for _tag, _form, _first in (
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("tag:yaml.org,2002:int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    ("tag:yaml.org,2002:float", r"^[-+]?[0-9]+\.[0-9]+(?:[eE][-+]?[0-9]+)?$", "-+0123456789"),
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:merge", r"^<<$", "<"),
):
    _Loader.add_implicit_resolver(_tag, re.compile(_form), list(_first))


_DEEPEST: Final = 100
"""Levels of nesting: a bundle has eight, and libyaml's composer ends the process at some ten thousand."""


def _too_deep(text: str) -> bool:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                return True
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return False


def _parse(text: str, name: str) -> Any:
    try:
        if name.lower().endswith(".json"):
            return orjson.loads(text)
        if not _too_deep(text):
            return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader
        why = "this is nested too deep"
    except orjson.JSONDecodeError as error:
        why = f"this is no JSON (line {error.lineno}, column {error.colno})"
    except yaml.MarkedYAMLError as error:
        where = error.problem_mark
        place = f" (line {where.line + 1}, column {where.column + 1})" if where else ""
        why = f"this is no YAML{place}: {error.problem or 'it cannot be read'}"
    except (yaml.YAMLError, ValueError):
        why = "this is no YAML: it holds characters or values that cannot be read"
    raise BundleFault(name, [Fault("", " ".join(why.split()))])


# ---------------------------------------------------------------------------------------------------- shape


def _pointer(location: tuple[int | str, ...], tree: Any, named_last: bool) -> str:
    """The JSON Pointer of a pydantic location: what is no place in the document is left out of it.

    `named_last`: the last part names a field that is missing, and belongs to the pointer all the same.
    """
    parts: list[str] = []
    for index, part in enumerate(location):
        in_mapping = isinstance(tree, dict) and part in tree
        if in_mapping or (isinstance(tree, list) and isinstance(part, int) and part < len(tree)):
            tree = tree[part]
        elif not (named_last and index == len(location) - 1):
            continue
        parts.append(str(part).replace("~", "~0").replace("/", "~1"))
    return "".join(f"/{part}" for part in parts)


_SENTENCES: Final[Mapping[str, str]] = {
    "missing": "this field is missing",
    "extra_forbidden": "this field is unknown",
    "model_type": "this must hold fields",
    "model_attributes_type": "this must hold fields",
    "tuple_type": "this must be a list",
}


def _sentence(error: ErrorDetails) -> str:
    if error["type"] == "string_type" and type(error["input"]) in (int, float):
        return 'this must be text, and here it is a number; write it in quotes, like "1.001193"'
    return _SENTENCES.get(error["type"], error["msg"].removeprefix("Value error, "))


def _shape_faults(refused: ValidationError, tree: Any) -> list[Fault]:
    found: dict[Fault, None] = {}
    for error in refused.errors(include_url=False, include_context=False):
        pointer = _pointer(error["loc"], tree, named_last=error["type"] == "missing")
        found[Fault(pointer, _sentence(error))] = None
    return list(found)


@cache
def _field(model: type[Entry], name: str) -> tuple[type[Entry] | None, TypeAdapter[Any]]:
    """What a field of an entry holds: the entries in its list, if it is one, and how its value is read."""
    field = model.model_fields[name]
    inner = next(iter(get_args(field.annotation)), None) if get_origin(field.annotation) is tuple else None
    listed = inner if isinstance(inner, type) and issubclass(inner, Entry) else None
    exact: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    return listed, TypeAdapter(exact)


def _salvaged(model: type[E], raw: Any) -> E:
    """What can be read of a raw entry, with None for each field that cannot."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        written = field.alias or name
        if isinstance(raw, dict) and written in raw:
            found[name] = _salvaged_field(model, name, raw[written])
        else:
            found[name] = None if field.is_required() else field.get_default()
    return cast(E, model.model_construct(**found))


def _salvaged_field(model: type[Entry], name: str, raw: Any) -> Any:
    listed, adapter = _field(model, name)
    if listed is not None:
        return tuple(_salvaged(listed, each) for each in raw) if isinstance(raw, list) else ()
    try:
        return adapter.validate_json(orjson.dumps(raw), strict=True)
    except ValidationError:
        return None


def _salvaged_parts(tree: dict[str, Any], faults: Iterable[Fault]) -> Parts:
    """The parts of a bundle whose shape is wrong somewhere, as far as they can be read."""

    def entries(model: type[E], section: str) -> dict[int, E]:
        raw = tree.get(section)
        return {index: _salvaged(model, each) for index, each in enumerate(raw if isinstance(raw, list) else ())}

    places = (fault.pointer.split("/")[1:3] for fault in faults)
    return Parts(
        site=None,
        agencies=entries(AgencyEntry, "agencies"),
        procedures=entries(ProcedureEntry, "procedures"),
        calendars=entries(CalendarEntry, "calendars"),
        providers=entries(ProviderEntry, "providers"),
        notices=entries(NoticeRule, "notices"),
        templates=entries(TemplateEntry, "templates"),
        carriers=entries(CarrierEntry, "carriers"),
        portals=entries(PortalEntry, "portals"),
        misshapen=frozenset((place[0], int(place[1])) for place in places if len(place) == 2 and place[1].isdigit()),
    )


# --------------------------------------------------------------------------------------------------- reading


def parse_bundle(text: str, name: str = "bundle.yaml", current: Site | None = None) -> Bundle:
    """Read a bundle from YAML or (a name that ends in .json) JSON text; `current` is what it is merged into.

    Raises BundleFault with every fault: of shape and of reference.
    """
    tree = _parse(text, name)
    try:
        # Through JSON, so that YAML and JSON are held to one exact reading.
        document = orjson.dumps(tree, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        raise BundleFault(name, [Fault("", "this holds values that JSON cannot hold")]) from None
    if not isinstance(tree, dict):
        raise BundleFault(name, [Fault("", "a bundle is a mapping with at least site and agencies")])
    try:
        bundle = Bundle.model_validate_json(document)
    except ValidationError as refused:
        tree = orjson.loads(document)
        faults = _shape_faults(refused, tree)
        faults += [fault for fault in find_faults(_salvaged_parts(tree, faults), current) if fault not in faults]
        raise BundleFault(name, faults) from None
    faults = find_faults(Parts.of(bundle), current)
    if faults:
        raise BundleFault(name, faults)
    return bundle


def load_bundle(path: Path, current: Site | None = None) -> Bundle:
    """Read a bundle's file. Raises BundleFault, also when it cannot be opened or is no text."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise BundleFault(path.name, [Fault("", "this file is not UTF-8 text")]) from None
    except OSError as error:
        raise BundleFault(path.name, [Fault("", f"this file cannot be opened: {error.strerror}")]) from None
    return parse_bundle(text, path.name, current)
