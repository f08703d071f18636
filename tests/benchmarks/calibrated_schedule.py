"""When each token of a calibrated answer is due, counted from the turn of its request."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.calibrated_dialects import HALF
from tests.benchmarks.calibrated_settings import Calibration

DEFAULT_TOKENS = 64
_NS_PER_MS = 1_000_000
_WORDS = ("amber", "birch", "cedar", "dune", "elm", "fern", "grove", "heath", "iris", "juniper", "kelp", "lake")
#: Has a character of two bytes; what is split is its chunk.
_SPLIT_WORD = "caf\u00e9"


@dataclass(frozen=True)
class ChunkPlan:
    """Tokens that are written together, when the last of them is due."""

    due_ns: int
    tokens: int
    text: str
    is_reasoning: bool


@dataclass(frozen=True)
class Schedule:
    """An answer before it is written; times are nanoseconds after the request's turn."""

    first_token_ns: int
    chunks: list[ChunkPlan]
    finish: str
    service_ns: int  # how long it holds its slot

    @property
    def tokens(self) -> int:
        """Return the tokens of all chunks."""
        return sum(chunk.tokens for chunk in self.chunks)


def wanted_tokens(body: dict[str, Any]) -> tuple[int | None, bool]:
    """Return the most tokens that a body of any of the APIs asks for, and whether its answer shall not end earlier."""
    options = body.get("options") or {}
    for value in (options.get("num_predict"), body.get("max_completion_tokens"), body.get("max_tokens")):
        if isinstance(value, int) and value > 0:
            return value, bool(body.get("ignore_eos"))
    value = body.get("n_predict")
    return (value if isinstance(value, int) and value > 0 else None), bool(body.get("ignore_eos"))


def schedule(
    calibration: Calibration, body: dict[str, Any], *, uncached_tokens: int, load_ms: float, number: int
) -> Schedule:
    """Return when what is written. The same calibration, body and ``number`` of the request give the same."""
    chance = random.Random(f"{calibration.seed}:{number}")  # noqa: S311 - no secret
    factor = calibration.models.get(str(body.get("model")), 1.0) * chance.lognormvariate(0, calibration.request_sigma)
    count, finish = _length(calibration, body)
    first_ms = load_ms + factor * (calibration.ttft_ms + calibration.prefill_ms * uncached_tokens)
    gaps = (factor * _gap_ms(calibration, chance) for _ in range(count - 1))
    due_ns = [round(moment * _NS_PER_MS) for moment in itertools.accumulate(gaps, initial=first_ms)]
    chunks, begin = [], 0
    for size in itertools.chain([calibration.first_chunk_tokens], itertools.repeat(calibration.chunk_tokens)):
        if begin >= count:
            break
        end = min(count, begin + size)
        # A chunk is either reasoning or answer, as everywhere.
        if begin < calibration.reasoning_tokens < end:
            end = calibration.reasoning_tokens
        text = "".join(_word(calibration, at, is_last=at == count - 1) for at in range(begin, end))
        chunks.append(ChunkPlan(due_ns[end - 1], end - begin, text, end <= calibration.reasoning_tokens))
        begin = end
    return Schedule(due_ns[0], chunks, finish, due_ns[-1])


def _length(calibration: Calibration, body: dict[str, Any]) -> tuple[int, str]:
    most, ignores_eos = wanted_tokens(body)
    natural = calibration.natural_tokens
    can_ignore = calibration.honours_ignore_eos and calibration.flavour != "ollama"
    if natural is not None and not (ignores_eos and can_ignore) and (most is None or natural < most):
        return natural, "stop"
    return (most, "length") if most is not None else (DEFAULT_TOKENS, "stop")


def _gap_ms(calibration: Calibration, chance: random.Random) -> float:
    gap, sigma = calibration.gap_ms, calibration.gap_sigma
    if sigma:
        gap = chance.lognormvariate(math.log(gap) - sigma**2 / 2, sigma)  # with that mean
    jitter = calibration.gap_jitter_ms
    return max(0.0, gap + (chance.uniform(-jitter, jitter) if jitter else 0.0))


def _word(calibration: Calibration, at: int, *, is_last: bool) -> str:
    word = _WORDS[(at * 7 + at // len(_WORDS)) % len(_WORDS)]
    if calibration.split_character == "end" and is_last:
        word += HALF
    elif calibration.split_character == "between" and at % 2:
        word = _SPLIT_WORD
    return f" {word}" if at else word
