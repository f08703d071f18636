"""Owns the tokens of the server: when one is needed, where it lies, and whether what a client shows is it.

It does not know HTTP: ``backend.access`` reads headers and answers, ``ai_lab.client`` sends the header.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from ai_lab.errors import TokenUnusable
from ai_lab.settings import Settings

TokenScope = Literal["admin", "metrics"]

_FEWEST_CHARACTERS = 32
_FEWEST_DIFFERENT_CHARACTERS = 10
_LONGEST_FILE_BYTES = 4096
_OTHERS_MAY = 0o077
_OTHERS_MAY_WRITE = 0o022
#: Docker, Kubernetes and systemd mount secrets there, readable for all in the container.
_ORCHESTRATED = (Path("/run/secrets"), Path("/run/credentials"))
_COOKIE_PURPOSE = b"ai-lab/cookie/v1"


@dataclass(frozen=True)
class Client:
    """Who sent a request: for rate limits and the audit.

    ``who`` is "local" where no token is needed, else the scope of the token, else "anonymous".
    """

    who: Literal["local", "admin", "metrics", "anonymous"]
    address: str

    def __str__(self) -> str:
        """Return the name that the audit notes."""
        return f"{self.who} {self.address}"


class Tokens:
    """What the server knows of its tokens: digests, so that its memory gives none away for long.

    Args:
        admin: the token that may do everything.
        metrics: the token that may only read metrics.
        place: where the admin's is kept, for people.
        is_new: whether it was made at this start, so that ``take_new`` may show it once.
    """

    def __init__(self, admin: str, metrics: str, *, place: str = "", is_new: bool = False) -> None:
        self.place = place
        self._new = admin if is_new else None
        self._digests: dict[TokenScope, bytes] = {"admin": _digest(admin), "metrics": _digest(metrics)}
        self._cookie_digest = _digest(cookie_for(admin))

    def scope_of(self, shown: str) -> TokenScope | None:
        """Return what the shown token allows, None if it is no token of ours; takes equally long for all."""
        digest = _digest(shown)
        found: TokenScope | None = None
        for scope, expected in self._digests.items():
            if hmac.compare_digest(digest, expected):
                found = scope
        return found

    def is_cookie(self, shown: str) -> bool:
        """Return whether this is the cookie of somebody who logged in with the admin's token."""
        return hmac.compare_digest(_digest(shown), self._cookie_digest)

    def take_new(self) -> str | None:
        """Return the admin's token if it was made at this start, and forget it."""
        new, self._new = self._new, None
        return new


def make_token() -> str:
    """Return a new token of 256 bits, 43 characters that are safe in headers and addresses."""
    return secrets.token_urlsafe(32)


def cookie_for(token: str) -> str:
    """Return what a browser keeps instead of the token: from a stolen cookie the token cannot be found."""
    return hmac.new(token.encode("utf-8", "surrogatepass"), _COOKIE_PURPOSE, hashlib.sha256).hexdigest()


def is_loopback(host: str) -> bool:
    """Return whether only programs of this machine reach ``host``; a name other than localhost never counts as such."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host.lower() == "localhost"
    mapped = address.ipv4_mapped if address.version == 6 else None  # noqa: PLR2004 - as a server on :: sees IPv4
    return (mapped or address).is_loopback


def is_token_required(settings: Settings) -> bool:
    """Return whether the server wants a token: always where other machines reach it, else if the settings say so.

    A proxy brings other machines to loopback too.
    """
    return settings.require_token or bool(settings.trusted_proxies) or not is_loopback(settings.api_host)


def tokens_of(settings: Settings) -> Tokens | None:
    """Return the server's tokens, None where it wants none; missing files are made.

    Raises:
        TokenUnusable: a token is too weak, or its file cannot be read or is open to others; the text has the remedy.
    """
    if not is_token_required(settings):
        return None
    admin, is_new = _admin_token(settings)
    metrics_file = settings.metrics_token_file
    if metrics_file is not None:  # Prometheus, another user of the machine, reads it too
        metrics = _read(settings.absolute(metrics_file), "AI_LAB_METRICS_TOKEN_FILE", may_be_shared=True)
    else:
        metrics, _ = _read_or_make(metrics_token_path(settings))
    if hmac.compare_digest(admin, metrics):
        raise TokenUnusable(
            "The token for metrics is the admin's, so whoever reads metrics could do everything. Put another one into "
            f"{metrics_file or metrics_token_path(settings)}, or delete that file and a new one is made."
        )
    return Tokens(admin, metrics, place=token_place(settings), is_new=is_new)


def token_path(settings: Settings) -> Path:
    """Return the file of the admin's token: AI_LAB_TOKEN_FILE, else one in the configuration folder."""
    return settings.absolute(settings.token_file) if settings.token_file else settings.config_path() / "token"


