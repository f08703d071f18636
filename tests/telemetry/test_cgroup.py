"""Limits of containers: trees of control groups as they look in the wild, and one made on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ai_lab.telemetry.machine.cgroup import (
    ContainerCpu,
    ContainerMemory,
    ContainerReading,
    ControlGroups,
    pressure_seconds,
)
from tests.telemetry.readings import GIB, tree

_MEMBERSHIP = "proc/self/cgroup"
_CGROUP = "sys/fs/cgroup"
_NO_LEGACY_LIMIT = "9223372036854771712\n"
_UNIFIED_STAT = (
    "usage_usec 7500000\nuser_usec 5000000\nsystem_usec 2500000\nnice_usec 0\n"
    "nr_periods 200\nnr_throttled 50\nthrottled_usec 1250000\n"
)


def _read(root: Path) -> ContainerReading | None:
    return ControlGroups(root).read(machine_cores=8, machine_memory_bytes=16 * GIB)


def _unified(group: str = "", *, cpu: str = "max 100000\n", memory: str = "max\n") -> dict[str, str]:
    """Return the files of a group of version 2; the numbers differ with its depth."""
    place = f"{_CGROUP}/{group}".rstrip("/")
    depth = group.count("/") + 1 if group else 0
    return {
        f"{place}/cpu.max": cpu,
        f"{place}/cpu.stat": _UNIFIED_STAT,
        f"{place}/memory.max": memory,
        f"{place}/memory.current": f"{(depth + 1) * 100_000_000}\n",
        f"{place}/memory.stat": "anon 5\nfile 40\ninactive_file 30000000\nactive_file 10\n",
    }


def _legacy(controller: str, group: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{_CGROUP}/{controller}{group.rstrip('/')}/{name}": text for name, text in files.items()}


def test_a_container_of_version_2_with_its_own_namespace(tmp_path: Path) -> None:
    files = {
        _MEMBERSHIP: "0::/\n",
        f"{_CGROUP}/cgroup.controllers": "cpuset cpu io memory pids\n",
        **_unified(cpu="150000 100000\n", memory="536870912\n"),
        f"{_CGROUP}/memory.swap.max": "1073741824\n",
        f"{_CGROUP}/memory.swap.current": "4096\n",
        f"{_CGROUP}/memory.events": "low 0\nhigh 3\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n",
        f"{_CGROUP}/cpu.pressure": "some avg10=1.00 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0 total=7\n",
        f"{_CGROUP}/memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=500000\nfull avg10=0 total=7\n",
    }
    assert _read(tree(tmp_path, files)) == ContainerReading(
        cpu=ContainerCpu(
            limit_cores=1.5,
            used_seconds=7.5,
            user_seconds=5.0,
            system_seconds=2.5,
            periods=200,
            throttled_periods=50,
            throttled_seconds=1.25,
            pressure_seconds=2.5,
        ),
        memory=ContainerMemory(
            limit_bytes=536870912,
            working_set_bytes=70_000_000,
            swap_limit_bytes=1073741824,
            swap_used_bytes=4096,
            oom_kills=1,
            pressure_seconds=0.5,
        ),
    )


def test_a_container_of_version_1_without_a_namespace(tmp_path: Path) -> None:
    """The paths are the host's and do not exist below what the container has mounted."""
    path = "/docker/3f1c"
    files = {
        _MEMBERSHIP: f"4:memory:{path}\n3:cpu,cpuacct:{path}\n2:pids:{path}\n1:name=systemd:{path}\n0::/system.slice\n",
        **_legacy(
            "memory",
            "",
            {
                "memory.limit_in_bytes": "268435456\n",
                "memory.usage_in_bytes": "200000000\n",
                "memory.stat": "cache 7\ninactive_file 1\ntotal_inactive_file 50000000\n",
                "memory.memsw.limit_in_bytes": "536870912\n",
                "memory.memsw.usage_in_bytes": "210000000\n",
                "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
            },
        ),
        **_legacy(
            "cpu,cpuacct",
            "",
            {
                "cpu.cfs_quota_us": "50000\n",
                "cpu.cfs_period_us": "100000\n",
                "cpu.stat": "nr_periods 100\nnr_throttled 25\nthrottled_time 3000000000\n",
                "cpuacct.usage": "12000000000\n",
                "cpuacct.usage_user": "8000000000\n",
                "cpuacct.usage_sys": "4000000000\n",
            },
        ),
    }
    assert _read(tree(tmp_path, files)) == ContainerReading(
        cpu=ContainerCpu(
            limit_cores=0.5,
            used_seconds=12.0,
            user_seconds=8.0,
            system_seconds=4.0,
            periods=100,
            throttled_periods=25,
            throttled_seconds=3.0,
        ),
        memory=ContainerMemory(
            limit_bytes=268435456,
            working_set_bytes=150_000_000,
            swap_limit_bytes=268435456,
            swap_used_bytes=10_000_000,
            oom_kills=4,
        ),
    )


