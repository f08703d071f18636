"""A scripted resource of Azure OpenAI: OpenAI's format below ``/openai/v1``."""

from __future__ import annotations

from tests.fakes.http_server import FakeServer, ReceivedRequest, Reply, json_reply
from tests.fakes.openai_server import text_reply

CHAT = "/openai/v1/chat/completions"
DEPLOYMENTS = "/openai/deployments?api-version=2023-03-15-preview"
MODELS = "/openai/v1/models"


class AzureServer(FakeServer):
    """Answers ``Hello, world`` until told otherwise with ``script(CHAT, …)``."""

    def default_reply(self, request: ReceivedRequest) -> Reply:
        if request.path == CHAT:
            return text_reply("Hello", ", world")
        if request.path == DEPLOYMENTS:
            deployed = [{"id": "tiny", "model": "gpt-4o"}, {"id": "vectors", "model": "text-embedding-3-small"}]
            return json_reply({"data": deployed})
        if request.path == "/openai/v1/embeddings":
            rows = [{"index": n, "embedding": [float(n)]} for n in range(len(request.json()["input"]))]
            return json_reply({"data": rows, "usage": {"prompt_tokens": 2 * len(rows)}})
        return json_reply({"error": {"code": "404", "message": "Resource not found"}}, 404)
