"""A provider of AI Lab as a target: what is measured of it, and that it says how."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ai_lab.benchmarks.targets import Question
from ai_lab.errors import ProviderUnavailable
from tests.benchmarks.asking import ask, empty_record, opened, until

NOTE = "stamped where the provider hands chunks over, not at the socket"


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[None]:
    """Install a package that brings providers."""
    package = tmp_path / "odd-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n", encoding="utf-8")
    made = "tests.benchmarks.odd_provider:make"
    (package / "entry_points.txt").write_text(f"[ai_lab.providers]\nodd = {made}\nill = {made}_ill\n", encoding="utf-8")
    sys.path.insert(0, str(tmp_path))
    yield
    sys.path.remove(str(tmp_path))


async def test_echo_is_asked() -> None:
    async with opened(protocol="provider", provider="echo", model="echo") as target:
        record = await ask(target, "one two three four", tokens=3)
        short = await ask(target, "one two", tokens=3)
        assert await target.prompt_tokens("one two") == 2
        assert await target.cold_load() is None
        assert target.process_ids() == []
        assert target.is_local
        assert await target.describe() == {"server": "provider echo", "model": "echo", "size_bytes": 0}
    assert (record.status, record.completion_tokens, record.finish_reason) == ("ok", 3, "length")
    assert NOTE in record.notes
    assert short.status == "short"


@pytest.mark.usefixtures("installed")
async def test_an_answer_of_an_installed_provider_is_recorded() -> None:
    async with opened(protocol="provider", provider="odd", model="fine") as target:
        record = await ask(target, seed=3)
        about = await target.describe()
    assert record.status == "ok"
    assert record.notes == [NOTE]
    stamps = [stamp for stamp in (record.sent_ns, *record.chunk_ns, record.end_ns) if stamp]
    assert stamps == sorted(stamps)
    assert record.chunk_ns[1] - record.chunk_ns[0] >= 29_000_000
    assert (record.first_token_ns, record.first_answer_ns) == tuple(record.chunk_ns)
    assert record.server_ms == {"load_ms": 1.5, "prompt_ms": 2.5, "decode_ms": 30.0}
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (5, 2, 4)
    assert about == {"server": "provider odd", "model": "fine", "size_bytes": 77, "context_tokens": 99}


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("broken", "aborted", "provider_stream_broken"),
        ("endless", "aborted", "provider_stream_broken"),
        ("failing", "error", "provider_error"),
        ("silent", "timeout", "provider_timeout"),
    ],
)
async def test_what_goes_wrong_is_told(model: str, status: str, code: str) -> None:
    async with opened(protocol="provider", provider="odd", model=model, timeout_seconds=0.2) as target:
        record = await ask(target)
    assert (record.status, record.error_code) == (status, code)
    assert len(record.chunk_ns) == 2
    assert record.end_ns


@pytest.mark.usefixtures("installed")
async def test_a_cancelled_request_says_so() -> None:
    async with opened(protocol="provider", provider="odd", model="silent") as target:
        record = empty_record()
        asking = asyncio.create_task(target.ask(Question("Hi", 2), record))
        await until(lambda: len(record.chunk_ns) == 2)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert record.status == "cancelled"


@pytest.mark.usefixtures("installed")
async def test_a_provider_that_does_not_answer_is_told_with_the_remedy() -> None:
    with pytest.raises(ProviderUnavailable, match=r"ill: it is ill. Cure it."):
        async with opened(protocol="provider", provider="ill", model="fine"):
            pass
