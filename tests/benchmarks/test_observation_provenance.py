"""Where figures come from: what is told, what is not, and which commit a checkout is at."""

import json
import platform
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

import ai_lab
from ai_lab.benchmarks.observation.provenance import git_commit, host_provenance, installed_packages

_COMMIT, _OTHER = "a" * 40, "b" * 40


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _leaves(each)
    else:
        yield value


def test_it_tells_machine_and_software_and_nothing_that_names_the_machine() -> None:
    found = host_provenance()
    assert json.loads(json.dumps(found)) == found
    host = found["host"]
    assert host["logical_cores"] == psutil.cpu_count()
    assert host["memory_bytes"] == psutil.virtual_memory().total
    assert host["kernel"] == platform.release()
    assert platform.python_version() in host["python"]
    assert found["ai_lab"]["version"] == ai_lab.__version__
    assert len(found["ai_lab"]["packages_sha256"]) == 64
    leaves = list(_leaves(found))
    assert None not in leaves
    assert "" not in leaves
    assert socket.gethostname() not in leaves
    assert str(Path.home()) not in json.dumps(found)


def test_packages_are_told_with_their_versions() -> None:
    packages = installed_packages()
    assert f"psutil-{psutil.__version__}" in packages
    assert packages == sorted(set(packages), key=str.lower)


def _checkout(folder: Path, head: str, files: dict[str, str]) -> Path:
    for name, text in {"HEAD": head, **files}.items():
        (folder / ".git" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / ".git" / name).write_text(f"{text}\n")
    return folder


def test_the_commit_of_a_checkout_is_read_from_its_files(tmp_path: Path) -> None:
    branch = "ref: refs/heads/some/work"
    loose = _checkout(tmp_path / "loose", branch, {"refs/heads/some/work": _COMMIT, "packed-refs": _OTHER})
    assert git_commit(loose) == _COMMIT
    lines = f"# pack-refs with: peeled\n{_OTHER} refs/heads/more/some/work\n{_COMMIT} refs/heads/some/work"
    assert git_commit(_checkout(tmp_path / "packed", branch, {"packed-refs": lines})) == _COMMIT
    assert git_commit(_checkout(tmp_path / "detached", _COMMIT, {})) == _COMMIT
    further = _checkout(
        tmp_path / "main", "ref: refs/heads/main", {"worktrees/w/HEAD": branch, "worktrees/w/commondir": "../.."}
    )
    (further / ".git/packed-refs").write_text(lines)
    working = tmp_path / "further"
    working.mkdir()
    (working / ".git").write_text(f"gitdir: {further / '.git/worktrees/w'}\n")
    assert git_commit(working) == _COMMIT


def test_no_commit_is_made_up(tmp_path: Path) -> None:
    outer = _checkout(tmp_path / "outer", _COMMIT, {})
    (outer / "installed").mkdir()
    assert git_commit(outer / "installed") == "unavailable"  # another project's
    assert git_commit(_checkout(tmp_path / "unborn", "ref: refs/heads/main", {})) == "unavailable"
    no_entry = _checkout(tmp_path / "packed", "ref: refs/heads/main", {"packed-refs": f"{_COMMIT} refs/heads/x/main"})
    assert git_commit(no_entry) == "unavailable"
