from datetime import UTC, datetime
from typing import Any

import pytest

from tests.importer.import_lab import ImportLab

TEN = datetime(2024, 1, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "content",
    [
        [{"role": "User", "content": "hi"}],
        {"messages": [{"role": "user", "message": "hi"}]},
        {"role": "USER", "content": "hi"},
        {"message": "hi", "role": "human"},
    ],
)
def test_each_shape_of_a_conversation_comes_in(lab: ImportLab, content: Any) -> None:
    lab.write("conversations/s1.json", content)
    assert lab.run() == 0
    assert lab.said("s1") == [("user", "hi")]


def test_times_order_thoughts_and_spelling_of_roles_are_kept(lab: ImportLab) -> None:
    lab.write(
        "conversations/s1.json",
        [
            {"role": "User", "content": "q", "timestamp": "2024-01-01T10:00:00"},
            {"role": "Assistant", "content": "a", "thought_process": "hm", "timestamp": "2024-01-01T11:00:00+01:00"},
            {"role": "CEO Agent", "message": "b", "timestamp": "2024-01-01T09:00:00Z", "score": 0.5},
            {"role": "user", "content": "c", "timestamp": 1704103200},
            {"role": "user", "content": "d", "timestamp": 1704103200000},
            {"role": "user", "content": "e", "timestamp": "2024-01-01 10:00:00.250000"},
        ],
    )
    assert lab.run() == 0
    messages = lab.messages("s1")
    assert [message.content for message in messages] == ["q", "a", "b", "c", "d", "e"]
    assert [message.created_at for message in messages] == [
        TEN, TEN, TEN.replace(hour=9), TEN, TEN, TEN.replace(microsecond=250000),
    ]  # fmt: skip
    assert [message.role for message in messages] == ["user", "assistant", "assistant", "user", "user", "user"]
    assert [message.extra for message in messages[:4]] == [
        {"role": "User"},
        {"role": "Assistant"},
        {"role": "CEO Agent", "score": 0.5},
        None,
    ]
    assert messages[1].thought_process == "hm"
    conversation = lab.conversation("s1")
    assert (conversation.created_at, conversation.updated_at) == (TEN, messages[-1].created_at)
    assert conversation.title == "q"


def test_a_time_that_cannot_be_read_costs_no_message(lab: ImportLab) -> None:
    lab.write(
        "conversations/s1.json",
        [
            {"role": "user", "content": "a", "timestamp": "yesterday"},
            {"role": "user", "content": "b", "timestamp": "2024-01-01T10:00:00"},
            {"role": "user", "content": "c", "timestamp": {"of": "day"}},
            {"role": "user", "content": "d", "timestamp": 1e300},
        ],
    )
    assert lab.run() == 0
    assert [message.created_at for message in lab.messages("s1")] == [TEN] * 4
    assert lab.messages("s1")[0].extra == {"timestamp": "yesterday"}
    assert "message 1: timestamp 'yesterday' cannot be read" in lab.out
    assert "3 warnings" in lab.out


def test_what_has_no_column_of_its_own_is_kept(lab: ImportLab) -> None:
    lab.write(
        "conversations/s1.json",
        {
            "title": "T",
            "tags": ["x"],
            "messages": [{"role": "user", "content": {"a": [1]}, "tokens": 5}],
            "owner": "me",
        },
    )
    assert lab.run() == 0
    assert lab.conversation("s1").title == "T"
    assert lab.conversation("s1").metadata == {"tags": ["x"], "owner": "me"}
    assert lab.messages("s1")[0].content == '{"a": [1]}'
    assert lab.messages("s1")[0].extra == {"tokens": 5}


def test_states_come_in_with_their_other_fields_as_data(lab: ImportLab) -> None:
    state = {"message": "m", "status": "s" * 300, "feedback": "f", "thought_process": "t", "score": 1, "note": None}
    lab.write("states/s1.json", state)
    lab.write("states/s2.json", [{"message": "first", "timestamp": "2024-01-01T10:00:00"}, {"message": "second"}])
    assert lab.run() == 0
    (saved,) = lab.states("s1")
    assert (saved.message, saved.status, saved.feedback, saved.thought_process) == ("m", "s" * 255, "f", "t")
    assert saved.data == {"status": "s" * 300, "score": 1, "note": None}
    assert [(state.message, state.created_at) for state in lab.states("s2")] == [("first", TEN), ("second", TEN)]


def test_a_name_that_cannot_be_a_session_id_is_changed_and_told(lab: ImportLab) -> None:
    lab.write("conversations/.hidden.json", {"role": "user", "content": "hi"})
    assert lab.run() == 0
    assert lab.said("_hidden") == [("user", "hi")]
    assert ".hidden (messages)" in lab.out
    assert "→ _hidden" in lab.out


def test_text_that_cannot_be_stored_is_replaced_and_counted(lab: ImportLab) -> None:
    lab.write("conversations/s1.json", r'[{"role": "user", "content": "a\u0000b\ud800c \ud83d\ude00", "x\u0000": NaN}]')
    assert lab.run() == 0
    assert lab.said("s1") == [("user", "a\ufffdb\ufffdc \U0001f600")]
    assert lab.messages("s1")[0].extra == {"x\ufffd": None}
    assert "2 characters that cannot be stored" in lab.out
    assert "the number nan became null" in lab.out


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_names_the_encoding(lab: ImportLab, encoding: str) -> None:
    lab.write("conversations/s1.json", '[{"role": "user", "content": "grüße \U0001f600"}]'.encode(encoding))
    assert lab.run() == 0
    assert lab.said("s1") == [("user", "grüße \U0001f600")]


def test_an_export_of_our_own_comes_back_as_it_was(lab: ImportLab) -> None:
    message = {
        "message_id": "m", "session_id": "old", "sequence": 7, "role": "assistant", "content": "a",
        "thought_process": "t", "status": "interrupted", "model": "echo", "provider": "echo", "finish_reason": "stop",
        "usage": {"total_tokens": 3}, "timings": None, "error": None, "extra": {"role": "CEO Agent"},
        "created_at": "2024-01-01T10:00:00Z",
    }  # fmt: skip
    header = {"session_id": "old", "title": "T", "archived": True, "local_only": True, "metadata": {"k": 1}}
    header |= {"message_count": 1, "created_at": "2023-01-01T10:00:00Z", "updated_at": "2024-01-01T10:00:00Z"}
    lab.write("conversations/s1.json", header | {"messages": [message]})
    assert lab.run() == 0
    (saved,) = lab.messages("s1")
    kept = message.keys() - {"message_id", "session_id", "sequence", "created_at"}
    assert {name: getattr(saved, name) for name in kept} == {name: message[name] for name in kept}
    conversation = lab.conversation("s1")
    assert (conversation.title, conversation.archived, conversation.local_only) == ("T", True, True)
    assert conversation.metadata == {"k": 1}
    assert conversation.created_at == TEN.replace(year=2023)
