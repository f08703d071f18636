"""A forked program is what a started one would be: what it sees, and how it ends."""

import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.preloaded import ForkedProgram, is_forkable, run_program, start_program
from tests.server import environment, working_folder

#: All but LC_CTYPE, which an interpreter sets by itself where there is no LANG.
_FACTS = """
import gc, json, os, signal, sys, tempfile, threading
standard = sys.stdin, sys.stdout, sys.stderr
facts = {
    "env": {name: os.environ[name] for name in sorted(os.environ) if name != "LC_CTYPE"},
    "arguments": sys.argv,
    "name": __name__,
    "file": globals().get("__file__"),
    "is main": sys.modules["__main__"].__dict__ is globals(),
    "places": [os.getcwd(), sys.path[0], tempfile.gettempdir()],
    "streams": [(s.encoding, s.errors, s.line_buffering, s.write_through, s.isatty(), s.fileno()) for s in standard],
    "input": sys.stdin.read(),
    "descriptors": sum(os.path.exists(f"/dev/fd/{name}") for name in os.listdir("/dev/fd")),
    "threads": threading.active_count(),
    "gc": gc.isenabled(),
    "leads a group": os.getpgid(0) == os.getpid(),
    "signals": [str(signal.getsignal(number)).split(" at ")[0] for number in signal.valid_signals()],
    "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
}
print(json.dumps(facts, indent=1))
"""


def test_it_sees_what_a_started_one_sees(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(_FACTS)
    (tmp_path / "temporary").mkdir()
    env = environment(tmp_path / "data", {"A": "ä", "TMPDIR": str(tmp_path / "temporary")})
    folder = working_folder(tmp_path / "data")
    (folder / "module.py").write_text(_FACTS)
    for arguments in ([str(file), "x", "--y"], ["-m", "module", "x"], ["-c", _FACTS, "x"]):
        forked, started = (run_program(arguments, cwd=folder, env=env, is_anew=is_anew) for is_anew in (False, True))
        assert (forked.returncode, forked.stderr) == (0, "")
        assert forked.stdout == started.stdout


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("pass", 0),
        ("raise SystemExit", 0),
        ("raise SystemExit(7)", 7),
        ("raise SystemExit(-1)", 255),
        ("raise SystemExit('remedy')", 1),
        ("1 / 0", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("import os; os._exit(3)", 3),
        ("import atexit; atexit.register(print, 'the end'); print('not yet')", 0),
        ("import threading, time; threading.Thread(target=lambda: (time.sleep(0.1), print('late'))).start()", 0),
        ("import sys; sys.stdout.close()", 0),
        ("import os, sys; os.close(1); print('nobody reads')", 120),
    ],
)
def test_it_ends_as_a_started_one_does(tmp_path: Path, program: str, code: int) -> None:
    env = environment(tmp_path / "data") | {"PYTHONUNBUFFERED": ""}
    forked, started = (
        run_program(["-c", program], cwd=tmp_path, env=env, is_anew=is_anew) for is_anew in (False, True)
    )
    assert (forked.returncode, started.returncode) == (code, code)
    assert forked.stdout == started.stdout
    assert forked.stderr.splitlines()[-1:] == started.stderr.splitlines()[-1:]


def test_it_is_waited_for_and_signalled_like_any_other(tmp_path: Path) -> None:
    quiet = (subprocess.DEVNULL,) * 3
    env = environment(tmp_path / "data")
    sleeper = start_program(["-c", "import time; time.sleep(60)"], cwd=tmp_path, env=env, streams=quiet)
    assert isinstance(sleeper, ForkedProgram)
    assert psutil.pid_exists(sleeper.pid)
    assert sleeper.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        sleeper.wait(0.05)
    sleeper.terminate()
    assert sleeper.wait(10) == sleeper.poll() == sleeper.returncode == -signal.SIGTERM
    sleeper.kill()  # nothing is left to be killed
    assert not psutil.pid_exists(sleeper.pid)


def test_a_signal_at_once_is_not_lost(tmp_path: Path) -> None:
    streams = (subprocess.DEVNULL,) * 3
    program = ["-c", "import time; time.sleep(60)"]
    sleeper = start_program(program, cwd=tmp_path, env=environment(tmp_path / "data"), streams=streams)
    sleeper.send_signal(signal.SIGTERM)  # SIGINT is an exception, which any interpreter may meet where nobody hears it
    assert sleeper.wait(10) == -signal.SIGTERM


def test_the_terminal_is_its_own(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    program = "import os, sys; print(sys.stdin.isatty(), os.getsid(0) == os.getpid(), flush=True); sys.stdin.read()"
    env = environment(tmp_path / "data")
    process = start_program(["-c", program], cwd=tmp_path, env=env, streams=(theirs,) * 3, takes_terminal=True)
    said = b""
    while b"\n" not in said:
        said += os.read(ours, 100)
    assert said.split() == [b"True", b"True"]
    time.sleep(0.05)
    os.write(ours, b"\x03")
    assert process.wait(10) == -signal.SIGINT
    os.close(ours)
    os.close(theirs)


def test_what_counts_at_the_start_of_an_interpreter_is_started() -> None:
    env = environment(Path("/nowhere"))
    assert is_forkable(["-m", "ai_lab.cli"], env)
    assert not is_forkable(["-m", "ai_lab.cli"], env | {"PYTHONIOENCODING": "ascii"})
    assert not is_forkable(["-m", "ai_lab.cli"], env | {"LD_LIBRARY_PATH": "/libraries"})
    assert not is_forkable(["-m", "ai_lab.cli"], env | {"LANG": "C"})
    assert not is_forkable(["-W", "error", "main.py"], env)
