"""The registers behind the articles' cases, made to the articles' counts.

The articles print counts, not dossiers. `write_registers` makes for each case the register that such a desk
would have exported: import lines for `POST /v1/imports` in mode history, invented dossier by dossier, whose
indicators over the case's period are exactly the printed counts. What an article does not print (which
procedures, which days) is invented too. The same seed makes the same bytes.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

from deploy.demo.cases import Case, load_cases
from deploy.demo.names import business_name, person_name
from deploy.demo.sample import load_sample
from shared.clock.calendar import TZ, Calendar, instant_at, point
from shared.clock.deadline import Limit, first_due
from shared.directory.bundle import LimitEntry, ProcedureEntry
from shared.directory.directory import Directory

SEED = 20250701

Outcome = str
EARLY, ON_TIME, PENDING = "early", "on_time", "pending"


@dataclass(frozen=True, slots=True)
class Register:
    """One case's import file: NDJSON, plain UTF-8, dossier after dossier in the order of receipt."""

    case: str
    path: Path
    agency: str  # of the one-stop desk whose register it is
    from_: date
    to: date
    dossiers: int
    lines: int


class Shape(NamedTuple):
    """What one case's register holds: the article's counts, and our choice where the article is silent."""

    received: int
    early: int
    pending: int  # open at the end of the period, within the limit; resolved in time after it
    online: int
    procedures: Mapping[str, int]  # code → weight
    # Dossiers that list components, and those of them with a digitised one; none listed: no line says so.
    listed: int = 0
    digitised: int = 0
    returned: bool = True  # the register says when the result was handed over
    rated: float = 0.0  # share of the returned dossiers that were rated, all of them satisfied
    old_code: str | None = None  # prefix of the old system's codes, kept
    deciding: str | None = None


CIVIL_STATUS = {"1.001193": 20, "1.000894": 8, "1.000656": 7, "2.000635": 8}
CERTIFICATION = {"2.000815": 40, "2.000884": 14, "2.000908": 2, "2.000942": 2}
LONGER_CIVIL_STATUS = {"1.004873": 16, "1.004884": 3, "1.004837": 2, "1.004859": 6}
SOCIAL = {"1.001699": 3, "1.001776": 6, "1.001731": 3, "1.001821": 2}
HOUSEHOLD_BUSINESS = {"1.001612": 14, "2.000720": 6, "1.001266": 3}
LAND = {"2.000889": 55, "1.004199": 20, "1.004203": 8, "1.004227": 17}

SHAPES: Mapping[str, Shape] = {
    "phu-tien-2024Q3": Shape(
        received=303, early=140, pending=0, online=118,
        procedures=CIVIL_STATUS | CERTIFICATION | LONGER_CIVIL_STATUS | SOCIAL,
        listed=299, digitised=255, rated=0.4,
    ),
    "kien-xuong-2018Q1": Shape(
        received=1932, early=823, pending=187, online=0,
        procedures=LAND | HOUSEHOLD_BUSINESS | CERTIFICATION | {"1.001776": 10, "1.001699": 5},
        old_code="000.00.33.H54",
    ),
    "thai-nguyen-city-2020": Shape(
        received=12050, early=5210, pending=164, online=2904,
        procedures=HOUSEHOLD_BUSINESS | CERTIFICATION | LONGER_CIVIL_STATUS | {"1.001776": 5, "2.000635": 9},
        returned=False,
    ),
    "tan-long-2019": Shape(
        received=4512, early=1267, pending=19, online=431,
        procedures=CIVIL_STATUS | CERTIFICATION | LONGER_CIVIL_STATUS | SOCIAL,
        rated=0.25,
    ),
    "pho-yen-land-2019": Shape(
        received=15000, early=8904, pending=322, online=0,
        procedures=LAND,
        returned=False, deciding="H55.24.5",
    ),
}  # fmt: skip

MINUTE = 60
DAY = 24 * 60 * MINUTE
AT_ONCE = 10 * MINUTE


