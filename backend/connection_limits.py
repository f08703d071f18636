"""How much a connection may ask of the server."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field


def _most_connections() -> int:
    """Return 1024, or half of the files that this process may open: an answer may need one more, as its model's."""
    if sys.platform == "win32":
        return 1024
    import resource  # noqa: PLC0415 - not there on Windows

    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1024 if files == resource.RLIM_INFINITY else min(1024, files // 2)


@dataclass(frozen=True)
class ConnectionLimits:
    """What a connection may not go beyond. No setting: whoever needs other figures has a proxy in front.

    Attributes:
        head_bytes: request line and headers; trailers have as many.
        head_seconds: from the first byte of a request to the end of its headers.
        silence_seconds: until the first byte of a connection; as long as a kept one may rest between requests.
        body_bytes: come at least within ``body_seconds`` while the server reads.
        reader_seconds: an answer waits so long for a client that reads nothing.
        rest_bytes: of a body that was answered before its end are read and dropped, so that the client, which is still
            sending, gets to see the answer.
        rest_seconds: the same in time.
        pipelined: requests that may wait behind one that is being answered.
        connections: open at once.
        connections_per_address: the same from one other machine.
        proxies: addresses and networks of machines that stand for many others.
        look_seconds: how often a connection is looked at, and so how exact the times are.
    """

    head_bytes: int = 64 * 1024
    head_seconds: float = 20
    silence_seconds: float = 65
    body_bytes: int = 1024
    body_seconds: float = 30
    reader_seconds: float = 60
    rest_bytes: int = 64 * 1024 * 1024
    rest_seconds: float = 10
    pipelined: int = 16
    connections: int = field(default_factory=_most_connections)
    connections_per_address: int = 256
    proxies: Sequence[str] = ()
    look_seconds: float = 5
