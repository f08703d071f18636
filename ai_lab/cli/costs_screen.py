"""How costs and budgets look on a terminal. Everything from outside is shown as text alone."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ai_lab.cli.figures import plain
from ai_lab.costs.schemas import Budget, CostFigures, CostSummary

_PIPE_COLUMNS = 400
_TITLES = {"model": "Model", "service": "Service", "day": "Day", "month": "Month", "source": "Source", "alias": "Alias"}
_UNKNOWN = "unknown"
_STYLES = {"fine": "green", "soft": "yellow", "hard": "red"}
_CENTS_FROM_USD = 1.0


def draw_costs(summary: CostSummary) -> Table:
    """Return a line per group, and one for all of them."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_footer=len(summary.groups) > 1)
    totals = _cells(summary.totals)
    table.add_column(_TITLES[summary.group_by], footer="All", overflow="fold")
    for name, total in zip(
        ("Attempts", "Tokens in", "cached", "Tokens out", "Cost", "Electricity"), totals, strict=True
    ):
        table.add_column(name, justify="right", footer=total)
    for group in summary.groups:
        table.add_row(Text(plain(group.key or "-")), *_cells(group))
    return table


def unknown_note(totals: CostFigures) -> str | None:
    """Return what to say where costs are not known."""
    if not totals.unknown_costs:
        return None
    return (
        f"The cost of {totals.unknown_costs:,} of {totals.attempts:,} attempts is not known and in no sum: the service "
        "did not count tokens, or nobody knows the price. Give prices in AI_LAB_PRICES, then POST /costs/reprice."
    )


def draw_budgets(budgets: Sequence[Budget]) -> Table:
    """Return a line per budget."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("Budget", no_wrap=True)
    table.add_column("For", overflow="fold")
    for name in ("Used", "Soft", "Hard"):
        table.add_column(name, justify="right")
    table.add_column("State")
    table.add_column("Begins anew", no_wrap=True)
    for one in budgets:
        unknown = f" + {one.unknown_costs:,} unknown" if one.unknown_costs else ""
        table.add_row(
            Text(plain(one.name)),
            Text(plain("/".join(filter(None, [one.service or ("*" if one.model else "all"), one.model])))),
            Text(f"{money(one.used_usd)}{unknown}"),
            _limit(one.soft_usd),
            _limit(one.hard_usd),
            Text({"fine": "fine", "soft": "soft limit", "hard": "refuses"}[one.state], style=_STYLES[one.state]),
            Text(f"{one.period_end:%Y-%m-%d %H:%M} UTC"),
        )
    return table


def money(usd: float | None) -> str:
    """Return dollars with cents, small amounts with the digits that say something; None: ``unknown``."""
    if usd is None:
        return _UNKNOWN
    if usd == 0 or usd >= _CENTS_FROM_USD:
        return f"${usd:,.2f}"
    text = f"{usd:.9f}".rstrip("0")
    return f"${text}" if len(text.partition(".")[2]) > 1 else f"${text:0<4}"


def wide_console() -> Console:
    """Return a console that cuts nothing where its output goes to a program."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPE_COLUMNS)


def _cells(figures: CostFigures) -> list[str]:
    unknown = f" + {figures.unknown_costs:,} unknown" if figures.unknown_costs else ""
    return [
        f"{figures.attempts:,}",
        f"{figures.prompt_tokens:,}",
        f"{figures.cached_tokens:,}",
        f"{figures.completion_tokens:,}",
        _UNKNOWN if figures.cost_usd is None else f"{money(figures.cost_usd)}{unknown}",
        _electricity(figures),
    ]


def _electricity(figures: CostFigures) -> str:
    """Return energy and its price, as far as they are known; ``-`` where no model of this machine was asked."""
    if figures.energy_kwh is None:
        return _UNKNOWN
    if not figures.energy_kwh:
        return "-"
    energy = f"{figures.energy_kwh * 1000:,.1f} Wh" if figures.energy_kwh < 1 else f"{figures.energy_kwh:,.1f} kWh"
    return energy if figures.electricity_usd is None else f"{energy}, {money(figures.electricity_usd)}"


def _limit(usd: float | None) -> str:
    return "-" if usd is None else money(usd)
