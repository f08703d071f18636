"""Rotates a vault's data keys, or changes its root key, again and again, until it is killed.

Run: rotate_program.py DATABASE_URL CONFIG_DIR rotate|rekey. It says ``begun`` once it is about to.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy.engine import make_url

from ai_lab.database import Database
from ai_lab.settings import Settings
from ai_lab.vault.rotation import Pace, Rotator
from ai_lab.vault.schemas import Rotation
from ai_lab.vault.state import VaultState

_LOOK_SECONDS = 0.02


@asynccontextmanager
async def opened(url: str, config_dir: Path, *, goes_on: bool = True) -> AsyncIterator[tuple[VaultState, Rotator]]:
    """Open the inner part of a vault, with a rotation that never rests; ``goes_on`` with what is unfinished."""
    database = Database(make_url(url))
    state = VaultState(Settings(config_dir=config_dir), database)
    rotator = Rotator(state, Pace(rows_at_once=3, rest_share=0))
    try:
        await state.load()
        if goes_on:
            await rotator.resume()
        yield state, rotator
    finally:
        await rotator.close()
        await database.close()


def rotation_of(state: VaultState) -> Rotation | None:
    """Return how far the newest rotation is."""
    return Rotation.model_validate(state.stored.rotation) if state.stored and state.stored.rotation else None


async def complete(state: VaultState) -> None:
    """Wait for the end of the rotation that this process drives."""
    while (rotation := rotation_of(state)) and rotation.status == "running":  # noqa: ASYNC110 - as users do
        await asyncio.sleep(_LOOK_SECONDS)


async def _run(url: str, config_dir: Path, what: str) -> None:
    async with opened(url, config_dir) as (state, rotator):
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        while True:
            if what == "rotate":
                await rotator.rotate(actor="test")
                await complete(state)
            else:
                await rotator.rekey(actor="test")


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
