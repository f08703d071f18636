"""Figures as people read them: sizes, times, rates, and series as a row of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NOTHING = "-"
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True)
class Signs:
    """What is drawn with. The words beside them say the same, so that nothing rests on colour or form alone."""

    healthy: str
    degraded: str
    unhealthy: str
    remedy: str
    blocks: str
    degree: str
    full: str
    free: str

    def of(self, status: str) -> str:
        """Return the sign of a status."""
        return {"healthy": self.healthy, "degraded": self.degraded}.get(status, self.unhealthy)


UNICODE = Signs("●", "▲", "✖", "→", "▁▂▃▄▅▆▇█", "°", "━", "─")
#: For terminals that know nothing else.
ASCII = Signs("*", "!", "X", "->", "_.:-=+*#", "", "#", ".")


def signs_for(encoding: str) -> Signs:
    """Return what a terminal with this encoding can show."""
    return UNICODE if encoding.lower().startswith("utf") else ASCII


def size(count: float | None) -> str:
    """Return bytes in the unit that leaves one to four digits: ``3.2 GiB``."""
    if count is None:
        return NOTHING
    value, step = float(count), 0
    while value >= 1000 and step < len(_SIZES) - 1:  # noqa: PLR2004 - four digits are too many
        value, step = value / 1024, step + 1
    return f"{value:.0f} {_SIZES[step]}" if step == 0 or value >= 100 else f"{value:.1f} {_SIZES[step]}"  # noqa: PLR2004


def part_of(used: float | None, total: float | None) -> str:
    """Return ``3.2 of 7.8 GiB``."""
    whole = size(total)
    part, _, unit = size(used).partition(" ")
    return f"{part} of {whole}" if whole.endswith(f" {unit}") else f"{part} {unit} of {whole}"


def percent(value: float | None) -> str:
    """Return ``12 %``."""
    return NOTHING if value is None else f"{value:.0f} %"


def latency(milliseconds: float | None) -> str:
    """Return a duration of three digits at most: ``0.8 ms``, ``12 ms``, ``1.2 s``, ``2.1 min``."""
    if milliseconds is None:
        return NOTHING
    if milliseconds < 9.95:  # noqa: PLR2004 - shown with one decimal below ten
        return f"{milliseconds:.1f} ms"
    if milliseconds < 999.5:  # noqa: PLR2004 - rounds to a second from here on
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 99.95:  # noqa: PLR2004 - two digits and a decimal
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min"


def span(seconds: float) -> str:
    """Return a long time in its two largest units: ``3 h 12 min``."""
    whole = int(seconds)
    parts = [
        f"{count} {unit}"
        for count, unit in (
            (whole // 86400, "d"),
            (whole // 3600 % 24, "h"),
            (whole // 60 % 60, "min"),
            (whole % 60, "s"),
        )
    ]
    first = next((index for index, part in enumerate(parts) if not part.startswith("0 ")), 3)
    return " ".join(part for part in parts[first : first + 2] if not part.startswith("0 ")) or "0 s"


def per_second(value: float | None) -> str:
    """Return ``4.2/s``."""
    if value is None:
        return NOTHING
    return f"{value:.1f}/s" if value < 99.95 else f"{value:,.0f}/s"  # noqa: PLR2004 - two digits and a decimal


def sparkline(values: Sequence[float | None], width: int, blocks: str, ceiling: float | None = None) -> str:
    """Return the last ``width`` values as blocks, the newest at the right; a gap stays empty.

    Args:
        values: oldest first; None where nothing was measured.
        width: in characters; shorter series are padded on the left.
        blocks: from lowest to highest.
        ceiling: what the highest block stands for; None: the greatest value that is shown.
    """
    shown = list(values)[-width:] if width > 0 else []
    top = ceiling if ceiling is not None else max((value for value in shown if value is not None), default=0.0)
    return "".join(_block(value, top, blocks) for value in shown).rjust(max(width, 0))


def _block(value: float | None, top: float, blocks: str) -> str:
    if value is None:
        return " "
    if top <= 0:
        return blocks[0]
    return blocks[min(len(blocks) - 1, max(0, int(value / top * len(blocks))))]


def plain(text: object) -> str:
    """Return text from a server without control characters, which a terminal would obey."""
    return "".join(sign if sign.isprintable() else " " for sign in str(text))


def level(value: float | None) -> str:
    """Return the style of percent of something that runs full."""
    if value is None:
        return "dim"
    return "green" if value < 70 else "yellow" if value < 90 else "red"  # noqa: PLR2004 - getting tight, nearly full


def style_of(status: str) -> str:
    """Return the style of healthy, degraded, or anything worse."""
    return {"healthy": "bold green", "degraded": "bold yellow"}.get(status, "bold red")
