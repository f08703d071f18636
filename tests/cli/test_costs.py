"""``ai-lab costs`` and ``ai-lab budget`` as a person meets them, on a server whose echo costs a dollar a token."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from ai_lab.cli.command import app
from ai_lab.cli.costs_screen import draw_costs, money, unknown_note
from ai_lab.costs.schemas import CostFigures, CostGroup, CostSummary
from tests.server import ServerProcess, environment, free_port, working_folder

Types = Callable[..., Result]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    prices = '{"echo/*": {"input": 1000000, "output": 1000000}}'
    data = tmp_path_factory.mktemp("costs") / "data"
    with ServerProcess(data, settings={"AI_LAB_PRICES": prices, "AI_LAB_LOCAL_WATTS": "100"}) as server:
        yield server


@pytest.fixture
def types(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> Types:
    monkeypatch.chdir(working_folder(server.data_dir))
    monkeypatch.delenv("AI_LAB_CONFIG_DIR")
    for name, value in (environment(server.data_dir) | {"API_PORT": str(server.port)}).items():
        monkeypatch.setenv(name, value)

    def types(*arguments: str) -> Result:
        result = CliRunner().invoke(app, list(arguments), prog_name="ai-lab")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return types


def say(server: ServerProcess, message: str) -> httpx.Response:
    return httpx.post(f"{server.url}/chat", json={"message": message, "model": "echo/echo"}, timeout=30)


def rows(result: Result) -> list[list[str]]:
    """Return the cells of a table, below its line of names."""
    lines = [line for line in result.stdout.splitlines() if line.strip(" ─━╶╴")]
    return [[cell for cell in line.strip().split("  ") if cell.strip()] for line in lines[1:]]


def test_costs_budgets_and_their_end(types: Types, server: ServerProcess) -> None:
    nothing = types("costs", "--days", "1")
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert nothing.stderr == "No model was asked today (UTC).\n"
    assert types("budget", "list").stderr.startswith("There is no budget yet. Make one: ai-lab budget set NAME")
    assert say(server, "hi").status_code == 200

    shown = types("costs")
    assert shown.exit_code == 0
    (cells,) = rows(shown)
    assert [cell.strip() for cell in cells][:6] == ["echo/echo", "1", "1", "0", "1", "$2.00"]
    assert cells[-1].strip().endswith("Wh")
    by_day = json.loads(types("costs", "--by", "day", "--json").stdout)
    assert by_day["totals"]["cost_usd"] == 2
    assert by_day["from"] < by_day["to"]

    made = types("budget", "set", "team", "--hard", "1.5", "--per", "day", "--model", "echo/echo")
    assert made.exit_code == 0, made.stderr
    (cells,) = rows(made)
    assert [cell.strip() for cell in cells][:6] == ["team", "echo/echo", "$2.00", "-", "$1.50", "refuses"]
    assert say(server, "hi").status_code == 402
    changed = types("budget", "set", "team", "--hard", "100", "--soft", "1")
    assert [cell.strip() for cell in rows(changed)[0]][2:6] == ["$2.00", "$1.00", "$100.00", "soft limit"]
    assert json.loads(types("budget", "list", "--json").stdout)["budgets"][0]["period"] == "day"
    assert types("budget", "remove", "team").stdout == "The budget team is removed.\n"
    gone = types("budget", "remove", "team")
    assert (gone.exit_code, gone.stderr) == (
        2,
        "error: There is no budget of this name. All of them: ai-lab budget list\n",
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("set", "two words", "--hard", "1"), "error: name: "),
        (("set", "nothing"), "error: give soft_usd, hard_usd or both"),
        (("set", "odd", "--hard", "1", "--soft", "2"), "error: soft_usd must not be above hard_usd"),
    ],
)
def test_budgets_that_make_no_sense_say_why(types: Types, arguments: tuple[str, ...], told: str) -> None:
    refused = types("budget", *arguments)
    assert refused.exit_code == 2
    assert refused.stderr.startswith(told)


def test_where_no_server_runs_it_says_what_to_do(types: Types) -> None:
    for arguments in (("costs",), ("budget", "list"), ("budget", "set", "x", "--hard", "1")):
        result = types(*arguments, "--url", f"http://127.0.0.1:{free_port()}")
        assert result.exit_code == 2
        assert result.stderr.startswith("error: No AI Lab server answers at http://127.0.0.1:")
        assert "./start.sh" in result.stderr


def test_money_is_shown_with_the_digits_that_say_something() -> None:
    amounts = (None, 0, 0.00003, 0.1, 0.25, 1234.5)
    assert [money(amount) for amount in amounts] == [
        *("unknown", "$0.00", "$0.00003", "$0.10", "$0.25", "$1,234.50"),
    ]


def test_what_nobody_knows_is_shown_as_unknown() -> None:
    tokens = {"prompt_tokens": 7, "cached_tokens": 0, "completion_tokens": 4, "reasoning_tokens": 0}
    nothing_known: dict[str, Any] = {
        **tokens,
        "attempts": 3,
        "cost_usd": None,
        "unknown_costs": 3,
        "energy_kwh": None,
        "electricity_usd": None,
        "unknown_electricity": 1,
    }
    partly_known = nothing_known | {"cost_usd": 0.5, "unknown_costs": 1, "energy_kwh": 0.0015, "unknown_electricity": 0}
    summary = CostSummary(
        start=None,
        end=None,
        group_by="model",
        totals=CostFigures(**partly_known),
        groups=[CostGroup(key="a/b", **nothing_known), CostGroup(key="a/\x1b[31mc", **partly_known)],
    )
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(draw_costs(summary))
    shown = console.export_text()
    assert shown.count("unknown") == 4
    assert shown.count("$0.50 + 1 unknown") == 2
    assert "1.5 Wh" in shown
    assert "\x1b" not in shown
    assert (unknown_note(summary.totals) or "").startswith("The cost of 1 of 3 attempts is not known")
