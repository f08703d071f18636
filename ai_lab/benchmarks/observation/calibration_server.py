"""A program: a server that says exactly when it sent what. Run by ``instrument.py``, with the standard library alone.

It answers ``POST /v1/chat/completions`` in OpenAI's streaming form. As servers do that compute all answers together,
it sends one chunk of every answer at each step of a steady schedule. The first line that it prints is its port; when
its standard input ends, as it does when whoever started it is gone, it prints its log and ends.

The log is JSON, {prompt: [when the request was read, stamp of the first chunk, then differences]}, in nanoseconds of
``time.perf_counter_ns()``; a stamp is taken right before the chunk is written to the socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
import threading
import time
from typing import Any

_MOST_BYTES = 1_000_000
_NANOSECONDS = 1e9


class Schedule:
    """Lets all answers under way send at every step, and keeps the pace: a late step is followed by a shorter wait."""

    def __init__(self, gap_ns: int) -> None:
        self.log: dict[str, list[int]] = {}
        self._gap_ns = gap_ns
        self._answers: list[Answer] = []
        self._due_ns = 0

    def add(self, answer: Answer) -> None:
        """Begin with an answer at the next step, or a step from now where nothing is under way."""
        if not self._answers:
            self._due_ns = time.perf_counter_ns() + self._gap_ns
            self._wait()
        self._answers.append(answer)

    def _wait(self) -> None:
        seconds = (self._due_ns - time.perf_counter_ns()) / _NANOSECONDS
        asyncio.get_running_loop().call_later(max(0.0, seconds), self._step)

    def _step(self) -> None:
        for answer in self._answers:
            answer.send()
        self._answers = [answer for answer in self._answers if answer.left]
        self._due_ns += self._gap_ns
        if self._answers:
            self._wait()


class Answer:
    """One answer under way."""

    def __init__(self, transport: asyncio.WriteTransport, stamps: list[int], count: int) -> None:
        self.left = count
        self._count = count
        self._transport = transport
        self._stamps = stamps
        self._chunk = _event({"choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]})

    def send(self) -> None:
        """Send a chunk, and after the last one the end."""
        if self._transport.is_closing():
            self.left = 0
            return
        self._stamps.append(time.perf_counter_ns())
        self._transport.write(self._chunk)
        self.left -= 1
        if not self.left:
            usage = {"prompt_tokens": 8, "completion_tokens": self._count, "total_tokens": 8 + self._count}
            end = _event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
            self._transport.write(
                end + _event({"choices": [], "usage": usage}) + _frame(b"data: [DONE]\n\n") + _frame(b"")
            )


class Connection(asyncio.Protocol):
    """One kept connection: a request, its answer, the next request."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """Take a part of a request, and answer when it is whole."""
        read_ns = time.perf_counter_ns()
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if len(self._received) > _MOST_BYTES:
            self._transport.abort()
        elif found and len(body) >= sum(lengths):
            self._received = b""
            self._answer(head, body, read_ns)

    def _answer(self, head: bytes, body: bytes, read_ns: int) -> None:
        if not head.startswith(b"POST /v1/chat/completions "):
            self._transport.write(
                b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
            )
            return
        request = json.loads(body)
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            + _event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})
        )
        stamps = self._schedule.log[request["messages"][-1]["content"]] = [read_ns]
        count = request.get("max_completion_tokens") or request["max_tokens"]
        self._schedule.add(Answer(self._transport, stamps, count))


def _event(fields: dict[str, Any]) -> bytes:
    whole = {"id": "calibration", "object": "chat.completion.chunk", "created": 0, "model": "calibration"} | fields
    return _frame(b"data: " + json.dumps(whole).encode() + b"\n\n")


def _frame(data: bytes) -> bytes:
    """Return a chunk of HTTP's chunked coding (RFC 9112, 7.1); the empty one is the last."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _serve(gap_ns: int, most_seconds: float) -> None:
    loop, over, schedule = asyncio.get_running_loop(), asyncio.Event(), Schedule(gap_ns)

    def watch() -> None:
        sys.stdin.buffer.read()
        with contextlib.suppress(RuntimeError):  # the loop has ended already
            loop.call_soon_threadsafe(over.set)

    threading.Thread(target=watch, daemon=True).start()
    loop.call_later(most_seconds, over.set)
    server = await loop.create_server(lambda: Connection(schedule), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - this is a program
    await over.wait()
    with contextlib.suppress(OSError):  # nobody reads it any more
        differences = {
            prompt: stamps[:2] + [b - a for a, b in itertools.pairwise(stamps[1:])]
            for prompt, stamps in schedule.log.items()
        }
        sys.stdout.write(json.dumps(differences))
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2])))
