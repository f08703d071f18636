"""An import that is killed at any moment leaves whole sources only, and a rerun brings in the rest, once."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.engine import make_url

from ai_lab.conversations import Conversations
from ai_lab.conversations.tables import messages
from ai_lab.database import Database
from ai_lab.importer.earlier_json import conversation_file
from ai_lab.importer.service import Importer
from ai_lab.importer.tables import imported_sources
from ai_lab.importer.text_file import ignore_bytes
from tests.importer.import_lab import ImportLab

COMMAND = Path(__file__).resolve().parent.parent.parent / "migrate_json_to_db.py"
SMALL, LARGE = 5, 8_000


def said(name: str, count: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{name} says {n} " + "x" * 100} for n in range(count)]


def write_sources(lab: ImportLab) -> dict[str, int]:
    """Write conversations before, of and after the large one; return what each has to hold."""
    expected = {f"a{n:02}": SMALL for n in range(15)} | {"m": LARGE} | {f"z{n:02}": SMALL for n in range(15)}
    for name, count in expected.items():
        lab.write(f"conversations/{name}.json", said(name, count))
        lab.write(f"states/{name}.json", [{"message": name}])
    listed = [{"id": f"e{n:02}", "messages": said(f"e{n:02}", SMALL)} for n in range(20)]
    lab.write("conversations.json", listed)
    lab.write("lines.jsonl", "".join(json.dumps(item | {"id": f"l{item['id']}"}) + "\n" for item in listed))
    return expected | {f"{prefix}{n:02}": SMALL for prefix in ("e", "le") for n in range(20)}


def counts(url: str) -> tuple[int, dict[str, int]]:
    """Return how many sources are noted, and the messages of each conversation."""

    async def ask() -> tuple[int, dict[str, int]]:
        database = Database(make_url(url), pooled=False)
        by_session = select(messages.c.session_id, func.count()).group_by(messages.c.session_id)
        async with database.reading() as db:
            noted = (await db.execute(select(func.count()).select_from(imported_sources))).scalar_one()
            rows = (await db.execute(by_session)).all()
        await database.close()
        return noted, {row[0]: row[1] for row in rows}

    return asyncio.run(ask())


def test_killed_at_any_moment_it_finishes_with_one_copy(lab: ImportLab, *, thorough: bool) -> None:
    rounds = 40 if thorough else 4
    expected = write_sources(lab)
    total = len(expected) + 31  # one note for each conversation and each state
    chance = random.Random(8001)  # noqa: S311 - reproducible, no secret
    before_large = 15
    # Half of the kills fall upon the large conversation, which is written in one transaction.
    kill_at = [before_large] * (rounds // 2) + sorted(chance.randrange(1, total - 1) for _ in range(rounds // 2))
    kills = 0
    for noted_before_kill in sorted(kill_at):
        with subprocess.Popen([sys.executable, COMMAND, "--source", lab.source], stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and counts(lab.url)[0] < noted_before_kill:
                time.sleep(0.01)
            if noted_before_kill == before_large:
                time.sleep(chance.uniform(0, 0.5))
            kills += process.poll() is None
            process.kill()
        found = counts(lab.url)[1]
        assert found == {name: expected[name] for name in found}, "half a conversation is there"
    assert kills >= rounds // 2  # what comes after the large one is soon over, and a busy machine may look too late
    assert lab.run() == 0
    noted, found = counts(lab.url)
    assert found == expected
    assert noted == total
    assert lab.said("m") == [(m["role"], m["content"]) for m in said("m", LARGE)]
    assert [len(lab.states(name)) for name in ("a00", "m", "z14")] == [1, 1, 1]
    assert lab.run() == 0
    assert counts(lab.url) == (noted, found)


async def test_imports_at_once_bring_in_one_copy(tmp_path: Path, database_url: str) -> None:
    databases = [Database(make_url(database_url)) for _ in range(4)]
    for number in range(20):
        path = tmp_path / f"s{number}.json"
        path.write_text(json.dumps(said("s", SMALL)), encoding="utf-8")
        (source,) = conversation_file(path, ignore_bytes)
        outcomes = await asyncio.gather(*(Importer(database).bring_in(source, "test") for database in databases))
        assert sorted(outcome.action for outcome in outcomes) == ["known", "known", "known", "new"]
        page = await Conversations(databases[0]).messages(source.session_id, limit=100)
        assert len(page.data) == SMALL
    for database in databases:
        await database.close()
