"""What goes wrong at a calibrated server, and what our client's record says of it."""

from __future__ import annotations

import asyncio

import pytest

from ai_lab.benchmarks.targets import Question
from tests.benchmarks.calibrated_server import CalibratedServer, Flavour
from tests.benchmarks.calibrated_truth import ask, new_record, opened

FLAVOURS: list[Flavour] = ["ollama", "openai", "llama-server"]
#: Fault, status, chunks that came, and a part of what is said about it.
FAULTS = [
    ("http", "error", 0),
    ("stream_error", "error", 3),
    ("unfinished", "aborted", 3),
    ("reset", "aborted", 3),
    ("cut", "aborted", 3),
    ("silence", "timeout", 3),
    ("no_tokens", "error", 0),
    ("empty_body", "aborted", 0),
]


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize(("fault", "status", "chunks"), FAULTS)
async def test_each_fault_is_told_and_what_came_before_it_is_kept(
    server: CalibratedServer, flavour: Flavour, fault: str, status: str, chunks: int
) -> None:
    async with opened(server, flavour, timeout_seconds=0.3) as target:
        server.configure(fault=fault)
        record = await ask(target)
        assert (record.status, len(record.chunk_ns)) == (status, chunks)
        assert record.error
        assert record.error_code
        assert record.sent_ns is not None
        assert record.end_ns is not None
        assert record.end_ns >= max(record.chunk_ns, default=0)
        assert record.http_status == (500 if fault == "http" else 200)
        if chunks:
            [written] = server.log()
            assert all(at >= before for at, before in zip(record.chunk_ns, written.before_ns, strict=True))
        server.configure(fault="none")
        assert (await ask(target)).status == "ok"


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize(
    ("http_status", "code"),
    [(401, "provider_auth_failed"), (429, "provider_rate_limited"), (503, "provider_unavailable")],
)
async def test_a_refusal_has_the_code_that_it_has_everywhere(
    server: CalibratedServer, flavour: Flavour, http_status: int, code: str
) -> None:
    async with opened(server, flavour) as target:
        server.configure(fault="http", http_status=http_status)
        record = await ask(target)
    assert (record.status, record.http_status, record.error_code) == ("error", http_status, code)


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_a_server_that_never_says_anything_is_given_up(server: CalibratedServer, flavour: Flavour) -> None:
    async with opened(server, flavour, timeout_seconds=0.2) as target:
        server.configure(fault="silence", fault_after=0)
        record = await ask(target)
    assert (record.status, record.first_byte_ns, record.first_token_ns) == ("timeout", None, None)


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_one_who_is_cancelled_keeps_what_came_and_leaves_the_server(
    server: CalibratedServer, flavour: Flavour
) -> None:
    server.configure(ttft_ms=20, gap_ms=20)
    async with opened(server, flavour) as target:
        record = new_record("a tale")
        asking = asyncio.create_task(target.ask(Question(prompt="a tale", output_tokens=500), record))
        for _ in range(400):
            if len(record.chunk_ns) >= 3:
                break
            await asyncio.sleep(0.005)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert record.status == "cancelled"
        assert 3 <= len(record.chunk_ns) < 100
        for _ in range(100):
            if server.log()[0].ending:
                break
            await asyncio.sleep(0.02)
    assert server.log()[0].ending == "client left"


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_a_line_that_is_no_json_ends_the_answer(server: CalibratedServer, flavour: Flavour) -> None:
    async with opened(server, flavour) as target:
        server.configure(fault="garbage")
        record = await ask(target)
    assert record.status in {"error", "aborted"}
    assert len(record.chunk_ns) == 3
