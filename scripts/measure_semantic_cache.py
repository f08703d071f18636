"""How often the semantic cache is right and wrong: on labelled pairs of questions, and on near-opposites of our own.

The pairs are a file of tab-separated lines (``.gz`` or not) under a heading: one question, the other, and 1 where both
ask the same, else 0. The gate's rules were chosen by one half of them, picked by a checksum of their texts; no rule was
chosen by the other half. Each has a row of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gzip
import hashlib
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul
from pathlib import Path
from statistics import median

from sqlalchemy.engine import make_url

from ai_lab.cache import AnswerCache, StoredAnswer
from ai_lab.cache.gate import form, tidy
from ai_lab.clock import now
from ai_lab.database import Database
from ai_lab.database.setup import prepare_database
from ai_lab.providers import ChatRequest, Message
from ai_lab.providers.embedder import MODEL, Embedder
from ai_lab.settings import Settings
from scripts.measurement import Row, none_of, percentile, report
from tests.cache.near_opposites import near_opposites

_SIMILARITIES = (0.90, 0.95, 0.97, 0.98)
_MOST_FALSE_SHARE = 0.001
_FEWEST_OPPOSITES = 100
_TIMED = 300
_WARM = 20
_AT_ONCE = 100


@dataclass(frozen=True)
class Pair:
    """Two questions, the cosine of their vectors, and the one that counts; None where the gate holds them back."""

    first: str
    second: str
    is_duplicate: bool
    was_looked_at: bool
    alone: float
    gated: float | None

    def hits(self, similarity: float) -> bool:
        """Return whether one would get the other's answer."""
        return self.gated is not None and self.gated >= similarity


