"""The commands and their options; what they do is in files that are imported when one is called.

Exit codes: 0 the server is healthy or degraded, 2 it is unhealthy or cannot be reached, or the call was wrong.
"""

from __future__ import annotations

from typing import Annotated

import typer

from ai_lab import __version__
from ai_lab.cli.bench_command import bench
from ai_lab.cli.costs_command import budget, show_costs
from ai_lab.cli.keys_command import keys
from ai_lab.cli.traces_command import trace
from ai_lab.cli.vault_command import vault

app = typer.Typer(
    help="Look at a running AI Lab server (start one with ./start.sh), measure models, keep API keys.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help appears three times as fast
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(bench, name="bench")
app.add_typer(budget, name="budget")
app.add_typer(keys, name="keys")
app.add_typer(trace, name="trace")
app.add_typer(vault, name="vault")
app.command("costs")(show_costs)
Url = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Address of the server. Default: API_HOST and API_PORT, else http://127.0.0.1:8001."
    ),
]


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"ai-lab {__version__}")
        raise typer.Exit


@app.callback()
def _every_command(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Look at a running AI Lab server (start one with ./start.sh), measure models, keep API keys."""


@app.command()
def status(
    *,
    url: Url = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, for programs.")] = False,
) -> None:
    """Show on one screen how the server is.

    Health with remedies, the machine, the engine, the last hour, models. Exit code 0: healthy or degraded; 2:
    unhealthy, or no server answers.
    """
    from ai_lab.cli.status import show_status  # noqa: PLC0415 - 0.5 s, not for --help

    raise typer.Exit(show_status(url, as_json=json))


@app.command()
def top(
    *,
    url: Url = None,
    interval: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.5,
            max=3600,
            help="Seconds between two looks. Default: whenever the server has a sample.",
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Print one frame and exit, as where there is no terminal.")
    ] = False,
) -> None:
    """Watch the server live.

    Processor, memory, disk, network, GPU, requests, tokens, slowest operations.

    q or Ctrl-C ends it. Exit code 2 where one frame was asked for and no server answers.
    """
    from ai_lab.cli.top import show_top  # noqa: PLC0415 - 0.5 s, not for --help

    raise typer.Exit(show_top(url, interval_seconds=interval, once=once))


@app.command()
def token(
    *,
    new: Annotated[bool, typer.Option("--new", help="Replace it; the server has to be started again then.")] = False,
) -> None:
    """Show where the server's token lies, and the address that opens the lab in a browser."""
    from ai_lab.cli.token import show_token  # noqa: PLC0415 - 0.5 s, not for --help

    raise typer.Exit(show_token(is_new=new))
