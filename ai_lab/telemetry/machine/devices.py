"""Disks, filesystems, network interfaces and sensors: which of them count, and what they say."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from ai_lab.telemetry.schemas import FilesystemMetrics, TemperatureMetrics

_BLOCK_DEVICES = Path("/sys/block")
#: Memory and files in the guise of disks, and those that stand on other disks, whose traffic would count twice.
_NOT_DISKS = ("loop", "ram", "zram", "dm-", "md", "zd", "sr", "fd")
#: The loopback, and the ends of containers' and guests' cables: these come and go under ever new names, and what they
#: carry outside is counted at the real interface.
_NOT_INTERFACES = re.compile(r"(lo\d*$|Loopback|veth|cali|lxc|vnet|tap|ifb|br-[0-9a-f]{12}$)")
#: Filesystems on the machine's own disks. One on a network or in a program can hang whoever asks for its size.
_LOCAL_FILESYSTEMS = {
    *("apfs", "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfs", "jfs", "msdos", "nilfs2", "ntfs"),
    *("ntfs3", "reiserfs", "ufs", "vfat", "xfs", "zfs"),
}
_MOST_FILESYSTEMS = 32


class Mount(Protocol):
    """A line of the table of mounts."""

    @property
    def device(self) -> str:
        """What is mounted."""

    @property
    def mountpoint(self) -> str:
        """Where."""

    @property
    def fstype(self) -> str:
        """How it is written."""


@dataclass(frozen=True, slots=True)
class DiskCounters:
    """One disk since the system started; ``busy_seconds`` is None where the system does not count it."""

    read_bytes: int
    written_bytes: int
    busy_seconds: float | None


@dataclass(frozen=True, slots=True)
class NetworkCounters:
    """One interface since it came up."""

    receive_bytes: int
    transmit_bytes: int


def read_disks(block_devices: Path = _BLOCK_DEVICES) -> dict[str, DiskCounters]:
    """Return the counters of whole disks by name, without partitions: those that ``block_devices`` lists."""
    # psutil can mend counters that wrap, but shares its memory of them with every caller in the process.
    found = psutil.disk_io_counters(perdisk=True, nowrap=False)
    whole = _whole_devices(block_devices)
    return {
        name: DiskCounters(disk.read_bytes, disk.write_bytes, busy / 1000 if busy is not None else None)
        for name, disk in found.items()
        if (whole is None or name in whole) and not name.startswith(_NOT_DISKS)
        for busy in (getattr(disk, "busy_time", None),)
    }


def _whole_devices(folder: Path) -> set[str] | None:
    """Return the names of all whole devices, or None where partitions are not listed beside them anyway."""
    try:
        return {entry.name.replace("!", "/") for entry in folder.iterdir()}
    except OSError:
        return None


def read_network() -> dict[str, NetworkCounters]:
    """Return the counters of network interfaces by name, without the loopback."""
    found = psutil.net_io_counters(pernic=True, nowrap=False)
    return {
        name: NetworkCounters(nic.bytes_recv, nic.bytes_sent)
        for name, nic in found.items()
        if not _NOT_INTERFACES.match(name)
    }


def read_filesystems() -> list[FilesystemMetrics]:
    """Return the machine's own filesystems."""
    # Outside Windows the list of all is needed: the short one lacks overlay, the root of most containers.
    mounts = psutil.disk_partitions(all=sys.platform != "win32")
    sizes = (_filesystem(mountpoint) for mountpoint in own_mountpoints(mounts)[:_MOST_FILESYSTEMS])
    return [size for size in sizes if size]


def own_mountpoints(mounts: Iterable[Mount]) -> list[str]:
    """Return where each local filesystem is mounted, once however often that is, by the shortest of its paths."""
    visible = {mount.mountpoint: mount for mount in mounts}  # a later one hides an earlier one
    by_device: dict[str, str] = {}
    for mountpoint in sorted(visible, key=lambda path: (len(path), path)):
        mount = visible[mountpoint]
        if _is_local(mountpoint, mount.fstype.lower()) and os.path.isdir(mountpoint):  # noqa: PTH112 - Path.is_dir raises where we may not look
            by_device.setdefault(mount.device, mountpoint)
    return list(by_device.values())


def _is_local(mountpoint: str, filesystem: str) -> bool:
    if sys.platform == "win32":
        return True
    if filesystem == "overlay":  # the root of a container; any other is a container's seen from its host
        return mountpoint == "/"
    return filesystem in _LOCAL_FILESYSTEMS and not mountpoint.startswith(
        "/System/Volumes/"
    )  # macOS: parts of one disk


def _filesystem(mountpoint: str) -> FilesystemMetrics | None:
    try:
        usage = psutil.disk_usage(mountpoint)
    except OSError:  # taken away, or not ours to see
        return None
    if not usage.total:
        return None
    # On macOS several volumes share the room of one disk, and "used" is of this one alone: little, on the system's.
    used = usage.total - usage.free if sys.platform == "darwin" else usage.used
    return FilesystemMetrics(
        mountpoint=mountpoint,
        total_bytes=usage.total,
        free_bytes=usage.free,
        used_percent=100 * used / (used + usage.free) if used + usage.free else 0.0,
    )


def read_temperatures() -> list[TemperatureMetrics]:
    """Return the machine's sensors; two of one name get numbers."""
    if not hasattr(psutil, "sensors_temperatures"):
        return []
    sensors: dict[tuple[str, str], float] = {}
    for chip, entries in psutil.sensors_temperatures().items():
        for number, entry in enumerate(entries, 1):
            if entry.current is not None and math.isfinite(entry.current):
                name = entry.label or f"temp{number}"
                sensors[chip, name if (chip, name) not in sensors else f"{name} {number}"] = entry.current
    return [TemperatureMetrics(chip=chip, sensor=name, celsius=value) for (chip, name), value in sensors.items()]
