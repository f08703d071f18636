"""Clients that leave at random moments, and what is left of them in the server afterwards."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from ai_lab.providers.embedded import Embedded
from ai_lab.settings import Settings
from tests.connection import Connection
from tests.fakes.openai_server import CHAT, OpenAIServer, delta, stream_reply
from tests.lab_server import LabServer, serve_lab

_CLIENTS = 10
_LONGEST_SECONDS = 1.5
#: Kept connections to models' servers, at most two of them to the engine, come and go; a leak grows with the cuts.
_KEPT_CONNECTIONS = 3
_MODELS = ("embedded/SmolLM2-135M-Instruct.Q4_1", "hanging/tiny")
#: (path, whether it streams); each with each model.
_WAYS = (("/chat", True), ("/chat", False), ("/v1/chat/completions", True), ("/v1/chat/completions", False))


@dataclass(frozen=True)
class Counts:
    """What the server holds at one moment."""

    tasks: int
    descriptors: int
    pooled_connections: int
    answers: int
    engine_slots: int

    def exceeds(self, base: Counts) -> list[str]:
        """Return the names of what there is more of than in ``base``."""
        allowed = {"descriptors": _KEPT_CONNECTIONS}
        return [name for name, value in vars(self).items() if value > getattr(base, name) + allowed.get(name, 0)]


@dataclass
class CutReport:
    """What was cut and what became of it."""

    cut: Counter[str] = field(default_factory=Counter)
    whole: int = 0
    base: Counts | None = None
    after: Counts | None = None
    calm_seconds: float | None = None
    #: From the cut (or, where that came first, from the request's arrival there) to the model's server seeing it.
    upstream_seconds: list[float] = field(default_factory=list)
    stored: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


async def cut_streams(data_dir: Path, count: int, *, seed: int, calm_within_seconds: float) -> CutReport:
    """Cut ``count`` answers, ten at a time, of the real engine and of a scripted model that never ends."""
    report = CutReport()
    chance = random.Random(seed)  # noqa: S311 - for moments, not for secrets
    async with OpenAIServer() as model:
        model.script(CHAT, stream_reply(*_pieces(), ending="hang"))
        settings = Settings(
            data_dir=data_dir,
            servers={"hanging": {"base_url": model.base_url}},
            ollama_host="http://127.0.0.1:9",
            database_url=None,
            rate_limits=False,
        )
        async with serve_lab(settings) as server:
            client = _Clients(server, model, report)
            watching = asyncio.create_task(client.watch_upstream())
            await asyncio.gather(*(client.cut_one(way, 1.0) for way in _every_way()))  # loads and opens everything
            client.forget()
            report.base = await _settled(server)
            turns = itertools.cycle(_every_way())
            plan = [(next(turns), chance.uniform(0, _LONGEST_SECONDS)) for _ in range(count)]
            chance.shuffle(plan)
            await asyncio.gather(*(client.cut_many(plan[first::_CLIENTS]) for first in range(_CLIENTS)))
            await _wait_for_calm(server, report, calm_within_seconds)
            await client.check_upstream()
            await client.check_stored()
            watching.cancel()
            await asyncio.wait({watching})
    return report


class _Clients:
    def __init__(self, server: LabServer, model: OpenAIServer, report: CutReport) -> None:
        self._server = server
        self._model = model
        self._report = report
        self._numbers = itertools.count()
        self._seen: dict[str, str] = {}
        self._cut_at: dict[str, float] = {}
        self._arrived_at: dict[str, float] = {}
        self._noticed_at: dict[str, float] = {}

    def forget(self) -> None:
        """Leave the warm-up out of the report."""
        for known in (self._seen, self._cut_at, self._arrived_at, self._noticed_at):
            known.clear()
        self._report.cut.clear()
        self._report.whole = 0

    async def cut_many(self, plan: list[tuple[tuple[str, bool, str], float]]) -> None:
        for way, after_seconds in plan:
            await self.cut_one(way, after_seconds)

    async def cut_one(self, way: tuple[str, bool, str], after_seconds: float) -> None:
        """Ask in one of the ways and leave after a while."""
        path, streams, model = way
        name = f"cut-{next(self._numbers)}"
        connection = Connection(self._server.url)
        asking = asyncio.create_task(self._ask(connection, path, model, name, streams=streams))
        await asyncio.wait({asking}, timeout=after_seconds)
        if asking.done():
            self._report.whole += 1
            connection.close()
            if error := asking.exception():
                self._report.faults.append(f"{name} {way}: {error!r}")
            return
        self._cut_at[name] = time.monotonic()
        connection.close()
        asking.cancel()
        await asyncio.wait({asking})
        self._report.cut[f"{path}{' stream' if streams else ''} {model.partition('/')[0]}"] += 1

    async def _ask(self, connection: Connection, path: str, model: str, name: str, *, streams: bool) -> None:
        said = f"{name}: tell me a long story about a lighthouse."
        if path == "/chat":
            body: dict[str, Any] = {"message": said, "session_id": name, "options": {"max_tokens": 300}}
            self._seen[name] = ""
        else:
            body = {"messages": [{"role": "user", "content": said}], "max_tokens": 300}
        body |= {"model": model, "stream": streams}
        if not streams:
            reply = await connection.request("POST", path, body)
            assert reply.status == 200, reply
            return
        async for event in connection.stream(path, body):
            assert event.name in {"", "message.delta", "message.done"}, event
            if event.name == "message.delta":
                self._seen[name] += event.data["delta"]

    async def watch_upstream(self) -> None:
        """Note when the model's server gets each request and when it sees that its client is gone."""
        watching: set[asyncio.Task[None]] = set()
        try:
            while True:
                with suppress(TimeoutError):
                    request = await self._model.next_request()
                    if request.path == CHAT:
                        name = request.json()["messages"][-1]["content"].partition(":")[0]
                        self._arrived_at[name] = time.monotonic()
                        watching.add(asyncio.create_task(self._note_end(name, request.disconnected)))
        finally:
            for task in watching:
                task.cancel()

    async def _note_end(self, name: str, disconnected: asyncio.Event) -> None:
        await disconnected.wait()
        self._noticed_at[name] = time.monotonic()

    async def check_upstream(self) -> None:
        """See that the model's server saw every cut."""
        for name, arrived_at in self._arrived_at.items():
            noticed_at = self._noticed_at.get(name)
            if name not in self._cut_at or noticed_at is None:
                self._report.faults.append(f"{name}: its model was never told to stop")
            else:
                self._report.upstream_seconds.append(noticed_at - max(self._cut_at[name], arrived_at))

    async def check_stored(self) -> None:
        """See that what a client had read of an answer is kept, and that the answer has ended."""
        async with Connection(self._server.url) as connection:
            for name, seen in self._seen.items():
                reply = await connection.request("GET", f"/conversations/{name}/messages")
                answer = reply.json()["data"][-1] if reply.status == 200 else None
                status = answer["status"] if answer else "not begun"
                self._report.stored[status] += 1
                expected = {"incomplete"} if name in self._cut_at else {"complete", "incomplete"}
                if answer is None and not seen and name in self._cut_at:
                    continue  # it left before the question was read
                if answer is None or status not in expected | {"complete"} or not answer["content"].startswith(seen):
                    self._report.faults.append(f"{name}: read {seen!r}, kept {answer}")


