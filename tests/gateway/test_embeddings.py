"""Vectors by way of the gateway: retried and passed on as answers are, but never to another model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ai_lab.chat.completions import Completion
from ai_lab.errors import ProviderError
from ai_lab.lab import Lab
from ai_lab.providers import Usage
from tests.fakes.faulty_provider import FaultyProvider
from tests.fakes.http_server import json_reply
from tests.gateway.asking import open_lab

_PATH = "/v1/embeddings"
_DOWN = json_reply({"error": {"message": "down"}}, 500)


@pytest.fixture
async def fakes() -> AsyncIterator[tuple[FaultyProvider, FaultyProvider]]:
    async with FaultyProvider() as one, FaultyProvider() as other:
        yield one, other


@pytest.fixture
async def lab(fakes: tuple[FaultyProvider, FaultyProvider], tmp_path: Path, migrated_file: Path) -> AsyncIterator[Lab]:
    servers = {name: {"base_url": fake.base_url} for name, fake in zip(("one", "other"), fakes, strict=True)}
    aliases = {"same": {"models": ["one/tiny", "other/tiny"]}, "different": {"models": ["one/tiny", "other/ok"]}}
    async with open_lab(tmp_path, migrated_file, servers=servers, aliases=aliases) as lab:
        yield lab


async def embedding(lab: Lab, model: str) -> Completion:
    return lab.completions.embed(await lab.gateway.route(model), ["a", "b"])


async def test_they_are_asked_for_again(lab: Lab, fakes: tuple[FaultyProvider, FaultyProvider]) -> None:
    made = json_reply({"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [2.0]}]})
    fakes[0].script(_PATH, _DOWN, made)
    completion = await embedding(lab, "one/tiny")
    assert (await completion.result()).vectors == [[1.0], [2.0]]
    assert [attempt.outcome for attempt in completion.call.attempts] == ["failed", "ok"]


async def test_the_same_model_elsewhere_is_asked_instead(
    lab: Lab, fakes: tuple[FaultyProvider, FaultyProvider]
) -> None:
    fakes[0].script(_PATH, _DOWN)
    completion = await embedding(lab, "same")
    made = await completion.result()
    assert made.vectors == [[0.0, 0.5], [1.0, 0.5]]
    assert made.usage == Usage(prompt_tokens=5)
    assert completion.model.full_name == "other/tiny"


async def test_vectors_of_another_model_are_no_substitute(
    lab: Lab, fakes: tuple[FaultyProvider, FaultyProvider]
) -> None:
    fakes[0].script(_PATH, _DOWN)
    with pytest.raises(ProviderError):
        await (await embedding(lab, "different")).result()
    assert fakes[1].received(_PATH) == []
