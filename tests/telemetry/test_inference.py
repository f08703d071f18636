"""Calls of models are measured as they pass, and nothing about them changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import pytest

from ai_lab.errors import ProviderTimeout, ProviderUnavailable, StreamBroken, UnsupportedFeature
from ai_lab.logging import RequestIds, request_ids
from ai_lab.providers import ChatRequest, Chunk, Message, Providers, Usage
from ai_lab.settings import Settings
from ai_lab.telemetry.prometheus.instruments import Instruments
from tests.telemetry.scrape import Recorded, samples_of

Shown = dict[str, float]
END = Chunk(finish_reason="stop", usage=Usage(7, 3, cached_tokens=4, reasoning_tokens=2))


class Scripted:
    """A model's stream with known pauses; says whether it was closed."""

    def __init__(self, *steps: Chunk | float | BaseException) -> None:
        self.steps = steps
        self.closed = False

    async def stream(self) -> AsyncGenerator[Chunk, None]:
        try:
            for step in self.steps:
                if isinstance(step, Chunk):
                    yield step
                elif isinstance(step, BaseException):
                    raise step
                else:
                    await asyncio.sleep(step)
        finally:
            self.closed = True


async def shown_of(instruments: Instruments, provider: str = "echo", model: str = "echo") -> Shown:
    """Return what is shown of one model, by name and further labels; of histograms the count and the sum."""
    shown: Shown = {}
    for name, samples in (await samples_of(instruments.registry)).items():
        if name.startswith("ai_lab_llm_") and not name.endswith("_bucket"):
            for sample in samples.values():
                labels = dict(sample.labels)
                if labels.pop("provider", None) == provider and labels.pop("model", None) == model:
                    shown[" ".join((name.removeprefix("ai_lab_llm_"), *labels.values()))] = sample.value
    return shown


async def test_pieces_that_arrive_together_are_no_time_apart() -> None:
    instruments = Instruments(Recorded())
    script = Scripted(Chunk(text="abc", pieces=3), 0.02, Chunk(text="de", pieces=2), END)
    async for _ in instruments.inference.chat("echo", "echo", script.stream()):
        pass
    shown = await shown_of(instruments)
    assert shown["inter_token_latency_seconds_count"] == 4
    assert 0.02 <= shown["inter_token_latency_seconds_sum"] < shown["request_duration_seconds_sum"]


async def test_a_whole_answer() -> None:
    recorded = Recorded()
    instruments = Instruments(recorded)
    script = Scripted(Chunk(), 0.05, Chunk(reasoning="hm"), 0.02, Chunk(text="a"), 0.03, Chunk(text="b"), END)
    token = request_ids.set(RequestIds("request", "abc"))
    chunks = [chunk async for chunk in instruments.inference.chat("echo", "echo", script.stream())]
    request_ids.reset(token)
    assert chunks == [step for step in script.steps if isinstance(step, Chunk)]
    assert script.closed
    shown = await shown_of(instruments)
    assert shown["requests_total chat"] == 1
    assert shown["requests_in_progress"] == 0
    assert shown["request_duration_seconds_count"] == 1
    assert shown["request_duration_seconds_sum"] >= 0.1
    assert shown["time_to_first_token_seconds_count"] == 1
    assert 0.05 <= shown["time_to_first_token_seconds_sum"] < shown["request_duration_seconds_sum"]
    assert shown["inter_token_latency_seconds_count"] == 2
    assert 0.05 <= shown["inter_token_latency_seconds_sum"] < shown["request_duration_seconds_sum"]
    assert shown["tokens_total input"] == 7
    assert shown["tokens_total output"] == 3
    assert shown["cache_read_tokens_total"] == 4
    assert shown["reasoning_tokens_total"] == 2
    assert shown["input_tokens_per_request_sum"] == 7
    assert shown["output_tokens_per_request_sum"] == 3
    assert shown["decode_tokens_per_second_sum"] == pytest.approx(2 / shown["inter_token_latency_seconds_sum"])
    assert "model_load_seconds_count" not in shown
    assert not [name for name in shown if name.startswith("request_failures")]
    assert recorded.calls == [
        ("provider", "echo/echo first_token", False),
        ("provider", "echo/echo output_token", False),
        ("provider", "echo/echo", False),
    ]
    slot = recorded.readable()[-1]
    assert slot.counters == {"tokens_input echo/echo": 7, "tokens_output echo/echo": 3}
    assert {slow.trace_id for slow in slot.slowest if not slow.name.endswith("output_token")} == {"abc"}
    buckets = (await samples_of(instruments.registry))["ai_lab_llm_time_to_first_token_seconds_bucket"].values()
    assert [sample.exemplar.labels for sample in buckets if sample.exemplar] == [{"trace_id": "abc"}]


