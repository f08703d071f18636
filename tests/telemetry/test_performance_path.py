"""The import path of earlier programs, in a process without a server."""

import asyncio
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ai_lab.errors import InvalidRequest
from ai_lab.performance import PerformanceMonitor, monitor_performance, performance_monitor
from ai_lab.telemetry.operations.local import LocalTelemetry
from ai_lab.telemetry.prometheus.families import FAMILIES
from tests.fakes.nvml import TWO_GPUS, FakeNvml

ROOT = Path(__file__).resolve().parents[2]
FLAT = {
    "cpu_usage_percent",
    "memory_usage_percent",
    "memory_usage_bytes",
    "gpu_utilization_percent",
    "gpu_memory_used_mb",
    "gpu_memory_total_mb",
    "gpu_temperature_c",
}
NOTEBOOK = """
import sys
from ai_lab.performance import monitor_performance, performance_monitor

@monitor_performance("square")
def square(number):
    return number * number

square(3)
heavy = {"sqlalchemy", "pydantic", "prometheus_client", "psutil", "structlog", "httpx"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""


def by_name(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in rows}


def test_timing_functions_loads_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", NOTEBOOK], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


async def test_the_machine_has_the_earlier_names() -> None:
    figures = await performance_monitor.collect_system_metrics()
    assert set(figures) == FLAT
    assert figures["memory_usage_bytes"] is not None
    assert figures["memory_usage_bytes"] > 1e6
    assert figures["cpu_usage_percent"] is not None
    assert 0 <= figures["cpu_usage_percent"] <= 100


async def test_the_summary_holds_what_this_process_did() -> None:
    telemetry = LocalTelemetry()
    monitor = PerformanceMonitor(telemetry)
    for number in range(100):
        telemetry.function("training", number / 1000, failed=number % 10 == 0)
    for loss in (0.5, 0.25, 0.75):
        await monitor.record_metric("loss", loss, session_id="any")
    summary = await monitor.get_performance_summary(hours=1)
    assert {"uptime_seconds", "current_metrics", "timestamp"} <= set(summary)
    assert set(summary["current_metrics"]) >= FLAT
    training = by_name(summary["functions"])["training"]
    assert (training["count"], training["errors"], training["error_rate"]) == (100, 10, 0.1)
    assert training["p50_ms"] == pytest.approx(49, rel=0.01)
    assert training["max_ms"] == 99
    assert summary["recorded"] == {"loss": {"count": 3, "sum": 1.5, "min": 0.25, "max": 0.75, "last": 0.75}}
    assert summary["http"]["requests"] == 0


async def test_a_day_of_slots_stays_small() -> None:
    """They are kept in every program, also in a server, which never asks for them."""
    summary = await PerformanceMonitor(LocalTelemetry()).get_performance_summary(hours=1)
    assert datetime.fromisoformat(summary["window"]["from"]).timestamp() % 300 == 0


SLEEPING_DRIVER = """
import asyncio, threading, time
from pathlib import Path
from ai_lab.performance import performance_monitor

def wake_up():
    while not (script.with_name("script.calls")).exists():
        time.sleep(0.01)
    time.sleep(1)
    script.write_text({awake!r})

script = Path({script!r})
waking = threading.Thread(target=wake_up)
waking.start()
print(asyncio.run(performance_monitor.collect_system_metrics())["gpu_utilization_percent"] is not None)
waking.join()
print([thread.name for thread in threading.enumerate()])
"""


def test_a_driver_that_takes_a_second_to_wake_up_is_waited_for(nvml: FakeNvml) -> None:
    nvml.script(TWO_GPUS, "hang nvmlInitWithFlags")
    program = SLEEPING_DRIVER.format(awake=TWO_GPUS + "\n", script=nvml.environment["FAKE_NVML_SCRIPT"])
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | nvml.environment,
    )
    assert done.stdout.splitlines() == ["True", "['MainThread']"]


async def test_decorated_functions_are_in_the_shared_summary() -> None:
    @performance_monitor.time_operation("earlier decorator")
    def earlier() -> int:
        return 1

    @monitor_performance("new decorator")
    async def new() -> int:
        return 2

    assert earlier() + await new() == 3
    functions = by_name((await performance_monitor.get_performance_summary(24))["functions"])
    assert functions["earlier decorator"]["count"] == functions["new decorator"]["count"] == 1


async def test_prometheus_text_has_calls_and_the_machine() -> None:
    telemetry = LocalTelemetry()
    monitor = PerformanceMonitor(telemetry)
    for number in range(1, 101):
        telemetry.function("training", number / 100, failed=number == 1)
    await monitor.collect_system_metrics()
    families = {family.name: family for family in text_string_to_metric_families(monitor.get_prometheus_metrics())}
    samples = {
        (sample.name, sample.labels.get("le")): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert samples["ai_lab_function_calls_total", None] == 100
    assert samples["ai_lab_function_failures_total", None] == 1
    assert samples["ai_lab_function_duration_seconds_count", None] == 100
    assert samples["ai_lab_function_duration_seconds_sum", None] == pytest.approx(50.5)
    assert samples["ai_lab_function_duration_seconds_bucket", "0.1"] == 10
    assert samples["ai_lab_function_duration_seconds_bucket", "+Inf"] == 100
    assert "ai_lab_host_memory_total_bytes" in families
    counters = {f"{name}_total" for name, family in families.items() if family.type == "counter"}
    others = {name for name, family in families.items() if family.type != "counter"}
    assert counters | others <= set(FAMILIES)


async def test_what_cannot_be_done_says_so() -> None:
    with pytest.raises(InvalidRequest, match="requests: should be greater"):
        await performance_monitor.benchmark_llm_inference("echo/echo", "prompt", iterations=0)
    with pytest.raises(InvalidRequest, match="number"):
        await performance_monitor.record_metric("loss", "low")  # type: ignore[arg-type]  # wrong on purpose
    for value in (float("nan"), float("inf"), 10**400):
        with pytest.raises(InvalidRequest, match="finite"):
            await performance_monitor.record_metric("loss", value)
    for hours in (0, -1, 17_521, float("nan"), float("inf")):
        with pytest.raises(InvalidRequest, match="hours"):
            await performance_monitor.get_performance_summary(hours)


def test_it_works_from_loop_to_loop() -> None:
    monitor = PerformanceMonitor(LocalTelemetry())
    for _ in range(2):
        assert asyncio.run(monitor.collect_system_metrics())["memory_usage_bytes"]
