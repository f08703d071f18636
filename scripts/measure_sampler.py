"""Hold the sampler's figures against /proc and node_exporter over the same windows, and measure what it costs.

Run: python scripts/measure_sampler.py [--windows 14] [--seconds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from ai_lab.telemetry.machine.gpu import GpuReader
from ai_lab.telemetry.machine.host import HostReader, HostReading
from ai_lab.telemetry.machine.rates import derive
from ai_lab.telemetry.machine.sampler import Sampler
from ai_lab.telemetry.schemas import GpuBackend, SystemMetrics
from scripts.machine_looks import NODE_EXPORTER, Look, look_at_proc, running_node_exporter, scrape
from scripts.measurement import Row, at_most, none_of, report, spread

_POINTS, _PERCENT = 2.0, 2.0
_CPU_PERCENT, _INTERVAL_SECONDS, _COST_SECONDS = 0.5, 5.0, 60.0
_LEAST_BYTES, _MOST_AT_EDGES = 10_000_000, 0.005  # traffic of a window, and the share of it that edges may have
_SETTLE_SECONDS = 0.3
_NEAR, _FAR, _NEIGHBOUR = "10.9.8.1/24", "10.9.8.2", "02:00:00:00:00:02"
_NO_GPU = GpuBackend(status="disabled")


@dataclass(frozen=True)
class Load:
    """What runs during a window.

    Attributes:
        busy: shares of time for which as many processes compute, all the time.
        moved_mb, sent_mb: written to a disk and read from it again, and sent over the cable; in the middle of the
            window, where no look is near.
    """

    busy: tuple[float, ...] = ()
    moved_mb: int = 0
    sent_mb: int = 0


_LOADS = (
    Load(),
    Load((1.0,)),
    Load((0.5,), moved_mb=64),
    Load((0.25, 0.25), sent_mb=32),
    Load((1.0, 1.0)),
    Load((0.1,), moved_mb=200, sent_mb=8),
    Load((1.0, 0.5), moved_mb=32, sent_mb=64),
)


@dataclass(frozen=True)
class Edge:
    """The beginning or end of a window: /proc before and after the reading that is measured and node_exporter's."""

    before: Look
    reading: HostReading
    exported: Look | None
    after: Look

    def moved(self, kind: str, name: str, direction: int) -> float:
        """Return the bytes that a device moved meanwhile."""
        then, now = (look.disks if kind == "disk" else look.network for look in (self.before, self.after))
        return now[name][direction] - then[name][direction]


