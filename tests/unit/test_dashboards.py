"""The dashboards ask only for metrics that exist, and show all that do."""

import json
import re
from pathlib import Path
from typing import Any

from shared.observe.metrics import METRICS

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards"


def queries() -> list[str]:
    boards: list[dict[str, Any]] = [json.loads(file.read_text()) for file in sorted(FOLDER.glob("*.json"))]
    return [target["expr"] for board in boards for panel in board["panels"] for target in panel["targets"]]


def test_a_query_names_metrics_that_exist() -> None:
    known = {sample for metric in METRICS for sample in metric.samples}
    assert {name for query in queries() for name in re.findall(r"lienthong_[a-z_]+", query)} <= known


def test_every_metric_is_on_a_dashboard() -> None:
    asked = " ".join(queries())
    assert [metric.name for metric in METRICS if not any(sample in asked for sample in metric.samples)] == []
