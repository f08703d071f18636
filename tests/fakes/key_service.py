"""The check endpoint of any service that AI Lab knows, over a real socket, with the answers of its documentation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from ai_lab.providers.known_services import KnownService, known_services, origin_of
from tests.fakes.http_server import FakeServer, ReceivedRequest, Reply, json_reply

_MODELS = {"object": "list", "data": [{"id": "some-model", "object": "model"}]}
#: What each service says about a good key.
WELCOMES: dict[str, Any] = {
    "openai": _MODELS,
    "anthropic": {"data": [{"type": "model", "id": "some-model"}], "has_more": False},
    "google": {"models": [{"name": "models/some-model"}]},
    "azure": _MODELS,
    "cohere": {"valid": True, "organization_id": "0", "owner_id": "0"},
    "huggingface": {
        "type": "user",
        "name": "someone",
        "auth": {"type": "access_token", "accessToken": {"role": "read"}},
    },
    "openrouter": {
        "data": {"label": "sk-or-v1-abc...def", "limit": 5, "limit_remaining": 4.5, "usage": 0.5, "is_free_tier": False}
    },
    "together": [{"id": "some-model", "object": "model"}],
    "ollama": {"models": [{"name": "some-model"}]},
    "custom": _MODELS,
}


def openai_error(message: str, status: int, code: str | None = None, kind: str = "invalid_request_error") -> Reply:
    """An error as OpenAI and those who copy it word it."""
    return json_reply({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)


def google_error(status: int, name: str, message: str, reason: str | None = None) -> Reply:
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}] if reason else []
    return json_reply({"error": {"code": status, "message": message, "status": name, "details": details}}, status)


def anthropic_error(status: int, kind: str, message: str) -> Reply:
    return json_reply({"type": "error", "error": {"type": kind, "message": message}}, status)


#: What each service says about a wrong key, or none.
REFUSALS: dict[str, Reply] = {
    "openai": openai_error("Incorrect API key provided.", 401, "invalid_api_key"),
    "anthropic": anthropic_error(401, "authentication_error", "invalid x-api-key"),
    "google": google_error(400, "INVALID_ARGUMENT", "API key not valid.", "API_KEY_INVALID"),
    "azure": json_reply({"error": {"code": "401", "message": "Access denied due to invalid subscription key."}}, 401),
    "cohere": json_reply({"valid": False}),
    "huggingface": json_reply({"error": "Invalid username or password."}, 401),
    "openrouter": json_reply({"error": {"message": "User not found.", "code": 401}}, 401),
    "together": openai_error("Invalid API key provided.", 401, "invalid_api_key"),
    "ollama": json_reply({"error": "unauthorized"}, 401),
    "custom": openai_error("Unauthorized", 401),
}


class KeyService(FakeServer):
    """Accepts ``key`` and no other, in the header of the service, at its path.

    Args:
        name: a known service, or ``custom``.
        key: the right one.
        is_public: the list of models is answered without any key too.
    """

    def __init__(self, name: str, key: str, *, is_public: bool = False) -> None:
        super().__init__()
        self.name = name
        self.key = key
        self.is_public = is_public

    def row(self) -> KnownService | None:
        """Return the service's row as if this server were its own address; None for a custom server."""
        if self.name == "custom":
            return None
        row = known_services()[self.name]
        url = row.check.url and f"{self.origin}{_path(row.check.url)}"
        base_url = row.base_url and f"{self.origin}{_path(row.base_url)}"
        origins = (origin_of(self.origin),) if row.base_url else ()
        return replace(row, base_url=base_url, origins=origins, check=replace(row.check, url=url))

    @property
    def base_url(self) -> str:
        """Where models are called."""
        row = self.row()
        return (row.base_url if row else f"{self.origin}/v1") or self.origin

    @property
    def check_path(self) -> str:
        """The one path that tells about the key."""
        row = self.row()
        if row is None:
            return "/v1/models"
        return _path(row.check.url) if row.check.url else str(row.check.path)

    def default_reply(self, request: ReceivedRequest) -> Reply:
        row = self.row()
        if request.path != self.check_path or request.method != (row.check.method if row else "GET"):
            # Several services list their models to everybody: nobody may take that for an answer about a key.
            return json_reply(_MODELS) if request.path.endswith("/models") else super().default_reply(request)
        header, scheme = (row.check.header, row.check.scheme) if row else ("authorization", "Bearer ")
        is_right = request.headers.get(header) == f"{scheme}{self.key}"
        return json_reply(WELCOMES[self.name]) if is_right or self.is_public else REFUSALS[self.name]


def _path(url: str) -> str:
    parts = urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "")
