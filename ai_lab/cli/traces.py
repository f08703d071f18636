"""``ai-lab trace``: what its commands do; the exit codes are those of ``traces_command.py``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from ai_lab.cli.costs_screen import wide_console
from ai_lab.cli.door import say
from ai_lab.cli.on_server import done_on_server
from ai_lab.cli.traces_screen import draw_replay, draw_trace, draw_traces
from ai_lab.client import trace_calls as calls
from ai_lab.client.connection import AsyncConnection
from ai_lab.traces.schemas import TraceSummary

_PAGE = 100
#: A model may think for a long time.
_REPLAY_SECONDS = 600.0


def list_traces(filters: Mapping[str, str | None], *, limit: int, as_json: bool, url: str | None) -> int:
    """Print the newest traces."""

    async def work(server: AsyncConnection) -> None:
        found: list[TraceSummary] = []
        after: str | None = None
        while len(found) < limit:
            page = await server.send(calls.page(after, limit=min(_PAGE, limit - len(found)), **filters))
            found += page.data
            if not (after := page.after):
                break
        if as_json:
            sys.stdout.write(json.dumps([trace.model_dump(mode="json") for trace in found], indent=2) + "\n")
        elif found:
            wide_console().print(draw_traces(found))
        elif page.kept_days:
            say("There is no such trace." if any(filters.values()) else "No model was asked yet.")
        else:
            say("This server keeps no traces: AI_LAB_TRACE_DAYS is 0.")

    return done_on_server(work, url)


def show_trace(identifier: str, *, as_json: bool, url: str | None) -> int:
    """Print one trace as a tree."""

    async def work(server: AsyncConnection) -> None:
        found = await server.send(calls.get(identifier))
        if as_json:
            sys.stdout.write(found.model_dump_json(indent=2) + "\n")
        else:
            wide_console().print(draw_trace(found))

    return done_on_server(work, url)


def replay_trace(identifier: str, model: str, *, as_json: bool, url: str | None) -> int:
    """Ask again and print both answers."""

    async def work(server: AsyncConnection) -> None:
        both = await server.send(calls.replay(identifier, model))
        if as_json:
            sys.stdout.write(both.model_dump_json(indent=2) + "\n")
        else:
            wide_console().print(draw_replay(both))

    return done_on_server(work, url, timeout_seconds=_REPLAY_SECONDS)
