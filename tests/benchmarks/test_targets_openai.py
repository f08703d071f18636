"""What is seen of a server that speaks OpenAI's API, over a real socket."""

from __future__ import annotations

import hashlib

import pytest

from ai_lab.benchmarks.targets import Question
from ai_lab.errors import ModelNotFound, ProviderAuthFailed
from tests.benchmarks.asking import NS_PER_MS, ask, escaped, gaps_ms, opened, owned_by, stamps_in_order, written
from tests.fakes.http_server import ReceivedRequest, Reply, json_reply
from tests.fakes.openai_server import CHAT, DONE, OpenAIServer, delta, event, stream_reply, text_reply, usage

KEY = "sk-test-0123456789abcdef"
MODELS = "/v1/models"


async def test_a_whole_answer_is_recorded_with_all_its_stamps() -> None:
    async with OpenAIServer() as server, opened(server.base_url) as target:
        server.script(
            CHAT,
            stream_reply(
                delta(role="assistant", content=None),
                0.03,
                delta(reasoning_content="Hm. "),
                0.03,
                delta(content="Zürich"),
                0.03,
                delta(content=" 🎉"),
                delta("length"),
                usage(7, 3, prompt_tokens_details={"cached_tokens": 5}),
                DONE,
            ),
        )
        record = await ask(target, tokens=3, seed=11)

    assert record.status == "ok"
    assert record.notes == []
    assert record.http_status == 200
    assert stamps_in_order(record) == sorted(stamps_in_order(record))
    assert len(record.chunk_ns) == 3  # the role is no token
    assert record.first_token_ns == record.chunk_ns[0]
    assert record.first_answer_ns == record.chunk_ns[1]
    assert record.last_token_ns == record.chunk_ns[2]
    assert record.sent_ns
    assert (record.first_token_ns - record.sent_ns) / NS_PER_MS >= 30
    assert min(gaps_ms(record.chunk_ns)) >= 25
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (7, 3, 5)
    assert (record.token_source, record.finish_reason) == ("server", "length")
    assert record.output_sha256 == hashlib.sha256("Hm. Zürich 🎉".encode()).hexdigest()
    assert record.output_characters == len("Hm. Zürich 🎉")
    assert record.raw_timings == {
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 5}}
    }
    assert server.received(CHAT)[0].json() == {
        "model": "tiny",
        "stream": True,
        "messages": [{"role": "user", "content": "Hi"}],
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "seed": 11,
        "max_tokens": 3,
    }


async def test_pieces_of_one_read_share_a_stamp_and_a_cut_line_has_that_of_its_end() -> None:
    later = delta(content="c")
    async with OpenAIServer() as server, opened(server.base_url) as target:
        server.script(
            CHAT,
            stream_reply(
                delta(content="a") + delta(content="b") + later[:20], 0.05, later[20:], delta("stop"), usage(1, 3), DONE
            ),
        )
        record = await ask(target, tokens=3)

    assert gaps_ms(record.chunk_ns)[0] == 0
    assert gaps_ms(record.chunk_ns)[1] >= 45


async def test_timings_of_llama_server_are_kept_and_every_request_has_a_connection_of_its_own() -> None:
    timings = {"cache_n": 4, "prompt_n": 3, "prompt_ms": 12.5, "predicted_n": 2, "predicted_ms": 20.25}
    last = event({"choices": [], "timings": timings})
    async with OpenAIServer() as server:
        server.script(MODELS, owned_by("llamacpp"))
        server.script(CHAT, stream_reply(delta(content="a"), delta(content="b"), delta("length"), last, DONE))
        async with opened(server.origin) as target:
            before = server.connection_count
            records = [await ask(target) for _ in range(3)]
        assert server.connection_count == before + 3
        assert server.received(CHAT)[0].json()["ignore_eos"] is True

    assert [record.connection_reused for record in records] == [False] * 3
    assert records[0].server_ms == {"prompt_ms": 12.5, "decode_ms": 20.25}
    assert records[0].raw_timings == {"timings": timings}
    assert (records[0].prompt_tokens, records[0].cached_tokens, records[0].completion_tokens) == (7, 4, 2)


