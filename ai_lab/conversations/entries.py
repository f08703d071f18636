"""The entries of an exported file: each conversation in it, or what is wrong with it and where."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    StrictBool,
    StringConstraints,
    ValidationError,
    model_validator,
)

from ai_lab.clock import as_utc
from ai_lab.conversations.schemas import Role, Status, known_role
from ai_lab.shapes import JsonObject, Moment, SessionId, ShortText, Text, Title

_NO_NUL = r"^[^\x00]*$"
_SPACE = re.compile(r"[ \t\r\n]*")
_SHOWN_FAULTS = 3


def _keep_unknown(fields: Any, known: Iterable[str], kept_in: str) -> Any:
    """Move fields of other programs to where any JSON may stand, so that nothing is lost."""
    if not isinstance(fields, dict):
        return fields
    unknown = {name: fields[name] for name in fields.keys() - set(known)}
    present = fields.get(kept_in) or {}
    if not unknown or not isinstance(present, dict):
        return fields
    return {name: fields[name] for name in fields.keys() - unknown.keys()} | {kept_in: unknown | present}


_Moment = Annotated[Moment, AfterValidator(as_utc)]


class ImportedMessage(BaseModel):
    """A message of a file. ``sequence`` and ``session_id`` are taken from its place."""

    message_id: Annotated[str, StringConstraints(max_length=36, pattern=_NO_NUL)] | None = None
    role: Annotated[Role, BeforeValidator(known_role)]
    content: Annotated[Text | None, AfterValidator(lambda text: text or "")]
    thought_process: Text | None = None
    status: Status = "complete"
    model: ShortText | None = None
    provider: Annotated[str, StringConstraints(max_length=64, pattern=_NO_NUL)] | None = None
    finish_reason: Annotated[str, StringConstraints(max_length=32, pattern=_NO_NUL)] | None = None
    reply_to: Annotated[str, StringConstraints(max_length=36, pattern=_NO_NUL)] | None = None
    usage: JsonObject | None = None
    timings: JsonObject | None = None
    error: JsonObject | None = None
    extra: JsonObject | None = None
    created_at: _Moment | None = None
    sequence: Any = None
    session_id: Any = None

    @model_validator(mode="before")
    @classmethod
    def _keep_unknown(cls, fields: Any) -> Any:
        return _keep_unknown(fields, cls.model_fields, "extra")


class ImportedConversation(BaseModel):
    """A conversation of a file: what an export writes, or no more than ``messages``. ``message_count`` is not read."""

    session_id: SessionId | None = None
    title: Title | None = None
    archived: StrictBool = False
    local_only: StrictBool = False
    metadata: JsonObject | None = None
    created_at: _Moment | None = None
    updated_at: _Moment | None = None
    messages: list[ImportedMessage]
    message_count: Any = None

    @model_validator(mode="before")
    @classmethod
    def _keep_unknown(cls, fields: Any) -> Any:
        return _keep_unknown(fields, cls.model_fields, "metadata")


@dataclass(frozen=True)
class Damage:
    """Why something could not be read."""

    reason: str


@dataclass(frozen=True)
class Entry:
    """One conversation of a file and where it stands."""

    position: str
    content: ImportedConversation | Damage


def read_jsonl(data: bytes) -> Iterator[Entry]:
    """Yield the conversation of each line; a damaged line costs no other one."""
    for number, line in enumerate(io.BytesIO(data.removeprefix(b"\xef\xbb\xbf")), 1):
        if not line.strip():
            continue
        try:
            value = _DECODER.decode(line.decode())
        except (ValueError, RecursionError) as error:
            yield _damaged(f"line {number}", error, is_line=True)
        else:
            yield Entry(f"line {number}", _conversation(value))


def read_json(data: bytes) -> Iterator[Entry]:
    """Yield the one conversation, or those of a list up to where the text is damaged."""
    text, not_text = _decoded(data.removeprefix(b"\xef\xbb\xbf"))
    number = 0
    try:
        for number, value in enumerate(_values(text), 1):
            yield Entry(f"entry {number}", _conversation(value))
    except (ValueError, RecursionError) as error:
        yield _damaged(f"entry {number + 1}", not_text or error, is_line=False)
    else:
        if not_text:
            yield _damaged(f"entry {number + 1}", not_text, is_line=False)


def _values(text: str) -> Iterator[Any]:
    position = _after_space(text, 0)
    if text[position : position + 1] != "[":
        value, position = _DECODER.raw_decode(text, position)
        yield value
    else:
        position = _after_space(text, position + 1)
        more = text[position : position + 1] != "]"
        while more:
            value, position = _DECODER.raw_decode(text, _after_space(text, position))
            yield value
            position = _after_space(text, position)
            more = text[position : position + 1] == ","
            position += more
        if text[position : position + 1] != "]":
            raise json.JSONDecodeError("expecting ',' or ']'", text, position)
        position += 1
    if (rest := _after_space(text, position)) < len(text):
        raise json.JSONDecodeError("more text after the end", text, rest)


def _decoded(data: bytes) -> tuple[str, UnicodeDecodeError | None]:
    """Return the text up to the first byte that is none, and what is wrong with that byte."""
    try:
        return data.decode(), None
    except UnicodeDecodeError as error:
        return data[: error.start].decode(), error


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _conversation(value: Any) -> ImportedConversation | Damage:
    try:
        return ImportedConversation.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        where = [f"{'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']}" for fault in faults[:_SHOWN_FAULTS]]
        more = f" (and {len(faults) - _SHOWN_FAULTS} more)" if len(faults) > _SHOWN_FAULTS else ""
        return Damage("; ".join(where) + more)


def _damaged(position: str, error: ValueError | RecursionError, *, is_line: bool) -> Entry:
    reason = "nested too deep" if isinstance(error, RecursionError) else f"not valid JSON: {error}"
    if isinstance(error, UnicodeDecodeError):
        position, reason = f"{position}, byte {error.start + 1}", "not UTF-8 text"
    elif isinstance(error, json.JSONDecodeError):
        line = "" if is_line else f", line {error.lineno}"
        position, reason = f"{position}{line}, column {error.colno}", f"not valid JSON: {error.msg}"
    return Entry(position, Damage(reason))


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
