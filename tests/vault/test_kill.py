"""``kill -9`` at any moment of a rotation or a change of the root key loses no secret, and the next start goes on."""

from __future__ import annotations

import asyncio
import random
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

from ai_lab.clock import new_id, now
from ai_lab.vault.audit import Audit
from ai_lab.vault.cipher import Place, decrypt, encrypt
from ai_lab.vault.state import VaultState
from tests.server import ROOT, environment
from tests.vault.rotate_program import complete, opened, rotation_of

_SECRETS = 200
_ROUNDS, _SHORT_ROUNDS = 100, 4
#: The longest time until the kill: about one rotation, or ten changes of the root key.
_LONGEST_SECONDS = {"rotate": 1.2, "rekey": 0.3}
_ORIGIN = "https://api.openai.com:443"


async def test_killed_at_any_moment_no_secret_is_lost(tmp_path: Path, migrated_file: Path, thorough: bool) -> None:
    shutil.copy(migrated_file, tmp_path / "ai_lab.sqlite")
    url, config_dir = f"sqlite+aiosqlite:///{tmp_path / 'ai_lab.sqlite'}", tmp_path / "config"
    expected = {new_id(): f"sk-CANARY{secrets.token_hex(16)}" for _ in range(_SECRETS)}
    async with opened(url, config_dir) as (state, _):
        await _store(state, expected)

    chance, found = random.Random(20), {"rotating": 0, "two root keys": 0}  # noqa: S311 - no secret
    for number in range(_ROUNDS if thorough else _SHORT_ROUNDS):
        what = ("rotate", "rekey")[number % 2]
        delay = chance.uniform(0, _LONGEST_SECONDS[what])
        await asyncio.to_thread(_run_and_kill, tmp_path, url, config_dir, what, delay)
        async with opened(url, config_dir, goes_on=False) as (state, _):
            assert state.sealed is None, (number, state.sealed)
            assert state.stored
            assert _secrets_of(state) == expected, number
            _forget_root_keys(config_dir, state.stored.wrappings)
            rotation = rotation_of(state)
            found["rotating"] += bool(rotation and rotation.status == "running" and 0 < rotation.done < rotation.total)
            found["two root keys"] += len(state.stored.wrappings) == 2

    async with opened(url, config_dir) as (state, rotator):
        await rotator.rotate(actor="test")
        await complete(state)
        rotation = rotation_of(state)
        assert rotation
        assert (rotation.status, rotation.done, rotation.unreadable) == ("complete", _SECRETS, 0)
        assert _secrets_of(state) == expected
        keyring = state.keyring
        assert {row.data_key for row in state.rows.values()} == {keyring.active}
        assert {name for name, key in keyring.data_keys.items() if not key.retired_at} == {keyring.active}
        verified = await Audit(keyring).verify(state.database)
        assert verified.is_intact, verified
    if thorough:  # the kills came where they can do harm
        assert found["rotating"] >= 10
        assert found["two root keys"] >= 5


def _run_and_kill(folder: Path, url: str, config_dir: Path, what: str, delay_seconds: float) -> None:
    with (
        (folder / "program.log").open("ab") as log,
        subprocess.Popen(
            [sys.executable, str(ROOT / "tests/vault/rotate_program.py"), url, str(config_dir), what],
            env=environment(folder) | {"PYTHONPATH": str(ROOT)},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
        ) as program,
    ):
        assert program.stdout
        assert program.stdout.readline() == b"begun\n", (folder / "program.log").read_text()
        try:
            ended = program.wait(delay_seconds)
        except subprocess.TimeoutExpired:
            program.kill()
        else:
            raise AssertionError(f"it ended by itself with {ended}: {(folder / 'program.log').read_text()}")


async def _store(state: VaultState, expected: dict[str, str]) -> None:
    async with state.changing() as (_, repository):
        keyring = state.keyring
        for number, (key_id, secret) in enumerate(expected.items()):
            token = encrypt(secret, Place(key_id, "openai", _ORIGIN, 1), keyring.active, keyring.data_keys["k1"].key)
            await repository.insert_key(
                {
                    "id": key_id,
                    "service_name": "openai",
                    "label": str(number),
                    "base_origin": _ORIGIN,
                    "state": "active",
                    "version": 1,
                    "token": token,
                    "data_key": keyring.active,
                    "hint": "…",
                    "fingerprint": "",
                    "details": {},
                    "created_at": now(),
                }
            )


def _secrets_of(state: VaultState) -> dict[str, str]:
    data_keys = state.keyring.data_keys
    return {
        row.id: decrypt(row.token or "", row.place(), data_keys[row.data_key or ""].key)
        for row in state.rows.values()
        if row.state == "active"
    }


def _forget_root_keys(config_dir: Path, wanted: dict[str, dict[str, str]]) -> None:
    """Remove the root keys that the database does not name, as somebody might who tidies up."""
    for file in config_dir.glob("master-*.key"):
        if file.stem.removeprefix("master-") not in wanted:
            file.unlink()
