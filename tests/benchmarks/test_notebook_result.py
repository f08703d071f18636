"""What somebody at a notebook holds after a run: looks, numbers, frames, plots, files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure
from nbclient import NotebookClient

from ai_lab.benchmarks.notebook import BenchmarkResult, PlotKind
from ai_lab.benchmarks.records import Record
from ai_lab.benchmarks.schemas import Run
from ai_lab.errors import InvalidRequest, NotFound, SourceDamaged
from tests.benchmarks.example_run import ARMS, RUN_ID, example_records, example_run, example_samples
from tests.server import ROOT


@pytest.fixture
def result() -> BenchmarkResult:
    return BenchmarkResult(example_run(), example_records, example_samples)


def failed_run() -> Run:
    changes = {"status": "failed", "report": None, "grade": None, "error": "The server is not there."}
    return example_run().model_copy(update=changes)


def test_a_result_shows_its_grade_first_in_text_and_html(result: BenchmarkResult) -> None:
    lines = repr(result).splitlines()
    assert lines[0].startswith("SUSPECT")
    assert "Stop them and run again." in lines[1]
    assert len(lines) < 15
    html = result._repr_html_()
    assert html.index("SUSPECT") < html.index("is slower than") < html.index("First token, median")
    assert "<html" not in html
    nothing = BenchmarkResult(failed_run())
    assert repr(nothing).startswith("NOT GRADED (failed: The server is not there.)")
    assert "The server is not there." in nothing._repr_html_()


def test_a_hostile_name_stays_text_in_a_notebook() -> None:
    name = "<script>alert(1)</script>"
    html = BenchmarkResult(example_run((name, "plain")))._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_figures_are_found_by_arm_and_level(result: BenchmarkResult) -> None:
    assert (result.id, result.status, result.grade) == (RUN_ID, "complete", "SUSPECT")
    assert result.metrics(ARMS[1], 2)["ttft"].median.value == 180
    assert result.metrics(1, 2) == result.metrics(ARMS[1], 2)
    assert result.cell(0, 4).totals["output_tps"].value == pytest.approx(150)
    assert [one.verdict for one in result.comparisons] == ["slower", "slower", "inconclusive"]
    assert {one.code for one in result.reasons} == {"short_outputs", "busy_machine"}
    with pytest.raises(InvalidRequest, match="arm='tiny 2 threads' level=1, "):
        result.metrics(ARMS[0])
    with pytest.raises(NotFound, match="tiny 1 thread"):
        result.metrics("tiny 3 threads")
    with pytest.raises(NotFound, match="It has: none"):
        BenchmarkResult(failed_run()).metrics()


def test_raw_records_are_fetched_once_and_only_when_needed() -> None:
    asked = []

    def fetch() -> Iterator[Record]:
        asked.append(1)
        return example_records()

    result = BenchmarkResult(example_run(), fetch)
    repr(result)
    result.to_frame()
    result.metrics(0, 1)
    assert asked == []
    assert len(result.requests_frame()) == len(result.records) == 180
    assert asked == [1]


def test_frames_have_the_figures_and_the_raw_requests(result: BenchmarkResult) -> None:
    frame = result.to_frame()
    one = frame[(frame.arm == ARMS[0]) & (frame.level == 1) & (frame.metric == "tpot")].iloc[0]
    assert (one.value, one.low, one.high) == pytest.approx((12, 11.88, 12.12))
    requests = result.requests_frame()
    record = result.records[0]
    first = requests.iloc[0]
    assert first.ttft_ms == pytest.approx(((record.first_token_ns or 0) - (record.sent_ns or 0)) / 1e6)
    assert first.ttft_sched_ms == pytest.approx(first.ttft_ms + 1)
    assert set(requests.arm) == set(ARMS)
    assert set(requests.level) == {1, 2, 4}
    assert (requests.status == "error").sum() == 9
    assert first.gap_max_ms == pytest.approx(
        max(b - a for a, b in zip(record.chunk_ns, record.chunk_ns[1:], strict=False)) / 1e6
    )


@pytest.mark.parametrize("kind", ["cdf", "throughput", "timeline", None])
def test_plots_are_figures_with_named_axes(result: BenchmarkResult, kind: PlotKind | None, tmp_path: Path) -> None:
    figure = result.plot(kind)
    assert isinstance(figure, Figure)
    assert len(figure.axes) == (1 if kind else 3)
    for axes in figure.axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel()
        assert axes.lines
    figure.savefig(tmp_path / "plot.png")


def test_a_cdf_ends_at_the_share_of_requests_that_got_there(result: BenchmarkResult) -> None:
    lines = {str(line.get_label()): line for line in result.plot("cdf").axes[0].lines}
    assert np.max(np.asarray(lines["tiny 2 threads @ 1"].get_ydata(), dtype=float)) == 1
    assert np.max(np.asarray(lines["tiny 1 thread @ 1"].get_ydata(), dtype=float)) == pytest.approx(0.9)


def test_a_plot_of_nothing_or_of_no_kind_is_refused(result: BenchmarkResult) -> None:
    with pytest.raises(InvalidRequest, match="cdf, throughput, timeline"):
        result.plot("pie")  # type: ignore[arg-type]
    with pytest.raises(NotFound, match="nothing to draw"):
        BenchmarkResult(failed_run()).plot()
    hostile = BenchmarkResult(example_run((r"$\frac{", "b")), example_records)
    hostile.plot().canvas.draw()


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".md", ".html", ".txt"])
def test_a_result_is_saved_by_suffix(result: BenchmarkResult, suffix: str, tmp_path: Path) -> None:
    file = result.save(tmp_path / f"result{suffix}")
    assert RUN_ID.encode() in file.read_bytes()
    with pytest.raises(InvalidRequest, match=r"\.jsonl"):
        result.save(tmp_path / "result.xls")


def test_a_saved_result_is_loaded_as_it_was(result: BenchmarkResult, tmp_path: Path) -> None:
    short = BenchmarkResult.load(result.save(tmp_path / "a.json"))
    assert short.run == result.run
    assert short.records == []
    whole = BenchmarkResult.load(result.save(tmp_path / "a.jsonl"))
    assert whole.run == result.run
    assert whole.records == result.records
    assert [one.at_ns for one in whole.samples] == [one.at_ns for one in result.samples]
    assert whole.save(tmp_path / "b.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()


@pytest.mark.parametrize("damage", ['{"type":"record"}', "{", '{"type":"sample","colour":1}', "[]", '"x"'])
def test_a_damaged_file_is_named_with_its_line(result: BenchmarkResult, damage: str, tmp_path: Path) -> None:
    file = result.save(tmp_path / "a.jsonl")
    lines = file.read_text().splitlines()
    lines[4] = damage
    file.write_text("\n".join(lines))
    with pytest.raises(SourceDamaged, match=r"a\.jsonl: line 5: This is no saved benchmark"):
        BenchmarkResult.load(file)
    file.write_text("\n".join(lines[1:4]))
    with pytest.raises(SourceDamaged, match="does not begin with a run"):
        BenchmarkResult.load(file)
    file.with_suffix(".json").write_text(damage)
    with pytest.raises(SourceDamaged, match="This is no saved benchmark"):
        BenchmarkResult.load(file.with_suffix(".json"))


@pytest.mark.parametrize(
    ("library", "call"), [("pandas", "to_frame()"), ("pandas", "requests_frame()"), ("matplotlib", "plot()")]
)
def test_without_an_optional_library_the_remedy_is_named(library: str, call: str) -> None:
    # None in sys.modules is how Python itself marks what cannot be imported.
    script = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from ai_lab.benchmarks.notebook import BenchmarkResult\n"
        "from tests.benchmarks.example_run import *\n"
        "result = BenchmarkResult(example_run(), example_records)\n"
        f"try: result.{call}\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert said.startswith(f"UnsupportedFeature This needs {library}")
    assert 'pip install "ai-lab[notebook]"' in said


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the kernel's own libraries
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_notebook_shows_a_result_as_html_and_a_plot_once(tmp_path: Path) -> None:
    file = BenchmarkResult(example_run(), example_records).save(tmp_path / "a.jsonl")
    cells = [
        f"from ai_lab.benchmarks.notebook import BenchmarkResult\nresult = BenchmarkResult.load({str(file)!r})\nresult",
        "result.plot('cdf')",
    ]
    kinds: Any = nbformat.v4
    book = kinds.new_notebook(cells=[kinds.new_code_cell(cell) for cell in cells])
    NotebookClient(book, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    shown, plotted = (cell.outputs for cell in book.cells)
    assert "SUSPECT" in shown[0].data["text/html"]
    assert [sorted(set(output.get("data", {})) & {"image/png"}) for output in plotted] == [["image/png"]]
