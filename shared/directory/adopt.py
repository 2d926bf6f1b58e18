"""What a site takes over from a neighbour's directory. Pure.

An entry is taken when it is not here, or when it is here as that neighbour gave it the last time; what this site has
loaded or changed itself stays.
"""

from collections.abc import Collection, Iterable, Mapping
from hashlib import sha256
from typing import Any, Final

import orjson
from pydantic import BaseModel

from shared.clock import Calendar
from shared.directory.bundle import AgencyEntry, ProcedureEntry, Site, TemplateEntry

KINDS: Final[dict[str, type[BaseModel]]] = {
    "agencies": AgencyEntry,
    "procedures": ProcedureEntry,
    "calendars": Calendar,
    "templates": TemplateEntry,
}
Entry = tuple[str, str]  # its kind and its identity within it


def identity(kind: str, entry: Any) -> str:
    match kind:
        case "agencies" | "procedures":
            return str(entry.code)
        case "calendars":
            return f"{entry.agency} {entry.version}"
        case _:
            return f"{entry.name} {entry.version} {entry.lang}"


def digest(entry: BaseModel) -> str:
    return sha256(orjson.dumps(entry.model_dump(mode="json", by_alias=True), option=orjson.OPT_SORT_KEYS)).hexdigest()


def offered(site: Site, own_sites: Collection[str] | None = None) -> list[tuple[str, dict[str, Any]]]:
    """What is told to a neighbour: everything, or (upwards) the agencies of these sites alone."""
    return [
        (kind, entry.model_dump(mode="json", by_alias=True))
        for kind in KINDS
        if own_sites is None or kind == "agencies"
        for entry in getattr(site, kind)
        if own_sites is None or entry.site in own_sites
    ]


def adopt(
    current: Site,
    given: Iterable[tuple[str, Mapping[str, Any]]],
    before: Mapping[Entry, str],
    only_of: Collection[str] | None = None,
) -> tuple[Site, dict[Entry, str]]:
    """The site with what it takes over, and the digests of what was given. `before`: those of what this neighbour gave
    earlier; `only_of`: agencies of these sites alone are taken (from below). Raises ValueError for what is no entry.
    """
    parts = {kind: {identity(kind, entry): entry for entry in getattr(current, kind)} for kind in KINDS}
    taken: dict[Entry, str] = {}
    for kind, content in given:
        entry = KINDS[kind].model_validate_json(orjson.dumps(content))
        name = identity(kind, entry)
        if only_of is not None and (kind != "agencies" or getattr(entry, "site", None) not in only_of):
            continue
        ours = parts[kind].get(name)
        if ours is None or digest(ours) == before.get((kind, name)):
            parts[kind][name] = entry
        taken[kind, name] = digest(entry)
    site = current.model_copy(update={kind: tuple(part.values()) for kind, part in parts.items()})
    return (site if site != current else current), taken
