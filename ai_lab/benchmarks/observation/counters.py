"""Counters that few machines have or let everybody read: energy of the processor, and how often it was held back."""

from __future__ import annotations

from pathlib import Path

_MICRO = 1_000_000


class CpuEnergy:
    """Adds up the energy counters of the processor packages (Linux powercap, "RAPL"; Intel and AMD).

    Memory and the parts of a package have counters of their own, which are left out: packages contain the parts.

    Args:
        root: where ``sys`` is.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        zones = sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
        packages = [zone for zone in zones if _text(zone / "name").startswith("package")]
        self._ranges = {zone / "energy_uj": _number(zone / "max_energy_range_uj") for zone in packages}
        self._last: dict[Path, int] = {}
        self._total = 0

    def read_joules(self) -> float | None:
        """Return joules since the first call; None where any package cannot be read (most kernels ask for root)."""
        now = {file: value for file in self._ranges if (value := _number(file)) is not None}
        if not now or len(now) < len(self._ranges):
            self._ranges = {}  # a gap could hide a whole turn of a counter
            return None
        for file, value in now.items():
            grown = value - self._last.get(file, value)
            if grown < 0:
                grown += self._ranges[file] or 0
            self._total += max(0, grown)
        self._last = now
        return self._total / _MICRO


def thermal_throttle_events(root: Path = Path("/")) -> int | None:
    """Return how often processors were slowed down for heat; None where the kernel does not count (Intel only does).

    Every logical processor counts: an event of a core with two threads is two.
    """
    folders = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle")
    counts = [_number(folder / f"{part}_throttle_count") for folder in folders for part in ("core", "package")]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # absent or not ours to read
        return ""


def _number(file: Path) -> int | None:
    text = _text(file)
    return int(text) if text.isdigit() else None
