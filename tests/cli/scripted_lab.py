"""A server that tells of itself whatever a test wants, for states that a real one cannot be brought into at will."""

from __future__ import annotations

import json
from typing import Any

from ai_lab.clock import now
from ai_lab.telemetry.operations.summary_schemas import (
    Durations,
    HttpFigures,
    LlmFigures,
    ModelFigures,
    PerformanceSummary,
    RouteFigures,
    SummaryWindow,
    SystemFigures,
    TokenCounts,
)
from ai_lab.telemetry.schemas import (
    CpuMetrics,
    FilesystemMetrics,
    GpuBackend,
    GpuMetrics,
    MemoryMetrics,
    ProcessMetrics,
    SystemMetrics,
)
from tests.fakes.http_server import FakeServer, ReceivedRequest, Reply, json_reply

GIB = 1024**3


def component(name: str, status: str = "healthy", detail: str = "fine", remedy: str | None = None) -> dict[str, Any]:
    """Return the state of a component as ``/health/detailed`` gives it."""
    return {"component": name, "status": status, "detail": detail, "latency_ms": 1.25, "remedy": remedy}


def health(status: str = "healthy", *components: dict[str, Any]) -> dict[str, Any]:
    """Return what ``/health/detailed`` answers."""
    return {
        "status": status,
        "version": "0.1.0",
        "uptime_seconds": 11_550.2,
        "timestamp": 0.0,
        "components": components or (component("database"),),
    }


def metrics(cores: int = 2, gpus: list[GpuMetrics] | None = None) -> SystemMetrics:
    """Return a sample of a machine in which nothing is the same as anything else."""
    return SystemMetrics(
        timestamp=now(),
        sample_age_seconds=0.5,
        cpu_usage_percent=37.4,
        memory_usage_percent=41.2,
        memory_usage_bytes=3 * GIB,
        scope="host",
        interval_seconds=1,
        cpu=CpuMetrics(
            count=cores,
            effective_count=cores,
            usage_percent=37.4,
            per_core_percent=[number * 100 / cores for number in range(cores)],
            load_average=[0.42, 0.31, 0.25],
        ),
        memory=MemoryMetrics(total_bytes=8 * GIB, available_bytes=5 * GIB, used_bytes=3 * GIB, usage_percent=41.2),
        filesystems=[FilesystemMetrics(mountpoint="/", total_bytes=100 * GIB, free_bytes=6 * GIB, used_percent=94.0)],
        disks=[],
        network=[],
        temperatures=[],
        gpus=gpus or [],
        gpu_backend=GpuBackend(status="ok" if gpus else "no_driver"),
        process=ProcessMetrics(pid=1, name="python", cpu_percent=1.5, rss_bytes=180 * 1024**2, uptime_seconds=5),
        children=[ProcessMetrics(pid=2, name="engine_child", cpu_percent=95, rss_bytes=GIB, uptime_seconds=5)],
    )


def performance() -> PerformanceSummary:
    """Return an hour with a slow endpoint, a failing one, a watching program and a model."""
    routes = (
        _route("POST", "/chat", 1204, 3, 3400),
        _route("GET", "/metrics", 99_999, 0, 1),
        _route("GET", "/v1/models", 400, 0, 22),
    )
    return PerformanceSummary(
        uptime_seconds=11_550,
        current_metrics=None,
        timestamp=now(),
        window=SummaryWindow(start=now(), end=now(), seconds=3600, coverage_percent=100),
        system=SystemFigures(),
        http=HttpFigures(requests=101_603, errors=3, error_rate=0.0, by_route=list(routes)),
        database=[],
        llm=LlmFigures(
            requests=12,
            failures=0,
            failure_rate=0,
            tokens=TokenCounts(input=12_345, output=45_678),
            by_model=[
                ModelFigures(
                    provider="embedded",
                    model="tiny",
                    requests=12,
                    failures=0,
                    failure_rate=0,
                    duration=_durations(5600),
                    first_token=None,
                    decode_tokens_per_second=None,
                    tokens=TokenCounts(input=12_345, output=45_678),
                )
            ],
        ),
        functions=[],
        slowest=[],
    )


class ScriptedLab(FakeServer):
    """Answers as a healthy lab does, with figures of its own; ``tell`` changes what it says."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, Reply] = {}
        self.tell("/health/detailed", health())
        self.tell("/metrics", metrics().model_dump(mode="json"))
        self.tell("/performance/summary", performance().model_dump(mode="json", by_alias=True))
        self.tell("/v1/models", {"data": [{"id": "embedded/tiny"}, {"id": "ollama/gone", "stale": True}]})
        self.say("/metrics/prometheus", Reply([b""], headers={"content-type": "text/plain"}))

    def tell(self, path: str, value: Any, status: int = 200) -> None:
        """Answer this path with this JSON from now on."""
        self.say(path, json_reply(json.loads(json.dumps(value)), status))

    def say(self, path: str, reply: Reply) -> None:
        """Answer this path with this reply from now on."""
        self._said[path] = reply

    def default_reply(self, request: ReceivedRequest) -> Reply:
        return self._said.get(request.path.partition("?")[0]) or super().default_reply(request)


def _route(method: str, route: str, count: int, errors: int, p95_ms: float) -> RouteFigures:
    return RouteFigures(
        kind="http",
        name=f"{method} {route}",
        method=method,
        route=route,
        count=count,
        errors=errors,
        error_rate=errors / count,
        **_durations(p95_ms).model_dump(),
    )


def _durations(p95_ms: float) -> Durations:
    half = p95_ms / 2
    return Durations(
        mean_ms=half, min_ms=half / 2, p50_ms=half, p90_ms=p95_ms, p95_ms=p95_ms, p99_ms=p95_ms, max_ms=p95_ms * 2
    )
