"""What a benchmark says: runs, their figures, comparisons and grade. The published JSON Schema is made of ``Report``.

Units are in the names: ``_ms`` milliseconds, ``_tps`` tokens per second, ``_rps`` requests per second. Percentiles are
of raw values. A figure without an interval says why in ``reason``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ai_lab.benchmarks.plan import MOST_ARMS, Plan
from ai_lab.benchmarks.plan_fields import ApiKey

#: Raised whenever a formula below changes; figures of different versions are not compared.
DEFINITION_VERSION = 1
SCHEMA_VERSION = 1

RunStatus = Literal["queued", "running", "complete", "cancelled", "interrupted", "failed"]
#: Runs in these states change no more.
ENDED: frozenset[RunStatus] = frozenset({"complete", "cancelled", "interrupted", "failed"})
Grade = Literal["VALID", "SUSPECT", "INVALID"]
Verdict = Literal["faster", "slower", "equivalent", "inconclusive"]


class Estimate(BaseModel):
    """A figure and the interval that covers the true one in ``confidence`` of all runs like this one."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float = 0.95
    method: str | None = None  # "bca bootstrap, clustered", "order statistics", "t on logs", "wilson"
    reason: str | None = None  # why there is no value or no interval


class MetricResult(BaseModel):
    """One metric of one arm at one level. ``n`` counts what it is made of (requests; for gap: gaps)."""

    name: str
    unit: str
    definition_version: int = DEFINITION_VERSION
    n: int
    n_clusters: int  # requests or blocks that are independent of each other: what intervals rest on
    mean: Estimate
    median: Estimate
    percentiles: dict[str, Estimate] = Field(default_factory=dict)  # "p50", "p90", "p95", "p99", "p99.9"
    adjusted_percentiles: dict[str, float | None] = Field(default_factory=dict)  # failed requests as infinity: None
    min: float | None = None
    max: float | None = None
    standard_deviation: float | None = None
    extra: dict[str, float] = Field(default_factory=dict)  # gap: stalls


class Counts(BaseModel):
    """What became of the measured requests."""

    ok: int = 0
    short: int = 0
    aborted: int = 0
    error: int = 0
    timeout: int = 0
    cancelled: int = 0

    @property
    def all(self) -> int:
        """Return how many requests there were."""
        return self.ok + self.short + self.aborted + self.error + self.timeout + self.cancelled


class Stability(BaseModel):
    """Whether the figures drifted while they were taken (on ``metric``, in order of time)."""

    metric: str
    drift_percent: float | None = None  # of the median, first to last request, by a robust slope
    drift_p_value: float | None = None
    lag1_autocorrelation: float | None = None
    is_stable: bool | None = None
    dropped_as_warmup: int = 0  # measured requests at the beginning that automatic truncation left out


class Cell(BaseModel):
    """One arm at one level (a concurrency, or a rate in requests per second)."""

    arm: str
    arm_index: int
    level_index: int
    level: float
    level_kind: Literal["concurrency", "rate"]
    counts: Counts
    metrics: dict[str, MetricResult]
    #: Whole-cell figures: request_rps, offered_rps, achieved_rps, output_tps (all streams together), input_tps,
    #: goodput_rps, goodput_share, error_share, cached_share, joules_per_token_gross, joules_per_token_marginal,
    #: joules_per_request, mean_watts, dispatch_delay_p99_ms, client_cpu_us_per_chunk, determinism_share,
    #: server_client_decode_ratio.
    totals: dict[str, Estimate] = Field(default_factory=dict)
    stability: Stability | None = None
    prompt_tokens_median: float | None = None
    completion_tokens_median: float | None = None
    token_source: str | None = None
    errors: dict[str, int] = Field(default_factory=dict)  # text of the error: how often
    notes: list[str] = Field(default_factory=list)


class Comparison(BaseModel):
    """One metric of ``arm`` against ``baseline`` at one level. ``ratio`` is arm / baseline.

    ``change_percent`` is how much more (+) or less (-) the arm's figure is; ``faster`` and ``slower`` say what that
    means for this metric, for less is better in latencies and more is better in rates.
    """

    metric: str
    unit: str
    arm: str
    baseline: str
    level_index: int = 0
    level: float
    n_blocks: int
    ratio: float | None
    low: float | None
    high: float | None
    change_percent: float | None
    confidence: float = 0.95
    p_value: float | None = None
    p_adjusted: float | None = None  # Holm, over all comparisons of the run
    equivalence_margin: float
    lower_is_better: bool = True  # latencies; rates: False
    verdict: Verdict
    blocks_needed: int | None = None  # inconclusive: more blocks that would likely decide
    method: str = ""
    sentence: str = ""  # for people: "2 threads are faster than 1 by 41-47 % (tpot)."
    is_historical: bool = False


