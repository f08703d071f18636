"""What Prometheus reads is clean in both formats, with and without load, and costs nobody else anything."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from ai_lab.logging import RequestIds, request_ids
from ai_lab.telemetry.machine.host import Counters
from ai_lab.telemetry.machine.sampler import Snapshot, SourceStatus
from ai_lab.telemetry.prometheus.exposition import Exposition, wants_exposition
from ai_lab.telemetry.prometheus.families import FAMILIES
from ai_lab.telemetry.prometheus.host_collector import HostCollector
from ai_lab.telemetry.prometheus.instruments import Instruments
from ai_lab.telemetry.schemas import (
    CpuMetrics,
    FilesystemMetrics,
    GpuBackend,
    GpuMetrics,
    GpuProcess,
    MemoryMetrics,
    MigInstance,
    ProcessMetrics,
    SystemMetrics,
    TemperatureMetrics,
)
from tests.telemetry.scrape import Recorded, lint, parse, samples_of

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROMTOOL = pytest.mark.skipif(not Path("/usr/bin/promtool").exists(), reason="promtool is not installed")


class Source:
    """A sampler that says what it is told to."""

    def __init__(self, snapshot: Snapshot | None) -> None:
        self.snapshot = snapshot
        self.statuses = {"host": SourceStatus(1_700_000_000.0, 0.001, {"OSError": 2}), "gpu": SourceStatus()}

    def latest(self) -> Snapshot | None:
        return self.snapshot


def snapshot(age_seconds: float = 0.0, *, limit_cores: float | None = None) -> Snapshot:
    """Return one in which everything is there that any machine could have."""
    gpu = GpuMetrics(
        index=0,
        uuid="GPU-1",
        name='A "fast"\\one',
        utilization_percent=42,
        memory_total_bytes=100,
        memory_used_bytes=60,
        temperature_celsius=61,
        energy_joules=12.5,
        clock_mhz={"sm": 1500},
        throttle_reasons=["power_cap"],
        is_mig=True,
        mig_instances=[MigInstance(index=1, memory_total_bytes=50, memory_used_bytes=5)],
        processes=[
            GpuProcess(pid=7, name="python3", memory_bytes=10),
            GpuProcess(pid=8, name="/usr/bin/ollama", memory_bytes=20),
            GpuProcess(pid=9, name="game-of-the-user", memory_bytes=1),
            GpuProcess(pid=10, name=None, memory_bytes=2),
        ],
    )
    metrics = SystemMetrics(
        timestamp=datetime.now(UTC),
        sample_age_seconds=0,
        cpu_usage_percent=10,
        memory_usage_percent=50,
        memory_usage_bytes=500,
        scope="container",
        interval_seconds=5,
        cpu=CpuMetrics(
            count=2, effective_count=1.5, usage_percent=10, load_average=[0.1, 0.2, 0.3], limit_cores=limit_cores
        ),
        memory=MemoryMetrics(
            total_bytes=1000,
            available_bytes=500,
            used_bytes=500,
            usage_percent=50,
            swap_total_bytes=0,
            swap_used_bytes=0,
            limit_bytes=1000,
            working_set_bytes=500,
        ),
        filesystems=[FilesystemMetrics(mountpoint="/", total_bytes=10, free_bytes=5, used_percent=50)],
        disks=[],
        network=[],
        temperatures=[TemperatureMetrics(chip="coretemp", sensor="Package", celsius=55)],
        gpus=[gpu, GpuMetrics(index=1, unavailable={"utilization_percent": "not_supported"})],
        gpu_backend=GpuBackend(status="ok", driver_version="580.1", cuda_version="13.0"),
        process=ProcessMetrics(pid=7, name="python", cpu_percent=1, rss_bytes=1, uptime_seconds=1),
        children=[],
    )
    counters = Counters(
        cpu_seconds={("0", "user"): 12.0, ("0", "idle"): 100.0},
        disk_read_bytes={"sda": 1},
        disk_written_bytes={"sda": 2},
        network_receive_bytes={"eth0": 3},
        network_transmit_bytes={"eth0": 4},
        container_cpu_seconds=5.0,
        container_throttled_seconds=None,
        container_oom_kills=0,
    )
    return Snapshot(datetime.now(UTC), time.monotonic() - age_seconds, counters, metrics, is_continuous=True)


def loaded() -> Instruments:
    """Return instruments that have seen every kind of thing."""
    instruments = Instruments(Recorded())
    instruments.registry.register(HostCollector(Source(snapshot()), interval_seconds=5))
    token = request_ids.set(RequestIds("request", "0af7651916cd43dd8448eb211c80319c"))
    for status in (200, 404, 500):
        instruments.request_began()
        instruments.request_ended("GET", "/conversations/{session_id}", status, 0.02, 0.01, has_left=status == 200)
    request_ids.reset(token)
    instruments.function("load", 0.5, failed=True)
    instruments.database("select", 0.01, False)
    instruments.database("write_wait", 0.01, True)
    instruments.database_size({"db": 4096, "wal": 0})
    instruments.database_connections(lambda: 1)
    instruments.health({"database": "healthy"})
    instruments.event_loop_lag(0.001)
    gateway = instruments.gateway
    gateway.cache_lookup("exact", True)
    gateway.limited("tokens")
    gateway.retry("openai", "provider_timeout")
    gateway.fallback("openai", "embedded")
    gateway.breaker("openai", "gpt", "open")
    gateway.breakers(lambda: [("openai", "gpt", "half_open")])
    gateway.waiting(lambda: [("openai", 3)])
    gateway.cost("openai", "gpt", 125_000)
    gateway.cost("openai", "other", None)
    gateway.budget_refusal("openai")
    return instruments


async def test_refusals_begin_at_0_where_a_service_is_charged() -> None:
    instruments = Instruments(Recorded())
    instruments.gateway.cost("openai", "gpt", 125_000)
    text, _ = await Exposition(instruments.registry).render("")
    assert 'ai_lab_llm_budget_refusals_total{provider="openai"} 0.0\n' in text.decode()


@pytest.mark.parametrize(
    ("accept", "wanted", "content_type"),
    [
        (PROMETHEUS, True, OPENMETRICS_TYPE),
        (f"{PROTOBUF},{PROMETHEUS}", True, OPENMETRICS_TYPE),
        ("text/plain;version=0.0.4;q=0.9,application/openmetrics-text;q=0.1", True, TEXT_TYPE),
        ("text/plain", True, TEXT_TYPE),
        ("application/openmetrics-text; version=2.0.0", True, OPENMETRICS_TYPE),
        ("application/openmetrics-text;q=0, text/plain", True, TEXT_TYPE),
        ("", False, TEXT_TYPE),
        ("*/*", False, TEXT_TYPE),
        (BROWSER, False, TEXT_TYPE),
        ("application/json", False, TEXT_TYPE),
        ("application/json, text/plain, */*", False, TEXT_TYPE),
        ("application/json;q=0.1, text/plain", True, TEXT_TYPE),
        ("text/plain;q=0", False, TEXT_TYPE),
        (";;,q=,text/plain;q=high", False, TEXT_TYPE),
    ],
)
async def test_the_accept_header_decides(accept: str, wanted: bool, content_type: str) -> None:
    assert wants_exposition(accept) is wanted
    assert (await Exposition(Instruments(Recorded()).registry).render(accept))[1] == content_type


@pytest.mark.parametrize("is_loaded", [False, True])
async def test_both_formats_say_the_same_and_only_what_is_declared(is_loaded: bool) -> None:
    instruments = loaded() if is_loaded else Instruments(Recorded())
    strict = await samples_of(instruments.registry)
    text, _ = await Exposition(instruments.registry).render("")
    names = {sample.name for family in parse_text(text.decode()) for sample in family.samples}
    assert names == set(strict)
    assert not [name for name in names if name.endswith("_created")]
    for name in names:
        family = FAMILIES.get(name) or FAMILIES[name.rpartition("_")[0]]
        for sample in strict[name].values():
            assert set(sample.labels) - {"le"} == set(family.labels)


@PROMTOOL
@pytest.mark.parametrize("is_loaded", [False, True])
async def test_promtool_has_nothing_to_say(is_loaded: bool) -> None:
    text, _ = await Exposition((loaded() if is_loaded else Instruments(Recorded())).registry).render("")
    assert await lint(text) == (0, "")


@PROMTOOL
async def test_promtool_would_have_said_something() -> None:
    assert (await lint(b"# TYPE a_bytes_count gauge\na_bytes_count 1\n"))[0] != 0


async def test_slow_requests_lead_to_their_trace() -> None:
    text, _ = await Exposition(loaded().registry).render(PROMETHEUS)
    buckets = parse(text.decode())["ai_lab_http_request_duration_seconds_bucket"].values()
    traces = {sample.exemplar.labels["trace_id"] for sample in buckets if sample.exemplar}
    assert traces == {"0af7651916cd43dd8448eb211c80319c"}


async def test_the_machine_is_shown_as_far_as_it_tells() -> None:
    instruments = Instruments(Recorded())
    instruments.registry.register(HostCollector(Source(snapshot()), interval_seconds=5))
    shown = await samples_of(instruments.registry)
    assert shown["ai_lab_host_cpu_seconds_total"]["0", "user"].value == 12
    assert "ai_lab_container_cpu_limit_cores" not in shown
    assert "ai_lab_container_cpu_throttled_seconds_total" not in shown
    assert shown["ai_lab_gpus"]["nvidia",].value == 2
    assert {key: sample.value for key, sample in shown["ai_lab_gpu_utilization_ratio"].items()} == {("0",): 0.42}
    assert shown["ai_lab_gpu_clock_hertz"]["sm", "0"].value == 1.5e9
    assert shown["ai_lab_gpu_throttle_active"]["0", "power_cap"].value == 1
    assert {key[1]: sample.value for key, sample in shown["ai_lab_gpu_process_memory_used_bytes"].items()} == {
        "ai-lab": 10,
        "ollama": 20,
        "other": 3,
    }
    assert shown["ai_lab_sampler_errors_total"]["OSError", "host"].value == 2
    assert list(shown["ai_lab_sampler_last_success_timestamp_seconds"]) == [("host",)]


async def test_a_container_with_a_cpu_limit_shows_its_own_processor_time_only() -> None:
    instruments = Instruments(Recorded())
    instruments.registry.register(HostCollector(Source(snapshot(limit_cores=1.5)), interval_seconds=5))
    shown = await samples_of(instruments.registry)
    assert "ai_lab_host_cpu_seconds_total" not in shown
    assert shown["ai_lab_container_cpu_seconds_total"][()].value == 5
    assert shown["ai_lab_container_cpu_limit_cores"][()].value == 1.5
    assert shown["ai_lab_host_disk_read_bytes_total"]["sda",].value == 1


async def test_names_that_are_no_text_break_no_scrape_and_stay_apart() -> None:
    instruments = Instruments(Recorded())
    taken = snapshot()
    for name in ("Mus\udce9e", "Mus\udce8e"):
        taken.counters.disk_read_bytes[name] = 1
    instruments.registry.register(HostCollector(Source(taken), interval_seconds=5))
    for name in ("\udc80", "\udc81", "\ud800"):
        instruments.function(name, 0.1)
    shown = await samples_of(instruments.registry)
    assert len(shown["ai_lab_host_disk_read_bytes_total"]) == 3
    assert len(shown["ai_lab_function_calls_total"]) == 3


async def test_the_machine_can_be_left_to_others() -> None:
    instruments = Instruments(Recorded())
    instruments.registry.register(HostCollector(Source(snapshot()), interval_seconds=5, shows_host=False))
    shown = await samples_of(instruments.registry)
    assert not [name for name in shown if name.startswith(("ai_lab_host_", "ai_lab_container_"))]
    assert "ai_lab_gpu_utilization_ratio" in shown


@pytest.mark.parametrize("latest", [None, snapshot(age_seconds=25.5)])
async def test_old_figures_vanish_and_the_time_of_the_last_success_stays(latest: Snapshot | None) -> None:
    instruments = Instruments(Recorded())
    instruments.registry.register(HostCollector(Source(latest), interval_seconds=5))
    shown = await samples_of(instruments.registry)
    assert not [name for name in shown if name.startswith(("ai_lab_host_", "ai_lab_container_", "ai_lab_gpu"))]
    assert shown["ai_lab_sampler_last_success_timestamp_seconds"]["host",].value == 1_700_000_000


async def test_scrapes_at_the_same_time_share_one_rendering() -> None:
    instruments = loaded()
    renderings = 0

    def counted() -> int:
        nonlocal renderings
        renderings += 1
        return 0

    instruments.database_connections(counted)
    shown = Exposition(instruments.registry)
    first = asyncio.create_task(shown.render(""))
    await asyncio.sleep(0)
    others = [asyncio.create_task(shown.render("")) for _ in range(9)]
    await asyncio.sleep(0)
    first.cancel()  # a scraper that gives up takes nothing from the others
    texts = await asyncio.gather(*others)
    assert renderings == 1
    assert len({text for text, _ in texts}) == 1
    await shown.render("")
    assert renderings == 2


async def test_rendering_does_not_hold_up_the_event_loop() -> None:
    instruments = loaded()
    threads: list[int] = []

    def read() -> int:
        threads.append(threading.get_ident())
        return 0

    instruments.database_connections(read)
    await Exposition(instruments.registry).render(PROMETHEUS)
    assert threads
    assert threading.get_ident() not in threads
