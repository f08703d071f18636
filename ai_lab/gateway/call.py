"""One request on its way through the gateway, and the two interfaces that its policies have."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from ai_lab.costs.schemas import Charge
from ai_lab.errors import LabError
from ai_lab.providers import ChatRequest, Chunk, ResolvedModel, Usage

Source = Literal["chat", "openai", "replay"]
#: ``off``: there is no cache; ``bypass``: it was not wanted or the request is of a kind that is never stored; ``miss``;
#: ``hit``; ``semantic``: the answer to another question that says the same; ``joined``: an identical request was being
#: answered, and both got that answer.
CacheDecision = Literal["off", "bypass", "miss", "hit", "semantic", "joined"]
#: ``refused``: it was never sent, because of a breaker, a limit or a budget.
Outcome = Literal["ok", "failed", "cancelled", "refused"]
#: Makes the request for one of the models. ``shrink`` is 0 first and grows where that model found the prompt too long;
#: it raises ``ContextOverflow`` where nothing more can be left out.
MakeRequest = Callable[[ResolvedModel, int], Awaitable[ChatRequest]]


@dataclass(frozen=True, slots=True)
class Route:
    """What the model's name of a request means: one model, or those of an alias in the order in which they are tried.

    ``warnings`` name models of the alias that cannot be asked now.
    """

    asked: str | None
    alias: str | None
    models: tuple[ResolvedModel, ...]
    warnings: tuple[str, ...] = ()

    @property
    def first(self) -> ResolvedModel:
        """The model that is tried first."""
        return self.models[0]


@dataclass(frozen=True, slots=True)
class TraceParent:
    """W3C trace context of the caller: trace id (32 hex digits), its span (16), and whether it samples."""

    trace_id: str
    span_id: str
    is_sampled: bool


@dataclass(slots=True)
class Attempt:
    """One try at one model. Times are milliseconds since the call began; None as long as it goes on."""

    number: int
    id: str
    provider: str
    model: str
    is_local: bool
    started_ms: float
    first_token_ms: float | None = None
    ended_ms: float | None = None
    outcome: Outcome | None = None
    error: LabError | None = None
    usage: Usage | None = None
    #: Of what came, tool calls included.
    characters: int = 0
    charge: Charge | None = None


@dataclass(slots=True)
class Call:
    """One request and what became of it; the policies write down here what they do.

    Attributes:
        make_request: see ``MakeRequest``; the policies use ``request_for``.
        deadline: by ``asyncio``'s clock (``loop.time()``); nothing goes on after it.
        texts: to embed; None: a chat.
        answered_by: the model whose answer it is, as soon as the first piece is there.
        warnings: what the user should know: another model answered, a soft limit is passed.
    """

    id: str
    route: Route
    make_request: MakeRequest
    source: Source
    started_at: datetime
    started_ms: float
    deadline: float
    use_cache: bool = True
    local_only: bool = False
    texts: tuple[str, ...] | None = None
    request_id: str | None = None
    session_id: str | None = None
    message_id: str | None = None
    trace_parent: TraceParent | None = None
    attempts: list[Attempt] = field(default_factory=list)
    answered_by: ResolvedModel | None = None
    cache: CacheDecision = "off"
    cache_key: str | None = None
    similarity: float | None = None
    original_question: str | None = None
    warnings: list[str] = field(default_factory=list)
    _made: dict[str, tuple[int, ChatRequest]] = field(default_factory=dict, init=False)

    async def request_for(self, model: ResolvedModel, shrink: int = 0) -> ChatRequest:
        """Return what a model is asked, made by ``make_request`` once for each shrink; raises as that does."""
        made = self._made.get(model.full_name)
        if made is None or made[0] != shrink:
            made = (shrink, await self.make_request(model, shrink))
            self._made.pop(model.full_name, None)
            self._made[model.full_name] = made  # the newest one stands last
        return made[1]

    def last_request(self, model: ResolvedModel | None = None) -> ChatRequest | None:
        """Return what ``model`` was asked last (None: any of them); None: nothing."""
        if model is not None:
            return made[1] if (made := self._made.get(model.full_name)) else None
        return next(reversed(self._made.values()))[1] if self._made else None

    @property
    def sent_attempts(self) -> int:
        """How many attempts went out; what a breaker, a limit or a budget refused was never sent."""
        return sum(attempt.outcome != "refused" for attempt in self.attempts)

    @property
    def cost_nanousd(self) -> int | None:
        """What all attempts cost together; None where that of any that was sent is not known."""
        costs = [
            attempt.charge and attempt.charge.cost_nanousd for attempt in self.attempts if attempt.outcome != "refused"
        ]
        return None if None in costs else sum(cost for cost in costs if cost)


def begins(chunk: Chunk) -> bool:
    """Return whether an answer has begun with this piece; from then on nothing is tried again."""
    return bool(chunk.text or chunk.reasoning or chunk.tool_calls or chunk.finish_reason or chunk.vectors is not None)


def length(chunk: Chunk) -> int:
    """Return how many characters a piece has, those of tool calls included."""
    called = len(str(chunk.tool_calls)) if chunk.tool_calls else 0
    return len(chunk.text) + len(chunk.reasoning) + called


class Door(Protocol):
    """A policy about the whole call: trace, cache, fallback."""

    def stream(self, call: Call) -> AsyncGenerator[Chunk, None]:
        """Yield the answer; closing the generator stops the work upstream."""
        ...


class Line(Protocol):
    """A policy about one model of it: budget, retry, limit, breaker, and at the end the provider itself.

    An embedding is a stream of one chunk, which has ``vectors``.
    """

    def stream(self, call: Call, model: ResolvedModel, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """Yield the answer of ``model``; closing the generator stops the work upstream."""
        ...
