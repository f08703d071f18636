"""The client for programs with an event loop: ``LabClient``, awaited."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from ai_lab.agents.schemas import AgentState
from ai_lab.benchmarks.asking import plan_for
from ai_lab.benchmarks.following import Door, Place, measured
from ai_lab.benchmarks.notebook import BenchmarkResult
from ai_lab.benchmarks.plan import Arm, Plan
from ai_lab.chat.schemas import Answer, Delta
from ai_lab.client import calls, gateway_calls
from ai_lab.client.benchmarks import AsyncBenchmarkClient
from ai_lab.client.calls import Call, Page
from ai_lab.client.costs import AsyncBudgetClient, AsyncCostClient
from ai_lab.client.events import EventReader
from ai_lab.client.gateway import AsyncBreakerClient, AsyncCacheClient
from ai_lab.client.keys import AsyncKeyClient
from ai_lab.client.traces import AsyncTraceClient
from ai_lab.conversations.export import ExportFormat
from ai_lab.conversations.restore import ImportReport
from ai_lab.conversations.schemas import Conversation, Message
from ai_lab.gateway.schemas import GatewayOverview
from ai_lab.telemetry.history.schemas import MetricHistory
from ai_lab.telemetry.operations.summary_schemas import PerformanceSummary
from ai_lab.telemetry.schemas import SystemMetrics

T = TypeVar("T")


class AsyncLabClient:
    """``LabClient`` for programs with an event loop; what that waits for is awaited here.

    Cancelling a call closes the connection, and the server stops the model.

    Args:
        base_url: where the server is.
        token: for a server that wants one. Default: AI_LAB_TOKEN, or the one that a server of this machine has made.
        timeout_seconds: the longest silence; a model may think for a long time before it answers.
    """

    def __init__(
        self, base_url: str = "http://127.0.0.1:8001", token: str | None = None, *, timeout_seconds: float = 600
    ) -> None:
        from ai_lab.client.connection import AsyncConnection  # noqa: PLC0415 - 0.3 s, only where a client is made

        self._connection = AsyncConnection(base_url, timeout_seconds, token)
        self._url, self._timeout_seconds = base_url, timeout_seconds
        #: Runs on the server: start, watch, cancel, compare, report.
        self.benchmarks = AsyncBenchmarkClient(self._connection)
        #: API keys of model services, in the server's vault: add, list, test, remove, rotate, audit.
        self.keys = AsyncKeyClient(self._connection)
        #: What answers cost: summary, export to a file, reprice.
        self.costs = AsyncCostClient(self._connection)
        #: Limits on that: list, set, remove.
        self.budgets = AsyncBudgetClient(self._connection)
        #: How answers came about: list, get, replay on another model.
        self.traces = AsyncTraceClient(self._connection)
        #: Stored answers: stats, page, clear, evict.
        self.cache = AsyncCacheClient(self._connection)
        #: Models that are left alone after failures: list, reset.
        self.breakers = AsyncBreakerClient(self._connection)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()

    # -- chat ----------------------------------------------------------------------------------------------------

    async def chat(
        self,
        message: str,
        session_id: str | None = None,
        *,
        model: str | None = None,
        system: str | None = None,
        options: Mapping[str, Any] | None = None,
        use_cache: bool | None = None,
        local_only: bool | None = None,
    ) -> Answer:
        """Say something to a model and wait for the whole answer; without a session_id a conversation is started.

        Args:
            message: what to say.
            session_id: of the conversation.
            model: provider/model, a bare name, or an alias.
            system: message; kept in the conversation.
            options: for sampling.
            use_cache: False: ask the model anew, also where the same was answered before.
            local_only: True: refuse any model outside the server's machine, now and later.
        """
        return await self._connection.send(
            calls.chat(
                message,
                session_id=session_id,
                model=model,
                system=system,
                options=options,
                use_cache=use_cache,
                local_only=local_only,
            )
        )

    def stream(
        self,
        message: str,
        session_id: str | None = None,
        *,
        model: str | None = None,
        system: str | None = None,
        options: Mapping[str, Any] | None = None,
        use_cache: bool | None = None,
        local_only: bool | None = None,
    ) -> AsyncAnswerStream:
        """Say something to a model and see the answer grow; see ``AsyncAnswerStream``."""
        call = calls.chat(
            message,
            stream=True,
            session_id=session_id,
            model=model,
            system=system,
            options=options,
            use_cache=use_cache,
            local_only=local_only,
        )
        reader = EventReader()
        return AsyncAnswerStream(self._connection.events(call, reader), reader)

    async def models(self) -> list[dict[str, Any]]:
        """Return the models of all providers, each with its ``id``."""
        return await self._connection.send(calls.models())

    # -- the server itself ---------------------------------------------------------------------------------------

    async def health(self) -> dict[str, Any]:
        """Return how the server is, component by component, each with its remedy; one that is unwell answers too."""
        return await self._connection.send(calls.health())

    async def gateway(self) -> GatewayOverview:
        """Return how requests get to models: aliases, limits and their use, rules, names that no service has."""
        return await self._connection.send(gateway_calls.overview())

    async def metrics(self) -> SystemMetrics:
        """Return the newest sample of the machine; None in it means that it cannot be measured there."""
        return await self._connection.send(calls.metrics())

    async def metrics_history(
        self,
        metric: str,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        step: int | None = None,
        labels: Mapping[str, str] | None = None,
        host: str | None = None,
    ) -> MetricHistory:
        """Return how a metric went: mean, least and greatest of every step.

        Args:
            metric: a name such as cpu_usage_percent; a wrong one is answered with the nearest ones.
            start: the beginning; by default an hour before the end.
            end: by default now.
            step: seconds per point; by default so that there are a few hundred.
            labels: only series that carry these, such as ``{"gpu": "0"}``.
            host: of several machines this one; by default all.
        """
        return await self._connection.send(
            calls.metrics_history(metric, start=start, end=end, step=step, labels=labels, host=host)
        )

    async def performance_summary(self, hours: float = 24) -> PerformanceSummary:
        """Return counts, errors and percentiles of every operation over the last hours."""
        return await self._connection.send(calls.performance_summary(hours))

    async def exposition(self) -> str:
        """Return everything that the server counts, in Prometheus' text format."""
        return await self._connection.send(calls.exposition())

    # -- benchmarks ----------------------------------------------------------------------------------------------

    async def benchmark(
        self,
        *models: str | Arm | Mapping[str, Any],
        plan: Plan | None = None,
        progress: bool = True,
        **fields: Any,
    ) -> BenchmarkResult:
        """Measure models on the server's machine and wait for the result; two or more are compared with the first.

        Interrupting it cancels the run; what was measured until then is kept on the server.

        Args:
            models: ``provider/model`` names or arms; none: the default model.
            plan: in full, instead of ``models`` and ``fields``.
            progress: show a progress bar.
            fields: iterations, concurrency, rate, prompt, …: see ``ai_lab.benchmarks.asking.plan_for``.
        """
        plan = plan or plan_for(*models, **fields)
        return await measured(self.benchmarks, plan, place_of(self._url, self._timeout_seconds), progress=progress)

    # -- conversations -------------------------------------------------------------------------------------------

    def conversations(self, query: str | None = None, *, archived: bool | None = None) -> AsyncIterator[Conversation]:
        """Yield conversations, the latest changed first; ``query``: words that a message or the title holds."""
        return self._every(lambda after: calls.conversations(query, archived, after))

    async def create(
        self,
        session_id: str | None = None,
        *,
        title: str | None = None,
        local_only: bool | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Conversation:
        """Start a conversation."""
        return await self._connection.send(
            calls.create(session_id=session_id, title=title, local_only=local_only, metadata=metadata)
        )

    async def conversation(self, session_id: str) -> Conversation:
        """Return a conversation without its messages."""
        return await self._connection.send(calls.conversation(session_id))

    def messages(self, session_id: str) -> AsyncIterator[Message]:
        """Yield the messages in the order in which they were said."""
        return self._every(lambda after: calls.messages(session_id, after))

    async def append(
        self,
        session_id: str,
        role: str,
        content: str,
        *,
        thought_process: str | None = None,
        created_at: datetime | None = None,
    ) -> Message:
        """Append a message without asking a model."""
        return await self._connection.send(calls.append(session_id, role, content, thought_process, created_at))

    async def rename(self, session_id: str, title: str | None) -> Conversation:
        """Give a conversation another title."""
        return await self._connection.send(calls.change(session_id, title=title))

    async def archive(self, session_id: str, *, archived: bool = True) -> Conversation:
        """Take a conversation out of the list, or put it back."""
        return await self._connection.send(calls.change(session_id, archived=archived))

    async def delete(self, session_id: str) -> None:
        """Delete a conversation and its messages for good."""
        await self._connection.send(calls.delete(session_id))

    async def export(self, session_id: str | None = None, format: ExportFormat = "jsonl") -> str:  # noqa: A002 - as by HTTP
        """Return a conversation as a file; without a session_id all of them (json or jsonl)."""
        return await self._connection.send(calls.export(session_id, format))

    async def import_(self, data: str | bytes) -> ImportReport:
        """Bring an export (json or jsonl) back; what is there already is left as it is."""
        return await self._connection.send(calls.import_(data))

    # -- agents --------------------------------------------------------------------------------------------------

    async def agent_state(self, session_id: str) -> AgentState:
        """Return an agent's current state."""
        return await self._connection.send(calls.agent_state(session_id))

    async def save_agent_state(
        self,
        session_id: str,
        message: str | None = None,
        status: str | None = None,
        *,
        feedback: str | None = None,
        thought_process: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> AgentState:
        """Make this an agent's current state; the one before stays in the history."""
        call = calls.save_agent_state(
            session_id, message=message, status=status, feedback=feedback, thought_process=thought_process, data=data
        )
        return await self._connection.send(call)

    def agent_states(self, session_id: str) -> AsyncIterator[AgentState]:
        """Yield all states of an agent, the newest first."""
        return self._every(lambda after: calls.agent_states(session_id, after))

    async def _every(self, page_after: Callable[[str | None], Call[Page[T]]]) -> AsyncIterator[T]:
        page = await self._connection.send(page_after(None))
        while True:
            for item in page.data:
                yield item
            if not page.after:
                return
            page = await self._connection.send(page_after(page.after))


class AsyncAnswerStream:
    """An answer that grows: iterate over its pieces, then ``answer`` is the whole of it.

    In an ``async with`` block the connection is closed in any case, also where the program fails between two pieces.
    """

    def __init__(self, deltas: AsyncGenerator[Delta, None], reader: EventReader) -> None:
        self._deltas = deltas
        self._reader = reader

    @property
    def answer(self) -> Answer:
        """Return the whole answer; raises ``InvalidRequest`` before the stream was read to its end."""
        return self._reader.answer

    async def close(self) -> None:
        """Leave: the server stops the model and keeps what it has said."""
        await self._deltas.aclose()

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self._deltas

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()


def place_of(server: str, timeout_seconds: float = 600) -> Place:
    """Return where the server at this address measures; ``timeout_seconds`` as for the client."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Door]:
        async with AsyncLabClient(server, timeout_seconds=timeout_seconds) as client:
            yield client.benchmarks

    return Place(opened, server)
