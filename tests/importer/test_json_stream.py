"""The stream reads what Python's own decoder reads, wherever the window ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ai_lab.errors import SourceDamaged
from ai_lab.importer.json_stream import JsonFile
from ai_lab.importer.text_file import ignore_bytes

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)
same_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def items(path: Path, window_bytes: int) -> list[Any]:
    with JsonFile(path, ignore_bytes, window_bytes) as file:
        found = list(file.items())
        file.end()
        return found


@same_file
@given(
    values=st.lists(anything, max_size=10),
    window_bytes=st.integers(1, 200),
    form=st.fixed_dictionaries({"indent": st.sampled_from([None, 1]), "ensure_ascii": st.booleans()}),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
)
def test_a_list_is_read_as_it_was_written(
    tmp_path: Path, values: list[Any], window_bytes: int, form: dict[str, Any], encoding: str
) -> None:
    path = tmp_path / "list.json"
    path.write_bytes(json.dumps(values, **form).encode(encoding))
    assert items(path, window_bytes) == values


@same_file
@given(values=st.dictionaries(st.text(), anything, max_size=10), window_bytes=st.integers(1, 200))
def test_an_object_is_read_as_it_was_written(tmp_path: Path, values: dict[str, Any], window_bytes: int) -> None:
    path = tmp_path / "object.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    with JsonFile(path, ignore_bytes, window_bytes) as file:
        assert {name: file.value() for name in file.members()} == values
        file.end()


@same_file
@given(data=st.data(), values=st.lists(anything, min_size=1, max_size=5), window_bytes=st.integers(1, 200))
def test_a_cut_file_is_damaged_and_nothing_else(
    tmp_path: Path, data: st.DataObject, values: list[Any], window_bytes: int
) -> None:
    path = tmp_path / "cut.json"
    whole = json.dumps(values, ensure_ascii=False).encode()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(SourceDamaged):
        items(path, window_bytes)


@same_file
@given(content=st.binary(max_size=300), window_bytes=st.integers(1, 50))
def test_any_bytes_are_read_or_reported(tmp_path: Path, content: bytes, window_bytes: int) -> None:
    path = tmp_path / "any.json"
    path.write_bytes(content)
    try:
        items(path, window_bytes)
    except SourceDamaged as damage:
        assert damage.position  # noqa: PT017 - reading it without an error is as good


@same_file
@given(before=st.lists(anything, max_size=5), window_bytes=st.integers(1, 100), indent=st.sampled_from([None, 1]))
def test_the_place_of_the_damage_is_exact(
    tmp_path: Path, before: list[Any], window_bytes: int, indent: int | None
) -> None:
    path = tmp_path / "damaged.json"
    text = json.dumps([*before, 7], indent=indent, ensure_ascii=False)
    at = text.rindex("7")
    path.write_text(text[:at] + "?" + text[at + 1 :], encoding="utf-8", newline="")
    with pytest.raises(SourceDamaged) as caught:
        items(path, window_bytes)
    line_start = text.rfind("\n", 0, at) + 1
    assert caught.value.position == {"line": text.count("\n", 0, at) + 1, "column": at - line_start + 1}
