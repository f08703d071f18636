"""What ``setup_database.py`` does: parse, prepare or check, print."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from ai_lab.database.address import database_address
from ai_lab.database.setup import SetupReport, check_database, prepare_database
from ai_lab.errors import StartupError
from ai_lab.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0 when the database is ready, 1 when ``--check`` finds work to do, 2 on an error."""
    parser = argparse.ArgumentParser(
        prog="setup_database.py", description="Create or upgrade the database of AI Lab and say what was done."
    )
    parser.add_argument("--check", action="store_true", help="only say what would be done; change nothing")
    parser.add_argument("--url", help="database address; default: DATABASE_URL, else the data directory's SQLite file")
    options = parser.parse_args(arguments)
    try:
        url = database_address(Settings.load(database_url=options.url))
        report = asyncio.run(check_database(url) if options.check else prepare_database(url))
    except StartupError as error:
        print(f"error: {error.detail}", file=sys.stderr)  # noqa: T201 - a command speaks to its terminal
        return 2
    print(_in_words(report))  # noqa: T201 - as above
    return 0 if report.is_current else 1


def _in_words(report: SetupReport) -> str:
    if report.before == report.newest:
        return f"{report.address}: up to date (schema {report.newest})"
    if not report.is_current:
        state = f"schema {report.before}" if report.before else "empty"
        return f"{report.address}: {state}, needs schema {report.newest}. Run setup_database.py to migrate it."
    if report.before is None:
        return f"{report.address}: created (schema {report.after})"
    backup = f"; the old one is kept as {report.backup}" if report.backup else ""
    return f"{report.address}: upgraded from schema {report.before} to {report.after}{backup}"
