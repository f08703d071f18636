"""How answers of a server came about, for both clients: ``client.traces``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_lab.client import trace_calls as calls
from ai_lab.client.trace_calls import Moment
from ai_lab.traces.schemas import Replay, TraceDetail, TraceSummary
from ai_lab.traces.trace import TraceStatus

if TYPE_CHECKING:
    from ai_lab.client.connection import AsyncConnection, Connection

Summaries = list[TraceSummary]
_PAGE = 100


class TraceClient:
    """What a server remembers of its answers."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(
        self,
        *,
        limit: int = 20,
        status: TraceStatus | None = None,
        model: str | None = None,
        provider: str | None = None,
        session_id: str | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
    ) -> Summaries:
        """Return traces, the newest first, without their attempts.

        Args:
            limit: so many at most.
            status: complete, failed or cancelled.
            model: that answered, or the name that was asked for.
            provider: that answered.
            session_id: of the conversation.
            start: the first moment, with its zone; as text 2026-11-30T08:00:00Z.
            end: the first moment that does not count any more.
        """
        found: Summaries = []
        after: str | None = None
        filters = calls.filters(
            status=status, model=model, provider=provider, session_id=session_id, start=start, end=end
        )
        while len(found) < limit:
            page = self._connection.send(calls.page(after, limit=min(_PAGE, limit - len(found)), **filters))
            found += page.data
            if not (after := page.after):
                break
        return found

    def get(self, trace_id: str) -> TraceDetail:
        """Return how one answer came about; ``trace_id`` as the answer says it. Raises ``TraceNotFound``."""
        return self._connection.send(calls.get(trace_id))

    def replay(self, trace_id: str, model: str | None = None, *, use_cache: bool = False) -> Replay:
        """Ask the same question of another model (default: the default one) and return both answers."""
        return self._connection.send(calls.replay(trace_id, model, use_cache=use_cache))


class AsyncTraceClient:
    """``TraceClient``, awaited."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def list(
        self,
        *,
        limit: int = 20,
        status: TraceStatus | None = None,
        model: str | None = None,
        provider: str | None = None,
        session_id: str | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
    ) -> Summaries:
        """Return traces, the newest first, without their attempts; the arguments are those of ``TraceClient``."""
        found: Summaries = []
        after: str | None = None
        filters = calls.filters(
            status=status, model=model, provider=provider, session_id=session_id, start=start, end=end
        )
        while len(found) < limit:
            page = await self._connection.send(calls.page(after, limit=min(_PAGE, limit - len(found)), **filters))
            found += page.data
            if not (after := page.after):
                break
        return found

    async def get(self, trace_id: str) -> TraceDetail:
        """Return how one answer came about; ``trace_id`` as the answer says it. Raises ``TraceNotFound``."""
        return await self._connection.send(calls.get(trace_id))

    async def replay(self, trace_id: str, model: str | None = None, *, use_cache: bool = False) -> Replay:
        """Ask the same question of another model (default: the default one) and return both answers."""
        return await self._connection.send(calls.replay(trace_id, model, use_cache=use_cache))
