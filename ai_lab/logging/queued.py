"""Hand log records to a thread that writes them: whoever logs waits for no disk and no terminal."""

from __future__ import annotations

import copy
import logging
import logging.handlers
import sys
import threading
from collections.abc import Sequence
from queue import SimpleQueue
from typing import TextIO

from ai_lab.logging.context import request_ids
from ai_lab.logging.log_file import LogFile

#: Records that may wait, about 10 MB of them; what comes on top is dropped and counted.
CAPACITY = 10_000
_CLOSE_SECONDS = 5.0
_OWN_NAME = "ai_lab.logging"


class Sink(logging.StreamHandler[TextIO | LogFile]):
    """Formats and writes records. One that cannot be shown leaves a line that says so, without its contents."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """Say which entry was lost."""
        if record.name != _OWN_NAME:  # else writing itself fails, and there is nowhere to say so
            self.handle(_notice("a log entry could not be shown", record))

    def close(self) -> None:
        """Close the file, where it is one; standard error stays open."""
        super().close()
        if isinstance(self.stream, LogFile):
            self.stream.close()


class QueuedHandler(logging.handlers.QueueHandler):
    """Takes records in any thread and lets one thread write them, in order.

    Args:
        sinks: where each record goes; they are this handler's own from now on.
        capacity: records that may wait.
    """

    def __init__(self, sinks: Sequence[Sink], capacity: int = CAPACITY) -> None:
        self._waiting: SimpleQueue[logging.LogRecord | None] = SimpleQueue()
        super().__init__(self._waiting)
        self._sinks, self._capacity = sinks, capacity
        self._dropped = self._dropped_told = 0
        self._thread = threading.Thread(target=self._write_all, name="log-writer", daemon=True)
        self._thread.start()

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Return a copy that stays as it is: its text is made now, and it has the ids of the request."""
        ready = copy.copy(record)
        ready.msg, ready.args = record.getMessage(), None
        if ids := request_ids.get():
            fields = ready.__dict__
            fields.setdefault("request_id", ids.request_id)
            fields.setdefault("trace_id", ids.trace_id)
        return ready

    def enqueue(self, record: logging.LogRecord) -> None:
        """Let the record wait for the thread, if there is room."""
        if self._waiting.qsize() >= self._capacity:
            self._dropped += 1  # under this handler's lock
        else:
            self._waiting.put(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """Say which entry was lost: its text does not fit its arguments."""
        self._waiting.put(_notice("a log entry could not be put together", record))

    def close(self) -> None:
        """Write what waits, for some seconds at most, and end; the standard library calls this at exit."""
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join(_CLOSE_SECONDS)
        super().close()

    def _write_all(self) -> None:
        while record := self._waiting.get():
            self._write(record)
            if self._dropped > self._dropped_told and self._waiting.qsize() < self._capacity // 2:
                dropped = self._dropped
                self._write(_notice("log entries were dropped", None, entries_dropped=dropped - self._dropped_told))
                self._dropped_told = dropped
        for sink in self._sinks:
            sink.close()

    def _write(self, record: logging.LogRecord) -> None:
        for sink in self._sinks:
            try:
                sink.handle(record)
            except RecursionError:  # the one error that the standard library lets through
                sink.handleError(record)


def _notice(event: str, about: logging.LogRecord | None, **fields: object) -> logging.LogRecord:
    """Return a record of our own, about another one or an occasion."""
    if about is not None:
        error = sys.exc_info()[0]
        fields = {"from_logger": about.name, "line": about.lineno, "error": error.__name__ if error else "", **fields}
    level = {"name": _OWN_NAME, "levelno": logging.WARNING, "levelname": "WARNING", "msg": event}
    return logging.makeLogRecord({**level, **fields})
