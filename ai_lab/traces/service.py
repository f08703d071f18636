"""Traces: recorded in the background, found again, and deleted in time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import timedelta
from typing import Any

from ai_lab import cursor
from ai_lab.clock import now
from ai_lab.database import Database
from ai_lab.database.batches import Batch
from ai_lab.errors import LabError, TraceNotFound
from ai_lab.settings import Settings
from ai_lab.traces.export import CLOSE_SECONDS, MOST_WAITING, MOST_WAITING_WITH_TEXTS, SpanExport
from ai_lab.traces.forgetting import forget_rows, forget_session
from ai_lab.traces.repository import Filters, TraceRepository
from ai_lab.traces.rows import detail_of, row_of, summary_of
from ai_lab.traces.schemas import TraceDetail, TracePage
from ai_lab.traces.trace import HostLoad, Trace

#: Returns which of these ids, of messages or of conversations, are still there.
Existing = Callable[[Collection[str]], Awaitable[set[str]]]

#: The oldest go first where there are more; a trace has about two kilobytes, with texts up to 200.
MOST_TRACES = 1_000_000
MOST_TRACES_WITH_TEXTS = 100_000
_FIRST_PURGE_SECONDS = 30.0
_PURGE_SECONDS = 600.0
_PURGED_AT_ONCE = 500
#: Between two batches of deletions, so that others can write.
_PAUSE_SECONDS = 0.05

logger = logging.getLogger(__name__)


def _no_load() -> HostLoad | None:
    return None


class Traces:
    """The record of how answers came about. Made inside of a running event loop.

    Where AI_LAB_TRACE_DAYS is 0 nothing is written, and where no collector is named nothing is exported; with neither,
    ``is_on`` is False and ``record`` does nothing.

    Args:
        settings: of the lab.
        database: where traces are kept.
        host_load: says how busy the machine is, by the newest sample; it must not wait for anything.
        most: traces that are kept at most. Default: so many that they cannot fill a disk.
        existing: see ``Existing``; None: all of them.

    Raises:
        InvalidSettings: a collector is named that cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        host_load: Callable[[], HostLoad | None] = _no_load,
        most: int | None = None,
        existing: Existing | None = None,
    ) -> None:
        self.kept_days = settings.trace_days
        self.keeps_texts = settings.trace_prompts
        self._most = most or (MOST_TRACES_WITH_TEXTS if self.keeps_texts else MOST_TRACES)
        self._database = database
        self._existing = existing
        export = SpanExport.open(settings) if settings.otlp_endpoint else None
        self._stored = Batch(self._store, most=MOST_WAITING_WITH_TEXTS if self.keeps_texts else MOST_WAITING)
        self._sinks: list[Callable[[Trace], None]] = []
        if self.kept_days:
            self._sinks.append(self._stored.add)
        if export:
            self._sinks.append(export.add)
        self._export = export
        self.is_on = bool(self._sinks)
        self.host_load = host_load if self.is_on else _no_load
        self._upkeep = asyncio.create_task(self._keep_up(), name="upkeep of traces")
        self._upkeep.add_done_callback(_report)

    def record(self, trace: Trace) -> None:
        """Take a trace; it is written in the background. No I/O."""
        for take in self._sinks:
            take(trace)

    async def page(self, filters: Filters | None = None, *, limit: int = 20, after: str | None = None) -> TracePage:
        """Return traces, the newest first. Raises ``InvalidCursor``."""
        before = cursor.decode_moment(after) if after else None
        if before is None:
            await self._stored.flush()
        async with self._database.reading() as db:
            rows = await TraceRepository(db).page(filters or Filters(), before=before, limit=limit + 1)
        page = rows[:limit]
        has_more = len(rows) > limit
        return TracePage(
            data=[summary_of(row) for row in page],
            has_more=has_more,
            after=cursor.encode(page[-1]["at"], page[-1]["id"]) if has_more else None,
            kept_days=self.kept_days,
        )

    async def get(self, identifier: str) -> TraceDetail:
        """Return a trace by its id or its W3C trace id (the newest one of it). Raises ``TraceNotFound``."""
        identifier = identifier.lower()
        row = await self._row(identifier)
        if row is None and await self._stored.flush():
            row = await self._row(identifier)
        if row is None:
            reason = (
                f"Traces are kept for {self.kept_days:g} days (AI_LAB_TRACE_DAYS); GET /traces lists them."
                if self.kept_days
                else "AI_LAB_TRACE_DAYS is 0: no traces are kept."
            )
            raise TraceNotFound(f"There is no trace with this id. {reason}", param="trace_id")
        return detail_of(row)

    async def forget(self, session_id: str) -> None:
        """Delete what was said from a conversation's traces; of those that wait, after they are written.

        What an OpenTelemetry collector has is not within reach. Raises ``DatabaseUnavailable``.
        """
        await forget_session(self._database, session_id)

    async def purge(self) -> int:
        """Delete what is too old or too much, in small batches, and return how many went."""
        before = now() - timedelta(days=self.kept_days)
        async with self._database.reading() as db:
            surplus = await TraceRepository(db).moment_of(self._most)
        if surplus is not None:
            before = max(before, surplus + timedelta(microseconds=1))
        gone = 0
        while True:
            async with self._database.transaction() as db:
                count = await TraceRepository(db).purge(before, _PURGED_AT_ONCE)
            gone += count
            if count < _PURGED_AT_ONCE:
                return gone
            await asyncio.sleep(_PAUSE_SECONDS)

    async def close(self, collector_seconds: float = CLOSE_SECONDS) -> None:
        """Write and send what waits; a collector that does not take it is given up after that time."""
        self._upkeep.cancel()
        await asyncio.wait({self._upkeep})
        await self._stored.close()
        if self._export:
            await self._export.close(collector_seconds)

    async def _row(self, identifier: str) -> dict[str, Any] | None:
        async with self._database.reading() as db:
            return await TraceRepository(db).get(identifier)

    async def _store(self, traces: Sequence[Trace]) -> None:
        rows = [row_of(trace) for trace in traces]
        async with self._database.transaction() as db:
            await TraceRepository(db).add(rows)
        told = [row for row in rows if self.keeps_texts or row["error_code"]]
        made_for = {row["message_id"] or row["session_id"] for row in told} - {None}
        if made_for and self._existing is not None:
            # After they are written: whoever deletes a conversation later than this look finds its texts there.
            gone = made_for - await self._existing(made_for)
            await forget_rows(self._database, [row for row in told if (row["message_id"] or row["session_id"]) in gone])

    async def _keep_up(self) -> None:
        wait_seconds = _FIRST_PURGE_SECONDS
        while True:
            await asyncio.sleep(wait_seconds)
            wait_seconds = _PURGE_SECONDS
            try:
                await self.purge()
            except LabError as error:
                logger.warning("old traces are still there: %s", error.detail)


def _report(task: asyncio.Task[None]) -> None:
    """Say what ended a task that should never end."""
    if not task.cancelled() and (error := task.exception()):
        logger.error("old traces are not deleted any more", exc_info=error)
