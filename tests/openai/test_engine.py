"""The official client and the embedded engine with its real model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import uvicorn
from openai import AsyncOpenAI, OpenAI

from ai_lab.lab import Lab
from ai_lab.providers.catalog import SHIPPED_MODEL
from ai_lab.providers.embedded import Embedded
from ai_lab.settings import Settings
from backend.app import create_app
from tests.server import free_port

MODEL = f"embedded/{SHIPPED_MODEL}"
QUESTION: list[Any] = [{"role": "user", "content": "Tell me about the sea."}]


def test_an_answer_is_held_to_a_json_schema(client: OpenAI) -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "large": {"type": "boolean"}},
        "required": ["city", "large"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Name a city."}],
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}},
        max_tokens=100,
        seed=1,
    )
    said = json.loads(answer.choices[0].message.content or "")
    assert set(said) == {"city", "large"}
    assert isinstance(said["large"], bool)


def test_the_same_seed_gives_the_same_answer(client: OpenAI) -> None:
    def said(seed: int) -> str | None:
        answer = client.chat.completions.create(
            model=MODEL, messages=QUESTION, seed=seed, temperature=1.0, max_tokens=24
        )
        return answer.choices[0].message.content

    assert said(7) == said(7)
    assert said(7) != said(8)


def test_a_stop_sequence_ends_the_answer_and_is_no_part_of_it(client: OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=24)
    words = (whole.choices[0].message.content or "").split()
    stopped = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=24, stop=[f" {words[3]}"]
    )
    assert (stopped.choices[0].message.content or "").split() == words[:3]
    assert stopped.choices[0].finish_reason == "stop"


def test_streamed_and_whole_answers_are_the_same(client: OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=16)
    with client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        temperature=0,
        max_tokens=16,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == whole.choices[0].message.content
    assert chunks[-1].usage
    assert whole.usage
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 16
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason == "length"


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_does_not_fit_is_refused(client: OpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "sea " * 6000}], stream=stream
        )
    assert caught.value.code == "context_length_exceeded"


def test_a_model_without_tools_refuses_them(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model=MODEL,
            messages=QUESTION,
            tools=[{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
        )
    assert (caught.value.code, caught.value.param) == ("unsupported_feature", "tools")


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    settings = Settings(data_dir=tmp_path / "data", ollama_host=f"http://127.0.0.1:{free_port()}")
    async with Lab.open(settings) as opened:
        yield opened


async def test_a_client_that_leaves_frees_the_engine(lab: Lab) -> None:
    """Served from this process, so that the engine itself can be asked what it is working on."""
    port = free_port()
    web = uvicorn.Server(uvicorn.Config(create_app(lab), port=port, log_level="warning", lifespan="off"))
    serving = asyncio.create_task(web.serve())
    while not web.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    engine = lab.providers.get("embedded")
    assert isinstance(engine, Embedded)
    try:
        async with AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="unused", max_retries=0) as client:
            stream = await client.chat.completions.create(
                model=MODEL, messages=QUESTION, stream=True, extra_body={"ignore_eos": True}
            )
            await anext(stream)
            assert await engine.slots_busy() == 1
            await stream.close()
            async with asyncio.timeout(3):
                while await engine.slots_busy() or lab.completions.running:  # noqa: ASYNC110 - nor has the engine
                    await asyncio.sleep(0.02)
    finally:
        web.should_exit = True
        await serving
