"""The events of a streamed answer."""

from __future__ import annotations

import json

from ai_lab.chat.schemas import Answer, Delta
from ai_lab.client.problems import error_of
from ai_lab.errors import AnswerLost, InvalidRequest


class EventReader:
    """Reads a stream line by line. ``has_begun`` once the server has sent anything."""

    def __init__(self) -> None:
        self.has_begun = False
        self._answer: Answer | None = None
        self._name = ""
        self._data = b""

    @property
    def answer(self) -> Answer:
        """Return the whole answer; raises ``InvalidRequest`` before the stream was read to its end."""
        if self._answer is None:
            raise InvalidRequest("The answer is not complete: read the stream to its end first.")
        return self._answer

    def read(self, line: bytes) -> Delta | None:
        """Return the piece that the line completes, if it does; raises the error that the server reports."""
        self.has_begun = True
        name, _, value = line.rstrip(b"\r").partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._name = value.decode()
        elif name == b"data":
            self._data += value
        elif line.strip() == b"":
            return self._event()
        return None

    def end(self) -> None:
        """See that the answer came to its end."""
        if self._answer is None:
            raise self.broken()

    def broken(self) -> AnswerLost:
        """Return what to raise when the stream breaks off."""
        return AnswerLost("The connection broke in mid-answer. What the model had said by then is kept on the server.")

    def _event(self) -> Delta | None:
        name, data = self._name, self._data
        self._name, self._data = "", b""
        if name == "message.delta":
            return Delta.model_validate_json(data)
        if name == "message.done":
            self._answer = Answer.model_validate_json(data)
        elif name == "error":
            raise error_of(int(json.loads(data)["status"]), data)
        return None
