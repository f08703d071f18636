"""What is seen of an Ollama server, over a real socket."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from ai_lab.errors import ModelNotFound, ProviderError
from tests.benchmarks.asking import ask, opened, stamps_in_order, written
from tests.fakes.http_server import ReceivedRequest, Reply, json_reply
from tests.fakes.ollama_server import CHAT, OllamaServer, last, line, piece, stream_reply

GENERATE = "/api/generate"


async def test_a_whole_answer_is_recorded_with_the_servers_own_times() -> None:
    async with OllamaServer() as server, opened(server.origin) as target:
        server.script(
            CHAT, stream_reply(0.03, piece(thinking="Hm. "), 0.02, piece("Zürich"), 0.02, 0.02, last(12, eval_count=2))
        )
        record = await ask(target, tokens=2, seed=3)

    assert record.status == "ok"
    assert record.notes == []
    assert stamps_in_order(record) == sorted(stamps_in_order(record))
    assert record.last_token_ns
    assert record.end_ns
    assert record.end_ns - record.last_token_ns > 30_000_000  # the last line comes later than the last token
    assert (record.first_token_ns, record.first_answer_ns) == tuple(record.chunk_ns)
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (12, 2, None)
    assert (record.finish_reason, record.token_source) == ("stop", "server")
    assert record.server_ms == {"load_ms": 20, "prompt_ms": 30, "decode_ms": 40}
    assert record.raw_timings == {
        "total_duration": 90_000_000,
        "load_duration": 20_000_000,
        "prompt_eval_count": 12,
        "prompt_eval_duration": 30_000_000,
        "eval_count": 2,
        "eval_duration": 40_000_000,
    }
    assert record.output_sha256 == hashlib.sha256("Hm. Zürich".encode()).hexdigest()
    assert server.received(CHAT)[0].json() == {
        "model": "tiny",
        "stream": True,
        "messages": [{"role": "user", "content": "Hi"}],
        "options": {"temperature": 0, "num_predict": 2, "seed": 3},
    }


async def test_fields_and_options_of_the_arm_are_sent_where_they_belong_and_win() -> None:
    options = {"num_ctx": 512, "temperature": 1, "keep_alive": "1h", "think": False, "num_predict": 7}
    async with OllamaServer() as server:
        server.script(GENERATE, stream_reply(line({"response": "a"}), last(eval_count=7)))
        async with opened(server.origin, options=options, endpoint="generate") as target:
            record = await ask(target, "Once upon", tokens=100)
        body = server.received(GENERATE)[0].json()
    assert body == {
        "model": "tiny",
        "stream": True,
        "prompt": "Once upon",
        "keep_alive": "1h",
        "think": False,
        "options": {"num_ctx": 512, "temperature": 1, "num_predict": 7},
    }
    assert (record.status, record.completion_tokens) == ("ok", 7)


@pytest.mark.parametrize(
    ("reply", "status", "code", "said"),
    [
        (stream_reply(piece("a"), piece("b")), "aborted", "provider_stream_broken", "without its end marker"),
        (stream_reply(), "aborted", "provider_stream_broken", "without its end marker"),
        (stream_reply(piece("a"), ending="cut"), "aborted", "provider_stream_broken", "connection was lost"),
        (stream_reply(piece("a"), ending="hang"), "timeout", "provider_timeout", "silent"),
        (stream_reply(piece("a"), line({"error": "token repeat limit reached"})), "error", "provider_error", "repeat"),
        (stream_reply(last(eval_count=0)), "error", "provider_error", "sent no text"),
        (stream_reply(last(done_reason="load")), "error", "provider_error", "did load tiny"),
        (stream_reply(piece("a"), b"<html>\n"), "error", "provider_stream_broken", "no JSON object"),
        (stream_reply(line({"message": "a"})), "error", "provider_stream_broken", "not in the shape"),
        (json_reply({"error": "model 'tiny' not found"}, status=404), "error", "model_not_found", "no model 'tiny'"),
        (json_reply({"error": "model requires more system memory"}, 500), "error", "insufficient_memory", "memory"),
    ],
)
async def test_what_goes_wrong_is_told_by_status_and_error(reply: Reply, status: str, code: str, said: str) -> None:
    async with OllamaServer() as server, opened(server.origin, timeout_seconds=0.2) as target:
        server.script(CHAT, reply)
        record = await ask(target)
    assert (record.status, record.error_code) == (status, code)
    assert said in (record.error or "")
    assert len(record.chunk_ns) == sum(b'"content": "' in part and b'""' not in part for part in written(reply))


@pytest.mark.parametrize(
    ("last_line", "tokens", "status", "notes"),
    [
        (last(eval_count=2), 2, "ok", []),
        (last(eval_count=2), 3, "short", []),
        (last(eval_count=1), 2, "ok", ["usage disagrees with chunks"]),
        (line({"done": True, "done_reason": "length"}), 9, "ok", ["no usage"]),
        (last(eval_count=2)[:-1], 2, "ok", []),  # without its end of line
    ],
)
async def test_counts_and_oddities_are_told(last_line: bytes, tokens: int, status: str, notes: list[str]) -> None:
    async with OllamaServer() as server, opened(server.origin) as target:
        server.script(CHAT, stream_reply(piece("a"), piece("b"), last_line))
        record = await ask(target, tokens=tokens)
    assert (record.status, record.notes) == (status, notes)


async def test_cached_tokens_are_known_only_where_the_server_says_them() -> None:
    async with OllamaServer() as server, opened(server.origin) as target:
        server.script(CHAT, stream_reply(piece("a"), piece("b"), last(12, prompt_eval_cached_count=8)))
        assert (await ask(target)).cached_tokens == 8


async def test_the_length_of_a_prompt_comes_from_a_request_for_one_token() -> None:
    async with OllamaServer() as server, opened(server.origin) as target:
        server.script(CHAT, stream_reply(last(31, eval_count=1)))
        assert await target.prompt_tokens("Hi") == 31
        assert server.received(CHAT)[0].json()["options"]["num_predict"] == 1
        server.script(CHAT, stream_reply(last(None)))
        assert await target.prompt_tokens("Hi") is None


async def test_an_unknown_model_is_told_with_those_that_there_are() -> None:
    async with OllamaServer() as server:
        with pytest.raises(ModelNotFound, match=r"Ollama has no model 'huge'. It has: tiny."):
            async with opened(server.origin, "ollama", model="huge"):
                pass
        async with opened(server.origin, "ollama", model="Tiny:latest") as target:
            await ask(target)
        assert server.received(CHAT)[0].json()["model"] == "tiny"


async def test_openais_api_of_ollama_is_taken_where_the_address_says_so() -> None:
    async with OllamaServer() as server:
        server.script("/v1/models", json_reply({"data": [{"id": "tiny"}]}))
        async with opened(f"{server.origin}/v1") as target:
            await ask(target)
        assert server.received("/v1/chat/completions")
        assert not server.received("/api/version")


class _LoadingServer(OllamaServer):
    """Loads and unloads as told; unloading takes two looks."""

    looks_until_gone = 2
    loaded = True

    def default_reply(self, request: ReceivedRequest) -> Reply:
        if request.path == GENERATE:
            self.loaded = request.json().get("keep_alive") != 0
            reason = "load" if self.loaded else "unload"
            pause = 0.05 if self.loaded else 0
            parts = [pause, line({"done": True, "done_reason": reason, "load_duration": 41_000_000})]
            return Reply(parts, headers={"content-type": "application/json"})
        if request.path == "/api/ps":
            if not self.loaded and self.looks_until_gone:
                self.looks_until_gone -= 1
            gone = not self.loaded and not self.looks_until_gone
            entry: dict[str, Any] = {"name": "tiny", "digest": "abc", "size": 100, "size_vram": 60}
            entry |= {"context_length": 4096, "expires_at": "2026-11-21T12:00:00Z"}
            return json_reply({"models": [] if gone else [entry]})
        return super().default_reply(request)


async def test_a_cold_load_sees_the_model_gone_before_it_takes_the_time() -> None:
    server = _LoadingServer()
    async with server, opened(server.origin, options={"num_ctx": 512, "keep_alive": "5m"}) as target:
        seconds = await target.cold_load()
        assert server.loaded
        unload, load = (request.json() for request in server.received(GENERATE))
        about = await target.describe()
    assert seconds is not None
    assert 0.05 <= seconds < 5
    assert len(server.received("/api/ps")) >= 2
    assert unload == {"model": "tiny", "stream": False, "keep_alive": 0}
    assert load == {"model": "tiny", "stream": False, "keep_alive": "5m", "options": {"num_ctx": 512}}
    assert about["server_load_ms"] == 41


async def test_a_model_that_stays_loaded_is_told() -> None:
    server = _LoadingServer()
    server.looks_until_gone = -1
    async with server, opened(server.origin) as target:
        with pytest.raises(ProviderError, match="still had tiny loaded"):
            await target.cold_load(within_seconds=0.2)  # type: ignore[call-arg]  # Ollama's own


async def test_server_and_model_are_described() -> None:
    shown = {
        "details": {"family": "llama", "parameter_size": "1B", "quantization_level": "Q4_K_M"},
        "model_info": {
            "general.architecture": "llama",
            "general.parameter_count": 1_000_000,
            "llama.context_length": 8192,
        },
        "template": "{{ .Prompt }}",
        "parameters": "stop x",
    }
    server = _LoadingServer()
    async with server:
        server.script("/api/show", json_reply(shown))
        async with opened(server.origin) as target:
            about = await target.describe()
            assert target.is_local
            assert len(target.process_ids()) == 1
    assert about == {
        "server": "ollama",
        "url": server.origin,
        "model": "tiny",
        "version": "0.33.2",
        "family": "llama",
        "parameters": 1_000_000,
        "quantization": "Q4_K_M",
        "trained_context_tokens": 8192,
        "template_sha256": hashlib.sha256(b"{{ .Prompt }}").hexdigest(),
        "model_parameters": "stop x",
        "digest": "abc",
        "size_bytes": 1000,
        "is_loaded": True,
        "size_loaded_bytes": 100,
        "size_vram_bytes": 60,
        "expires_at": "2026-11-21T12:00:00Z",
        "context_tokens": 4096,
    }


async def test_what_the_server_does_not_tell_is_left_out() -> None:
    async with OllamaServer() as server, opened(server.origin) as target:
        server.script("/api/show", json_reply([]))
        server.script("/api/version", json_reply("no"))
        server.script("/api/tags", json_reply({"models": "none"}))
        about = await target.describe()
    assert about == {"server": "ollama", "url": server.origin, "model": "tiny"}


async def test_many_at_once_are_all_recorded() -> None:
    async with OllamaServer() as server, opened(server.origin) as target:
        parts: list[bytes | float] = [piece("x"), 0.005] * 20
        server.script(CHAT, stream_reply(*parts, last(eval_count=20)))
        records = await asyncio.gather(*(ask(target, tokens=20) for _ in range(32)))
    assert [record.status for record in records] == ["ok"] * 32
    assert {len(record.chunk_ns) for record in records} == {20}
