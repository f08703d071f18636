"""What a benchmark asks and what it asks it of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ai_lab.benchmarks.plan import MOST_OUTPUT_TOKENS
from ai_lab.benchmarks.records import Record

_MOST_CHUNKS_PER_TOKEN = 8
_MORE_CHUNKS = 256


@dataclass(frozen=True, slots=True)
class Question:
    """One request in words that every target understands.

    Attributes:
        prompt: text of the one user message, or for ``generate`` the text itself.
        output_tokens: how long the answer should be.
        force_output_length: ask the server to go on to ``output_tokens`` where it can; a shorter answer is ``short``.
        seed: of the sampling; None sends none.
        options: sent as they are; they win over everything above.
    """

    prompt: str
    output_tokens: int
    force_output_length: bool = True
    seed: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def wanted_tokens(self, asked: Any) -> int | None:
        """Return the length below which an answer is short, None if any is right; ``asked``: what options say."""
        if not self.force_output_length:
            return None
        return asked if isinstance(asked, int) else self.output_tokens

    def most_chunks(self, asked: Any) -> int:
        """Return how many chunks with text are far too many; ``asked`` is the length that options say.

        Some servers send a chunk for each character, so that this is far above the length. Options may ask for an
        answer without end (-1): then the length of the longest that a plan can ask for counts.
        """
        tokens = asked if isinstance(asked, int) else self.output_tokens
        return _MOST_CHUNKS_PER_TOKEN * (tokens if tokens > 0 else MOST_OUTPUT_TOKENS) + _MORE_CHUNKS


class Target(Protocol):
    """A server with a model, ready to be asked; made by ``open_target``."""

    #: The server is on this machine, and what it takes from the machine can be seen.
    is_local: bool

    async def ask(self, question: Question, record: Record) -> None:
        """Ask, and write into ``record`` what came when.

        What the server does wrong becomes the record's status and error, never an exception.

        Raises:
            CancelledError: the task was cancelled; the record says so and holds what had come.
        """
        ...

    async def prompt_tokens(self, prompt: str) -> int | None:
        """Return the server's own count of a prompt's tokens, template included; None where it does not say.

        Raises:
            LabError: the server did not answer.
        """
        ...

    async def describe(self) -> dict[str, Any]:
        """Return what is known of server and model; what is not known is left out."""
        ...

    async def cold_load(self) -> float | None:
        """Unload the model, see that it is gone, and load it; return the seconds that loading took. None: it cannot.

        Raises:
            LabError: the server did not do it.
        """
        ...

    def process_ids(self) -> list[int]:
        """Return the root processes of the server as far as they are on this machine and can be found."""
        ...

    async def close(self) -> None:
        """Give back connections and processes."""
        ...
