"""A server that other machines reach wants a token for all it has, in every spelling and by every way."""

from __future__ import annotations

import asyncio
import re
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ai_lab.access import cookie_for, is_token_required, tokens_of
from ai_lab.client import AsyncLabClient
from ai_lab.errors import Forbidden, TokenUnusable, Unauthorized
from ai_lab.settings import Settings
from backend.access import METRICS_PATHS, OPEN_PATHS
from backend.failed_tokens import FailedTokens
from tests.security.operations import operations
from tests.server import ServerProcess, run_main

TOKEN = f"CANARY{secrets.token_hex(16)}"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what is tested


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Give a server that listens everywhere, behind a trusted proxy on this machine."""
    settings = {
        "API_HOST": EVERYWHERE,
        "AI_LAB_TOKEN": TOKEN,
        "AI_LAB_TRUSTED_PROXIES": "127.0.0.1",
        "AI_LAB_RATE_LIMITS": "false",
        "AI_LAB_DEFAULT_MODEL": "echo/echo",
    }
    with ServerProcess(tmp_path_factory.mktemp("guarded") / "data", settings) as server:
        yield server


@pytest.fixture
def stranger(guarded: ServerProcess) -> Iterator[httpx.Client]:
    """Give a client without a token."""
    with httpx.Client(base_url=guarded.url, timeout=60) as client:
        yield client


@pytest.fixture
def admin(guarded: ServerProcess) -> Iterator[httpx.Client]:
    """Give a client with the token."""
    with httpx.Client(base_url=guarded.url, headers={"authorization": f"Bearer {TOKEN}"}, timeout=60) as client:
        yield client


@pytest.fixture
def metrics_token(guarded: ServerProcess) -> str:
    """Give the token that may read metrics; the server has made it."""
    return (guarded.data_dir / ".config" / "ai-lab" / "metrics-token").read_text(encoding="ascii").strip()


def test_without_a_token_nothing_is_told(stranger: httpx.Client, admin: httpx.Client) -> None:
    described = list(operations(admin, "get", "post", "put", "patch", "delete"))
    assert len(described) > 30
    more = [
        ("get", path)
        for path in ("/docs", "/openapi.json", "/none", "/docs/assets/swagger-ui.css", "//", "/health/live/")
    ]
    more += [(method, path) for method in ("head", "options", "trace", "propfind") for path in ("/", "/chat", "/none")]
    for method, path in described + more:
        if path in OPEN_PATHS:
            continue
        answer = stranger.request(method, path)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="AI Lab"'), (
            method,
            path,
        )
        if method != "head":
            code = answer.json()["error"]["code"] if path.startswith("/v1/") else answer.json()["code"]
            assert code == "unauthorized"
        assert admin.request(method, path, follow_redirects=False).status_code != 401 or path == "/login"


def test_what_is_open_tells_nothing(stranger: httpx.Client) -> None:
    assert stranger.get("/health/live").json() == {"status": "alive"}
    assert set(stranger.get("/health/ready").json()) == {"status", "version", "uptime_seconds", "timestamp"}


def test_the_token_comes_by_each_header_and_never_by_the_address(stranger: httpx.Client) -> None:
    for headers in (
        {"authorization": f"Bearer {TOKEN}"},
        {"authorization": f"bearer  {TOKEN}"},
        {"x-api-key": TOKEN},
        {"authorization": "Basic dXNlcjpwYXNz", "x-api-key": TOKEN},
    ):
        assert stranger.get("/conversations", headers=headers).status_code == 200, headers
    for name in ("token", "access_token", "api_key", "key"):
        assert stranger.get("/conversations", params={name: TOKEN}).status_code == 401


#: No test is named by what is random: the workers of a run would not agree on its name.
WRONG = {
    "nothing": b"",
    "short": b"x",
    "sql": b"' OR 1=1--",
    "one less": TOKEN[:-1].encode(),
    "one more": TOKEN.encode() + b"x",
    "lower case": TOKEN.lower().encode(),
    "no text": b"\xff\xfe\x80",
    "utf-8": "Ω".encode(),
    "huge": b"A" * 60_000,
    "null": b"null",
    "percent": b"%00",
    "the cookie": cookie_for(TOKEN).encode(),
}


@pytest.mark.parametrize("shown", WRONG.values(), ids=WRONG.keys())
def test_anything_else_is_no_token(stranger: httpx.Client, shown: bytes) -> None:
    for name, value in ((b"authorization", b"Bearer" + b" " * bool(shown) + shown), (b"x-api-key", shown)):
        answer = stranger.get("/conversations", headers=[(name, value)])
        assert answer.status_code in {401, 431}
        assert TOKEN not in answer.text


def test_two_headers_are_held_to_the_first_rule(stranger: httpx.Client) -> None:
    good, bad = f"Bearer {TOKEN}", "Bearer wrong"
    assert stranger.get("/conversations", headers=[("authorization", good), ("authorization", bad)]).status_code == 401
    assert stranger.get("/conversations", headers={"authorization": bad, "x-api-key": TOKEN}).status_code == 401


def test_the_token_for_metrics_reads_metrics_alone(
    stranger: httpx.Client, admin: httpx.Client, metrics_token: str
) -> None:
    stranger.headers["authorization"] = f"Bearer {metrics_token}"
    for path in METRICS_PATHS:
        assert stranger.get(path).status_code in {200, 400, 422}, path
    for method, path in operations(admin, "get", "post", "put", "patch", "delete"):
        if method == "get" and path in METRICS_PATHS:
            continue
        answer = stranger.request(method, path)
        assert (answer.status_code, "forbidden" in answer.text) == (403, True), (method, path)
    assert stranger.get("/docs").status_code == 403
    assert stranger.post("/login", json={"token": metrics_token}).status_code == 403


#: What was spent, asked and answered, and what changes how requests go; by path and methods.
_OF_THE_GATEWAY = {
    "/cache": {"get", "delete"},
    "/cache/stats": {"get"},
    "/cache/{key}": {"delete"},
    "/costs/summary": {"get"},
    "/costs/export": {"get"},
    "/costs/reprice": {"post"},
    "/budgets": {"get", "post"},
    "/budgets/{budget_id}": {"get", "patch", "delete"},
    "/traces": {"get"},
    "/traces/{trace_id}": {"get"},
    "/traces/{trace_id}/replay": {"post"},
    "/gateway": {"get"},
    "/gateway/breakers": {"get"},
    "/v1/embeddings": {"post"},
}


def test_the_gateway_is_the_admins_alone(stranger: httpx.Client, admin: httpx.Client, metrics_token: str) -> None:
    described = admin.get("/openapi.json").json()["paths"]
    for path, methods in _OF_THE_GATEWAY.items():
        assert methods <= set(described[path]), f"the tests that go through all operations do not meet {path}"
        for method in methods:
            asked = path.replace("{", "").replace("}", "")
            assert stranger.request(method, asked).status_code == 401
            headers = {"authorization": f"Bearer {metrics_token}"}
            assert stranger.request(method, asked, headers=headers).status_code == 403
            headers = {"authorization": f"Bearer {TOKEN}", "origin": "https://evil.example"}
            expected = {401, 403} if method != "get" else {200, 404, 422}
            assert stranger.request(method, asked, headers=headers).status_code in expected, (method, path)
    assert any(path.startswith("/gateway/breakers/") and "delete" in found for path, found in described.items())


def test_a_browser_logs_in_and_out(stranger: httpx.Client) -> None:
    sent = stranger.get("/", headers={"accept": "text/html,*/*"})
    assert (sent.status_code, sent.headers["location"]) == (303, "/login")
    page = stranger.get("/login")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    for path in re.findall(r'(?:src|href)="(/[^"]+)"', page.text):
        assert stranger.get(path).status_code == 200
    assert stranger.post("/login", json={"token": "CANARYwrong"}).status_code == 401
    assert not stranger.cookies
    answer = stranger.post("/login", json={"token": TOKEN})
    assert answer.status_code == 204
    attributes = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")[1:]}
    assert attributes == {"httponly", "path=/", "samesite=strict"}
    assert TOKEN not in answer.headers["set-cookie"]
    assert stranger.get("/docs").status_code == 200
    assert stranger.get("/", headers={"accept": "text/html,*/*"}).headers["location"] == "/docs"
    foreign = {"origin": "https://evil.example"}
    assert stranger.post("/chat", json={"message": "x"}, headers=foreign).status_code == 403
    assert stranger.post("/logout").status_code == 204
    assert stranger.get("/docs").status_code == 401


def test_behind_a_trusted_proxy_with_tls_the_cookie_is_for_tls(stranger: httpx.Client) -> None:
    answer = stranger.post("/login", json={"token": TOKEN}, headers={"x-forwarded-proto": "https"})
    assert "secure" in answer.headers["set-cookie"].lower()


@pytest.mark.parametrize(
    "body", [{}, {"token": 1}, {"token": ["x"]}, {"token": "A" * 5000}, {"token": "Ω\x00"}, [], "x"]
)
def test_a_login_that_is_none_is_refused(stranger: httpx.Client, body: object) -> None:
    assert stranger.post("/login", json=body).status_code in {401, 422}
    assert stranger.post("/login", data={"token": TOKEN}).status_code == 415


def test_the_description_says_that_a_token_is_wanted(admin: httpx.Client, http: httpx.Client) -> None:
    described = admin.get("/openapi.json").json()
    assert described["security"] == [{"token": []}]
    assert described["components"]["securitySchemes"]["token"] == {"type": "http", "scheme": "bearer"}
    assert described["paths"]["/health/live"]["get"]["security"] == []
    assert "security" not in http.get("/openapi.json").json()


async def test_the_client_sends_its_token_and_says_what_is_wrong(guarded: ServerProcess, metrics_token: str) -> None:
    async with AsyncLabClient(guarded.url, TOKEN) as client:
        assert (await client.chat("hello")).response
    async with AsyncLabClient(guarded.url) as client:
        with pytest.raises(Unauthorized, match="ai-lab token"):
            await client.chat("hello")
    async with AsyncLabClient(guarded.url, metrics_token) as client:
        with pytest.raises(Forbidden):
            await client.chat("hello")


def test_another_start_on_its_port_recognises_it(guarded: ServerProcess, tmp_path: Path) -> None:
    ended = run_main(tmp_path / "data", "--port", str(guarded.port))
    assert ended.returncode == 2
    assert "AI Lab already runs at" in ended.stderr


def test_wrong_tokens_are_in_the_audit(stranger: httpx.Client, admin: httpx.Client) -> None:
    assert stranger.get("/conversations", headers={"x-api-key": "CANARYwrong"}).status_code == 401
    found = []
    for _ in range(50):
        found = [entry for entry in admin.get("/api-keys/audit").json()["data"] if entry["action"] == "auth_failed"]
        if found:
            break
        time.sleep(0.1)
    assert found[-1]["actor"] == "anonymous 127.0.0.1"
    assert found[-1]["details"]["attempts"] >= 1


def test_its_log_and_its_files_do_not_have_the_token(guarded: ServerProcess, stranger: httpx.Client) -> None:
    assert stranger.get("/conversations", headers={"x-api-key": "CANARYwrong"}).status_code == 401
    assert "wrong token" in guarded.log
    assert TOKEN not in guarded.log
    for file in guarded.data_dir.rglob("*"):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes()


def test_a_new_token_is_shown_once_and_kept_for_its_user_alone(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data", {"AI_LAB_REQUIRE_TOKEN": "1", "AI_LAB_DEFAULT_MODEL": "echo/echo"})
    folder = server.data_dir / ".config" / "ai-lab"
    with server:
        token = (folder / "token").read_text(encoding="ascii").strip()
        assert len(token) == 43
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for name in ("token", "metrics-token"):
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
        assert httpx.get(f"{server.url}/conversations", timeout=60).status_code == 401
        assert httpx.get(f"{server.url}/conversations", headers={"x-api-key": token}, timeout=60).status_code == 200
        wrong = [
            httpx.get(f"{server.url}/conversations", headers={"x-api-key": "CANARYwrong"}, timeout=60)
            for _ in range(40)
        ]
        assert {answer.status_code for answer in wrong} == {401, 429}
        assert wrong[-1].json()["code"] == "rate_limited"
        old = httpx.get(server.url, headers={"cookie": f"ai_lab_{server.port}=old", "accept": "text/html"}, timeout=60)
        assert (old.status_code, old.headers["location"]) == (303, "/login"), "an old cookie locks nobody out"
        assert 0 < int(wrong[-1].headers["retry-after"]) <= 60
        assert httpx.get(f"{server.url}/conversations", headers={"x-api-key": token}, timeout=60).status_code == 200
        assert server.stop() == 0
    assert server.log.count(token) == server.log.count(f"{server.url}/#token={token}") == 1
    assert str(folder / "token") in server.log
    again = tokens_of(Settings(require_token=True, config_dir=folder))
    assert again
    assert (again.scope_of(token), again.take_new()) == ("admin", None)
    (folder / "token").chmod(0o644)
    with pytest.raises(TokenUnusable, match=f"chmod 600 {folder / 'token'}"):
        tokens_of(Settings(require_token=True, config_dir=folder))


@pytest.mark.parametrize(
    ("host", "asked", "required"),
    [
        ("127.0.0.1", False, False),
        ("localhost", False, False),
        ("::1", False, False),
        ("127.0.0.1", True, True),
        (EVERYWHERE, False, True),
        ("::", False, True),
        ("192.168.0.5", False, True),
        ("lab.example.org", False, True),
        ("localhost.example.org", False, True),
    ],
)
def test_a_token_is_required_wherever_others_reach_the_server(host: str, *, asked: bool, required: bool) -> None:
    assert is_token_required(Settings(api_host=host, require_token=asked)) is required


def test_a_proxy_brings_others_to_loopback_too() -> None:
    assert is_token_required(Settings(api_host="127.0.0.1", trusted_proxies=("127.0.0.1",)))


async def test_wrong_tokens_are_noted_once_a_minute_for_each_address() -> None:
    notes: list[tuple[str, int]] = []

    async def note(address: str, attempts: int) -> None:
        notes.append((address, attempts))

    async def limit(address: str) -> float | None:
        return 7.0 if address == "blocked" else None

    failures = FailedTokens(limit, note, note_seconds=0.2)
    for _ in range(50):
        assert await failures.count("10.0.0.1") is None
    assert await failures.count("blocked") == 7.0
    await asyncio.sleep(0.05)
    assert notes == [("10.0.0.1", 50), ("blocked", 1)]
    for _ in range(9):
        await failures.count("10.0.0.1")
    for number in range(500):
        await failures.count(f"fd00::{number}")
    await failures.close()
    assert sum(attempts for _, attempts in notes) == 50 + 1 + 9 + 500
    assert len(notes) < 300
