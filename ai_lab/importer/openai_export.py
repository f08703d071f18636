"""An OpenAI or ChatGPT export: ``conversations.json``, a list of conversations, each a tree of messages.

Every edit or regeneration of a message grows a branch of the tree; the current one, which the user saw last, comes in.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ai_lab.errors import SourceDamaged
from ai_lab.importer.json_stream import JsonFile
from ai_lab.importer.records import Record, Source, describe, message_record
from ai_lab.importer.text_file import Watcher

_TEXT_FIELDS = ("text", "result", "content")


def export_file(path: Path, watcher: Watcher) -> Iterator[Source | SourceDamaged]:
    """Yield the conversations of an export, and those that are damaged; the rest is read on where that is possible."""
    with JsonFile(path, watcher) as file:
        try:
            if file.peek() != "[":
                file.value()
                yield file.damaged_value("expected a list of conversations")
                return
            for number, item in enumerate(file.items(), 1):
                try:
                    yield conversation(item, f"{path} item {number}", f"{path.stem}-{number}")
                except ValueError as error:
                    yield file.damaged_value(str(error))
            file.end()
        except SourceDamaged as damage:
            yield damage


def conversation(item: Any, origin: str, name: str) -> Source:
    """Return a conversation of an export, or one in the form ``{"messages": […]}``.

    Args:
        item: what the file says.
        origin: where it stands.
        name: the session_id where the item has none of its own.

    Raises:
        ValueError: it is no conversation.
    """
    left = dict(item) if isinstance(item, dict) else {}
    mapping, messages = left.get("mapping"), left.get("messages")
    if isinstance(mapping, dict):
        del left["mapping"]
        records = _branch_records(mapping, left.pop("current_node", None))
        header = _header(left)
    elif isinstance(messages, list):
        del left["messages"]
        records = [message_record(_fields(message)) for message in messages]
        header = {}
        describe(header, {key: value for key, value in left.items() if key not in _IDS})
    else:
        raise ValueError("expected a conversation: an object with 'messages' or 'mapping'")  # noqa: TRY004 - as above
    session_id = next((str(item[key]) for key in _IDS if item.get(key)), name)
    return Source("messages", session_id, origin, lambda: (record for record in records), header)


_IDS = ("session_id", "conversation_id", "id")


def _fields(message: Any) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise ValueError(f"expected a message, found {type(message).__name__}")  # noqa: TRY004 - caught as one error
    return message


def _header(left: dict[str, Any]) -> dict[str, Any]:
    """Keep the plain facts about a conversation; its lists and objects belong to the service it was held on."""
    header: dict[str, Any] = {}
    plain = {key: value for key, value in left.items() if isinstance(value, str | int | float)}
    describe(header, {key: value for key, value in plain.items() if key not in _IDS})
    header["archived"] = left.get("is_archived") is True
    return header


def _branch_records(mapping: dict[str, Any], current: Any) -> list[Record]:
    """Return the messages of the current branch; a node of reasoning joins the answer that follows it."""
    records: list[Record] = []
    thoughts: list[str] = []
    for message in _branch(mapping, current):
        kind = _content(message).get("content_type")
        if kind == "thoughts":
            thoughts += _thoughts(message)
            continue
        fields = _message_fields(message)
        says_nothing = not fields["content"] and "attachments" not in fields
        if says_nothing or kind == "reasoning_recap" or _is_hidden(message):
            continue
        if thoughts and fields["role"] == "assistant":
            fields["thought_process"], thoughts = "\n\n".join(thoughts), []
        records.append(message_record(fields))
    if thoughts:
        records.append(message_record({"role": "assistant", "content": "", "thought_process": "\n\n".join(thoughts)}))
    return records


def _branch(mapping: dict[str, Any], current: Any) -> list[dict[str, Any]]:
    """Return the messages from the root to the current node; without one, to the newest end of the tree."""
    at = current if isinstance(current, str) and current in mapping else _newest_end(mapping)
    seen: set[str] = set()
    branch = []
    while isinstance(at, str) and at in mapping:
        if at in seen:
            raise ValueError(f"the tree of messages runs in a circle at {at[:80]!r}")
        seen.add(at)
        node = mapping[at] if isinstance(mapping[at], dict) else {}
        if isinstance(node.get("message"), dict):
            branch.append(node["message"])
        at = node.get("parent")
    return branch[::-1]


def _newest_end(mapping: dict[str, Any]) -> str | None:
    nodes = {key: node for key, node in mapping.items() if isinstance(node, dict)}
    parents = {node["parent"] for node in nodes.values() if isinstance(node.get("parent"), str)}
    ends = [key for key in nodes if key not in parents]
    return max(ends, key=lambda key: _created(nodes[key]), default=None)


def _created(node: dict[str, Any]) -> float:
    message = node.get("message")
    created = message.get("create_time") if isinstance(message, dict) else None
    return float(created) if isinstance(created, int | float) else 0.0


def _is_hidden(message: dict[str, Any]) -> bool:
    return _metadata(message).get("is_visually_hidden_from_conversation") is True


def _metadata(message: dict[str, Any]) -> dict[str, Any]:
    metadata = message.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _content(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    return content if isinstance(content, dict) else {"text": content}


def _thoughts(message: dict[str, Any]) -> list[str]:
    listed = _content(message).get("thoughts")
    steps = [step for step in listed if isinstance(step, dict)] if isinstance(listed, list) else []
    texts = ["\n".join(str(step[key]) for key in ("summary", "content") if step.get(key)) for step in steps]
    return [text for text in texts if text]


def _message_fields(message: dict[str, Any]) -> dict[str, Any]:
    """Return a node's message in the fields that every format is read from."""
    author, content, metadata = message.get("author"), _content(message), _metadata(message)
    parts = content.get("parts")
    fields: dict[str, Any] = {
        "role": author.get("role") if isinstance(author, dict) else None,
        "content": [part for part in parts if part]
        if isinstance(parts, list)
        else next((content[name] for name in _TEXT_FIELDS if content.get(name)), ""),
        "timestamp": message.get("create_time"),
    }
    if content.get("content_type") not in (None, "text", "multimodal_text"):
        fields["content_type"] = content["content_type"]
    if message.get("recipient") not in (None, "all"):
        fields["recipient"] = message["recipient"]
    if isinstance(author, dict) and author.get("name"):
        fields["name"] = author["name"]
    if metadata.get("model_slug"):
        fields["model"] = metadata["model_slug"]
    if metadata.get("attachments"):
        fields["attachments"] = metadata["attachments"]
    return fields
