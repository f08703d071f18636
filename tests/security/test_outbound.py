"""Where connections may go: however an address is written, whatever a name resolves to, and through proxies."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ai_lab.clock import now
from ai_lab.errors import AddressRefused, InvalidSettings
from ai_lab.providers.outbound import Outbound, place_of
from tests.fakes.http_server import json_reply
from tests.fakes.openai_server import OpenAIServer

NAME = "model.example"
NEVER = [
    "http://169.254.169.254/latest/meta-data",
    "http://169.254.170.2",
    "http://2852039166/",
    "http://0xa9fea9fe",
    "http://0251.0376.0251.0376",
    "http://169.254.43518",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:a9fe:a9fe]",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[64:ff9b:1::a9fe:a9fe]",
    "http://[2002:a9fe:a9fe::]",
    "http://[2001:0:a9fe:a9fe::1]",
    "http://[2001:0:808:808:0:0:5601:5601]",
    "http://[fe80::1]",
    "http://[fd00:ec2::254]",
    "http://[fd20:ce::254]",
    "http://100.100.100.200",
    "http://168.63.129.16",
    "http://192.0.0.192",
    "http://224.0.0.1",
    "http://[ff02::1]",
    "http://240.0.0.1",
    "http://255.255.255.255",
    "http://[::127.0.0.1]",
    "http://169.254.169.254.",
]
NOT_PLAIN = [
    "http://127.0.0.1\\@1.1.1.1",
    "http://1.1.1.1\\@127.0.0.1/",
    "http://user@1.1.1.1",
    "http://user:CANARYpassword@1.1.1.1",
    "http://1.1.1.1 /",
    "http://1.1.1.1\n",
    "http://1.1.1.1/\r\nX-Header: 1",
    "http://1.1.1.1\t",
    "http://1.1.1.1?a=b",
    "http://1.1.1.1#@127.0.0.1",
    "http://127.0.0.%31",
    "http://127。0。0。1",
    "http://①②⑦.0.0.1",
    "http://[fe80::1%25eth0]",
    "http://1.1.1.1:0",
    "http://1.1.1.1:65536",
    "http://",
    "http:///v1",
    "//1.1.1.1",
    "1.1.1.1",
    "file:///etc/passwd",
    "gopher://1.1.1.1",
    "ftp://1.1.1.1",
    "javascript:alert(1)",
    "",
    "http://" + "a" * 300,
]
PRIVATE = [
    "http://127.0.0.1:11434",
    "http://127.1",
    "http://0x7f.1",
    "http://2130706433",
    "http://017700000001",
    "http://localhost:1",
    "http://LOCALHOST.",
    "http://127.0.0.1.",
    "http://lab.localhost",
    "http://[::1]",
    "http://[::ffff:127.0.0.1]",
    "http://[2002:7f00:1::]",
    "http://[64:ff9b::7f00:1]",
    "http://0.0.0.0:1",
    "http://[::]",
    "http://10.0.0.5",
    "http://172.16.0.1",
    "http://192.168.0.1",
    "http://100.64.0.1",
    "http://[fd12:3456::1]",
    "http://[64:ff9b::a00:5]",
]
PUBLIC = ["https://api.openai.com/v1", "http://8.8.8.8:8080/v1", "https://[2606:4700::1111]/v1", "https://h_1.example"]


class Names:
    """A resolver that gives the next answer each time it is asked, and the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.left = list(answers)
        self.asked = 0

    async def __call__(self, _host: str, _port: int) -> Sequence[str]:
        self.asked += 1
        answer = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        if not answer:
            raise OSError("no such name")
        return answer


