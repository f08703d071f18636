"""The chain shows every change of itself, and says which entry is the first bad one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update
from sqlalchemy.engine import make_url

from ai_lab.database import Database
from ai_lab.errors import InvalidCursor, InvalidRequest
from ai_lab.logging import RequestIds, request_ids
from ai_lab.vault.audit import RESET, Audit
from ai_lab.vault.keyring import Keyring
from ai_lab.vault.schemas import AuditVerification
from ai_lab.vault.tables import vault_audit, vault_state

_ENTRIES = 6


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(make_url(database_url))
    async with database.transaction() as db:
        row = {"id": 1, "generation": 1, "wrappings": {}, "salt": b"", "audit_sequence": 0, "audit_mac": ""}
        await db.execute(insert(vault_state).values(row))
    yield database
    await database.close()


@pytest.fixture
def audit() -> Audit:
    return Audit(Keyring.new())


async def _append(audit: Audit, database: Database, count: int = 1, **entry: Any) -> None:
    for number in range(count):
        values = {"action": "create", "outcome": "ok", "actor": f"cli:{number}", "details": {"at": 0.1, "n": [number]}}
        async with database.transaction(durable=True) as db:
            await audit.append(db, **(values | entry))


async def _execute(database: Database, *statements: Any) -> None:
    async with database.transaction() as db:
        for statement in statements:
            await db.execute(statement)


async def _cut_after(database: Database, sequence: int) -> None:
    """Remove the newest entries and set the head back, as somebody would who knows the tables."""
    async with database.transaction() as db:
        kept = select(vault_audit.c.mac).where(vault_audit.c.sequence == sequence)
        mac = (await db.execute(kept)).scalar_one()
        await db.execute(delete(vault_audit).where(vault_audit.c.sequence > sequence))
        await db.execute(update(vault_state).values(audit_sequence=sequence, audit_mac=mac))


async def test_a_chain_is_whole_whatever_its_entries_hold(database: Database, audit: Audit) -> None:
    assert (await audit.verify(database)) == AuditVerification(is_intact=True, entries=0)
    token = request_ids.set(RequestIds("r" * 200, "0" * 32))
    try:
        await _append(audit, database, target="id", service_name="openai", label="ü\x00\ud800" * 99, actor="a" * 999)
    finally:
        request_ids.reset(token)
    await _append(
        audit, database, count=2, details={"größe": 1e300, "null": None, "text": "\ud800\x00", "list": (1, 2)}
    )
    verified = await audit.verify(database)
    assert verified.is_intact, verified
    assert verified.entries == 3
    page = await audit.page(database, 2)
    assert [entry.sequence for entry in page.data] == [3, 2]
    assert page.has_more
    assert verified.head == f"3:{page.data[0].mac}"
    rest = await audit.page(database, 2, page.after)
    assert [entry.sequence for entry in rest.data] == [1]
    assert rest.data[0].request_id == "r" * 128
    assert not rest.has_more
    with pytest.raises(InvalidCursor):
        await audit.page(database, 2, "%%")


async def test_an_entry_of_a_unit_of_work_that_fails_was_never_there(database: Database, audit: Audit) -> None:
    await _append(audit, database, 2)
    with suppress(RuntimeError):
        async with database.transaction(durable=True) as db:
            await audit.append(db, action="create", outcome="ok", actor="cli")
            raise RuntimeError
    await _append(audit, database)
    assert (await audit.verify(database)).is_intact


def _set(number: int, **values: Any) -> Any:
    return update(vault_audit).where(vault_audit.c.sequence == number).values(values)


_COLUMNS = [column.name for column in vault_audit.columns if column.name not in {"sequence", "at"}]


async def test_any_changed_field_is_found(database: Database, audit: Audit) -> None:
    await _append(audit, database, _ENTRIES, target="id", service_name="openai", label="work")
    others: dict[str, Any] = {"count": 2, "details": {"n": [8]}}
    async with database.reading() as db:
        was = (await db.execute(select(vault_audit).where(vault_audit.c.sequence == 3))).mappings().one()
    for name in _COLUMNS:
        await _execute(database, _set(3, **{name: others.get(name, "f" * 64 if "mac" in name else "other")}))
        verified = await audit.verify(database)
        assert (verified.is_intact, verified.first_bad_sequence) == (False, 3), name
        await _execute(database, _set(3, **{name: was[name]}))
    await _execute(database, _set(3, at=was["at"].replace(microsecond=(was["at"].microsecond + 1) % 1_000_000)))
    assert (await audit.verify(database)).first_bad_sequence == 3


def _swap(first: int, second: int) -> list[Any]:
    parked = 1000
    return [_set(first, sequence=parked), _set(second, sequence=first), _set(parked, sequence=second)]


_DAMAGE: list[tuple[str, list[Any], int]] = [
    ("first", [delete(vault_audit).where(vault_audit.c.sequence == 1)], 1),
    ("middle", [delete(vault_audit).where(vault_audit.c.sequence == 4)], 4),
    ("two", [delete(vault_audit).where(vault_audit.c.sequence.in_([4, 5]))], 4),
    ("swapped", _swap(2, 5), 2),
    ("tail", [delete(vault_audit).where(vault_audit.c.sequence >= 5)], 5),
    ("all", [delete(vault_audit)], 1),
    ("head", [update(vault_state).values(audit_mac="0" * 64)], _ENTRIES),
    ("number of the head", [update(vault_state).values(audit_sequence=4)], 4),
]


async def test_removed_and_moved_entries_are_found(database: Database, audit: Audit) -> None:
    await _append(audit, database, _ENTRIES)
    async with database.reading() as db:
        entries = [dict(row) for row in (await db.execute(select(vault_audit))).mappings()]
        state = dict((await db.execute(select(vault_state))).mappings().one())
    for name, statements, first_bad in _DAMAGE:
        await _execute(database, *statements)
        verified = await audit.verify(database)
        assert (verified.is_intact, verified.first_bad_sequence) == (False, first_bad), name
        assert verified.reason
        await _execute(database, delete(vault_audit), insert(vault_audit).values(entries))
        await _execute(database, update(vault_state).values(state))
        assert (await audit.verify(database)).is_intact


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_an_inserted_entry_is_found_wherever_it_is(database: Database, audit: Audit) -> None:
    await _append(audit, database, _ENTRIES)
    async with database.reading() as db:
        row = dict((await db.execute(select(vault_audit).where(vault_audit.c.sequence == 2))).mappings().one())
    await _execute(database, insert(vault_audit).values(row | {"sequence": _ENTRIES + 1}))
    assert (await audit.verify(database)).first_bad_sequence == _ENTRIES + 1
    forged = row | {"sequence": _ENTRIES + 1, "previous_mac": row["mac"], "mac": "1" * 64}
    await _execute(
        database,
        delete(vault_audit).where(vault_audit.c.sequence == _ENTRIES + 1),
        *(_set(sequence, sequence=sequence + 1) for sequence in range(_ENTRIES, 2, -1)),
        insert(vault_audit).values(forged | {"sequence": 3}),
        update(vault_state).values(audit_sequence=_ENTRIES + 1),
    )
    assert (await audit.verify(database)).first_bad_sequence == 3


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_whole_chain_that_is_too_short_is_seen_against_a_noted_head_alone(
    database: Database, audit: Audit
) -> None:
    await _append(audit, database, _ENTRIES)
    noted = (await audit.verify(database)).head
    await _append(audit, database)
    assert (await audit.verify(database, noted)).is_intact

    await _cut_after(database, 4)
    assert (await audit.verify(database)).is_intact  # as its docstring says
    verified = await audit.verify(database, noted)
    assert (verified.is_intact, verified.first_bad_sequence) == (False, 5)
    await _append(audit, database, 4, actor="somebody else")
    assert (await audit.verify(database)).is_intact
    assert (await audit.verify(database, noted)).first_bad_sequence == _ENTRIES
    with pytest.raises(InvalidRequest):
        await audit.verify(database, "6:short")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_another_key_cannot_write_an_entry(database: Database, audit: Audit) -> None:
    await _append(audit, database, 2)
    await _append(Audit(Keyring.new()), database)
    assert (await audit.verify(database)).first_bad_sequence == 3


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_after_a_reset_the_chain_goes_on(database: Database, audit: Audit) -> None:
    await _append(audit, database, 3)
    fresh = Audit(Keyring.new())
    await _append(fresh, database, action=RESET)
    await _append(fresh, database, 2)
    verified = await fresh.verify(database)
    assert (verified.is_intact, verified.entries) == (True, 6)
    assert (await audit.verify(database)).first_bad_sequence == 4
    await _execute(database, _set(5, action=RESET))  # nobody can make the vault believe in a reset
    assert (await fresh.verify(database)).first_bad_sequence == 5


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_chain_of_many_pages_is_walked_to_its_end(database: Database, audit: Audit) -> None:
    async with database.transaction() as db:
        for number in range(1, 521):
            await audit.append(db, action="use", outcome="ok", actor="chat", count=number)
    assert (await audit.verify(database)).entries == 520
    await _execute(database, _set(510, actor="other"))
    assert (await audit.verify(database)).first_bad_sequence == 510


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("damage", ["at = 'yesterday'", "details = '{'", "actor = x'00ff'", "mac = x'00ff'"])
async def test_an_entry_that_cannot_be_read_is_named(database: Database, audit: Audit, damage: str) -> None:
    await _append(audit, database, _ENTRIES)
    async with database.transaction() as db:
        await db.exec_driver_sql(f"UPDATE vault_audit SET {damage} WHERE sequence = 4")  # noqa: S608 - from above
    assert (await audit.verify(database)).first_bad_sequence == 4
