"""The dashboards and their provisioning: valid, tidy, and over metrics and labels that exist."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from ai_lab.settings import setting_names
from ai_lab.telemetry.prometheus.families import GATEWAY
from tests.deploy.assets import DASHBOARDS, GRAFANA, Target, panels, read_yaml, rules, targets, vocabulary
from tests.deploy.promql import Unsound, selectors
from tests.prometheus import needs_promtool, promtool

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
#: Those of Grafana that the dashboards may use, so that a misspelt one, which is shown as text, is found.
UNITS = {"none", "short", "percentunit", "bytes", "Bps", "s", "celsius", "watt", "kwatth", "hertz"}
UNITS |= {"reqps", "reqpm", "ops", "suffix: tokens/s", "suffix: tokens", "suffix: cores", "suffix: /min", "currencyUSD"}
PANELS = [(name, panel) for name in DASHBOARDS for panel in panels(name)]
NAMES = [f"{name}: {panel['title']}" for name, panel in PANELS]


def test_there_is_a_dashboard_for_each_part() -> None:
    assert set(DASHBOARDS) == {"system", "inference", "gateway", "api", "database"}
    assert {name: board["uid"] for name, board in DASHBOARDS.items()} == {name: f"ai-lab-{name}" for name in DASHBOARDS}


@pytest.mark.parametrize("board", DASHBOARDS.values(), ids=DASHBOARDS)
def test_a_dashboard_can_be_imported_anywhere(board: dict[str, Any]) -> None:
    assert board["id"] is None
    assert "__inputs" not in board, "only the import by hand fills these in"
    assert "__requires" not in board
    assert board["title"].startswith("AI Lab / ")
    assert board["tags"] == ["ai-lab"]
    assert board["time"]["to"] == "now"
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert list(variables)[:2] == ["datasource", "instance"]
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    used = set(re.findall(r"\$\{?([a-z]\w*)", str(board)))
    assert used - set(variables) == set()
    assert set(variables) - used == set()


@pytest.mark.parametrize("board", DASHBOARDS.values(), ids=DASHBOARDS)
def test_a_variable_offers_values_of_a_label_that_exists(board: dict[str, Any]) -> None:
    for variable in board["templating"]["list"][1:]:
        assert variable["datasource"] == DATASOURCE
        assert variable["query"]["query"] == variable["definition"]
        match = re.fullmatch(r"label_values\((\w+)(\{.*\})?, (\w+)\)", variable["definition"])
        assert match
        selected = vocabulary().series_labels(match[1])
        assert {match[3], *re.findall(r"(\w+)=~", match[2] or "")} <= selected
        assert match[3] == variable["name"]
        assert variable["allValue"] == ".*"


@pytest.mark.parametrize("board", DASHBOARDS.values(), ids=DASHBOARDS)
def test_panels_lie_beside_each_other_and_not_on_top(board: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    taken = []
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["w"] > 0
        assert place["h"] > 0
        assert place["x"] + place["w"] <= 24
        taken.append((place["x"], place["x"] + place["w"], place["y"], place["y"] + place["h"], panel["title"]))
    for a, b in combinations(taken, 2):
        apart = a[1] <= b[0] or b[1] <= a[0] or a[3] <= b[2] or b[3] <= a[2]
        assert apart, f"{a[4]} and {b[4]}"


@pytest.mark.parametrize("panel", [panel for _, panel in PANELS], ids=NAMES)
def test_a_panel_explains_itself(panel: dict[str, Any]) -> None:
    assert panel["type"] in {"timeseries", "stat", "heatmap", "table"}
    assert panel["datasource"] == DATASOURCE
    assert len(panel["description"]) > 80, "what it says, and what to do when it looks bad"
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["targets"]
    assert [target["refId"] for target in panel["targets"]] == [*"ABCDEFGH"[: len(panel["targets"])]]
    for target in panel["targets"]:
        assert target["datasource"] == DATASOURCE
        assert target.get("legendFormat") or panel["type"] in {"stat", "table"}
    named = set(re.findall(r"AI_LAB_[A-Z_]+", panel["description"]))
    assert named <= set(setting_names().values())
    assert set(re.findall(r"AILab[A-Z]\w+", panel["description"])) <= {rule["alert"] for rule in rules("alert")}


def _target_id(target: Target) -> str:
    return f"{target.dashboard}: {target.panel}: {target.legend}"


@pytest.mark.parametrize("target", targets(), ids=_target_id)
def test_an_expression_is_sound_and_its_legend_has_values(target: Target) -> None:
    assert "$" not in target.runnable(), "an unknown variable"
    labels = vocabulary().labels(target.runnable())
    assert set(re.findall(r"\{\{(\w+)\}\}", target.legend)) <= labels


@pytest.mark.parametrize("target", targets(), ids=_target_id)
def test_the_choices_at_the_top_reach_every_series(target: Target) -> None:
    """A choice that changes only a part of a page misleads."""
    known = {variable["name"] for variable in DASHBOARDS[target.dashboard]["templating"]["list"]} - {"datasource"}
    # What is not about requests to models or routes has no such labels: the machine, the event loop, the log.
    for name, matchers in selectors(target.expression.replace("$__rate_interval", "1m").replace("$__range", "1h")):
        for variable in known & vocabulary().series_labels(name):
            assert f'{variable}=~"${variable}"' in matchers, f"{name}: {matchers}"


@pytest.mark.parametrize("target", targets(), ids=_target_id)
def test_series_told_apart_are_told_apart_in_the_legend(target: Target) -> None:
    if target.legend and target.legend != "{{le}}":
        labels = vocabulary().labels(target.runnable()) - {"job"}
        assert set(re.findall(r"\{\{(\w+)\}\}", target.legend)) == labels


@needs_promtool
def test_promtool_accepts_every_expression(tmp_path: Path) -> None:
    """The parser that the other tests use is not Prometheus' own."""
    named = [{"record": f"panel:{number}", "expr": target.runnable()} for number, target in enumerate(targets())]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": named}]}), encoding="utf-8")  # JSON is YAML
    result = promtool("check", "rules", "--lint=none", file)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(named)} rules found" in result.stdout


def test_all_that_the_gateway_counts_is_shown() -> None:
    shown = " ".join(target.expression for target in targets() if target.dashboard == "gateway")
    assert [family.name for family in GATEWAY if family.name not in shown] == []


def test_a_metric_that_is_gone_would_be_noticed() -> None:
    with pytest.raises(Unsound, match="nothing exports ai_lab_llm_cache_luck_total"):
        vocabulary().labels('ai_lab_llm_cache_luck_total{instance=~".*"}')


def test_provisioning_offers_what_the_dashboards_ask_for() -> None:
    [source] = read_yaml(GRAFANA / "provisioning" / "datasources" / "prometheus.yml")["datasources"]
    assert source["type"] == "prometheus"
    assert source["isDefault"] is True
    assert source["url"] == "http://127.0.0.1:9090"
    scrape = read_yaml(GRAFANA.parent / "prometheus" / "prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scrape
    [provider] = read_yaml(GRAFANA / "provisioning" / "dashboards" / "ai-lab.yml")["providers"]
    assert provider["type"] == "file"
    assert provider["allowUiUpdates"] is False
