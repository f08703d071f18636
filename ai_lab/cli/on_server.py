"""Commands that work on a running server and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ai_lab.cli.address import explain, find_address
from ai_lab.cli.door import say
from ai_lab.cli.figures import plain
from ai_lab.client.connection import AsyncConnection
from ai_lab.errors import LabError, ServerUnreachable, Unauthorized

FINE, WRONG, INTERRUPTED = 0, 2, 130
_TIMEOUT_SECONDS = 60.0


def done_on_server(
    work: Callable[[AsyncConnection], Awaitable[None]], url: str | None, *, timeout_seconds: float = _TIMEOUT_SECONDS
) -> int:
    """Run a command on a server and return its exit code; an error is one line with the remedy."""
    address = find_address(url)

    async def run() -> None:
        server = AsyncConnection(address.url, timeout_seconds)
        try:
            await work(server)
        finally:
            await server.close()

    try:
        asyncio.run(run())
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("Interrupted.")
        return INTERRUPTED
    except (ServerUnreachable, Unauthorized) as error:
        trouble = explain(address, error)
        say(f"error: {trouble.what} {trouble.remedy}")
        return WRONG
    except LabError as error:
        say(f"error: {plain(error.detail)}")
        return WRONG
    return FINE
