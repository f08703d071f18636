"""A question that only says the same gets the stored answer, and no other question does."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.engine import make_url

from ai_lab.cache import AnswerCache
from ai_lab.cache.semantic import Embed, NoSemanticLookup, SemanticLookup
from ai_lab.cache.tables import cached_answers
from ai_lab.database import Database
from ai_lab.errors import EngineError
from ai_lab.providers import Message
from ai_lab.providers.embedder import MODEL, Embedder
from ai_lab.settings import Settings
from tests.cache.answers import answer, key_of, request

STORED, SAYS_THE_SAME = "What is the capital of France?", "what's the capital of france"


class Embedding:
    """The real embedder; counts what is asked of it, and can be broken or slow."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.wait_seconds = 0.0

    async def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        self.asked += texts
        await asyncio.sleep(self.wait_seconds)
        if self.error:
            raise self.error
        return (await self._embedder.embed(MODEL, texts)).vectors


@pytest.fixture(scope="module")
def embedder() -> Iterator[Embedder]:
    embedder = Embedder(idle_seconds=600)
    yield embedder
    asyncio.run(embedder.close())


@pytest.fixture
def embed(embedder: Embedder) -> Embedding:
    return Embedding(embedder)


@asynccontextmanager
async def opened(
    database_url: str, embed: Embed | None, mode: str = "on", **settings: Any
) -> AsyncIterator[AnswerCache]:
    database = Database(make_url(database_url))
    values = {"cache": True, "semantic_cache": mode} | settings
    cache = AnswerCache.open(Settings.model_validate(values), database, embed=embed)
    try:
        yield cache
    finally:
        await cache.close()
        await database.close()


async def stored(cache: AnswerCache, question: str = STORED, reply: str = "Paris.", **more: Any) -> str:
    cache_key = cache.key_of("fake", "tiny", request(question, **more))
    assert cache_key
    await cache.store(cache_key, answer(reply))
    await cache.flush()
    return cache_key.key


async def reply_to(cache: AnswerCache, question: str = SAYS_THE_SAME, **more: Any) -> str | None:
    cache_key = cache.key_of("fake", "tiny", request(question, **more))
    assert cache_key
    found = await cache.find(cache_key)
    return found.answer.text if found else None


async def test_a_question_that_says_the_same_gets_the_answer_and_is_told_so(
    database_url: str, embed: Embedding
) -> None:
    async with opened(database_url, embed) as cache:
        key = await stored(cache)
        found = await cache.find(key_of(cache, SAYS_THE_SAME))
        assert found
        assert (found.answer.text, found.kind, found.key, found.original_question) == (
            "Paris.",
            "semantic",
            key,
            STORED,
        )
        assert found.similarity is not None
        assert 0.98 <= found.similarity <= 1
        exact = await cache.find(key_of(cache, STORED))
        assert exact
        assert (exact.kind, exact.similarity) == ("hit", None)
        stats = await cache.stats()
    assert (stats.semantic, stats.semantic_hits, stats.hits, stats.shadow_hits) == ("on", 1, 1, 0)


async def test_another_server_and_a_later_start_know_the_question(database_url: str, embed: Embedding) -> None:
    async with opened(database_url, embed) as cache:
        await stored(cache)
    async with opened(database_url, embed) as cache:
        assert await reply_to(cache) == "Paris."


async def test_other_questions_cost_no_vector_and_get_no_answer(database_url: str, embed: Embedding) -> None:
    async with opened(database_url, embed) as cache:
        await stored(cache)
        asked = len(embed.asked)
        for other in ("What was the capital of France?", "What is the capital of Gaul?", "Quelle est la capitale ?"):
            assert await reply_to(cache, other) is None
        assert len(embed.asked) == asked == 1


async def test_only_the_last_question_may_differ(database_url: str, embed: Embedding) -> None:
    said = [Message("user", "I like rivers."), Message("assistant", "So do I.")]
    asks = Message("user", SAYS_THE_SAME)
    async with opened(database_url, embed) as cache:
        await stored(cache)
        others: list[dict[str, Any]] = [
            {"messages": [Message("system", "Be short."), asks]},
            {"messages": [*said, asks]},
            {"options": {"max_tokens": 5}},
            {"tools": [{"type": "function", "function": {"name": "look"}}]},
            {"response_format": {"type": "json_object"}},
            {"messages": [Message("user", [{"type": "text", "text": SAYS_THE_SAME}, _image()])]},
        ]
        for other in others:
            assert await reply_to(cache, **other) is None
        elsewhere = cache.key_of("fake", "large", request(SAYS_THE_SAME))
        assert elsewhere
        assert await cache.find(elsewhere) is None
        assert await reply_to(cache) == "Paris."


