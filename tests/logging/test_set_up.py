"""What a program writes once it has set up logging; each test runs one."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.preloaded import run_program
from tests.server import environment, run_main, working_folder

_SET_UP = """
import logging, sys, threading, warnings
from ai_lab.logging import set_up_logging
from ai_lab.settings import Settings
set_up_logging(Settings.load())
log = logging.getLogger("some.library")
"""


def _run(tmp_path: Path, program: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return run_program(
        ["-c", _SET_UP + program],
        cwd=working_folder(tmp_path / "data"),
        env=environment(tmp_path / "data", settings),
    )


def _entries(tmp_path: Path, program: str, **settings: str) -> list[dict[str, Any]]:
    result = _run(tmp_path, program, AI_LAB_LOG_FORMAT="json", **settings)
    return [json.loads(line) for line in result.stderr.splitlines()]


def test_an_entry_has_time_level_logger_event_and_fields(tmp_path: Path) -> None:
    program = 'log.warning("tests of %s", "logging", extra={"size": 3, "level": "not this", "api_key": "CANARY"})'
    (entry,) = _entries(tmp_path, program)
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {
        "level": "warning",
        "logger": "some.library",
        "event": "tests of logging",
        "size": 3,
        "api_key": "[redacted]",
    }


def test_the_level_is_that_of_the_settings_and_libraries_that_show_addresses_are_quiet(tmp_path: Path) -> None:
    program = 'log.debug("a"); log.info("b"); log.warning("c"); logging.getLogger("httpx").info("d")'
    assert [entry["event"] for entry in _entries(tmp_path, program)] == ["b", "c"]
    assert [entry["event"] for entry in _entries(tmp_path, program, LOG_LEVEL="DEBUG")] == ["a", "b", "c"]
    assert [entry["event"] for entry in _entries(tmp_path, program, LOG_LEVEL="ERROR")] == []


def test_warnings_and_uncaught_errors_go_the_same_way_without_secrets(tmp_path: Path) -> None:
    program = """
warnings.warn("old: api_key=CANARY", stacklevel=1)
def fail():
    local = "CANARY-local"
    raise ValueError(f"refused sk-CANARY0123456789")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
fail()
"""
    result = _run(tmp_path, program, AI_LAB_LOG_FORMAT="json")
    entries = [json.loads(line) for line in result.stderr.splitlines()]
    assert result.returncode == 1
    assert [entry["logger"] for entry in entries] == ["py.warnings", "ai_lab.logging.setup", "ai_lab.logging.setup"]
    assert all("ValueError: refused [redacted]" in entry["exception"] for entry in entries[1:])
    assert "CANARY" not in result.stderr.replace("sk-CANARY0123456789", "")
    assert "CANARY-local" not in result.stderr


def test_no_secret_of_the_settings_is_written(tmp_path: Path) -> None:
    servers = json.dumps({"mine": {"base_url": "http://127.0.0.1:9/v1", "api_key": "CANARYwithoutshape"}})
    program = 'log.error("the service said: CANARYwithoutshape is wrong; CANARYfernet too")'
    (entry,) = _entries(tmp_path, program, AI_LAB_SERVERS=servers, ENCRYPTION_KEY="CANARYfernet")
    assert entry["event"] == "the service said: [redacted] is wrong; [redacted] too"


def test_for_people_nothing_ends_a_line_or_commands_the_terminal(tmp_path: Path) -> None:
    program = """
log.info("one\\n12:00:00 forged \\x1b[2J\\u2028\\x9b", extra={"path": "a\\nb", "count": 1})
try:
    raise ValueError("two\\n12:00:00 forged \\x1b[2J\\r")
except ValueError:
    log.exception("failed")
