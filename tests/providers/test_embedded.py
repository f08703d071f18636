"""The embedded provider with the real engine and the shipped weights."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from ai_lab.errors import (
    ContextOverflow,
    EngineCrashed,
    EngineError,
    ModelDamaged,
    ModelNotFound,
    OutOfMemory,
    UnsupportedFeature,
)
from ai_lab.providers.embedded import Embedded
from ai_lab.providers.engine import Engine
from ai_lab.providers.model_files import find_models
from ai_lab.providers.types import ChatRequest, Chunk, Message

SHIPPED = "SmolLM2-135M-Instruct.Q4_1"
EXACT = {"temperature": 0, "seed": 1}
TALE = "Tell me a very long tale about a fox, a crow and the sea."


@pytest.fixture
def weights() -> Path:
    return find_models(Path("nowhere"))[0].path


@asynccontextmanager
async def opened(models_dir: Path, **changes: Any) -> AsyncIterator[Embedded]:
    arguments: dict[str, Any] = {
        "models_dir": models_dir,
        "context_tokens": 1024,
        "slots": 2,
        "threads": None,
        "gpu_layers": 0,
        "idle_seconds": 600,
        "timeout_seconds": 60,
        "cuda_visible_devices": None,
    }
    provider = Embedded("embedded", **{**arguments, **changes})
    try:
        yield provider
    finally:
        engine = provider.engine
        await provider.close()
        assert engine is None or not psutil.pid_exists(engine.pid)


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[Embedded]:
    async with opened(tmp_path) as provider:
        yield provider


def stream(provider: Embedded, text: str, model: str = SHIPPED, **options: Any) -> AsyncGenerator[Chunk, None]:
    return provider.stream(ChatRequest(model, [Message("user", text)], {**EXACT, **options}))


async def answer(provider: Embedded, text: str = "Hi", model: str = SHIPPED, **options: Any) -> tuple[str, Chunk]:
    chunks = [chunk async for chunk in stream(provider, text, model, **options)]
    assert [chunk.finish_reason is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    return "".join(chunk.text for chunk in chunks), chunks[-1]


def running(provider: Embedded) -> Engine:
    assert provider.engine is not None
    return provider.engine


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float = 30) -> float:
    """Wait for the condition and return how long it took."""
    started_at = time.monotonic()
    while not await condition():
        assert time.monotonic() - started_at < seconds, "it did not come about"
        await asyncio.sleep(0.01)
    return time.monotonic() - started_at


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


async def test_first_requests_at_once_start_one_engine(embedded: Embedded, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ai_lab.providers.engine")
    answers = await asyncio.gather(*(answer(embedded, max_tokens=4) for _ in range(5)))
    assert len({text for text, _ in answers}) == 1
    assert [record.getMessage() for record in caplog.records if " runs " in record.getMessage()] == [
        f"engine {running(embedded).pid} runs {SHIPPED} with 2 x 1024 tokens"
    ]
    assert (await embedded.check()).detail == f"running {SHIPPED}, pid {running(embedded).pid}"


async def test_a_first_request_that_gives_up_does_not_fail_the_others(embedded: Embedded) -> None:
    first, second = (asyncio.create_task(answer(embedded, max_tokens=2)) for _ in range(2))
    await asyncio.sleep(0.05)
    first.cancel()
    assert (await second)[0]


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


async def test_a_crash_in_mid_answer_is_named_and_the_next_request_works(embedded: Embedded) -> None:
    async with aclosing(stream(embedded, TALE)) as chunks:
        await anext(chunks)
        first_pid = running(embedded).pid
        os.kill(first_pid, signal.SIGKILL)
        with pytest.raises(EngineCrashed, match=r"died while answering \(signal 9\); the next request starts it again"):
            async for _ in chunks:
                pass
    assert embedded.engine is None
    assert (await answer(embedded, max_tokens=3))[0]
    assert running(embedded).pid != first_pid


async def test_a_silent_engine_is_replaced(tmp_path: Path) -> None:
    async with opened(tmp_path, timeout_seconds=6) as provider:
        await answer(provider, max_tokens=1)
        os.kill(running(provider).pid, signal.SIGSTOP)
        with pytest.raises(EngineError, match="silent for 6 s"):
            await answer(provider, max_tokens=1)
        assert (await answer(provider, max_tokens=1))[0]


async def test_the_engine_leaves_when_idle_and_comes_back(tmp_path: Path) -> None:
    async with opened(tmp_path, idle_seconds=0.3) as provider:
        async with aclosing(stream(provider, TALE, max_tokens=200)) as chunks:
            await anext(chunks)
            engine = running(provider)
            await asyncio.sleep(0.8)
            assert engine.alive, "an answer that nobody reads on is work all the same"
        await until(lambda: has_ended(engine))
        assert provider.engine is None
        assert await engine.death(within_seconds=1) == "exit status 0", "it ended by itself, not by force"
        assert (await answer(provider, max_tokens=1))[0]


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


async def test_another_model_waits_for_running_answers_and_is_not_overtaken(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "Second.gguf").symlink_to(weights)
    async with opened(tmp_path) as provider:
        ended: list[str] = []

        async def ask(who: str, model: str) -> None:
            await answer(provider, model=model, max_tokens=3)
            ended.append(who)

        async with aclosing(stream(provider, TALE)) as chunks:
            await anext(chunks)
            first_pid = running(provider).pid
            asking = [asyncio.create_task(ask(*who)) for who in (("second", "second"), ("third", SHIPPED))]
            await asyncio.sleep(0.3)
            assert running(provider).pid == first_pid
            assert not ended
        await asyncio.gather(*asking)
        assert ended == ["second", "third"]
        assert running(provider).file.name == SHIPPED
        assert {model.name for model in await provider.models()} == {"Second", SHIPPED}


@pytest.mark.parametrize(
    ("kept_bytes", "reason"),
    [(50_000_000, "not within the file bounds"), (900, "middle of its header"), (0, "middle of its header")],
)
async def test_a_file_that_is_not_whole_is_named(kept_bytes: int, reason: str, tmp_path: Path, weights: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    with weights.open("rb") as whole:
        damaged.write_bytes(whole.read(kept_bytes))
    async with opened(tmp_path) as provider:
        assert "damaged" in {model.name for model in await provider.models()}
        with pytest.raises(ModelDamaged, match=reason) as caught:
            await answer(provider, model="damaged")
        assert str(damaged) in caught.value.detail
        assert "again" in caught.value.detail
        assert (await answer(provider, max_tokens=1))[0]
        damaged.unlink()
        damaged.symlink_to(weights)
        assert (await answer(provider, model="damaged", max_tokens=1))[0], "repaired without a restart"


async def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "page.gguf").write_bytes(b"<html>404</html>")
    async with opened(tmp_path) as provider:
        with pytest.raises(ModelDamaged, match=r"page\.gguf cannot be loaded: .* no GGUF model file"):
            await answer(provider, model="page")


async def test_a_model_larger_than_the_free_memory_is_refused(tmp_path: Path, weights: Path) -> None:
    huge = tmp_path / "huge.gguf"
    with weights.open("rb") as whole:
        huge.write_bytes(whole.read(4096))
    os.truncate(huge, psutil.virtual_memory().total + 10**9)  # sparse: it takes no space
    async with opened(tmp_path) as provider:
        with pytest.raises(OutOfMemory, match=r"needs about \d+ MB of memory and \d+ MB are free"):
            await answer(provider, model="huge")


async def test_an_engine_killed_while_it_loads_points_at_memory(embedded: Embedded) -> None:
    asking = asyncio.create_task(answer(embedded))
    await until(has_child)
    for child in psutil.Process().children():
        child.kill()
    with pytest.raises(OutOfMemory, match="needs about"):
        await asking
    assert (await answer(embedded, max_tokens=1))[0]


async def test_an_engine_that_hangs_while_it_loads_is_ended(tmp_path: Path) -> None:
    async with opened(tmp_path, timeout_seconds=2) as provider:
        asking = asyncio.create_task(answer(provider))
        await until(has_child)
        psutil.Process().children()[0].suspend()
        with pytest.raises(EngineError, match=r"did not load .* within 2 s"):
            await asking
        assert not psutil.Process().children()


async def test_closing_ends_a_running_answer(tmp_path: Path) -> None:
    async with opened(tmp_path) as provider:
        asking = asyncio.create_task(answer(provider, TALE))
        await until(lambda: has_work_if_running(provider))
    with pytest.raises(EngineError, match="closed"):
        await asking


PARENT = """
import asyncio, pathlib, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and pass that on
from ai_lab.providers.embedded import Embedded
from ai_lab.providers.types import ChatRequest, Message
async def main():
    provider = Embedded("embedded", models_dir=pathlib.Path("nowhere"), context_tokens=1024, slots=1, threads=1,
        gpu_layers=0, idle_seconds=600, timeout_seconds=60, cuda_visible_devices=None)
    async for _ in provider.stream(ChatRequest("%s", [Message("user", "Hi")])):
        print(provider.engine.pid, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.parametrize("to_parent", [signal.SIGKILL, signal.SIGTERM])
async def test_the_engine_does_not_outlive_the_server(to_parent: signal.Signals) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT % SHIPPED, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    engine = psutil.Process(int(await parent.stdout.readline()))
    engine.send_signal(signal.SIGINT)
    engine.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.2)
    assert not await is_gone(engine), "Ctrl-C reaches the engine as well, but the server decides"
    parent.send_signal(to_parent)
    await parent.wait()
    await until(lambda: is_gone(engine))


async def test_closing_ends_a_starting_engine(tmp_path: Path) -> None:
    async with opened(tmp_path) as provider:
        asking = asyncio.create_task(answer(provider))
        await until(has_child)
    with pytest.raises(EngineError, match="closed"):
        await asking
    assert not psutil.Process().children()
    with pytest.raises(EngineError, match="closed"):
        await answer(provider)


async def has_child() -> bool:
    return bool(psutil.Process().children())


async def has_ended(engine: Engine) -> bool:
    return not engine.alive


async def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def has_work(provider: Embedded) -> bool:
    return await provider.slots_busy() > 0


async def has_work_if_running(provider: Embedded) -> bool:
    return provider.engine is not None and await has_work(provider)


async def has_no_work(provider: Embedded) -> bool:
    return await provider.slots_busy() == 0
