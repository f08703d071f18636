"""Let guidellm, aiperf and our benchmarks measure one server, and hold each against what that server really wrote.

Run: PYTHONPATH=. python scripts/crosscheck_peers.py FOLDER

Both tools are installed below FOLDER on the first run, each into an environment of its own: 3 GB, and more where pip
finds no build of torch for the CPU alone. A run takes ten minutes and wants a quiet machine; ours goes before, between
and after the two, so that it shows when the machine changed. Prints Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ai_lab.benchmarks.events import Failed, RecordsMeasured, Reported
from ai_lab.benchmarks.job import Job, StoredRun, settings_for_child
from ai_lab.benchmarks.plan import Arm, Iterations, OpenLoop, Plan, Prompts
from ai_lab.benchmarks.process import WorkerProcess
from ai_lab.benchmarks.schemas import Cell
from ai_lab.settings import Settings
from scripts.measurement import machine
from scripts.peers import PEERS, Figures, Peer, PeerFailed, Task
from tests.benchmarks.calibrated_server import MODEL, CalibratedServer, Logged
from tests.benchmarks.calibrated_truth import address

_NS_PER_MS = 1_000_000
_GAPS = {"ttft_ms": 50, "gap_ms": 10, "gap_sigma": 1.0}
_TASKS = (
    Task("one stream", requests=30, tokens=64, streams=1, server=_GAPS),
    Task("four streams", requests=40, tokens=64, streams=4, server=_GAPS),
    Task("Poisson arrivals", requests=200, tokens=4, rate=10, server={"ttft_ms": 20, "gap_ms": 5}),
)
_OURS = "AI Lab"
#: Names of figures, what they are, digits.
_SHOWN = (
    ("ttft_p50", "first token, median, ms", 2),
    ("ttft_p99", "first token, p99, ms", 2),
    ("gap_p50", "gaps between chunks, median, ms", 2),
    ("gap_p99", "gaps between chunks, p99, ms", 2),
    ("tpot_p50", "mean gap of a request, median, ms", 3),
    ("tpot_p99", "mean gap of a request, p99, ms", 3),
    ("latency_per_token_p50", "latency of a request / its tokens, median, ms", 3),
    ("output_tps", "output tokens per second", 2),
)
#: Two gaps that are nearer to each other than this are taken for one that was used twice.
_SAME_SECONDS = 0.005


@dataclass(frozen=True)
class Column:
    """One run of one tool: what it told, what the server logged of it, and the machine's load as it began."""

    name: str
    told: Figures
    log: list[Logged]
    load: float


def main() -> int:
    """Install, measure and print; returns 1 when a tool could not be run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the tools are installed; kept for the next time")
    cache: Path = parser.parse_args().folder.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    programs: dict[str, Path] = {}
    for peer in PEERS:
        try:
            programs[peer.name] = peer.install(cache)
        except PeerFailed as failure:
            failures.append(f"{peer.name} could not be installed: {failure}")
    began = datetime.now(UTC)
    with CalibratedServer(flavour="openai") as server:
        for task in _TASKS:
            columns = [_ours(server, task, seed=0)]
            for seed, peer in enumerate(PEERS, start=1):
                try:
                    columns += [_theirs(server, task, peer, programs[peer.name])] if peer.name in programs else []
                except PeerFailed as failure:
                    failures.append(f"{peer.name}, {task.title}: {failure}")
                columns.append(_ours(server, task, seed))
            print(_table(task, columns), flush=True)
    versions = ", ".join(peer.requirements[-1].replace("==", " ") for peer in PEERS)
    print()
    for line in (f"measured: {began:%Y-%m-%d %H:%M} UTC; {versions}", *machine(), *failures):
        print(line)
    return int(bool(failures))


def _theirs(server: CalibratedServer, task: Task, peer: Peer, programs: Path) -> Column:
    server.reset()
    server.configure(**task.server)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        told = peer.run(programs, server.url, task, Path(folder))
    return Column(peer.name, told, [entry for entry in server.log() if entry.before_ns], load)


def _ours(server: CalibratedServer, task: Task, seed: int) -> Column:
    server.reset()
    server.configure(**task.server)
    load = os.getloadavg()[0]
    told, prompts = asyncio.run(_measure(server, task, seed))
    return Column(_OURS, told, [entry for entry in server.log() if entry.prompt_sha256 in prompts], load)


async def _measure(server: CalibratedServer, task: Task, seed: int) -> tuple[Figures, set[str]]:
    """Run our benchmark in its own process, as the lab does; returns its figures and its prompts' digests."""
    if task.rate:
        load: Iterations | OpenLoop = OpenLoop(requests=task.requests, rates=[task.rate], arrivals="poisson")
    else:
        load = Iterations(requests=task.requests, concurrency=[task.streams or 1])
    plan = Plan(
        arms=[Arm(model=MODEL, url=server.url)],
        load=load,
        prompts=Prompts(tokens=16),
        output_tokens=task.tokens,
        seed=seed,
        idle_seconds=0,
        calibration_seconds=0,
    )
    job = Job(
        "run",
        StoredRun(f"crosscheck-{time.time_ns()}", plan),
        addresses=[address(server, "openai").to_dict()],
        settings=settings_for_child(Settings(_env_file=None)),
    )
    prompts: set[str] = set()
    async with WorkerProcess.started(job) as worker:
        async for event in worker.events():
            match event:
                case RecordsMeasured():
                    records = [one.unpack() for one in event.records]
                    prompts |= {record.prompt_sha256 for record in records if record.phase == "measured"}
                case Reported():
                    return _read(event.report.cells[0]), prompts
                case Failed():
                    raise RuntimeError(event.detail)
        raise RuntimeError(await worker.last_words())


