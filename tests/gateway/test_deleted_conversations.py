"""A conversation that is deleted takes with it what the gateway kept of its words, by whichever door it goes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from ai_lab.cache.tables import cached_answers
from ai_lab.chat import NewTurn, Turn
from ai_lab.conversation_db import ConversationManagerDB, DatabaseManager
from ai_lab.conversations.schemas import NewMessage
from ai_lab.errors import ConversationNotFound
from ai_lab.lab import Lab
from ai_lab.settings import Settings
from ai_lab.traces.tables import traces
from tests.fakes.http_server import json_reply
from tests.fakes.openai_server import CHAT, DONE, OpenAIServer, delta, stream_reply, text_reply, usage
from tests.lab_server import serve_lab

SAID = "Whisper"
FIGURES = {"seed": 7, "reasoning_effort": "low"}
OPTIONS = {"stop": ["Wort"], **FIGURES}


@dataclass(frozen=True)
class Scene:
    """A served lab that keeps answers and texts, the service that it knows, and the earlier door to its database."""

    lab: Lab
    http: httpx.AsyncClient
    fake: OpenAIServer
    earlier: ConversationManagerDB  # as long as the loop, with which it closes

    async def chat(self, session_id: str, message: str) -> dict[str, Any]:
        body = {"message": message, "session_id": session_id, "options": OPTIONS}
        response = await self.http.post("/chat", json=body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def trace(self, **filters: str) -> dict[str, Any]:
        """Return the newest trace in full."""
        page = (await self.http.get("/traces", params=filters)).json()
        trace: dict[str, Any] = (await self.http.get(f"/traces/{page['data'][0]['id']}")).json()
        return trace

    async def kept(self) -> str:
        """Return all rows of stored answers and traces."""
        await self.lab.cache.flush()
        async with self.lab.database.reading() as db:
            return str([(await db.execute(select(table))).all() for table in (cached_answers, traces)])


@pytest.fixture
async def scene(database_url: str, tmp_path: Path) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        fake = await stack.enter_async_context(OpenAIServer())
        settings = Settings.load(
            data_dir=tmp_path / "data",
            database_url=database_url,
            servers={"fake": fake.base_url},
            default_model="fake/tiny",
            cache=True,
            trace_prompts=True,
        )
        served = await stack.enter_async_context(serve_lab(settings))
        served.lab.cache._tiers._stale_seconds = 0.0  # what others have deleted is known at once
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=served.url, timeout=30))
        yield Scene(served.lab, http, fake, ConversationManagerDB(DatabaseManager(database_url)))


async def test_every_door_takes_the_words_and_leaves_the_figures(scene: Scene) -> None:
    async def by_address(session_id: str) -> None:
        assert (await scene.http.delete(f"/conversations/{session_id}")).status_code == 204

    other = await scene.chat("other", "Hello?")
    for name, delete in {"first": by_address, "second": scene.earlier.clear_history}.items():
        scene.fake.script(CHAT, text_reply(f"{SAID} to {name}"))
        said = await scene.chat(name, f"{SAID} of {name}")
        trace = await scene.trace(session_id=name)
        assert (trace["answer"], trace["options"]) == (said["response"], OPTIONS)
        assert SAID in await scene.kept()
        await delete(name)
        assert SAID not in await scene.kept()
        left = await scene.trace(session_id=name)
        assert left == trace | {"prompt": None, "answer": None, "options": FIGURES}
        again = await scene.chat(f"{name} again", f"{SAID} of {name}")
        assert again["cached"] is False
        await delete(f"{name} again")
    assert (await scene.trace(session_id="other"))["answer"] == other["response"]
    assert (await scene.chat("another", "Hello?"))["cached"] is True


async def test_an_error_that_quotes_what_was_said_keeps_its_code_alone(scene: Scene) -> None:
    scene.fake.script(CHAT, json_reply({"error": {"message": f"The prompt {SAID!r} is refused."}}, 400))
    refused = await scene.http.post("/chat", json={"message": f"{SAID}?", "session_id": "s"})
    assert SAID in refused.json()["detail"]
    trace = await scene.trace(session_id="s")
    assert SAID in trace["error"]
    assert SAID in trace["attempts"][0]["error"]
    await scene.lab.conversations.delete("s")
    assert SAID not in await scene.kept()
    assert (await scene.trace(session_id="s"))["error_code"] == trace["error_code"] == refused.json()["code"]


async def test_an_answer_that_ends_after_the_deletion_leaves_nothing(scene: Scene) -> None:
    scene.fake.script(CHAT, stream_reply(delta(content=SAID), 0.3, delta("stop"), usage(1, 1), DONE))
    turn = await scene.lab.chat.start(NewTurn(message=f"{SAID}?", session_id="s"))
    assert isinstance(turn, Turn)
    async for _ in turn.deltas():
        await scene.lab.conversations.delete("s")
        await scene.lab.conversations.append("s", NewMessage(role="user", content="A new beginning."))
    with pytest.raises(ConversationNotFound):
        await turn.result()
    trace = await scene.trace(session_id="s")
    assert trace["status"] in ("complete", "cancelled")  # the turn looks twice a second whether it is still wanted
    assert SAID not in await scene.kept()
    assert (await scene.http.get("/cache/stats")).json()["memory_entries"] == 0
