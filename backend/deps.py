"""What routes ask for, by type."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request

from ai_lab.lab import Lab
from ai_lab.shapes import SessionId


async def _lab(request: Request) -> Lab:  # a plain function would be run in a thread, for every request
    lab: Lab = request.app.state.lab
    return lab


LabDep = Annotated[Lab, Depends(_lab)]
SessionPath = Annotated[SessionId, Path(description="The conversation's or agent's id, chosen by you or made by us.")]
Limit = Annotated[int, Query(ge=1, le=100, description="At most this many.")]
After = Annotated[str | None, Query(max_length=2000, description="The `after` of the page before.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Send the same key again after a lost answer, and the work is done once.",
    ),
]
