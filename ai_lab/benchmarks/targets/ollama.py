"""Ollama by its native API: ``/api/chat`` and ``/api/generate``, newline-delimited JSON with the server's timings."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
from typing import Any

from ai_lab.benchmarks.targets.answer import AnswerLog, count, number, part, whole_characters
from ai_lab.benchmarks.targets.http_target import AnswerReader, HttpTarget, model_not_found
from ai_lab.benchmarks.targets.target import Question
from ai_lab.errors import ProviderError, StreamBroken

_NANOSECONDS_PER_MS = 1_000_000
#: Ours and theirs. Decoding is counted from the first token to the last, which are one interval less than tokens.
_DURATIONS = (
    ("load_ms", "load_duration"),
    ("prompt_ms", "prompt_eval_duration"),
    ("decode_ms", "eval_duration"),
)
_TIMINGS = (
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_cached_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
)
#: Fields beside ``options``; everything else that an arm gives is an option of the model.
_FIELDS = frozenset(
    {"keep_alive", "think", "format", "raw", "system", "template", "suffix", "truncate", "shift", "tools", "logprobs"}
)
_UNLOAD_SECONDS = 30.0
_LOOK_SECONDS = 0.05


class OllamaReader(AnswerReader):
    """Reads one answer of Ollama."""

    _last: Mapping[str, Any] | None = None

    def read(self, line: bytes, at_ns: int) -> bool:
        """Take a line; the one with ``done: true`` is the last."""
        if not line.strip():
            return False
        event = self.parse(line)
        if event.get("error"):
            raise self._connections.errors.from_report(event, self._model)
        said = event.get("message", event)
        try:
            text = said.get("content") or said.get("response") or ""
            reasoning = said.get("thinking") or ""
            calls = said.get("tool_calls")
            if text or reasoning or calls:
                whole = reasoning + text + (str(calls) if calls else "")
                self.log.add(at_ns, whole, is_reasoning=not (text or calls))
        except (AttributeError, TypeError):
            raise StreamBroken(f"{self._connections.name} sent a line that is not in the shape of its API.") from None
        if event.get("done"):
            self._last = event
            self._end(event)
            return True
        return False

    def close(self) -> None:
        """Write Ollama's own figures into the record."""
        if self._last is None:
            return
        record, last = self.log.record, self._last
        record.raw_timings = {name: last[name] for name in _TIMINGS if name in last}
        record.server_ms = {
            ours: nanoseconds / _NANOSECONDS_PER_MS
            for ours, theirs in _DURATIONS
            if (nanoseconds := number(last, theirs)) is not None
        }
        record.prompt_tokens = count(last, "prompt_eval_count")
        record.cached_tokens = count(last, "prompt_eval_cached_count")
        self.log.completion_tokens = count(last, "eval_count")

    def _end(self, last: Mapping[str, Any]) -> None:
        reason = last.get("done_reason")
        self.log.record.finish_reason = whole_characters(reason) if isinstance(reason, str) else None
        if reason in {"load", "unload"}:
            raise ProviderError(f"{self._connections.name} did {reason} {self._model} and made no answer.")
        self.log.is_whole = True


