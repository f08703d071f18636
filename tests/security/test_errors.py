"""An answer to a bad request says what was wrong with it, never what was in it; neither does the log."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.security.canary import new_secret
from tests.server import ServerProcess

#: S is the secret. Each is refused.
BODIES: dict[str, Any] = {
    "a field too many": {"service_name": "openai", "api_key": "S", "colour": "red"},
    "the secret in a wrong field": {"service_name": "openai", "apikey": "S"},
    "the secret as a field": {"service_name": "openai", "api_key": "sk-x", "S": 1},
    "the secret as a service": {"service_name": "S!", "api_key": "S"},
    "the secret as an unknown service": {"service_name": "S", "api_key": "S"},
    "no service": {"api_key": "S"},
    "too long": {"service_name": "openai", "api_key": "S" * 200},
    "not for a header": {"service_name": "openai", "api_key": "S\n\u2603S"},
    "two words": {"service_name": "openai", "api_key": "S S"},
    "of another service": {"service_name": "openai", "api_key": "sk-ant-api03-S"},
    "a list": {"service_name": "openai", "api_key": ["S"]},
    "an object": {"service_name": "openai", "api_key": {"S": "S"}},
    "the whole body a text": "S",
    "the whole body a list": [{"service_name": "openai", "api_key": "S"}],
    "a wrong label": {"service_name": "openai", "api_key": "S", "label": "S" * 3},
    "a label that is none": {"service_name": "openai", "api_key": "S", "label": {"S": 1}},
    "a wrong force": {"service_name": "openai", "api_key": "S", "force": "S"},
    "wrong details": {"service_name": "openai", "api_key": "S", "details": "S"},
    "an address with a password": {"service_name": "own", "api_key": "S", "base_url": "https://user:S@host.example/v1"},
    "an address that is none": {"service_name": "own", "api_key": "S", "base_url": "S"},
    "an address that is forbidden": {"service_name": "own", "api_key": "S", "base_url": "http://169.254.169.254/S"},
}


def _is_refused(answer: httpx.Response, secret: str) -> None:
    assert 400 <= answer.status_code < 500, answer.text
    assert secret not in answer.text
    assert secret not in str(answer.headers.raw)
    assert answer.json()["detail"]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_refused_key_is_not_repeated(http: httpx.Client, attacked: ServerProcess, body: Any) -> None:
    secret = new_secret()
    _is_refused(_post(http, json.dumps(body).replace("S", secret)), secret)
    assert secret not in attacked.log


def _post(http: httpx.Client, text: str, kind: str = "application/json", path: str = "/api-keys") -> httpx.Response:
    return http.post(path, content=text.encode(), headers={"content-type": kind})


def test_a_number_that_should_be_a_key_is_not_repeated(http: httpx.Client) -> None:
    answer = _post(http, '{"service_name": "openai", "api_key": 12345678901234567890}')
    assert answer.status_code == 422
    assert "12345678901234567890" not in answer.text


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"service_name": "openai", "api_key": "S"', "application/json"),
        ('{"service_name": "openai", "api_key": "S"}} trailing', "application/json"),
        ('{"service_name": "openai", "api_key": S}', "application/json"),
        ("service_name=openai&api_key=S", "application/x-www-form-urlencoded"),
        ('{"service_name": "openai", "api_key": "S"}', "text/plain"),
        ("<key>S</key>", "application/xml"),
        ('{"service_name": "openai", "api_key": "S"}', "application/json; charset=S"),
    ],
)
def test_a_body_that_cannot_be_read_is_not_repeated(
    http: httpx.Client, attacked: ServerProcess, text: str, kind: str
) -> None:
    secret = new_secret()
    answer = _post(http, text.replace("S", secret), kind.replace("S", "sk"))
    if "charset" not in kind:
        _is_refused(answer, secret)
    assert secret not in answer.text
    assert secret not in attacked.log


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api-keys/S/test"),
        ("DELETE", "/api-keys/S"),
        ("PATCH", "/api-keys/S"),
        ("GET", "/api-keys/S"),
        ("GET", "/S"),
        ("DELETE", "/api-keys/openai?label=S"),
        ("POST", "/api-keys/openai/test?label=S&api_key=S"),
        ("GET", "/api-keys/audit?after=S"),
        ("GET", "/api-keys/audit/verify?anchor=S"),
        ("GET", "/v1/models/S"),
    ],
)
def test_a_key_in_the_wrong_place_of_an_address_is_not_repeated(
    http: httpx.Client, attacked: ServerProcess, method: str, path: str
) -> None:
    secret = new_secret()
    body: dict[str, str] | None = {} if method in {"POST", "PATCH"} else None
    answer = http.request(method, path.replace("S", secret), json=body)
    assert 400 <= answer.status_code < 500, answer.text
    assert secret not in answer.text
    assert secret not in attacked.log


@pytest.mark.parametrize("path", ["/chat", "/v1/chat/completions", "/v1/embeddings", "/conversations", "/benchmarks"])
def test_a_key_sent_to_another_operation_is_not_repeated(
    http: httpx.Client, attacked: ServerProcess, path: str
) -> None:
    secret = new_secret()
    bodies: list[Any] = [{"api_key": secret, "message": 1, "model": [secret]}, [secret], {"title": {secret: secret}}]
    for body in bodies:
        answer = _post(http, json.dumps(body), path=path)
        assert 400 <= answer.status_code < 500, answer.text
        assert secret not in answer.text
    assert secret not in attacked.log
