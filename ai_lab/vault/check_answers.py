"""What the answer of a service says about a key: the table of HTTP statuses, and what single services do otherwise."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ai_lab.errors import AddressRefused
from ai_lab.providers.http_errors import retry_after_seconds
from ai_lab.providers.http_reports import Report
from ai_lab.providers.known_services import Reading, origin_of
from ai_lab.vault.schemas import CheckResult

_QUOTED_CHARACTERS = 200
#: So many signs in a row that a text shares with the key give it away.
_TELLING_CHARACTERS = 6
_SHOWN_END_CHARACTERS = 4
_GOOGLE_REASONS = frozenset(
    {
        "API_KEY_INVALID",
        "API_KEY_SERVICE_BLOCKED",
        "API_KEY_HTTP_REFERRER_BLOCKED",
        "API_KEY_IP_ADDRESS_BLOCKED",
        "API_KEY_ANDROID_APP_BLOCKED",
        "API_KEY_IOS_APP_BLOCKED",
        "BILLING_DISABLED",
        "CONSUMER_INVALID",
        "CONSUMER_SUSPENDED",
        "SERVICE_DISABLED",
    }
)
_LONGEST_PAUSE_SECONDS = 100_000
#: Larger ones, infinity and NaN are no amounts of money.
_LARGEST_FIGURE = 1e12


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as far as it was read; ``body`` may end early."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def content(self) -> Any:
        """Return the JSON value; None where it is none, or was not read to its end."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def looks_like_json(self) -> bool:
        """Return whether it begins as JSON does."""
        return self.body.lstrip()[:1] in {b"{", b"["}

    def is_page(self) -> bool:
        """Return whether it is a web page, as gateways answer with."""
        return self.body.lstrip()[:1] == b"<"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of the key after one answer. Nothing here holds it."""

    result: CheckResult
    message: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Case:
    """One answer to be read. ``said``: the service's own words; ``target``: of a redirect. Both without the key."""

    title: str
    answer: Answer
    value: Any
    report: Report
    said: str
    target: str

    def verdict(self, result: CheckResult, text: str, **details: Any) -> Verdict:
        return Verdict(result, f"{text}{self.said}", details)


def read_answer(title: str, reading: Reading, answer: Answer, secret: str) -> Verdict:
    """Return what an answer says about the key.

    Args:
        title: of the service, for people.
        reading: which service's ways it is read by.
        answer: to the check.
        secret: is taken out of everything that the service repeats.
    """
    if answer.status == 403 and answer.is_page():  # noqa: PLR2004
        return Verdict("unknown", f"A gateway before {title} refuses this machine; that says nothing about the key.")
    value = answer.content()
    report = Report.of(value) if answer.status >= 300 else Report()  # noqa: PLR2004  # outside 2xx
    words = without_secret(report.message, secret)
    target = without_secret(_target(answer.headers.get("location", "")), secret)
    case = _Case(title, answer, value, report, f' It says: "{words}"' if words else "", target)
    own = _READINGS.get(reading)
    return (own(case) if own else None) or _by_status(case)


def without_secret(text: str, secret: str) -> str:
    """Return the beginning of ``text`` on one line, without words that hold a part of the key, whole or masked."""
    secret = secret.lower()
    pieces = {secret[at : at + _TELLING_CHARACTERS] for at in range(max(1, len(secret) - _TELLING_CHARACTERS + 1))}
    end = secret[-_SHOWN_END_CHARACTERS:]
    kept = []
    for word in text[: 4 * _QUOTED_CHARACTERS].split():
        lower = word.lower()
        windows = {lower[at : at + _TELLING_CHARACTERS] for at in range(len(lower))}
        is_masked = "**" in word or lower.strip(string.punctuation).endswith(end)
        kept.append("[removed]" if is_masked or secret in lower or not pieces.isdisjoint(windows) else word)
    line = "".join(character for character in " ".join(kept) if character.isprintable())
    return line if len(line) <= _QUOTED_CHARACTERS else line[: _QUOTED_CHARACTERS - 1] + "…"


def _by_status(case: _Case) -> Verdict:  # noqa: PLR0911  # one row per status, top to bottom
    status, title = case.answer.status, case.title
    if 200 <= status < 300:  # noqa: PLR2004  # 2xx
        return _accepted(case)
    if 300 <= status < 400:  # noqa: PLR2004  # 3xx
        return Verdict(
            "wrong_endpoint",
            f"{title} redirects to {case.target}. Keys do not follow redirects: set the final address.",
        )
    if status == 401:  # noqa: PLR2004
        return case.verdict("invalid", f"{title} does not accept this key. Create a new one or copy it again.")
    if status == 402:  # noqa: PLR2004
        return case.verdict("valid_no_quota", f"{title} knows this key, but its account has no credit.")
    if status == 403:  # noqa: PLR2004
        return case.verdict("blocked", f"{title} refuses this key here: it is blocked, or lacks the rights.")
    if status in {404, 405, 410}:
        return case.verdict("wrong_endpoint", f"{title} has nothing at this address (HTTP {status}). Correct it.")
    if status == 429:  # noqa: PLR2004
        wait = retry_after_seconds(case.answer.headers)
        pause = f" in {wait:.0f} s" if wait and wait < _LONGEST_PAUSE_SECONDS else " later"
        return case.verdict("rate_limited", f"{title} limits requests at the moment. Test again{pause}.")
    if status >= 500:  # noqa: PLR2004
        return case.verdict("unknown", f"{title} has a fault of its own (HTTP {status}). Test again later.")
    return case.verdict("unknown", f"{title} answers with HTTP {status}, which says nothing about the key.")


