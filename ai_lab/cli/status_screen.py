"""The screen of ``ai-lab status``."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ai_lab.cli import figures, operations
from ai_lab.cli.address import Address, Trouble
from ai_lab.cli.figures import Signs, plain
from ai_lab.cli.notes import gpu_note, no_gpu, process_note, program
from ai_lab.cli.operations import Operation
from ai_lab.cli.reading import Reading
from ai_lab.telemetry.schemas import SystemMetrics

_NARROW = 70  # below, a section's name stands above it and not beside
_WIDEST = 110  # beyond, the eye loses the line
_BAR = 12
_SHOWN_FROM_MS = 0.1
_MODELS_SHOWN = 8
_ROUTES_SHOWN = 2
_TIGHT = 32  # lines of a terminal; below, no blank lines between the sections
_FILESYSTEMS_SHOWN = 3


def draw(address: Address, reading: Reading, size: tuple[int, int], signs: Signs) -> RenderableType:
    """Return the whole screen for a terminal of this size, in columns and lines."""
    width, height = size
    is_narrow = width < _NARROW
    sections = {
        "Health": _health(reading, signs, width // 3),
        "Machine": _machine(reading, signs, width // 3, has_bars=not is_narrow),
        "Last hour": _last_hour(reading),
        "Models": _models(reading),
    }
    if is_narrow:
        parts: list[RenderableType] = [_header(address, reading, signs)]
        for name, content in sections.items():
            parts += [Text(), Text(name, "bold"), content]
        return Group(*parts)
    body = Table.grid(padding=(0, 2, 0, 0))
    body.width = min(width, _WIDEST)
    body.add_column(style="bold", no_wrap=True)
    body.add_column(ratio=1)
    for name, content in sections.items():
        if height >= _TIGHT:
            body.add_row()
        body.add_row(name, content)
    return Group(_header(address, reading, signs), body)


def draw_trouble(trouble: Trouble, signs: Signs) -> Text:
    """Return what to print where there is no server."""
    line = Text().append(plain(f"{signs.unhealthy} {trouble.what}"), "bold red")
    return line.append("\n").append(plain(f"{signs.remedy} {trouble.remedy}"))


def _header(address: Address, reading: Reading, signs: Signs) -> Text:
    health = reading.health
    line = Text().append("AI Lab", "bold").append(f" {plain(health.version)}", "dim")
    line.append(
        f"   {signs.of(reading.health.status)} {plain(reading.health.status)}", figures.style_of(reading.health.status)
    )
    line.append(f"   {plain(address.url)}", "cyan")
    return line.append(f"   up {figures.span(reading.health.uptime_seconds)}")


def _health(reading: Reading, signs: Signs, name_width: int) -> RenderableType:
    """Return a line per component; one that is not healthy gets as many as it needs, and its remedy."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, max_width=name_width)
    table.add_column(ratio=1)
    table.add_column(no_wrap=True, justify="right", style="dim")
    for component in reading.health.components:
        is_healthy = component.status == "healthy"
        name = Text().append(f"{signs.of(component.status)} ", figures.style_of(component.status))
        detail = Text(plain(component.detail), no_wrap=is_healthy, overflow="ellipsis" if is_healthy else "fold")
        if component.remedy:
            advice = f"{signs.remedy} {plain(component.remedy)}"
            detail.append(f" {advice}" if is_healthy else f"\n{advice}", "dim" if is_healthy else "bold")
        took_ms = component.latency_ms or 0
        took = figures.latency(took_ms) if took_ms >= _SHOWN_FROM_MS else ""
        table.add_row(name.append(plain(component.component)), detail, took)
    return table


def _machine(reading: Reading, signs: Signs, name_width: int, *, has_bars: bool) -> RenderableType:
    metrics = reading.metrics
    if metrics is None:
        return Text(plain(reading.missing.get("metrics", "no figures")), "yellow")
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, max_width=name_width)
    table.add_column(no_wrap=True, justify="right")
    if has_bars:
        table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for name, value, note in _gauges(metrics, signs):
        style = figures.level(value)
        shown = [Text(name), Text("" if value is None else figures.percent(value), style)]
        if has_bars:
            shown.append(_bar(value, signs))
        table.add_row(*shown, Text(plain(note), no_wrap=has_bars, overflow="ellipsis"))
    return table


