"""How traces look on a terminal. Everything from outside is shown as text alone."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from ai_lab.cli.costs_screen import money
from ai_lab.cli.figures import NOTHING, latency, percent, plain
from ai_lab.traces.schemas import AttemptTrace, Replay, ReplaySide, TraceDetail, TraceSummary
from ai_lab.traces.trace import HostLoad

_STYLES = {"complete": "green", "ok": "green", "failed": "red", "cancelled": "yellow", "refused": "yellow"}
_UNKNOWN = "unknown"


def draw_traces(traces: Sequence[TraceSummary]) -> Table:
    """Return a line per trace."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("Trace", "When"):
        table.add_column(name, no_wrap=True)
    for name in ("Model", "Ended", "Cache"):
        table.add_column(name, overflow="fold")
    for name in ("Tries", "First token", "Whole", "Tokens", "Cost"):
        table.add_column(name, justify="right", no_wrap=True)
    for trace in traces:
        table.add_row(
            plain(trace.id),
            trace.at.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            Text(plain(trace.model or trace.asked or NOTHING)),
            Text(plain(trace.error_code or trace.status), style=_STYLES[trace.status]),
            Text(plain(trace.cache)),
            str(trace.attempt_count),
            latency(trace.first_token_ms),
            latency(trace.total_ms),
            _tokens(trace.prompt_tokens, trace.completion_tokens),
            money(trace.cost),
        )
    return table


def draw_trace(trace: TraceDetail) -> RenderableType:
    """Return a trace as a tree: the call, what holds for all of it, and each attempt."""
    name = trace.model or trace.asked or NOTHING
    asked = f" (asked for {plain(trace.asked)})" if trace.asked and trace.asked != trace.model else ""
    head = Text(f"{trace.operation} {plain(name)}{asked}: ")
    head.append(trace.status, style=_STYLES[trace.status])
    head.append(f" in {latency(trace.total_ms)}, first token after {latency(trace.first_token_ms)}")
    tree = Tree(head)
    when = trace.at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    tree.add(Text(f"{when}  {plain(trace.id)}  by {plain(trace.source)}{_places(trace)}"))
    cached = f", {trace.similarity:.3f} alike" if trace.similarity is not None else ""
    tree.add(
        Text(
            f"cache: {plain(trace.cache)}{cached}  tokens: {_tokens(trace.prompt_tokens, trace.completion_tokens)}  "
            f"cost: {money(trace.cost)}"
        )
    )
    if trace.host_load.start or trace.host_load.end:
        tree.add(
            Text(f"machine: {_load(trace.host_load.start)} at its beginning, {_load(trace.host_load.end)} at its end")
        )
    for warning in trace.warnings:
        tree.add(Text(f"warning: {plain(warning)}", style="yellow"))
    for attempt in trace.attempts:
        _add(tree, attempt)
    if trace.error:
        tree.add(Text(f"{plain(trace.error_code)}: {plain(trace.error)}", style="red"))
    return tree


def draw_replay(both: Replay) -> RenderableType:
    """Return both answers, one below the other, each with its figures."""
    return Group(*_side("first", both.original), Text(), *_side("again", both.replay))


def _add(tree: Tree, attempt: AttemptTrace) -> None:
    outcome = attempt.outcome or "goes on"
    line = Text(f"{attempt.number}. {attempt.kind} {plain(attempt.provider)}/{plain(attempt.model)}: ")
    line.append(outcome, style=_STYLES.get(outcome, ""))
    line.append(f"  {latency(attempt.started_ms)} to {latency(attempt.ended_ms)}")
    if attempt.first_token_ms is not None:
        line.append(f", first token at {latency(attempt.first_token_ms)}")
    if attempt.outcome != "refused":
        line.append(f", {money(attempt.cost)}")
    if attempt.energy_joules is not None:
        line.append(f", {attempt.energy_joules:.1f} J")
    branch = tree.add(line)
    if attempt.error:
        branch.add(Text(f"{plain(attempt.error_code)}: {plain(attempt.error)}", style="red"))


def _places(trace: TraceDetail) -> str:
    session = f"  conversation {plain(trace.session_id)}" if trace.session_id else ""
    request = f"  request {plain(trace.request_id)}" if trace.request_id else ""
    return f"{session}{request}{'  local only' if trace.local_only else ''}"


def _load(load: HostLoad | None) -> str:
    if load is None:
        return _UNKNOWN
    gpu = f", GPU {percent(load.gpu_percent)}" if load.gpu_percent is not None else ""
    return f"CPU {percent(load.cpu_percent)}, memory {percent(load.memory_percent)}{gpu}"


def _side(name: str, side: ReplaySide) -> list[Text]:
    figures = (
        f"{name}: {plain(side.model or NOTHING)}  first token {latency(side.first_token_ms)}, whole "
        f"{latency(side.total_ms)}, tokens {_tokens(side.prompt_tokens, side.completion_tokens)}, {money(side.cost)}"
    )
    lines = (side.text or "").splitlines() if side.text is not None else ["(not kept)"]
    return [Text(figures, style="bold"), *(Text(plain(line)) for line in lines)]


def _tokens(read: int | None, written: int | None) -> str:
    if read is None and written is None:
        return _UNKNOWN
    return f"{NOTHING if read is None else read} in, {NOTHING if written is None else written} out"