@contextlib.asynccontextmanager
async def counting(host: str, port: int) -> AsyncIterator[list[str]]:
    """Listen, and note each connection."""
    seen: list[str] = []

    async def note(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(host)
        writer.close()

    async with await asyncio.start_server(note, host, port):
        yield seen


async def get(outbound: Outbound, url: str, *, is_local: bool = False) -> httpx.Response:
    async with httpx.AsyncClient(transport=outbound.transport(url, is_local=is_local), timeout=5) as client:
        return await client.get(url)


@pytest.mark.parametrize("is_local", [False, True])
@pytest.mark.parametrize("url", NEVER + NOT_PLAIN)
def test_some_addresses_are_never_used(url: str, *, is_local: bool) -> None:
    with pytest.raises(AddressRefused) as refused:
        Outbound(["127.0.0.0/8", "10.0.0.0/8"]).check(url, is_local=is_local)
    assert "CANARY" not in refused.value.detail


@pytest.mark.parametrize("url", PRIVATE)
def test_private_addresses_are_for_what_is_the_users_own(url: str) -> None:
    with pytest.raises(AddressRefused, match="AI_LAB_ALLOWED_ADDRESSES"):
        Outbound().check(url)
    Outbound().check(url, is_local=True)


@pytest.mark.parametrize("url", PUBLIC)
def test_the_internet_is_open(url: str) -> None:
    Outbound().check(url)


def test_hosts_and_networks_can_be_allowed() -> None:
    outbound = Outbound(["10.0.0.0/8", "192.168.1.7", "GPU.lan", "[fd12::1]", "localhost"])
    for url in (
        "http://10.1.2.3",
        "http://[::ffff:10.1.2.3]",
        "http://192.168.1.7",
        "http://[fd12::1]:8",
        "http://localhost",
    ):
        outbound.check(url)
    for url in ("http://192.168.1.8", "http://[fd12::2]", "http://127.0.0.1"):
        with pytest.raises(AddressRefused):
            outbound.check(url)


@pytest.mark.parametrize("entry", ["http://gpu.lan", "gpu.lan:8080", "10.0.0.5/33", "a b", ""])
def test_what_is_neither_host_nor_network_is_told_at_the_start(entry: str) -> None:
    with pytest.raises(InvalidSettings, match="AI_LAB_ALLOWED_ADDRESSES"):
        Outbound([entry])


@pytest.mark.parametrize(
    ("found", "is_local", "used"),
    [
        (["8.8.8.8"], False, ["8.8.8.8"]),
        (["2606:4700::1111", "8.8.8.8"], False, ["8.8.8.8", "2606:4700::1111"]),
        (["8.8.8.8", "127.0.0.1", "::1", "10.0.0.1"], False, ["8.8.8.8"]),
        (["fe80::1%eth0", "192.168.0.9"], True, ["192.168.0.9"]),
        (["127.0.0.1"], False, None),
        (["169.254.169.254"], True, None),
        (["::ffff:169.254.169.254", "fd00:ec2::254"], True, None),
    ],
)
async def test_names_count_by_what_they_resolve_to(found: list[str], is_local: bool, used: list[str] | None) -> None:
    asked = Outbound(resolve=Names(found)).addresses(place_of(f"http://{NAME}"), is_local=is_local)
    if used is None:
        with pytest.raises(AddressRefused):
            await asked
    else:
        assert await asked == used


async def test_a_localhost_that_is_elsewhere_is_refused() -> None:
    outbound = Outbound(resolve=Names(["8.8.8.8"]))
    for url in ("http://localhost", "http://lab.localhost"):
        with pytest.raises(AddressRefused, match="hosts file"):
            await outbound.addresses(place_of(url), is_local=True)


async def test_the_address_that_was_vetted_is_the_one_connected_to() -> None:
    async with OpenAIServer() as server:
        port = int(server.origin.rpartition(":")[2])
        url = f"http://{NAME}:{port}/v1/models"
        async with counting("127.0.0.2", port) as trap:
            names = Names(["127.0.0.1"], ["127.0.0.2"])
            outbound = Outbound(["127.0.0.1"], resolve=names)
            async with httpx.AsyncClient(transport=outbound.transport(url), timeout=60) as client:
                assert (await client.get(url)).status_code == 200
                assert (await client.get(url, headers={"Connection": "close"})).status_code == 200
                assert (await client.get(url)).status_code == 200
            assert names.asked == 1
            with pytest.raises(AddressRefused):  # the name means something else now
                await get(outbound, url)
            both = Outbound(["127.0.0.1"], resolve=Names(["127.0.0.2", "127.0.0.1"]))
            assert (await get(both, url)).status_code == 200
            assert trap == []
        assert {request.headers["host"] for request in server.requests} == {f"{NAME}:{port}"}


async def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    async with OpenAIServer() as server:
        url = f"http://{NAME}:{server.origin.rpartition(':')[2]}/v1/models"
        names = Names(["127.0.0.9", "127.0.0.1"])
        assert (await get(Outbound(resolve=names), url, is_local=True)).status_code == 200


async def test_a_name_that_does_not_resolve_is_no_connection() -> None:
    with pytest.raises(httpx.ConnectError):
        await get(Outbound(resolve=Names([])), f"http://{NAME}")
    with pytest.raises(httpx.ConnectError):
        await get(Outbound(), "http://" + "a" * 64 + ".example")  # longer than a label may be


async def test_connections_serve_one_server_only() -> None:
    async with OpenAIServer() as one, OpenAIServer() as other:
        transport = Outbound().transport(one.base_url, is_local=True)
        async with httpx.AsyncClient(transport=transport, follow_redirects=True, timeout=60) as client:
            one.script("/v1/models", json_reply({}, 302, location=f"{other.base_url}/models"))
            with pytest.raises(AddressRefused):
                await client.get(f"{one.base_url}/models", headers={"Authorization": "Bearer CANARY-key"})
        assert other.connection_count == 0


async def test_a_proxy_is_trusted_but_not_what_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with OpenAIServer() as proxy:
        for name in ("no_proxy", "NO_PROXY", "https_proxy", "HTTPS_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", proxy.origin)
        url = f"http://{NAME}/v1/models"
        proxy.script(url, json_reply({"by": "proxy"}))

        assert (await get(Outbound(resolve=Names(["8.8.8.8"])), url)).json() == {"by": "proxy"}
        assert (await get(Outbound(resolve=Names([])), url)).json() == {"by": "proxy"}  # only the proxy knows the name
        for outbound in (Outbound(resolve=Names(["169.254.169.254"])), Outbound(resolve=Names(["127.0.0.1"]))):
            with pytest.raises(AddressRefused):
                await get(outbound, url)
        for refused in ("http://169.254.169.254/", "http://2852039166/"):
            with pytest.raises(AddressRefused):
                await get(Outbound(), refused, is_local=True)
        assert len(proxy.requests) == 2

        for mine in ("http://127.0.0.1:1", "http://localhost:1", "http://0.0.0.0:1"):
            with pytest.raises(httpx.ConnectError):  # what is on this machine is not asked of a proxy
                await get(Outbound(), mine, is_local=True)
        assert len(proxy.requests) == 2


async def test_certificates_are_checked_against_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _certificate(tmp_path / "inputs")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        outbound = Outbound(resolve=Names(["127.0.0.1"]))
        assert (await get(outbound, f"https://{NAME}:{port}/", is_local=True)).text == "ok"
        with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
            await get(outbound, f"https://other.example:{port}/", is_local=True)


def _certificate(folder: Path) -> Path:
    """Write a key and a certificate for the name, signed by itself."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now() - timedelta(days=1))
        .not_valid_after(now() + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    file = folder / "server.pem"
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(private + made.public_bytes(pem))
    return file
