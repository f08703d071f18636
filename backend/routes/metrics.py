"""``/metrics``: JSON for people and programs, the exposition format for Prometheus."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from fastapi.responses import Response
from pydantic import StringConstraints

from ai_lab.clock import now
from ai_lab.shapes import PointInTime, ShortText
from ai_lab.telemetry import SystemMetrics
from ai_lab.telemetry.history.query import MOST_POINTS
from ai_lab.telemetry.history.schemas import KnownMetric, MetricHistory
from ai_lab.telemetry.prometheus.exposition import wants_exposition
from backend.deps import LabDep

router = APIRouter(tags=["metrics"])
_TEXT = {"schema": {"type": "string"}}
_EXPOSITION: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The newest sample, or the exposition format where Accept asks for it.",
        "content": {"text/plain": _TEXT, "application/openmetrics-text": _TEXT},
    }
}
_YEAR_SECONDS = 366 * 86400

Accept = Annotated[str, Header()]
Label = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,64}=[^\x00]{0,255}$")]


@router.get("/metrics", response_model=SystemMetrics, responses=_EXPOSITION)
async def metrics(lab: LabDep, response: Response, accept: Accept = "*/*") -> SystemMetrics | Response:
    """Return the newest sample of the machine and its age; Prometheus, by its Accept header, gets its own format."""
    if wants_exposition(accept):
        return await _exposition(lab, accept)
    response.headers["Vary"] = "Accept"
    return await lab.telemetry.system_metrics()


@router.get("/metrics/prometheus", response_class=Response, responses=_EXPOSITION)
async def prometheus(lab: LabDep, accept: Accept = "*/*") -> Response:
    """Return everything that is counted, in Prometheus' text format, or OpenMetrics with exemplars where asked for."""
    return await _exposition(lab, accept)


@router.get("/metrics/series")
async def series(lab: LabDep) -> list[KnownMetric]:
    """Return every metric that has a history, with its labels."""
    return await lab.telemetry.history.known()


@router.get("/metrics/history", response_model=MetricHistory)
async def history(
    lab: LabDep,
    *,
    metric: Annotated[ShortText, Query(min_length=1, description="Name as in /metrics/series.")],
    start: Annotated[PointInTime | None, Query(alias="from", description="Default: an hour before `to`.")] = None,
    end: Annotated[PointInTime | None, Query(alias="to", description="Default: now.")] = None,
    step: Annotated[int | None, Query(ge=1, le=_YEAR_SECONDS, description="Seconds; default: fits the range.")] = None,
    max_points: Annotated[int, Query(ge=1, le=MOST_POINTS, description="Without `step`: of each series.")] = 300,
    label: Annotated[list[Label] | None, Query(description="`name=value`; only series that carry it.")] = None,
    host: Annotated[ShortText | None, Query(description="Of several machines this one; default: all.")] = None,
) -> MetricHistory:
    """Return the history of one metric: mean, least and greatest of each step, and the gaps without samples."""
    return await lab.telemetry.history.query(
        metric,
        start=start,
        end=end or now(),
        step_seconds=step,
        max_points=max_points,
        labels=dict(one.split("=", 1) for one in label or []),
        host=host,
    )


async def _exposition(lab: LabDep, accept: str) -> Response:
    content, content_type = await lab.telemetry.exposition.render(accept)
    return Response(content, headers={"Content-Type": content_type, "Vary": "Accept"})
