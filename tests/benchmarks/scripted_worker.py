"""A stand-in for the process that measures: speaks its protocol and does what ``options["script"]`` of an arm says.

Keys of the script: records (per block, default 3), block_seconds (0.02), die_in_block (by SIGKILL, after its first
record, in the first attempt only), fail_in_block (with an error event), say (a line on standard error), ignore_cancel,
child (a process of its own that outlives it), diary (a file that gets a line at the start and the end of every job),
bad_analysis (an analysis dies).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ai_lab.benchmarks.events import (
    BlockMeasured,
    Compared,
    Event,
    Failed,
    PackedRecord,
    PackedSamples,
    RecordsMeasured,
    Reported,
    SamplesTaken,
    StateChanged,
    encode,
)
from ai_lab.benchmarks.job import CANCEL, Job, read_job, settings_in_child
from ai_lab.benchmarks.records import BlockDone, Record, Sample
from ai_lab.benchmarks.schemas import Comparison, Counts, Progress, ReportBody


def tell(event: Event) -> None:
    sys.stdout.buffer.write(encode(event))
    sys.stdout.buffer.flush()


def main() -> None:
    job = read_job(sys.stdin.buffer)
    cancelled = threading.Event()
    threading.Thread(target=watch, args=(cancelled,), daemon=True).start()
    assert settings_in_child(job.settings).models_path().is_absolute()
    script: dict[str, Any] = job.run.plan.arms[0].options.get("script", {})
    sys.stderr.write(f"{script.get('say', 'nothing to say')}\n")
    diary(script, job, "begin")
    if job.kind == "compare":
        last: Event = Compared([comparison(job)])
    elif job.kind == "analyse":
        if script.get("bad_analysis"):
            sys.exit(3)
        last = Reported(report(job, job.run.records), job.outcome)
    else:
        last = measure(job, script, cancelled)
    diary(script, job, "end")  # before the last event: after it we may be ended at any moment
    tell(last)


def measure(job: Job, script: dict[str, Any], cancelled: threading.Event) -> Event:
    attempt = job.run.state.get("attempt", 0) + 1
    tell(StateChanged({"attempt": attempt, "keys": len([a for a in job.addresses if a["api_key"]])}))
    tell(SamplesTaken(PackedSamples.of("idle_before", [Sample(1, cpu_percent=2.5, other_top=[("x", 1.0)])])))
    if script.get("child"):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    done = {block.block for block in job.run.blocks}
    records = [one for one in job.run.records if one.phase != "discarded"]
    size, total = script.get("records", 3), job.run.plan.blocks or 4
    for block in [number for number in range(total) if number not in done]:
        for position in range(size):
            time.sleep(script.get("block_seconds", 0.02) / size)
            if cancelled.is_set() and not script.get("ignore_cancel"):
                return Reported(report(job, records), "cancelled")
            record = Record(block * size + position, block, 0, 0, "measured", "sha", status="ok")
            records.append(PackedRecord.of(record))
            tell(RecordsMeasured(records[-1:]))
            tell(Progress(phase="measuring", done=len(records), total=total * size, blocks_done=len(done)))
            if script.get("fail_in_block") == block and attempt == 1:
                return Failed("provider_unavailable", "The server is gone.")
            if script.get("die_in_block") == block and attempt == 1:
                time.sleep(0.1)
                os.kill(os.getpid(), signal.SIGKILL)
        done.add(block)
        tell(BlockMeasured(BlockDone(block, 0, 0, 1, 2, 0.01, 0.0, None)))
    tell(Progress(phase="measuring", done=len(records), total=total * size, blocks_done=len(done), blocks_total=total))
    tell(Progress(phase="analysing"))
    return Reported(report(job, records), "complete")


def watch(cancelled: threading.Event) -> None:
    while line := sys.stdin.buffer.readline():
        if line == CANCEL:
            cancelled.set()
    os._exit(0)


def report(job: Job, records: list[PackedRecord]) -> ReportBody:
    counts = Counts(ok=sum(one.phase == "measured" for one in records))
    provenance = {"counts": counts.model_dump(), "blocks": len(job.run.blocks), "state": job.run.state}
    return ReportBody(grade="VALID", reasons=[], cells=[], provenance=provenance)


def comparison(job: Job) -> Comparison:
    assert job.run.report
    assert all(other.report for other in job.others)
    values: dict[str, Any] = {"ratio": 1.0, "low": None, "high": None, "change_percent": 0.0, "level": 1.0}
    values |= {"equivalence_margin": 0.03, "verdict": "equivalent", "metric": "tpot", "unit": "ms"}
    names = {"arm": job.others[0].run_id, "baseline": job.run.run_id}
    return Comparison(**values, **names, n_blocks=sum(len(equal) for equal in job.siblings))


def diary(script: dict[str, Any], job: Job, what: str) -> None:
    if "diary" in script:
        with Path(script["diary"]).open("a", encoding="utf-8") as file:
            file.write(f"{what} {job.kind} {job.run.run_id} {os.getpid()}\n")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # as the real one: the thread that reads the input cannot be ended in an orderly way
