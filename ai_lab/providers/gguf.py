"""The header of a GGUF model file: what the model is, its context and how much memory its cache takes."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)  # version 1 is of 2023 and llama.cpp no longer reads it
#: struct formats of the value types 0-12; 8 is a string and 9 an array.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_KEPT_ARRAY_ITEMS = 4096  # per-layer figures are kept, vocabularies are skipped
_LONGEST_KEY_BYTES = 65_535
_LONGEST_TEXT_BYTES = 16_000_000
_NONSENSE = "its header makes no sense, so it is damaged"
_CACHE_BYTES_PER_VALUE = 2  # f16


class GgufError(ValueError):
    """The file is no GGUF file or ends inside its header; the text says which."""


@dataclass(frozen=True)
class GgufHeader:
    """What a model file says about itself, as far as the engine has to know before it loads it."""

    values: dict[str, Any]

    @property
    def architecture(self) -> str:
        """Return the model's family, such as ``llama``; ``clip`` is the image part of another model."""
        return str(self.values.get("general.architecture", ""))

    @property
    def context_tokens(self) -> int | None:
        """Return the context the model was trained with."""
        return self._number("context_length")

    @property
    def generates_text(self) -> bool:
        """Return False for what is no chat model: image parts, adapters, importance matrices, embedding models."""
        return (
            self.architecture not in {"", "clip"}
            and self.values.get("general.type", "model") == "model"
            and self.values.get(f"{self.architecture}.attention.causal", True) is not False
        )

    def cache_bytes(self, context_tokens: int) -> int:
        """Return about how much memory the cache of one conversation of this length takes.

        Where layers alternate between the whole context and a sliding window, half of them count as windows.
        """
        layers = self._number("block_count") or 0
        heads = self._number("attention.head_count") or 1
        head_tokens = (self._number("embedding_length") or 0) // heads
        per_head = (self._number("attention.key_length") or head_tokens) + (
            self._number("attention.value_length") or head_tokens
        )
        shared = self.values.get(f"{self.architecture}.attention.head_count_kv")
        if isinstance(shared, list):  # one figure per layer; those without attention have 0
            all_heads = sum(count for count in shared if isinstance(count, int))
        else:
            all_heads = layers * (self._number("attention.head_count_kv") or heads)
        window = self._number("attention.sliding_window") or context_tokens
        mean_tokens = (context_tokens + min(window, context_tokens)) // 2
        return int(all_heads * per_head * _CACHE_BYTES_PER_VALUE * mean_tokens)

    def _number(self, name: str) -> int | None:
        value = self.values.get(f"{self.architecture}.{name}")
        if isinstance(value, list):  # one figure per layer
            value = max(value, default=None)
        return int(value) if isinstance(value, int | float) and value > 0 else None


def read_header(path: Path) -> GgufHeader:
    """Return the header of ``path`` up to the vocabulary, which comes last and is large.

    Raises:
        GgufError: it is no GGUF file, or ends inside its header.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        reader = _Reader(file, size)
        if reader.take(4) != _MAGIC:
            raise GgufError("it does not begin with GGUF, so it is no GGUF model file")
        version, _tensors, count = reader.unpack("<IQQ")
        if version not in _VERSIONS:
            raise GgufError(f"it has GGUF version {version}; versions 2 and 3 can be read")
        values: dict[str, Any] = {}
        for _ in range(count):
            key = reader.text(_LONGEST_KEY_BYTES)
            if key.startswith("tokenizer.") and f"{values.get('general.architecture')}.context_length" in values:
                break
            values[key] = reader.value()
    return GgufHeader(values)


class _Reader:
    """Read values one after the other and never beyond the end of the file, whatever lengths the file claims."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        self._spend(count)
        return self._file.read(count)

    def unpack(self, layout: str) -> tuple[Any, ...]:
        """Return the next values in the given struct layout."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def text(self, limit_bytes: int = _LONGEST_TEXT_BYTES) -> str:
        """Return the next string."""
        (length,) = self.unpack("<Q")
        if length > limit_bytes:
            raise GgufError(_NONSENSE)
        return self.take(length).decode(errors="replace")

    def value(self) -> Any:
        """Return the next value with its type; a long array is skipped and comes back empty."""
        (kind,) = self.unpack("<I")
        return self._array() if kind == _ARRAY else self._one(kind)

    def _one(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind not in _SCALARS:
            raise GgufError(_NONSENSE)
        return self.unpack("<" + _SCALARS[kind])[0]

    def _array(self) -> list[Any]:
        kind, count = self.unpack("<IQ")
        if count <= _KEPT_ARRAY_ITEMS:
            return [self._one(kind) for _ in range(count)]
        if kind == _STRING:
            for _ in range(count):
                self._skip(self.unpack("<Q")[0])
        elif kind in _SCALARS:
            self._skip(count * struct.calcsize("<" + _SCALARS[kind]))
        else:
            raise GgufError(_NONSENSE)
        return []

    def _skip(self, count: int) -> None:
        self._spend(count)
        self._file.seek(count, 1)

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise GgufError("it ends in the middle of its header, so it is not whole")
