"""A scripted NVML that the real bindings load, and a process that reads GPUs through it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_lab.telemetry.schemas import GpuBackend, GpuMetrics

_SOURCE = Path(__file__).with_name("nvml.c")
_ROOT = Path(__file__).resolve().parents[2]
LIBRARY = "libnvidia-ml.so.1"
GIB = 2**30
NO_SUCH_PID = 4_194_305  # one more than Linux ever gives
#: Two healthy GPUs, the first at work.
TWO_GPUS = f"""
gpus 2
text nvmlSystemGetDriverVersion * 580.95.05
value nvmlSystemGetCudaDriverVersion_v2 * 13010
text nvmlDeviceGetName * NVIDIA Fake 4000
text nvmlDeviceGetUUID 0 GPU-aaaa
text nvmlDeviceGetUUID 1 GPU-bbbb
value nvmlDeviceGetUtilizationRates 0 42 17
value nvmlDeviceGetUtilizationRates 1 0 0
value nvmlDeviceGetMemoryInfo * {24 * GIB} {6 * GIB} {GIB}
value nvmlDeviceGetMemoryInfo_v2 * {24 * GIB} {6 * GIB} {GIB}
value nvmlDeviceGetTemperature * 60
value nvmlDeviceGetTemperatureV 0 61
value nvmlDeviceGetTemperatureV 1 35
value nvmlDeviceGetPowerUsage 0 123456
value nvmlDeviceGetPowerUsage 1 15000
value nvmlDeviceGetEnforcedPowerLimit * 350000
value nvmlDeviceGetTotalEnergyConsumption * 98765432100
value nvmlDeviceGetClockInfo * 1800 1795 10501 1500
value nvmlDeviceGetCurrentClocksEventReasons 0 36
value nvmlDeviceGetCurrentClocksEventReasons 1 1
value nvmlDeviceGetCurrentClocksThrottleReasons * 4
value nvmlDeviceGetFanSpeed * 30
"""


def compile_nvml(folder: Path, compiler: str) -> None:
    """Make the library of today's drivers and, in ``earlier``, that of earlier ones."""
    for name, options in (("today", []), ("earlier", ["-DEARLIER"])):
        (folder / name).mkdir()
        command = [compiler, "-shared", "-fPIC", *options, "-o", str(folder / name / LIBRARY), str(_SOURCE)]
        subprocess.run(command, check=True, timeout=60)


@dataclass
class Reading:
    gpus: list[GpuMetrics]
    backend: GpuBackend
    duration_seconds: float
    logged: list[str]
    threads: int
    has_bindings: bool


class ReaderProcess:
    """Reads GPUs in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def read(self, *, advance: float = 0.0, with_processes: bool = True) -> Reading:
        """Read once, ``advance`` seconds after the last time by the reader's clock."""
        answer = self._tell({"do": "read", "advance": advance, "with_processes": with_processes})
        gpus = [GpuMetrics.model_validate(each) for each in answer.pop("gpus")]
        return Reading(gpus=gpus, backend=GpuBackend.model_validate(answer.pop("backend")), **answer)

    def close(self) -> None:
        """Close the reader; its process goes on."""
        self._tell({"do": "close"})

    def exit_code(self, timeout_seconds: float = 20.0) -> int:
        """Let the program end by itself."""
        assert self.process.stdin
        self.process.stdin.close()
        return self.process.wait(timeout_seconds)

    def _tell(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the reader's process has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer


class FakeNvml:
    """A machine whose GPUs do what the script says; see ``nvml.c``."""

    def __init__(self, folder: Path, libraries: Path) -> None:
        self._script = folder / "script"
        self._calls = folder / "script.calls"
        self._libraries = libraries
        self._library = folder / "lib" / LIBRARY
        self._library.parent.mkdir()
        self.environment = {"LD_LIBRARY_PATH": str(self._library.parent), "FAKE_NVML_SCRIPT": str(self._script)}

    def install(self, driver: str = "today") -> None:
        shutil.copy(self._libraries / driver / LIBRARY, self._library)

    def script(self, *lines: str) -> None:
        """Say what the GPUs do from now on."""
        fresh = self._script.with_suffix(".new")
        fresh.write_text("\n".join(lines) + "\n", encoding="latin-1")
        fresh.replace(self._script)

    def calls(self) -> Counter[str]:
        """Return how often each function was called since the last time."""
        if not self._calls.exists():
            return Counter()
        names = self._calls.read_text().split()
        self._calls.unlink()
        return Counter(names)

    @contextmanager
    def reader(self, timeout_seconds: float = 20.0) -> Iterator[ReaderProcess]:
        """Give a process that reads these GPUs; the time limit is generous where no test is about it."""
        with subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.gpu_reader_program", str(timeout_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            env=os.environ | self.environment,
        ) as program:
            try:
                yield ReaderProcess(program)
            finally:
                program.kill()
