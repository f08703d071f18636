"""Where ``ai-lab bench`` works: on the server where one runs, else in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rich.console import Console

from ai_lab.benchmarks import Benchmarks
from ai_lab.cli.address import explain, find_address
from ai_lab.client import AsyncLabClient
from ai_lab.client.benchmarks import AsyncBenchmarkClient
from ai_lab.errors import ServerUnreachable
from ai_lab.lab import Lab

_LOOK_SECONDS = 5.0
Door = Benchmarks | AsyncBenchmarkClient


@asynccontextmanager
async def opened_door(url: str | None) -> AsyncIterator[Door]:
    """Give the server's benchmarks; where none was named and none runs, those of this process.

    Raises:
        ServerUnreachable: the server that was named does not answer.
        StartupError: this process cannot do it either.
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
            yield client.benchmarks
            return
    say(f"No server at {address.url}: this process does the work.")
    async with Lab.open() as lab:
        yield lab.benchmarks


def say(text: str) -> None:
    """Tell the person something that is no part of the output, on one line."""
    Console(stderr=True, highlight=False).print(text, markup=False, soft_wrap=True)
