"""Moves every secret to a new data key, while the vault is in use, and goes on with it after any kind of end.

    1. One transaction writes the keyring with a new active data key: from now on new secrets get it.
    2. Rows are read, decrypted and encrypted, a few at a time, and written in one short transaction, which leaves those
       alone that hold another secret by then: an edit of the user wins.
    3. All rows are read from the database and decrypted with the new key.
    4. One transaction marks the data keys that no row uses as retired. They are dropped 30 days later, since backups of
       the database need them until then.

Every step may be done twice, and by two processes at once. What cannot be decrypted stays as it is, is counted, and
keeps its data key from being dropped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ai_lab.clock import now
from ai_lab.errors import DatabaseUnavailable, RootKeyElsewhere, VaultBusy, VaultSealed
from ai_lab.vault.audit import Audit
from ai_lab.vault.cipher import Undecipherable, decrypt, encrypt
from ai_lab.vault.keyring import Keyring
from ai_lab.vault.rekey import RootKeyChange
from ai_lab.vault.repository import KeyRow, VaultRepository
from ai_lab.vault.schemas import KeyState, Rekey, Rotation
from ai_lab.vault.state import VaultState
from ai_lab.vault.unsealing import wrapping

#: How long a data key is kept that no row uses: the oldest backup that can be restored.
KEPT_DAYS = 30
_RETRY_SECONDS = 5.0
_VERIFIED_AT_ONCE = 10
_VAULT = "vault"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast secrets are moved: others, who wait during a step, shall hardly notice.

    Attributes:
        rows_at_once: moved by one step. A step costs four statements and a sync, of however many rows.
        rest_share: rest after a step, as a multiple of the time that it took. Above 100, fewer than one request in a
            hundred meets a step, so that their p99 does not show it.
        longest_rest_seconds: even on a machine that is busy.
    """

    rows_at_once: int = 25
    rest_share: float = 120.0
    longest_rest_seconds: float = 2.0


