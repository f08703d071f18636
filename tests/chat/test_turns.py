import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ai_lab.chat import Answer, NewTurn, Turn
from ai_lab.conversations.schemas import Message, NewMessage
from ai_lab.errors import (
    ContextOverflow,
    IdempotencyKeyReused,
    InvalidRequest,
    LabError,
    ModelNotFound,
    ProviderUnavailable,
    ServerStopping,
    StreamBroken,
    TurnInProgress,
)
from ai_lab.lab import Lab
from ai_lab.settings import Settings
from tests.fakes.http_server import ReceivedRequest, Reply, json_reply
from tests.fakes.openai_server import CHAT, DONE, OpenAIServer, delta, stream_reply, text_reply, usage

PAUSE = 0.05


@pytest.fixture
async def fake() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as server:
        yield server


@pytest.fixture
async def lab(fake: OpenAIServer, database_url: str, tmp_path: Path) -> AsyncIterator[Lab]:
    servers = {"fake": {"base_url": fake.base_url, "context_tokens": 400}, "far": {"base_url": "http://lab.test/v1"}}
    settings = Settings.load(
        data_dir=tmp_path,
        database_url=database_url,
        servers=servers,
        default_model="fake/tiny",
        retry_wait_seconds=0.01,
    )
    async with Lab.open(settings) as lab:
        yield lab


def say(message: str, **more: object) -> NewTurn:
    return NewTurn.model_validate({"message": message, "session_id": "s"} | more)


async def started(lab: Lab, new: NewTurn, key: str | None = None) -> Turn:
    turn = await lab.chat.start(new, key)
    assert isinstance(turn, Turn)
    return turn


async def asked(fake: OpenAIServer) -> ReceivedRequest:
    while (request := await fake.next_request()).path != CHAT:
        pass
    return request


async def messages(lab: Lab) -> list[Message]:
    return (await lab.conversations.messages("s", limit=100)).data


async def until_idle(lab: Lab) -> None:
    async with asyncio.timeout(30):
        while lab.chat.running:  # noqa: ASYNC110 - the chat tells nobody when it is idle
            await asyncio.sleep(0.01)


async def test_question_and_answer_are_kept_and_the_next_turn_sees_them(lab: Lab, fake: OpenAIServer) -> None:
    answer = await lab.chat.answer(say("first"))
    assert (answer.response, answer.model, answer.finish_reason) == ("Hello, world", "fake/tiny", "stop")
    assert answer.usage is not None
    assert answer.usage["completion_tokens"] == 2
    await lab.chat.answer(say("second"))
    assert [(m.role, m.content, m.status) for m in await messages(lab)] == [
        ("user", "first", "complete"),
        ("assistant", "Hello, world", "complete"),
        ("user", "second", "complete"),
        ("assistant", "Hello, world", "complete"),
    ]
    sent = fake.received(CHAT)[-1].json()["messages"]
    assert [m["content"] for m in sent] == ["first", "Hello, world", "second"]


async def test_the_question_is_saved_before_the_model_is_asked(lab: Lab, fake: OpenAIServer) -> None:
    fake.script(CHAT, Reply(ending="hang"))
    turn = await started(lab, say("said"))
    await asked(fake)
    question, answer = await messages(lab)
    assert (question.content, question.status) == ("said", "complete")
    assert (answer.content, answer.status) == ("", "streaming")
    turn.cancel()
    await until_idle(lab)


async def test_a_stream_gives_numbered_pieces_and_grows_on_disk(lab: Lab, fake: OpenAIServer) -> None:
    fake.script(CHAT, stream_reply(delta(content="one "), PAUSE, delta(content="two"), 1.2, delta("stop"), DONE))
    turn = await started(lab, say("x"))
    deltas = []
    async for piece in turn.deltas():
        deltas.append(piece)
        if len(deltas) == 2:
            await asyncio.sleep(0.8)
            assert (await messages(lab))[-1].content == "one two"
            assert (await messages(lab))[-1].status == "streaming"
    assert [(d.sequence, d.delta) for d in deltas] == [(1, "one "), (2, "two")]
    answer = await turn.result()
    assert answer.response == "one two"
    assert answer.timings is not None
    assert 0 < answer.timings["first_token_ms"] < answer.timings["total_ms"]


