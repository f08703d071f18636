"""What a benchmark cannot be asked for over HTTP: each is refused by name, nothing starts, and no secret comes back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ai_lab.benchmarks import Plan
from tests.server import ServerProcess

KEY = "sk-nobody-may-read-this"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    server = ServerProcess(tmp_path_factory.mktemp("refused") / "data", {"AI_LAB_DEFAULT_MODEL": "echo/echo"})
    with server, httpx.Client(base_url=server.url, timeout=30) as client:
        yield client
        assert client.get("/benchmarks").json()["data"] == []
        assert "status=500" not in server.log
        assert KEY not in server.log


@pytest.mark.parametrize(
    ("arm", "field", "remedy"),
    [
        ({"url": "file:///etc/passwd"}, "arms.0.url", "http or https"),
        ({"url": f"http://user:{KEY}@127.0.0.1:9"}, "arms.0.url", "api_key"),
        ({"url": f"http://127.0.0.1:9/v1?key={KEY}"}, "arms.0.url", "api_key"),
        ({"url": f"gopher://{KEY}@127.0.0.1:9"}, "arms.0.url", "api_key"),
        ({"url": "http://127.0.0.1:9/\r\nHost: x"}, "arms.0.url", "http or https"),
        ({"url": "http:\\\\user:pass@127.0.0.1:9"}, "arms.0.url", "http or https"),
        ({"url": "http://127.0.0.1:99999"}, "arms.0.url", "http or https"),
        ({"api_key": f"{KEY} {KEY}"}, "arms.0.api_key", "one word"),
        ({"api_key": ""}, "arms.0.api_key", "at least 1"),
        ({"model": ""}, "arms.0.model", "at least 1"),
        ({"model": None}, "arms.0", "Name the model"),
        (
            {"options": {"deep": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}},
            "arms.0.options",
            "levels",
        ),
        ({"options": {"large": "x" * 1_000_001}}, "arms.0.options", "bytes"),
        ({"surprise": 1}, "arms.0.surprise", "not permitted"),
    ],
)
def test_a_bad_arm_is_named_and_not_repeated(
    client: httpx.Client, arm: dict[str, Any], field: str, remedy: str
) -> None:
    arm = {"model": "m", "url": "http://127.0.0.1:9", **arm}
    answer = client.post("/benchmarks", json={"arms": [arm]})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    [error] = answer.json()["errors"]
    assert error["field"] == field
    assert remedy in error["message"]
    assert not error["message"].startswith("Value error")
    assert KEY not in answer.text


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"arms": [{"options": {"half": "\\ud800"}}]}', "arms.0.options"),
        (b'{"arms": [{"options": {"\\ud800": 1}}]}', "arms.0.options"),
        (b'{"arms": [{"options": {"x": NaN}}]}', "arms.0.options"),
        (b'{"title": "\\ud800"}', "title"),
        (b'{"prompts": {"texts": ["\\ud800"]}}', "prompts.texts.0"),
        (b'{"load": {"requests": 1}}', "load"),
        (b'{"load": {"mode": "open", "rates": [Infinity]}}', "load.open.rates.0"),
        (b'{"load": {"mode": "closed", "requests": 100000, "concurrency": [1, 2]}}', "body"),
        (b'{"timeout_seconds": NaN}', "timeout_seconds"),
        (b'{"prompts": {"texts": [' + b",".join([b'"' + b"x" * 1_000_000 + b'"'] * 11) + b"]}}", "prompts"),
        (b"[]", "body"),
        (b"", "body"),
    ],
    ids=lambda value: str(value[:40]),
)
def test_a_hostile_body_is_refused_by_field(client: httpx.Client, body: bytes, field: str) -> None:
    answer = client.post("/benchmarks", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["param"] == field
    assert client.get("/benchmarks").json()["data"] == []


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"title": "\xff"}', b'{"seed": ' + b"9" * 5000 + b"}"])
def test_what_is_no_json_for_us_is_refused(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/benchmarks", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ({"iterations": "0"}, 422, "iterations"),
        ({"iterations": "-1"}, 422, "iterations"),
        ({"iterations": "1000000"}, 422, "iterations"),
        ({"iterations": "ten"}, 422, "iterations"),
        ({"prompt": ""}, 422, "prompt"),
        ({"prompt": "x" * 30_000, "model_name": "echo/ecco"}, 404, "model"),
        ({"model_name": "x" * 501}, 422, "model_name"),
        ({"model_name": "\0"}, 404, "model"),
    ],
)
def test_a_small_benchmark_is_refused_by_field(
    client: httpx.Client, query: dict[str, str], status: int, param: str
) -> None:
    answer = client.post("/benchmark/llm", params=query)
    assert (answer.status_code, answer.json()["param"]) == (status, param)


@pytest.mark.parametrize(("method", "path"), [("POST", "/benchmark/llm?model_name=echo/ecco"), ("POST", "/benchmarks")])
def test_an_unknown_model_brings_the_near_ones(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, path, json={"arms": [{"model": "echo/ecco"}]})
    assert (answer.status_code, answer.json()["near_matches"]) == (404, ["echo/echo"])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("POST", "/resume"),
        ("POST", "/rerun"),
        ("GET", "/events"),
        ("GET", "/report"),
        ("GET", "/report?format=jsonl"),
    ],
)
def test_an_unknown_run_is_not_found(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, f"/benchmarks/nothing{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "benchmark_not_found")


def test_runs_are_compared_with_others(client: httpx.Client) -> None:
    for runs, status in ((["a"], 422), (["a", "a"], 400), (["a", "b"], 404), (["a"] * 9, 422), ([""] * 2, 422)):
        assert client.post("/benchmarks/compare", json={"runs": runs}).status_code == status


def test_the_examples_of_the_description_are_plans(client: httpx.Client) -> None:
    body = client.get("/openapi.json").json()["paths"]["/benchmarks"]["post"]["requestBody"]["content"]
    plans = [Plan.model_validate(one["value"]) for one in body["application/json"]["examples"].values()]
    assert [plan.load.mode for plan in plans] == ["closed", "closed", "closed", "open", "goodput"]


def test_the_description_says_what_a_load_may_be(client: httpx.Client) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    names = {name for name in schemas if name.startswith("Plan")}
    assert names == {"Plan-Input", "Plan-Output"}
    load = schemas["Plan-Input"]["properties"]["load"]
    assert load["discriminator"]["propertyName"] == "mode"
    assert set(load["discriminator"]["mapping"]) == {"closed", "open", "goodput"}
    assert "api_key" in schemas["Arm-Input"]["properties"]
    assert "api_key" not in schemas["Arm-Output"]["properties"]
