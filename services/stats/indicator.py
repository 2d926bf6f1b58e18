"""How a dossier counts: from its acts to what it is at any instant, and to what was known of it at any instant. Pure.

Two times run through everything. `happened` is when an act took place, `recorded` when it was stored. A dossier's acts
make *segments* over the first: from when to when it was pending, ended or refused, with what its figures need. What is
recorded later changes the segments, and a *rectangle* is one segment together with the time in which it was known.

    as_of ──▶ sees the acts that happened up to it       valid_from <= as_of < valid_to
    known_at ─▶ sees the acts that were recorded up to it  known_from <= known_at < known_to

Facts that move no figure (the start of work, the return of the result, notices of time) make no segment. Instants are
whole microseconds since 1970 (UTC), `None` standing for one that never comes.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, Literal, NamedTuple, TypeVar

from shared.contracts.codes import LOCAL_ZONE

Micros = int
Phase = Literal["pending", "ended", "refused"]
Outcome = Literal["early", "on_time", "late"]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
DAY: Final = 86_400_000_000
# Việt Nam has kept +07:00 without summer time since 1975; a local day is then whole-number arithmetic.
_LOCAL: Final = 7 * 3_600_000_000


def micros(instant: Any) -> Micros:
    """An aware datetime, or RFC 3339 text with an offset, as microseconds since 1970."""
    if isinstance(instant, str):
        return _micros_of_text(instant)
    count: int = (instant - EPOCH) // MICROSECOND
    return count


@lru_cache(maxsize=4096)  # a dossier's events repeat its due instant
def _micros_of_text(instant: str) -> Micros:
    return (datetime.fromisoformat(instant) - EPOCH) // MICROSECOND


def instant_of(value: Micros) -> datetime:
    return EPOCH + timedelta(microseconds=value)


# ------------------------------------------------------------------------------------------------------------- acts


class Act(NamedTuple):
    """An act that moves figures. `undone`: recorded time of the correction after which it never happened.

    `due` and `paused` are the clock after the act; `more` holds what only some kinds have.
    """

    kind: str
    id: str
    happened: Micros
    recorded: Micros
    undone: Micros | None
    due: Micros | None
    paused: bool
    more: dict[str, Any]


# Moves and facts after which the clock and the figures are as before leave nothing to remember: a withdrawal request
# neither stops the clock nor lets it go on, and returning the result ends what has ended.
_KEPT: Final = {
    f"dossier.{kind}": kind
    for kind in (
        *("submitted", "received", "refused", "supplement-requested", "supplemented", "payment-requested", "paid"),
        *("withdrawn", "stopped", "extended", "rescheduled", "digitised", "resolved", "rated"),
    )
}


def _receipt(data: Mapping[str, Any]) -> dict[str, Any]:
    listed = digitised = reused = population = False
    for component in data.get("components") or ():
        said = component if isinstance(component, dict) else component.__dict__
        listed = True
        digitised = digitised or bool(said.get("digitised"))
        reused = reused or bool(said.get("reused"))
        population = population or said.get("source") == "population"
    return {
        "deciding": data["deciding_agency"],
        "procedure": data["procedure"],
        "field": data["field"],
        "channel": data["channel"],
        "listed": listed,
        "digitised": digitised,
        "reused": reused,
        "population": population,
        "with_fee": bool(data.get("fee")),
    }


_MORE: Final[dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]]] = {
    "dossier.submitted": _receipt,
    "dossier.received": _receipt,
    "dossier.resolved": lambda data: {"electronic": bool(data.get("electronic"))},
    "dossier.paid": lambda data: {"online": data["method"] == "online", "moves": data["previous"] != data["state"]},
    "dossier.rated": lambda data: {
        "content": data["level"] in ("very_satisfied", "satisfied"),
        "complained": bool(data.get("complained")),
    },
}


class Event(NamedTuple):
    """An event of a dossier, as far as figures need it. `data` is the JSON object, or the fields of the model."""

    type: str
    id: str
    happened: Micros
    recorded: Micros
    mode: str
    data: Mapping[str, Any]


def act_of(event: Event) -> Act | None:
    """The act of an event; None when it moves no figure."""
    kind, data = _KEPT.get(event.type), event.data
    if kind is None:
        return None
    due, more = data["due_at"], _MORE.get(event.type)
    return Act(
        kind,
        event.id,
        event.happened,
        event.recorded,
        None,
        None if due is None else micros(due),
        data["paused"],
        {} if more is None else more(data),
    )


# --------------------------------------------------------------------------------------------------------- segments


class Segment(NamedTuple):
    """What a dossier is from `valid_from` until before `valid_to` (None: until further notice).

    `ended_at` is the instant of the end or of the refusal. An ended one has its outcome and `elapsed`, the microseconds
    from receipt to the end less every pause; both are judged at the instant the clock stopped, if it stood still.
    """

    valid_from: Micros
    valid_to: Micros | None
    deciding: str
    procedure: str
    field: str
    channel: str
    phase: Phase
    received_at: Micros | None
    due_at: Micros | None
    paused: bool = False
    pause_late: bool = False
    ended_at: Micros | None = None
    outcome: Outcome | None = None
    elapsed: int | None = None
    listed: bool = False
    digitised: bool = False
    reused: bool = False
    population: bool = False
    electronic: bool = False
    with_fee: bool = False
    paid_online: bool = False
    repeated: bool = False


_happened: Final = itemgetter(Act._fields.index("happened"))


def outcome_of(judged: Micros, due: Micros | None) -> Outcome:
    """early: on a local day before the due day; on time: not after the due instant; else late."""
    if due is None or judged <= due:
        return "early" if due is not None and (judged + _LOCAL) // DAY < (due + _LOCAL) // DAY else "on_time"
    return "late"


class _Fold:
    """A dossier while its acts are gone through in the order in which they happened.

    `made`: the segments so far, apart, in order, the last one open. `last`: when the last act happened.
    """

    def __init__(self, acts: Iterable[Act] = ()) -> None:
        self.made: list[Segment] = []
        self.last: Micros | None = None
        self.phase: Phase | None = None
        self.dims = ("", "", "", "")  # deciding, procedure, field, channel
        self.received_at: Micros | None = None
        self.due: Micros | None = None
        self.paused = False
        self.pause_began: Micros = 0
        self.pauses = 0
        self.ended_at: Micros | None = None
        self.outcome: Outcome | None = None
        self.elapsed: int | None = None
        self.flags = (False, False, False, False, False)  # listed, digitised, reused, population, with_fee
        self.digitised_since = False
        self.electronic = self.paid_online = False
        self.requests = 0
        for act in sorted((a for a in acts if a.undone is None), key=_happened):
            self.take(act)

    def take(self, act: Act) -> None:
        """Goes on by an act that happened no earlier than the last one."""
        self._apply(act)
        self.last = act.happened
        made, now = self.made, self._segment(act.happened)
        last = made[-1] if made else None
        if now is None or (last is not None and now[2:] == last[2:]):
            return
        if last is not None:
            made.pop()
            if last.valid_from < now.valid_from:
                made.append(last._replace(valid_to=now.valid_from))
            elif made and now[2:] == made[-1][2:]:
                now = made.pop()._replace(valid_to=None)
        made.append(now)

    def _apply(self, act: Act) -> None:
        kind, more = act.kind, act.more
        if kind in ("submitted", "received"):
            self.dims = (more["deciding"], more["procedure"], more["field"], more["channel"])
            self.flags = (more["listed"], more["digitised"], more["reused"], more["population"], more["with_fee"])
            if kind == "received":
                self.phase, self.received_at, self.due, self.paused = "pending", act.happened, act.due, act.paused
                self.pause_began, self.pauses = act.happened, 0
        elif kind == "digitised":
            self.digitised_since = True
        elif kind == "refused":
            self.phase, self.ended_at = "refused", act.happened
        elif kind in ("supplement-requested", "payment-requested"):
            self.requests += kind == "supplement-requested"
            if act.paused and not self.paused:
                self.paused, self.pause_began = True, act.happened
        elif kind in ("supplemented", "paid"):
            self.paid_online |= more.get("online", False)
            if more.get("moves", True):
                if self.paused and not act.paused:
                    self.pauses += act.happened - self.pause_began
                    self.paused = False
                self.due = act.due
        elif kind in ("extended", "rescheduled"):
            self.due = act.due
        elif kind in ("resolved", "stopped", "withdrawn") and self.phase == "pending":
            assert self.received_at is not None
            judged = self.pause_began if self.paused else act.happened
            self.phase, self.ended_at = "ended", act.happened
            self.outcome = outcome_of(judged, self.due)
            self.elapsed = judged - self.received_at - self.pauses
            self.paused = False
            self.electronic = more.get("electronic", False)

    def _segment(self, valid_from: Micros) -> Segment | None:
        """How it stands from this instant on; None while it counts nowhere."""
        if self.phase is None:
            return None
        listed, digitised, reused, population, with_fee = self.flags
        return Segment(
            valid_from,
            None,
            *self.dims,
            self.phase,
            self.received_at,
            self.due,
            self.paused,
            self.paused and self.due is not None and self.pause_began > self.due,
            self.ended_at,
            self.outcome,
            self.elapsed,
            listed or self.digitised_since,
            digitised or self.digitised_since,
            reused,
            population,
            self.electronic,
            with_fee,
            self.paid_online,
            self.requests > 1,
        )


def segments(acts: Iterable[Act]) -> list[Segment]:
    """The segments that the acts make, those undone left out; apart, in order, the last one open."""
    return _Fold(acts).made


def standing(made: Sequence[Segment], judged: Micros) -> Segment | None:
    """The segment that holds at an instant."""
    for segment in reversed(made):
        if segment.valid_from <= judged:
            return segment if segment.valid_to is None or judged < segment.valid_to else None
    return None


def known_up_to(acts: Iterable[Act], known: Micros) -> list[Act]:
    """The acts as they were known at an instant."""
    return [
        act._replace(undone=None) if act.undone is not None and act.undone > known else act
        for act in acts
        if act.recorded <= known
    ]


# ------------------------------------------------------------------------------------------------------- rectangles


class Opened(NamedTuple):
    """A rectangle to be written: a segment, known from an instant until before another (None: to this day)."""

    segment: Segment
    known_from: Micros
    known_to: Micros | None


Known = TypeVar("Known")


def _while_known(
    times: Iterable[Micros], known_at: Callable[[Micros], Sequence[Known]]
) -> list[tuple[Known, Micros, Micros | None]]:
    """What was known from when until when, asked at each instant at which something was recorded."""
    done: list[tuple[Known, Micros, Micros | None]] = []
    current: dict[Known, Micros] = {}
    for at in sorted(times):
        now = known_at(at)
        gone = [known for known in current if known not in now]
        done += [(known, current.pop(known), at) for known in gone]
        for known in now:
            current.setdefault(known, at)
    return [*done, *((known, since, None) for known, since in current.items())]


def rectangles(acts: Sequence[Act]) -> list[Opened]:
    """All rectangles that a dossier's acts make, from the first to be known."""
    times = {act.recorded for act in acts} | {act.undone for act in acts if act.undone is not None}
    return [Opened(*known) for known in _while_known(times, lambda at: segments(known_up_to(acts, at)))]