async def test_a_slow_reader_gets_everything_in_fewer_pieces(lab: Lab, fake: OpenAIServer) -> None:
    fake.script(CHAT, text_reply(*(f"{number} " for number in range(200))))
    turn = await started(lab, say("x"))
    text = ""
    async for piece in turn.deltas():
        text += piece.delta
        await asyncio.sleep(0.05)
    assert text == "".join(f"{number} " for number in range(200))


async def test_what_was_said_before_the_client_left_is_kept(lab: Lab, fake: OpenAIServer) -> None:
    fake.script(CHAT, stream_reply(delta(content="half of it"), ending="hang"))
    turn = await started(lab, say("x"))
    async for _ in turn.deltas():
        turn.cancel()
    request = await asked(fake)
    await asyncio.wait_for(request.disconnected.wait(), timeout=30)
    await until_idle(lab)
    (_, answer) = await messages(lab)
    assert (answer.content, answer.status, answer.finish_reason) == ("half of it", "incomplete", None)


async def test_a_half_answer_can_be_continued(lab: Lab, fake: OpenAIServer) -> None:
    fake.script(CHAT, stream_reply(delta(content="half"), ending="hang"), text_reply("the rest"))
    turn = await started(lab, say("x"))
    async for _ in turn.deltas():
        turn.cancel()
    await until_idle(lab)
    await lab.chat.answer(say("continue"))
    sent = fake.received(CHAT)[-1].json()["messages"]
    assert [m["content"] for m in sent] == ["x", "half", "continue"]


async def test_an_answer_cut_short_by_its_limit_says_so(lab: Lab, fake: OpenAIServer) -> None:
    fake.script(CHAT, stream_reply(delta(content="lo"), delta("length"), DONE))
    answer = await lab.chat.answer(say("x", options={"max_tokens": 1}))
    assert answer.finish_reason == "length"
    assert (await messages(lab))[-1].status == "incomplete"
    assert fake.received(CHAT)[0].json()["max_tokens"] == 1


@pytest.mark.parametrize(
    ("reply", "error", "kept"),
    [
        (stream_reply(delta(content="so far"), ending="cut"), StreamBroken, "so far"),
        (stream_reply(delta(content="so far")), StreamBroken, "so far"),
        (json_reply({"error": {"message": "down"}}, status=503), ProviderUnavailable, ""),
    ],
)
async def test_a_failure_is_raised_and_what_came_is_kept(
    lab: Lab, fake: OpenAIServer, reply: Reply, error: type[LabError], kept: str
) -> None:
    fake.script(CHAT, reply)
    with pytest.raises(error):
        await lab.chat.answer(say("x"))
    (question, answer) = await messages(lab)
    assert question.content == "x"
    assert (answer.content, answer.status) == (kept, "failed")
    assert answer.error is not None
    assert answer.error["code"] == error.code


async def test_thinking_never_reaches_the_answer(lab: Lab, fake: OpenAIServer) -> None:
    fake.script(CHAT, text_reply("<thi", "nk>hmm, 2", "+2</th", "ink>\n\nfo", "ur"))
    turn = await started(lab, say("x"))
    pieces = [piece async for piece in turn.deltas()]
    answer = await turn.result()
    assert answer.response.strip() == "four"
    assert answer.thought_process == "hmm, 2+2"
    assert "".join(piece.delta for piece in pieces).strip() == "four"
    assert (await messages(lab))[-1].thought_process == "hmm, 2+2"


async def test_an_unknown_model_saves_nothing_and_names_near_ones(lab: Lab) -> None:
    with pytest.raises(ModelNotFound) as caught:
        await lab.chat.start(say("x", model="fake/tinny"))
    assert caught.value.near_matches[0] == "fake/tiny"
    assert (await lab.conversations.page()).data == []


async def test_a_bare_name_is_found_at_its_provider(lab: Lab) -> None:
    assert (await lab.chat.answer(say("x", model="tiny"))).model == "fake/tiny"
    assert (await lab.chat.answer(say("x", model="ECHO"))).model == "echo/echo"


