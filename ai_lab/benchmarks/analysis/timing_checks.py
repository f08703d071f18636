"""What the times of requests say against the figures: clocks, drift, punctuality, loads in mid-run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ai_lab.benchmarks.analysis.drift import LARGEST_AUTOCORRELATION, LARGEST_DRIFT_PERCENT, is_drift
from ai_lab.benchmarks.analysis.evidence import Evidence, finding, median_of, total_of_cell, where
from ai_lab.benchmarks.analysis.metrics import is_open
from ai_lab.benchmarks.schemas import Cell, Reason, Stability

DECODE_DISAGREEMENT = 0.01
SHARED_READ_SHARE = 0.25
LEAST_DISPATCH_LIMIT_MS = 1.0
DISPATCH_TTFT_SHARE = 0.01
LEAST_ACHIEVED_SHARE = 0.95
FEW_REQUESTS = 10
FEW_WAVES = 5  # requests per stream in one block
RELOAD_MS = 250.0  # a model that is there needs a few milliseconds


def check_agreement(evidence: Evidence) -> Iterator[Reason]:
    """Our clock and the server's must see the same speed, and chunks must arrive as they are made."""
    for _, result in evidence.pairs():
        ratio = total_of_cell(result, "server_client_decode_ratio")
        if ratio is not None and abs(ratio - 1) > DECODE_DISAGREEMENT:
            yield finding(
                "suspect",
                "decode_disagrees",
                f"By the server's own time decoding{where(evidence, result)} is {ratio:.3f} times as fast as seen "
                "here. Something between buffers or delays the stream, the server counts otherwise, or this client "
                "is too slow: measure beside the server and with fewer streams.",
                arm=result.arm,
                value=abs(ratio - 1),
                limit=DECODE_DISAGREEMENT,
            )
        gap = result.metrics.get("gap")
        shared = gap.extra["shared_read_share"] if gap else 0.0
        if shared > SHARED_READ_SHARE:
            yield finding(
                "suspect",
                "stream_buffered",
                f"{shared:.0%} of the chunks{where(evidence, result)} arrived together with the one before: a proxy "
                "or the server sends in bundles. Gaps and ttft are those of the bundles; measure without the proxy.",
                arm=result.arm,
                value=shared,
                limit=SHARED_READ_SHARE,
            )


def check_stability(evidence: Evidence) -> Iterator[Reason]:
    """Figures must not change while they are taken, and there must be enough of them."""
    plan = evidence.data.plan
    for cell, result in evidence.pairs():
        stability = result.stability
        if stability and stability.is_stable is False and not evidence.is_beyond_capacity(cell):
            yield _instability(stability, result, where(evidence, result), is_open=is_open(plan))
        if cell.completed and len(cell.completed) < FEW_REQUESTS:
            yield finding(
                "note",
                "few_requests",
                f"Only {len(cell.completed)} answers{where(evidence, result)}: intervals are wide or missing. Ask "
                f"for {FEW_REQUESTS} requests or more.",
                arm=result.arm,
                value=float(len(cell.completed)),
                limit=float(FEW_REQUESTS),
            )
        waves = len(cell.records) / max(1, len(cell.blocks)) / cell.level
        if result.level_kind == "concurrency" and cell.level > 1 and cell.records and waves < FEW_WAVES:
            yield finding(
                "note",
                "few_waves",
                f"Each block{where(evidence, result)} had {waves:.2g} requests a stream: its beginning, when all start "
                "at once, and its end, when few are left, are a large part of throughput and ttft. Ask for "
                f"{math.ceil(FEW_WAVES * cell.level * max(1, len(cell.blocks)))} requests or more.",
                arm=result.arm,
                value=waves,
                limit=float(FEW_WAVES),
            )
        share = total_of_cell(result, "determinism_share")
        temperature = plan.arms[cell.arm].options.get("temperature", 0)
        if share is not None and share < 1 and temperature == 0:
            yield finding(
                "note",
                "nondeterministic",
                f"At temperature 0 only {share:.0%} of pairs of answers to the same prompt{where(evidence, result)} "
                "are equal. Speed is not affected; do not expect to repeat texts.",
                arm=result.arm,
                value=share,
                limit=1.0,
            )


