"""The metrics of one request: one row each with name, unit, direction and formula. A new metric is a new row.

Stamps are nanoseconds of one clock, results milliseconds or per second. A request that cannot have a metric gives NaN.
Whoever changes a formula raises ``DEFINITION_VERSION``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ai_lab.benchmarks.plan import OpenLoop, Plan
from ai_lab.benchmarks.records import Record, Status, TokenSource
from ai_lab.benchmarks.schemas import DEFINITION_VERSION

Floats = NDArray[np.float64]
_NAN = float("nan")
#: Whole answers. Only they have latencies; the others are counted, and infinite in adjusted percentiles.
COMPLETED: frozenset[Status] = frozenset({"ok", "short"})
#: What the server or the way to it got wrong. cancelled is our own doing: neither a success nor a failure.
FAILED: frozenset[Status] = frozenset({"aborted", "error", "timeout"})
BY_SERVER: TokenSource = "server"
BY_CHUNKS: TokenSource = "chunks"
#: A prefill rate this many times the median can only be a cache at work.
CACHED_PREFILL_RATIO = 3.0


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a request (``of``), or of the chunks of all requests together (``of`` is None).

    ``has_short``: answers that ended early count too, for it does not depend on the length that was asked for.
    """

    name: str
    unit: str
    better: Literal["less", "more"]
    formula: str
    of: Callable[[Record], float] | None
    has_short: bool = True


def _between(start_ns: int | None, end_ns: int | None) -> float:
    return _NAN if start_ns is None or end_ns is None else (end_ns - start_ns) / 1e6


def _ttft(record: Record) -> float:
    return _between(record.sent_ns, record.first_token_ns)


def _ttfat(record: Record) -> float:
    return _between(record.sent_ns, record.first_answer_ns)


def _ttft_sched(record: Record) -> float:
    return _between(record.intended_ns, record.first_token_ns)


def _e2e(record: Record) -> float:
    return _between(record.sent_ns, record.last_token_ns)


def _e2e_sched(record: Record) -> float:
    return _between(record.intended_ns, record.last_token_ns)


def _tpot(record: Record) -> float:
    span, tokens = _between(record.first_token_ns, record.last_token_ns), record.later_tokens()
    return span / tokens if tokens > 0 and span > 0 else _NAN


def _decode_tps(record: Record) -> float:
    return 1000 / _tpot(record)


def _server_decode_tps(record: Record) -> float:
    duration, tokens = record.server_ms.get("decode_ms", 0.0), record.completion_tokens or 0
    if duration <= 0 or tokens < 2 or record.token_source != BY_SERVER:  # noqa: PLR2004 - a rate needs two tokens
        return _NAN
    return 1000 * (tokens - 1) / duration


def _server_client_decode_ratio(record: Record) -> float:
    return _server_decode_tps(record) / _decode_tps(record)


def _prefill_tps_server(record: Record) -> float:
    duration = record.server_ms.get("prompt_ms", 0.0)
    tokens = (record.prompt_tokens or 0) - (record.cached_tokens or 0)
    return 1000 * tokens / duration if duration > 0 and tokens > 0 else _NAN


def _prompt_tps_until_first_token(record: Record) -> float:
    ttft = _ttft(record)
    return 1000 * record.prompt_tokens / ttft if record.prompt_tokens and ttft > 0 else _NAN


def _load(record: Record) -> float:
    return record.server_ms.get("load_ms", _NAN)


