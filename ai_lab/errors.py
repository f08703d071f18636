"""Every error AI Lab raises on purpose, as one tree.

LabError                        500 internal_error
├── InvalidRequest              400 invalid_request
│   ├── UnsupportedFeature      400 unsupported_feature
│   ├── ContextOverflow         400 context_length_exceeded
│   ├── InvalidCursor           400 invalid_cursor
│   └── RequestCancelled        499 request_cancelled
├── NotFound                    404 not_found
│   ├── ConversationNotFound    404 conversation_not_found
│   ├── AgentStateNotFound      404 agent_state_not_found
│   ├── InvalidCursor           404 invalid_cursor
│   ├── MetricNotFound          404 metric_not_found
│   ├── BenchmarkNotFound       404 benchmark_not_found
│   └── ModelNotFound           404 model_not_found
├── Conflict                    409 conflict
│   ├── ConversationExists      409 conversation_exists
│   ├── BenchmarkRunning        409 benchmark_running
│   ├── BenchmarkNotResumable   409 benchmark_not_resumable
│   ├── IdempotencyKeyReused    409 idempotency_key_reused
│   └── TurnInProgress          409 turn_in_progress
├── ProviderError               502 provider_error
│   ├── ProviderUnavailable     503 provider_unavailable
│   ├── ProviderTimeout         504 provider_timeout
│   ├── ProviderAuthFailed      502 provider_auth_failed
│   ├── ProviderRateLimited     429 provider_rate_limited
│   ├── ProviderRefused         400 provider_refused
│   ├── StreamBroken            502 provider_stream_broken
│   └── EngineError             503 engine_unavailable
│       ├── EngineCrashed       502 engine_crashed
│       ├── ModelDamaged        503 model_file_damaged
│       └── OutOfMemory         503 insufficient_memory
├── DatabaseUnavailable         503 database_unavailable
│   ├── DatabaseBusy            503 database_busy
│   └── DatabaseFull            507 database_full
├── BenchmarkFailed             502 benchmark_failed
├── BenchmarkQueueFull          429 benchmark_queue_full
├── MetricsUnavailable          503 metrics_unavailable
├── ServerStopping              503 server_stopping
├── ServerUnreachable           503 server_unreachable
│   └── AnswerLost              502 answer_lost
├── SourceDamaged               422 source_damaged
└── StartupError                exit code 2: what is wrong and what to do about it
    ├── InvalidSettings
    ├── DatabaseUnusable
    │   ├── DatabaseDamaged
    │   ├── DatabaseTooNew
    │   └── EarlierDatabase
    ├── DataDirUnusable
    └── AlreadyRunning

``status`` is the HTTP status the web layer answers with and ``code`` a stable name that programs may test for.
The text of an error is for people: it says what happened and the remedy, and never holds a secret.
"""

from __future__ import annotations


class LabError(Exception):
    """The root of the tree. Args: detail (one or two sentences), retry_after_seconds, param (field at fault)."""

    status = 500
    code = "internal_error"
    title = "Internal error"

    def __init__(self, detail: str = "", *, retry_after_seconds: float | None = None, param: str | None = None) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.retry_after_seconds = retry_after_seconds
        self.param = param


class InvalidRequest(LabError):
    """The request can never succeed as it is."""

    status, code, title = 400, "invalid_request", "Invalid request"


class UnsupportedFeature(InvalidRequest):
    """The chosen model or service cannot do what was asked."""

    code, title = "unsupported_feature", "Not supported by this model"


class ContextOverflow(InvalidRequest):
    """The newest message alone is longer than the model's context."""

    code, title = "context_length_exceeded", "The message does not fit the model's context"


class NotFound(LabError):
    """What was asked for does not exist."""

    status, code, title = 404, "not_found", "Not found"


class ConversationNotFound(NotFound):
    """No conversation has this session_id."""

    code, title = "conversation_not_found", "Conversation not found"


class AgentStateNotFound(NotFound):
    """No state was ever saved for this session_id."""

    code, title = "agent_state_not_found", "Agent state not found"


class InvalidCursor(NotFound):
    """``after`` is no position of this list."""

    code, title = "invalid_cursor", "Invalid cursor"


class RequestCancelled(NotFound):
    """Whoever asked has gone; nobody reads this but the log."""

    status, code, title = 499, "request_cancelled", "The request was cancelled"


class MetricNotFound(NotFound):
    """Nothing of this name was ever measured here; ``near_matches`` are the closest names."""

    code, title = "metric_not_found", "Metric not found"

    def __init__(self, detail: str, near_matches: list[str] | None = None) -> None:
        super().__init__(detail, param="metric")
        self.near_matches = near_matches or []