async def test_the_figures_of_the_model_s_server_are_taken_where_it_has_them() -> None:
    instruments = Instruments(Recorded())
    end = Chunk(finish_reason="stop", usage=Usage(1, 30), timings={"load_ms": 2500.0, "generation_ms": 1500.0})
    async for _ in instruments.inference.chat("ollama", "m", Scripted(Chunk(text="a"), end).stream()):
        pass
    shown = await shown_of(instruments, "ollama", "m")
    assert shown["model_load_seconds_sum"] == 2.5
    assert shown["decode_tokens_per_second_sum"] == 20


@pytest.mark.parametrize(
    ("error", "error_type"),
    [
        (ProviderTimeout(), "provider_timeout"),
        (StreamBroken(), "provider_stream_broken"),
        (RuntimeError("a fault of ours"), "internal_error"),
    ],
)
async def test_a_failure_has_the_code_of_its_error(error: Exception, error_type: str) -> None:
    recorded = Recorded()
    instruments = Instruments(recorded)
    script = Scripted(Chunk(text="a"), error)
    with pytest.raises(type(error)):
        async for _ in instruments.inference.chat("echo", "echo", script.stream()):
            pass
    shown = await shown_of(instruments)
    assert shown[f"request_failures_total {error_type}"] == 1
    assert shown["request_duration_seconds_count"] == 1
    assert shown["requests_in_progress"] == 0
    assert "requests_cancelled_total" not in shown
    assert recorded.calls == [("provider", "echo/echo first_token", False), ("provider", "echo/echo", True)]


async def _left(chunks: AsyncGenerator[Chunk, None]) -> None:
    async with aclosing(chunks):
        async for _ in chunks:
            return


async def _cancelled(chunks: AsyncGenerator[Chunk, None]) -> None:
    task = asyncio.create_task(_all(chunks))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait({task})


async def _all(chunks: AsyncGenerator[Chunk, None]) -> None:
    async with aclosing(chunks):
        async for _ in chunks:
            pass


@pytest.mark.parametrize("end", [_left, _cancelled])
async def test_who_leaves_calls_the_model_off_and_that_is_no_failure(end: Callable[..., asyncio.Future[None]]) -> None:
    recorded = Recorded()
    instruments = Instruments(recorded)
    script = Scripted(Chunk(text="a"), 60.0, Chunk(text="b"), END)
    await end(instruments.inference.chat("echo", "echo", script.stream()))
    assert script.closed
    shown = await shown_of(instruments)
    assert shown["requests_cancelled_total"] == 1
    assert shown["requests_in_progress"] == 0
    assert "request_duration_seconds_count" not in shown
    assert not [name for name in shown if name.startswith("request_failures")]
    assert recorded.calls == [("provider", "echo/echo first_token", False)]


async def test_who_leaves_after_the_end_has_had_a_whole_answer() -> None:
    instruments = Instruments(Recorded())
    chunks = instruments.inference.chat("echo", "echo", Scripted(Chunk(text="a"), END, 60.0).stream())
    async with aclosing(chunks):
        async for chunk in chunks:
            if chunk.finish_reason:
                break
    shown = await shown_of(instruments)
    assert shown["request_duration_seconds_count"] == 1
    assert "requests_cancelled_total" not in shown


async def test_providers_pass_every_call_through() -> None:
    recorded = Recorded()
    instruments = Instruments(recorded)
    providers = Providers(Settings(ollama_host="http://127.0.0.1:9"), instruments.inference)
    try:
        model = await providers.resolve("echo/ECHO")
        said = Message(role="user", content="one two three")
        answer = [chunk.text async for chunk in model.stream(ChatRequest("echo", [said]))]
        assert "".join(answer) == "one two three"
        with pytest.raises(UnsupportedFeature):
            await model.embed(["text"])
        nobody = await providers.resolve("ollama/made-up-by-a-user")  # it does not answer, so nobody knows
        with pytest.raises(ProviderUnavailable):
            await anext(nobody.stream(ChatRequest(nobody.model, [said])))
    finally:
        await providers.close()
    shown = await shown_of(instruments)
    assert shown["requests_total chat"] == 1
    assert shown["requests_total embeddings"] == 1
    assert shown["request_failures_total unsupported_feature"] == 1
    assert shown["tokens_total output"] == 3
    assert shown["inter_token_latency_seconds_count"] == 2
    unknown = await shown_of(instruments, "ollama", "other")
    assert unknown["requests_total chat"] == 1
    assert unknown["request_failures_total provider_unavailable"] == 1
    assert ("provider", "ollama/other", True) in recorded.calls
