"""What the tests of the embedded provider share: one with the real engine, and what they ask and wait for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from ai_lab.providers.embedded import Embedded
from ai_lab.providers.engine import Engine
from ai_lab.providers.types import ChatRequest, Chunk, Message

SHIPPED = "SmolLM2-135M-Instruct.Q4_1"
EXACT = {"temperature": 0, "seed": 1}
TALE = "Tell me a very long tale about a fox, a crow and the sea."


@asynccontextmanager
async def opened(models_dir: Path, **changes: Any) -> AsyncIterator[Embedded]:
    arguments: dict[str, Any] = {
        "models_dir": models_dir,
        "context_tokens": 1024,
        "slots": 2,
        "threads": None,
        "gpu_layers": 0,
        "idle_seconds": 600,
        "timeout_seconds": 60,
        "cuda_visible_devices": None,
    }
    provider = Embedded("embedded", **{**arguments, **changes})
    try:
        yield provider
    finally:
        engine = provider.engine
        await provider.close()
        assert engine is None or not psutil.pid_exists(engine.pid)


def stream(provider: Embedded, text: str, model: str = SHIPPED, **options: Any) -> AsyncGenerator[Chunk, None]:
    return provider.stream(ChatRequest(model, [Message("user", text)], {**EXACT, **options}))


async def answer(provider: Embedded, text: str = "Hi", model: str = SHIPPED, **options: Any) -> tuple[str, Chunk]:
    chunks = [chunk async for chunk in stream(provider, text, model, **options)]
    assert [chunk.finish_reason is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    return "".join(chunk.text for chunk in chunks), chunks[-1]


def running(provider: Embedded) -> Engine:
    assert provider.engine is not None
    return provider.engine


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float = 30) -> float:
    """Wait for the condition and return how long it took."""
    started_at = time.monotonic()
    while not await condition():
        assert time.monotonic() - started_at < seconds, "it did not come about"
        await asyncio.sleep(0.01)
    return time.monotonic() - started_at


def engines() -> list[psutil.Process]:
    """Return the engine processes of these tests; other tests have children of their own, such as a database."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it may end at this moment
            if any("engine_child.py" in word for word in child.cmdline()):
                found.append(child)
    return found


async def has_child() -> bool:
    return bool(engines())


async def has_ended(engine: Engine) -> bool:
    return not engine.alive


async def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def has_work(provider: Embedded) -> bool:
    return await provider.slots_busy() > 0


async def has_work_if_running(provider: Embedded) -> bool:
    return provider.engine is not None and await has_work(provider)


async def has_no_work(provider: Embedded) -> bool:
    return await provider.slots_busy() == 0
