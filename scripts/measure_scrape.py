"""What being watched costs: a scrape, the JSON metrics, and what streams notice of a scraper that comes every second.

The server is a process of its own with every route called and several models known. Streams with and without the
scraper (a third process) alternate within one run, so that the machine's mood favours neither.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import re
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median

from scripts.measurement import Row, at_most, interval, report
from tests.connection import Connection
from tests.server import ServerProcess

_PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
_SCRAPE_MS, _JSON_MS = 30, 5
_SLOWER_RATIO = 1.05
_WORDS = 300
_BLOCK_SECONDS = 3.0


@dataclass
class Block:
    """Streams of one block: time to the first piece, and mean time between pieces of each."""

    first_ms: list[float] = field(default_factory=list)
    gap_us: list[float] = field(default_factory=list)


def main() -> int:
    """Measure and print; returns 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scrapes", type=int, default=500)
    parser.add_argument("--blocks", type=int, default=12, help="with the scraper, and as many without")
    options = parser.parse_args()
    settings = {"AI_LAB_RATE_LIMITS": "false"}
    with tempfile.TemporaryDirectory() as folder, ServerProcess(Path(folder) / "data", settings) as server:
        lines = asyncio.run(_load(server.url))
        scrapes = asyncio.run(_timed(server.url, "/metrics/prometheus", _PROMETHEUS, options.scrapes))
        texts = asyncio.run(_timed(server.url, "/metrics", "text/plain", options.scrapes))
        jsons = asyncio.run(_timed(server.url, "/metrics", "*/*", options.scrapes))
        streams = _streams(server.url, options.blocks)
    rows = [
        _latency(f"scrape of {lines} lines, OpenMetrics", scrapes, _SCRAPE_MS),
        _latency(f"scrape of {lines} lines, text", texts, _SCRAPE_MS),
        _latency("GET /metrics as JSON", jsons, _JSON_MS),
        *_compared("first piece of a stream", [[block.first_ms for block in arm] for arm in streams], "ms"),
        *_compared(f"between {_WORDS} pieces, mean of a stream", [[b.gap_us for b in arm] for arm in streams], "us"),
    ]
    return report(f"Scrapes: {options.scrapes} of each kind; streams: {options.blocks} blocks of each kind", rows)


async def _load(url: str) -> int:
    """Call every route and a model, so that all series are there; returns the lines of a scrape."""
    async with Connection(url) as client:
        paths = (await client.request("GET", "/openapi.json")).json()["paths"]
        for path, operations in paths.items():
            for method in operations:
                await client.request(method.upper(), re.sub(r"{\w+}", "x", path), {})
        for _ in range(20):
            await client.request("POST", "/chat", {"message": "one two three", "model": "echo/echo"})
        return (await client.request("GET", "/metrics/prometheus", accept=_PROMETHEUS)).body.count(b"\n")


async def _timed(url: str, path: str, accept: str, count: int) -> list[float]:
    """Return the milliseconds of each request."""
    took = []
    async with Connection(url) as client:
        for _ in range(count):
            started = time.perf_counter()
            answer = await client.request("GET", path, accept=accept)
            took.append((time.perf_counter() - started) * 1000)
            assert answer.status == 200, answer
            await asyncio.sleep(0.01)
    return took


def _streams(url: str, blocks: int) -> tuple[list[Block], list[Block]]:
    """Return blocks without and with the scraper; which of a pair comes first is left to chance."""
    spawn = multiprocessing.get_context("spawn")
    active = spawn.Event()
    scraper = spawn.Process(target=_scrape, args=(url, active), daemon=True)
    scraper.start()
    arms: tuple[list[Block], list[Block]] = ([], [])
    try:
        asyncio.run(_block(url))  # warm
        for _ in range(blocks):
            for arm in random.sample((0, 1), 2):
                (active.set if arm else active.clear)()
                arms[arm].append(asyncio.run(_block(url)))
    finally:
        scraper.kill()
        scraper.join()
    return arms


def _scrape(url: str, active: Event) -> None:
    """Be the scraper: once a second while ``active`` is set."""

    async def scrape() -> None:
        with closing(Connection(url)) as client:
            while True:
                await asyncio.to_thread(active.wait)
                await client.request("GET", "/metrics/prometheus", accept=_PROMETHEUS)
                await asyncio.sleep(1)

    asyncio.run(scrape())


async def _block(url: str) -> Block:
    """Stream answers one after the other for some seconds."""
    body = {"model": "echo/echo", "stream": True, "messages": [{"role": "user", "content": "word " * _WORDS}]}
    block = Block()
    end = time.perf_counter() + _BLOCK_SECONDS
    async with Connection(url) as client:
        while (started := time.perf_counter()) < end:
            pieces = [
                time.perf_counter()
                async for event in client.stream("/v1/chat/completions", body)
                if event.data != "[DONE]" and event.data["choices"] and event.data["choices"][0]["delta"].get("content")
            ]
            block.first_ms.append((pieces[0] - started) * 1000)
            block.gap_us.append((pieces[-1] - pieces[0]) / (len(pieces) - 1) * 1e6)
    return block


def _latency(what: str, took_ms: list[float], limit_ms: float) -> Row:
    ranked = sorted(took_ms)
    row = at_most(what, ranked[int(len(ranked) * 0.99)], limit_ms, "ms")
    return Row(row.what, f"p50 {median(ranked):.2f}, p99 {row.measured}", row.bound, row.is_met)


def _compared(what: str, arms: list[list[list[float]]], unit: str) -> list[Row]:
    """Return how the arms compare, at the median and at the 99th percentile of all streams; blocks are what varies."""
    rows = []
    for name, share in (("p50", 0.5), ("p99", 0.99)):

        def ratio(drawn: list[int] | range, share: float = share) -> float:
            without, with_scraper = (_percentile(arm, drawn, share) for arm in arms)
            return with_scraper / without

        count = len(arms[0])
        without, with_scraper = (_percentile(arm, range(count), share) for arm in arms)
        value = ratio(range(count))
        low, high = interval(count, lambda drawn: ratio(list(drawn)))
        measured = f"{without:.2f} -> {with_scraper:.2f} {unit}, ratio {value:.3f} (95 %: {low:.3f} to {high:.3f})"
        wanted = (f"ratio <= {_SLOWER_RATIO:g}", value <= _SLOWER_RATIO) if name == "p50" else ()
        rows.append(Row(f"{what}, {name}, unwatched -> watched", measured, *wanted))
    return rows


def _percentile(blocks: list[list[float]], drawn: list[int] | range, share: float) -> float:
    ranked = sorted(value for index in drawn for value in blocks[index])
    return ranked[min(len(ranked) - 1, int(len(ranked) * share))]


if __name__ == "__main__":
    sys.exit(main())
