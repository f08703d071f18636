"""Whether a service answers, asked without spending a token."""

from __future__ import annotations

import asyncio

from ai_lab import clock
from ai_lab.errors import AddressRefused, LabError, ProviderAuthFailed, ProviderTimeout, ProviderUnavailable
from ai_lab.providers.http_service import HttpService
from ai_lab.providers.types import Check

_CHECK_TIMEOUT_SECONDS = 1.0


async def check_service(service: HttpService, path: str) -> Check:
    """Return whether ``service`` answers a GET of ``path`` (its list of models) within a second."""
    start_ms = clock.monotonic_ms()
    detail = "answers"
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT_SECONDS):
            await service.fetch("GET", path)
    except TimeoutError:
        detail = f"{service.name} did not answer within {_CHECK_TIMEOUT_SECONDS:g} s."
        return Check(reachable=False, detail=detail, remedy="Wait for it, or see whether this machine is online.")
    except (AddressRefused, ProviderUnavailable, ProviderTimeout) as error:
        return Check(reachable=False, detail=error.detail, remedy="See whether it is down, or correct its address.")
    except ProviderAuthFailed as error:
        return Check(reachable=False, detail=error.detail, remedy="Correct its API key.")
    except LabError as error:  # it answers, but not with a list
        detail = error.detail
    return Check(reachable=True, detail=detail, latency_ms=clock.monotonic_ms() - start_ms)