def write_registers(folder: Path, seed: int = SEED) -> list[Register]:
    """Write `<case>.ndjson` of every case into the folder (made if missing), in the cases' order.

    The due dates that make a dossier early or on time are computed from the sample's limits and calendars, as
    intake computes them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sample = load_sample()
    return [_write(case, SHAPES[case.id], folder, sample, seed) for case in load_cases()]


def _write(case: Case, shape: Shape, folder: Path, sample: Directory, seed: int) -> Register:
    rng = random.Random(f"{seed} {case.id}")  # noqa: S311 - invented dossiers, not secrets
    desk = Desk.of(case, sample)
    path = folder / f"{case.id}.ndjson"
    written = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for number, dossier in enumerate(_dossiers(case, shape, desk, sample, rng), start=1):
            for line in _lines(number, dossier, case, shape, desk, rng):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                written += 1
    return Register(case.id, path, case.receiving, case.from_, case.to, shape.received, written)


@dataclass(frozen=True)
class Desk:
    """A one-stop desk's working time in the case's period; instants are local seconds since the year 1."""

    calendar: Calendar
    first: int  # ordinal of the period's first local day
    last: int

    @classmethod
    def of(cls, case: Case, sample: Directory) -> "Desk":
        noon = instant_at(case.from_.toordinal(), 12 * 60)
        return cls(sample.calendar_for(case.receiving, noon), case.from_.toordinal(), case.to.toordinal())

    @cached_property
    def working_days(self) -> Sequence[int]:
        """Ordinals of the period's working days."""
        return self.working_days_between(self.first, self.last + 1)

    def working_days_between(self, start: int, stop: int) -> list[int]:
        """Ordinals of the working days from the one day up to but without the other."""
        return [day for day in range(start, stop) if self.calendar.days[day].shifts]

    def due(self, limit: LimitEntry, received: int) -> int:
        """The second at which the promised result is due."""
        day, second = divmod(received, DAY)
        due = first_due(_limit(limit), instant_at(day, second // MINUTE), self.calendar)
        due_day, minute = point(due)
        return due_day * DAY + minute * MINUTE

    def moment(self, rng: random.Random, day: int, after: int = 0, before: int | None = None) -> int | None:
        """A second of working time on that day, later than `after` and earlier than `before`; None: no such.

        The last minutes of a shift are left free, so that what follows at once is still in it.
        """
        spans = []
        for shift in self.calendar.days[day].shifts:
            start = max(day * DAY + shift.start * MINUTE, after + 1)
            end = day * DAY + shift.end * MINUTE - AT_ONCE
            if before is not None:
                end = min(end, before)
            if start < end:
                spans.append((start, end))
        if not spans:
            return None
        start, end = rng.choices(spans, weights=[end - start for start, end in spans])[0]
        return rng.randrange(start, end)


@cache
def _limit(entry: LimitEntry) -> Limit:
    return Limit.model_validate(entry.model_dump())


@dataclass(slots=True)
class Dossier:
    """One invented dossier: received, and ended as its outcome says."""

    procedure: ProcedureEntry
    outcome: Outcome
    received: int
    due: int
    ended: int
    channel: str = "counter"
    components: list[str] = field(default_factory=list)
    digitised: bool = False


def _dossiers(case: Case, shape: Shape, desk: Desk, sample: Directory, rng: random.Random) -> Sequence[Dossier]:
    """The case's dossiers in the order of receipt."""
    outcomes = [EARLY] * shape.early + [PENDING] * shape.pending
    outcomes += [ON_TIME] * (shape.received - len(outcomes))
    mix = {sample.procedure(code): weight for code, weight in sorted(shape.procedures.items())}
    dossiers = [_dossier(outcome, mix, desk, rng) for outcome in outcomes]
    dossiers.sort(key=lambda dossier: dossier.received)
    _spread_channels(dossiers, shape, rng)
    _spread_components(dossiers, shape, rng)
    return dossiers


def _dossier(outcome: Outcome, mix: Mapping[ProcedureEntry, int], desk: Desk, rng: random.Random) -> Dossier:
    """A dossier of the mix that can end so: a same-day one is never early, nor pending for long."""
    procedures, weights = list(mix), list(mix.values())
    while True:
        procedure = rng.choices(procedures, weights=weights)[0]
        received = desk.moment(rng, _receipt_day(outcome, procedure, desk, rng))
        if received is None:
            continue
        due = desk.due(procedure.limit, received)
        ended = _END[outcome](desk, received, due, rng)
        if ended is not None:
            return Dossier(procedure, outcome, received, due, ended)


def _receipt_day(outcome: Outcome, procedure: ProcedureEntry, desk: Desk, rng: random.Random) -> int:
    if outcome == PENDING:
        reach = int(procedure.limit.value) + 1
        return rng.choice(desk.working_days[-reach:])
    return rng.choice(desk.working_days)


def _early_end(desk: Desk, received: int, due: int, rng: random.Random) -> int | None:
    """An end on a local day before the due day, within the period."""
    days = desk.working_days_between(received // DAY + 1, due // DAY)
    if not days or due // DAY > desk.last:
        return None
    day = rng.choice(days[-3:])
    return desk.moment(rng, day)


def _on_time_end(desk: Desk, received: int, due: int, rng: random.Random) -> int | None:
    """An end on the due day, not after the due instant, within the period."""
    day = due // DAY
    if day > desk.last:
        return None
    return desk.moment(rng, day, after=received + AT_ONCE, before=due)


def _pending_end(desk: Desk, received: int, due: int, rng: random.Random) -> int | None:
    """An end after the period and not after the due instant."""
    days = desk.working_days_between(desk.last + 1, due // DAY + 1)
    if not days:
        return None
    return desk.moment(rng, rng.choice(days), before=due)


_END = {EARLY: _early_end, ON_TIME: _on_time_end, PENDING: _pending_end}


def _spread_channels(dossiers: Sequence[Dossier], shape: Shape, rng: random.Random) -> None:
    open_to_online = [dossier for dossier in dossiers if dossier.procedure.online != "none"]
    for dossier in rng.sample(open_to_online, shape.online):
        dossier.channel = "online"
    for dossier in dossiers:
        if dossier.channel == "counter" and rng.random() < 0.02:
            dossier.channel = "postal"


def _spread_components(dossiers: Sequence[Dossier], shape: Shape, rng: random.Random) -> None:
    listed = rng.sample(range(len(dossiers)), shape.listed)
    for index in sorted(listed):
        dossiers[index].components = [component.name for component in dossiers[index].procedure.components]
    for index in sorted(rng.sample(sorted(listed), shape.digitised)):
        dossiers[index].digitised = True


def _lines(
    number: int, dossier: Dossier, case: Case, shape: Shape, desk: Desk, rng: random.Random
) -> Iterator[dict[str, Any]]:
    """The dossier's import lines, in the order of its acts."""
    ref = f"{number:05d}"
    later_scan = bool(dossier.digitised and rng.random() < 0.4)
    yield _receipt(ref, number, dossier, case, shape, later_scan, rng)
    for op, at, body in _work(dossier, desk, rng, later_scan):
        yield {"op": op, "ref": ref, "at": _at(at), **body}
    yield {"op": "resolution", "ref": ref, "at": _at(dossier.ended), "result": "granted"}
    if shape.returned:
        yield from _hand_over(ref, dossier, shape, rng)


def _receipt(
    ref: str, number: int, dossier: Dossier, case: Case, shape: Shape, later_scan: bool, rng: random.Random
) -> dict[str, Any]:
    line: dict[str, Any] = {
        "op": "receive",
        "ref": ref,
        "at": _at(dossier.received),
        "procedure": dossier.procedure.code,
        "receiving_agency": case.receiving,
        "channel": dossier.channel,
        "applicant": _applicant(dossier.procedure, rng),
        "return_by": "online" if dossier.channel == "online" else "counter",
    }
    if shape.deciding:
        line["deciding_agency"] = shape.deciding
    if shape.old_code:
        line["code"] = f"{shape.old_code}-{date.fromordinal(dossier.received // DAY):%y%m%d}-{number:04d}"
    if dossier.components:
        scanned = dossier.digitised and not later_scan
        line["components"] = [
            {"name": name, "digitised": True, "source": "scan"} if scanned and not place else {"name": name}
            for place, name in enumerate(dossier.components)
        ]
    return line


def _applicant(procedure: ProcedureEntry, rng: random.Random) -> dict[str, str]:
    if procedure.code in HOUSEHOLD_BUSINESS:
        return {"kind": "household", "name": business_name(rng)}
    return {"kind": "citizen", "name": person_name(rng)}


def _work(
    dossier: Dossier, desk: Desk, rng: random.Random, later_scan: bool
) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """What happens between receipt and result: work begins, the paper is scanned, a supplement is asked for.

    A supplement only moves the due date later: a dossier that ends early stays early, so only such get one.
    """
    clock = _soon_after(dossier.received, rng)
    if dossier.components:  # the register that tells most is the latest one
        yield "start", next(clock), {}
        if later_scan:
            yield "digitisation", next(clock), {"component": dossier.components[0]}
    days = desk.working_days_between(dossier.received // DAY + 1, dossier.ended // DAY)
    if dossier.outcome == EARLY and len(days) >= 3 and rng.random() < 0.06:
        asked, brought = desk.moment(rng, days[-2]), desk.moment(rng, days[-1])
        assert asked is not None
        assert brought is not None
        yield "supplement-request", asked, {"reason": "Bổ sung bản sao giấy tờ kèm theo"}
        yield "supplement", brought, {}


def _soon_after(at: int, rng: random.Random) -> Iterator[int]:
    """Instants within the next minutes, each later than the one before."""
    while True:
        at += rng.randrange(MINUTE, 3 * MINUTE)
        yield at


def _hand_over(ref: str, dossier: Dossier, shape: Shape, rng: random.Random) -> Iterator[dict[str, Any]]:
    at = dossier.ended + rng.randrange(MINUTE, AT_ONCE // 2)
    by = "online" if dossier.channel == "online" else "counter"
    yield {"op": "return", "ref": ref, "at": _at(at), "by": by}
    if rng.random() < shape.rated:
        level = rng.choice(["very_satisfied", "satisfied"])
        at += rng.randrange(MINUTE, AT_ONCE // 2)
        yield {"op": "rating", "ref": ref, "at": _at(at), "level": level}


def _at(second: int) -> str:
    day, rest = divmod(second, DAY)
    return (instant_at(day) + timedelta(seconds=rest)).astimezone(TZ).isoformat()
