"""Whether a text can be a key: only what can never work is refused, everything about shapes is a warning.

What keys look like stands in ``ai_lab/providers/services.json``; the live test has the last word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ai_lab.errors import ApiKeyRefused
from ai_lab.providers.known_services import KnownService, known_services, placeholders

LONGEST_CHARACTERS = 4096
#: So much may surround a key that was pasted with its quotes, name and comment.
_LONGEST_PASTED_CHARACTERS = 2 * LONGEST_CHARACTERS
_ROUNDS = 4
#: Pasted along from web pages; they do not show. The byte order mark, zero-width signs and the soft hyphen.
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060\u00ad"
#: A line of a .env file, a shell, JSON or YAML. A key may hold "=" itself, at its end.
_ASSIGNMENT = re.compile(
    r"(?:export[ \t]{1,8}|set[ \t]{1,8}|\$env:)?(?P<quote>[\"']?)(?:[A-Z0-9]{1,20}_){0,5}(?:API_?)?(?:KEY|TOKEN|SECRET)"
    r"(?P=quote)[ \t]{0,8}[=:][ \t]{0,8}(?=[^=:\s])",
    re.IGNORECASE,
)
_HEADER = re.compile(r"[A-Za-z][A-Za-z-]{0,40}:[ \t]{1,8}")
_BEARER = re.compile(r"bearer(?:[ \t]{1,8}|$)", re.IGNORECASE)
_QUOTES = frozenset({'"', "'", "`"})


@dataclass(frozen=True, slots=True)
class Judgement:
    """A key as it is to be stored. Its text form leaves the secret out.

    Attributes:
        secret: without what was pasted along.
        warnings: what looks unusual, for people.
        notes: what was taken off.
    """

    secret: str = field(repr=False)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def judge(
    service: KnownService | None, secret: str, *, force: bool = False, has_own_address: bool = False
) -> Judgement:
    """Return the key without what was pasted along, and what is unusual about it. Linear in its length.

    Args:
        service: None for a server that is known by its address alone.
        secret: as it was given.
        force: take it though it looks like the key of another service, an administrator's key or an example.
        has_own_address: it is used at an address of the user's, such as a proxy, that may have keys of its own.

    Raises:
        ApiKeyRefused: it can never work there. The text does not repeat it.
    """
    if len(secret) > _LONGEST_PASTED_CHARACTERS:
        raise ApiKeyRefused(f"An API key has at most {LONGEST_CHARACTERS:,} characters.", param="api_key")
    plain, notes = _bare(secret)
    _refuse_impossible(service, plain)
    doubts = _doubts(service, plain, at_own_address=service is None or (has_own_address and bool(service.base_url)))
    if doubts.refusal and not force:
        raise ApiKeyRefused(f"{doubts.refusal} If it is right all the same, use force (--force).", param="api_key")
    warnings = [text for text in (doubts.refusal, doubts.remark) if text]
    if service is not None:
        # Where something worse is known already, the shape says nothing more.
        warnings += _remarks_on_shape(service, plain, has_own_address=has_own_address) if not warnings else []
    return Judgement(plain, warnings, notes)


def _bare(text: str) -> tuple[str, list[str]]:
    """Return the key alone and what was taken off around it."""
    notes: list[str] = []

    def take_off(what: str, rest: str) -> str:
        if what not in notes:
            notes.append(what)
        return rest

    for _ in range(_ROUNDS):
        before = text
        stripped = text.strip().strip(_INVISIBLE).strip()
        if stripped != text:
            text = take_off("White space around the key was removed.", stripped)
        if match := _ASSIGNMENT.match(text):
            text = take_off("The name of a setting before the key was removed.", text[match.end() :])
        if (match := _HEADER.match(text)) and match[0].rstrip(": \t").lower() in _header_names():
            text = take_off("The name of a header before the key was removed.", text[match.end() :])
        if match := _BEARER.match(text):
            text = take_off('"Bearer" before the key was removed.', text[match.end() :])
        if (unquoted := _without_quotes(text)) is not None:
            text = take_off("Quotation marks around the key were removed.", unquoted)
        elif (mark := min((at for at in (text.find(" #"), text.find("\t#")) if at > 0), default=0)) > 0:
            text = take_off("A comment after the key was removed.", text[:mark])
        if text == before:
            break
    return text, notes


def _without_quotes(text: str) -> str | None:
    """Return what one pair of quotes holds; None where there is no pair, or anything but a comment behind it."""
    if text[:1] not in _QUOTES:
        return None
    end = text.find(text[0], 1)
    behind = text[end + 1 :].lstrip()
    return text[1:end] if end > 0 and (not behind or behind in {",", ";"} or behind.startswith("#")) else None


def _header_names() -> set[str]:
    return {service.check.header for service in known_services().values()}


def _refuse_impossible(service: KnownService | None, key: str) -> None:
    """Raise for what cannot stand in an HTTP header, or is no key at all. ``force`` does not help against these."""
    reason = None
    if not key:
        reason = "The key is empty."
        if service and not service.needs_key:
            reason += f" {service.title} works without one: there is nothing to store."
    elif len(key) > LONGEST_CHARACTERS:
        reason = f"An API key has at most {LONGEST_CHARACTERS:,} characters."
    elif "\n" in key or "\r" in key:
        reason = "This has several lines. Give one key at a time; ./ai-lab keys import reads whole .env files."
    elif key[0] in "{[":
        reason = "This is a JSON document, not a key. Give the value of the key alone."
    elif re.match(r"[A-Za-z][A-Za-z0-9+.-]{0,20}://", key):
        reason = "This is an address, not a key. Give the address as base_url, without a password, and the key alone."
    elif not key.isascii():
        reason = "It holds letters that no API key has, such as accents or typographic dashes. Copy it again."
    elif any(character <= " " or character == "\x7f" for character in key):
        reason = "It holds spaces or control characters, which no API key has. Copy it again."
    if reason:
        raise ApiKeyRefused(reason, param="api_key")


@dataclass(frozen=True, slots=True)
class _Doubts:
    """``refusal``: why it is refused unless forced; ``remark``: what is only said."""

    refusal: str | None = None
    remark: str | None = None


def _doubts(service: KnownService | None, key: str, *, at_own_address: bool) -> _Doubts:
    """Look for examples, administrators' keys and keys of other services."""
    lower = key.lower()
    names = {name.lower() for row in known_services().values() for name in row.environment_names}
    if lower.rstrip("=") in names or any(pattern.fullmatch(lower) for pattern in placeholders()):
        where = f" Create one at {service.help_url}." if service and service.help_url else ""
        return _Doubts(refusal=f"This stands for a key in examples, or is a shortened one.{where}")
    owner = _owner(key)
    is_admin = owner is not None and key.startswith(owner.admin_prefixes)
    if owner and is_admin and owner is service:
        return _Doubts(
            refusal=f"This is an administrator's key: it manages the {owner.title} account and cannot call models. "
            f"Create an ordinary key at {owner.help_url}."
        )
    if owner is None or owner is service:
        return _Doubts()
    kind = f"an administrator's key of {owner.title}" if is_admin else f"a key of {owner.title}"
    if at_own_address:
        return _Doubts(remark=f"This looks like {kind}; it will be sent to the address that you gave, and only there.")
    title = service.title if service else "this service"
    return _Doubts(refusal=f"This is {kind}, not of {title}: store it under the service {owner.name!r}.")


def _owner(key: str) -> KnownService | None:
    """Return the one service whose keys begin like this."""
    return next((row for row in known_services().values() if key.startswith(row.unique_prefixes)), None)


def _remarks_on_shape(service: KnownService, key: str, *, has_own_address: bool) -> list[str]:
    for shape in service.shapes:
        if re.fullmatch(shape.pattern, key):
            return [shape.warning] if shape.warning else []
    if has_own_address and service.base_url:
        return []  # a proxy has keys of its own
    if not service.needs_key:
        return [f"{service.title} on your own machine asks for no key; {service.key_hint}."]
    prefixes = {shape.prefix for shape in service.shapes} | set(service.unique_prefixes)
    if "" in prefixes or key.startswith(tuple(prefixes)):
        seen = f"Its length ({len(key)} characters) or its letters differ from known keys of {service.title}"
    else:
        seen = f"It does not begin like the known keys of {service.title}"
    return [f"{seen}: {service.key_hint}. It may work all the same: a test tells."]
