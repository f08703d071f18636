"""What one client has used of a limit, and what follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Two neighbouring windows of one client, as a store counts them.

    Attributes:
        allowed: whether the request that was asked about fitted in and so is counted.
        previous: requests of the window before.
        previous_seconds: how long that one still weighs on this one.
        current: requests of this window.
        left_seconds: until this window ends.
    """

    allowed: bool
    previous: int
    previous_seconds: float
    current: int
    left_seconds: float


@dataclass(frozen=True, slots=True)
class Window:
    """What a client may still do; ``limit`` is 0 where there is none, and then the rest says nothing."""

    limit: int
    remaining: int
    reset_seconds: int
    allowed: bool
    retry_after_seconds: float | None = None

    @classmethod
    def of(cls, usage: Usage, limit: int, period_seconds: float, cost: int = 1) -> Window:
        """Return what a usage means, and when there is room for ``cost`` where there was none.

        The count slides: requests of the window before weigh less with every second, as the share of it that the last
        ``period_seconds`` still cover ("sliding window counter").
        """
        weighted = usage.previous * usage.previous_seconds / period_seconds + usage.current
        remaining = max(0, limit - math.floor(weighted))
        if usage.allowed:
            return cls(limit, remaining, math.ceil(usage.left_seconds), allowed=True)
        seconds = usage.left_seconds
        room = limit - usage.current - (cost - 1)
        if usage.previous and room > 0:  # there is room as soon as the window before weighs less
            room_after = usage.previous_seconds - room * period_seconds / usage.previous
            seconds = min(seconds, max(0.0, room_after))
        retry_after = math.floor(seconds) + 1  # whole seconds, and by then there is room
        return cls(limit, 0, retry_after, allowed=False, retry_after_seconds=retry_after)


#: What there is to say where nothing is limited.
UNLIMITED = Window(0, 0, 0, allowed=True)
