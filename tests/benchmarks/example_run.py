"""A run as it is stored, built by hand: two arms at three levels, failures, comparisons, reasons, raw records."""

from __future__ import annotations

import itertools
import random
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from ai_lab.benchmarks.plan import Arm, Iterations, Plan, Prompts
from ai_lab.benchmarks.records import Record, Sample, Status
from ai_lab.benchmarks.schemas import (
    Cell,
    Comparison,
    Counts,
    Estimate,
    Instrument,
    MetricResult,
    Progress,
    Reason,
    ReportBody,
    Run,
    Stability,
)

RUN_ID = "0192f3a4-5b6c-7d8e-9f00-112233445566"
ARMS = ("tiny 2 threads", "tiny 1 thread")
LEVELS = (1, 2, 4)
#: Per arm: milliseconds to the first token and between tokens.
SPEEDS = ((50.0, 12.0), (90.0, 21.0))
ORIGIN_NS = 5_000_000_000_000


def estimate(value: float, half: float | None, reason: str | None = None) -> Estimate:
    """Return a figure with ``half`` as half the width of its interval."""
    if half is None:
        return Estimate(value=value, reason=reason)
    return Estimate(value=value, low=value - half, high=value + half, method="bca bootstrap, clustered")


def metric(name: str, unit: str, value: float, half: float) -> MetricResult:
    """Return a metric whose p99 has too few values."""
    return MetricResult(
        name=name,
        unit=unit,
        n=29,
        n_clusters=29,
        mean=estimate(value * 1.01, half),
        median=estimate(value, half),
        percentiles={
            "p50": estimate(value, half),
            "p90": estimate(value * 1.2, half * 2),
            "p95": estimate(value * 1.3, half * 3),
            "p99": estimate(value * 1.5, None, "n too small: 29, an interval of p99 needs 368"),
        },
        adjusted_percentiles={"p50": value, "p99": None},
        min=value * 0.9,
        max=value * 1.6,
        standard_deviation=half * 3,
    )


def cell(arm: int, level_index: int, names: tuple[str, ...] = ARMS) -> Cell:
    """Return the figures of one arm at one level."""
    level = LEVELS[level_index]
    ttft, tpot = SPEEDS[arm][0] * level, SPEEDS[arm][1] * level**0.5
    return Cell(
        arm=names[arm],
        arm_index=arm,
        level_index=level_index,
        level=level,
        level_kind="concurrency",
        counts=Counts(ok=28, short=1, error=1) if arm else Counts(ok=30),
        metrics={
            "ttft": metric("ttft", "ms", ttft, ttft * 0.02),
            "tpot": metric("tpot", "ms", tpot, tpot * 0.01),
            "e2e": metric("e2e", "ms", ttft + 31 * tpot, tpot),
            "gap": metric("gap", "ms", tpot, tpot * 0.005),
            "decode_tps": metric("decode_tps", "tokens/s", 1000 / tpot, 8 / tpot),
        },
        totals={
            "output_tps": estimate(level * 900 / tpot, 30 / tpot),
            "request_rps": estimate(level * 2.5, 0.12),
            "error_share": estimate(0.0333 * arm, 0.03 * arm),
            "joules_per_token_gross": Estimate(reason="unavailable: no energy counter can be read"),
        },
        stability=Stability(metric="tpot", drift_percent=0.4, drift_p_value=0.6, is_stable=True),
        prompt_tokens_median=128,
        completion_tokens_median=32,
        token_source="server",
        errors={"The server answered with status 500.": 1} if arm else {},
    )


def comparison(level_index: int, names: tuple[str, ...] = ARMS) -> Comparison:
    """Return the second arm against the first; with each level a little less certain."""
    ratio, half = (1.75, 0.03) if level_index < 2 else (1.01, 0.09)
    is_sure = level_index < 2
    return Comparison(
        metric="tpot",
        unit="ms",
        arm=names[1],
        baseline=names[0],
        level_index=level_index,
        level=LEVELS[level_index],
        n_blocks=10,
        ratio=ratio,
        low=ratio - half,
        high=ratio + half,
        change_percent=(ratio - 1) * 100,
        p_value=0.002 if is_sure else 0.7,
        p_adjusted=0.006 if is_sure else 0.7,
        equivalence_margin=0.03,
        verdict="slower" if is_sure else "inconclusive",
        blocks_needed=None if is_sure else 84,
        method="paired bootstrap of log ratios of blocks",
        sentence=f"{names[1]} is slower than {names[0]} by 72-78 % (tpot)." if is_sure else "",
    )


