"""Where figures come from: the machine, its software and this program."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

import ai_lab
from ai_lab.telemetry.machine.cgroup import ControlGroups
from ai_lab.telemetry.machine.gpu import GpuReader
from ai_lab.telemetry.machine.host import READ_ERRORS

UNAVAILABLE = "unavailable"
_CONTAINER_FILES = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
_CONTAINER_GROUPS = ("docker", "kubepods", "containerd", "libpod", "lxc")


def host_provenance() -> dict[str, Any]:
    """Return {"host": {...}, "ai_lab": {...}} as JSON values; what cannot be read is "unavailable".

    The machine's name is left out: reports are handed to others, and figures do not depend on it. Takes some 50 ms, and
    a few hundred where a GPU's driver must be woken first.
    """
    return {"host": _host(), "ai_lab": _ai_lab()}


def _host() -> dict[str, Any]:
    cpuinfo = _known(lambda: Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    gpus, driver = _gpus()
    return {
        "cpu": _known(lambda: _cpu_name(cpuinfo)),
        "architecture": platform.machine() or UNAVAILABLE,
        "physical_cores": _known(lambda: psutil.cpu_count(logical=False)),
        "logical_cores": _known(os.cpu_count),
        "usable_cores": _known(lambda: len(os.sched_getaffinity(0))) if sys.platform == "linux" else UNAVAILABLE,
        "container_cpu_limit": _known(_cpu_limit),
        "cpu_governor": _known(lambda: _cpu_setting("cpufreq/scaling_governor")),
        "cpu_power_limit_watts": _known(_cpu_power_limit_watts),
        "memory_bytes": _known(lambda: psutil.virtual_memory().total),
        "os": _known(_operating_system),
        "kernel": platform.release() or UNAVAILABLE,
        "is_container": _known(_is_container),
        "is_virtual_machine": " hypervisor" in cpuinfo if "\nflags" in cpuinfo else UNAVAILABLE,
        "gpus": gpus,
        "gpu_driver": driver,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _ai_lab() -> dict[str, Any]:
    packages = _known(installed_packages)
    return {
        "version": ai_lab.__version__,
        "git_commit": git_commit(Path(ai_lab.__file__).parents[1]),
        "packages": len(packages) if isinstance(packages, list) else UNAVAILABLE,
        "packages_sha256": hashlib.sha256("\n".join(packages).encode()).hexdigest()
        if isinstance(packages, list)
        else UNAVAILABLE,
    }


def git_commit(folder: Path) -> str:
    """Return the commit of a checkout at ``folder``; folders above it do not count, for they may be another project's.

    Changes since that commit cannot be seen here.
    """
    return str(_known(lambda: _commit(folder / ".git")))


def _commit(git: Path) -> str | None:
    if git.is_file():  # a further working tree, or a submodule
        git = git.parent / git.read_text(encoding="utf-8").strip().removeprefix("gitdir: ")
    head = (git / "HEAD").read_text(encoding="utf-8").strip()
    if not head.startswith("ref: "):
        return head
    name, shared = head.removeprefix("ref: "), git
    if (git / "commondir").exists():
        shared = git / (git / "commondir").read_text(encoding="utf-8").strip()
    for file in (git / name, shared / name):
        if file.exists():
            return file.read_text(encoding="utf-8").strip()
    packed = (shared / "packed-refs").read_text(encoding="utf-8").splitlines()
    return next((line.partition(" ")[0] for line in packed if line.endswith(f" {name}")), None)


def installed_packages() -> list[str]:
    """Return name-version of every installed package, sorted, by the names of their metadata folders."""
    folders = (Path(entry) for entry in sys.path if entry)
    found = {file.name.removesuffix(".dist-info") for folder in folders for file in folder.glob("*.dist-info")}
    return sorted(found, key=str.lower)


def _known(read: Callable[[], Any]) -> Any:
    """Return what is read, or "unavailable" where it cannot be read or is not told."""
    try:
        value = read()
    except (*READ_ERRORS, subprocess.SubprocessError):
        return UNAVAILABLE
    return UNAVAILABLE if value is None or value == "" else value


def _cpu_name(cpuinfo: str) -> str | None:
    if sys.platform == "darwin":
        asked = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(asked, capture_output=True, text=True, timeout=1, check=True).stdout.strip()
    if sys.platform == "win32":
        import winreg  # noqa: PLC0415 - is only there on Windows

        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0") as key:
            return str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == "model name"), None)


def _cpu_limit() -> float | None:
    """Return how many processors' worth of time the container may use."""
    groups = ControlGroups().read(machine_cores=os.cpu_count() or 1, machine_memory_bytes=psutil.virtual_memory().total)
    return groups.cpu.limit_cores if groups and groups.cpu else None


def _cpu_setting(name: str) -> str | None:
    """Return a setting of the processors, or all of them where they differ."""
    files = Path("/sys/devices/system/cpu").glob(f"cpu[0-9]*/{name}")
    return ", ".join(sorted({file.read_text(encoding="ascii").strip() for file in files}))


def _cpu_power_limit_watts() -> float | None:
    """Return the long-term limit of the first package (Linux powercap)."""
    text = Path("/sys/class/powercap/intel-rapl:0/constraint_0_power_limit_uw").read_text(encoding="ascii")
    return int(text) / 1_000_000


def _operating_system() -> str:
    if platform.system() == "Linux":
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    return f"macOS {platform.mac_ver()[0]}" if platform.system() == "Darwin" else platform.platform()


def _is_container() -> bool:
    groups = Path("/proc/1/cgroup").read_text(encoding="utf-8", errors="replace")
    return any(Path(file).exists() for file in _CONTAINER_FILES) or any(word in groups for word in _CONTAINER_GROUPS)


def _gpus() -> tuple[Any, str]:
    reader = GpuReader()
    try:
        gpus, backend = reader.read(with_processes=False)
    finally:
        reader.close()
    if backend.status in {"error", "no_permission"} and not gpus:
        return UNAVAILABLE, backend.driver_version or UNAVAILABLE
    described = [
        {
            "name": gpu.name or UNAVAILABLE,
            "memory_bytes": gpu.memory_total_bytes or UNAVAILABLE,
            "power_limit_watts": gpu.power_limit_watts or UNAVAILABLE,
            "is_mig": gpu.is_mig,
        }
        for gpu in gpus
    ]
    return described, backend.driver_version or UNAVAILABLE
