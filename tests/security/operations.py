"""Every operation that a server describes, with something in place of each part of its address."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx

_PARTS = {"service": "openai", "session_id": "attacked", "run_id": "none"}


def operations(http: httpx.Client, *methods: str) -> Iterator[tuple[str, str]]:
    """Yield method and path of the operations with one of these methods (lower case)."""
    for path, described in http.get("/openapi.json").raise_for_status().json()["paths"].items():
        filled = re.sub(r"\{(\w+)\}", lambda name: _PARTS.get(name[1], "none"), path)
        yield from ((method, filled) for method in described if method in methods)
