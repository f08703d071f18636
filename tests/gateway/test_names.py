"""Names of services in the settings that nobody has are told at the start, with what was probably meant."""

from __future__ import annotations

from typing import Any

import pytest

from ai_lab.gateway.names import unknown_names
from ai_lab.providers import Providers
from ai_lab.settings import Settings
from tests.fakes.http_server import json_reply
from tests.fakes.openai_server import OpenAIServer

_SERVERS = {"Work": {"base_url": "http://127.0.0.1:9/v1"}}


async def told(**given: Any) -> list[str]:
    settings = Settings.model_validate({"servers": _SERVERS, **given})
    providers = Providers(settings)
    found = unknown_names(settings, providers)
    await providers.close()
    return found


async def test_names_that_there_are_or_can_be_are_no_matter() -> None:
    names = ("openai", "Work", "echo", "embedded", "embedder", "ollama", "huggingface")
    models = [*(f"{name}/x" for name in names), "a-bare-name"]
    assert (
        await told(
            aliases={"fast": {"models": models}, "my/own": {"models": ["echo/echo"]}},
            service_limits={name: {"concurrency": 1} for name in names},
            prices={**{f"{name}/*": {"input": 1} for name in names}, "openai/org/model": {"input": 1}},
            default_model="my/own",
        )
        == []
    )


@pytest.mark.parametrize(
    ("given", "warning"),
    [
        (
            {"service_limits": {"opnai": {"concurrency": 1}}},
            "AI_LAB_SERVICE_LIMITS: no service is called 'opnai'. Did you mean openai?",
        ),
        (
            {"service_limits": {"work": {"concurrency": 1}}},
            "AI_LAB_SERVICE_LIMITS: no service is called 'work'. Did you mean Work?",
        ),
        (
            {"aliases": {"fast": {"models": ["echo/echo", "gemini/x"]}}},
            "AI_LAB_ALIASES, fast, gemini/x: no service is called 'gemini'. Did you mean google?",
        ),
        (
            {"prices": {"Anthropic/*": {"input": 1}}},
            "AI_LAB_PRICES, Anthropic/*: no service is called 'Anthropic'. Did you mean anthropic?",
        ),
        (
            {"prices": {"gpt-5": {"input": 1}}},
            "AI_LAB_PRICES: 'gpt-5' names no model. Write provider/model, or provider/* for all of a service.",
        ),
        (
            {"default_model": "olama/llama3"},
            "AI_LAB_DEFAULT_MODEL, olama/llama3: no service is called 'olama'. Did you mean ollama?",
        ),
        (
            {"default_model": "fasst", "aliases": {"fast": {"models": ["echo/echo"]}}},
            "AI_LAB_DEFAULT_MODEL: no model is known as 'fasst' now. Did you mean the alias fast?",
        ),
        (
            {"aliases": {"fast": {"models": ["echo/echo"]}, "two": {"models": ["fast"]}}},
            "AI_LAB_ALIASES, two: 'fast' is an alias, and no alias stands in another. Name its models.",
        ),
        (
            {"service_limits": {"zeb": {"concurrency": 1}}},
            "AI_LAB_SERVICE_LIMITS: no service is called 'zeb'. It has no effect until AI_LAB_SERVERS or a key has it.",
        ),
    ],
)
async def test_what_nobody_has_is_named_with_what_comes_near(given: dict[str, Any], warning: str) -> None:
    assert await told(**given) == [warning]


async def test_a_model_whose_own_name_has_a_slash_is_known_by_its_list() -> None:
    async with OpenAIServer() as fake:
        fake.script("/v1/models", json_reply({"data": [{"id": "org/model"}]}))
        aliases = {"fast": {"models": ["org/model", "org/other"]}}
        settings = Settings.model_validate({"servers": {"far": {"base_url": fake.base_url}}, "aliases": aliases})
        providers = Providers(settings)
        assert len(unknown_names(settings, providers)) == 2
        await providers.list_models()
        (other,) = unknown_names(settings, providers)
        assert other.startswith("AI_LAB_ALIASES, fast, org/other: no service is called 'org'. It has no effect")
        await providers.close()
