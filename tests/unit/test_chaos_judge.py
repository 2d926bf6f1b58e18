"""The judge of `make chaos`: it finds what is wrong, and is content with what is right."""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import orjson
import pytest

from tests.chaos.figures import own_figures
from tests.chaos.judge import Judge, overtaken, subject_of
from tests.chaos.ledger import Act, Dossier, Ledger
from tests.stack import Stack

CODE = "H55.242-260105-0001"
DUE = "2026-01-08T17:00:00+07:00"


def event(sequence: int, name: str, state: int, **more: Any) -> dict[str, Any]:
    at = f"2026-01-05T08:{sequence:02}:00+07:00"
    return {"sequence": sequence, "type": f"dossier.{name}", "state": state, "at": at, "due_at": DUE, **more}


def act(op: str, version: int | None, asked: float, mark: Any = None) -> Act:
    return Act(op, mark, asked, asked + 0.1, True, 200, version, imported=version is None)


HISTORY = [
    event(1, "received", 2),
    event(2, "supplement-requested", 5, reason="m1"),
    event(3, "supplemented", 2),
    event(4, "processing-started", 4, previous=2),
    event(5, "resolved", 9, ref="m2", by_route=False),
]
ACTS = [
    act("new", 1, 1.0),
    act("supplement-request", 2, 2.0, "m1"),
    act("supplement", 3, 3.0),
    act("start", 4, 4.0),
    act("resolution", 5, 5.0, "m2"),
]


def judged(acts: list[Act], history: list[dict[str, Any]]) -> list[str]:
    dossier = Dossier("H55.242", "1.004873", "counter", "0912000001", None, CODE, acts=acts)
    judge = Judge(Stack(Path()), Ledger([dossier]), Path(), Path(), Path(), "", set(), datetime(2026, 1, 5, tzinfo=UTC))
    judge.histories[CODE] = history
    judge._acts()
    return [finding.what for finding in judge.verdict.findings]


async def rebuilt(report: dict[str, Any], status: int = 200) -> list[str]:
    """What the judge says of a rebuild's report."""
    dossiers = [Dossier("H55.242", "1.004873", "counter", "0912000001", None, CODE)]
    stack = cast(Stack, SimpleNamespace(url=lambda name: f"http://{name}"))
    judge = Judge(stack, Ledger(dossiers), Path(), Path(), Path(), "", set(), datetime(2026, 1, 5, tzinfo=UTC))
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.url.path, orjson.loads(request.content)))
        return httpx.Response(
            status, json={"dossiers": 1, "differing": 0, "differences": [], "waiting": 0, "incomplete": 0} | report
        )

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as judge.http:
        judge.operator = {}
        await judge._rebuild()
    assert asked == [("/v1/rebuild", {"dry_run": True})]
    return [finding.what for finding in judge.verdict.findings]


async def test_figures_that_are_as_recomputed_are_right() -> None:
    assert await rebuilt({}) == []


@pytest.mark.parametrize(
    ("report", "what"),
    [
        (
            {
                "differing": 1,
                "differences": [{"key": CODE, "table": "fact", "is": "different", "columns": ["outcome"]}],
            },
            "in fact: different outcome",
        ),
        (
            {"differing": 1, "differences": [{"key": CODE, "table": "inbox", "is": "missing", "columns": []}]},
            "in inbox: missing",
        ),
        ({"waiting": 1}, "1 keys not counted at all"),
        ({"incomplete": 1}, "1 incomplete"),
        ({"dossiers": 0}, "fewer than were accepted"),
    ],
)
async def test_figures_that_differ_from_those_recomputed_are_found(report: dict[str, Any], what: str) -> None:
    assert any(what in found for found in await rebuilt(report))


async def test_a_rebuild_that_is_not_answered_is_found() -> None:
    assert any("503" in found for found in await rebuilt({}, 503))


def test_a_history_that_is_as_answered_is_right() -> None:
    assert judged(ACTS, HISTORY) == []


def test_imported_acts_are_found_by_their_order() -> None:
    assert judged([act(a.op, None, 1.0, a.mark) for a in ACTS], HISTORY) == []


@pytest.mark.parametrize(
    ("acts", "history", "what"),
    [
        (ACTS, HISTORY[:4], "was answered as version 5 and is not there"),
        (ACTS[:4], HISTORY, "nobody was answered for it"),
        (ACTS, [*HISTORY[:2], event(4, "supplemented", 2)], "the sequences are"),
        (ACTS, [*HISTORY[:4], event(5, "resolved", 9, ref="another", by_route=False)], "is not there"),
        ([*ACTS[:4], act("resolution", 5, 0.2, "m2")], HISTORY, "stands after an act that was asked for later"),
        ([*ACTS, act("return", None, 6.0)], HISTORY, "was answered and is not there"),
    ],
)
def test_what_differs_is_found(acts: list[Act], history: list[dict[str, Any]], what: str) -> None:
    assert any(what in found for found in judged(acts, history))


def test_what_nobody_asks_for_is_no_finding() -> None:
    by_itself = [*HISTORY[:4], event(5, "due-soon", 4), event(6, "resolved", 9, ref=None, by_route=True)]
    assert judged(ACTS[:4], by_itself) == []


def test_an_unsent_notice_is_overtaken_by_what_settles_it() -> None:
    assert overtaken(HISTORY[1], HISTORY[2:])
    assert not overtaken(HISTORY[1], HISTORY[3:])
    assert not overtaken(HISTORY[0], HISTORY[1:])


def test_a_text_says_what_it_tells() -> None:
    assert subject_of(f"{CODE};payment-requested;-;1.234") == (CODE, "payment-requested", "1234")
    assert subject_of(f"{CODE};stopped;m9;-") == (CODE, "stopped", "m9")
    assert subject_of(f"{CODE};received;-;-") == (CODE, "received", "-")


def figures(history: list[dict[str, Any]], as_of: str) -> set[str]:
    """The figures that the dossier is behind."""
    dossier = Dossier("H55.242", "1.004873", "online", None, None, CODE)
    cells = own_figures([dossier], {CODE: history}, set(), datetime.fromisoformat(as_of))
    return {name for name, codes in cells.items() if codes and not name.startswith(("received", "online_share"))}


@pytest.mark.parametrize(
    ("at", "how"),
    [
        ("2026-01-07T23:59:59+07:00", "early"),
        ("2026-01-08T00:00:00+07:00", "on_time"),
        (DUE, "on_time"),
        ("2026-01-08T17:00:01+07:00", "late"),
    ],
)
def test_how_a_dossier_ends(at: str, how: str) -> None:
    ended = [*HISTORY[:4], event(5, "resolved", 9) | {"at": at}]
    assert figures(ended, "2026-01-09T08:00:00+07:00") == {"resolved.total", f"resolved.{how}"}


def test_a_dossier_that_is_stopped_while_it_waits_is_judged_by_when_it_began_to_wait() -> None:
    stopped = [*HISTORY[:2], event(3, "stopped", 8) | {"at": "2026-01-09T08:00:00+07:00"}]
    assert figures(stopped, "2026-01-10T08:00:00+07:00") == {"resolved.total", "resolved.early"}


def test_how_an_open_dossier_stands() -> None:
    assert figures(HISTORY[:1], DUE) == {"pending.total", "pending.within"}
    assert figures(HISTORY[:1], "2026-01-08T17:00:01+07:00") == {"pending.total", "pending.overdue"}
    paused = {"pending.total", "pending.within", "pending.paused"}
    assert figures(HISTORY[:2], "2026-01-09T08:00:00+07:00") == paused