async def test_a_wrong_one_is_evicted(database_url: str, embed: Embedding) -> None:
    async with opened(database_url, embed) as cache:
        key = await stored(cache)
        assert await reply_to(cache) == "Paris."
        await cache.evict(key)
        assert await reply_to(cache) is None
        await stored(cache)
        await cache.clear()
        assert await reply_to(cache) is None


async def test_the_vectors_must_be_near_too(database_url: str, embed: Embedding) -> None:
    async with opened(database_url, embed) as cache:
        await stored(cache)
        database = Database(make_url(database_url))
        async with database.transaction() as db:
            await db.execute(update(cached_answers).values(embedding=bytes(4 * 384)))
        await database.close()
        assert await reply_to(cache) is None


async def test_in_shadow_mode_hits_are_counted_and_the_model_answers(
    database_url: str, embed: Embedding, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ai_lab.cache")
    async with opened(database_url, embed, "shadow") as cache:
        key = await stored(cache)
        assert await reply_to(cache) is None
        assert await reply_to(cache, "What was the capital of France?") is None
        stats = await cache.stats()
    assert (stats.semantic, stats.shadow_hits, stats.semantic_hits) == ("shadow", 1, 0)
    [entry] = [record for record in caplog.records if "would have answered" in record.message]
    assert entry.__dict__["key"] == key
    assert entry.__dict__["similarity"] > 0.98
    assert "France" not in caplog.text


async def test_switched_off_no_question_is_kept(database_url: str, embed: Embedding) -> None:
    async with opened(database_url, embed, "off") as cache:
        await stored(cache)
        assert await reply_to(cache) is None
        [row] = (await cache.page(limit=5, after=None)).data
    assert row.question is None
    assert embed.asked == []


async def test_a_broken_embedder_means_a_miss(
    database_url: str, embed: Embedding, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(database_url, embed) as cache:
        await stored(cache)
        embed.error = EngineError("broken")
        assert await reply_to(cache) is None
        await stored(cache, "What is the capital of Spain?", "Madrid.")
        assert await reply_to(cache, "What is the capital of Spain?") == "Madrid."
        embed.error = None
        assert await reply_to(cache) == "Paris."
    assert caplog.text.count("models are asked anew") == 1


async def test_nobody_waits_long_for_a_vector(database_url: str, embed: Embedding) -> None:
    async with opened(database_url, embed) as cache:
        await stored(cache)
        cache_key = key_of(cache, SAYS_THE_SAME)
    database = Database(make_url(database_url))
    lookup = SemanticLookup(database, embed=embed, mode="on", least_similarity=0.98, patience_seconds=0.05)
    embed.wait_seconds = 60
    async with asyncio.timeout(30):
        assert await lookup.find(cache_key.scope, SAYS_THE_SAME) is None
    embed.wait_seconds = 0
    patient = SemanticLookup(database, embed=embed, mode="on", least_similarity=0.98)
    assert await patient.find(cache_key.scope, SAYS_THE_SAME)
    await database.close()


async def test_where_the_database_fails_nobody_is_stopped(embed: Embedding) -> None:
    database = Database(make_url("postgresql+asyncpg://nobody@/nothing?host=/nonexistent"))
    lookup = SemanticLookup(database, embed=embed, mode="on", least_similarity=0.98)
    assert await lookup.find("scope", STORED) is None
    await lookup.remember("key", "scope", STORED)
    await lookup.close()
    await database.close()


async def test_the_similarity_of_the_settings_holds(database_url: str, embed: Embedding) -> None:
    near = ("How does one become a mentalist?", "How can I become a mentalist?")
    async with opened(database_url, embed, semantic_cache_similarity=0.95) as cache:
        await stored(cache, near[0])
        assert await reply_to(cache, near[1]) == "Paris."
    async with opened(database_url, embed) as cache:
        assert await reply_to(cache, near[1]) is None


async def test_the_null_object_knows_nothing() -> None:
    nothing = NoSemanticLookup()
    await nothing.remember("key", "scope", STORED)
    assert await nothing.find("scope", STORED) is None
    await nothing.flush()
    await nothing.close()


async def test_vectors_have_length_one(embed: Embedding) -> None:
    [vector] = await embed([STORED])
    assert len(vector) == 384
    assert math.isclose(math.hypot(*vector), 1, abs_tol=1e-5)


def _image() -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
