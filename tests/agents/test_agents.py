import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.engine import make_url

from ai_lab.agents import Agents, NewAgentState
from ai_lab.database import Database
from ai_lab.errors import AgentStateNotFound, IdempotencyKeyReused


@pytest.fixture
async def agents(database_url: str) -> AsyncIterator[Agents]:
    database = Database(make_url(database_url))
    yield Agents(database)
    await database.close()


async def test_the_newest_state_is_current_and_none_is_lost(agents: Agents) -> None:
    for number in range(5):
        await agents.save("a", NewAgentState(message=str(number), status="complete", data={"n": number}))
    current = await agents.current("a")
    assert (current.message, current.sequence, current.data) == ("4", 5, {"n": 4})
    first = await agents.history("a", limit=3)
    rest = await agents.history("a", limit=3, after=first.after)
    assert [state.message for state in [*first.data, *rest.data]] == ["4", "3", "2", "1", "0"]


async def test_many_writers_at_once_lose_no_state(agents: Agents) -> None:
    await asyncio.gather(*(agents.save("a", NewAgentState(message=str(number))) for number in range(100)))
    seen, after = [], None
    while True:
        page = await agents.history("a", limit=50, after=after)
        seen += page.data
        after = page.after
        if after is None:
            break
    assert [state.sequence for state in seen] == list(range(100, 0, -1))
    assert {state.message for state in seen} == {str(number) for number in range(100)}


async def test_an_unknown_agent_has_a_clear_answer(agents: Agents) -> None:
    with pytest.raises(AgentStateNotFound, match="'nobody'"):
        await agents.current("nobody")
    with pytest.raises(AgentStateNotFound):
        await agents.history("nobody")


async def test_a_repeated_key_saves_once(agents: Agents) -> None:
    state = NewAgentState(message="m", data={"x": 1})
    first = await agents.save("a", state, "k")
    assert (await agents.save("a", state, "k")).state_id == first.state_id
    with pytest.raises(IdempotencyKeyReused):
        await agents.save("a", NewAgentState(message="other"), "k")
