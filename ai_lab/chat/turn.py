"""An answer in the making: it grows in a task of its own, so that it is saved whatever becomes of the client."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

from ai_lab.chat.prompt import TurnPrompt
from ai_lab.chat.report import columns, of_call
from ai_lab.chat.schemas import Answer, Delta
from ai_lab.clock import monotonic_ms
from ai_lab.conversations import Conversations, Message
from ai_lab.errors import ConversationNotFound, DatabaseUnavailable, LabError, ServerStopping, StreamBroken
from ai_lab.gateway import Call
from ai_lab.providers import Chunk

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_AHEAD_CHUNKS = 16
_FLUSH_SECONDS = 0.5
_SAVE_AGAIN_SECONDS = (0.5, 1, 2, 5)

EndStatus = Literal["complete", "incomplete", "interrupted", "failed"]
logger = logging.getLogger(__name__)


class Turn:
    """One answer. ``run`` makes it; ``deltas`` shows it growing; ``result`` is the whole of it.

    Args:
        message: the open answer's row.
        call: what is asked, and of whom.
        prompt: makes the requests of the call.
        chunks: the call's stream, not begun.
        observe: is told how the answer ended (its status) and after how many seconds.
    """

    def __init__(
        self,
        conversations: Conversations,
        message: Message,
        call: Call,
        prompt: TurnPrompt,
        chunks: AsyncGenerator[Chunk, None],
        *,
        observe: Callable[[str, float], None] | None = None,
    ) -> None:
        self._observe = observe
        self.message = message
        self.call = call
        self._prompt = prompt
        self._conversations = conversations
        self._chunks = chunks
        self._text: list[str] = []
        self._thoughts: list[str] = []
        self._last: Chunk | None = None
        self._first_token_ms: float | None = None
        self._pending: list[Chunk] = []
        self._grown = asyncio.Event()
        self._outcome: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._outcome.add_done_callback(_retrieve)
        self._started_ms = monotonic_ms()
        self._generating = asyncio.create_task(self._generate())
        # Not at the end of the task itself: one that is cancelled before its first step never gets there.
        self._generating.add_done_callback(lambda _: self._grown.set())
        self._end_if_cancelled: Literal["incomplete", "interrupted"] = "incomplete"

    async def run(self) -> None:
        """Make the answer and save it, to its end or as far as it came. Raises nothing; see ``result``."""
        flushing = asyncio.create_task(self._flush_regularly())
        await asyncio.wait({self._generating})
        flushing.cancel()
        await asyncio.wait({flushing})
        error = self._error()
        status: EndStatus = "complete"
        if self._generating.cancelled():
            status = self._end_if_cancelled
        elif error is not None:
            status = "failed"
        elif self._last is not None and self._last.finish_reason == "length":
            status = "incomplete"
        total_ms = monotonic_ms() - self._started_ms
        if self._observe:
            self._observe(status, total_ms / 1000)
        await self._save_end(status, error, total_ms)

    def cancel(self, *, stopping: bool = False) -> None:
        """Stop the model; what it said so far is kept as incomplete, or interrupted where the server is stopping."""
        self._end_if_cancelled = "interrupted" if stopping else "incomplete"
        if not self._generating.cancelling():  # a second one would break off the closing of the model's connection
            self._generating.cancel()

    def give_up(self, error: BaseException | None) -> None:
        """Let nobody wait for a result that will not come; does nothing once there is one."""
        if error is not None:
            logger.error("answer %s could not be saved", self.message.message_id, exc_info=error)
        self._fail(LabError("The answer could not be saved. The log has the details."))

    async def result(self) -> Answer:
        """Return the whole answer once it is saved. Raises what went wrong."""
        return await asyncio.shield(self._outcome)

    async def begin(self, within_seconds: float) -> None:
        """Wait for the first piece or the end, at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_seconds):
                await self._grown.wait()

    async def deltas(self) -> AsyncIterator[Delta]:
        """Yield the pieces as they come; a slow reader gets several in one. Ends before the end is saved."""
        sequence = 0
        while True:
            await self._grown.wait()
            self._grown.clear()
            chunks, self._pending = self._pending, []
            if chunks:
                sequence += 1
                thought = "".join(chunk.reasoning for chunk in chunks)
                yield Delta(
                    sequence=sequence,
                    session_id=self.message.session_id,
                    message_id=self.message.message_id,
                    delta="".join(chunk.text for chunk in chunks),
                    thought_process_delta=thought or None,
                )
            if self._generating.done() and not self._pending:
                return

    async def _generate(self) -> None:
        try:
            async for chunk in self._chunks:
                if chunk.text or chunk.reasoning:
                    piece = storable(chunk)
                    if self._first_token_ms is None:
                        self._first_token_ms = monotonic_ms() - self._started_ms
                    self._text.append(piece.text)
                    if piece.reasoning:
                        self._thoughts.append(piece.reasoning)
                    self._pending.append(piece)
                    self._grown.set()
                    if len(self._pending) > _AHEAD_CHUNKS:  # a model that never has to wait lets others have a turn
                        await asyncio.sleep(0)
                if chunk.finish_reason:
                    self._last = chunk
            if self._last is None:
                raise StreamBroken("The model's answer ended without its end marker; what came is kept.")
        finally:
            await self._chunks.aclose()

    async def _flush_regularly(self) -> None:
        """Save what has come so far, twice a second, so that a crash costs at most that much."""
        saved = 0
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            if len(self._text) == saved:
                continue
            saved = len(self._text)
            try:
                is_there = await self._conversations.write_answer(self.message.message_id, **self._said())
            except DatabaseUnavailable as error:
                logger.warning("answer %s not flushed yet: %s", self.message.message_id, error.detail)
            else:
                if not is_there:  # its conversation was deleted
                    self.cancel()
                    return

    async def _save_end(self, status: EndStatus, error: LabError | None, total_ms: float) -> None:
        answer = self._answer(total_ms)
        last = self._last or Chunk()
        values: dict[str, Any] = (
            self._said()
            | columns(answer)
            | {
                "status": status,
                "finish_reason": last.finish_reason,
                "timings": answer.timings,
                "error": {"code": error.code, "detail": error.detail} if error else None,
            }
        )
        try:
            saved = await self._until_saved(lambda: self._conversations.write_answer(self.message.message_id, **values))
        except asyncio.CancelledError:
            self._fail(ServerStopping("The server stopped before the answer could be saved."))
            raise
        if not saved:
            gone = f"Conversation {self.message.session_id!r} was deleted while it was being answered."
            self._fail(ConversationNotFound(gone))
        elif error is not None:
            self._fail(error)
        elif status == "interrupted":
            self._fail(
                ServerStopping("The server is stopping. What the model said so far is kept.", retry_after_seconds=5)
            )
        elif not self._outcome.done():
            self._outcome.set_result(answer)

    async def _until_saved(self, save: Callable[[], Awaitable[bool]]) -> bool:
        """Try until the database takes it; the client learns of the first failure, the answer waits in memory."""
        attempt = 0
        while True:
            try:
                return await save()
            except DatabaseUnavailable as error:
                self._fail(error)
                logger.warning("answer %s not saved yet: %s", self.message.message_id, error.detail)
            await asyncio.sleep(_SAVE_AGAIN_SECONDS[min(attempt, len(_SAVE_AGAIN_SECONDS) - 1)])
            attempt += 1

    def _error(self) -> LabError | None:
        task = self._generating
        if task.cancelled() or (error := task.exception()) is None:
            return None
        if isinstance(error, LabError):
            return error
        logger.error("answer %s failed", self.message.message_id, exc_info=error)
        return LabError("Something unexpected went wrong while the model answered. The log has the details.")

    def _said(self) -> dict[str, Any]:
        return {
            "content": "".join(self._text),
            "thought_process": "".join(self._thoughts) or None,
        }

    def _answer(self, total_ms: float) -> Answer:
        last = self._last or Chunk()
        measured = {"first_token_ms": self._first_token_ms, "total_ms": total_ms} | last.timings
        said = self._said()
        return Answer(
            response=said["content"],
            thought_process=said["thought_process"],
            session_id=self.message.session_id,
            message_id=self.message.message_id,
            usage=last.usage.counts() if last.usage else None,
            timings={name: round(value, 3) for name, value in measured.items() if value is not None},
            finish_reason=last.finish_reason,
            context=self._prompt.context,
            warnings=[*self.call.warnings, *self._prompt.warnings, *last.warnings],
            **of_call(self.call),
        )

    def _fail(self, error: LabError) -> None:
        if not self._outcome.done():
            self._outcome.set_exception(error)


def storable(chunk: Chunk) -> Chunk:
    """Return a piece without signs that no database or stream can hold: NUL and half characters (lone surrogates)."""
    if not _UNSTORABLE.search(chunk.text + chunk.reasoning):
        return chunk
    return replace(
        chunk, text=_UNSTORABLE.sub("\ufffd", chunk.text), reasoning=_UNSTORABLE.sub("\ufffd", chunk.reasoning)
    )


def _retrieve(outcome: asyncio.Future[Answer]) -> None:
    """Mark a failure as seen: a client that left asks for no result."""
    if not outcome.cancelled():
        outcome.exception()