def metrics_token_path(settings: Settings) -> Path:
    """Return the file of the token for metrics."""
    given = settings.metrics_token_file
    return settings.absolute(given) if given else settings.config_path() / "metrics-token"


def token_place(settings: Settings) -> str:
    """Return where the admin's token is kept, for people: a file, or the name of the setting that holds it."""
    return "AI_LAB_TOKEN" if settings.token and not settings.token_file else str(token_path(settings))


def token_for(settings: Settings, url: str) -> str | None:
    """Return the token that a client of this user sends to ``url``, or None.

    One that the settings hold goes wherever the user points the client. The server's own file was made for this
    machine's server, so it goes to loopback and to the names that server is configured with, and nowhere else.
    """
    try:
        if settings.token_file:
            return _text_of(settings.absolute(settings.token_file)) or None
        if settings.token:
            return settings.token.get_secret_value().strip()
        host = urlsplit(url).hostname or ""
        if is_loopback(host) or host in {settings.api_host, *settings.allowed_hosts}:
            return _text_of(token_path(settings)) or None
    except (OSError, ValueError):  # no file, not ours to read, not text: the server's 401 says what to do
        pass
    return None


def replace_token(settings: Settings) -> str:
    """Put a new admin's token in the place of the one in the configuration folder; the server reads it at its start.

    Raises:
        TokenUnusable: the token comes from a setting, so that is where it is replaced; or the folder is read-only.
    """
    if settings.token or settings.token_file:
        name = "AI_LAB_TOKEN_FILE" if settings.token_file else "AI_LAB_TOKEN"
        raise TokenUnusable(f"The token comes from {name}: put a new one there, then start the server again.")
    path, token = token_path(settings), make_token()
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _write_new(beside, token)
        beside.replace(path)
    except OSError as error:
        raise TokenUnusable(f"{path} cannot be written ({error.strerror}).") from error
    return token


def _admin_token(settings: Settings) -> tuple[str, bool]:
    if settings.token_file:
        return _read(token_path(settings), "AI_LAB_TOKEN_FILE"), False
    if settings.token:
        return _checked(settings.token.get_secret_value().strip(), "AI_LAB_TOKEN"), False
    return _read_or_make(token_path(settings))


def _read_or_make(path: Path) -> tuple[str, bool]:
    """Return the token of a file of ours and whether it was made now."""
    token = make_token()
    try:
        _write_new(path, token)
    except FileExistsError:
        return _read(path, str(path)), False
    except OSError as error:
        raise TokenUnusable(
            f"{path} cannot be written ({error.strerror}). Set AI_LAB_CONFIG_DIR to a folder of your own, or give the "
            "token with AI_LAB_TOKEN_FILE."
        ) from error
    return token, True


def _read(path: Path, name: str, *, may_be_shared: bool = False) -> str:
    """Return the token of a file that nobody else may read, or where it may be shared, that nobody else may write.

    A file that an orchestrator mounts, or that root wrote for us, has the mode its writer chose.
    """
    try:
        status = path.stat()
        if os.name == "posix" and not any(map(path.resolve().is_relative_to, _ORCHESTRATED)):
            is_shared = may_be_shared or (status.st_uid == 0 and os.geteuid() != 0)
            if status.st_mode & (_OTHERS_MAY_WRITE if is_shared else _OTHERS_MAY):
                verb, mode = ("write", "go-w") if is_shared else ("read", "600")
                raise TokenUnusable(f"Other users may {verb} the token in {path}. Run: chmod {mode} {path}")
        text = _text_of(path)
        for _ in range(20):  # the server that is making it has opened it and not yet written
            if text:
                break
            time.sleep(0.05)
            text = _text_of(path)
    except FileNotFoundError:
        raise TokenUnusable(f"{name} names {path}, and there is no such file.") from None
    except (OSError, ValueError) as error:
        raise TokenUnusable(f"The token in {path} cannot be read ({getattr(error, 'strerror', 'no text')}).") from None
    return _checked(text, name)


def _text_of(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_LONGEST_FILE_BYTES).decode("ascii").strip()


def _checked(token: str, name: str) -> str:
    is_plain = token.isascii() and token.isprintable() and " " not in token
    if len(token) < _FEWEST_CHARACTERS or len(set(token)) < _FEWEST_DIFFERENT_CHARACTERS or not is_plain:
        raise TokenUnusable(
            f"{name} holds no good token: it takes {_FEWEST_CHARACTERS} or more random characters without spaces. Let "
            "AI Lab make one (remove the setting or the file), or take: openssl rand -base64 32"
        )
    return token


def _write_new(path: Path, token: str) -> None:
    """Write a file that only we may read; it must not be there yet."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(f"{token}\n")
        file.flush()
        os.fsync(file.fileno())


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
