"""What went wrong at a model service, as an error of our tree: from httpx, from HTTP answers, from within a stream."""

from __future__ import annotations

import contextlib
import copy
import math
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from ai_lab import clock
from ai_lab.errors import (
    AddressRefused,
    ContentFiltered,
    ContextOverflow,
    LabError,
    ModelNotFound,
    OutOfMemory,
    ProviderAuthFailed,
    ProviderError,
    ProviderQuotaExceeded,
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
#: Those of proxies in front of the service included, which answer 520 to 525 where it does not.
_UNAVAILABLE = {502, 503, 520, 521, 522, 523, 525, 529}
_MEMORY_TEXT = re.compile(r"more system memory|out of memory|unable to allocate|insufficient memory", re.IGNORECASE)
_UNSUPPORTED_TEXT = re.compile(
    r"does not support|not supported by this model|no endpoints found that (can handle|support)", re.IGNORECASE
)
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

    def _classify(
        self, status: int, report: Report, how: str, model: str | None, headers: Mapping[str, str]
    ) -> LabError:
        wait_seconds = retry_after_seconds(headers)
        report = replace(
            report,
            message=self.clean(report.message).rstrip("."),
            wait_seconds=report.wait_seconds if wait_seconds is None else wait_seconds,
        )
        if 300 <= status < 400:  # noqa: PLR2004  # the redirects
            target = self.clean(_public_address(headers.get("location", ""))) or "somewhere else"
            return ProviderError(
                f"{self._name} redirects to {target}. Redirects are not followed: set its final address."
            )
        return self._of_cause(status, report, how, model) or self._of_status(status, report, how)

    def _of_cause(  # noqa: PLR0911  # one row per cause
        self, status: int, report: Report, how: str, model: str | None
    ) -> LabError | None:
        """Return the error where the service names a cause that several statuses may have."""
        said = f": {report.message}" if report.message else ""
        answered = f"{self._name} answered with {how}{said}."
        if report.is_context_overflow(status):
            return ContextOverflow(self._overflow_text(report, said, model), param="messages")
        if report.is_filtered(status):
            return ContentFiltered(f"The content filter of {self._name} refused the request{said}. Reword it.")
        if report.is_quota(status):
            remedy = "The account there is out of credit or quota: top it up, or choose another model."
            return ProviderQuotaExceeded(f"{answered} {remedy}", retry_after_seconds=report.wait_seconds)
        if report.is_key_refused(status):
            remedy = "Check the key and its rights." if self._secret else "It wants an API key: give it one."
            return ProviderAuthFailed(f"{answered} {remedy}")
        if report.is_field_refused():
            return UnsupportedFeature(f"{self._name} cannot do this{said}.", param=report.field)
        if model and report.is_model_unknown(status):
            return ModelNotFound(f"{self._name} has no model {model!r}. {self._missing_model_hint.format(model=model)}")
        return None

    def _of_status(self, status: int, report: Report, how: str) -> LabError:  # noqa: PLR0911  # one row per kind
        said = f": {report.message}" if report.message else ""
        wait = report.wait_seconds
        answered = f"{self._name} answered with {how}{said}."
        if status == 501 or (status in {400, 404, 422, 500} and _UNSUPPORTED_TEXT.search(report.message)):  # noqa: PLR2004
            return UnsupportedFeature(f"{self._name} cannot do this{said}.")
        if status in {404, 405}:
            return ProviderError(f"{answered} Check its address: {self._address}{self._address_hint}.")
        if status == 429:  # noqa: PLR2004 - too many requests
            pause = f" Try again in {math.ceil(wait)} s." if wait else ""
            return ProviderRateLimited(f"{answered}{pause}", retry_after_seconds=wait)
        if status in {408, 504, 524}:
            return ProviderTimeout(f"{answered} Try again.", retry_after_seconds=wait)
        if 400 <= status < 500:  # noqa: PLR2004  # the other faults of a request
            return ProviderRefused(f"{self._name} refused the request ({how}){said}.")
        if _MEMORY_TEXT.search(report.message):
            return OutOfMemory(f"{self._name} has not enough memory{said}. Choose a smaller model or free memory.")
        if status in _UNAVAILABLE:
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
    return _seconds_to_reset(headers)


def _seconds_to_reset(headers: Mapping[str, str]) -> float | None:
    """Return how long until those of Anthropic's limits that are used up are reset, None where none is."""
    waits = []
    for name, left in headers.items():
        kind = re.fullmatch(r"anthropic-ratelimit-([a-z-]+)-remaining", name.lower())
        if kind and left.strip() == "0":
            with contextlib.suppress(ValueError):
                moment = datetime.fromisoformat(headers.get(f"anthropic-ratelimit-{kind[1]}-reset", ""))
                waits.append(max(0.0, (clock.as_utc(moment) - clock.now()).total_seconds()))
    return max(waits, default=None)


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
