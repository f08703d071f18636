"""A server that speaks OpenAI's API and has a model for each thing that servers do wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from tests.fakes.http_server import ReceivedRequest, Reply, json_reply
from tests.fakes.openai_server import CHAT, DONE, OpenAIServer, delta, event, stream_reply, usage

TOKENS = 4


def _right() -> list[bytes]:
    return [*(delta(content=f"w{at} ") for at in range(TOKENS)), delta("length"), usage(30, TOKENS), DONE]


def _third(number: int) -> Reply:
    if number % 3:
        return stream_reply(*_right())
    return stream_reply(
        delta(content="so "), delta(content="far "), event({"error": {"message": "CUDA out of memory"}})
    )


def _without_end(*parts: bytes | float) -> Reply:
    """Not quite: a test of a client that does not leave must end as well."""
    return stream_reply(*parts * 1000)


#: By the name of the model: what it answers as its n-th answer.
MODELS: dict[str, Callable[[int], Reply]] = {
    "right": lambda _: stream_reply(*_right()),
    "nothing": lambda _: stream_reply(delta("stop"), usage(30, 0), DONE),
    "one-token": lambda _: stream_reply(delta(content="Yes"), delta("stop"), usage(30, 1), DONE),
    "half-character": lambda _: stream_reply(
        *_right()[: TOKENS - 1], delta(content="é").replace("é".encode(), b"\xc3"), *_right()[TOKENS:]
    ),
    "every-third": _third,
    "cut": lambda _: stream_reply(*_right()[:2], ending="cut"),
    "slower": lambda _: stream_reply(*_right()[:2], 1.5, *_right()[2:]),
    "slow": lambda _: stream_reply(*(one for part in _right() for one in (0.3, part))),
    "busy": lambda _: json_reply({"error": {"message": "too many requests"}}, 429, retry_after="7"),
    "page": lambda _: Reply([b"<html><body>Sign in</body></html>"], headers={"content-type": "text/html"}),
    "elsewhere": lambda _: Reply([], 302, {"location": "http://127.0.0.1:9/login"}),
    "long-line": lambda _: stream_reply(b'data: {"x": "', *[b"x" * 1_000_000] * 11),
    "endless": lambda _: _without_end(*(delta(content="on "),) * 20, 0.001),
    "alive": lambda _: _without_end(b": still here\n\n", 0.1),
    "no-usage": lambda _: stream_reply(*_right()[:-2], DONE),
}


class OddServer(OpenAIServer):
    """Answers as the model that is asked for does."""

    def __init__(self) -> None:
        super().__init__()
        self._asked: Counter[str] = Counter()

    def default_reply(self, request: ReceivedRequest) -> Reply:
        """Answer for the model in the body."""
        if request.path == CHAT:
            name = request.json()["model"]
            self._asked[name] += 1
            return MODELS[name](self._asked[name])
        if request.path == "/v1/models":
            return json_reply({"object": "list", "data": [{"id": name} for name in MODELS]})
        return super().default_reply(request)
