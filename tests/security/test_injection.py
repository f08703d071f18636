"""Texts that are code elsewhere (SQL, full-text search, paths) are texts here."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.server import ServerProcess

SQL = (
    "' OR '1'='1",
    '" OR 1=1 --',
    "x'; DROP TABLE messages; --",
    "') UNION SELECT sql FROM sqlite_master --",
    "%' ESCAPE '\\",
    "\\x27; SELECT pg_sleep(5)--",
    "{{7*7}}${7*7}",
    "%s%n:name;?1",
)
SEARCHES = (
    *SQL,
    'NEAR("a" "b", 1',
    "NEAR(",
    "*",
    "a*b*",
    '"',
    '"unbalanced',
    "col:umn",
    "content : x",
    "^x",
    "- - -",
    "a AND OR NOT",
    "(((",
    "a" * 1000,
    "\u202e\u0000x"[:1],
    "🔑 ' OR",
)
PATHS = (
    "../../etc/passwd",
    "..\\..\\windows\\win.ini",
    "/etc/passwd",
    "....//....//etc/passwd",
    "%2e%2e%2fetc%2fpasswd",
    "..;/..;/etc/passwd",
    "CON",
    "nul.txt",
    "file:///etc/passwd",
    "~root/.ssh/id_rsa",
    "a" * 300,
    "x\0.json",
    ".",
    "..",
)


@pytest.fixture(scope="module", autouse=True)
def _nothing_appears_beside_the_data(attacked: ServerProcess, lab_folder: Path) -> object:
    before = {path.name for path in lab_folder.iterdir()}
    yield
    assert {path.name for path in lab_folder.iterdir()} == before
    assert "status=500" not in attacked.log


@pytest.mark.parametrize("text", SEARCHES)
def test_a_search_for_code_is_a_search(http: httpx.Client, text: str) -> None:
    answer = http.get("/conversations", params={"query": text})
    assert answer.status_code in {200, 422}, answer.text
    assert "sqlite" not in answer.text.lower()


@pytest.mark.parametrize("text", SQL)
def test_code_in_the_place_of_a_name_is_a_name(http: httpx.Client, text: str) -> None:
    in_path = quote(text, safe="")
    requests = [
        ("GET", f"/conversations/{in_path}", {}),
        ("GET", f"/conversations/{in_path}/messages", {"after": text}),
        ("GET", f"/agents/{in_path}/states", {"after": text}),
        ("GET", f"/benchmarks/{in_path}", {}),
        ("GET", "/benchmarks", {"after": text}),
        ("GET", "/metrics/history", {"metric": text, "from": text, "step": text}),
        ("GET", "/performance/summary", {"hours": text}),
        ("GET", "/api-keys/audit", {"after": text, "limit": text}),
        ("GET", "/api-keys/audit/verify", {"anchor": text}),
        ("DELETE", f"/api-keys/{in_path}", {"label": text}),
        ("DELETE", "/api-keys/openai", {"label": text}),
        ("GET", f"/v1/models/{in_path}", {}),
    ]
    for method, path, query in requests:
        answer = http.request(method, path, params=query)
        assert 400 <= answer.status_code < 500, (method, path, answer.text)
    answer = http.put(f"/agents/{in_path}/state", json={"message": text, "status": text, "data": {text: text}})
    assert answer.status_code in {200, 404, 422}, answer.text


def test_what_looks_like_code_is_kept_as_it_is(http: httpx.Client) -> None:
    text = "'; DROP TABLE messages; -- \" $$ \\ %00 {{x}}"
    created = http.post("/conversations", json={"title": text}).raise_for_status().json()
    path = f"/conversations/{created['session_id']}"
    http.post(f"{path}/messages", json={"role": "user", "content": text}).raise_for_status()
    assert http.get(path).json()["title"] == text
    assert [message["content"] for message in http.get(f"{path}/messages").json()["data"]] == [text]
    labelled = {"service_name": "openai", "api_key": "sk-proj-" + "k" * 40, "label": text}
    key = http.post("/api-keys", json=labelled).raise_for_status().json()["key"]
    assert key["label"] == text
    assert http.delete("/api-keys/openai", params={"label": text}).json()["key"]["id"] == key["id"]


@pytest.mark.parametrize("name", PATHS)
def test_a_path_in_the_place_of_a_name_reaches_no_file(attacked: ServerProcess, http: httpx.Client, name: str) -> None:
    # By hand: a client resolves dots before it sends them.
    in_path = quote(name, safe="/.%;~:\\")
    targets = [f"/{part}/{in_path}" for part in ("docs/assets", "benchmarks", "conversations", "export", "login")]
    targets += [f"/conversations/{in_path}/export", f"/benchmarks/{in_path}/report?format={quote(name)}", f"/{in_path}"]
    connection = http_client(attacked)
    for target in targets:
        connection.request("GET", target.replace("\0", "%00"))
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status < 500, target
        assert b"root:" not in body, target
    connection.close()
    for model in (f"embedded/{name}", name):
        said = http.post("/chat", json={"message": "hello", "model": model})
        assert 400 <= said.status_code < 500, said.text
    conversation = {"session_id": name, "title": name, "messages": [{"role": "user", "content": "x"}]}
    imported = http.post("/import/conversations", json=[conversation])
    assert imported.status_code in {200, 422}, imported.text


def test_a_file_to_download_has_a_plain_name(http: httpx.Client) -> None:
    name = 'a"; filename="b.html'
    answer = http.post("/import/conversations", json={"session_id": name, "messages": [{"role": "user", "content": 1}]})
    assert answer.status_code in {200, 422}
    http.post("/conversations", json={"session_id": "plain.name-1", "title": name}).raise_for_status()
    told = http.get("/conversations/plain.name-1/export").headers["content-disposition"]
    assert told == 'attachment; filename="conversation-plain_name-1.md"'


def test_hostile_json_is_reported_and_builds_no_objects(http: httpx.Client) -> None:
    hostile = '[{"__class__": "os.system", "__reduce__": ["id"], "py/object": "os.system", "messages": [NaN, 1e999]}]'
    deep = "[" * 200_000 + "]" * 200_000
    for text in (hostile, deep, '{"messages": ' + deep + "}"):
        answer = http.post("/import/conversations", content=text, headers={"content-type": "application/json"})
        assert answer.status_code in {200, 400, 422}, answer.text[:500]
        assert "uid=" not in answer.text
    assert http.get("/health/live").status_code == 200


def http_client(server: ServerProcess) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)


def test_details_of_a_key_are_data(http: httpx.Client) -> None:
    details = {"__class__": "os.system", "__proto__": {"admin": True}, "note": "!!python/object/apply:os.system [id]"}
    body = {"service_name": "openai", "label": "data", "api_key": "sk-proj-" + "d" * 40, "details": details}
    assert http.post("/api-keys", json=body).raise_for_status().json()["key"]["details"] == details
    assert http.delete("/api-keys/openai", params={"label": "data"}).status_code == 200
    assert json.loads(http.get("/api-keys").text)["supported_services"]
