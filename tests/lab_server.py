"""The server inside the tests' own process, where its tasks, connections and descriptors can be counted."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass

import uvicorn

from ai_lab.lab import Lab
from ai_lab.settings import Settings
from backend.app import create_app


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to the tests."""
        yield


@dataclass(frozen=True)
class LabServer:
    """An open lab and the address at which it is served."""

    lab: Lab
    url: str


@contextlib.asynccontextmanager
async def serve_lab(settings: Settings) -> AsyncIterator[LabServer]:
    """Open a lab and serve it on a free loopback port until the block ends."""
    async with Lab.open(settings) as lab:
        config = uvicorn.Config(
            create_app(lab), log_config=None, access_log=False, proxy_headers=False, timeout_graceful_shutdown=10
        )
        server = _Server(config)
        listening = socket.create_server(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve(sockets=[listening]))  # connections wait until it has begun
        try:
            yield LabServer(lab, f"http://127.0.0.1:{listening.getsockname()[1]}")
        finally:
            server.should_exit = True
            await serving