async def test_options_of_the_arm_win_over_ours() -> None:
    options = {"temperature": 0.7, "max_completion_tokens": 9, "top_k": 3}
    async with OpenAIServer() as server, opened(server.base_url, options=options) as target:
        await ask(target, seed=1, options={"seed": 5})
        body = server.received(CHAT)[0].json()
    assert {name: body.get(name) for name in ("temperature", "max_completion_tokens", "top_k", "seed")} == {
        **options,
        "seed": 5,
    }
    assert "max_tokens" not in body


@pytest.mark.parametrize(
    ("reply", "status", "code", "said"),
    [
        (stream_reply(DONE), "error", "provider_error", "sent no text"),
        (stream_reply(), "aborted", "provider_stream_broken", "end marker"),
        (stream_reply(delta(content="a")), "aborted", "provider_stream_broken", "end marker"),
        (stream_reply(delta(content="a"), ending="cut"), "aborted", "provider_stream_broken", "connection was lost"),
        (stream_reply(ending="cut"), "aborted", "provider_stream_broken", "connection was lost"),
        (stream_reply(delta(content="a"), ending="hang"), "timeout", "provider_timeout", "silent for 0.2 s"),
        (
            stream_reply(delta(content="a"), event({"error": {"message": "GPU on fire", "code": 500}})),
            "error",
            "provider_error",
            "GPU on fire",
        ),
        (stream_reply(delta(content="a"), delta("error")), "error", "provider_error", "gave up"),
        (stream_reply(delta(content="a"), b"data: {oops\n\n"), "error", "provider_stream_broken", "no JSON object"),
        (stream_reply(b'data: {"choices":[3]}\n\n'), "error", "provider_stream_broken", "not in the shape"),
        (json_reply({"error": {"message": "no such thing"}}, status=500), "error", "provider_error", "no such thing"),
        (json_reply({"error": "slow down"}, status=429), "error", "provider_rate_limited", "slow down"),
        (Reply(status=302, headers={"location": "http://x.invalid/"}), "error", "provider_error", "redirects to"),
    ],
)
async def test_what_goes_wrong_is_told_by_status_and_error(reply: Reply, status: str, code: str, said: str) -> None:
    async with OpenAIServer() as server, opened(server.base_url, timeout_seconds=0.2) as target:
        server.script(CHAT, reply)
        record = await ask(target)
        server.script(CHAT, text_reply("a", "b"))
        assert (await ask(target)).status == "ok"  # the next one is not hurt

    assert (record.status, record.error_code) == (status, code)
    assert said in (record.error or "")
    assert record.end_ns
    assert len(record.chunk_ns) == sum(b'"content": "a"' in part for part in written(reply))
    assert record.completion_tokens == (len(record.chunk_ns) or None)


@pytest.mark.parametrize(
    ("reply", "tokens", "status", "counted", "notes"),
    [
        (stream_reply(delta(content="a"), delta("stop"), usage(1, 1), DONE), 5, "short", (1, "server"), []),
        (stream_reply(delta(content="a"), delta("stop"), usage(1, 1)), 1, "ok", (1, "server"), []),
        (stream_reply(delta(content="a"), DONE), 1, "ok", (1, "chunks"), ["no usage"]),
        (stream_reply(delta(content="a b c"), delta("length"), DONE), 3, "ok", (1, "chunks"), ["no usage"]),
        (stream_reply(delta(content="a"), delta("stop"), DONE), 3, "short", (1, "chunks"), ["no usage"]),
        (
            stream_reply(delta(content="a"), delta(content="b"), delta("length"), usage(1, 1), DONE),
            2,
            "ok",
            (1, "server"),
            ["usage disagrees with chunks"],
        ),
        (stream_reply(delta(content="a b"), delta("length"), usage(1, 2), DONE), 2, "ok", (2, "server"), []),
        (
            stream_reply(escaped("\ud83d"), delta("stop"), usage(1, 1), DONE),
            1,
            "ok",
            (1, "server"),
            ["half a character in the answer"],
        ),
        (
            stream_reply(escaped("\ud83c"), escaped("\udf89"), delta("stop"), usage(1, 2), DONE),
            2,
            "ok",
            (2, "server"),
            [],
        ),
        (
            stream_reply(delta("stop", content="a"), usage(1, 1), ending="cut"),
            1,
            "ok",
            (1, "server"),
            ["the connection was lost after the end of the answer"],
        ),
        (
            json_reply({"choices": [{"message": {"content": "ab"}, "finish_reason": "stop"}]}),
            1,
            "ok",
            (1, "chunks"),
            ["no usage", "the server did not stream"],
        ),
    ],
)
async def test_counts_and_oddities_are_told(
    reply: Reply, tokens: int, status: str, counted: tuple[int, str], notes: list[str]
) -> None:
    async with OpenAIServer() as server, opened(server.base_url) as target:
        server.script(CHAT, reply)
        record = await ask(target, tokens=tokens)
    assert (record.status, (record.completion_tokens, record.token_source)) == (status, counted)
    assert sorted(record.notes) == notes


