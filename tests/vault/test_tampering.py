"""Whoever may write to the database can break keys, but neither read them nor send them elsewhere unnoticed."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import delete, update

from ai_lab.errors import ApiKeyUnusable
from ai_lab.settings import ServerEntry
from ai_lab.vault import Vault
from ai_lab.vault.schemas import KeyToTest, NewKey
from ai_lab.vault.tables import vault_keys, vault_state
from tests.fakes.key_service import KeyService
from tests.vault.conftest import Intruder, OpenVault, new_secret

_ME = "api:test"
_SEED = 5
_TIMES = 5

Row = dict[str, Any]


def _flipped(token: str, dice: random.Random) -> str:
    """Change one sign to another one of the same kind; a token's number of its data key is left as it is."""
    at = dice.randrange(token.rindex(".") + 1, len(token) - 2)
    return token[:at] + dice.choice([sign for sign in "ABab01-_" if sign != token[at]]) + token[at + 1 :]


def _truncated(token: str, dice: random.Random) -> str:
    return token[: dice.randrange(len(token))]


def _one_bit(token: str, dice: random.Random) -> str:
    head, _, fernet = token.rpartition(".")
    raw = bytearray(base64.urlsafe_b64decode(fernet))
    raw[dice.randrange(len(raw))] ^= 1 << dice.randrange(8)
    return f"{head}.{base64.urlsafe_b64encode(raw).decode()}"


def _respelled(token: str, dice: random.Random) -> str:
    """Spell the same bytes otherwise, as decoders overlook it."""
    at = dice.randrange(token.rindex(".") + 1, len(token))
    return dice.choice([token[:at] + "\n" + token[at:], token[:at] + "!" + token[at:], token + "AAAA", token + "="])


def _planted(_token: str, dice: random.Random) -> str:
    foreign = Fernet(Fernet.generate_key()).encrypt(b"sk-planted").decode()
    return dice.choice(["sk-planted", "", "v1.k1.sk-planted", foreign, f"v1.k1.{foreign}"])


def _renumbered(token: str, _dice: random.Random) -> str:
    return token.replace("v1.k1.", "v1.k2.")


_CHANGES: list[Callable[[str, random.Random], str]] = [
    _flipped,
    _truncated,
    _one_bit,
    _respelled,
    _planted,
    _renumbered,
]


async def _seen_as(vault: Vault, label: str, service: KeyService) -> str:
    """Use and test a key that was tampered with; returns its state. The service must hear of nothing."""
    before = len(service.received("/v1/models"))
    url = f"{service.origin}/v1"
    for attempt in (vault.test("box", label, None, actor=_ME), vault.test("box", label, KeyToTest(), actor=_ME)):
        with pytest.raises(ApiKeyUnusable) as refused:
            await attempt
        assert "CANARY" not in refused.value.detail
    if label == "default":
        with pytest.raises(ApiKeyUnusable):
            await vault.secret_for("box", url)
    assert len(service.received("/v1/models")) == before
    return next(key.state for key in await vault.keys() if key.label == label)


async def test_whatever_is_done_to_tokens_is_recognised(open_vault: OpenVault, intruder: Intruder) -> None:
    dice = random.Random(_SEED)  # noqa: S311 - not a secret
    async with KeyService("custom", new_secret()) as service:
        settings = {"servers": {"box": ServerEntry(base_url=f"{service.origin}/v1")}}
        vault = await open_vault(**settings)
        labels = [f"{change.__name__}{number}" for change in _CHANGES for number in range(_TIMES)]
        for label in labels:
            key = NewKey(service_name="box", api_key=SecretStr(new_secret()), label=label)
            await vault.add(key, actor=_ME)
        await vault.close()
        rows = await intruder.keys()
        changes = {change.__name__: change for change in _CHANGES}
        for label in labels:
            token = rows[label]["token"]
            changed = changes[label.rstrip("0123456789")](token, dice)
            assert changed != token
            await intruder.set(label, token=changed)
        vault = await open_vault(**settings)
        assert {await _seen_as(vault, label, service) for label in labels} == {"tampered"}
        assert all(key.remedy for key in await vault.keys())
        entries = (await vault.audit(limit=100)).data
        assert {entry.label for entry in entries if (entry.action, entry.outcome) == ("test", "tampered")} == {*labels}
        # The next start remembers it, and a key that is entered again works.
        vault = await open_vault(**settings)
        assert {key.state for key in await vault.keys()} == {"tampered"}
        entered = NewKey(service_name="box", api_key=SecretStr(service.key), label=labels[0])
        stored, _, is_new = await vault.add(entered, actor=_ME)
        assert (stored.state, is_new) == ("active", False)
        assert (await vault.test("box", labels[0], None, actor=_ME))[0].result == "valid"


