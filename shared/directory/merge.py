"""What loading a bundle changes. A load adds and replaces by identity and deletes nothing; loaded twice, it
changes nothing the second time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel

from shared.clock import Calendar, default_calendar
from shared.directory.bundle import Bundle, ProviderEntry, Site
from shared.directory.defaults import (
    DEFAULT_CARRIERS,
    DEFAULT_NOTICES,
    DEFAULT_PROVIDERS,
    DEFAULT_QUIET_HOURS,
    DEFAULT_SMS,
)
from shared.directory.faults import BundleFault, Parts, find_faults, stored_form

__all__ = ["Difference", "Kind", "Site", "merge"]

M = TypeVar("M", bound=BaseModel)

Kind = Literal[
    "site", "agency", "procedure", "calendar", "template",
    "providers", "notices", "quiet_hours", "sms", "carriers", "portals",
]  # fmt: skip

_SECRETS: Final = frozenset({"secret", "password"})
_FROZEN_DAYS: Final = frozenset({"holidays", "swapped", "swap_years"})


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that a load adds (`before` None) or changes: the fields that differ, secrets masked."""

    kind: Kind
    id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


def merge(current: Site | None, bundle: Bundle, name: str = "bundle") -> tuple[Site, tuple[Difference, ...]]:
    """The site after the load and how it differs from before, in the order of the bundle.

    Raises BundleFault when the bundle does not fit the site, such as a calendar version that is already
    loaded with other content.
    """
    faults = find_faults(Parts.of(bundle), current)
    if faults:
        raise BundleFault(name, faults)
    given = bundle.model_fields_set
    own_site = bundle.site.code
    agencies = [
        agency if "site" in agency.model_fields_set else agency.model_copy(update={"site": own_site})
        for agency in bundle.agencies
    ]
    loaded = {(each.agency, each.version) for each in current.calendars} if current else set()
    new_calendars = [stored_form(entry) for entry in bundle.calendars if (entry.agency, entry.version) not in loaded]
    earlier = current or _empty(bundle)
    merged = Site(
        site=bundle.site,
        agencies=_upsert(earlier.agencies, agencies, lambda agency: agency.code),
        procedures=_upsert(earlier.procedures, bundle.procedures, lambda procedure: procedure.code),
        calendars=_upsert(earlier.calendars, new_calendars, lambda each: (each.agency, each.version)),
        default_calendar=earlier.default_calendar,
        templates=_upsert(earlier.templates, bundle.templates, lambda each: (each.name, each.version, each.lang)),
        providers=bundle.providers if "providers" in given else earlier.providers,
        notices=bundle.notices if "notices" in given else earlier.notices,
        quiet_hours=bundle.quiet_hours if "quiet_hours" in given else earlier.quiet_hours,
        sms=bundle.sms if "sms" in given else earlier.sms,
        carriers=bundle.carriers if "carriers" in given else earlier.carriers,
        portals=bundle.portals if "portals" in given else earlier.portals,
    )
    return merged, tuple(_differences(current, merged))


def _empty(bundle: Bundle) -> Site:
    """A site before its first load: nothing but the defaults."""
    return Site(
        site=bundle.site,
        agencies=(),
        procedures=(),
        calendars=(),
        default_calendar=default_calendar(bundle.site.code),
        providers=DEFAULT_PROVIDERS,
        notices=DEFAULT_NOTICES,
        templates=(),
        quiet_hours=DEFAULT_QUIET_HOURS,
        sms=DEFAULT_SMS,
        carriers=DEFAULT_CARRIERS,
        portals=(),
    )


def _upsert(earlier: Iterable[M], given: Iterable[M], identity: Callable[[M], Any]) -> tuple[M, ...]:
    merged = {identity(entry): entry for entry in earlier}
    merged.update((identity(entry), entry) for entry in given)
    return tuple(merged[key] for key in sorted(merged))


# ------------------------------------------------------------------------------------------------ difference


def _differences(current: Site | None, merged: Site) -> Iterator[Difference]:
    before = current
    if before is None or before.site != merged.site:
        yield _changed("site", merged.site.code, before.site if before else None, merged.site)
    yield from _entries("agency", before.agencies if before else (), merged.agencies, lambda e: e.code)
    yield from _entries("procedure", before.procedures if before else (), merged.procedures, lambda e: e.code)
    yield from _entries("calendar", before.calendars if before else (), merged.calendars, _calendar_id)
    yield from _entries(
        "template",
        before.templates if before else (),
        merged.templates,
        lambda e: f"{e.name} version {e.version} {e.lang}",
    )
    replaced: tuple[Kind, ...] = ("providers", "notices", "quiet_hours", "sms", "carriers", "portals")
    for kind in replaced:
        old, new = getattr(before, kind) if before else None, getattr(merged, kind)
        if before is None or old != new:
            yield Difference(kind, kind, _shown(kind, old) if before else None, _shown(kind, new))


def _calendar_id(calendar: Calendar) -> str:
    return f"{calendar.agency} version {calendar.version}"


def _entries(kind: Kind, before: Sequence[M], after: Sequence[M], identity: Callable[[M], str]) -> Iterator[Difference]:
    earlier = {identity(entry): entry for entry in before}
    for entry in after:
        old = earlier.get(identity(entry))
        if old is None or old != entry:
            yield _changed(kind, identity(entry), old, entry)


def _changed(kind: Kind, identity: str, before: BaseModel | None, after: BaseModel) -> Difference:
    new = after.model_dump(mode="json", exclude=set(_FROZEN_DAYS))
    if before is None:
        return Difference(kind, identity, None, new)
    old = before.model_dump(mode="json", exclude=set(_FROZEN_DAYS))
    differing = [name for name in new if old[name] != new[name]]
    return Difference(kind, identity, {name: old[name] for name in differing}, {name: new[name] for name in differing})


def _shown(kind: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {kind: None}
    if isinstance(value, BaseModel):
        return {kind: value.model_dump(mode="json")}
    return {kind: [_masked(entry) for entry in value]}


def _masked(entry: ProviderEntry | BaseModel) -> dict[str, Any]:
    dumped = entry.model_dump(mode="json", exclude_none=True)
    return {name: "…" if name in _SECRETS else value for name, value in dumped.items()}
