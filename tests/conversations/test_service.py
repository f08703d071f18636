import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, update
from sqlalchemy.engine import make_url

from ai_lab.conversations import Conversations, Message, NewMessage
from ai_lab.conversations.schemas import ConversationChange, NewConversation
from ai_lab.database import Database, instances
from ai_lab.errors import Conflict, ConversationExists, ConversationNotFound, IdempotencyKeyReused, InvalidCursor

ANSWER: dict[str, Any] = {"model": "m", "provider": "p", "writer_id": "w"}


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(make_url(database_url))
    yield database
    await database.close()


@pytest.fixture
def conversations(database: Database) -> Conversations:
    return Conversations(database)


def user(content: str) -> NewMessage:
    return NewMessage(role="user", content=content)


async def test_messages_come_back_in_the_order_in_which_they_were_said(conversations: Conversations) -> None:
    for number in range(25):
        await conversations.append("s", user(f"message {number}"))
    first = await conversations.messages("s", limit=20)
    rest = await conversations.messages("s", limit=20, after=first.after)
    assert [m.content for m in [*first.data, *rest.data]] == [f"message {n}" for n in range(25)]
    assert [m.sequence for m in [*first.data, *rest.data]] == list(range(1, 26))
    assert (first.has_more, rest.has_more, rest.after) == (True, False, None)


async def test_fifty_writers_of_one_session_get_numbers_without_gap_or_double(conversations: Conversations) -> None:
    async def write(writer: int) -> None:
        for number in range(8):
            await conversations.append("shared", user(f"{writer}/{number}"))

    await asyncio.gather(*(write(writer) for writer in range(50)))
    messages = [message async for message in conversations.all_messages("shared")]
    assert [message.sequence for message in messages] == list(range(1, 401))
    assert len({message.content for message in messages}) == 400
    for writer in range(50):  # and each writer's own order is kept
        mine = [m.content for m in messages if m.content.startswith(f"{writer}/")]
        assert mine == [f"{writer}/{number}" for number in range(8)]


async def test_the_first_words_become_the_title_and_a_given_one_stays(conversations: Conversations) -> None:
    await conversations.append("s", user("  What is\n\nthe answer? " + "x" * 200))
    title = (await conversations.get("s")).title
    assert title is not None
    assert title.startswith("What is the answer? xxx")
    assert len(title) == 80
    await conversations.change("s", ConversationChange(title="Mine"))
    await conversations.append("s", user("another"))
    assert (await conversations.get("s")).title == "Mine"


async def test_changing_one_field_leaves_the_others(conversations: Conversations) -> None:
    await conversations.create(NewConversation(session_id="s", title="T", metadata={"a": [1, None, "ü"]}))
    changed = await conversations.change("s", ConversationChange(archived=True))
    assert (changed.title, changed.archived, changed.metadata) == ("T", True, {"a": [1, None, "ü"]})
    assert (await conversations.change("s", ConversationChange(title=None))).title is None


async def test_a_taken_session_id_is_refused_and_nothing_changes(conversations: Conversations) -> None:
    await conversations.create(NewConversation(session_id="s", title="first"))
    with pytest.raises(ConversationExists):
        await conversations.create(NewConversation(session_id="s", title="second"))
    assert (await conversations.get("s")).title == "first"


@pytest.mark.parametrize("archived", [False, True, None])
async def test_pages_show_every_conversation_once(conversations: Conversations, archived: bool | None) -> None:
    for number in range(7):
        await conversations.append(f"s{number}", user("x"))
    await conversations.change("s3", ConversationChange(archived=True))
    seen, after = [], None
    while True:
        page = await conversations.page(limit=2, after=after, archived=archived)
        seen += [c.session_id for c in page.data]
        after = page.after
        if not page.has_more:
            break
    expected = {False: {"s0", "s1", "s2", "s4", "s5", "s6"}, True: {"s3"}, None: {f"s{n}" for n in range(7)}}[archived]
    assert set(seen) == expected
    assert len(seen) == len(expected)


@pytest.mark.parametrize(
    "cursor", ["x", "", "bnVsbA", "WyIyMDI2LTAxLTAxIiwgInMiXQ", "W10", "🙂", "W1tdXQ", "Wzk5OTk5OTk5OTk5OV0"]
)
async def test_a_cursor_from_elsewhere_is_refused(conversations: Conversations, cursor: str) -> None:
    await conversations.append("s", user("x"))
    if cursor:  # an empty one is none
        with pytest.raises(InvalidCursor):
            await conversations.page(after=cursor)
        with pytest.raises(InvalidCursor):
            await conversations.messages("s", after=cursor)


