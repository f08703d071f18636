"""Figures and texts that JSON can spell and nothing after it can hold."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ai_lab.benchmarks.analysis.run_data import RunData
from ai_lab.benchmarks.analysis.summary import analyse
from ai_lab.benchmarks.events import Reported, decode, encode
from ai_lab.benchmarks.plan import Arm, Plan
from tests.benchmarks.asking import ask, opened
from tests.fakes.http_server import json_reply
from tests.fakes.ollama_server import OllamaServer
from tests.fakes.openai_server import CHAT, DONE, OpenAIServer, delta, stream_reply

HALF = "half \ud83d of one"


def event(**values: Any) -> bytes:
    """Return an event in ASCII; 1e999 stands for what is given as infinity."""
    return b"data: " + json.dumps(values).replace("Infinity", "1e999").encode() + b"\n\n"


@pytest.mark.parametrize("absurd", [5_000_000_000, 10**400, -1, float("inf"), 1.5, True])
async def test_a_figure_that_cannot_be_is_none(absurd: float) -> None:
    pieces = [
        event(choices=[{"delta": {"content": "a"}}], timings={"predicted_n": absurd, "predicted_ms": 10**400}),
        event(choices=[{"delta": {"content": "b"}}], usage={"completion_tokens": absurd, "prompt_tokens": absurd}),
    ]
    async with OpenAIServer() as server, opened(server.base_url) as target:
        server.script(CHAT, stream_reply(*pieces, delta("length"), DONE))
        record = await ask(target)
    assert (record.status, record.completion_tokens, record.token_source) == ("ok", 2, "chunks")
    assert (record.prompt_tokens, record.server_ms, list(record.chunk_tokens)) == (None, {}, [])


async def test_half_a_character_that_a_server_says_of_itself_or_of_an_error_costs_no_report() -> None:
    async with OpenAIServer() as server, opened(server.base_url) as target:
        server.script(CHAT, stream_reply(event(choices=[{"delta": {"content": "a"}, "finish_reason": HALF}]), DONE))
        odd_reason = await ask(target)
        server.script(CHAT, json_reply({"error": {"message": HALF}}, status=400))
        refused = await ask(target)
    async with OllamaServer() as ollama, opened(ollama.origin) as target:
        ollama.script("/api/version", json_reply({"version": HALF}))
        about = await target.describe()
    assert refused.error
    assert "half \N{REPLACEMENT CHARACTER} of one" in refused.error
    data = RunData(plan=Plan(arms=[Arm(name="a")]), run_id="odd", records=[odd_reason, refused])
    data.provenance = {"targets": {"a": {"before": about}}}
    assert isinstance(decode(encode(Reported(analyse(data), "complete"))), Reported)
