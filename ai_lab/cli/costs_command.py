"""``ai-lab costs`` and ``ai-lab budget``: their options; what they do is in ``costs.py``, imported when one is called.

Exit codes: 0 done; 2 the call was wrong or no server answers.
"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

budget = typer.Typer(
    help="Limits on spending: list, set, remove.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Server = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="Address of the server. Default: that of the settings."),
]
Json = Annotated[bool, typer.Option("--json", help="Print everything as JSON, for programs.")]


def show_costs(
    *,
    by: Annotated[
        Literal["model", "service", "day", "month", "source", "alias"],
        typer.Option("--by", help="What is shown apart."),
    ] = "model",
    days: Annotated[
        int, typer.Option("--days", "-d", metavar="N", min=1, max=36500, help="The last N days, today included (UTC).")
    ] = 30,
    json: Json = False,
    url: Server = None,
) -> None:
    """Show what answers of models cost: money, tokens, and electricity of models on this machine.

    What nobody knows is shown as unknown and is in no sum. A price of your own: AI_LAB_PRICES, then POST /costs/reprice
    """
    from ai_lab.cli.costs import print_costs  # noqa: PLC0415 - 0.5 s, not for --help

    raise typer.Exit(print_costs(by, days=days, as_json=json, url=url))


@budget.command("list")
def list_(*, json: Json = False, url: Server = None) -> None:
    """Show the budgets, and what is used of each in this day or month."""
    from ai_lab.cli.costs import list_budgets  # noqa: PLC0415 - 0.5 s, not for --help

    raise typer.Exit(list_budgets(as_json=json, url=url))


@budget.command("set")
def set_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it, without spaces.", show_default=False)],
    *,
    hard: Annotated[float | None, typer.Option(metavar="USD", min=0, help="From here on requests are refused.")] = None,
    soft: Annotated[
        float | None, typer.Option(metavar="USD", min=0, help="From here on answers carry a warning.")
    ] = None,
    per: Annotated[
        Literal["day", "month"] | None, typer.Option("--per", help="How long the money has to last (UTC).")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="SERVICE/MODEL", help="Only this model, or with SERVICE alone all models of a service."),
    ] = None,
    url: Server = None,
) -> None:
    """Make a budget, or change the one of this name; what is not named stays.

    ai-lab budget set team --hard 20 --soft 15 --per month --model openai
    """
    from ai_lab.cli.costs import set_budget  # noqa: PLC0415 - 0.5 s, not for --help

    raise typer.Exit(set_budget(name, hard_usd=hard, soft_usd=soft, period=per, model=model, url=url))


@budget.command()
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name or id.", show_default=False)],
    *,
    url: Server = None,
) -> None:
    """Remove a budget; what was spent stays known."""
    from ai_lab.cli.costs import remove_budget  # noqa: PLC0415 - 0.5 s, not for --help

    raise typer.Exit(remove_budget(name, url=url))
