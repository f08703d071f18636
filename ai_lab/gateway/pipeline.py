"""The order of the gateway's policies: trace( cache( fallback[ budget( retry( limit( breaker( model ))))])).

A stored answer costs nothing, so that no budget refuses it. What is asked of whom is known inside the fallback only.
Each attempt counts for the breaker and takes a place in the service's queue, so that both lie inside the retry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ai_lab.cache import AnswerCache
from ai_lab.costs import Costs
from ai_lab.gateway.ask import Ask
from ai_lab.gateway.breaker import Breaker
from ai_lab.gateway.breakers import Breakers
from ai_lab.gateway.budget import Budget
from ai_lab.gateway.caching import Caching
from ai_lab.gateway.call import Door, Line
from ai_lab.gateway.fallback import Fallback, Watching
from ai_lab.gateway.limit import Limit
from ai_lab.gateway.pace import Pace
from ai_lab.gateway.queues import ServiceQueue
from ai_lab.gateway.retry import Retry
from ai_lab.gateway.tracing import Tracing
from ai_lab.settings import Settings
from ai_lab.traces import Traces


class Observer(Watching, Protocol):
    """What is told of what the gateway does."""

    def retry(self, provider: str, error_code: str) -> None:
        """Take note of a request that is sent again."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the policies keep their state in."""

    breakers: Breakers
    queue: ServiceQueue
    cache: AnswerCache
    costs: Costs
    traces: Traces


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The way of a call from its request to the model.

    Args:
        door: its beginning.
        caching: to be closed.
    """

    door: Door
    caching: Caching

    @classmethod
    def of(cls, settings: Settings, parts: Parts, *, pace: Pace, observe: Observer) -> Pipeline:
        """Put the policies around the model, the innermost first."""
        line: Line = Ask(pace)
        line = Breaker(line, parts.breakers)
        line = Limit(line, parts.queue)
        line = Retry(
            line, attempts=settings.retry_attempts, wait_seconds=settings.retry_wait_seconds, observe=observe.retry
        )
        line = Budget(line, parts.costs)
        caching = Caching(Fallback(line, observe), parts.cache)
        return cls(door=Tracing(caching, parts.traces), caching=caching)
