"""What targets over HTTP share: how a question is asked and how its failures are told."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import json
import time
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import psutil

from ai_lab.benchmarks.records import Record
from ai_lab.benchmarks.targets.address import Address
from ai_lab.benchmarks.targets.answer import AnswerLog
from ai_lab.benchmarks.targets.connection import Answer, Connections, Line
from ai_lab.benchmarks.targets.target import Question
from ai_lab.errors import LabError, ModelNotFound, ProviderTimeout, StreamBroken
from ai_lab.providers.http_errors import ERROR_BODY_LIMIT_BYTES
from ai_lab.providers.http_service import encode_json

_ERROR_BODY_SECONDS = 5.0
_MODELS_NAMED = 10
_LOOK_AGAIN_SECONDS = 5.0
#: For so many times the longest silence a server may send signs of life without text.
_MOST_SILENCES = 4
#: Who listens here for a server that is elsewhere, or in a container.
_FORWARDERS = frozenset(
    {"docker-proxy", "com.docker.backend", "rootlessport", "gvproxy", "slirp4netns", "wslrelay", "ssh", "kubectl"}
)


class AnswerReader:
    """Reads the lines of one answer in one wire format; a fresh one for every request."""

    def __init__(self, log: AnswerLog, connections: Connections, model: str) -> None:
        self.log = log
        self._connections = connections
        self._model = model

    def read(self, line: bytes, at_ns: int) -> bool:
        """Take a line that was complete at ``at_ns`` and return whether the answer ends with it.

        Raises:
            LabError: the server reports an error, or sends what is no answer.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Write what the server said about the whole answer into the record."""
        raise NotImplementedError

    def parse(self, payload: bytes) -> dict[str, Any]:
        """Return the JSON object in ``payload``.

        Raises:
            StreamBroken: there is none.
        """
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            self.log.note("bytes that are no UTF-8")
            text = payload.decode(errors="replace")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise StreamBroken(f"{self._connections.name} sent a line that is no JSON object.")
        return value


class HttpTarget:
    """A target that is asked over HTTP."""

    def __init__(self, address: Address, options: dict[str, Any], connections: Connections) -> None:
        self.address = address
        self.is_local = address.is_local
        self._options = options
        self._connections = connections
        self._pids: list[int] = []
        self._look_again_at = 0.0

    async def ask(self, question: Question, record: Record) -> None:
        """Ask, and write into ``record`` what came when; see ``Target``."""
        await self._ask(question, record)

    async def prompt_tokens(self, prompt: str) -> int | None:
        """Return the server's count, from a request for a single token."""
        record = Record(index=0, block=-1, arm=0, level=0, phase="warmup", prompt_sha256="")
        log = await self._ask(Question(prompt, output_tokens=1, force_output_length=False), record)
        if record.prompt_tokens is None and log.error:
            raise log.error
        return record.prompt_tokens

    async def _ask(self, question: Question, record: Record) -> AnswerLog:
        body, asked = self._request(question)
        log = AnswerLog(record, wanted_tokens=question.wanted_tokens(asked), most_chunks=question.most_chunks(asked))
        begun = False
        try:
            while True:
                async with self._connections.open(self._path(), encode_json(body), record) as answer:
                    if answer.status == 200:  # noqa: PLR2004  # everything else is no answer
                        begun = True
                        await self._read(answer, self._reader(log))
                        return log
                    said = await _error_body(answer)
                if not self._drops(answer.status, said, body):
                    raise self._connections.errors.from_answer(
                        answer.status, answer.headers, said, self.address.model, self._path()
                    )
                body, _ = self._request(question)
        except asyncio.CancelledError:
            log.fail("cancelled", None, time.perf_counter_ns())
            raise
        except LabError as error:
            is_endless = begun and isinstance(error, ProviderTimeout)
            log.fail("timeout" if is_endless else "error", error, time.perf_counter_ns())
        except (aiohttp.ClientError, TimeoutError) as error:
            failure = self._connections.error_of(error, has_begun=begun)
            silent = isinstance(failure, ProviderTimeout)
            log.fail("timeout" if silent else "aborted" if begun else "error", failure, time.perf_counter_ns())
        finally:
            self._note_dropped(log)
        return log

    def process_ids(self) -> list[int]:
        """Return the processes that listen at the address, where they can be seen."""
        if not self.is_local:
            return []
        is_known = self._pids and all(map(psutil.pid_exists, self._pids))
        if not is_known and time.monotonic() >= self._look_again_at:  # a look at all processes takes its time
            self._pids = _listeners(urlsplit(self._connections.base_url).port)
            self._look_again_at = time.monotonic() + _LOOK_AGAIN_SECONDS
        return list(self._pids)

    async def close(self) -> None:
        """Give back all connections."""
        await self._connections.close()

    def _path(self) -> str:
        """Return what questions are posted to."""
        raise NotImplementedError

    def _request(self, question: Question) -> tuple[dict[str, Any], Any]:
        """Return the body of a request, and the length that options ask for, None where they do not."""
        raise NotImplementedError

    def _reader(self, log: AnswerLog) -> AnswerReader:
        raise NotImplementedError

    def _drops(self, status: int, said: bytes, body: dict[str, Any]) -> bool:
        """Return whether the server refused a field that can be left out from now on."""
        return False

    def _note_dropped(self, log: AnswerLog) -> None:
        """Note what was left out of the request."""

    async def _read(self, answer: Answer, reader: AnswerReader) -> None:
        """Read an answer to its end and close its record.

        Raises:
            LabError, aiohttp.ClientError, TimeoutError: it did not come to an end.
        """
        log, end_ns = reader.log, None
        stamps, loop = log.record.chunk_ns, asyncio.get_running_loop()
        silence_seconds = self._connections.timeout_seconds
        most_seconds = (_MOST_SILENCES + 1) * silence_seconds
        chunks, began = 0, loop.time()
        try:
            async with asyncio.timeout(most_seconds) as without_text:
                while end_ns is None and (lines := await answer.lines()):
                    log.record.first_byte_ns = answer.first_byte_ns
                    end_ns = self._first_end(reader, lines, is_cut=answer.is_cut)
                    # Now and then: a new timer for every chunk would cost as much as its text.
                    if len(stamps) > chunks and (moment := loop.time()) - began > silence_seconds:
                        without_text.reschedule(moment + most_seconds)
                        chunks, began = len(stamps), moment
        except (aiohttp.ClientError, TimeoutError):
            if not log.is_whole:
                if without_text.expired():
                    raise ProviderTimeout(
                        f"{self._connections.name} kept its answer open for more than "
                        f"{_MOST_SILENCES * silence_seconds:g} s without text. Raise timeout_seconds if it may be."
                    ) from None
                raise
            log.note("the connection was lost after the end of the answer")
        finally:
            reader.close()
        if not log.is_whole:
            log.fail("aborted", self._no_end(answer, log), time.perf_counter_ns())
            return
        log.end(end_ns or time.perf_counter_ns())
        if self._connections.keeps:
            await answer.drain()

    def _no_end(self, answer: Answer, log: AnswerLog) -> StreamBroken:
        """Return what an answer without its end marker is."""
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "text/html" and not log.record.chunk_ns:
            return StreamBroken(f"{self._connections.name} sent a web page instead of an answer. Check its address.")
        return StreamBroken(f"The answer of {self._connections.name} ended without its end marker.")

    def _first_end(self, reader: AnswerReader, lines: list[Line], *, is_cut: bool) -> int | None:
        """Read ``lines`` up to the one that ends the answer; return when that was complete, else None."""
        try:
            return next((at_ns for at_ns, line in lines if reader.read(line, at_ns)), None)
        except StreamBroken:
            if not is_cut:
                raise
            reader.log.note("the stream ended within a line")
            return None


