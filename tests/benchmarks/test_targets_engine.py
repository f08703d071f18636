"""The benchmark's own engine with the shipped model: real tokens, and llama.cpp's own times beside ours."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ai_lab.benchmarks.plan import EngineOptions
from ai_lab.benchmarks.targets import Target
from ai_lab.errors import ModelNotFound
from ai_lab.settings import Settings
from tests.benchmarks.asking import ask, opened, stamps_in_order
from tests.embedded_engine import SHIPPED

TOKENS = 48


@contextlib.asynccontextmanager
async def engine(folder: Path, **more: Any) -> AsyncIterator[Target]:
    """Give an engine of 1 thread and 2 slots, and see that it ends."""
    settings = Settings(models_dir=folder, engine_gpu_layers=0)
    options = EngineOptions(threads=1, context_tokens=512, slots=2)
    fields = {"protocol": "engine", "model": SHIPPED, "engine": options, "settings": settings, **more}
    async with opened(timeout_seconds=60, **fields) as target:
        yield target
        left = target.process_ids()
    assert not any(psutil.pid_exists(pid) for pid in left)


async def test_our_stamps_agree_with_the_engines_own_times(tmp_path: Path) -> None:
    async with engine(tmp_path) as target:
        await ask(target, "warm up", tokens=8)
        records = [await ask(target, f"{n} tell a tale", tokens=TOKENS, seed=1) for n in range(3)]
        counted = await target.prompt_tokens("0 tell a tale")

    differences = []
    for record in records:
        assert (record.status, record.completion_tokens, record.finish_reason) == ("ok", TOKENS, "length")
        assert stamps_in_order(record) == sorted(stamps_in_order(record))
        assert record.first_token_ns
        assert record.last_token_ns
        assert record.sent_ns
        client_ms = (record.last_token_ns - record.first_token_ns) / 1e6
        differences.append(abs(client_ms / record.server_ms["decode_ms"] - 1))
        assert (record.first_token_ns - record.sent_ns) / 1e6 >= record.server_ms["prompt_ms"] * 0.95
        assert record.raw_timings["timings"]["predicted_n"] == TOKENS
    assert min(differences) < 0.05  # the quietest one; on a quiet machine all are below 0.01
    assert records[0].prompt_tokens == counted
    assert records[0].cached_tokens is not None
    assert counted is not None
    assert records[0].cached_tokens < counted


async def test_an_engine_says_what_it_is(tmp_path: Path) -> None:
    async with engine(tmp_path) as target:
        about = await target.describe()
        [pid] = target.process_ids()
        assert "engine_child.py" in " ".join(psutil.Process(pid).cmdline())
        assert target.is_local
    known = {
        "model": SHIPPED,
        "file": f"{SHIPPED}.gguf",
        "family": "llama",
        "quantization": "Q4_1",
        "parameters": 134_515_008,
        "context_tokens": 512,
        "trained_context_tokens": 8192,
        "threads": 1,
        "slots": 2,
        "gpu_layers": 0,
        "is_loaded": True,
    }
    assert {name: about.get(name) for name in known} == known
    assert about["version"].startswith("xllamacpp 20")
    assert len(about["sha256"]) == len(about["template_sha256"]) == len(hashlib.sha256().hexdigest())
    assert "url" not in about


async def test_a_cold_load_is_a_new_process(tmp_path: Path) -> None:
    async with engine(tmp_path) as target:
        before = target.process_ids()
        seconds = await target.cold_load()
        after = target.process_ids()
        assert seconds is not None
        assert 0.01 < seconds < 60
        assert len(after) == 1
        assert before != after
        assert not psutil.pid_exists(before[0])
        assert (await ask(target)).status == "ok"


async def test_completions_and_many_at_once_are_answered(tmp_path: Path) -> None:
    """More requests than slots and than threads of its HTTP server: the others wait and none is lost."""
    async with engine(tmp_path, endpoint="generate") as target:
        records = await asyncio.gather(*(ask(target, f"{n} Once upon", tokens=4) for n in range(12)))
    assert [(record.status, record.error) for record in records] == [("ok", None)] * 12


async def test_a_prompt_that_does_not_fit_is_told(tmp_path: Path) -> None:
    async with engine(tmp_path) as target:
        record = await ask(target, "word " * 1000)
    assert (record.status, record.error_code) == ("error", "context_length_exceeded")
    assert record.sent_ns
    assert record.end_ns


async def test_an_engine_that_dies_is_told_as_such(tmp_path: Path) -> None:
    async with engine(tmp_path) as target:
        psutil.Process(target.process_ids()[0]).kill()
        record = await ask(target)
        assert (record.status, record.error_code) == ("error", "engine_crashed")
        assert "signal 9" in (record.error or "")
        assert target.process_ids() == []
        assert (await target.describe())["is_loaded"] is False
        await target.cold_load()
        assert (await ask(target)).status == "ok"


async def test_an_unknown_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=f"It has: {SHIPPED}"):
        async with engine(tmp_path, model="huge"):
            pass
