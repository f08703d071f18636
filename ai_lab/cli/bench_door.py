"""Where ``ai-lab bench`` works: on the server where one runs, else in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ai_lab.benchmarks import Benchmarks
from ai_lab.cli.door import found_server, say
from ai_lab.client.benchmarks import AsyncBenchmarkClient
from ai_lab.lab import Lab

Door = Benchmarks | AsyncBenchmarkClient

__all__ = ["Door", "opened_door", "say"]


@asynccontextmanager
async def opened_door(url: str | None) -> AsyncIterator[Door]:
    """Give the server's benchmarks; where none was named and none runs, those of this process.

    Raises:
        ServerUnreachable: the server that was named does not answer.
        StartupError: this process cannot do it either.
    """
    async with found_server(url) as client:
        if client:
            yield client.benchmarks
            return
        async with Lab.open() as lab:
            yield lab.benchmarks
