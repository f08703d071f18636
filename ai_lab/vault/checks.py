"""Asks a service whether a key works: one request with the key, bounded in time and size, without redirects."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass

import httpx

from ai_lab import clock
from ai_lab.providers.http_errors import ServiceErrors
from ai_lab.providers.known_services import CUSTOM_CHECK, Check, KnownService, origin_of
from ai_lab.providers.outbound import Outbound
from ai_lab.vault.check_answers import Answer, Verdict, read_answer
from ai_lab.vault.schemas import WORKING, CheckReport

TIMEOUT_SECONDS = 10.0
_CONNECT_TIMEOUT_SECONDS = 5.0
_BODY_LIMIT_BYTES = 64 * 1024
_SENDABLE = re.compile(r"[!-~]+")
#: The body is read as it comes: a compressed one could grow without bound.
_HEADERS = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "ai-lab"}


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked, and where. ``proves``: a 200 tells by itself that the key is good."""

    check: Check
    url: str
    title: str
    proves: bool


async def check_key(
    service: KnownService | None,
    base_url: str,
    secret: str,
    outbound: Outbound,
    *,
    is_local: bool = False,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> CheckReport:
    """Return what the service says about a key. Nothing it does raises, and no text of it holds the key.

    Where a 200 may not depend on the key, the same request is sent once more without one: only where that is refused
    the key counts as good.

    Args:
        service: None for a server that is known by its address alone.
        base_url: where the key is used.
        secret: the key.
        outbound: the rules for addresses.
        is_local: the server may be on this machine or in a private network.
        timeout_seconds: for everything together.

    Raises:
        AddressRefused: nothing may be sent to this address.
    """
    request = _request(service, base_url)
    transport = outbound.transport(request.url, is_local=is_local or bool(service and service.is_local))
    began, answer, latency_ms = time.perf_counter(), None, None
    if not _SENDABLE.fullmatch(secret):
        verdict = Verdict("invalid", "This is no key: it is empty, or holds signs that no request can carry.")
        return _report(verdict, None, None)
    timeout = httpx.Timeout(timeout_seconds, connect=min(_CONNECT_TIMEOUT_SECONDS, timeout_seconds))
    try:
        async with (
            asyncio.timeout(timeout_seconds),
            httpx.AsyncClient(transport=transport, timeout=timeout, follow_redirects=False, trust_env=False) as client,
        ):
            answer = await _ask(client, request, secret)
            latency_ms = 1000 * (time.perf_counter() - began)
            verdict = read_answer(request.title, request.check.reading, answer, secret)
            if verdict.result in WORKING and not request.proves:
                verdict = await _against_control(client, request, verdict)
    except (TimeoutError, httpx.TimeoutException):
        verdict = Verdict(
            "unreachable", f"{request.title} did not answer within {timeout_seconds:g} s. Test again later."
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        verdict = Verdict("unreachable", _reason(request, error))
    return _report(verdict, answer, latency_ms)


async def _ask(client: httpx.AsyncClient, request: _Request, secret: str | None) -> Answer:
    """Send the request, with the key or without, and return as much of the answer as is read."""
    check = request.check
    headers = {**_HEADERS, **dict(check.headers)}
    if secret is not None:
        headers[check.header] = f"{check.scheme}{secret}"
    body = b""
    async with client.stream(check.method, request.url, headers=headers) as response:
        if response.headers.get("content-encoding", "identity") == "identity":
            async for piece in response.aiter_raw():
                body += piece[: _BODY_LIMIT_BYTES - len(body)]
                if len(body) >= _BODY_LIMIT_BYTES:
                    break
        return Answer(response.status_code, response.headers, body)


async def _against_control(client: httpx.AsyncClient, request: _Request, verdict: Verdict) -> Verdict:
    """Return the verdict where a request without a key is refused, else that nothing is known."""
    try:
        control = await _ask(client, request, None)
    except httpx.HTTPError:
        return _unproven(request, "answered, but a second request without a key, to compare, failed. Test again later.")
    compared = read_answer(request.title, request.check.reading, control, "")
    if control.status in {401, 403} or compared.result in {"invalid", "blocked"}:
        return verdict
    if control.status < 400:  # noqa: PLR2004  # neither a refusal nor a fault
        return _unproven(request, "can be reached, but answers everybody: that says nothing about the key.")
    return _unproven(
        request, f"answered, but a second request without a key, to compare, brought HTTP {control.status}."
    )


def _unproven(request: _Request, what: str) -> Verdict:
    return Verdict("unknown", f"{request.title} {what}")


def _request(service: KnownService | None, base_url: str) -> _Request:
    """Return what to ask: at the service's own address, or below the user's."""
    title = service.title if service else f"The server at {origin_of(base_url)}"
    check = service.check if service else CUSTOM_CHECK
    is_own = service is not None and service.is_own(base_url)
    if is_own and check.url:
        return _Request(check, check.url, title, proves=not check.is_public_when_keyless)
    if check.path is None:
        check = CUSTOM_CHECK
    url = _below(base_url, check.path or "")
    return _Request(check, url, title, proves=is_own and not check.is_public_when_keyless)


def _below(base_url: str, path: str) -> str:
    """Join them; what the base ends with and the path begins with, such as ``/v1``, stands there once."""
    base = base_url.partition("?")[0].partition("#")[0].rstrip("/")
    there = base.partition("://")[2].split("/")[1:]
    parts = path.strip("/").split("/")
    for shared in range(min(len(parts) - 1, len(there)), 0, -1):
        if there[-shared:] == parts[:shared]:
            parts = parts[shared:]
            break
    return "/".join([base, *parts])


def _reason(request: _Request, error: httpx.HTTPError | httpx.InvalidURL) -> str:
    """Return why there is no answer; errors of a connection do not know the key."""
    return ServiceErrors(request.title, origin_of(request.url)).from_httpx(error).detail


def _report(verdict: Verdict, answer: Answer | None, latency_ms: float | None) -> CheckReport:
    return CheckReport(
        result=verdict.result,
        message=verdict.message,
        status=answer.status if answer else None,
        latency_ms=None if latency_ms is None else round(latency_ms, 1),
        tested_at=clock.now(),
        details=verdict.details,
    )
