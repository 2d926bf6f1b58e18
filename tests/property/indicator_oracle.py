"""An oracle for the indicators: brute force over the events of a register, sentence by sentence of the contract.

It shares nothing with the services: no segments, no rectangles, no SQL. Each dossier is walked through from its first
event for every question, with the acts that the question may see.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from zoneinfo import ZoneInfo

HANOI = ZoneInfo("Asia/Ho_Chi_Minh")
Events = Sequence[Any]  # envelopes' fields: type, id, time, recorded, data


@dataclass
class Standing:
    """What the walk has found of one dossier at as_of, as known at known_at."""

    received: datetime | None = None
    channel: str = ""
    procedure: str = ""
    deciding: str = ""
    due: datetime | None = None
    stands_since: datetime | None = None
    stood: timedelta = timedelta()
    ended: datetime | None = None
    judged: datetime | None = None
    elapsed: timedelta | None = None
    refused: datetime | None = None
    listed: bool = False
    digitised: bool = False
    requests: int = 0


def seen(events: Events, as_of: datetime, known_at: datetime) -> list[Any]:
    """as_of sees only acts that happened up to it, known_at only acts recorded up to it; what a correction that is
    known undoes never happened."""
    known = [e for e in events if e.recorded <= known_at]
    undone = {str(e.data["undoes"]) for e in known if e.type == "dossier.corrected"}
    return [e for e in known if e.type != "dossier.corrected" and str(e.id) not in undone and e.time <= as_of]


def stand(events: Events) -> Standing:
    s = Standing()
    for e in events:
        name, data = e.type.removeprefix("dossier."), e.data
        if name in ("submitted", "received"):
            s.channel, s.procedure, s.deciding = data["channel"], data["procedure"], data["deciding_agency"]
            parts = data["components"]
            s.listed = s.listed or bool(parts)
            s.digitised = s.digitised or any(part["digitised"] for part in parts)
        if name == "received":
            s.received = e.time
            s.stood, s.stands_since = timedelta(), None
        if name == "digitised":
            s.listed = s.digitised = True
        if name == "refused":
            s.refused = e.time
        if name == "supplement-requested":
            s.requests += 1
        moves = data["previous"] != data["state"]
        if s.received is not None and s.ended is None:
            if data["state"] in (9, 10, 8) and moves:
                s.ended = e.time
                s.judged = s.stands_since or e.time
                s.elapsed = s.judged - s.received - s.stood
            elif moves or name in ("extended", "rescheduled"):
                s.due = data["due_at"]
                if data["paused"] and s.stands_since is None:
                    s.stands_since = e.time
                elif not data["paused"] and s.stands_since is not None:
                    s.stood += e.time - s.stands_since
                    s.stands_since = None
    return s


def stand_leg(events: Events) -> tuple[str, Standing] | None:
    """Who works on a leg, and how it stands: received when delivered, ended when completed or returned. None: nobody has
    it, or not any more (recalled)."""
    agency, s = "", Standing()
    for e in sorted(events, key=lambda e: e.time):
        name = e.type.removeprefix("transfer.")
        if s.ended is not None or s.refused is not None:
            break
        if name == "delivered":
            agency, s.received, s.due = e.data["to"], e.time, e.data["due_at"]
        elif name == "refused":
            agency, s.received, s.refused = e.data["to"], None, e.time
        elif name in ("completed", "returned") and s.received is not None:
            s.ended = s.judged = e.time
            s.elapsed = e.time - s.received
        elif name == "recalled":
            return None
    return (agency, s) if s.received is not None or s.refused is not None else None


def works(
    register: Iterable[tuple[str, Events]], legs: Mapping[str, Sequence[Events]], at: datetime, known: datetime
) -> Any:
    """Who works on what: each leg, and the dossiers of which nobody else has, or had and ended, a leg."""
    for agency, events in register:
        visible = seen(events, at, known)
        s = stand(visible)
        told = events[-1].data
        elsewhere = False
        for acts in legs.get(events[0].envelope.subject, ()):
            found = stand_leg([e for e in acts if e.recorded <= known and e.time <= at])
            if found is not None:
                whom, leg = found
                leg.channel, leg.procedure = channel_of(events), told["procedure"]
                elsewhere = elsewhere or leg.refused is None
                yield whom, leg, []
        if not elsewhere:
            yield agency, s, visible


def channel_of(events: Events) -> str:
    return str(next(e.data["channel"] for e in reversed(events) if "channel" in e.data))


def ended_how(s: Standing) -> str:
    assert s.judged is not None
    assert s.due is not None
    if s.judged.astimezone(HANOI).date() < s.due.astimezone(HANOI).date():
        return "early"
    return "on_time" if s.judged <= s.due else "late"


def is_overdue(s: Standing, as_of: datetime) -> bool:
    assert s.due is not None
    if s.stands_since is not None:
        return s.stands_since > s.due
    return as_of > s.due


def two_decimals(value: Decimal) -> float:
    return float(value.quantize(Decimal("0.01"), ROUND_HALF_UP))


def percent(numerator: int, denominator: int) -> dict[str, Any]:
    ratio = two_decimals(Decimal(numerator) * 100 / Decimal(denominator)) if denominator else None
    return {"numerator": numerator, "denominator": denominator, "percent": ratio}


def percentile(values: Sequence[Decimal], tenths: int) -> float | None:
    """percentile_cont: between the two values at the exact rank."""
    if not values:
        return None
    ordered = sorted(values)
    rank = Decimal(tenths) / 10 * (len(ordered) - 1)
    low = int(rank)
    high = min(low + 1, len(ordered) - 1)
    exact = ordered[low] + (ordered[high] - ordered[low]) * (rank - low)
    return two_decimals(exact / 86400)


def indicators(
    register: Iterable[tuple[str, Events]],
    agencies: frozenset[str],
    first: date,
    last: date,
    as_of: datetime,
    known_at: datetime,
    *,
    by: str = "receiving",
    procedure: str | None = None,
    channel: str | None = None,
    legs: Mapping[str, Sequence[Events]] | None = None,
) -> dict[str, Any]:
    """The Indicators JSON but for documents and freshness."""
    start = datetime(first.year, first.month, first.day, tzinfo=HANOI)
    after = last + timedelta(days=1)
    end = datetime(after.year, after.month, after.day, tzinfo=HANOI) - timedelta(microseconds=1)
    judged = min(as_of, end)
    received = dict.fromkeys(("total", "online", "counter", "postal", "carried_over"), 0)
    resolved = dict.fromkeys(("total", "early", "on_time", "late"), 0)
    pending = dict.fromkeys(("total", "within", "overdue", "paused"), 0)
    extended = refused = listed = digitised = rated = content = 0
    took: list[Decimal] = []
    index = {"counted": 0, "in_time": 0}
    if by == "working":
        cases = list(works(register, legs or {}, judged, known_at))
    else:
        walked = [(agency, seen(events, judged, known_at)) for agency, events in register]
        cases = [(agency, stand(visible), visible) for agency, visible in walked]
    for agency, s, visible in cases:
        if (s.deciding if by == "deciding" else agency) not in agencies or procedure not in (None, s.procedure):
            continue
        if channel not in (None, s.channel):
            continue
        within = [e for e in visible if start <= e.time]
        extended += any(e.type == "dossier.extended" for e in within)
        ratings = [e.data["level"] for e in within if e.type == "dossier.rated"]
        rated += bool(ratings)
        content += bool(ratings) and ratings[-1] in ("satisfied", "very_satisfied")
        if s.refused is not None:
            refused += start <= s.refused
            index["counted"] += start <= s.refused
            index["in_time"] += start <= s.refused
        if s.received is None or (s.ended is not None and s.ended < start):
            continue
        received["total"] += 1
        received[s.channel if s.received >= start else "carried_over"] += 1
        if s.received >= start and s.listed:
            listed += 1
            digitised += s.digitised
        index["counted"] += 1
        if s.ended is not None:
            how = ended_how(s)
            resolved["total"] += 1
            resolved[how] += 1
            assert s.elapsed is not None
            took.append(Decimal(s.elapsed // timedelta(microseconds=1)) / 1_000_000)
            late = how == "late"
        else:
            late = is_overdue(s, judged)
            pending["total"] += 1
            pending["overdue" if late else "within"] += 1
            pending["paused"] += s.stands_since is not None
        index["in_time"] += not late and s.requests <= 1
    fresh = received["total"] - received["carried_over"]
    return {
        "received": received,
        "resolved": resolved,
        "pending": pending,
        "extended": extended,
        "refused": refused,
        "digitised": percent(digitised, listed),
        "online_share": percent(received["online"], fresh),
        "on_time_share": percent(resolved["early"] + resolved["on_time"], resolved["total"]),
        "satisfaction": percent(content, rated),
        "average_days": two_decimals(sum(took, Decimal()) / len(took) / 86400) if took else None,
        "median_days": percentile(took, 5),
        "p90_days": percentile(took, 9),
        "index": index,
    }


def documents(
    lives: Iterable[Events], agencies: frozenset[str], first: date, last: date, as_of: datetime, known_at: datetime
) -> dict[str, int]:
    """received: arrived at these agencies in the period; sent: by them; handled: of both, those in 06 by then."""
    start = datetime(first.year, first.month, first.day, tzinfo=HANOI)
    after = last + timedelta(days=1)
    end = datetime(after.year, after.month, after.day, tzinfo=HANOI) - timedelta(microseconds=1)
    judged = min(as_of, end)
    found = {"received": 0, "sent": 0, "handled": 0}
    for events in lives:
        visible = [e for e in events if e.recorded <= known_at and e.time <= judged]
        for e in visible:
            came = e.type == "document.arrived" and e.data["to"] in agencies
            went = e.type == "document.sent" and e.data["from"] in agencies
            if (came or went) and e.time >= start:
                found["received" if came else "sent"] += 1
                found["handled"] += visible[-1].data["state"] == "06"
    return found


def identities_hold(figures: Mapping[str, Any]) -> bool:
    """received = resolved + pending, and each total is the sum of its parts."""
    received, resolved, pending = figures["received"], figures["resolved"], figures["pending"]
    return bool(
        received["total"] == resolved["total"] + pending["total"]
        and received["total"] == sum(v for k, v in received.items() if k != "total")
        and resolved["total"] == resolved["early"] + resolved["on_time"] + resolved["late"]
        and pending["total"] == pending["within"] + pending["overdue"]
    )
