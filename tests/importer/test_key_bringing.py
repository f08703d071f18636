"""What an import does to keys that are there already."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from ai_lab.cli.keys_door import OwnKeys
from ai_lab.errors import RateLimited, VaultSealed
from ai_lab.importer.keys import Found, Outcome, Row, bring_in
from ai_lab.settings import Settings
from ai_lab.vault.alone import opened_vault
from ai_lab.vault.schemas import KeyAnswer
from tests.security.canary import new_secret

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(database_url=database_url, config_dir=tmp_path / "config", ollama_host="http://127.0.0.1:9")


@pytest.fixture
async def keys(settings: Settings) -> AsyncIterator[OwnKeys]:
    async with opened_vault(settings) as vault:
        yield OwnKeys(vault)


def found(service: str = "openai", secret: str | None = None, base_url: str | None = None) -> Found:
    return Found("row 1", service, SecretStr(secret or new_secret("sk-proj-")), "ai-lab-db", base_url)


async def outcomes(keys: OwnKeys, *rows: Row) -> list[Outcome]:
    return [outcome async for outcome in bring_in(rows, keys)]


async def test_a_key_that_is_in_use_is_never_replaced(keys: OwnKeys) -> None:
    own = await keys.add("openai", new_secret("sk-proj-"))
    results = await outcomes(keys, found(), found(), found("nobody"), found("openai", new_secret("sk-ant-")))
    assert [(one.result, one.label) for one in results] == [
        ("stored", "ai-lab-db"),
        ("stored", "ai-lab-db 2"),
        ("refused", None),
        ("refused", None),
    ]
    assert "Anthropic" in results[3].said[0]
    first, *_ = (await keys.list()).keys
    assert own.key
    assert (first.label, first.hint, first.version) == ("default", own.key.hint, 1)


async def test_a_key_does_not_get_the_address_of_the_one_in_whose_place_it_comes(keys: OwnKeys) -> None:
    await keys.add("openai", new_secret("sk-proj-"))
    await keys.change("openai", base_url="https://attacker.example/v1")
    (result,) = await outcomes(keys, found())
    assert (result.result, result.label) == ("stored", "ai-lab-db")
    moved, stored = (await keys.list()).keys
    assert (moved.state, stored.base_url) == ("needs_reentry", "https://api.openai.com/v1")


async def test_after_a_lost_root_key_an_import_brings_keys_back(settings: Settings, tmp_path: Path) -> None:
    async with opened_vault(settings) as vault:
        await OwnKeys(vault).add("openai", new_secret("sk-proj-"), base_url="https://gateway.example/v1")
    (tmp_path / "config" / "master.key").unlink()
    async with opened_vault(settings) as vault:
        keys = OwnKeys(vault)
        with pytest.raises(VaultSealed):
            await outcomes(keys, found())
        await keys.reset()
        (result,) = await outcomes(keys, found())
        assert (result.result, result.label) == ("stored", "default")
        (key,) = (await keys.list()).keys
        assert (key.state, key.base_url) == ("active", "https://api.openai.com/v1")


class Limited(OwnKeys):
    """A server that takes one key at a time."""

    refusals = 2

    async def add(self, *arguments: object, **options: object) -> KeyAnswer:
        if self.refusals:
            self.refusals -= 1
            raise RateLimited("Too many.", retry_after_seconds=0.01)
        return await super().add(*arguments, **options)  # type: ignore[arg-type]  # as they came


async def test_a_rate_limit_is_waited_for(settings: Settings) -> None:
    async with opened_vault(settings) as vault:
        (result,) = await outcomes(Limited(vault), found())
    assert result.result == "stored"
