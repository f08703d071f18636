"""The history of measurements: samples, minutes made of them, hours made of minutes; each kept for its own time.

Nothing is ever filled in: where no sample was taken (the server was down, the clock was set) there is a gap.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Mapping
from datetime import datetime

from ai_lab.clock import as_utc
from ai_lab.database import Database
from ai_lab.errors import DatabaseUnavailable
from ai_lab.telemetry.history.query import answer, known_metrics, spread
from ai_lab.telemetry.history.reading_repository import Figures, HistoryReader
from ai_lab.telemetry.history.repository import HOUR, MINUTE, HistoryRepository
from ai_lab.telemetry.history.retention import DAY, Retention
from ai_lab.telemetry.history.schemas import KnownMetric, MetricHistory
from ai_lab.telemetry.history.series import Series

_log = logging.getLogger(__name__)
MOST_SERIES = 120
#: Samples that wait for a database that cannot be reached: an hour of them at the default interval.
MOST_WAITING = 720
_SAMPLES_AT_ONCE = 60
_ACTIVE_SECONDS = 900
_FLUSH_WAIT_SECONDS = 0.05
_CLOCK_SET_SECONDS = HOUR
#: What one transaction of a purge covers of one series: some hundred rows, so that no request waits for it.
_CHUNK_SECONDS = {0: HOUR, MINUTE: 12 * HOUR, HOUR: 30 * DAY}


class History:
    """Writes, rolls up, purges and answers. Belongs to one event loop; ``add`` is called in it too.

    Several processes may write the same database: rows of the same machine, series and second are the same row, and
    roll-ups are made of all of them.
    """

    def __init__(self, database: Database, *, host: str, retention: Retention) -> None:
        self._database = database
        self._host = host
        self._retention = retention
        self._waiting: deque[tuple[int, dict[Series, float]]] = deque()
        self._flushing = asyncio.Lock()
        self._catching_up: asyncio.Task[int] | None = None
        self._rolling = asyncio.Lock()
        # Hours with samples that are not rolled up yet -> the first such minute.
        self._touched: dict[int, int] = {}
        self._is_caught_up = False
        self._first_purge: tuple[int, float] | None = None  # by the wall clock and by the one that nobody sets
        self._distrusts_clock = False
        self.levels = retention.fitted(0, is_sqlite=database.is_sqlite)  # how long what is kept, as of the last purge
        self.dropped_samples = 0
        self.dropped_series = 0

    def add(self, snapshot_at: datetime, values: Mapping[Series, float]) -> None:
        """Take the values of one moment; they are written by the next ``flush``.

        Where the database cannot be reached for long the oldest are dropped and counted in ``dropped_samples``; series
        beyond ``MOST_SERIES``, the last ones, are not kept (``dropped_series``).
        """
        kept = {series: value for series, value in values.items() if math.isfinite(value)}
        if len(kept) > MOST_SERIES:
            if not self.dropped_series:
                _log.warning("Of %d series only the first %d are remembered.", len(kept), MOST_SERIES)
            self.dropped_series = max(self.dropped_series, len(kept) - MOST_SERIES)
            kept = dict(itertools.islice(kept.items(), MOST_SERIES))
        self._waiting.append((int(as_utc(snapshot_at).timestamp()), kept))
        self._drop_oldest()

    async def flush(self) -> int:
        """Write what waits and return the number of moments that were written.

        Raises:
            DatabaseUnavailable: what was not written waits for the next time.
        """
        written = 0
        async with self._flushing:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _SAMPLES_AT_ONCE))]
                try:
                    await self._write(batch)
                except BaseException:  # also where the task is cancelled: writing them twice changes nothing
                    self._waiting.extendleft(reversed(batch))
                    self._drop_oldest()
                    raise
                for at, _ in batch:
                    self._touch(at)
                written += len(batch)
        return written

    async def roll_up(self, now: datetime) -> None:
        """Flush, then make the minutes and hours that are over by ``now`` of all samples that came since the last time.

        The first time it looks at everything, so that what a killed process left is made up for.
        """
        await self.flush()
        moment = int(as_utc(now).timestamp())
        async with self._rolling:
            if not self._is_caught_up:
                async with self._database.reading() as db:
                    for hour in await HistoryRepository(db).hours_with_samples():
                        self._touch(hour)
                self._is_caught_up = True
            for hour in sorted(self._touched):
                await self._roll_up_hour(hour, moment)

    async def purge(self, now: datetime) -> None:
        """Delete what is older than its level is kept, never before the level above was made of it.

        Where the clock was set far forward since the first purge, the time that passed since then counts instead.
        """
        moment = self._believable(int(as_utc(now).timestamp()))
        async with self._database.reading() as db:
            series_count, host_count = await HistoryRepository(db).active_series(moment - _ACTIVE_SECONDS)
        per_host = math.ceil(series_count / max(1, host_count))
        self.levels = levels = self._retention.fitted(per_host, is_sqlite=self._database.is_sqlite)
        kept = {0: levels.raw_seconds, MINUTE: levels.minute_seconds, HOUR: levels.hour_seconds}
        for tier, seconds in kept.items():
            end = moment - seconds
            await self._purge_level(tier, end - end % HOUR)
        async with self._database.transaction() as db:
            await HistoryRepository(db).delete_empty_series()
        await self._database.give_back_pages()

    async def query(
        self,
        metric: str,
        *,
        start: datetime | None,
        end: datetime,
        step_seconds: int | None = None,
        max_points: int = 300,
        labels: Mapping[str, str] | None = None,
        host: str | None = None,
    ) -> MetricHistory:
        """Return what was measured from ``start`` to ``end``; the rules are those of ``query.answer``.

        Raises:
            InvalidRequest: the range or the step cannot be answered; the text says what can.
            MetricNotFound: there is no such metric, or none with these labels or on this machine.
            DatabaseUnavailable: the database cannot be read.
        """
        await self._flush_if_possible()
        async with self._database.reading() as db:
            return await answer(
                HistoryReader(db),
                metric,
                start=start,
                end=end,
                step_seconds=step_seconds,
                max_points=max_points,
                labels=labels or {},
                host=host,
                interval_seconds=self._retention.interval_seconds,
            )

    async def spread(self, metric: str, *, start: datetime, end: datetime) -> Figures | None:
        """Return mean, least and greatest of this machine's samples from ``start`` to ``end``; None without any.

        Where no samples are kept it is made of the whole minutes, or hours, of the range.

        Raises:
            DatabaseUnavailable: the database cannot be read.
        """
        await self._flush_if_possible()
        async with self._database.reading() as db:
            return await spread(HistoryReader(db), metric, start=start, end=end, host=self._host)

    async def known(self) -> list[KnownMetric]:
        """Return every metric that something was remembered of, by name."""
        await self._flush_if_possible()
        async with self._database.reading() as db:
            return await known_metrics(HistoryReader(db))

    def _believable(self, moment: int) -> int:
        """Return ``moment``, but no later than the time that passed explains: else a wrong clock would delete all."""
        running = _running_seconds()
        wall, first_running = self._first_purge = self._first_purge or (moment, running)
        latest = int(wall + running - first_running) + _CLOCK_SET_SECONDS
        if moment > latest and not self._distrusts_clock:
            self._distrusts_clock = True
            _log.warning(
                "The clock was set forward by %d s. No history is deleted for that; where the new time is right, "
                "start the server again.",
                moment - latest + _CLOCK_SET_SECONDS,
            )
        return min(moment, latest)

    def _drop_oldest(self) -> None:
        while len(self._waiting) > MOST_WAITING:
            self._waiting.popleft()
            self.dropped_samples += 1

    async def _flush_if_possible(self) -> None:
        """Flush before reading, but wait for other writers only a moment; the flush itself goes on."""
        if self._catching_up is None or self._catching_up.done():
            self._catching_up = asyncio.create_task(self.flush())
        done, _ = await asyncio.wait({self._catching_up}, timeout=_FLUSH_WAIT_SECONDS)
        try:
            for task in done:
                task.result()
        except DatabaseUnavailable:  # reading may still work: a full disk, another writer
            _log.debug("The newest samples are not written yet.")

    async def _write(self, batch: list[tuple[int, dict[Series, float]]]) -> None:
        async with self._database.transaction() as db:
            repository = HistoryRepository(db)
            ids = await repository.series_ids(self._host, dict.fromkeys(s for _, values in batch for s in values))
            # In the order of the key: neighbours meet the same page.
            rows = sorted((ids[series], at, value) for at, values in batch for series, value in values.items())
            if rows:
                names = ("series_id", "at", "value")
                await repository.add_samples([dict(zip(names, row, strict=True)) for row in rows])

    def _touch(self, at: int) -> None:
        hour, minute = at - at % HOUR, at - at % MINUTE
        self._touched[hour] = min(self._touched.get(hour, minute), minute)

    async def _roll_up_hour(self, hour: int, moment: int) -> None:
        """Roll up what is over of one hour; what is not, or came meanwhile, stays noted."""
        over = min(hour + HOUR, moment - moment % MINUTE)
        first = self._touched[hour]
        if first >= over:
            return
        del self._touched[hour]
        try:
            async with self._database.transaction() as db:
                repository = HistoryRepository(db)
                await repository.roll_up(MINUTE, first, over)
                if over == hour + HOUR:
                    await repository.roll_up(HOUR, hour, over)
        except BaseException:  # cancelled or failed: nothing of it was written
            self._touch(first)
            raise
        if over < hour + HOUR:
            self._touch(over)

    async def _purge_level(self, tier: int, end: int) -> None:
        async with self._database.reading() as db:
            oldest = await HistoryRepository(db).oldest(tier)
        for series_id, first in oldest.items():
            at = first
            while at < end:
                chunk_end = min(at - at % HOUR + _CHUNK_SECONDS[tier], end)
                async with self._database.transaction() as db:
                    repository = HistoryRepository(db)
                    # Once more, in the same transaction: rows may have come in late.
                    if tier < MINUTE:
                        await repository.roll_up(MINUTE, at - at % HOUR, chunk_end, series_id)
                    if tier < HOUR:
                        await repository.roll_up(HOUR, at - at % HOUR, chunk_end, series_id)
                    await repository.delete(tier, series_id, chunk_end)
                    at = (await repository.oldest_of(tier, series_id)) or end


def _running_seconds() -> float:
    """Return a clock that nobody sets, with the time that the machine slept where the system counts it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
