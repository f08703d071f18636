"""The rules and dashboards as data, and all that their expressions may name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # its types are a package that nothing else here needs

from ai_lab.telemetry.prometheus.families import GATEWAY, HOST, OPERATIONS, PROCESS
from tests.deploy.promql import TARGET_LABELS, Series, Vocabulary
from tests.server import ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
RULE_FILES = sorted((PROMETHEUS / "rules").glob("*.yml"))
RULE_TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
DASHBOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((GRAFANA / "dashboards").glob("*.json"))
}

#: What Prometheus itself writes.
_STANDARD = {
    "up": Series("gauge", TARGET_LABELS),
    "ALERTS": Series("gauge", TARGET_LABELS | {"alertname", "alertstate", "severity"}),
}


def read_yaml(path: Path) -> Any:
    """Return the content of one file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rules(kind: str) -> list[dict[str, Any]]:
    """Return all rules of a kind, ``record`` or ``alert``, in the order in which they stand."""
    groups = [group for path in RULE_FILES for group in read_yaml(path)["groups"]]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


@cache
def vocabulary() -> Vocabulary:
    """Return what exists: families with a capability behind them, standard series, and what our rules record."""
    known = Vocabulary(_STANDARD | dict(_exported()))
    for rule in rules("record"):  # one may build on those before it
        known.add(rule["record"], known.labels(rule["expr"]))
    return known


def _exported() -> Iterator[tuple[str, Series]]:
    for family in (*HOST, *OPERATIONS, *GATEWAY, *PROCESS):
        labels = TARGET_LABELS | set(family.labels)
        if family.kind == "histogram":
            yield f"{family.name}_bucket", Series("counter", labels | {"le"})
            yield f"{family.name}_sum", Series("counter", labels)
            yield f"{family.name}_count", Series("counter", labels)
        else:
            yield family.name, Series("counter" if family.kind == "counter" else "gauge", labels)


@dataclass(frozen=True, slots=True)
class Target:
    """One query of a panel."""

    dashboard: str
    panel: str
    expression: str
    legend: str

    def runnable(self) -> str:
        """Return the expression as Grafana sends it: its variables at "All" and an hour shown."""
        text = self.expression.replace("$__rate_interval", "1m").replace("$__range", "1h")
        for variable in ("instance", "provider", "model", "route"):
            text = text.replace(f'"${variable}"', '".*"')
        return text


def panels(name: str) -> list[dict[str, Any]]:
    """Return the panels of a dashboard without its row headings."""
    return [panel for panel in DASHBOARDS[name]["panels"] if panel["type"] != "row"]


def targets() -> list[Target]:
    """Return every query of every dashboard."""
    return [
        Target(name, panel["title"], target["expr"], target.get("legendFormat", ""))
        for name in DASHBOARDS
        for panel in panels(name)
        for target in panel["targets"]
    ]
