"""How late the measuring event loop runs what is due: while it is late, stamps are late too."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque

_PERIOD_SECONDS = 0.01
_MOST_UNSEEN = 6000  # a minute of delays that nobody asked for
_BUCKETS_PER_E = 100  # a bucket is 1 % wide
_P99 = 0.99


class LoopLag:
    """Sets a timer every 10 ms and notes how late it runs; takes 1 % of a processor at most.

    Loops on epoll wait in whole milliseconds when something else woke them before: up to 1 ms means nothing. How late
    stamps really are is measured in ``instrument.py``.
    """

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._unseen: deque[float] = deque(maxlen=_MOST_UNSEEN)  # appended to and emptied by two threads, atomically
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin, in the running event loop."""
        self._set(asyncio.get_running_loop())

    def close(self) -> None:
        """End; what was noted can still be taken."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def take_p99_ms(self) -> float | None:
        """Return the 99th percentile of delays since the last call (± 0.5 %, milliseconds); None: there were none.

        For the loop's own thread.
        """
        counts, self._counts = self._counts, Counter()
        wanted = math.ceil(_P99 * counts.total())
        seen = 0
        for bucket in sorted(counts):
            seen += counts[bucket]
            if seen >= wanted:
                return math.expm1((bucket + 0.5) / _BUCKETS_PER_E) / 1000
        return None

    def take_worst_ms(self) -> float | None:
        """Return the worst delay since the last call (milliseconds), from any thread; None: no timer ran since.

        A loop that is stuck runs none: the delay is in the first value after that.
        """
        worst = None
        while self._unseen:
            lag = self._unseen.popleft()
            worst = lag if worst is None else max(worst, lag)
        return worst

    def _set(self, loop: asyncio.AbstractEventLoop) -> None:
        due = time.perf_counter() + _PERIOD_SECONDS
        self._timer = loop.call_later(_PERIOD_SECONDS, self._note, loop, due)

    def _note(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        lag_ms = max(0.0, 1000 * (time.perf_counter() - due))
        self._counts[int(_BUCKETS_PER_E * math.log1p(1000 * lag_ms))] += 1
        self._unseen.append(lag_ms)
        self._set(loop)
