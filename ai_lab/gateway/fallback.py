"""Ask the models of a route in turn until one answers, each with a prompt that fits it, within the call's time."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from ai_lab.errors import (
    AddressRefused,
    ApiKeyNotFound,
    ApiKeyRefused,
    ApiKeyUnusable,
    BudgetExceeded,
    ContextOverflow,
    DeadlineExceeded,
    LabError,
    ModelNotFound,
    ProviderError,
    ProviderRefused,
    UnsupportedFeature,
    VaultSealed,
)
from ai_lab.gateway.ask import deadline_exceeded
from ai_lab.gateway.call import Call, Line, begins
from ai_lab.gateway.deadline import Deadline
from ai_lab.gateway.refusals import note_refusal
from ai_lab.logging import redact_text
from ai_lab.providers import Chunk, ResolvedModel

#: How often one model is asked with a shorter prompt, because it found the one before too long.
_SHRINK_TIMES = 3
#: Another model may well answer after these.
_PASSED_ON = (
    ProviderError,
    AddressRefused,
    ApiKeyNotFound,
    ApiKeyRefused,
    ApiKeyUnusable,
    BudgetExceeded,
    ContextOverflow,
    ModelNotFound,
    UnsupportedFeature,
    VaultSealed,
)
#: Of them, those that every model would end with: the request itself is refused, or there is no time left.
_SAME_EVERYWHERE = (ProviderRefused, DeadlineExceeded)
_SHOWN_REASON = 300


class Watching(Protocol):
    """What is told of changes and costs."""

    def fallback(self, from_provider: str, to_provider: str) -> None:
        """Take note of a request that is passed on to another model."""

    def cost(self, provider: str, model: str, cost_nanousd: int | None) -> None:
        """Take note of what an attempt cost; None: not known."""

    def budget_refusal(self, provider: str) -> None:
        """Take note of a request that a budget refused."""


class Fallback:
    """The models of a route behind one stream.

    Args:
        line: asks one model.
        observe: is told of each change of the model, and of what attempts cost.
    """

    def __init__(self, line: Line, observe: Watching) -> None:
        self._line = line
        self._observe = observe

    async def stream(self, call: Call) -> AsyncGenerator[Chunk, None]:
        """Yield the answer of the first model that begins one.

        Raises:
            LabError: of the first model, where none answered; its text says what became of the others.
        """
        failures: list[tuple[ResolvedModel, LabError]] = []
        with Deadline(call.deadline) as deadline:
            try:
                for model in call.route.models:
                    if failures:
                        self._observe.fallback(failures[-1][0].provider.name, model.provider.name)
                    call.answered_by = None
                    try:
                        async with aclosing(self._ask(call, model, deadline)) as chunks:
                            async for chunk in chunks:
                                if call.answered_by is None and begins(chunk):
                                    call.answered_by = model
                                    call.warnings += _said(failures, model)
                                yield chunk
                    except _PASSED_ON as error:
                        if call.answered_by is not None:
                            raise
                        self._write_down(call, model, error)
                        if isinstance(error, _SAME_EVERYWHERE):
                            raise
                        failures.append((model, error))
                    else:
                        return
            finally:
                for attempt in call.attempts:
                    if attempt.charge:
                        name = redact_text(attempt.model)  # a key in the wrong place is shown nowhere
                        self._observe.cost(attempt.provider, name, attempt.charge.cost_nanousd)
        first = failures[0][1]
        if len(failures) == 1:
            raise first
        raise _with_the_others(failures) from first

    def _write_down(self, call: Call, model: ResolvedModel, error: LabError) -> None:
        """Note an error that came of no attempt: there was no money or key for it, or the model cannot do it."""
        if isinstance(error, BudgetExceeded):
            self._observe.budget_refusal(model.provider.name)
        if not _is_written_down(call, error):
            note_refusal(call, model, error)

    async def _ask(self, call: Call, model: ResolvedModel, deadline: Deadline) -> AsyncGenerator[Chunk, None]:
        """Yield the answer of one model, asked with less of the conversation where it finds that too long."""
        overflow: ContextOverflow | None = None
        for shrink in range(_SHRINK_TIMES + 1):
            has_begun = False
            try:
                try:
                    request = await deadline.within(call.request_for(model, shrink))
                except ContextOverflow:
                    if overflow is None:
                        raise
                    raise overflow from None  # the model's own words
                async with aclosing(self._line.stream(call, model, request)) as chunks:
                    while True:
                        try:
                            chunk = await deadline.within(anext(chunks))
                        except StopAsyncIteration:
                            return
                        has_begun = has_begun or begins(chunk)
                        yield chunk
            except TimeoutError:
                raise deadline_exceeded(model) from None
            except ContextOverflow as error:
                if has_begun or error is overflow or shrink == _SHRINK_TIMES:
                    raise
                if overflow is None and not _is_written_down(call, error):
                    raise
                overflow = error


def _is_written_down(call: Call, error: LabError) -> bool:
    return any(attempt.error is error for attempt in call.attempts)


def _said(failures: list[tuple[ResolvedModel, LabError]], model: ResolvedModel) -> list[str]:
    """Return what the user is told about the models that failed before this one answered."""
    if not failures:
        return []
    failed = ", ".join(f"{one.full_name} ({error.title[:1].lower()}{error.title[1:]})" for one, error in failures)
    return [f"{failed} did not answer: {model.full_name} did."]


def _with_the_others(failures: list[tuple[ResolvedModel, LabError]]) -> LabError:
    """Return the first model's error with what became of the others in its text."""
    (first, _), *others = failures
    error = copy.copy(failures[0][1])
    told = " ".join(f"{model.full_name}: {_shortened(other.detail)}" for model, other in others)
    error.detail = f"{first.full_name}: {error.detail} The others did not answer either. {told}"
    error.args = (error.detail,)
    return error


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_REASON else f"{text[:_SHOWN_REASON]}…"
