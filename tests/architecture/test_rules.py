"""The rules of the layout that no linter knows."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ai_lab import errors

ROOT = Path(__file__).resolve().parents[2]
TRACKED = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - whichever git there is
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
]
PYTHON = [path for path in TRACKED if path.suffix == ".py" and path.exists()]
LIBRARY = [path for path in PYTHON if path.is_relative_to(ROOT / "ai_lab") or path.is_relative_to(ROOT / "backend")]
MAX_LINES = 400
BANNED_NAMES = re.compile(r"(^|_)(utils?|helpers?|common|manager|base|v\d+|enhanced)(_|$)")
#: Broad handlers are allowed at these edges only: the supervisor of a task, and health probes.
BROAD_EXCEPT_ALLOWED = {"ai_lab/telemetry/service.py", "ai_lab/telemetry/health.py"}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _raises_again(handler: ast.ExceptHandler) -> bool:
    """Return whether it only cleans up."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def _uses(path: Path, names: set[str]) -> list[str]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [f"{_name(path)}:{node.lineno}" for node in nodes if isinstance(node, ast.Attribute) and node.attr in names]


def test_no_file_is_longer_than_a_person_reads_in_one_go() -> None:
    lengths = {_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in PYTHON}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_names_say_what_a_file_is_about() -> None:
    assert [_name(path) for path in PYTHON if BANNED_NAMES.search(path.stem)] == []


def test_every_capability_says_what_it_owns() -> None:
    for folder in sorted((ROOT / "ai_lab").iterdir()):
        if folder.is_dir() and folder.name != "__pycache__":
            assert (folder / "__init__.py").exists(), folder.name
            docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
            assert docstring is not None
            assert docstring.startswith("Owns "), folder.name


def test_nothing_broad_is_caught() -> None:
    """A handler for everything hid failed saves in an earlier system for years."""
    found = []
    for path in LIBRARY:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler) and not _raises_again(node):
                caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
                names = {getattr(one, "id", None) if one is not None else "everything" for one in caught}
                if names & {"Exception", "BaseException", "everything"} and _name(path) not in BROAD_EXCEPT_ALLOWED:
                    found.append(f"{_name(path)}:{node.lineno}")
    assert found == []


def test_only_the_unit_of_work_commits() -> None:
    """Commits inside services make half transactions possible."""
    found = []
    for path in LIBRARY:
        if path.is_relative_to(ROOT / "ai_lab" / "database"):
            continue
        found += _uses(path, {"commit", "rollback"})
    assert found == []


def test_only_settings_read_the_environment() -> None:
    found = []
    for path in LIBRARY:
        if path.parent.name == "settings":
            continue
        found += _uses(path, {"getenv"})
    assert found == []


def test_the_error_tree_in_the_docstring_is_the_real_one() -> None:
    drawn = {
        match[0]: (match[1], match[2])
        for match in re.findall(r"(\w+)\s+(?:(\d{3}) (\w+))?", errors.__doc__ or "")
        if match[0] in vars(errors)
    }
    classes = {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.LabError)
    }
    assert set(drawn) == set(classes)
    for name, (status, code) in drawn.items():
        if status:
            assert (int(status), code) == (classes[name].status, classes[name].code), name


def test_codes_are_stable_names_and_each_belongs_to_one_class() -> None:
    codes = [
        value.__dict__["code"]
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.LabError) and "code" in value.__dict__
    ]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z][a-z_]+", code) for code in codes)


def test_importing_the_library_loads_nothing_heavy() -> None:
    program = "import ai_lab, sys; print(*sorted(m.partition('.')[0] for m in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    heavy = {"sqlalchemy", "httpx", "pydantic", "fastapi", "uvicorn", "xllamacpp", "ollama", "alembic", "rich"}
    assert heavy & set(loaded.stdout.split()) == set()


def test_a_server_without_work_loads_no_engine_and_no_migrations() -> None:
    program = "import backend.server, sys; print(*sorted(m.partition('.')[0] for m in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    heavy = {"xllamacpp", "alembic", "rich", "asyncpg", "numpy", "scipy", "aiohttp", "tqdm", "matplotlib", "pandas"}
    assert heavy & set(loaded.stdout.split()) == set()


def test_the_map_shows_every_folder() -> None:
    shown = set(re.findall(r"^\| `([^`]+)/?` \|", (ROOT / "docs" / "map.md").read_text(encoding="utf-8"), re.MULTILINE))
    folders = {
        _name(path.parent)
        for path in TRACKED
        if path.exists() and path.parent != ROOT and not _name(path).startswith((".", "tests/", "docs/decisions"))
    }
    folders |= {"tests", "docs/decisions"}
    assert {folder.rstrip("/") for folder in shown} == folders


def test_each_dependency_says_why_it_is_there() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    names = tomllib.loads(project)["project"]["dependencies"]
    for name in names:
        line = next(line for line in project.splitlines() if f'"{name}"' in line)
        assert "# " in line, name


@pytest.mark.parametrize("word", ["TODO", "FIXME", "XXX"])
def test_nothing_is_left_for_later_without_a_word(word: str) -> None:
    found = [
        _name(p) for p in PYTHON if p != Path(__file__) and re.search(rf"\b{word}\b", p.read_text(encoding="utf-8"))
    ]
    assert found == []
