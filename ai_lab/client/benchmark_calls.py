"""What can be asked of a server about benchmarks, and how the events of a run are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ai_lab.benchmarks.plan import Plan
from ai_lab.benchmarks.reports.formats import ReportFormat
from ai_lab.benchmarks.schemas import ENDED, HistoricalComparison, Progress, Run, RunPage
from ai_lab.client.calls import Call, once, place
from ai_lab.client.events import Reader
from ai_lab.errors import AnswerLost, BenchmarkNotFound

_RUN = Run.model_validate_json


def start(plan: Plan) -> Call[Run]:
    """Start a run; keys of arms go along."""
    return Call("POST", "/benchmarks", _RUN, body=_with_keys(plan), headers=once())


def get(run_id: str) -> Call[Run]:
    """Return a run."""
    return Call("GET", place("benchmarks", run_id), _RUN)


def page(after: str | None, limit: int) -> Call[RunPage]:
    """List runs."""
    return Call("GET", "/benchmarks", RunPage.model_validate_json, {"limit": limit, "after": after})


def cancel(run_id: str) -> Call[Run]:
    """Stop a run."""
    return Call("POST", place("benchmarks", run_id, "cancel"), _RUN, headers=once())


def resume(run_id: str, api_keys: Mapping[str, str] | None) -> Call[Run]:
    """Go on with a run."""
    return Call("POST", place("benchmarks", run_id, "resume"), _RUN, body=_keys(api_keys), headers=once())


def rerun(run_id: str, api_keys: Mapping[str, str] | None) -> Call[Run]:
    """Run a plan again."""
    return Call("POST", place("benchmarks", run_id, "rerun"), _RUN, body=_keys(api_keys), headers=once())


def delete(run_id: str) -> Call[None]:
    """Delete a run."""
    path = place("benchmarks", run_id)
    return Call("DELETE", path, lambda _: None, headers=once(), settled_by=BenchmarkNotFound)


def compare(run_ids: Sequence[str]) -> Call[HistoricalComparison]:
    """Compare stored runs with the first of them."""
    body = {"runs": list(run_ids)}
    return Call("POST", "/benchmarks/compare", HistoricalComparison.model_validate_json, body=body, headers=once())


def report(run_id: str, fmt: ReportFormat) -> Call[bytes]:
    """Return a report as a document."""
    return Call("GET", place("benchmarks", run_id, "report"), bytes, {"format": fmt})


def events(run_id: str) -> Call[Run]:
    """Watch a run."""
    return Call("GET", place("benchmarks", run_id, "events"), _RUN)


class RunEvents(Reader[Progress | Run]):
    """Reads how a run goes on."""

    def broken(self) -> AnswerLost:
        """Return what to raise when the stream breaks off."""
        return AnswerLost("The connection broke while the benchmark went on. It is stored; look for it in the list.")

    def _event(self, name: str, data: bytes) -> Progress | Run | None:
        if name == "benchmark.progress":
            return Progress.model_validate_json(data)
        if name == "benchmark.done":
            run = _RUN(data)
            self.has_ended = run.status in ENDED
            return run
        return None


def _with_keys(plan: Plan) -> dict[str, object]:
    body = plan.model_dump(mode="json")
    for arm, values in zip(plan.arms, body["arms"], strict=True):
        values["api_key"] = arm.api_key.get_secret_value() if arm.api_key else None
    return body


def _keys(api_keys: Mapping[str, str] | None) -> dict[str, object] | None:
    return {"api_keys": dict(api_keys)} if api_keys else None
