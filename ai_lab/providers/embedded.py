"""The embedded provider: llama.cpp in a child process of our own, for any GGUF file of the user's folder."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from ai_lab.errors import (
    EngineCrashed,
    EngineError,
    ModelDamaged,
    ModelNotFound,
    ProviderTimeout,
    ProviderUnavailable,
    StreamBroken,
    UnsupportedFeature,
)
from ai_lab.providers.engine import INSTALL_REMEDY, Engine, EngineSettings, library_folder
from ai_lab.providers.engine_client import EngineClient
from ai_lab.providers.free_memory import free_bytes
from ai_lab.providers.gguf import GgufError
from ai_lab.providers.model_files import ModelFile, find_models, is_chat_model
from ai_lab.providers.seats import Seats
from ai_lab.providers.types import ChatRequest, Check, Chunk, Message, ModelInfo

_OVERHEAD_BYTES = 150_000_000  # the library, the vocabulary and buffers
_CLOSED = "The embedded engine was closed with its lab. Open a new one."
_DEATH_SECONDS = 1.0  # a connection breaks a moment before its process is seen to be gone


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
        self._slots = slots
        self._threads = threads or _cores()
        self._gpu_layers = gpu_layers
        self._idle_seconds = idle_seconds
        self._timeout_seconds = timeout_seconds
        self._cuda_visible_devices = cuda_visible_devices
        self._seats = Seats(slots, timeout_seconds, on_unused=self._start_idle_timer, on_use=self._stop_idle_timer)
        self._client: EngineClient | None = None
        self._changing = asyncio.Lock()  # held while an engine starts or ends
        self._starting: asyncio.Task[EngineClient] | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def engine(self) -> Engine | None:
        """Return the running engine with its ``pid``, ``base_url`` and ``api_key``, or None."""
        return self._client.engine if self._client and self._client.engine.alive else None

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """Yield the answer as it is made, after waiting for a free seat and for the engine to load the model."""
        if any(message.has_images() for message in request.messages):
            raise UnsupportedFeature("The embedded engine reads text only. Leave the images out.", param="messages")
        file = self._find(request.model)
        async with self._seats.taken(file, answers=True), self._running(file) as (client, load_ms):
            if request.tools and not await client.takes_tools():
                raise UnsupportedFeature(
                    f"{file.name} was not trained to call tools. Choose one that was.", param="tools"
                )
            async with contextlib.aclosing(client.stream(request)) as chunks:
                async for chunk in chunks:
                    if load_ms and chunk.finish_reason:
                        yield dataclasses.replace(chunk, timings={"load_ms": load_ms, **chunk.timings})
                    else:
                        yield chunk

    async def models(self) -> list[ModelInfo]:
        """Return the chat models in the folder and the shipped one; starts nothing."""
        return await asyncio.to_thread(self._list)

    async def context_tokens(self, model: str) -> int | None:
        """Return the context of one conversation; starts nothing."""
        return self._context_of(self._find(model))

    async def count_tokens(self, model: str, messages: Sequence[Message]) -> int | None:
        """Return the exact length of the prompt in tokens, the model's own template included."""
        file = self._find(model)
        async with self._seats.taken(file, answers=False), self._running(file) as (client, _):
            return await client.count_prompt(model, messages)

    async def slots_busy(self) -> int:
        """Return how many answers the engine itself is working on; 0 if it does not run."""
        return await self._client.slots_busy() if self._client and self.engine else 0

    async def embed(self, model: str, texts: Sequence[str]) -> list[list[float]]:
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
        self._closed = True
        self._stop_idle_timer()
        if self._starting:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        async with self._changing:
            await self._end_engine()
        if self._ending:
            await self._ending

    def _list(self) -> list[ModelInfo]:
        return [self._info(file) for file in find_models(self._models_dir) if is_chat_model(file)]

    def _info(self, file: ModelFile) -> ModelInfo:
        try:
            context_tokens = file.context_tokens(self._context_tokens)
        except (GgufError, OSError):
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

    def _context_of(self, file: ModelFile) -> int:
        try:
            return file.context_tokens(self._context_tokens)
        except GgufError as error:
            raise ModelDamaged(f"{file.path} cannot be loaded: {error}. Download it again, or remove it.") from None
        except OSError as error:
            raise ModelDamaged(f"{file.path} cannot be read ({error.strerror}). Check its permissions.") from None

    @contextlib.asynccontextmanager
    async def _running(self, file: ModelFile) -> AsyncIterator[tuple[EngineClient, float]]:
        """Give the client of an engine with this model and how long it took to start; tell a crash from other errors.

        Whoever comes here holds a seat, so nobody uses another model.
        """
        client, load_ms = self._client, 0.0
        if client is None or client.engine.file != file or not client.engine.alive:
            started_at = time.perf_counter()
            client = await self._start_once(file)
            load_ms = (time.perf_counter() - started_at) * 1000
        try:
            yield client, load_ms
        except (StreamBroken, ProviderUnavailable) as error:
            if self._closed:
                raise EngineError(_CLOSED) from error
            if how := await client.engine.death(within_seconds=_DEATH_SECONDS):
                raise EngineCrashed(
                    f"The engine died while answering ({how}); the next request starts it again."
                ) from error
            raise
        except ProviderTimeout as error:
            await client.engine.stop(grace_seconds=0)  # it would not answer the next request either
            raise EngineError(
                f"The engine was silent for {self._timeout_seconds:g} s and was ended; the next request starts it."
            ) from error

    async def _start_once(self, file: ModelFile) -> EngineClient:
        """Return the one engine that all who wait for it share; it goes on starting if one of them gives up."""
        starting = self._starting
        if starting is None and not self._closed:
            starting = self._starting = asyncio.create_task(self._start(file), name=f"start of engine for {file.name}")
            starting.add_done_callback(self._started)
        if starting:
            await asyncio.wait([starting])
        if starting is None or starting.cancelled():
            raise EngineError(_CLOSED)
        return starting.result()

    def _started(self, task: asyncio.Task[Any]) -> None:
        self._starting = None
        if not task.cancelled():
            task.exception()  # whoever waits gets it; if all gave up, nobody has to be told
        if not self._seats.in_use:  # all gave up before the idle timer could start
            self._start_idle_timer()

    async def _start(self, file: ModelFile) -> EngineClient:
        async with self._changing:
            await self._end_engine()
            context_tokens = self._context_of(file)
            settings = EngineSettings(
                context_tokens=context_tokens,
                slots=self._slots,
                threads=self._threads,
                gpu_layers=self._gpu_layers,
                cuda_visible_devices=self._cuda_visible_devices,
                needed_bytes=file.size_bytes
                + file.header().cache_bytes(context_tokens) * self._slots
                + _OVERHEAD_BYTES,
                free_bytes=free_bytes(),
            )
            engine = await Engine.start(file, settings, timeout_seconds=self._timeout_seconds)
            self._client = EngineClient(self.name, engine, timeout_seconds=self._timeout_seconds)
            return self._client

    async def _end_engine(self) -> None:
        client, self._client = self._client, None
        if client:
            await client.close()
            await client.engine.stop()

    def _start_idle_timer(self) -> None:
        if self._client and not self._closed:
            loop = asyncio.get_running_loop()
            self._idle_timer = loop.call_later(self._idle_seconds, self._end_when_idle)

    def _stop_idle_timer(self) -> None:
        if self._idle_timer:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _end_when_idle(self) -> None:
        self._idle_timer = None
        self._ending = asyncio.create_task(self._end_idle_engine(), name="end of idle engine")

    async def _end_idle_engine(self) -> None:
        async with self._changing:
            if not self._seats.in_use:
                await self._end_engine()


def _cores() -> int:
    """Return how many cores this process may run on; two threads of one core help little beyond two threads."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or allowed
    return max(1, min(allowed, max(2, physical)))
