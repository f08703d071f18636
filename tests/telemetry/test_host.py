"""Readings of this machine, held against what the kernel says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from ai_lab.telemetry.machine.devices import own_mountpoints, read_disks, read_filesystems
from ai_lab.telemetry.machine.host import HostReader, HostReading
from ai_lab.telemetry.machine.rates import derive
from ai_lab.telemetry.schemas import GpuBackend, SystemMetrics
from tests.telemetry.readings import tree

_NO_GPU = GpuBackend(status="no_gpu")
_on_linux = pytest.mark.skipif(sys.platform != "linux", reason="compares with Linux' /proc")


def _derive(earlier: HostReading, later: HostReading) -> SystemMetrics:
    return derive(earlier, later, [], _NO_GPU)


@contextmanager
def _burning(code: str = "while True: pass") -> Iterator[int]:
    """Keep one core busy in a child."""
    with subprocess.Popen([sys.executable, "-c", code]) as child:
        try:
            yield child.pid
        finally:
            child.kill()


@_on_linux
def test_shares_of_the_processors_match_proc_stat() -> None:
    reader = HostReader()
    reader.read()
    with _burning():
        earlier, before = _read_at_once(reader)
        time.sleep(1.5)
        later, after = _read_at_once(reader)
    busy, total = (b - a for a, b in zip(before, after, strict=True))
    metrics = _derive(earlier, later)
    assert metrics.cpu_usage_percent == pytest.approx(100 * busy / total, abs=2.0)
    assert metrics.cpu_usage_percent
    assert metrics.cpu_usage_percent > 60 / metrics.cpu.count
    assert metrics.cpu.per_core_percent
    assert max(metrics.cpu.per_core_percent) <= 100.0


def _read_at_once(reader: HostReader) -> tuple[HostReading, tuple[int, int]]:
    """Return a reading and what /proc/stat says in the same hundredth of a second; that may take several attempts."""
    for _ in range(200):
        before = _proc_stat()
        read = reader.read()
        after = _proc_stat()
        if after[1] - before[1] <= 1:
            return read, after
    pytest.skip("this machine is too busy to read two things at once")


def _proc_stat() -> tuple[int, int]:
    """Return busy and all ticks; guest time is in user time already."""
    user, nice, system, idle, iowait, irq, softirq, steal, *_ = map(
        int, Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
    )
    busy = user + nice + system + irq + softirq + steal
    return busy, busy + idle + iowait


@_on_linux
def test_traffic_of_disks_lies_between_what_the_kernel_says_before_and_after(tmp_path: Path) -> None:
    reader = HostReader()
    for _ in range(3):
        before = _diskstats()
        read = reader.read()
        after = _diskstats()
        assert read.disks.keys() == {name for name in before if _is_disk(name)}
        for name, disk in read.disks.items():
            assert before[name] <= (disk.read_bytes, disk.written_bytes) <= after[name]
        with (tmp_path / "file").open("wb") as file:
            file.write(os.urandom(8 * 1024**2))
            os.fsync(file.fileno())


@_on_linux
def test_a_file_that_is_written_is_seen(tmp_path: Path) -> None:
    reader = HostReader()
    earlier = reader.read()
    with (tmp_path / "file").open("wb") as file:
        file.write(os.urandom(32 * 1024**2))
        os.fsync(file.fileno())
    later = reader.read()
    metrics = _derive(earlier, later)
    if not metrics.disks or all(earlier.disks[name] == later.disks[name] for name in earlier.disks):
        pytest.skip("the folder for temporary files is on no disk of this machine")
    written = sum(disk.write_bytes_per_second for disk in metrics.disks) * metrics.interval_seconds
    assert written >= 32 * 1024**2


def _diskstats() -> dict[str, tuple[int, int]]:
    rows = (line.split() for line in Path("/proc/diskstats").read_text(encoding="ascii").splitlines())
    return {row[2]: (int(row[5]) * 512, int(row[9]) * 512) for row in rows}


def _is_disk(name: str) -> bool:
    return Path("/sys/block", name).exists() and not name.startswith(("loop", "ram", "zram", "dm-", "md", "zd", "sr"))


# In a network of its own: a cable with two ends, and datagrams from one to the other.
_CABLE = """
import json, socket, subprocess
for words in ("link add left type veth peer name right", "link set left up", "link set right up", "link set lo up",
              "link add br-0123456789ab type veth peer name veth0",
              "addr add 10.9.8.1/24 dev left", "neigh add 10.9.8.2 lladdr 02:00:00:00:00:02 dev left"):
    subprocess.run(["ip", *words.split()], check=True)
