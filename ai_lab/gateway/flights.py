"""Streams that several readers share: each gets all pieces from the beginning, as they come."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Sequence
from contextlib import aclosing

from ai_lab.errors import DeadlineExceeded, LabError, ServerStopping, StreamBroken
from ai_lab.gateway.call import Call, length
from ai_lab.providers import Chunk

#: A longer answer is for those who read it already: its beginning is let go as soon as all of them have it.
_MOST_CHARACTERS = 1_000_000
_AHEAD_CHUNKS = 32
#: Told of all pieces of a whole answer before its readers see the end.
OnWhole = Callable[[Sequence[Chunk]], Awaitable[None]]


class _Reader:
    """How far somebody has read, and what wakes them."""

    __slots__ = ("position", "waiting")

    def __init__(self) -> None:
        self.position = 0
        self.waiting: asyncio.Future[None] | None = None

    def wake(self) -> None:
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(None)

    async def grown(self, deadline: float | None) -> None:
        """Wait for more. Raises ``TimeoutError`` at ``deadline``, by the loop's clock."""
        self.waiting = asyncio.get_running_loop().create_future()
        if deadline is None:
            await self.waiting
            return
        async with asyncio.timeout_at(deadline):
            await self.waiting


class Flight:
    """One answer in the making, in a task of its own. It goes on as long as anybody reads it.

    Args:
        call: whose request it is; the attempts are written down there, and their cost belongs to it.
        chunks: the stream; it is closed when it ends, fails or nobody reads any more.
        on_whole: see ``OnWhole``; not called where the answer is longer than anything that is stored.
        on_end: called when nobody can join any more.
    """

    def __init__(
        self, call: Call, chunks: AsyncGenerator[Chunk, None], on_whole: OnWhole, on_end: Callable[[], None]
    ) -> None:
        self.call = call
        self._chunks = chunks
        self._on_whole = on_whole
        self._on_end = on_end
        self._pieces: list[Chunk] = []
        self._dropped = 0
        self._characters = 0
        self._readers: set[_Reader] = set()
        self._is_stopping = self._has_raised = False
        self.task = asyncio.create_task(self._drive())
        self.task.add_done_callback(self._ended)

    async def read(self, *, deadline: float | None = None) -> AsyncGenerator[Chunk, None]:
        """Yield all pieces. Closing the last reader stops the work upstream and waits until it has stopped.

        Args:
            deadline: of this reader, by the loop's clock; None: the flight's own.

        Raises:
            LabError: what went wrong with the answer, for everybody who reads it.
            DeadlineExceeded: this reader's time is over; the others go on.
        """
        reader = _Reader()
        self._readers.add(reader)
        try:
            while True:
                while reader.position < self._dropped + len(self._pieces):
                    chunk = self._pieces[reader.position - self._dropped]
                    reader.position += 1
                    yield chunk
                if self.task.done():
                    self._raise_error()
                    return
                if self._characters > _MOST_CHARACTERS:
                    self._drop_read()
                await reader.grown(deadline)
        except TimeoutError:
            raise DeadlineExceeded(
                "The answer was not complete when the time for it was over. Ask for a shorter one, choose a faster "
                "model, or raise AI_LAB_DEADLINE_SECONDS."
            ) from None
        finally:
            self._readers.discard(reader)
            if not self._readers and not self.task.done():
                self._on_end()
                self.task.cancel()
                await asyncio.wait({self.task})

    def stop(self) -> None:
        """End it because the server stops; who reads it learns that."""
        self._is_stopping = True
        self.task.cancel()

    async def _drive(self) -> None:
        async with aclosing(self._chunks) as chunks:
            async for chunk in chunks:
                self._pieces.append(chunk)
                self._characters += length(chunk)
                if self._characters > _MOST_CHARACTERS:
                    self._on_end()
                for reader in self._readers:
                    reader.wake()
                if self._dropped + len(self._pieces) - max((one.position for one in self._readers), default=0) > (
                    _AHEAD_CHUNKS
                ):  # a model that never has to wait lets others have a turn
                    await asyncio.sleep(0)
        if not self._dropped:
            await self._on_whole(self._pieces)

    def _drop_read(self) -> None:
        """Let go what everybody has read."""
        read = min(reader.position for reader in self._readers) - self._dropped
        del self._pieces[:read]
        self._dropped += read

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._on_end()
        for reader in self._readers:
            reader.wake()
        if not task.cancelled():
            task.exception()  # marked as seen: nobody may be reading any more

    def _raise_error(self) -> None:
        if self.task.cancelled():
            if self._is_stopping:
                raise ServerStopping("The server is stopping. Ask again in a moment.", retry_after_seconds=5)
            raise StreamBroken("The answer broke off.")
        error = self.task.exception()
        if error is None:
            return
        # One object raised in many tasks would gather all of their tracebacks.
        shown = copy.copy(error) if self._has_raised and isinstance(error, LabError) else error
        self._has_raised = True
        raise shown


class Flights:
    """The flights that may be joined, and those that have not ended yet."""

    def __init__(self) -> None:
        self._joinable: dict[Hashable, Flight] = {}
        self._running: set[Flight] = set()
        self._is_stopping = False

    def get(self, identity: Hashable) -> Flight | None:
        """Return the flight that answers this very request now."""
        flight = self._joinable.get(identity)
        return None if flight is None or flight.task.done() else flight  # that it is done may not have been told yet

    def start(self, identity: Hashable, call: Call, chunks: AsyncGenerator[Chunk, None], on_whole: OnWhole) -> Flight:
        """Begin to answer; from now on others may join.

        Raises:
            ServerStopping: nothing is begun any more.
        """
        if self._is_stopping:
            raise ServerStopping("The server is stopping. Ask again in a moment.", retry_after_seconds=5)
        flight = Flight(call, chunks, on_whole, lambda: self._forget(identity, flight))
        self._joinable[identity] = flight
        self._running.add(flight)
        flight.task.add_done_callback(lambda _: self._running.discard(flight))
        return flight

    async def close(self) -> None:
        """End every flight and wait for it."""
        self._is_stopping = True
        tasks = {flight.task for flight in self._running}
        for flight in list(self._running):
            flight.stop()
        if tasks:
            await asyncio.wait(tasks)

    def _forget(self, identity: Hashable, flight: Flight) -> None:
        if self._joinable.get(identity) is flight:
            del self._joinable[identity]
