"""A service with OpenAI's API that fails on purpose, in every way that real ones were seen to fail.

    async with FaultyProvider() as fake:
        settings = Settings(servers={"faulty": {"base_url": fake.base_url}, **fake.unreachable()}, …)
        # ask for faulty/ok, faulty/reset, faulty/error_500, dns/tiny …
        assert fake.asked["reset"] == 3

A model's name is its fault (``FAULTS`` has them all, and the service lists them as its models); with ``variants=3``,
``reset:2`` and ``reset:3`` are further models with the same fault, and breakers of their own. Any other model, such as
``tiny``, does what ``fake.fault`` says, ``ok`` at first; so a test can break and mend it while it runs:

    fake.fault = "error_500"
    fake.failing = 0.3            # instead: this share of all chats ends in HTTP 500, by chance, the same in every run

``fake.asked[model]`` counts the chats that came for a model, ``fake.requests`` has all that was sent. A whole answer is
``ANSWER``, in ``PIECES``, and costs ``USAGE`` (7 and 4 tokens). How long a fault takes: ``fake.slow_seconds`` (silence
before the first byte of ``slow``), ``fake.retry_after_seconds`` (what 429 asks for).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Self

from tests.fakes.http_server import FakeServer, ReceivedRequest, Reply, json_reply
from tests.fakes.openai_server import CHAT, DONE, delta, event, stream_reply, text_reply, usage

PIECES = ("Grüße", " aus", " 東京", " 👋🏽")
ANSWER = "".join(PIECES)
USAGE = (7, len(PIECES))

_ERROR = {"error": {"message": "The server had an error while processing your request.", "type": "server_error"}}
_TEXT = tuple(delta(content=piece) for piece in PIECES)
_END = (delta("stop"), usage(*USAGE))
_BAD_JSON = b'data: {"choices": [{"index": 0, "delta": {"content": "cut \n\n'
_HUGE_LINE_BYTES = 10_500_000

#: What the service is asked to do wrong, by the name of the model.
FAULTS = (
    "ok",
    "slow",  # silent for ``slow_seconds``, then a whole answer
    "silent",  # takes the request and says nothing
    "hang",  # status and headers, then nothing
    "hang_late",  # two pieces of text, then nothing
    "reset",  # RST instead of an answer
    "reset_late",  # two pieces, then RST
    "cut_late",  # two pieces, then the connection is closed in order
    "no_end",  # all of the text, then the body ends, but no finish_reason came
    "split_utf8",  # a whole answer, every character torn over two packets
    "doubled_done",  # a whole answer, [DONE] twice
    "bad_json",
    "bad_json_late",
    "error_in_200",
    "error_in_200_late",
    "rate_limited",  # 429 without a time
    "rate_limited_seconds",  # 429, Retry-After: ``retry_after_seconds``
    "rate_limited_date",  # the same as a date
    "quota",  # 402
    "auth",  # 401
    "refused",  # 400
    "error_500",
    "unavailable_503",
    "overloaded_529",
    "endless",  # text for ever
    "huge_line",  # one line of more than 10 MB
)
#: Those that give a whole answer all the same.
HARMLESS = frozenset({"ok", "slow", "split_utf8", "doubled_done"})
#: Those that come after text of the answer has been sent.
LATE = frozenset({"hang_late", "reset_late", "cut_late", "no_end", "bad_json_late", "error_in_200_late", "endless"})
_STATUSES = {
    "quota": 402,
    "auth": 401,
    "refused": 400,
    "error_500": 500,
    "unavailable_503": 503,
    "overloaded_529": 529,
}


class FaultyProvider(FakeServer):
    """See the module. Use as ``async with``.

    Args:
        seed: of the chance with which it fails.
        variants: how many models have each fault.
    """

    def __init__(self, seed: int = 0, *, variants: int = 1) -> None:
        super().__init__()
        further = [f"{fault}:{number}" for fault in FAULTS for number in range(2, variants + 1)]
        self.models = [*FAULTS, *further, "tiny"]
        self.fault = "ok"
        self.failing = 0.0
        self.slow_seconds = 0.3
        self.retry_after_seconds = 1.0
        self.asked: Counter[str] = Counter()
        self.failed = 0  # chats that ended in HTTP 500 by chance
        self._chance = random.Random(seed)  # noqa: S311 - the same in every run
        self._closed_port = socket.socket()
        self._plain: asyncio.Server | None = None

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    def unreachable(self) -> dict[str, str]:
        """Return base URLs that no answer comes from: ``refuse`` (nobody listens), ``dns`` (no such name), ``tls``."""
        assert self._plain
        return {
            "refuse": f"http://127.0.0.1:{self._closed_port.getsockname()[1]}/v1",
            "dns": "http://no-such-host.invalid/v1",
            "tls": f"https://127.0.0.1:{self._plain.sockets[0].getsockname()[1]}/v1",  # answers in plain text
        }

    async def __aenter__(self) -> Self:
        self._closed_port.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it
        self._plain = await asyncio.start_server(_answer_plainly, "127.0.0.1", 0)
        return await super().__aenter__()

    async def __aexit__(self, *error: object) -> None:
        assert self._plain
        self._plain.close()
        self._closed_port.close()
        await super().__aexit__(*error)

    def default_reply(self, request: ReceivedRequest) -> Reply:
        if request.path == "/v1/models":
            return json_reply({"object": "list", "data": [{"id": name} for name in self.models]})
        if request.path == "/v1/embeddings":
            rows = [{"index": n, "embedding": [float(n), 0.5]} for n in range(len(request.json()["input"]))]
            return json_reply({"data": rows, "usage": {"prompt_tokens": 5, "total_tokens": 5}})
        if request.path != CHAT:
            return super().default_reply(request)
        model = request.json()["model"]
        self.asked[model] += 1
        if self.failing and self._chance.random() < self.failing:
            self.failed += 1
            return json_reply(_ERROR, 500)
        fault, _, _ = model.partition(":")
        return self._reply(fault if fault in FAULTS else self.fault)

    def _reply(self, fault: str) -> Reply:
        if fault in _STATUSES:
            return json_reply(_ERROR, _STATUSES[fault])
        if fault.startswith("rate_limited"):
            return json_reply(_ERROR, 429, **self._retry_after(fault))
        if fault in {"slow", "silent"}:
            return replace(text_reply(*PIECES), late_seconds=self.slow_seconds if fault == "slow" else math.inf)
        return _REPLIES[fault]()

    def _retry_after(self, fault: str) -> dict[str, str]:
        if fault == "rate_limited":
            return {}
        if fault == "rate_limited_seconds":
            return {"retry_after": f"{self.retry_after_seconds:g}"}
        # A date has whole seconds: the one that is not over before.
        moment = datetime.now(UTC) + timedelta(seconds=self.retry_after_seconds + 0.999)
        return {"retry_after": format_datetime(moment, usegmt=True)}


def _torn(body: bytes) -> Iterator[bytes | float]:
    """Yield ``body`` with every character of more than one byte torn, and a pause before the rest of it."""
    begin = 0
    for at, byte in enumerate(body):
        if 0x80 <= byte < 0xC0:  # goes on with a character
            yield body[begin:at]
            yield 0.001
            begin = at
    yield body[begin:]


def _endless() -> Iterator[bytes | float]:
    while True:
        yield delta(content="more ")
        yield 0.002


_BEGUN: tuple[bytes | float, ...] = (*_TEXT[:2], 0.02)  # the pause lets the client read them before what follows
_REPLIES: dict[str, Callable[[], Reply]] = {
    "ok": lambda: text_reply(*PIECES),
    "hang": lambda: stream_reply(ending="hang"),
    "hang_late": lambda: stream_reply(*_BEGUN, ending="hang"),
    "reset": lambda: Reply(ending="reset"),
    "reset_late": lambda: stream_reply(*_BEGUN, ending="reset"),
    "cut_late": lambda: stream_reply(*_BEGUN, ending="cut"),
    "no_end": lambda: stream_reply(*_TEXT),
    "split_utf8": lambda: stream_reply(*_torn(b"".join((*_TEXT, *_END, DONE)))),
    "doubled_done": lambda: stream_reply(*_TEXT, *_END, DONE + DONE),
    "bad_json": lambda: stream_reply(_BAD_JSON, *_TEXT, *_END, DONE),
    "bad_json_late": lambda: stream_reply(*_BEGUN, _BAD_JSON, *_TEXT, *_END, DONE),
    "error_in_200": lambda: stream_reply(event(_ERROR), DONE),
    "error_in_200_late": lambda: stream_reply(*_BEGUN, event(_ERROR), DONE),
    "endless": lambda: Reply(_endless(), headers={"content-type": "text/event-stream"}),
    "huge_line": lambda: stream_reply(b"data: " + b"x" * _HUGE_LINE_BYTES),
}


async def _answer_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\nplain http only")
        await writer.drain()
    writer.close()