def test_no_limit_in_either_version(tmp_path: Path) -> None:
    unified = {_MEMBERSHIP: "0::/user.slice\n", f"{_CGROUP}/cgroup.controllers": "cpu memory\n"}
    assert _read(tree(tmp_path / "2", unified | _unified("user.slice"))) is None
    legacy = {
        _MEMBERSHIP: "2:memory:/\n1:cpu:/\n0::/\n",
        **_legacy("memory", "", {"memory.limit_in_bytes": _NO_LEGACY_LIMIT, "memory.usage_in_bytes": "5\n"}),
        **_legacy("cpu", "", {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}),
    }
    assert _read(tree(tmp_path / "1", legacy)) is None


def test_a_limit_above_what_the_machine_has_is_none(tmp_path: Path) -> None:
    files = {
        _MEMBERSHIP: "0::/\n",
        f"{_CGROUP}/cgroup.controllers": "cpu memory\n",
        **_unified(cpu="800000 100000\n", memory=f"{16 * GIB}\n"),
    }
    assert _read(tree(tmp_path, files)) is None


def test_the_tightest_limit_on_the_way_up_counts_with_the_use_of_its_group(tmp_path: Path) -> None:
    files = {
        _MEMBERSHIP: "0::/pod.slice/app.scope/worker\n",
        f"{_CGROUP}/cgroup.controllers": "cpu memory\n",
        **_unified("pod.slice", cpu="200000 100000\n", memory=f"{4 * GIB}\n"),
        **_unified("pod.slice/app.scope", cpu="400000 100000\n", memory=f"{GIB}\n"),
        **_unified("pod.slice/app.scope/worker"),
        f"{_CGROUP}/pod.slice/cpu.stat": "usage_usec 99000000\n",
    }
    found = _read(tree(tmp_path, files))
    assert found
    assert found.cpu == ContainerCpu(limit_cores=2.0, used_seconds=99.0)
    assert found.memory
    assert (found.memory.limit_bytes, found.memory.working_set_bytes) == (GIB, 300_000_000 - 30_000_000)


def test_accounts_of_version_1_are_read_at_the_level_of_the_limit(tmp_path: Path) -> None:
    files = {
        _MEMBERSHIP: "3:cpuacct:/pod/app\n2:cpu:/pod/app\n1:memory:/\n0::/\n",
        **_legacy("cpu", "/pod", {"cpu.cfs_quota_us": "200000\n", "cpu.cfs_period_us": "100000\n"}),
        **_legacy("cpu", "/pod/app", {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}),
        **_legacy("cpuacct", "/pod/app", {"cpuacct.usage": "1000000000\n"}),
        **_legacy("cpuacct", "/pod", {"cpuacct.usage": "6000000000\n"}),
        **_legacy("memory", "", {"memory.limit_in_bytes": _NO_LEGACY_LIMIT}),
    }
    assert _read(tree(tmp_path, files)) == ContainerReading(ContainerCpu(2.0, 6.0), None)


def test_both_versions_side_by_side(tmp_path: Path) -> None:
    """What version 1 has mounted is taken there, the rest below ``unified``."""
    files = {
        _MEMBERSHIP: "1:cpu,cpuacct:/app\n0::/app\n",
        **_legacy("cpu,cpuacct", "/app", {"cpu.cfs_quota_us": "100000\n", "cpu.cfs_period_us": "100000\n"}),
        **_legacy("cpu,cpuacct", "/app", {"cpuacct.usage": "2000000000\n"}),
        **_unified("unified/app", memory=f"{GIB}\n"),
    }
    found = _read(tree(tmp_path, files))
    assert found
    assert found.cpu == ContainerCpu(1.0, 2.0)
    assert found.memory
    assert found.memory.limit_bytes == GIB


@pytest.mark.parametrize("path", ["/kubepods/pod1/x", "/../other", "/gone (deleted)"])
def test_a_path_that_is_not_there_means_what_is_mounted(path: str, tmp_path: Path) -> None:
    files = {
        _MEMBERSHIP: f"0::{path}\n",
        f"{_CGROUP}/cgroup.controllers": "cpu memory\n",
        **_unified(memory=f"{GIB}\n"),
        **_unified("../other", memory="5\n"),
    }
    found = _read(tree(tmp_path, files))
    assert found
    assert found.memory
    assert found.memory.limit_bytes == GIB


