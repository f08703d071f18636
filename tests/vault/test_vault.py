"""The vault as routes and providers see it: keys come in, are listed without being read, and go where they belong."""

from __future__ import annotations

import asyncio
import json

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from ai_lab.clock import now
from ai_lab.errors import (
    AddressRefused,
    ApiKeyAmbiguous,
    ApiKeyExists,
    ApiKeyNotFound,
    ApiKeyRefused,
    ApiKeyUnusable,
    InvalidRequest,
    LabError,
    ServiceNotFound,
)
from ai_lab.settings import ServerEntry
from ai_lab.vault.schemas import KeyChange, KeyToTest, NewKey
from tests.fakes.key_service import KeyService
from tests.vault.conftest import ME, Intruder, OpenVault, actions, add_key, new_secret

_OPENAI = "https://api.openai.com/v1"
_EVIL = "https://evil.example/v1"


# -- storing -----------------------------------------------------------------------------------------------------------


async def test_a_key_is_stored_listed_used_replaced_and_removed(open_vault: OpenVault, intruder: Intruder) -> None:
    vault = await open_vault()
    first, second = new_secret(), new_secret()
    new = NewKey(service_name=" OpenAI ", api_key=SecretStr(f' "{first}"\n'), details={"rate_limit": 5})
    key, warnings, is_new = await vault.add(new, actor=ME)
    assert (key.service_name, key.label, key.state, key.version, is_new) == ("openai", "default", "active", 1, True)
    assert key.hint == f"sk-…{first[-4:]}"
    assert any("Quotation marks" in warning for warning in warnings)
    assert await vault.secret_for("openai", _OPENAI) == first

    key, _, is_new = await vault.add(NewKey(service_name="openai", api_key=SecretStr(second)), actor=ME)
    assert (key.version, is_new, key.details, key.rotated_at is not None) == (2, False, {"rate_limit": 5}, True)
    assert await vault.secret_for("OpenAI", _OPENAI + "/") == second
    (listed,) = await vault.keys()
    assert listed.last_used_at is not None
    assert listed.last_used_at.second == 0
    assert (await intruder.keys())["default"]["token"].startswith("v1.k1.")

    removed = await vault.remove("openai", None, actor=ME)
    assert removed.state == "revoked"
    assert await vault.secret_for("openai", _OPENAI) is None
    assert await vault.keys() == []
    assert [one.id for one in await vault.keys(with_revoked=True)] == [key.id]
    row = (await intruder.keys())["default"]
    assert (row["token"], row["data_key"]) == (None, None)
    assert (await add_key(vault)).id != key.id
    done = [action for action, _, _ in await actions(vault)]
    assert done == ["initialize", "create", "use", "update", "revoke", "create"]
    assert (await vault.verify_audit()).is_intact
    assert first not in json.dumps(await intruder.dump(), default=str)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_several_keys_of_a_service_are_told_apart_by_their_labels(open_vault: OpenVault) -> None:
    vault = await open_vault()
    oldest, default = new_secret(), new_secret()
    await add_key(vault, secret=oldest, label="work")
    assert await vault.secret_for("openai", _OPENAI) == oldest
    await add_key(vault, label="<img src=x onerror=alert(1)>")
    await add_key(vault, secret=default)
    assert await vault.secret_for("openai", _OPENAI) == default
    with pytest.raises(ApiKeyAmbiguous, match="'work'"):
        await vault.remove("openai", None, actor=ME)
    with pytest.raises(ApiKeyExists, match="'work'") as same:
        await add_key(vault, secret=oldest, label="again")
    assert oldest not in same.value.detail
    with pytest.raises(ApiKeyExists):
        await vault.change("openai", "work", KeyChange(label="default"), actor=ME)
    renamed = await vault.change("openai", "work", KeyChange(label="home"), actor=ME)
    assert (renamed.label, renamed.state, renamed.version) == ("home", "active", 1)
    with pytest.raises(ApiKeyNotFound):
        await vault.remove("openai", "work", actor=ME)
    await vault.remove("openai", "default", actor=ME)
    assert await vault.secret_for("openai", _OPENAI) == oldest


