"""The files that scripts/lock.py writes follow from pyproject.toml and are safe to install from anywhere."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("runtime.lock", "test.lock", "bootstrap.lock")


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _locked(name: str) -> dict[str, list[str]]:
    """Return the locked versions of each package."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for package, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE):
        found.setdefault(canonicalize_name(package), []).append(version)
    return found


@pytest.mark.parametrize(("lock", "groups"), [("runtime.lock", ["weights"]), ("test.lock", ["weights", "dev"])])
def test_every_dependency_is_locked(pyproject: dict[str, Any], lock: str, groups: list[str]) -> None:
    locked = _locked(lock)
    wanted = pyproject["project"]["dependencies"] + [
        item for group in groups for item in pyproject["dependency-groups"][group]
    ]
    for requirement in map(Requirement, wanted):
        versions = locked.get(canonicalize_name(requirement.name), [])
        assert versions, f"{requirement} is not in {lock}: run scripts/lock.py"
        fits = any if requirement.marker else all  # where systems differ, each has a version of its own
        assert fits(requirement.specifier.contains(version) for version in versions), (
            f"{lock} has {versions}: {requirement}"
        )


def test_what_is_tested_is_what_is_run() -> None:
    assert _locked("runtime.lock").items() <= _locked("test.lock").items()


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_hashes_and_no_addresses(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    assert "://" not in text
    assert "--index" not in text
    for entry in re.split(r"\n(?=\w)", text.split("\n", 1)[1]):
        assert "--hash=sha256:" in entry


@pytest.mark.parametrize("lock", LOCKS)
def test_nothing_that_would_compile_llama_cpp_is_locked(lock: str) -> None:
    assert not {"llm", "llama-cpp-python"} & set(_locked(lock))


def test_the_requirements_of_earlier_users_are_those_of_the_project(pyproject: dict[str, Any]) -> None:
    lines = (ROOT / "backend" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == pyproject["project"]["dependencies"]
