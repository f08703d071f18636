"""The process that measures: started, listened to, cancelled, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import sysconfig
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import psutil

from ai_lab.benchmarks.events import Event, decode
from ai_lab.benchmarks.job import CANCEL, Job, job_lines
from ai_lab.errors import BenchmarkFailed
from ai_lab.settings import environment_without_secrets

_log = logging.getLogger(__name__)

_COMMAND = (sys.executable, "-m", "ai_lab.benchmarks.worker")
_ROOT = str(Path(__file__).resolve().parent.parent.parent)
#: Between ``cancel`` and the end by force: the analysis of what was measured takes its time.
CANCEL_SECONDS = 15.0
#: Between the end of its input and the end by force, when nobody waits for a report any more.
_STOP_SECONDS = 2.0
_READ_BYTES = 65_536
_BUFFER_BYTES = 16 * 1024 * 1024
_LONGEST_LINE_BYTES = 256 * 1024 * 1024
_LOOK_SECONDS = 1.0
_LOG_LINES_KEPT = 20
_LONGEST_LOG_LINE = 1000


class WorkerProcess:
    """A running process; made by ``started``."""

    def __init__(self, process: asyncio.subprocess.Process, secrets: Sequence[str]) -> None:
        self.pid = process.pid
        self._process = process
        self._secrets = secrets
        self._words: deque[str] = deque(maxlen=_LOG_LINES_KEPT)
        self._listener = asyncio.create_task(self._listen(), name=f"log of benchmark process {process.pid}")
        self._force: asyncio.TimerHandle | None = None

    @classmethod
    @asynccontextmanager
    async def started(cls, job: Job, command: Sequence[str] | None = None) -> AsyncIterator[WorkerProcess]:
        """Start a process for ``job``; at the end of the block it is gone, whatever happened in there.

        Args:
            job: what it is to do.
            command: another program that speaks the same protocol.

        Raises:
            BenchmarkFailed: it cannot be started.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *(command or _COMMAND),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=_environment(),
                # A database that keeps us waiting must not keep the process waiting, which would be seen in its stamps.
                limit=_BUFFER_BYTES,
                # Ctrl-C at the terminal reaches the whole group; the server decides when its measuring ends.
                start_new_session=os.name == "posix",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as error:
            raise BenchmarkFailed(f"The process that measures cannot be started ({error.strerror}).") from error
        worker = cls(process, [str(key) for one in job.addresses if (key := one.get("api_key"))])
        try:
            await worker._send(job)
            yield worker
        finally:
            await worker._stop()

    async def events(self) -> AsyncGenerator[Event | None, None]:
        """Yield what the process says until it ends, and None for each second in which it says nothing.

        Lines that are no events count as its log.
        """
        rest: list[bytes] = []
        length = 0
        async with aclosing(self._blocks()) as blocks:
            async for block in blocks:
                if not block:
                    yield None
                    continue
                *lines, last = block.split(b"\n")
                for line in lines:
                    whole, rest, length = b"".join((*rest, line)), [], 0
                    if event := self._decoded(whole):
                        yield event
                rest.append(last)
                length += len(last)
                if length > _LONGEST_LINE_BYTES:
                    self._note("a line of its report is too long")
                    self.kill()
                    return

    def cancel(self, grace_seconds: float = CANCEL_SECONDS) -> None:
        """Ask it to stop asking and to report on what it has; one that does not within a while is ended by force."""
        if self._force is None and self._process.stdin is not None:
            self._process.stdin.write(CANCEL)
            self._force = asyncio.get_running_loop().call_later(grace_seconds, self.kill)

    async def last_words(self) -> str:
        """Return how it ended and the last that it said; waits for its end."""
        await self._process.wait()
        await self._end_of_log()
        status = self._process.returncode or 0
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        if -status == getattr(signal, "SIGKILL", 9):
            how += ", perhaps because the machine ran out of memory"
        return f"{how}: {self._words[-1]}" if self._words else how

    async def _send(self, job: Job) -> None:
        stdin = self._process.stdin
        if stdin is None:
            return
        with contextlib.suppress(ConnectionError):  # it died at once: its last words say why
            for line in job_lines(job):
                stdin.write(line)
                await stdin.drain()

    async def _blocks(self) -> AsyncGenerator[bytes, None]:
        """Yield what comes, nothing where that takes long.

        Also ends when the process is gone but a child of it keeps the pipe open.
        """
        stdout = self._process.stdout
        is_gone = False
        while stdout is not None:
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    block = await stdout.read(_READ_BYTES)
            except TimeoutError:
                if is_gone:
                    self.kill()
                    return
                is_gone = self._process.returncode is not None
                yield b""
                continue
            if not block:
                return
            yield block

    def _decoded(self, line: bytes) -> Event | None:
        try:
            event = decode(line)
        except ValueError as error:
            self._note(f"its report cannot be read: {error}")
            return None
        if event is None:
            self._note(line.decode(errors="replace"))
        return event

    async def _listen(self) -> None:
        """Keep the last lines; somebody has to read, or the process stands still when the pipe is full."""
        rest = b""
        while self._process.stderr and (block := await self._process.stderr.read(_READ_BYTES)):
            *lines, rest = (rest + block).split(b"\n")
            rest = rest[-_READ_BYTES:]
            for line in lines:
                self._note(line.decode(errors="replace"))
        self._note(rest.decode(errors="replace"))

    def _note(self, text: str) -> None:
        for secret in self._secrets:
            text = text.replace(secret, "[key]")
        if text := text.strip()[:_LONGEST_LOG_LINE]:
            self._words.append(text)
            _log.debug("benchmark process %d: %s", self.pid, text)

    async def _stop(self) -> None:
        try:
            if self._process.stdin is not None:
                self._process.stdin.close()
            async with asyncio.timeout(_STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:  # also where we are cancelled while we wait
            if self._force:
                self._force.cancel()
            self.kill()
        await self._process.wait()
        await self._end_of_log()

    async def _end_of_log(self) -> None:
        """Wait for the end of its log, but not for a stranger that holds the pipe open."""
        await asyncio.wait({self._listener}, timeout=_STOP_SECONDS)
        self._listener.cancel()

    def kill(self) -> None:
        """End it at once, and the processes that it has started, such as an engine."""
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.Error):
            if os.name == "posix":
                os.killpg(self.pid, signal.SIGKILL)  # its own group also holds children that outlived it
                return
            children = psutil.Process(self.pid).children(recursive=True)
            self._process.kill()
            for child in children:
                child.kill()


def _environment() -> dict[str, str]:
    environment = environment_without_secrets()
    if _ROOT not in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:  # a checkout
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [_ROOT, environment.get("PYTHONPATH")]))
    environment["PYTHONSAFEPATH"] = "1"  # what lies in the current folder must not be taken for a library
    return environment