class Reason(BaseModel):
    """Why a run is not simply valid. ``code`` is stable, ``text`` for people with the remedy."""

    code: str
    severity: Literal["suspect", "invalid", "note"]
    text: str
    arm: str | None = None
    value: float | None = None
    limit: float | None = None


class Instrument(BaseModel):
    """What the measuring itself does to the figures, measured right before the run against a server of our own."""

    seconds: float
    chunks: int
    chunk_rate: float  # chunks per second that were asked for: the planned rate
    achieved_rate: float
    ttft_error_ms: Estimate  # client's stamp minus server's stamp, median
    stamp_error_p99_ms: float  # of all chunks
    gap_error_ms: float  # what the 99th percentile of gaps is off: |that of gaps seen - that of gaps sent|
    cpu_us_per_chunk: float
    loop_lag_p99_ms: float


class SearchStep(BaseModel):
    """A rate that the search for goodput tried."""

    rate: float
    share_good: Estimate
    holds: bool
    level_index: int


class ReportBody(BaseModel):
    """Everything that was computed of a run's records."""

    schema_version: int = SCHEMA_VERSION
    definition_version: int = DEFINITION_VERSION
    grade: Grade
    reasons: list[Reason]
    cells: list[Cell]
    comparisons: list[Comparison] = Field(default_factory=list)
    search: list[SearchStep] = Field(default_factory=list)
    highest_rate: Estimate | None = None  # of a goodput search, requests per second
    cold_load_seconds: dict[str, MetricResult] = Field(default_factory=dict)  # by arm
    instrument: Instrument | None = None
    provenance: dict[str, Any] = Field(default_factory=dict)  # see observation/provenance.py
    machine: dict[str, Any] = Field(default_factory=dict)  # means and extremes of the samples, idle and busy
    definitions: dict[str, dict[str, str]] = Field(default_factory=dict)  # metric: unit, formula, better
    duration_seconds: float | None = None


class Progress(BaseModel):
    """How far a run is."""

    phase: str  # queued, preparing, calibrating, cold loads, idle, prompts, warm-up, measuring, analysing
    done: int = 0  # measured requests
    total: int = 0
    failed: int = 0
    blocks_done: int = 0
    blocks_total: int = 0
    arm: str | None = None
    level: float | None = None
    ttft_ms: float | None = None  # of the latest request
    decode_tps: float | None = None
    seconds_left: float | None = None
    message: str | None = None


class Run(BaseModel):
    """A benchmark run as stored; ``report`` is there once something was computed."""

    id: str
    status: RunStatus
    plan: Plan
    title: str
    kind: Literal["run", "sweep", "compare", "goodput"]
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    progress: Progress
    grade: Grade | None = None
    error: str | None = None
    error_code: str | None = None
    rerun_of: str | None = None
    resumed: int = 0  # times it went on after a restart
    report: ReportBody | None = None


class RunPage(BaseModel):
    """A part of the list, the newest first, without reports."""

    data: list[Run]
    after: str | None = None


class CompareRuns(BaseModel):
    """Stored runs to be compared with the first of them."""

    model_config = ConfigDict(extra="forbid")

    runs: list[Annotated[str, Field(min_length=1, max_length=36)]] = Field(
        min_length=2, max_length=8, json_schema_extra={"uniqueItems": True}
    )


class HistoricalComparison(BaseModel):
    """Stored runs against the first of them."""

    runs: list[str]
    comparisons: list[Comparison]


class RerunKeys(BaseModel):
    """Keys of arms that need one: they were not stored."""

    model_config = ConfigDict(extra="forbid")

    api_keys: dict[str, ApiKey] = Field(
        default_factory=dict, max_length=MOST_ARMS, description="By the name of the arm."
    )


class EarlierBenchmark(BaseModel):
    """What ``POST /benchmark/llm`` answers: the figures that earlier programs read, and honest ones.

    ``times`` are seconds from sending to the last token of every iteration that succeeded.
    """

    model_name: str
    prompt_length: int | None
    iterations: int
    times: list[float]
    avg_time: float | None
    min_time: float | None
    max_time: float | None
    total_time: float
    median_time: Estimate | None = None
    p95_time: Estimate | None = None
    ttft_ms: Estimate | None = None
    decode_tps: Estimate | None = None
    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    failed: int = 0
    failures: dict[str, int] = Field(default_factory=dict)
    grade: Grade | None = None
    reasons: list[Reason] = Field(default_factory=list)
    benchmark_id: str
