"""What ``/openapi.json`` says is what the server does, whatever it is sent, and in whatever order."""

from pathlib import Path

import pytest

from tests.fuzz.schemathesis_run import HANGING_SECONDS, assert_as_described

#: A change is told by its own faults alone: it meets the same requests as the one before it.
_SAME = ("--max-examples", "10", "--seed", "8001")


@pytest.mark.timeout(HANGING_SECONDS)
def test_no_request_breaks_the_server_or_the_description(tmp_path: Path, *, thorough: bool) -> None:
    assert_as_described(tmp_path, "--phases", "fuzzing,stateful", *(("--max-examples", "400") if thorough else _SAME))