from pathlib import Path
from ai_lab.telemetry.machine.host import HostReader
from ai_lab.telemetry.machine.rates import derive
from ai_lab.telemetry.schemas import GpuBackend
reader = HostReader()
earlier = reader.read()
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
    for _ in range(500):
        there.sendto(bytes(1000), ("10.9.8.2", 9))
later = reader.read()
metrics = derive(earlier, later, [], GpuBackend(status="disabled"))
sent = {nic.interface: nic.transmit_bytes_per_second * metrics.interval_seconds for nic in metrics.network}
got = {nic.interface: nic.receive_bytes_per_second * metrics.interval_seconds for nic in metrics.network}
print(json.dumps([sent, got]))
"""


@_on_linux
def test_bytes_over_a_cable_are_counted_at_both_ends() -> None:
    if not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("unshare or ip is not installed")
    if subprocess.run(["unshare", "-n", "ip", "link", "add", "left", "type", "veth"], check=False).returncode:  # noqa: S607 - wherever the system has it
        pytest.skip("no network namespaces or no cables for this user")
    command = ["unshare", "-n", sys.executable, "-c", _CABLE]
    sent, got = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    assert sent.keys() == got.keys() == {"left", "right"}, "and neither the loopback nor what is made for containers"
    datagrams = 500 * (1000 + 8 + 20 + 14)  # with the heads of UDP, IP and Ethernet
    assert sent["left"] == pytest.approx(datagrams, rel=0.02)
    assert got["right"] == pytest.approx(datagrams, rel=0.02)


@_on_linux
def test_memory_matches_proc_meminfo() -> None:
    lines = (line.split() for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    kib = {line[0].rstrip(":"): int(line[1]) for line in lines}
    read = HostReader().read()
    assert read.memory_total_bytes == kib["MemTotal"] * 1024
    assert read.memory_available_bytes == pytest.approx(kib["MemAvailable"] * 1024, abs=0.02 * read.memory_total_bytes)
    assert read.swap_total_bytes == kib["SwapTotal"] * 1024


@_on_linux
def test_only_whole_disks_are_read(tmp_path: Path) -> None:
    disks = read_disks()
    if not disks:
        pytest.skip("this machine has no disks")
    name = min(disks)
    (tmp_path / name.replace("/", "!")).mkdir()
    (tmp_path / "loop0").mkdir()
    assert read_disks(tmp_path).keys() == {name}
    (tmp_path / name.replace("/", "!")).rmdir()
    assert read_disks(tmp_path) == {}


def test_only_local_filesystems_count_and_each_once(tmp_path: Path) -> None:
    paths = {
        name: str(tmp_path / name) for name in ("data", "bound/deeply", "usb", "nfs", "ssh", "tmp", "merged", "old")
    }
    for path in paths.values():
        Path(path).mkdir(parents=True)
    (tmp_path / "hosts").touch()
    mounts = [
        _Mount("overlay", "/", "overlay"),
        _Mount("/dev/sdb1", paths["bound/deeply"], "ext4"),
        _Mount("/dev/sdb1", paths["data"], "ext4"),
        _Mount("/dev/sda1", str(tmp_path / "hosts"), "ext4"),
        _Mount("overlay", paths["merged"], "overlay"),
        _Mount("server:/export", paths["nfs"], "nfs4"),
        _Mount("me@server:", paths["ssh"], "fuse.sshfs"),
        _Mount("tmpfs", paths["tmp"], "tmpfs"),
        _Mount("/dev/sdc1", paths["old"], "xfs"),
        _Mount("tmpfs", paths["old"], "tmpfs"),
        _Mount("/dev/sdd1", paths["usb"], "exFAT"),
        _Mount("/dev/sde1", str(tmp_path / "gone"), "ext4"),
        _Mount("/dev/sdf1", str(tmp_path / ("x" * 300)), "ext4"),  # the system refuses to look
    ]
    assert own_mountpoints(mounts) == ["/", paths["usb"], paths["data"]]


@dataclass(frozen=True)
class _Mount:
    device: str
    mountpoint: str
    fstype: str


def test_filesystems_have_the_size_that_the_system_tells() -> None:
    filesystems = read_filesystems()
    assert filesystems
    for filesystem in filesystems:
        assert filesystem.total_bytes == psutil.disk_usage(filesystem.mountpoint).total
        assert 0 <= filesystem.used_percent <= 100


@_on_linux
def test_a_child_that_has_ended_is_none_even_before_it_is_waited_for() -> None:
    with subprocess.Popen(["true"]) as child:  # noqa: S607 - wherever the system has it
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert child.pid not in {other.pid for other in HostReader().read().children}


def test_this_process_and_its_children() -> None:
    reader = HostReader()
    before = reader.read()
    with _burning() as pid:
        earlier = reader.read()
        time.sleep(0.6)
        later = reader.read()
        metrics = _derive(earlier, later)
        own = metrics.process
        assert own.pid == os.getpid()
        assert own.threads == pytest.approx(threading.active_count(), abs=8)
        assert own.rss_bytes > 10 * 1024**2
        assert own.open_files is None or own.open_files >= 3
        assert own.uptime_seconds == pytest.approx(time.time() - psutil.Process().create_time(), abs=2.0)
        child = next(child for child in metrics.children if child.pid == pid)
        assert child.cpu_percent
        assert 1 < child.cpu_percent <= 110
        assert 0 < child.uptime_seconds < 30
    after = reader.read()
    assert pid not in {child.pid for child in (*before.children, *after.children)}


@_on_linux
def test_a_child_of_another_thread_is_found_and_a_script_has_its_own_name(tmp_path: Path) -> None:
    script = tmp_path / "measuring_engine.py"
    script.write_text("import time\ntime.sleep(60)\n", encoding="utf-8")
    started: list[subprocess.Popen[bytes]] = []
    go_on = threading.Event()

    def start() -> None:
        started.append(subprocess.Popen([sys.executable, "-I", str(script)]))
        go_on.wait(30)

    thread = threading.Thread(target=start)
    thread.start()
    try:
        while not started:
            time.sleep(0.01)
        found = {child.pid: child.name for child in HostReader().read().children}
        assert found[started[0].pid] == "measuring_engine"
    finally:
        go_on.set()
        thread.join()
        started[0].kill()
        started[0].wait()


_GARBLED = """
import json, subprocess, sys
for garbled, part in zip(sys.argv[1:], ("/proc/diskstats", "/proc/cpuinfo"), strict=True):
    if subprocess.run(["mount", "--bind", garbled, part]).returncode:
        sys.exit("no mount")
