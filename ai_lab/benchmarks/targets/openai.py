"""Servers that speak OpenAI's API: llama-server, vLLM, SGLang, LM Studio and most hosted ones; server-sent events."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from ai_lab.benchmarks.targets.address import Address
from ai_lab.benchmarks.targets.answer import AnswerLog, count, number, part, whole_characters
from ai_lab.benchmarks.targets.connection import Connections, NoSuchPath
from ai_lab.benchmarks.targets.http_target import AnswerReader, HttpTarget, model_not_found
from ai_lab.benchmarks.targets.target import Question
from ai_lab.errors import LabError, ProviderError, StreamBroken

_LLAMA, _VLLM, _SGLANG = "llama.cpp", "vLLM", "SGLang"
_OWNERS = {"llamacpp": _LLAMA, "vllm": _VLLM, "sglang": _SGLANG}
#: What a server says when it gives up in the middle.
_BROKEN_REASONS = frozenset({"error", "abort"})
#: Fields of ours that an answer can do without, in the order in which a refusal is searched for them.
_OPTIONAL = ("max_tokens", "ignore_eos", "stream_options", "temperature", "seed")
_REFUSAL = re.compile(
    r"un(known|supported|recogni[sz]ed|expected)|not (supported|permitted|allowed)|extra|additional|"
    r"does not support|invalid (param|field|arg)"
)
_TAKE_IGNORE_EOS = frozenset({_LLAMA, _VLLM, _SGLANG})
#: Every name that a length goes by; an arm that gives one wants that.
_LENGTHS = frozenset({"max_tokens", "max_completion_tokens", "n_predict"})


class OpenAIReader(AnswerReader):
    """Reads one answer: an event of every known server is on one ``data:`` line."""

    def __init__(self, log: AnswerLog, connections: Connections, model: str) -> None:
        super().__init__(log, connections, model)
        self._usage: Mapping[str, Any] = {}
        self._timings: Mapping[str, Any] = {}
        self._counted = 0

    def read(self, line: bytes, at_ns: int) -> bool:
        """Take a line; ``data: [DONE]`` is the last."""
        if line.startswith(b"data:"):
            payload = line[5:].strip()
            if payload == b"[DONE]":
                # Some end with this alone, without a finish_reason.
                self.log.is_whole = True
                return True
            if payload:
                self._event(payload, at_ns)
        elif line.startswith(b"{"):  # no event stream: an answer in one piece, or an error
            self._event(line, at_ns)
            self.log.note("the server did not stream")
        elif line.startswith(b"error:"):  # llama.cpp before 2025
            raise self._connections.errors.from_report(self.parse(line[6:]), self._model)
        return False

    def close(self) -> None:
        """Write usage and timings into the record."""
        record, usage, timings = self.log.record, self._usage, self._timings
        if usage:
            record.raw_timings["usage"] = dict(usage)
        if timings:
            record.raw_timings["timings"] = dict(timings)
        for ours, theirs in (("prompt_ms", "prompt_ms"), ("decode_ms", "predicted_ms")):
            if (milliseconds := number(timings, theirs)) is not None:
                record.server_ms[ours] = milliseconds
        cached = count(timings, "cache_n")
        record.cached_tokens = (
            count(part(usage, "prompt_tokens_details"), "cached_tokens") if cached is None else cached
        )
        record.prompt_tokens = count(usage, "prompt_tokens")
        if record.prompt_tokens is None and (uncached := count(timings, "prompt_n")) is not None:
            record.prompt_tokens = uncached + (cached or 0)
        answered = count(usage, "completion_tokens")
        self.log.completion_tokens = count(timings, "predicted_n") if answered is None else answered

    def _event(self, payload: bytes, at_ns: int) -> None:
        event = self.parse(payload)
        if event.get("error") or event.get("object") == "error":
            raise self._connections.errors.from_report(event, self._model)
        if usage := part(event, "usage"):
            self._usage = usage
        if timings := part(event, "timings"):
            self._timings = timings
        if choices := event.get("choices"):
            try:
                self._choice(choices[0], at_ns)
            except (AttributeError, KeyError, TypeError):
                name = self._connections.name
                raise StreamBroken(f"{name} sent an event that is not in the shape of OpenAI's API.") from None
            if usage or timings:
                self._counted = self._total() or self._counted

    def _choice(self, choice: Mapping[str, Any], at_ns: int) -> None:
        delta = choice.get("delta") or choice.get("message") or {}
        text = delta.get("content") or choice.get("text") or delta.get("refusal") or ""
        reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
        calls = delta.get("tool_calls")
        if text or reasoning or calls:
            whole = reasoning + text + (json.dumps(calls) if calls else "")
            self.log.add(at_ns, whole, is_reasoning=not (text or calls), tokens=self._tokens(choice))
        if reason := choice.get("finish_reason"):
            if reason in _BROKEN_REASONS:
                raise ProviderError(f"{self._connections.name} gave up in the middle of its answer ({reason}).")
            self.log.record.finish_reason = whole_characters(str(reason))
            self.log.is_whole = True

    def _tokens(self, choice: Mapping[str, Any]) -> int | None:
        """Return the tokens of a chunk: its ids, or what the running total grew by; None where it has neither."""
        if isinstance(ids := choice.get("token_ids"), list):
            return len(ids)
        total = self._total()
        return total - self._counted if total is not None and total > self._counted else None

    def _total(self) -> int | None:
        total = count(self._usage, "completion_tokens")
        return count(self._timings, "predicted_n") if total is None else total


class OpenAITarget(HttpTarget):
    """A model of a server that speaks OpenAI's API; ``base_url`` of its connections has no ``/v1``."""

    def __init__(self, address: Address, options: dict[str, Any], connections: Connections) -> None:
        super().__init__(address, options, connections)
        self.server: str | None = None
        #: Where the API may begin, the first being where it does once that is known.
        self._prefixes = ["/v1", ""] if urlsplit(connections.base_url).path else ["/v1"]
        self._listed: Mapping[str, Any] = {}
        self._left_out: set[str] = set()

    async def open(self) -> None:
        """Find where the API begins, see that the server has the model, and what server it is.

        Raises:
            ProviderUnavailable: the server cannot be reached.
            ProviderAuthFailed: it wants a key, or another one.
            ModelNotFound: it does not have the model; the text names those that it has.
        """
        headers, entries = await self._models()
        names = [str(entry["id"]) for entry in entries if entry.get("id")]
        if names:
            found = next((name for name in names if name.lower() == self.address.model.lower()), None)
            if found is None:
                raise model_not_found(self._connections.name, self.address.model, names)
            self.address = self.address.model_copy(update={"model": found})
            self._listed = next(entry for entry in entries if entry.get("id") == found)
        owner = str(self._listed.get("owned_by", "")).lower()
        self.server = _OWNERS.get(owner) or headers.get("server")
        if self.server == _LLAMA:
            # It says that it keeps connections, and closes them after a stream; kept ones hold its threads besides.
            self._connections.keep_none()

    async def prompt_tokens(self, prompt: str) -> int | None:
        """Return the server's count: llama-server has a call for it, others are asked for a single token."""
        if self.server == _LLAMA and self.address.endpoint == "chat":
            body = {"model": self.address.model, "messages": _messages(prompt)}
            with contextlib.suppress(NoSuchPath):  # an older one does not have it
                answer = await self._connections.fetch("POST", f"{self._path()}/input_tokens", body)
                return count(answer, "input_tokens")
        return await super().prompt_tokens(prompt)

    async def describe(self) -> dict[str, Any]:
        """Return what ``/v1/models``, llama-server's ``/props`` and vLLM's ``/version`` say."""
        about: dict[str, Any] = {
            "server": self.server,
            "url": self._connections.public_url,
            "model": self.address.model,
            "left_out": sorted(self._left_out) or None,
        }
        with contextlib.suppress(LabError):
            _, entries = await self._models()
            self._listed = next((one for one in entries if one.get("id") == self.address.model), {})
        about |= _of_entry(self._listed)
        about |= _of_props(await self._connections.look("GET", "/props"))
        if self.server != _LLAMA:
            about["version"] = (await self._connections.look("GET", "/version")).get("version")
        return {name: value for name, value in about.items() if value is not None}

    async def cold_load(self) -> float | None:
        """Return None: the API has no call for it."""
        return None

    async def _models(self) -> tuple[Mapping[str, str], list[Mapping[str, Any]]]:
        """Return the headers and entries of the list of models; no entries where the server has no list."""
        for prefix in self._prefixes:
            try:
                headers, listed = await self._connections.fetch_with_headers("GET", f"{prefix}/models")
            except NoSuchPath:
                continue
            self._prefixes = [prefix]
            entries = listed.get("data") if isinstance(listed, dict) else listed
            return headers, [one for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []
        return {}, []

    def _path(self) -> str:
        return self._prefixes[0] + ("/chat/completions" if self.address.endpoint == "chat" else "/completions")

    def _request(self, question: Question) -> tuple[dict[str, Any], Any]:
        given = {**self._options, **question.options}
        fields: dict[str, Any] = {
            "stream_options": {"include_usage": True},
            "temperature": 0,
            "seed": question.seed,
            "ignore_eos": True if question.force_output_length and self.server in _TAKE_IGNORE_EOS else None,
            "max_tokens": question.output_tokens,
        }
        if not _LENGTHS.isdisjoint(given):
            del fields["max_tokens"]
        elif "max_tokens" in self._left_out:
            fields["max_completion_tokens"] = question.output_tokens
        body = {"model": self.address.model, "stream": True}
        body |= (
            {"messages": _messages(question.prompt)} if self.address.endpoint == "chat" else {"prompt": question.prompt}
        )
        body |= {name: value for name, value in fields.items() if value is not None and name not in self._left_out}
        return body | given, next((given[name] for name in _LENGTHS & given.keys()), None)

    def _reader(self, log: AnswerLog) -> AnswerReader:
        return OpenAIReader(log, self._connections, self.address.model)

    def _drops(self, status: int, said: bytes, body: dict[str, Any]) -> bool:
        text = said.decode(errors="replace").lower()
        if status not in {400, 422} or not _REFUSAL.search(text):
            return False
        for name in _OPTIONAL:
            if name in body and name not in self._options and re.search(rf"\b{name}\b", text):
                self._left_out.add(name)
                return True
        return False

    def _note_dropped(self, log: AnswerLog) -> None:
        for name in sorted(self._left_out):
            log.note(f"the server refuses {name}, so it was left out")


def _messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def _of_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the list of models tells of one, whatever the server calls it."""
    known = {**entry, **part(entry, "meta")}
    return {
        "owned_by": known.get("owned_by"),
        "parameters": known.get("n_params"),
        "size_bytes": known.get("size") if isinstance(known.get("size"), int) else None,
        "quantization": known.get("ftype") or known.get("quantization"),
        "context_tokens": known.get("n_ctx") or known.get("max_model_len") or known.get("context_length"),
        "trained_context_tokens": known.get("n_ctx_train"),
        "family": known.get("arch"),
        "root": known.get("root"),
        "is_loaded": {"loaded": True, "not-loaded": False}.get(str(known.get("state"))),
    }


def _of_props(props: Mapping[str, Any]) -> dict[str, Any]:
    """Return what llama-server tells of itself."""
    template, path = props.get("chat_template"), props.get("model_path")
    about = {
        "build": props.get("build_info"),
        "slots": count(props, "total_slots"),
        "quantization": props.get("model_ftype"),
        "file": PurePath(path).name if isinstance(path, str) else None,
        "context_tokens": count(part(props, "default_generation_settings"), "n_ctx"),
        "template_sha256": hashlib.sha256(template.encode()).hexdigest() if isinstance(template, str) else None,
    }
    return {name: value for name, value in about.items() if value is not None}
