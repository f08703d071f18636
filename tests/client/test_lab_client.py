"""Both clients against a real server."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from ai_lab.chat import Delta
from ai_lab.clock import new_id
from ai_lab.errors import (
    AgentStateNotFound,
    ConversationExists,
    ConversationNotFound,
    InvalidRequest,
    InvalidSettings,
    MetricNotFound,
    ModelNotFound,
    ServerUnreachable,
    SourceDamaged,
)
from tests.client.either_client import EitherClient, Kind
from tests.fakes.http_server import json_reply
from tests.fakes.openai_server import OpenAIServer
from tests.server import ROOT, ServerProcess, free_port

ECHO = {"model": "echo/echo"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("client") / "data") as server:
        yield server


@pytest.fixture(params=["sync", "async"])
async def client(request: pytest.FixtureRequest, server: ServerProcess) -> AsyncIterator[EitherClient]:
    client = EitherClient(request.param, server.url)
    yield client
    await client.close()


@pytest.fixture
def session_id() -> str:
    return new_id()


async def test_an_answer_is_made_anew_where_that_is_wanted(tmp_path_factory: pytest.TempPathFactory) -> None:
    with ServerProcess(tmp_path_factory.mktemp("cached") / "data", {"AI_LAB_CACHE": "true"}) as server:
        client = EitherClient("sync", server.url)
        for use_cache, cached in ((None, False), (True, True), (False, False)):
            answer = await client("chat", "again", use_cache=use_cache, **ECHO)
            assert (answer.cached, answer.attempts) == (cached, not cached)
            assert answer.cache is None or answer.cache.kind == "hit"
        await client.close()


async def test_a_chat_is_answered_and_kept(client: EitherClient, session_id: str) -> None:
    answer = await client("chat", "Hello you", session_id, system="Be brief.", options={"max_tokens": 1}, **ECHO)
    assert (answer.response, answer.session_id, answer.finish_reason) == ("Hello", session_id, "length")
    assert (answer.cached, answer.cache, answer.cost, answer.attempts) == (False, None, 0, 1)
    messages = await client.every("messages", session_id)
    assert [(message.role, message.content) for message in messages] == [
        ("system", "Be brief."),
        ("user", "Hello you"),
        ("assistant", "Hello"),
    ]
    assert messages[2].message_id == answer.message_id
    assert messages[2].reply_to == messages[1].message_id


@pytest.mark.parametrize("text", ["one two three", "a\u2028b\u2029c\x85d\n\ne\r\nf", "word " * 20_000])
async def test_a_stream_grows_into_the_answer(client: EitherClient, text: str) -> None:
    pieces: list[Delta] = []

    def keep(delta: Delta) -> bool:
        pieces.append(delta)
        return True

    answer = await client.stream(text, on_delta=keep, **ECHO)
    assert "".join(piece.delta for piece in pieces) == answer.response == text
    assert [piece.sequence for piece in pieces] == list(range(1, len(pieces) + 1))


async def test_an_answer_is_not_to_be_had_before_its_end(client: EitherClient) -> None:
    with pytest.raises(InvalidRequest, match="read the stream to its end"):
        await client.stream("one two", on_delta=lambda _: False, **ECHO)


async def test_conversations_of_any_name(client: EitherClient) -> None:
    for name in ["a b", "größe", "100%25", "x?y#z", "a:b", "import", "export", "quote\"'", "😀", "a%2Fb"]:
        session_id = f"{name} {new_id()}"
        await client("create", session_id, title="T", metadata={"a": 1})
        await client(
            "append", session_id, "User", "Hi", thought_process="hm", created_at=datetime(2020, 1, 2, tzinfo=UTC)
        )
        conversation = await client("conversation", session_id)
        assert (conversation.session_id, conversation.title, conversation.metadata) == (session_id, "T", {"a": 1})
        (message,) = await client.every("messages", session_id)
        assert (message.role, message.thought_process, message.created_at.year) == ("user", "hm", 2020)
        assert (await client("rename", session_id, "New")).title == "New"
        assert (await client("archive", session_id)).archived
        assert not (await client("archive", session_id, archived=False)).archived
        await client("delete", session_id)
        with pytest.raises(ConversationNotFound):
            await client("conversation", session_id)


async def test_lists_are_read_to_their_end(client: EitherClient) -> None:
    word = f"w{new_id().replace('-', '')}"
    for number in range(103):
        await client("create", title=f"{word} {number}")
    titles = [conversation.title for conversation in await client.every("conversations", word)]
    assert titles == [f"{word} {number}" for number in reversed(range(103))]


async def test_exports_come_back(client: EitherClient, session_id: str) -> None:
    await client("chat", "Hello\u2028you", session_id, **ECHO)
    assert (await client("export", session_id, "markdown")).startswith("# Hello")
    for kind in ("json", "jsonl"):
        exported = await client("export", session_id, kind)
        assert (await client("import_", exported)).skipped == [session_id]
        await client("delete", session_id)
        assert (await client("import_", exported.encode())).imported == [session_id]
        assert await client("export", session_id, kind) == exported
        everything = await client("export", None, kind)
        assert session_id in (await client("import_", everything)).skipped
    with pytest.raises(SourceDamaged, match="line 1"):
        await client("import_", '{"messages": 7}\n')


async def test_agent_states(client: EitherClient, session_id: str) -> None:
    with pytest.raises(AgentStateNotFound):
        await client("agent_state", session_id)
    for number in range(102):
        await client("save_agent_state", session_id, f"step {number}", "running", data={"n": number})
    state = await client("agent_state", session_id)
    assert (state.message, state.status, state.data) == ("step 101", "running", {"n": 101})
    states = await client.every("agent_states", session_id)
    assert [state.sequence for state in states] == list(range(102, 0, -1))


async def test_the_server_tells_about_itself(client: EitherClient) -> None:
    assert "echo/echo" in [model["id"] for model in await client("models")]
    health = await client("health")
    assert health["status"] in {"healthy", "degraded"}
    assert health["components"]


async def test_the_machine_is_measured_and_remembered(client: EitherClient) -> None:
    metrics = await client("metrics")
    assert metrics.cpu.count >= 1
    assert 0 < metrics.memory_usage_percent < 100
    assert metrics.sample_age_seconds < 60
    end = metrics.timestamp + timedelta(seconds=1)
    history = await client("metrics_history", "cpu_usage_percent", start=end - timedelta(minutes=5), end=end, step=60)
    assert (history.metric, history.unit, history.step_seconds) == ("cpu_usage_percent", "percent", 60)
    assert history.from_ <= end - timedelta(minutes=5)
    assert abs(history.to - end) <= timedelta(seconds=1)
    deadline = time.monotonic() + 60
    while not (await client("metrics_history", "memory_usage_percent")).series:  # from the second sample on
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)
    with pytest.raises(MetricNotFound, match="labels"):
        await client("metrics_history", "memory_usage_percent", labels={"gpu": "7"})
    with pytest.raises(MetricNotFound) as unknown:
        await client("metrics_history", "cpu_usage_per_cent")
    assert "cpu_usage_percent" in unknown.value.near_matches


async def test_operations_are_counted_and_timed(client: EitherClient) -> None:
    await client("chat", "one two three", **ECHO)
    summary = await client("performance_summary", hours=1)
    assert summary.window.seconds == pytest.approx(3600, abs=11)
    (chat,) = [route for route in summary.http.by_route if route.name == "POST /chat"]
    assert chat.count >= 1
    assert chat.p50_ms <= chat.p95_ms <= chat.max_ms
    assert summary.llm.tokens.output >= 3
    assert 'ai_lab_http_requests_total{method="POST",route="/chat",status="200"}' in await client("exposition")
    with pytest.raises(InvalidRequest, match="hours"):
        await client("performance_summary", hours=0)


async def test_errors_are_those_of_the_library(client: EitherClient, session_id: str) -> None:
    with pytest.raises(ModelNotFound) as unknown:
        await client("chat", "Hi", model="echo/ecko")
    assert unknown.value.near_matches == ["echo/echo"]
    assert any("names this request" in note for note in unknown.value.__notes__)
    with pytest.raises(ModelNotFound):
        await client.stream("Hi", model="echo/ecko")
    await client("create", session_id)
    with pytest.raises(ConversationExists) as exists:
        await client("create", session_id)
    assert (exists.value.status, exists.value.param) == (409, "session_id")
    with pytest.raises(InvalidRequest, match="role"):
        await client("append", session_id, "narrator", "Hi")
    with pytest.raises(InvalidRequest) as invalid:
        await client("chat", "", **ECHO)
    assert invalid.value.status == 422


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_where_no_server_is_the_error_says_how_to_start_one(kind: Kind) -> None:
    client = EitherClient(kind, f"http://127.0.0.1:{free_port()}")
    for attempt in (client("models"), client.every("conversations"), client.stream("Hi"), client("chat", "Hi")):
        with pytest.raises(ServerUnreachable, match=r"\./start\.sh"):
            await attempt
    await client.close()
    with pytest.raises(InvalidSettings, match="address"):
        EitherClient(kind, "localhost:8001")


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_what_is_not_ai_lab_is_said_to_be_so(kind: Kind) -> None:
    async with OpenAIServer() as other:
        other.script("/conversations/a", json_reply({"hello": "world"}))
        client = EitherClient(kind, other.origin)
        with pytest.raises(ServerUnreachable, match="not this version of AI Lab"):
            await client("conversation", "a")
        await client.close()


def test_no_network_library_is_loaded_before_a_client_is_made() -> None:
    program = "import ai_lab, sys; ai_lab.LabClient, ai_lab.AsyncLabClient; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "httpx" not in loaded.stdout.split()
