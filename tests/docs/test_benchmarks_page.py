"""``docs/benchmarks.md`` against what it describes."""

from __future__ import annotations

import re

from ai_lab.benchmarks.analysis.metrics import METRICS, Metric
from tests.server import ROOT

PAGE = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def metric_row(metric: Metric) -> str:
    """Return the row of a metric in the page's table."""
    return f"| `{metric.name}` | {metric.unit} | {metric.better} | {metric.formula} |"


def test_the_table_shows_every_metric_as_it_is() -> None:
    table = PAGE.partition("<!-- metrics -->")[2].partition("<!-- end of metrics -->")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert rows == [metric_row(metric) for metric in METRICS.values()]


def test_commands_and_options_that_are_named_exist() -> None:
    source = (ROOT / "ai_lab" / "cli" / "bench_command.py").read_text(encoding="utf-8")
    for option in re.findall(r" --([a-z][a-z-]+)", PAGE.partition("<!-- peers -->")[0]):
        assert f'"--{option}"' in source or f"{option.replace('-', '_')}:" in source, option
    for command in re.findall(r"ai-lab bench (\w+)", PAGE):
        assert f"def {command}(" in source or f'command("{command}")' in source, command