"""
    result = _run(tmp_path, program)
    lines = result.stderr.splitlines()
    assert "[info     ] one\\x0a12:00:00 forged \\x1b[2J\\u2028\\x9b [some.library]" in lines[0]
    assert lines[0].endswith("path=a\\x0ab count=1")
    assert "[error    ] failed [some.library]" in lines[1]
    assert all(line.startswith("    ") for line in lines[2:])
    assert lines[-2:] == ["    ValueError: two", "    12:00:00 forged \\x1b[2J\\x0d"]
    assert "\x1b" not in result.stderr


def test_colours_are_for_terminals(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-c", _SET_UP + 'log.warning("hello")'],
        cwd=working_folder(tmp_path / "data"),
        env=environment(tmp_path / "data") | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        stderr=theirs,
        timeout=60,
        check=True,
    )
    os.close(theirs)
    shown = os.read(ours, 10_000)
    os.close(ours)
    assert b"\x1b[" in shown
    assert b"hello" in shown


def test_a_file_gets_json_whatever_the_terminal_gets(tmp_path: Path) -> None:
    result = _run(tmp_path, 'log.info("hello", extra={"size": 1})', AI_LAB_LOG_FILE="logs/ai.log")
    assert "[info     ] hello" in result.stderr
    written = tmp_path / "data" / "logs" / "ai.log"
    assert json.loads(written.read_text())["event"] == "hello"
    assert written.stat().st_mode & 0o777 == 0o600


def test_a_file_is_put_aside_by_size(tmp_path: Path) -> None:
    program = 'for number in range(3000): log.info("x" * 1000, extra={"number": number})'
    settings = {"AI_LAB_LOG_FILE": str(tmp_path / "ai.log"), "AI_LAB_LOG_FILE_MB": "1", "AI_LAB_LOG_FILES_KEPT": "2"}
    _run(tmp_path, program, **settings)
    files = sorted(tmp_path.glob("ai.log*"))
    assert [file.name for file in files] == ["ai.log", "ai.log.1", "ai.log.2"]
    assert all(file.stat().st_size <= 2**20 for file in files)
    numbers = [json.loads(line)["number"] for file in files[::-1] for line in file.read_text().splitlines()]
    assert numbers[-1] == 2999
    assert numbers == list(range(numbers[0], 3000))


@pytest.mark.parametrize("where", ["missing-rights", "folder", "below-a-file"])
def test_a_file_that_cannot_be_written_stops_the_start_with_the_remedy(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    path = {"missing-rights": "/proc/ai.log", "folder": f"{tmp_path}/folder", "below-a-file": f"{tmp_path}/file/a.log"}
    result = run_main(tmp_path / "data", settings={"AI_LAB_LOG_FILE": path[where]})
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: AI_LAB_LOG_FILE: {path[where]} cannot be written (")
    assert "Name a file in a folder where your user may write" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_library_leaves_logging_alone(tmp_path: Path) -> None:
    program = """
import asyncio, logging, sys
import ai_lab
async def main():
    async with ai_lab.Lab.open(): pass
before = (logging.lastResort, sys.excepthook)
asyncio.run(main())
assert logging.getLogger().handlers == [] and logging.getLogger().level == logging.WARNING
assert sys.excepthook is before[1]
assert not {"structlog", "sentry_sdk"} & set(sys.modules), "loaded"
"""
    subprocess.run(
        [sys.executable, "-c", program],
        cwd=working_folder(tmp_path / "data"),
        env=environment(tmp_path / "data") | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        timeout=60,
        check=True,
    )


def test_a_program_loads_no_rich_and_no_sentry_for_it(tmp_path: Path) -> None:
    program = 'assert not {"rich", "sentry_sdk"} & set(sys.modules), sys.modules; import rich'
    result = run_program(
        ["-c", _SET_UP + program],
        cwd=working_folder(tmp_path / "data"),
        env=environment(tmp_path / "data"),
        is_anew=True,
    )
    assert result.returncode == 0, result.stderr


def test_it_can_be_set_up_again(tmp_path: Path) -> None:
    program = 'log.info("one"); set_up_logging(Settings.load()); log.info("two")'
    assert [entry["event"] for entry in _entries(tmp_path, program)] == ["one", "two"]
