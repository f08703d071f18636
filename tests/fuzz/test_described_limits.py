"""At every limit that ``/openapi.json`` tells, and just beyond it, the server does what is described."""

from pathlib import Path

import pytest

from tests.fuzz.schemathesis_run import HANGING_SECONDS, assert_as_described


@pytest.mark.timeout(HANGING_SECONDS)
def test_no_limit_breaks_the_server_or_the_description(tmp_path: Path) -> None:
    assert_as_described(tmp_path, "--phases", "examples,coverage")
