"""What must be true between the parts of a bundle, and of the whole that it will be merged into.

Every fault has the JSON Pointer of the place to mend, from the bundle's root.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Self, TypeVar

from shared.clock import Calendar, materialise
from shared.directory.bundle import (
    AgencyEntry,
    BudgetEntry,
    Bundle,
    CalendarEntry,
    CarrierEntry,
    NoticeRule,
    PortalEntry,
    ProcedureEntry,
    ProviderEntry,
    SectorTarget,
    Site,
    SiteEntry,
    TemplateEntry,
)
from shared.directory.defaults import DEFAULT_TEMPLATES

E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: where (a JSON Pointer, empty for the whole) and what, in a sentence."""

    pointer: str
    detail: str


class BundleFault(ValueError):
    """A bundle that is refused, with every fault that was found. Nothing of it is applied."""

    def __init__(self, file: str, faults: Iterable[Fault]) -> None:
        self.file = file
        self.faults = tuple(faults)
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """One line for each fault: file, pointer and reason."""
        return [
            f"{self.file}: {fault.pointer}: {fault.detail}" if fault.pointer else f"{self.file}: {fault.detail}"
            for fault in self.faults
        ]


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a bundle by their place in it.

    A part whose shape is wrong is here too, listed in `misshapen` as (section, place), with None for every
    field that cannot be read: its other fields are still checked, and what it calls itself is known.
    """

    site: SiteEntry | None
    agencies: Mapping[int, AgencyEntry]
    procedures: Mapping[int, ProcedureEntry]
    calendars: Mapping[int, CalendarEntry]
    providers: Mapping[int, ProviderEntry]
    notices: Mapping[int, NoticeRule]
    templates: Mapping[int, TemplateEntry]
    carriers: Mapping[int, CarrierEntry]
    portals: Mapping[int, PortalEntry]
    misshapen: frozenset[tuple[str, int]] = frozenset()
    budgets: Mapping[int, BudgetEntry] = field(default_factory=dict)

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """The parts of a bundle whose shape is right."""
        return cls(
            site=bundle.site,
            agencies=dict(enumerate(bundle.agencies)),
            procedures=dict(enumerate(bundle.procedures)),
            calendars=dict(enumerate(bundle.calendars)),
            providers=dict(enumerate(bundle.providers)),
            notices=dict(enumerate(bundle.notices)),
            templates=dict(enumerate(bundle.templates)),
            carriers=dict(enumerate(bundle.carriers)),
            portals=dict(enumerate(bundle.portals)),
            budgets=dict(enumerate(bundle.sms.budgets)),
        )


def find_faults(parts: Parts, current: Site | None) -> list[Fault]:
    """Every fault between the parts of a bundle and the site that it will be merged into."""
    return [
        *_site_faults(parts, current),
        *_agency_faults(parts, current),
        *_procedure_faults(parts, current),
        *_calendar_faults(parts, current),
        *_notice_faults(parts, current),
        *_connection_faults(parts, current),
    ]


# ------------------------------------------------------------------------------------------------- helpers


def _twice(
    entries: Mapping[int, E], identity: Callable[[E], tuple[Hashable, ...]], pointer: str, what: str
) -> Iterator[Fault]:
    seen: set[Hashable] = set()
    for index, entry in entries.items():
        key = identity(entry)
        if None in key:
            continue
        if key in seen:
            yield Fault(pointer.format(index), f"{what} stands twice in this bundle")
        seen.add(key)


def _validity(entry: AgencyEntry | ProcedureEntry | NoticeRule | TemplateEntry, pointer: str) -> Iterator[Fault]:
    if entry.valid_from and entry.valid_to and entry.valid_to < entry.valid_from:
        yield Fault(f"{pointer}/valid_to", "valid_to is before valid_from")


def _known_agencies(parts: Parts, current: Site | None) -> set[str]:
    known = {agency.code for agency in parts.agencies.values()}
    return known | {agency.code for agency in current.agencies} if current else known


# ---------------------------------------------------------------------------------------- site and agencies


def _site_faults(parts: Parts, current: Site | None) -> Iterator[Fault]:
    if parts.site is None:
        return
    if current is not None and parts.site.code != current.site.code:
        yield Fault("/site/code", f"this is the site {current.site.code}; a bundle of another site is refused")
    if parts.site.upper == parts.site.code:
        yield Fault("/site/upper", "a site is not above itself")


def _agency_faults(parts: Parts, current: Site | None) -> Iterator[Fault]:
    known = _known_agencies(parts, current)
    # A lower site names the agency above it before the link has brought that agency down.
    if parts.site is not None and parts.site.upper is not None:
        known.add(parts.site.upper)
    for index, agency in parts.agencies.items():
        at = f"/agencies/{index}"
        for name, code in (("parent", agency.parent), ("successor", agency.successor)):
            if code is not None and code not in known:
                yield Fault(f"{at}/{name}", f"no agency has the code {code}")
        yield from _validity(agency, at)
    yield from _twice(parts.agencies, lambda agency: (agency.code,), "/agencies/{}/code", "this agency")
    merged = {agency.code: agency for agency in current.agencies} if current else {}
    merged.update({agency.code: agency for agency in parts.agencies.values()})
    yield from _cycles(parts, {code: agency.parent for code, agency in merged.items()}, "parent")
    yield from _cycles(parts, {code: agency.successor for code, agency in merged.items()}, "successor")


def _cycles(parts: Parts, follow: Mapping[str, str | None], name: str) -> Iterator[Fault]:
    circling = codes_in_circles(follow)
    for index, agency in parts.agencies.items():
        if agency.code in circling:
            yield Fault(f"/agencies/{index}/{name}", f"following {name} from {agency.code} leads back to it")


def codes_in_circles(follow: Mapping[str, str | None]) -> set[str]:
    """The codes from which following leads back to themselves."""
    circling: set[str] = set()
    done: set[str] = set()
    for start in follow:
        path: dict[str, int] = {}
        code: str | None = start
        while code is not None and code not in path and code not in done:
            path[code] = len(path)
            code = follow.get(code)
        if code in path:
            circling.update(each for each, place in path.items() if place >= path[code])
        done.update(path)
    return circling


# ---------------------------------------------------------------------------------------------- procedures


def _procedure_faults(parts: Parts, current: Site | None) -> Iterator[Fault]:
    known = _known_agencies(parts, current)
    sectors = {agency.sector for agency in parts.agencies.values()}
    if current is not None:
        sectors.update(agency.sector for agency in current.agencies)
    yield from _twice(parts.procedures, lambda each: (each.code,), "/procedures/{}/code", "this procedure")
    for index, procedure in parts.procedures.items():
        yield from _validity(procedure, f"/procedures/{index}")
        for place, step in enumerate(procedure.route):
            at = f"/procedures/{index}/route/{place}"
            match step.to:
                case str() as code if code not in known:
                    yield Fault(f"{at}/to", f"no agency has the code {code}")
                case SectorTarget(sector=sector) if sector not in sectors:
                    yield Fault(f"{at}/to/sector", f"no agency is of the sector {sector}")
            limit = step.limit
            if limit is not None and (limit.value or 0) % 1 and limit.unit in ("days", "months"):
                yield Fault(f"{at}/limit/value", f"halves of {limit.unit} are refused")


# ----------------------------------------------------------------------------------------------- calendars

_DECLARED: Final = tuple(name for name in Calendar.model_fields if name not in ("holidays", "swapped", "swap_years"))


def stored_form(entry: CalendarEntry) -> Calendar:
    """The calendar version as it is stored: with the national days that are known at this moment."""
    given = entry.model_dump(exclude={"agency", "version", "valid_from"}, exclude_none=True)
    return materialise(entry.agency, entry.version, entry.valid_from, **given)


def same_calendar(one: Calendar, other: Calendar) -> bool:
    """Whether two versions say the same, whatever national days were known when they were loaded."""
    return all(getattr(one, name) == getattr(other, name) for name in _DECLARED)


def _calendar_faults(parts: Parts, current: Site | None) -> Iterator[Fault]:
    known = _known_agencies(parts, current)
    loaded = {(each.agency, each.version): each for each in current.calendars} if current else {}
    yield from _twice(
        parts.calendars,
        lambda entry: (entry.agency, entry.version),
        "/calendars/{}/version",
        "this version of this agency's calendar",
    )
    for index, entry in parts.calendars.items():
        at = f"/calendars/{index}"
        if entry.agency is not None and entry.agency not in known:
            yield Fault(f"{at}/agency", f"no agency has the code {entry.agency}")
        if ("calendars", index) in parts.misshapen:
            continue
        stored = stored_form(entry)
        if not any(texts for day, texts in stored.shifts.items() if day not in stored.receipt_only):
            yield Fault(f"{at}/shifts", "no weekday of this calendar has working time")
        earlier = loaded.get((entry.agency, entry.version))
        if earlier is not None and not same_calendar(earlier, stored):
            yield Fault(
                f"{at}/version",
                f"version {entry.version} of {entry.agency} is already loaded with other content; "
                "a change needs a new version",
            )


# ------------------------------------------------------------------------------------------ told and linked


def _notice_faults(parts: Parts, current: Site | None) -> Iterator[Fault]:
    known = {template.name for template in DEFAULT_TEMPLATES}
    known.update(template.name for template in parts.templates.values())
    if current is not None:
        known.update(template.name for template in current.templates)
    agencies = _known_agencies(parts, current)
    procedures = {procedure.code for procedure in parts.procedures.values()}
    if current is not None:
        procedures.update(procedure.code for procedure in current.procedures)
    for index, rule in parts.notices.items():
        at = f"/notices/{index}"
        if rule.template is not None and rule.template not in known:
            yield Fault(f"{at}/template", f"no template has the name {rule.template}")
        if rule.agency is not None and rule.agency not in agencies:
            yield Fault(f"{at}/agency", f"no agency has the code {rule.agency}")
        if rule.procedure is not None and rule.procedure not in procedures:
            yield Fault(f"{at}/procedure", f"no procedure has the code {rule.procedure}")
        yield from _validity(rule, at)
    for index, template in parts.templates.items():
        yield from _validity(template, f"/templates/{index}")
    yield from _twice(parts.notices, _rule_identity, "/notices/{}/act", "this act")
    yield from _twice(
        parts.templates,
        lambda template: (template.name, template.version, template.lang),
        "/templates/{}/version",
        "this version of this template in this language",
    )


def _rule_identity(rule: NoticeRule) -> tuple[Hashable, ...]:
    """None stands for a field that cannot be read, so what a rule leaves out is said otherwise."""
    narrowed = (rule.agency, rule.procedure, rule.return_by, rule.channel, rule.valid_from)
    return (rule.act, rule.to, *("any" if each is None else each for each in narrowed))


def _connection_faults(parts: Parts, current: Site | None) -> Iterator[Fault]:
    known = _known_agencies(parts, current)
    sections: tuple[tuple[str, Mapping[int, ProviderEntry | CarrierEntry | PortalEntry]], ...] = (
        ("providers", dict(parts.providers)),
        ("carriers", dict(parts.carriers)),
        ("portals", dict(parts.portals)),
    )
    for section, entries in sections:
        yield from _twice(entries, lambda entry: (entry.name,), f"/{section}/{{}}/name", "this name")
    for index, carrier in parts.carriers.items():
        if carrier.agency is not None and carrier.agency not in known:
            yield Fault(f"/carriers/{index}/agency", f"no agency has the code {carrier.agency}")
    for section, entry_places in sections[:2]:
        for index, entry in entry_places.items():
            if isinstance(entry, PortalEntry) or (section, index) in parts.misshapen:
                continue
            if entry.kind != "file" and entry.url is None:
                yield Fault(f"/{section}/{index}/url", f"one of kind {entry.kind} needs a url")
    if parts.budgets:
        agencies = _known_agencies(parts, current)
        for index, budget in parts.budgets.items():
            if budget.agency not in agencies:
                yield Fault(f"/sms/budgets/{index}/agency", f"no agency has the code {budget.agency}")
        yield from _twice(parts.budgets, lambda each: (each.agency,), "/sms/budgets/{}/agency", "this agency")
    for index, portal in parts.portals.items():
        if portal.unit is not None and portal.unit not in known:
            yield Fault(f"/portals/{index}/unit", f"no agency has the code {portal.unit}")