class Contradiction(Exception):
    """An event that the state we hold does not allow."""


@dataclass(slots=True)
class Dossier:
    """A dossier as its events left it: `state` is the portal's, None before the first event."""

    code: str
    topic: str
    agency: str = ""
    procedure: str = ""
    field: str = ""
    channel: str = "counter"
    state: int | None = None
    confidential: bool = False
    began: Micros = 0
    acts: list[Act] = dataclasses.field(default_factory=list)


class Counted(NamedTuple):
    """An extension or a rating, which count by themselves, with the dossier's dimensions at that time."""

    act: Act
    deciding: str
    procedure: str
    field: str


class Revision(NamedTuple):
    """Acts that were recorded after they happened, or taken back: what they may have changed before `recorded`."""

    since: Micros
    recorded: Micros
    event: Event
    before: tuple[Act, ...]
    after: tuple[Act, ...]


@dataclass(slots=True)
class Changes:
    """What events change of a dossier's figures, to be written.

    `closed` names stored rectangles by `valid_from`, with the instant from which they are no longer known so.
    `anew`: `opened` are all the dossier's rectangles, in place of those that are stored. `ended`: by whom and when what is
    changed had been decided.
    """

    anew: bool = False

    opened: list[Opened] = dataclasses.field(default_factory=list)
    closed: list[tuple[Micros, Micros]] = dataclasses.field(default_factory=list)
    extensions: list[Counted] = dataclasses.field(default_factory=list)
    ratings: list[Counted] = dataclasses.field(default_factory=list)
    undone: list[tuple[str, Micros]] = dataclasses.field(default_factory=list)
    revisions: list[Revision] = dataclasses.field(default_factory=list)
    ended: set[tuple[str, Micros]] = dataclasses.field(default_factory=set)


