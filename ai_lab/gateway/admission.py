"""One request that a circuit breaker let through, and what is told of how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_lab.errors import LabError
from ai_lab.gateway.breaker_record import Key

if TYPE_CHECKING:
    from ai_lab.gateway.breakers import Breakers


class Admission:
    """A request that was let through; the first of the ends that it is told counts, later ones say nothing."""

    __slots__ = ("_breakers", "_ended", "_key", "_probe")

    def __init__(self, breakers: Breakers, key: Key, probe: str | None) -> None:
        self._breakers = breakers
        self._key = key
        self._probe = probe
        self._ended = False

    def answering(self) -> None:
        """The first piece of the answer is there."""
        if self._probe and not self._ended:
            self._breakers.answering(self._key, self._probe)
            self._probe = None

    def succeeded(self) -> None:
        """The answer is whole."""
        self.answering()
        if not self._ended:
            self._ended = True
            self._breakers.succeeded(self._key)

    def failed(self, error: LabError) -> None:
        """It ended with an error, of the service or of ours."""
        if self._ended:
            return
        self._ended = True
        if self._probe:
            self._breakers.probe_failed(self._key, self._probe, error)
        else:
            self._breakers.failed(self._key, error)

    def abandoned(self) -> None:
        """Nobody waits for it any more; that says nothing about the service."""
        if self._ended:
            return
        self._ended = True
        if self._probe:
            self._breakers.given_back(self._key, self._probe)
