"""A file may be larger than memory: reading it takes the same, whatever its size."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.importer.import_lab import ImportLab

LIMIT_MB = 300
STREAMED_MB = 100  # where no single value is large: tight, so that a small file shows it too
# The peak of this process alone: getrusage would count what the process that started it had in use.
MEASURED = """
import re, sys
from pathlib import Path
from ai_lab.importer.command import main
code = main(sys.argv[1:])
print("peak", re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
sys.exit(code)
"""

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc"),
    pytest.mark.timeout(900),
]


def message(number: int) -> dict[str, Any]:
    return {
        "role": "user",
        "content": f"{number} " + "some words about a topic " * 40,
        "timestamp": 1700000000 + number,
    }


def a_list_of_messages(size_bytes: int) -> Iterator[str]:
    yield "["
    for number in range(size_bytes // 1100):
        yield json.dumps(message(number)) + ","
    yield json.dumps(message(0)) + "]"


def a_list_that_is_cut(size_bytes: int) -> Iterator[str]:
    yield from a_list_of_messages(size_bytes)
    yield "["


def an_export(size_bytes: int) -> Iterator[str]:
    yield "["
    for number in range(size_bytes // 110_000):
        nodes = {
            str(n): {"parent": str(n - 1), "message": {"author": {"role": "user"}, "content": {"parts": [message(n)]}}}
            for n in range(90)
        }
        yield json.dumps({"id": f"c{number}", "mapping": nodes, "current_node": "89"}) + ","
    yield json.dumps({"id": "last", "messages": [message(0)]}) + "]"


def one_text(size_bytes: int) -> Iterator[str]:
    yield '[{"role": "user", "content": "'
    for _ in range(max(40_000_000, size_bytes) // 1_000_000):  # in any case more than a value may take
        yield "x" * 1_000_000
    yield '"}]'


def nothing_but_brackets(size_bytes: int) -> Iterator[str]:
    for _ in range(size_bytes // 1_000_000):
        yield "[" * 1_000_000


def one_line(size_bytes: int) -> Iterator[str]:
    yield from (piece.replace("\n", " ") for piece in one_text(size_bytes))


def large_texts(size_bytes: int) -> Iterator[str]:
    """Texts just below the limit; one emoji makes Python take four bytes for each character."""
    yield "["
    for _ in range(max(2, size_bytes // 100_000_000)):
        yield json.dumps({"role": "user", "content": "wörd \U0001f600" * 690_000}, ensure_ascii=False) + ","
        yield json.dumps({"role": "user", "content": "word " * 1_200_000}) + ","
    yield '{"role": "user", "content": "end"}]'


@pytest.mark.parametrize(
    ("name", "content", "code", "limit_mb"),
    [
        ("conversations/a.json", a_list_of_messages, 0, STREAMED_MB),
        ("conversations/a.json", a_list_that_is_cut, 1, STREAMED_MB),
        ("conversations/a.json", one_text, 1, LIMIT_MB),
        ("conversations/a.json", nothing_but_brackets, 1, STREAMED_MB),
        ("conversations/a.json", large_texts, 0, LIMIT_MB),
        ("conversations.json", an_export, 0, STREAMED_MB),
        ("a.jsonl", one_line, 1, LIMIT_MB),
    ],
)
def test_a_large_file_takes_little_memory(
    lab: ImportLab, name: str, content: Any, code: int, limit_mb: int, *, thorough: bool
) -> None:
    size_bytes = 500_000_000 if thorough else 25_000_000
    path = lab.source / name
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(content(size_bytes))
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, "--source", lab.source], capture_output=True, text=True, check=False
    )
    path.unlink()
    assert done.returncode == code, done.stdout + done.stderr
    peak_mb = int(done.stdout.rpartition("peak ")[2]) / 1024
    print(f"{name} of {content.__name__}: peak {peak_mb:.0f} MB")  # noqa: T201 - shown by -rP
    assert peak_mb <= limit_mb
    assert ("Could not be imported" in done.stdout) == bool(code)
