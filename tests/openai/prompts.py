"""What several tests say to a model."""

from __future__ import annotations

from typing import Any

HELLO: list[Any] = [{"role": "user", "content": "one two three"}]
WEATHER: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather at a place",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
        },
    }
]
