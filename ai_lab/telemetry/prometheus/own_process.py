"""What the process knows of itself: its use of the machine, and how much it logs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import psutil

from ai_lab.telemetry.prometheus.registry import Reading


class OwnProcess:
    """Reads, at a scrape, what every program shows under the same names; it asks the system only, and no device."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    def __call__(self) -> Iterator[Reading]:
        """Yield every value that this system has, as far as a sandbox lets it be read."""
        process = self._process
        with process.oneshot(), suppress(psutil.Error, OSError):
            times, memory = process.cpu_times(), process.memory_info()
            yield "process_cpu_seconds_total", (), times.user + times.system
            yield "process_virtual_memory_bytes", (), memory.vms
            yield "process_resident_memory_bytes", (), memory.rss
            yield "process_start_time_seconds", (), process.create_time()
            if sys.platform != "win32":
                yield "process_open_fds", (), process.num_fds()
            if sys.platform == "linux":
                yield "process_max_fds", (), process.rlimit(psutil.RLIMIT_NOFILE)[0]


class CountingHandler(logging.Handler):
    """Counts log entries by level; ``count`` gets the level's name."""

    def __init__(self, count: Callable[[str], None]) -> None:
        super().__init__()
        self._count = count

    def emit(self, record: logging.LogRecord) -> None:
        """Count one entry."""
        self._count(record.levelname)
