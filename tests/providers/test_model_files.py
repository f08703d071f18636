from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ai_lab.providers.model_files import find_models

SHIPPED = "SmolLM2-135M-Instruct.Q4_1"


def names(folder: Path) -> list[str]:
    return [file.name for file in find_models(folder)]


def test_missing_folder_leaves_the_shipped_model(tmp_path: Path) -> None:
    assert names(tmp_path / "nowhere") == [SHIPPED]


def test_folder_and_one_below_are_searched(tmp_path: Path) -> None:
    for place in ("b.gguf", "A.GGUF", "sub/c.gguf", "sub/below/d.gguf", "notes.txt", "folder.gguf/e.gguf"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(b"x")
    assert names(tmp_path) == ["A", "b", "e", "c", SHIPPED]


def test_a_file_of_the_users_own_wins_over_the_shipped_one(tmp_path: Path) -> None:
    own = tmp_path / f"{SHIPPED.upper()}.gguf"
    own.write_bytes(b"x")
    assert [file.path for file in find_models(tmp_path)] == [own]


def test_image_parts_and_later_parts_are_no_models(tmp_path: Path) -> None:
    for name in ("big-00001-of-00002", "big-00002-of-00002", "mmproj-big-f16"):
        (tmp_path / f"{name}.gguf").write_bytes(b"12345")
    found, _shipped = find_models(tmp_path)
    assert (found.name, found.size_bytes) == ("big-00001-of-00002", 10)


def test_a_replaced_file_is_another_model(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(b"x")
    before = find_models(tmp_path)[0]
    assert find_models(tmp_path)[0] == before
    os.utime(path, (1, 1))
    assert find_models(tmp_path)[0] != before


def test_broken_link_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "gone.gguf").symlink_to(tmp_path / "nothing")
    assert names(tmp_path) == [SHIPPED]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_name_that_is_not_text_is_left_out(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.gguf")).write_bytes(b"x")
    assert names(tmp_path) == [SHIPPED]
