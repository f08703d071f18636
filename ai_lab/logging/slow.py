"""Say what took long, without making a slow disk slower."""

from __future__ import annotations

import logging
import math
import threading
import time

logger = logging.getLogger("ai_lab.slow")

_WINDOW_SECONDS = 60.0
_ENTRIES_PER_WINDOW = 10


class SlowOperations:
    """Logs operations that took longer than the threshold: ten a minute of each kind, and how many it left out.

    Args:
        threshold_ms: operations that take longer are slow; 0 logs none.
    """

    def __init__(self, threshold_ms: float) -> None:
        self._threshold_seconds = threshold_ms / 1000 if threshold_ms > 0 else math.inf
        # Reentrant: a monitored generator that is collected as garbage may report while this thread is in here.
        self._lock = threading.RLock()
        self._windows: dict[str, _Window] = {}

    def __call__(self, kind: str, name: str, seconds: float) -> None:
        """Take note of an operation that has ended (any thread).

        Args:
            kind: what it was: ``http``, ``database``, ``provider`` or ``function``.
            name: which one; must not hold what a user sent.
            seconds: how long it took; of a stream, until its first byte.
        """
        if seconds < self._threshold_seconds:
            return
        with self._lock:
            suppressed = self._windows.setdefault(kind, _Window()).enter(time.monotonic())
        if suppressed is None:
            return
        fields = {"kind": kind, "operation": name, "duration_ms": round(seconds * 1000, 1)}
        logger.warning("slow operation", extra=fields | ({"suppressed": suppressed} if suppressed else {}))


class _Window:
    """The entries of one kind in the current minute."""

    def __init__(self) -> None:
        self._began = -math.inf
        self._entries = self._suppressed = 0

    def enter(self, now: float) -> int | None:
        """Return None where there were enough entries, else how many were left out since the last one."""
        if now - self._began >= _WINDOW_SECONDS:
            self._began, self._entries = now, 0
        if self._entries >= _ENTRIES_PER_WINDOW:
            self._suppressed += 1
            return None
        self._entries += 1
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed
