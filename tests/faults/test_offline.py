"""With the network cut off everything works, and nobody tries to reach it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import offline_visit
from tests.server import ROOT


def test_everything_works_without_a_network(tmp_path: Path) -> None:
    result = subprocess.run(
        [*_alone(), sys.executable, offline_visit.__file__, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert result.returncode == 0, result.stderr

    seen = json.loads(result.stdout)
    assert len(seen["docs"]) >= 4, "the page, its script, its style and the description"
    assert set(seen["docs"].values()) == {200}, seen["docs"]
    assert seen["answer"]
    assert seen["provider"] == "embedded"
    assert set(seen["statuses"].values()) == {200}, seen["statuses"]
    assert seen["exit_code"] == 0
    assert seen["strays"] == 0
    assert seen["strays_to_configured"] > 0, "the count would not have noticed a stray packet"


def _alone() -> list[str]:
    """Return the start of a command that runs in a network of its own."""
    if sys.platform != "linux" or not shutil.which("unshare"):
        pytest.skip("cutting the network off needs Linux and unshare")
    for options in (["--net"], ["--map-root-user", "--net"]):
        command = ["unshare", *options]
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    pytest.skip("this user may not make a network of its own")