async def test_a_shorter_answer_is_fine_where_its_length_is_not_forced() -> None:
    async with OpenAIServer() as server, opened(server.base_url) as target:
        assert (await ask(target, tokens=50, force_output_length=False)).status == "ok"
        assert (await ask(target, tokens=50)).status == "short"


async def test_a_character_cut_by_a_read_is_whole_and_one_cut_by_the_end_is_noted() -> None:
    whole = delta(content="ü")
    cut = whole.index("ü".encode()) + 1
    async with OpenAIServer() as server, opened(server.base_url) as target:
        server.script(CHAT, stream_reply(whole[:cut], 0.02, whole[cut:], delta("stop"), usage(1, 1), DONE))
        joined = await ask(target, tokens=1)
        server.script(CHAT, stream_reply(delta(content="a"), whole[:cut]))
        left = await ask(target, tokens=1)

    assert (joined.status, joined.notes) == ("ok", [])
    assert joined.output_sha256 == hashlib.sha256("ü".encode()).hexdigest()
    assert (left.status, len(left.chunk_ns)) == ("aborted", 1)
    assert left.notes == ["bytes that are no UTF-8", "the stream ended within a line"]


async def test_tokens_of_each_chunk_are_kept_where_the_server_counts_them() -> None:
    def counted(text: str, total: int) -> bytes:
        return event({"choices": [{"delta": {"content": text}}], "usage": {"completion_tokens": total}})

    def identified(text: str, *ids: int) -> bytes:
        return event({"choices": [{"delta": {"content": text}, "token_ids": ids}]})

    end = (delta("length"), usage(3, 6), DONE)
    async with OpenAIServer() as server, opened(server.base_url) as target:
        server.script(CHAT, stream_reply(counted("a b", 2), counted("c", 3), counted("d e f", 6), *end))
        assert (await ask(target, tokens=6)).chunk_tokens.tolist() == [2, 1, 3]
        server.script(CHAT, stream_reply(identified("a b", 5, 6), identified("c", 7), *end))
        assert (await ask(target, tokens=6)).chunk_tokens.tolist() == [2, 1]
        server.script(CHAT, stream_reply(counted("a b", 2), delta(content="c"), *end))
        assert (await ask(target, tokens=6)).chunk_tokens.tolist() == []  # a part of them says nothing


class _PickyServer(OpenAIServer):
    """Refuses fields one at a time, in the words of known servers."""

    texts = (
        ("max_tokens", "Unsupported parameter: 'max_tokens' is not supported with this model."),
        ("ignore_eos", "property 'ignore_eos' is unsupported"),
        ("temperature", "Unsupported value: 'temperature' does not support 0 with this model."),
    )

    def default_reply(self, request: ReceivedRequest) -> Reply:
        if request.path == CHAT:
            for name, text in self.texts:
                if name in request.json():
                    return json_reply({"error": {"message": text}}, status=400)
        return super().default_reply(request)


