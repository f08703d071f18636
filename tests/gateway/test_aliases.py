"""Names for lists of models: in which order they are tried, and what is said of those that cannot be."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ai_lab.chat import NewTurn
from ai_lab.errors import InvalidSettings, ModelNotFound
from ai_lab.gateway.route import check_aliases
from ai_lab.lab import Lab
from ai_lab.providers import Providers
from ai_lab.settings import Settings
from tests.fakes.faulty_provider import ANSWER, FaultyProvider
from tests.gateway.asking import ask, open_lab

_ALIASES = {
    "fast": {"models": ["faulty/slow", "faulty/ok", "echo/echo"], "strategy": "fastest"},
    "cheap": {"models": ["far/unknown", "far/dear", "far/cheap", "echo/echo"], "strategy": "cheapest"},
    "mixed": {"models": ["faulty/auth", "faulty/ok", "echo/echo"], "strategy": "weighted", "weights": [1, 1, 8]},
    "smart": ["faulty/gone", "faulty/ok"],
    "gone": ["nobody/x", "echo/nothing"],
    "ok": ["faulty/ok"],
}
_PRICES = {"far/dear": {"input": 10, "output": 30}, "far/cheap": {"input": 1, "output": 2}}


@pytest.fixture
async def lab(tmp_path: Path, migrated_file: Path) -> AsyncIterator[Lab]:
    async with FaultyProvider() as fake:
        # The slow one is asked first as long as nobody knows how slow it is.
        fake.slow_seconds = 0.1
        servers = {"faulty": fake.base_url, "far": "http://198.51.100.1/v1"}
        given = {"servers": {name: {"base_url": url} for name, url in servers.items()}}
        aliases = {name: entry if isinstance(entry, dict) else {"models": entry} for name, entry in _ALIASES.items()}
        async with open_lab(
            tmp_path, migrated_file, aliases=aliases, prices=_PRICES, default_model="ok", **given
        ) as lab:
            yield lab


async def names(lab: Lab, alias: str) -> list[str]:
    return [model.full_name for model in (await lab.gateway.route(alias)).models]


async def test_in_order_and_as_the_default(lab: Lab) -> None:
    route = await lab.gateway.route(None)
    assert ([model.full_name for model in route.models], route.alias, route.asked) == (["faulty/ok"], "ok", None)
    assert (await lab.chat.answer(NewTurn(message="x"))).model == "faulty/ok"
    alone = await lab.gateway.route("faulty/ok")
    assert (alone.alias, alone.asked) == (None, "faulty/ok")


async def test_one_that_cannot_be_found_is_left_out_and_named(lab: Lab) -> None:
    answered = await ask(lab, "smart")
    assert answered.text == ANSWER
    assert answered.call.warnings == ["faulty/gone of the alias 'smart' cannot be asked now: Model not found."]
    with pytest.raises(ModelNotFound, match="nobody/x"):
        await lab.gateway.route("gone")


async def test_the_cheapest_is_first_and_an_unknown_price_last(lab: Lab) -> None:
    assert await names(lab, "cheap") == ["echo/echo", "far/cheap", "far/dear", "far/unknown"]


async def test_the_fastest_is_first_and_those_that_were_not_measured_before_it(lab: Lab) -> None:
    assert await names(lab, "fast") == ["faulty/slow", "faulty/ok", "echo/echo"]
    await ask(lab, "fast")
    assert await names(lab, "fast") == ["faulty/ok", "echo/echo", "faulty/slow"]
    await ask(lab, "fast")
    await ask(lab, "fast")
    assert await names(lab, "fast") == ["echo/echo", "faulty/ok", "faulty/slow"]


async def test_by_weight_the_first_is_by_chance_and_the_rest_by_weight(lab: Lab) -> None:
    firsts: Counter[str] = Counter()
    for _ in range(400):
        first, *rest = await names(lab, "mixed")
        firsts[first] += 1
        assert rest == [name for name in ("echo/echo", "faulty/auth", "faulty/ok") if name != first]
    assert 270 < firsts["echo/echo"] < 370  # 320 is expected; beyond these once in a million runs
    assert min(firsts["faulty/auth"], firsts["faulty/ok"]) > 5


async def test_a_mistyped_alias_is_named_as_near(lab: Lab) -> None:
    for typed in ("fsat", "FAST"):
        with pytest.raises(ModelNotFound, match="Did you mean fast"):
            await lab.gateway.route(typed)


async def test_no_alias_can_be_taken_for_a_provider(tmp_path: Path, migrated_file: Path) -> None:
    given: dict[str, Any] = {"servers": {"mine": {"base_url": "http://127.0.0.1:9/v1"}}}
    with pytest.raises(InvalidSettings, match="'mine' cannot be the name of an alias"):
        async with open_lab(tmp_path, migrated_file, aliases={"mine": {"models": ["echo/echo"]}}, **given):
            pytest.fail("the lab opened")
    providers = Providers(Settings.load(**given))
    for name in ("echo", "openai", "OpenAI", "claude", "mine/x", " "):
        with pytest.raises(InvalidSettings, match="AI_LAB_ALIASES"):
            check_aliases(Settings.load(aliases={name: {"models": ["echo/echo"]}}, **given), providers)
    check_aliases(Settings.load(aliases={"my/own": {"models": ["echo/echo"]}}, **given), providers)
    await providers.close()