class OllamaTarget(HttpTarget):
    """A model of an Ollama server."""

    _load_ms: float | None = None  # of the last cold load, by the server's own clock

    async def open(self) -> None:
        """See that the server has the model, and take its own spelling of the name.

        Raises:
            ProviderUnavailable: the server cannot be reached.
            ModelNotFound: it does not have the model; the text names those that it has.
        """
        listed = await self._connections.fetch("GET", "/api/tags")
        names = [_name(entry) for entry in _entries(listed)]
        found = next((name for name in names if _same(name, self.address.model)), None)
        # A model of somebody else's machine is not in the list; the server knows by itself what it is.
        if found is None and not self.address.model.lower().endswith(("-cloud", ":cloud")):
            raise model_not_found(self._connections.name, self.address.model, names)
        self.address = self.address.model_copy(update={"model": found or self.address.model})

    async def describe(self) -> dict[str, Any]:
        """Return what ``/api/version``, ``/api/ps``, ``/api/tags`` and ``/api/show`` say."""
        look, model = self._connections.look, self.address.model
        about: dict[str, Any] = {"server": "ollama", "url": self._connections.public_url, "model": model}
        about["version"] = (await look("GET", "/api/version")).get("version")
        about |= _shown(await look("POST", "/api/show", {"model": model}))
        about |= _kept(self._own(await look("GET", "/api/tags")), ("digest", "digest"), ("size", "size_bytes"))
        if running := await look("GET", "/api/ps"):
            loaded = self._own(running)
            about["is_loaded"] = bool(loaded)
            about |= _kept(
                loaded,
                ("digest", "digest"),
                ("size", "size_loaded_bytes"),
                ("size_vram", "size_vram_bytes"),
                ("expires_at", "expires_at"),
                ("context_length", "context_tokens"),
            )
        about["server_load_ms"] = self._load_ms
        return {name: value for name, value in about.items() if value is not None}

    async def cold_load(self, *, within_seconds: float = _UNLOAD_SECONDS) -> float | None:
        """Unload the model, see that ``/api/ps`` no longer has it, and load it with a request that asks nothing.

        Raises:
            ProviderError: it was not unloaded ``within_seconds``.
        """
        body: dict[str, Any] = {"model": self.address.model, "stream": False}
        await self._load(body | {"keep_alive": 0})
        try:
            async with asyncio.timeout(within_seconds):
                while self._own(await self._connections.fetch("GET", "/api/ps")):  # noqa: ASYNC110 - it is elsewhere
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            raise ProviderError(
                f"{self._connections.name} still had {self.address.model} loaded {within_seconds:g} s after it was "
                "asked to unload it. Something else uses it: stop that, or leave cold loads out."
            ) from None
        fields, options = self._split(self._options)
        started_ns = time.perf_counter_ns()
        last = await self._load(body | fields | ({"options": options} if options else {}))
        seconds = (time.perf_counter_ns() - started_ns) / 1e9
        nanoseconds = number(last, "load_duration")
        self._load_ms = None if nanoseconds is None else nanoseconds / _NANOSECONDS_PER_MS
        return seconds

    async def _load(self, body: dict[str, Any]) -> Any:
        return await self._connections.fetch(
            "POST",
            "/api/generate",
            body,
            model=self.address.model,
            timeout_seconds=self._connections.timeout_seconds,
        )

    def _own(self, listed: Any) -> Mapping[str, Any]:
        """Return the entry of our model in a list of models, or an empty one."""
        return next((one for one in _entries(listed) if _same(_name(one), self.address.model)), {})

    def _path(self) -> str:
        return "/api/chat" if self.address.endpoint == "chat" else "/api/generate"

    def _request(self, question: Question) -> tuple[dict[str, Any], Any]:
        fields, given = self._split({**self._options, **question.options})
        options: dict[str, Any] = {"temperature": 0, "num_predict": question.output_tokens}
        if question.seed is not None:
            options["seed"] = question.seed
        options |= given
        body = {"model": self.address.model, "stream": True, "options": options, **fields}
        if self.address.endpoint == "chat":
            body["messages"] = [{"role": "user", "content": question.prompt}]
        else:
            body["prompt"] = question.prompt
        return body, options["num_predict"]

    def _split(self, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the fields of a request and the options of the model."""
        fields = {name: value for name, value in given.items() if name in _FIELDS}
        return fields, {name: value for name, value in given.items() if name not in _FIELDS}

    def _reader(self, log: AnswerLog) -> AnswerReader:
        return OllamaReader(log, self._connections, self.address.model)


def _entries(listed: Any) -> list[Mapping[str, Any]]:
    entries = listed.get("models") if isinstance(listed, dict) else None
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("name") or entry.get("model") or "")


def _same(name: str, other: str) -> bool:
    """Return whether two names mean the same model: case and ``:latest`` do not matter."""
    return name.lower().removesuffix(":latest") == other.lower().removesuffix(":latest")


def _kept(values: Mapping[str, Any], *names: tuple[str, str]) -> dict[str, Any]:
    """Return the values that are there, under our names."""
    return {ours: values[theirs] for theirs, ours in names if values.get(theirs) is not None}


def _shown(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``/api/show`` tells of a model."""
    details, info = part(shown, "details"), part(shown, "model_info")
    architecture, template = info.get("general.architecture"), shown.get("template")
    return {
        "family": details.get("family") or architecture,
        "parameters": info.get("general.parameter_count") or details.get("parameter_size"),
        "quantization": details.get("quantization_level"),
        "trained_context_tokens": info.get(f"{architecture}.context_length"),
        "template_sha256": hashlib.sha256(template.encode()).hexdigest() if isinstance(template, str) else None,
        "model_parameters": shown.get("parameters") or None,
    }