def example_run(names: tuple[str, str] = ARMS) -> Run:
    """Return a complete run graded SUSPECT."""
    started = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
    places = itertools.product(range(len(ARMS)), range(len(LEVELS)))
    return Run(
        id=RUN_ID,
        status="complete",
        plan=Plan(
            arms=[Arm(model="embedded/tiny", name=name) for name in names],
            load=Iterations(requests=30, concurrency=list(LEVELS)),
            prompts=Prompts(tokens=128),
            output_tokens=32,
        ),
        title=f"{names[0]} and {names[1]}",
        kind="compare",
        created_at=started,
        started_at=started,
        ended_at=started + timedelta(seconds=75),
        progress=Progress(phase="analysing", done=180, total=180, failed=3, blocks_done=60, blocks_total=60),
        grade="SUSPECT",
        report=ReportBody(
            grade="SUSPECT",
            reasons=[
                Reason(code="short_outputs", severity="note", text="1 of 30 answers was short.", arm=names[1]),
                Reason(
                    code="busy_machine",
                    severity="suspect",
                    text="Other processes used 14 % of the processors. Stop them and run again.",
                    value=14.0,
                    limit=10.0,
                ),
            ],
            cells=[cell(arm, level, names) for arm, level in places],
            comparisons=[comparison(level, names) for level in range(len(LEVELS))],
            instrument=Instrument(
                seconds=3.0,
                chunks=600,
                chunk_rate=200,
                achieved_rate=199.8,
                ttft_error_ms=estimate(0.21, 0.03),
                stamp_error_p99_ms=0.9,
                gap_error_ms=0.4,
                cpu_us_per_chunk=61,
                loop_lag_p99_ms=0.7,
            ),
            provenance={
                "host": {"cpu": "Example CPU", "cores": 2, "goos": "linux", "memory_bytes": 8 << 30},
                "ai_lab": {"version": "0.1.0"},
                "seeds": {"plan": 0},
                "targets": {names[0]: {"before": {"digest": "sha256:" + "ab" * 32}, "after": {}}},
            },
            cold_load_seconds={names[0]: metric("cold_load", "s", 1.9, 0.1)},
            machine={
                "idle_before": {"cpu_percent": {"mean": 2.0}},
                "busy": {"cpu_percent": {"mean": 71.23456}, "swap_in_bytes": 4.5e9, "other_top": ["updater"]},
            },
            definitions={"ttft": {"unit": "ms", "formula": "first token - request sent", "better": "less"}},
            duration_seconds=75.0,
        ),
    )


def example_records(per_cell: int = 30, tokens: int = 32) -> Iterator[Record]:
    """Yield the raw records of both arms at all levels, some failed, with reproducible jitter."""
    jitter = random.Random(4)  # noqa: S311 - a repeatable example
    at_ns, index = ORIGIN_NS, 0
    for level, number, arm in itertools.product(range(len(LEVELS)), range(per_cell), range(len(ARMS))):
        ttft, tpot = SPEEDS[arm][0] * LEVELS[level], SPEEDS[arm][1] * LEVELS[level] ** 0.5
        status: Status = "error" if arm and number % 10 == 9 else "ok"
        stamps = array("q")
        moment = at_ns + int(ttft * 1e6 * jitter.lognormvariate(0, 0.1))
        for _ in range(tokens if status == "ok" else 5):
            stamps.append(moment)
            moment += int(tpot * 1e6 * jitter.lognormvariate(0, 0.3))
        yield Record(
            index=index,
            block=number // 3,
            arm=arm,
            level=level,
            phase="measured",
            prompt_sha256=f"{index:064x}",
            intended_ns=at_ns - 1_000_000,
            sent_ns=at_ns,
            first_token_ns=stamps[0],
            first_answer_ns=stamps[0],
            last_token_ns=stamps[-1],
            end_ns=stamps[-1] + 200_000,
            chunk_ns=stamps,
            status=status,
            error="The server answered with status 500." if status == "error" else None,
            prompt_tokens=128,
            completion_tokens=len(stamps),
            token_source="server",
            cached_tokens=0,
            server_ms={"load_ms": 2.0, "prompt_ms": ttft * 0.9, "decode_ms": tpot * (len(stamps) - 1)},
        )
        at_ns, index = moment + 3_000_000, index + 1


def example_samples(count: int = 300, seconds: float = 0.25) -> Iterator[Sample]:
    """Yield looks at the machine over the time of the records; the frequency was not readable."""
    jitter = random.Random(5)  # noqa: S311 - a repeatable example
    for number in range(count):
        target, other = jitter.uniform(60, 80), jitter.uniform(1, 20)
        yield Sample(
            at_ns=ORIGIN_NS + int(number * seconds * 1e9),
            cpu_percent=min(100.0, target + other + 3),
            client_cpu_percent=jitter.uniform(1, 3),
            target_cpu_percent=target,
            other_cpu_percent=other,
            other_top=[("updater", other)],
            loop_lag_ms=0.3,
        )
