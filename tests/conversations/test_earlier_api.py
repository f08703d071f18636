"""Programs for the earlier AI-Lab call these; none of them knows a server, a loop or a set-up."""

import asyncio
import json
import subprocess
import sys
import textwrap
import threading
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from ai_lab.conversation_db import ConversationManagerDB, DatabaseManager
from ai_lab.errors import InvalidRequest, InvalidSettings
from tests.server import ROOT, ServerProcess, environment, working_folder


@pytest.fixture
def manager(database_url: str) -> ConversationManagerDB:
    return ConversationManagerDB(DatabaseManager(database_url))


def _script(data_dir: Path, program: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "default", "-c", textwrap.dedent(program)],
        cwd=working_folder(data_dir),
        env=environment(data_dir, settings) | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_a_conversation_in_its_earlier_shape(manager: ConversationManagerDB) -> None:
    await manager.add_message("s", "User", "Hello")
    await manager.add_message("s", "Assistant", "Hi", "They greet me.")
    await manager.add_message("s", "user", "Bye", thought_process=None)
    await manager.add_message("s", "Narrator", "They part.")
    history = await manager.get_history("s")
    moments = [datetime.fromisoformat(message.pop("timestamp")) for message in history]
    assert moments == sorted(moments)
    assert moments[0].utcoffset() is not None
    assert history == [
        {"role": "User", "content": "Hello", "thought_process": None},
        {"role": "Assistant", "content": "Hi", "thought_process": "They greet me."},
        {"role": "user", "content": "Bye", "thought_process": None},
        {"role": "Narrator", "content": "They part.", "thought_process": None},
    ]
    await manager.clear_history("s")
    await manager.clear_history("s")
    assert await manager.get_history("s") == []


async def test_the_context_holds_the_newest_messages(manager: ConversationManagerDB) -> None:
    assert await manager.get_context("s") == ""
    for number in range(7):
        await manager.add_message("s", "User", f"message {number}", "thinking" if number == 6 else None)
    moments = [message["timestamp"] for message in await manager.get_history("s")]
    assert await manager.get_context("s", max_messages=2) == (
        "Recent conversation history:\n\n"
        f"[{moments[5]}] User:\nMessage: message 5\n\n"
        f"[{moments[6]}] User:\nMessage: message 6\nThought Process: thinking"
    )
    assert (await manager.get_context("s")).count("Message: ") == 5


async def test_the_newest_agent_state_counts(manager: ConversationManagerDB) -> None:
    assert await manager.get_agent_state("s") is None
    await manager.save_agent_state("s", "plan", "pending", "none yet", "hm")
    await manager.save_agent_state("s", "done", "complete", feedback="good", thought_process="aha")
    state = await manager.get_agent_state("s")
    assert state is not None
    assert datetime.fromisoformat(state.pop("timestamp")).utcoffset() is not None
    assert state == {"message": "done", "status": "complete", "feedback": "good", "thought_process": "aha"}


async def test_fifty_at_once_are_all_kept(manager: ConversationManagerDB) -> None:
    await asyncio.gather(*(manager.add_message("s", "User", str(number)) for number in range(50)))
    assert {message["content"] for message in await manager.get_history("s")} == {str(number) for number in range(50)}


def test_several_loops_one_after_the_other_and_at_once(manager: ConversationManagerDB) -> None:
    async def ten(name: str) -> None:
        await asyncio.gather(*(manager.add_message("s", "User", f"{name}{number}") for number in range(10)))

    before = set(threading.enumerate())
    for name in "abc":
        asyncio.run(ten(name))
    threads = [threading.Thread(target=asyncio.run, args=(ten(name),)) for name in "defg"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asyncio.run(manager.get_history("s"))) == 70
    assert manager._manager._loops == {}
    for thread in set(threading.enumerate()) - before:
        thread.join(5)  # a connection's thread ends a moment after its loop
    assert set(threading.enumerate()) <= before


async def test_a_session_is_one_transaction(database_url: str) -> None:
    manager = DatabaseManager(database_url)
    async with manager.SessionLocal() as session:
        assert (await session.execute(text("SELECT count(*) FROM conversations"))).scalar_one() == 0


@pytest.mark.parametrize(
    ("session_id", "role", "content", "field"),
    [("a/b", "User", "x", "session_id"), ("s", "User", "\x00", "content"), ("s", "User", None, "content"),
     ("s", None, "x", "role"), ("\x00", "User", "x", "session_id"), (7, "User", "x", "session_id")],
)  # fmt: skip
async def test_what_cannot_be_kept_is_refused_by_name(
    manager: ConversationManagerDB, session_id: str, role: str, content: str, field: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"^{field}: "):
        await manager.add_message(session_id, role, content)
    assert await manager.get_history("s") == []


async def test_a_wrong_address_is_said() -> None:
    with pytest.raises(InvalidSettings, match="DATABASE_URL"):
        await DatabaseManager("mysql://x").get_conversation_history("s")


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_script_without_any_set_up(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    settings = {"DATABASE_URL": request.getfixturevalue("postgres_url")} if kind == "postgres" else {}
    done = _script(
        tmp_path / "data",
        """
        import asyncio
        from ai_lab.conversation_db import ConversationManagerDB
        manager = ConversationManagerDB()
        async def both():
            await asyncio.gather(*(manager.add_message("s", "User", str(n)) for n in range(50)))
        asyncio.run(both())
        asyncio.run(manager.add_message("s", "User", "last"))
        print(len(asyncio.run(manager.get_history("s"))))
        """,
        **settings,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "51\n", "")


def test_the_one_line_that_creates_tables(tmp_path: Path) -> None:
    line = "import asyncio; from ai_lab.database import db_manager; asyncio.run(db_manager.create_tables())"
    for _ in range(2):
        done = _script(tmp_path / "data", line)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "data" / "ai_lab.sqlite").exists()


def test_a_loop_that_nobody_ends_in_order_does_not_keep_the_script_from_ending(tmp_path: Path) -> None:
    done = _script(
        tmp_path / "data",
        """
        import asyncio, warnings
        from ai_lab.conversation_db import ConversationManagerDB
        warnings.simplefilter("ignore", ResourceWarning)
        manager = ConversationManagerDB()
        for number in range(2):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(manager.add_message("s", "User", "Hello"))
            if number == 0:
                loop.close()
            print(len(loop.run_until_complete(manager.get_history("s"))) if number else 1)
        """,
    )
    assert (done.returncode, done.stdout) == (0, "1\n2\n"), done.stderr


def test_earlier_clients_see_by_http_what_scripts_see(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    program = """
        import asyncio, json
        from ai_lab.conversation_db import ConversationManagerDB
        manager = ConversationManagerDB()
        asyncio.run(manager.add_message("s", "User", "Hello", "hm"))
        print(json.dumps(asyncio.run(manager.get_history("s"))))
        """
    with ServerProcess(data_dir) as server:
        history = _script(data_dir, program).stdout
        with httpx.Client(base_url=server.url, timeout=60) as client:
            answer = client.get("/conversation/s")
            assert answer.json() == {"session_id": "s", "history": json.loads(history)}
            assert client.get("/conversation/none").json() == {"session_id": "none", "history": []}
            assert [client.delete("/conversation/s").json()["status"] for _ in range(2)] == ["success", "success"]
            assert client.get("/conversation/s").json()["history"] == []
