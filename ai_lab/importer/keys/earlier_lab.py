"""The table ``api_keys`` of the earlier AI-Lab: Fernet tokens of one key, which lies in ``encryption_key.key``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from ai_lab.errors import SourceDamaged
from ai_lab.importer.earlier_database import EarlierDatabase
from ai_lab.importer.keys.rows import Found, NotReadable, Opener, Row, Unreadable, known_name, own_name, shown

_SOURCE = "ai-lab-db"
_KEY_FILE = "encryption_key.key"
#: What the column is called; one whose name says nothing of encryption may hold a key as it is.
_COLUMNS = ("encrypted_key", "api_key_encrypted", "encrypted_api_key", "api_key", "key")
_TIMES = ("created_at", "updated_at")
_LONGEST_TIME = 40


def earlier_lab_keys(path: Path, key_file: Path | None) -> Iterator[Row]:
    """Yield the keys of an earlier database.

    Args:
        path: the ``ai_lab.db``.
        key_file: default: ``encryption_key.key`` beside it, else in the current folder.

    Raises:
        DatabaseUnusable: it is no earlier database.
        SourceDamaged: its table of keys cannot be read at all.
    """
    opener = Opener(key_file or _default_key_file(path))
    with EarlierDatabase(path) as database:
        for number, fields in enumerate(database.api_keys(), start=1):
            where = f"api_keys row {number}"
            yield Unreadable(where, fields.reason) if isinstance(fields, SourceDamaged) else _row(where, fields, opener)


def _row(where: str, fields: dict[str, Any], opener: Opener) -> Row:
    name = fields.get("service_name") or fields.get("service")
    if not isinstance(name, str) or not name.strip():
        return Unreadable(where, "it names no service")
    where = f"{where} ({shown(name)})"
    service = known_name(name)
    base_url = fields.get("base_url")
    if service is None:
        service = own_name(name)
        if service is None or not isinstance(base_url, str) or not base_url:
            return Unreadable(where, "AI Lab does not know this service: ai-lab keys add NAME --base-url https://…")
    column = next((column for column in _COLUMNS if fields.get(column) not in {None, ""}), None)
    try:
        is_plain = column is not None and "encrypted" not in column
        secret, _ = opener.open(fields.get(column) if column else None, may_be_plain=is_plain)
    except NotReadable as reason:
        return Unreadable(where, str(reason))
    details: dict[str, Any] = {"imported_from": _SOURCE}
    for time in _TIMES:
        value = fields.get(time)
        if isinstance(value, str) and len(value) <= _LONGEST_TIME and value.isprintable():
            details[time] = value
    remarks: tuple[str, ...] = ()
    if fields.get("is_active") in (0, "0", "false", "False"):
        details["is_active"] = False
        remarks = ("it was switched off there",)
    url = base_url if isinstance(base_url, str) and base_url else None
    return Found(where, service, SecretStr(secret), _SOURCE, url, details, remarks)


def _default_key_file(path: Path) -> Path:
    beside = path.resolve().parent / _KEY_FILE
    here = Path(_KEY_FILE)
    return here if here.is_file() and not beside.is_file() else beside
