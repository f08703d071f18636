"""``Benchmark`` in scripts, event loops and notebooks, each in a process of its own."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.server import ROOT, environment, working_folder

_QUICK = "output_tokens=8, idle_seconds=0, calibration_seconds=0"
_MAIN = "from ai_lab import Benchmark, BenchmarkResult\nimport asyncio, signal\n"
_IN_LOOP = """
async def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a kernel: it interrupts what runs
    {call}
asyncio.run(main())
"""


def script(folder: Path, source: str) -> subprocess.Popen[str]:
    (folder / "data").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", _MAIN + source],
        cwd=working_folder(folder / "data"),
        env=environment(folder / "data", {"PYTHONPATH": str(ROOT)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


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
    process = script(tmp_path, source)
    said, errors = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, ""), errors
    assert "echo/echo" in errors  # the bar
    assert "Traceback" not in errors


def test_it_works_in_an_event_loop_with_and_without_await(tmp_path: Path) -> None:
    call = f"""
    first = await Benchmark("echo/echo", iterations=4, {_QUICK}).arun(progress=False)
    second = Benchmark("echo/echo", iterations=4, {_QUICK}).run(progress=False)
    print(first.status, second.status, len(second.records) >= 4)
"""
    process = script(tmp_path, _IN_LOOP.format(call=call.strip()))
    said, errors = process.communicate(timeout=60)
    assert (said, errors) == ("complete complete True\n", "")


@pytest.mark.parametrize("where", ["script", "loop", "arun"])
def test_an_interruption_cancels_the_run_and_keeps_what_was_measured(tmp_path: Path, where: str) -> None:
    benchmark = f'Benchmark("echo/echo", iterations=100_000, {_QUICK})'
    sources = {
        "script": f"{benchmark}.run()",
        "loop": _IN_LOOP.format(call=f"{benchmark}.run()"),
        "arun": f"asyncio.run({benchmark}.arun())",
    }
    process = script(tmp_path, sources[where])
    children = _until_measuring(process)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert process.returncode in {1, -signal.SIGINT}
    assert not any(child.is_running() for child in children)
    (call,) = [line.partition(": ")[2] for line in errors.splitlines() if line.startswith("Cancelled. What was")]
    kept = script(tmp_path, f"result = {call}; print(result.status, 0 < len(result.records) < 100_000)")
    assert kept.communicate(timeout=30)[0] == "cancelled True\n"


def test_the_import_path_of_earlier_programs_measures(tmp_path: Path) -> None:
    source = """
from ai_lab.performance import performance_monitor
figures = asyncio.run(performance_monitor.benchmark_llm_inference("echo/echo", "Hello there", iterations=3))
assert (figures["model_name"], figures["iterations"], len(figures["times"])) == ("echo/echo", 3, 3), figures
assert 0 < figures["min_time"] <= figures["avg_time"] <= figures["max_time"]
"""
    process = script(tmp_path, source)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


def _until_measuring(process: subprocess.Popen[str]) -> list[psutil.Process]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        children = psutil.Process(process.pid).children(recursive=True)
        if any("ai_lab.benchmarks.worker" in " ".join(child.cmdline()) for child in children):
            return children
        time.sleep(0.05)
    raise AssertionError(f"nothing was measured: {process.poll()}")
