"""What tests of benchmarks share: one calibrated server, as new for every test that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.benchmarks.calibrated_server import CalibratedServer


@pytest.fixture(scope="session")
def running_server() -> Iterator[CalibratedServer]:
    """Give the process, started when the first test needs it."""
    with CalibratedServer() as server:
        yield server


@pytest.fixture
def server(running_server: CalibratedServer) -> CalibratedServer:
    """Give the server as it is after its start."""
    running_server.reset()
    return running_server
