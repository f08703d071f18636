"""Chat turns: save the question, ask the model, save the answer as it grows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID, uuid5

from ai_lab.chat.context import newest_system
from ai_lab.chat.prompt import TurnPrompt
from ai_lab.chat.report import stored_answer
from ai_lab.chat.schemas import Answer, NewTurn
from ai_lab.chat.turn import Turn
from ai_lab.clock import new_id
from ai_lab.conversations import Conversations, Message
from ai_lab.errors import ServerStopping, TurnInProgress
from ai_lab.gateway import Call, Gateway, Route, TraceParent

_SESSIONS = UUID("6f1d9a52-6c0e-4c57-9a39-3c1f0d7f4c11")
#: A context of n tokens cannot hold more than n / 20 messages worth sending.
_TOKENS_PER_MESSAGE = 20
_HISTORY_WITHOUT_LIMIT = 1000
_LEAST_HISTORY = 50
#: A service that does not tell its models' contexts in this time keeps nobody from asking it.
_CONTEXT_PATIENCE_SECONDS = 2.0
_STOP_SECONDS = 5.0


class Chat:
    """Runs turns, each in a task of its own, and ends them in order when the lab closes."""

    def __init__(
        self,
        conversations: Conversations,
        gateway: Gateway,
        writer_id: str,
        observe: Callable[[str, float], None] | None = None,
    ) -> None:
        self._observe = observe
        self._conversations = conversations
        self._gateway = gateway
        self._writer_id = writer_id
        self._running: dict[Turn, asyncio.Task[None]] = {}
        self._stopping = False

    async def start(
        self, new: NewTurn, idempotency_key: str | None = None, *, trace_parent: TraceParent | None = None
    ) -> Turn | Answer:
        """Save the user's message and start to answer it.

        Returns a running turn, or the finished answer where the same Idempotency-Key got one before.

        Raises:
            ModelNotFound: no provider has the model; nothing was saved.
            LocalOnly: the conversation must stay on this machine, and the model is elsewhere; nothing was saved.
            TurnInProgress: a turn with this key is being answered at this moment.
            DatabaseUnavailable: the message could not be saved; the model was not asked.
        """
        if self._stopping:
            raise ServerStopping("The server is stopping. Send the message again in a moment.", retry_after_seconds=5)
        route = await self._gateway.route(new.model, local_only=new.local_only)
        # Where we choose the id, a repeated key must lead to the same conversation again.
        session_id = new.session_id or (str(uuid5(_SESSIONS, idempotency_key)) if idempotency_key else new_id())
        history = await self._conversations.prompt_history(session_id, before=None, limit=await _worth_reading(route))
        local_only = new.local_only or history.local_only
        if local_only and not new.local_only:
            route = await self._gateway.route(new.model, local_only=True)
        # As far as is known now; another model of an alias may be the one that answers.
        columns = {
            "model": route.first.model,
            "provider": route.first.provider.name,
            "writer_id": self._writer_id,
        }
        started = await self._conversations.start_turn(
            session_id,
            new.message,
            system=None if new.system == newest_system(history.rows) else new.system,
            answer=columns,
            idempotency_key=idempotency_key,
            local_only=new.local_only,
        )
        rows, opened = history.rows, started.answer
        if started.is_repeat:
            if opened is not None and opened.status == "streaming":
                raise TurnInProgress("This turn is still being answered. Ask again in a moment.", retry_after_seconds=2)
            if opened is not None and opened.finish_reason:
                return stored_answer(opened)
            opened = await self._conversations.open_answer(started.question, columns, instead_of=opened)
            rows = [row for row in rows if row["sequence"] < started.question.sequence]
        assert opened is not None  # noqa: S101 - start_turn opens one unless it is a repeat
        prompt = TurnPrompt(new, rows)
        call = self._gateway.begin(
            route,
            prompt.request,
            source="chat",
            use_cache=new.use_cache,
            local_only=local_only,
            session_id=session_id,
            message_id=opened.message_id,
            trace_parent=trace_parent,
        )
        return self._run(opened, call, prompt)

    async def answer(self, new: NewTurn, idempotency_key: str | None = None) -> Answer:
        """Run a whole turn and return the answer."""
        turn = await self.start(new, idempotency_key)
        return turn if isinstance(turn, Answer) else await turn.result()

    @property
    def running(self) -> int:
        """Return how many answers are in the making."""
        return len(self._running)

    @property
    def is_stopping(self) -> bool:
        """Return whether no turn is begun any more."""
        return self._stopping

    async def close(self) -> None:
        """End every running answer as interrupted and wait until they are saved."""
        self._stopping = True
        for turn in self._running:
            turn.cancel(stopping=True)
        if self._running:
            _, unsaved = await asyncio.wait(set(self._running.values()), timeout=_STOP_SECONDS)
            for task in unsaved:
                task.cancel()
            if unsaved:
                await asyncio.wait(unsaved)

    def _run(self, opened: Message, call: Call, prompt: TurnPrompt) -> Turn:
        turn = Turn(self._conversations, opened, call, prompt, self._gateway.stream(call), observe=self._observe)
        task = asyncio.create_task(turn.run())
        self._running[turn] = task
        task.add_done_callback(lambda task: self._ended(turn, task))
        if self._stopping:  # the stop came while the message was being saved
            turn.cancel(stopping=True)
        return turn

    def _ended(self, turn: Turn, task: asyncio.Task[None]) -> None:
        self._running.pop(turn, None)
        turn.give_up(None if task.cancelled() else task.exception())


async def _worth_reading(route: Route) -> int:
    """Return how many messages of a conversation can be of use to the models of a route."""
    if len(route.models) > 1:
        return _HISTORY_WITHOUT_LIMIT
    context_tokens = None
    with suppress(TimeoutError):
        async with asyncio.timeout(_CONTEXT_PATIENCE_SECONDS):
            context_tokens = await route.first.provider.context_tokens(route.first.model)
    return max(_LEAST_HISTORY, context_tokens // _TOKENS_PER_MESSAGE) if context_tokens else _HISTORY_WITHOUT_LIMIT
