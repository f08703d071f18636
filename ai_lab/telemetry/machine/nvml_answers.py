"""Asking NVML: what it answers, and why it does not where it does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

#: Errors after which NVML must be initialised again, for all GPUs and for one.
DRIVER_GONE = {"uninitialized", "driver_not_loaded", "library_not_found", "lib_rm_version_mismatch"}
DEVICE_GONE = {"gpu_is_lost", "reset_required", "gpu_not_found"}
MEMORY = ["memory_total_bytes", "memory_used_bytes", "memory_reserved_bytes", "memory_free_bytes"]


def reason(error: Exception) -> str:
    """Return an error of NVML as a word: ``not_supported`` for ``NVMLError_NotSupported``."""
    name = type(error).__name__.removeprefix("NVMLError_")
    if name == "NVMLError":  # newer than nvidia-ml-py
        return f"error_{getattr(error, 'value', 'unknown')}"
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class Answers:
    """Collects what the driver answers, and why it does not where it does not."""

    def __init__(self, nvml: ModuleType) -> None:
        self.found: dict[str, Any] = {}
        self.unavailable: dict[str, str] = {}
        self._nvml = nvml

    def ask(self, fields: Iterable[str], *calls: Callable[[], dict[str, Any]]) -> None:
        """Fill ``fields`` by the first of ``calls`` that works: drivers differ in which functions they have.

        Raises:
            NVMLError: the GPU or the whole driver is gone, so that nothing else can be asked.
        """
        why = ""
        for call in calls:
            try:
                self.found |= call()
                break
            except self._nvml.NVMLError as error:
                if reason(error) in DRIVER_GONE | DEVICE_GONE:
                    raise
                if why in {"", "function_not_found"}:
                    why = reason(error)
            except UnicodeDecodeError:
                why = "not_readable"
        self.unavailable |= {field: why for field in fields if field not in self.found}


def memory_calls(nvml: ModuleType, handle: Any) -> tuple[Callable[[], dict[str, Any]], ...]:
    """Return the calls that tell the memory of a GPU or a slice, the better first.

    The earlier one counts what the driver keeps for itself as used, and does not tell how much that is.
    """

    def memory() -> dict[str, Any]:
        found = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
        return dict(zip(MEMORY, (found.total, found.used, found.reserved, found.free), strict=True))

    def earlier() -> dict[str, Any]:
        found = nvml.nvmlDeviceGetMemoryInfo(handle)
        return {"memory_total_bytes": found.total, "memory_used_bytes": found.used, "memory_free_bytes": found.free}

    return memory, earlier
