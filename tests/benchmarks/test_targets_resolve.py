"""What an arm means, and which runs may not overlap."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ai_lab.benchmarks.job import settings_for_child, settings_in_child
from ai_lab.benchmarks.plan import Arm, EngineOptions
from ai_lab.benchmarks.targets import Address, open_target, resolve, target_key
from ai_lab.errors import AddressRefused, InvalidRequest, ModelNotFound
from ai_lab.providers import Providers
from ai_lab.settings import Settings
from tests.embedded_engine import SHIPPED
from tests.fakes.ollama_server import OllamaServer
from tests.fakes.openai_server import OpenAIServer

KEY = "sk-test-0123456789abcdef"


@pytest.fixture
async def known(tmp_path: Path) -> AsyncIterator[tuple[Settings, Providers]]:
    """Give a lab with an Ollama and a server called farm."""
    async with OllamaServer() as ollama, OpenAIServer() as farm:
        servers = {"farm": {"base_url": farm.base_url + "/", "api_key": KEY}}
        host = ollama.origin.removeprefix("http://")
        settings = Settings(data_dir=tmp_path, ollama_host=host, servers=servers)
        providers = Providers(settings)
        yield settings, providers
        await providers.close()


async def test_models_of_providers_are_found_where_they_are(known: tuple[Settings, Providers]) -> None:
    settings, providers = known

    async def found(**arm: Any) -> Address:
        return await resolve(Arm(**arm), providers)

    ollama = await found(model="ollama/TINY", endpoint="generate")
    assert ollama == Address(
        protocol="ollama", model="tiny", base_url=f"http://{settings.ollama_host}", endpoint="generate"
    )
    farm = await found(model="farm/tiny")
    assert (farm.protocol, farm.model, farm.base_url) == ("openai", "tiny", settings.servers["farm"].base_url)
    assert farm.base_url is not None
    assert not farm.base_url.endswith("/")
    assert farm.api_key == settings.servers["farm"].api_key
    options = EngineOptions(threads=1)
    assert await found(model=f"embedded/{SHIPPED}", engine=options) == Address(
        protocol="engine", model=SHIPPED, engine=options
    )
    assert (await found()).model == SHIPPED
    assert await found(model="echo") == Address(protocol="provider", provider="echo", model="echo")
    url = await found(url="http://gpu.lab:8000/v1", model="big", api_key=KEY)
    assert (url.protocol, url.base_url, url.model) == ("auto", "http://gpu.lab:8000/v1", "big")


async def test_what_cannot_be_is_told(known: tuple[Settings, Providers]) -> None:
    _, providers = known
    with pytest.raises(ModelNotFound, match="Did you mean"):
        await resolve(Arm(model="ollama/tinny"), providers)
    with pytest.raises(InvalidRequest, match="engine options are for embedded models"):
        await resolve(Arm(model="echo", engine=EngineOptions(threads=1)), providers)


@pytest.mark.parametrize("host", ["169.254.169.254", "2852039166", "[::ffff:169.254.169.254]:80"])
async def test_clouds_own_addresses_are_no_targets(known: tuple[Settings, Providers], host: str) -> None:
    with pytest.raises(AddressRefused):
        await resolve(Arm(url=f"http://{host}/v1", model="m"), known[1])


async def test_services_of_stored_keys_are_measured_where_they_may_be() -> None:
    async with OpenAIServer() as server:
        address = Address(protocol="openai", model="tiny", base_url=server.base_url, api_key=KEY, is_own=False)

        async def opened(**settings: Any) -> None:
            told = settings_in_child(settings_for_child(Settings(**settings)))
            target = await open_target(address, Arm(model="farm/tiny"), timeout_seconds=5, settings=told)
            await target.close()

        with pytest.raises(AddressRefused, match="AI_LAB_ALLOWED_ADDRESSES"):
            await opened()
        assert server.connection_count == 0
        await opened(allowed_addresses="127.0.0.0/8")
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_the_measuring_process_is_told_no_secret() -> None:
    secret = "CANARY-of-settings"
    settings = Settings(
        database_url=f"postgresql+asyncpg://u:{secret}@h/d",
        encryption_key=secret,
        encryption_key_previous=secret,
        token=secret,
        redis_url=f"redis://:{secret}@h",
        servers={"farm": {"base_url": "http://h/v1", "api_key": secret}},
    )
    told = json.dumps(settings_for_child(settings))
    assert "CANARY" not in told
    assert "*****" not in told  # what stands there for a secret would be taken for one


def test_an_address_goes_through_a_pipe_and_shows_no_key() -> None:
    address = Address(protocol="openai", model="m", base_url="http://h/v1", api_key=KEY)
    there = Address.from_dict(json.loads(json.dumps(address.to_dict())))
    assert there == address
    assert there.api_key
    assert there.api_key.get_secret_value() == KEY
    assert KEY not in f"{address!r} {address} {address.model_dump_json()}"
    engine = Address(protocol="engine", model="m", engine=EngineOptions(threads=3))
    assert Address.from_dict(engine.to_dict()) == engine


@pytest.mark.parametrize(
    "url",
    [
        None,
        "http://127.0.0.1:11434",
        "http://localhost:8080/v1",
        "http://[::1]:80",
        "http://0.0.0.0:1",
        f"http://{socket.gethostname()}:9",
    ],
)
def test_all_that_is_on_this_machine_is_one_target(url: str | None) -> None:
    address = Address(protocol="openai", model="m", base_url=url)
    assert target_key(address) == f"host:{socket.gethostname()}"
    assert address.is_local


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://gpu.lab.invalid:8000/v1", "http://gpu.lab.invalid:8000"),
        ("http://user:secret@GPU.lab.invalid/v1", "http://gpu.lab.invalid:80"),
        ("https://api.invalid/openai/v1", "https://api.invalid:443"),
    ],
)
def test_a_server_elsewhere_is_a_target_of_its_own(url: str, key: str) -> None:
    address = Address(protocol="openai", model="m", base_url=url)
    assert target_key(address) == key
    assert not address.is_local


def test_the_server_process_loads_neither_client_nor_numbers() -> None:
    program = (
        "import sys, ai_lab.benchmarks.targets; "
        "print([name for name in ('aiohttp', 'numpy', 'scipy', 'xllamacpp', 'ollama') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
