"""What is known of one model that failed, and what an error says about the service that it came from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from ai_lab.clock import now as wall_now
from ai_lab.errors import (
    BreakerOpen,
    ContentFiltered,
    ContextOverflow,
    LabError,
    ModelNotFound,
    ProviderAuthFailed,
    ProviderError,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderRefused,
    UnsupportedFeature,
)
from ai_lab.gateway.schemas import BreakerState, State

#: ``fault``: it counts. ``hold``: the service itself asks to be left alone. ``busy``: it does, for a moment that a
#: retry waits. ``alive``: it answered, and the fault was elsewhere. ``unknown``: it may never have been asked.
Verdict = Literal["fault", "hold", "busy", "alive", "unknown"]
Key = tuple[str, str]

#: Retries wait for a service that limits the rate of requests, but no longer than this.
LONGEST_RETRY_WAIT_SECONDS = 20.0
#: The wait doubles up to here; what a service asks for itself is believed up to an hour.
LONGEST_WAIT_SECONDS = 600.0
LONGEST_ASKED_SECONDS = 3600.0
_REASON_CHARACTERS = 500

_ANSWERS = (
    ProviderAuthFailed,
    ProviderRefused,
    ContentFiltered,
    ContextOverflow,
    ModelNotFound,
    UnsupportedFeature,
)


def judged(error: LabError) -> Verdict:
    """Return what an error says about the service; whatever is of the tree's branch ProviderError else is its fault."""
    if isinstance(error, ProviderQuotaExceeded):
        return "hold"
    if isinstance(error, ProviderRateLimited):
        return "hold" if (error.retry_after_seconds or 0) > LONGEST_RETRY_WAIT_SECONDS else "busy"
    if isinstance(error, _ANSWERS):
        return "alive"
    return "fault" if isinstance(error, ProviderError) else "unknown"


@dataclass(slots=True)
class Record:
    """A row of ``gateway_breakers``. Moments are Unix seconds by the database's clock."""

    provider: str
    model: str
    state: State = "closed"
    failures: int = 0
    error_code: str | None = None
    reason: str | None = None
    opened_at: float | None = None
    retry_at: float | None = None
    probe: str | None = None
    probe_until: float | None = None
    changed_at: datetime = field(default_factory=wall_now)

    @property
    def key(self) -> Key:
        """Provider and model."""
        return self.provider, self.model

    def blame(self, error: LabError) -> None:
        """Keep what the last error said."""
        said = error.detail[:_REASON_CHARACTERS].replace("\0", "")  # which Postgres does not take
        self.error_code, self.reason = error.code, said.encode(errors="replace").decode()
        self.changed_at = wall_now()

    def open(self, now: float, wait_seconds: float) -> None:
        """Leave the model alone until ``wait_seconds`` from now."""
        self.state, self.opened_at, self.retry_at = "open", now, now + wait_seconds
        self.probe = self.probe_until = None
        self.changed_at = wall_now()

    def next_wait_seconds(self, error: LabError, first_seconds: float) -> float:
        """Return how long it is left alone: twice as long as the last time, or for as long as the service asks."""
        wait = first_seconds
        if self.opened_at is not None and self.retry_at is not None:
            wait = max(wait, min(2 * (self.retry_at - self.opened_at), LONGEST_WAIT_SECONDS))
        return max(wait, min(error.retry_after_seconds or 0.0, LONGEST_ASKED_SECONDS))

    def shown(self, now: float) -> BreakerState:
        """Return what users see of it."""
        left = None if self.retry_at is None or self.state == "closed" else max(0.0, self.retry_at - now)
        return BreakerState(
            provider=self.provider,
            model=self.model,
            state=self.state,
            failures=self.failures,
            error_code=self.error_code,
            reason=self.reason,
            opened_at=_moment(self.opened_at),
            retry_at=_moment(self.retry_at),
            retry_after_seconds=None if left is None else round(left, 3),
            changed_at=self.changed_at,
        )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def refusal(record: Record, now: float) -> BreakerOpen | ProviderQuotaExceeded:
    """Return the error of a request to a model that is left alone.

    An account without quota stays so until somebody pays: that is said as it was said first, since to ask again after a
    while, as clients do after ``BreakerOpen``, does not help.
    """
    name = f"{record.provider}/{record.model}"
    if record.state == "half_open" or record.retry_at is None:
        seconds, next_try = 1, "one request tries it at this moment"
    else:
        seconds = max(1, math.ceil(record.retry_at - now))
        next_try = f"it is tried again in {seconds} s, or at once after DELETE /gateway/breakers/{name}"
    if record.error_code == ProviderQuotaExceeded.code:
        return ProviderQuotaExceeded(
            f"{record.reason} {name} was not asked this time: {next_try}.", retry_after_seconds=seconds
        )
    times = "a failure" if record.failures == 1 else f"{record.failures} failures in a row"
    said = f" Last error: {record.reason}" if record.reason else ""
    return BreakerOpen(
        f"{name} is left alone after {times}: {next_try}. Or name another model.{said}", retry_after_seconds=seconds
    )
