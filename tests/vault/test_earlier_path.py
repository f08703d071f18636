"""``from ai_lab.api_keys import api_key_manager``, as programs for the earlier AI-Lab say."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ai_lab.api_keys import api_key_manager
from ai_lab.conversation_db import DatabaseManager
from ai_lab.errors import ApiKeyRefused, InvalidRequest, ServiceNotFound
from tests.fakes.key_service import KeyService
from tests.security.canary import new_secret


@pytest.fixture(autouse=True)
def _installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AI_LAB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("AI_LAB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("AI_LAB_ALLOWED_ADDRESSES", "127.0.0.1")
    monkeypatch.setenv("OLLAMA_HOST", "http://127.0.0.1:9")


def test_a_key_is_stored_read_listed_and_removed_over_several_event_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    manager, secret, other = api_key_manager, new_secret(), new_secret()
    assert asyncio.run(manager.store_api_key("openai", secret)) is True
    assert asyncio.run(manager.get_api_key("OpenAI")) == secret
    assert asyncio.run(manager.store_api_key("mine", other, "http://127.0.0.1:9/v1")) is True
    assert asyncio.run(manager.get_api_key("mine")) == other
    assert asyncio.run(manager.list_configured_services()) == ["mine", "openai"]
    assert asyncio.run(manager.remove_api_key("openai")) is True
    assert asyncio.run(manager.remove_api_key("openai")) is False
    assert asyncio.run(manager.get_api_key("openai")) is None
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    assert asyncio.run(manager.get_api_key("openai")) == secret


async def test_the_database_object_has_the_same_vault() -> None:
    database, secret = DatabaseManager(), new_secret("hf_")
    await database.store_api_key("huggingface", secret)
    assert await database.get_api_key("huggingface") == secret
    assert await database.list_api_keys() == ["huggingface"]
    assert await api_key_manager.get_api_key("huggingface") == secret
    assert await database.get_api_key("cohere") is None


async def test_a_key_is_judged_and_tested_without_being_stored() -> None:
    assert api_key_manager.get_supported_services()["anthropic"] == "Anthropic"
    assert await api_key_manager.validate_api_key_format("openai", new_secret())
    assert not await api_key_manager.validate_api_key_format("openai", new_secret("sk-ant-"))
    secret = new_secret()
    async with KeyService("custom", secret) as service:
        await api_key_manager.store_api_key("mine", new_secret(), service.base_url)
        told = await api_key_manager.test_api_key("mine", secret)
        assert (told["service"], told["valid"], told["error"]) == ("mine", True, None)
        told = await api_key_manager.test_api_key("mine", new_secret())
        assert (told["valid"], "CANARY" in str(told)) == (False, False)


@pytest.mark.parametrize(
    ("service", "key", "kind"),
    [
        ("openai", "", ApiKeyRefused),
        ("openai", new_secret("sk-ant-"), ApiKeyRefused),
        ("nobody", new_secret(), ServiceNotFound),
        ("../nobody", new_secret(), InvalidRequest),
    ],
    ids=range(4),
)
async def test_a_failure_is_an_error_with_the_remedy_and_without_the_key(
    service: str, key: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind) as caught:
        await api_key_manager.store_api_key(service, key)
    assert "CANARY" not in str(caught.value)
