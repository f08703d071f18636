"""What NVML, the driver's own library, tells of one NVIDIA GPU. Nothing here waits, retries or logs.

Units of NVML: milliwatts, millijoules, bytes, megahertz, degrees Celsius, percent. Power is averaged over a second from
Ampere on; utilisation is over a window of the driver's own, between a sixth of a second and a second. Memory in use is
without what the driver keeps for itself, but on drivers before 510 it is with that.
"""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import Any

from ai_lab.telemetry.machine.gpu_processes import read_processes
from ai_lab.telemetry.machine.mig import Slices
from ai_lab.telemetry.machine.nvml_answers import DRIVER_GONE, MEMORY, Answers, memory_calls, reason
from ai_lab.telemetry.schemas import GpuMetrics

_CARRY_SECONDS = 60.0
_MILLI = 1000
_UTILIZATION = ["utilization_percent", "memory_activity_percent"]
_CLOCKS = ("graphics", "sm", "memory", "video")  # in NVML's order
_SLOW = ["fan_speed_percent", "processes"]
_OTHERS = ["temperature_celsius", "power_watts", "power_limit_watts", "energy_joules", "clock_mhz", "throttle_reasons"]
#: Bits of NVML's clock event reasons. Bit 0 is left out: an idle GPU is not held back.
_THROTTLE_REASONS = {
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}


class Device:
    """One GPU, by a handle that is asked for once.

    Args:
        nvml: the module ``pynvml``, initialised.
        index: place in NVML's list.

    Attributes:
        failure: why it cannot be read any more until NVML is initialised again.

    Raises:
        NVMLError: the whole driver is gone.
    """

    def __init__(self, nvml: ModuleType, index: int) -> None:
        self.index = index
        self.failure: str | None = None
        self._nvml = nvml
        self._static = Answers(nvml)
        self._slow = Answers(nvml)
        self._slow_at: float | None = None
        try:
            self._handle = handle = nvml.nvmlDeviceGetHandleByIndex(index)
            self._slices = Slices(nvml, handle)
            self._slices.find()
            self._static.ask(["name"], lambda: {"name": nvml.nvmlDeviceGetName(handle)})
            self._static.ask(["uuid"], lambda: {"uuid": nvml.nvmlDeviceGetUUID(handle)})
        except nvml.NVMLError as error:
            self._fail(error)

    @property
    def is_ours(self) -> bool:
        """Say whether this user may ask it at all."""
        return self.failure != "no_permission"

    def read(self, *, moment: float, with_processes: bool) -> GpuMetrics:
        """Return its values; none where it has failed.

        Args:
            moment: monotonic seconds.
            with_processes: ask for the slow set too; else the last answers are carried along for a minute.

        Raises:
            NVMLError: the whole driver is gone.
        """
        identity = {field: self._static.found.get(field) for field in ("uuid", "name")}
        if not self.failure:
            try:
                if with_processes:
                    self._read_slow()
                    self._slow_at = moment
                elif self._slow_at is None or moment - self._slow_at > _CARRY_SECONDS:
                    self._slow = Answers(self._nvml)
                    self._slow.unavailable = dict.fromkeys(_SLOW, "not_read")
                gpu = self._read()
                if not self.failure:
                    return gpu
            except self._nvml.NVMLError as error:
                self._fail(error)
        values = [*_UTILIZATION, *MEMORY, *_OTHERS, *_SLOW]
        return GpuMetrics(index=self.index, **identity, unavailable=dict.fromkeys(values, self.failure))

    def _fail(self, error: Exception) -> None:
        self.failure = reason(error)
        if self.failure in DRIVER_GONE:
            raise error

    def _read_slow(self) -> None:
        nvml, slow = self._nvml, Answers(self._nvml)
        self._slices.find()
        slow.ask(["fan_speed_percent"], lambda: {"fan_speed_percent": nvml.nvmlDeviceGetFanSpeed(self._handle)})
        read_processes(slow, nvml, self._slices.handles if self._slices.is_enabled else [self._handle])
        self._slow = slow

    def _read(self) -> GpuMetrics:
        """Return its values.

        Raises:
            NVMLError: it is gone, or the whole driver.
        """
        nvml, handle, now = self._nvml, self._handle, Answers(self._nvml)
        now.ask(MEMORY, *memory_calls(nvml, handle))
        if self._slices.is_enabled:
            now.unavailable |= dict.fromkeys(_UTILIZATION, "mig")  # some drivers answer 0 here
        else:
            now.ask(_UTILIZATION, self._utilization)
        now.ask(["temperature_celsius"], self._temperature, self._earlier_temperature)
        now.ask(["power_watts"], lambda: {"power_watts": nvml.nvmlDeviceGetPowerUsage(handle) / _MILLI})
        limit = "power_limit_watts"
        now.ask([limit], lambda: {limit: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / _MILLI})
        joules = "energy_joules"
        now.ask([joules], lambda: {joules: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / _MILLI})
        now.ask(["throttle_reasons"], self._throttle, self._earlier_throttle)
        if not now.found:  # the handle is stale, as after a reset, or access was taken away
            self.failure = now.unavailable["memory_total_bytes"]
        clocks = Answers(nvml)
        for number, domain in enumerate(_CLOCKS):
            clocks.ask([domain], partial(self._clock, number, domain))
        now.unavailable |= {f"clock_mhz.{domain}": why for domain, why in clocks.unavailable.items()}
        return GpuMetrics(
            index=self.index,
            clock_mhz=clocks.found,
            is_mig=self._slices.is_enabled,
            mig_instances=self._slices.read(),
            unavailable=self._static.unavailable | now.unavailable | self._slow.unavailable,
            **self._static.found,
            **now.found,
            **self._slow.found,
        )

    def _utilization(self) -> dict[str, Any]:
        rates = self._nvml.nvmlDeviceGetUtilizationRates(self._handle)
        return {"utilization_percent": rates.gpu, "memory_activity_percent": rates.memory}

    def _temperature(self) -> dict[str, Any]:
        sensor = self._nvml.NVML_TEMPERATURE_GPU
        return {"temperature_celsius": self._nvml.nvmlDeviceGetTemperatureV(self._handle, sensor)}

    def _earlier_temperature(self) -> dict[str, Any]:
        sensor = self._nvml.NVML_TEMPERATURE_GPU
        return {"temperature_celsius": self._nvml.nvmlDeviceGetTemperature(self._handle, sensor)}

    def _throttle(self) -> dict[str, Any]:
        return _throttle_reasons(self._nvml.nvmlDeviceGetCurrentClocksEventReasons(self._handle))

    def _earlier_throttle(self) -> dict[str, Any]:
        return _throttle_reasons(self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle))

    def _clock(self, number: int, domain: str) -> dict[str, Any]:
        return {domain: self._nvml.nvmlDeviceGetClockInfo(self._handle, number)}


def _throttle_reasons(bits: int) -> dict[str, Any]:
    return {"throttle_reasons": [name for bit, name in _THROTTLE_REASONS.items() if bits & bit]}
