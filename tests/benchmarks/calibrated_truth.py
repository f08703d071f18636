"""What a benchmark's client saw, held against what the calibrated server wrote: record by record, stamp by stamp."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from ai_lab.benchmarks.plan import Arm
from ai_lab.benchmarks.records import Record
from ai_lab.benchmarks.targets import Address, Question, Target, open_target
from ai_lab.settings import Settings
from tests.benchmarks.calibrated_server import MODEL, CalibratedServer, Flavour, Logged

_NS_PER_MS = 1_000_000
_PROMPT = "Tell a long story about a lake"


@dataclass(frozen=True)
class Pair:
    """One request from both sides."""

    seen: Record
    written: Logged

    @property
    def first_token_ms(self) -> float:
        """How much later the client stamped the first token than the server did."""
        assert self.seen.first_token_ns is not None
        return (self.seen.first_token_ns - self.written.before_ns[0]) / _NS_PER_MS

    @property
    def sent_ms(self) -> float:
        """How much earlier the client stamped its request than the server did."""
        assert self.seen.sent_ns is not None
        return (self.written.arrival_ns - self.seen.sent_ns) / _NS_PER_MS

    def gaps_ms(self) -> tuple[list[float], list[float]]:
        """Return the gaps between chunks, as they were seen and as they were written."""
        return _gaps_ms(self.seen.chunk_ns), _gaps_ms(self.written.before_ns)

    def decode_tokens_per_second(self) -> tuple[float, float]:
        """Return the rate by the client's stamps and by the server's own clock; N - 1 intervals for N tokens.

        Where the server reports no duration, the second one is by the stamps of what it wrote.
        """
        seen, first = self.seen, self.written.tokens[0]
        assert seen.first_token_ns is not None
        assert seen.last_token_ns is not None
        assert seen.completion_tokens is not None
        client_ms = (seen.last_token_ns - seen.first_token_ns) / _NS_PER_MS
        client = (seen.completion_tokens - first) / client_ms * 1000
        if "decode_ms" in seen.server_ms:
            return client, (seen.completion_tokens - 1) / seen.server_ms["decode_ms"] * 1000
        written_ms = (self.written.before_ns[-1] - self.written.before_ns[0]) / _NS_PER_MS
        return client, (sum(self.written.tokens) - first) / written_ms * 1000


def _gaps_ms(stamps: Sequence[int]) -> list[float]:
    return [(later - earlier) / _NS_PER_MS for earlier, later in itertools.pairwise(stamps)]


def address(server: CalibratedServer, flavour: Flavour, endpoint: Literal["chat", "generate"] = "chat") -> Address:
    """Return where our client finds the server."""
    protocol: Literal["ollama", "openai"] = "ollama" if flavour == "ollama" else "openai"
    return Address(protocol=protocol, model=MODEL, base_url=server.url, endpoint=endpoint)


@asynccontextmanager
async def opened(
    server: CalibratedServer,
    flavour: Flavour,
    endpoint: Literal["chat", "generate"] = "chat",
    *,
    timeout_seconds: float = 30,
) -> AsyncIterator[Target]:
    """Give our client of a server that has this flavour from now on."""
    server.configure(flavour=flavour)
    target = await open_target(
        address(server, flavour, endpoint), Arm(), timeout_seconds=timeout_seconds, settings=Settings(_env_file=None)
    )
    try:
        yield target
    finally:
        await target.close()


def new_record(prompt: str, index: int = 0) -> Record:
    """Return an empty record for a prompt."""
    digest = hashlib.sha256(prompt.encode()).hexdigest()
    return Record(index=index, block=0, arm=0, level=0, phase="measured", prompt_sha256=digest)


async def ask(target: Target, prompt: str = _PROMPT, *, tokens: int = 8, index: int = 0, **more: Any) -> Record:
    """Ask once."""
    record = new_record(prompt, index)
    await target.ask(Question(prompt=prompt, output_tokens=tokens, **more), record)
    return record


async def ask_many(
    server: CalibratedServer, target: Target, *, streams: int, requests: int, tokens: int, apart_ms: float = 0.0
) -> list[Pair]:
    """Ask ``requests`` different prompts as ``send`` does; return both sides of each."""
    server.clear()
    records = await send(target, streams=streams, requests=requests, tokens=tokens, apart_ms=apart_ms)
    return paired(records, server.log())


async def send(target: Target, *, streams: int, requests: int, tokens: int, apart_ms: float = 0.0) -> list[Record]:
    """Send ``requests`` different prompts, ``streams`` at a time, the first ones ``apart_ms`` after one another."""
    numbers = iter(range(requests))
    began = time.perf_counter_ns()

    async def work(number: int) -> list[Record]:
        await asyncio.sleep(number * apart_ms / 1000)
        return [await ask(target, f"{began} {at} {_PROMPT}", tokens=tokens, index=at) for at in numbers]

    found = await asyncio.gather(*(work(number) for number in range(streams)))
    return list(itertools.chain.from_iterable(found))


def paired(records: Sequence[Record], log: Sequence[Logged]) -> list[Pair]:
    """Bring together what belongs together; all prompts must differ."""
    by_prompt = {entry.prompt_sha256: entry for entry in log}
    assert len(by_prompt) == len(log)
    return [Pair(record, by_prompt[record.prompt_sha256]) for record in records]


def lower_quartile(values: Sequence[float]) -> float:
    """Return what a quarter is not above: a steady error is in it, and what a busy machine does to some is not."""
    return sorted(values)[len(values) // 4]
