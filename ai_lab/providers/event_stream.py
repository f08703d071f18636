"""Server-sent events of a chat answer, read into chunks: what every wire format but its own words has in common."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import httpx

from ai_lab.errors import LabError, ProviderError, ProviderRefused, StreamBroken, UnsupportedFeature
from ai_lab.providers.http_client import parse_object, read_body, read_lines
from ai_lab.providers.http_errors import ServiceErrors
from ai_lab.providers.http_service import JSON_LIMIT_BYTES, Exchange, HttpService, drain
from ai_lab.providers.types import Chunk, FinishReason, Usage

#: No service counts more in one answer; the rest is nonsense that no column holds.
_MOST_TOKENS = 2**31 - 1


class EventReader(ABC):
    """Read one answer. Every known service puts an event on one ``data:`` line, so a line is read when it is there.

    Args:
        name: the provider's name, for error texts.
        model: the model that answers, for error texts.
        errors: words what the service reports.
        warnings: what the last chunk says of the request.
    """

    def __init__(self, name: str, model: str, errors: ServiceErrors, warnings: tuple[str, ...] = ()) -> None:
        #: Nothing of the answer follows any more.
        self.done = False
        #: Set as soon as the service has said how the answer ended: from then on it is whole.
        self.finish_reason: FinishReason | None = None
        self._name = name
        self._model = model
        self._errors = errors
        self._warnings = warnings

    def read(self, lines: list[bytes]) -> Iterator[Chunk]:
        """Yield the chunks in ``lines``; comments, other fields and blank lines hold none.

        Raises:
            LabError: the service reports an error, or sends what is no answer.
        """
        for line in lines:
            if not line.startswith(b"data:"):
                self._other(line)
                continue
            payload = line[5:].strip()
            if payload == b"[DONE]":
                self.done = True
            elif payload and (chunk := self.read_event(payload)):
                yield chunk
            if self.done:
                return

    def read_event(self, payload: bytes) -> Chunk | None:
        """Return the chunk in one event, or None where it only holds bookkeeping."""
        try:
            event = parse_object(payload)
        except ValueError:
            raise StreamBroken(f"{self._name} sent an event that is not valid JSON.") from None
        try:
            return self._chunk(event)
        except (AttributeError, IndexError, KeyError, TypeError):
            raise StreamBroken(f"{self._name} sent an event that is not in the shape of its API.") from None

    def last_chunk(self) -> Chunk:
        """Return the chunk that ends the answer.

        Raises:
            StreamBroken: the service never said that it had finished.
        """
        if self.finish_reason is None:
            raise StreamBroken(f"The answer of {self._name} ended in the middle, without saying why.")
        usage = self._usage()
        return Chunk(
            finish_reason=self.finish_reason,
            usage=usage if usage != Usage() else None,
            warnings=self._warnings,
        )

    def _other(self, line: bytes) -> None:  # noqa: B027 - most formats have nothing there
        """Take a line that is no ``data:``; raises where it is an error in some format of its own."""

    @abstractmethod
    def _chunk(self, event: dict[str, Any]) -> Chunk | None:
        """Return the chunk in an event; whatever it trips over on the way counts as a wrong shape."""

    @abstractmethod
    def _usage(self) -> Usage:
        """Return the tokens as far as they were told."""


#: What a request sends, and a warning for everything that it leaves out.
Body = tuple[dict[str, Any], tuple[str, ...]]


def _learns_nothing(_body: dict[str, Any], _error: LabError) -> bool:
    return False


async def ask_for_answer(
    service: HttpService,
    path: str,
    model: str,
    *,
    body: Callable[[], Body],
    reader: Callable[[ServiceErrors, tuple[str, ...]], EventReader],
    learn: Callable[[dict[str, Any], LabError], bool] = _learns_nothing,
) -> AsyncGenerator[Chunk, None]:
    """Yield the answer of a service as it arrives; closing the generator closes the connection.

    Which models refuse which options is in no list. A refusal costs nothing, so that what was learnt of it is left out
    and the model asked again.

    Args:
        service: is asked.
        path: what follows its base URL.
        model: for error texts.
        body: makes the request, anew each time.
        reader: makes what reads the answer, of the words for its errors and the warnings.
        learn: takes note of what of a body is refused, and returns whether the request can do without it.

    Raises:
        LabError: as ``HttpService.open`` and ``stream_answer`` do.
    """
    begun = False
    while True:
        made, warnings = body()
        try:
            async with service.open("POST", path, made, model=model) as exchange:
                answer = stream_answer(service.name, exchange, reader(exchange.errors, warnings))
                async with contextlib.aclosing(answer) as chunks:
                    async for chunk in chunks:
                        begun = True
                        yield chunk
            return  # noqa: TRY300 - it ends the loop
        except (ProviderRefused, UnsupportedFeature) as error:
            if begun or not learn(made, error):
                raise


async def stream_answer(name: str, exchange: Exchange, answer: EventReader) -> AsyncGenerator[Chunk, None]:
    """Yield the answer of a service as it arrives, its end in the last chunk.

    Args:
        name: the provider's name, for error texts.
        exchange: the service's answer, its body unread.
        answer: reads its events; an answer that does not stream is given to it as one event.

    Raises:
        LabError: the service reports an error, or its answer ends in the middle.
    """
    response = exchange.response
    kind = response.headers.get("content-type", "")
    try:
        if kind.startswith("text/html"):
            raise ProviderError(f"{name} answered with a web page. Check its address.")
        if kind.startswith("application/json"):
            if chunk := answer.read_event(await read_body(response, JSON_LIMIT_BYTES)):
                yield chunk
        else:
            async with contextlib.aclosing(read_lines(response)) as blocks:
                async for lines in blocks:
                    for chunk in joined(answer.read(lines)):
                        yield chunk
                    if answer.done:
                        await drain(blocks)
                        break
    except httpx.HTTPError as error:
        # Once the service has said that it finished, the answer is whole.
        if answer.finish_reason is None:
            raise exchange.errors.from_httpx(error, streaming=True) from error
    yield answer.last_chunk()


def joined(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Yield chunks that arrived together, neighbours of nothing but text (or nothing but thinking) as one.

    Everything that follows has its price for each chunk, and nobody can see them apart. What came before an error is
    yielded before it is raised.
    """
    held: list[Chunk] = []
    try:
        for chunk in chunks:
            if held and not _continues(held[-1], chunk):
                yield _one_of(held)
                held = []
            held.append(chunk)
    except LabError:
        if held:
            yield _one_of(held)
        raise
    if held:
        yield _one_of(held)


def _continues(before: Chunk, chunk: Chunk) -> bool:
    is_plain = not (before.tool_calls or chunk.tool_calls)
    return is_plain and bool(before.text) == bool(chunk.text) and bool(before.reasoning) == bool(chunk.reasoning)


def _one_of(chunks: list[Chunk]) -> Chunk:
    if len(chunks) == 1:
        return chunks[0]
    return Chunk(
        text="".join([chunk.text for chunk in chunks]),
        reasoning="".join([chunk.reasoning for chunk in chunks]),
        pieces=len(chunks),
    )


def text_of(value: Any) -> str:
    """Return a text of an event, "" where there is none.

    Raises:
        TypeError: it is something else.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError
    return value


def count_of(value: Any) -> int | None:
    """Return a number of tokens, None where ``value`` is none; some services write whole numbers as 3.0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value <= _MOST_TOKENS and value == value // 1 else None
