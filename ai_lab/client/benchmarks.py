"""Benchmarks on a server, for both clients: ``client.benchmarks``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ai_lab.benchmarks.plan import Plan
from ai_lab.benchmarks.records import Record
from ai_lab.benchmarks.reports.formats import ReportFormat
from ai_lab.benchmarks.reports.raw import read_jsonl
from ai_lab.benchmarks.schemas import HistoricalComparison, Progress, Run, RunPage
from ai_lab.client import benchmark_calls as calls
from ai_lab.errors import ServerStopping, ServerUnreachable

if TYPE_CHECKING:
    from ai_lab.client.connection import AsyncConnection, Connection

#: A run goes on after a restart of the server; whoever watches it looks again this often.
_LOOKS, _LOOK_SECONDS = 30, 1.0


class BenchmarkClient:
    """What a server measures. The names are those of ``Lab.benchmarks``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def start(self, plan: Plan) -> Run:
        """Start a run, or queue it while another one uses the same machine."""
        return self._connection.send(calls.start(plan))

    def get(self, run_id: str) -> Run:
        """Return a run, with its report once there is one."""
        return self._connection.send(calls.get(run_id))

    def page(self, *, after: str | None = None, limit: int = 20) -> RunPage:
        """Return runs without their reports, the newest first; ``after`` leads to the next ones."""
        return self._connection.send(calls.page(after, limit))

    def events(self, run_id: str) -> Generator[Progress | Run, None, None]:
        """Yield how a run goes on, in the end the run; leaving does not stop it."""
        looks = 0
        while True:
            try:
                for change in self._connection.events(calls.events(run_id), calls.RunEvents()):
                    looks = 0
                    yield change
            except (ServerStopping, ServerUnreachable):
                looks += 1
                if looks > _LOOKS:
                    raise
                time.sleep(_LOOK_SECONDS)
            else:
                return

    def wait(self, run_id: str) -> Run:
        """Return a run when it has ended."""
        for _ in self.events(run_id):
            pass
        return self.get(run_id)

    def cancel(self, run_id: str) -> Run:
        """Stop a run; what it has measured is kept and reported."""
        return self._connection.send(calls.cancel(run_id))

    def resume(self, run_id: str, *, api_keys: Mapping[str, str] | None = None) -> Run:
        """Go on with a run that did not come to its end; ``api_keys`` by the name of the arm."""
        return self._connection.send(calls.resume(run_id, api_keys))

    def rerun(self, run_id: str, *, api_keys: Mapping[str, str] | None = None) -> Run:
        """Start a new run of the same plan."""
        return self._connection.send(calls.rerun(run_id, api_keys))

    def delete(self, run_id: str) -> None:
        """Delete a run that has ended, for good."""
        self._connection.send(calls.delete(run_id))

    def compare(self, run_ids: Sequence[str]) -> HistoricalComparison:
        """Compare stored runs with the first of them, judged against the noise between equal runs of this lab."""
        return self._connection.send(calls.compare(run_ids))

    def report(self, run_id: str, fmt: ReportFormat = "markdown") -> bytes:
        """Return the report of a run as a document."""
        return self._connection.send(calls.report(run_id, fmt))

    def records(self, run_id: str) -> Iterator[Record]:
        """Return the raw record of every request."""
        return read_jsonl(self.report(run_id, "jsonl"))


class AsyncBenchmarkClient:
    """``BenchmarkClient``, awaited."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def start(self, plan: Plan) -> Run:
        """Start a run, or queue it while another one uses the same machine."""
        return await self._connection.send(calls.start(plan))

    async def get(self, run_id: str) -> Run:
        """Return a run, with its report once there is one."""
        return await self._connection.send(calls.get(run_id))

    async def page(self, *, after: str | None = None, limit: int = 20) -> RunPage:
        """Return runs without their reports, the newest first; ``after`` leads to the next ones."""
        return await self._connection.send(calls.page(after, limit))

    async def events(self, run_id: str) -> AsyncGenerator[Progress | Run, None]:
        """Yield how a run goes on, in the end the run; leaving does not stop it."""
        looks = 0
        while True:
            try:
                async for change in self._connection.events(calls.events(run_id), calls.RunEvents()):
                    looks = 0
                    yield change
            except (ServerStopping, ServerUnreachable):
                looks += 1
                if looks > _LOOKS:
                    raise
                await asyncio.sleep(_LOOK_SECONDS)
            else:
                return

    async def wait(self, run_id: str) -> Run:
        """Return a run when it has ended."""
        async for _ in self.events(run_id):
            pass
        return await self.get(run_id)

    async def cancel(self, run_id: str) -> Run:
        """Stop a run; what it has measured is kept and reported."""
        return await self._connection.send(calls.cancel(run_id))

    async def resume(self, run_id: str, *, api_keys: Mapping[str, str] | None = None) -> Run:
        """Go on with a run that did not come to its end; ``api_keys`` by the name of the arm."""
        return await self._connection.send(calls.resume(run_id, api_keys))

    async def rerun(self, run_id: str, *, api_keys: Mapping[str, str] | None = None) -> Run:
        """Start a new run of the same plan."""
        return await self._connection.send(calls.rerun(run_id, api_keys))

    async def delete(self, run_id: str) -> None:
        """Delete a run that has ended, for good."""
        await self._connection.send(calls.delete(run_id))

    async def compare(self, run_ids: Sequence[str]) -> HistoricalComparison:
        """Compare stored runs with the first of them, judged against the noise between equal runs of this lab."""
        return await self._connection.send(calls.compare(run_ids))

    async def report(self, run_id: str, fmt: ReportFormat = "markdown") -> bytes:
        """Return the report of a run as a document."""
        return await self._connection.send(calls.report(run_id, fmt))

    async def records(self, run_id: str) -> AsyncIterator[Record]:
        """Yield the raw record of every request."""
        for record in read_jsonl(await self.report(run_id, "jsonl")):
            yield record