#: What is written into a row, from the row beside it and from what it was before its key was replaced.
_ROW_CHANGES: dict[str, Callable[[Row, Row], Row]] = {
    "swapped": lambda beside, _: {"token": beside["token"]},
    "replayed": lambda _, older: {"token": older["token"]},
    "other_version": lambda _, older: {"version": older["version"]},
    "other_service": lambda *_: {"service_name": "mine"},
    "other_address": lambda *_: {"base_origin": "https://evil.example:443", "base_url": "https://evil.example/v1"},
    "other_url": lambda *_: {"base_url": "https://evil.example/v1"},
    "broken_url": lambda *_: {"base_url": "no address"},
    "no_token": lambda *_: {"token": None},
}


async def test_rows_that_were_changed_are_recognised(open_vault: OpenVault, intruder: Intruder) -> None:
    vault = await open_vault()
    url = "https://llm.example/v1"

    async def add(label: str, service: str) -> None:
        new = NewKey(service_name=service, api_key=SecretStr(new_secret()), label=label, base_url=url)
        await vault.add(new, actor=_ME)

    for label in _ROW_CHANGES:
        await add(label, f"at_{label}")
        await add(f"beside_{label}", f"at_{label}")
    older = await intruder.keys()
    names = {}
    for label, change in _ROW_CHANGES.items():
        await add(label, f"at_{label}")
        rows = await intruder.keys()
        changed = change(rows[f"beside_{label}"], older[label])
        assert not changed.items() <= rows[label].items()
        await intruder.set(label, **changed)
        names[label] = changed.get("service_name", f"at_{label}")

    vault = await open_vault()
    for label, name in names.items():
        for address in (url, "https://evil.example/v1"):
            with pytest.raises(ApiKeyUnusable):
                await vault.secret_for(name, address)
        with pytest.raises(ApiKeyUnusable):
            await vault.test(name, label, None, actor=_ME)
    states = {key.label: key.state for key in await vault.keys()}
    assert states == dict.fromkeys(names, "tampered") | {f"beside_{label}": "active" for label in names}
    noted = [entry.label for entry in (await vault.audit(limit=100)).data if entry.outcome == "tampered"]
    assert sorted(noted, key=str) == sorted(names)


async def test_a_row_that_was_set_back_as_a_whole_shows_in_the_audit(open_vault: OpenVault, intruder: Intruder) -> None:
    vault = await open_vault()
    for _ in range(2):
        await vault.add(NewKey(service_name="openai", api_key=SecretStr(new_secret())), actor=_ME)
        if (row := (await intruder.keys())["default"])["version"] == 1:
            older = row
    assert (await vault.verify_audit()).is_intact
    await intruder.execute(update(vault_keys).values(older))
    found = await (await open_vault()).verify_audit()
    assert not found.is_intact
    assert found.reason is not None
    assert older["id"] in found.reason
    await intruder.execute(delete(vault_keys))
    assert not (await (await open_vault()).verify_audit()).is_intact


async def test_a_key_whose_data_key_is_gone_is_unreadable(open_vault: OpenVault, intruder: Intruder) -> None:
    vault = await open_vault()
    await vault.add(NewKey(service_name="openai", api_key=SecretStr(new_secret())), actor=_ME)
    token = (await intruder.keys())["default"]["token"]
    await intruder.set("default", token=token.replace("v1.k1.", "v1.k9."), data_key="k9")
    vault = await open_vault()
    with pytest.raises(ApiKeyUnusable, match="Enter it again"):
        await vault.secret_for("openai", "https://api.openai.com/v1")
    assert [key.state for key in await vault.keys()] == ["unreadable"]


async def test_what_is_read_together_is_noted_once(open_vault: OpenVault, intruder: Intruder) -> None:
    vault = await open_vault()
    await vault.add(NewKey(service_name="openai", api_key=SecretStr(new_secret())), actor=_ME)
    await intruder.set("default", token="sk-planted")
    vault = await open_vault()
    attempts = [vault.secret_for("openai", "https://api.openai.com/v1") for _ in range(10)]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert {type(result) for result in results} == {ApiKeyUnusable}
    outcomes = [entry.outcome for entry in (await vault.audit()).data]
    assert outcomes.count("tampered") == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_record_of_rotation_that_was_spoilt_stops_no_start(open_vault: OpenVault, intruder: Intruder) -> None:
    vault = await open_vault()
    await intruder.execute(update(vault_state).values(rotation={"status": "elsewhere"}))
    vault = await open_vault()
    assert (vault.status().state, vault.status().rotation) == ("open", None)
