"""How the embedded engine starts, dies, is replaced and ends, with the real engine and the shipped weights."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest

from ai_lab.errors import (
    EngineCrashed,
    EngineError,
    ModelDamaged,
    OutOfMemory,
    ProviderTimeout,
)
from ai_lab.providers.embedded import Embedded
from ai_lab.providers.model_files import find_models
from tests.embedded_engine import (
    SHIPPED,
    TALE,
    answer,
    engines,
    has_child,
    has_ended,
    has_work_if_running,
    is_gone,
    opened,
    running,
    stream,
    until,
)


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[Embedded]:
    async with opened(tmp_path) as provider:
        yield provider


@pytest.fixture
def weights() -> Path:
    return find_models(Path("nowhere"))[0].path


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


async def test_a_start_that_nobody_waits_for_does_not_answer_for_another_model(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "second.gguf").symlink_to(weights)
    async with opened(tmp_path) as provider:
        given_up = asyncio.create_task(answer(provider))
        await until(has_child)
        given_up.cancel()
        assert (await answer(provider, model="second", max_tokens=1))[0]
        assert running(provider).file.name == "second"


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
    async with opened(tmp_path, timeout_seconds=5) as provider:
        await answer(provider, max_tokens=1)
        os.kill(running(provider).pid, signal.SIGSTOP)
        with pytest.raises(EngineError, match="silent for 5 s"):
            await answer(provider, max_tokens=1)
        assert (await answer(provider, max_tokens=1))[0]


async def test_a_prompt_that_waits_for_another_does_not_end_the_engine(tmp_path: Path) -> None:
    async with opened(tmp_path, timeout_seconds=5, context_tokens=8192) as provider:
        await answer(provider, max_tokens=1)
        pid = running(provider).pid
        reading = [asyncio.create_task(answer(provider, f"{word} " * 7000, max_tokens=1)) for word in ("sea", "fox")]
        done, _ = await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
        assert all(isinstance(task.exception(), ProviderTimeout | None) for task in done)
        assert running(provider).pid == pid
        for task in reading:
            task.cancel()
        await asyncio.wait(reading)


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
    for child in engines():
        child.kill()
    with pytest.raises(OutOfMemory, match="needs about"):
        await asking
    assert (await answer(embedded, max_tokens=1))[0]


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
    assert not psutil.wait_procs(engines(), timeout=30)[1]
    with pytest.raises(EngineError, match="closed"):
        await answer(provider)


async def test_an_engine_that_hangs_while_it_loads_is_ended(tmp_path: Path) -> None:
    async with opened(tmp_path, timeout_seconds=2) as provider:
        asking = asyncio.create_task(answer(provider))
        await until(has_child)
        engines()[0].suspend()
        with pytest.raises(EngineError, match=r"did not load .* within 2 s"):
            await asking
        assert not psutil.wait_procs(engines(), timeout=30)[1]


async def test_closing_ends_a_running_answer(tmp_path: Path) -> None:
    async with opened(tmp_path) as provider:
        asking = asyncio.create_task(answer(provider, TALE))
        await until(lambda: has_work_if_running(provider))
    with pytest.raises(EngineError, match="closed"):
        await asking
