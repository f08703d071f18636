"""What the answers say against the figures: failures, token counts, caches. Each check yields what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ai_lab.benchmarks.analysis.cells import sent_once
from ai_lab.benchmarks.analysis.evidence import Evidence, Severity, finding, total_of_cell, where
from ai_lab.benchmarks.analysis.metrics import BY_CHUNKS, BY_SERVER, CACHED_PREFILL_RATIO, FAILED
from ai_lab.benchmarks.plan import Plan
from ai_lab.benchmarks.records import Record
from ai_lab.benchmarks.schemas import Reason

FAILED_SHARE = 0.10  # above it those that succeeded are no fair sample
SHORT_SHARE = 0.05
CACHED_SHARE = 0.02
WRONG_COUNT_SHARE = 0.01
_LENGTH_OPTIONS = {"max_tokens", "max_completion_tokens", "num_predict", "n_predict"}
_TEMPLATE_TOKENS = 96  # the longest beginning of a chat template that stands before the prompt itself
_TEMPLATE_SPREAD = 8  # servers cache in small blocks, and numbers may begin alike


def check_success(evidence: Evidence) -> Iterator[Reason]:
    """Something must have been measured, all of it if possible, and mostly without failures."""
    data = evidence.data
    measured = sum(len(cell.records) for cell in evidence.cells)
    if not measured:
        why = "the run was cancelled before that" if data.was_cancelled else "the run ended before that"
        yield finding(
            "invalid", "nothing_measured", f"No request was measured: {why}. Run it again.", value=0.0, limit=1.0
        )
    elif data.was_cancelled or measured < data.expected_requests:
        said = "was cancelled" if data.was_cancelled else "did not come to its end"
        planned = f" of {data.expected_requests}" if data.expected_requests else ""
        yield finding(
            "note",
            "incomplete",
            f"The run {said}: figures are of {measured}{planned} requests. Run it again for all of them.",
            value=float(measured),
            limit=float(data.expected_requests) or None,
        )
    for cell, result in evidence.pairs():
        asked = len(cell.asked)
        failed = sum(record.status in FAILED for record in cell.asked)
        most = max(result.errors, key=lambda text: result.errors[text], default="")
        spot, cause = where(evidence, result), f" Most often: {most.rstrip('.')}." if most else ""
        if asked and not cell.completed:
            yield finding(
                "note" if evidence.is_beyond_capacity(cell) else "invalid",
                "no_success",
                f"Not one of {asked} requests{spot} succeeded, so that there are no latencies.{cause}",
                arm=result.arm,
                value=0.0,
                limit=1.0,
            )
        elif failed:
            share = failed / asked
            grave: Severity = "invalid" if share > FAILED_SHARE else "suspect"
            yield finding(
                "note" if evidence.is_beyond_capacity(cell) else grave,
                "failures",
                f"{failed} of {asked} requests{spot} failed ({share:.1%}); latencies are of those that succeeded, "
                f"adjusted percentiles count the others as endless. Look at the server, or ask less of it.{cause}",
                arm=result.arm,
                value=share,
                limit=FAILED_SHARE if share > FAILED_SHARE else 0.0,
            )


def check_tokens(evidence: Evidence) -> Iterator[Reason]:
    """Rates need token counts, by the server, that agree with what arrived."""
    for cell, result in evidence.pairs():
        asked = asked_tokens(evidence.data.plan, cell.arm)
        completed, spot = cell.completed, where(evidence, result)
        if not completed:
            continue
        n = len(completed)
        unknown = sum(record.completion_tokens is None for record in completed)
        if unknown:
            yield finding(
                "invalid" if unknown == n else "suspect",
                "tokens_unknown",
                f"{unknown} of {n} answers{spot} have no token count, so that token rates are missing or partial. "
                "Use a server that reports usage.",
                arm=result.arm,
                value=unknown / n,
                limit=0.0,
            )
        chunks = sum(record.token_source == BY_CHUNKS for record in completed)
        if chunks:
            yield finding(
                "suspect",
                "tokens_from_chunks",
                f"The server did not count the tokens of {chunks} of {n} answers{spot}; each chunk was taken for one "
                "token, which may be wrong. Use an endpoint that reports usage.",
                arm=result.arm,
                value=chunks / n,
                limit=0.0,
            )
        wrong = sum(is_miscounted(record, asked) for record in completed)
        if wrong > WRONG_COUNT_SHARE * n:
            yield finding(
                "suspect",
                "wrong_counts",
                f"The server's token counts of {wrong} of {n} answers{spot} cannot be right: fewer tokens than chunks "
                f"with text, or more than the {asked} asked for. Rates per token of this server mislead; "
                "update it or count by other means.",
                arm=result.arm,
                value=wrong / n,
                limit=WRONG_COUNT_SHARE,
            )
        short = sum(record.status == "short" for record in completed)
        if short > SHORT_SHARE * n:
            yield finding(
                "suspect",
                "short_outputs",
                f"{short} of {n} answers{spot} ended before {asked} tokens; they are not comparable with whole ones. "
                "Ask for fewer output tokens, for texts that need long answers, or use a server that can ignore the "
                "end token.",
                arm=result.arm,
                value=short / n,
                limit=SHORT_SHARE,
            )


def asked_tokens(plan: Plan, arm: int) -> int:
    """Return how many tokens an answer of this arm may have: an option of its own wins over the plan."""
    own = [value for name, value in plan.arms[arm].options.items() if name in _LENGTH_OPTIONS]
    return next((value for value in own if isinstance(value, int) and value > 0), plan.output_tokens)


def is_miscounted(record: Record, most_tokens: int) -> bool:
    """Return whether the server's count contradicts what arrived or what was asked for."""
    count = record.completion_tokens
    if count is None or record.token_source != BY_SERVER:
        return False
    # The token that ends an answer may or may not be in the count.
    apart = abs(sum(record.chunk_tokens) - count) > 1 if len(record.chunk_tokens) else count < len(record.chunk_ns)
    return apart or count > most_tokens + 1