def _accepted(case: _Case) -> Verdict:
    if not case.answer.looks_like_json():
        return Verdict(
            "wrong_endpoint", f"What answers at this address is not the API of {case.title}. Correct the address."
        )
    if _at(case.value, "error"):
        return Verdict("unknown", f"{case.title} answers with an error under status {case.answer.status}.")
    return _valid(case)


def _valid(case: _Case, **details: Any) -> Verdict:
    return Verdict("valid", f"{case.title} accepts this key.", details)


def _target(location: str) -> str:
    try:
        return origin_of(location)
    except AddressRefused:
        return "another address"


def _openai(case: _Case) -> Verdict | None:
    status, codes, message = case.answer.status, case.report.codes, case.report.message.lower()
    if status in {401, 403} and ("missing scopes" in message or "insufficient permissions" in message):
        return case.verdict(
            "valid_restricted", "OpenAI knows this key, but it may not list models; calls may still be allowed."
        )
    if status in {401, 403} and codes & {"account_deactivated", "ip_not_authorized", "organization_deactivated"}:
        return case.verdict("blocked", "OpenAI knows this key, but has blocked its account or this network.")
    if "unsupported_country_region_territory" in codes:
        return case.verdict("unknown", "OpenAI does not serve the country that this machine is in.")
    if status == 429 and codes & {"insufficient_quota", "billing_hard_limit_reached"}:  # noqa: PLR2004
        return case.verdict("valid_no_quota", "OpenAI knows this key, but its account has no credit.")
    return None


def _anthropic(case: _Case) -> Verdict | None:
    if case.answer.status == 403 and "permission_error" in case.report.codes:  # noqa: PLR2004
        return case.verdict("valid_restricted", "Anthropic knows this key, but it may not do everything.")
    return None


def _google(case: _Case) -> Verdict | None:
    status, reasons = case.answer.status, _google_reasons(case.value)
    if status == 400 and ("API_KEY_INVALID" in reasons or "api key not valid" in case.report.message.lower()):  # noqa: PLR2004
        return case.verdict("invalid", "Google does not accept this key. Create a new one or copy it again.")
    if status == 403:  # noqa: PLR2004
        return case.verdict(
            "blocked",
            "Google knows this key, but has blocked it, or it has no right to Gemini.",
            **({"reason": min(reasons)} if reasons else {}),
        )
    return None


def _google_reasons(value: Any) -> set[str]:
    """Return the reasons in ``error.details`` that are known: none of the service's own text goes on."""
    details = _at(value, "error", "details")
    found = {_text(detail, "reason") for detail in details} if isinstance(details, list) else set()
    return {reason for reason in _GOOGLE_REASONS if reason in found}


def _cohere(case: _Case) -> Verdict | None:
    if case.answer.status != 200:  # noqa: PLR2004
        return None
    # Only the body tells: a wrong key is answered with 200 too.
    match _at(case.value, "valid"):
        case True:
            return _valid(case)
        case False:
            return Verdict("invalid", "Cohere does not accept this key. Create a new one or copy it again.")
    return Verdict("wrong_endpoint", "The answer is not that of Cohere. Correct the address.")


def _huggingface(case: _Case) -> Verdict | None:
    role = _text(case.value, "auth", "accessToken", "role")
    if case.answer.status != 200 or role not in {"read", "write", "fineGrained"}:  # noqa: PLR2004
        return None
    rights = json.dumps(_at(case.value, "auth", "accessToken", "fineGrained"))
    if role == "fineGrained" and "inference." not in rights:
        return Verdict(
            "valid_restricted",
            "Hugging Face accepts this token, but it has no right to call inference providers. Add that to the token.",
            {"role": role},
        )
    return _valid(case, role=role)


def _openrouter(case: _Case) -> Verdict | None:
    data = _at(case.value, "data")
    if case.answer.status != 200 or not isinstance(data, dict):  # noqa: PLR2004
        return None
    figures = {name: data.get(name) for name in ("limit", "limit_remaining", "usage")}
    details: dict[str, Any] = {name: value for name, value in figures.items() if _is_number(value)}
    if isinstance(data.get("is_free_tier"), bool):
        details["is_free_tier"] = data["is_free_tier"]
    if data.get("is_management_key") is True or data.get("is_provisioning_key") is True:
        return Verdict(
            "valid_restricted",
            "OpenRouter accepts this key, but it manages other keys and cannot call models.",
            details,
        )
    if details.get("limit_remaining", 1) <= 0:
        return Verdict("valid_no_quota", "OpenRouter accepts this key, but its limit is used up.", details)
    return _valid(case, **details)


_READINGS: dict[Reading, Callable[[_Case], Verdict | None]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "google": _google,
    "cohere": _cohere,
    "huggingface": _huggingface,
    "openrouter": _openrouter,
}


def _at(value: Any, *path: str) -> Any:
    """Return the member below ``path``; None where there is none."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _text(value: Any, *path: str) -> str | None:
    found = _at(value, *path)
    return found if isinstance(found, str) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST_FIGURE
