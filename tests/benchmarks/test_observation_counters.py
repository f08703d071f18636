"""Counters that this machine may not have: energy and heat, from made-up files of the kernel."""

import os
from pathlib import Path

import pytest

from ai_lab.benchmarks.observation.counters import CpuEnergy, thermal_throttle_events


def _zone(root: Path, zone: str, name: str, energy_uj: int, range_uj: int = 1_000_000) -> Path:
    folder = root / "sys/class/powercap" / zone
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    return folder / "energy_uj"


def test_energy_is_of_all_packages_and_goes_on_when_a_counter_turns_over(tmp_path: Path) -> None:
    first = _zone(tmp_path, "intel-rapl:0", "package-0", 900_000)
    second = _zone(tmp_path, "intel-rapl:1", "package-1", 100_000)
    part = _zone(tmp_path, "intel-rapl:0:0", "core", 5)
    whole = _zone(tmp_path, "intel-rapl:2", "psys", 5)
    same = _zone(tmp_path, "intel-rapl-mmio:0", "package-0", 5)
    energy = CpuEnergy(tmp_path)
    assert energy.read_joules() == 0
    first.write_text("100000")  # 0.2 J further, over the end
    second.write_text("600000")
    for other in (part, whole, same):
        other.write_text("900000")
    assert energy.read_joules() == pytest.approx(0.7)
    second.write_text("700000")
    assert energy.read_joules() == pytest.approx(0.8)


def test_energy_that_is_not_ours_to_read_is_unknown_and_stays_so(tmp_path: Path) -> None:
    assert CpuEnergy(tmp_path).read_joules() is None
    first = _zone(tmp_path, "intel-rapl:0", "package-0", 1)
    energy = CpuEnergy(tmp_path)
    assert energy.read_joules() == 0
    first.rename(first.with_name("gone"))
    assert energy.read_joules() is None
    first.with_name("gone").rename(first)
    assert energy.read_joules() is None


def test_heat_is_counted_where_the_kernel_does(tmp_path: Path) -> None:
    assert thermal_throttle_events(tmp_path) is None
    for number, counts in enumerate(((1, 2), (3, 4))):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{number}/thermal_throttle"
        folder.mkdir(parents=True)
        for part, count in zip(("core", "package"), counts, strict=True):
            (folder / f"{part}_throttle_count").write_text(f"{count}{os.linesep}")
    (tmp_path / "sys/devices/system/cpu/cpuidle").mkdir()
    assert thermal_throttle_events(tmp_path) == 10
