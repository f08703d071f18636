"""``/gateway``: how requests get to models, and which models are left alone after failures."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import Response

from ai_lab.errors import NotFound
from ai_lab.gateway.names import unknown_names
from ai_lab.gateway.schemas import BreakerList, BreakerRules, GatewayOverview, RetryRules
from backend.deps import LabDep

router = APIRouter(prefix="/gateway", tags=["gateway"])


@router.get("")
async def overview(lab: LabDep) -> GatewayOverview:
    """Return the aliases, the limits of services and how much of them is in use here, and the rules for failures."""
    settings = lab.settings
    return GatewayOverview(
        aliases=dict(lab.gateway.aliases()),
        services=lab.queue.uses(),
        retry=RetryRules(
            attempts=settings.retry_attempts,
            wait_seconds=settings.retry_wait_seconds,
            deadline_seconds=settings.deadline_seconds,
        ),
        breaker=BreakerRules(failures=settings.breaker_failures, seconds=settings.breaker_seconds),
        warnings=unknown_names(settings, lab.providers),
    )


@router.get("/breakers")
async def breakers(lab: LabDep) -> BreakerList:
    """Return the models that failed lately, and when those that are left alone are tried again."""
    return BreakerList(breakers=await lab.breakers.states())


@router.delete("/breakers/{provider}/{model:path}", status_code=204, response_class=Response)
async def close_breaker(
    lab: LabDep,
    provider: Annotated[str, Path(max_length=64, description="As GET /gateway/breakers lists it.")],
    model: Annotated[str, Path(max_length=255, description="As GET /gateway/breakers lists it.")],
) -> None:
    """Forget that a model failed, so that the next request tries it."""
    if not await lab.breakers.reset(provider, model):
        raise NotFound("No failures of this model are known. GET /gateway/breakers lists those that failed.")
