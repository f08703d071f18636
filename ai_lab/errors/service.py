"""What goes wrong on our side, and on the way to it."""

from __future__ import annotations

from ai_lab.errors.requests import LabError


class DatabaseUnavailable(LabError):
    """The database cannot be reached or used now; what was acknowledged before is safe."""

    status, code, title = 503, "database_unavailable", "The database is not available"


class DatabaseBusy(DatabaseUnavailable):
    """Another process or too many requests held the database for longer than a request may wait."""

    code, title = "database_busy", "The database is busy"


class DatabaseFull(DatabaseUnavailable):
    """The disk is full; nothing of the request was saved."""

    status, code, title = 507, "database_full", "The disk is full"


class BenchmarkFailed(LabError):
    """A benchmark ended without a figure: every request failed, or the measuring process died."""

    status, code, title = 502, "benchmark_failed", "The benchmark failed"


class BenchmarkQueueFull(LabError):
    """So many benchmarks wait that one more would not be measured for long."""

    status, code, title = 429, "benchmark_queue_full", "Too many benchmarks wait"


class MetricsUnavailable(LabError):
    """There is no sample of the machine: sampling is switched off, or the machine cannot be read."""

    status, code, title = 503, "metrics_unavailable", "No metrics are available"


class ServerStopping(LabError):
    """The server is shutting down."""

    status, code, title = 503, "server_stopping", "The server is stopping"


class ServerUnreachable(LabError):
    """No AI Lab server answers our client."""

    status, code, title = 503, "server_unreachable", "The server is not reachable"


class AnswerLost(ServerUnreachable):
    """The connection of our client to the server broke, or stayed silent, before the whole answer was there."""

    status, code, title = 502, "answer_lost", "The answer was lost on its way"
