"""The slices of a GPU that is partitioned (MIG). NVML gives no utilisation for them, nor for the whole."""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import Any

from ai_lab.telemetry.machine.nvml_answers import MEMORY, Answers, memory_calls
from ai_lab.telemetry.schemas import MigInstance


class Slices:
    """The slices of one GPU; those that share memory each show all of it.

    Args:
        nvml: the module ``pynvml``, initialised.
        gpu: handle of the GPU.

    Attributes:
        is_enabled: the GPU is in the mode that can be partitioned.
    """

    def __init__(self, nvml: ModuleType, gpu: Any) -> None:
        self.is_enabled = False
        self._nvml = nvml
        self._gpu = gpu
        self._slices: list[tuple[MigInstance, Any]] = []

    @property
    def handles(self) -> list[Any]:
        """Return the handles of all slices."""
        return [handle for _, handle in self._slices]

    def find(self) -> None:
        """Look which slices there are: they come and go while the driver runs.

        Raises:
            NVMLError: the GPU is gone, or the whole driver.
        """
        mode = Answers(self._nvml)
        mode.ask(["current"], lambda: {"current": self._nvml.nvmlDeviceGetMigMode(self._gpu)[0]})
        self.is_enabled = mode.found.get("current") == self._nvml.NVML_DEVICE_MIG_ENABLE
        self._slices = []
        if not self.is_enabled:
            return
        mode.ask(["most"], lambda: {"most": self._nvml.nvmlDeviceGetMaxMigDeviceCount(self._gpu)})
        for index in range(mode.found.get("most", 0)):
            found = Answers(self._nvml)
            found.ask(["handle"], partial(self._handle, index))
            if handle := found.found.get("handle"):
                found.ask(["uuid"], partial(self._uuid, handle))
                self._slices.append((MigInstance(index=index, uuid=found.found.get("uuid")), handle))

    def read(self) -> list[MigInstance]:
        """Return the slices with their memory.

        Raises:
            NVMLError: the GPU is gone, or the whole driver.
        """
        return [each.model_copy(update=self._memory(handle)) for each, handle in self._slices]

    def _handle(self, index: int) -> dict[str, Any]:
        return {"handle": self._nvml.nvmlDeviceGetMigDeviceHandleByIndex(self._gpu, index)}

    def _uuid(self, handle: Any) -> dict[str, Any]:
        return {"uuid": self._nvml.nvmlDeviceGetUUID(handle)}

    def _memory(self, handle: Any) -> dict[str, Any]:
        answers = Answers(self._nvml)
        answers.ask(MEMORY, *memory_calls(self._nvml, handle))
        return {name: value for name, value in answers.found.items() if name in MigInstance.model_fields}
