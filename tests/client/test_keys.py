"""``client.keys`` of both clients against a real server that wants a token, and a service that knows one key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from ai_lab.client import AsyncLabClient, LabClient, key_calls
from ai_lab.client.keys import key_to_test, new_key
from ai_lab.errors import (
    AddressRefused,
    ApiKeyAmbiguous,
    ApiKeyRefused,
    InvalidRequest,
    NotFound,
    ServiceNotFound,
    Unauthorized,
)
from tests.fakes.key_service import KeyService
from tests.security.canary import new_secret
from tests.server import ServerProcess

TOKEN = new_secret("token-")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    settings = {"AI_LAB_TOKEN": TOKEN, "AI_LAB_REQUIRE_TOKEN": "1", "AI_LAB_ALLOWED_ADDRESSES": "127.0.0.1"}
    with ServerProcess(tmp_path_factory.mktemp("keys") / "data", settings=settings) as server:
        yield server


class Keys:
    """``client.keys`` of either client."""

    def __init__(self, kind: str, url: str) -> None:
        self._client: Any = LabClient(url, TOKEN) if kind == "sync" else AsyncLabClient(url, TOKEN)
        self._is_sync = kind == "sync"

    async def __call__(self, name: str, *arguments: Any, **options: Any) -> Any:
        method = getattr(self._client.keys, name)
        if self._is_sync:
            return await asyncio.to_thread(method, *arguments, **options)
        return await method(*arguments, **options)

    async def close(self) -> None:
        if self._is_sync:
            self._client.close()
        else:
            await self._client.close()


@pytest.fixture(params=["sync", "async"])
async def keys(request: pytest.FixtureRequest, server: ServerProcess) -> AsyncIterator[Keys]:
    keys = Keys(request.param, server.url)
    yield keys
    await keys.close()


async def test_a_key_from_its_first_day_to_its_last(keys: Keys, server: ServerProcess) -> None:
    secret, other = new_secret(), new_secret()
    async with KeyService("custom", secret) as service:
        stored = await keys("add", "mine", secret, base_url=service.base_url, details={"rate_limit": 7})
        assert (stored.success, stored.service_name, stored.key.label) == (True, "mine", "default")
        assert stored.key.details == {"rate_limit": 7}
        told = await keys("test", "mine")
        assert (told.success, told.result, told.label) == (True, "valid", "default")
        refused = await keys("test", "mine", other, base_url=service.base_url)
        assert (refused.success, refused.result) == (False, "invalid")
        await keys("add", "mine", other, label="spare", base_url=service.base_url)
        with pytest.raises(ApiKeyAmbiguous):
            await keys("remove", "mine")
        renamed = await keys("change", "mine", label="spare", new_label="second")
        assert renamed.key.label == "second"
        listed = await keys("list")
        assert [(key.label, key.state) for key in listed.keys if key.service_name == "mine"] == [
            ("default", "active"),
            ("second", "active"),
        ]
        assert "mine" in listed.configured_services
        assert "openai" in listed.supported_services
        moved = await keys("change", "mine", label="second", base_url="https://elsewhere.example/v1")
        assert moved.key.state == "needs_reentry"

    started = await keys("rotate")
    while (rotation := await keys("rotation")).status == "running":  # noqa: ASYNC110 - it ends in another process
        await asyncio.sleep(0.05)
    assert rotation.to_data_key == started.to_data_key
    assert (await keys("rekey")).root_key_source
    assert (await keys("status")).state == "open"

    for label in ("default", "second"):
        assert (await keys("remove", "mine", label=label)).key.state == "revoked"
    with pytest.raises(NotFound):
        await keys("remove", "mine", label="default")
    assert "mine" not in (await keys("list")).configured_services
    assert [key.state for key in (await keys("list", with_revoked=True)).keys if key.service_name == "mine"][:2] == [
        "revoked",
        "revoked",
    ]

    page = await keys("audit", limit=2)
    assert [entry.action for entry in page.data] == ["revoke", "revoke"]
    more = await keys("audit", limit=2, after=page.after)
    assert more.data[0].sequence == page.data[1].sequence - 1
    found = await keys("verify_audit", f"{page.data[0].sequence}:{page.data[0].mac}")
    assert found.is_intact
    assert "CANARY" not in server.log


async def test_what_is_wrong_is_an_error_of_ours_without_the_key(keys: Keys) -> None:
    wrong: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (ApiKeyRefused, "openai", {"api_key": new_secret("sk-ant-api03-")}),
        (ApiKeyRefused, "openai", {"api_key": f"{new_secret()}\n{new_secret()}"}),
        (ApiKeyRefused, "openai", {"api_key": new_secret(), "label": "x" * 100}),
        (AddressRefused, "mine", {"api_key": new_secret(), "base_url": "http://169.254.169.254/"}),
        (ServiceNotFound, "opnai", {"api_key": new_secret()}),
    ]
    for kind, service, fields in wrong:
        with pytest.raises(kind) as caught:
            await keys("add", service, **fields)
        assert "CANARY" not in str(caught.value)
        if isinstance(caught.value, ServiceNotFound):
            assert caught.value.near_matches[0] == "openai"
    with pytest.raises(InvalidRequest):
        await keys("test", "openai", base_url="https://elsewhere.example")


def test_a_call_does_not_show_what_it_sends() -> None:
    given = (
        key_calls.add(new_key("openai", new_secret())),
        key_calls.test("openai", None, key_to_test("CANARY", None)),
    )
    for call in given:
        assert "CANARY" in str(call.request())
        assert "CANARY" not in repr(call)


def test_the_token_is_given_or_found(server: ServerProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for token in (None, new_secret()):
        with LabClient(server.url, token) as client, pytest.raises(Unauthorized):
            client.keys.list()
    monkeypatch.setenv("AI_LAB_TOKEN", TOKEN)
    with LabClient(server.url) as client:
        assert client.keys.status().state == "open"
    monkeypatch.setenv("API_PORT", "not a port")  # settings that cannot be read
    with LabClient(server.url, TOKEN) as client:
        assert client.keys.status().state == "open"
    with LabClient(server.url) as client, pytest.raises(Unauthorized):
        client.keys.list()
    with pytest.raises(Unauthorized) as caught:
        LabClient(server.url, f"{TOKEN}\r\nx-more: 1")
    assert "CANARY" not in str(caught.value)