def _bar(value: float | None, signs: Signs) -> Text:
    if value is None:
        return Text()
    filled = min(_BAR, max(0, round(value / 100 * _BAR)))
    return Text().append(signs.full * filled, figures.level(value)).append(signs.free * (_BAR - filled), "dim")


def _gauges(metrics: SystemMetrics, signs: Signs) -> Iterator[tuple[str, float | None, str]]:
    """Yield (name, percent, note)."""
    cpu, memory = metrics.cpu, metrics.memory
    cores = f"{cpu.effective_count:g} of {cpu.count} cores" if cpu.effective_count < cpu.count else f"{cpu.count} cores"
    load = " ".join(f"{value:.2f}" for value in cpu.load_average or [])
    yield "CPU", cpu.usage_percent, f"{cores}{', load ' + load if load else ''}"
    swap = (
        f", swap {figures.part_of(memory.swap_used_bytes, memory.swap_total_bytes)}" if memory.swap_used_bytes else ""
    )
    limit = " (limit of the container)" if memory.limit_bytes else ""
    yield "Memory", memory.usage_percent, figures.part_of(memory.used_bytes, memory.total_bytes) + limit + swap
    fullest = sorted(metrics.filesystems, key=lambda one: one.used_percent, reverse=True)
    for filesystem in fullest[:_FILESYSTEMS_SHOWN]:
        note = f"{figures.size(filesystem.free_bytes)} free of {figures.size(filesystem.total_bytes)}"
        yield f"Disk {plain(filesystem.mountpoint)}", filesystem.used_percent, note
    for gpu in metrics.gpus:
        yield f"GPU {gpu.index}", gpu.utilization_percent, ", ".join(filter(None, (gpu_note(gpu, signs), gpu.name)))
    if not metrics.gpus:
        yield "GPU", None, no_gpu(metrics)
    yield "Server", None, process_note(metrics.process)
    for child in metrics.children:
        yield program(child).capitalize(), None, process_note(child)


def _last_hour(reading: Reading) -> RenderableType:
    """Return what was asked for in all, and the endpoints and models that took most of the time."""
    performance = reading.performance
    if performance is None:
        return Text(plain(reading.missing.get("performance", "no figures")), "yellow")
    asked, tokens = operations.requests(performance), performance.llm.tokens
    failed = sum(one.errors for one in asked)
    line = Text(f"{sum(one.count for one in asked):,} requests, ")
    line.append(f"{failed:,} failed", "bold red" if failed else "")
    line.append(f"; tokens {tokens.input:,} in, {tokens.output:,} out")
    rows = [*asked[:_ROUTES_SHOWN], *operations.models(performance)[:_ROUTES_SHOWN]]
    return Group(line, _durations(rows)) if rows else line


def _durations(rows: list[Operation]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    for _ in range(4):
        table.add_column(no_wrap=True, justify="right")
    table.add_row("", *(Text(title, "dim") for title in ("count", "failed", "p50", "p95")))
    for one in rows:
        failed = Text(f"{one.errors:,}", "bold red" if one.errors else "")
        p50, p95 = figures.latency(one.durations.p50_ms), figures.latency(one.durations.p95_ms)
        table.add_row(Text(plain(one.name)), f"{one.count:,}", failed, p50, p95)
    return table


def _models(reading: Reading) -> RenderableType:
    if reading.models is None:
        return Text(plain(reading.missing.get("models", "no list")), "yellow")
    if not reading.models:
        return Text("none: put a GGUF file into the models folder, or start Ollama", "yellow")
    line = Text()
    for model in reading.models[:_MODELS_SHOWN]:
        line.append(("" if not line else ", ") + plain(model.get("id")))
        if model.get("stale"):
            line.append(" (does not answer)", "yellow")
    if len(reading.models) > _MODELS_SHOWN:
        line.append(f" and {len(reading.models) - _MODELS_SHOWN} more", "dim")
    return line
