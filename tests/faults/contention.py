"""Many writers and readers at once, from a process of their own, and what each of them saw.

Run as a program with an address and a JSON of ``Load``, it prints a JSON of ``Seen``.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from dataclasses import asdict, dataclass, field

from tests.connection import Connection
from tests.server import ROOT

_SESSIONS = 8
_PROBE_SECONDS = 0.02


@dataclass(frozen=True)
class Load:
    """``writers`` and ``readers`` that each wait about ``think_seconds`` after every answer, for ``seconds``."""

    writers: int
    readers: int
    seconds: float
    think_seconds: float


@dataclass
class Seen:
    """Latencies in milliseconds by kind of request, what failed, and how busy the load's own process was."""

    write_ms: list[float] = field(default_factory=list)
    read_ms: list[float] = field(default_factory=list)
    live_ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    own_cpu_seconds: float = 0.0


async def generate(url: str, load: Load) -> Seen:
    """Run the load and return what it saw."""
    seen = Seen()
    until = time.perf_counter() + load.seconds
    started, cpu = time.perf_counter(), time.process_time()
    async with Connection(url) as first:
        for session in range(_SESSIONS):  # so that no reader meets a conversation that is not there yet
            reply = await first.request("POST", "/conversations", {"session_id": f"load-{session}"})
            if reply.status != 201:
                seen.errors.append(f"{reply.status} {reply.body.decode()}")
    await asyncio.gather(
        *(_write(url, load, number, until, seen) for number in range(load.writers)),
        *(_read(url, load, number, until, seen) for number in range(load.readers)),
        _probe(url, until, seen),
    )
    seen.seconds, seen.own_cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    return seen


async def _write(url: str, load: Load, number: int, until: float, seen: Seen) -> None:
    async with Connection(url) as connection:
        await _begin_apart(load)
        while time.perf_counter() < until:
            path = f"/conversations/load-{number % _SESSIONS}/messages"
            await _timed(connection, "POST", path, seen.write_ms, seen, body=_message(number))
            await _think(load)


async def _read(url: str, load: Load, number: int, until: float, seen: Seen) -> None:
    paths = (f"/conversations/load-{number % _SESSIONS}/messages?limit=20", "/conversations?limit=20")
    async with Connection(url) as connection:
        await _begin_apart(load)
        while time.perf_counter() < until:
            for path in paths:
                await _timed(connection, "GET", path, seen.read_ms, seen)
                await _think(load)


async def _probe(url: str, until: float, seen: Seen) -> None:
    async with Connection(url) as connection:
        while time.perf_counter() < until:
            await _timed(connection, "GET", "/health/live", seen.live_ms, seen)
            await asyncio.sleep(_PROBE_SECONDS)


async def _timed(
    connection: Connection, method: str, path: str, latencies: list[float], seen: Seen, *, body: object = None
) -> None:
    started = time.perf_counter()
    try:
        reply = await connection.request(method, path, body)
    except OSError as error:
        seen.errors.append(f"{method} {path}: {error!r}")
        return
    latencies.append((time.perf_counter() - started) * 1000)
    if reply.status >= 300:
        seen.errors.append(f"{method} {path}: {reply.status} {reply.body.decode()}")


async def _begin_apart(load: Load) -> None:
    await asyncio.sleep(load.think_seconds * random.random())  # noqa: S311 - no secret


async def _think(load: Load) -> None:
    await asyncio.sleep(load.think_seconds * random.uniform(0.5, 1.5))  # noqa: S311 - no secret


def _message(number: int) -> dict[str, str]:
    return {"role": "user", "content": f"Writer {number} says something of ordinary length about the weather today."}


async def generate_apart(url: str, load: Load) -> Seen:
    """Run the load in a process of its own, so that it and the tests do not slow each other down."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        url,
        json.dumps(asdict(load)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, f"the load generator ended with {process.returncode}"
    return Seen(**json.loads(output))


def main() -> None:
    """Run as the load's own process."""
    seen = asyncio.run(generate(sys.argv[1], Load(**json.loads(sys.argv[2]))))
    json.dump(asdict(seen), sys.stdout)


if __name__ == "__main__":
    main()
