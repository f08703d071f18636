from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import pytest

from tests.importer.import_lab import ImportLab

# What is read does not depend on the kind of database.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

SCHEMA = """
CREATE TABLE conversations (id TEXT PRIMARY KEY, session_id TEXT, role TEXT, content TEXT, thought_process TEXT,
                            timestamp DATETIME);
CREATE TABLE agent_states (id INTEGER PRIMARY KEY, session_id TEXT, message TEXT, status TEXT, feedback TEXT,
                           thought_process TEXT, timestamp DATETIME);
CREATE TABLE api_keys (id INTEGER PRIMARY KEY, service_name TEXT, encrypted_key TEXT, is_active BOOLEAN);
CREATE TABLE performance_metrics (id INTEGER PRIMARY KEY, metric_name TEXT, metric_value FLOAT);
INSERT INTO api_keys (service_name) VALUES ('openai'), ('mistral');
INSERT INTO performance_metrics (metric_name) VALUES ('cpu'), ('cpu'), ('cpu');
INSERT INTO conversations VALUES
    ('9', 's1', 'User', 'first', NULL, '2024-01-01 10:00:00.000001'),
    ('1', 's2', 'User', 'other', NULL, '2024-01-01 10:00:00'),
    ('5', 's1', 'Assistant', 'third', 'hm', '2024-01-01T12:00:00'),
    ('3', 's1', 'Assistant', 'second', '', '2024-01-01T11:30:00+01:00');
INSERT INTO agent_states VALUES
    (1, 's1', 'm1', 'pending', 'f', 't', '2024-01-01 10:00:00'),
    (2, 's1', 'm2', 'done', NULL, NULL, '2024-01-01 11:00:00');
"""


@pytest.fixture
def old(lab: ImportLab) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(lab.source / "ai_lab.db")) as db:
        db.executescript(SCHEMA)
        yield db


def bring_in(lab: ImportLab, *arguments: str) -> int:
    return lab.run("--from-database", str(lab.source / "ai_lab.db"), *arguments)


@pytest.mark.usefixtures("old")
def test_messages_and_states_come_in_by_session_and_time(lab: ImportLab) -> None:
    assert bring_in(lab) == 0
    assert lab.said("s1") == [("user", "first"), ("assistant", "second"), ("assistant", "third")]
    assert lab.said("s2") == [("user", "other")]
    assert lab.messages("s1")[0].created_at == datetime(2024, 1, 1, 10, 0, 0, 1, tzinfo=UTC)
    assert lab.messages("s1")[2].thought_process == "hm"
    assert [(s.message, s.status, s.feedback) for s in lab.states("s1")] == [("m1", "pending", "f"), ("m2", "done", "")]
    assert bring_in(lab) == 0
    assert "Nothing new came in" in lab.out


@pytest.mark.usefixtures("old")
def test_keys_are_counted_and_the_command_that_brings_them_in_is_named(lab: ImportLab) -> None:
    bring_in(lab)
    command = f"./ai-lab keys import --from-database {lab.source / 'ai_lab.db'}"
    assert f"API keys: 2. Bring them in with: {command}" in " ".join(lab.out.split())


@pytest.mark.usefixtures("old")
def test_the_json_files_that_the_database_was_made_from_are_known(lab: ImportLab) -> None:
    lab.write("conversations/s2.json", [{"role": "User", "content": "other", "timestamp": "2024-01-01T10:00:00"}])
    assert lab.run() == 0
    assert bring_in(lab) == 0
    assert lab.sessions() == {"s1", "s2"}


def test_missing_columns_and_values_cost_no_row(lab: ImportLab, old: sqlite3.Connection) -> None:
    old.executescript("""
        DROP TABLE conversations; DROP TABLE agent_states;
        CREATE TABLE conversations (session_id, ROLE, content, mood);
        INSERT INTO conversations VALUES ('a', NULL, 'x', 'good'), (NULL, 'user', 'lost?', NULL);
        INSERT INTO conversations VALUES (7, 'user', NULL, NULL);
        INSERT INTO conversations VALUES ('b', 'user', x'c3bc', 1), ('b', 'user', CAST(x'61ff00' AS TEXT), 2.5);
    """)
    assert bring_in(lab) == 0
    assert lab.said("a") == [("user", "x")]
    assert lab.messages("a")[0].extra == {"mood": "good"}
    assert lab.said("no-session") == [("user", "lost?")]
    assert lab.said("7") == [("user", "")]
    assert lab.said("b") == [("user", "ü"), ("user", "a\ufffd\ufffd")]


def test_rows_without_a_time_keep_the_order_in_which_they_were_written(lab: ImportLab, old: sqlite3.Connection) -> None:
    old.execute("UPDATE conversations SET timestamp = NULL WHERE content = 'third'")
    old.commit()
    assert bring_in(lab) == 0
    assert [text for _, text in lab.said("s1")] == ["first", "third", "second"]


@pytest.mark.parametrize("journal", ["delete", "wal", "wal-with-log", "persist"])
def test_the_file_and_its_folder_are_left_as_they_are(lab: ImportLab, journal: str) -> None:
    path = lab.source / "ai_lab.db"
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA journal_mode = {journal.partition('-')[0]}")
    db.executescript(SCHEMA)
    if journal != "wal-with-log":  # its log stays beside the file while a program has it open
        db.close()
    before = lab.fingerprint()
    assert any(name.endswith("-wal") for name in before) == (journal == "wal-with-log")
    assert bring_in(lab, "--dry-run") == 0
    assert bring_in(lab) == 0
    assert lab.fingerprint() == before
    assert len(lab.messages("s1")) == 3
    db.close()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no file"),
        (b"not a database, but long enough to be read as one" * 30, "cannot be read as a SQLite database"),
        ("CREATE TABLE other (a)", "has none of the tables conversations, agent_states"),
        (SCHEMA + "CREATE TABLE alembic_version (a)", "is a database of this AI Lab"),
    ],
)
def test_what_is_no_earlier_database_is_told(lab: ImportLab, content: str | bytes | None, message: str) -> None:
    path = lab.source / "ai_lab.db"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        with closing(sqlite3.connect(path)) as db:
            db.executescript(content)
    assert bring_in(lab) == 2
    assert message in lab.err
    assert path.exists() == (content is not None)


def test_of_a_damaged_database_the_readable_part_comes_in(lab: ImportLab, old: sqlite3.Connection) -> None:
    old.executemany(
        "INSERT INTO conversations VALUES (?, 's9', 'user', ?, '', 1700000000)",
        [(f"n{n}", "x" * 3000) for n in range(50)],
    )
    old.commit()
    ((root, size),) = old.execute(
        "SELECT rootpage, page_size FROM sqlite_master, pragma_page_size WHERE name = 'conversations'"
    )
    old.close()
    path = lab.source / "ai_lab.db"
    data = bytearray(path.read_bytes())
    data[(root - 1) * size : root * size] = b"\xab" * size
    path.write_bytes(data)
    assert bring_in(lab) == 1
    assert "ai_lab.db: table conversations: database disk image is malformed" in lab.out
    assert len(lab.states("s1")) == 2
