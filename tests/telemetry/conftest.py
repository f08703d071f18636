"""Machines with scripted GPUs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.fakes.nvml import TWO_GPUS, FakeNvml, compile_nvml


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("no C compiler (cc) here to make the scripted driver with")
    folder = tmp_path_factory.mktemp("nvml")
    compile_nvml(folder, compiler)
    return folder


@pytest.fixture
def bare(tmp_path: Path, libraries: Path) -> FakeNvml:
    """Give a machine without a driver."""
    return FakeNvml(tmp_path, libraries)


@pytest.fixture
def nvml(bare: FakeNvml) -> FakeNvml:
    """Give a machine with two GPUs."""
    bare.script(TWO_GPUS)
    bare.install()
    return bare
