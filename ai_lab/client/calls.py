"""What can be asked of a server, each as a request and how to read its answer; both clients send the same ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import quote

from ai_lab.agents.schemas import AgentState, AgentStatePage
from ai_lab.chat.schemas import Answer
from ai_lab.clock import new_id
from ai_lab.conversations.export import ExportFormat
from ai_lab.conversations.restore import ImportReport
from ai_lab.conversations.schemas import Conversation, ConversationPage, Message, MessagePage
from ai_lab.errors import ConversationNotFound, LabError
from ai_lab.telemetry.history.schemas import MetricHistory
from ai_lab.telemetry.operations.summary_schemas import PerformanceSummary
from ai_lab.telemetry.schemas import SystemMetrics

T_co = TypeVar("T_co", covariant=True)
_PAGE_SIZE = 100


class Page(Protocol[T_co]):
    """A part of a list; ``after`` leads to the next one."""

    @property
    def data(self) -> Sequence[T_co]:
        """What is on it."""

    @property
    def after(self) -> str | None:
        """None on the last one."""


@dataclass(frozen=True)
class Call(Generic[T_co]):
    """One request.

    Args:
        read: makes the result of the body of the answer.
        params: of the address; None is left out.
        body: JSON, or bytes with ``headers`` saying what they are.
        answers_with: statuses that are no success and whose body is an answer all the same.
        settled_by: this error, where the call had to be sent again, says that the first time had done it.
    """

    method: str
    path: str
    read: Callable[[bytes], T_co]
    params: dict[str, Any] = field(default_factory=dict)
    body: Any = field(default=None, repr=False)  # it may hold a secret
    headers: dict[str, str] = field(default_factory=dict)
    answers_with: tuple[int, ...] = ()
    settled_by: type[LabError] | None = None

    def request(self) -> dict[str, Any]:
        """Return the arguments for ``build_request``."""
        content = {"content": self.body} if isinstance(self.body, bytes) else {"json": self.body}
        params = {name: value for name, value in self.params.items() if value is not None}
        return {"method": self.method, "url": self.path, "params": params, "headers": self.headers} | content


def chat(message: str, *, stream: bool = False, **fields: Any) -> Call[Answer]:
    """Say something to a model."""
    body = _given(message=message, stream=stream or None, **fields)
    return Call("POST", "/chat", Answer.model_validate_json, body=body, headers=once())


def create(**fields: Any) -> Call[Conversation]:
    """Start a conversation."""
    return Call("POST", "/conversations", Conversation.model_validate_json, body=_given(**fields), headers=once())


def conversations(query: str | None, archived: bool | None, after: str | None) -> Call[ConversationPage]:
    """List or search conversations."""
    params = {"query": query, "archived": archived, "limit": _PAGE_SIZE, "after": after}
    return Call("GET", "/conversations", ConversationPage.model_validate_json, params)


def conversation(session_id: str) -> Call[Conversation]:
    """Return a conversation."""
    return Call("GET", place("conversations", session_id), Conversation.model_validate_json)


def change(session_id: str, **fields: Any) -> Call[Conversation]:
    """Rename or archive a conversation."""
    path = place("conversations", session_id)
    return Call("PATCH", path, Conversation.model_validate_json, body=fields, headers=once())


def delete(session_id: str) -> Call[None]:
    """Delete a conversation."""
    path = place("conversations", session_id)
    return Call("DELETE", path, lambda _: None, headers=once(), settled_by=ConversationNotFound)


def messages(session_id: str, after: str | None) -> Call[MessagePage]:
    """List messages."""
    params = {"limit": _PAGE_SIZE, "after": after}
    return Call("GET", place("conversations", session_id, "messages"), MessagePage.model_validate_json, params)


def append(
    session_id: str, role: str, content: str, thought_process: str | None, created_at: datetime | None
) -> Call[Message]:
    """Append a message."""
    said = _given(role=role, content=content, thought_process=thought_process)
    body = said | _given(created_at=created_at.isoformat() if created_at else None)
    path = place("conversations", session_id, "messages")
    return Call("POST", path, Message.model_validate_json, body=body, headers=once())


def export(session_id: str | None, kind: ExportFormat) -> Call[str]:
    """Return a conversation, or all of them, as a file."""
    path = "/export/conversations" if session_id is None else place("conversations", session_id, "export")
    return Call("GET", path, bytes.decode, {"format": kind})


def import_(data: str | bytes) -> Call[ImportReport]:
    """Bring an export back."""
    content = data.encode() if isinstance(data, str) else data
    headers = once() | {"content-type": "application/x-ndjson" if _has_lines(content) else "application/json"}
    return Call("POST", "/import/conversations", ImportReport.model_validate_json, body=content, headers=headers)


def agent_state(session_id: str) -> Call[AgentState]:
    """Return an agent's current state."""
    return Call("GET", place("agents", session_id, "state"), AgentState.model_validate_json)


def save_agent_state(session_id: str, **fields: Any) -> Call[AgentState]:
    """Save an agent's state."""
    path = place("agents", session_id, "state")
    return Call("PUT", path, AgentState.model_validate_json, body=_given(**fields), headers=once())


def agent_states(session_id: str, after: str | None) -> Call[AgentStatePage]:
    """List an agent's states."""
    params = {"limit": _PAGE_SIZE, "after": after}
    return Call("GET", place("agents", session_id, "states"), AgentStatePage.model_validate_json, params)


def models() -> Call[list[dict[str, Any]]]:
    """List the models of all providers."""
    return Call("GET", "/v1/models", lambda body: list(json.loads(body)["data"]))


def health() -> Call[dict[str, Any]]:
    """Say how the server is, component by component; a server that is unwell answers too."""
    return Call("GET", "/health/detailed", json.loads, answers_with=(503,))


def metrics() -> Call[SystemMetrics]:
    """Return the newest sample of the machine."""
    return Call("GET", "/metrics", SystemMetrics.model_validate_json)


def metrics_history(
    metric: str,
    *,
    start: datetime | None,
    end: datetime | None,
    step: int | None,
    labels: Mapping[str, str] | None,
    host: str | None,
) -> Call[MetricHistory]:
    """Return the history of one metric."""
    params = {
        "metric": metric,
        "from": start.isoformat() if start else None,
        "to": end.isoformat() if end else None,
        "step": step,
        "label": [f"{name}={value}" for name, value in (labels or {}).items()] or None,
        "host": host,
    }
    return Call("GET", "/metrics/history", MetricHistory.model_validate_json, params)


def exposition() -> Call[str]:
    """Return everything that is counted, in Prometheus' text format."""
    return Call("GET", "/metrics/prometheus", bytes.decode)


def performance_summary(hours: float) -> Call[PerformanceSummary]:
    """Return how the lab did over a window."""
    return Call("GET", "/performance/summary", PerformanceSummary.model_validate_json, {"hours": hours})


def _given(**fields: Any) -> dict[str, Any]:
    """Return the fields that were given; options may be any mapping."""
    return {
        name: dict(value) if isinstance(value, Mapping) else value
        for name, value in fields.items()
        if value is not None
    }


def place(*parts: str) -> str:
    """Return the path of a resource; parts are escaped."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def once() -> dict[str, str]:
    """Let the server do the work once, however often the call has to be sent."""
    return {"idempotency-key": new_id()}


def _has_lines(content: bytes) -> bool:
    """Return whether this is JSON Lines: its first line is a whole object."""
    try:
        return isinstance(json.loads(content.lstrip().partition(b"\n")[0]), dict)
    except (ValueError, RecursionError):
        return False
