"""Models and embeddings, asked for by the official client over a real server."""

from __future__ import annotations

import base64

import httpx
import openai
import pytest
from openai import OpenAI

from tests.openai.conftest import Upstream
from tests.server import ServerProcess


def test_models_are_listed_and_retrieved(client: OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert {"echo/echo", "fake/tiny"} <= set(listed)
    assert listed["fake/tiny"].owned_by == "fake"
    assert listed["fake/tiny"].object == "model"
    assert (listed["fake/tiny"].model_extra or {})["stale"] is False
    assert client.models.retrieve("fake/tiny") == listed["fake/tiny"]
    assert client.models.retrieve("tiny").id == "fake/tiny"
    with pytest.raises(openai.NotFoundError, match="Did you mean fake/tiny"):
        client.models.retrieve("fake/tny")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("down/any")


def test_embeddings(client: OpenAI, server: ServerProcess, upstream: Upstream) -> None:
    made = client.embeddings.create(model="fake/tiny", input=["a", "b"])  # the client asks for base64 of its own accord
    assert [(row.index, row.embedding) for row in made.data] == [(0, [0.0, 0.5]), (1, [1.0, 0.5])]
    assert made.model == "fake/tiny"
    assert upstream.server.requests[-1].json() == {"model": "tiny", "input": ["a", "b"], "encoding_format": "float"}
    plain = client.embeddings.create(model="fake/tiny", input="a", encoding_format="float")
    assert plain.data[0].embedding == [0.0, 0.5]
    body = {"model": "fake/tiny", "input": "a", "encoding_format": "base64"}
    packed = httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=60).json()["data"][0]["embedding"]
    assert base64.b64decode(packed) == bytes.fromhex("00000000 0000003f")


def test_embeddings_that_cannot_be_made(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.embeddings.create(model="text-embedding-3-small", input="a")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as cannot:
        client.embeddings.create(model="echo", input="a")
    assert cannot.value.code == "unsupported_feature"
    with pytest.raises(openai.BadRequestError, match="token numbers"):
        client.embeddings.create(model="fake/tiny", input=[1, 2, 3])
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="fake/tiny", input="")
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="fake/tiny", input=[])
    with pytest.raises(openai.BadRequestError) as shorter:
        client.embeddings.create(model="fake/tiny", input="a", dimensions=5)
    assert (shorter.value.code, shorter.value.param) == ("unsupported_feature", "dimensions")
