"""What a model service says about its own error, read from whichever shape it uses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

#: Names that services use in a stream, where there is no HTTP status any more.
_STATUS_BY_CODE = {
    "authentication_error": 401,
    "invalid_api_key": 401,
    "unauthenticated": 401,
    "billing_error": 402,
    "insufficient_credits": 402,
    "permission_denied": 403,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "insufficient_quota": 429,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "resource_exhausted": 429,
    "too_many_requests": 429,
    "invalid_argument": 400,
    "invalid_request_error": 400,
    "exceed_context_size_error": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "content_policy_violation": 400,
    "request_too_large": 413,
    "deadline_exceeded": 504,
    "timeout_error": 504,
    "overloaded": 529,
    "overloaded_error": 529,
    "unavailable": 503,
    "unavailable_error": 503,
}
_CONTEXT_CODES = {"context_length_exceeded", "exceed_context_size_error"}
_CONTEXT_TEXT = re.compile(
    r"context[ _](length|window|size|limit)|(prompt|input|request) is too long|too many (input )?tokens"
    r"|input token count|tokens` \+ `max_new_tokens",
    re.IGNORECASE,
)
_KEY_CODES = {"invalid_api_key", "api_key_invalid", "api_key_expired", "api_key_service_blocked"}
_MODEL_CODES = {
    "deployment_not_found",
    "deploymentnotfound",
    "model_not_available",
    "model_not_found",
    "model_not_supported",
}
_MODEL_TEXT = re.compile(
    r"is not a valid model|model .{1,200} (does not exist|not found)|no endpoints found for", re.IGNORECASE
)
_FIELD_CODES = {"unsupported_parameter", "unsupported_value"}
_QUOTA_CODES = {
    "billing_error",
    "billing_hard_limit_reached",
    "billing_not_active",
    "enforced_spend_limit_reached",
    "insufficient_credits",
    "insufficient_quota",
}
#: Said under 400, 403 and 429 alike, when money or a long-term allowance is gone.
_QUOTA_TEXT = re.compile(
    r"exceeded your current quota|credit balance is too low"
    r"|(insufficient|not enough|out of) (quota|credit|balance|fund)"
    r"|(monthly|credit|spending|billing|key) limit|free-models-per-day|calls? ?/ ?month|monthly included"
    r"|API usage limits",
    re.IGNORECASE,
)
_FILTER_CODES = {
    "content_filter",
    "content_policy_violation",
    "moderation_blocked",
    "prohibited_content",
    "responsibleaipolicyviolation",
}
_FILTER_TEXT = re.compile(
    r"content (management|filtering) policy|content[ _]policy|flagged (as|by|for)|was flagged", re.IGNORECASE
)
_WAIT_TEXT = re.compile(
    r"(?:try again|retry) (?:in|after) (?:(\d{1,3})m(?=\d))?(\d{1,6}(?:\.\d{1,9})?) ?(ms|m\b|minutes?|s)?",
    re.IGNORECASE,
)
_WAIT_UNIT_SECONDS = {"ms": 0.001, "m": 60.0, "minute": 60.0, "minutes": 60.0}


@dataclass(frozen=True, slots=True)
class Report:
    """An error in the service's own words.

    Attributes:
        codes: every name that it gives the error, in lower case.
        status: an HTTP status that it names itself.
        field: the one of the request that is at fault.
        wait_seconds: how long it asks to wait.
        is_long_term: the limit that is reached is one per day or month.
    """

    message: str = ""
    codes: frozenset[str] = frozenset()
    status: int | None = None
    prompt_tokens: int | None = None
    context_tokens: int | None = None
    field: str | None = None
    wait_seconds: float | None = None
    is_long_term: bool = False

    @classmethod
    def of(cls, value: Any) -> Report:
        """Read ``{"error": {…}}``, ``{"error": "…"}``, ``{"message": "…"}``, ``{"detail": …}`` or a list of them."""
        if isinstance(value, list):
            return cls.of(value[0]) if value else cls()
        if not isinstance(value, dict):
            return cls(message=value if isinstance(value, str) else "")
        error = value.get("error", value)
        if not isinstance(error, dict):
            error = {**value, "message": error if isinstance(error, str) else value.get("message", "")}
        message = error.get("message") or error.get("detail") or ""
        text = message if isinstance(message, str) else json.dumps(message)
        codes = frozenset(code.lower() for code in _codes(error) if isinstance(code, str))
        statuses = (error.get("code"), error.get("status"), value.get("status"), value.get("statusCode"))
        details = _details(error)
        return cls(
            message=text,
            codes=codes,
            status=next(filter(None, map(_error_status, statuses)), None)
            or next((_STATUS_BY_CODE[code] for code in sorted(codes) if code in _STATUS_BY_CODE), None),
            prompt_tokens=_count(error.get("n_prompt_tokens")),
            context_tokens=_count(error.get("n_ctx")),
            field=_field(error.get("param")),
            wait_seconds=next(filter(None, (_seconds(detail.get("retryDelay")) for detail in details)), None)
            or _told_seconds(text),
            is_long_term=any("perday" in quota.lower() for detail in details for quota in _quotas(detail)),
        )

    @classmethod
    def of_body(cls, body: bytes) -> Report:
        """Read the body of an error answer; a page of HTML says nothing."""
        try:
            return cls.of(json.loads(body))
        except (ValueError, RecursionError):
            text = body.decode(errors="replace").strip()
            return cls(message="" if text.startswith("<") else text)

    def is_context_overflow(self, status: int) -> bool:
        """Return whether the prompt is longer than the model's context."""
        return bool(self.codes & _CONTEXT_CODES) or (
            status in {400, 413, 422, 500} and bool(_CONTEXT_TEXT.search(self.message))
        )

    def is_filtered(self, status: int) -> bool:
        """Return whether a content filter refused the request."""
        return status in {400, 403, 422} and (
            bool(self.codes & _FILTER_CODES) or bool(_FILTER_TEXT.search(self.message))
        )

    def is_quota(self, status: int) -> bool:
        """Return whether the account is out of money or allowance, so that a moment's wait does not help.

        Some services word a limit per minute like one that is used up; they tell how long to wait then.
        """
        if status == 402 or self.is_long_term or self.codes & _QUOTA_CODES:  # noqa: PLR2004 - payment required
            return True
        return status in {400, 403, 429} and self.wait_seconds is None and bool(_QUOTA_TEXT.search(self.message))

    def is_field_refused(self) -> bool:
        """Return whether the model takes all of the request but one field."""
        return self.field is not None and bool(self.codes & _FIELD_CODES)

    def is_key_refused(self, status: int) -> bool:
        """Return whether the key or the account is the fault; Google says so under 400."""
        return (
            status in {401, 403}
            or bool(self.codes & _KEY_CODES)
            or (status == 400 and "location is not supported" in self.message)  # noqa: PLR2004 - bad request
        )

    def is_model_unknown(self, status: int) -> bool:
        """Return whether there is no such model."""
        if self.codes & _MODEL_CODES or (status == 404 and "model" in self.message.lower()):  # noqa: PLR2004 - not found
            return True
        return status in {400, 404} and bool(_MODEL_TEXT.search(self.message))


