"""Measure what the gateway adds to a call, beside the least that Python can add and LiteLLM's proxy, in one run.

Run: python -m scripts.measure_gateway [--litellm PYTHON] [--requests 400] [--rounds 3]

All of them call the same model service on this machine, which answers at once. ``--litellm`` is the Python of an
environment with ``litellm[proxy]``; without it one is made in a temporary folder. Every round asks all servers in
another order; latencies are those of a client that waits for the whole answer, added ones without what the model
service alone takes.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from scripts.gateway_peers import Peer, floor, lab, litellm, upstream
from scripts.measurement import Row, at_most, percentile, report
from tests.connection import Connection
from tests.server import ServerProcess

_CLIENTS = (1, 16, 64)
_ADDED_MS, _TIMES_FLOOR, _TIMES_REQUESTS, _SHARE_OF_MEMORY, _CACHED_MS = 3.0, 2.5, 4.0, 1 / 3, 5.0
_WARM_REQUESTS = 40
_LITELLM = "litellm[proxy]==1.106.2"

#: Clients, whether streamed.
Load = tuple[int, bool]


@dataclass
class Figures:
    """Latencies in ms and requests per second, by server and load; memory in MiB by server."""

    latency_ms: dict[tuple[str, Load], list[float]] = field(default_factory=lambda: defaultdict(list))
    rates: dict[tuple[str, Load], list[float]] = field(default_factory=lambda: defaultdict(list))
    cached_ms: list[float] = field(default_factory=list)
    idle_mib: dict[str, float] = field(default_factory=dict)
    busy_mib: dict[str, float] = field(default_factory=dict)

    def added_ms(self, name: str, load: Load, share: float) -> float:
        """Return what a server adds at a percentile (0.5: median)."""
        alone = percentile(self.latency_ms["upstream", load], share)
        return percentile(self.latency_ms[name, load], share) - alone

    def rate(self, name: str, load: Load) -> float:
        """Return the median of the rounds' requests per second."""
        return percentile(self.rates[name, load], 0.5)


def main() -> int:
    """Measure and print; returns 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--litellm", type=Path, help="Python of an environment with litellm[proxy]")
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    figures = Figures()
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        service = running.enter_context(upstream())
        settings = {
            "AI_LAB_SERVERS": f'{{"fake": "{service.url}/v1"}}',
            "AI_LAB_RATE_LIMITS": "false",
            "AI_LAB_CACHE": "true",
            "AI_LAB_SERVICE_LIMITS": '{"fake": {"concurrency": 128}}',
        }
        data_dir = folder / "data"
        data_dir.mkdir(mode=0o700)
        server = running.enter_context(ServerProcess(data_dir, settings))
        peers = [
            service,
            running.enter_context(floor(service)),
            lab(server),
            running.enter_context(litellm(service, options.litellm or _made(folder), folder)),
        ]
        uvloop.run(_measure(peers, options.requests, options.rounds, figures))
    return report("The gateway beside others", _rows(figures), [])


def _made(folder: Path) -> Path:
    """Make an environment with LiteLLM's proxy and return its Python."""
    place = folder / "litellm"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    python = place / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", _LITELLM], check=True)
    return python


async def _measure(peers: list[Peer], requests: int, rounds: int, figures: Figures) -> None:
    numbers = itertools.count()
    for peer in peers:
        figures.idle_mib[peer.name] = peer.memory_mib()
        await _ask_many(peer, (4, False), _WARM_REQUESTS, numbers)
        await _ask_many(peer, (4, True), _WARM_REQUESTS, numbers)
    chance = random.Random(1)  # noqa: S311 - no secret
    for _ in range(rounds):
        for load in itertools.product(_CLIENTS, (False, True)):
            for peer in chance.sample(peers, len(peers)):
                began = time.perf_counter()
                found = await _ask_many(peer, load, requests, numbers)
                figures.rates[peer.name, load].append(len(found) / (time.perf_counter() - began))
                figures.latency_ms[peer.name, load] += found
    own = next(peer for peer in peers if peer.name == "AI Lab")
    await _ask_many(own, (1, False), 1, itertools.repeat(-1))
    figures.cached_ms = await _ask_many(own, (1, False), requests, itertools.repeat(-1), cached=True)
    for peer in peers:
        figures.busy_mib[peer.name] = peer.memory_mib()


async def _ask_many(peer: Peer, load: Load, requests: int, numbers: Any, *, cached: bool = False) -> list[float]:
    """Ask so often, each client one after the other, and return the latencies in ms; every answer must be right."""
    clients, streamed = load
    left = iter(range(requests))
    found: list[float] = []

    async def client() -> None:
        async with Connection(peer.url) as connection:
            for _ in left:
                # Another question every time: nobody may answer from a cache, and ours stores each answer.
                question = f"Question {next(numbers)}: what is there to say?"
                body = {"model": peer.model, "messages": [{"role": "user", "content": question}], "stream": streamed}
                began = time.perf_counter()
                reply = await connection.request("POST", "/v1/chat/completions", body)
                found.append((time.perf_counter() - began) * 1000)
                if reply.status != 200 or b"word19" not in reply.body or (streamed and b"[DONE]" not in reply.body):
                    raise SystemExit(f"{peer.name} answered with {reply.status}: {reply.body[:300]!r}")
                if cached and reply.headers.get("x-ai-lab-cache") != "hit":
                    raise SystemExit(f"{peer.name} did not answer from its cache: {reply.headers}")

    await asyncio.gather(*(client() for _ in range(clients)))
    return found


def _rows(figures: Figures) -> list[Row]:
    rows = []
    for load in itertools.product(_CLIENTS, (False, True)):
        clients, streamed = load
        what = f"{clients} client{'s' if clients > 1 else ''}, {'streamed' if streamed else 'whole'}"
        for name in ("floor", "AI Lab", "LiteLLM"):
            p50, p99 = (figures.added_ms(name, load, share) for share in (0.5, 0.99))
            shown = f"{p50:.2f} / {p99:.2f} ms, {figures.rate(name, load):.0f} requests/s"
            rows.append(Row(f"{what}: {name} adds p50 / p99", shown))
        if clients == 1:
            rows.append(at_most(f"{what}: added p50", figures.added_ms("AI Lab", load, 0.5), _ADDED_MS, "ms", 2))
        ratio = figures.added_ms("AI Lab", load, 0.5) / figures.added_ms("floor", load, 0.5)
        rows.append(at_most(f"{what}: times what the floor adds", ratio, _TIMES_FLOOR, "x", 2))
        times = figures.rate("AI Lab", load) / figures.rate("LiteLLM", load)
        rows.append(
            Row(
                f"{what}: times LiteLLM's requests/s",
                f"{times:.1f}",
                f">= {_TIMES_REQUESTS:g}",
                times >= _TIMES_REQUESTS,
            )
        )
    rows.append(at_most("a cached answer, p50", percentile(figures.cached_ms, 0.5), _CACHED_MS, "ms", 2))
    rows += [
        Row(f"memory of {name}, idle / after", f"{figures.idle_mib[name]:.0f} / {figures.busy_mib[name]:.0f} MiB")
        for name in ("floor", "AI Lab", "LiteLLM")
    ]
    share = figures.busy_mib["AI Lab"] / figures.busy_mib["LiteLLM"]
    rows.append(at_most("AI Lab's share of LiteLLM's memory", share, _SHARE_OF_MEMORY, "", 2))
    return rows


if __name__ == "__main__":
    sys.exit(main())
