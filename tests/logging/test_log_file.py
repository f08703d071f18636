"""The log file: whole lines for its owner, put aside by size, and never in the way."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ai_lab.logging.log_file import LogFile


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_full_file_is_put_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "logs" / "ai.log", max_bytes=100, kept=2)
    for number in range(10):
        file.write(f"{number}".ljust(39) + "\n")  # two fit
    file.close()
    found = {
        path.name: [line.strip() for line in path.read_text().splitlines()] for path in (tmp_path / "logs").iterdir()
    }
    assert found == {"ai.log": ["8", "9"], "ai.log.1": ["6", "7"], "ai.log.2": ["4", "5"]}
    assert {_mode(path) for path in (tmp_path / "logs").iterdir()} == {0o600}
    assert _mode(tmp_path / "logs") == 0o700


def test_a_line_longer_than_a_file_may_be_stands_alone(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "ai.log", max_bytes=10, kept=1)
    for text in ("a\n", "b" * 50 + "\n", "c\n"):
        file.write(text)
    file.close()
    assert (tmp_path / "ai.log").read_text() == "c\n"
    assert (tmp_path / "ai.log.1").read_text() == "b" * 50 + "\n"


def test_a_line_cut_by_a_kill_does_not_spoil_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "ai.log"
    path.write_text('{"event": "whole"}\n{"event": "cut of')
    file = LogFile(path, max_bytes=1000, kept=1)
    file.write('{"event": "next"}\n')
    file.close()
    assert path.read_text().splitlines()[2] == '{"event": "next"}'


@pytest.mark.parametrize("how", ["renamed", "removed"])
def test_another_program_may_put_the_file_aside(tmp_path: Path, how: str) -> None:
    path = tmp_path / "ai.log"
    file = LogFile(path, max_bytes=1000, kept=1)
    file.write("before\n")
    if how == "renamed":
        path.rename(tmp_path / "ai.log-20260101")
    else:
        path.unlink()
    file.write("after\n")
    file.close()
    assert path.read_text() == "after\n"


def test_two_processes_may_share_a_file(tmp_path: Path) -> None:
    first, second = (LogFile(tmp_path / "ai.log", max_bytes=60, kept=9) for _ in range(2))
    for number in range(20):
        first.write(f"first {number:02}\n")
        second.write(f"second {number:02}\n")
    first.close()
    second.close()
    lines = [line for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    assert sorted(lines) == sorted(f"{name} {number:02}" for name in ("first", "second") for number in range(20))


def test_a_file_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        LogFile(tmp_path, max_bytes=100, kept=1)


def test_a_full_disk_is_told_once_and_takes_nothing_down(caplog: pytest.LogCaptureFixture) -> None:
    file = LogFile(Path("/dev/full"), max_bytes=100, kept=1)
    for _ in range(5):
        file.write("lost\n")
    assert [record.getMessage() for record in caplog.records] == [
        "the log file cannot be written; entries are missing there"
    ]
    assert caplog.records[0].__dict__["reason"] == "No space left on device"
    file.close()


def test_lines_are_whole_again_as_soon_as_there_is_room(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: it too lets the first part of a line through."""
    program = """
import logging, resource, signal, sys
from pathlib import Path
from ai_lab.logging.log_file import LogFile
logging.basicConfig(stream=sys.stdout, format="%(message)s %(entries_lost)s", level="WARNING")
logging.getLogger("ai_lab.logging.log_file").addFilter(lambda record: record.__dict__.setdefault("entries_lost", 0) + 1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (105, resource.RLIM_INFINITY))
file = LogFile(Path(sys.argv[1]), max_bytes=100_000, kept=1)
for number in range(20):
    file.write(f"line {number:02} ..\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
file.write("room again\\n")
"""
    path = tmp_path / "ai.log"
    command = [sys.executable, "-c", program, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    lines = path.read_text().splitlines()
    assert lines[:9] == [f"line {number:02} .." for number in range(9)]
    assert lines[-1] == "room again"
    assert "written again 11" in result.stdout, result.stdout
    assert result.stderr == ""


def test_a_descriptor_is_not_left_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    file = LogFile(tmp_path / "ai.log", max_bytes=20, kept=1)
    for _ in range(50):
        file.write("0123456789\n")
    file.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
