"""What runs here is what was locked: nothing starts by itself, nothing is built from stored data."""

from __future__ import annotations

import re
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.server import ROOT

PACKAGES = Path(sysconfig.get_paths()["purelib"])
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LIBRARY = sorted([*(ROOT / "ai_lab").rglob("*.py"), *(ROOT / "backend").rglob("*.py")])
#: A new one needs a reason that is worth its risk; raise this with it.
_MOST_DIRECT_DEPENDENCIES = 29
_NEVER = {"litellm", "gptcache", "slowapi", "torch", "gputil", "pynvml", "pickle5", "dill", "cloudpickle", "joblib"}
#: They build objects, or run code, from what they read.
_REFUSED = re.compile(
    r"^\s*(?:import|from)\s+(?:_?pickle|marshal|shelve|dill|cloudpickle|joblib|yaml|jsonpickle|imp)\b"
    r"|(?<![\w.])(?:eval|exec|compile|__import__|input)\s*\("
)
#: Rules of ruff about the same: an exception to one of them would hide in a comment.
_RULES = r"S102|S30[0-9]|S310|S31[2-9]|S32[0-9]|S50[0-9]|S60[24579]|S61[0-9]|S70[0-9]"


def test_nothing_starts_with_the_interpreter() -> None:
    """A line of a ``.pth`` file that begins with import is run at every start of Python."""
    for path in PACKAGES.glob("*.pth"):
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        assert lines == [str(ROOT)], f"{path.name} is no file of this project"
    assert [name for name in ("sitecustomize", "usercustomize") if list(PACKAGES.glob(f"{name}*"))] == []


def test_there_are_no_more_direct_dependencies_than_agreed() -> None:
    names = {Requirement(text).name for text in PYPROJECT["project"]["dependencies"]}
    assert len(names) <= _MOST_DIRECT_DEPENDENCIES, sorted(names)


@pytest.mark.parametrize("lock", sorted((ROOT / "requirements").glob("*.lock")), ids=lambda path: path.name)
def test_what_was_refused_comes_in_by_no_other_way(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert not _NEVER & set(re.findall(r"^([\w.-]+)==", text, re.MULTILINE))
    pinned = re.findall(r"^[\w.-]+==", text, re.MULTILINE)
    assert len(re.findall(r"^[\w.-]+==.*(?:\\\n +--hash=sha256:[0-9a-f]{64} ?)+", text, re.MULTILINE)) == len(pinned)


def test_no_file_says_where_packages_come_from() -> None:
    """An address of a package index in a file would win over the mirror of whoever installs."""
    # Split, so that this file has none of them.
    hosts = ("pypi" + ".org", "pythonhosted" + ".org", "npmjs" + ".org", "jsdelivr" + ".net", "unpkg" + ".com")
    command = ["git", "grep", "--files-with-matches", "--untracked", *(f"-e{host}" for host in hosts)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.stdout.split() == []


def test_nothing_builds_objects_or_code_from_data() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in LIBRARY
        for line in path.read_text(encoding="utf-8").splitlines()
        if _REFUSED.search(line)
    ]
    assert found == []
    for line in ("import pickle", "from yaml import load", "    import _pickle as p", "x = eval(y)", "exec (y)"):
        assert _REFUSED.search(line)
    for line in ("import picklejar", "re.compile(y)", "is_input(x)", "from ai_lab.importer.inputs import x"):
        assert not _REFUSED.search(line)


def test_no_exception_to_the_rules_about_that_exists() -> None:
    ruff = PYPROJECT["tool"]["ruff"]["lint"]
    assert ruff["select"] == ["ALL"]
    assert [rule for rule in ruff["ignore"] if re.fullmatch(_RULES, rule)] == []
    for pattern, rules in ruff["per-file-ignores"].items():
        assert not [rule for rule in rules if rule == "S" or re.fullmatch(_RULES, rule)], pattern
    excepted = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in LIBRARY
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(rf"noqa(?:$|:[^#]*\b(?:S|{_RULES})\b)", line)
    ]
    assert excepted == []


def test_certificates_are_always_checked() -> None:
    for path in LIBRARY:
        assert not re.search(r"verify\s*=\s*False|CERT_NONE|check_hostname\s*=\s*False", path.read_text("utf-8")), path
