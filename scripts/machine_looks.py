"""Two other looks at a machine, to hold the sampler against: /proc read directly, and node_exporter."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.server import free_port

NODE_EXPORTER = shutil.which("prometheus-node-exporter")
_EXPORTED = ("cpu", "meminfo", "diskstats", "netdev")


@dataclass(frozen=True)
class Look:
    """Raw values at one moment, however they were come by; bytes are by device, read and written or got and sent."""

    busy_seconds: float
    all_seconds: float
    memory_total: float
    memory_available: float
    disks: dict[str, tuple[float, float]]
    network: dict[str, tuple[float, float]]


def look_at_proc() -> Look:
    """Look at /proc, with nothing of the sampler's."""
    user, nice, system, idle, iowait, irq, softirq, steal = (
        int(ticks) / os.sysconf("SC_CLK_TCK") for ticks in _rows("stat")[0][1:9]
    )
    busy = user + nice + system + irq + softirq + steal
    memory = {row[0]: int(row[1]) * 1024 for row in _rows("meminfo")}
    interfaces = (line.partition(":") for line in Path("/proc/net/dev").read_text(encoding="ascii").splitlines()[2:])
    network = {name.strip(): rest.split() for name, _, rest in interfaces}
    return Look(
        busy_seconds=busy,
        all_seconds=busy + idle + iowait,
        memory_total=memory["MemTotal:"],
        memory_available=memory["MemAvailable:"],
        disks={row[2]: (int(row[5]) * 512, int(row[9]) * 512) for row in _rows("diskstats")},
        network={name: (int(row[0]), int(row[8])) for name, row in network.items()},
    )


def _rows(name: str) -> list[list[str]]:
    return [line.split() for line in Path("/proc", name).read_text(encoding="ascii").splitlines()]


def scrape(address: str) -> Look:
    """Look at what node_exporter says."""
    text = httpx.get(address, timeout=10, trust_env=False).raise_for_status().text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    modes: dict[str, float] = {}
    for sample in samples:
        if sample.name == "node_cpu_seconds_total":
            mode = sample.labels["mode"]
            modes[mode] = modes.get(mode, 0.0) + sample.value

    def by_device(name: str) -> dict[str, float]:
        return {sample.labels["device"]: sample.value for sample in samples if sample.name == name}

    def pairs(first: str, second: str) -> dict[str, tuple[float, float]]:
        others = by_device(second)
        return {device: (value, others[device]) for device, value in by_device(first).items()}

    single = {sample.name: sample.value for sample in samples if not sample.labels}
    return Look(
        busy_seconds=sum(seconds for mode, seconds in modes.items() if mode not in {"idle", "iowait"}),
        all_seconds=sum(modes.values()),
        memory_total=single["node_memory_MemTotal_bytes"],
        memory_available=single["node_memory_MemAvailable_bytes"],
        disks=pairs("node_disk_read_bytes_total", "node_disk_written_bytes_total"),
        network=pairs("node_network_receive_bytes_total", "node_network_transmit_bytes_total"),
    )


@contextmanager
def running_node_exporter() -> Iterator[str]:
    """Run node_exporter with what is compared, and give its address."""
    assert NODE_EXPORTER
    port = free_port()
    command = [NODE_EXPORTER, f"--web.listen-address=127.0.0.1:{port}", "--collector.disable-defaults"]
    command += [f"--collector.{name}" for name in _EXPORTED]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                with socket.socket() as probe:
                    if not probe.connect_ex(("127.0.0.1", port)):
                        break
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}/metrics"
        finally:
            process.terminate()
