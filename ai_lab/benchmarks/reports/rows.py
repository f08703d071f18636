"""CSV and data frames: one row for each metric of each arm at each level.

Columns of the file, in order:

* run_id, grade, arm, level_kind (concurrency or rate), level (a number);
* metric, unit, statistic: what ``value`` is (median of a metric's single values, or total of the whole cell);
* value, low, high, confidence, method: the figure, its interval and how that was made; reason: why one is missing;
* n, n_clusters: values it is made of, and how many of those are independent of each other;
* mean, mean_low, mean_high, then p90, p95, p99 and p99.9 with their limits, min, max, standard_deviation;
* definition_version: figures of different versions are not comparable.

An empty field is "not known". Text that a spreadsheet would take for a formula has an apostrophe in front.
"""

from __future__ import annotations

import csv
import io
from typing import Any

from ai_lab.benchmarks.reports.figures import total_unit
from ai_lab.benchmarks.schemas import Cell, Estimate, MetricResult, Run

_PERCENTILES = ("p90", "p95", "p99", "p99.9")
COLUMNS = (
    *("run_id", "grade", "arm", "level_kind", "level", "metric", "unit", "statistic"),
    *("value", "low", "high", "confidence", "method", "reason", "n", "n_clusters", "mean", "mean_low", "mean_high"),
    *(f"{name}{end}" for name in _PERCENTILES for end in ("", "_low", "_high")),
    *("min", "max", "standard_deviation", "definition_version"),
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - spreadsheets take these too


def metric_rows(run: Run) -> list[dict[str, Any]]:
    """Return a row for each metric and each total of every cell, with every column."""
    rows: list[dict[str, Any]] = []
    for cell in run.report.cells if run.report else ():
        rows += [_row(run, cell, name, **_metric(metric)) for name, metric in cell.metrics.items()]
        rows += [
            _row(run, cell, name, unit=total_unit(name), statistic="total", n=cell.counts.all, **_estimate(total))
            for name, total in cell.totals.items()
        ]
    return rows


def csv_text(run: Run) -> str:
    """Return the rows as CSV (RFC 4180) with a line of names."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\r\n")
    writer.writeheader()
    for row in metric_rows(run):
        writer.writerow({name: _safe(value) for name, value in row.items()})
    return file.getvalue()


def _row(run: Run, cell: Cell, name: str, **values: Any) -> dict[str, Any]:
    where = {
        "run_id": run.id,
        "grade": run.report.grade if run.report else None,
        "arm": cell.arm,
        "level_kind": cell.level_kind,
        "level": cell.level,
        "metric": name,
    }
    return {**dict.fromkeys(COLUMNS), **where, **values}


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return estimate.model_dump(include={"value", "low", "high", "confidence", "method", "reason"})


def _metric(metric: MetricResult) -> dict[str, Any]:
    values: dict[str, Any] = {
        "unit": metric.unit,
        "statistic": "median",
        **_estimate(metric.median),
        **metric.model_dump(include={"n", "n_clusters", "min", "max", "standard_deviation", "definition_version"}),
    }
    for name, one in (("mean", metric.mean), *((name, metric.percentiles.get(name)) for name in _PERCENTILES)):
        if one is not None:
            values |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
    return values


def _safe(value: Any) -> Any:
    """Return text so that no spreadsheet runs it as a formula; numbers stay numbers."""
    if not isinstance(value, str):
        return value
    text = value.replace("\x00", "\ufffd")
    return f"'{text}" if text.lstrip().startswith(_FORMULA) or text.startswith(_FORMULA) else text
