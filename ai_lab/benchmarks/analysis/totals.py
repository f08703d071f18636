"""The figures of a whole cell: rates of all streams together, shares, energy, and what the client itself cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from ai_lab.benchmarks.analysis.bootstrap import ratio_interval
from ai_lab.benchmarks.analysis.cells import CellData, clusters_of, neighbours, seconds_of, spans_of, turns_of
from ai_lab.benchmarks.analysis.energy import PowerHistory
from ai_lab.benchmarks.analysis.intervals import percentile, percentile_interval, share_interval
from ai_lab.benchmarks.analysis.metrics import COMPLETED, DECODE_RATIO, FAILED, METRICS, is_open, values_of
from ai_lab.benchmarks.plan import GoodputSearch, Plan, Slo
from ai_lab.benchmarks.records import Record
from ai_lab.benchmarks.schemas import DEFINITION_VERSION, Estimate

_FORMULAS: dict[str, tuple[str, str, str]] = {
    "request_rps": ("requests/s", "more", "whole answers, short ones included / time from first request to last end"),
    "offered_rps": ("requests/s", "more", "requests the schedule intended / its time (open loops)"),
    "achieved_rps": ("requests/s", "more", "the same requests / the time in which they were really sent (open loops)"),
    "output_tps": ("tokens/s", "more", "tokens of whole answers of all streams together / time"),
    "input_tps": ("tokens/s", "more", "prompt tokens of whole answers of all streams together / time; not prefill"),
    "goodput_rps": ("requests/s", "more", "good requests / time; good: ok and within every limit of the SLO"),
    "goodput_share": (
        "share",
        "more",
        "good / requests not cancelled by us; short and failed ones are bad; open loops: from the intended time",
    ),
    "error_share": ("share", "less", "aborted, refused and timed out requests / requests not cancelled by us"),
    "cached_share": ("share", "less", "cached prompt tokens / prompt tokens, where the server tells them"),
    "determinism_share": ("share", "more", "pairs of whole answers to the same prompt that are equal / such pairs"),
    "dispatch_delay_p99_ms": ("ms", "less", "99th percentile of begin of sending - intended time (open loops)"),
    "client_cpu_us_per_chunk": ("us/chunk", "less", "CPU time of the measuring process / chunks"),
    "mean_watts": ("W", "less", "energy of all GPUs and, where readable, the CPU package / time"),
    "joules_per_token_gross": ("J/token", "less", "that energy / tokens of whole answers"),
    "joules_per_token_marginal": ("J/token", "less", "(that energy - idle power * time) / tokens of whole answers"),
    "joules_per_request": ("J/request", "less", "that energy / whole answers"),
}


def total_definitions() -> dict[str, dict[str, str]]:
    """Return unit, formula, direction and version of the figures of a cell, for reports."""
    return {
        name: {"unit": unit, "formula": formula, "better": better, "definition_version": str(DEFINITION_VERSION)}
        for name, (unit, better, formula) in _FORMULAS.items()
    }


def slo_of(plan: Plan) -> Slo | None:
    """Return what a good request must keep, None where the plan does not say."""
    return plan.load.slo if isinstance(plan.load, GoodputSearch) else plan.slo


def is_good(record: Record, slo: Slo, *, from_intended: bool) -> bool:
    """Return whether a request got the whole answer within every limit.

    Args:
        record: Of a request that was not cancelled.
        slo: The limits.
        from_intended: Count ttft and e2e from the intended time, as open loops do.
    """
    if record.status != "ok":
        return False
    ttft, e2e = ("ttft_sched", "e2e_sched") if from_intended else ("ttft", "e2e")
    limits = {ttft: slo.ttft_ms, e2e: slo.e2e_ms}
    if record.completion_tokens != 1:  # one token has no time between tokens
        limits["tpot"] = slo.tpot_ms
    return all(limit is None or _value(name, record) <= limit for name, limit in limits.items())  # NaN: not kept


def _value(name: str, record: Record) -> float:
    of = METRICS[name].of
    return of(record) if of is not None else float("nan")


def totals_of(cell: CellData, plan: Plan, power: PowerHistory | None) -> dict[str, Estimate]:
    """Return the figures of a cell by name, without those that cannot be known.

    Args:
        cell: Its records and blocks.
        plan: What was asked.
        power: The machine's meters; None: not this machine's energy.
    """
    totals: dict[str, Estimate] = {}
    _put_rates(totals, cell, plan)
    _put_shares(totals, cell, plan)
    _put_client(totals, cell, plan)
    if power is not None:
        _put_energy(totals, cell, power)
    return totals


def tokens_of(records: Sequence[Record]) -> int | None:
    """Return the tokens of whole answers; None where one of them has no count, for a part is no total."""
    counts = [record.completion_tokens for record in records if record.status in COMPLETED]
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def _put_rates(totals: dict[str, Estimate], cell: CellData, plan: Plan) -> None:
    turns, seconds = turns_of(cell)
    if not turns:
        return

    def rate(amount: Callable[[Record], float | None]) -> Estimate:
        amounts = [sum(amount(one) or 0 for one in turn if one.status in COMPLETED) for turn in turns]
        return _ratio(amounts, seconds, plan)

    totals["request_rps"] = rate(lambda _: 1)
    if tokens_of(cell.records) is not None:
        totals["output_tps"] = rate(lambda record: record.completion_tokens)
    if any(record.prompt_tokens for record in cell.completed):
        totals["input_tps"] = rate(lambda record: record.prompt_tokens)
    if slo := slo_of(plan):
        from_intended = is_open(plan)
        totals["goodput_rps"] = rate(lambda record: is_good(record, slo, from_intended=from_intended))
    if is_open(plan):
        offered, achieved = _offered_and_achieved(cell)
        if offered is not None:
            totals["offered_rps"] = Estimate(value=offered, reason="as scheduled")
        if achieved is not None:
            totals["achieved_rps"] = Estimate(value=achieved, reason="as sent")


def _ratio(numerators: Sequence[float], denominators: Sequence[float], plan: Plan) -> Estimate:
    groups = neighbours(len(numerators))
    above = np.bincount(groups, weights=np.array(numerators, dtype=np.float64)).astype(np.float64)
    below = np.bincount(groups, weights=np.array(denominators, dtype=np.float64)).astype(np.float64)
    return ratio_interval(above, below, seed=plan.seed)


def _offered_and_achieved(cell: CellData) -> tuple[float | None, float | None]:
    """Return requests per second as intended and as sent, over the same requests.

    Both from the first to the last of each block, n requests having n - 1 steps between them.
    """
    steps, intended_ns, sent_ns = 0, 0, 0
    for records in cell.by_block().values():
        pairs = [(one.intended_ns, one.dispatched_ns) for one in records]
        both = sorted((want, did) for want, did in pairs if want is not None and did is not None)
        if len(both) > 1:
            steps += len(both) - 1
            intended_ns += both[-1][0] - both[0][0]
            sent_ns += max(did for _, did in both) - both[0][0]
    return (steps * 1e9 / intended_ns if intended_ns else None, steps * 1e9 / sent_ns if sent_ns else None)


def _put_shares(totals: dict[str, Estimate], cell: CellData, plan: Plan) -> None:
    asked = cell.asked
    if asked:
        failed = sum(record.status in FAILED for record in asked)
        totals["error_share"] = share_interval(failed, len(asked))
        if slo := slo_of(plan):
            good = sum(is_good(record, slo, from_intended=is_open(plan)) for record in asked)
            totals["goodput_share"] = share_interval(good, len(asked))
    told = [record for record in cell.completed if record.cached_tokens is not None and record.prompt_tokens]
    if told:
        cached = [record.cached_tokens or 0 for record in told]
        totals["cached_share"] = _ratio(cached, [record.prompt_tokens or 0 for record in told], plan)
    pairs, equal = equal_pairs(cell.completed)
    if pairs:
        totals["determinism_share"] = Estimate(value=equal / pairs, reason="pairs are not independent: no interval")
    ratios = values_of(DECODE_RATIO, cell.records)
    if (is_known := ~np.isnan(ratios)).any():
        known = [record for record, known in zip(cell.records, is_known, strict=True) if known]
        totals["server_client_decode_ratio"] = percentile_interval(
            ratios[is_known], 0.5, clusters=clusters_of(cell, known)
        )


def equal_pairs(records: Sequence[Record]) -> tuple[int, int]:
    """Return how many pairs of answers to the same prompt there are, and how many of them are equal."""
    answers: dict[str, list[str]] = {}
    for record in records:
        if record.status == "ok" and record.output_sha256 is not None:
            answers.setdefault(record.prompt_sha256, []).append(record.output_sha256)
    groups = [Counter(outputs) for outputs in answers.values() if len(outputs) > 1]
    pairs = sum(group.total() * (group.total() - 1) // 2 for group in groups)
    return pairs, sum(often * (often - 1) // 2 for group in groups for often in group.values())


def _put_client(totals: dict[str, Estimate], cell: CellData, plan: Plan) -> None:
    if is_open(plan):
        delays = [
            (record.dispatched_ns - record.intended_ns) / 1e6
            for record in cell.records
            if record.dispatched_ns is not None and record.intended_ns is not None
        ]
        if delays:
            totals["dispatch_delay_p99_ms"] = Estimate(value=percentile(delays, 0.99), reason="of the client itself")
    complete = {block.block for block in cell.blocks}
    chunks = sum(len(record.chunk_ns) for record in cell.records if record.block in complete)
    cpu_seconds = sum(block.client_cpu_seconds for block in cell.blocks)
    if chunks:
        totals["client_cpu_us_per_chunk"] = Estimate(value=cpu_seconds * 1e6 / chunks, reason="of the client itself")


def _put_energy(totals: dict[str, Estimate], cell: CellData, power: PowerHistory) -> None:
    during = power.during(spans_of(cell))
    if during.watts is None:
        return
    reason = "one reading of the meters for the whole cell: no interval"
    joules, method = during.watts * seconds_of(cell), during.method
    totals["mean_watts"] = Estimate(value=during.watts, method=method, reason=reason)
    if cell.completed:
        totals["joules_per_request"] = Estimate(value=joules / len(cell.completed), method=method, reason=reason)
    if tokens := tokens_of(cell.records):
        totals["joules_per_token_gross"] = Estimate(value=joules / tokens, method=method, reason=reason)
        if power.idle.watts is not None and power.idle.method == method:
            marginal = (during.watts - power.idle.watts) * seconds_of(cell) / tokens
            totals["joules_per_token_marginal"] = Estimate(value=marginal, method=method, reason=reason)
