"""What a trace tells of a call, asked for over HTTP; and the same question asked of another model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from ai_lab.settings import Settings
from tests.fakes.faulty_provider import ANSWER, FaultyProvider
from tests.fakes.http_server import json_reply
from tests.fakes.openai_server import CHAT, OpenAIServer, text_reply
from tests.lab_server import serve_lab
from tests.security.canary import holds_secret, new_secret

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
QUESTION = "What is the Würde des Menschen?"


@dataclass(frozen=True)
class Scene:
    """A served lab, and the two services that it knows."""

    http: httpx.AsyncClient
    faulty: FaultyProvider
    other: OpenAIServer

    async def trace(self, answer: httpx.Response) -> dict[str, Any]:
        """Return the trace that the headers of an answer name."""
        found = await self.http.get(f"/traces/{answer.headers['x-ai-lab-trace-id']}")
        assert found.status_code == 200, found.text
        trace: dict[str, Any] = found.json()
        return trace

    async def newest(self, **filters: str) -> dict[str, Any]:
        """Return the newest trace in full."""
        page = (await self.http.get("/traces", params=filters)).json()
        trace: dict[str, Any] = (await self.http.get(f"/traces/{page['data'][0]['id']}")).json()
        return trace

    async def chat(self, model: str, **more: Any) -> httpx.Response:
        return await self.http.post("/chat", json={"message": QUESTION, "model": model} | more)


@asynccontextmanager
async def scene(folder: Path, **more: Any) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        faulty = await stack.enter_async_context(FaultyProvider())
        other = await stack.enter_async_context(OpenAIServer())
        settings = Settings(
            data_dir=folder / "data",
            ollama_host="http://127.0.0.1:9",
            servers={
                "faulty": {"base_url": faulty.base_url, "api_key": more.pop("api_key", None)},
                "other": other.base_url,
                "away": "http://no-such-host.invalid/v1",
            },
            aliases={"fast": ["faulty/tiny", "other/tiny"]},
            retry_wait_seconds=0.01,
            prices={"other/tiny": {"input": 1.0, "output": 2.0}},
            **more,
        )
        served = await stack.enter_async_context(serve_lab(settings))
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=served.url, timeout=30))
        yield Scene(http, faulty, other)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene(tmp_path) as built:
        yield built


async def test_retries_and_the_fallback_are_one_tree(lab: Scene) -> None:
    lab.faulty.fault = "unavailable_503"
    answer = await lab.http.post(
        "/chat",
        json={
            "message": QUESTION,
            "model": "fast",
            "session_id": "ada",
            "options": {"temperature": 0.5, "reasoning_effort": "low", "stop": ["Würde"]},
        },
        headers=PARENT | {"x-request-id": "request-7"},
    )
    assert answer.status_code == 200, answer.text
    trace = await lab.trace(answer)
    assert (trace["trace_id"], trace["parent_span_id"], trace["request_id"]) == (TRACE, SPAN, "request-7")
    assert (trace["source"], trace["operation"], trace["status"]) == ("chat", "chat", "complete")
    assert (trace["asked"], trace["alias"], trace["model"]) == ("fast", "fast", "other/tiny")
    assert (trace["session_id"], trace["message_id"]) == ("ada", answer.json()["message_id"])
    assert trace["options"] == {"temperature": 0.5, "reasoning_effort": "low"}
    assert (trace["prompt_tokens"], trace["completion_tokens"], trace["finish_reason"]) == (7, 2, "stop")
    *failed, last = trace["attempts"]
    assert [attempt["kind"] for attempt in trace["attempts"]] == ["first", "retry", "retry", "fallback"]
    assert {(one["outcome"], one["error_code"]) for one in failed} == {("failed", "provider_unavailable")}
    assert (last["outcome"], last["provider"], last["usage"]["completion_tokens"]) == ("ok", "other", 2)
    assert last["server"] == lab.other.origin.removeprefix("http://")
    times = [one[at] for one in trace["attempts"] for at in ("started_ms", "ended_ms")]
    assert times == sorted(times)
    assert last["started_ms"] <= last["first_token_ms"] <= trace["first_token_ms"] <= trace["total_ms"]
    assert "other/tiny did" in trace["warnings"][0]
    assert (trace["prompt"], trace["answer"]) == (None, None)
    assert QUESTION not in json.dumps(trace, ensure_ascii=False)
    assert (await lab.http.get(f"/traces/{TRACE}")).json()["id"] == trace["id"]
    for request in (*lab.faulty.requests, *lab.other.requests):
        assert "traceparent" not in request.headers  # third parties are not told


async def test_a_failure_an_embedding_and_a_list_of_them(lab: Scene) -> None:
    refused = await lab.chat("faulty/auth")
    assert refused.status_code == 502
    failed = await lab.newest(status="failed")
    assert (failed["error_code"], failed["asked"], failed["provider"]) == (
        "provider_auth_failed",
        "faulty/auth",
        "faulty",
    )
    assert failed["error"] == failed["attempts"][0]["error"]
    assert (failed["finish_reason"], failed["first_token_ms"]) == (None, None)

    made = await lab.http.post("/v1/embeddings", json={"model": "other/tiny", "input": ["a", "b"]})
    embedding = await lab.trace(made)
    assert (embedding["operation"], embedding["source"], embedding["status"]) == ("embeddings", "openai", "complete")
    again = await lab.http.post(f"/traces/{embedding['id']}/replay", json={"model": "other/tiny"})
    assert (again.status_code, again.json()["code"]) == (400, "unsupported_feature")

    page = (await lab.http.get("/traces", params={"limit": 1})).json()
    assert (page["data"][0]["id"], page["has_more"], page["kept_days"]) == (embedding["id"], True, 30)
    rest = (await lab.http.get("/traces", params={"after": page["after"]})).json()
    assert [trace["id"] for trace in rest["data"]] == [failed["id"]]
    assert (await lab.http.get("/traces", params={"model": "none"})).json()["data"] == []
    assert (await lab.http.get("/traces", params={"from": "0", "to": "86400"})).json()["data"] == []
    for path, status, code in (
        ("/traces/none", 404, "trace_not_found"),
        ("/traces?after=nonsense", 404, "invalid_cursor"),
        ("/traces?status=odd", 422, "invalid_request"),
        ("/traces?from=yesterday", 422, "invalid_request"),
        (f"/traces/{'a' * 37}", 422, "invalid_request"),
        ("/traces/a%00b", 422, "invalid_request"),
    ):
        answer = await lab.http.get(path)
        assert (answer.status_code, answer.json()["code"]) == (status, code), path


async def test_a_stored_answer_has_a_trace_without_attempts(tmp_path: Path) -> None:
    async with scene(tmp_path, cache=True) as lab:
        request = {"model": "other/tiny", "messages": [{"role": "user", "content": QUESTION}], "temperature": 0.0}
        await lab.http.get("/metrics")  # which waits for the first sample of the machine
        first = await lab.trace(await lab.http.post("/v1/chat/completions", json=request))
        second = await lab.trace(await lab.http.post("/v1/chat/completions", json=request))
        assert (first["cache"], len(first["attempts"]), first["attempts"][0]["outcome"]) == ("miss", 1, "ok")
        assert (second["cache"], second["attempts"], second["cost"]) == ("hit", [], 0)
        assert second["cache_key"] == first["cache_key"] is not None
        assert (second["model"], second["status"], second["completion_tokens"]) == ("other/tiny", "complete", 2)
        for load in (first["host_load"]["start"], first["host_load"]["end"]):
            assert load["memory_percent"] > 0
            assert load["sample_age_seconds"] >= 0


async def test_who_leaves_a_stream_has_a_cancelled_trace(lab: Scene) -> None:
    request = {"model": "faulty/endless", "messages": [{"role": "user", "content": QUESTION}], "stream": True}
    async with lab.http.stream("POST", "/v1/chat/completions", json=request) as answer:
        async for _ in answer.aiter_lines():
            break
    await asyncio.wait_for(lab.faulty.requests[-1].disconnected.wait(), 30)
    trace = await lab.trace(answer)
    assert (trace["status"], trace["error_code"], trace["finish_reason"]) == ("cancelled", None, None)
    assert trace["attempts"][0]["outcome"] == "cancelled"
    assert trace["first_token_ms"] is not None


async def test_texts_are_kept_where_they_are_wanted_and_asked_again_from_there(tmp_path: Path) -> None:
    secret = new_secret()
    async with scene(tmp_path, trace_prompts=True, api_key=secret) as lab:
        tools = [{"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}]
        request = {
            "model": "faulty/tiny",
            "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": QUESTION}],
            "temperature": 0.0,
            "tools": tools,
        }
        answered = await lab.http.post("/v1/chat/completions", json=request)
        trace = await lab.trace(answered)
        assert trace["answer"] == ANSWER
        assert trace["prompt"] == {"messages": request["messages"], "is_whole": True, "tools": tools}
        lab.other.script(CHAT, text_reply("The", " dignity"))
        replayed = await lab.http.post(f"/traces/{trace['id']}/replay", json={"model": "other/tiny"})
        assert replayed.status_code == 200, replayed.text
        both = replayed.json()
        assert (both["prompt_from"], both["original"]["text"], both["replay"]["text"]) == (
            "trace",
            ANSWER,
            "The dignity",
        )
        assert (both["original"]["trace"], both["original"]["total_ms"]) == (trace["id"], trace["total_ms"])
        assert (both["replay"]["model"], both["replay"]["prompt_tokens"], both["replay"]["completion_tokens"]) == (
            "other/tiny",
            7,
            2,
        )
        sent = lab.other.received(CHAT)[-1].json()
        assert (sent["messages"], sent["tools"], sent["temperature"]) == (request["messages"], tools, 0.0)
        second = (await lab.http.get(f"/traces/{both['replay']['trace']}")).json()
        assert (second["source"], second["status"], second["answer"]) == ("replay", "complete", "The dignity")

        told = {"error": {"message": f"Incorrect API key provided: {secret}. Authorization: Bearer {secret}"}}
        lab.faulty.script(CHAT, json_reply(told, 401))
        await lab.chat("faulty/tiny")
        refused = await lab.newest()
        assert (refused["error_code"], refused["prompt"]["is_whole"]) == ("provider_auth_failed", True)
        assert not holds_secret(json.dumps([trace, second, refused]).encode())


async def test_a_turn_is_asked_again_from_its_conversation_which_stays_as_it_is(lab: Scene) -> None:
    first = {"session_id": "ada", "system": "Be short.", "model": "other/tiny"}
    await lab.http.post("/chat", json=first | {"message": "Hello"})
    turn = {"message": QUESTION, "session_id": "ada", "model": "faulty/tiny", "options": {"temperature": 0.25}}
    answer = await lab.http.post("/chat", json=turn)
    await lab.http.post("/chat", json={"message": "Later", "session_id": "ada", "model": "other/tiny"})
    before = (await lab.http.get("/conversations/ada/messages")).json()
    identifier = answer.headers["x-ai-lab-trace-id"]
    both = (await lab.http.post(f"/traces/{identifier}/replay", json={"model": "other/tiny"})).json()
    assert (both["prompt_from"], both["original"]["text"]) == ("conversation", ANSWER)
    assert both["replay"]["text"] == "Hello, world"
    sent = lab.other.received(CHAT)[-1].json()
    assert [(message["role"], message["content"]) for message in sent["messages"]] == [
        ("system", "Be short."),
        ("user", "Hello"),
        ("assistant", "Hello, world"),
        ("user", QUESTION),
    ]
    assert sent["temperature"] == 0.25
    assert (await lab.http.get("/conversations/ada/messages")).json() == before
    assert (await lab.http.get("/conversations/ada")).json()["message_count"] == 7

    await lab.http.patch("/conversations/ada", json={"local_only": True})
    away = await lab.http.post(f"/traces/{identifier}/replay", json={"model": "away/tiny"})
    assert (away.status_code, away.json()["code"]) == (400, "local_only")

    await lab.http.delete("/conversations/ada")
    gone = await lab.http.post(f"/traces/{identifier}/replay", json={"model": "other/tiny"})
    assert gone.status_code in {404, 409}
    lost = await lab.http.post("/v1/chat/completions", json={"model": "other/tiny", "messages": sent["messages"]})
    unkept = await lab.http.post(f"/traces/{lost.headers['x-ai-lab-trace-id']}/replay", json={})
    assert (unkept.status_code, unkept.json()["code"]) == (409, "conflict")
    assert "AI_LAB_TRACE_PROMPTS=true" in unkept.json()["detail"]


async def test_no_days_keep_nothing_and_answers_come_all_the_same(tmp_path: Path) -> None:
    async with scene(tmp_path, trace_days=0) as lab:
        answer = await lab.chat("other/tiny")
        assert answer.status_code == 200
        page = (await lab.http.get("/traces")).json()
        assert (page["data"], page["kept_days"]) == ([], 0)
        found = await lab.http.get(f"/traces/{answer.headers['x-ai-lab-trace-id']}")
        assert (found.status_code, found.json()["code"]) == (404, "trace_not_found")
        assert "AI_LAB_TRACE_DAYS is 0" in found.json()["detail"]
