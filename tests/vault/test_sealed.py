"""A vault without the right root key, or without its keyring: everything is refused and nothing written."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import update

from ai_lab.errors import (
    ApiKeyUnusable,
    Conflict,
    LabError,
    VaultSealed,
)
from ai_lab.vault import Vault
from ai_lab.vault.schemas import KeyChange, KeyToTest
from ai_lab.vault.tables import vault_state
from tests.vault.conftest import ME, Intruder, OpenVault, add_key, new_secret

_OPENAI = "https://api.openai.com/v1"
_EVIL = "https://evil.example/v1"


async def _refused_everywhere(vault: Vault) -> None:
    """See that a sealed vault does nothing but list."""
    (key,) = await vault.keys()
    assert key.hint.startswith("sk-…")
    for refused in (
        vault.secret_for("openai", _OPENAI),
        add_key(vault),
        vault.change("openai", None, KeyChange(label="other"), actor=ME),
        vault.remove("openai", None, actor=ME),
        vault.test("openai", None, None, actor=ME),
        vault.test("openai", None, KeyToTest(api_key=SecretStr(new_secret())), actor=ME),
        vault.rotate(actor=ME),
        vault.rekey(actor=ME),
        vault.verify_audit(),
    ):
        with pytest.raises(LabError) as error:
            await refused
        assert error.value.code == "vault_sealed"
    await vault.note("failed_auth", "refused", actor=ME)
    assert (await vault.audit()).data  # which can be read then, though not verified
    status = vault.status()
    assert (status.state, status.keys, status.data_key) == ("sealed", 1, None)
    assert status.reason
    assert status.remedy


async def test_every_kind_of_missing_or_wrong_root_key_seals_and_writes_nothing(
    open_vault: OpenVault, intruder: Intruder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vault, secret = await open_vault(), new_secret()
    await add_key(vault, secret=secret)
    await vault.close()
    before = await intruder.dump()
    file, other = tmp_path / "config" / "master.key", tmp_path / "other.key"
    whole = file.read_text()
    other.touch(mode=0o600)
    other.write_text(os.urandom(32).hex())
    wrong: list[dict[str, Any]] = [
        {"config_dir": tmp_path / "elsewhere"},
        {"encryption_key": SecretStr(os.urandom(32).hex())},
        {"encryption_key": SecretStr("CANARY-weak")},
        {"encryption_key_file": other},
        {"encryption_key_file": tmp_path / "missing"},
        {"keyring": True},
    ]
    for settings in wrong:
        with caplog.at_level(logging.ERROR):
            vault = await open_vault(**settings)
        await _refused_everywhere(vault)
        await vault.close()
    for spoil in (lambda: file.chmod(0o644), lambda: file.write_text("\n"), lambda: file.write_text("ab" * 32)):
        spoil()
        vault = await open_vault()
        await _refused_everywhere(vault)
        if file.stat().st_mode & 0o077:
            with pytest.raises(VaultSealed, match="chmod 600"):
                await vault.reset(actor=ME)
        await vault.close()
        file.write_text(whole)
        file.chmod(0o600)
    assert await intruder.dump() == before
    assert not (tmp_path / "elsewhere").exists()
    assert "CANARY" not in caplog.text
    assert await (await open_vault()).secret_for("openai", _OPENAI) == secret


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_changed_or_missing_keyring_seals_too(
    open_vault: OpenVault, intruder: Intruder, tmp_path: Path
) -> None:
    vault = await open_vault()
    await add_key(vault)
    (state,), _, _ = await intruder.dump()
    wrappings = {root: one | {"wrapped": one["wrapped"][:-6] + "AAAAAA"} for root, one in state["wrappings"].items()}
    await intruder.execute(update(vault_state).values(wrappings=wrappings))
    vault = await open_vault()
    await _refused_everywhere(vault)
    broken: list[Any] = [{}, [], dict.fromkeys(wrappings, "none"), {root: {"created_at": ""} for root in wrappings}]
    for value in broken:
        await intruder.execute(update(vault_state).values(wrappings=value))
        await _refused_everywhere(await open_vault(config_dir=tmp_path / "elsewhere"))
        await _refused_everywhere(await open_vault())
    assert not (tmp_path / "elsewhere").exists()
    await intruder.execute(vault_state.delete())
    vault = await open_vault()
    await _refused_everywhere(vault)
    assert await vault.reset(actor=ME) == 1
    assert (await add_key(vault)).state == "active"
    assert (await vault.verify_audit()).is_intact


async def test_a_reset_keeps_what_must_be_entered_again(
    open_vault: OpenVault, intruder: Intruder, tmp_path: Path
) -> None:
    vault = await open_vault()
    await add_key(vault)
    await add_key(vault, "together", label="work")
    with pytest.raises(LabError, match="open"):
        await vault.reset(actor=ME)
    old = await open_vault()
    await vault.close()
    (tmp_path / "config" / "master.key").rename(tmp_path / "lost.key")

    vault = await open_vault()
    assert await vault.reset(actor=ME) == 2
    listed = [(key.service_name, key.label, key.state, bool(key.remedy)) for key in await vault.keys()]
    assert listed == [("openai", "default", "unreadable", True), ("together", "work", "unreadable", True)]
    with pytest.raises(ApiKeyUnusable, match="Enter it again"):
        await vault.secret_for("openai", _OPENAI)
    secret = new_secret()
    assert (await add_key(vault, secret=secret)).version == 2
    assert await vault.secret_for("openai", _OPENAI) == secret
    assert (await intruder.keys())["default"]["data_key"] == "k2"
    assert (await vault.verify_audit()).is_intact
    # The process that had the old keyring takes the new one, whose file it finds.
    assert await old.secret_for("openai", _OPENAI) == secret
    await vault.close()
    (tmp_path / "lost.key").replace(tmp_path / "config" / "master.key")
    assert (await open_vault()).status().state == "sealed"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_first_start_with_a_passphrase_keeps_its_salt(open_vault: OpenVault) -> None:
    passphrase = SecretStr("passphrase:CANARY correct horse battery")
    vault, secret = await open_vault(encryption_key=passphrase), new_secret()
    await add_key(vault, secret=secret)
    assert vault.status().root_key_source == "ENCRYPTION_KEY"
    vault = await open_vault(encryption_key=passphrase)
    assert await vault.secret_for("openai", _OPENAI) == secret


async def test_a_start_of_several_at_once_makes_one_keyring(open_vault: OpenVault, tmp_path: Path) -> None:
    vaults = await asyncio.gather(*(open_vault() for _ in range(4)))
    secret = new_secret()
    await add_key(vaults[0], secret=secret)
    assert [await vault.secret_for("openai", _OPENAI) for vault in vaults] == [secret] * 4
    assert [path.name for path in (tmp_path / "config").iterdir()] == ["master.key"]


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_of_two_resets_the_second_loses_nothing(
    open_vault: OpenVault, intruder: Intruder, tmp_path: Path
) -> None:
    await add_key(await open_vault())
    await intruder.set("default", data_key="none")  # nothing that stands there keeps a vault from being reset
    (tmp_path / "config" / "master.key").unlink()
    first, second = await open_vault(), await open_vault()
    assert await first.reset(actor=ME) == 1
    secret = new_secret()
    await add_key(first, secret=secret)
    with pytest.raises(Conflict):
        await second.reset(actor=ME)
    assert await first.secret_for("openai", _OPENAI) == secret

    await intruder.execute(vault_state.delete())
    vaults = [await open_vault() for _ in range(3)]
    results = await asyncio.gather(*(one.reset(actor=ME) for one in vaults), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Conflict", "Conflict", "int"]
    await asyncio.sleep(1.05)  # by then the others look at the database again
    for one in vaults:
        await add_key(one, secret=secret)
    assert await (await open_vault()).secret_for("openai", _OPENAI) == secret
    assert (await vaults[0].verify_audit()).is_intact
