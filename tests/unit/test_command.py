"""The pure parts of the command: the books, the doctor's judgements, the demo's chains, what a site writes down."""

import json
import os
import re
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli.books import Account, Hop, differing, telling, unlike
from deploy.cli.doctor import Verdict, keys, python, swap_years
from deploy.cli.errors import CommandFailed
from deploy.cli.main import app
from deploy.cli.subscriber import read_subscribers
from deploy.demo.day import live_day
from deploy.demo.play import chains_of, resolve
from deploy.logfile import LogFolder
from deploy.state import FolderLock, Ports, State, read_state
from deploy.version import commit_of
from shared.security.keys import load_keys


def test_a_file_of_subscribers_is_read_and_its_faults_are_named(tmp_path: Path) -> None:
    file = tmp_path / "subscribers.yaml"
    file.write_text(
        "subscribers:\n  - {code: 000.00.17.H55, tier: agency, topics: [own, public], replay_days: 30}\n  - {code: G14}\n"
    )
    own, public = "lienthong.agency.H55.17.v1", "lienthong.public.dossier.v1"
    assert [(w.code, w.tier, w.topics, w.replay_days) for w in read_subscribers(file)] == [
        ("H55.17", "agency", (own, public), 30),
        ("G14", "public", (public,), 7),
    ]
    file.write_text("subscribers:\n  - {code: H55.17, tier: all, days: 3}\n")
    with pytest.raises(CommandFailed) as failed:
        read_subscribers(file)
    assert f"{file} /subscribers/0/tier" in str(failed.value)
    assert f"{file} /subscribers/0/days" in str(failed.value)
    file.write_text("subscribers:\n  - {code: G14}\n  - {code: G14}\n")
    with pytest.raises(CommandFailed, match="more than once: G14"):
        read_subscribers(file)


HOUR = {"keys": 2, "events": 5, "digest": "17"}


def hop(*, equal: bool = True) -> Hop:
    return Hop("applied", "lienthong.dossier.v1", "intake", "stats", 5, 5, 2, equal)


# -- books


def test_hours_that_stand_alike_do_not_differ() -> None:
    assert differing({"h": HOUR}, {"h": dict(HOUR)}) == []
    assert differing({"h": HOUR}, {"h": HOUR | {"events": "5"}}) == []  # a sum may come as text


@pytest.mark.parametrize(
    "other", [{}, {"h": HOUR | {"digest": "18"}}, {"h": HOUR | {"keys": 1}}, {"h": HOUR, "i": HOUR}]
)
def test_an_hour_that_is_missing_or_other_differs(other: dict[str, dict[str, object]]) -> None:
    assert differing({"h": HOUR}, other) == ["i" if "i" in other else "h"]


def test_keys_that_lag_or_are_missing_are_named() -> None:
    assert unlike({"a": 3, "b": 2, "c": 1}, {"a": 3, "b": 1}) == ["b", "c"]


def test_a_parked_event_or_an_untold_act_is_not_reconciled() -> None:
    hour = {"asked": 3, "notices": 1, "reasons": 1, "neither": 1}
    untold = telling({"items": [hour], "missing": ["H55-260101-0001"]})
    told = telling({"items": [hour | {"neither": 0, "notices": 2}], "missing": []})
    assert (untold.events, untold.applied, untold.missing) == (3, 2, ["H55-260101-0001"])
    assert Account([hop(), told], [], {}).reconciled
    assert not Account([hop(), hop(equal=False)], [], {}).reconciled
    assert not Account([hop()], [{"key": "H55-260101-0001"}], {}).reconciled
    assert not Account([hop(), untold], [], {}).reconciled


def test_a_hop_is_shown_with_from_and_to() -> None:
    assert hop().as_dict()["from"] == "intake"


# -- version


def test_the_version_names_the_commit_of_a_checkout(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["--version"])
    assert said.exit_code == 0
    assert re.fullmatch(r"lienthong \d+\.\d+\.\d+\S*( \([0-9a-f]{7,}(-dirty)?\))?\n", said.output), said.output
    assert (
        commit_of('{"url": "https://x/y.git", "vcs_info": {"vcs": "git", "commit_id": "0123456789abcdef"}}')
        == "0123456789ab"
    )
    assert commit_of(json.dumps({"url": tmp_path.as_uri(), "dir_info": {}})) is None  # no checkout
    assert commit_of(None) is None


# -- doctor


def test_an_old_python_is_wrong() -> None:
    assert python((3, 11, 0)).verdict is Verdict.FINE
    assert python((3, 10, 9)).verdict is Verdict.WRONG


