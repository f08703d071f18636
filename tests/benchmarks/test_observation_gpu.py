"""GPUs in samples and in the provenance, by the real bindings on a driver that does what a script says."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.nvml import GIB, TWO_GPUS, FakeNvml, compile_nvml

_PROGRAM = """
import json, time
from ai_lab.benchmarks.observation.loop_lag import LoopLag
from ai_lab.benchmarks.observation.provenance import host_provenance
from ai_lab.benchmarks.observation.side_sampler import SideSampler
sampler = SideSampler(lambda: [], targets_are_local=False, loop_lag=LoopLag(), interval_seconds=0.1)
sampler.start()
samples, over = [], time.monotonic() + 15
while time.monotonic() < over and not (samples and samples[-1].gpus):
    time.sleep(0.1)
    samples += sampler.take()
sampler.close()
host = host_provenance()["host"]
print(json.dumps([samples[-1].gpus, host["gpus"], host["gpu_driver"]]))
"""


@pytest.fixture
def nvml(tmp_path: Path) -> FakeNvml:
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("no C compiler (cc) here to make the scripted driver with")
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    compile_nvml(libraries, compiler)
    machine = FakeNvml(tmp_path, libraries)
    machine.script(TWO_GPUS)
    machine.install()
    return machine


def test_gpus_are_in_samples_and_provenance(nvml: FakeNvml) -> None:
    command = [sys.executable, "-c", _PROGRAM]
    environment = os.environ | nvml.environment
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout
    gpus, described, driver = json.loads(answer)
    assert gpus[0] == {
        "index": 0,
        "utilization_percent": 42,
        "memory_used_bytes": 6 * GIB,
        "power_watts": 123.456,
        "energy_joules": 98765432.1,
        "temperature_c": 61,
        "clock_mhz": 1795,
        "throttle_reasons": ["sw_power_cap", "sw_thermal_slowdown"],
    }
    assert (gpus[1]["index"], gpus[1]["throttle_reasons"]) == (1, [])
    assert described[0] == {
        "name": "NVIDIA Fake 4000",
        "memory_bytes": 24 * GIB,
        "power_limit_watts": 350,
        "is_mig": False,
    }
    assert len(described) == 2
    assert driver == "580.95.05"
