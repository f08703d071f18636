"""What the scripted GPUs are held to, on the real ones of this machine."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest

from ai_lab.telemetry.machine.gpu import GpuReader
from ai_lab.telemetry.schemas import GpuMetrics
from tests.telemetry.gpu_expectations import expect_sound

_TIMEOUT_SECONDS = 60.0  # starting a driver that sleeps takes seconds


@pytest.fixture(scope="module")
def reader() -> Iterator[GpuReader]:
    reader = GpuReader(timeout_seconds=_TIMEOUT_SECONDS)
    gpus, backend = reader.read(with_processes=True)
    if not any(gpu.name for gpu in gpus):
        reader.close()
        pytest.skip(f"no NVIDIA GPU that can be read here: {backend.status}, {backend.detail}")
    yield reader
    reader.close()


def test_real_gpus_are_sound(reader: GpuReader) -> None:
    gpus, backend = reader.read(with_processes=True)
    expect_sound(gpus, backend)
    assert all(gpu.uuid and gpu.name and gpu.memory_total_bytes for gpu in gpus)
    assert len({gpu.uuid for gpu in gpus}) == len(gpus)


def test_real_energy_only_grows_and_agrees_with_power(reader: GpuReader) -> None:
    def readable() -> dict[str | None, GpuMetrics]:
        return {gpu.uuid: gpu for gpu in reader.read(with_processes=False)[0] if gpu.energy_joules is not None}

    earlier, began = readable(), time.monotonic()
    if not earlier:
        pytest.skip("no GPU here counts its energy")
    time.sleep(2.0)
    later, seconds = readable(), time.monotonic() - began
    for uuid, gpu in later.items():
        joules = (gpu.energy_joules or 0.0) - (earlier[uuid].energy_joules or 0.0)
        assert joules > 0.0
        assert joules / seconds < 2.0 * (gpu.power_limit_watts or 2000.0)


def test_real_slow_values_are_carried_along(reader: GpuReader) -> None:
    with_them, _ = reader.read(with_processes=True)
    without, _ = reader.read(with_processes=False)
    for asked, carried in zip(with_them, without, strict=True):
        assert (carried.processes, carried.fan_speed_percent) == (asked.processes, asked.fan_speed_percent)


def test_a_closed_reader_says_so_and_another_one_starts(reader: GpuReader, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        other = GpuReader(timeout_seconds=_TIMEOUT_SECONDS)
        assert other.read(with_processes=True)[1].status == "ok"
        other.close()
    assert other.read(with_processes=True)[1].status == "disabled"
    assert [record.levelname for record in caplog.records] == ["INFO"]
    expect_sound(*reader.read(with_processes=True))
