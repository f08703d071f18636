"""What is exported comes back as it was, once, and never mixed with anything else."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select
from sqlalchemy.engine import make_url

from ai_lab.clock import new_id, now
from ai_lab.conversations import Conversations, NewMessage
from ai_lab.conversations.entries import Damage, read_json, read_jsonl
from ai_lab.conversations.export import export_conversation, export_everything
from ai_lab.conversations.restore import ImportReport, restore
from ai_lab.conversations.schemas import ConversationChange
from ai_lab.conversations.tables import conversations as conversation_table
from ai_lab.conversations.tables import messages as message_table
from ai_lab.database import Database
from ai_lab.database.rows import every

Kind = Literal["json", "jsonl"]
KINDS: tuple[Kind, ...] = ("json", "jsonl")

TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)
NAMES = st.text(
    st.characters(exclude_characters="\x00/\\", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=10
).filter(lambda name: not name.startswith("."))
# Whole numbers and short fractions: Postgres gives 1e300 back as a whole number of 301 digits.
NUMBERS = st.integers(-(2**63), 2**63) | st.floats(-1e6, 1e6).map(lambda number: round(number, 3))
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
OBJECTS = st.none() | st.dictionaries(TEXTS, SCALARS | st.lists(SCALARS, max_size=2), max_size=2)
MOMENTS = st.datetimes().map(lambda moment: moment.replace(tzinfo=now().tzinfo))
MESSAGES = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "assistant", "tool"]),
        "content": TEXTS,
        "thought_process": st.none() | TEXTS,
        "status": st.sampled_from(["complete", "incomplete", "interrupted", "failed"]),
        "model": st.none() | TEXTS,
        "provider": st.none() | TEXTS,
        "finish_reason": st.none() | TEXTS,
        "usage": OBJECTS,
        "timings": OBJECTS,
        "error": OBJECTS,
        "extra": OBJECTS,
        "created_at": MOMENTS,
    }
)
HEADS = st.fixed_dictionaries(
    {
        "title": st.none() | TEXTS,
        "archived": st.booleans(),
        "local_only": st.booleans(),
        "metadata": OBJECTS,
        "created_at": MOMENTS,
        "updated_at": MOMENTS,
    }
)
LABS = st.dictionaries(NAMES, st.tuples(HEADS, st.lists(MESSAGES, max_size=3)), max_size=2)


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Database]:
    database = Database(make_url(url))
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with _opened(database_url) as opened:
        yield opened


async def _fill(database: Database, lab: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]]) -> None:
    async with database.transaction() as db:
        for session_id, (head, rows) in lab.items():
            await db.execute(
                insert(conversation_table).values(head | {"session_id": session_id, "last_sequence": len(rows)})
            )
            question = None
            for sequence, row in enumerate(rows, 1):
                place = {"session_id": session_id, "sequence": sequence, "message_id": new_id(), "reply_to": question}
                await db.execute(insert(message_table).values(row | place | {"updated_at": row["created_at"]}))
                question = place["message_id"]


async def _rows(database: Database) -> list[dict[str, Any]]:
    """Return all that the database holds of conversations, but for the numbers of rows."""
    async with database.reading() as db:
        heads = every(await db.execute(select(conversation_table).order_by("session_id")))
        rows = every(await db.execute(select(message_table).order_by("session_id", "sequence")))
    return heads + [row | {"number": None} for row in rows]


async def _empty(database: Database) -> None:
    async with database.transaction() as db:
        await db.execute(conversation_table.delete())


async def _everything(database: Database, kind: Kind = "jsonl") -> bytes:
    return b"".join([block async for block in export_everything(Conversations(database), kind)])


async def _import(database: Database, data: bytes, kind: Kind = "jsonl") -> ImportReport:
    return await restore(database, read_json(data) if kind == "json" else read_jsonl(data))


async def _texts(database: Database, session_id: str) -> list[str]:
    return [message.content async for message in Conversations(database).all_messages(session_id)]


async def _say(database: Database, session_id: str, *texts: str) -> None:
    for text in texts:
        await Conversations(database).append(session_id, NewMessage(role="user", content=text))


def test_everything_comes_back_as_it_was(database_url: str, thorough: bool) -> None:
    async def round_trip(lab: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]], kind: Kind) -> None:
        async with _opened(database_url) as database:
            await _empty(database)
            await _fill(database, lab)
            rows = await _rows(database)
            exported = await _everything(database, kind)
            again = await _import(database, exported, kind)
            assert again == ImportReport(skipped=again.skipped)
            assert sorted(again.skipped) == sorted(lab)
            await _empty(database)
            first = await _import(database, exported, kind)
            assert first == ImportReport(imported=first.imported)
            assert sorted(first.imported) == sorted(lab)
            assert await _rows(database) == rows
            assert await _everything(database, kind) == exported
            assert len(exported.decode().splitlines()) == exported.count(b"\n")

    @settings(max_examples=300 if thorough else 30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(lab=LABS, kind=st.sampled_from(KINDS))
    def every_lab(lab: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]], kind: Kind) -> None:
        asyncio.run(round_trip(lab, kind))

    every_lab()


async def test_one_conversation_comes_back_from_either_format(database: Database) -> None:
    await _say(database, "a", "one", "two\u2028three")
    conversation = await Conversations(database).get("a")
    for kind in KINDS:
        data = b"".join([block async for block in export_conversation(Conversations(database), conversation, kind)])
        await _empty(database)
        assert (await _import(database, data, kind)).imported == ["a"]
        assert await _texts(database, "a") == ["one", "two\u2028three"]
        assert (await Conversations(database).get("a")).model_dump() == conversation.model_dump()


async def test_another_conversation_of_that_name_is_never_mixed_in(database: Database) -> None:
    await _say(database, "a", "mine")
    exported = await _everything(database)
    await _empty(database)
    await _say(database, "a", "yours")
    report = await _import(database, exported)
    assert [(item.session_id, report.imported, report.failed) for item in report.renamed] == [("a", [], [])]
    new_session_id = report.renamed[0].new_session_id
    assert await _texts(database, "a") == ["yours"]
    assert await _texts(database, new_session_id) == ["mine"]
    again = await _import(database, exported)
    assert again == ImportReport(skipped=[new_session_id])


async def test_a_conversation_that_has_gone_on_is_there_already(database: Database) -> None:
    await _say(database, "a", "one")
    exported = await _everything(database)
    await _say(database, "a", "two")
    assert await _import(database, exported) == ImportReport(skipped=["a"])
    assert await _texts(database, "a") == ["one", "two"]


async def test_a_longer_conversation_comes_in_beside_the_shorter_one(database: Database) -> None:
    await _say(database, "a", "one", "two")
    exported = await _everything(database)
    await _empty(database)
    await _say(database, "a", "one")
    report = await _import(database, exported)
    assert await _texts(database, report.renamed[0].new_session_id) == ["one", "two"]
    assert await _texts(database, "a") == ["one"]


async def test_messages_are_numbered_on_and_can_be_appended_to(database: Database) -> None:
    await _say(database, "a", "one", "two")
    exported = await _everything(database)
    await _empty(database)
    await _import(database, exported)
    message = await Conversations(database).append("a", NewMessage(role="user", content="three"))
    assert message.sequence == 3


async def test_plain_chat_lines_of_other_programs_come_in_once(database: Database) -> None:
    line = {"messages": [{"role": "user", "content": "Hi", "name": "Ann"}, {"role": "assistant", "content": None}]}
    data = json.dumps(line | {"source": "elsewhere"}).encode() + b"\n"
    (session_id,) = (await _import(database, data)).imported
    messages = [message async for message in Conversations(database).all_messages(session_id)]
    assert [(message.role, message.content, message.extra) for message in messages] == [
        ("user", "Hi", {"name": "Ann"}),
        ("assistant", "", None),
    ]
    assert (await Conversations(database).get(session_id)).metadata == {"source": "elsewhere"}
    assert await _import(database, data) == ImportReport(skipped=[session_id])


DAMAGED_LINES = {
    b"{": "line 2, column 1",
    b"\xff": "line 2, byte 1",
    b"7": "line 2",
    b'{"messages": [{"role": "user"}]}': "line 2",
    b'{"messages": [{"role": "narrator", "content": "x"}]}': "line 2",
    b'{"messages": [{"role": "user", "content": "\\u0000"}]}': "line 2",
    b'{"messages": [{"role": "user", "content": "\\ud800"}]}': "line 2",
    b'{"messages": [{"role": "user", "content": "x", "extra": {"a": NaN}}]}': "line 2",
    b'{"messages": [{"role": "user", "content": "x", "unknown": ["\\ud800"]}]}': "line 2",
    b'{"messages": [{"role": "user", "content": "x", "created_at": "0000-01-01T00:00:00Z"}]}': "line 2",
    b'{"messages": [], "session_id": "a/b"}': "line 2",
    b'{"messages": [], "metadata": ' + b'{"a":' * 200 + b"1" + b"}" * 200 + b"}": "line 2",
    b"[" * 100_000: "line 2",
    b"1" * 5000: "line 2",
}


@pytest.mark.parametrize("damaged", DAMAGED_LINES, ids=lambda line: line[:60].decode("latin-1"))
def test_a_damaged_line_costs_no_other_one(damaged: bytes) -> None:
    lines = [b'{"session_id": "%d", "messages": []}' % number for number in range(2)]
    entries = list(read_jsonl(b"\n".join([lines[0], damaged, lines[1]])))
    assert [entry.position for entry in entries] == ["line 1", DAMAGED_LINES[damaged], "line 3"]
    assert [isinstance(entry.content, Damage) for entry in entries] == [False, True, False]


async def test_what_is_whole_comes_in_and_the_rest_is_reported(database: Database) -> None:
    report = await _import(database, b'{"messages": [], "session_id": "a"}\n{\n{"messages": [], "session_id": "b"}')
    assert report.imported == ["a", "b"]
    assert [failure.position for failure in report.failed] == ["line 2, column 1"]
    assert (await _everything(database)).count(b"\n") == 2


@pytest.mark.parametrize(
    ("data", "imported", "position"),
    [
        (b'[{"messages": [], "session_id": "0"},\n {"messages": [', ["0"], "entry 2, line 2, column 16"),
        (b'[{"messages": [], "session_id": "0"} {}]', ["0"], "entry 2, line 1, column 38"),
        (b'[{"messages": [], "session_id": "0"}] x', ["0"], "entry 2, line 1, column 39"),
        (b'[{"messages": [], "session_id": "0"}, {}, {"messages": [], "session_id": "1"}]', ["0", "1"], "entry 2"),
        (b'[{"messages": [], "session_id": "0"}, "\xff"]', ["0"], "entry 2, byte 40"),
        (b"", [], "entry 1, line 1, column 1"),
        (b"\xff\xfe[\x00", [], "entry 1, byte 1"),
        (b'["' + b"[" * 100, [], "entry 1, line 1, column 2"),
    ],
)
def test_a_damaged_list_can_be_read_up_to_there(data: bytes, imported: list[str], position: str) -> None:
    entries = list(read_json(data))
    whole = [entry.content.session_id for entry in entries if not isinstance(entry.content, Damage)]
    assert whole == imported
    assert [entry.position for entry in entries if isinstance(entry.content, Damage)] == [position]


async def test_what_was_being_said_during_the_export_counts_as_interrupted(database: Database) -> None:
    conversations = Conversations(database)
    await conversations.start_turn("a", "Hi", system=None, answer={"writer_id": new_id()})
    exported = await _everything(database)
    assert await _import(database, exported) == ImportReport(skipped=["a"])
    await _empty(database)
    await _import(database, exported)
    messages = [message async for message in conversations.all_messages("a")]
    assert [message.status for message in messages] == ["complete", "interrupted"]
    assert messages[1].reply_to == messages[0].message_id


async def test_messages_beside_others_get_ids_of_their_own(database: Database) -> None:
    conversations = Conversations(database)
    await conversations.start_turn("a", "Hi", system=None, answer={})
    exported = await _everything(database)
    await conversations.delete("a")
    await _import(database, exported.replace(b'"session_id":"a"', b'"session_id":"b"'))
    report = await _import(database, exported)
    assert report.imported == ["a"]
    first = [message async for message in conversations.all_messages("a")]
    second = [message async for message in conversations.all_messages("b")]
    assert len({message.message_id for message in first + second}) == 4
    assert first[1].reply_to == first[0].message_id


async def test_ids_that_come_twice_and_the_ends_of_the_calendar_do_no_harm(database: Database) -> None:
    messages = [
        {"message_id": "m", "role": "user", "content": "x", "created_at": "0001-01-01T00:00:00+14:00"},
        {"message_id": "m", "role": "user", "content": "y", "created_at": "9999-12-31T23:00:00-12:00"},
        {"message_id": "", "role": "assistant", "content": "z", "reply_to": ""},
    ]
    data = json.dumps({"messages": messages}).encode()
    assert len((await _import(database, data)).imported) == 1
    assert len((await _import(database, data)).skipped) == 1


async def test_none_is_missed_in_a_large_lab(database: Database) -> None:
    head = {"created_at": now(), "updated_at": now()}
    await _fill(database, {f"s{number}": (head, []) for number in range(401)})
    conversations = Conversations(database)
    await conversations.change("s7", ConversationChange(archived=True))
    lines = (await _everything(database)).splitlines()
    assert {json.loads(line)["session_id"] for line in lines} == {f"s{number}" for number in range(401)}
