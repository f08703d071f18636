"""Full-text search: FTS5 on SQLite, tsvector on Postgres. What the user types is words, never a query language.

All words must occur in a message; the last one may be the beginning of a word. Case does not matter; accents do not
on SQLite. Postgres looks at the first 100,000 characters of a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, Text, case, cast, column, func, literal_column, select, table

from ai_lab.conversations.tables import messages

SNIPPETS_PER_CONVERSATION = 3
_SNIPPET_WORDS = 16
_SNIPPET_LIMIT_CHARACTERS = 20_000
_BEGINNING_CHARACTERS = 200
_INDEX = table("message_search", column("rowid", Integer))
_INDEX_AS_COLUMN: ColumnElement[Any] = literal_column("message_search")
_TSVECTOR: ColumnElement[Any] = literal_column("messages.search")


def fts5_query(text: str) -> str:
    """Return an FTS5 query for plain words: each one quoted, so that no sign in it means anything."""
    words = ['"' + word.replace('"', '""') + '"' for word in text.replace("\x00", " ").split()]
    return " ".join(words) + "*" if words else '""'


def sessions_with(dialect: str, query: str) -> Select[Any]:
    """Return a statement for the session_ids of which a message holds all words."""
    return _matching(dialect, query, messages.c.session_id)


def first_matches(dialect: str, query: str, session_ids: Sequence[str]) -> Select[Any]:
    """Return a statement for the first few matching messages of each conversation, with ``snippet``."""
    place = func.row_number().over(partition_by=messages.c.session_id, order_by=messages.c.sequence).label("place")
    ranked = (
        _matching(dialect, query, messages.c.number, place).where(messages.c.session_id.in_(session_ids)).subquery()
    )
    chosen = select(ranked.c.number).where(ranked.c.place <= SNIPPETS_PER_CONVERSATION)
    if dialect == "sqlite":  # its snippet function works next to MATCH only, not around a window
        # Its time grows with the square of the hits in one message: a long log full of them would take minutes.
        is_short = func.length(messages.c.content) <= _SNIPPET_LIMIT_CHARACTERS
        found: ColumnElement[Any] = func.snippet(_INDEX_AS_COLUMN, 0, "", "", "…", _SNIPPET_WORDS)
        snippet: ColumnElement[Any] = case(
            (is_short, found), else_=func.substr(messages.c.content, 1, _BEGINNING_CHARACTERS)
        )
    else:
        options = f'MaxWords={_SNIPPET_WORDS}, MinWords=5, StartSel="", StopSel=""'
        snippet = func.ts_headline("simple", func.left(messages.c.content, 100_000), _words(query), options)
    columns = (messages.c.session_id, messages.c.message_id, messages.c.sequence, messages.c.role)
    statement = _matching(dialect, query, *columns, snippet.label("snippet")).where(messages.c.number.in_(chosen))
    return statement.order_by(messages.c.session_id, messages.c.sequence)


def _matching(dialect: str, query: str, *columns: ColumnElement[Any]) -> Select[Any]:
    if dialect != "sqlite":
        return select(*columns).where(_TSVECTOR.op("@@")(_words(query)))
    index = _INDEX.join(messages, messages.c.number == _INDEX.c.rowid)
    return select(*columns).select_from(index).where(_INDEX_AS_COLUMN.op("MATCH")(fts5_query(query)))


def _words(query: str) -> ColumnElement[Any]:
    """Return ``'a' & 'b':*``: the last word may be the beginning of one; nothing stays nothing."""
    from sqlalchemy.dialects.postgresql import TSQUERY  # noqa: PLC0415 - loaded only where it is used

    words = func.plainto_tsquery("simple", query)
    return case((func.numnode(words) > 0, cast(cast(words, Text) + ":*", TSQUERY)))
