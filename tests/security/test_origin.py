"""Web pages of other sites change nothing here, and read nothing either."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from ai_lab.errors import InvalidSettings
from ai_lab.settings import Settings
from backend.names import Names
from tests.lab_server import serve_lab
from tests.security.operations import operations
from tests.server import ServerProcess, run_main

CHANGING = ("post", "put", "patch", "delete")
FOREIGN = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://localhost"},
    {"origin": "http://127.0.0.1:1"},
    {"origin": "http://127.0.0.1.evil.example"},
    {"origin": "file://"},
    {"origin": ""},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "odd"},
]


def test_every_operation_that_changes_something_refuses_pages_of_others(http: httpx.Client) -> None:
    paths = list(operations(http, *CHANGING))
    assert len(paths) > 15
    for method, path in paths:
        for headers in FOREIGN:
            answer = http.request(method, path, headers=headers, json={})
            body = answer.json()
            code = body["error"]["code"] if path.startswith("/v1/") else body["code"]
            assert (answer.status_code, code) == (403, "foreign_origin"), (method, path, headers)


def test_every_operation_that_changes_something_refuses_foreign_hosts(http: httpx.Client) -> None:
    for method, path in operations(http, *CHANGING):
        answer = http.request(method, path, headers={"host": "evil.example"}, json={})
        assert answer.status_code == 403
        assert "unknown_host" in answer.text


@pytest.mark.parametrize(
    "headers",
    [{}, {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}, {"origin": "self"}],
    ids=["a program", "our page", "typed", "our page in an old browser"],
)
def test_programs_and_our_own_pages_are_let_in(
    http: httpx.Client, attacked: ServerProcess, headers: dict[str, str]
) -> None:
    if "origin" in headers:
        headers = {"origin": attacked.url}
    assert http.post("/chat", json={"message": "hello"}, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "text/json",
    ],
)
def test_a_body_that_is_not_declared_as_json_is_refused(http: httpx.Client, kind: str) -> None:
    body = b'{"session_id": "from-a-form", "title": "x"}'
    headers = {"content-type": kind} if kind else {}
    for content in (body, iter([body])):  # with its length, and in chunks
        answer = http.post("/conversations", content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type"), answer.text
    for method, path in operations(http, *CHANGING):
        assert http.request(method, path, content=body, headers=headers).status_code == 415, (method, path)
    assert http.get("/conversations/from-a-form").status_code == 404


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST"])
def test_other_sites_read_nothing(http: httpx.Client, method: str) -> None:
    headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    answer = http.request(method, "/conversations", headers=headers)
    assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_a_listed_page_may_use_the_api_without_cookies_and_others_may_not(tmp_path: Path) -> None:
    page = "https://lab.example.org"
    settings = Settings(data_dir=tmp_path / "data", cors_origins=(page,), ollama_host="http://127.0.0.1:9")
    async with serve_lab(settings) as lab, httpx.AsyncClient(base_url=lab.url, timeout=60) as client:
        asked = {
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type",
            "access-control-request-private-network": "true",  # Chromium asks so for a lab on this machine
        }
        before = await client.options("/conversations", headers={"origin": page, **asked})
        assert (before.status_code, before.headers["access-control-allow-origin"]) == (200, page)
        headers = {"origin": page, "sec-fetch-site": "cross-site"}
        answer = await client.post("/conversations", json={"title": "x"}, headers=headers)
        assert answer.status_code == 201
        assert answer.headers["access-control-allow-origin"] == page
        assert "access-control-allow-credentials" not in [*answer.headers, *before.headers]
        for other in ("https://evil.example", "https://lab.example.org.evil.example", "http://lab.example.org", "null"):
            refused = await client.post("/conversations", json={"title": "x"}, headers={"origin": other})
            assert refused.status_code == 403
            assert "access-control-allow-origin" not in refused.headers
            asking = await client.options("/conversations", headers={"origin": other, **asked})
            assert "access-control-allow-origin" not in asking.headers


@pytest.mark.parametrize(
    "origin", ["*", "lab.example.org", "https://lab.example.org/page", "null", "https://*.example.org"]
)
def test_a_listed_page_is_one_page(origin: str) -> None:
    with pytest.raises(InvalidSettings, match="AI_LAB_CORS_ORIGINS"):
        Names(Settings(cors_origins=(origin,)))


def test_the_server_does_not_start_for_every_page(tmp_path: Path) -> None:
    ended = run_main(tmp_path / "data", settings={"AI_LAB_CORS_ORIGINS": "*"})
    assert ended.returncode == 2
    assert "AI_LAB_CORS_ORIGINS" in ended.stderr
