"""The figures as they are answered: counts of the store in the shapes of the contract."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlencode

from services.stats.index766 import Formulas, index766
from services.stats.indicator import days, half_up, share
from services.stats.report import Rows, report
from services.stats.store import Part, Question, Store
from shared.contracts.codes import LOCAL_ZONE
from shared.directory.directory import Directory
from shared.store.pool import Connection

CELLS: Final = frozenset(
    {
        *(f"received.{part}" for part in ("total", "online", "counter", "postal", "counter_postal", "carried_over")),
        *(f"resolved.{part}" for part in ("total", "early", "on_time", "late")),
        *(f"pending.{part}" for part in ("total", "within", "overdue", "paused")),
        *("extended", "refused"),
        *(
            f"{share}.{part}"
            for share in ("digitised", "online_share", "on_time_share", "satisfaction")
            for part in ("numerator", "denominator")
        ),
        *(f"documents.{part}" for part in ("received", "sent", "handled")),
    }
)
"""The paths of the numbers that have dossiers (or documents) behind them."""


def local_text(instant: datetime) -> str:
    """As people of the country write it: RFC 3339 with +07:00."""
    return instant.astimezone(LOCAL_ZONE).isoformat()


async def indicators(store: Store, connection: Connection, question: Question) -> dict[str, Any]:
    """The numbers of the Indicators JSON, without what the question itself says and without freshness."""
    row = await store.figures(connection, question)
    rated, content, _ = await store.rated(connection, question)
    documents = await store.documents(connection, question)
    fresh = row["online"] + row["counter"] + row["postal"]
    resolved = row["early"] + row["on_time"] + row["late"]
    median, p90 = row["spread"] or (None, None)
    return {
        "received": {
            "total": fresh + row["carried_over"],
            "online": row["online"],
            "counter": row["counter"],
            "postal": row["postal"],
            "carried_over": row["carried_over"],
        },
        "resolved": {"total": resolved, "early": row["early"], "on_time": row["on_time"], "late": row["late"]},
        "pending": {
            "total": row["pending"],
            "within": row["pending"] - row["overdue"],
            "overdue": row["overdue"],
            "paused": row["paused"],
        },
        "extended": await store.extended(connection, question),
        "refused": row["refused"],
        "digitised": share(row["digitised"], row["listed"]),
        "online_share": share(row["online"], fresh),
        "on_time_share": share(row["early"] + row["on_time"], resolved),
        "satisfaction": share(content, rated),
        "documents": {"received": documents["received"], "sent": documents["sent"], "handled": documents["handled"]},
        "average_days": days(Fraction(int(row["elapsed"]), resolved)) if resolved else None,
        "median_days": None if median is None else days(median),
        "p90_days": None if p90 is None else days(p90),
    }


async def report_ii06a(
    store: Store, connection: Connection, question: Question, directory: Directory, rows: Rows = "field"
) -> dict[str, Any]:
    """Report II.06a by field, agency or procedure. Raises report.IdentityBroken."""
    names = names_of(directory, rows)
    found = await store.figures_by(connection, question, rows)
    counted = [(names.get(row["part"], row["part"]), row) for row in found if row["received"]]
    return report(sorted(counted, key=lambda entry: entry[0]))


def names_of(directory: Directory, part: Part) -> dict[str, str]:
    """What people call the fields, agencies or procedures, by code."""
    if part == "agency":
        return {code: agency.name for code, agency in directory.agencies.items()}
    if part == "procedure":
        return {code: procedure.name for code, procedure in directory.procedures.items()}
    return {procedure.field.code: procedure.field.name for procedure in directory.procedures.values()}


FROM_EVENTS: Final = frozenset(
    {
        *("ORIGINAL_RESULT_AVAILABLE", "SO_HOA_GIAY_TO_GIAI_QUYET", "REUSED_DIGITIZED_DATA"),
        *("CITIZEN_DATA_CONNECTED_DOSSIER", "PETITION_PROCESSING_ON_TIME", "PETITION_HANDLING_SATISFACTION"),
        "DOSSIER_RECEIVING_SATISFACTION",
    }
)
"""The metrics of the index that our own events tell; the others are entered."""

BEHIND_LEVERS: Final = frozenset(
    {
        *("progress", "digitisation.ORIGINAL_RESULT_AVAILABLE", "digitisation.SO_HOA_GIAY_TO_GIAI_QUYET"),
        *("digitisation.REUSED_DIGITIZED_DATA", "digitisation.CITIZEN_DATA_CONNECTED_DOSSIER"),
    }
)
"""The fields of levers that single dossiers hold down."""


def entered_metrics(formulas: Formulas) -> frozenset[str]:
    return frozenset(metric for rules in formulas.groups.values() for metric in rules) - FROM_EVENTS


async def entered_counts(
    store: Store, connection: Connection, question: Question, first: date, last: date
) -> dict[str, tuple[int, int]]:
    """What the agencies of a question entered for just its period, summed by metric."""
    sums: dict[str, tuple[int, int]] = {}
    for row in await store.entered(connection, question.agencies, first, last, question.known):
        if row["denominator"] is not None:
            numerator, denominator = sums.get(row["metric"], (0, 0))
            sums[row["metric"]] = (numerator + row["numerator"], denominator + row["denominator"])
    return sums


def behind_lever(field: str, asked: Mapping[str, object]) -> str | None:
    """Where the dossiers stand that hold a lever's metric down; None where it is not single dossiers."""
    if field not in BEHIND_LEVERS:
        return None
    told = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in asked.items()}
    return f"/v1/index766/dossiers?{urlencode(told | {'metric': field})}"


