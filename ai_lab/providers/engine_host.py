"""The one engine of the embedded provider: started when it is needed, replaced when it died, ended when idle."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import psutil

from ai_lab.errors import EngineCrashed, EngineError, ProviderError, ProviderTimeout, ProviderUnavailable, StreamBroken
from ai_lab.providers.engine import Engine, EngineSettings
from ai_lab.providers.engine_client import EngineClient
from ai_lab.providers.free_memory import free_bytes
from ai_lab.providers.model_files import ModelFile
from ai_lab.providers.seats import Seats

_OVERHEAD_BYTES = 150_000_000  # the library, the vocabulary and buffers
_CLOSED = "The embedded engine was closed with its lab. Open a new one."
_DEATH_SECONDS = 1.0  # a connection breaks a moment before its process is seen to be gone


class EngineHost:
    """Run one engine at a time. The arguments are those of ``Embedded``."""

    def __init__(
        self,
        name: str,
        *,
        context_tokens: int,
        slots: int,
        threads: int | None,
        gpu_layers: int,
        idle_seconds: float,
        timeout_seconds: float,
        cuda_visible_devices: str | None,
    ) -> None:
        self._name = name
        self._context_tokens = context_tokens
        self._slots = slots
        self._threads = threads
        self._gpu_layers = gpu_layers
        self._idle_seconds = idle_seconds
        self._timeout_seconds = timeout_seconds
        self._cuda_visible_devices = cuda_visible_devices
        self._seats = Seats(slots, timeout_seconds, on_unused=self._start_idle_timer, on_use=self._stop_idle_timer)
        self._client: EngineClient | None = None
        self._changing = asyncio.Lock()  # held while an engine starts or ends
        self._starting: asyncio.Task[EngineClient] | None = None
        self._starting_file: ModelFile | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def client(self) -> EngineClient | None:
        """Return the client of the running engine, or None if there is none."""
        return self._client if self._client and self._client.engine.alive else None

    @contextlib.asynccontextmanager
    async def use(self, file: ModelFile, *, answers: bool) -> AsyncIterator[tuple[EngineClient, float]]:
        """Give the client of an engine that has ``file`` loaded, and how many milliseconds that took.

        The engine keeps this model while the block runs. What goes wrong in the block because the engine died comes
        out as such.

        Args:
            file: the model.
            answers: the block takes an answer, of which the engine writes only so many at once.
        """
        async with self._seats.taken(file, answers=answers):
            client, load_ms = self.client, 0.0
            if client is None or client.engine.file != file:
                started_at = time.perf_counter()
                client = await self._start_once(file)
                load_ms = (time.perf_counter() - started_at) * 1000
            async with self._deaths_told(client):
                yield client, load_ms

    async def close(self) -> None:
        """End the engine; it cannot be used again."""
        self._closed = True
        self._stop_idle_timer()
        if self._starting:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        async with self._changing:
            await self._end_engine()
        if self._ending:
            await self._ending

    @contextlib.asynccontextmanager
    async def _deaths_told(self, client: EngineClient) -> AsyncIterator[None]:
        try:
            yield
        except (StreamBroken, ProviderUnavailable) as error:
            if self._closed:
                raise EngineError(_CLOSED) from error
            if how := await client.engine.death(within_seconds=_DEATH_SECONDS):
                raise EngineCrashed(
                    f"The engine died while answering ({how}); the next request starts it again."
                ) from error
            raise
        except ProviderTimeout as error:
            # It reads one prompt after the other, so a silent request may only be waiting behind a long one.
            try:
                await client.slots_busy()
            except ProviderError:
                await client.engine.stop(grace_seconds=0)  # it would not answer the next request either
                raise EngineError(
                    f"The engine was silent for {self._timeout_seconds:g} s and was ended; the next request starts it."
                ) from error
            raise

    async def _start_once(self, file: ModelFile) -> EngineClient:
        """Return the engine that all who wait for it share; it goes on starting if one of them gives up.

        Whoever comes here holds a seat, so nobody waits for another model.
        """
        if self._starting and self._starting_file != file:  # all who wanted that one gave up
            self._starting.cancel()
            await asyncio.wait([self._starting])
        starting = self._starting
        if starting is None and not self._closed:
            starting = self._starting = asyncio.create_task(self._start(file), name=f"start of engine for {file.name}")
            self._starting_file = file
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
            settings = engine_settings(
                file,
                context_tokens=self._context_tokens,
                slots=self._slots,
                threads=self._threads,
                gpu_layers=self._gpu_layers,
                cuda_visible_devices=self._cuda_visible_devices,
            )
            engine = await Engine.start(file, settings, timeout_seconds=self._timeout_seconds)
            self._client = EngineClient(self._name, engine, timeout_seconds=self._timeout_seconds)
            return self._client

    async def _end_engine(self) -> None:
        client, self._client = self._client, None
        if client:
            await client.close()
            await client.engine.stop()

    def _start_idle_timer(self) -> None:
        self._stop_idle_timer()
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


def engine_settings(
    file: ModelFile,
    *,
    context_tokens: int,
    slots: int,
    threads: int | None,
    gpu_layers: int,
    cuda_visible_devices: str | None,
) -> EngineSettings:
    """Return how an engine runs ``file`` on this machine now; the arguments are those of ``Embedded``.

    Raises:
        ModelDamaged: the file cannot be read.
    """
    context_tokens = file.context_tokens(context_tokens)
    return EngineSettings(
        context_tokens=context_tokens,
        slots=slots,
        threads=threads or _cores(),
        gpu_layers=gpu_layers,
        cuda_visible_devices=cuda_visible_devices,
        needed_bytes=file.size_bytes + file.header().cache_bytes(context_tokens) * slots + _OVERHEAD_BYTES,
        free_bytes=free_bytes(),
    )


def _cores() -> int:
    """Return how many cores this process may run on; two threads of one core help little beyond two threads."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or allowed
    return max(1, min(allowed, max(2, physical)))
