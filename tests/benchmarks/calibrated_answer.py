"""One answer of the calibrated server: each write at its due time, with the stamps of what really happened."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tests.benchmarks.calibrated_dialects import OllamaDialect, OpenAIDialect, Outcome
from tests.benchmarks.calibrated_schedule import ChunkPlan, Schedule
from tests.benchmarks.calibrated_settings import Calibration, Fault

Dialect = OllamaDialect | OpenAIDialect
_NS_PER_MS = 1_000_000
#: Between the two writes that a character is split over, and before a connection is broken.
_SPLIT_NS, _BREAK_NS = 2_000_000, 20_000_000
_SPLIT = "\u00e9".encode()


@dataclass(frozen=True)
class Step:
    """Something to do at a time, counted from the turn of the request.

    Attributes:
        make: gives the bytes to write; None only lets time pass.
        chunk: what the write completes.
        is_late: ``make`` reports what has happened, so that it cannot be called before the step is due.
    """

    due_ns: int
    make: Callable[[], bytes] | None
    chunk: ChunkPlan | None = None
    is_late: bool = False


class Answer:
    """Writes one answer to a connection.

    Args:
        entry: its entry in the log; gains the stamps.
        start_ns: when its turn is: due times count from there.
        outcome: what its end shall report; the durations are those that were really kept.
        streams: whether it is sent in parts.
        finished: called at its end with whether the connection can be used again.
    """

    def __init__(
        self,
        calibration: Calibration,
        dialect: Dialect,
        plan: Schedule,
        *,
        entry: dict[str, Any],
        outcome: Outcome,
        start_ns: int,
        fault: Fault,
        streams: bool,
        transport: asyncio.Transport,
        finished: Callable[[bool], None],
    ) -> None:
        self._calibration, self._dialect, self._plan, self._fault = calibration, dialect, plan, fault
        self._entry, self._outcome, self._start_ns = entry, outcome, start_ns
        self._transport, self._finished, self._streams = transport, finished, streams
        self._has_headers, self._written_tokens = False, 0
        self._spin_ns = round(calibration.spin_us * 1000)
        self._steps = self._stream_steps() if streams else self._whole_steps()
        self._take()
        self._timer: asyncio.Handle = asyncio.get_running_loop().call_soon(self._advance)

    def leave(self) -> None:
        """Stop, for the client has gone."""
        self._timer.cancel()
        self._entry.setdefault("ended_ns", time.perf_counter_ns())
        self._entry.setdefault("ending", "client left")

    def _take(self) -> None:
        """Take the next step, and make its bytes while there is time."""
        self._step = step = next(self._steps, None)
        self._ready = step.make() if step and step.make and not step.is_late else None

    def _advance(self) -> None:
        """Do all that is due, and come again shortly before the next step is."""
        while self._step:
            due_ns = self._start_ns + self._step.due_ns
            wait_ns = due_ns - time.perf_counter_ns() - self._spin_ns
            if wait_ns > 0:
                self._timer = asyncio.get_running_loop().call_later(wait_ns / 1e9, self._advance)
                return
            while time.perf_counter_ns() < due_ns:
                pass
            self._do(self._step)
            self._take()
        self._end()

    def _do(self, step: Step) -> None:
        payload = self._ready if self._ready is not None else step.make() if step.make else None
        if payload is None:
            return
        if self._streams and payload:
            payload = b"%x\r\n%b\r\n" % (len(payload), payload)
        if not self._has_headers:
            payload, self._has_headers = self._headers(payload) + payload, True
        before_ns = time.perf_counter_ns()
        self._transport.write(payload)
        after_ns = time.perf_counter_ns()
        if step.chunk:
            self._written_tokens += step.chunk.tokens
            self._entry["due_ns"].append(self._start_ns + step.due_ns)
            self._entry["before_ns"].append(before_ns)
            self._entry["after_ns"].append(after_ns)
            self._entry["tokens"].append(step.chunk.tokens)
            self._entry["reasoning"].append(step.chunk.is_reasoning)

    def _headers(self, payload: bytes) -> bytes:
        length = "Transfer-Encoding: chunked" if self._streams else f"Content-Length: {len(payload)}"
        kind = self._dialect.content_type if self._streams else "application/json"
        server = "Server: llama.cpp\r\n" if self._calibration.flavour == "llama-server" else ""
        return f"HTTP/1.1 200 OK\r\n{server}Content-Type: {kind}\r\n{length}\r\n\r\n".encode()

    def _stream_steps(self) -> Iterator[Step]:
        fault, chunks = self._fault, self._plan.chunks
        if fault in {"no_tokens", "empty_body"}:
            chunks = []
        elif fault != "none":
            chunks = chunks[: self._calibration.fault_after]
        if self._calibration.sends_headers_early:
            yield Step(0, bytes)
        if self._calibration.role_ms is not None and self._dialect.has_role and fault != "empty_body":
            yield Step(round(self._calibration.role_ms * _NS_PER_MS), self._dialect.role)
        tokens = 0
        for chunk in chunks:
            tokens += chunk.tokens
            yield from self._chunk_steps(chunk, tokens)
        yield from self._last_steps(chunks[-1].due_ns if chunks else self._plan.first_token_ns)

    def _chunk_steps(self, chunk: ChunkPlan, tokens: int) -> Iterator[Step]:
        def make() -> bytes:
            outcome = self._kept(so_far=tokens) if counts else None
            return self._dialect.chunk(chunk.text, is_reasoning=chunk.is_reasoning, outcome=outcome)

        counts = self._dialect.counts_in_chunks
        if self._calibration.split_character == "between" and _SPLIT in chunk.text.encode():
            whole = make()
            at = whole.index(_SPLIT) + 1
            yield Step(chunk.due_ns - _SPLIT_NS, lambda: whole[:at])
            yield Step(chunk.due_ns, lambda: whole[at:], chunk)
        else:
            yield Step(chunk.due_ns, make, chunk, is_late=counts)

    def _last_steps(self, due_ns: int) -> Iterator[Step]:
        match self._fault:
            case "none" | "no_tokens":
                for number in range(len(self._dialect.final(self._outcome))):
                    yield Step(due_ns, lambda at=number: self._dialect.final(self._kept())[at], is_late=True)  # type: ignore[misc]  # a default has no type
            case "empty_body":
                yield Step(due_ns, bytes)
            case "unfinished":
                yield Step(due_ns, self._dialect.unfinished)
            case "stream_error":
                yield Step(due_ns, lambda: self._dialect.error("the runner broke, as it was told"))
            case "garbage":
                yield Step(due_ns, lambda: b"data: {no json\n\n")
            case _:  # a moment later, so that all that was written is read
                yield Step(due_ns + _BREAK_NS, None)

    def _whole_steps(self) -> Iterator[Step]:
        def whole() -> bytes:
            texts = ["", ""]
            for chunk in self._plan.chunks:
                texts[chunk.is_reasoning] += chunk.text
            self._written_tokens = self._plan.tokens
            return self._dialect.whole(texts[False], texts[True], self._kept())

        yield Step(self._plan.service_ns, whole, is_late=True)

    def _kept(self, so_far: int | None = None) -> Outcome:
        """Return what is to be reported now, by the stamps of what was written; ``so_far``: with what is next."""
        plan, stamps, now_ns = self._plan, self._entry["before_ns"], time.perf_counter_ns()
        # The first chunk is written with its last token, but the clock of decoding runs from its first.
        within_ns = plan.chunks[0].due_ns - plan.first_token_ns if plan.chunks else 0
        if so_far is not None:
            stamps = [*stamps[:1], now_ns]
        first_ns = stamps[0] - within_ns if stamps else self._start_ns + plan.first_token_ns
        last_ns = stamps[-1] if stamps else max(first_ns, self._start_ns + plan.service_ns)
        return replace(
            self._outcome,
            completion_tokens=self._written_tokens if so_far is None else so_far,
            prompt_ms=max(0.0, (first_ns - self._start_ns) / _NS_PER_MS - self._outcome.load_ms),
            decode_ms=(last_ns - first_ns) / _NS_PER_MS,
            total_ms=(now_ns - self._entry["arrival_ns"]) / _NS_PER_MS,
        )

    def _end(self) -> None:
        self._entry["ending"] = "complete" if self._fault == "none" else self._fault
        self._entry["ended_ns"] = time.perf_counter_ns()
        if self._fault == "silence":
            return  # until the client goes
        if self._fault == "reset":
            # With a linger time of zero the connection is reset instead of closed.
            found = self._transport.get_extra_info("socket")
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        elif self._fault == "cut":
            self._transport.close()
        elif self._streams:
            self._transport.write(b"0\r\n\r\n")
            if self._closes():
                self._transport.close()
        self._finished(not self._transport.is_closing())

    def _closes(self) -> bool:
        closes = self._calibration.closes_after_stream
        return self._calibration.flavour == "llama-server" if closes is None else closes
