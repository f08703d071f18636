"""One deadline for the whole call, whatever it is spent on."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from ai_lab.chat import NewTurn
from ai_lab.errors import DeadlineExceeded
from ai_lab.gateway.deadline import Deadline
from ai_lab.lab import Lab
from tests.fakes.faulty_provider import PIECES, FaultyProvider
from tests.fakes.http_server import Reply
from tests.fakes.openai_server import CHAT
from tests.gateway.asking import ask, open_lab

_SECONDS = 0.5


@pytest.fixture
async def fake() -> AsyncIterator[FaultyProvider]:
    async with FaultyProvider() as fake:
        yield fake


@pytest.fixture
async def lab(fake: FaultyProvider, tmp_path: Path, migrated_file: Path) -> AsyncIterator[Lab]:
    aliases = {"smart": {"models": ["faulty/silent", "faulty/ok"]}}
    servers = {"faulty": {"base_url": fake.base_url}}
    async with open_lab(tmp_path, migrated_file, servers=servers, aliases=aliases, deadline_seconds=_SECONDS) as lab:
        await ask(lab, "faulty/ok")  # the list of models is read, and the libraries are loaded
        yield lab


@pytest.mark.thorough  # it takes the two seconds that a service has to tell its models' contexts
async def test_a_silent_list_of_models_keeps_no_chat_waiting(lab: Lab, fake: FaultyProvider) -> None:
    fake.script("/v1/models", *[Reply(late_seconds=math.inf)] * 5)
    lab.providers.get("faulty")._contexts.clear()  # type: ignore[attr-defined]
    lab.providers.get("faulty")._contexts_read_at = -math.inf  # type: ignore[attr-defined]
    answer = await asyncio.wait_for(lab.chat.answer(NewTurn(message="hello", model="faulty/ok")), 6)
    assert answer.response == "".join(PIECES)


async def test_it_ends_whatever_the_model_does(lab: Lab, fake: FaultyProvider) -> None:
    async def one(model: str) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        answered = await ask(lab, model)
        assert loop.time() - started >= _SECONDS
        assert isinstance(answered.error, DeadlineExceeded)
        assert answered.error.status == 504
        assert [attempt.outcome for attempt in answered.attempts] == ["failed"]
        assert isinstance(answered.attempts[0].error, DeadlineExceeded)
        assert answered.text.startswith("more " if model == "faulty/endless" else "")
        if model == "faulty/hang_late":
            assert answered.text == "".join(PIECES[:2])

    before = len(fake.received(CHAT))
    models = ("faulty/silent", "faulty/hang", "faulty/hang_late", "faulty/endless", "smart")
    await asyncio.gather(*(one(model) for model in models))
    asked = fake.received(CHAT)[before:]
    assert len(asked) == len(models)
    for request in asked:
        await asyncio.wait_for(request.disconnected.wait(), 30)


async def test_what_came_of_a_chat_is_kept(lab: Lab) -> None:
    with pytest.raises(DeadlineExceeded):
        await lab.chat.answer(NewTurn(message="x", session_id="s", model="faulty/hang_late"))
    kept = (await lab.conversations.messages("s")).data[-1]
    assert (kept.content, kept.status) == ("".join(PIECES[:2]), "failed")
    assert kept.error is not None
    assert kept.error["code"] == "deadline_exceeded"


async def test_a_reader_that_dawdles_has_no_more_time_and_the_model_did_not_fail(lab: Lab) -> None:
    call = (await ask(lab, "echo/echo")).call
    again = lab.gateway.begin(call.route, call.make_request, source="openai")
    async with aclosing(lab.gateway.stream(again)) as chunks:
        await anext(chunks)
        await asyncio.sleep(_SECONDS)
        with pytest.raises(DeadlineExceeded):
            await anext(chunks)
    assert [attempt.outcome for attempt in again.attempts] == ["cancelled"]


class TestDeadline:
    async def test_what_ends_in_time_is_left_alone(self) -> None:
        with Deadline(asyncio.get_running_loop().time() + 5) as deadline:
            assert await deadline.within(asyncio.sleep(0, "done")) == "done"
        assert not deadline.has_passed

    async def test_what_does_not_is_cancelled_and_the_task_goes_on(self) -> None:
        with Deadline(asyncio.get_running_loop().time() + 0.01) as deadline:
            with pytest.raises(TimeoutError):
                await deadline.within(asyncio.sleep(5))
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            await asyncio.sleep(0)  # nothing of it is left
            with pytest.raises(TimeoutError):
                await deadline.within(asyncio.sleep(0))
        await asyncio.sleep(0)

    async def test_time_that_passes_between_two_pieces_counts(self) -> None:
        begun = False

        async def begin() -> None:
            nonlocal begun
            begun = True

        with Deadline(asyncio.get_running_loop().time() + 0.01) as deadline:
            await asyncio.sleep(0.02)
            with pytest.raises(TimeoutError):
                await deadline.within(begin())
        assert not begun

    async def test_who_cancels_at_the_same_moment_is_obeyed(self) -> None:
        async def work() -> None:
            with Deadline(asyncio.get_running_loop().time() + 0.01) as deadline:
                await deadline.within(_stubborn())

        async def _stubborn() -> None:
            try:
                await asyncio.sleep(5)
            finally:
                task.cancel()
                await asyncio.sleep(5)

        task = asyncio.create_task(work())
        await asyncio.wait({task})
        assert task.cancelled()

    async def test_an_error_that_it_causes_comes_through(self) -> None:
        async def converted() -> None:
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                raise DeadlineExceeded from None

        with Deadline(asyncio.get_running_loop().time() + 0.01) as deadline, pytest.raises(DeadlineExceeded):
            await deadline.within(converted())
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    async def test_of_two_tasks_the_one_that_waits_is_stopped(self) -> None:
        """A stream may be read on by another task than began it."""
        with Deadline(asyncio.get_running_loop().time() + 0.05) as deadline:
            await asyncio.create_task(deadline.within(asyncio.sleep(0)))
            other = asyncio.create_task(deadline.within(asyncio.sleep(5)))
            await asyncio.wait({other})
        assert isinstance(other.exception(), TimeoutError)
