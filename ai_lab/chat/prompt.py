"""The request of one turn, made for each model that is asked: as much of the conversation as fits that model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ai_lab.chat.context import candidates, fit
from ai_lab.chat.schemas import ContextReport, NewTurn
from ai_lab.errors import ContextOverflow
from ai_lab.providers import ChatRequest, Message, ResolvedModel


class TurnPrompt:
    """What is asked in one turn.

    Args:
        new: what the user says.
        rows: of the conversation so far, oldest first, as far as they were read.

    Attributes:
        context: what of the conversation the model that was asked last was shown; None before.
        warnings: what the user should know about that.
    """

    def __init__(self, new: NewTurn, rows: Sequence[dict[str, Any]]) -> None:
        self.context: ContextReport | None = None
        self.warnings: list[str] = []
        self._options = new.options.given()
        self._system, self._past = candidates(rows, new.system)
        self._question = Message("user", new.message)
        # Older than what was read at all; system messages are read however old they are.
        first = next((place for place, row in enumerate(rows) if row["role"] != "system"), None)
        self._hidden = 0 if first is None else rows[first]["sequence"] - 1 - first
        self._left_out = 0

    async def request(self, model: ResolvedModel, shrink: int) -> ChatRequest:
        """Return the request for ``model``; each ``shrink`` halves the room.

        Raises:
            ContextOverflow: the question alone does not fit, or the model found even that too long.
        """
        if shrink and self._left_out == len(self._past):
            raise ContextOverflow(f"The message alone is too long for {model.full_name}. Shorten it.", param="message")
        context_tokens = await model.provider.context_tokens(model.model)
        prompt = await fit(
            model,
            self._system,
            self._past,
            self._question,
            context_tokens=context_tokens,
            max_tokens=self._options.get("max_tokens"),
            shrink=2**shrink,
        )
        self._left_out = prompt.trimmed
        trimmed = prompt.trimmed + self._hidden
        self.context = ContextReport(context_tokens=context_tokens, trimmed_messages=trimmed)
        self.warnings = (
            [f"The {trimmed} oldest messages did not fit the model's context; it was not shown them."]
            if trimmed
            else []
        )
        return ChatRequest(model.model, prompt.messages, self._options)