async def own_index(
    store: Store,
    connection: Connection,
    question: Question,
    formulas: Formulas,
    *,
    code: str,
    name: str,
    entered: Mapping[str, tuple[int, int]] = MappingProxyType({}),
) -> dict[str, Any]:
    """The index of Decision 766 from the site's own events, and from `entered` counts for what they do not tell; what
    neither tells is null and named in `missing`."""
    row = await store.figures_index(connection, question)
    _, _, complained = await store.rated(connection, question)
    petitions = await store.petitions(connection, question)
    counted, in_time = row["counted"], row["in_time"]
    own: dict[str, tuple[int, int]] = {
        "ORIGINAL_RESULT_AVAILABLE": (row["electronic"], counted),
        "SO_HOA_GIAY_TO_GIAI_QUYET": (row["digitised"], counted),
        "REUSED_DIGITIZED_DATA": (row["reused"], counted),
        "CITIZEN_DATA_CONNECTED_DOSSIER": (row["population"], counted),
        "PETITION_PROCESSING_ON_TIME": (petitions["on_time"], petitions["counted"]),
        "PETITION_HANDLING_SATISFACTION": (petitions["content"], petitions["counted"]),
        # ratio = 1 − late share − complained share
        "DOSSIER_RECEIVING_SATISFACTION": (max(0, in_time - complained), counted),
    }
    assert own.keys() == FROM_EVENTS
    own |= entered
    counts: dict[str, Any] = {
        "province": name,
        "code": code,
        "progress": {
            "received": counted,
            "on_time": in_time,
            "overdue": counted - in_time,
            "average_days": days(Fraction(int(row["elapsed"]), row["ended"])) if row["ended"] else None,
        },
    }
    for group, rules in formulas.groups.items():
        counts[group] = [_line(metric, own.get(metric)) for metric in rules]
        if group == "digitisation":
            counts["payment"] = {
                "paid_online": row["paid_online"],
                "with_fee": row["with_fee"],
                "procedures_with_online_payment": row["procedures_paid_online"],
                "procedures_with_fee": row["procedures_with_fee"],
            }
    return index766(counts, formulas, silent=frozenset(m for r in formulas.groups.values() for m in r) - frozenset(own))


def _line(metric: str, counts: tuple[int, int] | None) -> dict[str, Any]:
    numerator, denominator = counts or (None, None)
    return {"code": metric, "numerator": numerator, "denominator": denominator}


def ranking(
    rows: Sequence[Any], names: Mapping[str, str], formulas: Formulas, group: int, of: Part = "agency"
) -> list[dict[str, Any]]:
    """Agencies (or procedures) by their progress (the share not late), the best first; equal shares have equal ranks.

    One with fewer than `group` dossiers is named without figures and without a rank.
    """
    items: list[dict[str, Any]] = []
    small: list[dict[str, Any]] = []
    for row in rows:
        head = {of: row["part"], "name": names.get(row["part"])}
        counted = row["received"] + row["refused"]
        if counted < group:
            small.append({"rank": None, **head, "suppressed": True})
            continue
        in_time = row["in_time"] + row["refused"]
        items.append(
            {
                "rank": 0,
                **head,
                "suppressed": False,
                "received": row["received"],
                "resolved": row["resolved"],
                "pending": row["pending"],
                "overdue": row["overdue"],
                "on_time_share": share(row["early"] + row["on_time"], row["resolved"]),
                "progress": {
                    "counted": counted,
                    "on_time": in_time,
                    "ratio": half_up(Fraction(100 * in_time, counted)),
                    "score": half_up(formulas.progress.score(in_time, counted)),
                },
            }
        )
    items.sort(key=lambda i: (-Fraction(i["progress"]["on_time"], i["progress"]["counted"]), i[of]))
    for place, item in enumerate(items, 1):
        same = place > 1 and items[place - 2]["progress"]["ratio"] == item["progress"]["ratio"]
        item["rank"] = items[place - 2]["rank"] if same else place
    return items + small


