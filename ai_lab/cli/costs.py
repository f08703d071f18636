"""``ai-lab costs`` and ``ai-lab budget``: what they do; the exit codes are those of ``costs_command.py``."""

from __future__ import annotations

import sys
from datetime import timedelta

from ai_lab.cli.costs_screen import draw_budgets, draw_costs, unknown_note, wide_console
from ai_lab.cli.door import say
from ai_lab.cli.figures import plain
from ai_lab.cli.on_server import done_on_server
from ai_lab.client import cost_calls as calls
from ai_lab.client.connection import AsyncConnection
from ai_lab.client.costs import AsyncBudgetClient
from ai_lab.clock import now
from ai_lab.costs.schemas import GroupBy, Period
from ai_lab.errors import BudgetNotFound, InvalidRequest


def print_costs(group_by: GroupBy, *, days: int, as_json: bool, url: str | None) -> int:
    """Print what was spent in the last days, today included."""
    today = now().date()

    async def work(server: AsyncConnection) -> None:
        summary = await server.send(calls.summary(group_by, today - timedelta(days=days - 1), today))
        if as_json:
            sys.stdout.write(summary.model_dump_json(indent=2, by_alias=True) + "\n")
        elif summary.totals.attempts:
            wide_console().print(draw_costs(summary))
            if note := unknown_note(summary.totals):
                say(note)
        else:
            say(f"No model was asked in the last {days} days." if days > 1 else "No model was asked today (UTC).")

    return done_on_server(work, url)


def list_budgets(*, as_json: bool, url: str | None) -> int:
    """Print all budgets."""

    async def work(server: AsyncConnection) -> None:
        listed = await server.send(calls.budgets())
        if as_json:
            sys.stdout.write(listed.model_dump_json(indent=2) + "\n")
        elif listed.budgets:
            wide_console().print(draw_budgets(listed.budgets))
        else:
            say("There is no budget yet. Make one: ai-lab budget set NAME --hard USD --per month")

    return done_on_server(work, url)


def set_budget(
    name: str,
    *,
    hard_usd: float | None,
    soft_usd: float | None,
    period: Period | None,
    model: str | None,
    url: str | None,
) -> int:
    """Make a budget, or change what is named of the one that has this name."""

    async def work(server: AsyncConnection) -> None:
        budgets = AsyncBudgetClient(server)
        made = await budgets.set(name, hard_usd=hard_usd, soft_usd=soft_usd, period=period, model=model)
        wide_console().print(draw_budgets([made]))

    return done_on_server(work, url)


def remove_budget(name: str, *, url: str | None) -> int:
    """Remove a budget by name or id."""

    async def work(server: AsyncConnection) -> None:
        try:
            found = await AsyncBudgetClient(server).remove(name)
        except BudgetNotFound as error:
            raise InvalidRequest(f"{error.detail} All of them: ai-lab budget list") from None
        print(f"The budget {plain(found.name)} is removed.")  # noqa: T201 - a command speaks to its terminal

    return done_on_server(work, url)
