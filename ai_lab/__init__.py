"""AI Lab: a local-first AI-lab backend as a library.

Names are resolved on first use, so that ``import ai_lab`` stays quick and pulls in neither the
database nor any network library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ai_lab.benchmark import Benchmark, BenchmarkResult
    from ai_lab.client import AsyncLabClient, LabClient
    from ai_lab.conversation_db import ConversationManagerDB
    from ai_lab.lab import Lab

__version__ = "0.1.0"

_EXPORTS = {
    "AsyncLabClient": "ai_lab.client",
    "Benchmark": "ai_lab.benchmark",
    "BenchmarkResult": "ai_lab.benchmark",
    "ConversationManagerDB": "ai_lab.conversation_db",
    "Lab": "ai_lab.lab",
    "LabClient": "ai_lab.client",
}

__all__ = [
    "AsyncLabClient",
    "Benchmark",
    "BenchmarkResult",
    "ConversationManagerDB",
    "Lab",
    "LabClient",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import an exported name when it is first asked for."""
    if name not in _EXPORTS:
        raise AttributeError(f"module 'ai_lab' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)
