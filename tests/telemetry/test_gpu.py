"""What the real bindings tell of GPUs, on a driver that does what a script says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ai_lab.telemetry.machine.gpu_processes import process_name
from ai_lab.telemetry.schemas import GpuProcess
from tests.fakes.nvml import GIB, NO_SUCH_PID, TWO_GPUS, FakeNvml
from tests.telemetry.gpu_expectations import expect_sound, values_of

MINUTE = 60.0


def test_everything_of_two_gpus(nvml: FakeNvml) -> None:
    own = os.getpid()
    processes = [
        f"process nvmlDeviceGetComputeRunningProcesses_v3 0 {own} {GIB}",
        f"process nvmlDeviceGetComputeRunningProcesses_v3 0 {NO_SUCH_PID} {2 * GIB}",
        f"process nvmlDeviceGetGraphicsRunningProcesses_v3 0 {own} {GIB}",
        f"process nvmlDeviceGetGraphicsRunningProcesses_v3 0 1 {2**64 - 1}",
    ]
    nvml.script(TWO_GPUS, *processes)
    with nvml.reader() as reader:
        reading = reader.read()
    expect_sound(reading.gpus, reading.backend)
    assert reading.backend.model_dump() == {
        "name": "nvml",
        "status": "ok",
        "driver_version": "580.95.05",
        "cuda_version": "13.1",
        "detail": None,
    }
    first, second = reading.gpus
    assert (first.index, first.uuid, first.name) == (0, "GPU-aaaa", "NVIDIA Fake 4000")
    assert values_of(reading.gpus[0]) == {
        "utilization_percent": 42,
        "memory_activity_percent": 17,
        "memory_total_bytes": 24 * GIB,
        "memory_used_bytes": 6 * GIB,
        "memory_reserved_bytes": GIB,
        "memory_free_bytes": 17 * GIB,
        "temperature_celsius": 61,
        "power_watts": 123.456,
        "power_limit_watts": 350,
        "energy_joules": 98765432.1,
        "fan_speed_percent": 30,
    }
    assert first.clock_mhz == {"graphics": 1800, "sm": 1795, "memory": 10501, "video": 1500}
    assert first.throttle_reasons == ["sw_power_cap", "sw_thermal_slowdown"]
    names = {process.pid: process.name for process in first.processes or ()}
    assert names[own]
    assert [process.model_copy(update={"name": None}) for process in first.processes or ()] == [
        GpuProcess(pid=1, name=None, memory_bytes=None),
        GpuProcess(pid=own, name=None, memory_bytes=GIB),
        GpuProcess(pid=NO_SUCH_PID, name=None, memory_bytes=2 * GIB),
    ]
    assert names[NO_SUCH_PID] is None
    assert (second.uuid, second.utilization_percent, second.processes) == ("GPU-bbbb", 0, [])
    assert second.throttle_reasons == [], "an idle GPU is not held back"
    assert not first.unavailable
    assert not second.unavailable
    assert reading.logged == ["INFO GPUs: 2, NVIDIA driver 580.95.05"]


def test_the_driver_is_opened_once_and_slow_things_are_asked_rarely(nvml: FakeNvml) -> None:
    with nvml.reader() as reader:
        first = reader.read()
        calls = nvml.calls()
        assert (calls["nvmlInitWithFlags"], calls["nvmlDeviceGetHandleByIndex_v2"]) == (1, 2)
        for _ in range(3):
            later = reader.read(advance=5.0, with_processes=False)
        calls = nvml.calls()
        assert calls["nvmlDeviceGetUtilizationRates"] == 3 * 2
        assert not calls.keys() & {
            "nvmlInitWithFlags",
            "nvmlDeviceGetHandleByIndex_v2",
            "nvmlDeviceGetName",
            "nvmlDeviceGetUUID",
            "nvmlSystemGetDriverVersion",
            "nvmlDeviceGetFanSpeed",
            "nvmlDeviceGetMigMode",
            "nvmlDeviceGetComputeRunningProcesses_v3",
            "nvmlDeviceGetGraphicsRunningProcesses_v3",
        }
        assert later.gpus == first.gpus
        assert not later.logged
        old = reader.read(advance=MINUTE, with_processes=False).gpus[0]
        assert (old.fan_speed_percent, old.processes) == (None, None)
        assert old.unavailable == {"fan_speed_percent": "not_read", "processes": "not_read"}
        assert reader.read().gpus == first.gpus


@pytest.mark.parametrize(
    ("function", "fields"),
    [
        ("nvmlDeviceGetUtilizationRates", {"utilization_percent", "memory_activity_percent"}),
        ("nvmlDeviceGetTemperatureV", {"temperature_celsius"}),
        ("nvmlDeviceGetPowerUsage", {"power_watts"}),
        ("nvmlDeviceGetEnforcedPowerLimit", {"power_limit_watts"}),
        ("nvmlDeviceGetTotalEnergyConsumption", {"energy_joules"}),
        ("nvmlDeviceGetFanSpeed", {"fan_speed_percent"}),
        ("nvmlDeviceGetComputeRunningProcesses_v2", {"processes"}),
        ("nvmlDeviceGetCurrentClocksEventReasons", {"throttle_reasons"}),
    ],
)
@pytest.mark.parametrize(("code", "reason"), [(3, "not_supported"), (4, "no_permission"), (999, "unknown")])
def test_what_one_gpu_does_not_tell_is_absent(
    nvml: FakeNvml, function: str, fields: set[str], code: int, reason: str
) -> None:
    nvml.script(TWO_GPUS, f"fail {function} 1 {code}", f"fail {function.replace('_v2', '_v3')} 1 {code}")
    with nvml.reader() as reader:
        reading = reader.read()
    expect_sound(reading.gpus, reading.backend)
    first, second = reading.gpus
    assert reading.backend.status == "ok"
    assert not first.unavailable
    assert second.unavailable == dict.fromkeys(fields, reason)
    assert all(getattr(first, field) is not None and getattr(second, field) is None for field in fields)


def test_a_clock_that_a_gpu_does_not_have_is_absent(nvml: FakeNvml) -> None:
    nvml.script(TWO_GPUS, "value nvmlDeviceGetClockInfo 1 1800 1795 10501")
    with nvml.reader() as reader:
        gpu = reader.read().gpus[1]
    assert gpu.clock_mhz == {"graphics": 1800, "sm": 1795, "memory": 10501}
    assert gpu.unavailable == {"clock_mhz.video": "not_supported"}


@pytest.mark.parametrize("code", [3, 25, 999])
def test_earlier_memory_figures_where_there_are_no_others(nvml: FakeNvml, code: int) -> None:
    nvml.script(TWO_GPUS, f"fail nvmlDeviceGetMemoryInfo_v2 0 {code}")
    with nvml.reader() as reader:
        reading = reader.read()
    expect_sound(reading.gpus, reading.backend)
    gpu = reading.gpus[0]
    assert (gpu.memory_used_bytes, gpu.memory_free_bytes, gpu.memory_reserved_bytes) == (7 * GIB, 17 * GIB, None)
    assert gpu.unavailable.keys() == {"memory_reserved_bytes"}


def test_memory_shared_with_the_processor_is_absent(nvml: FakeNvml) -> None:
    nvml.script(TWO_GPUS, "fail nvmlDeviceGetMemoryInfo * 3", "fail nvmlDeviceGetMemoryInfo_v2 * 3")
    with nvml.reader() as reader:
        reading = reader.read()
    expect_sound(reading.gpus, reading.backend)
    assert reading.gpus[0].memory_total_bytes is None
    assert reading.gpus[0].temperature_celsius == 61


def test_an_earlier_driver_without_newer_functions(nvml: FakeNvml) -> None:
    nvml.install("earlier")
    process = f"process nvmlDeviceGetComputeRunningProcesses_v2 0 {NO_SUCH_PID} {GIB}"
    nvml.script(TWO_GPUS, process, "fail nvmlDeviceGetTemperature 1 3")
    with nvml.reader() as reader:
        reading = reader.read()
    expect_sound(reading.gpus, reading.backend)
    gpu = reading.gpus[0]
    assert gpu.unavailable == {"memory_reserved_bytes": "function_not_found"}
    assert (gpu.temperature_celsius, gpu.throttle_reasons) == (60, ["sw_power_cap"])
    assert reading.gpus[1].unavailable["temperature_celsius"] == "not_supported", "by the function that is there"
    assert gpu.processes == [GpuProcess(pid=NO_SUCH_PID, name=None, memory_bytes=GIB)]


def test_a_name_that_is_no_text(nvml: FakeNvml) -> None:
    nvml.script(TWO_GPUS, "text nvmlDeviceGetName 0 NVIDIA \xff\xfe", "text nvmlSystemGetDriverVersion * \xff")
    with nvml.reader() as reader:
        reading = reader.read()
    assert reading.backend.status == "ok"
    assert reading.backend.driver_version is None
    assert [gpu.name for gpu in reading.gpus] == [None, "NVIDIA Fake 4000"]
    assert reading.gpus[0].unavailable == {"name": "not_readable"}


def test_slices_of_a_partitioned_gpu(nvml: FakeNvml) -> None:
    mig = ["mig 0 2", f"process nvmlDeviceGetComputeRunningProcesses_v3 0 {NO_SUCH_PID} {GIB}"]
    nvml.script(TWO_GPUS, *mig, "value nvmlDeviceGetUtilizationRates 0 0 0")
    with nvml.reader() as reader:
        reading = reader.read()
        expect_sound(reading.gpus, reading.backend)
        gpu, plain = reading.gpus
        assert gpu.is_mig
        assert (gpu.utilization_percent, gpu.memory_activity_percent) == (None, None)
        assert gpu.unavailable == {"utilization_percent": "mig", "memory_activity_percent": "mig"}
        assert gpu.memory_total_bytes == 24 * GIB
        assert [each.model_dump() for each in gpu.mig_instances] == [
            {
                "index": index,
                "uuid": f"MIG-GPU-aaaa-{index}",
                "memory_total_bytes": 12 * GIB,
                "memory_used_bytes": 3 * GIB,
            }
            for index in (0, 1)
        ]
        assert gpu.processes == [GpuProcess(pid=NO_SUCH_PID, name=None, memory_bytes=2 * GIB)], "both slices together"
        assert not plain.is_mig
        with nvml.reader() as other:
            first = other.read(with_processes=False).gpus[0]
            assert (first.utilization_percent, len(first.mig_instances)) == (None, 2), "known from the beginning"
        assert reader.read(advance=5.0, with_processes=False).gpus == reading.gpus
        nvml.script(TWO_GPUS, "mig 0 3")
        assert len(reader.read(advance=5.0).gpus[0].mig_instances) == 3
        nvml.script(TWO_GPUS)
        assert reader.read(advance=5.0).gpus[0].utilization_percent == 42


def test_a_process_of_another_container_gets_no_name(tmp_path: Path) -> None:
    own = os.getpid()
    assert process_name(own, tmp_path), "no containers here"
    namespace = tmp_path / "self" / "ns" / "pid"
    descriptors = tmp_path / str(own) / "fd"
    for folder in (namespace.parent, descriptors):
        folder.mkdir(parents=True)
    namespace.symlink_to("pid:[4026532205]")
    (descriptors / "0").symlink_to("/dev/null")
    assert process_name(own, tmp_path) is None
    assert process_name(NO_SUCH_PID, tmp_path) is None
    (descriptors / "4").symlink_to("/dev/nvidia0")
    assert process_name(own, tmp_path)
    namespace.unlink()
    namespace.symlink_to("pid:[4026531836]")
    (descriptors / "4").unlink()
    assert process_name(own, tmp_path), "the machine itself"
