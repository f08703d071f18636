"""Connections that break, and clients that leave: the work is done once, and the model stops when nobody reads."""

import asyncio
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ai_lab.chat import Delta
from ai_lab.client import AsyncLabClient
from ai_lab.clock import new_id
from ai_lab.errors import AnswerLost, ConversationNotFound, InvalidRequest, ServerUnreachable
from ai_lab.settings import ServerEntry, Settings
from tests.client.either_client import EitherClient, Kind
from tests.client.lossy_proxy import LossyProxy
from tests.fakes.http_server import ReceivedRequest
from tests.fakes.openai_server import CHAT, OpenAIServer, delta, stream_reply
from tests.lab_server import serve_lab
from tests.server import ROOT, ServerProcess

CONSUMED_STREAM = "for delta in client.stream('Hi', 's', model='slow/tiny'): pass"


@dataclass(frozen=True)
class SlowLab:
    """A server whose model says a word and then thinks for ever."""

    url: str
    model: OpenAIServer

    async def asked(self) -> ReceivedRequest:
        """Wait until the model is asked."""
        while (request := await self.model.next_request()).path != CHAT:
            pass
        return request


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("client") / "data") as server:
        yield server


@pytest.fixture
async def slow_lab(tmp_path: Path) -> AsyncIterator[SlowLab]:
    async with OpenAIServer() as model:
        model.script(CHAT, stream_reply(delta(content="Well"), ending="hang"))
        servers = {"slow": ServerEntry(base_url=model.base_url)}
        settings = Settings(data_dir=tmp_path, servers=servers, ollama_host="http://127.0.0.1:9", database_url=None)
        async with serve_lab(settings) as served:
            yield SlowLab(served.url, model)


@pytest.fixture
async def proxy(server: ServerProcess) -> AsyncIterator[LossyProxy]:
    async with LossyProxy(server.port) as proxy:
        yield proxy


@pytest.fixture(params=["sync", "async"])
async def client(request: pytest.FixtureRequest, proxy: LossyProxy) -> AsyncIterator[EitherClient]:
    client = EitherClient(request.param, proxy.url)
    yield client
    await client.close()


@pytest.fixture
def session_id() -> str:
    return new_id()


async def test_a_lost_answer_costs_nothing(client: EitherClient, proxy: LossyProxy, session_id: str) -> None:
    proxy.fates = ["lose"]
    await client("create", session_id)
    proxy.fates = ["lose"]
    await client("append", session_id, "user", "once")
    proxy.fates = ["lose"]
    assert (await client("save_agent_state", session_id, "once")).sequence == 1
    assert proxy.fates == []
    assert [message.content for message in await client.every("messages", session_id)] == ["once"]


async def test_a_question_is_asked_once(client: EitherClient, proxy: LossyProxy, session_id: str) -> None:
    proxy.fates = ["lose"]
    assert (await client("chat", "Hello", session_id, model="echo/echo")).response == "Hello"
    proxy.fates = ["lose"]
    assert (await client.stream("Hello", session_id, model="echo/echo")).response == "Hello"
    messages = await client.every("messages", session_id)
    assert [message.content for message in messages if message.role == "user"] == ["Hello", "Hello"]


async def test_what_was_deleted_the_first_time_is_no_error(
    client: EitherClient, proxy: LossyProxy, session_id: str
) -> None:
    await client("create", session_id)
    proxy.fates = ["lose"]
    await client("delete", session_id)
    with pytest.raises(ConversationNotFound):
        await client("delete", session_id)


async def test_a_connection_that_breaks_again_is_an_error(
    client: EitherClient, proxy: LossyProxy, session_id: str
) -> None:
    await client("create", session_id)
    proxy.fates = ["lose"] * 2
    with pytest.raises(AnswerLost, match="broke"):
        await client("append", session_id, "user", "once")
    assert len(await client.every("messages", session_id)) == 1


async def test_a_stream_that_breaks_off_is_an_error(client: EitherClient, proxy: LossyProxy, session_id: str) -> None:
    proxy.fates = ["cut"]
    with pytest.raises(AnswerLost, match="kept on the server"):
        await client.stream("word " * 100_000, session_id, model="echo/echo")


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_stream_without_its_last_event_is_no_answer(kind: Kind) -> None:
    piece = Delta(sequence=1, session_id="s", message_id="m", delta="Well")
    async with OpenAIServer() as other:
        other.script("/chat", stream_reply(f"event: message.delta\ndata: {piece.model_dump_json()}\n\n".encode()))
        client = EitherClient(kind, other.origin)
        with pytest.raises(AnswerLost, match="kept on the server"):
            await client.stream("Hi")
        await client.close()


async def _ended(lab: SlowLab) -> str:
    """Return how the answer ended."""
    async with AsyncLabClient(lab.url) as client:
        while True:
            *_, message = [message async for message in client.messages("s")]
            if message.status != "streaming":
                return f"{message.content} {message.status}"
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_leaving_a_stream_stops_the_model(kind: Kind, slow_lab: SlowLab) -> None:
    client = EitherClient(kind, slow_lab.url)
    leaving = asyncio.create_task(client.stream("Hi", "s", on_delta=lambda _: False, model="slow/tiny"))
    asked = await slow_lab.asked()
    await asyncio.wait_for(asked.disconnected.wait(), 30)
    with pytest.raises(InvalidRequest, match="not complete"):
        await leaving
    assert await _ended(slow_lab) == "Well incomplete"
    await client.close()


async def test_cancelling_a_call_stops_the_model(slow_lab: SlowLab) -> None:
    async with AsyncLabClient(slow_lab.url) as client:
        calling = asyncio.create_task(client.chat("Hi", "s", model="slow/tiny"))
        asked = await slow_lab.asked()
        calling.cancel()
        await asyncio.wait_for(asked.disconnected.wait(), 30)
        assert (await _ended(slow_lab)).endswith("incomplete")


@pytest.mark.parametrize("call", ["client.chat('Hi', 's', model='slow/tiny')", CONSUMED_STREAM])
async def test_ctrl_c_stops_the_model(slow_lab: SlowLab, call: str) -> None:
    program = f"""
        import sys, ai_lab
        client = ai_lab.LabClient({slow_lab.url!r})
        try:
            {call}
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            sys.stdin.read()  # the program goes on: not its end but the interruption closes the connection
        """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(  # noqa: ASYNC220 - waited for in a thread
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as script:
        asked = await slow_lab.asked()
        script.send_signal(signal.SIGINT)
        await asyncio.wait_for(asked.disconnected.wait(), 30)
        output, _ = await asyncio.to_thread(script.communicate)
        assert output == b"interrupted\n"
    assert (await _ended(slow_lab)).endswith("incomplete")


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_restart_between_two_calls_goes_unnoticed(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> None:
    with ServerProcess(tmp_path_factory.mktemp("client") / "data") as server:
        client = EitherClient(kind, server.url)
        await client("create", "a")
        assert await asyncio.to_thread(server.stop) == 0
        with pytest.raises(ServerUnreachable):
            await client("append", "a", "user", "too early")
        await asyncio.to_thread(server.start)
        await client("append", "a", "user", "again")
        await client.close()
