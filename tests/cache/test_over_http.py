"""The cache through a running lab: what users see of it, and what operators can do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ai_lab.settings import Settings
from tests.fakes.openai_server import CHAT, DONE, OpenAIServer, delta, stream_reply, text_reply, usage
from tests.lab_server import serve_lab
from tests.security.canary import new_secret

_WORDS = [f"word{number} " for number in range(30)]


@pytest.fixture
async def fake() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as server:
        server.script(CHAT, stream_reply(*(delta(content=word) for word in _WORDS), delta("stop"), usage(7, 30), DONE))
        yield server


@contextlib.asynccontextmanager
async def served(fake: OpenAIServer, database_url: str, folder: Path, **more: Any) -> AsyncIterator[httpx.AsyncClient]:
    servers = {"fake": {"base_url": fake.base_url, "api_key": new_secret()}}
    values = {"data_dir": folder, "database_url": database_url, "servers": servers, "default_model": "fake/tiny"}
    settings = Settings.load(**(values | {"cache": True} | more))
    async with serve_lab(settings) as server, httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        yield client


async def chat(client: httpx.AsyncClient, message: str = "Hello?", **more: Any) -> dict[str, Any]:
    response = await client.post("/chat", json={"message": message} | more)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def streamed(response: httpx.Response) -> tuple[list[str], dict[str, Any]]:
    *deltas, last = [block.partition("data: ")[2] for block in response.text.strip().split("\n\n")]
    return [json.loads(text)["delta"] for text in deltas], json.loads(last)


async def test_the_same_question_again(fake: OpenAIServer, migrated_sqlite: str, tmp_path: Path) -> None:
    async with served(fake, migrated_sqlite, tmp_path, rate_limits=False) as client:
        first = await chat(client)
        assert (first["cached"], first["cache"], first["attempts"]) == (False, None, 1)
        again = await client.post("/chat", json={"message": "Hello?", "stream": True})
        deltas, done = streamed(again)
        assert "".join(deltas) == done["response"] == first["response"] == "".join(_WORDS)
        assert (done["cached"], done["attempts"], done["cost"]) == (True, 0, 0)
        assert done["usage"] == first["usage"]
        assert done["cache"]["kind"] == again.headers["x-ai-lab-cache"] == "hit"
        assert done["session_id"] != first["session_id"]

        body = {"model": "fake/tiny", "messages": [{"role": "user", "content": "Hello?"}]}
        openai = await client.post("/v1/chat/completions", json=body)
        assert openai.json()["choices"][0]["message"]["content"] == first["response"]
        assert (openai.headers["x-ai-lab-cache"], openai.headers["x-ai-lab-attempts"]) == ("hit", "0")
        assert openai.json()["usage"]["completion_tokens"] == 30

        for more in ({"use_cache": False}, {"options": {"temperature": 1.0}}, {"session_id": first["session_id"]}):
            assert (await chat(client, **more))["cached"] is False
        assert len(fake.received(CHAT)) == 4

        answers = await asyncio.gather(*(chat(client, "At once?") for _ in range(20)))
        assert {answer["response"] for answer in answers} == {first["response"]}
        assert sorted(answer["attempts"] for answer in answers) == [0] * 19 + [1]
        assert len(fake.received(CHAT)) == 5
        metrics = (await client.get("/metrics/prometheus")).text
        found = re.findall(r'^ai_lab_llm_cache_hits_total\{kind="(?:exact|joined)"\} (.+)$', metrics, re.MULTILINE)
        assert sum(map(float, found)) == 2 + 19

    async with served(fake, migrated_sqlite, tmp_path) as client:  # started again
        kept = await chat(client)
        assert (kept["cached"], kept["response"]) == (True, first["response"])
        stats = (await client.get("/cache/stats")).json()
        assert (stats["enabled"], stats["store"], stats["entries"]) == (True, "database", 3)
        assert stats["hits"] + stats["joined"] == 3 + 19
        assert stats["hit_rate"] == round(stats["hits"] / stats["lookups"], 4)
        assert (stats["saved_prompt_tokens"], stats["saved_completion_tokens"]) == (22 * 7, 22 * 30)

        listed = (await client.get("/cache", params={"limit": 1})).json()
        assert listed["has_more"]
        oldest = (await client.get("/cache", params={"after": listed["after"]})).json()["data"][-1]
        assert (oldest["key"], oldest["hits"]) == (kept["cache"]["key"], 3)
        key = kept["cache"]["key"]
        assert (await client.delete(f"/cache/{key}")).status_code == 204
        assert (await chat(client))["cached"] is False
        for none in ("0" * 64, "nonsense", "%00"):
            assert (await client.delete(f"/cache/{none}")).json()["code"] == "cached_answer_not_found"
        assert (await client.delete("/cache")).json() == {"deleted": 3}
        assert (await chat(client))["cached"] is False


async def test_labs_on_one_postgres_share_answers(fake: OpenAIServer, migrated_postgres: str, tmp_path: Path) -> None:
    async with (
        served(fake, migrated_postgres, tmp_path / "a") as one,
        served(fake, migrated_postgres, tmp_path / "b") as other,
    ):
        first = await chat(one)
        for _ in range(50):
            if (await one.get("/cache/stats")).json()["entries"]:
                break
        assert (await chat(other))["cache"]["key"]
        assert (await chat(other))["response"] == first["response"]
        assert len(fake.received(CHAT)) == 1
        assert (await other.delete("/cache")).json() == {"deleted": 1}
        fake.script(CHAT, text_reply("new"))
        assert (await chat(other))["response"] == "new"
        assert (await other.get("/cache/stats")).json()["hits"] == 2
