"""What went wrong at a model service, as an error of our tree: from httpx, from HTTP answers, from within a stream."""

from __future__ import annotations

import contextlib
import copy
import math
import re
import socket
import ssl
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from ai_lab import clock
from ai_lab.errors import (
    AddressRefused,
    ContextOverflow,
    LabError,
    ModelNotFound,
    OutOfMemory,
    ProviderAuthFailed,
    ProviderError,
    ProviderRateLimited,
    ProviderRefused,
    ProviderTimeout,
    ProviderUnavailable,
    StreamBroken,
    UnsupportedFeature,
)
from ai_lab.providers.http_reports import Report

ERROR_BODY_LIMIT_BYTES = 64_000
_MESSAGE_LIMIT_CHARACTERS = 500
_CONTEXT_CODES = {"context_length_exceeded", "exceed_context_size_error"}
_CONTEXT_TEXT = re.compile(
    r"context[ _](length|window|size)|prompt is too long|input is too long|too many (input )?tokens", re.IGNORECASE
)
_MEMORY_TEXT = re.compile(r"more system memory|out of memory|unable to allocate|insufficient memory", re.IGNORECASE)
_UNSUPPORTED_TEXT = re.compile(r"does not support|not supported by this model", re.IGNORECASE)
_UNRESOLVED = "its name cannot be resolved"
#: Nobody can start what lies at a name that is not found: it is mistyped, or this machine is offline.
_UNRESOLVED_REMEDY = "See whether this machine is online, and the address right."