async def test_fields_that_a_server_refuses_are_left_out_once_and_for_all() -> None:
    server = _PickyServer()
    async with server:
        server.script(MODELS, owned_by("vllm"))
        async with opened(server.base_url) as target:
            first = await ask(target)
            asked = len(server.received(CHAT))
            second = await ask(target)
            assert asked == 4
            assert len(server.received(CHAT)) == asked + 1
            about = await target.describe()
        last = server.received(CHAT)[-1].json()

    assert (first.status, second.status) == ("ok", "ok")
    assert {"max_tokens", "ignore_eos", "temperature"}.isdisjoint(last)
    assert last["max_completion_tokens"] == 2
    assert first.notes == second.notes
    assert len(first.notes) == 3
    assert about["left_out"] == ["ignore_eos", "max_tokens", "temperature"]
    assert first.sent_ns
    assert first.first_token_ns
    assert first.first_token_ns - first.sent_ns < 1000 * NS_PER_MS


async def test_a_field_that_the_arm_gave_is_not_left_out() -> None:
    server = _PickyServer()
    async with server, opened(server.base_url, options={"temperature": 0}) as target:
        record = await ask(target)
    assert (record.status, record.http_status, record.error_code) == ("error", 400, "unsupported_feature")


async def test_a_refusal_that_is_about_something_else_leaves_all_fields() -> None:
    text = "This model's maximum context length is 100 tokens. However, your max_tokens is 500."
    async with OpenAIServer() as server, opened(server.base_url) as target:
        server.script(CHAT, json_reply({"error": {"message": text}}, status=400))
        record = await ask(target)
    assert (record.error_code, len(server.received(CHAT))) == ("context_length_exceeded", 1)


async def test_completions_are_asked_for_text_itself() -> None:
    end = event({"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 1}})
    pieces = (event({"choices": [{"text": "a", "finish_reason": "length"}]}), end, DONE)
    async with OpenAIServer() as server, opened(server.base_url, endpoint="generate") as target:
        server.script("/v1/completions", stream_reply(*pieces))
        record = await ask(target, "Once upon", tokens=1)
        assert server.received("/v1/completions")[0].json()["prompt"] == "Once upon"
    assert (record.status, record.completion_tokens) == ("ok", 1)


async def test_an_unknown_model_is_told_with_those_that_there_are() -> None:
    async with OpenAIServer() as server:
        with pytest.raises(ModelNotFound, match=r"no model 'tini'. Did you mean tiny\? It has: tiny\."):
            async with opened(server.base_url, model="tini"):
                pass


async def test_the_length_of_a_prompt_comes_from_a_request_for_one_token() -> None:
    async with OpenAIServer() as server, opened(server.base_url) as target:
        server.script(CHAT, stream_reply(delta("length"), usage(123, 1), DONE))
        assert await target.prompt_tokens("Hi") == 123
        assert server.received(CHAT)[0].json()["max_tokens"] == 1
        server.script(CHAT, stream_reply(delta(content="a"), delta("length"), DONE))
        assert await target.prompt_tokens("Hi") is None
        server.script(CHAT, json_reply({"error": {"message": "key"}}, status=401))
        with pytest.raises(ProviderAuthFailed):
            await target.prompt_tokens("Hi")


def test_an_answer_is_far_too_long_by_the_length_that_was_asked_for() -> None:
    question = Question("Hi", output_tokens=10)
    assert question.most_chunks(None) == question.most_chunks("?") == 8 * 10 + 256
    assert question.most_chunks(1000) == 8 * 1000 + 256
    assert question.most_chunks(-1) > 100_000  # Ollama's word for no limit


async def test_an_answer_may_take_any_time_while_its_text_comes() -> None:
    pieces = [one for at in range(24) for one in (delta(content=f"{at} "), 0.1)]
    async with OpenAIServer() as server:
        server.script(CHAT, stream_reply(*pieces, delta("stop"), usage(7, 24), DONE))
        async with opened(server.base_url, timeout_seconds=0.4) as target:  # five of them are 2 s
            record = await ask(target, tokens=24)
    assert (record.status, record.error, len(record.chunk_ns)) == ("ok", None, 24)
