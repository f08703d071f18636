"""Numbers and names as people read them: never more digits than the interval supports, never a control character."""

from __future__ import annotations

import math
import unicodedata

from ai_lab.benchmarks.schemas import Cell, Estimate, MetricResult

NONE = "—"
_THIN = "\u202f"  # narrow space that does not break: a number stays with its unit
_UNITS = {
    "tokens/s": "tok/s",
    "tps": "tok/s",
    "requests/s": "req/s",
    "rps": "req/s",
    "seconds": "s",
    "share": "%",
    "us/chunk": "µs/chunk",
}
_UNIT_OF_ENDING = {
    "_tps": "tok/s",
    "_rps": "req/s",
    "_share": "share",
    "_ms": "ms",
    "_watts": "W",
    "_us_per_chunk": "µs/chunk",
    "_seconds": "s",
}
_MOST_DIGITS = 6
_DIGITS_WITHOUT_INTERVAL = 3
_SECONDS_FROM_MS = 10_000  # from here on milliseconds are read as seconds


def total_unit(name: str) -> str:
    """Return the unit of one of a cell's totals: it is in the name."""
    if name.startswith("joules"):
        return "J/tok" if "token" in name else "J/req"
    if name == "mean_watts":
        return "W"
    return next((unit for ending, unit in _UNIT_OF_ENDING.items() if name.endswith(ending)), "")


def metric_of(cell: Cell, name: str) -> MetricResult | None:
    """Return a metric of a cell, with or without the unit in its name."""
    return cell.metrics.get(name) or cell.metrics.get(f"{name}_ms")


def supported_places(low: float, high: float, value: float) -> int:
    """Return the decimal places that show two significant digits of the interval's half width.

    Negative places are tens, hundreds, and so on. A width of 0 or next to 0 does not buy more than six significant
    digits of the value.
    """
    half = (high - low) / 2
    most = _MOST_DIGITS - 1 - _power(value, _MOST_DIGITS) if value else _MOST_DIGITS
    return min(1 - _power(half, 2), most) if half > 0 else min(most, _DIGITS_WITHOUT_INTERVAL)


def rounded(value: float, places: int) -> str:
    """Return ``value`` with ``places`` decimals; negative places round to tens or hundreds."""
    if not math.isfinite(value):
        return "∞" if value > 0 else NONE
    return f"{round(value, places) + 0.0:.{max(places, 0)}f}"  # + 0.0: no minus in front of a zero


def significant(value: float, digits: int = _DIGITS_WITHOUT_INTERVAL) -> str:
    """Return ``value`` with so many significant digits, without an exponent."""
    if not value or not math.isfinite(value):
        return rounded(value, 0)
    return rounded(value, digits - 1 - _power(value, digits))


def _power(value: float, digits: int) -> int:
    """Return the power of ten of a value once it is rounded to so many digits: 0 for 9.99, but 1 for 9.996 of three."""
    return int(f"{value:.{digits - 1}e}".partition("e")[2])


def with_unit(number: str, unit: str) -> str:
    """Return the number and its unit, kept together."""
    return f"{number}{_THIN}{unit}" if unit and number not in {NONE, "∞"} else number


def plain_value(value: float | None, unit: str = "") -> str:
    """Return a figure that has no interval of its own, with its unit."""
    if value is None:
        return NONE
    scale, shown_unit = _scale(value, unit)
    return with_unit(significant(value * scale), shown_unit)


def estimate_text(estimate: Estimate | None, unit: str = "", *, with_reason: bool = True) -> str:
    """Return ``value [low, high] unit``; without an interval why there is none; a dash for no value."""
    if estimate is None:
        return NONE
    why = f" ({shown(estimate.reason, 80)})" if estimate.reason and with_reason else ""
    if estimate.value is None:
        return NONE + why
    low, high = estimate.low, estimate.high
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return plain_value(estimate.value, unit) + (why or (" (no interval)" if with_reason else ""))
    scale, shown_unit = _scale(max(abs(estimate.value), abs(high)), unit)
    value, low, high = estimate.value * scale, low * scale, high * scale
    places = supported_places(low, high, value)
    return with_unit(f"{rounded(value, places)} [{rounded(low, places)}, {rounded(high, places)}]", shown_unit)


def change_text(low: float | None, value: float | None, high: float | None) -> str:
    """Return a ratio and its interval as a change in percent: ``+5.1 [+4.2, +6.0] %``."""
    if value is None:
        return NONE
    change = (value - 1) * 100
    if low is None or high is None:
        return with_unit(_signed(significant(change)), "%")
    low, high = (low - 1) * 100, (high - 1) * 100
    places = supported_places(low, high, change)
    numbers = [_signed(rounded(one, places)) for one in (change, low, high)]
    return with_unit(f"{numbers[0]} [{numbers[1]}, {numbers[2]}]", "%")


def _signed(number: str) -> str:
    return number if number.startswith("-") or not number.strip("0.") else f"+{number}"


def _scale(size: float, unit: str) -> tuple[float, str]:
    if unit == "ms" and abs(size) >= _SECONDS_FROM_MS:
        return 1e-3, "s"
    if unit == "share":
        return 100, "%"
    return 1, _UNITS.get(unit, unit)


def level_text(cell: Cell) -> str:
    """Return what a level is called."""
    return f"{cell.level:g}{_THIN}req/s" if cell.level_kind == "rate" else f"concurrency {cell.level:g}"


def shown(text: object, most: int = 200) -> str:
    """Return foreign text fit for a report: on one line, bounded, without control or text-reordering characters."""
    line = " ".join(str(text)[: most * 4].split())
    # Cc: controls; Cf: invisible, among them those that reverse the text after them; Cs: halves of a character.
    clean = "".join("\ufffd" if unicodedata.category(one) in {"Cc", "Cf", "Cs"} else one for one in line)
    return clean if len(clean) <= most else clean[: most - 1] + "…"
