"""What a model service says about its own error, read from whichever shape it uses."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

#: Names that services use in a stream, where there is no HTTP status any more.
_STATUS_BY_CODE = {
    "authentication_error": 401,
    "invalid_api_key": 401,
    "insufficient_quota": 429,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "invalid_request_error": 400,
    "overloaded_error": 529,
    "unavailable_error": 503,
    "exceed_context_size_error": 400,
    "context_length_exceeded": 400,
    "model_not_found": 404,
}


@dataclass(frozen=True, slots=True)
class Report:
    """An error in the service's own words; ``status`` is an HTTP status that it names itself."""

    message: str = ""
    codes: frozenset[str] = frozenset()
    status: int | None = None
    prompt_tokens: int | None = None
    context_tokens: int | None = None

    @classmethod
    def of(cls, value: Any) -> Report:
        """Read ``{"error": {…}}``, ``{"error": "…"}``, ``{"message": "…"}``, ``{"detail": …}`` or a list of them."""
        if isinstance(value, list):
            return cls.of(value[0]) if value else cls()
        if not isinstance(value, dict):
            return cls(message=value if isinstance(value, str) else "")
        error = value.get("error", value)
        if not isinstance(error, dict):
            error = {"message": error if isinstance(error, str) else value.get("message", "")}
        message = error.get("message") or error.get("detail") or ""
        codes = {error[key] for key in ("code", "type") if isinstance(error.get(key), str)}
        statuses = (error.get("code"), error.get("status"), value.get("status"))
        return cls(
            message=message if isinstance(message, str) else json.dumps(message),
            codes=frozenset(codes),
            status=next(filter(None, map(_error_status, statuses)), None)
            or next((_STATUS_BY_CODE[code] for code in sorted(codes) if code in _STATUS_BY_CODE), None),
            prompt_tokens=_count(error.get("n_prompt_tokens")),
            context_tokens=_count(error.get("n_ctx")),
        )

    @classmethod
    def of_body(cls, body: bytes) -> Report:
        """Read the body of an error answer; a page of HTML says nothing."""
        try:
            return cls.of(json.loads(body))
        except (ValueError, RecursionError):
            text = body.decode(errors="replace").strip()
            return cls(message="" if text.startswith("<") else text)


def _error_status(code: Any) -> int | None:
    """Return ``code`` where it is an HTTP status, as some services write it."""
    text = str(code)
    return int(text) if re.fullmatch("[45][0-9][0-9]", text) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None
