"""A damaged file is reported with place and reason, leaves nothing behind, and costs no other file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.importer.import_lab import ImportLab

# What is read does not depend on the kind of database.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

GOOD = [{"role": "user", "content": "ok"}]
START = '[{"role": "user", "content": "first"},\n '
NESTED = '{"role": "user", "content": "x", "more": ' + "[" * 150 + "]" * 150 + "}]"


@pytest.mark.parametrize(
    ("content", "position", "reason"),
    [
        (START + '{"role": "user" "content"}]', {"line": 2, "column": 18}, "expecting ',' delimiter"),
        (START + '{"role": "us', {"line": 2, "column": 14}, "the file ends in the middle"),
        (START, {"line": 2, "column": 2}, "the file ends in the middle"),
        (START + "7]", {"line": 2, "column": 2}, "expected a message, found int"),
        (START + NESTED, {"line": 2, "column": 2}, "nested deeper than 100 levels"),
        (START + "[" * 100_000, {"line": 2, "column": 2}, "nested deeper than 100 levels"),
        ("[" * 100_000 + "]" * 100_000, {"line": 1, "column": 2}, "nested deeper than 100 levels"),
        ('{"a":' * 100_000, {"line": 1, "column": 6}, "nested deeper than 100 levels"),
        (START + '{"n": ' + "9" * 5000 + "}]", {"line": 2, "column": 2}, "Exceeds the limit"),
        (START + '{"content": "x"}] x', {"line": 2, "column": 20}, "more text follows"),
        ('{"messages": [{"content": "x"}], "messages": []}', {"line": 1, "column": 46}, "a second list of messages"),
        ('{"a": 1}', {"line": 1, "column": 1}, "expected a list of messages"),
        ("7", {"line": 1, "column": 1}, "expected a list of messages"),
        ("", {"line": 1, "column": 1}, "the file is empty"),
        ("{7: 1}", {"line": 1, "column": 2}, "expected a name in double quotes"),
        (START.encode() + '{"content": "grün"}]'.encode("latin-1"), {"byte": 55}, "not UTF-8 text (byte 0xfc"),
        (b"\xff\xfe" + START.encode("utf-16-le") + b"x", {"byte": 82}, "not UTF-16-LE text"),
        (b"\x00\x01\x02" * 1000, {"line": 1, "column": 1}, "expecting value"),
    ],
)
def test_a_damaged_conversation(lab: ImportLab, content: str | bytes, position: dict[str, int], reason: str) -> None:
    path = lab.write("conversations/b.json", content)
    lab.write("conversations/a.json", GOOD)
    lab.write("conversations/c.json", GOOD)
    report = lab.report()
    (damage,) = [damage for source in report["sources"] for damage in source["damages"]]
    assert damage["origin"] == str(path)
    assert reason in damage["reason"]
    assert damage["position"] == position
    assert report["complete"] is False
    assert lab.sessions() == {"a", "c"}
    assert lab.run() == 1
    assert "Could not be imported" in lab.out


def test_a_damaged_file_comes_in_once_it_is_mended(lab: ImportLab) -> None:
    lab.write("conversations/b.json", START)
    assert lab.run() == 1
    lab.write("conversations/b.json", START + '{"content": "second", "role": "user"}]')
    assert lab.run() == 0
    assert lab.said("b") == [("user", "first"), ("user", "second")]


@pytest.mark.parametrize("content", [{"status": 1}, [{"message": "a"}, 7], {"other": 1}, 7, []])
def test_states(lab: ImportLab, content: Any) -> None:
    lab.write("states/a.json", content)
    assert lab.run() == (0 if content in ({"status": 1}, []) else 1)


def test_a_file_that_may_not_be_read_is_told(lab: ImportLab) -> None:
    path = lab.write("conversations/b.json", GOOD)
    lab.write("conversations/a.json", GOOD)
    path.unlink()
    path.symlink_to("/proc/self/mem" if Path("/proc/self/mem").exists() else lab.source)
    code = lab.run()
    assert lab.sessions() == {"a"}
    assert code == (1 if os.path.isfile(path) else 0)  # noqa: PTH113 - as the importer sees it


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_file_name_that_is_no_text_is_named_all_the_same(lab: ImportLab) -> None:
    lab.write(os.fsdecode(b"conversations/a\xff.json"), GOOD)
    lab.write(os.fsdecode(b"conversations/b\xff.json"), "[")
    report = lab.report()
    assert report["totals"]["messages"] == 1
    assert report["totals"]["damaged"] == 1
    assert lab.said("a_") == [("user", "ok")]


def test_a_terminal_gets_no_control_characters_of_a_file_name(lab: ImportLab) -> None:
    lab.write("conversations/a\x1b[31m[bold]b.json", "[")
    assert lab.run() == 1
    assert "\x1b" not in lab.out
    assert "[31m[bold]b.json" in lab.out
