"""Whether a cell's figures changed while they were taken, and how many of its requests were still warming up."""

from __future__ import annotations

import numpy as np

from ai_lab.benchmarks.analysis.cells import CellData
from ai_lab.benchmarks.analysis.drift import Drift, is_drift, measure_drift, warmup_count
from ai_lab.benchmarks.analysis.metrics import METRICS, is_open, values_of
from ai_lab.benchmarks.plan import Plan
from ai_lab.benchmarks.schemas import Stability


def stability_of(cell: CellData, plan: Plan) -> Stability:
    """Look at the cell in order of time.

    Drift is judged on what the plan is about: time per token in a closed loop, time from the intended moment to the
    first token in an open one, where a server that does not keep up shows. What is left out as warm-up is found on
    time per token and, in a closed loop, on time to the first token (in an open one that grows with the queue too).
    """
    candidates = ["ttft_sched", "ttft"] if is_open(plan) else ["tpot", "ttft"]
    of = {name: values_of(METRICS[name], cell.records) for name in ("tpot", "ttft", "ttft_sched")}
    dropped = 0
    for name in ("tpot",) if is_open(plan) else ("tpot", "ttft"):
        places = np.flatnonzero(~np.isnan(of[name]))
        count = warmup_count(of[name][places])
        dropped = max(dropped, int(places[count]) if count else 0)
    name = next((name for name in candidates if not np.isnan(of[name]).all()), candidates[0])
    values = of[name][dropped:]
    drift = measure_drift(values[~np.isnan(values)])
    return Stability(
        metric=name,
        drift_percent=drift.percent,
        drift_p_value=drift.p_value,
        lag1_autocorrelation=drift.lag1_autocorrelation,
        is_stable=_is_stable(drift, cell),
        dropped_as_warmup=dropped,
    )


def _is_stable(drift: Drift, cell: CellData) -> bool | None:
    # Requests that overlap share the server's state and are alike next to each other; their intervals are by blocks
    # or batches and allow for it, so that only a drift makes them unstable.
    if not cell.is_overlapping or drift.percent is None or drift.p_value is None:
        return drift.is_stable
    return not is_drift(drift.percent, drift.p_value)
