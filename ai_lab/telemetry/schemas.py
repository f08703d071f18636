"""The JSON shapes of telemetry. None means that it cannot be measured here; it is never shown as 0."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field


def encodable(name: str) -> str:
    """Return a name that JSON, SQLite and Prometheus take; two different ones stay different.

    Names of files, devices and programs may be any bytes. Python reads those that are no UTF-8 as lone surrogates,
    which cannot be written again as they are: they come out spelt.
    """
    return name.encode("utf-8", "backslashreplace").decode()


#: A name that somebody else has given.
Name = Annotated[str, AfterValidator(encodable)]

GpuStatus = Literal["ok", "no_driver", "no_gpu", "no_permission", "error", "disabled"]


class CpuMetrics(BaseModel):
    """Processor time over the last interval, in percent of what ``scope`` has (of all cores, 0 to 100)."""

    count: int = Field(description="Logical processors of the machine.")
    effective_count: float = Field(description="Processors this process may use: affinity and container limit.")
    usage_percent: float | None = Field(description="Of the host's processors, or of the limit inside a container.")
    user_percent: float | None = None
    system_percent: float | None = None
    iowait_percent: float | None = None
    steal_percent: float | None = Field(default=None, description="Taken by other guests of the same hypervisor.")
    per_core_percent: list[float] | None = None
    load_average: list[float] | None = Field(default=None, description="Over 1, 5 and 15 minutes.")
    frequency_mhz: float | None = None
    pressure_percent: float | None = Field(default=None, description="Time in which a task waited for a CPU (PSI).")
    limit_cores: float | None = Field(default=None, description="Limit of the container.")
    throttled_percent: float | None = Field(
        default=None, description="Share of the scheduler's periods in which the limit held the container back."
    )


class MemoryMetrics(BaseModel):
    """Main memory, in bytes; inside a limited container that of the container."""

    total_bytes: int
    available_bytes: int
    used_bytes: int
    usage_percent: float
    swap_total_bytes: int | None = None
    swap_used_bytes: int | None = None
    pressure_percent: float | None = Field(default=None, description="Time in which a task waited for memory (PSI).")
    limit_bytes: int | None = Field(default=None, description="Limit of the container.")
    working_set_bytes: int | None = Field(default=None, description="Of the container: in use and not droppable.")


class FilesystemMetrics(BaseModel):
    """One mounted filesystem."""

    mountpoint: Name
    total_bytes: int
    free_bytes: int = Field(description="Free to this user.")
    used_percent: float


class DiskMetrics(BaseModel):
    """Traffic of one block device over the last interval."""

    device: Name
    read_bytes_per_second: float
    write_bytes_per_second: float
    busy_percent: float | None = None


class NetworkMetrics(BaseModel):
    """Traffic of one network interface over the last interval; the loopback is left out."""

    interface: Name
    receive_bytes_per_second: float
    transmit_bytes_per_second: float


class TemperatureMetrics(BaseModel):
    """One sensor of the machine."""

    chip: Name
    sensor: Name
    celsius: float


class GpuProcess(BaseModel):
    """A process with memory on a GPU."""

    pid: int
    name: Name | None
    memory_bytes: int | None


class MigInstance(BaseModel):
    """A slice of a partitioned GPU; NVML gives no utilisation for it."""

    index: int
    uuid: str | None = None
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None


class GpuMetrics(BaseModel):
    """One GPU as its driver reports it. ``unavailable`` says why a value is missing: field -> reason."""

    index: int
    uuid: str | None = None
    name: Name | None = None
    utilization_percent: float | None = Field(default=None, description="Time in which any kernel ran.")
    memory_activity_percent: float | None = Field(default=None, description="Time in which memory was read or written.")
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    memory_reserved_bytes: int | None = Field(default=None, description="By the driver; not part of used.")
    memory_free_bytes: int | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    energy_joules: float | None = Field(default=None, description="Since the driver was loaded.")
    clock_mhz: dict[str, int] = Field(default_factory=dict, description="By domain: graphics, sm, memory, video.")
    fan_speed_percent: float | None = None
    throttle_reasons: list[str] | None = Field(default=None, description="Active reasons; empty: runs freely.")
    is_mig: bool = False
    mig_instances: list[MigInstance] = Field(default_factory=list)
    processes: list[GpuProcess] | None = None
    unavailable: dict[str, str] = Field(default_factory=dict)


class GpuBackend(BaseModel):
    """Where GPU figures come from, and why there are none where there are none."""

    name: str = "nvml"
    status: GpuStatus
    driver_version: str | None = None
    cuda_version: str | None = None
    detail: str | None = None


class ProcessMetrics(BaseModel):
    """A process: the server itself or a child of it. ``cpu_percent`` is of one core: two busy cores are 200."""

    pid: int
    name: Name
    cpu_percent: float | None
    rss_bytes: int
    threads: int | None = None
    open_files: int | None = None
    uptime_seconds: float


class SystemMetrics(BaseModel):
    """The latest sample. The seven flat names come first, as earlier clients read them; the rest is by part."""

    timestamp: datetime = Field(description="When the sample was taken.")
    sample_age_seconds: float = Field(description="How long ago that was, by the monotonic clock.")
    cpu_usage_percent: float | None
    memory_usage_percent: float
    memory_usage_bytes: int
    gpu_utilization_percent: float | None = Field(default=None, description="Of the first GPU, as the next three.")
    gpu_memory_used_mb: float | None = Field(default=None, description="In MiB.")
    gpu_memory_total_mb: float | None = Field(default=None, description="In MiB.")
    gpu_temperature_c: float | None = None
    scope: Literal["host", "container"] = Field(
        description="Container: a limit is in force, and what is limited, `cpu` or `memory`, speaks of the container."
    )
    interval_seconds: float = Field(description="Length of the interval that rates and percentages are over.")
    cpu: CpuMetrics
    memory: MemoryMetrics
    filesystems: list[FilesystemMetrics]
    disks: list[DiskMetrics]
    network: list[NetworkMetrics]
    temperatures: list[TemperatureMetrics]
    gpus: list[GpuMetrics]
    gpu_backend: GpuBackend
    process: ProcessMetrics
    children: list[ProcessMetrics] = Field(description="Processes of the server's own, the engine among them.")