async def test_a_local_only_conversation_never_leaves_the_machine(lab: Lab) -> None:
    with pytest.raises(InvalidRequest, match="local-only"):
        await lab.chat.start(say("secret", model="far/any", local_only=True))
    assert (await lab.conversations.page()).data == []
    await lab.chat.answer(say("secret", local_only=True))  # the fake listens on this machine
    with pytest.raises(InvalidRequest, match="local-only"):
        await lab.chat.start(say("more", model="far/any"))
    assert (await lab.conversations.get("s")).local_only


class TestIdempotency:
    async def test_the_same_key_asks_the_model_once(self, lab: Lab, fake: OpenAIServer) -> None:
        first = await lab.chat.answer(say("x"), "key")
        again = await lab.chat.start(say("x"), "key")
        assert isinstance(again, Answer)
        assert (again.response, again.message_id) == (first.response, first.message_id)
        assert len(fake.received(CHAT)) == 1
        assert len(await messages(lab)) == 2

    async def test_a_key_without_a_session_leads_to_the_same_conversation(self, lab: Lab, fake: OpenAIServer) -> None:
        first = await lab.chat.answer(say("x", session_id=None), "key")
        again = await lab.chat.answer(say("x", session_id=None), "key")
        assert (again.session_id, again.message_id) == (first.session_id, first.message_id)
        assert (await lab.chat.answer(say("x", session_id=None))).session_id != first.session_id
        assert len(fake.received(CHAT)) == 2

    async def test_while_it_is_being_answered_the_second_one_is_told_so(self, lab: Lab, fake: OpenAIServer) -> None:
        fake.script(CHAT, Reply(ending="hang"))
        turn = await started(lab, say("x"), "key")
        with pytest.raises(TurnInProgress):
            await lab.chat.start(say("x"), "key")
        turn.cancel()
        await until_idle(lab)

    async def test_after_a_failure_the_model_is_asked_again(self, lab: Lab, fake: OpenAIServer) -> None:
        fake.script(CHAT, json_reply({}, status=401), text_reply("now"))
        with pytest.raises(LabError):
            await lab.chat.answer(say("x"), "key")
        assert (await lab.chat.answer(say("x"), "key")).response == "now"
        assert [m.role for m in await messages(lab)] == ["user", "assistant", "assistant"]
        await lab.chat.answer(say("y"))
        assert [m["content"] for m in fake.received(CHAT)[-1].json()["messages"]] == ["x", "now", "y"]

    async def test_retries_that_come_together_ask_the_model_once(self, lab: Lab, fake: OpenAIServer) -> None:
        fake.script(CHAT, json_reply({}, status=401), text_reply("now"))
        with pytest.raises(LabError):
            await lab.chat.answer(say("x"), "key")
        results = await asyncio.gather(*(lab.chat.answer(say("x"), "key") for _ in range(4)), return_exceptions=True)
        answers = [result for result in results if isinstance(result, Answer)]
        assert {answer.response for answer in answers} == {"now"}
        assert all(isinstance(result, Answer | TurnInProgress) for result in results)
        assert len(fake.received(CHAT)) == 2

    async def test_another_question_under_the_same_key_is_refused(self, lab: Lab) -> None:
        await lab.chat.answer(say("x"), "key")
        with pytest.raises(IdempotencyKeyReused):
            await lab.chat.start(say("y"), "key")


