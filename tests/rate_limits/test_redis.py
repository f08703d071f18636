"""Redis that is not there, does not answer or is not installed stands in nobody's way."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator

import pytest

from ai_lab.database import Database, database_address
from ai_lab.errors import InvalidSettings
from ai_lab.rate_limits import RateLimits
from ai_lab.settings import Settings
from tests.server import free_port

_SECRET = "CANARYpassword"


@contextlib.asynccontextmanager
async def _opened(redis_url: str) -> AsyncIterator[RateLimits]:
    values = {"database_url": "sqlite+aiosqlite:///unused.sqlite", "rate_limit_requests": "3/hour"}
    settings = Settings.model_validate({**values, "redis_url": redis_url})
    limits = RateLimits.open(settings, Database(database_address(settings)))
    try:
        yield limits
    finally:
        await limits.close()


@contextlib.asynccontextmanager
async def _answering(answer: bytes | None) -> AsyncIterator[int]:
    """Be a server that says the same to everything, or nothing."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            if answer is not None:
                writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _see_that_it_counts_alone(limits: RateLimits, caplog: pytest.LogCaptureFixture) -> None:
    started = time.monotonic()
    windows = [await limits.hit("requests", "a") for _ in range(5)]
    assert [window.allowed for window in windows] == [True] * 3 + [False] * 2
    assert limits.store_failures == 1  # the others did not wait for it
    assert time.monotonic() - started < 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert _SECRET not in caplog.text


async def test_a_redis_that_refuses(caplog: pytest.LogCaptureFixture) -> None:
    async with _opened(f"redis://:{_SECRET}@127.0.0.1:{free_port()}/0") as limits:
        await _see_that_it_counts_alone(limits, caplog)


@pytest.mark.parametrize("answer", [None, b"-ERR no\r\n", b"nonsense\r\n" * 50])
async def test_a_redis_that_hangs_or_talks_nonsense(answer: bytes | None, caplog: pytest.LogCaptureFixture) -> None:
    async with _answering(answer) as port, _opened(f"redis://:{_SECRET}@127.0.0.1:{port}/0") as limits:
        await _see_that_it_counts_alone(limits, caplog)


@pytest.mark.parametrize(
    "url",
    [
        f"http://:{_SECRET}@127.0.0.1:6379",
        f"redis://:{_SECRET}@127.0.0.1",
        f"redis://:{_SECRET}@127.0.0.1:port",
        f"redis://:{_SECRET}@[::1",
        _SECRET,
    ],
)
async def test_an_address_that_is_none_is_refused_without_saying_it(url: str) -> None:
    with pytest.raises(InvalidSettings, match="REDIS_URL") as refusal:
        async with _opened(url):
            pass
    shown = traceback.format_exception(refusal.value)
    assert _SECRET not in "".join(line for line in shown if "test_redis.py" not in line)


def test_without_its_package_it_says_how_to_get_it() -> None:
    program = """
import sys
sys.modules["redis"] = None
from ai_lab.errors import InvalidSettings
from ai_lab.rate_limits.library import LibraryWindows
try:
    LibraryWindows.on_redis("redis://127.0.0.1:6379")
except InvalidSettings as error:
    print(error.detail)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "pip install 'ai-lab[redis]'" in said
