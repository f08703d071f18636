"""``POST /chat`` and what stands around it, through a real server."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.server import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("chat") / "data", {"AI_LAB_DEFAULT_MODEL": "echo/echo"}) as server:
        yield server


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def events(response: httpx.Response) -> list[tuple[str, str | None, Any]]:
    found = []
    for block in response.text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        found.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
    return found


def test_the_answer_has_every_field_of_the_contract(http: httpx.Client) -> None:
    answer = http.post("/chat", json={"message": "hello there", "session_id": "contract"})
    assert answer.status_code == 200
    body = answer.json()
    assert body["response"] == "hello there"
    assert (body["status"], body["session_id"], body["model"], body["provider"], body["error"]) == (
        "success",
        "contract",
        "echo/echo",
        "echo",
        None,
    )
    assert body["cached"] is False
    assert body["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 2,
        "cached_tokens": 0,
        "reasoning_tokens": None,
        "cache_write_tokens": None,
    }
    assert {"message_id", "cost", "timings", "thought_process"} <= set(body)


def test_a_stream_is_numbered_and_ends_with_the_whole_answer(http: httpx.Client) -> None:
    response = http.post("/chat", json={"message": "one two three", "session_id": "stream", "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-accel-buffering"] == "no"
    *deltas, (last, last_id, answer) = events(response)
    assert [name for name, _, _ in deltas] == ["message.delta"] * len(deltas)
    assert [int(number or 0) for _, number, _ in deltas] == list(range(1, len(deltas) + 1))
    assert "".join(data["delta"] for _, _, data in deltas) == "one two three"
    assert (last, last_id) == ("message.done", str(len(deltas) + 1))
    whole = http.post("/chat", json={"message": "one two three", "session_id": "stream"}).json()
    assert set(answer) == set(whole)


def test_a_repeated_key_replays_the_stream(http: httpx.Client) -> None:
    request = {"message": "once", "session_id": "replay", "stream": True}
    first = events(http.post("/chat", json=request, headers={"Idempotency-Key": "k1"}))
    again = events(http.post("/chat", json=request, headers={"Idempotency-Key": "k1"}))
    assert again[-1][2]["message_id"] == first[-1][2]["message_id"]
    assert again[0][2]["delta"] == "once"
    assert http.get("/conversations/replay").json()["message_count"] == 2


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        ({"message": "x", "model": "echo/ecko"}, 404, "model_not_found", "Did you mean echo/echo?"),
        ({"message": ""}, 422, "invalid_request", "at least 1 character"),
        ({"mesage": "x"}, 422, "invalid_request", "message: Field required"),
        ({"message": "x", "options": {"temperature": 9}}, 422, "invalid_request", "options.temperature"),
        ({"message": "x", "options": {"reasoning_effort": "?"}}, 422, "invalid_request", "options.reasoning_effort"),
        ({"message": "x", "session_id": "a/b"}, 422, "invalid_request", "session_id"),
        ({"message": "a\x00b"}, 422, "invalid_request", "message"),
    ],
)
def test_what_cannot_work_is_a_problem_with_a_stable_code(
    http: httpx.Client, body: dict[str, Any], status: int, code: str, words: str
) -> None:
    response = http.post("/chat", json=body)
    problem = response.json()
    assert response.status_code == problem["status"] == status
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["code"] == code
    assert words in problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]


def test_no_error_repeats_what_was_sent(http: httpx.Client) -> None:
    response = http.post("/chat", json={"message": ["CANARY"], "model": {"CANARY": 1}, "options": {"seed": "CANARY"}})
    assert response.status_code == 422
    assert "CANARY" not in response.text


def test_json_must_be_called_json(http: httpx.Client) -> None:
    """Another page of the browser can send text/plain without being asked first."""
    response = http.post("/chat", content='{"message": "x"}', headers={"Content-Type": "text/plain"})
    assert response.status_code == 415


@pytest.mark.parametrize(("given", "taken"), [("abc-123", True), ("a b", False), ("x" * 200, False), ("ü", False)])
def test_a_well_formed_request_id_is_taken_over(http: httpx.Client, given: str, *, taken: bool) -> None:
    response = http.get("/health/live", headers=[(b"x-request-id", given.encode())])
    assert (response.headers["x-request-id"] == given) is taken
    assert response.headers["x-request-id"]


def test_unknown_options_are_named_not_swallowed(http: httpx.Client) -> None:
    answer = http.post("/chat", json={"message": "x", "options": {"temperature": 0.5, "mirostat": 2}}).json()
    assert any("mirostat" in warning for warning in answer["warnings"])


def test_a_browser_is_sent_to_a_page_and_a_program_gets_json(http: httpx.Client) -> None:
    assert http.get("/").json()["name"] == "AI Lab"
    browser = http.get("/", headers={"Accept": "text/html,application/xhtml+xml"})
    assert (browser.status_code, browser.headers["location"]) == (307, "/docs")


def test_a_body_beyond_the_limit_is_refused(http: httpx.Client) -> None:
    response = http.post("/chat", json={"message": "x" * (33 * 1024 * 1024)})
    assert response.status_code == 413
    assert response.json()["code"] == "content_too_large"


def test_other_methods_are_refused_with_those_that_are_offered(http: httpx.Client) -> None:
    response = http.put("/conversations/x")
    assert response.status_code == 405
    assert {"GET", "PATCH", "DELETE"} <= set(response.headers["allow"].split(", "))


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/health/detailed"])
def test_health_answers(http: httpx.Client, path: str) -> None:
    response = http.get(path)
    assert response.status_code == 200
    assert response.json()["status"] in {"healthy", "alive"}


def test_health_in_detail_names_components_and_remedies(http: httpx.Client) -> None:
    components = {c["component"]: c for c in http.get("/health/detailed").json()["components"]}
    assert {"database", "disk", "provider:embedded", "provider:ollama", "provider:echo"} <= set(components)
    assert "not reachable" in components["provider:ollama"]["detail"]
    assert components["provider:ollama"]["remedy"]


def test_no_address_writes_lines_into_the_log(http: httpx.Client, server: ServerProcess) -> None:
    http.get("/x%0A12:00:00 INFO    forged line")
    assert "\n12:00:00 INFO    forged" not in server.log
