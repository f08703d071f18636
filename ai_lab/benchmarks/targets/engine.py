"""A llama.cpp engine of the benchmark's own, so that nobody else's answers are measured and its options are known."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from ai_lab.benchmarks.plan import EngineOptions
from ai_lab.benchmarks.records import Record
from ai_lab.benchmarks.targets.address import Address
from ai_lab.benchmarks.targets.connection import Connections
from ai_lab.benchmarks.targets.http_target import model_not_found
from ai_lab.benchmarks.targets.openai import OpenAITarget
from ai_lab.benchmarks.targets.target import Question
from ai_lab.errors import EngineCrashed, EngineError, ProviderUnavailable, StreamBroken
from ai_lab.providers.engine import Engine
from ai_lab.providers.engine_host import engine_settings
from ai_lab.providers.model_files import ModelFile, find_models
from ai_lab.settings import Settings

_NAME = "embedded"
#: What a request says that lost its connection.
_LOST = frozenset({ProviderUnavailable.code, StreamBroken.code})
_DEATH_SECONDS = 1.0  # a connection breaks a moment before its process is seen to be gone
_BLOCK_BYTES = 1_048_576
#: llama.cpp's ``general.file_type``: what most of a model's weights are stored as.
_FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4",
}


class EngineTarget:
    """A model file in an engine process that this target starts and ends."""

    is_local = True

    def __init__(
        self,
        file: ModelFile,
        address: Address,
        options: Mapping[str, Any],
        *,
        timeout_seconds: float,
        settings: Settings,
    ) -> None:
        self._file = file
        self._address = address
        self._options = dict(options)
        self._timeout_seconds = timeout_seconds
        self._settings = settings
        self._engine: Engine | None = None
        self._served: OpenAITarget | None = None

    @classmethod
    async def start(
        cls, address: Address, options: Mapping[str, Any], *, timeout_seconds: float, settings: Settings
    ) -> EngineTarget:
        """Find the model file and start an engine with it.

        Raises:
            ModelNotFound: there is no such file.
            EngineError: the engine cannot run it; ModelDamaged and OutOfMemory say why.
        """
        files = find_models(settings.models_path())
        file = next((one for one in files if one.name.casefold() == address.model.casefold()), None)
        if file is None:
            raise model_not_found(_NAME, address.model, [one.name for one in files])
        target = cls(file, address, options, timeout_seconds=timeout_seconds, settings=settings)
        await target._start()
        return target

    async def ask(self, question: Question, record: Record) -> None:
        """Ask the engine; see ``Target``."""
        engine, served = self._running()
        await served.ask(question, record)
        if record.error_code in _LOST and (how := await engine.death(within_seconds=_DEATH_SECONDS)):
            crashed = EngineCrashed(f"The engine died ({how}): {engine.last_words() or 'it said nothing'}.")
            record.error, record.error_code = crashed.detail, crashed.code

    async def prompt_tokens(self, prompt: str) -> int | None:
        """Return the engine's own count."""
        return await self._running()[1].prompt_tokens(prompt)

    async def describe(self) -> dict[str, Any]:
        """Return what the engine says of itself, how it was started, and what the file's header says."""
        engine, served = self._running()
        values = self._file.header().values
        about = await served.describe()
        about |= {
            "server": "embedded engine (llama.cpp)",
            "version": f"xllamacpp {metadata.version('xllamacpp')}",
            "model": self._file.name,
            "file": self._file.path.name,
            "size_bytes": self._file.size_bytes,
            "sha256": await asyncio.to_thread(_digest, self._file),
            "family": self._file.header().architecture,
            "parameters": about.get("parameters") or values.get("general.size_label"),
            "quantization": _FILE_TYPES.get(values.get("general.file_type", -1)) or about.get("quantization"),
            "trained_context_tokens": self._file.header().context_tokens,
            "context_tokens": engine.settings.context_tokens,
            "threads": engine.settings.threads,
            "slots": engine.settings.slots,
            "gpu_layers": engine.settings.gpu_layers,
            "is_loaded": engine.alive,
        }
        del about["url"]  # a port of the moment
        return {name: value for name, value in about.items() if value is not None}

    async def cold_load(self) -> float | None:
        """End the engine and start another one; the file itself may be in the system's cache."""
        await self.close()
        started_ns = time.perf_counter_ns()
        await self._start()
        return (time.perf_counter_ns() - started_ns) / 1e9

    def process_ids(self) -> list[int]:
        """Return the engine's process."""
        return [self._engine.pid] if self._engine and self._engine.alive else []

    async def close(self) -> None:
        """End the engine."""
        served, self._served = self._served, None
        if served:
            await served.close()
        engine, self._engine = self._engine, None
        if engine:
            await engine.stop()

    async def _start(self) -> None:
        asked, settings = self._address.engine or EngineOptions(), self._settings
        chosen = engine_settings(
            self._file,
            context_tokens=asked.context_tokens or settings.context_tokens,
            slots=asked.slots or settings.engine_slots,
            threads=asked.threads or settings.engine_threads,
            gpu_layers=settings.engine_gpu_layers if asked.gpu_layers is None else asked.gpu_layers,
            cuda_visible_devices=settings.cuda_visible_devices,
        )
        engine = await Engine.start(self._file, chosen, timeout_seconds=self._timeout_seconds)
        self._engine = engine
        address = self._address.model_copy(
            update={"base_url": engine.base_url, "model": self._file.name, "api_key": SecretStr(engine.api_key)}
        )
        connections = Connections(_NAME, engine.base_url, engine.api_key, timeout_seconds=self._timeout_seconds)
        self._served = OpenAITarget(address, self._options, connections)
        try:
            await self._served.open()
        except BaseException:
            await self.close()
            raise

    def _running(self) -> tuple[Engine, OpenAITarget]:
        if self._engine is None or self._served is None:
            raise EngineError("The engine was ended; its target is closed.")
        return self._engine, self._served


def _digest(file: ModelFile) -> str:
    """Return the SHA-256 of a model file; a file that did not change is read once in a process."""
    stat = file.path.stat()
    return _digest_of(file.path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=32)
def _digest_of(path: Path, _size_bytes: int, _changed_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while block := opened.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
