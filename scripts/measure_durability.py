"""Kill the server in mid-work again and again, on SQLite and on Postgres, and count what it had promised and lost.

Run: python scripts/measure_durability.py [--rounds 40] [--only sqlite|postgres]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from scripts.measurement import Row, at_most, none_of, report, spread
from tests.faults.kill_rounds import KillReport, KillRounds
from tests.postgres import PostgresServer

_READY_SECONDS = 3.0


def main() -> int:
    """Run the rounds; returns 1 when anything was lost or a start took too long."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--only", choices=("sqlite", "postgres"))
    parser.add_argument("--seed", type=int, default=4711)
    options = parser.parse_args()
    rows: list[Row] = []
    faults: list[str] = []
    for kind in ("sqlite", "postgres"):
        if options.only in {None, kind}:
            result = _run(kind, options.rounds, options.seed)
            rows += _rows(kind, result)
            faults += [f"{kind}: {fault}" for fault in result.faults]
    notes = [
        "Each round: 8 writers over HTTP (4 append messages to 2 conversations, 2 save agent states, 1 streams answers",
        f"of echo, 1 of a slow model), kill -9 in 0.05 to 1 s (seed {options.seed}), start again on the same data,",
        "compare every acknowledged row, all sequence numbers and counters, on SQLite integrity_check and the search",
        "index as well.",
        *faults[:20],
    ]
    return report("Nothing acknowledged is lost", rows, notes)


def _run(kind: str, rounds: int, seed: int) -> KillReport:
    postgres = PostgresServer() if kind == "postgres" else None
    try:
        url = postgres.url(postgres.create_database()) if postgres else None
        with tempfile.TemporaryDirectory() as folder:
            return asyncio.run(KillRounds(Path(folder), url, seed=seed).run(rounds))
    finally:
        if postgres:
            postgres.stop()


def _rows(kind: str, result: KillReport) -> list[Row]:
    told = result.acknowledged
    return [
        Row(f"{kind}: kills", str(result.rounds)),
        Row(
            f"{kind}: acknowledged",
            f"{told.total()}: {told['messages']} messages, {told['states']} states, "
            f"{told['questions']} questions, {told['answers']} answers",
        ),
        none_of(f"{kind}: missing, changed, out of number, damaged or still streaming", len(result.faults)),
        Row(f"{kind}: answers cut by a kill and kept as interrupted", str(result.partial_answers)),
        Row(f"{kind}: ready again", spread(result.ready_seconds, "s")),
        at_most(f"{kind}: slowest start", max(result.ready_seconds), _READY_SECONDS, "s", 2),
    ]


if __name__ == "__main__":
    sys.exit(main())
