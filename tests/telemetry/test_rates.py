"""What two readings come to: shares, rates and gaps, on readings made up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ai_lab.telemetry.machine.cgroup import ContainerCpu, ContainerMemory, ContainerReading
from ai_lab.telemetry.machine.devices import DiskCounters, NetworkCounters
from ai_lab.telemetry.machine.host import HostReading, SlowReading
from ai_lab.telemetry.machine.rates import counters, derive, is_continuous
from ai_lab.telemetry.schemas import (
    FilesystemMetrics,
    GpuBackend,
    GpuMetrics,
    GpuProcess,
    SystemMetrics,
    TemperatureMetrics,
)
from tests.telemetry.readings import GIB, core, process, reading

_NO_GPU = GpuBackend(status="no_gpu")


def _derive(earlier: HostReading, later: HostReading) -> SystemMetrics:
    return derive(earlier, later, [], _NO_GPU)


def test_processor_time_by_mode() -> None:
    grown = core(user=2.0, nice=0.5, system=1.0, idle=3.0, iowait=1.0, irq=0.25, softirq=0.25, steal=2.0)
    metrics = _derive(reading(), reading(10, cpu_seconds=[grown, core(idle=10.0)]))
    assert metrics.cpu.usage_percent == metrics.cpu_usage_percent == pytest.approx(30.0)
    assert metrics.cpu.per_core_percent == pytest.approx([60.0, 0.0])
    assert metrics.cpu.user_percent == pytest.approx(12.5)
    assert metrics.cpu.system_percent == pytest.approx(7.5)
    assert metrics.cpu.iowait_percent == pytest.approx(5.0)
    assert metrics.cpu.steal_percent == pytest.approx(10.0)
    assert (metrics.scope, metrics.interval_seconds, metrics.sample_age_seconds) == ("host", 10.0, 0.0)


def test_modes_that_a_system_does_not_have_are_absent() -> None:
    cores = [{"user": 1.0, "system": 1.0, "idle": 8.0}], [{"user": 2.0, "system": 1.0, "idle": 9.0}]
    cpu = _derive(reading(cpu_seconds=cores[0]), reading(2, cpu_seconds=cores[1])).cpu
    assert (cpu.usage_percent, cpu.user_percent, cpu.system_percent) == (50.0, 50.0, 0.0)
    assert cpu.iowait_percent is cpu.steal_percent is None


@pytest.mark.parametrize(
    "later",
    [
        pytest.param([core(user=-5.0, idle=20.0), core(idle=10.0)], id="reset"),
        pytest.param([core(idle=10.0)], id="a core has gone"),
        pytest.param([core(idle=10.0)] * 3, id="a core has come"),
        pytest.param([], id="unreadable"),
        pytest.param([core(), core()], id="no time has passed"),
    ],
)
def test_without_a_sound_interval_there_is_no_share(later: list[dict[str, float]]) -> None:
    cpu = _derive(reading(), reading(10, cpu_seconds=later)).cpu
    assert cpu.usage_percent is cpu.user_percent is None
    assert cpu.per_core_percent is None
    assert cpu.count == (len(later) or 2)


def test_small_corrections_by_the_kernel_are_no_reset() -> None:
    later = [core(user=5.0, idle=5.0, iowait=-0.02, steal=-0.01), core(idle=10.0)]
    cpu = _derive(reading(), reading(10, cpu_seconds=later)).cpu
    assert cpu.usage_percent == pytest.approx(25.0)
    assert (cpu.iowait_percent, cpu.steal_percent) == (0.0, 0.0)
    before = counters(reading())
    after = counters(reading(10, cpu_seconds=later), before)
    assert after.cpu_seconds["0", "iowait"] == before.cpu_seconds["0", "iowait"]
    assert after.cpu_seconds["0", "user"] == 55.0
    restarted = counters(reading(20, cpu_seconds=[dict.fromkeys(core(), 0.5)] * 2), after)
    assert restarted.cpu_seconds["0", "user"] == 0.5


def test_traffic_of_devices() -> None:
    later = reading(
        5,
        disks={"sda": DiskCounters(60_000, 20_000, 6.5), "sdb": DiskCounters(1, 1, 1.0)},
        network={"eth0": NetworkCounters(5_500, 16_000), "wlan0": NetworkCounters(1, 1)},
    )
    metrics = _derive(reading(), later)
    assert [disk.model_dump() for disk in metrics.disks] == [
        {"device": "sda", "read_bytes_per_second": 10_000, "write_bytes_per_second": 0, "busy_percent": 50}
    ]
    assert [nic.model_dump() for nic in metrics.network] == [
        {"interface": "eth0", "receive_bytes_per_second": 100, "transmit_bytes_per_second": 2_000}
    ]


def test_counters_that_go_backwards_give_no_rate() -> None:
    earlier = reading(disks={"sda": DiskCounters(9, 9, 9.0), "sdb": DiskCounters(9, 9, 9.0)})
    later = reading(
        5,
        disks={"sda": DiskCounters(10, 8, 10.0), "sdb": DiskCounters(10, 10, 1.0)},
        network={"eth0": NetworkCounters(4_999, 6_001)},
        pressure_seconds={"cpu": 0.0},
        process=process(cpu_seconds=2.0),
    )
    metrics = _derive(earlier, later)
    assert [(disk.device, disk.busy_percent) for disk in metrics.disks] == [("sdb", None)]
    assert metrics.network == []
    assert metrics.cpu.pressure_percent is metrics.memory.pressure_percent is metrics.process.cpu_percent is None


def test_devices_that_vanish_are_just_gone() -> None:
    metrics = _derive(reading(children=[process(7)]), reading(5, disks={}, network={}))
    assert not metrics.disks
    assert not metrics.network
    assert not metrics.children


def test_memory_and_pressure() -> None:
    later = reading(10, pressure_seconds={"cpu": 3.5, "memory": 0.5}, swap_used_bytes=5)
    metrics = _derive(reading(), later)
    assert (metrics.memory_usage_bytes, metrics.memory_usage_percent) == (2 * GIB, 25.0)
    assert (metrics.memory.total_bytes, metrics.memory.available_bytes) == (8 * GIB, 6 * GIB)
    assert (metrics.memory.swap_total_bytes, metrics.memory.swap_used_bytes) == (GIB, 5)
    assert (metrics.cpu.pressure_percent, metrics.memory.pressure_percent) == (25.0, 0.0)
    assert metrics.memory.limit_bytes is metrics.memory.working_set_bytes is None


def test_processes() -> None:
    later = reading(10, process=process(cpu_seconds=18.0), children=[process(7, 9.0), process(8, 1.0)])
    metrics = _derive(reading(children=[process(7, 4.0)]), later)
    assert (metrics.process.cpu_percent, metrics.process.uptime_seconds) == (150.0, 110.0)
    assert [(child.pid, child.cpu_percent) for child in metrics.children] == [(7, 50.0), (8, None)]


def test_a_container_with_both_limits() -> None:
    limit = ContainerCpu(0.5, 10.0, 6.0, 4.0, 100, 10, 1.0, 2.0)
    memory = ContainerMemory(GIB, GIB // 4, GIB // 2, 7, 0, 1.0)
    later = replace(limit, used_seconds=14.0, user_seconds=9.0, system_seconds=5.0, pressure_seconds=4.0)
    later = replace(later, periods=200, throttled_periods=35)
    metrics = _derive(
        reading(container=ContainerReading(limit, memory)),
        reading(10, container=ContainerReading(later, replace(memory, pressure_seconds=2.0))),
    )
    assert metrics.scope == "container"
    cpu = metrics.cpu
    assert (cpu.count, cpu.effective_count, cpu.limit_cores) == (2, 0.5, 0.5)
    assert (cpu.usage_percent, cpu.user_percent, cpu.system_percent) == (80.0, 60.0, 20.0)
    assert (cpu.throttled_percent, cpu.pressure_percent) == (25.0, 20.0)
    assert cpu.load_average is cpu.per_core_percent is None
    assert cpu.steal_percent is cpu.iowait_percent is None
    assert (metrics.memory_usage_percent, metrics.memory.total_bytes, metrics.memory.limit_bytes) == (25.0, GIB, GIB)
    assert metrics.memory.available_bytes == GIB - GIB // 4
    assert (metrics.memory.swap_total_bytes, metrics.memory.swap_used_bytes) == (GIB // 2, 7)
    assert metrics.memory.pressure_percent == 10.0


def test_a_limit_that_is_new_or_changed_gives_no_share_yet() -> None:
    later = reading(10, container=ContainerReading(ContainerCpu(0.5, 10.0), None))
    assert _derive(reading(), later).cpu_usage_percent is None
    other = reading(container=ContainerReading(ContainerCpu(1.0, 1.0), None))
    assert _derive(other, later).cpu_usage_percent is None


def test_a_limit_of_memory_leaves_the_processors_to_the_machine() -> None:
    container = ContainerReading(None, ContainerMemory(7 * GIB, GIB // 2))
    later = reading(10, cpu_seconds=[core(user=10.0), core(idle=10.0)], container=container)
    metrics = _derive(reading(container=container), later)
    assert metrics.scope == "container"
    assert metrics.cpu_usage_percent == pytest.approx(50.0)
    assert metrics.memory.available_bytes == 6 * GIB, "the machine itself has no more"
    assert metrics.memory.swap_total_bytes is metrics.memory.swap_used_bytes is None


def test_flat_gpu_figures_are_all_of_the_first_gpu() -> None:
    gpus = [
        GpuMetrics(index=0, memory_total_bytes=24 * GIB, memory_used_bytes=GIB, temperature_celsius=61.0, is_mig=True),
        GpuMetrics(index=1, memory_total_bytes=GIB, memory_used_bytes=GIB // 2, utilization_percent=90.0),
    ]
    metrics = derive(reading(), reading(5), gpus, GpuBackend(status="ok"))
    assert (metrics.gpu_memory_total_mb, metrics.gpu_memory_used_mb) == (24 * 1024, 1024)
    assert (metrics.gpu_utilization_percent, metrics.gpu_temperature_c) == (None, 61.0)
    none = _derive(reading(), reading(5))
    assert none.gpu_memory_total_mb is none.gpu_memory_used_mb is None
    assert none.gpu_utilization_percent is none.gpu_temperature_c is None


def test_names_that_are_no_text_can_be_written_as_json_and_stay_apart() -> None:
    names = "Mus\udce9e", "Mus\udce8e", "Musée"
    later = reading(
        5,
        disks={name: DiskCounters(1, 1, 1.0) for name in names},
        network={name: NetworkCounters(1, 1) for name in names},
        children=[process(number, name=name) for number, name in enumerate(names)],
        slow=SlowReading(
            taken_at=100.0,
            filesystems=[
                FilesystemMetrics(mountpoint=f"/media/{name}", total_bytes=2, free_bytes=1, used_percent=50)
                for name in names
            ],
            temperatures=[TemperatureMetrics(chip=name, sensor=name, celsius=20) for name in names],
            frequency_mhz=None,
        ),
    )
    holders = [GpuProcess(pid=number, name=name, memory_bytes=1) for number, name in enumerate(names)]
    gpus = [GpuMetrics(index=0, name=names[0], processes=holders)]
    metrics = derive(later, replace(later, monotonic_seconds=110.0), gpus, GpuBackend(status="ok"))
    read = SystemMetrics.model_validate_json(metrics.model_dump_json())
    assert read == metrics
    for shown in (
        [filesystem.mountpoint for filesystem in read.filesystems],
        [disk.device for disk in read.disks],
        [nic.interface for nic in read.network],
        [sensor.sensor for sensor in read.temperatures],
        [child.name for child in read.children],
        [holder.name for holder in read.gpus[0].processes or ()],
    ):
        assert len(set(shown)) == 3
        assert shown[2] is not None
        assert shown[2].endswith("Musée")


@pytest.mark.parametrize(("shift_seconds", "expected"), [(0.0, True), (0.9, True), (1.1, False), (-1.1, False)])
def test_clocks_that_disagree_break_the_line(shift_seconds: float, expected: bool) -> None:
    earlier, later = reading(), reading(5)
    shifted = replace(later, taken_at=reading(5 + shift_seconds).taken_at)
    assert is_continuous(earlier, later)
    assert is_continuous(earlier, shifted) is expected
