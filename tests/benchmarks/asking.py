"""How tests of targets open one and ask it."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

from ai_lab.benchmarks.plan import Arm
from ai_lab.benchmarks.records import Record
from ai_lab.benchmarks.targets import Address, Question, Target, open_target
from ai_lab.settings import Settings
from tests.fakes.http_server import Reply, json_reply

NS_PER_MS = 1_000_000


def gaps_ms(stamps: Any) -> list[float]:
    return [(later - earlier) / NS_PER_MS for earlier, later in itertools.pairwise(stamps)]


def escaped(text: str) -> bytes:
    r"""Return a piece whose text is spelled in ASCII, which can hold half of a pair."""
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"


def owned_by(owner: str) -> Reply:
    return json_reply({"data": [{"id": "tiny", "owned_by": owner}]})


@asynccontextmanager
async def opened(
    url: str | None = None,
    protocol: Literal["auto", "ollama", "openai", "engine", "provider"] = "auto",
    *,
    options: dict[str, Any] | None = None,
    timeout_seconds: float = 10,
    settings: Settings | None = None,
    **more: Any,
) -> AsyncIterator[Target]:
    """Give a target, by default the model ``tiny`` of the server at ``url``."""
    address = Address(**{"protocol": protocol, "model": "tiny", "base_url": url, **more})
    target = await open_target(
        address, Arm(options=options or {}), timeout_seconds=timeout_seconds, settings=settings or Settings()
    )
    try:
        yield target
    finally:
        await target.close()


def empty_record() -> Record:
    return Record(index=0, block=0, arm=0, level=0, phase="measured", prompt_sha256="")


async def ask(target: Target, prompt: str = "Hi", tokens: int = 2, **more: Any) -> Record:
    """Ask and return the record."""
    record = empty_record()
    await target.ask(Question(prompt, tokens, **more), record)
    return record


def written(reply: Reply) -> list[bytes]:
    """Return what a scripted server sends."""
    return [part for part in reply.parts if isinstance(part, bytes)]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for the condition, half a minute at most."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # what changes has no event
            await asyncio.sleep(0.01)


def stamps_in_order(record: Record) -> list[int]:
    """Return the stamps of a whole answer in the order in which they must be."""
    stamps = [record.connected_ns, record.sent_ns, record.headers_ns, record.first_byte_ns, record.first_token_ns]
    stamps += [*record.chunk_ns, record.last_token_ns, record.end_ns]
    assert None not in stamps
    return [stamp for stamp in stamps if stamp is not None]