def _codes(error: dict[str, Any]) -> Iterator[Any]:
    """Yield what the error is called, in all places where services write it."""
    yield from (error.get("code"), error.get("type"), error.get("status"))
    inner = error.get("innererror")  # Azure
    if isinstance(inner, dict):
        yield inner.get("code")
    metadata = error.get("metadata")  # OpenRouter
    if isinstance(metadata, dict):
        yield metadata.get("error_type")
        if metadata.get("reasons") and metadata.get("flagged_input"):
            yield "content_filter"
    for detail in _details(error):  # Google
        yield detail.get("reason")
    details = error.get("details")
    if isinstance(details, dict):  # Anthropic
        yield details.get("error_code")


def _details(error: dict[str, Any]) -> list[dict[str, Any]]:
    details = error.get("details")
    return [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []


def _quotas(detail: dict[str, Any]) -> Iterator[str]:
    """Yield the names of the limits that Google says were reached."""
    violations = detail.get("violations")
    for violation in violations if isinstance(violations, list) else []:
        if isinstance(violation, dict):
            yield str(violation.get("quotaId", ""))
    metadata = detail.get("metadata")
    if isinstance(metadata, dict):
        yield str(metadata.get("quota_limit", ""))


def _seconds(duration: Any) -> float | None:
    """Return a duration as Google writes it, ``"36.5s"``, in seconds."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)s", duration) if isinstance(duration, str) else None
    return float(found[1]) if found else None


def _told_seconds(text: str) -> float | None:
    """Return the wait that a sentence like "Please try again in 1m2.5s" names."""
    found = _WAIT_TEXT.search(text)
    if not found:
        return None
    minutes, number, unit = found.groups()
    return 60 * int(minutes or 0) + float(number) * _WAIT_UNIT_SECONDS.get((unit or "s").lower(), 1.0)


def _error_status(code: Any) -> int | None:
    """Return ``code`` where it is an HTTP status, as some services write it."""
    text = str(code)
    return int(text) if re.fullmatch("[45][0-9][0-9]", text) else None


def _field(name: Any) -> str | None:
    return name if isinstance(name, str) and re.fullmatch(r"[a-z_]{1,64}", name) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None