class BenchmarkNotFound(NotFound):
    """No benchmark run has this id."""

    code, title = "benchmark_not_found", "Benchmark run not found"


class ModelNotFound(NotFound):
    """No provider has this model; ``near_matches`` are the closest names."""

    code, title = "model_not_found", "Model not found"

    def __init__(self, detail: str, near_matches: list[str] | None = None) -> None:
        super().__init__(detail, param="model")
        self.near_matches = near_matches or []


class Conflict(LabError):
    """The request contradicts the stored state."""

    status, code, title = 409, "conflict", "Conflict"


class ConversationExists(Conflict):
    """A conversation with this session_id is already there."""

    code, title = "conversation_exists", "Conversation exists already"


class BenchmarkRunning(Conflict):
    """What was asked for can be done once the run has ended."""

    code, title = "benchmark_running", "The benchmark is still running"


class BenchmarkNotResumable(Conflict):
    """The run is complete, or was not begun in a way that can be gone on with."""

    code, title = "benchmark_not_resumable", "The benchmark cannot be resumed"


class IdempotencyKeyReused(Conflict):
    """An Idempotency-Key came back with another body."""

    code, title = "idempotency_key_reused", "Idempotency-Key was used for another request"


class TurnInProgress(Conflict):
    """The same turn (same Idempotency-Key) is still being answered."""

    code, title = "turn_in_progress", "This turn is still being answered"


class ProviderError(LabError):
    """A model service answered with an error of its own."""

    status, code, title = 502, "provider_error", "The model service failed"


class ProviderUnavailable(ProviderError):
    """The service cannot be reached or says that it cannot serve now."""

    status, code, title = 503, "provider_unavailable", "The model service is not reachable"


class ProviderTimeout(ProviderError):
    """The service did not answer in time."""

    status, code, title = 504, "provider_timeout", "The model service did not answer in time"


class ProviderAuthFailed(ProviderError):
    """The service refused our key."""

    code, title = "provider_auth_failed", "The model service refused the API key"


class ProviderRateLimited(ProviderError):
    """The service asks us to slow down or is out of quota."""

    status, code, title = 429, "provider_rate_limited", "The model service limits the rate of requests"


class ProviderRefused(ProviderError):
    """The service says that the request itself is wrong."""

    status, code, title = 400, "provider_refused", "The model service refused the request"


class StreamBroken(ProviderError):
    """The answer stopped in the middle without its end marker."""

    code, title = "provider_stream_broken", "The answer broke off"


class EngineError(ProviderError):
    """The embedded engine cannot serve."""

    status, code, title = 503, "engine_unavailable", "The embedded engine is not available"


class EngineCrashed(EngineError):
    """The engine process died while it was answering."""

    status, code, title = 502, "engine_crashed", "The embedded engine crashed"


class ModelDamaged(EngineError):
    """The model file cannot be loaded."""

    code, title = "model_file_damaged", "The model file is damaged"


class OutOfMemory(EngineError):
    """The machine has not enough free memory for the model."""

    code, title = "insufficient_memory", "Not enough memory for this model"


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


class SourceDamaged(LabError):
    """A file to import, or a part of it, cannot be read: where (line, column, byte, item) and why."""

    status, code, title = 422, "source_damaged", "The source is damaged"

    def __init__(self, reason: str, *, origin: str, position: dict[str, int] | None = None) -> None:
        self.reason, self.origin, self.position = reason, origin, position or {}
        where = ", ".join(f"{name} {number}" for name, number in self.position.items())
        super().__init__(f"{origin}: {where + ': ' if where else ''}{reason}")


class StartupError(LabError):
    """The program cannot start; entry scripts print the detail on one line and exit with code 2."""

    status, code, title = 503, "startup_error", "Cannot start"


class InvalidSettings(StartupError):
    """A setting has a value that cannot be used."""

    code = "invalid_settings"


class DatabaseUnusable(StartupError):
    """The database cannot be opened."""

    code = "database_unusable"


class DatabaseDamaged(DatabaseUnusable):
    """The database file is not a whole SQLite database."""

    code = "database_damaged"


class DatabaseTooNew(DatabaseUnusable):
    """A newer version of AI Lab has migrated this database."""

    code = "database_too_new"


class EarlierDatabase(DatabaseUnusable):
    """The file belongs to the earlier AI-Lab and must be imported, not opened."""

    code = "earlier_database"


class DataDirUnusable(StartupError):
    """The data directory cannot be written."""

    code = "data_dir_unusable"


class AlreadyRunning(StartupError):
    """Another server holds this data directory or port."""

    code = "already_running"
