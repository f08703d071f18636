from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from ai_lab.providers.gguf import GgufError, GgufHeader, read_header
from ai_lab.providers.model_files import find_models


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def entry(key: str, value: Any) -> bytes:
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    if isinstance(value, bool):
        return text(key) + struct.pack("<I?", 7, value)
    if isinstance(value, list):
        if value and isinstance(value[0], str):
            return text(key) + struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
        return text(key) + struct.pack("<IIQ", 9, 5, len(value)) + struct.pack(f"<{len(value)}i", *value)
    return text(key) + struct.pack("<II", 4, value)


def gguf(values: dict[str, Any], *, version: int = 3) -> bytes:
    entries = b"".join(entry(key, value) for key, value in values.items())
    return b"GGUF" + struct.pack("<IQQ", version, 0, len(values)) + entries


TINY = {
    "general.architecture": "llama",
    "llama.block_count": 10,
    "llama.context_length": 2048,
    "llama.embedding_length": 512,
    "llama.attention.head_count": 8,
    "llama.attention.head_count_kv": 2,
}


def header(values: dict[str, Any], tmp_path: Path) -> GgufHeader:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf(values))
    return read_header(path)


def test_shipped_weights_are_described(tmp_path: Path) -> None:
    (shipped,) = find_models(tmp_path)
    found = shipped.header()
    assert found.architecture == "llama"
    assert found.context_tokens == 8192
    assert found.generates_text
    assert found.cache_bytes(8192) == 180 * 1024 * 1024, "what llama.cpp itself reports for 8192 tokens"


def test_cache_of_one_conversation(tmp_path: Path) -> None:
    # 10 layers x 2 heads x (64 + 64) values x 2 bytes
    assert header(TINY, tmp_path).cache_bytes(100) == 10 * 2 * 128 * 2 * 100


def test_heads_may_differ_by_layer(tmp_path: Path) -> None:
    per_layer = {**TINY, "llama.attention.head_count_kv": [2, 0, 0, 2, 0, 0, 2, 0, 0, 2]}
    assert header(per_layer, tmp_path).cache_bytes(100) == 4 * 2 * 128 * 2 * 100


def test_sliding_window_takes_less(tmp_path: Path) -> None:
    window = {**TINY, "llama.attention.sliding_window": 20}
    assert header(window, tmp_path).cache_bytes(100) == header(TINY, tmp_path).cache_bytes(60)


def test_figures_behind_the_vocabulary_are_found(tmp_path: Path) -> None:
    words = {"tokenizer.ggml.tokens": [f"word {n}" for n in range(5000)], "tokenizer.ggml.types": [1] * 5000}
    found = header({"general.architecture": "llama", **words, **TINY}, tmp_path)
    assert found.context_tokens == 2048
    assert found.values["tokenizer.ggml.tokens"] == []


def test_vocabulary_is_not_read_without_need(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf({**TINY, "tokenizer.ggml.model": "gpt2"})[:-3])
    assert read_header(path).context_tokens == 2048


@pytest.mark.parametrize(
    "values",
    [
        {"general.architecture": "clip"},
        {**TINY, "general.type": "adapter"},
        {**TINY, "llama.attention.causal": False},
        {},
    ],
)
def test_not_every_gguf_file_is_a_chat_model(values: dict[str, Any], tmp_path: Path) -> None:
    assert not header(values, tmp_path).generates_text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "ends in the middle"),
        (b"hello world", "no GGUF"),
        (gguf(TINY, version=1), "version 1"),
        (gguf(TINY)[:50], "ends in the middle"),
        (gguf(TINY)[:-1], "ends in the middle"),
        (gguf({})[:16] + struct.pack("<Q", 2**60), "ends in the middle"),
        (gguf({})[:16] + struct.pack("<QQ", 1, 2**60), "no sense"),
        (gguf({})[:16] + struct.pack("<Q", 1) + text("key") + struct.pack("<I", 99), "no sense"),
        (gguf({})[:16] + struct.pack("<Q", 1) + text("key") + struct.pack("<IIQ", 9, 9, 9999), "no sense"),
        (gguf({})[:16] + struct.pack("<Q", 1) + text("key") + struct.pack("<IIQ", 9, 4, 2**62), "ends in the middle"),
    ],
)
def test_damage_is_named(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(GgufError, match=reason):
        read_header(path)