def _read(cell: Cell) -> Figures:
    found: dict[str, float | None] = {"requests": cell.counts.ok, "output_tps": cell.totals["output_tps"].value}
    for name in ("ttft", "gap", "tpot"):
        metric = cell.metrics[name]
        found |= {f"{name}_p50": metric.median.value, f"{name}_p99": metric.percentiles["p99"].value}
    return {name: value for name, value in found.items() if value is not None}


def _truth(log: Sequence[Logged]) -> Figures:
    """Return the same figures by the stamps of the server: from the arrival of a request, right before each write."""
    parts = {
        "ttft": np.array([one.before_ns[0] - one.arrival_ns for one in log]),
        "gap": np.concatenate([np.diff(one.before_ns) for one in log]),
        "tpot": np.array([(one.before_ns[-1] - one.before_ns[0]) / (sum(one.tokens) - 1) for one in log]),
        "latency_per_token": np.array([(one.before_ns[-1] - one.arrival_ns) / sum(one.tokens) for one in log]),
    }
    found: Figures = {}
    for name, values in parts.items():
        for share in (50, 99):
            found[f"{name}_p{share}"] = float(np.percentile(values, share)) / _NS_PER_MS
    seconds = (max(one.before_ns[-1] for one in log) - min(one.arrival_ns for one in log)) / 1e9
    return found | {"output_tps": sum(sum(one.tokens) for one in log) / seconds}


def _table(task: Task, columns: Sequence[Column]) -> str:
    """Return the Markdown of one task: a column for each run, in the order of time."""
    rows = [["", *(column.name for column in columns)], ["---"] * (len(columns) + 1)]
    rows.append(["requests told / logged", *(f"{one.told['requests']:.0f} / {len(one.log)}" for one in columns)])
    if task.rate:
        rows += _arrival_rows(task.rate, columns)
    else:
        true = [_truth(column.log) for column in columns]
        for name, what, digits in _SHOWN:
            told = [_cell(one.told.get(name), is_so[name], digits) for one, is_so in zip(columns, true, strict=True)]
            rows.append([what, *told])
    rows.append(["the server late, p99, ms", *(f"{_late_ms(column.log):.2f}" for column in columns)])
    rows.append(["load average as it began", *(f"{column.load:.1f}" for column in columns)])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"\n**{task.title}**, {task.requests} requests of {task.tokens} tokens\n", *lines])


def _cell(told: float | None, true: float, digits: int) -> str:
    return "-" if told is None else f"{told:.{digits}f} ({told - true:+.{digits}f})"


def _arrival_rows(rate: float, columns: Sequence[Column]) -> list[list[str]]:
    """Return how requests came to the server."""
    found = [_gaps_seconds(column.log) for column in columns]
    repeated = [int((np.abs(np.diff(gaps)) < _SAME_SECONDS).sum()) for gaps in found]
    chance = 1 - np.exp(-rate * _SAME_SECONDS)
    expected = f"gaps within {_SAME_SECONDS * 1000:g} ms of the one before (by chance {chance:.0%})"
    return [
        [f"arrivals per second, {rate:g} asked for", *(f"{1 / gaps.mean():.2f}" for gaps in found)],
        [expected, *(f"{twice} of {len(gaps) - 1}" for twice, gaps in zip(repeated, found, strict=True))],
        ["exponential? p by Kolmogorov and Smirnov", *(f"{_exponential_p(gaps, rate):.3f}" for gaps in found)],
        ["correlation of a gap with the next", *(f"{np.corrcoef(gaps[:-1], gaps[1:])[0, 1]:+.2f}" for gaps in found)],
    ]


def _gaps_seconds(log: Sequence[Logged]) -> NDArray[np.float64]:
    return np.diff(np.array(sorted(entry.arrival_ns for entry in log), dtype=np.float64)) / 1e9


def _exponential_p(gaps: NDArray[np.float64], rate: float) -> float:
    return float(stats.kstest(gaps, "expon", args=(0, 1 / rate)).pvalue)


def _late_ms(log: Sequence[Logged]) -> float:
    late = [before - due for one in log for before, due in zip(one.before_ns, one.due_ns, strict=True)]
    return float(np.percentile(late, 99)) / _NS_PER_MS


if __name__ == "__main__":
    sys.exit(main())