class ServiceErrors:
    """Words errors for one service. ``hiding`` keeps a key out of all texts, even where the service repeats it.

    Args:
        name: the provider's name.
        address: its base URL; user names and queries in it are left out.
        missing_model_hint: what to do about an unknown model; ``{model}`` stands for its name.
        address_hint: what a right address looks like.
    """

    def __init__(
        self,
        name: str,
        address: str,
        *,
        missing_model_hint: str = "See its list of models for what there is.",
        address_hint: str = " (most end in /v1)",
    ) -> None:
        self._name = name
        self._address = _public_address(address)
        self._secret: str | None = None
        self._missing_model_hint = missing_model_hint
        self._address_hint = address_hint

    def hiding(self, secret: str | None) -> ServiceErrors:
        """Return the same for one request that ``secret`` goes with: no text holds it."""
        if secret is None:
            return self
        hiding = copy.copy(self)
        hiding._secret = secret  # noqa: SLF001 - of this class
        return hiding

    def from_httpx(self, error: httpx.HTTPError | httpx.InvalidURL, *, streaming: bool = False) -> ProviderError:
        """Return the error for a failed exchange; ``streaming`` says that the answer had begun."""
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
            reason = _connect_reason(error)
            remedy = _UNRESOLVED_REMEDY if reason == _UNRESOLVED else "Start it or correct its address."
            return ProviderUnavailable(
                f"{self._name} cannot be reached at {self._address}: {self.clean(reason)}. {remedy}"
            )
        if isinstance(error, httpx.TimeoutException):
            return ProviderTimeout(
                f"{self._name} was silent for too long. Try again, or raise AI_LAB_REQUEST_TIMEOUT_SECONDS."
            )
        if streaming:
            return StreamBroken(f"The answer of {self._name} broke off: the connection was lost.")
        if isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError):
            return ProviderUnavailable(f"{self._name} closed the connection without an answer. Try again.")
        # The text of these may quote a header, and with it the key.
        return ProviderError(f"{self._name} cannot be called at {self._address} ({type(error).__name__}).")

    def from_refusal(self, error: AddressRefused) -> AddressRefused:
        """Return the error for a request that was not sent."""
        return AddressRefused(f"{self._name} is not called at {self._address}. {error.detail}")

    def from_answer(
        self, status: int, headers: Mapping[str, str], body: bytes, model: str | None = None, path: str = ""
    ) -> LabError:
        """Return the error for an HTTP answer outside 2xx to a request for ``path``."""
        if path == "/embeddings" and status in {404, 405, 501} and b"model" not in body.lower():
            return UnsupportedFeature(f"{self._name} makes no embeddings. Choose a model that does.", param="model")
        return self._classify(status, Report.of_body(body), f"HTTP {status}", model, headers)

    def from_report(self, value: Any, model: str | None = None) -> LabError:
        """Return the error for one that a service reports inside a stream or under status 200."""
        report = Report.of(value)
        return self._classify(report.status or 500, report, "an error", model, {})

    def clean(self, text: str) -> str:
        """Return ``text`` on one line, bounded, without the key."""
        if key := self._secret:
            # Services repeat keys whole or shortened: a word that starts or ends as the key does is taken for it.
            edge = max(4, min(8, len(key) // 2))
            if len(key) >= edge:
                word = rf"{re.escape(key)}|{re.escape(key[:edge])}\S*|\S*{re.escape(key[-edge:])}"
                text = re.sub(word, "[key removed]", text[: 4 * _MESSAGE_LIMIT_CHARACTERS])
        text = " ".join(text.split())
        return text if len(text) <= _MESSAGE_LIMIT_CHARACTERS else text[: _MESSAGE_LIMIT_CHARACTERS - 1] + "…"

    def _classify(  # noqa: PLR0911  # one row per kind of error, top to bottom
        self, status: int, report: Report, how: str, model: str | None, headers: Mapping[str, str]
    ) -> LabError:
        message = self.clean(report.message).rstrip(".")
        said = f": {message}" if message else ""
        answered = f"{self._name} answered with {how}{said}."
        wait = retry_after_seconds(headers)
        if 300 <= status < 400:  # noqa: PLR2004  # the redirects
            target = self.clean(_public_address(headers.get("location", ""))) or "somewhere else"
            return ProviderError(
                f"{self._name} redirects to {target}. Redirects are not followed: set its final address."
            )
        if _is_context_overflow(status, report):
            return ContextOverflow(self._overflow_text(report, said, model), param="messages")
        if status in {401, 403}:
            remedy = "Check the key and its rights." if self._secret else "It wants an API key: give it one."
            return ProviderAuthFailed(f"{answered} {remedy}")
        if "model_not_found" in report.codes or (status == 404 and model and "model" in message.lower()):  # noqa: PLR2004
            return ModelNotFound(f"{self._name} has no model {model!r}. {self._missing_model_hint.format(model=model)}")
        if status in {404, 405}:
            return ProviderError(f"{answered} Check its address: {self._address}{self._address_hint}.")
        if status in {402, 429}:
            pause = f" Try again in {math.ceil(wait)} s." if wait else ""
            return ProviderRateLimited(f"{answered}{pause}", retry_after_seconds=wait)
        if status in {408, 504, 524}:
            return ProviderTimeout(f"{answered} Try again.", retry_after_seconds=wait)
        if status == 501 or (status in {400, 422, 500} and _UNSUPPORTED_TEXT.search(message)):  # noqa: PLR2004
            return UnsupportedFeature(f"{self._name} cannot do this{said}.")
        if 400 <= status < 500:  # noqa: PLR2004  # the other faults of a request
            return ProviderRefused(f"{self._name} refused the request ({how}){said}.")
        if _MEMORY_TEXT.search(message):
            return OutOfMemory(f"{self._name} has not enough memory{said}. Choose a smaller model or free memory.")
        if status in {502, 503, 529}:
            return ProviderUnavailable(f"{answered} Try again.", retry_after_seconds=wait)
        return ProviderError(answered)

    def _overflow_text(self, report: Report, said: str, model: str | None) -> str:
        remedy = "Shorten the message or the conversation, or choose a model with a longer context."
        if report.prompt_tokens and report.context_tokens:
            return (
                f"The prompt has {report.prompt_tokens} tokens; {model} at {self._name} takes "
                f"{report.context_tokens}. {remedy}"
            )
        return f"The prompt does not fit the context of {model} at {self._name}{said}. {remedy}"


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return how long the service asks us to wait, from seconds, a date, or OpenAI's milliseconds."""
    for header, unit_seconds in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with contextlib.suppress(ValueError):
            seconds = float(headers.get(header, "")) * unit_seconds
            return max(0.0, seconds) if math.isfinite(seconds) else None
    with contextlib.suppress(ValueError):
        moment = clock.as_utc(parsedate_to_datetime(headers.get("retry-after", "")))
        return max(0.0, (moment - clock.now()).total_seconds())
    return None


def _is_context_overflow(status: int, report: Report) -> bool:
    if report.codes & _CONTEXT_CODES:
        return True
    return status in {400, 413, 422, 500} and bool(_CONTEXT_TEXT.search(report.message))


def _public_address(address: str) -> str:
    try:
        url = httpx.URL(address)
        return str(url.copy_with(username=None, password=None, query=None, fragment=None))
    except (httpx.InvalidURL, ValueError):
        return ""


def _connect_reason(error: BaseException) -> str:
    """Return why no connection came about, from the system's own error underneath."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        if isinstance(cause, socket.gaierror):
            return _UNRESOLVED
        if isinstance(cause, ConnectionRefusedError):
            return "nothing listens there"
        if isinstance(cause, ssl.SSLError):
            return f"no secure connection ({getattr(cause, 'verify_message', None) or cause.reason})"
        cause = cause.__cause__ or cause.__context__
    return "it does not answer" if isinstance(error, httpx.ConnectTimeout) else str(error) or "no connection"
