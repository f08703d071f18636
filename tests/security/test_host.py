"""Only who names this server is answered: a page whose name was made to point here (DNS rebinding) is not."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from ai_lab.errors import InvalidSettings
from ai_lab.settings import Settings
from backend.access import address_of
from backend.names import Names, check_proxies
from tests.server import ServerProcess

FOREIGN = [
    "evil.example",
    "evil.example:8001",
    "localhost.evil.example",
    "127.0.0.1.nip.io",
    "127.0.0.1.evil.example:8001",
    "evil-localhost",
    "0.0.0.0",  # noqa: S104 - a page may call itself so, and it leads here
    "0.0.0.0:8001",
    "10.0.0.5:8001",
    "2130706433",
    "0x7f.1",
    "127.1",
    "[::]",
    "[::ffff:10.0.0.5]",
    "localhost:8001@evil.example",
    "localhost/evil.example",
    "localhost evil.example",
    "localhost, evil.example",
    "localhost:8001:1",
    "localhost:",
    "",
    "a" * 300,
]
OURS = ["localhost", "localhost:8001", "LocalHost:1", "localhost.:8001", "127.0.0.1:8001", "127.0.0.2", "[::1]:8001"]


@pytest.mark.parametrize("host", FOREIGN)
def test_another_name_is_refused(http: httpx.Client, host: str) -> None:
    for path in ("/health", "/health/live", "/", "/docs", "/openapi.json", "/none"):
        answer = http.get(path, headers={"host": host})
        assert (answer.status_code, answer.json()["code"]) == (403, "unknown_host"), answer.text
        assert "AI_LAB_ALLOWED_HOSTS" in answer.json()["detail"]


@pytest.mark.parametrize("host", OURS)
def test_our_own_names_are_answered(http: httpx.Client, host: str) -> None:
    assert http.get("/health/live", headers={"host": host}).status_code == 200


def test_another_name_changes_nothing_and_the_refusal_has_the_shape_of_its_path(http: httpx.Client) -> None:
    body = {"session_id": "from-evil", "title": "x"}
    assert http.post("/conversations", json=body, headers={"host": "evil.example"}).status_code == 403
    assert http.get("/conversations/from-evil").status_code == 404
    answer = http.get("/v1/models", headers={"host": "evil.example"})
    assert answer.json()["error"]["code"] == "unknown_host"
    assert answer.headers["x-request-id"]


def _answer_to(server: ServerProcess, lines: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(lines + b"\r\n\r\n")
        return connection.recv(65536)


def test_a_probe_without_a_host_is_answered_and_two_hosts_are_not(attacked: ServerProcess) -> None:
    assert b" 200 " in _answer_to(attacked, b"GET /health/live HTTP/1.0").splitlines()[0]
    two = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nHost: evil.example"
    assert _answer_to(attacked, two).splitlines()[0].split()[1] in {b"400", b"403"}
    absolute = b"GET http://evil.example/health/live HTTP/1.1\r\nHost: evil.example"
    assert b" 403 " in _answer_to(attacked, absolute).splitlines()[0]


@pytest.mark.parametrize("method", [b"GET", b"OPTIONS"])
def test_a_target_that_is_no_path_is_answered_and_logged(attacked: ServerProcess, method: bytes) -> None:
    assert b" 404 " in _answer_to(attacked, method + b" * HTTP/1.1\r\nHost: localhost").splitlines()[0]
    assert "IndexError" not in attacked.log


def test_a_web_socket_is_refused_as_well(attacked: ServerProcess) -> None:
    upgrade = (
        b"GET /none HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    )
    for headers in (b"\r\nHost: evil.example", b"\r\nHost: localhost\r\nOrigin: https://evil.example"):
        assert _answer_to(attacked, upgrade + headers).splitlines()[0].split()[1] in {b"403", b"404"}


def _names(host: str, *allowed: str) -> Names:
    return Names(Settings(api_host=host, allowed_hosts=allowed))


@pytest.mark.parametrize(
    "host", ["10.1.2.3:8001", "[2001:db8::1]", "lab.example.org:443", "LAB.example.org.", "localhost"]
)
def test_beyond_loopback_addresses_and_listed_names_are_ours(host: str) -> None:
    names = _names("0.0.0.0", "lab.example.org")  # noqa: S104 - the case that is tested
    assert names.know(host)
    assert names.know(socket.gethostname())
    assert not names.know("evil.example")
    assert not names.know("x.lab.example.org")


def test_on_loopback_listed_names_and_addresses_are_ours_too() -> None:
    names = _names("127.0.0.1", "lab.example.org", "10.0.0.5", "fd00::5")
    assert all(map(names.know, ["lab.example.org", "10.0.0.5:80", "[fd00:0::5]:8001"]))
    assert not any(map(names.know, ["10.0.0.6", "[fd00::6]", socket.gethostname() + ".evil.example"]))


@pytest.mark.parametrize("name", ["*", "*.example.org", "http://lab.example.org", "lab.example.org:8001", "a/b"])
def test_a_listed_name_is_a_name(name: str) -> None:
    with pytest.raises(InvalidSettings, match="AI_LAB_ALLOWED_HOSTS"):
        _names("127.0.0.1", name)


@pytest.mark.parametrize("proxy", ["*", "proxy.example", "10.0.0.1/8", "unix:"])
def test_a_trusted_proxy_is_an_address(proxy: str) -> None:
    with pytest.raises(InvalidSettings, match="AI_LAB_TRUSTED_PROXIES"):
        check_proxies(Settings(trusted_proxies=(proxy,)))


@pytest.mark.parametrize("peer", ["127.0.0.1", "::ffff:127.0.0.1", "10.9.9.9", "::ffff:10.9.9.9"])
async def test_a_trusted_proxy_is_known_on_a_socket_of_ipv6_too(peer: str) -> None:
    found = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        found.append(address_of(scope))

    proxies = check_proxies(Settings(trusted_proxies=("127.0.0.1", "10.0.0.0/8")))
    for said in (b"203.0.113.9", b"::ffff:203.0.113.9"):
        scope: Any = {"type": "http", "scheme": "http", "client": (peer, 1), "headers": [(b"x-forwarded-for", said)]}
        await ProxyHeadersMiddleware(app, proxies)(scope, None, None)  # type: ignore[arg-type]  # it has no body
    assert found == ["203.0.113.9"] * 2


def test_what_a_client_says_of_its_own_address_is_ignored(http: httpx.Client, attacked: ServerProcess) -> None:
    marker = "203.0.113.77"
    http.get(
        "/none", headers={"x-forwarded-for": marker, "x-forwarded-host": "evil.example", "forwarded": f"for={marker}"}
    )
    assert marker not in attacked.log
