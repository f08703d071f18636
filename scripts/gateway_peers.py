"""The servers that the gateway is measured beside: a model service that answers at once, and two other ways to it.

Run as a program it is one of them: ``python -m scripts.gateway_peers upstream|floor PORT [UPSTREAM]``.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from tests.server import ROOT, ServerProcess, free_port

PIECES = 20
_WORDS = [f"word{number} " for number in range(PIECES)]
_USAGE = {"prompt_tokens": 12, "completion_tokens": PIECES, "total_tokens": 12 + PIECES}
_READY_SECONDS = 90.0
#: No key, which is the least work for it; no look at the network, which would delay its start.
_LITELLM_SETTINGS = {
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
}


@dataclass
class Peer:
    """A server of this measurement; ``path`` and ``model`` are what a client has to say to it."""

    name: str
    url: str
    model: str
    process: subprocess.Popen[bytes] | None = None
    pid: int = 0

    def memory_mib(self) -> float:
        """Return the proportional set size of the server and its children, in MiB."""
        main = psutil.Process(self.pid)
        return sum(one.memory_full_info().pss for one in [main, *main.children(recursive=True)]) / 2**20

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(20)


def upstream() -> Peer:
    """Start the model service."""
    port = free_port()
    return _started("upstream", "any", port, [sys.executable, "-m", "scripts.gateway_peers", "upstream", str(port)])


def floor(model_service: Peer) -> Peer:
    """Start a pass-through of Starlette and httpx that looks at nothing: the least that a Python gateway can add."""
    port = free_port()
    command = [sys.executable, "-m", "scripts.gateway_peers", "floor", str(port), model_service.url]
    return _started("floor", "any", port, command)


def litellm(model_service: Peer, python: Path, folder: Path) -> Peer:
    """Start LiteLLM's proxy of another environment, with one worker and without a database."""
    port = free_port()
    config = {
        "model_list": [
            {
                "model_name": "any",
                "litellm_params": {"model": "openai/any", "api_base": f"{model_service.url}/v1", "api_key": "none"},
            }
        ]
    }
    file = folder / "litellm.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML
    command = [str(python.parent / "litellm"), "--config", str(file), "--port", str(port), "--num_workers", "1"]
    return _started("LiteLLM", "any", port, command, _LITELLM_SETTINGS)


def lab(server: ServerProcess) -> Peer:
    """Return a running AI Lab whose provider ``fake`` is the model service."""
    return Peer("AI Lab", server.url, "fake/any", pid=server.pid)


def _started(name: str, model: str, port: int, command: Sequence[str], settings: dict[str, str] | None = None) -> Peer:
    import os  # noqa: PLC0415 - the other program's environment is this one's and some settings

    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **(settings or {})}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    peer = Peer(name, f"http://127.0.0.1:{port}", model, process, process.pid)
    ends_at = time.monotonic() + _READY_SECONDS
    while time.monotonic() < ends_at:
        if process.poll() is not None:
            raise SystemExit(f"{name} ended with {process.returncode}: {' '.join(command)}")
        try:
            _ask(peer)
        except OSError:
            time.sleep(0.2)
        else:
            return peer
    process.kill()
    raise SystemExit(f"{name} did not answer within {_READY_SECONDS:g} s.")


def _ask(peer: Peer) -> None:
    body = json.dumps({"model": peer.model, "messages": [{"role": "user", "content": "Are you there?"}]}).encode()
    request = urllib.request.Request(  # noqa: S310 - an address of ours
        f"{peer.url}/v1/chat/completions", body, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - as above
        answer.read()


# -- as a program ------------------------------------------------------------------------------------------------------


def _event(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "any"}
    return b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"


def _answers() -> tuple[bytes, list[bytes]]:
    message = {"role": "assistant", "content": "".join(_WORDS)}
    whole = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "any",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": _USAGE,
    }
    usage = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "any", "choices": []}
    events = [
        _event({"role": "assistant", "content": ""}),
        *(_event({"content": word}) for word in _WORDS),
        _event({}, "stop"),
        b"data: " + json.dumps({**usage, "usage": _USAGE}).encode() + b"\n\n",
        b"data: [DONE]\n\n",
    ]
    return json.dumps(whole).encode(), events


class _ModelService(asyncio.Protocol):
    """Answers every request at once: whole, or as a stream of ``PIECES`` words in writes of their own."""

    whole, events = _answers()

    def __init__(self) -> None:
        self._received = b""
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:  # uvloop's transports are of no class of asyncio
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end].lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            if len(self._received) < end + 4 + length:
                return
            body = self._received[end + 4 : end + 4 + length]
            self._received = self._received[end + 4 + length :]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"get"):
            self._send(b"application/json", b'{"object":"list","data":[{"id":"any","object":"model"}]}')
        elif json.loads(body).get("stream"):
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            for event in self.events:
                self._transport.write(b"%x\r\n%s\r\n" % (len(event), event))
            self._transport.write(b"0\r\n\r\n")
        else:
            self._send(b"application/json", self.whole)

    def _send(self, kind: bytes, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n" % (kind, len(body))
        self._transport.write(head + body)


async def _serve_model(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_ModelService, "127.0.0.1", port)
    await server.serve_forever()


def _serve_floor(port: int, model_service: str) -> None:
    import httpx  # noqa: PLC0415 - the model service needs none of these
    import uvicorn  # noqa: PLC0415 - as above
    from starlette.applications import Starlette  # noqa: PLC0415 - as above
    from starlette.requests import Request  # noqa: PLC0415 - as above
    from starlette.responses import Response, StreamingResponse  # noqa: PLC0415 - as above
    from starlette.routing import Route  # noqa: PLC0415 - as above

    client = httpx.AsyncClient(base_url=model_service, limits=httpx.Limits(max_keepalive_connections=128))

    async def chat(request: Request) -> Response:
        body = await request.body()
        if not json.loads(body).get("stream"):
            answer = await client.post("/v1/chat/completions", content=body)
            return Response(answer.content, media_type="application/json")
        sent = client.build_request("POST", "/v1/chat/completions", content=body)
        answer = await client.send(sent, stream=True)

        async def pieces() -> Any:
            try:
                async for block in answer.aiter_bytes():
                    yield block
            finally:
                await answer.aclose()

        return StreamingResponse(pieces(), media_type="text/event-stream")

    app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
    uvicorn.run(app, port=port, access_log=False, log_level="warning")


if __name__ == "__main__":
    if sys.argv[1] == "upstream":
        import uvloop

        uvloop.run(_serve_model(int(sys.argv[2])))
    else:
        _serve_floor(int(sys.argv[2]), sys.argv[3])
