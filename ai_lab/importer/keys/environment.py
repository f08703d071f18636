"""Keys in the environment and in ``.env`` files, under the names that the services' own programs read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import DotEnvSettingsSource

from ai_lab.errors import SourceDamaged
from ai_lab.importer.keys.rows import Found, Row, Unreadable, shown
from ai_lab.providers.known_services import KnownService, known_services
from ai_lab.settings import Settings

_LARGEST_FILE_BYTES = 1024 * 1024
_LOOKS_LIKE_KEY = re.compile(r"[A-Z0-9_]{1,60}_API_KEY", re.IGNORECASE)


def environment_keys(settings: Settings) -> Iterator[Row]:
    """Yield the keys that the environment and our ``.env`` hold; they are used from there without being stored."""
    yield from _keys(settings.named, "environment")


def env_file_keys(path: Path) -> Iterator[Row]:
    """Yield the keys of a ``.env`` file, and those in it that belong to no service we know.

    Raises:
        SourceDamaged: it cannot be read as text, or is far too large for such a file.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise SourceDamaged(
                f"larger than {_LARGEST_FILE_BYTES >> 20} MB, so this is no .env file", origin=str(path)
            )
        with path.open("rb"):
            pass  # what follows takes a missing file for an empty one
        values = DotEnvSettingsSource(Settings, env_file=path, case_sensitive=True).env_vars
    except OSError as error:
        raise SourceDamaged(f"cannot be read ({error.strerror})", origin=str(path)) from None
    except ValueError:
        raise SourceDamaged("this is no text in UTF-8. Save it as such, then try again", origin=str(path)) from None
    named = {name.upper(): value for name, value in values.items() if value and value.strip()}
    yield from _keys(lambda name: named.get(name, "").strip() or None, path.name)
    known = {name for service in known_services().values() for name in service.environment_names}
    for name in sorted(set(named) - known):
        if _LOOKS_LIKE_KEY.fullmatch(name):
            reason = "no service of AI Lab reads this name: ai-lab keys add NAME --base-url https://… --stdin stores it"
            yield Unreadable(shown(name), reason)


def _keys(value_of: Callable[[str], str | None], source: str) -> Iterator[Row]:
    for service in known_services().values():
        seen: set[str] = set()
        for name in service.environment_names:
            value = value_of(name)
            if value is None or value in seen:
                continue
            seen.add(value)
            yield _row(service, name, value, value_of, source)


def _row(service: KnownService, name: str, value: str, value_of: Callable[[str], str | None], source: str) -> Row:
    endpoint_name = service.address_name(name)
    base_url = value_of(endpoint_name)
    if service.base_url is None and base_url is None:
        return Unreadable(name, f"{service.title} needs its address too: set {endpoint_name} beside it")
    return Found(name, service.name, SecretStr(value), source, base_url, {"imported_from": source})
