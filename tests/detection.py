"""`make detection`: how long each alert takes from its cause to the operator, as tests/system/test_alerts.py has measured it,
as a table of docs/runbooks/README.md.

    python -m tests.detection
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.observability import RULES, seconds, shortened

ROOT = Path(__file__).parents[1]
FOUND = ROOT / "build" / "alerts.json"
PAGE = ROOT / "docs" / "runbooks" / "README.md"
BEGIN, END = "<!-- detection:begin -->\n", "<!-- detection:end -->\n"


def waits(rule: dict[str, Any]) -> float:
    """Seconds that a rule waits by itself: how old something must be, and for how long that must be so."""
    age = re.search(r"_(?:behind|oldest|since_[a-z]+)_seconds\S* > ([\d.]+)", rule["expr"])
    return seconds(rule["for"]) + (float(age[1]) if age else 0.0)


def table(found: dict[str, Any], rules: str) -> str:
    """The measured times beside what the rules wait by themselves, shortened and as they are shipped. Raises KeyError when an
    alert was not measured."""
    factor: float = found["factor"]
    shipped, short = (yaml.safe_load(text)["groups"][0]["rules"] for text in (rules, shortened(rules, factor)))
    lines = [
        f"| alert | what was planted | told after, windows ÷ {factor:.0f} | of which the rule waits | as shipped it waits |",
        "|---|---|---|---|---|",
    ]
    for rule, quick in zip(shipped, short, strict=True):
        seen = found["alerts"][rule["alert"]]
        lines.append(
            f"| {rule['alert']} | {seen['cause']} | {seen['seconds']:.0f} s | {waits(quick):.0f} s | {waits(rule) / 60:g} min |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    try:
        written = table(json.loads(FOUND.read_text(encoding="utf-8")), RULES.read_text(encoding="utf-8"))
    except FileNotFoundError:
        print(f"{FOUND} is not there: python -m pytest -m system tests/system/test_alerts.py", file=sys.stderr)
        return 1
    except KeyError as missing:
        print(f"{missing} was not measured: run the whole of tests/system/test_alerts.py", file=sys.stderr)
        return 1
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    PAGE.write_text(before + BEGIN + written + END + rest.split(END)[1], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