def moved(
    items: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]], of: Part = "agency"
) -> list[dict[str, Any]]:
    """A ranking with what has moved since the one before: places gained, and points of progress; null for the new."""
    then = {item[of]: item for item in before if not item["suppressed"]}
    told = []
    for item in items:
        old = then.get(item[of])
        places, points = None, None
        if old is not None and not item["suppressed"]:
            places = old["rank"] - item["rank"]
            points = half_up(Fraction(str(item["progress"]["score"])) - Fraction(str(old["progress"]["score"])))
        told.append(item | {"moved": places, "score_moved": points})
    return told


def levers(index: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What would raise the score most: per metric of the index, how much is missing to its full score, for how many
    dossiers, and what one of them is worth; the largest first."""
    found: list[dict[str, Any]] = []

    def add(field: str, score: float | None, most: float, missing: int, counted: int) -> None:
        if score is None or missing <= 0 or not counted:
            return
        gain = Fraction(str(most)) - Fraction(str(score))
        if gain > 0:
            one = min(gain, gain / missing)
            found.append({"field": field, "missing": missing, "gain": half_up(gain), "gain_each": float(round(one, 6))})

    progress = index["progress"]
    add("progress", progress["score"], progress["max"], progress["overdue"], progress["received"])
    for group in ("transparency", "digitisation", "satisfaction"):
        for line in index[group]:
            if line["denominator"]:
                missing = line["denominator"] - line["numerator"]
                add(f"{group}.{line['code']}", line["score"], line["max"], missing, line["denominator"])
    return sorted(found, key=lambda lever: (-lever["gain"], lever["field"]))


async def freshness(
    connection: Connection, store: Store, complete: str, directory: Directory, topics: Sequence[str]
) -> dict[str, Any]:
    """Up to which instant all that was recorded is counted: the lowest watermark; null while one has never come.

    `missing` are this site's topics that have not said so yet. Of a lower site its last word is shown: a link keeps
    order, so that all it recorded before has come.
    """
    marks: dict[str, list[datetime | None]] = {}
    for row in await connection.fetch(complete):
        marks.setdefault(row["topic"], []).append(row["upto"])
    upto = [mark for topic in topics for mark in marks.get(topic, [None])]
    known = [mark for mark in upto if mark is not None]
    complete_to = local_text(min(known)) if len(known) == len(upto) else None
    missing = [topic for topic in topics if None in marks.get(topic, [None])]
    lower = [
        {"site": row["site"], "complete_to": (word := local_text(row["recorded"])), "last_word": word, "missing": []}
        for row in await connection.fetch(store["words"])
    ]
    own = {"site": directory.site_code, "complete_to": complete_to, "last_word": complete_to, "missing": missing}
    return {"complete_to": complete_to, "sites": [own, *lower]}


def suppressed(figures: Any, group: int) -> Any:
    """The figures as anybody may see them: a count from 1 to `group` - 1 is null, and with it what would give it away:
    the other parts of its block (the total stays, if it is large enough), and the share or the days made of it.
    """

    def small(count: int) -> bool:
        return 0 < count < group

    shown: dict[str, Any] = {}
    for name, value in figures.items():
        if not isinstance(value, dict):
            shown[name] = None if isinstance(value, int) and small(value) else value
        elif "denominator" in value:
            told = (value["numerator"], value["denominator"], value["denominator"] - value["numerator"])
            shown[name] = dict.fromkeys(value) if any(map(small, told)) else value
        elif any(map(small, value.values())):
            shown[name] = {
                part: count if count == 0 or (part == "total" and not small(count)) else None
                for part, count in value.items()
            }
        else:
            shown[name] = value
    if small(figures["resolved"]["total"]):
        shown |= dict.fromkeys(("average_days", "median_days", "p90_days"))
    return shown
