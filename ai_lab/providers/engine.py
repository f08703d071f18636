"""One engine process: started, watched and ended. What it runs is ``engine_child.py``."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import re
import secrets
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_lab.errors import EngineError, ModelDamaged, OutOfMemory
from ai_lab.providers.model_files import ModelFile
from ai_lab.settings import environment_without_secrets

_log = logging.getLogger(__name__)

_CHILD = Path(__file__).with_name("engine_child.py")
_LIBRARY = "xllamacpp"
_LOG_LINES_KEPT = 50
_STOP_SECONDS = 5.0
_SIGKILL = 9  # Windows has no signal of this name
#: How long a thread of the engine spins before it sleeps. OpenMP's own count is so high that a token takes several
#: times as long where something else wants a core as well; this one costs nothing on a quiet machine.
_SPIN_COUNT = "1000"
_LOG_PREFIX = re.compile(r"^[\d.]+ (?P<level>[DIWE]) (?P<text>.*)$")
_MEMORY_TEXT = re.compile(
    r"out of memory|(failed|unable|cannot) to allocate|bad_alloc|insufficient memory", re.IGNORECASE
)
_UNKNOWN_KIND_TEXT = re.compile(r"unknown (model architecture|pre-tokenizer|ggml type)|unsupported", re.IGNORECASE)

INSTALL_REMEDY = "Reinstall AI Lab's requirements on a platform that has xllamacpp, or use another provider."


@dataclass(frozen=True)
class EngineSettings:
    """How an engine runs its model. ``context_tokens`` is the context of each of the ``slots``."""

    context_tokens: int
    slots: int
    threads: int
    gpu_layers: int
    cuda_visible_devices: str | None
    needed_bytes: int
    free_bytes: int


def library_folder() -> str | None:
    """Return the folder that has xllamacpp in it, or None if it is not installed."""
    spec = importlib.util.find_spec(_LIBRARY)
    return str(Path(spec.origin).parent.parent) if spec and spec.origin else None


class Engine:
    """A running engine with one model loaded; made by ``start``.

    Attributes:
        file: the loaded model.
        pid: its process.
        base_url: its address, without ``/v1``.
        api_key: what it wants as bearer token.
    """

    def __init__(self, file: ModelFile, settings: EngineSettings, process: asyncio.subprocess.Process) -> None:
        self.file = file
        self.settings = settings
        self.pid = process.pid
        self.base_url = ""
        self.api_key = secrets.token_urlsafe(32)
        self._process = process
        self._log_lines: deque[str] = deque(maxlen=_LOG_LINES_KEPT)
        self._log_reader = asyncio.create_task(self._read_log(), name=f"log of engine {process.pid}")

    @classmethod
    async def start(cls, file: ModelFile, settings: EngineSettings, *, timeout_seconds: float) -> Engine:
        """Start a process and wait until it has loaded the model.

        Raises:
            EngineError: the library is missing or does not run here, or loading took too long.
            ModelDamaged: the model file cannot be loaded.
            OutOfMemory: there is not enough memory for it.
        """
        packages_folder = library_folder()
        if packages_folder is None:
            raise EngineError(f"The embedded engine (xllamacpp) is not installed. {INSTALL_REMEDY}")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",  # neither PYTHON* variables nor the user's packages change what runs
            "-S",
            str(_CHILD),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(settings.cuda_visible_devices),
        )
        engine = cls(file, settings, process)
        try:
            async with asyncio.timeout(timeout_seconds):
                await engine._load(packages_folder)
        except BaseException as error:
            await engine.stop(grace_seconds=0)
            if isinstance(error, TimeoutError):
                raise EngineError(
                    f"The engine did not load {file.path} within {timeout_seconds:g} s. Choose a smaller model, or "
                    "raise AI_LAB_REQUEST_TIMEOUT_SECONDS."
                ) from None
            raise
        _log.info(
            "engine %d runs %s with %d x %d tokens", engine.pid, file.name, settings.slots, settings.context_tokens
        )
        return engine

    @property
    def alive(self) -> bool:
        """Return whether the process runs, as far as is known."""
        return self._process.returncode is None

    async def death(self, *, within_seconds: float) -> str | None:
        """Return how the process died, such as ``signal 9``, or None if it still runs after so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_seconds):
                await self._process.wait()
        return None if self.alive else _status_text(self._process.returncode)

    async def stop(self, *, grace_seconds: float = _STOP_SECONDS) -> None:
        """End the process: ask it by closing its input, then kill it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        if await self.death(within_seconds=grace_seconds) is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
        await self._log_reader

    def last_words(self) -> str:
        """Return the last error in llama.cpp's log, or its last line, or nothing."""
        lines = list(self._log_lines)
        errors = [text for line in lines if (text := _error_text(line))]
        said = [text for text in errors if "error loading model:" in text] or errors or lines or [""]
        return said[-1].rpartition("error loading model:")[2].strip()

    async def _load(self, packages_folder: str) -> None:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise EngineError("The engine process has no pipes.")
        config = {
            "parent_pid": os.getpid(),
            "packages_folder": packages_folder,
            "model_path": str(self.file.path),
            "model_name": self.file.name,
            "api_key": self.api_key,
            **{name: value for name, value in vars(self.settings).items() if name != "cuda_visible_devices"},
        }
        stdin.write(json.dumps(config).encode() + b"\n")
        with contextlib.suppress(ConnectionError):  # it died at once; how is said below
            await stdin.drain()
        line = await stdout.readline()
        report: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {}
        if "ready" not in report:
            await self._process.wait()
            await self._log_reader
            raise self._load_error(report)
        self.base_url = report["ready"]

    def _load_error(self, report: dict[str, Any]) -> EngineError:
        path, why = self.file.path, self.last_words()
        kind = report.get("kind")
        status = self._process.returncode
        if kind == "import":
            return EngineError(f"The embedded engine does not run here: {report['error']}. {INSTALL_REMEDY}")
        if kind == "memory" or status == -_SIGKILL or _MEMORY_TEXT.search("\n".join(self._log_lines)):
            return OutOfMemory(
                f"{self.file.name} needs about {_mb(self.settings.needed_bytes)} MB of memory and "
                f"{_mb(self.settings.free_bytes)} MB are free. Choose a smaller model, set a smaller "
                "AI_LAB_CONTEXT_TOKENS or AI_LAB_ENGINE_SLOTS, or close other programs."
            )
        if kind == "load" and _UNKNOWN_KIND_TEXT.search(why):
            return EngineError(f"The engine cannot run {path}: {why}. Choose another model, or a newer xllamacpp.")
        if kind == "load" and "bind" in why:
            return EngineError(f"The engine found no free port: {why}. Try again.")
        if kind == "load":
            return ModelDamaged(f"{path} cannot be loaded: {why}. Download the file again, or remove it.")
        return EngineError(
            f"The engine died while it loaded {path} ({_status_text(status)}): {why}. The file may be damaged, or made "
            "for a newer engine: download it again or choose another model."
        )

    async def _read_log(self) -> None:
        """Keep the last lines; somebody has to read, or the engine stands still when the pipe is full."""
        rest = b""
        while self._process.stderr and (block := await self._process.stderr.read(65_536)):
            *lines, rest = (rest + block).split(b"\n")
            rest = rest[-65_536:]
            for line in lines:
                text = line.decode(errors="replace").replace(self.api_key, "[key]").rstrip()
                self._log_lines.append(text)
                _log.debug("engine %d: %s", self.pid, text)


def _environment(cuda_visible_devices: str | None) -> dict[str, str]:
    environment = environment_without_secrets()
    environment.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)
    if cuda_visible_devices is not None:
        environment["CUDA_VISIBLE_DEVICES"] = cuda_visible_devices
    return environment


def _error_text(line: str) -> str | None:
    match = _LOG_PREFIX.match(line)
    return match["text"] if match and match["level"] == "E" else None


def _status_text(status: int | None) -> str:
    return f"signal {-status}" if status is not None and status < 0 else f"exit status {status}"


def _mb(count: int) -> int:
    return max(0, count) // 1_000_000
