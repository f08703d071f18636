"""Let 32 writers and 32 readers use one SQLite file through the server, and time their requests and its heartbeat.

Run: python scripts/measure_contention.py [--seconds 30] [--think 0.25]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

import psutil

from scripts.measurement import Row, none_of, percentile, report
from tests.faults.contention import Load, Seen, generate_apart
from tests.server import ServerProcess

_CLIENTS = 32
_WRITE_P99_MS, _LIVE_P99_MS = 200.0, 50.0
_SATURATED_SECONDS = 10.0


def main() -> int:
    """Run the load with pauses, then without any; returns 1 when a bound of the first is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument(
        "--think", type=float, default=0.25, help="mean pause of a client after each answer, in seconds"
    )
    options = parser.parse_args()
    paced, paced_cpu = _run(Load(_CLIENTS, _CLIENTS, options.seconds, options.think))
    greedy, greedy_cpu = _run(Load(_CLIENTS, _CLIENTS, min(options.seconds, _SATURATED_SECONDS), 0))
    write, live = percentile(paced.write_ms, 0.99), percentile(paced.live_ms, 0.99)
    rows = [
        Row("writes", _figures(paced.write_ms, paced.seconds), f"p99 < {_WRITE_P99_MS:g} ms", write < _WRITE_P99_MS),
        Row("reads (page of 20 messages, list of conversations)", _figures(paced.read_ms, paced.seconds)),
        Row("/health/live", _figures(paced.live_ms, paced.seconds), f"p99 < {_LIVE_P99_MS:g} ms", live < _LIVE_P99_MS),
        none_of("errors (status 300 and above, broken connections)", len(paced.errors)),
        Row("CPU used by server / by load", f"{paced_cpu:.0%} / {paced.own_cpu_seconds / paced.seconds:.0%} of a core"),
        Row("without pauses: writes", _figures(greedy.write_ms, greedy.seconds)),
        Row("without pauses: reads", _figures(greedy.read_ms, greedy.seconds)),
        Row("without pauses: /health/live", _figures(greedy.live_ms, greedy.seconds)),
        none_of("without pauses: errors", len(greedy.errors)),
        Row("without pauses: CPU", f"{greedy_cpu:.0%} / {greedy.own_cpu_seconds / greedy.seconds:.0%} of a core"),
    ]
    notes = [
        f"{_CLIENTS} writers and {_CLIENTS} readers for {options.seconds:g} s, a connection each, from one process;",
        f"each pauses {options.think:g} s (half to one and a half times that, at random) after an answer.",
        "Without pauses every client asks again at once: the server is then as busy as one core allows, and waiting",
        "times say how many wait, not how long the work takes.",
        *[error[:200] for error in (paced.errors + greedy.errors)[:5]],
    ]
    return report("Many at once on one SQLite file", rows, notes)


def _run(load: Load) -> tuple[Seen, float]:
    """Return what the clients saw and the share of a core that the server used."""
    settings = {"AI_LAB_RATE_LIMITS": "false"}
    with tempfile.TemporaryDirectory() as folder, ServerProcess(Path(folder) / "data", settings) as server:
        process = psutil.Process(server.pid)
        before = sum(process.cpu_times()[:2])
        seen = asyncio.run(generate_apart(server.url, load))
        return seen, (sum(process.cpu_times()[:2]) - before) / seen.seconds


def _figures(values: list[float], seconds: float) -> str:
    shares = ", ".join(f"p{share:.0%}".rstrip("%") + f" {percentile(values, share):.1f}" for share in (0.5, 0.9, 0.99))
    return f"{shares}, max {max(values):.1f} ms; n = {len(values)}, {len(values) / seconds:.0f}/s"


if __name__ == "__main__":
    sys.exit(main())
