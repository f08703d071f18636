"""The events of a stream, read line by line: those of an answer here, those of a benchmark in ``benchmark_calls``."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from ai_lab.chat.schemas import Answer, Delta
from ai_lab.client.problems import error_of
from ai_lab.errors import AnswerLost, InvalidRequest

T = TypeVar("T")


class Reader(ABC, Generic[T]):
    """Makes something of the events of a stream. ``has_begun`` once the server has sent anything."""

    def __init__(self) -> None:
        self.has_begun = False
        self.has_ended = False
        self._name = ""
        self._data = b""

    def read(self, line: bytes) -> T | None:
        """Return what the line completes, if it does; raises the error that the server reports."""
        self.has_begun = True
        name, _, value = line.rstrip(b"\r").partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._name = value.decode()
        elif name == b"data":
            self._data += value
        elif line.strip() == b"":
            event, data = self._name, self._data
            self._name, self._data = "", b""
            if event == "error":
                raise error_of(int(json.loads(data)["status"]), data)
            return self._event(event, data)
        return None

    def end(self) -> None:
        """See that the stream came to its end."""
        if not self.has_ended:
            raise self.broken()

    @abstractmethod
    def broken(self) -> AnswerLost:
        """Return what to raise when the stream breaks off."""

    @abstractmethod
    def _event(self, name: str, data: bytes) -> T | None:
        """Return what an event says; the one that is the last sets ``has_ended``."""


class EventReader(Reader[Delta]):
    """Reads an answer piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self._answer: Answer | None = None

    @property
    def answer(self) -> Answer:
        """Return the whole answer; raises ``InvalidRequest`` before the stream was read to its end."""
        if self._answer is None:
            raise InvalidRequest("The answer is not complete: read the stream to its end first.")
        return self._answer

    def broken(self) -> AnswerLost:
        """Return what to raise when the stream breaks off."""
        return AnswerLost("The connection broke in mid-answer. What the model had said by then is kept on the server.")

    def _event(self, name: str, data: bytes) -> Delta | None:
        if name == "message.delta":
            return Delta.model_validate_json(data)
        if name == "message.done":
            self._answer = Answer.model_validate_json(data)
            self.has_ended = True
        return None
