"""`make detection`: how long each alert takes from its cause to the operator, as tests/system/test_alerts.py has measured it,
as a table of docs/runbooks/README.md.

    python -m tests.detection
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.observability import RULES, seconds, shortened

ROOT = Path(__file__).parents[1]
FOUND = ROOT / "build" / "detection.json"
PAGE = ROOT / "docs" / "runbooks" / "README.md"
BEGIN, END = "<!-- detection:begin -->\n", "<!-- detection:end -->\n"


def waits(rule: dict[str, Any]) -> float:
    """Seconds that a rule waits by itself: how old something must be, and for how long that must be so."""
    age = re.match(r"\w+_(?:behind|oldest|since_[a-z]+)_seconds\S* > ([\d.]+)", rule["expr"])
    return seconds(rule["for"]) + (float(age[1]) if age else 0.0)


def table(found: Mapping[str, Mapping[str, Any]], rules: str) -> str:
    """The measured times beside what the rules wait by themselves, shortened as they were then and as they are shipped; an alert
    that was not measured says so."""
    lines = [
        "| alert | what was planted | told after | windows divided by | of which the rule waits | as shipped it waits |",
        "|---|---|---|---|---|---|",
    ]
    for place, rule in enumerate(_rules(rules)):
        shipped = f"{waits(rule) / 60:g} min"
        if (seen := found.get(rule["alert"])) is None:
            lines.append(f"| {rule['alert']} | not measured | | | | {shipped} |")
            continue
        short = waits(_rules(shortened(rules, seen["factor"]))[place])
        measured = f"{seen['seconds']:.0f} s | {seen['factor']:g} | {short:.0f} s"
        lines.append(f"| {rule['alert']} | {seen['cause']} | {measured} | {shipped} |")
    return "\n".join(lines) + "\n"


def _rules(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(text)["groups"][0]["rules"]
    return found


def main() -> int:
    try:
        written = table(json.loads(FOUND.read_text(encoding="utf-8")), RULES.read_text(encoding="utf-8"))
    except FileNotFoundError:
        print(f"{FOUND} is not there: python -m pytest -m system tests/system/test_alerts.py", file=sys.stderr)
        return 1
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    PAGE.write_text(before + BEGIN + written + END + rest.split(END)[1], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
