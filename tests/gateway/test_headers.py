"""What ``/chat`` and ``/v1`` take and tell in headers, over a real connection."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from ai_lab.settings import Settings
from tests.fakes.faulty_provider import ANSWER, FaultyProvider
from tests.lab_server import serve_lab
from tests.security.canary import new_secret

_V1, _CHAT, _EMBEDDINGS = "/v1/chat/completions", "/chat", "/v1/embeddings"
_FAR = "http://198.51.100.1/v1"
_TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
#: 7 tokens in and 4 out, at 10 and 20 dollars for a million.
_COST = Decimal("0.00015")

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    folder: Path = tmp_path_factory.mktemp("headers")
    async with FaultyProvider() as fake:
        settings = Settings.load(
            data_dir=folder,
            config_dir=folder / "config",
            servers={"faulty": {"base_url": fake.base_url}, "far": {"base_url": _FAR}} | fake.unreachable(),
            aliases={"smart": {"models": ["faulty/error_500", "faulty/ok"]}, "away": {"models": ["far/x"]}},
            prices={"faulty/ok": {"input": 10, "output": 20}, "faulty/error_500": {"input": 1, "output": 1}},
            default_model="echo/echo",
            retry_wait_seconds=0.01,
            breaker_failures=1000,
            rate_limits=False,
            cache=True,
            enable_metrics=False,
        )
        async with serve_lab(settings) as served, httpx.AsyncClient(base_url=served.url, timeout=30) as client:
            yield client


def body_of(path: str, model: str, text: str, **more: Any) -> dict[str, Any]:
    if path == _CHAT:
        return {"model": model, "message": text, "options": {"temperature": 0}, **more}
    return {"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0, **more}


def own(answer: httpx.Response) -> dict[str, str]:
    """Return our headers, without their prefix."""
    prefix = "x-ai-lab-"
    return {name[len(prefix) :]: value for name, value in answer.headers.items() if name.startswith(prefix)}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", [_V1, _CHAT])
async def test_answers_say_who_answered_from_where_and_at_what_cost(
    http: httpx.AsyncClient, path: str, stream: bool
) -> None:
    body = body_of(path, "smart", f"{path} {stream}", stream=stream)
    made = await http.post(path, json=body)
    assert made.status_code == 200, made.text
    told = own(made)
    cost = told.pop("cost", None)
    trace_id = told.pop("trace-id")
    assert told == {"provider": "faulty", "model": "faulty/ok", "cache": "miss", "attempts": "4"}
    if not stream:  # of a stream, it is known at its end
        assert cost is not None
        assert Decimal(cost) == _COST
        assert (made.json() if path == _CHAT else {"trace_id": trace_id})["trace_id"] == trace_id
    again = await http.post(path, json=body)
    told = own(again)
    assert told.pop("trace-id") != trace_id
    # The alias' first model has failed again; what the second said is stored for the second.
    assert told["model"] == "faulty/ok"


@pytest.mark.parametrize("path", [_V1, _CHAT])
async def test_a_stored_answer_says_so_and_is_not_wanted_where_it_is_said(http: httpx.AsyncClient, path: str) -> None:
    body = body_of(path, "faulty/ok", f"stored {path}")
    assert own(await http.post(path, json=body))["cache"] == "miss"
    hit = own(await http.post(path, json=body))
    assert (hit["cache"], hit["attempts"], hit["cost"], hit["model"]) == ("hit", "0", "0", "faulty/ok")
    streamed = await http.post(path, json=body | {"stream": True})
    assert own(streamed)["cache"] == "hit"
    assert own(await http.post(path, json=body | {"use_cache": False}))["cache"] == "bypass"
    assert own(await http.post(path, json=body, headers={"x-ai-lab-cache": "off"}))["cache"] == "bypass"
    wrong = await http.post(path, json=body, headers={"x-ai-lab-cache": "maybe"})
    assert wrong.status_code == (422 if path == _CHAT else 400)
    if path == _V1:
        return
    answer = (await http.post(path, json=body)).json()
    assert (answer["cached"], answer["cache"]["kind"], answer["attempts"], answer["cost"]) == (True, "hit", 0, 0)
    done = json.loads(streamed.text.rpartition("data: ")[2])
    assert (done["cached"], done["response"]) == (True, ANSWER)


async def test_the_cost_of_a_conversation_is_in_its_history(http: httpx.AsyncClient) -> None:
    body = body_of(_CHAT, "faulty/ok", "what does it cost?", session_id="costs", stream=True)
    done = json.loads((await http.post(_CHAT, json=body)).text.rpartition("data: ")[2])
    assert done["cost"] == float(_COST)
    *_, kept = (await http.get("/conversations/costs/messages")).json()["data"]
    assert kept["usage"]["cost"] == float(_COST)
    assert kept["extra"]["answer"]["trace_id"] == done["trace_id"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", [_V1, _CHAT])
async def test_errors_lead_to_their_trace(http: httpx.AsyncClient, path: str, stream: bool) -> None:
    failed = await http.post(path, json=body_of(path, "faulty/auth", "x", stream=stream))
    assert failed.status_code == (200 if (path, stream) == (_CHAT, True) else 502)
    assert "provider_auth_failed" in failed.text
    told = own(failed)
    trace = (await http.get(f"/traces/{told.pop('trace-id')}")).json()
    assert told == {"provider": "faulty", "model": "faulty/auth", "cache": "miss", "attempts": "1", "cost": "0"}
    assert (trace["status"], trace["error_code"]) == ("failed", "provider_auth_failed")


async def test_errors_of_embeddings_do_too_and_no_header_repeats_a_key(http: httpx.AsyncClient) -> None:
    failed = await http.post(_EMBEDDINGS, json={"model": "echo/echo", "input": "a"})
    assert (await http.get(f"/traces/{own(failed)['trace-id']}")).json()["error_code"] == failed.json()["error"]["code"]
    secret = new_secret()
    keyed = await http.post(_V1, json=body_of(_V1, f"refuse/{secret}", "the key in the place of the model"))
    assert own(keyed)["attempts"] == "3"
    told = (keyed, await http.get("/gateway/breakers"), await http.get("/metrics/prometheus"))
    assert not any(secret in f"{answer.headers} {answer.text}" for answer in told)
    assert own(await http.post(_V1, json=body_of(_V1, "echo/ecko", "no call was begun"))) == {}


async def test_a_repeated_answer_tells_what_is_kept_of_it(http: httpx.AsyncClient) -> None:
    for key, decision in (("made", "miss"), ("stored", "hit")):
        body = body_of(_CHAT, "faulty/ok", "repeat this", session_id=key)
        first, again, streamed = [
            own(await http.post(_CHAT, json=body | {"stream": stream}, headers={"idempotency-key": key}))
            for stream in (False, False, True)
        ]
        assert first["cache"] == decision
        assert again == streamed == {name: value for name, value in first.items() if value != "miss"}


@pytest.mark.parametrize("path", [_V1, _CHAT, _EMBEDDINGS])
async def test_what_is_local_only_leaves_nothing(http: httpx.AsyncClient, path: str) -> None:
    body = {"model": "away", "input": "x"} if path == _EMBEDDINGS else body_of(path, "away", "secret")
    wrong = await http.post(path, json=body, headers={"x-ai-lab-local-only": "yes please"})
    assert wrong.status_code == (422 if path == _CHAT else 400)
    asked: list[tuple[dict[str, Any], dict[str, str]]] = [
        ({"local_only": True}, {}),
        ({}, {"x-ai-lab-local-only": "true"}),
    ]
    for more, headers in asked:
        answer = await http.post(path, json=body | more, headers=headers)
        problem = answer.json() if path == _CHAT else answer.json()["error"]
        assert (answer.status_code, problem["code"]) == (400, "local_only")


async def test_the_callers_trace_is_taken_over(http: httpx.AsyncClient) -> None:
    sent = {"traceparent": f"00-{_TRACE_ID}-b7ad6b7169203331-01"}
    answer = await http.post(_CHAT, json=body_of(_CHAT, "echo/echo", "traced"), headers=sent)
    identifier = own(answer)["trace-id"]
    assert answer.json()["trace_id"] == identifier
    trace = (await http.get(f"/traces/{identifier}")).json()
    assert (trace["trace_id"], trace["id"]) == (_TRACE_ID, identifier)


async def test_aliases_are_models_too(http: httpx.AsyncClient) -> None:
    listed = {model["id"]: model["owned_by"] for model in (await http.get("/v1/models")).json()["data"]}
    assert (listed["smart"], listed["faulty/ok"]) == ("alias", "faulty")
    assert (await http.get("/v1/models/smart")).json()["owned_by"] == "alias"


async def test_embeddings_pass_through_the_gateway(http: httpx.AsyncClient) -> None:
    answer = await http.post(_EMBEDDINGS, json={"model": "faulty/ok", "input": ["a", "b"]})
    assert [row["embedding"] for row in answer.json()["data"]] == [[0.0, 0.5], [1.0, 0.5]]
    assert answer.json()["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    told = own(answer)
    assert (told["model"], told["attempts"], told["cache"]) == ("faulty/ok", "1", "bypass")
    assert Decimal(told["cost"]) == Decimal("0.00005")
    assert "no embeddings" in (await http.post(_EMBEDDINGS, json={"model": "echo/echo", "input": "a"})).text
