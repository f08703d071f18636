"""Ask whether there is money left before a model is asked, and charge every attempt that reached it."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from datetime import timedelta

from ai_lab.clock import monotonic_ms
from ai_lab.costs import Attempted, Costs
from ai_lab.errors import ProviderTimeout, StreamBroken
from ai_lab.gateway.call import Attempt, Call, Line
from ai_lab.gateway.limit import BYTES_PER_TOKEN, prompt_tokens
from ai_lab.providers import ChatRequest, Chunk, ResolvedModel, Usage

#: After these the service may have made tokens that nobody has told us of.
_MAY_BE_OWED = (ProviderTimeout, StreamBroken)


class Budget:
    """Money before and after.

    A cost is known before the last chunk goes on its way, so that the answer can tell it.

    Args:
        line: asks one model, maybe several times.
        costs: has budgets and prices.
    """

    def __init__(self, line: Line, costs: Costs) -> None:
        self._line = line
        self._costs = costs
        self._local = LocalLoad()

    async def stream(self, call: Call, model: ResolvedModel, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """Yield the answer.

        Raises:
            BudgetExceeded: a hard limit is reached; the model was not asked.
            PriceUnknown: one holds, and nobody knows what the model costs; it was not asked.
        """
        warnings = await self._costs.admit(model.provider.name, model.model, is_local=model.is_local)
        call.warnings += [warning for warning in warnings if warning not in call.warnings]
        first = len(call.attempts)
        with self._local.during(is_local=model.is_local) as load:
            try:
                async with aclosing(self._line.stream(call, model, request)) as chunks:
                    async for chunk in chunks:
                        if chunk.finish_reason is not None:
                            await self._charge(call, request, first, load)
                        yield chunk
            finally:
                await self._charge(call, request, first, load)

    async def _charge(self, call: Call, request: ChatRequest, first: int, load: LoadMeter) -> None:
        """Charge the attempts from ``first`` on that are not yet charged."""
        for attempt in call.attempts[first:]:
            if attempt.charge is None and attempt.outcome != "refused":
                attempted = _attempted(call, attempt, load.mean())
                if attempted.usage is None and attempted.is_answered:
                    attempted = replace(attempted, estimate=_estimate(call, request, attempt))
                attempt.charge = await self._costs.charge(attempted)


class LoadMeter:
    """How many answers of models on this machine were in the making, on the mean, since it was made."""

    def __init__(self, load: LocalLoad) -> None:
        self._load = load
        self._began = time.monotonic()
        self._began_share = load.share()

    def mean(self) -> float:
        """Return the harmonic mean, so that all shares of the machine's power add up to what it drew."""
        share = self._load.share() - self._began_share
        seconds = time.monotonic() - self._began
        return max(1.0, seconds / share) if share > 0 else 1.0


class LocalLoad:
    """Counts answers of models on this machine that are in the making."""

    def __init__(self) -> None:
        self._count = 0
        self._share = 0.0
        self._since = time.monotonic()

    def share(self) -> float:
        """Return the integral of 1 / (answers in the making) over time, in seconds."""
        at = time.monotonic()
        if self._count:
            self._share += (at - self._since) / self._count
        self._since = at
        return self._share

    @contextmanager
    def during(self, *, is_local: bool) -> Iterator[LoadMeter]:
        """Count an answer, if it is made on this machine, as long as the block runs."""
        meter = LoadMeter(self)
        self._count += is_local
        try:
            yield meter
        finally:
            self.share()
            self._count -= is_local


def _attempted(call: Call, attempt: Attempt, local_load: float) -> Attempted:
    ended_ms = attempt.ended_ms if attempt.ended_ms is not None else monotonic_ms() - call.started_ms
    return Attempted(
        id=attempt.id,
        call_id=call.id,
        at=call.started_at + timedelta(milliseconds=attempt.started_ms),
        source=call.source,
        service=attempt.provider,
        model=attempt.model,
        alias=call.route.alias,
        session_id=call.session_id,
        is_local=attempt.is_local,
        outcome=attempt.outcome or "cancelled",
        usage=_usage(call, attempt),
        total_ms=max(0.0, ended_ms - attempt.started_ms),
        local_load=local_load,
        is_answered=not _is_free(attempt),
    )


def _estimate(call: Call, request: ChatRequest, attempt: Attempt) -> Usage:
    """Return about how many tokens an answer had when it was cut: services bill what was made, and tell it at the end.

    Without it, whoever always hangs up in mid-answer would never come to the end of a budget.
    """
    return Usage(prompt_tokens(call, request), attempt.characters // BYTES_PER_TOKEN)


def _usage(call: Call, attempt: Attempt) -> Usage | None:
    """Return the tokens of an attempt; vectors are no tokens, so that an embedding has none that come out."""
    usage = attempt.usage
    if usage is not None and usage.completion_tokens is None and call.texts is not None:
        return replace(usage, completion_tokens=0)
    return usage


def _is_free(attempt: Attempt) -> bool:
    """Return whether nothing is owed: the service was not reached, or answered with an error instead of tokens."""
    has_tokens = attempt.first_token_ms is not None or attempt.usage is not None
    return not has_tokens and attempt.error is not None and not isinstance(attempt.error, _MAY_BE_OWED)
