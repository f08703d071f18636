"""What a process that measures is started for, as lines of JSON on its standard input.

The job is several lines, which ``job_lines`` gives and ``read_job`` reads; later the line ``cancel`` may come. The end
of the input says that the server is gone. Keys of servers under test travel here and nowhere else: neither in arguments
nor in the environment, where other programs of the machine could read them. The answers are in ``events``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from ai_lab.benchmarks.events import (
    Outcome,
    PackedRecord,
    PackedSamples,
    line_of,
    plain_record,
    plain_samples,
    record_of,
    samples_of,
)
from ai_lab.benchmarks.plan import Plan
from ai_lab.benchmarks.records import BlockDone
from ai_lab.benchmarks.schemas import ReportBody
from ai_lab.settings import Settings

JobKind = Literal["run", "analyse", "compare"]
CANCEL = b"cancel\n"
_RECORDS_AT_ONCE = 500
_SECRET = {
    "database_url",
    "encryption_key",
    "encryption_key_file",
    "encryption_key_previous",
    "redis_url",
    "sentry_dsn",
    "servers",
    "token",
}


@dataclass
class StoredRun:
    """A run as far as it was measured: what going on with it, analysing it and comparing it start from.

    ``state`` is what ``StateChanged`` events of the process said, merged. ``report`` is there in comparisons.
    """

    run_id: str
    plan: Plan  # without keys
    blocks: list[BlockDone] = field(default_factory=list)
    records: list[PackedRecord] = field(default_factory=list)
    samples: list[PackedSamples] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    report: ReportBody | None = None


@dataclass
class Job:
    """What a process is started for.

    run: measure what ``run`` has not yet, then analyse all of it. analyse: only that; ``outcome`` is what the report
    is to be taken for. compare: the stored ``others`` against the first run; ``siblings`` are reports of earlier runs
    that were told the same as one of the compared: the noise that this lab has between equal runs.
    """

    kind: JobKind
    run: StoredRun
    addresses: list[dict[str, Any]] = field(default_factory=list)  # of the plan's arms: targets.Address, keys inside
    settings: dict[str, Any] = field(default_factory=dict)  # see settings_for_child
    outcome: Outcome = "complete"
    others: list[StoredRun] = field(default_factory=list)
    siblings: list[list[ReportBody]] = field(default_factory=list)  # each list: runs that are equal to each other


def job_lines(job: Job) -> Iterator[bytes]:
    """Yield a job as lines of bounded size, the last of which says that it is the last."""
    head = {"kind": job.kind, "addresses": job.addresses, "settings": job.settings, "outcome": job.outcome}
    yield line_of(job=head)
    for equal in job.siblings:
        yield line_of(siblings=len(equal))
        for report in equal:
            yield line_of(sibling=report.model_dump_json())
    for run in [job.run, *job.others]:
        yield line_of(
            run=run.run_id,
            plan=without_keys(run.plan).model_dump_json(),
            state=run.state,
            report=run.report and run.report.model_dump_json(),
        )
        for start in range(0, len(run.blocks), _RECORDS_AT_ONCE):
            yield line_of(blocks=[asdict(block) for block in run.blocks[start : start + _RECORDS_AT_ONCE]])
        for start in range(0, len(run.records), _RECORDS_AT_ONCE):
            yield line_of(records=[plain_record(one) for one in run.records[start : start + _RECORDS_AT_ONCE]])
        for samples in run.samples:
            yield line_of(samples=plain_samples(samples))
    yield line_of(end=True)


class Lines(Protocol):
    """What a job is read from."""

    def readline(self) -> bytes:
        """Return the next line with its end, or nothing at the end of the input."""


def read_job(stream: Lines) -> Job:
    """Read a job from standard input; what follows it there is left for the reader of ``cancel``.

    Raises:
        EOFError: the input ended before the job did: the server is gone.
    """
    head: dict[str, Any] = {}
    runs: list[StoredRun] = []
    siblings: list[list[ReportBody]] = []
    while line := stream.readline():
        values = json.loads(line)
        if "job" in values:
            head = values["job"]
        elif "siblings" in values:
            siblings.append([])
        elif "sibling" in values:
            siblings[-1].append(ReportBody.model_validate_json(values["sibling"]))
        elif "run" in values:
            report = values["report"]
            plan = Plan.model_validate_json(values["plan"])
            runs.append(StoredRun(values["run"], plan, state=values["state"]))
            runs[-1].report = None if report is None else ReportBody.model_validate_json(report)
        elif "blocks" in values:
            runs[-1].blocks += [BlockDone(**block) for block in values["blocks"]]
        elif "records" in values:
            runs[-1].records += [record_of(one) for one in values["records"]]
        elif "samples" in values:
            runs[-1].samples.append(samples_of(values["samples"]))
        elif "end" in values:
            return Job(run=runs[0], others=runs[1:], siblings=siblings, **head)
    raise EOFError


def settings_for_child(settings: Settings) -> dict[str, Any]:
    """Return the settings as JSON values, paths absolute, without what only the server needs."""
    paths = {"data_dir": str(settings.data_path()), "models_dir": str(settings.models_path())}
    return settings.model_dump(mode="json", exclude=_SECRET) | paths


def settings_in_child(values: dict[str, Any]) -> Settings:
    """Return the settings that ``settings_for_child`` described; neither environment nor ``.env`` counts."""
    return Settings(**values)


def without_keys(plan: Plan) -> Plan:
    """Return the plan as it may be stored."""
    if all(arm.api_key is None for arm in plan.arms):
        return plan
    return plan.model_copy(update={"arms": [arm.model_copy(update={"api_key": None}) for arm in plan.arms]})
