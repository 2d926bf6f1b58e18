"""Every alert has a page with commands that exist, asks only for metrics that exist, and is silenced only by what exists."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from deploy.cli.main import app
from shared.observe.metrics import METRICS
from tests.detection import BEGIN, END, table, waits

ROOT = Path(__file__).parents[2]
RULES: list[dict[str, Any]] = yaml.safe_load((ROOT / "deploy/prometheus/rules.yaml").read_text())["groups"][0]["rules"]
RUNBOOKS = ROOT / "docs" / "runbooks"
SAMPLES = {sample for metric in METRICS for sample in metric.samples}


def blocks(page: str) -> list[str]:
    """The lines of a page's shell blocks."""
    return [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines() if line]


def command_of(words: list[str]) -> Any:
    """The command that the words name, as deep as they go."""
    found: Any = typer.main.get_command(app)
    for word in words:
        if not hasattr(found, "get_command"):
            return found
        found = found.get_command(None, word)
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_metrics_that_exist_and_has_a_page(rule: dict[str, Any]) -> None:
    asked = set(re.findall(r"lienthong_[a-z_]+", rule["expr"]))
    assert asked <= SAMPLES
    assert rule["labels"]["severity"] in ("page", "ticket")
    page = (ROOT / rule["annotations"]["runbook"]).read_text()
    assert page.startswith(f"# {rule['alert']}\n")
    assert f"**After**: {rule['for']}." in page
    assert len(blocks(page)) >= 3
    assert f"({Path(rule['annotations']['runbook']).name})" in (RUNBOOKS / "README.md").read_text()


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda page: page.name)
def test_a_page_names_commands_that_exist_with_options_that_they_take(page: Path) -> None:
    for line in blocks(page.read_text()):
        for part in re.findall(r"lienthong (?:[a-z]+ ?)+[^)|\n]*", line.partition("#")[0]):
            words = shlex.split(part.replace("'", " ").replace('"', " "))[1:]
            if line.startswith(("kubectl", "systemctl", "journalctl")):
                continue
            command = command_of(words)
            assert command is not None, line
            options = {name for parameter in command.params for name in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= options | {"--help"}, line


def test_every_alert_has_its_line_in_the_table_of_detection() -> None:
    page = (RUNBOOKS / "README.md").read_text()
    lines = page.split(BEGIN)[1].split(END)[0].splitlines()[2:]
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == [rule["alert"] for rule in RULES]


def test_what_a_rule_waits_is_an_age_and_how_long_it_must_be_so() -> None:
    found = {rule["alert"]: waits(rule) for rule in RULES}
    assert (found["NotPublished"], found["ServiceDown"]) == (120 + 120, 60)
    assert found["EventsMissing"] == 300  # the age in it is another alert's
    rules = (ROOT / "deploy/prometheus/rules.yaml").read_text()
    seen = {"NotPublished": {"cause": "a cut cable", "seconds": 16.4, "factor": 20.0}}
    assert "| NotPublished | a cut cable | 16 s | 20 | 12 s | 4 min |" in table(seen, rules)


def test_only_alerts_that_exist_silence_or_are_silenced() -> None:
    manager = yaml.safe_load((ROOT / "deploy/prometheus/alertmanager.yaml").read_text())
    names = {rule["alert"] for rule in RULES}
    for rule in manager["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            assert set(re.findall(r"[A-Z][A-Za-z]+", matcher)) <= names
    tests = yaml.safe_load((ROOT / "deploy/prometheus/rules_test.yaml").read_text())["tests"]
    assert {test["name"] for test in tests} == {f"{n} {how}" for n in names for how in ("fires", "stays quiet")}