def _overhead(record: Record) -> float:
    return _ttft(record) - record.server_ms.get("load_ms", 0.0) - record.server_ms.get("prompt_ms", _NAN)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("ttft", "ms", "less", "first token (text or reasoning) - request sent; short answers count", _ttft),
        Metric(
            "ttfat",
            "ms",
            "less",
            "first token of the answer itself - request sent; given where models reason before they answer",
            _ttfat,
        ),
        Metric(
            "ttft_sched",
            "ms",
            "less",
            "first token - moment the schedule intended it to be sent, so that waiting in a queue counts",
            _ttft_sched,
        ),
        Metric(
            "e2e", "ms", "less", "last token - request sent; without short answers, whose end came early", _e2e, False
        ),
        Metric(
            "e2e_sched",
            "ms",
            "less",
            "last token - moment the schedule intended it to be sent; without short answers",
            _e2e_sched,
            False,
        ),
        Metric(
            "tpot",
            "ms",
            "less",
            "(last token - first token) / (N - n_first): N all tokens of the answer that arrived, n_first those of "
            "the first read; one value per request; short answers count with their own N",
            _tpot,
        ),
        Metric(
            "gap",
            "ms",
            "less",
            "time between one chunk and the next, of all answers together and never averaged per request. Chunks of "
            "one read from the socket have a gap of 0: they are kept, and shared_read_share says how many there are. "
            "A chunk may hold several tokens. stalls: gaps above 10 times the median of those above 0",
            None,
        ),
        Metric("decode_tps", "tokens/s", "more", "1000 / tpot, of each request", _decode_tps),
        Metric(
            "server_decode_tps",
            "tokens/s",
            "more",
            "(N - 1) / the server's own time from first token to last; N by the server's count",
            _server_decode_tps,
        ),
        Metric(
            "prefill_tps_server",
            "tokens/s",
            "more",
            "tokens of the prompt that were not cached / the server's own time for them. Where the server does not "
            "say how many were cached: only for prompts sent once, and without rates above 3 times the median "
            "(flagged prefill_cached); the beginning of the chat template, which all prompts share, may still be in it",
            _prefill_tps_server,
        ),
        Metric(
            "prompt_tps_until_first_token",
            "tokens/s",
            "more",
            "all tokens of the prompt / ttft: it contains everything before the first token (network, queue, load, "
            "cache), and is no measure of prefill alone",
            _prompt_tps_until_first_token,
        ),
        Metric("load", "ms", "less", "the server's own time for loading the model before this request", _load),
        Metric(
            "overhead",
            "ms",
            "less",
            "ttft - (load + prompt time) of the server: network, queue, sampling of the first token, our client",
            _overhead,
        ),
    )
}
#: Agreement of two independent clocks; one figure of a cell, not a metric of its own.
DECODE_RATIO = Metric(
    "server_client_decode_ratio",
    "ratio",
    "more",
    "median of server_decode_tps / decode_tps; 1 when both are right",
    _server_client_decode_ratio,
)


def is_open(plan: Plan) -> bool:
    """Return whether requests come at their own times, so that latencies count from the intended time."""
    return isinstance(plan.load, OpenLoop) or plan.load.mode == "goodput"


def values_of(metric: Metric, records: Sequence[Record]) -> Floats:
    """Return the metric of each record, NaN where it has none, for metrics of requests.

    Failed requests have none, short ones only where ``metric.has_short``.
    """
    of = metric.of
    if of is None:
        raise ValueError(f"{metric.name} is a metric of chunks")
    statuses = COMPLETED if metric.has_short else {"ok"}
    return np.array([of(record) if record.status in statuses else _NAN for record in records], dtype=np.float64)


def adjusted_values(metric: Metric, records: Sequence[Record], values: Floats) -> Floats:
    """Return the values with +infinity for every request that failed (and short ones where length matters).

    Cancelled requests are left out, as are whole answers without this metric.
    """
    failed = [record.status in FAILED or (record.status == "short" and not metric.has_short) for record in records]
    return np.concatenate([values[~np.isnan(values)], np.full(sum(failed), np.inf)])


def prefill_values(records: Sequence[Record], sent_once: Collection[str]) -> tuple[Floats, int]:
    """Return prefill_tps_server of each record and how many were left out as cached.

    Ollama counts cached tokens as part of the prompt while its duration is of the others alone, and does not say how
    many there were; a repeated prompt then seems to be read ten times as fast as it was.

    Args:
        records: those of one cell.
        sent_once: hashes of the prompts that went out only once in the run.
    """
    rates = values_of(METRICS["prefill_tps_server"], records)
    is_known = np.array([record.cached_tokens is not None for record in records], dtype=bool)
    is_once = np.array([record.prompt_sha256 in sent_once for record in records], dtype=bool)
    usable = rates[(is_known | is_once) & ~np.isnan(rates)]
    limit = CACHED_PREFILL_RATIO * float(np.median(usable)) if usable.size else np.inf
    is_cached = ~np.isnan(rates) & ~is_known & (~is_once | (rates > limit))
    return np.where(is_cached, _NAN, rates), int(is_cached.sum())


def gaps_of(record: Record) -> Floats:
    """Return the milliseconds between the chunks of a whole answer, in order; none for others."""
    if record.status not in COMPLETED:
        return np.empty(0)
    return np.diff(np.frombuffer(record.chunk_ns, dtype=np.int64)).astype(np.float64) / 1e6


def definitions() -> dict[str, dict[str, str]]:
    """Return unit, formula, direction and version of every metric of a request, for reports."""
    return {
        metric.name: {
            "unit": metric.unit,
            "formula": metric.formula,
            "better": metric.better,
            "definition_version": str(DEFINITION_VERSION),
        }
        for metric in (*METRICS.values(), DECODE_RATIO)
    }
