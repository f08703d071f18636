"""``docs/security.md`` against what it describes: every setting, command, option and operation in it exists."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer
import yaml  # type: ignore[import-untyped]  # it ships no types

from ai_lab.cli.command import app
from ai_lab.settings import setting_names
from ai_lab.telemetry.prometheus.families import FAMILIES
from backend.routes.api_keys import router
from scripts.bootstrap import USAGE
from tests.server import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
CODE = [*re.findall(r"^```\w*\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL), *re.findall(r"`([^`\n]+)`", PAGE)]
COMMANDS = sorted({command for text in CODE for command in re.findall(r"\./ai-lab .*", text)})


def test_settings_that_are_named_exist() -> None:
    named = set(re.findall(r"\b(?:AI_LAB|API|ENCRYPTION|REDIS|OLLAMA)_[A-Z_]+\b", PAGE))
    assert {"AI_LAB_TRUSTED_PROXIES", "ENCRYPTION_KEY_PREVIOUS", "AI_LAB_METRICS_TOKEN_FILE"} <= named
    assert named <= set(setting_names().values())


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_and_options_that_are_named_exist(command: str) -> None:
    words = shlex.split(command)[1:]
    found: Any = typer.main.get_command(app)
    while hasattr(found, "commands"):
        name = words.pop(0)
        assert name in found.commands, command
        found = found.commands[name]
    options = {option for parameter in found.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= options, command


def test_there_are_commands_to_look_at() -> None:
    assert len(COMMANDS) >= 15
    for option in re.findall(r"start\.sh (--[a-z-]+)", PAGE):
        assert option in USAGE


def test_every_operation_is_in_the_table_and_no_other() -> None:
    there = {f"{method} {route.path}" for route in router.routes for method in getattr(route, "methods", ())}  # type: ignore[attr-defined]  # routes of FastAPI have a path
    shown = set(re.findall(r"`((?:GET|POST|PATCH|DELETE) /api-keys[^`?]*)`", PAGE))
    assert shown == there


def test_metrics_that_are_named_exist() -> None:
    assert set(re.findall(r"\bai_lab_vault\w+", PAGE)) <= FAMILIES.keys()


def test_examples_of_other_programs_can_be_read() -> None:
    examples = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(examples) == 2
    prometheus, compose = map(yaml.safe_load, examples)
    assert prometheus["scrape_configs"][0]["job_name"] == "ai-lab"
    assert set(compose["services"]["lab"]["secrets"]) == set(compose["secrets"])


def test_threats_are_told_with_what_does_not_protect() -> None:
    table = PAGE.partition("## What is protected against what")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 15
    assert all(row.count(" |") >= 3 for row in rows)
