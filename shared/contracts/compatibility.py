"""Whether a change of the schemas is compatible both ways: new readers understand old events, old readers
understand new ones.

What may change is little, and therefore every version is compatible with all earlier ones: a new type, a new
field that need not be there, and words that explain. Whatever else differs is a break.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

_WORDS: Final = frozenset({"$id", "$schema", "$defs", "$comment", "title", "description", "examples"})
"""Keywords that explain and decide nothing."""


@dataclass(frozen=True, slots=True)
class Break:
    """One incompatible change: in which schema, where (a JSON Pointer into its resolved form) and what."""

    schema: str
    pointer: str
    detail: str


def breaks(earlier: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]]) -> list[Break]:
    """Every incompatible change between two sets of schemas, each by its path below `/schemas/`."""
    found: list[Break] = []
    for name, before in earlier.items():
        if name not in new:
            found.append(Break(name, "", "this type is gone; readers still rely on it"))
            continue
        changes = _Comparison(before, new[name]).compare(before, new[name], "")
        found.extend(Break(name, pointer, detail) for pointer, detail in changes)
    return found


@dataclass(frozen=True, slots=True)
class _Comparison:
    earlier: Mapping[str, Any]
    new: Mapping[str, Any]

    def compare(self, before: Any, after: Any, at: str) -> Iterator[tuple[str, str]]:
        before, after = _resolved(self.earlier, before), _resolved(self.new, after)
        if not isinstance(before, Mapping) or not isinstance(after, Mapping):
            if before != after:
                yield at, "this changed"
            return
        yield from self._properties(before, after, at)
        for keyword in sorted((before.keys() | after.keys()) - _WORDS - {"properties", "required"}):
            yield from self._keyword(keyword, before, after, f"{at}/{keyword}")

    def _properties(self, before: Mapping[str, Any], after: Mapping[str, Any], at: str) -> Iterator[tuple[str, str]]:
        earlier, new = before.get("properties", {}), after.get("properties", {})
        was_required, is_required = set(before.get("required", ())), set(after.get("required", ()))
        for name, schema in earlier.items():
            here = f"{at}/properties/{name}"
            if name not in new:
                yield here, "this field is gone; an old reader may need it"
                continue
            if name in is_required - was_required:
                yield here, "this field is newly required; an old event may lack it"
            if name in was_required - is_required:
                yield here, "this field is no longer required; an old reader needs it"
            yield from self.compare(schema, new[name], here)
        for name in new.keys() - earlier.keys():
            if name in is_required:
                yield f"{at}/properties/{name}", "a new field must not be required; an old event lacks it"

    def _keyword(
        self, keyword: str, before: Mapping[str, Any], after: Mapping[str, Any], at: str
    ) -> Iterator[tuple[str, str]]:
        if keyword not in before:
            yield at, f"{keyword} is new; an old event may not satisfy it"
        elif keyword not in after:
            yield at, f"{keyword} is gone; an old reader still insists on it"
        elif keyword in ("items", "additionalProperties"):
            yield from self.compare(before[keyword], after[keyword], at)
        elif keyword in ("anyOf", "oneOf", "allOf", "prefixItems"):
            if len(before[keyword]) != len(after[keyword]):
                yield at, f"{keyword} has other members; a reader of one side refuses some"
                return
            for index, (one, other) in enumerate(zip(before[keyword], after[keyword], strict=True)):
                yield from self.compare(one, other, f"{at}/{index}")
        elif keyword == "enum":
            if set(map(str, before["enum"])) != set(map(str, after["enum"])):
                yield at, "the allowed values changed; a reader of one side refuses some"
        elif before[keyword] != after[keyword]:
            yield at, f"{keyword} changed from {before[keyword]!r} to {after[keyword]!r}"


def _resolved(document: Mapping[str, Any], schema: Any) -> Any:
    """The schema with its `$ref` replaced by what it names in the document; words beside it stay."""
    while isinstance(schema, Mapping) and "$ref" in schema:
        target: Any = document
        for part in str(schema["$ref"]).removeprefix("#/").split("/"):
            target = target[part]
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema
