"""What the measuring scripts share: the machine's description, percentiles, intervals, and one kind of table."""

from __future__ import annotations

import os
import platform
import random
import sqlite3
import statistics
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # scripts are run from any folder

_BOOTSTRAP_ROUNDS = 2000
_PACKAGES = ("fastapi", "uvicorn", "sqlalchemy", "aiosqlite", "xllamacpp")


def machine() -> str:
    """Return one line that says where the figures come from."""
    memory_gib = psutil.virtual_memory().total / 1024**3
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return (
        f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, load {load:.2f}; "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {packages}"
    )


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` (0 to 1) of all are not above (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def interval(
    estimate: Callable[[list[int]], float], count: int, *, confidence: float = 0.95, seed: int = 1
) -> tuple[float, float]:
    """Return a bootstrap percentile interval of ``estimate``, which is given indices drawn with replacement."""
    draw = random.Random(seed)  # noqa: S311 - statistics, not secrets
    found = sorted(estimate([draw.randrange(count) for _ in range(count)]) for _ in range(_BOOTSTRAP_ROUNDS))
    cut = (1 - confidence) / 2
    return found[int(cut * _BOOTSTRAP_ROUNDS)], found[int((1 - cut) * _BOOTSTRAP_ROUNDS) - 1]


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


class Report:
    """Rows of figures with what was wanted; ``finish`` prints them and returns the exit code."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._rows: list[tuple[str, str, str, str]] = []
        self._missed = 0

    def add(self, what: str, value: str, wanted: str = "", *, holds: bool | None = None) -> None:
        """Add a row; ``holds`` says whether what was wanted is true."""
        self._missed += holds is False
        self._rows.append((what, value, wanted, {True: "ok", False: "MISSED", None: ""}[holds]))

    def finish(self) -> int:
        """Print the table under the machine's line; returns 1 where something wanted does not hold."""
        widths = [max(len(row[column]) for row in self._rows) for column in range(3)]
        print(f"# {self._title}\n{machine()}")
        for what, value, wanted, verdict in self._rows:
            print(f"{what:<{widths[0]}}  {value:>{widths[1]}}  {wanted:<{widths[2]}}  {verdict}".rstrip())
        return 1 if self._missed else 0
