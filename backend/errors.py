"""One place where errors become answers: RFC 9457 problem details, and OpenAI's shape under ``/v1``."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from ai_lab.errors import LabError, MetricNotFound, ModelNotFound, NotFound, ServiceNotFound, Unauthorized
from ai_lab.logging.redaction import redact_text
from backend.answer_headers import answer_headers
from backend.security_headers import DEFAULT_HEADERS

PROBLEM_TYPE = "application/problem+json"
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "content_too_large", 415: "unsupported_media_type"}
_SHOWN_ERRORS = 20
#: What turns a request away at the door -> the reason under which it is counted.
_REFUSALS = {
    "unknown_host": "host",
    "foreign_origin": "origin",
    "unauthorized": "token",
    "forbidden": "scope",
    "rate_limited": "rate_limit",
}
_SHOWN_PATH = 200
#: What our own fields are called; a key that was sent as a name is longer or has more digits.
_FIELD = re.compile(r"[A-Za-z_-]{1,32}[0-9]{0,3}")

logger = logging.getLogger(__name__)


class Problem(BaseModel):
    """What went wrong (RFC 9457). ``code`` is stable: programs may test for it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    param: str | None = Field(default=None, description="The field at fault.")
    errors: list[dict[str, str]] | None = Field(default=None, description="One entry per bad field.")
    near_matches: list[str] | None = Field(default=None, description="Names that come closest.")


def install(app: FastAPI) -> None:
    """Let every error of ``app`` leave in one of the two shapes."""
    app.add_exception_handler(LabError, _lab_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


def problem_of(error: LabError, request_id: str) -> Problem:
    """Return the problem details of an error of ours."""
    near = error.near_matches if isinstance(error, MetricNotFound | ModelNotFound | ServiceNotFound) else None
    return Problem(
        title=error.title,
        status=error.status,
        # What is not there is named as it was asked for, and somebody may have put a key in the place of a name.
        detail=redact_text(error.detail) if isinstance(error, NotFound) else error.detail,
        code=error.code,
        request_id=request_id,
        param=error.param,
        near_matches=near,
    )


async def refuse(scope: Scope, receive: Receive, send: Send, error: LabError | HTTPException) -> None:
    """Answer a request (ASGI) with an error, for middleware: it stands outside of what catches the others."""
    if isinstance(error, LabError) and (reason := _REFUSALS.get(error.code)) and "app" in scope:
        scope["app"].state.lab.telemetry.instruments.request_refused(reason)
    request = Request(scope)
    response = await (_lab_error if isinstance(error, LabError) else _http_error)(request, error)
    await response(scope, receive, send)


def openai_error(problem: Problem) -> dict[str, Any]:
    """Return a problem in the shape that OpenAI's clients read."""
    kind = "invalid_request_error" if problem.status < 500 else "server_error"  # noqa: PLR2004 - class of a status
    if problem.status == 429:  # noqa: PLR2004 - HTTP's own number
        kind = "rate_limit_error"
    return {"error": {"message": problem.detail, "type": kind, "param": problem.param, "code": problem.code}}


async def _lab_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LabError)  # noqa: S101 - registered for this class alone
    headers = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_seconds))
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer realm="AI Lab"'
    if error.status >= 500:  # noqa: PLR2004 - class of a status
        logger.warning("request failed", extra={"code": error.code, "detail": error.detail})
    return _answer(request, problem_of(error, request.state.request_id), headers)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """Name each bad field and what is wrong with it, never what was sent: it may be a secret."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    errors = [
        {"field": ".".join(map(_shown, item["loc"][1:])) or _shown(item["loc"][0]), "message": _sentence(item)}
        for item in error.errors()[:_SHOWN_ERRORS]
    ]
    status = 400 if _is_openai(request) else 422
    problem = Problem(
        title="Invalid request",
        status=status,
        detail="; ".join(f"{item['field']}: {item['message']}" for item in errors),
        code="invalid_request",
        request_id=request.state.request_id,
        param=errors[0]["field"] if errors else None,
        errors=errors,
    )
    return _answer(request, problem)


def _shown(part: int | str) -> str:
    """Return a part of a field's path. Where names are free they were sent, and what looks like no name is left out."""
    return str(part) if isinstance(part, int) or _FIELD.fullmatch(part) else "(unknown)"


def _sentence(item: dict[str, Any]) -> str:
    """Return what is wrong, as people say it."""
    if item["type"] == "union_tag_not_found":
        return f"Say with {item['ctx']['discriminator']} which kind it is."
    if item["type"] == "union_tag_invalid":  # the text would repeat what was sent
        return f"Input should be one of: {item['ctx']['expected_tags']}"
    message: str = item["msg"]
    return message.removeprefix("Value error, ")


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    detail = str(error.detail)
    if error.status_code == 404:  # noqa: PLR2004 - HTTP's own number
        detail = f"There is no {redact_text(request.url.path, limit=_SHOWN_PATH)}. /docs lists what there is."
    headers = dict(error.headers or {})
    if error.status_code == 405:  # noqa: PLR2004 - HTTP's own number
        headers["Allow"] = ", ".join(_methods_of(request))
        detail = f"{request.method} is not offered here, but: {headers['Allow']}."
    problem = Problem(
        title=str(error.detail),
        status=error.status_code,
        detail=detail,
        code=_CODES.get(error.status_code, "invalid_request"),
        request_id=request.state.request_id,
    )
    return _answer(request, problem, headers)


def _methods_of(request: Request) -> list[str]:
    """Return the methods of this path; each of them is a route of its own, and Starlette names only the first one's.

    A path that is spelled out is none of those that a template with a name in its place stands for.
    """
    routes = (route for router in request.app.state.routers for route in router.routes)
    partly = [route for route in routes if route.matches(request.scope)[0] is Match.PARTIAL]
    exact = [route for route in partly if getattr(route, "path", None) == request.scope["path"]]
    return sorted({method for route in exact or partly for method in getattr(route, "methods", None) or ()})


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    """Answer for a fault of ours; the log has what happened."""
    logger.error("request failed", exc_info=error)
    problem = problem_of(
        LabError("Something went wrong on our side; the log has the details."), request.state.request_id
    )
    # The middleware that writes these onto answers stands inside the one that calls this.
    return _answer(request, problem, {"x-request-id": request.state.request_id, **DEFAULT_HEADERS})


def _answer(request: Request, problem: Problem, more: Mapping[str, str] | None = None) -> JSONResponse:
    call = getattr(request.state, "call", None)  # of a model, where a route had begun one
    headers = (answer_headers(call) if call else {}) | dict(more or {})
    if _is_openai(request):
        return JSONResponse(openai_error(problem), problem.status, headers)
    body = problem.model_dump(exclude_none=True)
    if request.url.path.startswith("/api-keys"):  # earlier clients read these two there
        body |= {"success": False, "message": problem.detail}
    return JSONResponse(body, problem.status, headers, media_type=PROBLEM_TYPE)


def _is_openai(request: Request) -> bool:
    return request.url.path.startswith("/v1/")
