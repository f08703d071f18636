"""``docs/gateway.md`` against what it describes: settings, commands, operations, error codes and headers exist."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from typing import Any, get_args

import pytest
import typer
from pydantic import TypeAdapter

from ai_lab import errors
from ai_lab.cli.command import app
from ai_lab.client import AsyncLabClient, LabClient
from ai_lab.errors import LabError
from ai_lab.gateway.call import CacheDecision
from ai_lab.providers.known_services import known_services
from ai_lab.settings import AliasEntry, setting_names
from ai_lab.settings.entries import as_alias_entries
from backend.routes import budgets, cache, costs, gateway, traces
from tests.server import ROOT

PAGE = (ROOT / "docs" / "gateway.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"\./ai-lab (?:costs|budget|trace)[^`]*", PAGE)))


def test_settings_that_are_named_exist() -> None:
    named = set(re.findall(r"\b(?:AI_LAB|REDIS|OTEL)_[A-Z_]+\b", PAGE))
    assert len(named) >= 18
    assert named <= set(setting_names().values())


def test_the_example_of_aliases_can_be_read() -> None:
    [text] = re.findall(r"^AI_LAB_ALIASES=(.*)$", PAGE, re.MULTILINE)
    aliases = TypeAdapter(dict[str, AliasEntry]).validate_python(as_alias_entries(json.loads(text)))
    assert set(aliases) == {"fast", "smart"}


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


def test_every_operation_is_named_and_no_other() -> None:
    there = {
        f"{method} {route.path}".replace("{model:path}", "{model}")
        for module in (budgets, cache, costs, gateway, traces)
        for route in module.router.routes
        for method in getattr(route, "methods", ())
    }
    named = set(re.findall(r"`((?:GET|POST|PATCH|DELETE) /(?:budgets|cache|costs|gateway|traces)[^`?]*)", PAGE))
    assert named == there


def test_error_codes_that_are_named_exist() -> None:
    codes = {error.code for error in vars(errors).values() if isinstance(error, type) and issubclass(error, LabError)}
    paragraph = PAGE.partition("Errors are one tree")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([a-z_]+)`", paragraph))
    assert len(named) >= 15
    assert named <= codes


def test_cache_decisions_and_services_are_those_that_there_are() -> None:
    listed = PAGE.partition("`x-ai-lab-cache` (")[2].partition(")")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == set(get_args(CacheDecision))
    paragraph = PAGE.partition("## Services")[2].partition("\n\n## ")[0]
    assert set(known_services()) <= set(re.findall(r"`(\w+)/", paragraph))


async def test_every_call_of_the_clients_is_named_and_no_other() -> None:
    rows = re.findall(r"^\| `lab\.(\w+)` \| (.*) \|$", PAGE, re.MULTILINE)
    assert [part for part, _ in rows] == ["costs", "budgets", "traces", "cache", "breakers"]
    with LabClient() as client:
        async with AsyncLabClient() as awaited:
            for one, (part, what) in itertools.product((client, awaited), rows):
                there = {name for name in dir(getattr(one, part)) if not name.startswith("_")}
                assert set(re.findall(r"`(\w+)\(", what)) == there, part
            assert callable(client.gateway)
            assert callable(awaited.gateway)
