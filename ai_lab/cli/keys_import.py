"""``ai-lab keys import``: from where, and what became of every row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from ai_lab.cli.door import say
from ai_lab.cli.keys_door import FINDINGS, FINE, WRONG, ended, opened_keys
from ai_lab.cli.keys_screen import draw_outcome
from ai_lab.errors import DatabaseUnusable, SourceDamaged
from ai_lab.importer.keys import (
    Row,
    Unreadable,
    bring_in,
    earlier_lab_keys,
    env_file_keys,
    environment_keys,
    token_manager_keys,
)
from ai_lab.settings import Settings

_Source = tuple[str, Callable[[], Iterable[Row]]]


def import_keys(
    *,
    is_environment: bool,
    env_file: Path | None,
    database: Path | None,
    token_manager: Path | None,
    key_file: Path | None,
    is_rehearsal: bool,
    url: str | None,
) -> int:
    """Bring keys in from the sources that were named."""
    if not (is_environment or env_file or database or token_manager):
        say(
            "error: Say from where: --environment, --env-file PATH, --from-database PATH (an ai_lab.db) or "
            "--token-manager PATH (usually ~/.token_manager_config.json). With --dry-run nothing is stored."
        )
        return WRONG
    if key_file and bool(database) == bool(token_manager):
        say("error: --key-file belongs to one source, --from-database or --token-manager.")
        return WRONG

    sources: list[_Source] = []
    if is_environment:
        sources.append(("environment", lambda: environment_keys(Settings.load())))
    if env_file:
        sources.append((env_file.name, lambda: env_file_keys(env_file.expanduser())))
    if database:
        sources.append((database.name, lambda: earlier_lab_keys(database.expanduser(), key_file)))
    if token_manager:
        sources.append((token_manager.name, lambda: token_manager_keys(token_manager.expanduser(), key_file)))
    return ended(lambda: _bring_in(sources, is_rehearsal=is_rehearsal, url=url), url=url)


async def _bring_in(sources: Sequence[_Source], *, is_rehearsal: bool, url: str | None) -> int:
    console = Console(highlight=False)
    counts: Counter[str] = Counter()
    async with opened_keys(url) as keys:
        async for outcome in bring_in(_rows(sources), keys, dry_run=is_rehearsal):
            counts[outcome.result] += 1
            console.print(draw_outcome(outcome), soft_wrap=True)
    if not counts:
        say("No key was found there.")
        return FINE
    say(", ".join(f"{count} {result}" for result, count in counts.items()) + ".")
    if counts["stored"]:
        say("The sources are unchanged and hold the keys too: delete them once nothing needs them.")
    return FINDINGS if counts["refused"] else FINE


def _rows(sources: Sequence[_Source]) -> Iterator[Row]:
    """Yield the rows of all sources: one that cannot be read keeps no other out."""
    for name, read in sources:
        try:
            yield from read()
        except (SourceDamaged, DatabaseUnusable) as error:
            yield Unreadable(name, error.detail)
