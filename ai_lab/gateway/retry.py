"""Ask a model again that failed before it had begun to answer.

A loop of our own: it must keep the call's one deadline, know that a stream has begun, and cost nothing where all goes
well.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from itertools import count

from ai_lab.errors import (
    BreakerOpen,
    DeadlineExceeded,
    LabError,
    ProviderError,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderTimeout,
    ProviderUnavailable,
    ServiceLimited,
    StreamBroken,
)
from ai_lab.gateway.breaker_record import LONGEST_RETRY_WAIT_SECONDS
from ai_lab.gateway.call import Call, Line, begins
from ai_lab.providers import ChatRequest, Chunk, ResolvedModel

_PASSING = (ProviderUnavailable, ProviderTimeout, ProviderRateLimited, StreamBroken)
_LASTING = (BreakerOpen, DeadlineExceeded, ProviderQuotaExceeded, ServiceLimited)


class Retry:
    """Asks up to ``attempts`` times, with pauses that double from ``wait_seconds`` and vary by half.

    Args:
        line: asks once.
        attempts: at most, the first one included.
        wait_seconds: before the second one.
        observe: is told of each further attempt: the provider, and the code of the error before it.
    """

    def __init__(self, line: Line, *, attempts: int, wait_seconds: float, observe: Callable[[str, str], None]) -> None:
        self._line = line
        self._attempts = attempts
        self._wait_seconds = wait_seconds
        self._observe = observe

    async def stream(self, call: Call, model: ResolvedModel, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """Yield the answer. Raises the last error of the model where it does not come."""
        before: LabError | None = None
        for number in count(1):
            has_begun = False
            try:
                async with aclosing(self._line.stream(call, model, request)) as chunks:
                    async for chunk in chunks:
                        has_begun = has_begun or begins(chunk)
                        yield chunk
            except BreakerOpen as error:
                raise before or error from None  # it opened meanwhile: what the model said tells more
            except LabError as error:
                if has_begun or number == self._attempts:
                    raise
                wait_seconds = self._pause(error, number)
                left_seconds = call.deadline - asyncio.get_running_loop().time()
                if wait_seconds is None or wait_seconds >= left_seconds:
                    raise
                before = error
                self._observe(model.provider.name, error.code)
            else:
                return
            await asyncio.sleep(wait_seconds)

    def _pause(self, error: LabError, number: int) -> float | None:
        """Return the seconds to wait after failure ``number``, or None where it does not help to ask again."""
        # The class itself: what its subclasses mean is said above, and many of them do not pass.
        passes = isinstance(error, _PASSING) or type(error) is ProviderError
        if not passes or isinstance(error, _LASTING):
            return None
        asked_seconds = error.retry_after_seconds or 0.0
        if asked_seconds > LONGEST_RETRY_WAIT_SECONDS:
            return None
        varied = self._wait_seconds * 2.0 ** (number - 1) * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
        return max(asked_seconds, min(varied, LONGEST_RETRY_WAIT_SECONDS))
