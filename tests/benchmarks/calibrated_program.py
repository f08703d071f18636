"""The process of a calibrated server: HTTP on sockets, requests queued for slots, and the log of all it wrote.

Started by ``calibrated_server.py`` with its calibration as JSON; prints its port, ends with its standard input.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import hashlib
import heapq
import json
import selectors
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from tests.benchmarks.calibrated_answer import Answer
from tests.benchmarks.calibrated_dialects import OllamaDialect, OpenAIDialect, Outcome, encode
from tests.benchmarks.calibrated_pages import not_found, page
from tests.benchmarks.calibrated_prompts import PrefixCache, Prompt, prompt_of
from tests.benchmarks.calibrated_schedule import schedule
from tests.benchmarks.calibrated_settings import Calibration, Fault

_PR_SET_TIMERSLACK = 29
_NS_PER_MS = 1_000_000
#: What a loaded model costs Ollama's scheduler.
_LOADED_MS = 0.05
_TEXTS = {"prompt", "messages"}
ANSWERS = {"/api/generate", "/api/chat", "/v1/chat/completions", "/v1/completions"}


class Server:
    """What outlives a request: the calibration, loaded models, caches, slots and the log."""

    def __init__(self, calibration: Calibration) -> None:
        self.reset(calibration)

    def reset(self, calibration: Calibration) -> None:
        """Begin anew."""
        self.calibration = calibration
        self.loaded = set(calibration.models)
        self.log: deque[dict[str, Any]] = deque(maxlen=calibration.log_size)
        self._caches: dict[str, PrefixCache] = {}
        self._free_at_ns: list[int] = [0] * calibration.slots
        self._count = 0

    def configure(self, changes: dict[str, Any]) -> None:
        """Change the calibration for requests that arrive from now on; counting begins anew."""
        before, self.calibration = self.calibration, self.calibration.changed(changes)
        self._count = 0
        self.loaded = (self.loaded & set(self.calibration.models)) | (set(self.calibration.models) - set(before.models))
        if "slots" in changes:
            self._free_at_ns = [0] * self.calibration.slots

    def unload(self, model: str) -> None:
        """Forget the model and all that it had cached."""
        self.loaded.discard(model)
        self._caches.pop(model, None)

    def load(self, model: str) -> float:
        """Load the model; returns the milliseconds that takes."""
        load_ms = _LOADED_MS if model in self.loaded else self.calibration.load_ms
        self.loaded.add(model)
        return load_ms

    def count(self, prompt: Prompt) -> int:
        """Return the tokens of a prompt."""
        head, tail = self._template(prompt)
        return head + len(prompt.words.split()) + tail

    def answer(
        self,
        path: str,
        body: dict[str, Any],
        arrival_ns: int,
        transport: asyncio.Transport,
        finished: Callable[[bool], None],
    ) -> Answer:
        """Begin an answer."""
        calibration, prompt, model = self.calibration, prompt_of(path, body), str(body.get("model"))
        number, self._count = self._count, self._count + 1
        load_ms = self.load(model)
        head, tail = self._template(prompt)
        cache = self._caches.setdefault(model, PrefixCache())
        cached = cache.take(prompt.words, head_tokens=head, tail_tokens=tail) if calibration.caches_prompts else 0
        count = self.count(prompt)
        plan = schedule(calibration, body, uncached_tokens=count - cached, load_ms=load_ms, number=number)
        start_ns = self._turn(arrival_ns, plan.service_ns)
        entry: dict[str, Any] = {
            "number": number,
            "path": path,
            "prompt_sha256": hashlib.sha256(prompt.text.encode(errors="replace")).hexdigest(),
            "prompt_tokens": count,
            "cached_tokens": cached,
            "body": {name: value for name, value in body.items() if name not in _TEXTS},
            "load_ms": load_ms,
            "arrival_ns": arrival_ns,
            "start_ns": start_ns,
            **{name: [] for name in ("due_ns", "before_ns", "after_ns", "tokens", "reasoning")},
        }
        self.log.append(entry)
        if body.get("keep_alive") == 0 or number + 1 == calibration.evict_after:
            self.unload(model)
        dialect = (OllamaDialect if path.startswith("/api/") else OpenAIDialect)(body, path, calibration)
        return Answer(
            calibration,
            dialect,
            plan,
            entry=entry,
            outcome=Outcome(count, cached, 0, plan.finish, load_ms),
            start_ns=start_ns,
            fault=self.fault(number),
            streams=bool(body.get("stream", path.startswith("/api/"))),
            transport=transport,
            finished=finished,
        )

    def fault(self, number: int | None = None) -> Fault:
        """Return what goes wrong with request ``number``, by default the next one."""
        number = self._count if number is None else number
        return self.calibration.fault if (number + 1) % self.calibration.fault_every == 0 else "none"

    def refuse(self) -> None:
        """Count a request that gets no answer."""
        self._count += 1

    def _template(self, prompt: Prompt) -> tuple[int, int]:
        if not prompt.has_template:
            return 0, 0
        return self.calibration.template_head_tokens, self.calibration.template_tail_tokens

    def _turn(self, arrival_ns: int, service_ns: int) -> int:
        """Return when a slot is free for it. One who leaves early does not free a slot earlier."""
        if not self._free_at_ns:
            return arrival_ns
        start_ns = max(arrival_ns, self._free_at_ns[0])
        heapq.heapreplace(self._free_at_ns, start_ns + service_ns)
        return start_ns


class Connection(asyncio.Protocol):
    """One connection: requests one after the other."""

    def __init__(self, server: Server) -> None:
        self._server, self._received = server, bytearray()
        self._transport: asyncio.Transport
        self._answer: Answer | None = None
        self._is_busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop writing."""
        if self._answer:
            self._answer.leave()

    def data_received(self, data: bytes) -> None:
        """Answer what is complete."""
        arrival_ns = time.perf_counter_ns()
        self._received += data
        if not self._is_busy:
            self._next(arrival_ns)

    def _next(self, arrival_ns: int) -> None:
        head, mark, rest = bytes(self._received).partition(b"\r\n\r\n")
        if not mark:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return
        self._received = bytearray(rest[length:])
        method, target, _ = first.split(" ")
        path = target.partition("?")[0]
        try:
            body = json.loads(rest[:length]) if length else {}
            self._serve(method, path, body, arrival_ns)
        except (TypeError, ValueError) as error:
            self._say(400, encode({"error": str(error)}))

    def _serve(self, method: str, path: str, body: Any, arrival_ns: int) -> None:
        server, flavour = self._server, self._server.calibration.flavour
        if method == "POST" and path == "/calibration/config":
            server.configure(body)
            self._say(200, b"{}")
        elif method == "POST" and path == "/calibration/reset":
            server.reset(Calibration(**body))
            self._say(200, b"{}")
        elif method == "POST" and path == "/calibration/clear":
            server.log.clear()
            self._say(200, b"{}")
        elif method == "POST" and path == "/calibration/evict":
            for model in server.calibration.models:
                server.unload(model)
            self._say(200, b"{}")
        elif path == "/calibration/log":
            self._say(200, encode({"requests": list(server.log)}))
        elif method == "POST" and path in ANSWERS and (flavour == "ollama" or not path.startswith("/api/")):
            self._begin(path, body, arrival_ns)
        else:
            self._say(*page(server.calibration, server.loaded, path, body, server.count))

    def _begin(self, path: str, body: dict[str, Any], arrival_ns: int) -> None:
        server, calibration, model = self._server, self._server.calibration, str(body.get("model"))
        if model not in calibration.models and calibration.flavour != "llama-server":
            self._say(*not_found(model, is_openai=path.startswith("/v1/")))
        elif path.startswith("/api/") and not prompt_of(path, body).text:
            self._move(path, body)
        elif server.fault() == "http":
            server.refuse()
            said = "refused, as it was told"
            error: Any = {"message": said, "type": "error", "code": None} if path.startswith("/v1/") else said
            self._say(calibration.http_status, encode({"error": error}))
        else:
            self._is_busy = True
            self._answer = server.answer(path, body, arrival_ns, self._transport, self._finished)

    def _move(self, path: str, body: dict[str, Any]) -> None:
        """Load or unload, as Ollama does when there is no prompt."""
        dialect = OllamaDialect(body, path, self._server.calibration)
        if body.get("keep_alive") == 0:
            self._server.unload(str(body.get("model")))
            self._say(200, dialect.moved("unload", 0))
            return
        self._is_busy = True
        load_ms = self._server.load(str(body.get("model")))
        asyncio.get_running_loop().call_later(load_ms / 1e3, self._moved, dialect.moved("load", load_ms))

    def _moved(self, said: bytes) -> None:
        self._say(200, said)
        self._finished(True)

    def _say(self, status: int, body: bytes) -> None:
        head = f"HTTP/1.1 {status} Said so\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)

    def _finished(self, can_go_on: bool) -> None:
        self._answer, self._is_busy = None, False
        if can_go_on and self._received:
            self._next(time.perf_counter_ns())


async def serve(calibration: Calibration) -> None:
    """Serve until standard input ends."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    server = Server(calibration)
    listening = await loop.create_server(lambda: Connection(server), "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{listening.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()

    def wait_for_end() -> None:
        sys.stdin.buffer.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait_for_end, daemon=True).start()
    await ended.wait()
    listening.close()


def main() -> None:
    """Serve with a loop that sleeps to the microsecond: epoll, the usual one, sleeps in whole milliseconds.

    What it uses instead watches no more than a thousand connections.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)
    calibration = Calibration(**json.loads(sys.argv[1]))
    gc.disable()  # a collection would delay a write
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(serve(calibration))


if __name__ == "__main__":
    main()