def main() -> int:
    """Measure and print; returns 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=Path, required=True, help="the file of labelled pairs")
    parser.add_argument("--first", type=int, default=None, help="take only so many pairs from its beginning")
    options = parser.parse_args()
    return asyncio.run(_measured(_read(options.pairs)[: options.first]))


def _read(file: Path) -> list[tuple[str, str, bool]]:
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    return [(first, second, label == "1") for first, second, label in rows]


async def _measured(labelled: Sequence[tuple[str, str, bool]]) -> int:
    default = Settings().semantic_cache_similarity
    embedder = Embedder(idle_seconds=3600)
    try:
        began_at = time.perf_counter()
        pairs = [await _pair(embedder, *each) for each in labelled]
        embed_ms = (time.perf_counter() - began_at) * 1000 / max(1, 2 * len(pairs))
        opposites = [await _pair(embedder, first, second, is_duplicate=False) for first, second in near_opposites()]
        timed = await _timed(embedder)
    finally:
        await embedder.close()
    rows = [
        row
        for what, half in (
            ("all pairs", pairs),
            ("the half looked at", [pair for pair in pairs if pair.was_looked_at]),
            ("the half held out", [pair for pair in pairs if not pair.was_looked_at]),
        )
        for row in _at_default(what, half, default)
    ]
    rows += _compared(pairs)
    rows += [
        Row(
            "near-opposites of our own",
            str(len(opposites)),
            f">= {_FEWEST_OPPOSITES}",
            len(opposites) >= _FEWEST_OPPOSITES,
        ),
        none_of("  of them hit", sum(pair.hits(default) for pair in opposites)),
        Row("  of them hit by cosine alone", _share(sum(pair.alone >= default for pair in opposites), len(opposites))),
        Row("  the gate stops without a vector", _share(sum(pair.gated is None for pair in opposites), len(opposites))),
        *timed,
        Row("a vector of these questions", f"{embed_ms:.1f} ms"),
    ]
    notes = (
        f"default: gate and cosine >= {default:g}; rules were chosen by the half looked at, none by the other",
        "duplicates and non-duplicates as labelled; some labels are wrong, so that a false hit may be right:",
        *(
            f"  false: {pair.first!r} / {pair.second!r}"
            for pair in pairs
            if not pair.is_duplicate and pair.hits(default)
        ),
    )
    return report("Semantic cache", rows, notes)


async def _pair(embedder: Embedder, first: str, second: str, is_duplicate: bool) -> Pair:
    form_of_first = form(first)
    gated = None
    if form_of_first is not None and form_of_first == form(second):
        gated = await _cosine(embedder, tidy(first), tidy(second))
    chosen = hashlib.sha256(f"{first}\t{second}".encode()).digest()[0] % 2 == 0
    return Pair(first, second, is_duplicate, chosen, await _cosine(embedder, first, second), gated)


async def _cosine(embedder: Embedder, first: str, second: str) -> float:
    one, other = (await embedder.embed(MODEL, [first, second])).vectors
    return math.fsum(map(mul, one, other))


def _at_default(what: str, pairs: Sequence[Pair], similarity: float) -> list[Row]:
    different = [pair for pair in pairs if not pair.is_duplicate]
    same = [pair for pair in pairs if pair.is_duplicate]
    false = sum(pair.hits(similarity) for pair in different)
    return [
        Row(
            f"{what}: non-duplicates that hit",
            _share(false, len(different)),
            f"<= {_MOST_FALSE_SHARE:.1%}",
            false <= _MOST_FALSE_SHARE * len(different),
        ),
        Row(f"{what}: duplicates that hit", _share(sum(pair.hits(similarity) for pair in same), len(same))),
    ]


def _compared(pairs: Sequence[Pair]) -> list[Row]:
    different = [pair for pair in pairs if not pair.is_duplicate]
    same = [pair for pair in pairs if pair.is_duplicate]
    rows = []
    for similarity in _SIMILARITIES:
        false, right = (sum(pair.alone >= similarity for pair in some) for some in (different, same))
        gated_false, gated_right = (sum(pair.hits(similarity) for pair in some) for some in (different, same))
        rows += [
            Row(
                f"cosine >= {similarity:.2f} alone",
                f"false {_share(false, len(different))}, right {_share(right, len(same))}",
            ),
            Row(
                f"cosine >= {similarity:.2f} and the gate",
                f"false {_share(gated_false, len(different))}, right {_share(gated_right, len(same))}",
            ),
        ]
    return rows


async def _timed(embedder: Embedder) -> list[Row]:
    """Time look-ups after an exact miss, in a database of a workstation with answers to our own questions."""

    async def embed(texts: Sequence[str]) -> list[list[float]]:
        return (await embedder.embed(MODEL, texts)).vectors

    questions = [question for pair in near_opposites() for question in pair if form(question) is not None]
    with tempfile.TemporaryDirectory() as folder:
        url = make_url(f"sqlite+aiosqlite:///{folder}/ai_lab.sqlite")
        await prepare_database(url)
        database = Database(url)
        cache = AnswerCache.open(Settings(cache=True, semantic_cache="on"), database, embed=embed)
        try:
            for number, question in enumerate(questions, 1):
                cache_key = cache.key_of("fake", "model", _request(question))
                assert cache_key
                await cache.store(cache_key, StoredAnswer("fake", "model", "An answer.", "stop", now()))
                if number % _AT_ONCE == 0 or number == len(questions):
                    await cache.flush()  # more than some questions do not wait for their vectors
            unknown = [f"What is the use of thing number {number}?" for number in range(_TIMED)]
            alike = [f"  {question}" for question in questions[:_TIMED]]
            rows = [
                _latency("look-up of a question of an unknown form", await _look_up(cache, unknown, hits=False)),
                _latency("look-up of one that says the same", await _look_up(cache, alike, hits=True)),
            ]
        finally:
            await cache.close()
            await database.close()
    return rows


async def _look_up(cache: AnswerCache, questions: Sequence[str], *, hits: bool) -> list[float]:
    taken_ms = []
    for question in questions:
        cache_key = cache.key_of("fake", "model", _request(question))
        assert cache_key
        began_at = time.perf_counter()
        found = await cache.find(cache_key)
        taken_ms.append((time.perf_counter() - began_at) * 1000)
        assert (found is not None) == hits, question
    return taken_ms[_WARM:]


def _request(question: str) -> ChatRequest:
    return ChatRequest("model", [Message("user", question)])


def _latency(what: str, taken_ms: Sequence[float]) -> Row:
    return Row(what, f"p50 {median(taken_ms):.2f} ms, p99 {percentile(taken_ms, 0.99):.2f} ms, n = {len(taken_ms)}")


def _share(count: int, of: int) -> str:
    return f"{count} of {of} ({count / of:.2%})" if of else "none there"


if __name__ == "__main__":
    sys.exit(main())
