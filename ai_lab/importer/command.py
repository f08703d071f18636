"""What ``migrate_json_to_db.py`` does: parse, import or rehearse, print."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ai_lab.database import Database, database_address
from ai_lab.database.address import shown
from ai_lab.database.setup import check_database, prepare_database
from ai_lab.errors import DatabaseUnavailable, DatabaseUnusable, SourceDamaged, StartupError
from ai_lab.importer.display import print_report
from ai_lab.importer.earlier_database import EarlierDatabase
from ai_lab.importer.inputs import database_input, find_inputs
from ai_lab.importer.measurements import Measurements
from ai_lab.importer.records import Input
from ai_lab.importer.rehearsal import Rehearsal
from ai_lab.importer.report import FileReport, ImportReport
from ai_lab.importer.service import Importer, Importing
from ai_lab.importer.text_file import Watcher
from ai_lab.settings import Settings
from ai_lab.telemetry.history.retention import Retention

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0 when everything came in, 1 when something could not be imported, 2 when the import cannot start.
    """
    options = _parser().parse_args(arguments)
    try:
        settings = Settings.load()
        _see_that_report_can_be_written(options.report)
        with ExitStack() as stack:
            inputs = find_inputs(options.source or Path()) if options.source or not options.from_database else []
            notes: list[str] = []
            measurements = None
            if options.from_database:
                earlier = stack.enter_context(EarlierDatabase(options.from_database))
                inputs.append(database_input(earlier))
                notes = _what_stays(earlier)
                measurements = earlier.measurements()
            report = asyncio.run(_run(settings, inputs, measurements, dry_run=options.dry_run))
            if notes:
                report.files[-1].notes = notes
    except StartupError as error:
        print(f"error: {error.detail}", file=sys.stderr)  # noqa: T201 - a command speaks to its terminal
        return 2
    except KeyboardInterrupt:
        print("Stopped. Run the same command again to import the rest.", file=sys.stderr)  # noqa: T201 - as above
        return _INTERRUPTED
    print_report(report)
    is_written = not options.report or _is_written(report, options.report)
    return 0 if report.is_complete and is_written else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="migrate_json_to_db.py",
        description="Import conversations and agent states of earlier tools. Sources are never changed; what was "
        "imported before is not imported again.",
    )
    parser.add_argument(
        "--source",
        type=Path,
        metavar="DIR",
        help="folder with conversations/*.json and states/*.json of AI-Lab, conversations.json of a ChatGPT export, "
        "*.jsonl chat files; default: the current folder",
    )
    parser.add_argument("--from-database", type=Path, metavar="PATH", help="an ai_lab.db of the earlier AI-Lab")
    parser.add_argument("--dry-run", action="store_true", help="only say what would come in; change nothing")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write what was done as JSON")
    return parser


def _is_written(report: ImportReport, path: Path) -> bool:
    text = json.dumps(report.as_json(), indent=2, ensure_ascii=False) + "\n"
    try:
        # A file name that is no UTF-8 is written as JSON's own escapes.
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        print(f"error: the report cannot be written to {path} ({error.strerror})", file=sys.stderr)  # noqa: T201 - as above
        return False
    return True


def _see_that_report_can_be_written(path: Path | None) -> None:
    if path and (path.is_dir() or not path.resolve().parent.is_dir()):
        raise StartupError(f"The report cannot be written to {path}. Name a file in a folder that exists.")


def _what_stays(earlier: EarlierDatabase) -> list[str]:
    """Return notes about the rows that another command brings in."""
    counts, notes = earlier.counts(), []
    if count := counts.get("api_keys"):
        notes.append(f"API keys: {count}. Bring them in with: ./ai-lab keys import --from-database {earlier.path}")
    return notes


async def _run(
    settings: Settings, inputs: list[Input], measurements: Measurements | None, *, dry_run: bool
) -> ImportReport:
    report = ImportReport(dry_run, shown(database_address(settings)))
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    async with _importing(settings, dry_run=dry_run) as importer:
        with Progress(*columns, transient=True, disable=not sys.stdout.isatty()) as progress:
            sizes = [_size(item.path) for item in inputs]
            # Each source is read twice, see service.py.
            task = progress.add_task("", total=2 * sum(sizes) or 1)
            done = 0
            for item, size in zip(inputs, sizes, strict=True):
                progress.update(task, description=item.path.name, completed=done)
                report.files.append(FileReport(str(item.path), item.kind))
                try:
                    await _take(item, importer, report.files[-1], lambda count: progress.advance(task, count))
                    if measurements and item.path == measurements.path:
                        await _take_measurements(measurements, importer, report.files[-1])
                except DatabaseUnavailable as error:
                    report.stopped = error.detail
                    break
                done += 2 * size
    return report


async def _take(item: Input, importer: Importing, report: FileReport, watcher: Watcher) -> None:
    for source in item.sources(watcher):
        if isinstance(source, SourceDamaged):
            report.refused(source)
            continue
        try:
            report.took(source, await importer.bring_in(source, item.kind))
        except SourceDamaged as damage:
            report.refused(damage)


async def _take_measurements(measurements: Measurements, importer: Importing, report: FileReport) -> None:
    try:
        report.measured(await importer.bring_in_measurements(measurements))
    except SourceDamaged as damage:
        report.refused(damage)


@asynccontextmanager
async def _importing(settings: Settings, *, dry_run: bool) -> AsyncIterator[Importing]:
    if dry_run:
        database = await _database_as_it_is(settings)
        rehearsal = Rehearsal(database)
        try:
            yield rehearsal
        finally:
            rehearsal.close()
            if database:
                await database.close()
        return
    url = database_address(settings)
    await prepare_database(url)
    database = Database(url)
    try:
        yield Importer(database, Retention.of(settings))
    finally:
        await database.close()


async def _database_as_it_is(settings: Settings) -> Database | None:
    """Return the database, or None where there is none yet; raises ``StartupError`` where it needs an upgrade."""
    url = database_address(settings)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():  # noqa: ASYNC240 - nobody waits
        return None
    found = await check_database(url)
    if found.before is None:
        return None
    if not found.is_current:
        raise DatabaseUnusable(f"{found.address} needs an upgrade first. Run setup_database.py, then try again.")
    return Database(url)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
