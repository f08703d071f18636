from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from ai_lab.conversations import Conversations, NewMessage
from ai_lab.conversations.export import export_everything
from ai_lab.database import Database
from tests.importer.import_lab import ImportLab

# What is read does not depend on the kind of database.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def lines(*items: Any) -> str:
    return "".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in items)


def test_each_line_with_messages_is_a_conversation(lab: ImportLab) -> None:
    tools = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    lab.write(
        "chat.jsonl",
        lines(
            {"messages": [{"role": "developer", "content": "be brief"}, tools]},
            "",
            {"id": "named", "title": "T", "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
        ),
    )
    assert lab.run() == 0
    assert lab.said("chat-1") == [("system", "be brief"), ("assistant", "")]
    assert lab.messages("chat-1")[1].extra == {"tool_calls": [{"id": "1"}]}
    assert lab.said("named") == [("user", "hi")]
    assert lab.conversation("named").title == "T"


def test_a_file_of_messages_is_one_conversation(lab: ImportLab) -> None:
    content = lines({"role": "user", "content": "a\u2028b"}, {"role": "assistant", "content": "c"})
    lab.write("conversations/talk.jsonl", ("\ufeff" + content.replace("\n", "\r\n")).encode())
    assert lab.run() == 0
    assert lab.said("talk") == [("user", "a\u2028b"), ("assistant", "c")]


def test_a_damaged_line_costs_no_other_conversation(lab: ImportLab) -> None:
    good = [{"id": str(n), "messages": [{"role": "user", "content": "ok"}]} for n in range(2)]
    deep = '{"messages": ' + "[" * 100_000
    path = lab.write("chat.jsonl", lines("{oops", good[0], "7", deep, good[1]).encode() + b'{"messages": ["\xff"]}\n')
    report = lab.report()
    assert lab.sessions() == {"0", "1"}
    damages = [(damage["position"], damage["reason"]) for damage in report["sources"][0]["damages"]]
    assert damages[0] == ({"line": 1, "column": 2}, "expecting property name enclosed in double quotes")
    assert damages[1] == ({"line": 3}, "expected a conversation: an object with 'messages' or 'mapping'")
    assert damages[2] == ({"line": 4}, "nested deeper than 100 levels")
    assert damages[3][0] == {"line": 6, "byte": path.read_bytes().index(b"\xff")}
    assert "not UTF-8 text (byte 0xff" in damages[3][1]


@pytest.mark.parametrize("bad", ["{", "7", '"text"', '{"role": "user", "content": ' + "[" * 100_000])
def test_one_bad_line_keeps_a_file_of_messages_out_whole(lab: ImportLab, bad: str) -> None:
    lab.write("talk.jsonl", lines({"role": "user", "content": "a"}, bad))
    assert lab.run() == 1
    assert lab.sessions() == set()
    assert "line 2" in lab.out


def test_a_line_without_end_needs_no_memory(lab: ImportLab) -> None:
    good = lines({"id": "good", "messages": [{"role": "user", "content": "ok"}]})
    lab.write("chat.jsonl", '{"messages": "' + "x" * 40_000_000 + "\n" + good)
    assert lab.run() == 1
    assert "line 1: the line is longer than 16 MB" in lab.out
    assert lab.said("good") == [("user", "ok")]


def test_another_encoding_is_told(lab: ImportLab) -> None:
    lab.write("chat.jsonl", lines({"messages": []}).encode("utf-16"))
    assert lab.run() == 1
    assert "JSON Lines must be UTF-8" in lab.out


def test_what_ai_lab_itself_exported_comes_back(lab: ImportLab) -> None:
    async def export_and_delete() -> bytes:
        database = Database(make_url(lab.url), pooled=False)
        conversations = Conversations(database)
        await conversations.append("s", NewMessage(role="user", content="q"), extra={"name": "n"})
        await conversations.append("s", NewMessage(role="assistant", content="a", thought_process="t"))
        exported = b"".join([piece async for piece in export_everything(conversations, "jsonl")])
        await conversations.delete("s")
        await database.close()
        return exported

    exported = asyncio.run(export_and_delete())
    lab.write("conversations.jsonl", exported)
    assert lab.run() == 0
    before = json.loads(exported)["messages"]
    after = [message.model_dump(mode="json", exclude_none=True) for message in lab.messages("s")]
    anew = {"message_id", "session_id"}
    assert [{k: v for k, v in message.items() if k not in anew} for message in after] == [
        {k: v for k, v in message.items() if k not in anew} for message in before
    ]
