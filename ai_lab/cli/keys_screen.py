"""How keys, tests, imports and the audit look on a terminal. Everything from outside is shown as text alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ai_lab.cli.figures import plain
from ai_lab.importer.keys import Outcome
from ai_lab.vault.schemas import DEFAULT_LABEL, WORKING, AuditEntry, CheckResult, KeyInfo, KeyTestAnswer

_STYLES = {"active": "green", "tampered": "red", "unreadable": "red", "needs_reentry": "yellow", "revoked": "dim"}
_RESULT_STYLES = {"stored": "green", "would be stored": "green", "already there": "dim", "refused": "red"}
#: What a test ends with that says nothing about the key.
_UNTOLD = frozenset({"rate_limited", "unreachable", "unknown"})
_NEVER_BROKEN = {"Key", "When", "No."}
_PIPE_COLUMNS = 400


def draw_keys(keys: Sequence[KeyInfo]) -> Table:
    """Return a line per key."""
    table = _table("Service", "Label", "Key", "State", "Last test", "Last used", "Where")
    for key in keys:
        test = key.last_test
        test_style = _test_style(test.result) if test else "dim"
        table.add_row(
            _text(key.service_name),
            _text(key.label),
            _text(key.hint),
            Text(key.state, style=_STYLES.get(key.state, "")),
            Text(f"{test.result} {_when(test.tested_at)}" if test else "never", style=test_style),
            _text(_when(key.last_used_at) if key.last_used_at else "never"),
            _text(key.environment_name or urlsplit(key.base_url or "").netloc),
        )
    return table


def remedies(keys: Sequence[KeyInfo]) -> list[str]:
    """Return a line about each key that cannot be used."""
    return [f"{name_of(key.service_name, key.label)}: {plain(key.remedy)}" for key in keys if key.remedy]


def wide_console() -> Console:
    """Return a console that cuts nothing where its output goes to a program."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPE_COLUMNS)


def draw_test(answer: KeyTestAnswer) -> Text:
    """Return what a service said about a key, on one line."""
    told = "works" if answer.success else "cannot tell" if answer.result in _UNTOLD else "does not work"
    text = Text(told, style=_test_style(answer.result))
    latency = f", {answer.latency_ms:.0f} ms" if answer.latency_ms is not None else ""
    text.append(f"  {name_of(answer.service_name, answer.label)}: ", style="default")
    text.append(f"{plain(answer.message)} ({answer.result}{latency})", style="default")
    return text


def draw_outcome(outcome: Outcome) -> Text:
    """Return what became of a row of an import."""
    text = Text(f"{outcome.result:<16}", style=_RESULT_STYLES[outcome.result])
    kept = f" as {name_of(outcome.service_name, outcome.label)}" if outcome.label and outcome.service_name else ""
    said = f": {plain('; '.join(outcome.said))}" if outcome.said else ""
    return text.append(f"{plain(outcome.where)}{kept}{said}", style="default")


def draw_audit(entries: Sequence[AuditEntry]) -> Table:
    """Return a line per entry."""
    table = _table("No.", "When", "Who", "What", "Key", "Outcome", "Times", "Details")
    for entry in entries:
        table.add_row(
            str(entry.sequence),
            _when(entry.at),
            _text(entry.actor),
            _text(entry.action),
            _text(name_of(entry.service_name, entry.label) if entry.service_name else ""),
            _text(entry.outcome),
            str(entry.count),
            _text(_details(entry.details)),
        )
    return table


def name_of(service: str, label: str | None) -> str:
    """Return what to call a key."""
    return plain(service if label in {None, DEFAULT_LABEL} else f"{service} ({label})")


def _details(details: Mapping[str, Any]) -> str:
    """Return what else an entry tells, as ``version 2; origin https://…``."""
    told = {
        name: ", ".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in details.items()
    }
    return "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in told.items())


def _test_style(result: CheckResult) -> str:
    return "green" if result in WORKING else "yellow" if result in _UNTOLD else "red"


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name in _NEVER_BROKEN)
    return table


def _text(value: str) -> Text:
    return Text(plain(value))


def _when(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")
