"""Whole tool calls, put together of the pieces in which an answer brings them."""

from __future__ import annotations

from typing import Any


def add_piece(calls: dict[int, dict[str, Any]], part: dict[str, Any]) -> None:
    """Put a piece of a tool call to what came of that call before; its name and arguments come in pieces.

    Args:
        calls: by index, in OpenAI's shape.
        part: one of ``Chunk.tool_calls``.
    """
    index = part.get("index", 0)
    call = calls.setdefault(index, {"index": index, "function": {"name": "", "arguments": ""}})
    for name, value in part.items():
        if name == "function":
            for field, text in (value or {}).items():
                known = call["function"].get(field)
                is_text = isinstance(known, str) and isinstance(text, str)
                call["function"][field] = known + text if is_text else text if text is not None else known
        elif value is not None:
            call[name] = value
