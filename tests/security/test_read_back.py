"""What was stored once is never told again, whoever asks, wherever and however."""

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.security.canary import holds_secret, new_secret
from tests.security.operations import operations

#: What other programs call it when they give a secret back.
ASKING = "reveal=1&show=true&decrypt=1&include=api_key&fields=token,api_key,secret&expand=secret&plaintext=1&raw=1"


@pytest.fixture(scope="module")
def secret() -> str:
    return new_secret("sk-proj-")


@pytest.fixture(autouse=True)
def _stored(http: httpx.Client, secret: str) -> Iterator[None]:
    own = {"service_name": "own", "base_url": "http://127.0.0.1:9/v1", "api_key": new_secret(), "label": "second"}
    for body in ({"service_name": "openai", "api_key": secret, "details": {"rate_limit": 5}}, own):
        answer = http.post("/api-keys", json=body)
        assert answer.status_code in {200, 201}, answer.text
        _holds_nothing(answer)
        assert answer.json()["success"] is True
        assert answer.json()["service_name"] == body["service_name"]
    yield
    for service in ("openai", "own"):
        _holds_nothing(http.delete(f"/api-keys/{service}"))


def _holds_nothing(answer: httpx.Response) -> None:
    assert not holds_secret(answer.content), answer.url
    assert not holds_secret(repr(answer.headers.raw).encode()), answer.url


def test_no_get_of_the_whole_api_tells_a_secret(http: httpx.Client) -> None:
    seen = 0
    for _, path in operations(http, "get"):
        for query in ("", f"?{ASKING}"):
            _holds_nothing(http.get(f"{path}{query}", headers={"accept": "application/json"}))
            seen += 1
    assert seen > 40


def test_a_listed_key_is_known_by_its_last_letters_alone(http: httpx.Client, secret: str) -> None:
    listed = http.get("/api-keys").json()
    key = next(key for key in listed["keys"] if key["service_name"] == "openai")
    assert key["hint"].endswith(secret[-4:])
    assert secret[-8:] not in json.dumps(listed)  # fewer digits would be in some id by chance
    assert "openai" in listed["configured_services"]
    assert not {"api_key", "token", "secret", "fingerprint", "data_key"} & key.keys()


def test_there_is_no_address_of_a_single_key(http: httpx.Client) -> None:
    key = http.get("/api-keys").json()["keys"][0]
    for name in ("openai", key["id"], "openai/default", "openai/secret", "openai/reveal", "openai/export"):
        for method in ("GET", "HEAD"):
            answer = http.request(method, f"/api-keys/{name}?{ASKING}")
            assert answer.status_code in {404, 405}, name
            _holds_nothing(answer)


def test_answers_to_changes_and_tests_tell_no_secret(http: httpx.Client) -> None:
    second = new_secret("sk-proj-")
    _holds_nothing(http.post("/api-keys", json={"service_name": "openai", "api_key": second, "label": "other"}))
    twice = http.post("/api-keys", json={"service_name": "openai", "api_key": second, "label": "third"})
    assert (twice.status_code, twice.json()["code"]) == (409, "api_key_exists")
    _holds_nothing(twice)
    _holds_nothing(http.patch("/api-keys/openai?label=other", json={"label": "renamed"}))
    _holds_nothing(http.post("/api-keys/own/test"))  # nothing listens there
    given = http.post("/api-keys/own/test", json={"api_key": new_secret(), "base_url": "http://127.0.0.1:9/v1"})
    _holds_nothing(given)
    assert (given.status_code, given.json()["success"], given.json()["result"]) == (200, False, "unreachable")
    _holds_nothing(http.delete("/api-keys/openai?label=renamed"))
    _holds_nothing(http.get("/api-keys?revoked=true"))


def test_pages_of_keys_are_kept_by_nobody(http: httpx.Client) -> None:
    assert http.get("/api-keys").headers["cache-control"] == "no-store"
