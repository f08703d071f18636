"""Nothing comes in twice, nothing is mixed, nothing is lost, and no source is touched."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from ai_lab.conversations import Conversations, NewMessage
from ai_lab.database import Database
from tests.importer.import_lab import ImportLab


def said(*texts: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text, "timestamp": "2024-01-01T10:00:00"} for text in texts]


def everything(lab: ImportLab) -> None:
    lab.write("conversations/a.json", said("1", "2"))
    lab.write("conversations/empty.json", [])
    lab.write("states/a.json", {"message": "m", "status": "s", "feedback": "", "thought_process": ""})
    lab.write("conversations.json", [{"id": "c", "messages": said("x")}])
    lab.write("chat.jsonl", json.dumps({"messages": said("y")}) + "\n" + json.dumps({"messages": said("y")}))


def append(lab: ImportLab, session_id: str, text: str) -> None:
    async def go() -> None:
        database = Database(make_url(lab.url), pooled=False)
        await Conversations(database).append(session_id, NewMessage(role="user", content=text))
        await database.close()

    asyncio.run(go())


def delete(lab: ImportLab, session_id: str) -> None:
    async def go() -> None:
        database = Database(make_url(lab.url), pooled=False)
        await Conversations(database).delete(session_id)
        await database.close()

    asyncio.run(go())


def test_a_second_run_adds_nothing_and_says_so(lab: ImportLab) -> None:
    everything(lab)
    first, second = lab.report()["totals"], lab.report()["totals"]
    nothing = dict.fromkeys(first, 0)
    assert first == nothing | {"conversations": 4, "messages": 5, "states": 1, "skipped": 1}
    assert second == nothing | {"skipped": 6}
    assert lab.run() == 0
    assert "Nothing new came in" in lab.out
    assert lab.sessions() == {"a", "c", "chat-1", "chat-2"}


def test_the_same_source_from_another_place_is_known(lab: ImportLab) -> None:
    lab.write("conversations/a.json", said("1", "2"))
    lab.run()
    lab.write("moved/conversations/a.json", said("1", "2"))
    assert lab.run("--source", str(lab.source / "moved")) == 0
    assert lab.sessions() == {"a"}


def test_of_a_conversation_that_went_on_only_the_rest_comes_in(lab: ImportLab) -> None:
    lab.write("conversations/a.json", said("1", "2"))
    lab.run()
    lab.write("conversations/a.json", said("1", "2", "3", "4"))
    assert lab.report()["totals"]["messages"] == 2
    assert [message.content for message in lab.messages("a")] == ["1", "2", "3", "4"]
    assert [message.sequence for message in lab.messages("a")] == [1, 2, 3, 4]
    assert lab.conversation("a").message_count == 4
    assert lab.report()["totals"]["skipped"] == 1


def test_what_was_deleted_here_does_not_come_back_and_is_named(lab: ImportLab) -> None:
    lab.write("conversations/a.json", said("1"))
    lab.run()
    delete(lab, "a")
    for arguments in ([], ["--dry-run"]):
        assert lab.run(*arguments) == 0
        assert "Deleted here since an earlier import" in lab.out
        assert lab.sessions() == set()


def test_states_of_an_agent_that_went_on_are_added(lab: ImportLab) -> None:
    lab.write("states/a.json", [{"message": "1"}])
    lab.run()
    lab.write("states/a.json", [{"message": "1"}, {"message": "2"}])
    lab.run()
    assert [(state.sequence, state.message) for state in lab.states("a")] == [(1, "1"), (2, "2")]


def test_an_older_copy_of_what_is_there_adds_nothing(lab: ImportLab) -> None:
    lab.write("conversations/a.json", said("1", "2", "3"))
    lab.run()
    lab.write("conversations/a.json", said("1", "2"))
    assert lab.report()["totals"]["skipped"] == 1
    assert lab.said("a") == [("user", "1"), ("user", "2"), ("user", "3")]


def test_a_session_that_says_something_else_is_never_mixed(lab: ImportLab) -> None:
    append(lab, "a", "from today")
    lab.write("conversations/a.json", said("1"))
    assert lab.run() == 0
    assert "→ a-imported" in lab.out
    lab.write("conversations/a.json", said("other"))
    assert lab.run() == 0
    lab.write("conversations/a.json", said("1", "2"))
    assert lab.run() == 0
    assert lab.said("a") == [("user", "from today")]
    assert lab.said("a-imported") == [("user", "1"), ("user", "2")]
    assert lab.said("a-imported-2") == [("user", "other")]


def test_an_imported_conversation_that_was_used_since_is_not_mixed_with_a_longer_source(lab: ImportLab) -> None:
    lab.write("conversations/a.json", said("1"))
    lab.run()
    append(lab, "a", "from today")
    assert lab.report()["totals"]["skipped"] == 1
    lab.write("conversations/a.json", said("1", "2"))
    lab.run()
    assert lab.said("a") == [("user", "1"), ("user", "from today")]
    assert lab.said("a-imported") == [("user", "1"), ("user", "2")]


def test_the_same_words_at_another_time_are_another_conversation(lab: ImportLab) -> None:
    lab.write("conversations/a.json", said("1"))
    lab.run()
    lab.write("conversations/a.json", [said("1")[0] | {"timestamp": "2025-01-01T10:00:00"}])
    lab.run()
    assert lab.sessions() == {"a", "a-imported"}


def test_the_json_files_and_the_line_file_of_one_session_meet(lab: ImportLab) -> None:
    lab.write("conversations/a.json", said("1"))
    lab.write("a.jsonl", "".join(json.dumps(message) + "\n" for message in said("1", "2")))
    assert lab.report()["totals"]["messages"] == 2
    assert lab.said("a") == [("user", "1"), ("user", "2")]


def test_a_rehearsal_says_what_the_import_then_does(lab: ImportLab) -> None:
    everything(lab)
    append(lab, "a", "from today")
    lab.write("conversations/b.json", said("1"))
    lab.write("b.jsonl", "".join(json.dumps(message) + "\n" for message in said("1", "2")))
    lab.write("conversations/damaged.json", "[{]")
    lab.write("conversations/c.json", said("z"))
    for _ in range(2):  # the first time into an empty database, then into one that has everything
        rehearsed = lab.report("--dry-run")
        sessions = lab.sessions()
        done = lab.report()
        assert rehearsed["totals"] == done["totals"]
        assert rehearsed["sources"] == done["sources"]
        assert sessions == (lab.sessions() if not done["totals"]["messages"] else {"a"})
    assert done["totals"]["messages"] == 0


def test_a_rehearsal_changes_nothing_not_even_an_absent_database(
    lab: ImportLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything(lab)
    monkeypatch.setenv("DATABASE_URL", f"sqlite+aiosqlite:///{tmp_path}/absent/lab.sqlite")
    before = lab.fingerprint()
    assert lab.run("--dry-run") == 0
    assert "a.json" in lab.out
    assert "4 conversations, 5 messages, 1 states" in lab.out
    assert not (tmp_path / "absent").exists()
    assert lab.fingerprint() == before


def test_sources_are_never_changed(lab: ImportLab) -> None:
    everything(lab)
    lab.write("conversations/damaged.json", b"\xff")
    (lab.source / "conversations").chmod(0o500)
    before = lab.fingerprint()
    lab.run()
    lab.run()
    (lab.source / "conversations").chmod(0o700)
    assert lab.fingerprint() == before


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "Nothing to import in"),
        ({"conversations/a.txt": "x", "notes.md": "x"}, "looked for conversations/*.json"),
    ],
)
def test_a_folder_without_anything_to_import_is_told(lab: ImportLab, files: dict[str, Any], message: str) -> None:
    for name, content in files.items():
        lab.write(name, content)
    assert lab.run() == 2
    assert message in lab.err
    assert lab.err.startswith("error: ")
    assert lab.err.count("\n") == 1


def test_what_cannot_start_says_why_on_one_line(lab: ImportLab, tmp_path: Path) -> None:
    assert lab.run("--source", str(tmp_path / "absent")) == 2
    assert "There is no folder" in lab.err
    everything(lab)
    assert lab.run("--report", str(tmp_path / "absent" / "report.json")) == 2
    assert "The report cannot be written" in lab.err
    assert lab.sessions() == set()


def test_the_current_folder_is_the_default_source(lab: ImportLab, monkeypatch: pytest.MonkeyPatch) -> None:
    from ai_lab.importer.command import main  # noqa: PLC0415 - the one place that leaves --source out

    everything(lab)
    monkeypatch.chdir(lab.source)
    assert main([]) == 0
    assert "a" in lab.sessions()
