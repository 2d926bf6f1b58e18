"""The directory of a site: who is valid when, who stands above whom, who takes over, who is meant.

Unchangeable; a load makes a new one. Codes are taken in both forms. Errors

    DirectoryError (LookupError)   `reason` is a stable code
    ├── UnknownAgency              unknown-agency
    ├── UnknownProcedure           unknown-procedure
    ├── UnknownCalendar            unknown-calendar
    ├── UnknownTemplate            unknown-template
    └── NoTarget                   no-target: nobody is there who could take the transfer
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar, Literal

from shared.clock import Calendar
from shared.clock import calendar_for as version_for
from shared.contracts.codes import normalise_agency
from shared.contracts.events import ToLevel, ToSector
from shared.directory.bundle import (
    AgencyEntry,
    BudgetEntry,
    CarrierEntry,
    Language,
    LevelTarget,
    NoticeRule,
    PortalEntry,
    ProcedureEntry,
    ProviderEntry,
    QuietHours,
    SectorTarget,
    Site,
    SmsSettings,
    TemplateEntry,
    valid_on,
)
from shared.directory.defaults import DEFAULT_TEMPLATES

Destination = str | LevelTarget | SectorTarget | ToLevel | ToSector
"""Whom a step goes to, as a bundle or an event says it."""


class DirectoryError(LookupError):
    """What the directory cannot answer."""

    reason: ClassVar[str] = "unknown"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class UnknownAgency(DirectoryError):
    """No agency has this code."""

    reason = "unknown-agency"


class UnknownProcedure(DirectoryError):
    """No procedure has this code."""

    reason = "unknown-procedure"


class UnknownCalendar(DirectoryError):
    """The agency has no calendar of this version."""

    reason = "unknown-calendar"


class UnknownTemplate(DirectoryError):
    """No template has this name."""

    reason = "unknown-template"


class NoTarget(DirectoryError):
    """No agency that is valid on the day can take the transfer."""

    reason = "no-target"


class Directory:
    """A site's agencies, procedures, calendars and texts, and the questions that services ask of them."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.agencies: Mapping[str, AgencyEntry] = MappingProxyType({agency.code: agency for agency in site.agencies})
        self.procedures: Mapping[str, ProcedureEntry] = MappingProxyType(
            {procedure.code: procedure for procedure in site.procedures}
        )
        self._children: dict[str, list[str]] = {}
        self._succeeded: dict[str, list[str]] = {}
        for agency in site.agencies:
            if agency.parent is not None:
                self._children.setdefault(agency.parent, []).append(agency.code)
            if agency.successor is not None:
                self._succeeded.setdefault(agency.successor, []).append(agency.code)
        calendars: dict[str, list[Calendar]] = {}
        for calendar in site.calendars:
            calendars.setdefault(calendar.agency, []).append(calendar)
        self._calendars = {agency: tuple(versions) for agency, versions in calendars.items()}
        self._calendars_of: dict[str, tuple[Calendar, ...]] = {}  # what was asked for, by agency
        self._templates: dict[tuple[str, str], list[TemplateEntry]] = {}  # the highest version first
        for template in sorted((*DEFAULT_TEMPLATES, *site.templates), key=lambda each: -each.version):
            self._templates.setdefault((template.name, template.lang), []).append(template)

    # --------------------------------------------------------------------------------------- the site itself

    @property
    def site(self) -> Site:
        """What the directory was made from."""
        return self._site

    @property
    def site_code(self) -> str:
        return self._site.site.code

    @property
    def site_name(self) -> str:
        return self._site.site.name

    @property
    def upper(self) -> str | None:
        """The code of the site above this one."""
        return self._site.site.upper

    @property
    def providers(self) -> tuple[ProviderEntry, ...]:
        """The SMS gateways, in the order in which they are tried."""
        return self._site.providers

    @property
    def carriers(self) -> tuple[CarrierEntry, ...]:
        return self._site.carriers

    @property
    def portals(self) -> tuple[PortalEntry, ...]:
        return self._site.portals

    @property
    def notices(self) -> tuple[NoticeRule, ...]:
        return self._site.notices

    @property
    def quiet_hours(self) -> QuietHours | None:
        return self._site.quiet_hours

    @property
    def sms(self) -> SmsSettings:
        return self._site.sms

    # ---------------------------------------------------------------------------------------------- agencies

    def agency(self, code: str) -> AgencyEntry:
        """The agency with this code, in either form. Raises UnknownAgency, also for what is no code."""
        found = self.agencies.get(code)
        if found is None:
            try:
                found = self.agencies.get(normalise_agency(code))
            except ValueError:
                found = None
        if found is None:
            raise UnknownAgency("no agency has this code")
        return found

    def valid_on(self, agency: str, day: date) -> bool:
        """Whether the agency exists on that local day, both ends of its validity inside."""
        return valid_on(self.agency(agency), day)

    def site_of(self, agency: str) -> str:
        """The site on which an agency works: its own, or this one when it has none."""
        return self.agency(agency).site or self.site_code

    def works_here(self, agency: str) -> bool:
        return self.site_of(agency) == self.site_code

    def successor_of(self, code: str, day: date) -> str:
        """The agency itself when it is valid that day, else the first of its successors that is.

        Raises NoTarget when the chain ends before, so that nothing is sent to an agency that has closed.
        """
        agency = self.agency(code)
        while not valid_on(agency, day):
            if agency.successor is None or agency.successor not in self.agencies:
                raise NoTarget(f"{agency.code} is not valid on {day:%Y-%m-%d} and nobody succeeds it")
            agency = self.agencies[agency.successor]
        return agency.code

    def ancestors(self, code: str) -> tuple[str, ...]:
        """The agencies above this one by `parent`, the nearest first, without itself."""
        above: list[str] = []
        agency = self.agency(code)
        while agency.parent is not None and agency.parent in self.agencies:
            agency = self.agencies[agency.parent]
            above.append(agency.code)
        return tuple(above)

    def subtree(self, code: str) -> frozenset[str]:
        """The agency and all below it by `parent`. A successor does not inherit figures."""
        return self._closure(self.agency(code).code, self._children)

    def scope(self, code: str, subtree: bool = False) -> frozenset[str]:
        """What a token for this agency reaches: it and what it succeeds, with `subtree` also those below."""
        if not subtree:
            return self._closure(self.agency(code).code, self._succeeded)
        return self._closure(self.agency(code).code, self._succeeded, self._children)

    def _closure(self, start: str, *edges: Mapping[str, list[str]]) -> frozenset[str]:
        found = {start}
        left = [start]
        while left:
            code = left.pop()
            for edge in edges:
                for neighbour in edge.get(code, ()):
                    if neighbour not in found:
                        found.add(neighbour)
                        left.append(neighbour)
        return frozenset(found)

    def resolve_target(self, to: Destination, receiving_agency: str, day: date) -> str:
        """The agency that a step is sent to, asked for on that local day.

        A level: the nearest agency of that level from the receiving one upwards. A sector: the agency of that
        sector under the nearest one upwards that has any; of several the highest, then the first by code. A
        closed agency's place is taken by its successor. Raises NoTarget when nobody is there, UnknownAgency.
        """
        match to:
            case str() as code:
                return self.successor_of(code, day)
            case LevelTarget(level=level) | ToLevel(level=level):
                return self._of_level(level, receiving_agency, day)
            case SectorTarget(sector=sector) | ToSector(sector=sector):
                return self._of_sector(sector, receiving_agency, day)

    def _upwards(self, code: str) -> tuple[str, ...]:
        return (self.agency(code).code, *self.ancestors(code))

    def _of_level(self, level: str, receiving_agency: str, day: date) -> str:
        for code in self._upwards(receiving_agency):
            if self.agencies[code].level == level:
                return self.successor_of(code, day)
        raise NoTarget(f"nothing above {receiving_agency} is of level {level}")

    def _of_sector(self, sector: str, receiving_agency: str, day: date) -> str:
        for above in self._upwards(receiving_agency):
            candidates = sorted(
                (len(self.ancestors(code)), code)
                for code in self.subtree(above)
                if self.agencies[code].sector == sector
            )
            valid = [code for _, code in candidates if valid_on(self.agencies[code], day)]
            if valid:
                return valid[0]
            for _, code in candidates:
                try:
                    return self.successor_of(code, day)
                except NoTarget:
                    continue
        raise NoTarget(f"nothing above {receiving_agency} has an agency of the sector {sector}")

    # -------------------------------------------------------------------------------------------- procedures

    def procedure(self, code: str) -> ProcedureEntry:
        """The procedure with this code, whether in force or not. Raises UnknownProcedure."""
        found = self.procedures.get(code)
        if found is None:
            raise UnknownProcedure("no procedure has this code")
        return found

    def procedure_on(self, code: str, day: date) -> ProcedureEntry | None:
        """The procedure when it is in force on that local day, else None. Raises UnknownProcedure."""
        procedure = self.procedure(code)
        return procedure if valid_on(procedure, day) else None

    # --------------------------------------------------------------------------------------------- calendars

    def calendars(self, agency: str) -> tuple[Calendar, ...]:
        """The versions of the agency's calendar, or of its nearest ancestor that has one, else the default."""
        if (known := self._calendars_of.get(agency)) is None:
            above = (self._calendars[code] for code in self._upwards(agency) if code in self._calendars)
            known = self._calendars_of[agency] = next(above, (self._site.default_calendar,))
        return known

    def calendar_for(self, agency: str, received_at: datetime) -> Calendar:
        """The calendar version, for life, of a dossier that this agency receives at that instant."""
        return version_for(self.calendars(agency), received_at)

    def calendar(self, agency: str, version: int) -> Calendar:
        """One version, by the agency that it was made for or by one that uses it. Raises UnknownCalendar."""
        default = self._site.default_calendar
        if version == default.version:
            return default
        for calendar in self.calendars(agency):
            if calendar.version == version:
                return calendar
        raise UnknownCalendar(f"no calendar of {agency} has version {version}")

    # ------------------------------------------------------------------------------------------------ notices

    def template(self, name: str, lang: Language = "vi", day: date | None = None) -> TemplateEntry:
        """The highest version of a text that is in force on that local day (None: any), in that language, else in
        Vietnamese. Raises UnknownTemplate."""
        for language in (lang, "vi"):
            for template in self._templates.get((name, language), ()):
                if day is None or valid_on(template, day):
                    return template
        raise UnknownTemplate(f"no template has the name {name}")

    @cached_property
    def _rules(self) -> Mapping[str, tuple[NoticeRule, ...]]:
        rules: dict[str, tuple[NoticeRule, ...]] = {}
        for rule in self.notices:
            rules[rule.act] = (*rules.get(rule.act, ()), rule)
        return rules

    def carrier_for(self, agency: str, kind: Literal["collect", "deliver"]) -> CarrierEntry | None:
        """Who fetches or brings for an agency."""
        return next(iter(self.carriers_for(agency, kind)), None)

    def carriers_for(self, agency: str, kind: Literal["collect", "deliver"]) -> list[CarrierEntry]:
        """The carriers that do it for an agency, the nearest to it first, equals as they are listed."""
        fitting = [
            (distance, place, carrier)
            for place, carrier in enumerate(self.carriers)
            if kind in carrier.kinds and (distance := self._distance(agency, carrier.agency)) is not None
        ]
        return [carrier for *_, carrier in sorted(fitting, key=lambda each: each[:2])]

    def notice_for(
        self, act: str, *, agency: str, procedure: str, return_by: str, day: date, channel: str | None = None
    ) -> NoticeRule | None:
        """Who is told of an act of that local day, and how; None: nobody is.

        Of the rules that fit, the one for the procedure, then for the nearest agency, then for the way of returning, then for
        the channel, then the one that came into force last.
        """
        fitting = [
            (
                (rule.procedure is not None, -distance, rule.return_by is not None, rule.channel is not None),
                rule.valid_from or date.min,
                rule,
            )
            for rule in self._rules.get(act, ())
            if rule.procedure in (None, procedure)
            and rule.return_by in (None, return_by)
            and rule.channel in (None, channel)
            and valid_on(rule, day)
            and (distance := self._distance(agency, rule.agency)) is not None
        ]
        if not fitting:
            return None
        rule = max(fitting, key=lambda each: each[:2])[2]
        return rule if rule.enabled else None

    def _distance(self, agency: str, above: str | None) -> int | None:
        """How far above the agency the other one stands; None when it does not."""
        if above is None:
            return 1_000
        line = (agency, *self.ancestors(agency)) if agency in self.agencies else (agency,)
        return line.index(above) if above in line else None

    def budgets_of(self, agency: str) -> tuple[BudgetEntry, ...]:
        """The daily budgets that an SMS of this agency is paid from: its own and those of the agencies above it."""
        if not self.sms.budgets:
            return ()
        line = {agency, *(self.ancestors(agency) if agency in self.agencies else ())}
        return tuple(budget for budget in self.sms.budgets if budget.agency in line)
