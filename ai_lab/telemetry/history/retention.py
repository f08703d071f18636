"""How long each level of the history is kept, so that a month of it fits the room it may take."""

from __future__ import annotations

from dataclasses import dataclass

from ai_lab.settings import Settings

HOUR = 3600
DAY = 24 * HOUR
#: Bytes of a sample and of a roll-up on disk, index and free room in pages included, as measured; then some reserve.
SQLITE_BYTES = (24, 50)
POSTGRES_BYTES = (92, 118)
_MONTH = 30 * DAY
#: Queries of up to 100 hours are answered from minutes, so samples give way before these do.
_MINUTES_WANTED = 4 * DAY


@dataclass(frozen=True, slots=True)
class Levels:
    """How long samples, minutes and hours are kept."""

    raw_seconds: int
    minute_seconds: int
    hour_seconds: int


@dataclass(frozen=True, slots=True)
class Retention:
    """What the settings ask for; ``max_mb`` is for a month of one machine's history."""

    raw_hours: float = 24
    minute_days: float = 14
    hour_days: float = 730
    max_mb: int = 50
    interval_seconds: float = 5

    @classmethod
    def of(cls, settings: Settings) -> Retention:
        """Return what ``settings`` say."""
        return cls(
            raw_hours=settings.history_raw_hours,
            minute_days=settings.history_minute_days,
            hour_days=settings.history_hour_days,
            max_mb=settings.history_max_mb,
            interval_seconds=settings.metrics_interval_seconds,
        )

    def fitted(self, series_count: int, *, is_sqlite: bool) -> Levels:
        """Return what fits with so many series on a machine: minutes go first, down to four days, then samples.

        An hour of samples and four hours of minutes are always kept: roll-ups are made of them.
        """
        sample_bytes, rollup_bytes = SQLITE_BYTES if is_sqlite else POSTGRES_BYTES
        raw, minutes, hours = self.raw_hours * HOUR, self.minute_days * DAY, self.hour_days * DAY
        series_count = max(1, series_count)
        raw_rate = series_count * sample_bytes / self.interval_seconds  # bytes for each second that is kept
        minute_rate = series_count * rollup_bytes / 60
        room = self.max_mb * 1_000_000 - min(hours, _MONTH) * series_count * rollup_bytes / HOUR
        room -= HOUR * (raw_rate + minute_rate)  # whole hours are purged, so up to one more is there
        if raw * raw_rate + minutes * minute_rate > room:
            wanted = min(minutes, _MINUTES_WANTED)
            minutes = max(wanted, (room - raw * raw_rate) / minute_rate)
            raw = max(HOUR, min(raw, (room - minutes * minute_rate) / raw_rate))
            minutes = max(4 * HOUR, min(minutes, (room - raw * raw_rate) / minute_rate))
        minutes, hours = max(minutes, raw), max(hours, minutes, raw)
        return Levels(round(raw), round(minutes), round(hours))
