"""``ai-lab bench``: its commands and options; what they do is in ``bench.py``, which is imported when one is called.

Exit codes: 0 done; 1 something is slower than ``--fail-if-slower`` allows, or the run did not come to its end; 2 the
call was wrong or nothing could be measured; 3 ``--fail-if-slower`` was asked of a run that is INVALID; 130 interrupted.
What ``--fail-if-slower`` cannot tell is said, with the blocks that would tell, and is no failure.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

bench = typer.Typer(
    help="Measure models: how fast, how sure, and which one is faster.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Models = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MODEL]...",
        help="provider/model, with settings after commas: MODEL,engine.threads=2,options.temperature=0.7,name=warm; "
        "others are url, api_key_from, protocol, endpoint. Default: the lab's default model.",
        show_default=False,
    ),
]
TwoModels = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL MODEL...",
        help="provider/model, with settings after commas: MODEL,engine.threads=2; or ids of stored runs. "
        "The first is the baseline.",
    ),
]
Server = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="AI Lab server that measures. Default: the one of the settings; where none runs, this process measures.",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Server to measure, by address: Ollama, llama.cpp, vLLM, any OpenAI-compatible."),
]
KeyFrom = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Environment variable with the API key of --target. It is never stored."),
]
KeyAgain = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Environment variable with the API key, given to every model that has a url."),
]
Iterations = Annotated[
    int | None, typer.Option("--iterations", "-n", metavar="N", help="Requests per arm and level. Default: 10 or more.")
]
Concurrency = Annotated[
    str | None, typer.Option("--concurrency", "-c", metavar="N[,N...]", help="Requests at a time; several: a sweep.")
]
Rate = Annotated[
    str | None, typer.Option(metavar="R[,R...]", help="Requests per second, sent whether the server keeps up or not.")
]
Arrivals = Annotated[str | None, typer.Option(metavar="KIND", help="With --rate: poisson (default) or constant.")]
Prompt = Annotated[str | None, typer.Option(metavar="TEXT", help="Your own prompt.")]
PromptsFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Your own prompts: a text per line, or JSON lines with a field prompt or text."),
]
PromptMode = Annotated[
    str | None,
    typer.Option(metavar="MODE", help="unique (default), shared_prefix, repeat: what prompts have in common."),
]
PromptTokens = Annotated[int | None, typer.Option(metavar="N", help="Length of made-up prompts. Default: 128.")]
SharedTokens = Annotated[int | None, typer.Option(metavar="N", help="With shared_prefix: tokens all have in common.")]
OutputTokens = Annotated[int | None, typer.Option(metavar="N", help="Length of answers. Default: 64.")]
Slo = Annotated[
    str | None,
    typer.Option(metavar="LIMITS", help="What a good request keeps: ttft=500,tpot=50,e2e=5000 (ms), share=0.95."),
]
Warmup = Annotated[int | None, typer.Option(metavar="N", help="Requests per arm before anything counts. Default: 2.")]
ColdLoads = Annotated[int | None, typer.Option(metavar="N", help="Load the model anew so often, and time it.")]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Of prompts, arrivals and order. Default: 0.")]
Title = Annotated[str | None, typer.Option(metavar="TEXT", help="How the list calls the run.")]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        metavar="KIND",
        help="text, json, jsonl (every request), csv, markdown, html, benchstat. Default: what the suffix of --output "
        "says, else text.",
    ),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it to a file instead of the terminal.")
]
AnyRunId = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN_ID]", help="As `ai-lab bench list` shows it. Default: the newest run.", show_default=False
    ),
]
RunId = Annotated[str, typer.Argument(metavar="RUN_ID", help="As `ai-lab bench list` shows it.", show_default=False)]


@bench.command()
def run(
    models: Models = None,
    *,
    iterations: Iterations = None,
    concurrency: Concurrency = None,
    rate: Rate = None,
    arrivals: Arrivals = None,
    search: Annotated[bool, typer.Option("--search", help="Look for the highest rate that keeps --slo.")] = False,
    slo: Slo = None,
    prompt: Prompt = None,
    prompts: PromptsFile = None,
    prompt_mode: PromptMode = None,
    prompt_tokens: PromptTokens = None,
    shared_tokens: SharedTokens = None,
    output_tokens: OutputTokens = None,
    target: Target = None,
    api_key_from: KeyFrom = None,
    warmup: Warmup = None,
    cold_loads: ColdLoads = None,
    seed: Seed = None,
    title: Title = None,
    url: Server = None,
    format: Format = None,  # noqa: A002 - the option's name
    output: Output = None,
) -> None:
    """Measure a model, or several side by side."""
    _measure(dict(locals()))


@bench.command()
def sweep(
    models: Models = None,
    *,
    concurrency: Concurrency = None,
    rate: Rate = None,
    arrivals: Arrivals = None,
    iterations: Iterations = None,
    slo: Slo = None,
    prompt_tokens: PromptTokens = None,
    output_tokens: OutputTokens = None,
    target: Target = None,
    api_key_from: KeyFrom = None,
    seed: Seed = None,
    title: Title = None,
    url: Server = None,
    format: Format = None,  # noqa: A002 - the option's name
    output: Output = None,
) -> None:
    """Measure at 1, 2, 4 and 8 requests at a time, or at the levels you name."""
    values = dict(locals())
    if concurrency is None and rate is None:
        values["concurrency"] = "1,2,4,8"
    _measure(values)


@bench.command()
def compare(
    models: TwoModels,
    *,
    fail_if_slower: Annotated[
        str | None,
        typer.Option(
            metavar="5%",
            help="Exit code 1 where anything is surely slower than the first by more than this, 3 where the run is "
            "INVALID. What cannot be told is said, with the blocks that would tell, and is no failure.",
        ),
    ] = None,
    margin: Annotated[
        str | None, typer.Option(metavar="3%", help="Smaller differences count as none. Default: 3%.")
    ] = None,
    iterations: Iterations = None,
    blocks: Annotated[int | None, typer.Option(metavar="N", help="Rounds, each with every model once.")] = None,
    concurrency: Concurrency = None,
    rate: Rate = None,
    arrivals: Arrivals = None,
    prompt: Prompt = None,
    prompts: PromptsFile = None,
    prompt_tokens: PromptTokens = None,
    output_tokens: OutputTokens = None,
    target: Target = None,
    api_key_from: KeyFrom = None,
    warmup: Warmup = None,
    seed: Seed = None,
    title: Title = None,
    url: Server = None,
    format: Format = None,  # noqa: A002 - the option's name
    output: Output = None,
) -> None:
    """Compare models side by side: in turns, in random order, so that a drifting machine favours nobody.

    Ids of stored runs are compared as what they are: measured at different times.
    """
    _measure(dict(locals()), least_models=2)


@bench.command("list")
def list_runs(
    *, url: Server = None, limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many.")] = 20
) -> None:
    """List runs, the newest first."""
    from ai_lab.cli.bench import show_list  # noqa: PLC0415 - 0.5 s, not for --help

    raise typer.Exit(show_list(url, limit))


@bench.command()
def show(run_id: AnyRunId = None, *, url: Server = None) -> None:
    """Show a run on the terminal, and how far it is where it goes on."""
    _report(run_id, url, "text", None)


@bench.command()
def report(
    run_id: AnyRunId = None,
    *,
    url: Server = None,
    format: Format = None,  # noqa: A002 - the option's name
    output: Output = None,
) -> None:
    """Print the report of a run as a document (markdown, unless another is asked for), or write it to a file."""
    _report(run_id, url, format or (None if output else "markdown"), output)


@bench.command()
def rerun(
    run_id: RunId,
    *,
    api_key_from: KeyAgain = None,
    url: Server = None,
    format: Format = None,  # noqa: A002 - the option's name
    output: Output = None,
) -> None:
    """Measure the same once more."""
    _again("rerun", run_id, url=url, key_name=api_key_from, fmt=format, output=output)


@bench.command()
def resume(
    run_id: RunId,
    *,
    api_key_from: KeyAgain = None,
    url: Server = None,
    format: Format = None,  # noqa: A002 - the option's name
    output: Output = None,
) -> None:
    """Go on with a run that was cancelled, interrupted or failed."""
    _again("resume", run_id, url=url, key_name=api_key_from, fmt=format, output=output)


@bench.command()
def cancel(run_id: RunId, *, url: Server = None) -> None:
    """Stop a run; what it has measured is kept."""
    from ai_lab.cli.bench import cancel_run  # noqa: PLC0415 - as above

    raise typer.Exit(cancel_run(run_id, url))


@bench.command()
def delete(run_id: RunId, *, url: Server = None) -> None:
    """Delete a run that has ended, with all that it measured."""
    from ai_lab.cli.bench import delete_run  # noqa: PLC0415 - as above

    raise typer.Exit(delete_run(run_id, url))


def _measure(values: dict[str, Any], *, least_models: int = 0) -> None:
    from ai_lab.cli.bench import measure  # noqa: PLC0415 - as above

    raise typer.Exit(measure(values, least_models=least_models))


def _report(run_id: str | None, url: str | None, fmt: str | None, output: Path | None) -> None:
    from ai_lab.cli.bench import show_report  # noqa: PLC0415 - as above

    raise typer.Exit(show_report(run_id, url, fmt, output))


def _again(what: str, run_id: str, **how: Any) -> None:
    from ai_lab.cli.bench import go_again  # noqa: PLC0415 - as above

    raise typer.Exit(go_again(what, run_id, **how))
