"""``docs/monitoring.md`` against what it describes."""

from __future__ import annotations

import re

from ai_lab.settings import setting_names
from ai_lab.telemetry.prometheus.families import FAMILIES, Family
from tests.deploy.assets import DASHBOARDS, PROMETHEUS, rules
from tests.server import ROOT

PAGE = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")


def _section(name: str) -> str:
    return PAGE.partition(f"<!-- {name} -->")[2].partition(f"<!-- end of {name} -->")[0]


def metric_row(family: Family) -> str:
    """Return the row of a family in the page's tables."""
    labels = ", ".join(f"`{label}`" for label in family.labels)
    return f"| `{family.name}` | {family.kind} | {labels} | {family.help} |"


def test_the_tables_show_every_metric_as_it_is() -> None:
    rows = [line for line in _section("metrics").splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(metric_row(family) for family in FAMILIES.values())


def test_the_table_shows_every_alert_with_its_severity() -> None:
    shown = re.findall(r"^\| `(\w+)` \| (\w+) \| .+ \|$", _section("alerts"), re.MULTILINE)
    assert shown == [(rule["alert"], rule["labels"]["severity"]) for rule in rules("alert")]


def test_the_table_shows_every_dashboard() -> None:
    shown = re.findall(r"^\| (AI Lab / \w+) \|", PAGE, re.MULTILINE)
    assert sorted(shown) == sorted(board["title"] for board in DASHBOARDS.values())


def test_settings_and_files_that_are_named_exist() -> None:
    assert set(re.findall(r"\b(?:AI_LAB|ENABLE|API)_[A-Z_]+", PAGE)) <= set(setting_names().values())
    named = re.findall(r"deploy/[\w/.]+\w", PAGE)
    assert str(PROMETHEUS.relative_to(ROOT) / "prometheus.yml") in named
    assert [name for name in named if not (ROOT / name).exists()] == []
