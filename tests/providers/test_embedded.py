"""What the embedded provider answers, with the real engine and the shipped weights."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest

from ai_lab.errors import (
    ContextOverflow,
    ModelNotFound,
    UnsupportedFeature,
)
from ai_lab.providers.embedded import Embedded
from ai_lab.providers.types import ChatRequest, Message
from tests.embedded_engine import (
    EXACT,
    SHIPPED,
    TALE,
    answer,
    has_no_work,
    has_work,
    opened,
    running,
    stream,
    until,
)


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[Embedded]:
    async with opened(tmp_path) as provider:
        yield provider


async def test_an_answer_ends_by_itself_with_usage_and_timings(embedded: Embedded) -> None:
    text, last = await answer(embedded)
    assert text.startswith("Hello")
    assert last.finish_reason == "stop"
    assert last.usage is not None
    assert last.usage.prompt_tokens == await embedded.count_tokens(SHIPPED, [Message("user", "Hi")]) == 31
    assert last.usage.completion_tokens
    assert last.timings.keys() == {"load_ms", "prompt_ms", "generation_ms"}
    assert "load_ms" not in (await answer(embedded))[1].timings, "the engine ran already"


async def test_options_reach_the_engine(embedded: Embedded) -> None:
    text, last = await answer(embedded, TALE, max_tokens=5)
    assert last.finish_reason == "length"
    assert last.usage is not None
    assert last.usage.completion_tokens == 5
    wild = [(await answer(embedded, TALE, max_tokens=12, temperature=1.5, seed=seed))[0] for seed in (7, 7, 8)]
    assert wild[0] == wild[1] != wild[2]
    stopped, last = await answer(embedded, "Hi", stop=["assist"])
    assert (last.finish_reason, "assist" in stopped) == ("stop", False)
    assert last.warnings == ()
    assert text
    # This model does not think; others are told by their template.
    for effort, said in (("high", f"option 'reasoning_effort' is not supported by embedded's {SHIPPED}"), ("none", "")):
        _, last = await answer(embedded, "Hi", max_tokens=1, reasoning_effort=effort)
        assert [said in warning for warning in last.warnings] == ([True] if said else [])
    client = embedded._host.client
    assert client is not None
    told = [
        client._body(ChatRequest(SHIPPED, [], options={"reasoning_effort": effort}))[0]["chat_template_kwargs"]
        for effort in ("none", "low")
    ]
    assert told == [{"enable_thinking": False}, {"enable_thinking": True, "reasoning_effort": "low"}]


async def test_a_response_format_is_kept_to(embedded: Embedded) -> None:
    schema = {"type": "object", "properties": {"legs": {"type": "integer"}}, "required": ["legs"]}
    request = ChatRequest(
        SHIPPED,
        [Message("user", "How many legs has a cat?")],
        {**EXACT, "max_tokens": 60},
        response_format={"type": "json_schema", "json_schema": {"name": "cat", "schema": schema}},
    )
    text = "".join([chunk.text async for chunk in embedded.stream(request)])
    assert isinstance(json.loads(text)["legs"], int)


async def test_what_the_model_cannot_do_is_refused(embedded: Embedded) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    image = Message("user", [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}])
    for request, reason in (
        (ChatRequest(SHIPPED, [image]), "text only"),
        (ChatRequest(SHIPPED, [Message("user", "Hi")], tools=[tool]), "not trained to call tools"),
    ):
        with pytest.raises(UnsupportedFeature, match=reason):
            await anext(embedded.stream(request))
    with pytest.raises(UnsupportedFeature, match="no embeddings"):
        await embedded.embed(SHIPPED, ["Hi"])


async def test_too_long_a_prompt_names_both_figures(embedded: Embedded) -> None:
    words = "word " * 1200
    tokens = await embedded.count_tokens(SHIPPED, [Message("user", words)])
    with pytest.raises(ContextOverflow, match=f"{tokens} tokens.* 1024"):
        await answer(embedded, words)
    assert (await answer(embedded))[0]


async def test_nothing_starts_for_questions_about_files(embedded: Embedded) -> None:
    (model,) = await embedded.models()
    assert (model.name, model.context_tokens, model.capabilities) == (SHIPPED, 1024, frozenset({"json"}))
    assert model.size_bytes == 98_362_432
    assert await embedded.context_tokens(SHIPPED.lower()) == 1024
    check = await embedded.check()
    assert (check.reachable, check.detail) == (True, "idle")
    assert embedded.engine is None
    with pytest.raises(ModelNotFound, match="'other'"):
        await answer(embedded, model="other")


async def test_context_is_never_more_than_the_model_was_trained_with(tmp_path: Path) -> None:
    async with opened(tmp_path, context_tokens=100_000) as provider:
        assert await provider.context_tokens(SHIPPED) == 8192


async def test_the_engine_wants_its_key_and_shows_it_nowhere(embedded: Embedded) -> None:
    await answer(embedded, max_tokens=1)
    process = psutil.Process(running(embedded).pid)
    visible = f"{process.cmdline()} {process.environ()} {vars(embedded)}"
    assert running(embedded).api_key not in visible
    listening = {connection.laddr.ip for connection in process.net_connections() if connection.status == "LISTEN"}
    assert listening == {"127.0.0.1"}


async def test_the_engine_gets_no_secret_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENCRYPTION_KEY", "OPENAI_API_KEY", "DATABASE_URL", "AI_LAB_SERVERS", "PGPASSWORD"):
        monkeypatch.setenv(name, "secret-value")
    async with opened(tmp_path, cuda_visible_devices="3") as provider:
        await answer(provider, max_tokens=1)
        environment = psutil.Process(running(provider).pid).environ()
    assert "secret-value" not in environment.values()
    assert environment["CUDA_VISIBLE_DEVICES"] == "3"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes empty memory back")
async def test_context_that_is_not_used_takes_no_memory(tmp_path: Path) -> None:
    async with opened(tmp_path, context_tokens=4096) as provider:
        await answer(provider, max_tokens=2)
        own_bytes = psutil.Process(running(provider).pid).memory_full_info().uss
        assert own_bytes < 200_000_000, "weights 94 MB and 50 MB beside; the cache alone would be 189 MB"


async def test_closing_the_stream_frees_the_slot(embedded: Embedded) -> None:
    async with aclosing(stream(embedded, TALE)) as chunks:
        await anext(chunks)
        assert await embedded.slots_busy() == 1
    assert await until(lambda: has_no_work(embedded)) < 5, "the tale takes 10 s and more"


async def test_cancelling_while_the_prompt_is_read_frees_the_slot(tmp_path: Path) -> None:
    async with opened(tmp_path, context_tokens=8192) as provider:
        await answer(provider, max_tokens=1)
        reading = asyncio.create_task(answer(provider, "word " * 7000))
        await until(lambda: has_work(provider))
        reading.cancel()
        assert await until(lambda: has_no_work(provider)) < 10, "reading it all takes 20 s and more"
