"""Let clients leave in mid-answer, and count what of them is left in the server.

Run: python scripts/measure_leaks.py [--count 500]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import uvloop

from scripts.measurement import Row, at_most, none_of, percentile, report
from tests.faults.cut_streams import cut_streams

_CALM_SECONDS, _UPSTREAM_SECONDS = 5.0, 1.0


def main() -> int:
    """Cut the answers; returns 1 when something is left behind or a model was told too late."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=4711)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        work = cut_streams(Path(folder) / "data", options.count, seed=options.seed, calm_within_seconds=_CALM_SECONDS)
        result = runner.run(work)
    assert result.base
    assert result.after
    after = asdict(result.after)
    rows = [
        Row("answers cut", f"{result.cut.total()} (whole before the cut: {result.whole})"),
        *(Row(f"  {way}", str(count)) for way, count in sorted(result.cut.items())),
        *(Row(f"{name} before / after", f"{value} / {after[name]}") for name, value in asdict(result.base).items()),
        Row(
            "back to base line after",
            "never" if result.calm_seconds is None else f"{result.calm_seconds:.2f} s",
            f"<= {_CALM_SECONDS:g} s",
            result.calm_seconds is not None,
        ),
        Row("model's server saw the cut: p50, p99", _delays(result.upstream_seconds)),
        at_most("model's server saw the last cut", max(result.upstream_seconds), _UPSTREAM_SECONDS, "s", 3),
        Row("kept answers by status", ", ".join(f"{count} {status}" for status, count in result.stored.items())),
        none_of("faults", len(result.faults)),
    ]
    notes = [
        "10 clients at a time ask the embedded engine and a scripted model without end, by /chat and /v1, as streams",
        f"and whole, and leave after 0 to 1.5 s (seed {options.seed}). Server and clients are one process, where tasks",
        "can be counted; the engine has its own. Up to 3 kept connections to models' servers may come and go.",
        *[fault[:300] for fault in result.faults[:10]],
    ]
    return report("Cut answers leave nothing behind", rows, notes)


def _delays(seconds: list[float]) -> str:
    return f"{percentile(seconds, 0.5) * 1000:.1f} ms, {percentile(seconds, 0.99) * 1000:.1f} ms, n = {len(seconds)}"


if __name__ == "__main__":
    sys.exit(main())