class Rotator:
    """Rotation and re-key of one vault.

    Args:
        state: of the vault.
        pace: of rotations.
    """

    def __init__(self, state: VaultState, pace: Pace = Pace()) -> None:
        self._state = state
        self._pace = pace
        self._keyring_turn = asyncio.Lock()
        self._root_key_change = RootKeyChange(state, self._keyring_turn)
        self._driving: asyncio.Task[None] | None = None
        self._seen: Rotation | None = None

    async def rotate(self, *, actor: str) -> Rotation:
        """Start to move all secrets to a new data key, in the background; returns the one that is running, if any.

        Raises:
            VaultSealed: nothing can be moved.
            VaultBusy: a change of the root key has not come to its end.
        """
        async with self._keyring_turn, self._state.changing() as (_, repository):
            running = self._running() or await self._begin(repository, actor)
        self._drive_on()
        return running

    async def rekey(self, *, actor: str) -> Rekey:
        """Put the vault under a new root key; see ``RootKeyChange.change``."""
        return await self._root_key_change.change(actor=actor)

    async def resume(self) -> None:
        """Go on, after a start, with what another process or an earlier one left unfinished."""
        if self._state.sealed:
            return
        try:
            await self._root_key_change.finish(actor=_VAULT)
        except (RootKeyElsewhere, VaultBusy, VaultSealed) as error:  # both root keys go on opening the vault
            _log.warning("a change of the root key could not be finished", extra={"reason": error.detail})
        if not self._state.sealed and self._running():
            self._drive_on()

    async def keep_up(self) -> None:
        """Take over a rotation that has stood still since the last call, and drop data keys that are old enough.

        Called every few minutes.
        """
        await self._state.refresh()
        if self._state.sealed:
            return
        running, seen = self._running(), self._seen
        self._seen = running
        if running and running == seen:
            self._drive_on()
        await self._drop_retired()

    async def close(self) -> None:
        """Stop; the next start goes on."""
        if self._driving:
            self._driving.cancel()
            await asyncio.wait([self._driving])

    # -- 1 ---------------------------------------------------------------------------------------------------------

    def _running(self) -> Rotation | None:
        newest = self._state.rotation()
        is_running = newest and newest.status == "running" and newest.to_data_key == self._state.keyring.active
        return newest if is_running else None

    async def _begin(self, repository: VaultRepository, actor: str) -> Rotation:
        self._root_key_change.refuse_if_unfinished()
        before = self._state.keyring
        keyring = before.with_new_data_key()
        waiting, unreadable = _to_move(self._state.rows.values(), keyring.active)
        rotation = Rotation(
            status="running",
            from_data_keys=sorted({before.active, *(row.data_key for row in waiting if row.data_key)}),
            to_data_key=keyring.active,
            total=len(waiting) + unreadable,
            done=0,
            unreadable=unreadable,
            started_at=now(),
        )
        self._save(repository, rotation, keyring)
        details = {"from": rotation.from_data_keys, "to": rotation.to_data_key, "total": rotation.total}
        await Audit(keyring).append(repository.db, action="rotate_started", outcome="ok", actor=actor, details=details)
        return rotation

    def _save(self, repository: VaultRepository, rotation: Rotation, keyring: Keyring | None = None) -> None:
        repository.at_the_end["rotation"] = rotation.model_dump(mode="json")
        if keyring:
            repository.at_the_end["wrappings"] = wrapping(keyring, self._state.root)

    # -- in the background -----------------------------------------------------------------------------------------

    def _drive_on(self) -> None:
        if self._driving is None or self._driving.done():
            self._driving = asyncio.create_task(self._drive(), name="rotation of the vault")

    async def _drive(self) -> None:
        while True:
            try:
                await self._state.refresh()
                if self._running() is None:
                    return
                if not await self._move_all() and await self._verify() and await self._finish():
                    return
            except VaultSealed as error:
                _log.warning("a rotation of the vault stopped", extra={"reason": error.detail})
                return
            except (DatabaseUnavailable, VaultBusy) as error:
                _log.warning("a rotation of the vault waits", extra={"reason": error.detail})
                await asyncio.sleep(_RETRY_SECONDS)

    # -- 2 ---------------------------------------------------------------------------------------------------------

    async def _move_all(self) -> int:
        """Move what waits in the database; returns how many rows that were."""
        waiting, unreadable = _to_move(await self._in_database(), self._state.keyring.active)
        at_once = self._pace.rows_at_once
        for begin in range(0, len(waiting), at_once):
            started = time.perf_counter()
            left = max(0, len(waiting) - begin - at_once)
            unreadable += await self._move(waiting[begin : begin + at_once], left, unreadable)
            if left:
                await self._rest(started)
        return len(waiting)

    async def _move(self, rows: list[KeyRow], left: int, unreadable: int) -> int:
        """Move rows, after which ``left`` wait; returns how many of them cannot be read and were set aside."""
        keyring = self._state.keyring
        secrets = [(row, _secret_of(row, keyring)) for row in rows]
        moved = [(row, _under(keyring, row, secret)) for row, secret in secrets if secret is not None]
        bad = [row for row, secret in secrets if secret is None]
        async with self._state.changing() as (_, repository):
            rotation = self._running()
            if rotation is None or rotation.to_data_key != keyring.active:
                return 0
            await repository.move_keys(moved, keyring.active)
            repository.touched.update(row.id for row in rows)  # memory may not know them as they are in the database
            for row in bad:
                await self._set_aside(repository, row)
            unreadable += len(bad)
            done = min(rotation.total, max(rotation.done, rotation.total - unreadable - left))
            self._save(repository, rotation.model_copy(update={"done": done, "unreadable": unreadable}))
        return len(bad)

    async def _in_database(self) -> list[KeyRow]:
        """Return the rows as they are there, whatever this process knows of them."""
        async with self._state.database.reading() as db:
            return await VaultRepository(db).keys()

    async def _rest(self, started: float) -> None:
        worked_seconds = time.perf_counter() - started
        await asyncio.sleep(min(worked_seconds * self._pace.rest_share, self._pace.longest_rest_seconds))

    async def _set_aside(self, repository: VaultRepository, row: KeyRow) -> bool:
        """Remember that a row cannot be read; returns False where it has another secret by now."""
        keyring = self._state.keyring
        state: KeyState = "tampered" if row.data_key in keyring.data_keys else "unreadable"
        if not await repository.update_key(row.id, {"state": state}, if_still=row):
            return False
        await Audit(keyring).append(
            repository.db,
            action="rotate_row",
            outcome=state,
            actor=_VAULT,
            target=row.id,
            service_name=row.service_name,
            label=row.label,
        )
        return True

    # -- 3 ---------------------------------------------------------------------------------------------------------

    async def _verify(self) -> bool:
        """Decrypt all that was moved, as it is in the database; sets aside what is not right, and says if all is."""
        rows = [row for row in await self._in_database() if row.state == "active" and row.token]
        bad: list[KeyRow] = []
        started = time.perf_counter()
        for number, row in enumerate(rows):
            if row.data_key == self._state.keyring.active and _secret_of(row, self._state.keyring) is None:
                bad.append(row)
            if number % _VERIFIED_AT_ONCE == 0:
                await self._rest(started)
                started = time.perf_counter()
        for row in bad:
            async with self._state.changing() as (_, repository):
                await self._set_aside(repository, row)
        return not bad

    # -- 4 ---------------------------------------------------------------------------------------------------------

    async def _finish(self) -> bool:
        """Retire the data keys that are used no more; returns False where there is still something to move."""
        async with self._keyring_turn, self._state.changing() as (_, repository):
            rotation, keyring = self._running(), self._state.keyring
            if rotation is None:
                return True
            self._root_key_change.refuse_if_unfinished()
            waiting, unreadable = _to_move(await repository.keys(), keyring.active)
            if waiting:
                return False
            moment = now()
            retired = {
                name: key if name == keyring.active or key.retired_at else replace(key, retired_at=moment)
                for name, key in keyring.data_keys.items()
            }
            done = rotation.total - min(unreadable, rotation.total)
            changes = {"status": "complete", "done": done, "unreadable": unreadable, "finished_at": moment}
            self._save(repository, rotation.model_copy(update=changes), replace(keyring, data_keys=retired))
            details = {"to": rotation.to_data_key, "done": done, "unreadable": unreadable}
            await Audit(keyring).append(
                repository.db, action="rotate_finished", outcome="ok", actor=_VAULT, details=details
            )
        return True

    async def _drop_retired(self) -> None:
        horizon = now() - timedelta(days=KEPT_DAYS)
        if not _retired_before(self._state.keyring, horizon):
            return
        async with self._keyring_turn, self._state.changing() as (_, repository):
            keyring = self._state.keyring
            named = {row.data_key for row in await repository.keys(with_revoked=True)}
            dropped = _retired_before(keyring, horizon) - named
            if not dropped or self._root_key_change.is_unfinished():
                return
            left = {name: key for name, key in keyring.data_keys.items() if name not in dropped}
            await repository.save_state(wrappings=wrapping(replace(keyring, data_keys=left), self._state.root))
            details = {"data_keys": sorted(dropped)}
            await Audit(keyring).append(
                repository.db, action="data_keys_dropped", outcome="ok", actor=_VAULT, details=details
            )


def _waits(row: KeyRow, active: str) -> bool:
    return row.state == "active" and row.token is not None and row.data_key != active


def _to_move(rows: Iterable[KeyRow], active: str) -> tuple[list[KeyRow], int]:
    """Return the rows that wait, and how many cannot be moved."""
    waiting, unreadable = [], 0
    for row in rows:
        if _waits(row, active):
            waiting.append(row)
        elif row.state in ("tampered", "unreadable"):
            unreadable += 1
    return waiting, unreadable


def _secret_of(row: KeyRow, keyring: Keyring) -> str | None:
    data_key = keyring.data_keys.get(row.data_key or "")
    try:
        return decrypt(row.token or "", row.place(), data_key.key) if data_key else None
    except Undecipherable:
        return None


def _under(keyring: Keyring, row: KeyRow, secret: str) -> str:
    """Return the token of a row under the active data key."""
    return encrypt(secret, row.place(), keyring.active, keyring.data_keys[keyring.active].key)


def _retired_before(keyring: Keyring, moment: datetime) -> set[str]:
    return {name for name, key in keyring.data_keys.items() if key.retired_at and key.retired_at < moment}
