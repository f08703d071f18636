"""The example notebook, executed in a real kernel as somebody would."""

from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from tests.server import ROOT, environment, working_folder

_NOTEBOOK = ROOT / "notebooks" / "benchmark.ipynb"


def test_it_is_kept_without_outputs() -> None:
    cells = _read().cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells if cell.cell_type == "code")


def test_every_cell_shows_what_it_says(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()  # the kernel's home too
    folder = working_folder(data)
    notebook = _read()
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}})
    client.execute(env=environment(data, {"PYTHONPATH": str(ROOT)}))

    shown = [_shown(cell) for cell in notebook.cells if cell.cell_type == "code"]
    assert any("ailab-bench" in one.get("text/html", "") and "First token" in one["text/html"] for one in shown)
    assert any("image/png" in one for one in shown)
    assert any("2 threads" in one.get("stream", "") and "1 thread" in one["stream"] for one in shown)
    assert shown[-2]["text/plain"] == "True"
    assert shown[-1]["text/plain"] == "'complete'"
    page = (folder / "two_threads.html").read_text(encoding="utf-8")
    assert "2 threads" in page
    assert "<svg" in page


def _read() -> Any:
    return nbformat.read(_NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]  # it has no types


def _shown(cell: Any) -> dict[str, str]:
    """Return what a cell shows, by kind."""
    kinds: dict[str, str] = {}
    for output in cell.outputs:
        if output.output_type == "stream":
            kinds["stream"] = kinds.get("stream", "") + (output.text if output.name == "stdout" else "")
        else:
            kinds |= output.data
    return kinds