FEW: Final = 9  # segments that are looked for one by one: to hash one costs as much as to compare some


class Progress:
    """Takes a dossier's events one after the other and gathers what they change.

    Acts that were recorded at one instant change the rectangles together: nobody has known the ones in between.
    """

    def __init__(self, dossier: Dossier, *, revisions: bool = True) -> None:
        self.dossier = dossier
        self.changes = Changes()
        self._revisions = revisions
        self._fold: _Fold | None = _Fold(dossier.acts)  # None: it has to begin anew
        self._segments = list(self._fold.made)
        self._fresh: dict[Micros, Opened] = {}  # not yet written, by valid_from
        self._stirred: Micros | None = None  # recorded time of acts whose rectangles are not drawn yet
        self._before: tuple[Act, ...] = ()
        self._since: Micros = 0
        self._because: Event | None = None
        self._latest = max((act.undone or act.recorded for act in dossier.acts), default=0)
        self._held = self._latest if dossier.acts else None

    def take(self, event: Event) -> None:
        """Applies one event; raises Contradiction, and then nothing of it is applied."""
        dossier, data = self.dossier, event.data
        if event.recorded < self._latest:  # its owner's clock went back: nothing was known before it was stored
            event = event._replace(recorded=self._latest)
        if data["previous"] != dossier.state:
            raise Contradiction(f"the event moves from {data['previous']}, we hold {dossier.state}")
        if dossier.state is None:
            dossier.agency, dossier.began = data["agency"], event.recorded
        self._latest = event.recorded
        dossier.state = data["state"]
        dossier.confidential = data["confidential"]
        if event.type == "dossier.corrected":
            self._undo(event, str(data["undoes"]))
            return
        act = act_of(event)
        if act is None:
            return
        self._stir(event, act.happened)
        dossier.acts.append(act)
        fold = self._fold
        if fold is not None and (fold.last is None or act.happened >= fold.last):
            fold.take(act)
        else:
            self._fold = None
        more = act.more
        if act.kind in ("submitted", "received"):
            dossier.procedure, dossier.field, dossier.channel = more["procedure"], more["field"], more["channel"]
        elif act.kind == "extended":
            self.changes.extensions.append(self._counted(act))
        elif act.kind == "rated":
            self.changes.ratings.append(self._counted(act))

    def _undo(self, event: Event, identity: str) -> None:
        for index, act in enumerate(self.dossier.acts):
            if act.id == identity and act.undone is None:
                self._stir(event, act.happened)
                self.dossier.acts[index] = act._replace(undone=event.recorded)
                self._fold = None
                if act.kind in ("extended", "rated"):
                    self.changes.undone.append((identity, event.recorded))

    def _counted(self, act: Act) -> Counted:
        for receipt in reversed(self.dossier.acts):
            if receipt.kind in ("received", "submitted") and receipt.undone is None:
                more = receipt.more
                return Counted(act, more["deciding"], more["procedure"], more["field"])
        return Counted(act, self.dossier.agency, self.dossier.procedure, self.dossier.field)

    def _stir(self, event: Event, since: Micros) -> None:
        # Acts recorded at one instant that come in two batches: what the first has closed may never have been so.
        self.changes.anew |= event.recorded == self._held
        if self._stirred is not None and self._stirred != event.recorded:
            self._draw()
        if self._stirred is None:
            self._stirred, self._since = event.recorded, since
            if self._revisions:
                self._before = tuple(self.dossier.acts)
        self._since = min(self._since, since)
        self._because = event

    def _draw(self) -> None:
        """Closes what is no longer known so and opens what is known instead."""
        at = self._stirred
        assert at is not None
        assert self._because is not None
        if self._fold is None:
            self._fold = _Fold(self.dossier.acts)
        was, now, same = self._segments, self._fold.made, 0
        while same < len(was) and same < len(now) and was[same] == now[same]:
            same += 1
        gone, come = was[same:], now[same:]
        old, new = (gone, come) if len(gone) + len(come) < FEW else (set(gone), set(come))
        for segment in gone:
            if segment not in new:
                if segment.ended_at is not None:
                    self.changes.ended.add((segment.deciding, segment.ended_at))
                fresh = self._fresh.pop(segment.valid_from, None)
                if fresh is None:
                    self.changes.closed.append((segment.valid_from, at))
                elif fresh.known_from < at:
                    self.changes.opened.append(fresh._replace(known_to=at))
        for segment in come:
            if segment not in old:
                if segment.ended_at is not None:
                    self.changes.ended.add((segment.deciding, segment.ended_at))
                self._fresh[segment.valid_from] = Opened(segment, at, None)
        self._segments = list(now)
        if self._revisions and self._since < at:
            after = tuple(self.dossier.acts)
            self.changes.revisions.append(Revision(self._since, at, self._because, self._before, after))
        self._stirred = None

    def finish(self) -> Changes:
        """What all the events together change."""
        if self._stirred is not None:
            self._draw()
        self.changes.opened.extend(self._fresh.values())
        self._fresh = {}
        if self.changes.anew:
            self.changes.closed, self.changes.opened = [], rectangles(self.dossier.acts)
        return self.changes


