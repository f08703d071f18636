"""Prometheus' configuration, rules and their own tests: they name only what exists, and they do what they say."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import pytest

from ai_lab import errors
from ai_lab.errors import LabError
from ai_lab.settings import setting_names
from ai_lab.telemetry.machine.nvml import _THROTTLE_REASONS as THROTTLE_REASONS
from ai_lab.telemetry.prometheus.families import FAMILIES
from tests.deploy.assets import DASHBOARDS, PROMETHEUS, RULE_FILES, RULE_TESTS, read_yaml, rules, vocabulary
from tests.deploy.promql import Series, Unsound, Vocabulary
from tests.prometheus import needs_promtool, promtool

ALERTS = rules("alert")
TESTS = [one for path in RULE_TESTS for one in read_yaml(path)["tests"]]
_FIRING = re.compile(r'ALERTS\{alertname="(\w+)", alertstate="firing"\}')


def _ids(rule: dict[str, Any]) -> str:
    return str(rule.get("alert") or rule["record"])


@needs_promtool
def test_promtool_accepts_the_configuration_and_the_rules() -> None:
    assert (PROMETHEUS / "prometheus.yml").exists()
    result = promtool("check", "config", PROMETHEUS / "prometheus.yml")  # and the rule files that it loads
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(RULE_FILES)} rule files found" in result.stdout
    result = promtool("check", "rules", "--lint=all", "--lint-fatal", *RULE_FILES)
    assert result.returncode == 0, result.stdout + result.stderr


@needs_promtool
@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_the_rules_pass_their_tests(path: Any) -> None:
    result = promtool("test", "rules", path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_configuration_finds_a_lab_where_it_is_by_default() -> None:
    [job] = read_yaml(PROMETHEUS / "prometheus.yml")["scrape_configs"]
    assert job["job_name"] == "ai-lab"
    assert job["static_configs"] == [{"targets": ["127.0.0.1:8001"]}]
    assert "metrics_path" not in job


@pytest.mark.parametrize("rule", rules("record"), ids=_ids)
def test_a_recording_rule_is_sound_and_named_by_convention(rule: dict[str, Any]) -> None:
    labels = vocabulary().labels(rule["expr"])
    assert {"job", "instance"} <= labels, "several labs must stay apart"
    level, metric, operation = rule["record"].split(":")
    own = labels - {"job", "instance"}
    levels = {
        "instance": set[str](),
        "route": {"route"},
        "model": {"provider", "model"},
        "operation": {"operation"},
        "filesystem": {"mountpoint"},
        "gpu": {"gpu"},
    }
    assert own == levels[level]
    assert metric.startswith("ai_lab_")
    assert re.fullmatch(r"(ratio|ratio_rate5m|rate5m|p\d\d_rate5m)", operation)
    assert ("[5m]" in rule["expr"] or "rate5m" in rule["expr"]) == operation.endswith("rate5m")


def test_every_recording_rule_is_used_and_recorded_once() -> None:
    names = [rule["record"] for rule in rules("record")]
    assert len(names) == len(set(names))
    used = " ".join([*(rule["expr"] for rule in rules("record") + ALERTS), str(DASHBOARDS)])
    assert [name for name in names if name not in used] == []


@pytest.mark.parametrize("rule", ALERTS, ids=_ids)
def test_an_alert_is_sound_and_says_what_to_do(rule: dict[str, Any]) -> None:
    labels = vocabulary().labels(rule["expr"])
    assert {"job", "instance"} <= labels, "an alert must say which lab"
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "description"}
    texts = " ".join(rule["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", texts)) <= labels
    assert {"instance", "provider"} & set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    named = set(re.findall(r"AI_LAB_[A-Z_]+\*?", texts))
    settings = set(setting_names().values())
    assert [one for one in named if not any(name.startswith(one.rstrip("*")) for name in settings)] == []
    assert {one for one in named if not one.endswith("*")} <= settings
    assert set(re.findall(r"AILab[A-Z]\w+", texts)) <= {alert["alert"] for alert in ALERTS}


@pytest.mark.parametrize("rule", ALERTS, ids=_ids)
def test_an_alert_is_shown_to_fire_and_not_to_fire(rule: dict[str, Any]) -> None:
    expected: dict[str, list[bool]] = defaultdict(list)
    for test in TESTS:
        for one in test.get("promql_expr_test", ()):
            if match := _FIRING.fullmatch(one["expr"]):
                expected[match[1]].append(bool(one["exp_samples"]))
    assert set(expected) <= {alert["alert"] for alert in ALERTS}
    assert set(expected[rule["alert"]]) == {True, False}


def test_the_series_in_the_tests_exist_with_exactly_their_labels() -> None:
    """A test over a name that nobody exports proves a rule that never fires."""
    known = vocabulary()
    for test in TESTS:
        for one in test["input_series"]:
            name, given = one["series"].split("{")
            labels = set(re.findall(r"(\w+)=", given))
            assert known.series_labels(name) == labels, one["series"]
            for bound in re.findall(r'le="(.*?)"', given):
                bounds = {str(bucket) for bucket in FAMILIES[name.removesuffix("_bucket")].buckets}
                assert bound in bounds | {"+Inf"}, one["series"]


def test_the_errors_that_the_rules_name_exist() -> None:
    codes = {one.code for one in vars(errors).values() if isinstance(one, type) and issubclass(one, LabError)}
    texts = [path.read_text(encoding="utf-8") for path in (*RULE_FILES, *RULE_TESTS)]
    named = {
        code
        for text in texts
        for match in re.findall(r'llm_\w+\{[^}]*?error_type\S*?"(.*?)"', text)
        for code in match.split("|")
    }
    assert named
    assert named <= codes


def test_the_reasons_to_slow_down_are_those_that_are_read() -> None:
    named = re.findall(r'throttle\w*\{[^}]*reason=~?"(.*?)"', " ".join(alert["expr"] for alert in ALERTS))
    assert len(named) == 1
    assert set(named[0].split("|")) < set(THROTTLE_REASONS.values())


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("rate(hits_total[5m]) / sizes", "never matches"),
        ("sum by (colour) (rate(hits_total[5m]))", "colour"),
        ("hits_total > 3", "without rate"),
        ("rate(size[5m])", "is a gauge"),
        ("nothing", "nothing exports"),
        ('size{colour="red"}', "no label colour"),
        ("histogram_quantile(0.9, sum by (job) (rate(times_bucket[5m])))", "le"),
        ("histogram_quantile(0.9, rate(times_count[5m]))", "le"),
        ("hits_total / on (job) group_left (colour) size", "without rate"),
        ("rate(hits_total[5m]) / on (job) group_left (colour) size", "colour"),
        ("size and on (route) size", "on"),
    ],
)
def test_an_unsound_expression_is_found(expression: str, complaint: str) -> None:
    known = Vocabulary(
        {
            "hits_total": Series("counter", frozenset({"job", "route"})),
            "size": Series("gauge", frozenset({"job"})),
            "sizes": Series("gauge", frozenset({"job"})),
            "times_bucket": Series("counter", frozenset({"job", "le"})),
            "times_count": Series("counter", frozenset({"job"})),
        }
    )
    with pytest.raises(Unsound, match=complaint):
        known.labels(expression)


@pytest.mark.parametrize(
    ("expression", "labels"),
    [
        ("sum by (route) (rate(hits_total[5m])) > 1", {"route"}),
        ("sum without (route) (rate(hits_total[5m])) / on (job) size", {"job"}),
        ("histogram_quantile(0.9, sum by (job, le) (rate(times_bucket[5m])))", {"job"}),
        ("rate(hits_total[5m]) / on (job) group_left () size", {"job", "route"}),
        ("time() - size", {"job"}),
        ("count(size) or vector(0)", set()),
        ("predict_linear(size[6h], 3600) < 0 and size > 3", {"job"}),
    ],
)
def test_a_sound_expression_has_these_labels(expression: str, labels: set[str]) -> None:
    known = Vocabulary(
        {
            "hits_total": Series("counter", frozenset({"job", "route"})),
            "size": Series("gauge", frozenset({"job"})),
            "times_bucket": Series("counter", frozenset({"job", "le"})),
        }
    )
    assert known.labels(expression) == labels
