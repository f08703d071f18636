"""The lines of ``ai-lab top`` that each show one figure: its name, its value, how it went, and what belongs to it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from rich.text import Text

from ai_lab.cli import figures
from ai_lab.cli.figures import Signs, plain
from ai_lab.cli.notes import gpu_note, no_gpu, process_note, program
from ai_lab.cli.reading import Reading
from ai_lab.cli.trends import Trends
from ai_lab.telemetry.schemas import SystemMetrics

NOTES_FROM = 64  # columns; on narrower terminals the curve needs the room
_LABEL, _VALUE, _NOTE = 10, 12, 32
_CORE_WIDTH, _CORE_LINES = 18, 4


class Gauges:
    """Writes the lines of one frame.

    Args:
        width: of a line.
        is_old: the figures are from before the connection was lost; they are shown faded.
    """

    def __init__(self, trends: Trends, width: int, signs: Signs, *, is_old: bool) -> None:
        self._trends, self._width, self._signs, self._is_old = trends, width, signs, is_old
        self._has_notes = width >= NOTES_FROM
        self._curve_width = max(0, width - _LABEL - _VALUE - (_NOTE if self._has_notes else 0))

    def lines(self, reading: Reading) -> Iterator[Text]:
        """Yield the lines for all that a reading holds."""
        if reading.metrics:
            yield from self._machine(reading.metrics)
        else:
            why = textwrap.wrap(plain(reading.missing.get("metrics", "no figures")), max(1, self._width - _LABEL))
            yield from (
                _labelled("" if number else "Machine").append(line, "yellow") for number, line in enumerate(why)
            )
        yield from self._traffic(reading)
        if reading.metrics:
            processes = [f"server {process_note(reading.metrics.process)}"]
            processes += [f"{program(child)} {process_note(child)}" for child in reading.metrics.children]
            yield _labelled("Programs").append(plain("; ".join(processes)), self.style(""))

    def style(self, style: str) -> str:
        """Return the style of a figure that is fresh, or that of an old one."""
        return "dim" if self._is_old else style

    def _machine(self, metrics: SystemMetrics) -> Iterator[Text]:
        cpu, memory = metrics.cpu, metrics.memory
        load = " ".join(f"{value:.2f}" for value in cpu.load_average or [])
        yield self._share("CPU", "cpu", cpu.usage_percent, f"load {load}" if load else f"{cpu.count} cores")
        yield from self._cores(cpu.per_core_percent or [])
        note = figures.part_of(memory.used_bytes, memory.total_bytes)
        if memory.swap_used_bytes:
            note += f", swap {figures.size(memory.swap_used_bytes)}"
        yield self._share("Memory", "memory", memory.usage_percent, note)
        read = sum(disk.read_bytes_per_second for disk in metrics.disks)
        written = sum(disk.write_bytes_per_second for disk in metrics.disks)
        yield self._flow("Disk", read + written, f"read {figures.size(read)}, write {figures.size(written)}")
        received = sum(one.receive_bytes_per_second for one in metrics.network)
        sent = sum(one.transmit_bytes_per_second for one in metrics.network)
        yield self._flow("Network", received + sent, f"in {figures.size(received)}, out {figures.size(sent)}")
        for gpu in metrics.gpus:
            yield self._share(
                f"GPU {gpu.index}", f"gpu{gpu.index}", gpu.utilization_percent, gpu_note(gpu, self._signs)
            )
        if not metrics.gpus:
            yield _labelled("GPU").append(no_gpu(metrics), "dim")

    def _traffic(self, reading: Reading) -> Iterator[Text]:
        counters, rates = reading.counters, self._trends.rates
        requests = f"{counters.requests_in_progress:.0f} under way" if counters else ""
        if rates.errors:
            requests += f", {figures.per_second(rates.errors)} failing"
        yield self._line("Requests", "requests", figures.per_second(rates.requests), requests)
        answers = f"{counters.answers_in_progress:.0f} answers under way" if counters else ""
        yield self._line("Tokens", "tokens", figures.per_second(rates.tokens), answers)

    def _cores(self, percents: list[float]) -> Iterator[Text]:
        """Yield a curve per core where they fit into a few lines, else a block per core or the busiest of some."""
        room = max(1, self._width - _LABEL)
        per_line = max(1, min(len(percents), room // _CORE_WIDTH))
        if len(percents) > per_line * _CORE_LINES:
            per_block = -(-len(percents) // room)
            busiest = [max(percents[start : start + per_block]) for start in range(0, len(percents), per_block)]
            blocks = figures.sparkline(busiest, len(busiest), self._signs.blocks, 100)
            yield _labelled("  cores").append(blocks, self.style("cyan"))
            return
        for start in range(0, len(percents), per_line):
            line = _labelled("" if start else "  cores")
            for number in range(start, min(start + per_line, len(percents))):
                head, value = f"{number} ", f"{percents[number]:.0f} %".rjust(6)
                curve_width = room // per_line - len(head) - len(value) - 2
                curve = figures.sparkline(self._trends.of(f"core{number}"), curve_width, self._signs.blocks, 100)
                line.append(head, "dim").append(curve, self.style("cyan"))
                line.append(f"{value}  ", self.style(figures.level(percents[number])))
            yield line

    def _share(self, label: str, series: str, value: float | None, note: str) -> Text:
        """Return a line of something in percent."""
        return self._line(label, series, figures.percent(value), note, figures.level(value), 100)

    def _flow(self, label: str, value: float, note: str) -> Text:
        """Return a line of something in bytes per second; the name of its series is the label's."""
        return self._line(label, label.lower(), f"{figures.size(value)}/s", note)

    def _line(  # noqa: PLR0917 - the parts of a line, in their order
        self, label: str, series: str, value: str, note: str, style: str = "", ceiling: float | None = None
    ) -> Text:
        curve = figures.sparkline(self._trends.of(series), self._curve_width, self._signs.blocks, ceiling)
        line = _labelled(label).append(value.rjust(_VALUE - 2) + "  ", self.style(f"bold {style}"))
        line.append(curve, self.style("cyan"))
        return line.append(f"  {plain(note)}", self.style("")) if self._has_notes else line


def _labelled(label: str) -> Text:
    return Text().append(label.ljust(_LABEL), "dim")
