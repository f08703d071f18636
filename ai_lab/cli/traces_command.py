"""``ai-lab trace``: its commands and options; what they do is in ``traces.py``, which is imported when one is called.

Exit codes: 0 done; 2 the call was wrong, there is no such trace, or no server answers.
"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

trace = typer.Typer(
    help="How answers came about: list, show, replay.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Server = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="Address of the server. Default: that of the settings."),
]
Json = Annotated[bool, typer.Option("--json", help="Print everything as JSON, for programs.")]
TraceId = Annotated[
    str,
    typer.Argument(
        metavar="TRACE_ID",
        help="As `ai-lab trace list` or the header x-ai-lab-trace-id shows it, or a W3C trace id.",
        show_default=False,
    ),
]


@trace.command("list")
def list_(
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many.")] = 20,
    status: Annotated[
        Literal["complete", "failed", "cancelled"] | None, typer.Option("--status", help="Only these.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="That answered, or that was asked for.")
    ] = None,
    session: Annotated[
        str | None, typer.Option("--session", metavar="ID", help="Only those of this conversation.")
    ] = None,
    json: Json = False,
    url: Server = None,
) -> None:
    """Show the newest answers: model, attempts, times, tokens, cost."""
    from ai_lab.cli.traces import list_traces  # noqa: PLC0415 - 0.5 s, not for --help

    filters = {"status": status, "model": model, "session_id": session}
    raise typer.Exit(list_traces(filters, limit=limit, as_json=json, url=url))


@trace.command()
def show(trace_id: TraceId, *, json: Json = False, url: Server = None) -> None:
    """Show how one answer came about, attempt by attempt."""
    from ai_lab.cli.traces import show_trace  # noqa: PLC0415 - 0.5 s, not for --help

    raise typer.Exit(show_trace(trace_id, as_json=json, url=url))


@trace.command()
def replay(
    trace_id: TraceId,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="provider/model or an alias.", show_default=False)],
    *,
    json: Json = False,
    url: Server = None,
) -> None:
    """Ask the same question of another model, and show both answers. The conversation stays as it is."""
    from ai_lab.cli.traces import replay_trace  # noqa: PLC0415 - 0.5 s, not for --help

    raise typer.Exit(replay_trace(trace_id, model, as_json=json, url=url))