class TestContext:
    """The fake says nothing of its context; 400 tokens are set for it."""

    async def test_the_oldest_whole_messages_are_left_out_and_the_answer_says_so(
        self, lab: Lab, fake: OpenAIServer
    ) -> None:
        await lab.chat.answer(say("start", system="be brief"))
        for number in range(8):
            answer = await lab.chat.answer(say(f"{number} " + "word " * 40))
        assert answer.context is not None
        sent = fake.received(CHAT)[-1].json()["messages"]
        assert sent[0] == {"role": "system", "content": "be brief"}
        assert sent[1]["role"] == "user"
        assert sent[-1]["content"].startswith("7 word")
        stored = len(await messages(lab)) - 3  # without the system message, this question and its answer
        assert answer.context.trimmed_messages == stored - (len(sent) - 2) > 0
        assert "did not fit" in answer.warnings[0]

    async def test_an_old_system_message_hides_nothing_from_the_report(self, lab: Lab, fake: OpenAIServer) -> None:
        await lab.conversations.append("s", NewMessage(role="system", content="be brief"))
        for number in range(60):
            await lab.conversations.append("s", NewMessage(role="user", content=f"q{number}"))
            await lab.conversations.append("s", NewMessage(role="assistant", content=f"a{number}"))
        answer = await lab.chat.answer(say("last"))
        sent = fake.received(CHAT)[-1].json()["messages"]
        assert answer.context is not None
        assert answer.context.trimmed_messages == 120 - (len(sent) - 2) > 0

    async def test_no_prompt_has_two_questions_in_a_row(self, lab: Lab, fake: OpenAIServer) -> None:
        """Many chat templates refuse that."""
        fake.script(CHAT, json_reply({}, status=401), text_reply("fine"))
        with pytest.raises(LabError):
            await lab.chat.answer(say("failed"))
        await lab.conversations.append("s", NewMessage(role="user", content="appended"))
        await lab.chat.answer(say("asked"))
        assert fake.received(CHAT)[-1].json()["messages"] == [{"role": "user", "content": "appended\n\nasked"}]

    async def test_a_question_that_can_never_fit_is_refused_with_the_figures(self, lab: Lab) -> None:
        with pytest.raises(ContextOverflow, match="400"):
            await lab.chat.answer(say("word " * 2000))
        assert (await messages(lab))[0].content == "word " * 2000

    async def test_more_is_left_out_when_the_server_finds_it_too_long(self, lab: Lab, fake: OpenAIServer) -> None:
        for number in range(4):
            await lab.chat.answer(say(f"{number}" + "w" * 80))
        too_long = json_reply({"error": {"code": "context_length_exceeded", "message": "too long"}}, status=400)
        fake.script(CHAT, too_long, text_reply("fits"))
        answer = await lab.chat.answer(say("last"))
        assert answer.response == "fits"
        before, after = (request.json()["messages"] for request in fake.received(CHAT)[-2:])
        assert len(after) < len(before)
        assert answer.context is not None
        assert answer.context.trimmed_messages > 0

    async def test_a_system_message_holds_until_another_one_comes(self, lab: Lab, fake: OpenAIServer) -> None:
        await lab.chat.answer(say("a", system="one"))
        await lab.chat.answer(say("b"))
        await lab.chat.answer(say("c", system="one"))
        await lab.chat.answer(say("d", system="two"))
        systems = [request.json()["messages"][0]["content"] for request in fake.received(CHAT)]
        assert systems == ["one", "one", "one", "two"]
        assert [m.content for m in await messages(lab) if m.role == "system"] == ["one", "two"]


class TestStopping:
    async def test_open_answers_end_as_interrupted_with_their_text(self, lab: Lab, fake: OpenAIServer) -> None:
        fake.script(CHAT, stream_reply(delta(content="half"), ending="hang"))
        turns = [await started(lab, say("x", session_id=f"s{number}")) for number in range(10)]
        for turn in turns:
            async for _ in turn.deltas():
                break
        await lab.chat.close()
        for number, turn in enumerate(turns):
            with pytest.raises(ServerStopping):
                await turn.result()
            answer = (await lab.conversations.messages(f"s{number}")).data[-1]
            assert (answer.content, answer.status) == ("half", "interrupted")
        with pytest.raises(ServerStopping):
            await lab.chat.start(say("too late"))

    async def test_deleting_a_conversation_stops_its_answer(self, lab: Lab, fake: OpenAIServer) -> None:
        words = [part for number in range(100) for part in (delta(content=f"{number} "), 0.1)]
        fake.script(CHAT, stream_reply(*words, ending="hang"))
        turn = await started(lab, say("x"))
        await lab.conversations.delete("s")
        with pytest.raises(LabError, match="deleted while"):
            await asyncio.wait_for(turn.result(), timeout=30)

    async def test_deleting_a_conversation_in_mid_answer_is_no_accident(self, lab: Lab, fake: OpenAIServer) -> None:
        fake.script(CHAT, stream_reply(delta(content="half"), 0.3, delta("stop"), usage(1, 1), DONE))
        turn = await started(lab, say("x"))
        async for _ in turn.deltas():
            await lab.conversations.delete("s")
        with pytest.raises(LabError, match="deleted while"):
            await turn.result()
