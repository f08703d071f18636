"""``ai-lab status``: one look at a server, for a person or, as JSON, for a program."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from pydantic import BaseModel
from rich.console import Console

from ai_lab.cli.address import Address, Trouble, explain, find_address
from ai_lab.cli.figures import signs_for
from ai_lab.cli.reading import LIMIT_SECONDS, Reading, look
from ai_lab.cli.status_screen import draw, draw_trouble
from ai_lab.client import AsyncLabClient
from ai_lab.errors import LabError


def show_status(url: str | None, *, as_json: bool) -> int:
    """Print how the server is.

    Returns:
        The exit code: 0 healthy or degraded, 2 unhealthy or no answer.

    Raises:
        InvalidSettings: no address can be made of ``url`` or of the settings.
    """
    address = find_address(url)
    console = Console(highlight=False)
    signs = signs_for(console.encoding)
    try:
        reading = asyncio.run(_look(address.url))
    except LabError as error:
        trouble = explain(address, error)
        if as_json:
            _print_json(console, _trouble_as_json(address, trouble))
        else:
            console.print(draw_trouble(trouble, signs))
        return 2
    if as_json:
        _print_json(console, _as_json(address, reading))
    else:
        console.print(draw(address, reading, console.size, signs))
    return 2 if reading.health.status == "unhealthy" else 0


async def _look(url: str) -> Reading:
    async with AsyncLabClient(url, timeout_seconds=LIMIT_SECONDS) as client:
        return await look(client, with_models=True)


def _as_json(address: Address, reading: Reading) -> dict[str, Any]:
    return {
        "url": address.url,
        "status": reading.health.status,
        "checked_at": reading.taken_at.isoformat(),
        "health": _plain(reading.health),
        "metrics": _plain(reading.metrics),
        "performance": _plain(reading.performance),
        "models": reading.models,
        "missing": reading.missing,
    }


def _trouble_as_json(address: Address, trouble: Trouble) -> dict[str, Any]:
    return {"url": address.url, "status": "unreachable", "detail": trouble.what, "remedy": trouble.remedy}


def _plain(part: BaseModel | None) -> Any:
    return None if part is None else part.model_dump(mode="json", by_alias=True)


def _print_json(console: Console, value: dict[str, Any]) -> None:
    """Print without colour and without breaking lines; ASCII alone, so that it passes through any pipe."""
    console.file.write(json.dumps(value, indent=2) + "\n")
