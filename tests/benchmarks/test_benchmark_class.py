"""``Benchmark`` in scripts, event loops and notebooks, each in a process of its own."""

import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from tests.preloaded import start_program
from tests.server import environment, working_folder

_QUICK = "output_tokens=8, idle_seconds=0, calibration_seconds=0"
_MAIN = "from ai_lab import Benchmark, BenchmarkResult\nimport asyncio, signal\n"
_IN_LOOP = """
async def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a kernel: it interrupts what runs
    {call}
asyncio.run(main())
"""


class Script:
    """A running program."""

    def __init__(self, folder: Path, source: str) -> None:
        (folder / "data").mkdir(exist_ok=True)
        said = Path(tempfile.mkdtemp(dir=folder))
        self._output, self._errors = said / "output", said / "errors"
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self.process = start_program(
                ["-c", _MAIN + source],
                cwd=working_folder(folder / "data"),
                env=environment(folder / "data"),
                streams=(subprocess.DEVNULL, output.fileno(), errors.fileno()),
            )

    def ends(self, timeout_seconds: float) -> tuple[int, str, str]:
        """Wait for its end and return its exit code and what it wrote to standard output and error."""
        code = self.process.wait(timeout_seconds)
        return code, self._output.read_text(encoding="utf-8"), self.errors()

    def errors(self) -> str:
        """Return what it has written to standard error until now."""
        return self._errors.read_text(encoding="utf-8")


def test_a_script_gets_the_result_and_its_files(tmp_path: Path) -> None:
    source = f"""
result = Benchmark("echo/echo", iterations=8, {_QUICK}).run()
assert (result.status, result.cell().counts.ok) == ("complete", 8), result
assert result._repr_html_().startswith("<style>")
assert len(result.records) >= 8
assert b"<svg" in result.save("run.html").read_bytes()
assert BenchmarkResult.load(result.save("run.jsonl")).cells == result.cells
assert Benchmark.stored(result.id).records == result.records
"""
    script = Script(tmp_path, source)
    code, said, errors = script.ends(60)
    assert (code, said) == (0, ""), errors
    assert "echo/echo" in errors  # the bar
    assert "Traceback" not in errors


def test_it_works_in_an_event_loop_with_and_without_await(tmp_path: Path) -> None:
    call = f"""
    first = await Benchmark("echo/echo", iterations=4, {_QUICK}).arun(progress=False)
    second = Benchmark("echo/echo", iterations=4, {_QUICK}).run(progress=False)
    print(first.status, second.status, len(second.records) >= 4)
"""
    script = Script(tmp_path, _IN_LOOP.format(call=call.strip()))
    _, said, errors = script.ends(60)
    assert (said, errors) == ("complete complete True\n", "")


@pytest.mark.parametrize("where", ["script", "loop", "arun"])
def test_an_interruption_cancels_the_run_and_keeps_what_was_measured(tmp_path: Path, where: str) -> None:
    benchmark = f'Benchmark("echo/echo", iterations=100_000, {_QUICK})'
    sources = {
        "script": f"{benchmark}.run()",
        "loop": _IN_LOOP.format(call=f"{benchmark}.run()"),
        "arun": f"asyncio.run({benchmark}.arun())",
    }
    script = Script(tmp_path, sources[where])
    children = _until_measuring(script)
    script.process.send_signal(signal.SIGINT)
    code, _, errors = script.ends(30)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert code in {1, -signal.SIGINT}
    assert not any(child.is_running() for child in children)
    (call,) = [line.partition(": ")[2] for line in errors.splitlines() if line.startswith("Cancelled. What was")]
    kept = Script(tmp_path, f"result = {call}; print(result.status, 0 < len(result.records) < 100_000)")
    assert kept.ends(30)[1] == "cancelled True\n"


def test_the_import_path_of_earlier_programs_measures(tmp_path: Path) -> None:
    source = """
from ai_lab.performance import performance_monitor
figures = asyncio.run(performance_monitor.benchmark_llm_inference("echo/echo", "Hello there", iterations=3))
assert (figures["model_name"], figures["iterations"], len(figures["times"])) == ("echo/echo", 3, 3), figures
assert 0 < figures["min_time"] <= figures["avg_time"] <= figures["max_time"]
"""
    script = Script(tmp_path, source)
    assert script.ends(60) == (0, "", "")


def _until_measuring(script: Script) -> list[psutil.Process]:
    """Wait until the bar shows that something was measured, and return the processes that the program has started."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and script.process.poll() is None:
        if re.search(r"\b[1-9]\d*/100000\b", script.errors()):
            children = psutil.Process(script.process.pid).children(recursive=True)
            assert any("ai_lab.benchmarks.worker" in " ".join(child.cmdline()) for child in children)
            return children
        time.sleep(0.05)
    raise AssertionError(f"nothing was measured: {script.process.poll()}: {script.errors()[-1000:]}")
