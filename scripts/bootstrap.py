"""Make the environment that AI Lab runs in, or see that it is there, then start the server in it.

Started by ``start.sh`` and ``test.sh`` with whatever Python the machine has, so it uses the standard library alone.
A stamp is written last: when it fits, a start does nothing but read it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
LOCKS = ROOT / "requirements"
#: An older uv lacks options that are used here; then a private one is fetched beside it.
OLDEST_UV = (0, 5)
UNFINISHED = "unfinished\n"
USAGE = """usage: start.sh [--host HOST] [--port PORT] [--require-token] [--setup]

Set up AI Lab if that has not been done, then serve it.

  --host HOST      address to listen on (default: API_HOST, else 127.0.0.1); any other one wants a token
  --port PORT      port to listen on (default: API_PORT, else 8001)
  --require-token  want a token on 127.0.0.1 too: every user of this machine reaches that
  --setup          do everything but serve: environment, data directory, database
  -h, --help       show this text

All settings are described in config_template.env."""
#: What a tool's output says -> what to do about it; the first that fits.
REMEDIES = {
    r"no space left|disk quota": "The disk is full: free about 1 GB and run this again.",
    r"hash mismatch|hashes.* do not match": (
        "A package is not the one that was locked: check the package mirror, or update AI Lab."
    ),
    r"certificate|tls|ssl": "The package index is not trusted: set SSL_CERT_FILE to your organisation's certificates.",
    r"dns|connect|network|timed? ?out|proxy|tunnel|unreachable|resolution|fetch|max retries": (
        "The package index was not reached: check the network (HTTPS_PROXY, PIP_INDEX_URL) and run this again."
    ),
    r"no usable wheels|no wheels with a matching|no matching distribution": (
        "A package has no ready-made build for this system: use Python 3.11 to 3.14 on macOS or Linux with glibc 2.28."
    ),
}
NO_PIP = "Python has neither pip nor venv: install them (Debian/Ubuntu: apt install python3-venv) and run this again."
#: What pip was told about the way to packages -> how uv, which does not read pip's configuration, is told the same.
PIP_SETTINGS = {
    "index-url": "UV_DEFAULT_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
}


class SetupFailed(Exception):
    """The environment cannot be made; the text is for the person at the terminal."""


def main(purpose: str, arguments: list[str]) -> int:
    """Ensure the environment for ``serve`` or ``test``; to serve, become the server.

    Returns:
        The exit code: 0, 2 after an error that was explained, 130 when interrupted.
    """
    if purpose == "serve" and {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0
    name, lock = (".venv", "runtime.lock") if purpose == "serve" else (".venv-test", "test.lock")
    environment = ROOT / name
    try:
        ensure(environment, LOCKS / lock)
    except KeyboardInterrupt:
        say("interrupted; the next run finishes what is missing.")
        return 130
    except SetupFailed as error:
        say(f"error: {error}")
        return 2
    except OSError as error:
        say(f"error: {error}. See that {ROOT} can be written and that the disk is not full, then run this again.")
        return 2
    if purpose == "serve":
        python = str(environment / "bin" / "python")
        program = [str(ROOT / "setup_database.py")] if "--setup" in arguments else [str(ROOT / "main.py"), *arguments]
        os.execv(python, [python, *program])  # noqa: S606 - no shell is wanted: the server takes this process over
    return 0


def ensure(environment: Path, lock: Path) -> None:
    """Bring ``environment`` to what ``lock`` says; two starts at once do it one after the other."""
    if is_ready(environment, lock):
        return
    TOOLS.mkdir(exist_ok=True)
    with (TOOLS / "lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not is_ready(environment, lock):
            build(environment, lock)


def is_ready(environment: Path, lock: Path) -> bool:
    """Return whether ``environment`` was finished from this lock, with this Python, at this place."""
    return read_stamp(environment) == expected_stamp(lock) and os.access(environment / "bin" / "python", os.X_OK)


def read_stamp(environment: Path) -> str:
    """Return what was written when the environment was last worked on; empty if it is not ours."""
    stamp = environment / "ai-lab.stamp"
    return stamp.read_text(encoding="utf-8") if stamp.is_file() else ""


def expected_stamp(lock: Path) -> str:
    """Return what the stamp of a finished environment says."""
    packages = hashlib.sha256(lock.read_bytes()).hexdigest()
    return f"{packages}\n{sys.implementation.cache_tag} {os.uname().machine}\n{ROOT}\n"


def build(environment: Path, lock: Path) -> None:
    """Take the four steps."""
    say("1/4 uv, the installer")
    uv = find_uv() or fetch_uv()
    settings = package_index_settings()
    say(f"2/4 environment {environment.name} with Python {sys.version.split()[0]}")
    if Path(sys.prefix) != environment or read_stamp(environment) == UNFINISHED:
        run([uv, "venv", "--quiet", "--no-project", "--clear", "--python", base_python(), str(environment)], settings)
    stamp = environment / "ai-lab.stamp"
    stamp.write_text(UNFINISHED, encoding="utf-8")  # killed from here on, a package may be there by half: start anew
    count = sum("==" in line for line in lock.read_text(encoding="utf-8").splitlines())
    say(f"3/4 {count} packages; the first time they are downloaded")
    python = str(environment / "bin" / "python")
    # The lock names every package (--no-deps) and nothing is ever compiled (--no-build).
    options = ["--quiet", "--no-deps", "--no-build", "--require-hashes", "--python", python]
    run([uv, "pip", "install", *options, "--requirement", str(lock)], settings)
    say("4/4 AI Lab")
    for site_packages in (environment / "lib").glob("python3*/site-packages"):
        (site_packages / "ai_lab_project.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    run([python, "-P", "-c", "import ai_lab"])
    stamp.write_text(expected_stamp(lock), encoding="utf-8")


def find_uv() -> str | None:
    """Return the uv of this machine, or the private one of an earlier run, if it works and is not too old."""
    for candidate in (shutil.which("uv"), str(private_uv())):
        version = re.match(r"uv (\d+)\.(\d+)", ask(candidate, "--version")) if candidate else None
        if version and (int(version[1]), int(version[2])) >= OLDEST_UV:
            return candidate
    return None


def private_uv() -> Path:
    """Return where the uv of ``bootstrap.lock`` lies once it was fetched."""
    version = re.search(r"^uv==(\S+)", (LOCKS / "bootstrap.lock").read_text(encoding="utf-8"), re.MULTILINE)
    return TOOLS / f"uv-{version[1] if version else ''}" / "bin" / "uv"


def fetch_uv() -> str:
    """Install uv into the private folder with this Python's pip, or with that of a throw-away environment."""
    place = private_uv().parent.parent
    part, pip_environment = place.with_suffix(".part"), TOOLS / "pip"
    for rest in (part, pip_environment):
        shutil.rmtree(rest, ignore_errors=True)
    pip = find_pip()
    if not pip:
        run([sys.executable, "-m", "venv", str(pip_environment)], remedy=NO_PIP)
        pip = [str(pip_environment / "bin" / "python"), "-m", "pip"]
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--target", str(part)]
    # Two settings that people have for their own installs and that contradict --target.
    settings = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    run([*pip, "install", *options, "--requirement", str(LOCKS / "bootstrap.lock")], settings)
    shutil.rmtree(pip_environment, ignore_errors=True)
    shutil.rmtree(place, ignore_errors=True)
    part.rename(place)
    return str(private_uv())


