from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.importer.import_lab import ImportLab

# What is read does not depend on the kind of database.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def node(parent: str | None, role: str, text: Any, *, at: float | None = 1700000000.5, **more: Any) -> dict[str, Any]:
    content = text if isinstance(text, dict) else {"content_type": "text", "parts": [text]}
    return {"parent": parent, "message": {"author": {"role": role}, "content": content, "create_time": at} | more}


def export(mapping: dict[str, Any], current: str | None = "last", **more: Any) -> list[dict[str, Any]]:
    facts = {"id": "c-1", "title": "A title", "create_time": 1600000000, "current_node": current}
    return [facts | more | {"mapping": mapping}]


ROOT: dict[str, Any] = {"parent": None, "message": None}


def test_the_current_branch_comes_in(lab: ImportLab) -> None:
    mapping = {
        "root": ROOT,
        "hidden": node("root", "system", "you are", metadata={"is_visually_hidden_from_conversation": True}),
        "empty": node("hidden", "system", ""),
        "q": node("empty", "user", "question"),
        "rejected": node("q", "assistant", "first try"),
        "last": node("q", "assistant", "second try", at=1700000001, metadata={"model_slug": "gpt-4o"}),
    }
    lab.write("conversations.json", export(mapping, is_archived=True, default_model_slug="gpt-4o", voice=None))
    assert lab.run() == 0
    assert lab.said("c-1") == [("user", "question"), ("assistant", "second try")]
    answer = lab.messages("c-1")[1]
    assert (answer.model, answer.created_at) == ("gpt-4o", datetime(2023, 11, 14, 22, 13, 21, tzinfo=UTC))
    conversation = lab.conversation("c-1")
    assert (conversation.title, conversation.archived) == ("A title", True)
    assert conversation.created_at == datetime.fromtimestamp(1600000000, UTC)
    assert conversation.metadata == {"default_model_slug": "gpt-4o", "is_archived": True}


def test_without_a_current_node_the_newest_end_is_taken(lab: ImportLab) -> None:
    mapping = {
        "root": ROOT,
        "q": node("root", "user", "question"),
        "old": node("q", "assistant", "old", at=1700000001),
        "new": node("q", "assistant", "new", at=1700000009),
    }
    lab.write("conversations.json", export(mapping, current=None))
    assert lab.run() == 0
    assert lab.said("c-1") == [("user", "question"), ("assistant", "new")]


def test_reasoning_joins_its_answer(lab: ImportLab) -> None:
    thoughts = {"content_type": "thoughts", "thoughts": [{"summary": "Thinking", "content": "about it"}]}
    mapping = {
        "q": node(None, "user", "question"),
        "t": node("q", "assistant", thoughts),
        "r": node("t", "assistant", {"content_type": "reasoning_recap", "content": "Thought for 5 s"}),
        "last": node("r", "assistant", "answer"),
    }
    lab.write("conversations.json", export(mapping))
    assert lab.run() == 0
    assert lab.said("c-1") == [("user", "question"), ("assistant", "answer")]
    assert lab.messages("c-1")[1].thought_process == "Thinking\nabout it"


def test_reasoning_without_an_answer_is_not_lost(lab: ImportLab) -> None:
    thoughts = {"content_type": "thoughts", "thoughts": [{"summary": "", "content": "half a thought"}]}
    lab.write("conversations.json", export({"q": node(None, "user", "q"), "last": node("q", "assistant", thoughts)}))
    assert lab.run() == 0
    assert lab.messages("c-1")[1].thought_process == "half a thought"


def test_images_files_and_tools_are_noted(lab: ImportLab) -> None:
    image = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://f"}
    parts = {"content_type": "multimodal_text", "parts": [image, "what is this?"]}
    code = {"content_type": "code", "language": "python", "text": "1 + 1"}
    mapping = {
        "q": node(None, "user", parts, metadata={"attachments": [{"name": "a.png"}]}),
        "c": node("q", "assistant", code, recipient="python"),
        "last": node("c", "tool", {"content_type": "execution_output", "text": "2"}),
    }
    mapping["last"]["message"]["author"]["name"] = "python"
    lab.write("conversations.json", export(mapping))
    assert lab.run() == 0
    assert lab.said("c-1") == [("user", "what is this?"), ("assistant", "1 + 1"), ("tool", "2")]
    assert [message.extra for message in lab.messages("c-1")] == [
        {"content_parts": [image], "attachments": [{"name": "a.png"}]},
        {"content_type": "code", "recipient": "python"},
        {"content_type": "execution_output", "name": "python"},
    ]


def test_a_branch_may_be_longer_than_any_stack(lab: ImportLab) -> None:
    mapping = {str(n): node(str(n - 1) if n else None, "user", f"m{n}") for n in range(5000)}
    lab.write("conversations.json", export(mapping, current="4999"))
    assert lab.run() == 0
    assert [text for _, text in lab.said("c-1")] == [f"m{n}" for n in range(5000)]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (
            {"id": "x", "mapping": {"a": node("b", "user", "1"), "b": node("a", "user", "2")}, "current_node": "a"},
            "circle",
        ),
        ("text", "expected a conversation"),
        ({"id": "x"}, "expected a conversation"),
        ({"id": "x", "messages": ["text"]}, "expected a message, found str"),
    ],
)
def test_a_damaged_conversation_costs_no_other_one(lab: ImportLab, item: Any, reason: str) -> None:
    good = export({"last": node(None, "user", "good")})
    lab.write("conversations.json", [item, *good])
    report = lab.report()
    assert lab.said("c-1") == [("user", "good")]
    (damage,) = report["sources"][0]["damages"]
    assert reason in damage["reason"]
    assert damage["position"] == {"line": 1, "column": 2}


def test_what_stands_before_the_damage_comes_in(lab: ImportLab) -> None:
    good = json.dumps(export({"last": node(None, "user", "good")}))
    lab.write("conversations.json", good[:-1] + ",\n{]")
    assert lab.run() == 1
    assert lab.said("c-1") == [("user", "good")]
    assert "conversations.json: line 2, column 2: expecting property name" in lab.out


def test_an_export_in_parts_and_without_ids_comes_in(lab: ImportLab) -> None:
    lab.write("conversations-000.json", [{"mapping": {"a": node(None, "user", "1")}}])
    lab.write("conversations-001.json", [{"mapping": {"a": node(None, "user", "2")}}])
    assert lab.run() == 0
    assert lab.said("conversations-000-1") == [("user", "1")]
    assert lab.said("conversations-001-1") == [("user", "2")]
