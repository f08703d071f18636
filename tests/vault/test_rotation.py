"""All secrets move to a new data key while the vault is in use, and the keyring to a new root key."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import update
from sqlalchemy.engine import make_url

from ai_lab.clock import now
from ai_lab.database import Database
from ai_lab.errors import RootKeyElsewhere, VaultBusy
from ai_lab.settings import Settings
from ai_lab.vault import Vault
from ai_lab.vault.cipher import decrypt
from ai_lab.vault.keyring import KEY_BYTES
from ai_lab.vault.root_key import RootKey
from ai_lab.vault.rotation import KEPT_DAYS, Pace
from ai_lab.vault.schemas import KeyChange, NewKey, Rotation
from ai_lab.vault.state import VaultState
from ai_lab.vault.tables import vault_keys
from ai_lab.vault.unsealing import wrapping

_KEYS = 8
_OPENAI = "https://api.openai.com/v1"

Open = Callable[..., Any]
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def open_vault(database_url: str, tmp_path: Path) -> AsyncIterator[Open]:
    """Give a function that opens one more vault on the same database, as another process would."""
    async with AsyncExitStack() as stack:

        async def opened(**settings: Any) -> Vault:
            database = Database(make_url(database_url))
            stack.push_async_callback(database.close)
            vault = await Vault.open(Settings(**{"config_dir": tmp_path / "config"} | settings), database)
            stack.push_async_callback(vault.close)
            vault._rotator._pace = Pace(rows_at_once=1, rest_share=4)  # so that there is something to see
            return vault

        yield opened


def _secret() -> str:
    return f"sk-CANARY{secrets.token_hex(16)}"


async def _add(vault: Vault, label: str, secret: str) -> None:
    await vault.add(NewKey(service_name="openai", api_key=SecretStr(secret), label=label), actor="test")


async def _fill(vault: Vault, count: int = _KEYS) -> dict[str, str]:
    expected = {"default" if number == 0 else f"key {number}": _secret() for number in range(count)}
    for label, secret in expected.items():
        await _add(vault, label, secret)
    return expected


async def _stored(vault: Vault) -> dict[str, str]:
    """Return the secrets of active keys, decrypted from what is in the database."""
    state = VaultState(vault._state.settings, vault._state.database)
    await state.load()
    keys = state.keyring.data_keys
    active = [row for row in state.rows.values() if row.state == "active"]
    return {row.label: decrypt(row.token or "", row.place(), keys[row.data_key or ""].key) for row in active}


async def _finished(vault: Vault) -> Rotation:
    while (rotation := await vault.rotation()) is None or rotation.status == "running":  # noqa: ASYNC110 - as users do
        await asyncio.sleep(0.01)
    return rotation


async def _under_way(vault: Vault, done: int = 1) -> Rotation:
    while (rotation := await vault.rotation()) is None or rotation.done < done:  # noqa: ASYNC110 - as users do
        await asyncio.sleep(0.005)
    return rotation


async def _execute(vault: Vault, statement: Any) -> None:
    async with vault._state.database.transaction() as db:
        await db.execute(statement)


def _root_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).decode()


async def test_all_secrets_move_and_the_old_data_key_is_retired(open_vault: Open) -> None:
    vault = await open_vault()
    assert await vault.rotation() is None
    expected = await _fill(vault)
    started = await vault.rotate(actor="test")
    assert (started.status, started.from_data_keys, started.to_data_key) == ("running", ["k1"], "k2")
    assert (started.total, started.done) == (_KEYS, 0)
    under_way = await _under_way(vault)
    assert under_way.status == "running"
    assert (await vault.rotate(actor="test")).started_at == started.started_at
    finished = await _finished(vault)
    assert (finished.done, finished.unreadable, finished.total) == (_KEYS, 0, _KEYS)
    assert finished.finished_at
    assert vault.status().rotation == finished
    assert await _stored(vault) == expected
    assert {row.data_key for row in vault._state.rows.values()} == {"k2"}
    data_keys = vault._state.keyring.data_keys
    assert data_keys["k1"].retired_at
    assert data_keys["k2"].retired_at is None
    assert await vault.secret_for("openai", _OPENAI) == expected["default"]
    actions = [entry.action for entry in (await vault.audit(limit=100)).data]
    assert actions.count("rotate_started") == actions.count("rotate_finished") == 1
    assert (await vault.verify_audit()).is_intact


@on_sqlite
async def test_a_vault_without_keys_rotates_too(open_vault: Open) -> None:
    vault = await open_vault()
    await vault.rotate(actor="test")
    finished = await _finished(vault)
    assert (finished.total, finished.done, vault.status().data_key) == (0, 0, "k2")


async def test_what_users_do_meanwhile_wins(open_vault: Open) -> None:
    vault = await open_vault()
    expected = await _fill(vault)
    await vault.rotate(actor="test")
    for number in range(1, 5):
        await _under_way(vault, number)
        assert await vault.secret_for("openai", _OPENAI) == expected["default"]
        expected[f"key {number}"] = _secret()
        await _add(vault, f"key {number}", expected[f"key {number}"])
        expected[f"new {number}"] = _secret()
        await _add(vault, f"new {number}", expected[f"new {number}"])
    expected["renamed"] = expected.pop("key 7")
    await vault.change("openai", "key 7", KeyChange(label="renamed"), actor="test")
    await vault.remove("openai", "key 6", actor="test")
    del expected["key 6"]
    finished = await _finished(vault)
    assert finished.unreadable == 0
    assert await _stored(vault) == expected
    assert {row.data_key for row in vault._state.rows.values()} == {"k2"}


@on_sqlite
async def test_what_cannot_be_read_stays_and_is_counted(open_vault: Open) -> None:
    vault = await open_vault()
    expected = await _fill(vault)
    tokens = {row.label: row.token for row in vault._state.rows.values()}
    changes: dict[str, dict[str, Any]] = {
        "key 1": {"token": tokens["key 2"]},  # another row's
        "key 3": {"token": "sk-in-the-open"},
        "key 4": {"data_key": "k9"},
        "key 5": {"data_key": "k2"},  # so that it looks as if it had been moved
    }
    for label, values in changes.items():
        await _execute(vault, update(vault_keys).where(vault_keys.c.label == label).values(values))
        del expected[label]
    # This process has read the rows before: it must see them as they are now all the same.
    await vault.rotate(actor="test")
    finished = await _finished(vault)
    assert (finished.total, finished.done, finished.unreadable) == (_KEYS, _KEYS - len(changes), len(changes))
    keys = {key.label: key for key in await vault.keys()}
    assert {label: keys[label].state for label in changes} == {
        "key 1": "tampered",
        "key 3": "tampered",
        "key 4": "unreadable",
        "key 5": "tampered",
    }
    assert await _stored(vault) == expected
    set_aside = [entry for entry in (await vault.audit(limit=100)).data if entry.action == "rotate_row"]
    assert {entry.label for entry in set_aside} == set(changes)


async def test_two_processes_drive_one_rotation_without_harm(open_vault: Open) -> None:
    first = await open_vault()
    expected = await _fill(first)
    second = await open_vault()
    started = await asyncio.gather(first.rotate(actor="one"), second.rotate(actor="two"))
    assert started[0].started_at == started[1].started_at
    expected["of the second"] = _secret()
    await _add(second, "of the second", expected["of the second"])
    finished = await asyncio.gather(_finished(first), _finished(second))
    assert finished[0] == finished[1]
    assert await _stored(first) == expected
    assert {row.data_key for row in first._state.rows.values()} == {"k2"}
    for vault in (first, second):
        assert await vault.secret_for("openai", _OPENAI) == expected["default"]
    assert (await first.verify_audit()).is_intact


@on_sqlite
async def test_a_rotation_whose_process_has_gone_is_taken_over(open_vault: Open) -> None:
    first = await open_vault()
    expected = await _fill(first)
    second = await open_vault()
    await first.rotate(actor="test")
    await _under_way(first)
    await first._rotator.close()
    await asyncio.sleep(1.1)  # until the second looks at the database again
    await second._rotator.keep_up()
    await asyncio.sleep(0.1)
    assert (await second.rotation()).status == "running", "it might still be driven by the other one"
    await second._rotator.keep_up()
    assert (await _finished(second)).done == _KEYS
    assert await _stored(second) == expected


@on_sqlite
async def test_retired_data_keys_are_dropped_once_no_backup_needs_them(open_vault: Open) -> None:
    vault = await open_vault()
    await _fill(vault, 2)
    await _execute(vault, update(vault_keys).where(vault_keys.c.label == "key 1").values(token="v1.k1.damaged"))
    await vault.rotate(actor="test")
    await _finished(vault)
    await vault.rotate(actor="test")
    await _finished(vault)
    rotator, state = vault._rotator, vault._state
    await rotator.keep_up()
    assert set(state.keyring.data_keys) == {"k1", "k2", "k3"}
    async with state.changing() as (_, repository):
        past = now() - timedelta(days=KEPT_DAYS, minutes=1)
        aged = {
            name: replace(key, retired_at=past if key.retired_at else None)
            for name, key in state.keyring.data_keys.items()
        }
        await repository.save_state(wrappings=wrapping(replace(state.keyring, data_keys=aged), state.root))
    await rotator.keep_up()
    assert set(state.keyring.data_keys) == {"k1", "k3"}  # a row that could not be moved names the first
    await vault.remove("openai", "key 1", actor="test")
    await rotator.keep_up()
    assert set(state.keyring.data_keys) == {"k3"}


@on_sqlite
async def test_a_new_root_key_in_a_file_of_ours(open_vault: Open, tmp_path: Path) -> None:
    vault = await open_vault()
    expected = await _fill(vault)
    before = vault._state.root
    await vault.rotate(actor="test")  # neither disturbs the other
    changed = await vault.rekey(actor="test")
    assert changed.root_key == vault._state.root.id != before.id
    assert str(before.source) in changed.message
    assert await vault.secret_for("openai", _OPENAI) == expected["default"]
    await _finished(vault)
    new_file = tmp_path / "config" / f"master-{changed.root_key}.key"
    assert new_file.stat().st_mode & 0o777 == 0o600
    (tmp_path / "config" / "master.key").unlink()
    again = await open_vault()
    assert await _stored(again) == expected
    assert list(again._state.stored.wrappings) == [changed.root_key]
    assert (await again.verify_audit()).is_intact


@on_sqlite
async def test_a_new_root_key_in_a_named_file(open_vault: Open, tmp_path: Path) -> None:
    file = tmp_path / "root.key"
    file.touch(0o600)
    file.write_text(_root_key())
    vault = await open_vault(encryption_key_file=file)
    expected = await _fill(vault, 2)
    with pytest.raises(RootKeyElsewhere, match=r"root\.key"):
        await vault.rekey(actor="test")
    file.write_text(_root_key())
    assert (await vault.rekey(actor="test")).root_key == vault._state.root.id
    assert await _stored(await open_vault(encryption_key_file=file)) == expected


@on_sqlite
async def test_a_new_root_key_in_the_environment(open_vault: Open) -> None:
    old, new = _root_key(), _root_key()
    vault = await open_vault(encryption_key=old)
    expected = await _fill(vault, 2)
    with pytest.raises(RootKeyElsewhere, match="ENCRYPTION_KEY_PREVIOUS"):
        await vault.rekey(actor="test")
    await vault.close()
    moved = await open_vault(encryption_key=new, encryption_key_previous=old)
    assert await _stored(moved) == expected
    assert (await open_vault(encryption_key=new)).status().state == "open"
    assert (await open_vault(encryption_key=old)).status().state == "sealed"


@on_sqlite
@pytest.mark.parametrize("goes_on_with", ["new", "old"])
async def test_a_change_of_the_root_key_that_was_cut_off(open_vault: Open, tmp_path: Path, goes_on_with: str) -> None:
    vault = await open_vault()
    expected = await _fill(vault, 2)
    text = _root_key()
    root = RootKey(base64.urlsafe_b64decode(text), "file", "a file")
    async with vault._state.changing() as (_, repository):
        await repository.save_state(
            wrappings=vault._state.stored.wrappings | wrapping(vault._state.keyring, root)  # as after its first half
        )
    if goes_on_with == "new":
        file = tmp_path / "config" / f"master-{root.id}.key"
        file.touch(0o600)
        file.write_text(text)
        again = await open_vault()
        assert list(again._state.stored.wrappings) == [root.id]
    else:  # the file of the new one is lost: nothing is written that it alone would open, until somebody says so
        again = await open_vault()
        assert len(again._state.stored.wrappings) == 2
        with pytest.raises(VaultBusy, match="rekey"):
            await again.rotate(actor="test")
        await again.rekey(actor="test")
        assert list(again._state.stored.wrappings) == [again._state.root.id]
    await again.rotate(actor="test")
    await _finished(again)
    assert await _stored(again) == expected


@on_sqlite
async def test_a_new_root_key_that_is_not_there_again_changes_nothing(open_vault: Open) -> None:
    vault = await open_vault()
    expected = await _fill(vault, 2)
    old = vault._state.root
    lost = RootKey(os.urandom(KEY_BYTES), "file", "a file that was not kept")
    change = vault._rotator._root_key_change
    await change._add(lost, "test")
    with pytest.raises(RootKeyElsewhere, match="not changed"):
        await change._confirm(old, lost, "test")
    assert list(vault._state.stored.wrappings) == [old.id]
    assert await _stored(vault) == expected
    await vault.rotate(actor="test")
    assert (await _finished(vault)).done == 2
