"""Services that a stored key makes usable: they come and go with it, and are not asked without need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ai_lab.errors import (
    AddressRefused,
    ApiKeyNotFound,
    ApiKeyUnusable,
    LabError,
    ModelNotFound,
    ProviderAuthFailed,
    VaultSealed,
)
from ai_lab.providers import ChatRequest, Message, Providers
from ai_lab.providers.catalog import ADAPTERS
from ai_lab.providers.known_services import known_services
from ai_lab.settings import Settings
from tests.fakes.anthropic_server import AnthropicServer
from tests.fakes.azure_server import AzureServer
from tests.fakes.cohere_server import CohereServer
from tests.fakes.google_server import GoogleServer
from tests.fakes.http_server import FakeServer, Reply, json_reply
from tests.fakes.ollama_server import OllamaServer
from tests.fakes.openai_server import CHAT, OpenAIServer
from tests.providers.vault_in_memory import KeysInMemory

MODELS = "/v1/models"
#: Providers that are part of the lab.
INSIDE = {"echo", "embedded", "embedder"}
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
async def cloud() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as running:
        running.script(MODELS, json_reply({"data": [{"id": "big"}, {"id": "tiny"}]}))
        yield running


@pytest.fixture
def keys() -> KeysInMemory:
    return KeysInMemory()


@pytest.fixture
async def providers(tmp_path: Path, keys: KeysInMemory) -> AsyncIterator[Providers]:
    settings = Settings(
        data_dir=tmp_path, models_dir=tmp_path, ollama_host=NOWHERE, allowed_addresses="127.0.0.1, localhost"
    )
    made = Providers(settings, secrets=keys)
    yield made
    await made.close()


async def say(providers: Providers, name: str) -> str:
    model = await providers.resolve(name)
    request = ChatRequest(model.model, [Message("user", "hi")])
    return "".join([chunk.text async for chunk in model.stream(request)])


async def listed(providers: Providers) -> list[str]:
    return [one.full_name for one in await providers.list_models() if one.provider not in INSIDE]


def sent_keys(server: OpenAIServer) -> set[str | None]:
    return {request.headers.get("authorization") for request in server.requests}


async def test_a_custom_service_comes_and_goes_with_its_key(
    providers: Providers, keys: KeysInMemory, cloud: OpenAIServer
) -> None:
    assert await listed(providers) == []
    with pytest.raises(ModelNotFound):
        await providers.resolve("farm/big")

    secret = keys.add("farm", cloud.base_url)
    assert await listed(providers) == ["farm/big", "farm/tiny"]
    assert await say(providers, "farm/BIG") == "Hello, world"
    assert sent_keys(cloud) == {f"Bearer {secret}"}

    del keys.keys["farm"]
    assert await listed(providers) == []
    with pytest.raises(ModelNotFound):
        await providers.resolve("farm/big")
    assert "farm" not in await providers.checks(1)


async def test_a_new_key_is_used_from_the_next_request_on(
    providers: Providers, keys: KeysInMemory, cloud: OpenAIServer
) -> None:
    keys.add("farm", cloud.base_url)
    model = await providers.resolve("farm/big")
    second = keys.add("farm", cloud.base_url)
    cloud.requests.clear()
    _ = [chunk async for chunk in model.stream(ChatRequest("big", [Message("user", "hi")]))]
    assert sent_keys(cloud) == {f"Bearer {second}"}


@pytest.mark.parametrize("name", ["openai", "openrouter", "together", "huggingface"])
async def test_known_services_are_there_while_they_have_a_key(
    providers: Providers, keys: KeysInMemory, cloud: OpenAIServer, name: str
) -> None:
    with pytest.raises(ApiKeyNotFound, match=f"./ai-lab keys add {name}"):
        await providers.resolve(f"{name}/big")
    keys.add(name, cloud.base_url)
    assert await say(providers, f"{name}/big") == "Hello, world"
    del keys.keys[name]
    with pytest.raises(ApiKeyNotFound, match=f"./ai-lab keys add {name}"):
        await providers.resolve(f"{name}/big")


@pytest.mark.parametrize(
    ("name", "fake", "key_header"),
    [
        ("anthropic", AnthropicServer, "x-api-key: "),
        ("google", GoogleServer, "x-goog-api-key: "),
        ("azure", AzureServer, "api-key: "),
        ("cohere", CohereServer, "authorization: Bearer "),
    ],
)
async def test_services_with_a_format_of_their_own_are_there_while_they_have_a_key(
    providers: Providers, keys: KeysInMemory, name: str, fake: type[FakeServer], key_header: str
) -> None:
    with pytest.raises(ApiKeyNotFound, match=f"./ai-lab keys add {name}"):
        await providers.resolve(f"{name}/big")
    async with fake() as server:
        secret = keys.add(name, server.origin)
        assert await say(providers, f"{name}/big") == "Hello, world"
        header = key_header.partition(":")[0]
        assert {f"{header}: {request.headers[header]}" for request in server.requests} == {f"{key_header}{secret}"}
        assert all(secret not in request.path for request in server.requests)
        assert any(one.startswith(f"{name}/") for one in await listed(providers))
        del keys.keys[name]
        with pytest.raises(ApiKeyNotFound, match=f"./ai-lab keys add {name}"):
            await providers.resolve(f"{name}/big")


def test_every_known_service_has_an_adapter() -> None:
    assert {service.adapter for service in known_services().values()} == {*ADAPTERS, "ollama"}


async def test_options_have_the_names_of_the_service(
    providers: Providers, keys: KeysInMemory, cloud: OpenAIServer
) -> None:
    keys.add("openai", cloud.base_url)
    keys.add("farm", cloud.base_url)
    for name, field in (("openai", "max_completion_tokens"), ("farm", "max_tokens")):
        model = await providers.resolve(f"{name}/big")
        request = ChatRequest("big", [Message("user", "hi")], options={"max_tokens": 9})
        assert [chunk async for chunk in model.stream(request)]
        assert cloud.received(CHAT)[-1].json()[field] == 9


async def test_a_model_that_is_not_listed_is_asked_for_all_the_same(
    providers: Providers, keys: KeysInMemory, cloud: OpenAIServer
) -> None:
    keys.add("farm", cloud.base_url)
    model = await providers.resolve("farm/big:free")
    assert (model.model, model.is_listed) == ("big:free", False)


async def test_health_and_lists_do_not_use_keys_again_and_again(
    providers: Providers, keys: KeysInMemory, cloud: OpenAIServer
) -> None:
    keys.add("farm", cloud.base_url)
    keys.add("ollama", NOWHERE)
    for _ in range(3):
        assert (await providers.checks(1))["farm"].reachable
    assert (keys.asked, cloud.requests) == ([], [])
    for _ in range(3):
        await providers.list_models()
        await providers.resolve("farm/big")
    assert [request.path for request in cloud.requests] == [MODELS]
    assert (await providers.checks(1))["farm"].detail == "answered last time"

    keys.add("broken", f"{cloud.origin}/nothing")
    await providers.list_models()
    checks = await providers.checks(1)
    assert (checks["farm"].reachable, checks["broken"].reachable) == (True, False)


async def test_a_late_list_keeps_nobody_waiting_and_is_there_afterwards(
    providers: Providers, keys: KeysInMemory, cloud: OpenAIServer
) -> None:
    cloud.script(MODELS, Reply([1.2, b'{"data": [{"id": "late"}]}'], headers={"content-type": "application/json"}))
    keys.add("farm", cloud.base_url)
    assert await listed(providers) == []
    await asyncio.sleep(0.5)
    assert await listed(providers) == ["farm/late"]
    assert len(cloud.requests) == 1


async def test_a_name_alone_means_a_model_without_key_first(
    tmp_path: Path, keys: KeysInMemory, cloud: OpenAIServer
) -> None:
    keys.add("farm", cloud.base_url)
    async with OpenAIServer() as own:  # has "tiny" too
        servers: Any = {"own": own.base_url}
        settings = Settings(
            data_dir=tmp_path, models_dir=tmp_path, ollama_host=NOWHERE, servers=servers, allowed_addresses="127.0.0.1"
        )
        providers = Providers(settings, secrets=keys)
        assert (await providers.resolve("tiny")).full_name == "own/tiny"
        assert (keys.asked, cloud.requests) == ([], [])
        assert (await providers.resolve("big")).full_name == "farm/big"
        await providers.close()


async def test_servers_of_the_settings_get_a_stored_key_where_they_have_none(
    tmp_path: Path, keys: KeysInMemory, cloud: OpenAIServer
) -> None:
    secret = keys.add("farm", cloud.base_url)
    keys.configured |= {"farm", "own"}
    keys.add("own", cloud.base_url)
    servers: Any = {"farm": cloud.base_url, "own": {"base_url": cloud.base_url, "api_key": "sk-CANARY-of-settings"}}
    providers = Providers(Settings(data_dir=tmp_path, ollama_host=NOWHERE, servers=servers), secrets=keys)
    await say(providers, "farm/big")
    assert sent_keys(cloud) == {f"Bearer {secret}"}
    assert set(keys.asked) == {("farm", cloud.base_url)}
    cloud.requests.clear()
    await say(providers, "own/big")
    assert sent_keys(cloud) == {"Bearer sk-CANARY-of-settings"}
    await providers.close()


async def test_what_the_vault_says_reaches_whoever_asks(
    providers: Providers, keys: KeysInMemory, cloud: OpenAIServer
) -> None:
    keys.add("farm", cloud.base_url)
    keys.failure = VaultSealed("The vault is sealed. Give it its key.")
    assert await listed(providers) == []
    with pytest.raises(VaultSealed):
        await say(providers, "farm/big")
    assert cloud.requests == []


async def test_ones_own_ollama_works_whatever_the_vault_says(tmp_path: Path, keys: KeysInMemory) -> None:
    async with OllamaServer() as ollama:
        providers = Providers(Settings(data_dir=tmp_path, ollama_host=ollama.origin), secrets=keys)
        keys.add("ollama", "https://ollama.com")
        assert await say(providers, "ollama/tiny")
        keys.failure = VaultSealed("sealed")
        assert await say(providers, "ollama/tiny")
        assert all("authorization" not in request.headers for request in ollama.requests)
        keys.failure = None
        secret = keys.add("ollama", ollama.origin)
        assert await say(providers, "ollama/tiny")
        assert ollama.requests[-1].headers["authorization"] == f"Bearer {secret}"
        await providers.close()


async def test_a_service_in_a_private_network_must_be_allowed(
    tmp_path: Path, keys: KeysInMemory, cloud: OpenAIServer
) -> None:
    keys.add("farm", cloud.base_url)
    providers = Providers(Settings(data_dir=tmp_path, ollama_host=NOWHERE), secrets=keys)
    with pytest.raises(AddressRefused, match="AI_LAB_ALLOWED_ADDRESSES"):
        await say(providers, "farm/big")
    assert cloud.connection_count == 0
    await providers.close()


async def test_local_means_this_machine(providers: Providers, keys: KeysInMemory, cloud: OpenAIServer) -> None:
    for name, url, is_local in [
        ("here", cloud.base_url, True),
        ("name", cloud.base_url.replace("127.0.0.1", "localhost"), True),
        ("far", "https://api.example/v1", False),
    ]:
        keys.add(name, url)
        keys.failure = ApiKeyUnusable("not now")  # so that nothing is sent
        assert (await providers.resolve(f"{name}/big")).is_local is is_local


async def test_a_key_that_goes_while_its_service_answers_ends_the_answer(
    providers: Providers, keys: KeysInMemory, cloud: OpenAIServer
) -> None:
    cloud.script(CHAT, Reply(ending="hang"))
    keys.add("farm", cloud.base_url)
    asking = asyncio.create_task(say(providers, "farm/big"))
    request = await cloud.next_request()
    while request.path != CHAT:
        request = await cloud.next_request()
    del keys.keys["farm"]
    await providers.list_models()
    await asyncio.wait_for(request.disconnected.wait(), timeout=30)
    await asyncio.wait({asking}, timeout=30)
    assert isinstance(asking.exception(), LabError)


async def test_who_asks_again_a_service_whose_key_went_meanwhile_learns_it(
    providers: Providers, keys: KeysInMemory, cloud: OpenAIServer
) -> None:
    keys.add("farm", cloud.base_url)
    model = await providers.resolve("farm/big")
    del keys.keys["farm"]
    await providers.list_models()
    await asyncio.sleep(0)  # its connections are closed in the background
    cloud.requests.clear()
    with pytest.raises(ProviderAuthFailed, match="farm was removed"):
        _ = [chunk async for chunk in model.stream(ChatRequest("big", [Message("user", "hi")]))]
    assert cloud.requests == []


# -- lists of models, renewed in the background ----------------------------------------------------------------------


@pytest.fixture
async def renewing(tmp_path: Path, keys: KeysInMemory, cloud: OpenAIServer) -> AsyncIterator[Providers]:
    servers: Any = {name: f"{cloud.origin}/{name}/v1" for name in ("own", "unused")}
    settings = Settings(
        data_dir=tmp_path, models_dir=tmp_path, ollama_host=NOWHERE, servers=servers, allowed_addresses="127.0.0.1"
    )
    made = Providers(settings, secrets=keys, renew_seconds=0.05)
    yield made
    await made.close()


async def asked(server: OpenAIServer, path: str, times: int) -> None:
    async with asyncio.timeout(30):
        while len(server.received(path)) < times:
            await server.next_request()


async def test_lists_in_use_are_renewed_and_the_last_one_is_kept_where_that_fails(
    renewing: Providers, keys: KeysInMemory, cloud: OpenAIServer
) -> None:
    own = "/own/v1/models"
    cloud.script(own, json_reply({"data": [{"id": "a"}]}), json_reply({"data": [{"id": "b"}]}))
    keys.add("farm", cloud.base_url)
    await renewing.resolve("own/a")
    await renewing.resolve("farm/big")
    cloud.script(MODELS, json_reply({"error": "down"}, 503))

    await asked(cloud, own, 3)
    await asked(cloud, MODELS, 3)
    assert cloud.received("/unused/v1/models") == []

    found = {one.full_name: one.stale for one in await renewing.list_models() if one.provider in {"own", "farm"}}
    assert found == {"own/b": False, "farm/big": True, "farm/tiny": True}
    assert {request.method for request in cloud.requests} == {"GET"}

    del keys.keys["farm"]
    await renewing.list_models()
    asked_before = len(cloud.received(MODELS))
    await asked(cloud, own, len(cloud.received(own)) + 3)
    assert len(cloud.received(MODELS)) == asked_before


async def test_nothing_is_asked_before_anything_is_used_or_after_the_end(
    renewing: Providers, keys: KeysInMemory, cloud: OpenAIServer
) -> None:
    keys.add("farm", cloud.base_url)
    await asyncio.sleep(0.15)
    assert cloud.requests == []
    await renewing.resolve("farm/big")
    await asked(cloud, MODELS, 2)
    await renewing.close()
    asked_before = len(keys.asked)
    await asyncio.sleep(0.15)
    assert len(keys.asked) == asked_before