@pytest.mark.parametrize(
    "files",
    [
        {},
        {_MEMBERSHIP: ""},
        {_MEMBERSHIP: "what is this\n:::\n0::/\n"},
        {_MEMBERSHIP: "1:cpu:/\n2:memory:/\n0::/\n"},
        {
            _MEMBERSHIP: "0::/\n",
            f"{_CGROUP}/cgroup.controllers": "cpu memory\n",
            f"{_CGROUP}/cpu.max": "lots\n",
            f"{_CGROUP}/memory.max": "0\n",
        },
        {
            _MEMBERSHIP: "0::/\n",
            f"{_CGROUP}/cgroup.controllers": "cpu memory\n",
            f"{_CGROUP}/cpu.max": "100000 100000\n",
            f"{_CGROUP}/cpu.stat": "usage_usec\n\x00\n",
            f"{_CGROUP}/memory.max": "100000\n",
        },
    ],
)
def test_what_is_missing_or_foreign_is_no_limit(files: dict[str, str], tmp_path: Path) -> None:
    assert _read(tree(tmp_path, files)) is None


def test_a_process_that_is_moved_is_found_in_its_new_group(tmp_path: Path) -> None:
    files = {_MEMBERSHIP: "0::/a\n", f"{_CGROUP}/cgroup.controllers": "memory\n"}
    tree(tmp_path, files | _unified("a", memory=f"{GIB}\n") | _unified("b", memory=f"{2 * GIB}\n"))
    groups, limits = ControlGroups(tmp_path), []
    for text in ("0::/a\n", "0::/b\n", "0::/\n"):
        (tmp_path / _MEMBERSHIP).write_text(text, encoding="utf-8")
        found = groups.read(machine_cores=8, machine_memory_bytes=16 * GIB)
        limits.append(found.memory.limit_bytes if found and found.memory else None)
    assert limits == [GIB, 2 * GIB, None]


def test_pressure(tmp_path: Path) -> None:
    file = tmp_path / "cpu"
    assert pressure_seconds(file) is None
    for text, seconds in (
        ("some avg10=0.22 avg60=0.53 avg300=0.54 total=4126257\nfull avg10=0.00 total=0\n", 4.126257),
        ("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", 0.0),
        ("full avg10=0.00 avg60=0.00 avg300=0.00 total=9\n", None),
        ("some\n", None),
    ):
        file.write_text(text, encoding="ascii")
        assert pressure_seconds(file) == seconds


# What a process under a limit sees of itself: two threads' worth of work, with half a processor to do it.
_LIMITED = """
import json, os, subprocess, sys, time
for folder in sys.argv[1:]:
    with open(folder + "/cgroup.procs", "w") as file:
        file.write(str(os.getpid()))
from ai_lab.telemetry.machine.host import HostReader
from ai_lab.telemetry.machine.rates import counters, derive
from ai_lab.telemetry.schemas import GpuBackend
burning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
reader = HostReader()
earlier = reader.read()
time.sleep(1.0)
later = reader.read()
for process in burning:
    process.kill()
    process.wait()
metrics = derive(earlier, later, [], GpuBackend(status="disabled")).model_dump(mode="json")
print(json.dumps({"metrics": metrics, "throttled": counters(later).container_throttled_seconds}))
"""


@pytest.fixture
def limited_groups() -> Iterator[list[Path]]:
    """Make groups with 512 MiB and half a processor on this machine."""
    mounts = [Path("/sys/fs/cgroup") / name for name in ("memory", "cpu", "cpuacct")]
    groups = [mount / f"ai-lab-test-{os.getpid()}" for mount in mounts]
    made = []
    try:
        try:
            for group in groups:
                if not (group.parent / "cgroup.procs").exists():
                    pytest.skip("this machine has no control groups of version 1")
                group.mkdir()
                made.append(group)
            (groups[0] / "memory.limit_in_bytes").write_text(str(512 * 1024**2), encoding="ascii")
            (groups[1] / "cpu.cfs_quota_us").write_text("50000", encoding="ascii")
            (groups[1] / "cpu.shares").write_text("262144", encoding="ascii")  # it gets that much, whoever else runs
        except OSError as error:
            pytest.skip(f"control groups cannot be made here: {error}")
        yield groups
    finally:
        for group in reversed(made):
            group.rmdir()


def test_a_limited_process_sees_its_own_figures_and_not_the_machines(limited_groups: list[Path]) -> None:
    command = [sys.executable, "-c", _LIMITED, *map(str, limited_groups)]
    answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)
    metrics = answer["metrics"]
    assert metrics["scope"] == "container"
    assert metrics["cpu"]["limit_cores"] == metrics["cpu"]["effective_count"] == 0.5
    assert metrics["cpu_usage_percent"] > 60
    assert metrics["cpu"]["throttled_percent"] > 50
    assert answer["throttled"] > 0
    assert metrics["cpu"]["load_average"] is metrics["cpu"]["per_core_percent"] is None
    assert metrics["memory"]["total_bytes"] == metrics["memory"]["limit_bytes"] == 512 * 1024**2
    assert 0 < metrics["memory_usage_bytes"] == metrics["memory"]["working_set_bytes"] < 512 * 1024**2
    assert metrics["memory"]["available_bytes"] == 512 * 1024**2 - metrics["memory_usage_bytes"]
