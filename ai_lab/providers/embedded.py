"""The embedded provider: llama.cpp in a child process of our own, for any GGUF file of the user's folder."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from ai_lab.errors import ModelDamaged, ModelNotFound, UnsupportedFeature
from ai_lab.providers.engine import INSTALL_REMEDY, Engine, library_folder
from ai_lab.providers.engine_host import EngineHost
from ai_lab.providers.model_files import ModelFile, find_models, is_chat_model
from ai_lab.providers.reasoning_effort import OPTION, effort_of, ignored
from ai_lab.providers.types import ChatRequest, Check, Chunk, Embeddings, Message, ModelInfo


class Embedded:
    """A provider that runs models itself, one at a time, in an engine process that comes and goes with the work.

    Args:
        name: the provider's name.
        models_dir: the user's GGUF files; it is looked at on every call and need not exist.
        context_tokens: context of one conversation, less where a model was trained with less.
        slots: answers written at once; further ones wait.
        threads: of the engine; None means one per core.
        gpu_layers: layers on a GPU, -1 as many as fit.
        idle_seconds: the engine ends after this long without work.
        timeout_seconds: the longest silence of the engine, the longest wait for a seat, the longest load.
        cuda_visible_devices: GPUs the engine may use; None leaves the environment as it is.
    """

    supports_tools = True
    supports_response_format = True

    def __init__(
        self,
        name: str,
        *,
        models_dir: Path,
        context_tokens: int,
        slots: int,
        threads: int | None,
        gpu_layers: int,
        idle_seconds: float,
        timeout_seconds: float,
        cuda_visible_devices: str | None,
    ) -> None:
        self.name = name
        self._models_dir = models_dir
        self._context_tokens = context_tokens
        self._host = EngineHost(
            name,
            context_tokens=context_tokens,
            slots=slots,
            threads=threads,
            gpu_layers=gpu_layers,
            idle_seconds=idle_seconds,
            timeout_seconds=timeout_seconds,
            cuda_visible_devices=cuda_visible_devices,
        )

    @property
    def engine(self) -> Engine | None:
        """Return the running engine with its ``pid``, ``base_url`` and ``api_key``, or None."""
        return client.engine if (client := self._host.client) else None

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """Yield the answer as it is made, after waiting for a free seat and for the engine to load the model."""
        if any(message.has_images() for message in request.messages):
            raise UnsupportedFeature("The embedded engine reads text only. Leave the images out.", param="messages")
        file = self._find(request.model)
        async with self._host.use(file, answers=True) as (client, load_ms):
            if request.tools and not await client.takes_tools():
                raise UnsupportedFeature(
                    f"{file.name} was not trained to call tools. Choose one that was.", param="tools"
                )
            warnings: tuple[str, ...] = ()
            if (effort := effort_of(request)) and not await client.takes_effort():
                options = {name: value for name, value in request.options.items() if name != OPTION}
                request = dataclasses.replace(request, options=options)
                warnings = () if effort == "none" else (ignored(self.name, file.name),)
            async with contextlib.aclosing(client.stream(request)) as chunks:
                async for chunk in chunks:
                    if chunk.finish_reason and (load_ms or warnings):
                        timings = {"load_ms": load_ms, **chunk.timings} if load_ms else chunk.timings
                        yield dataclasses.replace(chunk, timings=timings, warnings=(*chunk.warnings, *warnings))
                    else:
                        yield chunk

    async def models(self) -> list[ModelInfo]:
        """Return the chat models in the folder and the shipped one; starts nothing."""
        return await asyncio.to_thread(self._list)

    async def context_tokens(self, model: str) -> int | None:
        """Return the context of one conversation; starts nothing."""
        return self._find(model).context_tokens(self._context_tokens)

    async def count_tokens(self, model: str, messages: Sequence[Message]) -> int | None:
        """Return the exact length of the prompt in tokens, the model's own template included."""
        file = self._find(model)
        async with self._host.use(file, answers=False) as (client, _):
            return await client.count_prompt(model, messages)

    async def slots_busy(self) -> int:
        """Return how many answers the engine itself is working on; 0 if it does not run."""
        return await client.slots_busy() if (client := self._host.client) else 0

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """Refuse: the engine runs chat models."""
        raise UnsupportedFeature(f"{self.name} makes no embeddings. Choose a model that does.", param="model")

    async def check(self) -> Check:
        """Return whether models can be run; starts nothing."""
        started_at = time.perf_counter()
        if library_folder() is None:
            return Check(reachable=False, detail="xllamacpp is not installed", remedy=INSTALL_REMEDY)
        engine = self.engine
        detail = f"running {engine.file.name}, pid {engine.pid}" if engine else "idle"
        return Check(reachable=True, detail=detail, latency_ms=(time.perf_counter() - started_at) * 1000)

    async def close(self) -> None:
        """End the engine; the provider cannot be used again."""
        await self._host.close()

    def _list(self) -> list[ModelInfo]:
        return [self._info(file) for file in find_models(self._models_dir) if is_chat_model(file)]

    def _info(self, file: ModelFile) -> ModelInfo:
        try:
            context_tokens = file.context_tokens(self._context_tokens)
        except ModelDamaged:  # whoever asks for it is told what is wrong
            context_tokens = None
        return ModelInfo(
            name=file.name,
            context_tokens=context_tokens,
            size_bytes=file.size_bytes,
            modified_at=file.modified_at,
            capabilities=frozenset({"json"}),
        )

    def _find(self, model: str) -> ModelFile:
        for file in find_models(self._models_dir):
            if file.name.casefold() == model.casefold():
                return file
        raise ModelNotFound(f"{self.name} has no model {model!r}. Put its GGUF file into {self._models_dir}.")
