from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from ai_lab.database import Database
from ai_lab.errors import SourceDamaged
from ai_lab.importer.records import Record, Source, message_record
from ai_lab.importer.service import Importer
from tests.importer.import_lab import ImportLab

COMMAND = Path(__file__).resolve().parent.parent.parent / "migrate_json_to_db.py"
# One kind of database is enough where the command around it is tried.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def fill(lab: ImportLab, conversations: int, size: int = 100) -> None:
    for number in range(conversations):
        lab.write(f"conversations/s{number:03}.json", [{"role": "user", "content": f"{number} " + "x" * size}])


@on_sqlite
def test_the_report_has_one_entry_per_source(lab: ImportLab) -> None:
    good = lab.write("conversations/.a.json", [{"role": "user", "content": "x", "timestamp": "never"}])
    bad = lab.write("states/b.json", "{")
    report = lab.report()
    assert list(report) == ["dry_run", "database", "complete", "stopped", "totals", "sources"]
    assert (report["dry_run"], report["complete"], report["stopped"]) == (False, False, None)
    assert [source["path"] for source in report["sources"]] == [str(good), str(bad)]
    session = {"session_id": "_a", "holds": "messages", "action": "new", "added": 1, "named_in_source": ".a"}
    assert report["sources"][0]["sessions"] == [session]
    assert report["sources"][0]["warnings"] == 2
    assert report["sources"][1]["damages"][0]["origin"] == str(bad)
    assert report["totals"] == {
        "conversations": 1, "messages": 1, "states": 0, "measurements": 0, "skipped": 0, "damaged": 1, "warnings": 2,
    }  # fmt: skip


@on_sqlite
def test_a_terminal_sees_progress(lab: ImportLab) -> None:
    fill(lab, 30)
    mine, its = os.openpty()
    with subprocess.Popen([sys.executable, COMMAND, "--source", lab.source], stdout=its, stderr=its) as process:
        os.close(its)
        shown = b""
        while True:
            try:
                shown += os.read(mine, 65536)
            except OSError:  # Linux says so when the other end is closed
                break
    os.close(mine)
    assert process.returncode == 0
    assert b"%" in shown
    assert b".json" in shown
    assert b"30 conversations" in shown


@on_sqlite
def test_a_full_disk_stops_the_import_and_a_rerun_finishes_it(lab: ImportLab) -> None:
    fill(lab, 60, size=50_000)
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000,) * 2);"
        "from ai_lab.importer.command import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, "--source", lab.source], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "Stopped: " in done.stdout
    assert "Run the same command again to import the rest." in done.stdout
    assert 0 < len(lab.sessions()) < 60
    assert lab.run() == 0
    assert len(lab.sessions()) == 60


@on_sqlite
def test_an_interrupt_stops_at_a_whole_source(lab: ImportLab) -> None:
    fill(lab, 300)
    with subprocess.Popen([sys.executable, COMMAND, "--source", lab.source], stderr=subprocess.PIPE) as process:
        with closing(sqlite3.connect(make_url(lab.url).database or "")) as looking:  # fast: it must not end meanwhile
            while looking.execute("SELECT count(*) FROM conversations").fetchone() == (0,):
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told == b"Stopped. Run the same command again to import the rest.\n"
    assert lab.run() == 0
    assert len(lab.sessions()) == 300


def test_a_source_that_changes_between_the_looks_is_left_out(lab: ImportLab) -> None:
    looks = iter(["first look", "second look"])

    def read() -> Iterator[Record]:
        yield message_record({"role": "user", "content": next(looks)})

    async def go() -> None:
        database = Database(make_url(lab.url), pooled=False)
        source = Source("messages", "s", "a file", read)  # type: ignore[arg-type]  # any iterator will do here
        with pytest.raises(SourceDamaged, match="was changed while it was read"):
            await Importer(database).bring_in(source, "test")
        await database.close()

    asyncio.run(go())
    assert lab.sessions() == set()


@on_sqlite
@pytest.mark.thorough
def test_it_waits_for_another_program_that_holds_the_database(lab: ImportLab) -> None:
    fill(lab, 3)
    path = make_url(lab.url).database
    assert path
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(12, other.execute, ["ROLLBACK"]).start()
        assert lab.run() == 0
    assert len(lab.sessions()) == 3


def test_the_script_says_how_it_is_used() -> None:
    done = subprocess.run([sys.executable, COMMAND, "--help"], capture_output=True, text=True, check=True)
    for option in ("--source", "--from-database", "--dry-run", "--report"):
        assert option in done.stdout
    wrong = subprocess.run([sys.executable, COMMAND, "--wrong"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2


@on_sqlite
def test_an_unknown_setting_is_told_on_one_line(lab: ImportLab, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(lab, 1)
    monkeypatch.setenv("AI_LAB_DATADIR", "x")
    assert lab.run() == 2
    assert lab.err == "error: Unknown setting AI_LAB_DATADIR. Did you mean AI_LAB_DATA_DIR?\n"


@on_sqlite
def test_a_large_number_of_damages_is_counted_and_the_first_are_named(lab: ImportLab) -> None:
    lab.write("a.jsonl", "{\n" * 3000 + json.dumps({"id": "good", "messages": [{"content": "x", "role": "user"}]}))
    report = lab.report()
    assert report["totals"]["damaged"] == 3000
    assert len(report["sources"][0]["damages"]) == 1000
    assert "and 951 more" in lab.out
    assert lab.sessions() == {"good"}
