"""What OpenAI-compatible servers say of themselves, over a real socket."""

from __future__ import annotations

import hashlib

from tests.benchmarks.asking import opened
from tests.fakes.http_server import json_reply
from tests.fakes.openai_server import OpenAIServer

MODELS = "/v1/models"


async def test_a_llama_server_is_described_by_its_own_words() -> None:
    props = {
        "build_info": "b1-abc",
        "total_slots": 4,
        "model_ftype": "Q4_K_M",
        "model_path": "/models/tiny.gguf",
        "chat_template": "{{ x }}",
        "default_generation_settings": {"n_ctx": 2048},
    }
    entry = {"id": "tiny", "owned_by": "llamacpp", "meta": {"n_ctx_train": 8192, "n_params": 135, "size": 99}}
    async with OpenAIServer() as server:
        server.script(MODELS, json_reply({"data": [entry]}, Server="llama.cpp"))
        server.script("/props", json_reply(props))
        server.script("/v1/chat/completions/input_tokens", json_reply({"input_tokens": 31}))
        async with opened(server.base_url) as target:
            about = await target.describe()
            assert await target.prompt_tokens("Hi") == 31
            assert await target.cold_load() is None
            assert target.is_local
            assert len(target.process_ids()) == 1
    assert about == {
        "server": "llama.cpp",
        "url": server.origin,
        "model": "tiny",
        "owned_by": "llamacpp",
        "build": "b1-abc",
        "slots": 4,
        "quantization": "Q4_K_M",
        "file": "tiny.gguf",
        "parameters": 135,
        "size_bytes": 99,
        "context_tokens": 2048,
        "trained_context_tokens": 8192,
        "template_sha256": hashlib.sha256(b"{{ x }}").hexdigest(),
    }


async def test_a_vllm_is_described_with_its_version() -> None:
    async with OpenAIServer() as server:
        server.script(MODELS, json_reply({"data": [{"id": "tiny", "owned_by": "vllm", "max_model_len": 512}]}))
        server.script("/version", json_reply({"version": "0.19.1"}))
        async with opened(server.base_url) as target:
            about = await target.describe()
    assert (about["server"], about["version"], about["context_tokens"]) == ("vLLM", "0.19.1", 512)