# ------------------------------------------------------------------------------------------------------------- legs


class LegAct(NamedTuple):
    """What happened to a transfer. `agency` is the one that works on it."""

    kind: str
    happened: Micros
    recorded: Micros
    agency: str
    due: Micros | None


LEG_ACTS: Final = frozenset({"delivered", "refused", "completed", "returned", "recalled", "rerouted"})


def in_order(acts: Iterable[LegAct]) -> list[LegAct]:
    """As they were recorded: two topics may tell of one transfer, and nothing is promised of their order."""
    return sorted(acts, key=lambda a: (a.recorded, a.happened, a.kind))


def leg_segments(acts: Iterable[LegAct]) -> list[tuple[str, Segment]]:
    """A leg's segments, each with its agency: received when delivered, ended when completed or returned, due at its limit.

    A refused one counts as refused and never as received, as a dossier at the desk does; one that was recalled or
    rerouted leaves the figures: nobody has ended it and nobody works on it. An act that came twice (over a link and
    from the local routing) counts as it was first known.
    """
    first: dict[str, LegAct] = {}
    for act in in_order(acts):
        first.setdefault(act.kind, act)
    made: list[tuple[str, Segment]] = []
    received: LegAct | None = None
    for act in sorted(first.values(), key=lambda a: (a.happened, a.kind != "delivered")):
        if made and made[-1][1].phase != "pending":
            break
        began = max(act.happened, received.happened) if received is not None else act.happened
        new: Segment | None = None
        if act.kind == "delivered":
            received = act
            new = Segment(began, None, "", "", "", "", "pending", began, act.due)
        elif act.kind == "refused":
            new = Segment(began, None, "", "", "", "", "refused", None, None, ended_at=began)
        elif act.kind in ("completed", "returned") and received is not None:
            new = Segment(
                began,
                None,
                "",
                "",
                "",
                "",
                "ended",
                received.happened,
                received.due,
                ended_at=began,
                outcome=outcome_of(began, received.due),
                elapsed=began - received.happened,
            )
        if made:
            agency, last = made.pop()
            if last.valid_from < began:
                made.append((agency, last._replace(valid_to=began)))
        if new is None:
            break
        made.append((act.agency, new))
    return made


