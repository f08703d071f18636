"""The shape of ``GET /performance/summary``. None means that nothing was measured; it is never shown as 0."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ai_lab.telemetry.schemas import SystemMetrics


class SummaryWindow(BaseModel):
    """What the figures are over."""

    model_config = ConfigDict(populate_by_name=True)

    start: datetime = Field(
        alias="from",
        description="Where the counts begin: at the edge of the finest counts kept. These are of ten seconds for two "
        "hours, of five minutes for two days, of an hour for a week, then of a day (UTC).",
    )
    end: datetime = Field(alias="to", description="The moment of the answer.")
    seconds: float = Field(description="From `from` to `to`.")
    coverage_percent: float = Field(
        description="Part of the window in which a server ran and recorded. Exact for one server and its restarts; of "
        "several at once the times are added within each stored slot, up to its length, so it is then the most it was."
    )


class Durations(BaseModel):
    """How long something took, in milliseconds. Percentiles are within 1 % of the exact ones; the rest is exact."""

    mean_ms: float | None
    min_ms: float | None
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None


class OperationFigures(Durations):
    """One operation. Failed calls are timed as well."""

    kind: Literal["http", "database", "provider", "function"]
    name: str
    count: int
    errors: int
    error_rate: float = Field(description="Errors by count, 0 to 1.")


class RouteFigures(OperationFigures):
    """One endpoint; an error is an answer of 500 and above."""

    method: str
    route: str = Field(description="The template, such as /conversations/{session_id}.")


class HttpFigures(BaseModel):
    """All requests."""

    requests: int
    errors: int
    error_rate: float | None
    by_route: list[RouteFigures]


class TokenCounts(BaseModel):
    """Tokens as providers counted them."""

    input: int
    output: int


class TokenRate(BaseModel):
    """Tokens per second of single answers, after their first token; p05 is what 95 % of the answers reach."""

    p50: float | None
    p05: float | None


class ModelFigures(BaseModel):
    """One model of one provider; calls that were called off are left out."""

    provider: str
    model: str
    requests: int
    failures: int
    failure_rate: float
    duration: Durations
    first_token: Durations | None = Field(description="Time to the first token.")
    decode_tokens_per_second: TokenRate | None
    tokens: TokenCounts


class LlmFigures(BaseModel):
    """All calls of models."""

    requests: int
    failures: int
    failure_rate: float | None
    tokens: TokenCounts
    by_model: list[ModelFigures]


class SlowestOperation(BaseModel):
    """One of the slowest operations of the window."""

    kind: Literal["http", "database", "provider", "function"]
    name: str
    duration_ms: float
    at: datetime = Field(description="When it ended.")
    trace_id: str | None


class Spread(BaseModel):
    """A figure of the machine over the window."""

    avg: float
    min: float
    max: float


class SystemFigures(BaseModel):
    """The machine over the window; None where its history is off or empty."""

    cpu_usage_percent: Spread | None = None
    memory_usage_percent: Spread | None = None


class PerformanceSummary(BaseModel):
    """How the lab did over a window."""

    uptime_seconds: float = Field(description="Of the process that answers.")
    current_metrics: SystemMetrics | None = Field(description="The newest sample; None where metrics are off.")
    timestamp: datetime
    window: SummaryWindow
    percentile_method: Literal["histogram"] = "histogram"
    percentile_error_percent: float = Field(default=1.0, description="Bound on the relative error of percentiles.")
    system: SystemFigures
    http: HttpFigures
    database: list[OperationFigures]
    llm: LlmFigures
    functions: list[OperationFigures]
    slowest: list[SlowestOperation]
