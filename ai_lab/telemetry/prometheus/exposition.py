"""Metrics as Prometheus reads them: its text format, and OpenMetrics with exemplars where that is asked for."""

from __future__ import annotations

import asyncio

from ai_lab.telemetry.prometheus.registry import Registry

TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_TEXT, _OPENMETRICS, _PROTOBUF = "text/plain", "application/openmetrics-text", "application/vnd.google.protobuf"


def wants_exposition(accept: str) -> bool:
    """Return whether a request with this Accept header comes from Prometheus or its like.

    ``*/*``, a browser and a client that names JSON (as JavaScript's do, with text/plain after it) want JSON.
    """
    weights = _weights(accept)
    wanted = max(weights.get(name, 0.0) for name in (_TEXT, _OPENMETRICS, _PROTOBUF))
    return wanted > weights.get("application/json", 0.0)


def wants_openmetrics(accept: str) -> bool:
    """Return whether OpenMetrics is asked for, rather than the text format."""
    weights = _weights(accept)
    return weights.get(_OPENMETRICS, 0.0) > 0 and weights[_OPENMETRICS] >= weights.get(_TEXT, 0.0)


class Exposition:
    """Renders a registry in a worker thread; scrapes that come at the same time share one rendering."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._running: dict[bool, asyncio.Task[bytes]] = {}

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Return the text and its content type, in the format that ``accept`` prefers."""
        openmetrics = wants_openmetrics(accept)
        running = self._running.get(openmetrics)
        if running is None:
            running = asyncio.create_task(asyncio.to_thread(self._rendered, openmetrics=openmetrics))
            self._running[openmetrics] = running
            running.add_done_callback(lambda _: self._running.pop(openmetrics))
        text = await asyncio.shield(running)  # a scraper that leaves takes nothing from the others
        return text, OPENMETRICS_TYPE if openmetrics else TEXT_TYPE

    def _rendered(self, *, openmetrics: bool) -> bytes:
        return "".join(self._registry.text(openmetrics=openmetrics)).encode()


def _weights(accept: str) -> dict[str, float]:
    """Return the weight (0 to 1) of every media type in an Accept header; of one named twice, the greater."""
    weights: dict[str, float] = {}
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        given = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
        try:
            weight = float(given)
        except ValueError:
            weight = 0.0
        weights[name] = max(weight, weights.get(name, 0.0))
    return weights