def _instability(stability: Stability, result: Cell, spot: str, *, is_open: bool) -> Reason:
    change = abs(stability.drift_percent or 0.0)
    if not is_drift(stability.drift_percent, stability.drift_p_value):
        return finding(
            "suspect",
            "unstable",
            f"{stability.metric}{spot} of neighbouring requests is alike (autocorrelation "
            f"{stability.lag1_autocorrelation or 0:.2f}): the speed goes up and down slowly, and intervals are "
            "narrower than they should be. Stop other work, fix the clock rate, or measure longer.",
            arm=result.arm,
            value=stability.lag1_autocorrelation,
            limit=LARGEST_AUTOCORRELATION,
        )
    because = (
        "The server does not keep up with this rate, or the machine changed: ask for a lower rate"
        if is_open
        else "The machine warmed up, slowed down or was shared: warm up longer, let it cool, stop other work"
    )
    return finding(
        "suspect",
        "unstable",
        f"{stability.metric}{spot} changed by {stability.drift_percent:+.1f} % from the first to the last request. "
        f"{because}.",
        arm=result.arm,
        value=change,
        limit=LARGEST_DRIFT_PERCENT,
    )


def check_schedule(evidence: Evidence) -> Iterator[Reason]:
    """An open loop is worth what its punctuality is: reference for it is the intended time."""
    if not is_open(evidence.data.plan):
        return
    for _, result in evidence.pairs():
        delay, ttft = total_of_cell(result, "dispatch_delay_p99_ms"), median_of(result, "ttft")
        limit = max(LEAST_DISPATCH_LIMIT_MS, DISPATCH_TTFT_SHARE * (ttft or 0.0))
        if delay is not None and delay > limit:
            yield finding(
                "invalid",
                "dispatch_delay",
                f"One request in a hundred{where(evidence, result)} was sent {delay:.1f} ms late or more by this "
                f"client itself (limit {limit:.1f} ms), which is then part of its latency. Use a less busy machine "
                "or a lower rate.",
                arm=result.arm,
                value=delay,
                limit=limit,
            )
        offered, achieved = total_of_cell(result, "offered_rps"), total_of_cell(result, "achieved_rps")
        if offered and achieved is not None and achieved < LEAST_ACHIEVED_SHARE * offered:
            yield finding(
                "invalid",
                "rate_not_kept",
                f"This client sent {achieved:.2f} requests/s{where(evidence, result)} where {offered:.2f} were "
                "intended. Use a less busy machine or a lower rate.",
                arm=result.arm,
                value=achieved / offered,
                limit=LEAST_ACHIEVED_SHARE,
            )


def check_reloads(evidence: Evidence) -> Iterator[Reason]:
    """A model that is loaded in mid-run was thrown out before: by another model, for memory or after a pause."""
    warm = {record.arm for record in evidence.data.records if record.phase == "warmup"}
    for arm, name in enumerate(evidence.data.plan.arm_names()):
        records = [record for cell in evidence.cells if cell.arm == arm for record in cell.records]
        records.sort(key=lambda record: record.index)
        loads = np.array([record.server_ms.get("load_ms", 0.0) for record in records[0 if arm in warm else 1 :]])
        often = int((loads > RELOAD_MS).sum())
        if often:
            yield finding(
                "suspect",
                "model_reloaded",
                f"The server loaded the model {'once' if often == 1 else f'{often} times'} during the run (up to "
                f"{loads.max():.0f} ms): it had been "
                "evicted, by another model or for lack of memory. Stop what else uses the server, give it more "
                "memory, or measure one model at a time.",
                arm=name,
                value=float(loads.max()),
                limit=RELOAD_MS,
            )


TIMING_CHECKS: tuple[Callable[[Evidence], Iterable[Reason]], ...] = (
    check_agreement,
    check_stability,
    check_schedule,
    check_reloads,
)
