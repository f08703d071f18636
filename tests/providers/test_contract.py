"""What every adapter does, whatever its service's wire format: a new one adds a row to ``wire_formats``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from ai_lab import clock
from ai_lab.errors import (
    ContentFiltered,
    ContextOverflow,
    LabError,
    ProviderAuthFailed,
    ProviderError,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderRefused,
    ProviderTimeout,
    ProviderUnavailable,
    StreamBroken,
)
from ai_lab.providers.types import ChatRequest, Chunk, Message, Provider
from tests.fakes.http_server import FakeServer, Reply
from tests.providers.wire_formats import ARGUMENTS, MODEL, WIRE_FORMATS, WireFormat, arguments_of
from tests.security.canary import new_secret

KEY = new_secret("sk-")
PIXEL = "iVBORw0KGgo="
ASKED = ChatRequest(MODEL, [Message("system", "Be brief."), Message("user", "hi")])
PARAMETERS = {"type": "object", "properties": {"at": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": PARAMETERS}}


@pytest.fixture(params=WIRE_FORMATS, ids=[wire.name for wire in WIRE_FORMATS])
def wire(request: pytest.FixtureRequest) -> WireFormat:
    chosen: WireFormat = request.param
    return chosen


@pytest.fixture
async def server(wire: WireFormat) -> AsyncIterator[FakeServer]:
    async with wire.server() as running:
        yield running


@contextlib.asynccontextmanager
async def opened(wire: WireFormat, server: FakeServer, timeout_seconds: float = 60.0) -> AsyncIterator[Provider]:
    async def key() -> str:
        return KEY

    made = wire.make(wire.name, server.origin, api_key=key, timeout_seconds=timeout_seconds)
    yield made
    await made.close()


@pytest.fixture
async def provider(wire: WireFormat, server: FakeServer) -> AsyncIterator[Provider]:
    async with opened(wire, server) as made:
        yield made


async def collect(provider: Provider, request: ChatRequest = ASKED) -> list[Chunk]:
    return [chunk async for chunk in provider.stream(request)]


async def failure(provider: Provider) -> LabError:
    with pytest.raises(LabError) as caught:
        await collect(provider)
    return caught.value


# -- whole answers ------------------------------------------------------------------------------------------------


async def test_text_reasoning_usage_and_the_one_end(wire: WireFormat, server: FakeServer, provider: Provider) -> None:
    server.script(wire.path, wire.stream(wire.thought("Hm"), wire.text("Hel"), wire.text("lo"), wire.end("stop")))

    *pieces, final = await collect(provider)

    assert "".join(chunk.text for chunk in pieces) == "Hello"
    assert "".join(chunk.reasoning for chunk in pieces) == "Hm"
    assert all(chunk.finish_reason is None and chunk.usage is None for chunk in pieces)
    assert final.finish_reason == "stop"
    assert final.usage
    assert (final.usage.prompt_tokens, final.usage.completion_tokens) == (7, 2)
    assert not final.text


async def test_tool_call_has_the_shape_of_openai(wire: WireFormat, server: FakeServer, provider: Provider) -> None:
    server.script(wire.path, wire.stream(wire.tool_call, wire.end("tool_calls")))

    *pieces, final = await collect(provider, replace(ASKED, tools=[TOOL], tool_choice="auto"))

    parts = [part for chunk in pieces for part in chunk.tool_calls or []]
    assert {part["index"] for part in parts} == {0}
    assert parts[0]["id"]
    assert parts[0]["function"]["name"] == "look"
    assert arguments_of(parts) == ARGUMENTS
    assert final.finish_reason == "tool_calls"
    [sent] = server.received(wire.path)
    assert b'"look"' in sent.body
    assert b'"properties"' in sent.body


async def test_call_that_came_can_be_sent_back_with_its_result(
    wire: WireFormat, server: FakeServer, provider: Provider
) -> None:
    server.script(wire.path, wire.stream(wire.tool_call, wire.end("tool_calls")), wire.whole("a cat"))
    *pieces, _ = await collect(provider, replace(ASKED, tools=[TOOL]))
    parts = [part for chunk in pieces for part in chunk.tool_calls or []]
    whole = {**parts[0], "function": {"name": "look", "arguments": '{"at": "Ä"}'}}

    result = Message("tool", "it purrs", tool_call_id=whole["id"])
    messages = [*ASKED.messages, Message("assistant", "", tool_calls=[whole]), result]
    chunks = await collect(provider, replace(ASKED, messages=messages, tools=[TOOL]))

    assert chunks[0].text == "a cat"
    assert b"it purrs" in server.received(wire.path)[-1].body


async def test_image_is_sent(wire: WireFormat, server: FakeServer, provider: Provider) -> None:
    server.script(wire.path, wire.whole("a dot"))
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}

    await collect(provider, replace(ASKED, messages=[Message("user", [{"type": "text", "text": "what?"}, image])]))

    assert PIXEL.encode() in server.received(wire.path)[-1].body


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_reason_to_stop(wire: WireFormat, server: FakeServer, provider: Provider, reason: str) -> None:
    server.script(wire.path, wire.stream(wire.text("x"), wire.end(reason)))

    finish = (await collect(provider))[-1].finish_reason

    assert finish == reason or (wire.name == "ollama" and reason == "content_filter")


async def test_characters_split_over_reads_arrive_whole(
    wire: WireFormat, server: FakeServer, provider: Provider
) -> None:
    said = "\u00e4\U0001f600\u0085\u2028z"
    whole = wire.text(said) + wire.end("stop")
    parts: list[bytes | float] = []
    for at in range(len(whole)):
        parts += [whole[at : at + 1], 0]
    server.script(wire.path, wire.stream(*parts))

    assert "".join(chunk.text for chunk in await collect(provider)) == said


async def test_option_that_nobody_knows_is_named_in_a_warning(
    wire: WireFormat, server: FakeServer, provider: Provider
) -> None:
    server.script(wire.path, wire.whole("x"))

    chunks = await collect(provider, replace(ASKED, options={"mirostat": 1, "max_tokens": 5, "seed": None}))

    assert any("mirostat" in warning for warning in chunks[-1].warnings)
    assert b"mirostat" not in server.received(wire.path)[-1].body


async def test_connection_serves_again(wire: WireFormat, server: FakeServer, provider: Provider) -> None:
    server.script(wire.path, wire.whole("x"))
    await collect(provider)
    count = server.connection_count

    for _ in range(2):
        await collect(provider)

    assert server.connection_count == count


async def test_end_of_the_answer_is_not_waited_for_once_it_is_told(
    wire: WireFormat, server: FakeServer, provider: Provider
) -> None:
    server.script(wire.path, wire.stream(wire.text("x"), wire.end("stop"), ending="hang"))

    async with asyncio.timeout(30):
        chunks = await collect(provider)

    assert chunks[-1].finish_reason == "stop"


# -- broken answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["", "cut", "{nonsense", '"\udcff"', "[" * 100_000], ids=lambda end: end[:9])
async def test_answer_without_its_end_keeps_its_beginning_and_raises(
    wire: WireFormat, server: FakeServer, provider: Provider, end: str
) -> None:
    line = end.encode(errors="surrogateescape") + b"\n"  # "\udcff" stands for a byte that is no UTF-8
    ending: Any = "cut" if end == "cut" else "end"
    last = [] if end in {"", "cut"} else [line if wire.name == "ollama" else b"data: " + line]
    server.script(wire.path, wire.stream(wire.text("par"), *last, ending=ending))
    stream = provider.stream(ASKED)

    assert (await anext(stream)).text == "par"
    with pytest.raises(LabError) as caught:
        await anext(stream)

    assert type(caught.value) is StreamBroken


async def test_line_without_end_is_given_up(wire: WireFormat, server: FakeServer, provider: Provider) -> None:
    server.script(wire.path, wire.stream(wire.text("x" * 10_000_001), wire.end("stop")))

    assert type(await failure(provider)) is StreamBroken


async def test_overload_in_the_middle_of_an_answer(wire: WireFormat, server: FakeServer, provider: Provider) -> None:
    server.script(wire.path, wire.stream(wire.text("par"), wire.overloaded))

    assert type(await failure(provider)) is ProviderUnavailable


async def test_silence_is_a_timeout(wire: WireFormat, server: FakeServer) -> None:
    server.script(wire.path, wire.stream(wire.text("par"), ending="hang"))
    async with opened(wire, server, timeout_seconds=0.2) as provider:
        assert type(await failure(provider)) is ProviderTimeout


async def test_closing_early_disconnects(wire: WireFormat, server: FakeServer, provider: Provider) -> None:
    server.script(wire.path, wire.stream(wire.text("first"), ending="hang"))
    stream = provider.stream(ASKED)
    assert (await anext(stream)).text == "first"

    await stream.aclose()

    await asyncio.wait_for(server.received(wire.path)[0].disconnected.wait(), timeout=30)


# -- refusals -----------------------------------------------------------------------------------------------------


async def test_key_travels_in_its_header_and_is_in_no_text(
    wire: WireFormat, server: FakeServer, provider: Provider
) -> None:
    server.script(wire.path, wire.error(401, f"Incorrect key {KEY}, that is {KEY[:12]}…{KEY[-6:]}."))

    error = await failure(provider)

    [sent] = server.received(wire.path)
    header, scheme = wire.key_header
    assert sent.headers[header] == scheme + KEY
    assert KEY not in sent.path
    assert KEY not in str({**sent.headers, header: ""})
    assert KEY.encode() not in sent.body
    assert type(error) is ProviderAuthFailed
    assert KEY[:12] not in error.detail
    assert KEY[-6:] not in error.detail
    assert KEY not in repr(error.__cause__)


async def test_empty_account_is_no_matter_of_a_moment(wire: WireFormat, server: FakeServer, provider: Provider) -> None:
    server.script(wire.path, wire.out_of_money)

    assert type(await failure(provider)) is ProviderQuotaExceeded


async def test_rate_limit_tells_how_long_to_wait(wire: WireFormat, server: FakeServer, provider: Provider) -> None:
    date = format_datetime(clock.now() + timedelta(seconds=90), usegmt=True)
    server.script(
        wire.path,
        wire.error(429, "slow down", retry_after="7"),
        wire.error(429, "slow down", retry_after=date),
        wire.error(429, "slow down"),
    )

    errors = [await failure(provider) for _ in range(3)]

    assert {type(error) for error in errors} == {ProviderRateLimited}
    assert errors[0].retry_after_seconds == 7
    assert 80 < (errors[1].retry_after_seconds or 0) <= 90
    assert errors[2].retry_after_seconds is None


@pytest.mark.parametrize(
    "refusal",
    [
        (400, "prompt is too long: 5000 tokens", ContextOverflow),
        (400, "temperature must be a number", ProviderRefused),
        (500, "boom", ProviderError),
        (503, "starting", ProviderUnavailable),
        (504, "", ProviderTimeout),
        (529, "overloaded", ProviderUnavailable),
    ],
)
async def test_status_decides_the_error(
    wire: WireFormat, server: FakeServer, provider: Provider, refusal: tuple[int, str, type[LabError]]
) -> None:
    status, message, expected = refusal
    server.script(wire.path, wire.error(status, message))

    assert type(await failure(provider)) is expected


async def test_filter_that_refuses_the_request(wire: WireFormat, server: FakeServer, provider: Provider) -> None:
    refusal = wire.filtered
    if refusal is None:
        assert wire.name in {"cohere", "ollama"}  # their filters only end an answer, or there is none
        return
    server.script(wire.path, refusal)

    assert type(await failure(provider)) is ContentFiltered


async def test_connection_that_is_reset_is_unavailable(
    wire: WireFormat, server: FakeServer, provider: Provider
) -> None:
    server.script(wire.path, Reply(ending="reset"))

    assert type(await failure(provider)) is ProviderUnavailable
