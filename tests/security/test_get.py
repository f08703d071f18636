"""Reading changes nothing."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import httpx

from tests.security.operations import operations

#: Written by the clock, not by requests; the audit notes who looked at it.
_KEPT_BY_THE_SERVER = {
    "metric_series",
    "metric_samples",
    "metric_rollups",
    "operation_slots",
    "vault_audit",
    "instances",
    "benchmark_leases",
    "sqlite_sequence",
}


def _rows(file: Path) -> dict[str, list[tuple[object, ...]]]:
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: sorted(database.execute(f"SELECT * FROM {name}").fetchall(), key=repr)  # noqa: S608 - from the schema
            for name in names
            if name not in _KEPT_BY_THE_SERVER
        }


def test_reading_everything_leaves_every_row_as_it_was(http: httpx.Client, lab_folder: Path) -> None:
    assert http.post("/chat", json={"message": "hello", "session_id": "attacked"}).status_code == 200
    for path in ("/traces", "/costs/summary"):  # for these, what waits to be written in the background is written
        assert http.get(path).status_code == 200
    file = lab_folder / "data" / "ai_lab.sqlite"
    before = _rows(file)
    assert before["messages"]
    assert before["traces"]
    assert before["model_charges"]
    for _, path in operations(http, "get"):
        if not path.endswith("/events"):
            http.get(path)
            http.get(
                path,
                params={"delete": "1", "reveal": "1", "_method": "DELETE"},
                headers={"x-http-method-override": "DELETE"},
            )
    assert _rows(file) == before
