"""What is shown of the gateway: breakers, and the limits and places of services."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from ai_lab.settings.entries import AliasEntry

State = Literal["closed", "open", "half_open"]


class BreakerState(BaseModel):
    """One model of a service that failed lately, and whether it is left alone."""

    provider: str
    model: str
    state: State = Field(description="half_open: one request tries it at this moment.")
    failures: int = Field(description="In a row.")
    error_code: str | None = Field(default=None, description="Of the last failure.")
    reason: str | None = Field(default=None, description="Its text.")
    opened_at: datetime | None = None
    retry_at: datetime | None = Field(default=None, description="When one request may try it again.")
    retry_after_seconds: float | None = Field(default=None, description="The same, counted from now; 0: it may now.")
    changed_at: datetime


class BreakerList(BaseModel):
    """The models of services that failed lately; all others are well as far as is known."""

    breakers: list[BreakerState]


class ServiceUse(BaseModel):
    """What is asked of a service now, by this server, and what may be asked of it."""

    service: str
    concurrency: int = Field(description="Requests that it gets at once.")
    is_shared: bool = Field(description="Whether that holds for all servers on this database together.")
    in_use: int
    waiting: int
    requests: str | None = None
    tokens: str | None = Field(default=None, description="Estimated ones of the prompt, and `max_tokens`.")


class RetryRules(BaseModel):
    """How often a service is asked, and for how long."""

    attempts: int
    wait_seconds: float
    deadline_seconds: float


class BreakerRules(BaseModel):
    """When a model of a service is left alone, and for how long at first."""

    failures: int
    seconds: float


class GatewayOverview(BaseModel):
    """How requests get to models in this lab."""

    aliases: dict[str, AliasEntry]
    services: list[ServiceUse]
    retry: RetryRules
    breaker: BreakerRules
    warnings: list[str] = Field(description="Names in the settings that no service has; the log said so at the start.")
