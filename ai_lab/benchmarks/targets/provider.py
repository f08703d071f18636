"""A provider of AI Lab as a target: echo, and providers of installed packages. Stamps are ours, not the socket's."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Any

from ai_lab.benchmarks.records import Record
from ai_lab.benchmarks.targets.address import Address
from ai_lab.benchmarks.targets.answer import AnswerLog
from ai_lab.benchmarks.targets.target import Question
from ai_lab.errors import LabError, ProviderTimeout, ProviderUnavailable, StreamBroken
from ai_lab.providers import ChatRequest, Chunk, Message, Provider, Providers
from ai_lab.settings import Settings

_NOTE = "stamped where the provider hands chunks over, not at the socket"
#: Names of a provider's timings and ours.
_TIMINGS = (("load_ms", "load_ms"), ("prompt_ms", "prompt_ms"), ("decode_ms", "generation_ms"))


class ProviderTarget:
    """A model of a provider that runs inside the measuring process."""

    is_local = True

    def __init__(
        self, providers: Providers, address: Address, options: Mapping[str, Any], *, timeout_seconds: float
    ) -> None:
        self._providers = providers
        self._provider: Provider = providers.get(address.provider or "")
        self._address = address
        self._options = dict(options)
        self._timeout_seconds = timeout_seconds

    @classmethod
    async def start(
        cls, address: Address, options: Mapping[str, Any], *, timeout_seconds: float, settings: Settings
    ) -> ProviderTarget:
        """Make the provider and see that it answers.

        Raises:
            ProviderUnavailable: it does not answer.
        """
        target = cls(Providers(settings), address, options, timeout_seconds=timeout_seconds)
        check = await target._provider.check()
        if not check.reachable:
            await target.close()
            raise ProviderUnavailable(f"{address.provider}: {check.detail}. {check.remedy or ''}".strip())
        return target

    async def ask(self, question: Question, record: Record) -> None:
        """Ask the provider; see ``Target``."""
        options: dict[str, Any] = {"temperature": 0, "max_tokens": question.output_tokens}
        if question.seed is not None:
            options["seed"] = question.seed
        options |= {**self._options, **question.options}
        request = ChatRequest(self._address.model, [Message("user", question.prompt)], options)
        asked = options["max_tokens"]
        log = AnswerLog(record, wanted_tokens=question.wanted_tokens(asked), most_chunks=question.most_chunks(asked))
        log.note(_NOTE)
        record.connected_ns = record.sent_ns = time.perf_counter_ns()
        try:
            await self._read(request, log)
        except asyncio.CancelledError:
            log.fail("cancelled", None, time.perf_counter_ns())
            raise
        except (ProviderTimeout, TimeoutError):
            silent = ProviderTimeout(f"{self._provider.name} was silent for {self._timeout_seconds:g} s.")
            log.fail("timeout", silent, time.perf_counter_ns())
        except StreamBroken as error:
            log.fail("aborted", error, time.perf_counter_ns())
        except LabError as error:
            log.fail("error", error, time.perf_counter_ns())

    async def prompt_tokens(self, prompt: str) -> int | None:
        """Return the provider's count, or None."""
        return await self._provider.count_tokens(self._address.model, [Message("user", prompt)])

    async def describe(self) -> dict[str, Any]:
        """Return what the provider's list says of the model."""
        about: dict[str, Any] = {"server": f"provider {self._provider.name}", "model": self._address.model}
        with contextlib.suppress(LabError):
            about["context_tokens"] = await self._provider.context_tokens(self._address.model)
            listed = {one.name: one for one in await self._provider.models()}
            if found := listed.get(self._address.model):
                about["size_bytes"] = found.size_bytes
        return {name: value for name, value in about.items() if value is not None}

    async def cold_load(self) -> float | None:
        """Return None: providers have no word for it."""
        return None

    def process_ids(self) -> list[int]:
        """Return nothing: it runs in the measuring process."""
        return []

    async def close(self) -> None:
        """Close the provider."""
        await self._providers.close()

    async def _read(self, request: ChatRequest, log: AnswerLog) -> None:
        async with asyncio.timeout(self._timeout_seconds) as silence:
            async with contextlib.aclosing(self._provider.stream(request)) as chunks:
                async for chunk in chunks:
                    at_ns = time.perf_counter_ns()
                    silence.reschedule(asyncio.get_running_loop().time() + self._timeout_seconds)
                    if chunk.text or chunk.reasoning or chunk.tool_calls:
                        text = chunk.reasoning + chunk.text + (str(chunk.tool_calls) if chunk.tool_calls else "")
                        is_reasoning = not (chunk.text or chunk.tool_calls)
                        log.add(at_ns, text, is_reasoning=is_reasoning)
                        for _ in range(1, chunk.pieces):  # sent apart, they arrived together
                            log.add(at_ns, "", is_reasoning=is_reasoning)
                    _take(chunk, log)
        if not log.is_whole:
            raise StreamBroken(f"The answer of {self._provider.name} ended without its end marker.")
        log.end(time.perf_counter_ns())


def _take(chunk: Chunk, log: AnswerLog) -> None:
    """Write what a chunk says about the whole answer into the record."""
    record = log.record
    if chunk.finish_reason:
        record.finish_reason, log.is_whole = chunk.finish_reason, True
    if chunk.usage:
        record.prompt_tokens, record.cached_tokens = chunk.usage.prompt_tokens, chunk.usage.cached_tokens
        log.completion_tokens = chunk.usage.completion_tokens
    if chunk.timings:
        record.raw_timings = dict(chunk.timings)
        record.server_ms = {ours: chunk.timings[name] for ours, name in _TIMINGS if name in chunk.timings}
    for warning in chunk.warnings:
        log.note(warning)
