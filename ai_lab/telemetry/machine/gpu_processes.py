"""Which processes hold memory of a GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

from ai_lab.telemetry.machine.nvml_answers import Answers
from ai_lab.telemetry.schemas import GpuProcess

_HOST_NAMESPACE = "pid:[4026531836]"  # a constant of Linux: the first namespace of processes
_DEVICES = ("/dev/nvidia", "/dev/dxg")


def read_processes(answers: Answers, nvml: ModuleType, handles: list[Any]) -> None:
    """Fill ``processes`` in: by process id, once for each, whatever it uses the GPU for.

    Args:
        answers: gets them, or the reason why there are none.
        nvml: the module ``pynvml``, initialised.
        handles: of the GPU, or of all its slices where it has some.

    Raises:
        NVMLError: the GPU is gone, or the whole driver.
    """
    used: dict[int, int | None] = {}
    lists = Answers(nvml)
    for use in ("Compute", "Graphics"):
        calls = (f"nvmlDeviceGet{use}RunningProcesses_{version}" for version in ("v3", "v2"))
        lists.ask([use], *(partial(_listed, use, getattr(nvml, call), handles) for call in calls))
        own: dict[int, int | None] = {}
        for process in lists.found.get(use, ()):  # one for each slice that it uses
            before, more = own.get(process.pid, 0), process.usedGpuMemory
            own[process.pid] = None if before is None or more is None else before + more
        # A process can be in both lists, and either shows all of its memory.
        used |= {pid: size if size is not None else used.get(pid) for pid, size in own.items()}
    if "Compute" in lists.unavailable:
        answers.unavailable["processes"] = lists.unavailable["Compute"]
        return
    answers.found["processes"] = [
        GpuProcess(pid=pid, name=process_name(pid), memory_bytes=size) for pid, size in sorted(used.items())
    ]


def _listed(use: str, call: Callable[[Any], list[Any]], handles: list[Any]) -> dict[str, Any]:
    return {use: [process for handle in handles for process in call(handle)]}


def process_name(pid: int, proc: Path = Path("/proc")) -> str | None:
    """Return the name of a process of a GPU; None where it is hidden from us.

    In a container the driver may tell the host's process ids, which belong to others or to nobody there; so a process
    in a container counts only if it can be seen to have the driver open.
    """
    try:
        if _is_contained(proc) and not _has_driver_open(proc / str(pid) / "fd"):
            return None
        return psutil.Process(pid).name()
    except (psutil.Error, OSError):
        return None


def _is_contained(proc: Path) -> bool:
    namespace = proc / "self" / "ns" / "pid"
    return namespace.is_symlink() and str(namespace.readlink()) != _HOST_NAMESPACE


def _has_driver_open(descriptors: Path) -> bool:
    return any(str(each.readlink()).startswith(_DEVICES) for each in descriptors.iterdir())
