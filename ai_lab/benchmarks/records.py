"""The raw record of one request, as it was seen at the socket. Everything a benchmark says is computed from these.

All stamps are ``time.perf_counter_ns()`` of the measuring process: monotonic, and on one clock with the samples of the
machine. A stamp is taken right after the read from the socket, before anything is parsed; of a provider in Python,
which has its own connection, where it hands a piece over.
"""

from __future__ import annotations

import itertools
import json
import zlib
from array import array
from dataclasses import dataclass, field, fields
from typing import Any, Literal

#: ok: a whole answer of the length that was asked for (or a natural end where that is no goal); short: a whole answer
#: with fewer tokens; aborted: the stream ended without its end marker or with ``done: false``; error: the server
#: refused or reported an error, also in mid-stream; timeout: silence for too long; cancelled: we stopped it.
Status = Literal["ok", "short", "aborted", "error", "timeout", "cancelled"]
#: Where a token count comes from: the server's usage, or the number of chunks with text where it says nothing.
TokenSource = Literal["server", "chunks"]
#: Only measured records are part of figures. discarded: of a block that a restart cut short and that was then repeated.
Phase = Literal["warmup", "measured", "discarded"]


def shift(stamped: Record | Sample | BlockDone, by_ns: int) -> None:
    """Move all stamps, for a run that goes on after the machine was started anew and with it the clock."""
    for one in fields(stamped):
        if not one.name.endswith("_ns"):
            continue
        value = getattr(stamped, one.name)
        if isinstance(value, array):
            value = array("q", (stamp + by_ns for stamp in value))
        elif value is not None:
            value += by_ns
        setattr(stamped, one.name, value)


@dataclass(slots=True)
class Record:
    """One request. Stamps are nanoseconds of one monotonic clock, None where that moment never came.

    ``chunk_ns`` has one stamp per content chunk (text or reasoning), in order; several chunks of one socket read share
    a stamp. ``chunk_tokens`` are the tokens of each, where the server says so, else empty.
    """

    index: int  # position in the run's schedule, unique in a run
    block: int  # warm-up records have block -1
    arm: int  # position in the plan's arms
    level: int  # position in the plan's levels (concurrencies or rates); 0 where there is one
    phase: Phase
    prompt_sha256: str
    intended_ns: int | None = None  # when the schedule wanted it sent; closed loops: when its turn came
    dispatched_ns: int | None = None  # when the load generator began with it
    connected_ns: int | None = None  # a connection was there (new or kept)
    sent_ns: int | None = None  # request written
    headers_ns: int | None = None
    first_byte_ns: int | None = None  # of the body
    first_token_ns: int | None = None  # first chunk with text or reasoning
    first_answer_ns: int | None = None  # first chunk with text that is no reasoning
    last_token_ns: int | None = None
    end_ns: int | None = None  # the stream ended, or failed
    chunk_ns: array[int] = field(default_factory=lambda: array("q"))
    chunk_tokens: array[int] = field(default_factory=lambda: array("i"))
    connection_reused: bool | None = None
    status: Status = "cancelled"
    finish_reason: str | None = None
    error: str | None = None  # what happened, one sentence, without secrets
    error_code: str | None = None  # of ai_lab.errors
    http_status: int | None = None
    prompt_tokens: int | None = None  # all tokens of the prompt, cached ones included
    completion_tokens: int | None = None  # reasoning included
    token_source: TokenSource | None = None  # of completion_tokens
    cached_tokens: int | None = None  # of the prompt; None: the server does not say
    #: Durations by the server's own clock in milliseconds: load_ms, prompt_ms (of the uncached part), decode_ms
    #: (first token to last), as far as reported. ``raw_timings`` has the server's own fields verbatim.
    server_ms: dict[str, float] = field(default_factory=dict)
    raw_timings: dict[str, Any] = field(default_factory=dict)
    output_sha256: str | None = None
    output_characters: int = 0
    notes: list[str] = field(default_factory=list)  # oddities: "no usage", "usage disagrees with chunks", …

    def later_tokens(self) -> int:
        """Return how many tokens arrived after the first read that had any: N - n_first.

        What arrived with the first token in one read took no time of its own. Most servers count the token that ends an
        answer and send no text for it: of an answer that stopped by itself and has one chunk less than tokens, that
        last token never arrived and is not counted.
        """
        stamps = self.chunk_ns
        in_first_read = 1
        while in_first_read < len(stamps) and stamps[in_first_read] == stamps[0]:
            in_first_read += 1
        if self.chunk_tokens:
            return sum(self.chunk_tokens[in_first_read:])
        total = self.completion_tokens or 0
        if self.finish_reason == "stop" and len(stamps) == total - 1:
            total -= 1
        return total - in_first_read

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values; ``chunk_ns`` as first stamp and differences."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        stamps = self.chunk_ns.tolist()
        values["chunk_ns"] = stamps[:1] + [b - a for a, b in itertools.pairwise(stamps)]
        values["chunk_tokens"] = self.chunk_tokens.tolist()
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Record:
        """Return the record that ``to_dict`` described."""
        stamps, total = array("q"), 0
        for difference in values["chunk_ns"]:
            total += difference
            stamps.append(total)
        return cls(**{**values, "chunk_ns": stamps, "chunk_tokens": array("i", values["chunk_tokens"])})

    def pack(self) -> bytes:
        """Return it as compressed JSON, some 500 bytes for an answer of 100 chunks."""
        return zlib.compress(json.dumps(self.to_dict(), separators=(",", ":")).encode(), 6)

    @classmethod
    def unpack(cls, packed: bytes) -> Record:
        """Return the record that ``pack`` made."""
        return cls.from_dict(json.loads(zlib.decompress(packed)))


@dataclass(slots=True)
class Sample:
    """One look at the machine during a run; None is "unavailable", never an estimate.

    CPU figures are means since the sample before, in percent of all usable cores together (100 = all busy).
    """

    at_ns: int  # perf_counter_ns, the records' clock
    cpu_percent: float | None = None
    client_cpu_percent: float | None = None  # the measuring process itself
    target_cpu_percent: float | None = None  # the server under test with its children, where it is on this machine
    other_cpu_percent: float | None = None  # everything else; None where the target cannot be told from the rest
    other_top: list[tuple[str, float]] = field(default_factory=list)  # name, percent: the largest of the others
    steal_percent: float | None = None
    memory_used_bytes: int | None = None
    target_rss_bytes: int | None = None
    swap_in_bytes: int | None = None  # since the sample before
    swap_out_bytes: int | None = None
    frequency_mhz: float | None = None
    cpu_throttle_events: int | None = None  # since the sample before, where the kernel counts them
    cpu_energy_joules: float | None = None  # RAPL counter, cumulative, where readable
    #: Each with index, utilization_percent, memory_used_bytes, power_watts, energy_joules (cumulative), temperature_c,
    #: clock_mhz and throttle_reasons, None where the driver does not say.
    gpus: list[dict[str, Any]] = field(default_factory=list)
    loop_lag_ms: float | None = None  # the worst delay of the measuring event loop since the sample before


@dataclass(slots=True)
class BlockDone:
    """A block that is complete: what a resumed run need not repeat."""

    block: int
    arm: int
    level: int
    started_ns: int
    ended_ns: int
    client_cpu_seconds: float  # CPU of the measuring process in the block
    gc_pause_ms: float
    loop_lag_p99_ms: float | None
    offered_rate: float | None = None  # open loop: requests per second that were intended
