"""The semantic cache through a running lab: an answer says whose question it was made for, and can be taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from ai_lab.settings import Settings
from tests.lab_server import serve_lab

ASKED, ALIKE = "How do I bake a cake?", "how can I bake a cake"


async def test_an_answer_tells_its_question_and_can_be_taken_back(migrated_sqlite: str, tmp_path: Path) -> None:
    settings = Settings.load(
        data_dir=tmp_path, database_url=migrated_sqlite, default_model="echo/echo", cache=True, semantic_cache="on"
    )
    async with serve_lab(settings) as server, httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        assert (await _chat(client, ASKED))["cached"] is False
        await server.lab.cache.flush()
        alike = await client.post("/chat", json={"message": ALIKE})
        told = alike.json()
        assert (told["response"], told["cached"], told["attempts"]) == (ASKED, True, 0)
        assert alike.headers["x-ai-lab-cache"] == told["cache"]["kind"] == "semantic"
        assert told["cache"]["original_question"] == ASKED
        assert 0.98 <= told["cache"]["similarity"] <= 1

        assert (await client.delete(f"/cache/{told['cache']['key']}")).status_code == 204
        assert (await _chat(client, ALIKE))["response"] == ALIKE
        assert (await client.get("/cache/stats")).json()["semantic_hits"] == 1
        await server.lab.cache.flush()
        deleted = (await client.get("/conversations", params={"limit": 1})).json()["data"][0]["session_id"]
        assert (await client.delete(f"/conversations/{deleted}")).status_code == 204
        assert (await _chat(client, ASKED))["cached"] is False

        body = {"model": "embedder/all-MiniLM-L6-v2", "input": [ASKED, ALIKE]}
        made = (await client.post("/v1/embeddings", json=body)).json()
        assert [len(row["embedding"]) for row in made["data"]] == [384, 384]
        assert made["usage"]["prompt_tokens"] == 19  # "bake" is two
        refused = await client.post("/chat", json={"message": ASKED, "model": "embedder/all-MiniLM-L6-v2"})
        assert (refused.status_code, refused.json()["code"]) == (400, "unsupported_feature")


async def _chat(client: httpx.AsyncClient, message: str) -> dict[str, Any]:
    answer = await client.post("/chat", json={"message": message})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body