@pytest.mark.parametrize(
    ("values", "error", "says"),
    [
        ({"service_name": "opnai"}, ServiceNotFound, "Did you mean openai"),
        ({"service_name": "azure"}, InvalidRequest, "base_url"),
        ({"service_name": "embedded", "base_url": "https://x.example"}, InvalidRequest, "embedded"),
        ({"service_name": "audit", "base_url": "https://x.example"}, InvalidRequest, "audit"),
        ({"service_name": "mine", "base_url": "http://169.254.169.254/latest"}, AddressRefused, "ever"),
        ({"service_name": "mine", "base_url": "http://10.0.0.5/v1"}, AddressRefused, "AI_LAB_ALLOWED_ADDRESSES"),
        ({"service_name": "openai", "base_url": "file:///etc/passwd"}, AddressRefused, "address"),
        ({"service_name": "openai", "api_key": "sk-ant-CANARY" + "a" * 90}, ApiKeyRefused, "Anthropic"),
        ({"service_name": "openai", "api_key": "CANARY with spaces"}, ApiKeyRefused, "spaces"),
        ({"service_name": "ollama", "base_url": _EVIL}, InvalidRequest, "OLLAMA_HOST"),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_can_never_work_is_refused_and_leaves_nothing(
    open_vault: OpenVault, intruder: Intruder, values: dict[str, str], error: type[LabError], says: str
) -> None:
    vault = await open_vault()
    before = await intruder.dump()
    secret = values.pop("api_key", None) or new_secret()
    with pytest.raises(error, match=says) as refused:
        await add_key(vault, values.pop("service_name"), secret, **values)
    assert "CANARY" not in refused.value.detail
    assert await intruder.dump() == before


async def test_two_that_add_the_same_key_at_once_leave_one(open_vault: OpenVault) -> None:
    vaults = [await open_vault() for _ in range(3)]
    secret = new_secret()
    new = NewKey(service_name="together", api_key=SecretStr(secret))
    done = await asyncio.gather(*(vault.add(new, actor=ME) for vault in vaults for _ in range(4)))
    assert [is_new for _, _, is_new in done].count(True) == 1
    assert sorted(key.version for key, _, _ in done) == list(range(1, 13))
    labels = await asyncio.gather(*(add_key(vault, "cohere", label=f"{n}") for vault in vaults for n in range(4)))
    assert len({key.id for key in labels}) == 4
    assert (await vaults[0].verify_audit()).is_intact


# -- where a key goes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_key_goes_to_the_origin_that_it_was_given_for_and_nowhere_else(open_vault: OpenVault) -> None:
    vault = await open_vault()
    secret = new_secret()
    await add_key(vault, "together", secret)
    await add_key(vault, "mine", secret, base_url="https://llm.example:8443/v1/")
    assert await vault.secret_for("together", "https://api.together.ai/v1") == secret
    assert await vault.secret_for("together", "https://api.together.xyz/v1") == secret
    assert await vault.secret_for("mine", "https://LLM.example:8443") == secret
    for service, url in (
        ("together", _EVIL),
        ("together", "http://api.together.ai/v1"),
        ("together", "https://api.together.ai:8443/v1"),
        ("together", "https://api.together.ai.evil.example/v1"),
        ("mine", "https://llm.example/v1"),
        ("mine", "https://api.together.ai/v1"),
    ):
        with pytest.raises(ApiKeyUnusable, match="Enter it again") as refused:
            await vault.secret_for(service, url)
        assert secret not in refused.value.detail
    with pytest.raises(AddressRefused):
        await vault.secret_for("mine", "https://llm.example:8443@evil.example/")
    await add_key(vault, base_url="https://proxy.example/v1")
    assert await vault.secret_for("openai", "https://proxy.example/v1")
    with pytest.raises(ApiKeyUnusable):
        await vault.secret_for("openai", _OPENAI)
    assert vault.custom_services() == {
        "mine": "https://llm.example:8443/v1",
        "openai": "https://proxy.example/v1",
    }


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_at_another_address_a_key_must_be_entered_again(open_vault: OpenVault, intruder: Intruder) -> None:
    vault = await open_vault()
    first, second = new_secret(), new_secret()
    await add_key(vault, "mine", first, base_url="https://llm.example/v1")
    token = (await intruder.keys())["default"]["token"]
    same = await vault.change("mine", None, KeyChange(base_url="https://llm.example/v2"), actor=ME)
    assert (same.state, same.base_url) == ("active", "https://llm.example/v2")
    assert await vault.secret_for("mine", "https://llm.example/v2") == first

    moved = await vault.change("mine", None, KeyChange(base_url=_EVIL), actor=ME)
    assert (moved.state, moved.hint) == ("needs_reentry", f"sk-…{first[-4:]}")
    assert moved.remedy
    for url in (_EVIL, "https://llm.example/v1"):
        with pytest.raises(ApiKeyUnusable):
            await vault.secret_for("mine", url)
    back = await vault.change("mine", None, KeyChange(base_url="https://llm.example/v1"), actor=ME)
    assert back.state == "needs_reentry"
    # Nor does the erased token come back by the way of the database.
    await intruder.set("default", token=token, data_key="k1", state="active")
    with pytest.raises(ApiKeyUnusable):
        await (await open_vault()).secret_for("mine", "https://llm.example/v1")
    await add_key(vault, "mine", second)
    assert await vault.secret_for("mine", "https://llm.example/v1") == second


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_settings_say_where_servers_of_the_user_are(open_vault: OpenVault) -> None:
    here, there = "http://127.0.0.1:9001/v1", "http://127.0.0.1:9002/v1"
    vault = await open_vault(servers={"Box": ServerEntry(base_url=here)}, ollama_host="0.0.0.0:11434")
    secret = new_secret()
    assert (await add_key(vault, "box", secret)).base_url == here
    assert (await add_key(vault, "ollama", secret)).base_url == "http://127.0.0.1:11434"
    assert await vault.secret_for("Box", here) == secret
    assert await vault.secret_for("ollama", "http://127.0.0.1:11434") == secret
    with pytest.raises(InvalidRequest, match="AI_LAB_SERVERS"):
        await add_key(vault, "box", base_url=there)
    assert vault.custom_services() == {}
    await vault.close()

    vault = await open_vault(servers={"Box": ServerEntry(base_url=there)})
    states = {key.service_name: key.state for key in await vault.keys()}
    assert states == {"box": "needs_reentry", "ollama": "active"}
    with pytest.raises(ApiKeyUnusable):
        await vault.secret_for("Box", there)


# -- keys of the environment -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_keys_of_the_environment_are_used_but_not_stored(
    open_vault: OpenVault, intruder: Intruder, monkeypatch: pytest.MonkeyPatch
) -> None:
    openai, box, azure, stored = (new_secret() for _ in range(4))
    monkeypatch.setenv("OPENAI_API_KEY", openai)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", azure)
    monkeypatch.setenv("GOOGLE_API_KEY", "CANARY with blanks")
    entry = ServerEntry(base_url="http://127.0.0.1:9001/v1", api_key=SecretStr(box))
    vault = await open_vault(servers={"box": entry})
    listed = {(key.service_name, key.label, key.source, key.hint) for key in await vault.keys()}
    assert listed == {
        ("openai", "OPENAI_API_KEY", "environment", f"sk-…{openai[-4:]}"),
        ("box", "AI_LAB_SERVERS", "environment", f"sk-…{box[-4:]}"),
    }
    assert vault.has_key("openai")
    assert not vault.has_key("azure")  # there is no endpoint that it could go to
    assert await vault.secret_for("openai", _OPENAI) == openai
    assert await vault.secret_for("box", "http://127.0.0.1:9001/v1/chat") == box
    assert await vault.secret_for("openai", _EVIL) is None
    new = NewKey(service_name="box", api_key=SecretStr(new_secret()))
    assert "AI_LAB_SERVERS" in (await vault.add(new, actor=ME))[1][-1]
    await add_key(vault, secret=stored)
    assert await vault.secret_for("openai", _OPENAI) == stored
    with pytest.raises(ApiKeyNotFound):
        await vault.remove("openai", "OPENAI_API_KEY", actor=ME)
    assert openai not in json.dumps(await intruder.dump(), default=str)
    assert ("use", "ok", 1) in await actions(vault)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_key_of_the_environment_belongs_to_the_address_beside_it(
    open_vault: OpenVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = new_secret()
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    monkeypatch.setenv("OPENAI_BASE_URL", "https://proxy.example/v1")
    vault = await open_vault()
    assert await vault.secret_for("openai", _OPENAI) is None
    assert await vault.secret_for("openai", "https://proxy.example/v1") == secret
    assert vault.custom_services() == {"openai": "https://proxy.example/v1"}
    await add_key(vault)
    assert vault.custom_services() == {}  # a stored key comes first


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_key_of_ollama_in_the_environment_goes_to_its_host(
    open_vault: OpenVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = new_secret()
    monkeypatch.setenv("OLLAMA_API_KEY", secret)
    vault = await open_vault(ollama_host="http://gpu.lan:11434")
    assert await vault.secret_for("ollama", "http://gpu.lan:11434") == secret
    assert await vault.secret_for("ollama", "https://ollama.com") is None


# -- audit of uses -----------------------------------------------------------------------------------------------------


async def test_uses_of_a_minute_are_one_entry_and_a_count(open_vault: OpenVault) -> None:
    vault = await open_vault()
    await add_key(vault)
    await asyncio.gather(*(vault.secret_for("openai", _OPENAI) for _ in range(50)))
    uses = [count for action, _, count in await actions(vault) if action == "use"]
    assert 1 <= len(uses) <= 2  # two where the minute has just changed
    for use in vault._uses._uses.values():
        use.minute -= 1
    await vault.secret_for("openai", _OPENAI)
    uses = [count for action, _, count in await actions(vault) if action == "use"]
    assert sum(uses) == 51  # what was counted is written with the first use of the next minute
    await asyncio.gather(*(vault.secret_for("openai", _OPENAI) for _ in range(9)))
    await vault.close()
    vault = await open_vault()
    assert sum(count for action, _, count in await actions(vault) if action == "use") == 60
    assert (await vault.verify_audit()).is_intact


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_without_an_audit_there_is_no_secret(open_vault: OpenVault, intruder: Intruder) -> None:
    vault = await open_vault()
    secret = new_secret()
    await add_key(vault, secret=secret)
    await intruder.execute(
        text("CREATE TRIGGER no_audit BEFORE INSERT ON vault_audit BEGIN SELECT RAISE(ABORT, 'no audit'); END")
    )
    with pytest.raises(LabError):
        await vault.secret_for("openai", _OPENAI)
    with pytest.raises(LabError):
        await add_key(vault, "together")
    assert not vault.has_key("together")
    await intruder.execute(text("DROP TRIGGER no_audit"))
    assert await vault.secret_for("openai", _OPENAI) == secret
    assert [key.service_name for key in await vault.keys()] == ["openai"]


# -- tests of keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_test_asks_the_service_and_is_remembered(open_vault: OpenVault) -> None:
    secret = new_secret()
    async with KeyService("custom", secret) as service:
        base_url = f"{service.origin}/v1"
        vault = await open_vault(servers={"box": ServerEntry(base_url=base_url)})
        await add_key(vault, "box", secret, label="one")
        report, label, warnings = await vault.test("box", None, None, actor=ME)
        assert (report.result, label, warnings) == ("valid", "one", [])
        (key,) = await vault.keys()
        assert key.last_test == report

        wrong = KeyToTest(api_key=SecretStr(new_secret()))
        report, label, _ = await vault.test("box", None, wrong, actor=ME)
        assert (report.result, label) == ("invalid", None)
        assert (await vault.keys())[0].last_test != report
        assert all(secret not in request.path for request in service.received("/v1/models"))
        given = KeyToTest(api_key=SecretStr(secret), base_url=_EVIL)
        with pytest.raises(InvalidRequest, match="AI_LAB_SERVERS"):
            await vault.test("box", None, given, actor=ME)
        with pytest.raises(ApiKeyNotFound):
            await vault.test("openai", None, None, actor=ME)
        assert [entry for entry in await actions(vault) if entry[0] == "test"] == [("test", "started", 1)] * 2
        await add_key(vault, "box", label="one")
        assert (await vault.keys())[0].last_test is None


# -- several processes -------------------------------------------------------------------------------------------------


async def test_two_processes_see_each_others_changes(open_vault: OpenVault) -> None:
    one, other = await open_vault(), await open_vault()
    first, replaced, second = new_secret(), new_secret(), new_secret()
    await add_key(one, secret=first)
    for vault in (one, other):
        assert await vault.secret_for("openai", _OPENAI) == first  # the first look, from which on a second may pass
    await add_key(one, secret=replaced)
    await add_key(other, "cohere", second)
    await asyncio.sleep(1.05)
    assert await other.secret_for("openai", _OPENAI) == replaced
    assert await one.secret_for("cohere", "https://api.cohere.com") == second
    # A change knows the newest rows without waiting.
    await one.remove("openai", None, actor=ME)
    with pytest.raises(ApiKeyNotFound):
        await other.remove("openai", None, actor=ME)
    assert one.audit_head() == other.audit_head()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_operations_are_observed_with_the_code_of_their_error(open_vault: OpenVault) -> None:
    vault = await open_vault()
    seen: list[tuple[str, str | None]] = []
    vault._observe = lambda operation, code: seen.append((operation, code))
    await add_key(vault)
    await vault.secret_for("openai", _OPENAI)
    with pytest.raises(ServiceNotFound):
        await vault.remove("nobody", None, actor=ME)
    assert seen == [("add", None), ("use", None), ("remove", "service_not_found")]
    assert vault.supported()["azure"].needs_base_url
    assert vault.status().audit_head is not None
    assert now() > (await vault.keys())[0].created_at  # type: ignore[operator]  # a stored key has it
