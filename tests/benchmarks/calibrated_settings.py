"""How a calibrated server behaves: everything that is true of its answers, set before they are asked for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, Self

MODEL = "calibrated:1b"
Flavour = Literal["ollama", "openai", "llama-server"]
#: http: refused with ``http_status``; stream_error: reported in mid-stream; unfinished: a proper end of HTTP without
#: the end mark of the answer (Ollama: a line with ``done: false``); reset, cut: the connection is reset, or closed in
#: mid-answer; silence: nothing more comes; no_tokens: an answer without a token; empty_body: 200 and nothing at all;
#: garbage: a line that is no JSON.
Fault = Literal[
    "none", "http", "stream_error", "unfinished", "reset", "cut", "silence", "no_tokens", "empty_body", "garbage"
]


@dataclass(frozen=True)
class Calibration:
    """What the server does. All times are due times counted from the arrival of a request (or from its turn).

    A token is a word. Token 1 is due ``load_ms`` (where the model is not loaded) + ``ttft_ms`` + ``prefill_ms`` for
    each token of the prompt that is not cached after the start; a chunk is written when its last token is due.
    """

    flavour: Flavour = "ollama"
    models: dict[str, float] = field(default_factory=lambda: {MODEL: 1.0})  # name: factor on all of its times
    ttft_ms: float = 20.0
    prefill_ms: float = 0.0
    gap_ms: float = 5.0  # between two tokens, in the mean
    gap_sigma: float = 0.0  # lognormal gaps: standard deviation of their logarithm
    gap_jitter_ms: float = 0.0  # uniform, to both sides
    request_sigma: float = 0.0  # lognormal factor on all times of a request, median 1
    chunk_tokens: int = 1
    first_chunk_tokens: int = 1
    slots: int = 0  # requests served at once, others wait in order of arrival; 0: all
    caches_prompts: bool = True
    template_head_tokens: int = 0  # around every chat prompt: before it, where it is cached from the second request on,
    template_tail_tokens: int = 4  # and after it
    natural_tokens: int | None = None  # where an answer ends by itself; None: only at the length asked for
    honours_ignore_eos: bool = True  # Ollama never does
    role_ms: float | None = None  # when a chunk with the role and no text is sent
    sends_headers_early: bool = False  # else with the first chunk
    reasoning_tokens: int = 0  # so many of the first
    closes_after_stream: bool | None = None  # None: as the flavour does; llama-server closes, others keep
    reports_usage: bool = True
    reports_cached: bool | None = None  # None: as the flavour does; Ollama does not say
    counts_off_by: int = 0  # added to the count of written tokens
    split_character: Literal["between", "end"] | None = None  # half a UTF-8 character at a write, or at the end
    load_ms: float = 0.0
    fault: Fault = "none"
    fault_after: int = 3  # chunks
    fault_every: int = 1  # only each such request
    http_status: int = 500
    evict_after: int | None = None  # answers, after which the model is unloaded once
    version: str = "9.9.9"
    digest: str = "c0ffee" * 10 + "cafe"
    size_bytes: int = 1_000_000
    size_vram_bytes: int = 1_000_000
    context_tokens: int = 4096
    seed: int = 0
    spin_us: float = 60.0  # before each due time, instead of sleeping to the end
    log_size: int = 20_000  # requests

    def changed(self, changes: dict[str, Any]) -> Self:
        """Return a copy with changes; a name that does not exist raises ``TypeError``."""
        return dataclasses.replace(self, **changes)
