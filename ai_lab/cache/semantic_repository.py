"""All SQL about questions of stored answers and their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ai_lab.cache.tables import cached_answers
from ai_lab.database.rows import every

_columns = cached_answers.c


class QuestionRepository:
    """Statements of one unit of work."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def of_form(self, scope: str, form: str, embedder: str, at: datetime, most: int) -> list[dict[str, Any]]:
        """Return ``key``, ``question`` and ``embedding`` of answers that are not over yet, the newest first."""
        statement = (
            select(_columns.key, _columns.question, _columns.embedding)
            .where(_columns.scope == scope, _columns.form == form)
            .where(_columns.embedder == embedder, _columns.expires_at > at)
            .order_by(_columns.created_at.desc())
            .limit(most)
        )
        return every(await self._db.execute(statement))

    async def keep(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write ``question``, ``form``, ``embedder`` and ``embedding`` beside the answer under each ``key``."""
        names = ("question", "form", "embedder", "embedding")
        statement = (
            update(cached_answers)
            .where(_columns.key == bindparam("of"))
            .values({name: bindparam(f"its_{name}") for name in names})
        )
        values = [{"of": row["key"]} | {f"its_{name}": row[name] for name in names} for row in rows]
        await self._db.execute(statement, values)
