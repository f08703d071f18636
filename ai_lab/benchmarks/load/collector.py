"""Python's garbage collector must not hold up what is being measured."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

_COLLECT_EVERY = 5000  # requests in a block, so that what they left behind does not grow without bound


class Collector:
    """Keeps Python's cyclic garbage collector out of a block, and knows how long it held it up all the same."""

    def __init__(self) -> None:
        self.pause_ms = 0.0  # in the latest block
        self._requests = 0
        self._began_ns = 0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Collect, then leave the collector off until the end of the block."""
        gc.collect()
        gc.freeze()  # records are kept to the end of the run: a look at all of them would take longer every time
        was_on = gc.isenabled()
        gc.disable()
        gc.callbacks.append(self._note)
        self.pause_ms = 0.0
        try:
            yield
        finally:
            gc.callbacks.remove(self._note)
            if was_on:
                gc.enable()

    def count_request(self) -> None:
        """Collect the youngest objects now and then, so that what requests leave behind does not grow without bound."""
        self._requests += 1
        if self._requests % _COLLECT_EVERY == 0:
            gc.collect(0)

    def _note(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._began_ns = time.perf_counter_ns()
        else:
            self.pause_ms += (time.perf_counter_ns() - self._began_ns) / 1e6
