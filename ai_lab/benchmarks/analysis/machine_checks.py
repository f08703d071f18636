"""What machine, servers and instrument say against the figures. Each check yields what it finds, with a remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ai_lab.benchmarks.analysis.cells import seconds_of, spans_of
from ai_lab.benchmarks.analysis.evidence import Evidence, finding, median_of, where
from ai_lab.benchmarks.analysis.machine_figures import load_of, total_of
from ai_lab.benchmarks.plan import Arm
from ai_lab.benchmarks.schemas import Reason

OTHER_CPU_PERCENT = 10.0
STEAL_PERCENT = 2.0
INSTRUMENT_SHARE = 0.02
LEAST_RATE_SHARE = 0.95
ENERGY_DISAGREEMENT = 0.10
SWAP_BYTES = 1024 * 1024  # a page now and then says nothing
_OTHER_WINDOW_SECONDS = 1.0
_STEAL_WINDOW_SECONDS = 5.0
_LEAST_ENERGY_SECONDS = 5.0  # power readings are means of up to a second
_CLIENT_LAG_MS = 2.0
#: What slows a GPU down because it is too hot or its supply too weak. sw_power_cap is the state of many under load.
_GPU_SLOWDOWNS = {"hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"}
_FIXED = {
    "digest": "model's digest",
    "sha256": "model's file",
    "version": "server's version",
    "quantization": "quantization",
    "context_tokens": "context length",
    "template_sha256": "chat template",
    "parameters": "number of parameters",
}


def check_other_work(evidence: Evidence) -> Iterator[Reason]:
    """Nothing else may use much of the machine."""
    samples = evidence.data.samples
    if not samples:
        if evidence.cells:
            yield finding(
                "note",
                "no_samples",
                "The machine was not watched during the run, so that nobody can tell what else it did.",
            )
        return
    other = load_of(samples, "other_cpu_percent", window_seconds=_OTHER_WINDOW_SECONDS)
    if other is None:
        yield finding(
            "note",
            "other_cpu_unknown",
            "Cannot tell how much CPU other work took: the server's processes cannot be told from the rest.",
        )
    elif other.worst > OTHER_CPU_PERCENT:
        names = f" (mostly {', '.join(other.worst_names)})" if other.worst_names else ""
        yield finding(
            "suspect",
            "other_cpu",
            f"Other processes took up to {other.worst:.0f} % of all CPUs{names}, {other.mean:.1f} % on average over "
            "the run. Stop them and run it again.",
            value=other.worst,
            limit=OTHER_CPU_PERCENT,
        )
    steal = load_of(samples, "steal_percent", window_seconds=_STEAL_WINDOW_SECONDS)
    if steal is not None and steal.worst > STEAL_PERCENT:
        yield finding(
            "suspect",
            "steal",
            f"The virtual machine's host withheld up to {steal.worst:.1f} % of the CPU time ({steal.mean:.1f} % on "
            "average). Measure on a machine of your own, or at another time.",
            value=steal.worst,
            limit=STEAL_PERCENT,
        )


def check_limits_of_machine(evidence: Evidence) -> Iterator[Reason]:
    """Memory must suffice, and neither CPU nor GPU may be slowed down."""
    samples = evidence.data.samples
    swapped = (total_of(samples, "swap_in_bytes") or 0.0) + (total_of(samples, "swap_out_bytes") or 0.0)
    if swapped > SWAP_BYTES:
        yield finding(
            "suspect",
            "swap",
            f"The machine swapped {swapped / 1024**2:.0f} MiB during the run: memory does not suffice. Close programs, "
            "or take a smaller model or context.",
            value=swapped,
            limit=float(SWAP_BYTES),
        )
    throttled = total_of(samples, "cpu_throttle_events") or 0.0
    if throttled:
        yield finding(
            "suspect",
            "cpu_throttled",
            f"The CPU was slowed down {throttled:.0f} times, by heat or by the container's CPU limit. Cool the "
            "machine, or raise the limit.",
            value=throttled,
            limit=0.0,
        )
    is_theirs = evidence.power is not None  # the GPU of another machine is not slowed down with ours
    slow = [sample for sample in samples if is_theirs and any(_slowdowns(gpu) for gpu in sample.gpus)]
    if slow:
        why = sorted({reason for sample in slow for gpu in sample.gpus for reason in _slowdowns(gpu)})
        yield finding(
            "suspect",
            "gpu_throttled",
            f"The GPU was slowed down in {len(slow) / len(samples):.0%} of the samples ({', '.join(why)}). Look to its "
            "cooling and power supply.",
            value=len(slow) / len(samples),
            limit=0.0,
        )


def _slowdowns(gpu: dict[str, object]) -> set[str]:
    reasons = gpu.get("throttle_reasons")
    return _GPU_SLOWDOWNS.intersection(reasons) if isinstance(reasons, list | tuple) else set()


def check_servers(evidence: Evidence) -> Iterator[Reason]:
    """Server and model must be the same after the run as before, and the model wholly where it is meant to be."""
    targets = evidence.data.provenance.get("targets") or {}
    has_gpu = evidence.power is not None and any(sample.gpus for sample in evidence.data.samples)
    for number, (arm, name) in enumerate(zip(evidence.data.plan.arms, evidence.data.plan.arm_names(), strict=True)):
        target = targets.get(name) or {}
        before, after = target.get("before") or {}, target.get("after") or {}
        # The context is only settled once the model is loaded.
        fixed = {key: said for key, said in _FIXED.items() if key != "context_tokens" or before.get("is_loaded")}
        changed = [said for key, said in fixed.items() if _differ(before.get(key), after.get(key))]
        if changed:
            yield finding(
                "suspect",
                "model_changed",
                f"During the run the {' and the '.join(changed)} changed: the figures are of two different things. "
                "Run it again without updates in between.",
                arm=name,
                value=float(len(changed)),
                limit=0.0,
            )
        has_answered = any(cell.completed for cell in evidence.cells if cell.arm == number)
        was_there = before.get("is_loaded") is True or (has_answered and arm.options.get("keep_alive") is None)
        if was_there and after.get("is_loaded") is False:
            yield finding(
                "suspect",
                "model_evicted",
                "The model was loaded and right after the run no longer: the server threw it out. "
                "Stop what else uses the server, or give it more memory.",
                arm=name,
            )
        about = after if "size_vram_bytes" in after else before
        size, vram = about.get("size_loaded_bytes") or about.get("size_bytes"), about.get("size_vram_bytes")
        # A model that is wholly on the CPU, as told or for want of a GPU, is where it belongs.
        is_expected = vram == 0 and (not has_gpu or _is_for_cpu(arm))
        if size and vram is not None and vram < size and not is_expected:
            yield finding(
                "suspect",
                "vram_partial",
                f"Only {vram / size:.0%} of the model is in the GPU's memory; the rest runs on the CPU and sets the "
                "pace. Take a smaller quantization or context, or free GPU memory.",
                arm=name,
                value=vram / size,
                limit=1.0,
            )


def _is_for_cpu(arm: Arm) -> bool:
    return arm.options.get("num_gpu") == 0 or (arm.engine is not None and arm.engine.gpu_layers == 0)


def _differ(before: object, after: object) -> bool:
    return before is not None and after is not None and before != after


def check_slots(evidence: Evidence) -> Iterator[Reason]:
    """More requests at a time than an engine has slots for wait inside it."""
    targets = evidence.data.provenance.get("targets", {})
    for cell, result in evidence.pairs():
        slots = targets.get(result.arm, {}).get("before", {}).get("slots")
        if slots and result.level_kind == "concurrency" and cell.level > slots:
            yield finding(
                "note",
                "slots_exceeded",
                f"The engine answers {slots} requests at once; of {cell.level:g} the others wait in it, their first "
                f"tokens come late. To measure it with more: engine.slots={cell.level:g}.",
                arm=result.arm,
                value=cell.level,
                limit=float(slots),
            )


def check_instrument(evidence: Evidence) -> Iterator[Reason]:
    """What the measuring itself adds must be small against what is measured."""
    instrument = evidence.data.instrument
    if instrument is None:
        if evidence.cells and not evidence.data.plan.calibration_seconds:
            yield finding(
                "note",
                "not_calibrated",
                "The instrument was not calibrated, so that its own error is unknown. Leave calibration_seconds at 3.",
            )
        return
    if instrument.achieved_rate < LEAST_RATE_SHARE * instrument.chunk_rate:
        yield finding(
            "invalid",
            "instrument_too_slow",
            f"In its calibration this client took in {instrument.achieved_rate:.0f} chunks/s where "
            f"{instrument.chunk_rate:.0f} are planned. Use fewer streams, or a faster or less busy machine.",
            value=instrument.achieved_rate / instrument.chunk_rate,
            limit=LEAST_RATE_SHARE,
        )
    busiest = max((cell.level for cell in evidence.cells), default=0)
    for _, result in evidence.pairs():
        if result.level < busiest:
            continue  # it was calibrated for the most streams: with fewer its error is smaller
        ttft, gap = median_of(result, "ttft"), result.metrics.get("gap")
        gap_p99 = gap.percentiles["p99"].value if gap else None
        error = instrument.ttft_error_ms.value
        for code, metric, wrong, right in (
            ("instrument_error_ttft", "ttft (median)", abs(error) if error is not None else None, ttft),
            ("instrument_error_gap", "gap (99th percentile)", instrument.gap_error_ms, gap_p99),
        ):
            if wrong is not None and right and wrong > INSTRUMENT_SHARE * right:
                yield finding(
                    "suspect",
                    code,
                    f"The instrument's own error of {wrong:.2f} ms is {wrong / right:.1%} of {metric} = {right:.2f} "
                    f"ms{where(evidence, result)}. Use a less busy machine, or read that metric with this error.",
                    arm=result.arm,
                    value=wrong / right,
                    limit=INSTRUMENT_SHARE,
                )


def check_client(evidence: Evidence) -> Iterator[Reason]:
    """The measuring loop must not have been late itself while it measured."""
    for cell, result in evidence.pairs():
        lags = [block.loop_lag_p99_ms for block in cell.blocks if block.loop_lag_p99_ms is not None]
        lag = float(np.median(lags)) if lags else 0.0
        limit = max(_CLIENT_LAG_MS, INSTRUMENT_SHARE * (median_of(result, "ttft") or 0.0))
        if lag > limit:
            yield finding(
                "suspect",
                "client_lag",
                f"The measuring program itself was held up by {lag:.1f} ms or more in one of a hundred moments"
                f"{where(evidence, result)}; stamps are late by that. Use a less busy machine or fewer streams.",
                arm=result.arm,
                value=lag,
                limit=limit,
            )


def check_energy(evidence: Evidence) -> Iterator[Reason]:
    """The energy counter and the power readings of a GPU should tell the same."""
    if evidence.power is None:
        return
    for cell, result in evidence.pairs():
        apart = evidence.power.during(spans_of(cell)).disagreement
        if apart is not None and apart > ENERGY_DISAGREEMENT and seconds_of(cell) >= _LEAST_ENERGY_SECONDS:
            yield finding(
                "note",
                "energy_disagrees",
                f"The GPU's energy counter and its power readings differ by {apart:.0%}{where(evidence, result)}; "
                "joules are by the counter. Take them as rough.",
                arm=result.arm,
                value=apart,
                limit=ENERGY_DISAGREEMENT,
            )


MACHINE_CHECKS: tuple[Callable[[Evidence], Iterable[Reason]], ...] = (
    check_other_work,
    check_limits_of_machine,
    check_servers,
    check_slots,
    check_instrument,
    check_client,
    check_energy,
)