def test_keys_that_others_can_read_are_wrong(tmp_path: Path) -> None:
    assert {finding.verdict for finding in keys(tmp_path)} == {Verdict.WRONG}
    load_keys(tmp_path)
    assert [finding.verdict for finding in keys(tmp_path)] == [Verdict.FINE]
    (tmp_path / "data.key").chmod(0o644)
    (finding,) = keys(tmp_path)
    assert finding.verdict is Verdict.WRONG
    assert finding.todo.startswith("chmod 600")


@pytest.mark.parametrize(
    ("today", "known", "verdict"),
    [
        (date(2026, 10, 31), {2025, 2026}, Verdict.FINE),
        (date(2026, 11, 1), {2025, 2026}, Verdict.WARNING),
        (date(2026, 11, 1), {2026, 2027}, Verdict.FINE),
        (date(2026, 3, 1), {2025}, Verdict.WARNING),
    ],
)
def test_from_november_the_next_year_must_be_known(today: date, known: set[int], verdict: Verdict) -> None:
    assert swap_years(known, today).verdict is verdict


# -- the demo's day


def test_chains_keep_every_step_and_its_order() -> None:
    steps = live_day(datetime(2026, 3, 2, 1, tzinfo=UTC))
    free, chains = chains_of(steps)
    assert sorted(map(id, [*free, *(step for chain in chains for step in chain)])) == sorted(map(id, steps))
    places = {id(step): place for place, step in enumerate(steps)}
    for chain in chains:
        assert [places[id(step)] for step in chain] == sorted(places[id(step)] for step in chain)


def test_a_name_is_used_in_the_chain_that_saves_it() -> None:
    _, chains = chains_of(live_day(datetime(2026, 3, 2, 1, tzinfo=UTC)))
    saved = [{name for step in chain for name in step.saves} for chain in chains]
    assert sum(map(len, saved)) == len(set().union(*saved))
    assert all(names for names in saved)


def test_a_pointer_is_followed_through_lists() -> None:
    assert resolve({"items": [{"a/b": 1}]}, "/items/0/a~1b") == 1
    absent = resolve({}, "/items/0")
    assert absent is resolve([], "/0")
    assert absent is not None


# -- what a site writes down


def test_ports_follow_the_base() -> None:
    ports = Ports(8001)
    assert [ports.service(name) for name in ("intake", "routing", "notify", "stats")] == [8001, 8002, 8003, 8004]
    assert (ports.bus, ports.database) == (8005, 8006)


def test_a_site_is_found_again_and_its_password_is_its_owners(tmp_path: Path) -> None:
    state = State("H55", 8001, {"intake": "http://127.0.0.1:8001"}, "127.0.0.1:8005", "postgresql://u:p@h/d", 1)
    state.write(tmp_path)
    assert read_state(tmp_path) == state
    assert (tmp_path / "site.json").stat().st_mode & 0o077 == 0


def test_a_folder_without_a_site_or_with_a_broken_one_has_none(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    (tmp_path / "site.json").write_text('{"site": "H55"')
    assert read_state(tmp_path) is None
    (tmp_path / "site.json").write_text(json.dumps({"other": 1}))
    assert read_state(tmp_path) is None


def test_the_lock_names_who_holds_it(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    lock.take()
    assert (tmp_path / "run" / "site.lock").read_text() == f"{os.getpid()}\n"
    lock.release()
    lock.take()
    lock.release()


def test_log_lines_go_to_their_service(tmp_path: Path) -> None:
    logs = LogFolder(tmp_path, ("intake", "stats"))
    for line in ('{"service":"stats","event":"a"}', '{"service":"elsewhere","event":"b"}', '{"event":"c"}'):
        print(line, file=logs, flush=True)
    logs.close()
    assert (tmp_path / "stats.log").read_text() == '{"service":"stats","event":"a"}\n'
    assert len((tmp_path / "site.log").read_text().splitlines()) == 2
    assert not (tmp_path / "intake.log").exists()


def test_a_full_log_file_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.logfile.ROTATES_ABOVE", 10)
    logs = LogFolder(tmp_path, ())
    for number in range(4):
        print(f'{{"event":"number {number}"}}', file=logs)
    logs.close()
    kept = [(tmp_path / name).read_text() for name in ("site.log", "site.log.1", "site.log.2")]
    assert kept == [f'{{"event":"number {number}"}}\n' for number in (3, 2, 1)]