from ai_lab.telemetry.machine.host import HostReader
reader = HostReader()
readings = [reader.read(), reader.read()]
assert readings[0].slow is readings[1].slow
for reading in readings:
    print(json.dumps([reading.faults, list(reading.disks), len(reading.cpu_seconds), reading.memory_total_bytes]))
"""


@_on_linux
def test_a_part_that_cannot_be_read_is_named_and_the_others_are_read_all_the_same(tmp_path: Path) -> None:
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed")
    files = tree(tmp_path, {"diskstats": "what is this\n", "cpuinfo": "cpu MHz : many\n"})
    garbled = [str(files / name) for name in ("diskstats", "cpuinfo")]
    command = ["unshare", "--mount", sys.executable, "-c", _GARBLED, *garbled]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if "unshare" in done.stderr or "no mount" in done.stderr:
        pytest.skip("no mount namespaces for this user")
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first == second, "what is read rarely is at fault until it is read again"
    faults, disks, cores, memory = first
    assert faults == {"disks": "ValueError", "frequency": "ValueError"}
    assert disks == []
    assert cores == psutil.cpu_count()
    assert memory == psutil.virtual_memory().total


def test_pressure_is_read_below_the_root_that_is_given(tmp_path: Path) -> None:
    tree(tmp_path, {"proc/pressure/cpu": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\n"})
    read = HostReader(tmp_path).read()
    assert read.pressure_seconds == {"cpu": 1.5}
    assert read.container is None
    assert read.faults == {}