async def test_deleting_takes_the_messages_and_their_search_entries_along(conversations: Conversations) -> None:
    await conversations.append("s", user("a rare walrus"))
    await conversations.delete("s")
    assert (await conversations.page(query="walrus")).data == []
    with pytest.raises(ConversationNotFound):
        await conversations.messages("s")
    with pytest.raises(ConversationNotFound):
        await conversations.delete("s")
    assert (await conversations.append("s", user("again"))).sequence == 1


async def test_a_repeated_idempotency_key_does_the_work_once(conversations: Conversations) -> None:
    first = await conversations.append("s", user("once"), idempotency_key="k")
    again = await conversations.append("s", user("once"), idempotency_key="k")
    assert first.message_id == again.message_id
    assert (await conversations.get("s")).message_count == 1
    with pytest.raises(IdempotencyKeyReused):
        await conversations.append("s", user("something else"), idempotency_key="k")
    created = await conversations.create(NewConversation(), "c")
    assert (await conversations.create(NewConversation(), "c")).session_id == created.session_id


async def test_equal_keys_at_the_same_instant_do_the_work_once(conversations: Conversations) -> None:
    await conversations.append("s", user("before"))
    results = await asyncio.gather(
        *(conversations.append("s", user("once"), idempotency_key="k") for _ in range(10)), return_exceptions=True
    )
    saved = {result.message_id for result in results if isinstance(result, Message)}
    assert len(saved) == 1
    assert all(isinstance(result, Message | Conflict) for result in results)
    assert [m.content for m in (await conversations.messages("s")).data] == ["before", "once"]


async def test_the_time_at_which_something_was_said_is_kept(conversations: Conversations) -> None:
    said_at = datetime(2021, 5, 4, 12, 30, 15, 123456, tzinfo=UTC) + timedelta(hours=2)
    await conversations.append("s", NewMessage(role="user", content="x", created_at=said_at))
    (message,) = (await conversations.messages("s")).data
    assert message.created_at == said_at


class TestSearch:
    """Words of the user, never a query language."""

    @pytest.mark.parametrize("query", ["walrus", "WALRUS", "wal", "grey walrus", "said walr", "don't", '"walrus"'])
    async def test_finds_messages_that_hold_all_words(self, conversations: Conversations, query: str) -> None:
        await conversations.append("s", user('The grey "walrus" said: don\'t'))
        await conversations.append("other", user("nothing of it"))
        (found,) = (await conversations.page(query=query)).data
        assert found.session_id == "s"
        assert found.matches is not None
        assert "walrus" in found.matches[0].snippet

    @pytest.mark.parametrize("query", ["walrus zebra", "alrus", "rus grey"])
    async def test_leaves_out_what_misses_a_word(self, conversations: Conversations, query: str) -> None:
        await conversations.append("s", user("The grey walrus"))
        await conversations.change("s", ConversationChange(title="a title counts too"))
        assert (await conversations.page(query=query)).data == []

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(query=st.text(max_size=60).filter(lambda text: "\x00" not in text and text.isprintable()))
    async def test_no_query_breaks_it(self, conversations: Conversations, query: str) -> None:
        await conversations.page(query=query)

    @pytest.mark.parametrize(
        "query",
        ['"', '" OR 1', "NEAR(", "*", "';--", "a AND", "NOT", "(", "content:x", "^a", "{a}", "a:b", "%", "\\", "&|!"],
    )
    async def test_signs_of_query_languages_are_plain_text(self, conversations: Conversations, query: str) -> None:
        await conversations.append("s", user(f"before {query} after"))
        await conversations.page(query=query)
        assert [c.session_id for c in (await conversations.page(query=f"before {query} after")).data] == ["s"]

    async def test_an_answer_is_found_once_it_has_ended(self, conversations: Conversations) -> None:
        turn = await conversations.start_turn("s", "q", system=None, answer=ANSWER)
        assert turn.answer is not None
        await conversations.write_answer(turn.answer.message_id, content="a walrus")
        await conversations.write_answer(turn.answer.message_id, content="a walrus swims", status="complete")
        (found,) = (await conversations.page(query="swims")).data
        assert found.matches is not None
        assert [m.message_id for m in found.matches] == [turn.answer.message_id]

    async def test_a_message_full_of_hits_is_found_as_quickly_as_another(self, conversations: Conversations) -> None:
        """A snippet of one with 32,000 hits took SQLite 10 s, and those who waited for it got nothing."""
        await conversations.append("s", user("error in line 7\n" * 30_000))
        async with asyncio.timeout(8):
            (found,) = (await conversations.page(query="error")).data
        assert found.matches is not None
        assert "error" in found.matches[0].snippet

    async def test_a_very_long_message_of_many_words_can_be_kept_and_found(self, conversations: Conversations) -> None:
        content = " ".join(f"wörd{number}" for number in range(150_000))
        await conversations.append("s", user("needle " + content))
        assert [c.session_id for c in (await conversations.page(query="needle")).data] == ["s"]