def find_pip() -> list[str] | None:
    """Return the command of a pip that works, or None."""
    for python in (sys.executable, base_python()):
        if ask(python, "-m", "pip", "--version"):
            return [python, "-m", "pip"]
    return None


def base_python() -> str:
    """Return the installed Python behind an environment's one, since an environment may go away."""
    return getattr(sys, "_base_executable", None) or sys.executable


def package_index_settings() -> dict[str, str]:
    """Return pip's way to packages as uv's environment, where the person has told uv nothing else."""
    if {"UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL"} & set(os.environ):
        return {}
    listing = ask(base_python(), "-m", "pip", "config", "list")
    found: dict[str, str] = {}
    for section in ("global", "install", ":env:"):  # as pip weighs them: the last one counts
        for name, value in re.findall(rf"^{section}\.([\w-]+)=(.+)$", listing, re.MULTILINE):
            if name in PIP_SETTINGS:
                found[PIP_SETTINGS[name]] = value.strip("'\"")
    return {name: value for name, value in found.items() if name not in os.environ}


def ask(*command: str) -> str:
    """Return what a command prints; empty if it fails or cannot be run."""
    try:
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return result.stdout if result.returncode == 0 else ""


def run(command: list[str], settings: dict[str, str] | None = None, remedy: str = "") -> None:
    """Run a tool without its noise.

    Raises:
        SetupFailed: it failed; what it said last was shown, without addresses, for they may hold a password.
    """
    result = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(settings or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if result.returncode == 0:
        return
    said = re.sub(r"\w+://[^\s`'\"<>)]+", "(address)", result.stdout)
    for line in [line for line in said.splitlines() if line.strip()][-6:]:
        say(f"    {line}")
    fitting = (advice for pattern, advice in REMEDIES.items() if re.search(pattern, said, re.IGNORECASE))
    advice = remedy or next(
        fitting, "Run this again; if it fails the same way, remove .tools and the environment first."
    )
    raise SetupFailed(f"setting up stopped here. {advice}")


def say(text: str) -> None:
    """Tell the person at the terminal; standard output belongs to the server."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
