"""A lab in this process, and calls through its gateway as its own parts make them."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ai_lab.errors import LabError
from ai_lab.gateway import Attempt, Call
from ai_lab.lab import Lab
from ai_lab.providers import ChatRequest, Chunk, Message, ResolvedModel
from ai_lab.settings import Settings


@dataclass
class Answered:
    """What a call gave: its pieces, and what ended it where that was an error."""

    call: Call
    chunks: list[Chunk] = field(default_factory=list)
    error: LabError | None = None

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def attempts(self) -> list[Attempt]:
        return self.call.attempts

    @property
    def outcomes(self) -> list[tuple[str, str | None]]:
        """Return the model and the outcome of each attempt."""
        return [(f"{attempt.provider}/{attempt.model}", attempt.outcome) for attempt in self.attempts]


async def ask(lab: Lab, model: str | None, message: str = "hello", **more: Any) -> Answered:
    """Ask a model or alias; an error is returned, too."""
    route = await lab.gateway.route(model, local_only=more.get("local_only", False))

    async def make_request(model: ResolvedModel, _shrink: int) -> ChatRequest:
        return ChatRequest(model.model, [Message("user", message)])

    answered = Answered(lab.gateway.begin(route, make_request, source="openai", **more))
    try:
        async with aclosing(lab.gateway.stream(answered.call)) as chunks:
            async for chunk in chunks:
                answered.chunks.append(chunk)
    except LabError as error:
        answered.error = error
    return answered


@asynccontextmanager
async def open_lab(folder: Path, migrated_file: Path, **settings: Any) -> AsyncIterator[Lab]:
    """Open a lab on a fresh SQLite database that hardly waits before it asks again."""
    file = folder / "lab.sqlite"
    shutil.copy(migrated_file, file)
    given = {"retry_wait_seconds": 0.01, "enable_metrics": False, "default_model": "echo/echo"} | settings
    loaded = Settings.load(data_dir=folder, database_url=f"sqlite+aiosqlite:///{file}", **given)
    async with Lab.open(loaded) as lab:
        yield lab
