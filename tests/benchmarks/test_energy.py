"""Energy of a run: by the GPU's counter, without what the idle machine takes, and only where it was seen."""

from __future__ import annotations

from typing import Any

import pytest

from ai_lab.benchmarks.analysis.run_data import RunData
from ai_lab.benchmarks.analysis.summary import analyse
from ai_lab.benchmarks.records import Sample
from ai_lab.benchmarks.schemas import Cell
from tests.benchmarks.built_records import ORIGIN_NS, SECOND, built_run, quiet_samples


def only_cell(data: RunData) -> Cell:
    (cell,) = analyse(data).cells
    return cell


def total(cell: Cell, name: str) -> float | None:
    return cell.totals[name].value


def powered(watts: float, count: int, start_ns: int) -> list[Sample]:
    """Return samples whose GPU counted exactly ``watts``."""
    samples = quiet_samples(count)
    for number, sample in enumerate(samples):
        sample.at_ns = start_ns + number * SECOND // 4
        sample.gpus = [{"index": 0, "power_watts": watts, "energy_joules": watts * (sample.at_ns / SECOND)}]
    return samples


def energy_run(**changes: Any) -> RunData:
    # Twenty requests in 18.4 s of two blocks at 300 W; the idle machine takes 50 W.
    busy = powered(300.0, 90, ORIGIN_NS - SECOND)
    idle = powered(50.0, 9, ORIGIN_NS - 10 * SECOND)
    offset = busy[0].gpus[0]["energy_joules"] - idle[-1].gpus[0]["energy_joules"]
    assert offset > 0
    return built_run(None, samples=busy, idle_before=idle, **changes)


def test_energy_is_the_counters_and_marginal_without_the_idle_power() -> None:
    cell = only_cell(energy_run())

    assert total(cell, "mean_watts") == pytest.approx(300.0)
    assert total(cell, "joules_per_token_gross") == pytest.approx(300 * 18.4 / 220)
    assert total(cell, "joules_per_request") == pytest.approx(300 * 18.4 / 20)
    assert total(cell, "joules_per_token_marginal") == pytest.approx(250 * 18.4 / 220)
    assert cell.totals["mean_watts"].method == "GPU energy counter"


def test_the_counter_counts_where_power_readings_say_otherwise() -> None:
    data = energy_run()
    for sample in data.samples:
        sample.gpus[0]["power_watts"] = 200.0

    assert total(only_cell(data), "mean_watts") == pytest.approx(300.0)


def test_integrated_power_stands_in_where_there_is_no_counter() -> None:
    data = energy_run()
    for sample in (*data.samples, *data.idle_before):
        sample.gpus[0]["energy_joules"] = None

    cell = only_cell(data)

    assert total(cell, "mean_watts") == pytest.approx(300.0)
    assert cell.totals["mean_watts"].method == "GPU power integrated over time"


def test_the_energy_of_another_machine_is_unavailable() -> None:
    data = energy_run()
    data.provenance["targets"][data.plan.arm_names()[0]]["is_local"] = False

    assert not any(name.startswith(("joules", "mean_watts")) for name in only_cell(data).totals)


def test_energy_is_unavailable_where_samples_do_not_cover_the_requests() -> None:
    data = energy_run()
    data.samples = data.samples[:30]

    assert "mean_watts" not in only_cell(data).totals
