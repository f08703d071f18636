"""``/benchmarks``: measuring models, as runs that are started, watched, compared and read; and the earlier address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Request
from fastapi.responses import Response, StreamingResponse

from ai_lab.benchmarks import Plan, Run
from ai_lab.benchmarks.reports import ReportFormat, earlier_shape, json_schema
from ai_lab.benchmarks.reports.formats import KINDS, file_name
from ai_lab.benchmarks.schemas import (
    CompareRuns,
    EarlierBenchmark,
    HistoricalComparison,
    Progress,
    RerunKeys,
    RunPage,
)
from ai_lab.errors import BenchmarkFailed, LabError, RequestCancelled
from backend.benchmark_examples import PLANS
from backend.deps import After, IdempotencyKey, LabDep, Limit
from backend.errors import problem_of
from backend.sse import CONTENT, EventStream, cancel_when_gone, event

router = APIRouter(tags=["benchmarks"])
RunId = Annotated[str, Path(min_length=1, max_length=36, description="The run's id.")]
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`benchmark.progress` as it goes on, then `benchmark.done` with the run, without its report.",
        "content": CONTENT,
    }
}
_REPORT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The report.",
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "application/x-ndjson": {},
            "text/csv": {},
            "text/markdown": {},
            "text/html": {},
            "text/plain": {},
        },
    }
}


@router.post("/benchmark/llm")
async def benchmark_once(
    lab: LabDep,
    request: Request,
    model_name: Annotated[
        str | None, Query(max_length=500, description="provider/model; default: the lab's default model.")
    ] = None,
    prompt: Annotated[str, Query(min_length=1, max_length=100_000)] = "Explain how a computer works.",
    iterations: Annotated[int, Query(ge=1, le=1000, description="POST /benchmarks measures more.")] = 10,
) -> EarlierBenchmark:
    """Measure a model and wait for it, in the shape that earlier notebooks read.

    Every iteration asks the same with a number of its own in front, so that no prefix cache answers. A client that
    leaves cancels the run; what was measured stays under ``/benchmarks``. A run without one whole answer is a 502.
    """
    run = await lab.benchmarks.start(Plan.of_earlier(model_name or None, prompt, iterations))
    waiting = asyncio.ensure_future(lab.benchmarks.wait(run.id))

    def leave() -> None:
        waiting.cancel()

    watching = await cancel_when_gone(request, leave)
    try:
        await asyncio.wait({waiting})
    finally:
        watching.cancel()
        if waiting.cancel() or waiting.cancelled():
            await lab.benchmarks.cancel(run.id)
    if waiting.cancelled():
        raise RequestCancelled(f"The client left. What was measured is GET /benchmarks/{run.id}.")
    run = waiting.result()
    answer = earlier_shape(run, [one async for one in lab.benchmarks.records(run.id)])
    if run.status != "complete" or not answer["times"]:
        raise BenchmarkFailed(_why_without_figures(run, answer))
    return EarlierBenchmark.model_validate(answer)


@router.post("/benchmarks", status_code=202)
async def start_benchmark(
    plan: Annotated[Plan, Body(openapi_examples=PLANS)],
    lab: LabDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Run:
    """Start a benchmark. It is queued while another one uses the same machine; ``/events`` tells how it goes.

    An arm with a ``url`` lets this server connect to any http or https address that it can reach itself, and send what
    the plan says there. It follows no redirect. Let nobody reach this API who may not do that.
    """
    run = await lab.benchmarks.start(plan, idempotency_key=idempotency_key)
    response.headers["location"] = f"/benchmarks/{run.id}"
    return run


@router.get("/benchmarks", response_model_exclude={"data": {"__all__": {"plan": {"prompts": {"texts"}}}}})
async def list_benchmarks(lab: LabDep, limit: Limit = 20, after: After = None) -> RunPage:
    """Return runs without their reports and own prompts, the newest first."""
    return await lab.benchmarks.page(after=after, limit=limit)


@router.get("/benchmarks/schema")
async def report_schema() -> dict[str, Any]:
    """Return the JSON Schema of a run with its report."""
    return json_schema()


@router.post("/benchmarks/compare")
async def compare_benchmarks(runs: CompareRuns, lab: LabDep) -> HistoricalComparison:
    """Compare stored runs with the first of them.

    What was measured at another time is judged against how much equal runs of this lab differ by themselves. A
    comparison that decides more is one run with several arms: ``POST /benchmarks``.
    """
    return HistoricalComparison(runs=runs.runs, comparisons=await lab.benchmarks.compare(runs.runs))


@router.get("/benchmarks/{run_id}")
async def get_benchmark(run_id: RunId, lab: LabDep) -> Run:
    """Return a run, with its report once there is one."""
    return await lab.benchmarks.get(run_id)


@router.delete("/benchmarks/{run_id}", status_code=204)
async def delete_benchmark(run_id: RunId, lab: LabDep) -> None:
    """Delete a run that has ended, with all that it measured, for good."""
    await lab.benchmarks.delete(run_id)


@router.post("/benchmarks/{run_id}/cancel")
async def cancel_benchmark(run_id: RunId, lab: LabDep) -> Run:
    """Stop a run. What it has measured is kept and reported; one that has ended stays as it is."""
    return await lab.benchmarks.cancel(run_id)


@router.post("/benchmarks/{run_id}/resume", status_code=202)
async def resume_benchmark(run_id: RunId, lab: LabDep, keys: Annotated[RerunKeys | None, Body()] = None) -> Run:
    """Go on with a run that was cancelled, interrupted or failed, at the first block that is not complete."""
    return await lab.benchmarks.resume(run_id, api_keys=_plain(keys))


@router.post("/benchmarks/{run_id}/rerun", status_code=202)
async def rerun_benchmark(
    run_id: RunId,
    lab: LabDep,
    keys: Annotated[RerunKeys | None, Body()] = None,
    idempotency_key: IdempotencyKey = None,
) -> Run:
    """Start a new run of the same plan."""
    return await lab.benchmarks.rerun(run_id, api_keys=_plain(keys), idempotency_key=idempotency_key)


@router.get("/benchmarks/{run_id}/events", responses=_EVENTS)
async def watch_benchmark(run_id: RunId, lab: LabDep, request: Request) -> Response:
    """Watch a run. Leaving does not stop it."""
    await lab.benchmarks.get(run_id)  # an unknown one is a 404, not a stream
    left = asyncio.Event()
    return EventStream(_events(lab.benchmarks.events(run_id), left, request.state.request_id), left.set)


@router.get("/benchmarks/{run_id}/report", responses=_REPORT)
async def benchmark_report(
    run_id: RunId,
    lab: LabDep,
    format: Annotated[ReportFormat, Query(description="What kind of document.")] = "json",  # noqa: A002 - as by HTTP
) -> Response:
    """Return the report of a run as a document; jsonl has every request as it was seen."""
    headers = {"content-disposition": f'inline; filename="{file_name(run_id, format)}"'}
    if format == "jsonl":  # as large as the run was long
        return StreamingResponse(await lab.benchmarks.jsonl(run_id), media_type=KINDS[format][0], headers=headers)
    rendered = await lab.benchmarks.report(run_id, format)
    return Response(rendered.content, media_type=rendered.media_type, headers=headers)


def _why_without_figures(run: Run, answer: dict[str, Any]) -> str:
    why = run.error or (f"The run is {run.status}." if run.status != "complete" else "Not one iteration succeeded.")
    failures = "; ".join(f"{count} times: {text}" for text, count in answer["failures"].items())
    return " ".join(filter(None, [why, failures, f"GET /benchmarks/{run.id}/report has all that was seen."]))


def _plain(keys: RerunKeys | None) -> dict[str, str] | None:
    return {name: key.get_secret_value() for name, key in keys.api_keys.items()} if keys else None


async def _events(
    changes: AsyncGenerator[Progress | Run, None], left: asyncio.Event, request_id: str
) -> AsyncGenerator[bytes, None]:
    """Yield events until the run has ended or the client has left."""
    leaving = asyncio.create_task(left.wait())
    number = 0
    try:
        while True:
            coming = asyncio.ensure_future(anext(changes, None))
            await asyncio.wait({coming, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                coming.cancel()
                await asyncio.wait({coming})
                return
            if (change := coming.result()) is None:
                return
            number += 1
            if isinstance(change, Run):
                yield event(change.model_dump_json(exclude={"report"}), name="benchmark.done", event_id=number)
            else:
                yield event(change.model_dump_json(exclude_none=True), name="benchmark.progress", event_id=number)
    except LabError as error:
        yield event(problem_of(error, request_id).model_dump_json(exclude_none=True), name="error")
    finally:
        leaving.cancel()
        await changes.aclose()
