"""Sums as people read them: dollars and kilowatt-hours, and null where nothing is known."""

from __future__ import annotations

from datetime import date
from typing import Any

from ai_lab.costs.prices import usd
from ai_lab.costs.repository import Row
from ai_lab.costs.schemas import CostFigures, CostGroup, CostSummary, GroupBy

_JOULES_PER_KWH = 3_600_000
_IN_ORDER: tuple[GroupBy, ...] = ("day", "month")


def summary_of(
    group_by: GroupBy, start: date | None, end: date | None, *, totals: Row, groups: list[Row]
) -> CostSummary:
    """Return the summary of rows of sums."""
    shown = [
        CostGroup(key=_key(group_by, row), service=row.get("service"), model=row.get("model"), **_figures(row))
        for row in groups
    ]
    if group_by not in _IN_ORDER:
        shown.sort(key=lambda one: (-(one.cost_usd or 0), -one.attempts, one.key or ""))
    return CostSummary(start=start, end=end, group_by=group_by, totals=CostFigures(**_figures(totals)), groups=shown)


def _key(group_by: GroupBy, row: Row) -> str | None:
    if group_by == "model":
        return f"{row['service']}/{row['model']}"
    return row[group_by] or None


def _figures(row: Row) -> dict[str, Any]:
    attempts, unknown_costs = int(row["attempts"]), int(row["unknown_costs"])
    energy, electricity = float(row["energy_joules"]), int(row["electricity_nanousd"])
    unknown_electricity = int(row["unknown_electricity"])
    return {
        **{
            name: int(row[name])
            for name in ("attempts", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
        },
        "cost_usd": None if attempts and unknown_costs == attempts else usd(int(row["cost_nanousd"])),
        "unknown_costs": unknown_costs,
        "energy_kwh": None if unknown_electricity and not energy else energy / _JOULES_PER_KWH,
        "electricity_usd": None if unknown_electricity and not electricity else usd(electricity),
        "unknown_electricity": unknown_electricity,
    }