async def count(server: LabServer) -> Counts:
    """Return what the server holds now."""
    gc.collect()
    embedded = server.lab.providers.get("embedded")
    assert isinstance(embedded, Embedded)
    return Counts(
        engine_slots=await embedded.slots_busy(),
        tasks=len(asyncio.all_tasks()),
        descriptors=psutil.Process().num_fds(),
        pooled_connections=server.lab.database.connections_in_use(),
        answers=server.lab.chat.running + server.lab.completions.running,
    )


async def _settled(server: LabServer) -> Counts:
    """Return what is held once it changes no more."""
    before = await count(server)
    for _ in range(50):
        await asyncio.sleep(0.2)
        now = await count(server)
        if now == before and not (now.answers or now.engine_slots):
            return now
        before = now
    raise AssertionError(f"the server does not come to rest: {before}")


async def _wait_for_calm(server: LabServer, report: CutReport, within_seconds: float) -> None:
    assert report.base
    started = time.monotonic()
    while True:
        report.after = await count(server)
        more = report.after.exceeds(report.base)
        if not more:
            report.calm_seconds = time.monotonic() - started
            return
        if time.monotonic() - started > within_seconds:
            report.faults.append(f"more than before after {within_seconds:g} s: {', '.join(more)}")
            return
        await asyncio.sleep(0.05)


def _every_way() -> list[tuple[str, bool, str]]:
    return [(path, streams, model) for model in _MODELS for path, streams in _WAYS]


def _pieces() -> list[bytes | float]:
    return [part for number in range(20) for part in (delta(content=f"piece {number} "), 0.05)]
