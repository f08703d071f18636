"""``ai-lab top`` in a real terminal, against a real server."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.cli.command import COMMAND, run_command
from tests.cli.terminal import Terminal
from tests.server import ServerProcess, environment, free_port, working_folder

_ALTERNATE_SCREEN, _OWN_SCREEN = "\x1b[?1049h", "\x1b[?1049l"
_CURSOR_HIDDEN, _CURSOR_SHOWN = "\x1b[?25l", "\x1b[?25h"
#: The command where whoever started it has turned hang-ups off.
_DEAF = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); from ai_lab.cli import main; main()"
_FAST = {"AI_LAB_METRICS_INTERVAL_SECONDS": "1"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("top") / "data", _FAST) as server:
        yield server


def watch(folder: Path, url: str, *arguments: str, columns: int = 80, lines: int = 24, **settings: str) -> Terminal:
    data = folder / "data"
    return Terminal(
        [*COMMAND, "top", "--url", url, *arguments],
        cwd=working_folder(data),
        env=environment(data, settings),
        columns=columns,
        lines=lines,
    )


def assert_given_back(terminal: Terminal) -> None:
    """See that the terminal is as it was: its own screen, the cursor, echo and line editing."""
    assert terminal.said.count(_ALTERNATE_SCREEN) == terminal.said.count(_OWN_SCREEN) > 0
    assert terminal.said.rindex(_OWN_SCREEN) > terminal.said.rindex(_ALTERNATE_SCREEN)
    assert terminal.said.rindex(_CURSOR_SHOWN) > terminal.said.rindex(_CURSOR_HIDDEN)
    assert terminal.mode == terminal.mode_before
    assert "Traceback" not in terminal.said


def test_it_shows_the_server_live_and_q_ends_it(server: ServerProcess, tmp_path: Path) -> None:
    with watch(tmp_path, server.url) as terminal:
        first = terminal.wait_for_text("every 1 s")
        assert len(first) == 24
        assert max(map(len, first)) <= 80
        for label in ("CPU", "  cores", "Memory", "Disk", "Network", "GPU", "Requests", "Tokens", "Programs"):
            assert any(line.startswith(label) for line in first), label
        assert server.url in first[0]
        assert first[-1].startswith("q quit   sample ")
        assert terminal.mode != terminal.mode_before  # single keys, no echo

        httpx.post(
            f"{server.url}/chat", json={"message": "one two three", "model": "echo/echo"}, timeout=60
        ).raise_for_status()
        terminal.wait_for(lambda frame: any(line.startswith("Tokens") and "█" in line for line in frame))
        terminal.wait_for(lambda frame: any(line.startswith("POST /chat ") for line in frame))

        terminal.type(b"xyz")
        terminal.wait_for_text("every 1 s")
        assert terminal.process.poll() is None
        terminal.type(b"q")
        assert terminal.ends() == 0
        assert_given_back(terminal)


def test_it_does_not_flicker(server: ServerProcess, tmp_path: Path) -> None:
    with watch(tmp_path, server.url) as terminal:
        terminal.wait_for_text("every 1 s")
        terminal.type(b"q")
        terminal.ends()
        frames = terminal.said.split(_ALTERNATE_SCREEN)[1].split(_OWN_SCREEN)[0]
        assert "\x1b[2J" not in frames.partition("AI Lab")[2]  # frames are written over each other, nothing is cleared


def test_each_frame_fits_a_terminal_whose_size_changes(server: ServerProcess, tmp_path: Path) -> None:
    with watch(tmp_path, server.url) as terminal:
        terminal.wait_for_text("every 1 s")
        for columns, lines in ((120, 40), (40, 10), (20, 3), (1, 1), (80, 24)):
            terminal.resize(columns, lines)
            frame = terminal.wait_for(lambda frame, lines=lines: len(frame) == lines)  # type: ignore[misc]
            assert max(map(len, frame)) <= columns
        terminal.type(b"Q")
        assert terminal.ends() == 0
        assert_given_back(terminal)


@pytest.mark.parametrize("how", ["ctrl-c", "SIGINT", "SIGTERM"])
def test_signals_end_it_in_order(server: ServerProcess, tmp_path: Path, how: str) -> None:
    with watch(tmp_path, server.url) as terminal:
        terminal.wait_for_text("CPU")
        if how == "ctrl-c":
            terminal.type(b"\x03")
        else:
            terminal.process.send_signal(getattr(signal, how))
        assert terminal.ends() == 0
        assert_given_back(terminal)


def test_suspended_it_gives_the_terminal_back_and_goes_on_later(server: ServerProcess, tmp_path: Path) -> None:
    with watch(tmp_path, server.url) as terminal:
        terminal.wait_for_text("CPU")
        terminal.type(b"\x1a")
        process = psutil.Process(terminal.process.pid)
        terminal.wait_for(lambda _: process.status() == psutil.STATUS_STOPPED)
        assert_given_back(terminal)
        shown = terminal.said.count("CPU")
        process.send_signal(signal.SIGCONT)
        terminal.wait_for(lambda _: terminal.said.count("CPU") > shown)
        terminal.type(b"q")
        assert terminal.ends() == 0
        assert_given_back(terminal)


def test_a_closed_terminal_ends_it(server: ServerProcess, tmp_path: Path) -> None:
    with watch(tmp_path, server.url) as terminal:
        terminal.wait_for_text("CPU")
        terminal.hang_up()
        assert terminal.process.wait(60) in {0, -signal.SIGHUP}


def test_a_closed_terminal_ends_it_also_where_no_signal_says_so(server: ServerProcess, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Terminal(
        [sys.executable, "-c", _DEAF, "top", "--url", server.url], cwd=working_folder(data), env=environment(data)
    ) as terminal:
        terminal.wait_for_text("CPU")
        terminal.hang_up()
        assert terminal.process.wait(60) == 0


def test_a_server_that_goes_away_is_missed_and_found_again(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "lab", _FAST)
    with watch(tmp_path, server.url) as terminal:
        frame = terminal.wait_for_text("no connection since")
        text = " ".join(frame)
        assert server.url in text
        assert "./start.sh" in text
        assert "--url" in text
        try:
            server.start()
            terminal.wait_for(lambda frame: "healthy" in frame[0] or "degraded" in frame[0])
            terminal.wait_for_text("every 1 s")
            server.kill()
            lost = terminal.wait_for_text("no connection since")
            assert any(line.startswith("CPU") for line in lost)  # the last figures stay, faded
            server.start()
            terminal.wait_for(lambda frame: "no connection" not in "".join(frame) and "every 1 s" in frame[-1])
        finally:
            server.kill()
        terminal.type(b"q")
        assert terminal.ends() == 0
        assert_given_back(terminal)


def test_a_server_that_hangs_does_not_hold_up_the_keys(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "lab", _FAST) as server:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with watch(tmp_path, server.url) as terminal:
                terminal.wait_for_text("connecting")
                terminal.type(b"q")
                assert terminal.ends() == 0
                assert_given_back(terminal)
        finally:
            os.kill(server.pid, signal.SIGCONT)


def test_no_colour_where_none_is_wanted(server: ServerProcess, tmp_path: Path) -> None:
    with watch(tmp_path, server.url, NO_COLOR="1") as terminal:
        terminal.wait_for_text("every 1 s")
        terminal.type(b"q")
        terminal.ends()
        attributes = {code for codes in re.findall(r"\x1b\[([\d;]*)m", terminal.said) for code in codes.split(";")}
        assert attributes <= {"", "0", "1", "2"}  # bold and dim only


@pytest.mark.parametrize("arguments", [[], ["--once"]])
def test_one_frame_where_nobody_watches(server: ServerProcess, tmp_path: Path, arguments: list[str]) -> None:
    result = run_command(tmp_path / "data", "top", "--url", server.url, *arguments)
    assert (result.stderr, result.returncode) == ("", 0)
    lines = result.stdout.splitlines()
    assert lines[0].startswith("AI Lab 0.1.0")
    assert re.search(r"^Requests +\d+\.\d/s", result.stdout, re.MULTILINE)
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in result.stdout
    assert "quit" not in result.stdout


def test_one_frame_in_a_terminal_leaves_it_alone(server: ServerProcess, tmp_path: Path) -> None:
    with watch(tmp_path, server.url, "--once") as terminal:
        assert terminal.ends() == 0
        assert "Memory" in terminal.said
        assert _ALTERNATE_SCREEN not in terminal.said
        assert terminal.mode == terminal.mode_before


def test_one_frame_without_a_server(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    result = run_command(tmp_path / "data", "top", "--once", "--url", url)
    assert result.returncode == 2
    assert "no connection" in result.stdout
    assert f"No AI Lab server answers at {url}" in result.stdout
    assert "./start.sh" in result.stdout


def test_a_reader_that_leaves_is_no_error(server: ServerProcess, tmp_path: Path) -> None:
    data = tmp_path / "data"
    command = subprocess.Popen(
        [*COMMAND, "top", "--once", "--url", server.url],
        cwd=working_folder(data),
        env=environment(data),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert command.stdout
    command.stdout.close()
    _, said = command.communicate(timeout=60)
    assert b"Traceback" not in said


@pytest.mark.parametrize("interval", ["0", "-1", "soon"])
def test_an_interval_must_be_one(tmp_path: Path, interval: str) -> None:
    result = run_command(tmp_path / "data", "top", "--interval", interval)
    assert result.returncode == 2
    assert "--interval" in result.stderr
