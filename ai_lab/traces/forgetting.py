"""What was said goes from the traces of a conversation that is deleted; their figures stay, for they are accounts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ai_lab.database import Database
from ai_lab.traces.repository import TraceRepository
from ai_lab.traces.trace import without_texts

#: Rows of one transaction, so that other writers have their turn soon.
_AT_ONCE = 200


async def forget_session(database: Database, session_id: str) -> None:
    """Delete what was said from a conversation's traces. Raises ``DatabaseUnavailable``."""
    after: str | None = ""
    while after is not None:
        async with database.reading() as db:
            rows = await TraceRepository(db).of_session(session_id, after, _AT_ONCE)
        await forget_rows(database, rows)
        after = rows[-1]["id"] if len(rows) == _AT_ONCE else None


async def forget_rows(database: Database, rows: Sequence[dict[str, Any]]) -> None:
    """Delete what was said from these traces, of which ``id`` and ``tree`` are given."""
    if rows:
        async with database.transaction() as db:
            await TraceRepository(db).forget_texts([(row["id"], _without_texts(row["tree"])) for row in rows])


def _without_texts(tree: dict[str, Any]) -> dict[str, Any]:
    """Return the tree as if texts had not been kept; of errors only codes are left: services quote what they refuse."""
    attempts = [attempt | {"error": None} for attempt in tree["attempts"]]
    options = without_texts(tree["options"])
    return tree | {"original_question": None, "error": None, "options": options, "attempts": attempts}
