"""``.token_manager_config.json`` of the AI Token Manager, whose Fernet key lies in ``.token_manager_key`` beside it.

A list of providers, or an object with the list ``providers``. Each: ``name``, ``api_key_encrypted`` (base64 of a
Fernet token; the tool also put plain keys there where it failed to encrypt) or an older ``api_key``, ``base_url``,
limits, ``status`` and ``usage``. ``headers`` may hold a key in the open and is never read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from ai_lab.errors import AddressRefused, ApiKeyRefused, SourceDamaged
from ai_lab.importer.json_stream import JsonFile
from ai_lab.importer.keys.rows import Found, NotReadable, Opener, Row, Unreadable, known_name, own_name, shown
from ai_lab.providers.known_services import known_services, origin_of
from ai_lab.vault.formats import judge

_SOURCE = "token-manager"
_KEY_FILE = ".token_manager_key"
_MOST_PROVIDERS = 10_000
_LIMITS = ("rate_limit", "token_limit")
_STATUSES = ("active", "exhausted", "error", "disabled")
_MOST_USAGE_FIELDS = 20
_LONGEST_USAGE_TEXT = 64
_LARGEST_COUNT = 2**53
#: Where the tool met a service that answers elsewhere today: its key is a key of the service all the same.
_RETIRED_ORIGINS = {"https://api-inference.huggingface.co:443": "huggingface"}


def token_manager_keys(path: Path, key_file: Path | None) -> Iterator[Row]:
    """Yield the providers of a configuration.

    Args:
        path: usually ``~/.token_manager_config.json``.
        key_file: default: ``.token_manager_key`` beside it.

    Raises:
        SourceDamaged: the file cannot be read, or holds no list of providers.
    """
    opener = Opener(key_file or path.resolve().parent / _KEY_FILE)
    number = 0
    with JsonFile(path) as file:
        try:
            for number, entry in enumerate(_entries(file), start=1):
                if number > _MOST_PROVIDERS:
                    yield Unreadable(f"provider {number}", f"more than {_MOST_PROVIDERS} are not read")
                    return
                yield _row(f"provider {number}", entry, opener)
        except SourceDamaged as damage:
            if not number:
                raise
            place = ", ".join(f"{name} {at}" for name, at in damage.position.items())
            yield Unreadable(f"after provider {number}", f"{place}: {damage.reason}; the rest cannot be read")


def _entries(file: JsonFile) -> Iterator[Any]:
    if file.peek() == "[":
        yield from file.items()
        return
    if file.peek() != "{":
        raise file.damaged("expected a list of providers, or an object with the list 'providers'")
    is_there = False
    for name in file.members():
        if name == "providers" and file.peek() == "[":
            is_there = True
            yield from file.items()
        else:
            file.value()
    if not is_there:
        raise file.damaged("there is no list 'providers' in it")


def _row(where: str, entry: Any, opener: Opener) -> Row:
    if not isinstance(entry, dict):
        return Unreadable(where, "it is no object with a name and a key")
    name = entry.get("name")
    if not isinstance(name, str) or not name.strip():
        return Unreadable(where, "it has no name")
    where = f"{where} ({shown(name)})"
    known = known_name(name)
    base_url = entry.get("base_url")
    url = base_url.strip() if isinstance(base_url, str) and base_url.strip() else None
    service = known or own_name(name)
    if service is None or (known is None and url is None):
        return Unreadable(where, "AI Lab does not know it, and no base_url says where it is: ai-lab keys add NAME …")
    remarks = []
    try:
        stored = entry.get("api_key_encrypted") or entry.get("api_key")
        secret, was_encrypted = opener.open(stored, may_be_plain=True)
    except NotReadable as reason:
        return Unreadable(where, str(reason))
    if not was_encrypted:
        remarks.append("it lies unencrypted in that file: delete the file after the import")
    if known and (url is None or _is_own_address(known, url)):
        url = None
    details = _details(entry, remarks)
    if _bare(secret) in json.dumps(details, ensure_ascii=False):
        details = {"imported_from": _SOURCE}
        remarks.append("its other fields hold the key too and stay behind")
    return Found(where, service, SecretStr(secret), _SOURCE, url, details, tuple(remarks))


def _bare(secret: str) -> str:
    """Return a key as it will be stored, and as it may stand elsewhere; what can be no key is returned as it is."""
    try:
        return judge(None, secret, force=True).secret
    except ApiKeyRefused:
        return secret


def _is_own_address(service_name: str, url: str) -> bool:
    """Return whether a service goes by this address, or did when the tool was written: ours is used then."""
    try:
        return known_services()[service_name].is_own(url) or _RETIRED_ORIGINS.get(origin_of(url)) == service_name
    except AddressRefused:
        return False  # the vault says what is wrong with it


def _details(entry: dict[str, Any], remarks: list[str]) -> dict[str, Any]:
    """Return what the vault keeps beside the key; what is no figure or short text stays behind."""
    details: dict[str, Any] = {"imported_from": _SOURCE}
    for name in _LIMITS:
        if name in entry:
            if _is_count(entry[name]):
                details[name] = entry[name]
            else:
                remarks.append(f"its {name} is no number and stays behind")
    if "status" in entry:
        # Some versions wrote the name of the member instead of its value.
        given = entry["status"]
        status = given.rpartition(".")[2].strip().lower() if isinstance(given, str) else ""
        details["status"] = status if status in _STATUSES else "unknown"
        if status not in _STATUSES:
            remarks.append("its status is none that the tool has")
        elif status != "active":
            remarks.append(f"the tool had it as {status}")
    usage = entry.get("usage")
    if isinstance(usage, dict):
        kept = {name: value for name, value in usage.items() if _is_small(name) and _is_small(value)}
        details["usage"] = dict(list(kept.items())[:_MOST_USAGE_FIELDS])
        if len(details["usage"]) < len(usage):
            remarks.append("a part of its usage is no figure and stays behind")
    elif usage is not None:
        remarks.append("its usage is no object and stays behind")
    return details


def _is_count(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _LARGEST_COUNT  # neither for NaN nor for infinity


def _is_small(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST_USAGE_TEXT and value.isprintable()
    return value is None or isinstance(value, bool) or _is_count(value)
