"""Which files of a folder hold something to import."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path

from ai_lab.errors import SourceDamaged, StartupError
from ai_lab.importer.chat_jsonl import jsonl_file
from ai_lab.importer.earlier_database import EarlierDatabase
from ai_lab.importer.earlier_json import conversation_file, states_file
from ai_lab.importer.openai_export import export_file
from ai_lab.importer.records import Input, Source
from ai_lab.importer.text_file import Watcher

# What is looked for: pattern, kind, reader.
_Reader = Callable[[Path, Watcher], Iterable[Source | SourceDamaged]]
_PATTERNS: tuple[tuple[str, str, _Reader], ...] = (
    ("conversations/*.json", "AI-Lab conversation", conversation_file),
    ("states/*.json", "AI-Lab state", states_file),
    ("conversations.json", "ChatGPT export", export_file),
    ("conversations-*.json", "ChatGPT export", export_file),  # large exports come in parts
    ("*.jsonl", "JSON Lines", jsonl_file),
    ("conversations/*.jsonl", "JSON Lines", jsonl_file),
)


def find_inputs(folder: Path) -> list[Input]:
    """Return the files of ``folder`` that hold something to import, always in the same order.

    Raises:
        StartupError: there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise StartupError(f"There is no folder {folder}. Name the folder with the earlier data: --source DIR.")
    found = [
        Input(path, kind, functools.partial(reader, path))
        for pattern, kind, reader in _PATTERNS
        for path in sorted(folder.glob(pattern))
        if path.is_file()
    ]
    if not found:
        looked_for = ", ".join(pattern for pattern, _, _ in _PATTERNS)
        raise StartupError(f"Nothing to import in {folder.resolve()}: looked for {looked_for}. Use --source DIR.")
    return found


def database_input(database: EarlierDatabase) -> Input:
    """Return the earlier database as something to import."""
    return Input(database.path, "AI-Lab database", database.sources)
