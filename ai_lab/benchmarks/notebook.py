"""A finished benchmark in the hands of somebody at a notebook: looks, numbers, data frames, plots, files."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Self

from ai_lab.benchmarks.records import Record, Sample
from ai_lab.benchmarks.reports import NEEDS_RECORDS, ReportFormat, render
from ai_lab.benchmarks.reports.figures import estimate_text, level_text, metric_of
from ai_lab.benchmarks.reports.outline import outline
from ai_lab.benchmarks.reports.page import summary
from ai_lab.benchmarks.reports.raw import read_lines
from ai_lab.benchmarks.reports.requests import request_row
from ai_lab.benchmarks.reports.rows import COLUMNS, metric_rows
from ai_lab.benchmarks.reports.style import SUMMARY
from ai_lab.benchmarks.schemas import Cell, Comparison, Grade, MetricResult, Reason, Run, RunStatus
from ai_lab.errors import InvalidRequest, NotFound, SourceDamaged, UnsupportedFeature

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PlotKind = Literal["cdf", "throughput", "timeline"]
_FORMATS: dict[str, ReportFormat] = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".md": "markdown",
    ".html": "html",
    ".htm": "html",
    ".txt": "benchstat",
}
_MOST_LINES = 12


class BenchmarkResult:
    """What came out of a run. Raw records and samples are fetched when something first needs them, and then kept.

    Args:
        run: The run, in any state.
        fetch_records: Returns the raw records in order; without it there are none.
        fetch_samples: Returns what was seen of the machine; without it there is nothing.
    """

    def __init__(
        self,
        run: Run,
        fetch_records: Callable[[], Iterable[Record]] = tuple,
        fetch_samples: Callable[[], Iterable[Sample]] = tuple,
    ) -> None:
        self.run = run
        self._fetch_records = fetch_records
        self._fetch_samples = fetch_samples
        self._records: list[Record] | None = None
        self._samples: list[Sample] | None = None

    @property
    def id(self) -> str:
        """The id of the run."""
        return self.run.id

    @property
    def status(self) -> RunStatus:
        """How the run ended, or that it has not."""
        return self.run.status

    @property
    def grade(self) -> Grade | None:
        """VALID, SUSPECT or INVALID; None where no figure was computed."""
        return self.run.report.grade if self.run.report else None

    @property
    def reasons(self) -> list[Reason]:
        """Why the grade is what it is."""
        return list(self.run.report.reasons) if self.run.report else []

    @property
    def cells(self) -> list[Cell]:
        """The figures, one entry per arm and level."""
        return list(self.run.report.cells) if self.run.report else []

    @property
    def comparisons(self) -> list[Comparison]:
        """The verdicts of the arms against the first one."""
        return list(self.run.report.comparisons) if self.run.report else []

    @property
    def records(self) -> list[Record]:
        """The raw record of every request."""
        if self._records is None:
            self._records = list(self._fetch_records())
        return self._records

    @property
    def samples(self) -> list[Sample]:
        """What was seen of the machine meanwhile."""
        if self._samples is None:
            self._samples = list(self._fetch_samples())
        return self._samples

    def cell(self, arm: str | int | None = None, level: float | None = None) -> Cell:
        """Return the figures of one arm at one level; what there is only one of need not be said.

        Args:
            arm: Its name or its position, from 0.
            level: The concurrency, or the rate in requests per second.

        Raises:
            NotFound: There is no such arm or level, or there are no figures.
            InvalidRequest: There are several, and it was not said which.
        """
        found = [
            one for one in self.cells if arm in (None, one.arm, one.arm_index) and (level is None or one.level == level)
        ]
        if len(found) == 1:
            return found[0]
        there_are = ", ".join(f"arm={one.arm!r} level={one.level:g}" for one in (found or self.cells)[:_MOST_LINES])
        if not found:
            raise NotFound(f"This run has no such figures. It has: {there_are or 'none'}.")
        raise InvalidRequest(f"Say which arm and level: {there_are}.", param="arm")

    def metrics(self, arm: str | int | None = None, level: float | None = None) -> dict[str, MetricResult]:
        """Return the metrics of one arm at one level by name; see ``cell`` for which and for errors."""
        return dict(self.cell(arm, level).metrics)

    def to_frame(self) -> pd.DataFrame:
        """Return the figures as a data frame: a row for each metric of each arm at each level.

        Raises:
            UnsupportedFeature: pandas is not installed.
        """
        frame: pd.DataFrame = _installed("pandas").DataFrame(metric_rows(self.run), columns=list(COLUMNS))
        return frame

    def requests_frame(self) -> pd.DataFrame:
        """Return the raw requests as a data frame, one row each, warm-up included (column ``phase``).

        Raises:
            UnsupportedFeature: pandas is not installed.
        """
        pandas = _installed("pandas")
        frame: pd.DataFrame = pandas.DataFrame([request_row(record, self.run) for record in self.records])
        return frame

    def plot(self, kind: PlotKind | None = None) -> Figure:
        """Return a figure: latency CDF, throughput against concurrency or rate, or token timeline; None: all that fit.

        Raises:
            UnsupportedFeature: matplotlib is not installed.
            InvalidRequest: There is no such kind.
            NotFound: The run has nothing to draw of that kind.
        """
        _installed("matplotlib")
        plots = importlib.import_module("ai_lab.benchmarks.plots")
        figure: Figure = plots.draw(self.run, self.records, kind)
        return figure

    def save(self, path: str | Path) -> Path:
        """Write the report; the suffix says which: .json .jsonl .csv .md .html .txt (benchstat). Return where it is.

        ``.jsonl`` has the raw records too, so that ``load`` gives everything back.

        Raises:
            InvalidRequest: The suffix is of no format.
        """
        file = Path(path).expanduser()
        fmt = _FORMATS.get(file.suffix.lower())
        if fmt is None:
            raise InvalidRequest(f"{file.name}: choose one of the suffixes {' '.join(_FORMATS)}.", param="path")
        needs = fmt in NEEDS_RECORDS
        records, samples = (self.records, self.samples) if needs else ([], [])
        file.write_bytes(render(self.run, fmt, records=records, samples=samples).content)
        return file

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the result that ``save`` wrote as ``.json`` (without raw records) or ``.jsonl`` (with them).

        Raises:
            SourceDamaged: The file is no such report.
        """
        file = Path(path).expanduser()
        content = file.read_bytes()
        if file.suffix.lower() != ".jsonl":  # one object over many lines: as a single line it is the same
            content = content.replace(b"\n", b" ")
        try:
            parts = list(read_lines(content))
        except SourceDamaged as error:
            raise SourceDamaged(error.reason, origin=file.name, position=error.position) from None
        if not parts or not isinstance(run := parts[0], Run):
            raise SourceDamaged("This is no saved benchmark: it does not begin with a run", origin=file.name)
        records = [one for one in parts if isinstance(one, Record)]
        samples = [one for one in parts if isinstance(one, Sample)]
        return cls(run, lambda: records, lambda: samples)

    def __repr__(self) -> str:
        said = outline(self.run)
        lines = [f"{said.grade} ({said.meaning}): {said.title}"]
        lines += [f"  {severity}: {text}" for severity, text in said.reasons if severity != "note"][:_MOST_LINES]
        lines += [f"  {text}" for _, text in said.verdicts][:_MOST_LINES]
        lines += [f"  {_in_short(cell)}" for cell in self.cells[:_MOST_LINES]]
        if len(self.cells) > _MOST_LINES:
            lines.append(f"  … and {len(self.cells) - _MOST_LINES} more")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        said = outline(self.run)
        return f'<style>{SUMMARY}</style><div class="ailab-bench">{summary(said)}</div>'


def _in_short(cell: Cell) -> str:
    figures = []
    for label, name in (("first token", "ttft"), ("per token", "tpot"), ("decode", "decode_tps")):
        metric = metric_of(cell, name)
        if metric is not None:
            figures.append(f"{label} {estimate_text(metric.median, metric.unit)}")
    said = ", ".join(figures) or "no figures"
    return f"{cell.arm}, {level_text(cell)}, {cell.counts.ok} of {cell.counts.all} ok: {said}"


def _installed(name: str) -> ModuleType | Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UnsupportedFeature(f'This needs {name}, which is not installed: pip install "ai-lab[notebook]"') from None
