"""Which server a command works on, where one runs; and what it says beside its output."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rich.console import Console

from ai_lab.cli.address import explain, find_address
from ai_lab.client import AsyncLabClient
from ai_lab.errors import ServerUnreachable

_LOOK_SECONDS = 5.0


@asynccontextmanager
async def found_server(url: str | None) -> AsyncIterator[AsyncLabClient | None]:
    """Give the server that was named or the one of the settings; None where none was named and none runs.

    Raises:
        ServerUnreachable: the server that was named does not answer.
        Unauthorized: it wants a token that we do not have.
    """
    address = find_address(url)
    async with AsyncLabClient(address.url) as client:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await client.health()
        except (ServerUnreachable, TimeoutError) as error:
            if url is not None:
                if isinstance(error, ServerUnreachable):
                    trouble = explain(address, error)
                    raise ServerUnreachable(f"{trouble.what} {trouble.remedy}") from None
                raise ServerUnreachable(f"{address.url} does not answer.") from None
        else:
            yield client
            return
    say(f"No server at {address.url}: this process does the work.")
    yield None


def say(text: str) -> None:
    """Tell the person something that is no part of the output, on one line."""
    Console(stderr=True, highlight=False).print(text, markup=False, soft_wrap=True)