def check_caches(evidence: Evidence) -> Iterator[Reason]:
    """Prompts that are to be new must not come from a cache."""
    prompts = evidence.data.plan.prompts
    for cell, result in evidence.pairs():
        if left_out := evidence.cached_prefills.get((cell.arm, cell.level_index), 0):
            is_unexpected = prompts.mode == "unique" and not prompts.keep_exact
            yield finding(
                "suspect" if is_unexpected else "note",
                "prefill_cached",
                f"{left_out} prefill rates{where(evidence, result)} were left out: the server counts cached tokens "
                f"as read without saying so (repeated prompts, or rates above {CACHED_PREFILL_RATIO:g} times the "
                "median). Use unique prompts, or a server that reports cached tokens.",
                arm=result.arm,
                value=float(left_out),
                limit=0.0,
            )
        told = [record for record in cell.completed if record.cached_tokens is not None and record.prompt_tokens]
        share = total_of_cell(result, "cached_share")
        if prompts.mode != "unique" or share is None or share <= CACHED_SHARE:
            continue
        once = sent_once(evidence.data)
        has_number = not (prompts.texts and prompts.keep_exact)
        if has_number and all(record.prompt_sha256 in once for record in told) and _is_template(told):
            yield finding(
                "note",
                "template_cached",
                f"The server took the beginning of each prompt from its cache, {share:.1%} of it: what the chat "
                "template puts before the prompt's own number. ttft is that much shorter; endpoint generate has no "
                "template.",
                arm=result.arm,
                value=share,
                limit=CACHED_SHARE,
            )
        else:
            yield finding(
                "suspect",
                "cache_hits",
                f"{share:.1%} of the prompt tokens{where(evidence, result)} came from the server's cache although "
                "prompts were to be new; ttft and prefill are better than they would be. Do not keep your texts "
                "exact, or switch the server's prefix cache off.",
                arm=result.arm,
                value=share,
                limit=CACHED_SHARE,
            )


def _is_template(records: list[Record]) -> bool:
    """Return whether what is cached is a short beginning of about the same length in all prompts."""
    cached = [record.cached_tokens or 0 for record in records]
    shortest = min(record.prompt_tokens or 0 for record in records)
    # A server with several slots has not seen the template in each of them yet: then nothing is cached.
    hits = [count for count in cached if count]
    return max(hits) <= min(_TEMPLATE_TOKENS, shortest - _TEMPLATE_SPREAD) and max(hits) - min(hits) <= _TEMPLATE_SPREAD


REQUEST_CHECKS: tuple[Callable[[Evidence], Iterable[Reason]], ...] = (
    check_success,
    check_tokens,
    check_caches,
)
