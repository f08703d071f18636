"""A stored key goes to the server that it was entered for, and to no other: over real sockets, with the real vault."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.engine import make_url

from ai_lab.benchmarks.plan import Arm
from ai_lab.benchmarks.targets import resolve
from ai_lab.database import Database
from ai_lab.errors import ApiKeyUnusable, LabError, ProviderError
from ai_lab.providers import ChatRequest, Message, Providers
from ai_lab.providers.known_services import origin_of
from ai_lab.settings import Settings
from ai_lab.vault import Vault
from ai_lab.vault.schemas import KeyChange, NewKey
from ai_lab.vault.tables import vault_keys
from tests.fakes.http_server import json_reply
from tests.fakes.openai_server import CHAT, OpenAIServer
from tests.security.canary import new_secret

ASKED = ChatRequest("tiny", [Message("user", "hi")])


class Lab:
    """A vault and the providers that use its keys."""

    def __init__(self, vault: Vault, providers: Providers) -> None:
        self.vault = vault
        self.providers = providers

    async def store(self, server: OpenAIServer, name: str = "farm", **more: Any) -> str:
        secret = new_secret()
        key = NewKey.model_validate({"service_name": name, "api_key": secret, "base_url": server.base_url, **more})
        await self.vault.add(key, actor="test")
        return secret

    async def say(self, name: str = "farm/tiny") -> str:
        model = await self.providers.resolve(name)
        return "".join([chunk.text async for chunk in model.stream(ASKED)])

    async def use_all_ways(self, name: str = "farm") -> None:
        """Make every kind of request that carries the key; each may fail."""
        with suppress(LabError):
            await self.providers.list_models()
        with suppress(LabError):
            await self.say(f"{name}/tiny")
        with suppress(LabError):
            await (await self.providers.resolve(f"{name}/tiny")).embed(["text"])
        with suppress(LabError):
            await self.vault.test(name, None, None, actor="test")


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as running:
        yield running


@pytest.fixture
async def other() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as running:
        yield running


class Opening:
    """Opens labs on one database, as restarts would."""

    def __init__(self, stack: AsyncExitStack, database: Database, folder: Path) -> None:
        self._stack = stack
        self.database = database
        self._folder = folder

    async def lab(self, **servers: str) -> Lab:
        settings = Settings.model_validate(
            {
                "config_dir": self._folder / "config",
                "data_dir": self._folder,
                "ollama_host": "http://127.0.0.1:9",
                "allowed_addresses": "127.0.0.1",
                "servers": servers,
            }
        )
        vault = await Vault.open(settings, self.database)
        self._stack.push_async_callback(vault.close)
        providers = Providers(settings, secrets=vault)
        self._stack.push_async_callback(providers.close)
        return Lab(vault, providers)


@pytest.fixture
async def opening(database_url: str, tmp_path: Path) -> AsyncIterator[Opening]:
    async with AsyncExitStack() as stack:
        database = Database(make_url(database_url))
        stack.push_async_callback(database.close)
        yield Opening(stack, database, tmp_path)


async def test_a_key_does_not_follow_a_changed_address(
    opening: Opening, server: OpenAIServer, other: OpenAIServer
) -> None:
    lab = await opening.lab()
    secret = await lab.store(server)
    assert await lab.say() == "Hello, world"
    assert server.received(CHAT)[0].headers["authorization"] == f"Bearer {secret}"

    changed = await lab.vault.change("farm", None, KeyChange(base_url=other.base_url), actor="test")
    assert changed.state == "needs_reentry"
    await lab.use_all_ways()
    with pytest.raises(ApiKeyUnusable):
        await lab.say()
    assert other.requests == []

    again = await lab.store(other)
    await lab.say()
    assert other.received(CHAT)[0].headers["authorization"] == f"Bearer {again}"


async def test_a_key_does_not_follow_an_address_that_was_changed_in_the_database(
    opening: Opening, server: OpenAIServer, other: OpenAIServer
) -> None:
    await (await opening.lab()).store(server)
    moved = update(vault_keys).values(base_url=other.base_url, base_origin=origin_of(other.base_url))
    async with opening.database.transaction() as db:
        await db.execute(moved)
    lab = await opening.lab()
    await lab.use_all_ways()
    with pytest.raises(ApiKeyUnusable):
        await lab.say()
    assert other.requests == []


async def test_a_key_does_not_follow_a_server_that_the_settings_move(
    opening: Opening, server: OpenAIServer, other: OpenAIServer
) -> None:
    lab = await opening.lab(farm=server.base_url)
    secret = await lab.store(server)
    await lab.say()
    assert server.received(CHAT)[0].headers["authorization"] == f"Bearer {secret}"

    lab = await opening.lab(farm=other.base_url)
    await lab.use_all_ways()
    with pytest.raises(ApiKeyUnusable):
        await lab.say()
    assert other.requests == []


async def test_a_key_does_not_follow_a_redirect(opening: Opening, server: OpenAIServer, other: OpenAIServer) -> None:
    lab = await opening.lab()
    await lab.store(server)
    for status in (301, 302, 303, 307, 308):
        for path in (CHAT, "/v1/models", "/v1/embeddings"):
            server.script(path, json_reply({}, status, location=f"{other.origin}{path}"))
        await lab.use_all_ways()
        with pytest.raises(ProviderError, match="Redirects are not followed"):
            await lab.say()
    assert {"/v1/models", CHAT, "/v1/embeddings"} <= {request.path for request in server.requests}
    assert other.connection_count == 0


async def test_keys_stay_with_their_services(opening: Opening, server: OpenAIServer, other: OpenAIServer) -> None:
    lab = await opening.lab()
    keys = {one: await lab.store(at, name) for name, one, at in [("farm", server, server), ("barn", other, other)]}
    await lab.use_all_ways("farm")
    await lab.use_all_ways("barn")
    for one, secret in keys.items():
        sent = {request.headers.get("authorization") for request in one.requests} - {None}
        assert sent == {f"Bearer {secret}"}


async def test_a_server_that_repeats_the_key_does_not_make_it_known(opening: Opening, server: OpenAIServer) -> None:
    lab = await opening.lab()
    secret = await lab.store(server)
    server.script(CHAT, json_reply({"error": {"message": f"bad key {secret} ({secret[:12]}…{secret[-8:]})"}}, 401))
    with pytest.raises(LabError) as refused:
        await lab.say()
    assert "bad key" in refused.value.detail
    assert "CANARY" not in repr(refused.value)
    assert secret[-8:] not in refused.value.detail


async def test_a_benchmark_gets_the_key_of_its_provider_and_does_not_show_it(
    opening: Opening, server: OpenAIServer
) -> None:
    lab = await opening.lab()
    secret = await lab.store(server)
    address = await resolve(Arm(model="farm/tiny"), lab.providers)
    assert (address.base_url, address.is_own) == (server.base_url, False)
    assert address.api_key
    assert address.api_key.get_secret_value() == secret
    assert "CANARY" not in f"{address!r} {address.model_dump_json()}"


async def test_a_known_service_can_have_an_address_of_the_users(
    opening: Opening, server: OpenAIServer, other: OpenAIServer
) -> None:
    lab = await opening.lab()
    secret = await lab.store(server, "openai")
    assert await lab.say("openai/tiny") == "Hello, world"
    assert server.received(CHAT)[0].headers["authorization"] == f"Bearer {secret}"
    await lab.vault.change("openai", None, KeyChange(base_url=other.base_url), actor="test")
    await lab.use_all_ways("openai")
    assert other.requests == []
