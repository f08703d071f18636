"""GPUs as their driver reports them. A driver that hangs, fails, appears or disappears is a status, never an error."""

from __future__ import annotations

import ctypes
import logging
import math
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from importlib import import_module
from queue import SimpleQueue
from types import ModuleType

from ai_lab.telemetry.machine.host import READ_ERRORS
from ai_lab.telemetry.machine.nvml import Device
from ai_lab.telemetry.machine.nvml_answers import Answers, reason
from ai_lab.telemetry.schemas import GpuBackend, GpuMetrics, GpuStatus

_log = logging.getLogger(__name__)
THREAD_NAME = "ai-lab-gpu"
_FIRST_RETRY_SECONDS = 60.0
_LONGEST_RETRY_SECONDS = 600.0
_CLOSE_SECONDS = 1.0

#: What a foreign version of NVML or of its module may raise.
_UNEXPECTED = (*READ_ERRORS, ImportError)

Reading = tuple[list[GpuMetrics], GpuBackend]

_FAILURES: dict[str, tuple[GpuStatus, str]] = {
    "library_not_found": ("no_driver", "there is no NVIDIA driver here: its library NVML cannot be loaded"),
    "driver_not_loaded": ("no_driver", "the NVIDIA driver is installed, but its kernel module is not loaded"),
    "no_permission": ("no_permission", "this user may not ask the NVIDIA driver: give it access to /dev/nvidia*"),
    "lib_rm_version_mismatch": (
        "error",
        "library and kernel module of the NVIDIA driver differ, as after an update: reboot the machine",
    ),
}
_NO_DRIVER = GpuBackend(status="no_driver", detail=_FAILURES["library_not_found"][1])