def leg_rectangles(acts: Sequence[LegAct]) -> list[tuple[str, Opened]]:
    """All rectangles that a leg's acts make, from the first to be known."""
    times = {act.recorded for act in acts}
    return [
        (known[0], Opened(known[1], since, until))
        for known, since, until in _while_known(times, lambda at: leg_segments([a for a in acts if a.recorded <= at]))
    ]


# ------------------------------------------------------------------------------------------------- periods and cells


@dataclass(frozen=True, slots=True)
class Period:
    """A question's period: from `start` on, judged at `judged`; acts at that instant count."""

    start: datetime
    judged: datetime


def local_midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=LOCAL_ZONE).astimezone(UTC)


def last_instant(day: date) -> datetime:
    """The end of a local day is its last instant: an act at 00:00 of the next day is not in it."""
    return local_midnight(day + timedelta(days=1)) - MICROSECOND


def month_of(day: date) -> tuple[date, date]:
    """The first and the last day of a day's month."""
    first = day.replace(day=1)
    return first, (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)


def months_between(since: datetime, until: datetime) -> list[tuple[date, date]]:
    """The months from that of `since` to the one before that of `until`, in local time: those closed at `until`."""
    first, last = month_of(since.astimezone(LOCAL_ZONE).date())
    end = until.astimezone(LOCAL_ZONE).date().replace(day=1)
    months = []
    while first < end:
        months.append((first, last))
        first, last = month_of(last + timedelta(days=1))
    return months