class TestAnswers:
    async def test_an_ended_answer_cannot_be_changed(self, conversations: Conversations) -> None:
        turn = await conversations.start_turn("s", "q", system=None, answer=ANSWER)
        assert turn.answer is not None
        assert await conversations.write_answer(turn.answer.message_id, content="whole", status="complete")
        assert not await conversations.write_answer(turn.answer.message_id, content="late", status="failed")
        assert (await conversations.messages("s")).data[-1].content == "whole"

    async def test_only_the_answers_of_dead_writers_are_closed(
        self, conversations: Conversations, database: Database
    ) -> None:
        async with database.transaction() as db:
            alive_id = await instances.register(db)
        answers = {}
        for writer in ("dead", alive_id):
            turn = await conversations.start_turn(writer, "q", system=None, answer=ANSWER | {"writer_id": writer})
            assert turn.answer is not None
            await conversations.write_answer(turn.answer.message_id, content="half")
            answers[writer] = turn.answer.message_id
        assert await conversations.close_orphans() == 1
        (_, dead), (_, alive) = [(await conversations.messages(s)).data for s in answers]
        assert (dead.status, dead.content, alive.status) == ("interrupted", "half", "streaming")
        # A writer that was taken for dead and is not still brings its answer to its end.
        assert await conversations.write_answer(answers["dead"], content="whole", status="complete")

    async def test_a_process_given_up_by_another_one_comes_back(self, database: Database) -> None:
        async with database.transaction() as db:
            own_id = await instances.register(db)
            await db.execute(update(instances.server_instances).values(process_started=5.0))
            await instances.forget_dead(db, own_id)
            rows = (await db.execute(select(instances.server_instances.c.id))).scalars().all()
            assert rows == [own_id]
            await db.execute(delete(instances.server_instances))
            await instances.renew(db, own_id)
            assert (await db.execute(select(instances.server_instances.c.id))).scalars().all() == [own_id]

    async def test_a_process_that_has_ended_is_a_dead_one(self, database: Database) -> None:
        ended = subprocess.Popen([sys.executable, "-c", ""])  # noqa: ASYNC220 - it ends at once
        ended.wait()
        async with database.transaction() as db:
            await instances.register(db)
            await db.execute(update(instances.server_instances).values(pid=ended.pid))
            own_id = await instances.register(db)
            await instances.forget_dead(db, own_id)
            rows = (await db.execute(select(instances.server_instances.c.id))).scalars().all()
        assert rows == [own_id]

    async def test_another_process_with_our_number_is_a_dead_one(self, database: Database) -> None:
        """In a container every start has the same process number."""
        async with database.transaction() as db:
            before = await instances.register(db)
            await db.execute(update(instances.server_instances).values(process_started=5.0))
            own_id = await instances.register(db)
            await instances.forget_dead(db, own_id)
            rows = (await db.execute(select(instances.server_instances.c.id))).scalars().all()
        assert before not in rows
        assert rows == [own_id]

    async def test_a_prompt_sees_ended_messages_and_the_system_message_however_old(
        self, conversations: Conversations
    ) -> None:
        await conversations.append("s", NewMessage(role="system", content="be brief"))
        for number in range(30):
            await conversations.append("s", user(str(number)))
        await conversations.start_turn("s", "open", system=None, answer=ANSWER)
        rows = (await conversations.prompt_history("s", before=None, limit=3)).rows
        assert [row["content"] for row in rows] == ["be brief", "28", "29", "open"]
