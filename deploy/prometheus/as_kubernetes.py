"""`make alerts`: the alert rules as a resource for the Prometheus operator, so that there is one file of rules.

python -m deploy.prometheus.as_kubernetes
"""

from pathlib import Path
from typing import Any

import yaml

RULES = Path(__file__).with_name("rules.yaml")
WRITTEN = Path(__file__).parents[1] / "kubernetes" / "alerts.yaml"
HEAD = "# Written by `make alerts` from deploy/prometheus/rules.yaml: change the rules there.\n"


def prometheus_rule() -> dict[str, Any]:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "lienthong"},
        "spec": yaml.safe_load(RULES.read_text(encoding="utf-8")),
    }


def written() -> str:
    return HEAD + yaml.safe_dump(prometheus_rule(), sort_keys=False, width=1000)


if __name__ == "__main__":
    WRITTEN.write_text(written(), encoding="utf-8")