def cells(acts: Sequence[Act], start: Micros, judged: Micros) -> frozenset[str]:
    """The cells of the figures in which a dossier is counted, by their paths (`resolved.late`)."""
    found: set[str] = set()
    segment = standing(segments(acts), judged)
    if segment is not None and segment.phase == "refused":
        if segment.ended_at is not None and segment.ended_at >= start:
            found.add("refused")
    elif segment is not None and (segment.phase == "pending" or (segment.ended_at or 0) >= start):
        fresh = segment.received_at is not None and segment.received_at >= start
        found |= {"received.total", f"received.{segment.channel}" if fresh else "received.carried_over"}
        if fresh and segment.listed:
            found |= {"digitised.denominator", *(["digitised.numerator"] if segment.digitised else [])}
        if segment.phase == "ended":
            found |= {"resolved.total", f"resolved.{segment.outcome}"}
        else:
            late = segment.pause_late or (not segment.paused and is_after(judged, segment.due_at))
            found |= {"pending.total", "pending.overdue" if late else "pending.within"}
            found |= {"pending.paused"} if segment.paused else set()
    seen = [a for a in acts if a.undone is None and start <= a.happened <= judged]
    if any(a.kind == "extended" for a in seen):
        found.add("extended")
    ratings = [a for a in seen if a.kind == "rated"]
    if ratings:
        last = max(ratings, key=lambda a: (a.happened, a.recorded, a.id))
        found |= {"satisfaction.denominator", *(["satisfaction.numerator"] if last.more["content"] else [])}
    return frozenset(found)


def is_after(instant: Micros, due: Micros | None) -> bool:
    return due is not None and instant > due


# --------------------------------------------------------------------------------------------------------- rounding

_CENT: Final = Decimal("0.01")


def half_up(value: Fraction | int) -> float:
    """Rounded once from the exact value, half up, to 2 decimals."""
    exact = Fraction(value)
    cents = (exact * 100 * 2 + 1).__floor__() // 2
    return float(Decimal(cents) * _CENT)


def share(numerator: int, denominator: int) -> dict[str, Any]:
    """{numerator, denominator, percent}; percent is null when there is none."""
    percent = half_up(Fraction(100 * numerator, denominator)) if denominator else None
    return {"numerator": numerator, "denominator": denominator, "percent": percent}


def days(elapsed: Fraction | int) -> float:
    """Microseconds as days."""
    return half_up(Fraction(elapsed) / DAY)
