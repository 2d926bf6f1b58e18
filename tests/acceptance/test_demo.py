"""`lienthong demo`: whole, and cut."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from deploy.demo.cases import load_cases
from tests.acceptance.command import COMMAND, environment, lienthong, processes_on, until


@pytest.mark.demo
@pytest.mark.timeout(420)
def test_the_demo_shows_that_all_is_well(tmp_path: Path) -> None:
    done = lienthong("demo", "--json", data=tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout.splitlines()[-1])
    assert shown["ok"] is True
    assert shown["reconciled"] is True
    assert shown["seconds"] > 0
    assert [case["id"] for case in shown["cases"]] == [case.id for case in load_cases()]
    verdicts = [figure["verdict"] for case in shown["cases"] for figure in case["figures"]]
    assert set(verdicts) == {"equal", "misprint", "recorded"}
    for said in ("Three sites", "Reconciliation of H55", "Reconciliation of H55.24.5", "Reconciliation of H55.226"):
        assert said in done.stderr
    assert processes_on(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_cut_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [COMMAND, "demo", "--json", "--data", str(tmp_path)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: list(tmp_path.glob("*/site.json")), "one of the demo's three sites is ready", timeout=180)
        process.send_signal(number)
        _, complaints = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode not in (0, None)
    assert "Traceback" not in complaints
    assert processes_on(tmp_path) == []


def test_a_folder_that_is_no_demos_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "H55" / "site.json"
    precious.parent.mkdir()
    precious.write_text("{}")
    done = lienthong("demo", data=tmp_path)
    assert done.returncode == 1
    assert str(precious.parent) in done.stderr
    assert precious.read_text() == "{}"