def main() -> int:
    """Measure and print; returns 1 when a bound is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--windows", type=int, default=14)
    parser.add_argument("--seconds", type=float, default=5, help="length of a window")
    parser.add_argument("--namespace", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if HostReader().read().container:
        parser.exit(2, "Run this outside of containers: with a limit in force the sampler rightly shows no machine.\n")
    if not options.namespace and _can_make_network():
        # With a network of its own there is a cable to send over, and nobody else's traffic.
        os.execvp("unshare", ["unshare", "--net", sys.executable, __file__, *sys.argv[1:], "--namespace"])  # noqa: S606, S607 - wherever the system has it
    if options.namespace:
        _lay_cable()
    return asyncio.run(_measure(options.windows, options.seconds, has_cable=options.namespace))


async def _measure(windows: int, seconds: float, *, has_cable: bool) -> int:
    sampler = Sampler(interval_seconds=_INTERVAL_SECONDS, gpus=GpuReader())
    await sampler.start()
    await sampler.first()
    began, used_before = time.monotonic(), _sampler_cpu_seconds()
    by_proc, by_exporter, seen = await asyncio.to_thread(_compare, windows, seconds, has_cable=has_cable)
    await asyncio.sleep(max(0.0, _COST_SECONDS - (time.monotonic() - began)))
    used, elapsed = _sampler_cpu_seconds() - used_before, time.monotonic() - began
    failures = sum(sum(status.errors.values()) for status in sampler.statuses.values())
    await sampler.close()
    rows = [
        Row("windows", f"{windows} of {seconds:g} s"),
        Row("processors busy", spread([metrics.cpu_usage_percent or 0.0 for metrics in seen], "%", 1)),
        *_differences("/proc", by_proc),
        *_differences("node_exporter", by_exporter),
        at_most(
            f"CPU of the sampler's threads over {elapsed:.0f} s, every {_INTERVAL_SECONDS:g} s",
            100 * used / elapsed,
            _CPU_PERCENT,
            "% of one core",
            3,
        ),
        Row("CPU of one tick, 300 back to back", spread(_ticks(300), "ms")),
        none_of("readings that failed", failures),
    ]
    notes = [
        "Shares in percentage points, traffic in percent of itself; the largest difference counts. /proc is read right",
        "before each reading, node_exporter asked right after it. Windows with less than 10 MB, or with more than",
        "0.5 % of their traffic between these looks, are not compared: n says how many were.",
        "" if has_cable else "Not allowed to make a network of its own: no traffic of interfaces was made to compare.",
        "" if NODE_EXPORTER else "prometheus-node-exporter is not installed: compared with /proc alone.",
    ]
    return report("The sampler against the kernel", rows, [note for note in notes if note])


def _compare(
    windows: int, seconds: float, *, has_cable: bool
) -> tuple[list[dict[str, float]], list[dict[str, float]], list[SystemMetrics]]:
    """Return the differences per window to /proc and to node_exporter, and the figures themselves."""
    reader = HostReader()
    by_proc, by_exporter, seen = [], [], []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = stack.enter_context(running_node_exporter()) if NODE_EXPORTER else None

        def look() -> Edge:
            return Edge(look_at_proc(), reader.read(), scrape(address) if address else None, look_at_proc())

        look()
        for number in range(windows):
            load = _LOADS[number % len(_LOADS)]
            with _busy(load.busy):
                time.sleep(_SETTLE_SECONDS)  # starting them reads from the disk
                start = look()
                _wait(seconds, replace(load, sent_mb=load.sent_mb if has_cable else 0), folder)
                end = look()
            metrics = derive(start.reading, end.reading, [], _NO_GPU)
            seen.append(metrics)
            by_proc.append(_difference(metrics, start.before, end.before, (start, end)))
            if start.exported and end.exported:
                by_exporter.append(_difference(metrics, start.exported, end.exported, (start, end)))
    return by_proc, by_exporter, seen


def _difference(metrics: SystemMetrics, before: Look, after: Look, edges: tuple[Edge, Edge]) -> dict[str, float]:
    """Return by how much the figures differ from those of two looks at the same window.

    Traffic is left out where a device moved much while the looks were taken: they were not of the same window.
    """
    busy = 100 * (after.busy_seconds - before.busy_seconds) / (after.all_seconds - before.all_seconds)
    used = 100 * (1 - after.memory_available / after.memory_total)
    found = {
        "processors busy": abs((metrics.cpu_usage_percent or 0.0) - busy),
        "memory in use": abs(metrics.memory_usage_percent - used),
    }
    seconds = metrics.interval_seconds
    pairs = [
        *(("disk", disk.device, disk.read_bytes_per_second, disk.write_bytes_per_second) for disk in metrics.disks),
        *(
            ("network", nic.interface, nic.receive_bytes_per_second, nic.transmit_bytes_per_second)
            for nic in metrics.network
        ),
    ]
    for kind, name, *rates in pairs:
        then, now = (look.disks if kind == "disk" else look.network for look in (before, after))
        for number, rate in enumerate(rates):
            true = now[name][number] - then[name][number]
            at_edges = max(edge.moved(kind, name, number) for edge in edges)
            if true > _LEAST_BYTES and at_edges < _MOST_AT_EDGES * true:
                key = f"{kind} {('in', 'out')[number]}"
                found[key] = max(found.get(key, 0.0), 100 * abs(rate * seconds - true) / true)
    return found


def _differences(source: str, windows: list[dict[str, float]]) -> Iterator[Row]:
    words = {"disk in": "read from disks", "disk out": "written to disks"}
    words |= {"network in": "received by interfaces", "network out": "sent by interfaces"}
    for what in ("processors busy", "memory in use", *words):
        values = [window[what] for window in windows if what in window]
        limit, unit = (_PERCENT, "%") if what in words else (_POINTS, "points")
        title = f"{words.get(what, what)}: off {source} by"
        if values:
            text = f"max {max(values):.2f}, median {median(values):.2f} {unit}, n = {len(values)}"
            yield Row(title, text, f"<= {limit:g} {unit}", max(values) <= limit)
        elif windows:
            yield Row(title, "nothing to compare")


@contextmanager
def _busy(shares: tuple[float, ...]) -> Iterator[None]:
    """Keep as many processors busy for these shares of the time."""
    code = (
        "import sys, time\nshare = float(sys.argv[1])\nwhile True:\n"
        "    end = time.perf_counter() + share / 20\n    while time.perf_counter() < end: pass\n"
        "    time.sleep((1 - share) / 20)\n"
    )
    burning = [subprocess.Popen([sys.executable, "-c", code, str(share)]) for share in shares]
    try:
        yield
    finally:
        for process in burning:
            process.kill()
            process.wait()


def _wait(seconds: float, load: Load, folder: Path) -> None:
    """Let a window pass, with its traffic in the second quarter."""
    end = time.monotonic() + seconds
    time.sleep(seconds / 4)
    if load.moved_mb:
        with (folder / "moved").open("w+b") as file:
            for _ in range(load.moved_mb):
                file.write(os.urandom(1_000_000))
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # or reading would not reach the disk
            file.seek(0)
            while file.read(1_000_000):
                pass
    if load.sent_mb:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
            for _ in range(load.sent_mb * 1000):
                there.sendto(bytes(1000), (_FAR, 9))
    time.sleep(max(0.0, end - time.monotonic()))


def _can_make_network() -> bool:
    if not shutil.which("unshare") or not shutil.which("ip"):
        return False
    command = ["unshare", "--net", "ip", "link", "add", "near", "type", "veth", "peer", "name", "far"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _lay_cable() -> None:
    for words in (
        "link set lo up",
        "link add near type veth peer name far",
        "link set near up",
        "link set far up",
        f"addr add {_NEAR} dev near",
        f"neigh add {_FAR} lladdr {_NEIGHBOUR} dev near",
    ):
        subprocess.run(["ip", *words.split()], check=True)  # noqa: S607 - wherever the system has it


def _sampler_cpu_seconds() -> float:
    """Return the processor time of the sampler's threads: its own and the one that talks to the GPUs' driver."""
    threads = [thread.ident for thread in threading.enumerate() if thread.name.startswith("ai-lab-")]
    return sum(time.clock_gettime(time.pthread_getcpuclockid(ident)) for ident in threads if ident)


def _ticks(count: int) -> list[float]:
    """Return the CPU time of each of so many ticks, in milliseconds."""
    reader = HostReader()
    earlier, used = reader.read(), []
    for _ in range(count):
        before = time.thread_time()
        later = reader.read()
        derive(earlier, later, [], _NO_GPU)
        used.append((time.thread_time() - before) * 1000)
        earlier = later
    return used


if __name__ == "__main__":
    sys.exit(main())