async def _error_body(answer: Answer) -> bytes:
    """Return the beginning of an error answer's body, or nothing where it does not come."""
    try:
        async with asyncio.timeout(_ERROR_BODY_SECONDS):
            return await answer.body(ERROR_BODY_LIMIT_BYTES)
    except (TimeoutError, aiohttp.ClientError):
        return b""


def _listeners(port: int | None) -> list[int]:
    """Return the processes that listen on a port and do not only pass on what comes, as far as they can be seen."""
    found = []
    with contextlib.suppress(psutil.Error):  # macOS tells it only to root
        connections = psutil.net_connections("tcp")
        listening = [one for one in connections if one.status == psutil.CONN_LISTEN]
        found = sorted({one.pid for one in listening if one.pid and one.laddr and one.laddr.port == port})
    return [pid for pid in found if _name(pid) not in _FORWARDERS]


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name().removesuffix(".exe")
    except psutil.Error:  # it ended meanwhile, or is somebody else's
        return ""


def model_not_found(server: str, model: str, names: list[str]) -> ModelNotFound:
    """Return the error for a model that a server does not have; it names those that it has."""
    near = difflib.get_close_matches(model.lower(), [name.lower() for name in names], n=3, cutoff=0.5)
    matches = [name for name in names if name.lower() in near]
    listed = ", ".join(sorted(names)[:_MODELS_NAMED]) + (", …" if len(names) > _MODELS_NAMED else "")
    hint = f"Did you mean {' or '.join(matches)}? " if matches else ""
    return ModelNotFound(f"{server} has no model {model!r}. {hint}It has: {listed or 'none at all'}.", matches)
