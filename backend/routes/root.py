"""``GET /``: what this server is."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel

from ai_lab import __version__
from backend.deps import LabDep

router = APIRouter(tags=["root"])
_FEATURES = ["chat", "conversations", "agents", "openai", "metrics", "performance", "benchmarks", "api-keys"]
_LINKS = {
    "docs": "/docs",
    "openapi": "/openapi.json",
    "health": "/health",
    "metrics": "/metrics",
    "performance": "/performance/summary",
    "benchmarks": "/benchmarks",
    "api_keys": "/api-keys",
    "models": "/v1/models",
}


class Welcome(BaseModel):
    """What this server is and where to go from here."""

    name: str = "AI Lab"
    version: str = __version__
    status: str = "running"
    features: list[str] = _FEATURES
    links: dict[str, str] = _LINKS
    default_model: str | None


@router.get("/", response_model=Welcome, responses={307: {"description": "A browser is sent to the docs."}})
async def welcome(lab: LabDep, accept: Annotated[str, Header()] = "*/*") -> Welcome | Response:
    """Say what this server is; a browser is sent to a page."""
    if accept.startswith("text/html"):
        return RedirectResponse("/docs")
    return Welcome(default_model=await lab.providers.default_model())
