"""The process that measures. It takes a job on standard input and says on standard output what it measures.

Started by ``process.py``; see ``job.py`` and ``events.py`` for what is said. It ends when its input does: then the one
who wanted to know is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import queue
import signal
import sys
import threading
import traceback

from ai_lab.benchmarks.events import Compared, Event, Failed, Outcome, Reported, encode
from ai_lab.benchmarks.job import CANCEL, Job, read_job, settings_in_child
from ai_lab.errors import BenchmarkFailed, LabError

_PR_SET_PDEATHSIG = 1
#: A thread that wants to run waits at most so long for another one: stamps must not wait for the samples' arithmetic.
_SWITCH_SECONDS = 0.0005
_READ_BYTES = 65_536
_FILES_ON_MACOS = 10_240  # says that it has no limit, and refuses more


def main() -> None:
    """Do one job, then end."""
    _tie_to_parent()
    _allow_many_files()
    said = _Output()
    heard = _Input()
    try:
        job = read_job(heard)
    except EOFError:
        return
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        asyncio.run(_work(job, said, heard))
    except LabError as error:
        said.tell(Failed(error.code, error.detail))
    finally:
        said.close()


async def _work(job: Job, said: _Output, heard: _Input) -> None:
    # Only here: numpy takes its time to load, and the server has long been told that somebody works.
    from ai_lab.benchmarks.analysis.summary import analyse  # noqa: PLC0415 - see above
    from ai_lab.benchmarks.load.loops import ServerGone  # noqa: PLC0415 - see above
    from ai_lab.benchmarks.measurement import Measurement, stored_data  # noqa: PLC0415 - see above

    if job.kind == "compare":
        from ai_lab.benchmarks.analysis.historical import compare_stored  # noqa: PLC0415 - see above

        said.tell(Compared(compare_stored(job)))
        return
    outcome: Outcome = job.outcome
    error: str | None = None
    if job.kind == "analyse":
        data = stored_data(job)
    else:
        measurement = Measurement(job, settings_in_child(job.settings), said.tell)
        data = measurement.data
        measuring = asyncio.create_task(measurement.run())
        _watch(heard, asyncio.get_running_loop(), measuring)
        try:
            await measuring
        except asyncio.CancelledError:
            outcome = "cancelled"
        except ServerGone as gone:
            outcome, error = "failed", str(gone)
    data.was_cancelled = outcome == "cancelled"
    if outcome == "complete" and not any(one.status in {"ok", "short"} for one in data.records):
        outcome = "failed"
        texts = {one.error for one in data.records if one.error}
        error = f"No request succeeded. {'; '.join(sorted(texts)[:3])}" if texts else BenchmarkFailed.title
    said.tell(Reported(analyse(data), outcome, error))


def _watch(heard: _Input, loop: asyncio.AbstractEventLoop, measuring: asyncio.Task[None]) -> None:
    def watch() -> None:
        while line := heard.readline():
            if line == CANCEL:
                with contextlib.suppress(RuntimeError):  # the loop has just ended
                    loop.call_soon_threadsafe(measuring.cancel)
        os._exit(0)  # engines end with us

    threading.Thread(target=watch, daemon=True, name="input").start()


def _tie_to_parent() -> None:
    """End with the server, also where that is killed while this process is busy."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)


def _allow_many_files() -> None:
    """Take as many open files as we may have: an open loop has a connection for every request in flight."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has no such limit
        import resource  # noqa: PLC0415 - not there on every system

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        allowed = _FILES_ON_MACOS if most == resource.RLIM_INFINITY else most
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))


class _Input:
    """Standard input by lines, without a lock that a thread which waits for ever would hold at the end."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def readline(self) -> bytes:
        """Return the next line with its end, or what is left at the end of the input."""
        searched = 0
        while (end := self._rest.find(b"\n", searched)) < 0:
            searched = len(self._rest)
            if not (block := os.read(0, _READ_BYTES)):
                end = searched - 1
                break
            self._rest += block
        line = bytes(self._rest[: end + 1])
        del self._rest[: end + 1]
        return line


class _Output:
    """Writes events in a thread, so that a server that is slow to read delays no stamp."""

    def __init__(self) -> None:
        self._pipe = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)  # what a library prints must not look like an event
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, daemon=True, name="output")
        self._writer.start()

    def tell(self, event: Event) -> None:
        """Say something; returns at once."""
        self._events.put(event)

    def close(self) -> None:
        """Return when everything is said."""
        self._events.put(None)
        self._writer.join()

    def _write(self) -> None:
        try:
            while (event := self._events.get()) is not None:
                self._pipe.write(encode(event))
                self._pipe.flush()
        except BrokenPipeError:  # whoever wanted to know is gone: so says the end of the input
            pass
        except (ValueError, TypeError, RecursionError, OSError):
            traceback.print_exc()
            os._exit(1)  # what is measured from now on would reach nobody


if __name__ == "__main__":
    main()
