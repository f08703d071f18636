"""What a key is bound to holds, whatever settings of a start, a writer to the tables, or two reads at once say."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import SecretStr
from sqlalchemy import text, update
from sqlalchemy.engine import make_url

from ai_lab.database import Database
from ai_lab.errors import ApiKeyUnusable, InvalidRequest, InvalidSettings, NotFound
from ai_lab.providers import Providers
from ai_lab.settings import ServerEntry, Settings
from ai_lab.vault.alone import stored_secret
from ai_lab.vault.schemas import KeyChange, KeyToTest, NewKey
from ai_lab.vault.tables import vault_keys, vault_state
from tests.fakes.key_service import KeyService
from tests.vault.conftest import ME, Intruder, OpenVault, actions, add_key, new_secret


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_an_address_that_is_changed_under_an_open_vault_gets_no_key(
    open_vault: OpenVault, intruder: Intruder
) -> None:
    secret = new_secret()
    async with KeyService("custom", secret) as own, KeyService("custom", secret) as other:
        vault = await open_vault(allowed_addresses=("127.0.0.1",))
        await add_key(vault, "mine", secret, base_url=own.base_url)
        await intruder.set("default", base_url=other.base_url)
        await intruder.execute(update(vault_state).values(generation=vault_state.c.generation + 1))
        await asyncio.sleep(1.05)  # by then the vault looks at the database again
        with pytest.raises(ApiKeyUnusable):
            await vault.test("mine", None, None, actor=ME)
        assert (own.requests, other.requests) == ([], [])
        assert [key.state for key in await vault.keys()] == ["tampered"]
        assert (await actions(vault))[-1] == ("test", "tampered", 1)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_start_with_other_settings_erases_nothing(open_vault: OpenVault) -> None:
    here, there = "http://127.0.0.1:9001/v1", "http://127.0.0.1:9002/v1"
    vault = await open_vault(servers={"box": ServerEntry(base_url=here)}, ollama_host="http://127.0.0.1:9003")
    secret = new_secret()
    await add_key(vault, "box", secret)
    await add_key(vault, "ollama", secret)
    await add_key(vault, "openai", secret)
    await vault.close()

    vault = await open_vault(servers={"box": ServerEntry(base_url=there), "openai": ServerEntry(base_url=there)})
    assert {key.state for key in await vault.keys()} == {"needs_reentry"}
    for name in ("box", "openai"):
        with pytest.raises(ApiKeyUnusable):
            await vault.secret_for(name, there)
        with pytest.raises(ApiKeyUnusable):
            await vault.test(name, None, None, actor=ME)
    await vault.close()

    vault = await open_vault(servers={"box": ServerEntry(base_url=here)}, ollama_host="http://127.0.0.1:9003")
    assert {key.state for key in await vault.keys()} == {"active"}
    assert await vault.secret_for("box", here) == secret
    assert await vault.secret_for("openai", "https://api.openai.com/v1") == secret


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_key_is_tested_where_settings_say_its_server_is_now(open_vault: OpenVault) -> None:
    secret = new_secret()
    async with KeyService("custom", secret) as box:
        for path in ("/v1", "/api/v1"):
            vault = await open_vault(servers={"box": ServerEntry(base_url=f"{box.origin}{path}")})
            if not await vault.keys():
                await add_key(vault, "box", secret)
            await vault.test("box", None, None, actor=ME)
            assert box.requests[-1].path == f"{path}/models"
            await vault.close()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_an_address_without_a_key_tests_nothing(open_vault: OpenVault) -> None:
    secret = new_secret()
    async with KeyService("custom", secret) as own:
        vault = await open_vault(allowed_addresses=("127.0.0.1",))
        await add_key(vault, "mine", secret, base_url=own.base_url)
        with pytest.raises(InvalidRequest, match="api_key"):
            await vault.test("mine", None, KeyToTest(base_url="https://evil.example/v1"), actor=ME)
        assert own.requests == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_server_that_is_called_like_a_known_service_takes_its_place(open_vault: OpenVault) -> None:
    openai, gemini = new_secret(), new_secret()
    servers = {
        "OpenAI": ServerEntry(base_url="http://127.0.0.1:9001/v1", api_key=SecretStr(openai)),
        "gemini": ServerEntry(base_url="http://127.0.0.1:9002/v1", api_key=SecretStr(gemini)),
    }
    vault = await open_vault(servers=servers)
    assert [await stored_secret(vault, name) for name in ("openai", "Gemini", "google")] == [openai, gemini, None]
    providers = Providers(Settings(servers=servers), secrets=vault)
    with pytest.raises(NotFound):
        await providers.resolve("openai/gpt-5")
    await providers.close()
    with pytest.raises(InvalidSettings, match="capital letters"):
        Providers(Settings(servers={"Ollama": servers["OpenAI"]}), secrets=vault)


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_a_key_is_shown_by_what_is_known_of_its_service(open_vault: OpenVault) -> None:
    vault = await open_vault()
    secret = "abcdefgh-abcdefghij-abcdefghij-CANARY"
    hint = (await add_key(vault, "mine", secret, base_url="https://llm.example/v1")).hint
    assert hint == "…NARY"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_it_is_said_where_a_key_goes_that_takes_the_address_of_another(open_vault: OpenVault) -> None:
    vault = await open_vault()
    await add_key(vault)
    await vault.change("openai", None, KeyChange(base_url="https://proxy.invalid/v1"), actor=ME)
    given = {"api_key": SecretStr(new_secret())}
    for warnings in (
        (await vault.test("openai", None, KeyToTest(**given), actor=ME))[2],
        (await vault.add(NewKey(service_name="openai", **given), actor=ME))[1],
    ):
        assert [text for text in warnings if "https://proxy.invalid/v1" in text]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_stands_beside_a_key_does_not_keep_it_from_being_listed(
    open_vault: OpenVault, intruder: Intruder
) -> None:
    await add_key(await open_vault())
    await intruder.set("default", last_test={"x": 1}, details=[1])
    vault = await open_vault()
    assert [(key.last_test, key.details) for key in await vault.keys()] == [(None, {})]
    assert (await vault.remove("openai", None, actor=ME)).state == "revoked"


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_a_change_between_two_reads_makes_no_key_unreadable(
    open_vault: OpenVault, intruder: Intruder, database_url: str
) -> None:
    vault = await open_vault()
    secret = new_secret()
    await add_key(vault, secret=secret)
    (state,), (key,), _ = await intruder.dump()
    await vault.rotate(actor=ME)
    for _ in range(200):
        rotation = await vault.rotation()
        if rotation and rotation.status == "complete":
            break
        await asyncio.sleep(0.02)
    (later,), (moved,), _ = await intruder.dump()
    wrappings = {"wrappings": state["wrappings"], "rotation": None}
    await intruder.set("default", token=key["token"], data_key=key["data_key"])
    await intruder.execute(update(vault_state).values(**wrappings, generation=1000))
    await asyncio.sleep(1.05)

    database = Database(make_url(database_url))
    async with database.transaction() as db:
        await db.execute(text("LOCK TABLE vault_keys IN ACCESS EXCLUSIVE MODE"))
        using = asyncio.create_task(vault.secret_for("openai", "https://api.openai.com/v1"))
        await _somebody_waits(database)
        await db.execute(update(vault_keys).values(token=moved["token"], data_key=moved["data_key"]))
        await db.execute(update(vault_state).values(wrappings=later["wrappings"], generation=1001))
    await database.close()
    assert await using == secret
    assert [key.state for key in await vault.keys()] == ["active"]


async def _somebody_waits(database: Database) -> None:
    for _ in range(200):
        async with database.reading() as db:
            if (await db.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted"))).scalar():
                return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody waits for the table")
