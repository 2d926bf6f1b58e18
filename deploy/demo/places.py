"""The demo's three sites: a ward, the land registration branch of its area, and the province above both.

The sample province is cut in three: what a lower site does not know of itself comes down its link.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.demo.sample import SAMPLE

PROVINCE, AREA, WARD = "H55", "H55.24.5", "H55.226"
SITES: Final = (PROVINCE, AREA, WARD)
UPPER: Final[Mapping[str, str]] = {AREA: PROVINCE, WARD: AREA}
HANDED_OVER: Final = "1.012783"  # a procedure of the province: a lower site that knows it has got the directory

# How a site tells, whatever else it knows: each of the three tells its own applicants.
_TELLING: Final = ("providers", "quiet_hours", "sms", "carriers")


def load_places() -> dict[str, dict[str, Any]]:
    """The bundle of each site by its code."""
    sample: dict[str, Any] = yaml.safe_load(SAMPLE.read_text(encoding="utf-8"))
    agencies = {entry["code"]: entry for entry in sample["agencies"]}
    for code in UPPER:
        agencies[code]["site"] = code
    lower = {
        code: {
            "site": {"code": code, "name": agencies[code]["name"], "upper": upper},
            "agencies": _with_those_above(code, agencies),
            **{name: sample[name] for name in _TELLING},
        }
        for code, upper in UPPER.items()
    }
    return {PROVINCE: sample, **lower}


def _with_those_above(code: str, agencies: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """An agency and its parents, whom a bundle must name."""
    entry = agencies[code]
    above = _with_those_above(entry["parent"], agencies) if entry["parent"] else []
    return [*above, entry]


def write_bundles(folder: Path) -> dict[str, Path]:
    """The bundle's file of each site."""
    folder.mkdir(exist_ok=True)
    files = {code: folder / f"{code}.yaml" for code in SITES}
    for code, content in load_places().items():
        files[code].write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return files


def workplaces() -> Mapping[str, str | None]:
    """The site on which each agency works; None: the site that hands over to it."""
    return {entry["code"]: entry["site"] for entry in load_places()[PROVINCE]["agencies"]}