class GpuReader:
    """Reads all NVIDIA GPUs through NVML. It never raises and bounds its own time.

    Calls into a driver can hang for good, so that all of them are made in one thread of their own. While one is out,
    no other is made; the thread is a daemon, for which the end of the program does not wait.

    Args:
        timeout_seconds: the longest that ``read`` waits. Starting a driver that sleeps may take longer: the first
            reading then says so, and a later one has the figures.
        clock: monotonic seconds, by which values age and a missing driver is asked again.
    """

    def __init__(self, *, timeout_seconds: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_seconds = timeout_seconds
        self._driver = _Driver(clock)
        self._requests: SimpleQueue[tuple[Future[Reading], bool] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pending: Future[Reading] | None = None
        self._said: GpuBackend | None = None
        self._is_closed = False

    def read(self, *, with_processes: bool) -> Reading:
        """Return the GPUs and where their figures come from; for one caller at a time.

        A GPU that the driver lists but has lost is in the list without values, so that the others keep their places.
        One that this user may not ask is left out.

        Args:
            with_processes: ask for what is slow to ask for too: processes, fans, slices. Else the last answers are
                carried along, for a minute at most.
        """
        if self._is_closed:
            return [], GpuBackend(status="disabled", detail="the reader was closed")
        gpus, backend = self._ask(with_processes=with_processes)
        if backend != self._said:
            is_usual = not backend.detail or (not self._said and backend.status in {"no_driver", "no_gpu"})
            level = logging.INFO if is_usual else logging.WARNING
            _log.log(level, "GPUs: %s", backend.detail or f"{len(gpus)}, NVIDIA driver {backend.driver_version}")
            self._said = backend
        return gpus, backend

    def close(self) -> None:
        """Let go of the driver; one that hangs is left to itself."""
        self._is_closed = True
        self._requests.put(None)
        if self._thread and not self._pending:
            self._thread.join(_CLOSE_SECONDS)

    def _ask(self, *, with_processes: bool) -> Reading:
        is_alive = self._thread is not None and self._thread.is_alive()
        if is_alive and self._pending and not self._pending.done():
            return _unread("the driver does not answer")
        if not is_alive:
            self._thread = threading.Thread(target=self._serve, name=THREAD_NAME, daemon=True)
            self._thread.start()
        self._pending = future = Future[Reading]()  # whatever came too late is dropped here: it is old
        self._requests.put((future, with_processes))
        try:
            reading = future.result(self._timeout_seconds)
        except TimeoutError:
            return _unread("the driver does not answer")
        except _UNEXPECTED as error:
            reading = _unread(f"NVML cannot be used: {type(error).__name__}: {error}")
        self._pending = None
        return reading

    def _serve(self) -> None:
        """Be the thread."""
        while request := self._requests.get():
            future, with_processes = request
            try:
                future.set_result(self._driver.read(with_processes=with_processes))
            except _UNEXPECTED as error:
                future.set_exception(error)
        self._driver.close()


def _unread(detail: str) -> Reading:
    return [], GpuBackend(status="error", detail=detail)


class _Driver:
    """The library NVML: initialised once, and again, ever more rarely, while anything of it is missing."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._devices: list[Device] = []
        self._nvml: ModuleType | None = None
        self._backend = _NO_DRIVER
        self._most_devices = 0
        self._is_open = False
        self._open_at = -math.inf
        self._retry_seconds = _FIRST_RETRY_SECONDS

    def read(self, *, with_processes: bool) -> Reading:
        """Return what can be read now."""
        moment = self._clock()
        is_due = moment >= self._open_at
        if is_due and self._nvml is None and _has_library():
            self._nvml = import_module("pynvml")  # takes a tenth of a second and some megabytes
        nvml = self._nvml
        if nvml is None:
            if is_due:
                self._open_later(moment)
            return [], self._backend
        try:
            if is_due:
                self._open(nvml)
            gpus = [device.read(moment=moment, with_processes=with_processes) for device in self._devices]
        except (nvml.NVMLError, *_UNEXPECTED) as error:
            self.close()
            self._backend = _failed(error)
            gpus = []
        backend = self._with_devices(self._backend)
        if backend.status == "ok" and backend.detail is None:
            self._retry_seconds = _FIRST_RETRY_SECONDS
        elif self._open_at == math.inf:
            self._open_later(moment)
        return [gpu for gpu, device in zip(gpus, self._devices, strict=True) if device.is_ours], backend

    def close(self) -> None:
        """Drop all handles and let go of the library."""
        self._devices = []
        if self._nvml and self._is_open:
            self._is_open = False
            try:
                self._nvml.nvmlShutdown()
            except self._nvml.NVMLError:
                _log.debug("NVML does not shut down", exc_info=True)

    def _open_later(self, moment: float) -> None:
        self._open_at = moment + self._retry_seconds
        self._retry_seconds = min(2 * self._retry_seconds, _LONGEST_RETRY_SECONDS)

    def _open(self, nvml: ModuleType) -> None:
        self.close()
        self._open_at = math.inf
        nvml.nvmlInit()
        self._is_open = True
        system = Answers(nvml)
        system.ask(["driver_version"], lambda: {"driver_version": nvml.nvmlSystemGetDriverVersion()})
        system.ask(["cuda_version"], lambda: {"cuda_version": _cuda_version(nvml.nvmlSystemGetCudaDriverVersion_v2())})
        self._backend = GpuBackend(status="ok", **system.found)
        self._devices = [Device(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
        self._most_devices = max(self._most_devices, len(self._devices))

    def _with_devices(self, backend: GpuBackend) -> GpuBackend:
        """Return what is to be said of the driver with regard to how its GPUs do."""
        if backend.status != "ok":
            return backend
        ours = [device for device in self._devices if device.is_ours]
        faults = [f"GPU {device.index} cannot be read: {device.failure}" for device in ours if device.failure]
        if missing := self._most_devices - len(self._devices):
            faults.append(f"{missing} of {self._most_devices} GPUs are missing")
        status: GpuStatus = "ok"
        if not self._devices and not missing:
            status, faults = "no_gpu", ["the NVIDIA driver finds no GPU"]
        elif not ours and self._devices:
            status, faults = "no_permission", [_FAILURES["no_permission"][1]]
        elif all(device.failure for device in ours):
            status = "error"
        return backend.model_copy(update={"status": status, "detail": "; ".join(faults) or None})


def _has_library() -> bool:
    """Return whether there is anything that the module ``pynvml`` could load; most machines have no such driver."""
    if sys.platform == "win32":  # several places are possible, which the module knows
        return True
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def _failed(error: Exception) -> GpuBackend:
    """Return what an error of the whole library means."""
    status, detail = _FAILURES.get(reason(error), ("error", f"NVML fails: {error}; nvidia-smi may tell more"))
    return GpuBackend(status=status, detail=detail)


def _cuda_version(number: int) -> str:
    """Return 13.1 for 13010."""
    return f"{number // 1000}.{number % 1000 // 10}"
