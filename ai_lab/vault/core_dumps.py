"""Keeps secrets out of core dumps, as far as a process can."""

from __future__ import annotations

import ctypes
import logging
import sys

_PR_SET_DUMPABLE = 4  # linux/prctl.h

_log = logging.getLogger(__name__)


def no_core_dumps() -> None:
    """Forbid core dumps of this process; on Linux also reading its memory by other processes of the same user.

    Child processes inherit the limit on core files, but not the rest. ``/proc/<pid>`` of this process belongs to root
    from now on; what the process reads about itself stays readable to it.
    """
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - Windows has none

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        _log.warning("other processes of the same user can read the memory", extra={"errno": ctypes.get_errno()})
