"""The calibrated server does what it is told to, as seen by a plain socket."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.benchmarks.calibrated_raw import Raw
from tests.benchmarks.calibrated_server import MODEL, CalibratedServer

ROOT = Path(__file__).resolve().parents[2]
NS_PER_MS = 1_000_000
#: How late a write may be on a machine that has much else to do.
LATE_MS = 30.0


def generate(server: CalibratedServer, prompt: str = "one two three", tokens: int = 4, **body: Any) -> Raw:
    options = {"num_predict": tokens}
    return Raw(server, "/api/generate", {"model": MODEL, "prompt": prompt, "options": options, **body})


def complete(server: CalibratedServer, prompt: str = "one two three", tokens: int = 4, **body: Any) -> Raw:
    messages = [{"role": "user", "content": prompt}]
    asked = {"model": MODEL, "messages": messages, "max_tokens": tokens, "stream": True, **body}
    return Raw(server, "/v1/chat/completions", asked)


def get(server: CalibratedServer, path: str, body: dict[str, Any] | None = None) -> Any:
    data = json.dumps(body).encode() if body is not None else None
    with urllib.request.urlopen(server.url + path, data, timeout=5) as answer:  # noqa: S310 - our own address
        return json.load(answer)


def test_each_write_is_due_at_an_absolute_time_after_the_arrival(server: CalibratedServer) -> None:
    server.configure(ttft_ms=30, prefill_ms=2, gap_ms=4)
    generate(server, "a b c d e f", tokens=40)
    [entry] = server.log()
    due_ms = [(due - entry.arrival_ns) / NS_PER_MS for due in entry.due_ns]
    load_ms = 0.05  # of a model that is there already
    assert due_ms == pytest.approx([load_ms + 30 + 2 * (6 + 4) + 4 * at for at in range(40)], abs=1e-3)
    late_ms = [(before - due) / NS_PER_MS for before, due in zip(entry.before_ns, entry.due_ns, strict=True)]
    assert min(late_ms) >= 0
    assert late_ms[-1] < LATE_MS  # relative sleeps would have added up
    assert all(before < after for before, after in zip(entry.before_ns, entry.after_ns, strict=True))


def test_a_reader_sees_a_write_after_its_stamp_and_before_long(server: CalibratedServer) -> None:
    before_ns = time.perf_counter_ns()
    generate(server)
    [entry] = server.log()
    assert before_ns < entry.arrival_ns < entry.before_ns[0] < entry.before_ns[-1] < time.perf_counter_ns()


def test_what_it_reports_is_what_it_wrote(server: CalibratedServer) -> None:
    last = generate(server, "a b c", tokens=10).lines()[-1]
    [entry] = server.log()
    assert (last["prompt_eval_count"], last["eval_count"], last["done_reason"]) == (7, 10, "length")
    assert last["eval_duration"] == entry.before_ns[-1] - entry.before_ns[0]
    assert last["prompt_eval_duration"] == pytest.approx(entry.before_ns[0] - entry.start_ns, abs=100_000)


def test_chunks_of_many_tokens_are_written_with_their_last_one(server: CalibratedServer) -> None:
    server.configure(first_chunk_tokens=4, chunk_tokens=8, gap_ms=2)
    lines = generate(server, tokens=21).lines()
    assert [len(line["response"].split()) for line in lines] == [4, 8, 8, 1, 0]
    [entry] = server.log()
    assert entry.tokens == [4, 8, 8, 1]
    due_ms = [(due - entry.arrival_ns) / NS_PER_MS for due in entry.due_ns]
    assert due_ms == pytest.approx([20.05 - 0.05 + at * 2 for at in (3, 11, 19, 20)], abs=0.1)
    written_ns = entry.before_ns[-1] - entry.before_ns[0]
    assert lines[-1]["eval_duration"] == pytest.approx(written_ns + 3 * 2 * NS_PER_MS)  # from token 1 on


def test_gaps_are_as_the_distribution_says(server: CalibratedServer) -> None:
    server.configure(gap_ms=1, gap_sigma=1, ttft_ms=0)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: generate(server, tokens=200), range(8)))
    gaps = [later - earlier for one in server.log() for earlier, later in itertools.pairwise(one.due_ns)]
    assert sum(gaps) / len(gaps) == pytest.approx(1 * NS_PER_MS, rel=0.15)
    assert sorted(gaps)[len(gaps) // 2] == pytest.approx(NS_PER_MS * 2.718281828**-0.5, rel=0.15)
    server.configure(gap_ms=5, gap_sigma=0, gap_jitter_ms=2)
    generate(server, tokens=50)
    due_ns = server.log()[-1].due_ns
    jittered = [(later - earlier) / NS_PER_MS for earlier, later in itertools.pairwise(due_ns)]
    assert min(jittered) >= 2.999
    assert max(jittered) <= 7.001
    assert max(jittered) - min(jittered) > 2


def test_one_slot_serves_one_after_the_other(server: CalibratedServer) -> None:
    server.configure(slots=1, ttft_ms=20, gap_ms=5)
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda _: generate(server, tokens=5), range(3)))
    first, second, third = server.log()
    assert first.start_ns == first.arrival_ns
    service_ns = (20 + 4 * 5) * NS_PER_MS
    assert second.start_ns - first.start_ns == pytest.approx(service_ns, abs=100_000)
    assert third.start_ns - second.start_ns == pytest.approx(service_ns, abs=100_000)


@pytest.mark.parametrize("flavour", ["ollama", "llama-server"])
def test_the_longest_common_prefix_is_cached(server: CalibratedServer, flavour: str) -> None:
    server.configure(flavour=flavour, template_head_tokens=2)
    ask = generate if flavour == "ollama" else complete
    for prompt in ("one two three", "one two four", "other words", "one two three"):
        last = ask(server, prompt)
    assert [entry.prompt_tokens for entry in server.log()] == [9, 9, 8, 9]
    assert [entry.cached_tokens for entry in server.log()] == [0, 4, 2, 8]  # one is always evaluated
    if flavour == "llama-server":
        timings = last.events()[-1]["timings"]
        assert (timings["cache_n"], timings["prompt_n"]) == (8, 1)
    else:
        assert last.lines()[-1]["prompt_eval_count"] == 9  # cached ones included, and not told apart
    server.configure(caches_prompts=False)
    ask(server)
    assert server.log()[-1].cached_tokens == 0


def test_only_uncached_tokens_take_time(server: CalibratedServer) -> None:
    server.configure(prefill_ms=10, ttft_ms=5)
    for _ in range(2):
        generate(server, "a b c d e f", tokens=1)
    waits = [(entry.due_ns[0] - entry.arrival_ns) / NS_PER_MS for entry in server.log()]
    assert waits == pytest.approx([105, 15], abs=0.1)


def test_openai_streams_events_with_usage(server: CalibratedServer) -> None:
    server.configure(flavour="openai", role_ms=1)
    events = complete(server, stream_options={"include_usage": True}).events()
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert [event["choices"][0]["delta"] for event in events[1:5]] == [
        {"content": text} for text in ("amber", " heath", " cedar", " juniper")
    ]
    assert events[5]["choices"][0]["finish_reason"] == "length"
    assert events[6]["choices"] == []
    assert events[6]["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 4,
        "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert all("usage" not in event for event in complete(server).events())
    in_chunks = complete(server, stream_options={"include_usage": True, "continuous_usage_stats": True}).events()
    assert [event["usage"]["completion_tokens"] for event in in_chunks[1:5]] == [1, 2, 3, 4]
    [text, *_] = Raw(server, "/v1/completions", {"model": MODEL, "prompt": "a b", "stream": True}).events()
    assert text["choices"][0]["text"] == "amber"
    assert server.log()[-1].prompt_tokens == 2  # no template


def test_llama_server_tells_its_timings_and_keeps_no_connection(server: CalibratedServer) -> None:
    server.configure(flavour="llama-server", gap_ms=5)
    raw = complete(server, timings_per_token=True)
    events = raw.events()
    assert b"Server: llama.cpp\r\n" in raw.received
    assert [event["timings"]["predicted_n"] for event in events] == [1, 2, 3, 4, 4]
    [entry] = server.log()
    last = events[-1]["timings"]
    assert last["predicted_ms"] == (entry.before_ns[-1] - entry.before_ns[0]) / NS_PER_MS
    assert events[0]["timings"]["predicted_ms"] == 0
    assert [event["timings"]["predicted_ms"] for event in events[1:4]] == pytest.approx([5, 10, 15], abs=LATE_MS)
    assert get(server, "/props")["total_slots"] == 1
    assert get(server, "/health") == {"status": "ok"}
    assert get(server, "/v1/chat/completions/input_tokens", {"messages": [{"content": "a b"}]}) == {"input_tokens": 6}


def test_reasoning_comes_first_and_apart(server: CalibratedServer) -> None:
    server.configure(reasoning_tokens=2, chunk_tokens=3)
    lines = generate(server, tokens=6).lines()
    said = [(line.get("thinking"), line["response"]) for line in lines[:-1]]
    assert said == [("amber", ""), (" heath", ""), (None, " cedar juniper elm"), (None, " lake")]
    assert server.log()[0].reasoning == [True, True, False, False]
    server.configure(flavour="openai")
    deltas = [event["choices"][0]["delta"] for event in complete(server).events()]
    assert deltas == [
        {"reasoning_content": "amber"},
        {"reasoning_content": " heath"},
        {"content": " cedar juniper"},
        {},
    ]


def test_lengths_are_as_asked_or_natural(server: CalibratedServer) -> None:
    server.configure(natural_tokens=2)
    last = generate(server, tokens=9, ignore_eos=True).lines()[-1]
    assert (last["eval_count"], last["done_reason"]) == (2, "stop")  # Ollama has no such option
    server.configure(flavour="openai")
    finish = [complete(server, tokens=9, ignore_eos=wanted).events()[-1]["choices"][0] for wanted in (True, False)]
    assert [choice["finish_reason"] for choice in finish] == ["length", "stop"]
    assert [sum(entry.tokens) for entry in server.log()] == [2, 9, 2]
    server.configure(honours_ignore_eos=False)
    assert complete(server, tokens=9, ignore_eos=True).events()[-1]["choices"][0]["finish_reason"] == "stop"


def test_counts_can_be_missing_or_wrong(server: CalibratedServer) -> None:
    server.configure(counts_off_by=-2)
    assert generate(server, tokens=9).lines()[-1]["eval_count"] == 7
    server.configure(reports_usage=False)
    assert "eval_count" not in generate(server).lines()[-1]


def test_a_character_can_be_split_over_writes_or_cut_off(server: CalibratedServer) -> None:
    server.configure(split_character="between")
    texts = [line["response"] for line in generate(server).lines()]
    assert texts == ["amber", " caf\u00e9", " cedar", " caf\u00e9", ""]
    assert b"caf\xc3\r\n" in generate(server).received
    server.configure(split_character="end")
    assert b' juniper\xc3"' in generate(server).body


def test_faults(server: CalibratedServer) -> None:
    def ask(fault: str, **more: Any) -> Raw:
        server.configure(fault=fault, fault_after=2, **more)
        return generate(server)

    refused = ask("http", http_status=429)
    assert (refused.status, refused.received.rpartition(b"\r\n")[2]) == (429, b'{"error":"refused, as it was told"}')
    assert [sorted(line) for line in ask("stream_error").lines()][2] == ["error"]
    assert [line["done"] for line in ask("unfinished").lines()] == [False] * 3
    assert [(raw.ending, len(raw.lines())) for raw in (ask("reset"), ask("cut"))] == [("reset", 2), ("closed", 2)]
    assert [line["done"] for line in ask("no_tokens").lines()] == [True]
    assert (ask("empty_body").status, ask("empty_body").body) == (200, b"")
    assert ask("garbage").body.endswith(b"{no json\n\n")
    assert ask("none").lines()[-1]["done"]
    endings = [entry.ending for entry in server.log()]
    assert endings == [
        "stream_error", "unfinished", "reset", "cut", "no_tokens", "empty_body", "empty_body", "garbage", "complete",
    ]  # fmt: skip
    server.configure(fault="unfinished", fault_every=2)
    assert [generate(server).lines()[-1]["done"] for _ in range(4)] == [True, False, True, False]
    server.configure(flavour="openai", fault="stream_error", fault_every=1)
    assert b'data: {"error":{"message"' in complete(server).body


def test_silence_lasts_until_the_client_goes(server: CalibratedServer) -> None:
    server.configure(fault="silence", fault_after=2)
    raw = Raw(server, "/api/generate", {"model": MODEL, "prompt": "a"}, wait_seconds=0.2)
    assert raw.ending == "silent"
    assert raw.received.count(b'"done":false') == 2
    assert server.log()[0].ending == "silence"
    server.configure(fault="none", ttft_ms=500)
    assert Raw(server, "/api/generate", {"model": MODEL, "prompt": "a"}, wait_seconds=0.1).ending == "silent"
    time.sleep(0.05)
    assert server.log()[1].ending == "client left"


def test_models_are_loaded_and_unloaded(server: CalibratedServer) -> None:
    server.configure(load_ms=50)
    assert [model["model"] for model in get(server, "/api/ps")["models"]] == [MODEL]
    unloaded = get(server, "/api/generate", {"model": MODEL, "keep_alive": 0})
    assert (unloaded["done"], unloaded["done_reason"]) == (True, "unload")
    assert get(server, "/api/ps") == {"models": []}
    began = time.perf_counter()
    assert get(server, "/api/chat", {"model": MODEL, "messages": []})["done_reason"] == "load"
    assert time.perf_counter() - began >= 0.05
    server.evict()
    lines = [generate(server).lines()[-1] for _ in range(2)]
    assert [line["load_duration"] for line in lines] == [50 * NS_PER_MS, 50_000]
    assert [line["prompt_eval_duration"] / NS_PER_MS for line in lines] == pytest.approx([20, 20], abs=LATE_MS)
    first, second = server.log()
    assert first.due_ns[0] - first.arrival_ns == pytest.approx(70 * NS_PER_MS)
    generate(server, keep_alive=0)
    assert get(server, "/api/ps") == {"models": []}
    assert second.cached_tokens > 0  # an unloaded model has forgotten its cache
    generate(server)
    assert server.log()[-1].cached_tokens == 0
    server.configure(evict_after=2)
    loads = [generate(server).lines()[-1]["load_duration"] for _ in range(4)]
    assert [load > NS_PER_MS for load in loads] == [False, False, True, False]


def test_models_can_differ_and_change(server: CalibratedServer) -> None:
    server.configure(models={MODEL: 1.0, "slow": 1.5}, gap_ms=4)
    generate(server)
    Raw(server, "/api/generate", {"model": "slow", "prompt": "a", "options": {"num_predict": 4}})
    spans = [(entry.due_ns[-1] - entry.start_ns) / NS_PER_MS for entry in server.log()]
    assert spans == pytest.approx([32, 48], abs=0.2)
    assert generate(server, model="unknown").status == 404
    server.configure(digest="feed", version="10")
    assert {model["digest"] for model in get(server, "/api/tags")["models"]} == {"feed"}
    assert get(server, "/api/version") == {"version": "10"}
    with pytest.raises(urllib.error.HTTPError, match="400"):
        server.configure(no_such_setting=1)


def test_an_answer_can_come_whole(server: CalibratedServer) -> None:
    whole = get(
        server, "/api/generate", {"model": MODEL, "prompt": "a b", "stream": False, "options": {"num_predict": 2}}
    )
    assert (whole["response"], whole["prompt_eval_count"], whole["eval_count"]) == ("amber heath", 6, 2)
    server.configure(flavour="openai")
    body = {"model": MODEL, "messages": [{"role": "user", "content": "a b"}], "max_tokens": 2}
    whole = get(server, "/v1/chat/completions", body)
    assert whole["choices"][0]["message"]["content"] == "amber heath"
    assert whole["usage"]["completion_tokens"] == 2


def test_it_leaves_nothing_behind_even_if_its_parent_is_killed() -> None:
    with CalibratedServer() as server:
        process = psutil.Process(server.pid)
    assert not process.is_running()
    program = (
        "from tests.benchmarks.calibrated_server import *; s = CalibratedServer().__enter__(); print(s.pid); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout
        orphan = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    orphan.wait(timeout=60)
    assert not orphan.is_running()
