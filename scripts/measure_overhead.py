"""What AI Lab adds to the engine: first token and token rate through /chat and /v1 against the engine's own port.

One engine, one client process, one server process. Every round asks all three in a random order, with a prompt of its
own of equal length, so that neither the machine's mood nor the engine's prompt cache favours one of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from statistics import median
from urllib.parse import urlsplit

import uvicorn
import uvloop

from ai_lab.chat import NewTurn
from ai_lab.lab import Lab
from ai_lab.providers.catalog import SHIPPED_MODEL
from ai_lab.providers.embedded import Embedded
from ai_lab.settings import Settings
from backend.app import create_app
from scripts.measurement import Row, interval, report
from tests.server import free_port

_ARMS = ("engine", "/chat", "/v1")
_TOKENS = 96
#: A piece with text in it; the first event under /v1 has none.
_CHAT_PIECE, _OPENAI_PIECE = re.compile(rb'"delta":"[^"]'), re.compile(rb'"content":"[^"]')
_LATER_MS = 10
_RATE_PERCENT = 97


@dataclass(frozen=True)
class Door:
    """Where a request goes."""

    port: int
    path: str
    key: str = ""


@dataclass(frozen=True)
class Seen:
    """One answer as its client saw it."""

    first_token_ms: float
    tokens_per_second: float


def main() -> int:
    """Measure and print; returns 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--serve", nargs=2, metavar=("DATA_DIR", "PORT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as the real one runs
            runner.run(_serve(options.serve[0], int(options.serve[1])))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        command = [sys.executable, __file__, "--serve", folder, str(port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout
            engine = json.loads(server.stdout.readline())
            doors = {
                "engine": Door(urlsplit(engine["url"]).port or 0, "/v1/chat/completions", engine["key"]),
                "/chat": Door(port, "/chat"),
                "/v1": Door(port, "/v1/chat/completions"),
            }
            try:
                _rounds(doors, 3)  # warm
                return _report(_rounds(doors, options.rounds))
            finally:
                server.terminate()


async def _serve(data_dir: str, port: int) -> None:
    """Be the server, and say where its engine listens."""
    async with Lab.open(Settings.load(data_dir=data_dir, rate_limits=False)) as lab:
        embedded = lab.providers.get("embedded")
        await lab.chat.answer(NewTurn.model_validate({"message": "Hello", "options": {"max_tokens": 4}}))
        assert isinstance(embedded, Embedded)
        assert embedded.engine
        server = uvicorn.Server(uvicorn.Config(create_app(lab), port=port, log_config=None, access_log=False))
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.05)
        print(json.dumps({"url": embedded.engine.base_url, "key": embedded.engine.api_key}), flush=True)
        await serving


def _rounds(doors: dict[str, Door], count: int) -> dict[str, list[Seen]]:
    seen: dict[str, list[Seen]] = {arm: [] for arm in _ARMS}
    numbers = iter(random.sample(range(100_000, 999_999), count * len(_ARMS)))
    for _ in range(count):
        for arm in random.sample(_ARMS, len(_ARMS)):
            seen[arm].append(_ask(doors[arm], f"Case {next(numbers)}: tell the long story of a llama who went to sea."))
    return seen


def _ask(door: Door, prompt: str) -> Seen:
    """Stream one answer over a plain socket, so that the client costs next to nothing."""
    options = {"max_tokens": _TOKENS, "temperature": 0, "seed": 1}
    if door.path == "/chat":
        body = {"message": prompt, "stream": True, "options": options}
    else:
        messages = [{"role": "user", "content": prompt}]
        body = {"model": f"embedded/{SHIPPED_MODEL}", "messages": messages, "stream": True} | options
    content = json.dumps(body).encode()
    authorization = f"Authorization: Bearer {door.key}\r\n" if door.key else ""
    head = f"POST {door.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{authorization}Content-Type: application/json\r\n"
    head += f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    pieces: list[float] = []
    mark = _CHAT_PIECE if door.path == "/chat" else _OPENAI_PIECE
    with socket.create_connection(("127.0.0.1", door.port)) as connection:
        started = time.perf_counter()
        connection.sendall(head.encode() + content)
        while data := connection.recv(65536):
            arrived = time.perf_counter()
            pieces += [arrived] * len(mark.findall(data))
    rate = (len(pieces) - 1) / (pieces[-1] - pieces[0])
    return Seen((pieces[0] - started) * 1000, rate)


def _report(seen: dict[str, list[Seen]]) -> int:
    rows = []
    for arm in _ARMS:
        first = median(one.first_token_ms for one in seen[arm])
        rate = median(one.tokens_per_second for one in seen[arm])
        rows.append(Row(f"{arm}: medians", f"first token {first:.1f} ms, {rate:.1f} tokens/s"))
    for arm in _ARMS[1:]:
        pairs = list(zip(seen["engine"], seen[arm], strict=True))
        later = [mine.first_token_ms - direct.first_token_ms for direct, mine in pairs]
        ratio = [mine.tokens_per_second / direct.tokens_per_second * 100 for direct, mine in pairs]
        bounds = (f"<= {_LATER_MS} ms", median(later) <= _LATER_MS)
        rows.append(Row(f"{arm}: first token later than the engine's", _with_interval(later, "ms"), *bounds))
        bounds = (f">= {_RATE_PERCENT} %", median(ratio) >= _RATE_PERCENT)
        rows.append(Row(f"{arm}: token rate of the engine's", _with_interval(ratio, "%"), *bounds))
    title = f"First token and token rate: {len(seen['engine'])} rounds of {_TOKENS} tokens, medians of pairs"
    return report(title, rows)


def _with_interval(values: list[float], unit: str) -> str:
    low, high = interval(len(values), lambda drawn: median(values[index] for index in drawn))
    return f"{median(values):.1f} {unit} (95 %: {low:.1f} to {high:.1f})"


if __name__ == "__main__":
    sys.exit(main())
