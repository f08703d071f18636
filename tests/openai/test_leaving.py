"""Clients that leave, models that are silent, and a server that stops."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import httpx
import openai
import pytest
from openai import OpenAI

from tests.fakes.http_server import Reply, json_reply
from tests.fakes.openai_server import DONE, delta, stream_reply
from tests.openai.conftest import EMBEDDINGS, Upstream
from tests.openai.prompts import HELLO
from tests.server import ServerProcess

_LONG_SECONDS = 30.0
_SILENT = stream_reply(ending="hang")
_HALF = stream_reply(delta(content="Hel"), ending="hang")


def test_a_client_that_leaves_its_stream_stops_the_model(client: OpenAI, upstream: Upstream) -> None:
    upstream.script(_HALF)
    with client.chat.completions.create(model="fake/tiny", messages=HELLO, stream=True) as stream:
        next(stream)
    upstream.wait_until_left(_LONG_SECONDS)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("reply", [_SILENT, Reply(ending="hang")], ids=["silent", "without headers"])
def test_a_client_that_leaves_before_the_first_piece_stops_the_model(
    client: OpenAI,
    upstream: Upstream,
    reply: Reply,
    stream: bool,
) -> None:
    upstream.script(reply)
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="fake/tiny", messages=HELLO, stream=stream, timeout=0.5)
    upstream.wait_until_left(_LONG_SECONDS)


def test_a_client_that_leaves_does_not_stay_for_its_whole_answer(client: OpenAI, upstream: Upstream) -> None:
    upstream.script(_HALF)
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="fake/tiny", messages=HELLO, timeout=0.5)
    upstream.wait_until_left(_LONG_SECONDS)


def test_a_client_that_leaves_stops_its_embedding(client: OpenAI, upstream: Upstream) -> None:
    upstream.server.script(EMBEDDINGS, Reply(ending="hang"))
    with pytest.raises(openai.APITimeoutError):
        client.embeddings.create(model="fake/tiny", input="a", timeout=2)  # time enough to get there on a busy machine
    upstream.wait_until_left(_LONG_SECONDS)


def test_a_long_silence_has_headers_and_its_failure_is_an_event(server: ServerProcess, upstream: Upstream) -> None:
    """After ten seconds the headers go out, so that nobody thinks us dead; a later failure has no status any more."""
    upstream.script(stream_reply(11.0, ending="cut"), json_reply({}, status=401))
    body = {"model": "fake/tiny", "messages": HELLO, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=30) as answer:
        assert answer.status_code == 200
        assert upstream.server.requests[-1].disconnected.is_set() is False
        said = answer.read().decode().strip()
    assert json.loads(said.removeprefix("data: "))["error"]["code"] == "provider_auth_failed"


def test_a_stopping_server_ends_streams_with_an_error(upstream: Upstream, tmp_path: Path) -> None:
    settings = {"AI_LAB_SERVERS": json.dumps({"fake": upstream.server.base_url})}
    upstream.script(_HALF)
    with (
        ServerProcess(tmp_path / "data", settings) as server,
        OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client,
        client.chat.completions.create(model="fake/tiny", messages=HELLO, stream=True) as stream,
    ):
        next(stream)
        server.send_signal(signal.SIGTERM)
        with pytest.raises(openai.APIError) as caught:
            list(stream)
        assert caught.value.code == "server_stopping"
        upstream.wait_until_left(_LONG_SECONDS)
        assert server.wait() == 0


def test_a_client_may_read_slower_than_the_model_speaks(client: OpenAI, upstream: Upstream) -> None:
    pieces = [f"{number} ".ljust(50_000, ".") for number in range(200)]
    upstream.script(stream_reply(*(delta(content=piece) for piece in pieces), delta("stop"), DONE))
    with client.chat.completions.create(model="fake/tiny", messages=HELLO, stream=True) as stream:
        next(stream)
        time.sleep(0.5)
        said = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(said) == "".join(pieces)
