"""Our own pairs of questions that have nearly the same words, and mean something else."""

from __future__ import annotations

from pathlib import Path

_FILE = Path(__file__).with_name("near_opposites.txt")


def near_opposites() -> list[tuple[str, str]]:
    """Return the pairs; in the file they stand a line each, with a tab between, under headings that begin with #."""
    lines = _FILE.read_text(encoding="utf-8").splitlines()
    pairs = [tuple(line.split("\t")) for line in lines if line and not line.startswith("#")]
    return [(first, second) for first, second in pairs]
