"""Finds a stored answer to a question that only says the same: equal forms (``gate``), and nearly equal vectors."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from operator import mul
from typing import Literal, Protocol

from ai_lab.cache import gate
from ai_lab.cache.semantic_repository import QuestionRepository
from ai_lab.clock import now
from ai_lab.database import Database
from ai_lab.database.batches import Batch
from ai_lab.errors import DatabaseUnavailable, LabError
from ai_lab.settings import Settings

#: Returns one normalised vector per text.
Embed = Callable[[Sequence[str]], Awaitable[list[list[float]]]]
Mode = Literal["off", "shadow", "on"]

#: Vectors of another embedder, and forms of another gate, are no more compared.
EMBEDDER = f"all-MiniLM-L6-v2-int8/gate-{gate.VERSION}"
MOST_CHARACTERS = 2000
#: Stored questions of one form that are compared, the newest first.
_MOST_ALIKE = 20
_PATIENCE_SECONDS = 1.0
_WARN_SECONDS = 60.0
#: Questions that wait for their vectors, a second's work; further answers are found by the very same request only.
_MOST_WAITING = 200
#: Vectors are made again only for questions that came before so many others.
_REMEMBERED_VECTORS = 256

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Alike:
    """A stored question that says the same. ``similarity`` is the cosine of both vectors."""

    key: str
    similarity: float
    question: str


class Likeness(Protocol):
    """What ``AnswerCache`` asks after an exact miss.

    ``mode``: with "shadow" whoever asks counts what ``find`` gives and has the model answer all the same.
    """

    mode: Mode

    async def find(self, scope: str, question: str) -> Alike | None:
        """Return the stored question that says the same; None also where the embedder or the database fails."""
        ...

    async def remember(self, key: str, scope: str, question: str) -> None:
        """Keep the question of an answer that is stored under ``key``; its vector is made in the background."""
        ...

    async def flush(self) -> None:
        """Write what waits."""
        ...

    async def close(self) -> None:
        """Write what waits, as far as that can be."""
        ...


class NoSemanticLookup:
    """Knows nothing: only the very same request gets a stored answer."""

    mode: Mode = "off"

    async def find(self, scope: str, question: str) -> Alike | None:
        """Return None."""
        return None

    async def remember(self, key: str, scope: str, question: str) -> None:
        """Keep nothing."""

    async def flush(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""


class SemanticLookup:
    """Questions beside the stored answers, found by an index over scope and form.

    A question lies in its answer's row, and goes with it.

    So a question that nobody asked before in the same form costs one look into the database and no vector, and all
    servers of a database know the same ones: nothing is kept here but what waits to be written.

    Args:
        database: with the stored answers.
        embed: makes vectors.
        mode: "on" or "shadow".
        least_similarity: cosine of two vectors from which on the questions say the same, if their forms are equal.
        patience_seconds: nobody waits longer to learn that there is such a question.
    """

    def __init__(
        self,
        database: Database,
        *,
        embed: Embed,
        mode: Mode,
        least_similarity: float,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        self._patience_seconds = patience_seconds
        self.mode = mode
        self._database = database
        self._embed = embed
        self._least_similarity = least_similarity
        self._vectors: dict[str, list[float]] = {}
        self._remembering: Batch[_Remembered] = Batch(self._write)
        self._warn_after = float("-inf")

    @classmethod
    def open(cls, settings: Settings, database: Database, *, embed: Embed) -> SemanticLookup:
        """Return the look-up that the settings ask for."""
        return cls(
            database,
            embed=embed,
            mode=settings.semantic_cache,
            least_similarity=settings.semantic_cache_similarity,
        )

    async def find(self, scope: str, question: str) -> Alike | None:
        """Return the stored question of the same form that is nearest, if it is near enough."""
        form = _form(question)
        if form is None:
            return None
        try:
            async with asyncio.timeout(self._patience_seconds):
                found = await self._nearest(scope, form, question)
        except (LabError, TimeoutError) as error:
            self._warn(error)
            return None
        if found is None or found.similarity < self._least_similarity:
            return None
        if self.mode == "shadow":
            logger.info(
                "the semantic cache would have answered", extra={"key": found.key, "similarity": found.similarity}
            )
        return found

    async def remember(self, key: str, scope: str, question: str) -> None:
        """Keep a question whose form can be judged; its vector is made in the background."""
        form = _form(question)
        if form is not None and len(self._remembering) < _MOST_WAITING:
            self._remembering.add(_Remembered(key, form, question))

    async def flush(self) -> None:
        """Write what waits."""
        await self._remembering.flush()

    async def close(self) -> None:
        """Write what waits, as far as that can be."""
        await self._remembering.close()

    async def _nearest(self, scope: str, form: str, question: str) -> Alike | None:
        async with self._database.reading() as db:
            rows = await QuestionRepository(db).of_form(scope, form, EMBEDDER, now(), _MOST_ALIKE)
        if not rows:
            return None
        vector = await self._vector(question)
        likes = [Alike(row["key"], _cosine(vector, row["embedding"]), row["question"]) for row in rows]
        return max(likes, key=lambda alike: alike.similarity)

    async def _vector(self, question: str) -> list[float]:
        """Return the vector of a question; the one that was looked for in vain is soon to be remembered."""
        text = gate.tidy(question)
        vector = self._vectors.pop(text, None)
        if vector is None:
            [vector] = await self._embed([text])
        self._vectors[text] = vector
        if len(self._vectors) > _REMEMBERED_VECTORS:
            del self._vectors[next(iter(self._vectors))]
        return vector

    async def _write(self, remembered: Sequence[_Remembered]) -> None:
        """Write questions with their vectors; where there are none, the answers are found by the very same request."""
        rows = []
        for each in remembered:
            try:
                vector = await self._vector(each.question)
            except LabError as error:
                self._warn(error)
                return
            embedding = struct.pack(f"<{len(vector)}f", *vector)
            rows.append({"key": each.key, "question": each.question, "form": each.form, "embedding": embedding})
        try:
            async with self._database.transaction() as db:
                await QuestionRepository(db).keep([row | {"embedder": EMBEDDER} for row in rows])
        except DatabaseUnavailable as error:
            self._warn(error)

    def _warn(self, error: Exception) -> None:
        at = time.monotonic()
        if at >= self._warn_after:
            self._warn_after = at + _WARN_SECONDS
            logger.warning(
                "questions that say the same cannot be found now (%s): models are asked anew meanwhile",
                type(error).__name__,
            )


@dataclass(frozen=True, slots=True)
class _Remembered:
    key: str
    form: str
    question: str


def _form(question: str) -> str | None:
    """Return what stands for the form of a question in the database."""
    form = gate.form(question) if len(question) <= MOST_CHARACTERS else None
    return None if form is None else hashlib.sha256("\n".join(form).encode()).hexdigest()


def _cosine(vector: Sequence[float], stored: bytes) -> float:
    """Return the cosine of two vectors of length 1; a stored one of another length is like nothing."""
    if len(stored) != len(vector) * 4:
        return 0.0
    return min(1.0, math.fsum(map(mul, vector, struct.unpack(f"<{len(vector)}f", stored))))
