"""What is wrong with a request, and the root of the tree."""

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


class EmptyRange(InvalidRequest):
    """A list or history is asked for whose beginning lies behind its end."""

    status = 422

    def __init__(self) -> None:
        super().__init__(
            "The range is empty: `from` must be before `to`. Exchange them, or leave one out.", param="from"
        )


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


class SourceDamaged(LabError):
    """A file to import, or a part of it, cannot be read: where (line, column, byte, item) and why."""

    status, code, title = 422, "source_damaged", "The source is damaged"

    def __init__(self, reason: str, *, origin: str, position: dict[str, int] | None = None) -> None:
        self.reason, self.origin, self.position = reason, origin, position or {}
        where = ", ".join(f"{name} {number}" for name, number in self.position.items())
        super().__init__(f"{origin}: {where + ': ' if where else ''}{reason}")
