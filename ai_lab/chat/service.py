"""Chat turns: save the question, ask the model, save the answer as it grows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any
from uuid import UUID, uuid5

from ai_lab.chat.context import candidates, fit, newest_system
from ai_lab.chat.schemas import Answer, ContextReport, NewTurn
from ai_lab.chat.turn import Turn
from ai_lab.clock import new_id
from ai_lab.conversations import Conversations, Message
from ai_lab.errors import ContextOverflow, InvalidRequest, ServerStopping, TurnInProgress
from ai_lab.providers import ChatRequest, Chunk, Providers, ResolvedModel
from ai_lab.providers import Message as PromptMessage

_SESSIONS = UUID("6f1d9a52-6c0e-4c57-9a39-3c1f0d7f4c11")
#: A context of n tokens cannot hold more than n / 20 messages worth sending.
_TOKENS_PER_MESSAGE = 20
_HISTORY_WITHOUT_LIMIT = 1000
_SHRINK_ATTEMPTS = 3
_STOP_SECONDS = 5.0


class Chat:
    """Runs turns, each in a task of its own, and ends them in order when the lab closes."""

    def __init__(
        self,
        conversations: Conversations,
        providers: Providers,
        writer_id: str,
        observe: Callable[[str, float], None] | None = None,
    ) -> None:
        self._observe = observe
        self._conversations = conversations
        self._providers = providers
        self._writer_id = writer_id
        self._running: dict[Turn, asyncio.Task[None]] = {}
        self._stopping = False

    async def start(self, new: NewTurn, idempotency_key: str | None = None) -> Turn | Answer:
        """Save the user's message and start to answer it.

        Returns a running turn, or the finished answer where the same Idempotency-Key got one before.

        Raises:
            ModelNotFound: no provider has the model; nothing was saved.
            InvalidRequest: local_only and the model is not on this machine; nothing was saved.
            TurnInProgress: a turn with this key is being answered at this moment.
            DatabaseUnavailable: the message could not be saved; the model was not asked.
        """
        if self._stopping:
            raise ServerStopping("The server is stopping. Send the message again in a moment.", retry_after_seconds=5)
        model = await self._providers.resolve(new.model)
        context_tokens = await model.provider.context_tokens(model.model)
        # Where we choose the id, a repeated key must lead to the same conversation again.
        session_id = new.session_id or (str(uuid5(_SESSIONS, idempotency_key)) if idempotency_key else new_id())
        limit = max(50, context_tokens // _TOKENS_PER_MESSAGE) if context_tokens else _HISTORY_WITHOUT_LIMIT
        history = await self._conversations.prompt_history(session_id, before=None, limit=limit)
        if (new.local_only or history.local_only) and not model.is_local:
            raise InvalidRequest(
                f"This conversation is marked local-only and {model.full_name} is not on this machine. "
                "Choose a local model; GET /v1/models lists them.",
                param="model",
            )
        columns = {"model": model.model, "provider": model.provider.name, "writer_id": self._writer_id}
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
        return self._run(opened, model, new, rows, context_tokens)

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

    def _run(
        self, opened: Message, model: ResolvedModel, new: NewTurn, rows: list[dict[str, Any]], tokens: int | None
    ) -> Turn:
        def chunks(turn: Turn) -> AsyncGenerator[Chunk, None]:
            return _ask(turn, model, new, rows, tokens)

        turn = Turn(self._conversations, opened, chunks, [], self._observe)
        task = asyncio.create_task(turn.run())
        self._running[turn] = task
        task.add_done_callback(lambda task: self._ended(turn, task))
        if self._stopping:  # the stop came while the message was being saved
            turn.cancel(stopping=True)
        return turn

    def _ended(self, turn: Turn, task: asyncio.Task[None]) -> None:
        self._running.pop(turn, None)
        turn.give_up(None if task.cancelled() else task.exception())


async def _ask(
    turn: Turn, model: ResolvedModel, new: NewTurn, rows: list[dict[str, Any]], context_tokens: int | None
) -> AsyncGenerator[Chunk, None]:
    """Yield the answer. Where the model's server finds the prompt too long after all, leave out more and ask again."""
    options = new.options.given()
    system, past = candidates(rows, new.system)
    question = PromptMessage("user", new.message)
    # Older than what was read at all; system messages are read however old they are.
    first = next((place for place, row in enumerate(rows) if row["role"] != "system"), None)
    hidden = 0 if first is None else rows[first]["sequence"] - 1 - first
    for attempt in range(_SHRINK_ATTEMPTS):
        prompt = await fit(
            model,
            system,
            past,
            question,
            context_tokens=context_tokens,
            max_tokens=options.get("max_tokens"),
            shrink=2**attempt,
        )
        trimmed = prompt.trimmed + hidden
        turn.context = ContextReport(context_tokens=context_tokens, trimmed_messages=trimmed)
        request = ChatRequest(model.model, prompt.messages, options)
        said_something = False
        try:
            async with aclosing(model.stream(request)) as stream:
                if trimmed:
                    turn.warnings[:] = [
                        f"The {trimmed} oldest messages did not fit the model's context; it was not shown them."
                    ]
                async for chunk in stream:
                    said_something = True
                    yield chunk
        except ContextOverflow:
            if said_something or prompt.trimmed == len(past) or attempt == _SHRINK_ATTEMPTS - 1:
                raise
        else:
            return


def stored_answer(message: Message) -> Answer:
    """Return a saved answer in the shape of a fresh one."""
    return Answer(
        response=message.content,
        session_id=message.session_id,
        message_id=message.message_id,
        model=f"{message.provider}/{message.model}",
        provider=message.provider or "",
        usage=message.usage,
        timings=message.timings,
        thought_process=message.thought_process,
        finish_reason=message.finish_reason,
    )
