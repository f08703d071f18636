"""What must not leave this machine does not: models elsewhere are left out, and never asked by chance."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ai_lab.chat import NewTurn
from ai_lab.conversations.schemas import NewConversation
from ai_lab.errors import LocalOnly
from ai_lab.lab import Lab
from tests.fakes.faulty_provider import ANSWER, FaultyProvider
from tests.gateway.asking import ask, open_lab


@pytest.fixture
async def lab(tmp_path: Path, migrated_file: Path) -> AsyncIterator[Lab]:
    async with FaultyProvider() as fake:
        servers = {"near": {"base_url": fake.base_url}, "far": {"base_url": "http://198.51.100.1/v1"}}
        aliases = {
            "both": {"models": ["far/any", "near/ok"]},
            "failing": {"models": ["near/auth", "far/any"]},
            "away": {"models": ["far/any"]},
        }
        async with open_lab(tmp_path, migrated_file, servers=servers, aliases=aliases) as lab:
            yield lab


async def test_models_elsewhere_are_left_out_of_an_alias(lab: Lab) -> None:
    assert [model.full_name for model in (await lab.gateway.route("both")).models] == ["far/any", "near/ok"]
    answered = await ask(lab, "both", local_only=True)
    assert (answered.text, answered.outcomes) == (ANSWER, [("near/ok", "ok")])
    failed = await ask(lab, "failing", local_only=True)  # and nobody else is asked instead
    assert failed.outcomes == [("near/auth", "failed")]


async def test_where_none_is_here_local_ones_are_named(lab: Lab) -> None:
    for name in ("away", "far/any"):
        with pytest.raises(LocalOnly, match="such as near/ok") as caught:
            await lab.gateway.route(name, local_only=True)
        assert caught.value.status == 400
        assert "far/" not in caught.value.detail.partition("Choose")[2]


async def test_a_route_that_was_made_without_it_asks_nobody_elsewhere(lab: Lab) -> None:
    route = await lab.gateway.route("away")
    made = (await ask(lab, "echo/echo")).call.make_request
    call = lab.gateway.begin(route, made, source="openai", local_only=True)
    with pytest.raises(LocalOnly):
        await anext(lab.gateway.stream(call))
    assert call.attempts == []


async def test_a_conversation_stays_local_only(lab: Lab) -> None:
    await lab.conversations.create(NewConversation(session_id="s", local_only=True))
    answer = await lab.chat.answer(NewTurn(message="x", session_id="s", model="both"))
    assert (answer.response, answer.model, answer.attempts) == (ANSWER, "near/ok", 1)
    with pytest.raises(LocalOnly):
        await lab.chat.answer(NewTurn(message="x", session_id="s", model="far/any"))
    assert len((await lab.conversations.messages("s")).data) == 2
